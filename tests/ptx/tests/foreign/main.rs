//! PTX that other compilers have made, which is known to run on GPUs: Triton's and NVRTC's, of kernels of our own, some
//! of which call NVIDIA's libraries CuTe and CUB (`make/`; the files are in `ptx/`). It must run without a fault and compute what it should: so the interpreter reads
//! PTX as those compilers do, not only as the one it was written for.

mod convolution;
mod cub;
mod cuda;
mod product;
mod rows;
mod support;
