//! Where parameters come from: memory, a file, a generator of random numbers.
//!
//! Whoever loads a program asks for them one at a time, so that none need lie in memory beside what is
//! made of it.

use std::collections::BTreeMap;

use crate::memory::OutOfMemory;
use crate::program::{Port, Program};
use crate::session::LoadError;
use crate::session::bind::{Bound, slot};
use crate::tensor::{Tensor, TensorView};

/// Named tensors that are read one at a time.
pub trait Parameters: Sync {
    /// Name, element type and shape of each.
    fn ports(&self) -> Vec<Port>;

    /// The tensor of that name, if it lies in memory: it is read where it lies.
    fn in_memory(&self, name: &str) -> Option<TensorView<'_>> {
        let _ = name;
        None
    }

    /// Writes the elements of a tensor, one of [`ports`](Parameters::ports): row-major, in this machine's
    /// byte order, truth values as 0 and 1. `to` has the size of all of them. At most `threads` threads work.
    ///
    /// # Errors
    /// In words, what keeps it from being read.
    fn fill(&self, port: &Port, to: &mut [u8], threads: usize) -> Result<(), String>;

    /// Writes some of the elements, from number `first` on, as many as `to` has room for; false if a tensor
    /// can only be had as a whole. Parts are asked for in their order, from the first on.
    ///
    /// # Errors
    /// As for [`fill`](Parameters::fill).
    fn fill_part(&self, port: &Port, first: usize, to: &mut [u8], threads: usize) -> Result<bool, String> {
        let _ = (port, first, to, threads);
        Ok(false)
    }
}

impl Parameters for BTreeMap<String, Tensor> {
    fn ports(&self) -> Vec<Port> {
        let port = |(name, t): (&String, &Tensor)| Port {
            name: name.clone(),
            dtype: t.dtype(),
            shape: t.shape().to_vec(),
        };
        self.iter().map(port).collect()
    }

    fn in_memory(&self, name: &str) -> Option<TensorView<'_>> {
        self.get(name).map(Tensor::view)
    }

    fn fill(&self, port: &Port, to: &mut [u8], _threads: usize) -> Result<(), String> {
        let tensor = self.get(&port.name).ok_or("it is missing")?;
        let elements = Bound::new(&tensor.view(), &port.name).map_err(|e| e.to_string())?;
        if elements.bytes().len() != to.len() {
            return Err(format!("expected {} bytes, found {}", to.len(), elements.bytes().len()));
        }
        to.copy_from_slice(elements.bytes());
        Ok(())
    }
}

/// One of the tensors, in memory of its own.
///
/// # Errors
/// If there is not enough memory for it, or it cannot be read.
pub fn read(parameters: &dyn Parameters, port: &Port, threads: usize) -> Result<Tensor, LoadError> {
    let refused = || OutOfMemory {
        bytes: Program::port_bytes(port).unwrap_or(usize::MAX),
        purpose: format!("parameter `{}`", port.name),
    };
    let mut tensor = Tensor::try_zeros(port.dtype, &port.shape).ok_or_else(refused)?;
    let mut slot = slot(&mut tensor)?;
    let unreadable = |problem| LoadError::Unreadable { name: port.name.clone(), problem };
    parameters.fill(port, slot.bytes_mut(), threads).map_err(unreadable)?;
    slot.finish();
    Ok(tensor)
}
