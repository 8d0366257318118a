//! Pooling: max and average over windows, and to a fixed grid.

use super::rule::{self, Signature, Slide};
use super::{OpError, Operation};
use crate::graph::{Dim, TensorType};

/// Where the windows of a pooling lie. Output height is
/// `floor((H + top + bottom - dilation·(KH - 1) - 1) / stride) + 1`; with `ceil`, rounded up, but a
/// last window that would start in the lower padding is left out (PyTorch's rule).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height, width.
    pub kernel: [usize; 2],
    /// Vertical, horizontal.
    pub stride: [usize; 2],
    /// Above, below, left, right. Less than the kernel, so that no window is all padding.
    pub padding: [usize; 4],
    /// Vertical, horizontal.
    pub dilation: [usize; 2],
    /// Keeps the partial windows at the border.
    pub ceil: bool,
}

/// Max pooling: padding counts as minus infinity; NaN wins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MaxPool2d {
    /// The windows.
    pub window: Window,
}

/// Average pooling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AvgPool2d {
    /// The windows.
    pub window: Window,
    /// Whether padding counts in the divisor (PyTorch's default; what lies past the padding, in a
    /// partial window of `ceil`, never does).
    pub count_include_pad: bool,
}

/// See [`Op::AdaptiveMaxPool2d`](super::Op::AdaptiveMaxPool2d).
pub struct AdaptiveMaxPool2d {
    /// Height, width.
    pub output: [usize; 2],
}

/// See [`Op::AdaptiveAvgPool2d`](super::Op::AdaptiveAvgPool2d).
pub struct AdaptiveAvgPool2d {
    /// Height, width.
    pub output: [usize; 2],
}

impl Window {
    /// The type of the result.
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        rule::float(0, "x", x)?;
        rule::rank(0, "x", x, &["N", "C", "H", "W"])?;
        rule::at_least_one("the window", &self.kernel)?;
        rule::at_least_one("stride", &self.stride)?;
        rule::at_least_one("dilation", &self.dilation)?;
        let mut shape = x.shape[..2].to_vec();
        for i in 0..2 {
            let (before, after) = (self.padding[2 * i], self.padding[2 * i + 1]);
            let kernel = self.kernel[i];
            if before.max(after) >= kernel {
                return Err(OpError::new(format!(
                    "padding must be less than the window, so that no window is all padding: window {kernel}, padding {}",
                    before.max(after)
                )));
            }
            let slide = Slide {
                unit: ["rows", "columns"][i],
                kernel,
                stride: self.stride[i],
                before,
                after,
                dilation: self.dilation[i],
                ceil: self.ceil,
            };
            shape.push(slide.count(&x.shape[2 + i])?);
        }
        Ok(TensorType { dtype: x.dtype, shape })
    }
}

impl Operation for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        self.window.infer(operands)
    }
}

impl Operation for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        self.window.infer(operands)
    }
}

impl Operation for AdaptiveMaxPool2d {
    fn name(&self) -> &'static str {
        "adaptive_max_pool2d"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        infer_adaptive(self.output, operands)
    }
}

impl Operation for AdaptiveAvgPool2d {
    fn name(&self) -> &'static str {
        "adaptive_avg_pool2d"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        infer_adaptive(self.output, operands)
    }
}

fn infer_adaptive(output: [usize; 2], operands: &[&TensorType]) -> Result<TensorType, OpError> {
    let x = operands[0];
    rule::float(0, "x", x)?;
    rule::rank(0, "x", x, &["N", "C", "H", "W"])?;
    rule::at_least_one("the output size", &output)?;
    let [n, c] = [x.shape[0].clone(), x.shape[1].clone()];
    Ok(TensorType { dtype: x.dtype, shape: vec![n, c, Dim::from(output[0]), Dim::from(output[1])] })
}
