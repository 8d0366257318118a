//! Reading and writing files: arrays, weights, pictures, data sets, class names.
//!
//! Data sets: [`DataSpec`](spec::DataSpec) says where one lies, [`Dataset`](dataset::Dataset) is what
//! it becomes, [`Batches`](batches::Batches) makes batches of it on another thread.

pub mod augment;
pub mod batches;
pub mod cifar;
pub mod dataset;
pub mod file;
pub mod folder;
pub mod idx;
pub mod image;
pub mod labels;
pub mod made_up;
pub mod npy;
pub mod npz;
pub mod pictures;
pub mod safetensors;
pub mod spec;
