//! Contractions: matmul and linear.

use super::rule::{self, Signature};
use super::{OpError, Operation};
use crate::graph::TensorType;

/// See [`Op::MatMul`](super::Op::MatMul).
pub struct MatMul;

/// See [`Op::Linear`](super::Op::Linear).
pub struct Linear;

impl Operation for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["a", "b"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let (a, b) = (operands[0], operands[1]);
        rule::float(0, "a", a)?;
        rule::dtype(1, "b", b, a.dtype)?;
        rule::min_rank(0, "a", a, 2)?;
        rule::min_rank(1, "b", b, 2)?;
        let ([a_batch @ .., m, k], [b_batch @ .., k2, n]) = (&a.shape[..], &b.shape[..]) else {
            return Err(OpError::new("`matmul` needs matrices"));
        };
        if k != k2 {
            let doubt = rule::doubt(k, k2);
            return Err(OpError::operand(
                1,
                format!("`a` has {k} columns, so `b` must have {k} rows, it has {k2}: {a} times {b}{doubt}"),
            ));
        }
        let batch = |shape: &[_]| TensorType { dtype: a.dtype, shape: shape.to_vec() };
        let mut shape = rule::broadcast(&[("a", &batch(a_batch)), ("b", &batch(b_batch))])
            .map_err(|e| OpError { message: format!("in the batch dimensions, {}", e.message), ..e })?;
        shape.extend([m.clone(), n.clone()]);
        Ok(TensorType { dtype: a.dtype, shape })
    }
}

impl Operation for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn signature(&self) -> Signature {
        Signature::optional_last(&["x", "weight", "bias"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let (x, weight) = (operands[0], operands[1]);
        rule::float(0, "x", x)?;
        rule::min_rank(0, "x", x, 1)?;
        rule::rank(1, "weight", weight, &["O", "I"])?;
        rule::dtype(1, "weight", weight, x.dtype)?;
        let (out, expected, found) = (&weight.shape[0], &weight.shape[1], &x.shape[x.rank() - 1]);
        if expected != found {
            let doubt = rule::doubt(expected, found);
            let mut e = OpError::operand(
                0,
                format!("`weight` expects {expected} input features, `x` has {found}: {x}{doubt}"),
            );
            if x.rank() > 2 && rule::elements(&x.shape[1..]) == *expected {
                e = e.help("`flatten` it first");
            }
            return Err(e);
        }
        if let Some(bias) = operands.get(2) {
            rule::rank(2, "bias", bias, &["O"])?;
            rule::dtype(2, "bias", bias, x.dtype)?;
            if bias.shape[0] != *out {
                let doubt = rule::doubt(out, &bias.shape[0]);
                return Err(OpError::operand(
                    2,
                    format!(
                        "`bias` must have one element for each of {out} output features, it has {}{doubt}",
                        bias.shape[0]
                    ),
                ));
            }
        }
        let mut shape = x.shape.clone();
        shape[x.rank() - 1] = out.clone();
        Ok(TensorType { dtype: x.dtype, shape })
    }
}
