//! Normalisation: batch normalisation, local response normalisation, softmax, log_softmax.

use super::rule::{self, Signature};
use super::{OpError, Operation};
use crate::graph::TensorType;

/// Batch normalisation: `(x - mean) / sqrt(var + eps) · weight + bias`, per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    /// Added to the variance.
    pub eps: f64,
    /// Share of the new statistics in the running ones (training).
    pub momentum: f64,
    /// Statistics of the batch instead of the running ones.
    pub training: bool,
}

/// `x / (k + alpha/size · Σ x²)^beta`, the sum over `size` neighbouring channels from
/// `c - size/2`, zeros outside (Krizhevsky et al. 2012, section 3.3; alpha divided as in PyTorch).
#[derive(Clone, Debug, PartialEq)]
pub struct LocalResponseNorm {
    /// Number of channels in the sum.
    pub size: usize,
    /// Factor.
    pub alpha: f64,
    /// Exponent.
    pub beta: f64,
    /// Offset.
    pub k: f64,
}

/// See [`Op::Softmax`](super::Op::Softmax).
pub struct Softmax {
    /// The axis.
    pub axis: usize,
}

/// See [`Op::LogSoftmax`](super::Op::LogSoftmax).
pub struct LogSoftmax {
    /// The axis.
    pub axis: usize,
}

impl Operation for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x", "weight", "bias", "running_mean", "running_var"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        rule::float(0, "x", x)?;
        rule::min_rank(0, "x", x, 2)?;
        let channels = &x.shape[1];
        for (i, &ty) in operands.iter().enumerate().skip(1) {
            let name = self.signature().names[i];
            rule::rank(i, name, ty, &["C"])?;
            rule::dtype(i, name, ty, x.dtype)?;
            if ty.shape[0] != *channels {
                let doubt = rule::doubt(&ty.shape[0], channels);
                return Err(OpError::operand(
                    0,
                    format!("`{name}` expects {} channels, `x` has {channels}{doubt}", ty.shape[0]),
                ));
            }
        }
        Ok(x.clone())
    }
}

impl Operation for LocalResponseNorm {
    fn name(&self) -> &'static str {
        "local_response_norm"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        rule::float(0, "x", operands[0])?;
        rule::min_rank(0, "x", operands[0], 2)?;
        rule::at_least_one("size", &[self.size])?;
        Ok(operands[0].clone())
    }
}

impl Operation for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        rule::float(0, "x", operands[0])?;
        rule::axis(0, "x", operands[0], self.axis)?;
        Ok(operands[0].clone())
    }
}

impl Operation for LogSoftmax {
    fn name(&self) -> &'static str {
        "log_softmax"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        Softmax { axis: self.axis }.infer(operands)
    }
}
