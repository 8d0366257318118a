//! Reductions over axes, and the index of the largest value.

use nnc_runtime::{DType, Tensor};

use super::reference::{self, Element, Number, Target, Walk, broadcast_strides, for_dtype};
use super::rule::{self, Signature};
use super::text::{Reader, Writer};
use super::{Binary, Op, OpError, Operation};
use crate::autodiff::{At, GradientBuilder, Gradients, NoGradient};
use crate::graph::{Dim, NodeId, Shape, TensorType};

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is its own name
pub enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    /// The mean of the squared distances from the mean.
    Variance,
}

impl ReduceKind {
    /// True for sums and what is made of them.
    pub fn adds(self) -> bool {
        matches!(self, ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Variance)
    }

    /// True for what is not an integer, of integers.
    fn divides(self) -> bool {
        matches!(self, ReduceKind::Mean | ReduceKind::Variance)
    }
}

/// See [`Op::Reduce`]. Max and min are NaN if an element is.
pub struct Reduce<'a> {
    /// What is computed. On i32: all but mean and variance; sums and products wrap.
    pub kind: ReduceKind,
    /// Over which axes.
    pub axes: &'a [usize],
    /// Whether they stay as size 1.
    pub keep: bool,
}

/// See [`Op::ArgMax`]. A NaN counts as larger than any number.
pub struct ArgMax {
    /// The axis.
    pub axis: usize,
    /// Whether it stays as size 1.
    pub keep: bool,
}

impl Operation for Reduce<'_> {
    fn name(&self) -> &'static str {
        match self.kind {
            ReduceKind::Sum => "reduce_sum",
            ReduceKind::Mean => "reduce_mean",
            ReduceKind::Max => "reduce_max",
            ReduceKind::Min => "reduce_min",
            ReduceKind::Prod => "reduce_prod",
            ReduceKind::Variance => "reduce_variance",
        }
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.list("axes", self.axes).flag("keep", self.keep);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        if self.kind.divides() || x.dtype != DType::I32 {
            rule::float(0, "x", x)?;
        }
        rule::axes(0, "x", x, self.axes)?;
        Ok(TensorType { dtype: x.dtype, shape: without(x, self.axes, self.keep) })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(numbers, to.dtype, T => {
            let x = reference::elements::<T>(operands, 0)?;
            let shape = operands[0].shape();
            let (start, step): (T, fn(T, T) -> T) = match self.kind {
                ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Variance => (T::from_f64(0.0), T::add),
                ReduceKind::Prod => (T::from_f64(1.0), T::mul),
                ReduceKind::Max => (T::LOWEST, <T as Number>::max),
                ReduceKind::Min => (T::HIGHEST, <T as Number>::min),
            };
            let mut out = vec![start; reference::count(&to.shape)];
            // Where an element goes: reduced axes do not move the result's position.
            let kept: Vec<usize> = (0..shape.len()).map(|i| if self.axes.contains(&i) { 1 } else { shape[i] }).collect();
            let strides = broadcast_strides(&kept, shape);
            let places = || Walk::new(shape, strides.clone(), 0);
            for (at, &v) in places().zip(x) {
                out[at] = step(out[at], v);
            }
            let n = T::from_f64((x.len() / out.len().max(1)) as f64);
            let divide = |out: &mut [T]| out.iter_mut().for_each(|sum| *sum = Number::div(*sum, n));
            if self.kind.divides() {
                divide(&mut out);
            }
            if self.kind == ReduceKind::Variance {
                let means = std::mem::replace(&mut out, vec![start; reference::count(&to.shape)]);
                for (at, &v) in places().zip(x) {
                    let distance = v.sub(means[at]);
                    out[at] = out[at].add(distance.mul(distance));
                }
                divide(&mut out);
            }
            reference::tensor(&to.shape, out)
        })
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let (x, dy) = (at.operands[0], at.gradient);
        let shape = g.shape(x);
        let kept = |v| g.keep_axes(v, x, self.axes);
        let dx = match self.kind {
            ReduceKind::Sum => g.broadcast(kept(dy), shape),
            ReduceKind::Mean => {
                let share = 1.0 / g.count(x, self.axes)? as f64;
                g.broadcast(kept(g.scale(dy, share)), shape)
            }
            // Equal extremes share it, as PyTorch's amax and amin have it.
            ReduceKind::Max | ReduceKind::Min => {
                let is_largest = g.binary(Binary::Eq, x, kept(at.result));
                let ones = g.op(Op::Cast(g.ty(x).dtype), &[is_largest]);
                let count = g.sum_keeping(ones, self.axes.to_vec());
                g.only_where(is_largest, g.div(kept(dy), count))
            }
            ReduceKind::Prod => g.mul(kept(dy), self.product_of_others(g, x)),
            // The variance does not change with the mean that it is taken around, to first order.
            ReduceKind::Variance => {
                let mean = Op::Reduce { kind: ReduceKind::Mean, axes: self.axes.to_vec(), keep: self.keep };
                let centred = g.sub(x, kept(g.op(mean, &[x])));
                let share = 2.0 / g.count(x, self.axes)? as f64;
                g.mul(centred, kept(g.scale(dy, share)))
            }
        };
        Ok(vec![Some(dx)])
    }
}

impl Reduce<'_> {
    /// For every element the product of the others, exact where elements are zero: with two zeros
    /// it is 0, with one it is 0 for all but that one.
    fn product_of_others(&self, g: &GradientBuilder, x: NodeId) -> NodeId {
        let is_zero = g.compare(Binary::Eq, x, 0.0);
        let safe = g.select(is_zero, g.number(1.0, x), x);
        let product = Op::Reduce { kind: ReduceKind::Prod, axes: self.axes.to_vec(), keep: true };
        let product = g.op(product, &[safe]);
        let ones = g.op(Op::Cast(g.ty(x).dtype), &[is_zero]);
        let zeros = g.sum_keeping(ones, self.axes.to_vec());
        let of_zero = g.only_where(g.compare(Binary::Eq, zeros, 1.0), product);
        let of_other = g.only_where(g.compare(Binary::Eq, zeros, 0.0), g.div(product, safe));
        g.select(is_zero, of_zero, of_other)
    }
}

impl Operation for ArgMax {
    fn name(&self) -> &'static str {
        "arg_max"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.put("axis", self.axis).flag("keep", self.keep);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        if x.dtype != DType::I32 {
            rule::float(0, "x", x)?;
        }
        rule::axis(0, "x", x, self.axis)?;
        Ok(TensorType { dtype: DType::I32, shape: without(x, &[self.axis], self.keep) })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(numbers, operands[0].dtype(), T => {
            let x = reference::elements::<T>(operands, 0)?;
            let (outer, size, inner) = reference::around(operands[0].shape(), self.axis);
            let mut out = Vec::with_capacity(outer * inner);
            for o in 0..outer {
                for i in 0..inner {
                    let at = |k: usize| x[(o * size + k) * inner + i];
                    let larger = |a: T, b: T| !b.is_nan() && (a.is_nan() || a > b);
                    let best = (1..size).fold(0, |best, k| if larger(at(k), at(best)) { k } else { best });
                    out.push(best as i32);
                }
            }
            reference::tensor(&to.shape, out)
        })
    }

    fn gradient(&self, _: &GradientBuilder, _: &At) -> Result<Gradients, NoGradient> {
        Ok(vec![None])
    }
}

/// The shape without these axes, or with size 1 in their place.
fn without(x: &TensorType, axes: &[usize], keep: bool) -> Shape {
    let reduced = |i: &usize| axes.contains(i);
    (0..x.rank())
        .filter(|i| keep || !reduced(i))
        .map(|i| if reduced(&i) { Dim::from(1) } else { x.shape[i].clone() })
        .collect()
}

/// The operation of this family with that name, its attributes read; `None` for other names.
pub fn parse(name: &str, r: &mut Reader) -> Result<Option<Op>, String> {
    use ReduceKind::*;
    if name == "arg_max" {
        return Ok(Some(Op::ArgMax { axis: r.value("axis")?, keep: r.flag("keep") }));
    }
    let named = |&kind: &ReduceKind| Reduce { kind, axes: &[], keep: false }.name() == name;
    match [Sum, Mean, Max, Min, Prod, Variance].into_iter().find(named) {
        Some(kind) => Ok(Some(Op::Reduce { kind, axes: r.list("axes")?, keep: r.flag("keep") })),
        None => Ok(None),
    }
}
