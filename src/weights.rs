//! Named tensors: what a network has learnt.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nnc_runtime::init::Fresh;
use nnc_runtime::program::{Parameter, Port};
use nnc_runtime::{Parameters, parameters};

use crate::data::file;
use crate::data::safetensors::{self, TensorFile};
use crate::error::Result;
use crate::train::checkpoint;
use crate::{Error, Tensor};

/// Tensors by name: in memory, in a safetensors file, or yet to be drawn. Cheap to clone.
///
/// Tensors of a file are read, and initial ones drawn, when a network is loaded with them: one at a time, and
/// none is kept here. [`tensor`](Weights::tensor) reads one, [`tensors`](Weights::tensors) all of them.
/// While weights of a file are in use, it may be replaced by another (as [`save`](Weights::save) does it), but
/// not changed.
///
/// ```
/// use nnc::{Tensor, Weights};
/// let weights = Weights::from_map([("fc.bias".to_string(), Tensor::from(ndarray::arr1(&[1f32, f32::NAN])))].into());
/// assert_eq!(weights.non_finite()?, [("fc.bias".to_string(), 1, 0)]);
/// # Ok::<(), nnc::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Weights {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    origin: Origin,
    path: Option<PathBuf>,
    /// All of them, if somebody has asked.
    read: OnceLock<BTreeMap<String, Tensor>>,
}

#[derive(Debug)]
enum Origin {
    Memory(BTreeMap<String, Tensor>),
    File(TensorFile),
    Drawn(Fresh),
}

impl Default for Origin {
    fn default() -> Origin {
        Origin::Memory(BTreeMap::new())
    }
}

impl Weights {
    /// Opens a safetensors file; `f16`, `bf16` and `f64` become `f32`. Of a checkpoint, the parameters
    /// alone, without the optimizer's state.
    pub fn open(path: impl AsRef<Path>) -> Result<Weights> {
        let path = path.as_ref();
        let mut file = TensorFile::open(path)?;
        let state = checkpoint::optimizer_state(file.metadata(checkpoint::METADATA));
        file.forget(&state.map_err(|message| Error::format(path, message))?);
        Ok(Weights::of(Origin::File(file), Some(path.to_path_buf())))
    }

    /// Tensors in memory.
    pub fn from_map(tensors: BTreeMap<String, Tensor>) -> Weights {
        Weights::of(Origin::Memory(tensors), None)
    }

    /// Fresh values for parameters, the same for the same seed.
    pub(crate) fn drawn(parameters: Vec<Parameter>, seed: u64) -> Weights {
        Weights::of(Origin::Drawn(Fresh { parameters, seed }), None)
    }

    fn of(origin: Origin, path: Option<PathBuf>) -> Weights {
        Weights { inner: Arc::new(Inner { origin, path, read: OnceLock::new() }) }
    }

    /// Writes a safetensors file, beside and then renamed, so that it is whole or not there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = safetensors::to_bytes(self.tensors()?).map_err(|e| Error::format(path, e))?;
        file::write(path, &bytes)
    }

    /// The names of the tensors.
    pub fn names(&self) -> Vec<String> {
        self.ports().into_iter().map(|p| p.name).collect()
    }

    /// The tensor of that name, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        match &self.inner.origin {
            Origin::Memory(tensors) => Ok(tensors.get(name).cloned()),
            _ => self.ports().iter().find(|p| p.name == name).map(|p| self.read(p)).transpose(),
        }
    }

    /// All tensors. Those that are not in memory yet are read, and kept from then on.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn tensors(&self) -> Result<&BTreeMap<String, Tensor>> {
        if let Origin::Memory(tensors) = &self.inner.origin {
            return Ok(tensors);
        }
        if self.inner.read.get().is_none() {
            let all = self.ports().into_iter().map(|p| Ok((p.name.clone(), self.read(&p)?)));
            // Somebody else may have been faster, with the same.
            let _ = self.inner.read.set(all.collect::<Result<_>>()?);
        }
        Ok(self.inner.read.get_or_init(BTreeMap::new))
    }

    fn read(&self, port: &Port) -> Result<Tensor> {
        parameters::read(self.parameters(), port, threads()).map_err(|e| match self.path() {
            Some(path) => Error::format(path, e),
            None => e.into(),
        })
    }

    /// Where they came from, if from a file.
    pub fn path(&self) -> Option<&Path> {
        self.inner.path.as_deref()
    }

    /// The tensors with values that are not finite: name, number of NaNs, number of infinities. Of a file, what
    /// has not been read yet is read for it; it costs nothing when a network has been loaded with all of them.
    ///
    /// # Errors
    /// If they are in a file and cannot be read.
    pub fn non_finite(&self) -> Result<Vec<(String, usize, usize)>> {
        let mut out = vec![];
        for port in self.ports() {
            let (nans, infinities) = match &self.inner.origin {
                Origin::Memory(tensors) => tensors.get(&port.name).map_or((0, 0), non_finite),
                Origin::File(file) => file
                    .non_finite(&port, threads())
                    .map_err(|message| Error::format(self.path().unwrap_or(Path::new("")), message))?,
                // What is drawn is finite.
                Origin::Drawn(_) => (0, 0),
            };
            if nans + infinities > 0 {
                out.push((port.name, nans, infinities));
            }
        }
        Ok(out)
    }

    fn parameters(&self) -> &dyn Parameters {
        match &self.inner.origin {
            Origin::Memory(tensors) => tensors,
            Origin::File(file) => file,
            Origin::Drawn(fresh) => fresh,
        }
    }
}

/// As many as may be worth it.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// The numbers of NaNs and of infinities.
fn non_finite(t: &Tensor) -> (usize, usize) {
    let Some(a) = t.as_f32() else { return (0, 0) };
    let count = |test: fn(f32) -> bool| a.iter().filter(|&&v| test(v)).count();
    (count(f32::is_nan), count(f32::is_infinite))
}

impl Parameters for Weights {
    fn ports(&self) -> Vec<Port> {
        self.parameters().ports()
    }

    fn in_memory(&self, name: &str) -> Option<crate::TensorView<'_>> {
        let read = || self.inner.read.get().and_then(|tensors| tensors.in_memory(name));
        self.parameters().in_memory(name).or_else(read)
    }

    fn fill(&self, port: &Port, to: &mut [u8], threads: usize) -> Result<(), String> {
        match self.inner.read.get() {
            Some(tensors) => tensors.fill(port, to, threads),
            None => self.parameters().fill(port, to, threads),
        }
    }

    fn fill_part(&self, port: &Port, first: usize, to: &mut [u8], threads: usize) -> Result<bool, String> {
        self.parameters().fill_part(port, first, to, threads)
    }
}
