//! Lowering: what the kernels of a graph compute is what the reference interpreter says of it.

mod attributes;
mod golden;
mod gradient_rules;
mod gradients;
mod operations;
mod reductions;
mod steps;
mod support;
mod transposed;
mod updates;
mod winograd;
