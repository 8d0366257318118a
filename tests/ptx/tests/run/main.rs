//! Kernels written by hand, run and compared with Rust's arithmetic; faults put into kernels, caught.

mod arithmetic;
mod convert;
mod copy;
mod damaged;
mod faults;
mod fields;
mod fragments;
mod grid;
mod matrix;
mod memory;
mod parse;
mod pipeline;
mod support;
mod warp;
