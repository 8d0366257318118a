//! Loads and runs compiled programs. Knows the program format, tensors, memory and threads;
//! knows nothing of syntax, graphs or passes, so that a deployed program needs no compiler.

pub mod dtype;
pub mod program;
pub mod tensor;

pub use dtype::DType;
pub use tensor::{Tensor, TensorView};
