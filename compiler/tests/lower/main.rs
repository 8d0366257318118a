//! Lowering: what the kernels of a graph compute, for CPUs and GPUs, is what the reference interpreter
//! says of it.

mod attributes;
mod golden;
mod gpu;
mod gradient_rules;
mod gradients;
mod operations;
mod reductions;
#[path = "../common/gpu.rs"]
mod run;
mod separable;
mod steps;
mod support;
mod transposed;
mod updates;
mod winograd;
