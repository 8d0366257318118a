//! The two gradients of a convolution. Shapes are checked by asking the convolution itself what it
//! would make of the operands that the gradient is for.

use nnc_runtime::Tensor;

use super::conv::taps;
use super::reference::{self, Number, Target, for_dtype, inside};
use super::rule::{self, Signature};
use super::text::{Reader, Writer};
use super::{Conv2d, Op, OpError, Operation};
use crate::graph::{Dim, TensorType};

/// See [`Op::Conv2dInputGrad`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dInputGrad {
    /// The convolution.
    pub conv: Conv2d,
    /// Height and width of its input.
    pub input: [Dim; 2],
}

/// See [`Op::Conv2dWeightGrad`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dWeightGrad {
    /// The convolution.
    pub conv: Conv2d,
    /// Height and width of its kernel.
    pub kernel: [usize; 2],
}

impl Operation for Conv2dInputGrad {
    fn name(&self) -> &'static str {
        "conv2d_input_grad"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["dy", "weight"])
    }

    fn attributes(&self, w: &mut Writer) {
        self.conv.write(w);
        w.list("input", &self.input);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let (dy, weight) = (operands[0], operands[1]);
        rule::rank(0, "dy", dy, &["N", "O", "H", "W"])?;
        rule::rank(1, "weight", weight, &["O", "C/groups", "KH", "KW"])?;
        let channels = weight.shape[1].clone() * Dim::from(self.conv.groups);
        let mut shape = vec![dy.shape[0].clone(), channels];
        shape.extend(self.input.iter().cloned());
        let x = TensorType { dtype: dy.dtype, shape };
        rule::check_type(&x)?;
        rule::shape(0, "dy", dy, &self.conv.infer(&[&x, weight])?.shape)?;
        Ok(x)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => {
            let (dy, weight) = (reference::elements::<T>(operands, 0)?, reference::elements::<T>(operands, 1)?);
            let mut dx = vec![T::default(); reference::count(&to.shape)];
            pairs(&self.conv, &to.shape, operands[1].shape(), operands[0].shape(), |x, w, y| {
                dx[x] = dx[x].add(weight[w].mul(dy[y]));
            });
            reference::tensor(&to.shape, dx)
        })
    }
}

impl Operation for Conv2dWeightGrad {
    fn name(&self) -> &'static str {
        "conv2d_weight_grad"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x", "dy"])
    }

    fn attributes(&self, w: &mut Writer) {
        self.conv.write(w);
        w.pair(None, "kernel", self.kernel);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let (x, dy) = (operands[0], operands[1]);
        rule::rank(0, "x", x, &["N", "C", "H", "W"])?;
        rule::rank(1, "dy", dy, &["N", "O", "H", "W"])?;
        rule::dtype(1, "dy", dy, x.dtype)?;
        rule::at_least_one("groups", &[self.conv.groups])?;
        let groups = Dim::from(self.conv.groups);
        let channels = x.shape[1].exact_div(&groups).ok_or_else(|| {
            OpError::operand(0, format!("groups must divide the input channels: {groups} groups, {x}"))
        })?;
        let [kh, kw] = self.kernel.map(Dim::from);
        let weight = TensorType { dtype: x.dtype, shape: vec![dy.shape[1].clone(), channels, kh, kw] };
        rule::shape(1, "dy", dy, &self.conv.infer(&[x, &weight])?.shape)?;
        Ok(weight)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => {
            let (x, dy) = (reference::elements::<T>(operands, 0)?, reference::elements::<T>(operands, 1)?);
            let mut dw = vec![T::default(); reference::count(&to.shape)];
            pairs(&self.conv, operands[0].shape(), &to.shape, operands[1].shape(), |x_at, w, y| {
                dw[w] = dw[w].add(x[x_at].mul(dy[y]));
            });
            reference::tensor(&to.shape, dw)
        })
    }
}

/// The offsets (input, weight, result) of every product that a convolution adds up.
fn pairs(
    conv: &Conv2d,
    x: &[usize],
    weight: &[usize],
    y: &[usize],
    mut visit: impl FnMut(usize, usize, usize),
) {
    let (&[batch, _, height, width], &[out_channels, channels, kh, kw], &[_, _, rows, columns]) =
        (x, weight, y)
    else {
        return;
    };
    let [sh, sw] = conv.stride;
    for (n, o) in (0..batch).flat_map(|n| (0..out_channels).map(move |o| (n, o))) {
        let group = o / (out_channels / conv.groups);
        let plane = (n * out_channels + o) * rows * columns;
        for (c, i, j) in taps(channels, kh, kw) {
            let w = ((o * channels + c) * kh + i) * kw + j;
            let from = ((n * conv.groups + group) * channels + c) * height * width;
            let (tap_row, tap_column) = conv.tap(i, j);
            for row in inside(rows, sh, tap_row, height) {
                let line = from + (row * sh).wrapping_add_signed(tap_row) * width;
                for column in inside(columns, sw, tap_column, width) {
                    let at = line + (column * sw).wrapping_add_signed(tap_column);
                    visit(at, w, plane + row * columns + column);
                }
            }
        }
    }
}

/// The operation of this family with that name, its attributes read; `None` for other names.
pub fn parse(name: &str, r: &mut Reader) -> Result<Option<Op>, String> {
    Ok(Some(match name {
        "conv2d_input_grad" => {
            Op::Conv2dInputGrad(Conv2dInputGrad { conv: Conv2d::read(r)?, input: r.dims("input")? })
        }
        "conv2d_weight_grad" => {
            Op::Conv2dWeightGrad(Conv2dWeightGrad { conv: Conv2d::read(r)?, kernel: r.pair(None, "kernel")? })
        }
        _ => return Ok(None),
    }))
}
