//! Values without operands: inputs, parameters, constants, random numbers.

use std::sync::Arc;

pub use nnc_runtime::program::Initializer;

/// A tensor with a name in the weights file.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// How it starts when no weights are loaded.
    pub init: Initializer,
    /// Whether training changes it by gradients; false for running statistics.
    pub trainable: bool,
}

/// A known tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// All elements equal.
    Splat(f64),
    /// Every element, row-major (exact in the node's element type).
    Dense(Arc<[f64]>),
}

/// Where random numbers are drawn from.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Uniform in `[low, high)`.
    Uniform {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
}
