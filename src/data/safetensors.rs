//! Tensors in the safetensors format.
