//! Reductions over axes, and the index of the largest value.

use nnc_runtime::DType;

use super::rule::{self, Signature};
use super::{OpError, Operation};
use crate::graph::{Dim, Shape, TensorType};

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is its own name
pub enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
}

/// See [`Op::Reduce`](super::Op::Reduce). Max and min are NaN if an element is.
pub struct Reduce<'a> {
    /// What is computed. On i32: all but the mean; sums and products wrap.
    pub kind: ReduceKind,
    /// Over which axes.
    pub axes: &'a [usize],
    /// Whether they stay as size 1.
    pub keep: bool,
}

/// See [`Op::ArgMax`](super::Op::ArgMax). A NaN counts as larger than any number.
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
        }
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        if self.kind == ReduceKind::Mean || x.dtype != DType::I32 {
            rule::float(0, "x", x)?;
        }
        for &a in self.axes {
            rule::axis(0, "x", x, a)?;
        }
        if let Some(w) = self.axes.windows(2).find(|w| w[0] >= w[1]) {
            let problem = if w[0] == w[1] { "given twice" } else { "out of order" };
            return Err(OpError::new(format!("axes must be sorted, each once: axis {} is {problem}", w[1])));
        }
        Ok(TensorType { dtype: x.dtype, shape: without(x, self.axes, self.keep) })
    }
}

impl Operation for ArgMax {
    fn name(&self) -> &'static str {
        "arg_max"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        if x.dtype != DType::I32 {
            rule::float(0, "x", x)?;
        }
        rule::axis(0, "x", x, self.axis)?;
        Ok(TensorType { dtype: DType::I32, shape: without(x, &[self.axis], self.keep) })
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
