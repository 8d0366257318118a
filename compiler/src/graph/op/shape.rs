//! Movement of elements: reshape, transpose, concat, slice, reverse, pad, broadcast, relayout.

use nnc_runtime::Tensor;

use super::reference::{self, Element, Target, Walk, for_dtype};
use super::rule::{self, Signature};
use super::text::{Reader, Writer};
use super::{Op, OpError, Operation};
use crate::autodiff::{At, GradientBuilder, Gradients, NoGradient};
use crate::graph::{Dim, NodeId, Shape, TensorType};

/// See [`Op::Reshape`].
pub struct Reshape<'a> {
    /// The new shape.
    pub shape: &'a Shape,
}

/// See [`Op::Transpose`].
pub struct Transpose<'a> {
    /// Axis `i` of the result is axis `order[i]` of the operand.
    pub order: &'a [usize],
}

/// See [`Op::Concat`].
pub struct Concat {
    /// The axis.
    pub axis: usize,
}

/// See [`Op::Slice`].
pub struct Slice<'a> {
    /// The axis.
    pub axis: usize,
    /// First index.
    pub start: &'a Dim,
    /// One past the last.
    pub end: &'a Dim,
    /// Step.
    pub step: usize,
}

/// See [`Op::Reverse`].
pub struct Reverse<'a> {
    /// The axes.
    pub axes: &'a [usize],
}

/// Elements to be added along an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Padding {
    /// Before the first.
    pub before: usize,
    /// After the last.
    pub after: usize,
    /// Between each two.
    pub interior: usize,
}

impl Padding {
    /// Nothing between the elements.
    pub fn around(before: usize, after: usize) -> Padding {
        Padding { before, after, interior: 0 }
    }

    /// The size that an axis of that size gets.
    pub fn size(&self, size: &Dim) -> Dim {
        let between = size.clone().minus_one() * Dim::from(self.interior);
        size.clone() + between + Dim::from(self.before) + Dim::from(self.after)
    }
}

/// See [`Op::Pad`].
pub struct Pad<'a> {
    /// How many elements, an axis each.
    pub pads: &'a [Padding],
    /// The value.
    pub value: f64,
}

/// See [`Op::Broadcast`].
pub struct Broadcast<'a> {
    /// The new shape.
    pub shape: &'a Shape,
}

/// See [`Op::Relayout`]. The identity on elements.
pub struct Relayout;

impl Operation for Reshape<'_> {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.list("shape", self.shape);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        let ty = TensorType { dtype: x.dtype, shape: self.shape.clone() };
        rule::check_type(&ty)?;
        let (from, to) = (rule::elements(&x.shape), rule::elements(self.shape));
        if from != to {
            return Err(OpError::operand(
                0,
                format!("{ty} has {to} elements, `x` has {from}: {x}{}", rule::doubt(&to, &from)),
            ));
        }
        Ok(ty)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(all, to.dtype, T => {
            reference::tensor(&to.shape, reference::elements::<T>(operands, 0)?.to_vec())
        })
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        Ok(vec![Some(g.reshape(at.gradient, g.shape(at.operands[0])))])
    }
}

impl Operation for Transpose<'_> {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.list("order", self.order);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        let mut sorted = self.order.to_vec();
        sorted.sort();
        if !sorted.iter().copied().eq(0..x.rank()) {
            return Err(OpError::operand(
                0,
                format!("the order of axes must name each axis of `x` once, it is {:?} for {x}", self.order),
            ));
        }
        Ok(TensorType { dtype: x.dtype, shape: self.order.iter().map(|&a| x.shape[a].clone()).collect() })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let from = reference::strides(operands[0].shape());
        walk(operands, to, self.order.iter().map(|&a| from[a]).collect(), 0)
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let mut back = vec![0; self.order.len()];
        self.order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
        Ok(vec![Some(g.op(Op::Transpose(back), &[at.gradient]))])
    }
}

impl Operation for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn signature(&self) -> Signature {
        Signature::list(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.put("axis", self.axis);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let first = operands[0];
        rule::axis(0, "x0", first, self.axis)?;
        let mut size = Dim::from(0);
        for (i, &x) in operands.iter().enumerate() {
            if x.dtype != first.dtype {
                return Err(OpError::operand(
                    i,
                    format!("all operands must be of {}, `x{i}` is {x}", first.dtype),
                ));
            }
            if x.rank() != first.rank() {
                return Err(OpError::operand(
                    i,
                    format!("all operands must have as many dimensions as `x0` ({first}), `x{i}` is {x}"),
                ));
            }
            let differs = |&k: &usize| k != self.axis && x.shape[k] != first.shape[k];
            if let Some(k) = (0..x.rank()).find(differs) {
                let (expected, found) = (&first.shape[k], &x.shape[k]);
                return Err(OpError::operand(
                    i,
                    format!(
                        "operands may differ in axis {} only: dimension {k} is {expected} in `x0` ({first}) and {found} in `x{i}` ({x}){}",
                        self.axis,
                        rule::doubt(expected, found)
                    ),
                ));
            }
            size = size + x.shape[self.axis].clone();
        }
        let mut shape = first.shape.clone();
        shape[self.axis] = size;
        Ok(TensorType { dtype: first.dtype, shape })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(all, to.dtype, T => {
            let (outer, size, inner) = reference::around(&to.shape, self.axis);
            let mut out = vec![T::default(); outer * size * inner];
            let mut offset = 0;
            for (i, x) in operands.iter().enumerate() {
                let part = x.shape()[self.axis] * inner;
                for (o, row) in reference::elements::<T>(operands, i)?.chunks(part).enumerate() {
                    let at = o * size * inner + offset;
                    out[at..at + part].copy_from_slice(row);
                }
                offset += part;
            }
            reference::tensor(&to.shape, out)
        })
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let axis = self.axis;
        let mut start = Dim::from(0);
        let part = |&x: &NodeId| {
            let end = start.clone() + g.shape(x)[axis].clone();
            let from = std::mem::replace(&mut start, end.clone());
            Some(g.op(Op::Slice { axis, start: from, end, step: 1 }, &[at.gradient]))
        };
        Ok(at.operands.iter().map(part).collect())
    }
}

impl Operation for Slice<'_> {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.put("axis", self.axis)
            .put("start", self.start)
            .put("end", self.end)
            .put_unless(1, "step", self.step);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        rule::axis(0, "x", x, self.axis)?;
        rule::at_least_one("step", &[self.step])?;
        let size = &x.shape[self.axis];
        let (start, end) = (self.start, self.end);
        let below = |a: &Dim, b: &Dim| (a.clone() - b.clone()).known().is_some_and(|n| n < 0);
        if below(start, &Dim::from(0)) || below(size, end) {
            return Err(OpError::operand(
                0,
                format!("{start}..{end} must lie in 0..{size}, axis {} of `x`: {x}", self.axis),
            ));
        }
        let length = end.clone() - start.clone();
        if length.known().is_some_and(|n| n < 1) {
            return Err(OpError::operand(0, format!("{start}..{end} must not be empty")));
        }
        let mut shape = x.shape.clone();
        shape[self.axis] = length.ceil_div(&Dim::from(self.step));
        Ok(TensorType { dtype: x.dtype, shape })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let start =
            self.start.size().ok_or_else(|| OpError::new(format!("{} has no known size", self.start)))?;
        let mut strides = reference::strides(operands[0].shape());
        let first = start * strides[self.axis];
        strides[self.axis] *= self.step;
        walk(operands, to, strides, first)
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let x = at.operands[0];
        let before = self.start.size().ok_or_else(|| NoGradient::new("its start must be known"))?;
        let reached = before + (g.size(at.result, self.axis)? - 1) * self.step + 1;
        let after = g.size(x, self.axis)? - reached;
        let mut pads = vec![Padding::default(); g.ty(x).rank()];
        pads[self.axis] = Padding { before, after, interior: self.step - 1 };
        Ok(vec![Some(g.op(Op::Pad { pads, value: 0.0 }, &[at.gradient]))])
    }
}

impl Operation for Reverse<'_> {
    fn name(&self) -> &'static str {
        "reverse"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.list("axes", self.axes);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        rule::axes(0, "x", operands[0], self.axes)?;
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(all, to.dtype, T => {
            let mut out = reference::elements::<T>(operands, 0)?.to_vec();
            for &axis in self.axes {
                let (_, size, inner) = reference::around(&to.shape, axis);
                for block in out.chunks_mut(size * inner) {
                    let reversed = block.chunks(inner).rev().flatten().copied().collect::<Vec<_>>();
                    block.copy_from_slice(&reversed);
                }
            }
            reference::tensor(&to.shape, out)
        })
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        Ok(vec![Some(g.op(Op::Reverse(self.axes.to_vec()), &[at.gradient]))])
    }
}

impl Operation for Pad<'_> {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        let one = |p: &Padding| match p.interior {
            0 => format!("{}:{}", p.before, p.after),
            interior => format!("{}:{}:{interior}", p.before, p.after),
        };
        w.list("pads", self.pads.iter().map(one)).float("value", self.value);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        if self.pads.len() != x.rank() {
            return Err(OpError::operand(
                0,
                format!(
                    "padding must be given for each of the {} axes of `x`, it is given for {}: {x}",
                    x.rank(),
                    self.pads.len()
                ),
            ));
        }
        let shape = x.shape.iter().zip(self.pads).map(|(d, p)| p.size(d)).collect();
        Ok(TensorType { dtype: x.dtype, shape })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(all, to.dtype, T => {
            let x = reference::elements::<T>(operands, 0)?;
            let mut out = vec![T::from_f64(self.value); reference::count(&to.shape)];
            let mut strides = reference::strides(&to.shape);
            let first = self.pads.iter().zip(&strides).map(|(p, s)| p.before * s).sum();
            strides.iter_mut().zip(self.pads).for_each(|(s, p)| *s *= p.interior + 1);
            for (at, &v) in Walk::new(operands[0].shape(), strides, first).zip(x) {
                out[at] = v;
            }
            reference::tensor(&to.shape, out)
        })
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let shape = g.shape(at.result);
        let mut dx = at.gradient;
        for (axis, p) in self.pads.iter().enumerate().filter(|(_, p)| **p != Padding::default()) {
            let end = shape[axis].clone() - Dim::from(p.after);
            dx = g.op(Op::Slice { axis, start: Dim::from(p.before), end, step: p.interior + 1 }, &[dx]);
        }
        Ok(vec![Some(dx)])
    }
}

impl Operation for Broadcast<'_> {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.list("shape", self.shape);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        let ty = TensorType { dtype: x.dtype, shape: self.shape.clone() };
        if x.rank() > ty.rank() {
            return Err(OpError::operand(0, format!("{ty} has fewer dimensions than `x`: {x}")));
        }
        let offset = ty.rank() - x.rank();
        for (k, d) in x.shape.iter().enumerate() {
            let target = &self.shape[offset + k];
            if d != target && *d != Dim::from(1) {
                let doubt = rule::doubt(target, d);
                return Err(OpError::operand(
                    0,
                    format!(
                        "`x` does not broadcast to {ty}: dimension {k} must be {target} or 1, it is {d} in {x}{doubt}"
                    ),
                ));
            }
        }
        Ok(ty)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        walk(operands, to, reference::broadcast_strides(operands[0].shape(), &to.shape), 0)
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        Ok(vec![Some(g.sum_to(at.gradient, at.operands[0]))])
    }
}

impl Operation for Relayout {
    fn name(&self) -> &'static str {
        "relayout"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor], _: &Target) -> Result<Tensor, OpError> {
        Ok(operands[0].clone())
    }

    fn gradient(&self, _: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        Ok(vec![Some(at.gradient)])
    }
}

/// The elements of the operand at these offsets, in the result's order.
fn walk(operands: &[&Tensor], to: &Target, strides: Vec<usize>, first: usize) -> Result<Tensor, OpError> {
    for_dtype!(all, to.dtype, T => {
        let x = reference::elements::<T>(operands, 0)?;
        reference::tensor(&to.shape, Walk::new(&to.shape, strides, first).map(|at| x[at]).collect())
    })
}

/// The operation of this family with that name, its attributes read; `None` for other names.
pub fn parse(name: &str, r: &mut Reader) -> Result<Option<Op>, String> {
    Ok(Some(match name {
        "reshape" => Op::Reshape(r.shape("shape")?),
        "transpose" => Op::Transpose(r.list("order")?),
        "concat" => Op::Concat(r.value("axis")?),
        "slice" => Op::Slice {
            axis: r.value("axis")?,
            start: r.dim("start")?,
            end: r.dim("end")?,
            step: r.value_or(1, "step")?,
        },
        "reverse" => Op::Reverse(r.list("axes")?),
        "pad" => {
            let one = |text: String| {
                let numbers: Option<Vec<usize>> = text.split(':').map(|n| n.parse().ok()).collect();
                match numbers?[..] {
                    [before, after] => Some(Padding::around(before, after)),
                    [before, after, interior] => Some(Padding { before, after, interior }),
                    _ => None,
                }
            };
            let pads: Option<Vec<_>> = r.list("pads")?.into_iter().map(one).collect();
            let pads = pads.ok_or("attribute `pads` should be like [0:0, 1:2] or [1:2:1]")?;
            Op::Pad { pads, value: r.value("value")? }
        }
        "broadcast" => Op::Broadcast(r.shape("shape")?),
        "relayout" => Op::Relayout,
        _ => return Ok(None),
    }))
}
