//! Back ends: from verified kernels to what a device runs.

pub mod cpu;
