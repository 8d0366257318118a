//! Lowering: what the kernels of a graph compute is what the reference interpreter says of it.

mod attributes;
mod golden;
mod operations;
mod support;
