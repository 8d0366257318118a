//! Pooling: max and average over windows, and to a fixed grid.

use nnc_runtime::Tensor;

use super::reference::{self, Float, Number, Target, for_dtype};
use super::rule::{self, Signature, Slide};
use super::text::{Reader, Writer};
use super::{AvgPool2dGrad, Op, OpError, Operation};
use crate::autodiff::{At, GradientBuilder, Gradients, NoGradient};
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
    /// partial window of `ceil`, never does). The mean of no element is 0.
    pub count_include_pad: bool,
}

/// See [`Op::AdaptiveMaxPool2d`].
pub struct AdaptiveMaxPool2d {
    /// Height, width.
    pub output: [usize; 2],
}

/// See [`Op::AdaptiveAvgPool2d`].
pub struct AdaptiveAvgPool2d {
    /// Height, width.
    pub output: [usize; 2],
}

impl Window {
    /// The type of the result.
    pub(super) fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        rule::float(0, "x", x)?;
        rule::rank(0, "x", x, &["N", "C", "H", "W"])?;
        rule::at_least_one("the window", &self.kernel)?;
        rule::at_least_one("stride", &self.stride)?;
        rule::at_least_one("dilation", &self.dilation)?;
        rule::not_huge("padding", &self.padding)?;
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

    fn attributes(&self, w: &mut Writer) {
        self.window.write(w);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        self.window.infer(operands)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => pool(operands, to, &self.window.bins(sizes(operands[0]), grid(to)), largest::<T>))
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        Ok(vec![Some(g.op(Op::MaxPool2dGrad(self.clone()), &[at.operands[0], at.gradient]))])
    }
}

impl Operation for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        self.window.write(w);
        w.put_unless(true, "count_include_pad", self.count_include_pad);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        self.window.infer(operands)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let pad = self.count_include_pad;
        for_dtype!(floats, to.dtype, T => pool(operands, to, &self.window.bins(sizes(operands[0]), grid(to)), |values, counts| {
            mean::<T>(values, if pad { counts.padded } else { counts.inside })
        }))
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let op = AvgPool2dGrad { pool: self.clone(), input: picture(g, at) };
        Ok(vec![Some(g.op(Op::AvgPool2dGrad(op), &[at.gradient]))])
    }
}

impl Operation for AdaptiveMaxPool2d {
    fn name(&self) -> &'static str {
        "adaptive_max_pool2d"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.pair(None, "output", self.output);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        infer_adaptive(self.output, operands)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => pool(operands, to, &adaptive_bins(sizes(operands[0]), grid(to)), largest::<T>))
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        Ok(vec![Some(g.op(Op::AdaptiveMaxPool2dGrad, &[at.operands[0], at.gradient]))])
    }
}

impl Operation for AdaptiveAvgPool2d {
    fn name(&self) -> &'static str {
        "adaptive_avg_pool2d"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.pair(None, "output", self.output);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        infer_adaptive(self.output, operands)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => pool(operands, to, &adaptive_bins(sizes(operands[0]), grid(to)), |values, counts| {
            mean::<T>(values, counts.inside)
        }))
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        Ok(vec![Some(g.op(Op::AdaptiveAvgPool2dGrad(picture(g, at)), &[at.gradient]))])
    }
}

/// Height and width of what is pooled.
fn picture(g: &GradientBuilder, at: &At) -> [Dim; 2] {
    let shape = g.shape(at.operands[0]);
    [shape[2].clone(), shape[3].clone()]
}

pub(super) fn infer_adaptive(output: [usize; 2], operands: &[&TensorType]) -> Result<TensorType, OpError> {
    let x = operands[0];
    rule::float(0, "x", x)?;
    rule::rank(0, "x", x, &["N", "C", "H", "W"])?;
    rule::at_least_one("the output size", &output)?;
    let [n, c] = [x.shape[0].clone(), x.shape[1].clone()];
    Ok(TensorType { dtype: x.dtype, shape: vec![n, c, Dim::from(output[0]), Dim::from(output[1])] })
}

/// Height and width of a value `[N, C, H, W]`.
pub(super) fn sizes(x: &Tensor) -> [usize; 2] {
    [x.shape()[2], x.shape()[3]]
}

/// Height and width of a result `[N, C, H, W]`.
pub(super) fn grid(to: &Target) -> [usize; 2] {
    [to.shape[2], to.shape[3]]
}

/// What one window covers in one dimension.
pub(super) struct Bin {
    /// Indices of the input.
    pub at: Vec<usize>,
    /// How many taps lie in the input or its padding.
    pub padded: usize,
}

/// How many taps a window has.
struct Counts {
    /// In the input.
    inside: usize,
    /// In the input or its padding.
    padded: usize,
}

impl Window {
    /// The windows in each dimension.
    pub(super) fn bins(&self, input: [usize; 2], output: [usize; 2]) -> [Vec<Bin>; 2] {
        [0, 1].map(|axis| {
            let size = input[axis];
            let (before, after) = (self.padding[2 * axis], self.padding[2 * axis + 1]);
            let bin = |window: usize| {
                // Counted from the first element of the padding.
                let taps = (0..self.kernel[axis])
                    .map(|k| window * self.stride[axis] + k * self.dilation[axis])
                    .filter(|&p| p < before + size + after);
                let at = taps.clone().filter(|&p| p >= before && p < before + size).map(|p| p - before);
                Bin { at: at.collect(), padded: taps.count() }
            };
            (0..output[axis]).map(bin).collect()
        })
    }
}

/// PyTorch's windows onto a fixed grid; neighbours may overlap.
pub(super) fn adaptive_bins(input: [usize; 2], output: [usize; 2]) -> [Vec<Bin>; 2] {
    [0, 1].map(|axis| {
        let (size, out) = (input[axis], output[axis]);
        let bin = |i: usize| (i * size / out..((i + 1) * size).div_ceil(out)).collect::<Vec<_>>();
        (0..out).map(bin).map(|at| Bin { padded: at.len(), at }).collect()
    })
}

/// Summarises every window of every plane.
fn pool<T: Float>(
    operands: &[&Tensor],
    to: &Target,
    [rows, columns]: &[Vec<Bin>; 2],
    summarise: impl Fn(&mut dyn Iterator<Item = T>, Counts) -> T,
) -> Result<Tensor, OpError> {
    let x = reference::elements::<T>(operands, 0)?;
    let (_, height, width) = reference::around(operands[0].shape(), 2);
    let mut out = Vec::with_capacity(reference::count(&to.shape));
    for plane in x.chunks(height * width) {
        for row in rows {
            for column in columns {
                let mut values =
                    row.at.iter().flat_map(|h| column.at.iter().map(move |w| plane[h * width + w]));
                let counts =
                    Counts { inside: row.at.len() * column.at.len(), padded: row.padded * column.padded };
                out.push(summarise(&mut values, counts));
            }
        }
    }
    reference::tensor(&to.shape, out)
}

fn largest<T: Float>(values: &mut dyn Iterator<Item = T>, _: Counts) -> T {
    values.fold(T::LOWEST, Number::max)
}

fn mean<T: Float>(values: &mut dyn Iterator<Item = T>, count: usize) -> T {
    values.fold(T::default(), Number::add).div(T::from_f64(count.max(1) as f64))
}

impl Window {
    pub(super) fn write(&self, w: &mut Writer) {
        w.pair(None, "window", self.kernel)
            .pair(None, "stride", self.stride)
            .padding(self.padding)
            .pair(Some([1, 1]), "dilation", self.dilation)
            .flag("ceil", self.ceil);
    }

    pub(super) fn read(r: &mut Reader) -> Result<Window, String> {
        Ok(Window {
            kernel: r.pair(None, "window")?,
            stride: r.pair(None, "stride")?,
            padding: r.padding()?,
            dilation: r.pair(Some([1, 1]), "dilation")?,
            ceil: r.flag("ceil"),
        })
    }
}

/// The operation of this family with that name, its attributes read; `None` for other names.
pub fn parse(name: &str, r: &mut Reader) -> Result<Option<Op>, String> {
    Ok(Some(match name {
        "max_pool2d" => Op::MaxPool2d(MaxPool2d { window: Window::read(r)? }),
        "avg_pool2d" => Op::AvgPool2d(AvgPool2d {
            window: Window::read(r)?,
            count_include_pad: r.value_or(true, "count_include_pad")?,
        }),
        "adaptive_max_pool2d" => Op::AdaptiveMaxPool2d(r.pair(None, "output")?),
        "adaptive_avg_pool2d" => Op::AdaptiveAvgPool2d(r.pair(None, "output")?),
        _ => return Ok(None),
    }))
}
