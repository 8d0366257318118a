//! A double of NVIDIA's driver: `libcuda.so` for tests on machines without a GPU.
//!
//! It exports the functions that the runtime calls, with the driver's names and signatures. What is put on a
//! stream is done as late as can be: when somebody waits for it, so host code that does not wait finds
//! nothing. Kernels run in an interpreter of PTX that checks bounds, initialisation and races
//! ([`nnc_ptx_interpreter`]). What a real driver would forgive is an error here: copies beside the
//! host that do not use page-locked memory, anything but captured work while a stream is captured, memory that is freed
//! while work is to use it.
//!
//! How it behaves is set by environment variables: see [`config`]. Its own README says how a test uses it.

#![allow(non_snake_case, clippy::missing_safety_doc, clippy::too_many_arguments)]

pub mod codes;
pub mod config;
mod exports;
mod work;
mod world;
