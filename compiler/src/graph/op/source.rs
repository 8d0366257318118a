//! Values without operands: inputs, parameters, constants, random numbers.

use std::sync::Arc;

use nnc_runtime::Tensor;

use super::reference::{self, Element, Target, for_dtype};
use super::rule::Signature;
use super::text::{MAX_PRINTED_LITERAL, Reader, Writer};
use super::{Op, OpError, Operation};
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

/// See [`Op::Input`].
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

    fn attributes(&self, w: &mut Writer) {
        write_initializer(w, &self.init);
        w.flag("frozen", !self.trainable);
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

    fn attributes(&self, w: &mut Writer) {
        match self {
            Literal::Splat(x) => w.float("value", *x),
            Literal::Dense(all) if all.len() <= MAX_PRINTED_LITERAL => {
                w.list("value", all.iter().map(|x| format!("{x:?}")))
            }
            Literal::Dense(all) => {
                w.put("value", format!("<{} elements, digest {:016x}>", all.len(), digest(all)))
            }
        };
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

    fn attributes(&self, w: &mut Writer) {
        write_distribution(w, self);
    }

    fn infer(&self, _: &[&TensorType]) -> Result<TensorType, OpError> {
        type_is_given(self.name())
    }

    fn eval(&self, _: &[&Tensor], _: &Target) -> Result<Tensor, OpError> {
        must_be_fed(self.name())
    }
}

pub(super) fn write_distribution(w: &mut Writer, from: &Distribution) {
    match *from {
        Distribution::Uniform { low, high } => w.call("from", "uniform", &[low, high]),
        Distribution::Normal { mean, std } => w.call("from", "normal", &[mean, std]),
    };
}

pub(super) fn read_distribution(r: &mut Reader) -> Result<Distribution, String> {
    let (function, arguments) = r.call("from")?;
    match (function.as_str(), &arguments[..]) {
        ("uniform", &[low, high]) => Ok(Distribution::Uniform { low, high }),
        ("normal", &[mean, std]) => Ok(Distribution::Normal { mean, std }),
        _ => Err(format!("unknown distribution `{function}`")),
    }
}

fn write_initializer(w: &mut Writer, init: &Initializer) {
    match *init {
        Initializer::Constant(x) => w.call("init", "constant", &[x]),
        Initializer::Uniform { low, high } => w.call("init", "uniform", &[low, high]),
        Initializer::Normal { mean, std } => w.call("init", "normal", &[mean, std]),
        Initializer::GlorotUniform => w.call("init", "glorot_uniform", &[]),
        Initializer::GlorotNormal => w.call("init", "glorot_normal", &[]),
        Initializer::HeUniform { gain } => w.call("init", "he_uniform", &[gain]),
        Initializer::HeNormal { gain } => w.call("init", "he_normal", &[gain]),
        Initializer::FanInUniform { fan_in } => w.put("init", format!("fan_in_uniform({fan_in})")),
        Initializer::Orthogonal { gain } => w.call("init", "orthogonal", &[gain]),
    };
}

fn read_initializer(r: &mut Reader) -> Result<Initializer, String> {
    let (function, arguments) = r.call("init")?;
    Ok(match (function.as_str(), &arguments[..]) {
        ("constant", &[x]) => Initializer::Constant(x),
        ("uniform", &[low, high]) => Initializer::Uniform { low, high },
        ("normal", &[mean, std]) => Initializer::Normal { mean, std },
        ("glorot_uniform", []) => Initializer::GlorotUniform,
        ("glorot_normal", []) => Initializer::GlorotNormal,
        ("he_uniform", &[gain]) => Initializer::HeUniform { gain },
        ("he_normal", &[gain]) => Initializer::HeNormal { gain },
        ("fan_in_uniform", &[fan_in]) => Initializer::FanInUniform { fan_in: fan_in as u64 },
        ("orthogonal", &[gain]) => Initializer::Orthogonal { gain },
        _ => return Err(format!("unknown initialiser `{function}` with {} arguments", arguments.len())),
    })
}

/// FNV-1a over the elements' bits: tells literals apart in the text form.
fn digest(elements: &[f64]) -> u64 {
    let bytes = elements.iter().flat_map(|x| x.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// The operation of this family with that name, its attributes read; `None` for other names.
pub fn parse(name: &str, r: &mut Reader) -> Result<Option<Op>, String> {
    Ok(Some(match name {
        "input" => Op::Input,
        "parameter" => Op::Parameter(Parameter { init: read_initializer(r)?, trainable: !r.flag("frozen") }),
        "constant" => {
            let text = r.need("value")?;
            Op::Constant(if text.starts_with('<') {
                return Err("the literal was too long to be printed and cannot be read back".to_string());
            } else if text.starts_with('[') {
                let mut r = Reader::new(&format!("value={text}"))?;
                Literal::Dense(r.list("value")?.into())
            } else {
                Literal::Splat(text.parse().map_err(|_| format!("`{text}` is not a number"))?)
            })
        }
        "random" => Op::Random(read_distribution(r)?),
        _ => return Ok(None),
    }))
}
