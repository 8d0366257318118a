//! Reading and writing files of numbers.

pub mod npy;
pub mod safetensors;
