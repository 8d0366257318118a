//! Register buffers as variables: one for a group of neighbours where vector loops run over the
//! last dimension, else one an element.

use super::assembler::{Assembler, Kind};
use crate::kernel::{Kernel, Memory};

/// The variables of one register buffer.
pub struct Registers<V> {
    /// The elements that each holds, if vectors.
    pub group: Option<usize>,
    variables: Vec<V>,
}

/// Declares the variables of all register buffers.
pub fn declare<A: Assembler>(
    kernel: &Kernel,
    groups: &[Option<usize>],
    assembler: &mut A,
) -> Vec<Registers<A::Variable>> {
    let buffers = kernel.buffers.iter().zip(groups);
    let registers = buffers.map(|(buffer, &group)| {
        let count = match buffer.memory {
            Memory::Register => buffer.extent().div_ceil(group.unwrap_or(1)),
            _ => 0,
        };
        let kind = Kind::new(buffer.dtype, group);
        Registers { group, variables: (0..count).map(|_| assembler.declare(kind)).collect() }
    });
    registers.collect()
}

impl<V: Copy> Registers<V> {
    /// The variable of an element, and the element's lane in it.
    pub fn cell(&self, element: usize) -> (V, usize) {
        let group = self.group.unwrap_or(1);
        (self.variables[element / group], element % group)
    }
}
