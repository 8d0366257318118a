//! Random numbers by counter: each is a pure function of seed, step, stream and element, whatever
//! computes it and in what order.
//!
//! Element `i` is word `i % 4` of the Philox4x32-10 block with key `seed` and counter
//! `[i / 4, step, stream, DRAW]`. A uniform number takes the word's upper 24 bits, which `f32` holds
//! exactly; two neighbours `(2k, 2k + 1)` make a pair of normal ones (Box & Muller 1958).

use nnc_runtime::init::philox;
use nnc_runtime::{DType, Tensor};

use super::reference::{self, Element, Target, for_dtype};
use super::rule::{self, Signature};
use super::source::{Distribution, read_distribution, write_distribution};
use super::text::{Reader, Writer};
use super::{Op, OpError, Operation};
use crate::graph::{Dim, Shape, TensorType};

/// The last word of the counter: keeps these numbers apart from initial weights of the same seed,
/// whose counters end in a hash.
pub const DRAW: u32 = 0x6472_6177;

/// A block number is a word of the counter, so there are four times as many elements.
const MAX_ELEMENTS: i64 = 1 << 34;

/// See [`Op::Philox`].
#[derive(Clone, Debug, PartialEq)]
pub struct Philox {
    /// What is drawn.
    pub from: Distribution,
    /// The shape of the result, `f32`.
    pub shape: Shape,
    /// Tells draws of one program apart.
    pub stream: u32,
}

impl Operation for Philox {
    fn name(&self) -> &'static str {
        "philox"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["seed", "step"])
    }

    fn attributes(&self, w: &mut Writer) {
        write_distribution(w, &self.from);
        w.list("shape", &self.shape).put("stream", self.stream);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        for (i, (name, expected)) in [("seed", vec![Dim::from(2)]), ("step", vec![])].iter().enumerate() {
            rule::dtype(i, name, operands[i], DType::I32)?;
            rule::shape(i, name, operands[i], expected)?;
        }
        let ty = TensorType { dtype: DType::F32, shape: self.shape.clone() };
        rule::check_type(&ty)?;
        if rule::elements(&ty.shape).known().is_some_and(|n| n > MAX_ELEMENTS) {
            return Err(OpError::new(format!("at most 2^34 random numbers can be drawn at once, not {ty}")));
        }
        Ok(ty)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let (seed, step) =
            (reference::elements::<i32>(operands, 0)?, reference::elements::<i32>(operands, 1)?);
        let key = [seed[0] as u32, seed[1] as u32];
        let block = |i: usize| philox([(i / 4) as u32, step[0] as u32, self.stream, DRAW], key);
        let unit = |word: u32| f64::from(word >> 8) / f64::from(1 << 24);
        let value = |i: usize| match self.from {
            Distribution::Uniform { low, high } => low + (high - low) * unit(block(i)[i % 4]),
            Distribution::Normal { mean, std } => {
                let (words, pair) = (block(i), i % 4 / 2 * 2);
                // In (0, 1], for the logarithm.
                let u = unit(words[pair]) + 1.0 / f64::from(1 << 24);
                let (radius, turn) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * unit(words[pair + 1]));
                mean + std * radius * if i.is_multiple_of(2) { turn.cos() } else { turn.sin() }
            }
        };
        for_dtype!(floats, to.dtype, T => {
            let elements = (0..reference::count(&to.shape)).map(|i| T::from_f64(value(i)));
            reference::tensor(&to.shape, elements.collect())
        })
    }
}

/// The operation of this family with that name, its attributes read; `None` for other names.
pub fn parse(name: &str, r: &mut Reader) -> Result<Option<Op>, String> {
    Ok(match name {
        "philox" => Some(Op::Philox(Philox {
            from: read_distribution(r)?,
            shape: r.shape("shape")?,
            stream: r.value("stream")?,
        })),
        _ => None,
    })
}
