//! Contractions: matmul and linear.

use nnc_runtime::Tensor;

use super::reference::{self, Number, Target, Walk, broadcast_strides, for_dtype};
use super::rule::{self, Signature};
use super::text::Reader;
use super::{Op, OpError, Operation};
use crate::autodiff::{At, GradientBuilder, Gradients, NoGradient};
use crate::graph::TensorType;

/// See [`Op::MatMul`].
pub struct MatMul;

/// See [`Op::Linear`].
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
            let e = OpError::operand(
                1,
                format!("`a` has {k} columns, so `b` must have {k} rows, it has {k2}: {a} times {b}{doubt}"),
            );
            return Err(if n == k { e.help("`transpose` the last two axes of `b`") } else { e });
        }
        let batch = |shape: &[_]| TensorType { dtype: a.dtype, shape: shape.to_vec() };
        let mut shape = rule::broadcast(&[("a", &batch(a_batch)), ("b", &batch(b_batch))])
            .map_err(|e| OpError { message: format!("in the batch dimensions, {}", e.message), ..e })?;
        shape.extend([m.clone(), n.clone()]);
        Ok(TensorType { dtype: a.dtype, shape })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => {
            let (a, b) = (reference::elements::<T>(operands, 0)?, reference::elements::<T>(operands, 1)?);
            let ([a_batch @ .., m, k], [b_batch @ .., _, n]) = (operands[0].shape(), operands[1].shape()) else {
                return Err(OpError::new("`matmul` needs matrices"));
            };
            let (m, k, n) = (*m, *k, *n);
            let batch = &to.shape[..to.shape.len() - 2];
            let matrices = |shape: &[usize]| Walk::new(batch, broadcast_strides(shape, batch), 0);
            let mut out = vec![T::default(); reference::count(&to.shape)];
            for ((a_at, b_at), out) in matrices(a_batch).zip(matrices(b_batch)).zip(out.chunks_mut(m * n)) {
                let (a, b) = (&a[a_at * m * k..][..m * k], &b[b_at * k * n..][..k * n]);
                for (a, out) in a.chunks(k).zip(out.chunks_mut(n)) {
                    for (&a, b) in a.iter().zip(b.chunks(n)) {
                        for (out, &b) in out.iter_mut().zip(b) {
                            *out = out.add(a.mul(b));
                        }
                    }
                }
            }
            reference::tensor(&to.shape, out)
        })
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let (a, b, dy) = (at.operands[0], at.operands[1], at.gradient);
        let da = g.op(Op::MatMul, &[dy, g.transpose_last(b)]);
        let db = g.op(Op::MatMul, &[g.transpose_last(a), dy]);
        Ok(vec![Some(g.sum_to(da, a)), Some(g.sum_to(db, b))])
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

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => {
            let (x, weight) = (reference::elements::<T>(operands, 0)?, reference::elements::<T>(operands, 1)?);
            let bias = if operands.len() > 2 { Some(reference::elements::<T>(operands, 2)?) } else { None };
            let features = operands[1].shape()[1];
            let mut out = Vec::with_capacity(reference::count(&to.shape));
            for x in x.chunks(features) {
                for (o, w) in weight.chunks(features).enumerate() {
                    let sum = x.iter().zip(w).fold(T::default(), |sum, (&x, &w)| sum.add(x.mul(w)));
                    out.push(bias.map_or(sum, |b| sum.add(b[o])));
                }
            }
            reference::tensor(&to.shape, out)
        })
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let (x, weight, dy) = (at.operands[0], at.operands[1], at.gradient);
        let last = g.ty(x).rank() - 1;
        let dx = g.op(Op::Linear, &[dy, g.transpose_last(weight)]);
        // All axes but the last as one.
        let rows = |v| {
            let shape = g.shape(v);
            g.reshape(v, vec![rule::elements(&shape[..last]), shape[last].clone()])
        };
        let dw = g.op(Op::MatMul, &[g.transpose_last(rows(dy)), rows(x)]);
        let mut out = vec![Some(dx), Some(dw)];
        out.extend(at.operands.get(2).map(|_| Some(g.sum(dy, (0..last).collect()))));
        Ok(out)
    }
}

/// The operation of this family with that name; `None` for other names.
pub fn parse(name: &str, _: &mut Reader) -> Result<Option<Op>, String> {
    Ok(match name {
        "matmul" => Some(Op::MatMul),
        "linear" => Some(Op::Linear),
        _ => None,
    })
}
