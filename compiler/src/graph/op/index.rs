//! Indexing: gather and its gradient, one_hot.

use nnc_runtime::{DType, Tensor};

use super::reference::{self, Element, Number, Target, for_dtype};
use super::rule::{self, Signature};
use super::text::{Reader, Writer};
use super::{Op, OpError, Operation};
use crate::autodiff::{At, GradientBuilder, Gradients, NoGradient};
use crate::graph::{Dim, TensorType};

/// See [`Op::Gather`].
pub struct Gather {
    /// The axis of the table.
    pub axis: usize,
}

/// See [`Op::GatherGrad`].
pub struct GatherGrad<'a> {
    /// The axis of the table.
    pub axis: usize,
    /// Its size.
    pub size: &'a Dim,
}

/// See [`Op::OneHot`].
pub struct OneHot {
    /// Size of the new last dimension.
    pub classes: usize,
}

impl Operation for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["table", "indices"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.put("axis", self.axis);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let (table, indices) = (operands[0], operands[1]);
        rule::axis(0, "table", table, self.axis)?;
        rule::dtype(1, "indices", indices, DType::I32)?;
        let mut shape = table.shape.clone();
        shape.splice(self.axis..self.axis + 1, indices.shape.iter().cloned());
        Ok(TensorType { dtype: table.dtype, shape })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let indices = reference::elements::<i32>(operands, 1)?;
        for_dtype!(all, to.dtype, T => {
            let table = reference::elements::<T>(operands, 0)?;
            let (outer, size, inner) = reference::around(operands[0].shape(), self.axis);
            let mut out = Vec::with_capacity(reference::count(&to.shape));
            for o in 0..outer {
                for &i in indices {
                    let row = o * size + clamped(i, size);
                    out.extend_from_slice(&table[row * inner..(row + 1) * inner]);
                }
            }
            reference::tensor(&to.shape, out)
        })
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let (table, indices) = (at.operands[0], at.operands[1]);
        let size = g.shape(table)[self.axis].clone();
        let op = Op::GatherGrad { axis: self.axis, size };
        Ok(vec![Some(g.op(op, &[at.gradient, indices])), None])
    }
}

impl Operation for GatherGrad<'_> {
    fn name(&self) -> &'static str {
        "gather_grad"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["dy", "indices"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.put("axis", self.axis).put("size", self.size);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let (dy, indices) = (operands[0], operands[1]);
        rule::float(0, "dy", dy)?;
        rule::dtype(1, "indices", indices, DType::I32)?;
        rule::min_rank(0, "dy", dy, self.axis + indices.rank())?;
        let rows = self.axis..self.axis + indices.rank();
        if dy.shape[rows.clone()] != indices.shape[..] {
            let message = format!("`dy` must have the shape of `indices` from axis {} on", self.axis);
            return Err(OpError::operand(0, format!("{message}: {dy} and {indices}")));
        }
        let mut shape = dy.shape.clone();
        shape.splice(rows, [self.size.clone()]);
        Ok(TensorType { dtype: dy.dtype, shape })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let indices = reference::elements::<i32>(operands, 1)?;
        for_dtype!(floats, to.dtype, T => {
            let dy = reference::elements::<T>(operands, 0)?;
            let (_, size, inner) = reference::around(&to.shape, self.axis);
            let mut out = vec![T::default(); reference::count(&to.shape)];
            for (block, dy) in out.chunks_mut(size * inner).zip(dy.chunks(indices.len() * inner)) {
                for (&i, dy) in indices.iter().zip(dy.chunks(inner)) {
                    let row = clamped(i, size);
                    for (sum, &d) in block[row * inner..][..inner].iter_mut().zip(dy) {
                        *sum = sum.add(d);
                    }
                }
            }
            reference::tensor(&to.shape, out)
        })
    }
}

impl Operation for OneHot {
    fn name(&self) -> &'static str {
        "one_hot"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["indices"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.put("classes", self.classes);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        rule::dtype(0, "indices", operands[0], DType::I32)?;
        rule::at_least_one("classes", &[self.classes])?;
        let mut shape = operands[0].shape.clone();
        shape.push(Dim::from(self.classes));
        Ok(TensorType { dtype: DType::F32, shape })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let indices = reference::elements::<i32>(operands, 0)?;
        for_dtype!(all, to.dtype, T => {
            let row = |&i: &i32| (0..self.classes).map(move |c| T::from_f64(f64::from(u8::from(c as i64 == i64::from(i)))));
            reference::tensor(&to.shape, indices.iter().flat_map(row).collect())
        })
    }

    fn gradient(&self, _: &GradientBuilder, _: &At) -> Result<Gradients, NoGradient> {
        Ok(vec![None])
    }
}

/// The row of a table of that size that an index stands for.
fn clamped(index: i32, size: usize) -> usize {
    usize::try_from(index).unwrap_or(0).min(size - 1)
}

/// The operation of this family with that name, its attributes read; `None` for other names.
pub fn parse(name: &str, r: &mut Reader) -> Result<Option<Op>, String> {
    Ok(Some(match name {
        "gather" => Op::Gather(r.value("axis")?),
        "gather_grad" => Op::GatherGrad { axis: r.value("axis")?, size: r.dim("size")? },
        "one_hot" => Op::OneHot(r.value("classes")?),
        _ => return Ok(None),
    }))
}
