//! Indexing: gather, one_hot.

use nnc_runtime::DType;

use super::rule::{self, Signature};
use super::{OpError, Operation};
use crate::graph::{Dim, TensorType};

/// See [`Op::Gather`](super::Op::Gather).
pub struct Gather {
    /// The axis of the table.
    pub axis: usize,
}

/// See [`Op::OneHot`](super::Op::OneHot).
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

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let (table, indices) = (operands[0], operands[1]);
        rule::axis(0, "table", table, self.axis)?;
        rule::dtype(1, "indices", indices, DType::I32)?;
        let mut shape = table.shape.clone();
        shape.splice(self.axis..self.axis + 1, indices.shape.iter().cloned());
        Ok(TensorType { dtype: table.dtype, shape })
    }
}

impl Operation for OneHot {
    fn name(&self) -> &'static str {
        "one_hot"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["indices"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        rule::dtype(0, "indices", operands[0], DType::I32)?;
        rule::at_least_one("classes", &[self.classes])?;
        let mut shape = operands[0].shape.clone();
        shape.push(Dim::from(self.classes));
        Ok(TensorType { dtype: DType::F32, shape })
    }
}
