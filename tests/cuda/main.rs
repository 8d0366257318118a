//! Programs on a GPU.
//!
//! `cargo test --test cuda` runs everything against a double of NVIDIA's driver, which executes PTX in an
//! interpreter (`tests/cuda-driver`): no GPU is needed, and none is used. On a machine with a GPU,
//! `cargo test --release --test cuda -- --ignored` runs the checks of [`gpu`] on it; the others have the
//! double execute the small ones among those.

#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod cache;
mod devices;
mod double;
mod failures;
mod gpu;
mod inference;
mod training;
