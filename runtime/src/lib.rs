//! Loads and runs compiled programs. Knows the program format, tensors, memory and threads;
//! knows nothing of syntax, graphs or passes, so that a deployed program needs no compiler.
//!
//! The road: [`Program::read`] → [`Executable::load`] → [`Session::new`] with [`Parameters`] and a
//! [`Pool`] of threads → [`Session::run`]. A program that changes its parameters (a training step)
//! runs as [`Trainable::step`] instead. On a GPU: [`cuda`].

pub mod cuda;
pub mod dtype;
pub mod exec;
pub mod init;
pub mod memory;
pub mod parameters;
pub mod pool;
pub mod program;
pub mod read_at;
pub mod session;
pub mod tensor;

pub use dtype::DType;
pub use exec::{Executable, ExecutableError};
pub use parameters::Parameters;
pub use pool::Pool;
pub use program::{Program, ProgramError};
pub use session::{LoadError, RunError, Session, StateError, Trainable};
pub use tensor::{Tensor, TensorView};
