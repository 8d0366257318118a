//! Reading and writing files: arrays, weights, pictures, data sets, class names.

pub mod file;
pub mod idx;
pub mod image;
pub mod labels;
pub mod npy;
pub mod safetensors;
