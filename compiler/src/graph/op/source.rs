//! Values without operands: inputs, parameters, constants, random numbers.

use std::sync::Arc;

use nnc_runtime::Tensor;

use super::reference::{self, Element, Target, for_dtype};
use super::rule::Signature;
use super::{OpError, Operation};
use crate::graph::TensorType;

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

/// See [`Op::Input`](super::Op::Input).
pub struct Input;

/// Sources have no operands, and their type is given with the node, not found by a rule.
fn type_is_given(name: &str) -> Result<TensorType, OpError> {
    Err(OpError::new(format!("the type of `{name}` is given, not inferred")))
}

/// Their values come from outside.
fn must_be_fed(name: &str) -> Result<Tensor, OpError> {
    Err(OpError::new(format!("a value must be given for `{name}`")))
}

impl Operation for Input {
    fn name(&self) -> &'static str {
        "input"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&[])
    }

    fn infer(&self, _: &[&TensorType]) -> Result<TensorType, OpError> {
        type_is_given(self.name())
    }

    fn eval(&self, _: &[&Tensor], _: &Target) -> Result<Tensor, OpError> {
        must_be_fed(self.name())
    }
}

impl Operation for Parameter {
    fn name(&self) -> &'static str {
        "parameter"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&[])
    }

    fn infer(&self, _: &[&TensorType]) -> Result<TensorType, OpError> {
        type_is_given(self.name())
    }

    fn eval(&self, _: &[&Tensor], _: &Target) -> Result<Tensor, OpError> {
        must_be_fed(self.name())
    }
}

impl Operation for Literal {
    fn name(&self) -> &'static str {
        "constant"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&[])
    }

    fn infer(&self, _: &[&TensorType]) -> Result<TensorType, OpError> {
        type_is_given(self.name())
    }

    fn eval(&self, _: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(all, to.dtype, T => {
            let data: Vec<T> = match self {
                Literal::Splat(x) => vec![T::from_f64(*x); reference::count(&to.shape)],
                Literal::Dense(all) => all.iter().map(|&x| T::from_f64(x)).collect(),
            };
            reference::tensor(&to.shape, data)
        })
    }
}

impl Operation for Distribution {
    fn name(&self) -> &'static str {
        "random"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&[])
    }

    fn infer(&self, _: &[&TensorType]) -> Result<TensorType, OpError> {
        type_is_given(self.name())
    }

    fn eval(&self, _: &[&Tensor], _: &Target) -> Result<Tensor, OpError> {
        must_be_fed(self.name())
    }
}
