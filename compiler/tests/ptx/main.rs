//! PTX: what NVIDIA's assembler says of the code for every example program, and what an interpreter
//! computes with that of small nets.

mod assemble;
mod block;
mod costs;
mod damaged;
mod draw;
mod golden;
#[path = "../common/gpu.rs"]
mod gpu;
mod layouts;
mod nets;
mod products;
mod ptxas;
mod rows;
mod text;
#[path = "../common/traffic.rs"]
mod traffic;
