//! nnc: a neural-network compiler. Layer language in, machine code out.
//!
//! ```text
//! Source ── network ──▶ Network ── compile ──▶ Compiled ── load / initialize ──▶ Model ── run ──▶ Outputs
//! (.nn text)            (graph)                (program: a file or in memory)    (weights)        (tensors)
//! ```
//!
//! A [`Source`] is text. [`Source::network`] makes the computation graph of one of its nets, with
//! [`Options`]. [`Network::compile`] makes machine code of it, once every size is known;
//! [`Compiled`] can be written to a file and opened again. [`Network::load`] and
//! [`Compiled::load`] give it weights, [`initialize`](Network::initialize) fresh ones; the
//! [`Model`] that comes out runs on ndarray views, from any number of threads at once.
//!
//! ```
//! use nnc::{Options, Source};
//!
//! let source = Source::from_text(
//!     "tiny.nn",
//!     "use std.vision
//!      net tiny(classes = 3) {
//!          input image: f32[N, 1, 8, 8]
//!          output logits = image -> conv(4, 3x3, pad = 1) -> relu -> maxpool(2x2) -> flatten -> dense(classes)
//!      }",
//! )?;
//! let network = source.network(&Options::new().set("classes", 10).threads(1))?;
//! let model = network.initialize(42)?; // or network.load(&Weights::open("tiny.safetensors")?)
//! let pictures = ndarray::Array4::<f32>::zeros((2, 1, 8, 8));
//! let outputs = model.run(&[("image", (&pictures).into())])?;
//! assert_eq!(outputs["logits"].shape(), [2, 10]);
//! # Ok::<(), nnc::Error>(())
//! ```
//!
//! All errors are [`Error`]; those about a source carry excerpts ([`Error::render`]).

mod bytes;
pub mod data;
pub mod device;
pub mod error;
pub mod model;
pub mod options;
mod pipeline;
pub mod report;
pub mod roofline;
pub mod source;
pub mod stages;
pub mod train;
pub mod tune;
pub mod weights;

pub use bytes::ByteSize;
pub use device::{Device, LaunchTime};
pub use error::Error;
pub use model::{Compiled, Model, Network, Outputs, TensorSpec};
pub use options::{Options, Precision};
pub use source::Source;
pub use weights::Weights;

pub use nnc_compiler as compiler;
pub use nnc_dsl as dsl;
pub use nnc_runtime as runtime;
pub use nnc_runtime::{DType, Tensor, TensorView};
