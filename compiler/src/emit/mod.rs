//! Back ends: from verified kernels to what a device runs.

pub mod cpu;
pub mod cuda;
mod program;

pub use program::{Emitted, emit, emit_gpu};
