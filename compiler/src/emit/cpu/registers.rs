//! Register buffers as Cranelift variables: one for four neighbours where a vector loop runs over
//! the last dimension, else one an element.

use cranelift_codegen::ir::{Type, types};
use cranelift_frontend::{FunctionBuilder, Variable};
use nnc_runtime::DType;

use super::vector::{LANES, last_index_is_vector};
use crate::kernel::{Buffer, Kernel, Memory};

/// The variables of one register buffer.
pub struct Registers {
    /// True if each holds four elements.
    pub vector: bool,
    variables: Vec<Variable>,
}

/// The Cranelift type of a scalar.
pub fn scalar_type(dtype: DType) -> Type {
    match dtype {
        DType::F32 | DType::F64 => types::F32,
        DType::I32 => types::I32,
        DType::Bool => types::I8,
    }
}

/// The Cranelift type of four lanes; truth values are masks.
pub fn vector_type(dtype: DType) -> Type {
    match dtype {
        DType::F32 | DType::F64 => types::F32X4,
        DType::I32 | DType::Bool => types::I32X4,
    }
}

/// True if the buffer's elements can be held four by four.
fn groups(b: &Buffer) -> bool {
    let (Some((&last, outer)), Some(n)) = (b.strides.split_last(), b.shape.last()) else { return false };
    b.dtype != DType::Bool
        && last == 1
        && n.is_multiple_of(LANES)
        && outer.iter().all(|s| s.is_multiple_of(LANES))
}

/// For each buffer of the kernel, if it is a register buffer, whether vectors hold it.
pub fn vector_buffers(kernel: &Kernel) -> Vec<bool> {
    let used = last_index_is_vector(kernel);
    kernel
        .buffers
        .iter()
        .enumerate()
        .map(|(i, b)| b.memory == Memory::Register && used[i] && groups(b))
        .collect()
}

/// Declares the variables of all register buffers.
pub fn declare(kernel: &Kernel, vector: &[bool], b: &mut FunctionBuilder<'_>) -> Vec<Registers> {
    let buffers = kernel.buffers.iter().zip(vector);
    let registers = buffers.map(|(buffer, &vector)| {
        let (count, ty) = match buffer.memory {
            Memory::Register if vector => (buffer.extent().div_ceil(LANES), vector_type(buffer.dtype)),
            Memory::Register => (buffer.extent(), scalar_type(buffer.dtype)),
            Memory::Global(_) | Memory::Scratch => (0, types::I32),
        };
        Registers { vector, variables: (0..count).map(|_| b.declare_var(ty)).collect() }
    });
    registers.collect()
}

impl Registers {
    /// The variable of an element, and the element's lane in it.
    pub fn cell(&self, element: usize) -> (Variable, u8) {
        if self.vector {
            return (self.variables[element / LANES], (element % LANES) as u8);
        }
        (self.variables[element], 0)
    }
}
