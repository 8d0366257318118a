//! Convolutions: 2-D and transposed 2-D. (1-D ones are written with them in the standard library.)

use nnc_runtime::Tensor;

use super::reference::{self, Float, Target, for_dtype, inside};
use super::rule::{self, Signature, Slide};
use super::text::{Reader, Writer};
use super::{Conv2dInputGrad, Conv2dWeightGrad, Op, OpError, Operation};
use crate::autodiff::{At, GradientBuilder, Gradients, NoGradient};
use crate::graph::{Dim, TensorType};

/// Attributes of a 2-D convolution (cross-correlation, as everywhere in the field).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Vertical, horizontal.
    pub stride: [usize; 2],
    /// Rows of zeros above, below, columns left, right.
    pub padding: [usize; 4],
    /// Vertical, horizontal.
    pub dilation: [usize; 2],
    /// Channels are split into that many independent groups.
    pub groups: usize,
}

/// Attributes of a transposed 2-D convolution: the gradient of [`Conv2d`] with respect to its input.
/// Output height: `(H - 1)·stride - top - bottom + dilation·(KH - 1) + output_padding + 1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvTranspose2d {
    /// Vertical, horizontal.
    pub stride: [usize; 2],
    /// Rows cut above, below, columns left, right.
    pub padding: [usize; 4],
    /// Rows added below, columns right.
    pub output_padding: [usize; 2],
    /// Vertical, horizontal.
    pub dilation: [usize; 2],
    /// Channels are split into that many independent groups.
    pub groups: usize,
}

const OPERANDS: Signature = Signature::optional_last(&["x", "weight", "bias"]);

impl Operation for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn signature(&self) -> Signature {
        OPERANDS
    }

    fn attributes(&self, w: &mut Writer) {
        self.write(w);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let (x, weight) = check_operands(operands, &["O", "C/groups", "KH", "KW"])?;
        check_attributes(self.stride, self.padding, self.dilation, self.groups)?;
        let channels = weight.shape[1].clone() * Dim::from(self.groups);
        check_channels(&channels, x)?;
        let out = &weight.shape[0];
        check_divides(self.groups, "output", out)?;
        check_bias(operands.get(2), out)?;
        let [kh, kw] = kernel(weight)?;
        let [top, bottom, left, right] = self.padding;
        let slide = |unit, kernel, i: usize, before, after| Slide {
            unit,
            kernel,
            stride: self.stride[i],
            before,
            after,
            dilation: self.dilation[i],
            ceil: false,
        };
        let rows = slide("rows", kh, 0, top, bottom).count(&x.shape[2])?;
        let columns = slide("columns", kw, 1, left, right).count(&x.shape[3])?;
        Ok(TensorType { dtype: x.dtype, shape: vec![x.shape[0].clone(), out.clone(), rows, columns] })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => self.eval_as::<T>(operands, to))
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let (x, weight, dy) = (at.operands[0], at.operands[1], at.gradient);
        let (of_x, of_weight) = (g.shape(x), g.ty(weight));
        let input = [of_x[2].clone(), of_x[3].clone()];
        let to_x = Op::Conv2dInputGrad(Conv2dInputGrad { conv: self.clone(), input });
        let to_weight = Conv2dWeightGrad { conv: self.clone(), kernel: kernel(&of_weight)? };
        let mut out =
            vec![Some(g.op(to_x, &[dy, weight])), Some(g.op(Op::Conv2dWeightGrad(to_weight), &[x, dy]))];
        out.extend(at.operands.get(2).map(|_| Some(g.sum(dy, vec![0, 2, 3]))));
        Ok(out)
    }
}

impl Operation for ConvTranspose2d {
    fn name(&self) -> &'static str {
        "conv_transpose2d"
    }

    fn signature(&self) -> Signature {
        OPERANDS
    }

    fn attributes(&self, w: &mut Writer) {
        w.pair(Some([1, 1]), "stride", self.stride)
            .padding(self.padding)
            .pair(Some([0, 0]), "output_padding", self.output_padding)
            .pair(Some([1, 1]), "dilation", self.dilation)
            .put_unless(1, "groups", self.groups);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let (x, weight) = check_operands(operands, &["C", "O/groups", "KH", "KW"])?;
        check_attributes(self.stride, self.padding, self.dilation, self.groups)?;
        check_channels(&weight.shape[0], x)?;
        check_divides(self.groups, "input", &weight.shape[0])?;
        let out = weight.shape[1].clone() * Dim::from(self.groups);
        check_bias(operands.get(2), &out)?;
        let kernel = kernel(weight)?;
        let mut shape = vec![x.shape[0].clone(), out];
        for i in 0..2 {
            let limit = self.stride[i].max(self.dilation[i]);
            if self.output_padding[i] >= limit {
                return Err(OpError::new(format!(
                    "output_padding must be less than stride or dilation ({limit}), it is {}",
                    self.output_padding[i]
                )));
            }
            let size = (x.shape[2 + i].clone().minus_one()) * Dim::from(self.stride[i])
                - Dim::from(self.padding[2 * i])
                - Dim::from(self.padding[2 * i + 1])
                + Dim::from(kernel[i]).minus_one() * Dim::from(self.dilation[i])
                + Dim::from(self.output_padding[i])
                + Dim::from(1);
            if let Some(n) = size.known().filter(|&n| n < 1) {
                let unit = ["rows", "columns"][i];
                return Err(OpError::operand(0, format!("padding cuts all {unit}: {n} would be left")));
            }
            shape.push(size);
        }
        Ok(TensorType { dtype: x.dtype, shape })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => self.eval_as::<T>(operands, to))
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let (x, weight, dy) = (at.operands[0], at.operands[1], at.gradient);
        // Output padding is what a convolution does not reach: less padding after, or rows cut off.
        let mut conv = self.forward();
        let mut seen = dy;
        for axis in 0..2 {
            let after = &mut conv.padding[2 * axis + 1];
            let cut = self.output_padding[axis].saturating_sub(*after);
            *after = after.saturating_sub(self.output_padding[axis]);
            if cut > 0 {
                let end = g.shape(seen)[2 + axis].clone() - Dim::from(cut);
                if end.known().is_some_and(|n| n < 1) {
                    // Output padding is all there is.
                    let zeros = |like| Some(g.splat(0.0, g.ty(like)));
                    let mut out = vec![zeros(x), zeros(weight)];
                    out.extend(at.operands.get(2).map(|_| Some(g.sum(dy, vec![0, 2, 3]))));
                    return Ok(out);
                }
                seen = g.op(Op::Slice { axis: 2 + axis, start: Dim::from(0), end, step: 1 }, &[seen]);
            }
        }
        let kernel = kernel(&g.ty(weight))?;
        let dx = g.op(Op::Conv2d(conv.clone()), &[seen, weight]);
        let dw = g.op(Op::Conv2dWeightGrad(Conv2dWeightGrad { conv, kernel }), &[seen, x]);
        let mut out = vec![Some(dx), Some(dw)];
        out.extend(at.operands.get(2).map(|_| Some(g.sum(dy, vec![0, 2, 3]))));
        Ok(out)
    }
}

fn check_operands<'a>(
    operands: &[&'a TensorType],
    weight_dims: &[&str],
) -> Result<(&'a TensorType, &'a TensorType), OpError> {
    let (x, weight) = (operands[0], operands[1]);
    rule::float(0, "x", x)?;
    rule::rank(0, "x", x, &["N", "C", "H", "W"])?;
    rule::rank(1, "weight", weight, weight_dims)?;
    rule::dtype(1, "weight", weight, x.dtype)?;
    if let Some(bias) = operands.get(2) {
        rule::rank(2, "bias", bias, &["O"])?;
        rule::dtype(2, "bias", bias, x.dtype)?;
    }
    Ok((x, weight))
}

fn check_attributes(
    stride: [usize; 2],
    padding: [usize; 4],
    dilation: [usize; 2],
    groups: usize,
) -> Result<(), OpError> {
    rule::not_huge("padding", &padding)?;
    rule::at_least_one("stride", &stride)?;
    rule::at_least_one("dilation", &dilation)?;
    rule::at_least_one("groups", &[groups])
}

fn check_channels(expected: &Dim, x: &TensorType) -> Result<(), OpError> {
    let found = &x.shape[1];
    if found == expected {
        return Ok(());
    }
    let doubt = rule::doubt(expected, found);
    let e =
        OpError::operand(0, format!("`weight` expects {expected} input channels, `x` has {found}{doubt}"));
    let channels_last = x.shape[3] == *expected;
    Err(if channels_last { e.help("channels come second: `x` must be [N, C, H, W]") } else { e })
}

fn check_divides(groups: usize, which: &str, channels: &Dim) -> Result<(), OpError> {
    if groups == 1 || channels.exact_div(&Dim::from(groups)).is_some() {
        return Ok(());
    }
    Err(OpError::operand(
        1,
        format!("groups must divide the {which} channels: {groups} groups, {channels} channels"),
    ))
}

fn check_bias(bias: Option<&&TensorType>, channels: &Dim) -> Result<(), OpError> {
    match bias {
        Some(b) if b.shape[0] != *channels => {
            let doubt = rule::doubt(channels, &b.shape[0]);
            Err(OpError::operand(
                2,
                format!(
                    "`bias` must have one element for each of {channels} output channels, it has {}{doubt}",
                    b.shape[0]
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Height and width of the kernel, which must be known.
fn kernel(weight: &TensorType) -> Result<[usize; 2], OpError> {
    let known = |d: &Dim| {
        d.size().filter(|&n| n > 0).ok_or_else(|| {
            OpError::operand(1, format!("the kernel must have a known size of at least 1, it is `{d}`"))
        })
    };
    Ok([known(&weight.shape[2])?, known(&weight.shape[3])?])
}

impl Conv2d {
    pub(super) fn write(&self, w: &mut Writer) {
        w.pair(Some([1, 1]), "stride", self.stride)
            .padding(self.padding)
            .pair(Some([1, 1]), "dilation", self.dilation)
            .put_unless(1, "groups", self.groups);
    }

    pub(super) fn read(r: &mut Reader) -> Result<Conv2d, String> {
        Ok(Conv2d {
            stride: r.pair(Some([1, 1]), "stride")?,
            padding: r.padding()?,
            dilation: r.pair(Some([1, 1]), "dilation")?,
            groups: r.value_or(1, "groups")?,
        })
    }

    fn eval_as<T: Float>(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let (x, weight) = (reference::elements::<T>(operands, 0)?, reference::elements::<T>(operands, 1)?);
        let (&[_, _, height, width], &[out_channels, channels, kh, kw], &[batch, _, rows, columns]) =
            (operands[0].shape(), operands[1].shape(), &to.shape[..])
        else {
            return Err(OpError::new("`conv2d` needs 4 dimensions"));
        };
        let (sh, sw) = (self.stride[0], self.stride[1]);
        let mut out = vec![T::default(); reference::count(&to.shape)];
        for (n, o) in (0..batch).flat_map(|n| (0..out_channels).map(move |o| (n, o))) {
            let plane = &mut out[(n * out_channels + o) * rows * columns..][..rows * columns];
            let group = o / (out_channels / self.groups);
            for (c, i, j) in taps(channels, kh, kw) {
                let w = weight[((o * channels + c) * kh + i) * kw + j];
                let c = (n * self.groups + group) * channels + c;
                let x = &x[c * height * width..][..height * width];
                let (tap_row, tap_column) = self.tap(i, j);
                let inner = inside(columns, sw, tap_column, width);
                if inner.is_empty() {
                    continue;
                }
                for row in inside(rows, sh, tap_row, height) {
                    let y = &mut plane[row * columns..][inner.clone()];
                    let x = &x[(row * sh).wrapping_add_signed(tap_row) * width..][..width];
                    let first = (inner.start * sw).wrapping_add_signed(tap_column);
                    add_product(y, w, &x[first..], sw);
                }
            }
        }
        add_bias(&mut out, operands, rows * columns)?;
        reference::tensor(&to.shape, out)
    }

    /// Row and column of the input under tap (i, j) of the window at (0, 0).
    pub(super) fn tap(&self, i: usize, j: usize) -> (isize, isize) {
        let at = |k: usize, axis: usize, before: usize| (k * self.dilation[axis]) as isize - before as isize;
        (at(i, 0, self.padding[0]), at(j, 1, self.padding[2]))
    }
}

impl ConvTranspose2d {
    /// The convolution whose input gradient this is, but for output padding.
    fn forward(&self) -> Conv2d {
        let ConvTranspose2d { stride, padding, dilation, groups, .. } = *self;
        Conv2d { stride, padding, dilation, groups }
    }

    fn eval_as<T: Float>(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let (x, weight) = (reference::elements::<T>(operands, 0)?, reference::elements::<T>(operands, 1)?);
        let (&[_, channels, height, width], &[_, out_channels, kh, kw], &[batch, _, rows, columns]) =
            (operands[0].shape(), operands[1].shape(), &to.shape[..])
        else {
            return Err(OpError::new("`conv_transpose2d` needs 4 dimensions"));
        };
        let mut out = vec![T::default(); reference::count(&to.shape)];
        for (n, c) in (0..batch).flat_map(|n| (0..channels).map(move |c| (n, c))) {
            let x = &x[(n * channels + c) * height * width..][..height * width];
            let group = c / (channels / self.groups);
            for (o, i, j) in taps(out_channels, kh, kw) {
                let w = weight[((c * out_channels + o) * kh + i) * kw + j];
                let o = (n * self.groups + group) * out_channels + o;
                let plane = &mut out[o * rows * columns..][..rows * columns];
                // The input element (h, w) goes to (h, w)·stride + tap.
                let tap_row = (i * self.dilation[0]) as isize - self.padding[0] as isize;
                let tap_column = (j * self.dilation[1]) as isize - self.padding[2] as isize;
                for h in inside(height, self.stride[0], tap_row, rows) {
                    let row = (h * self.stride[0]).wrapping_add_signed(tap_row) * columns;
                    for v in inside(width, self.stride[1], tap_column, columns) {
                        let at = row + (v * self.stride[1]).wrapping_add_signed(tap_column);
                        plane[at] = plane[at].add(w.mul(x[h * width + v]));
                    }
                }
            }
        }
        add_bias(&mut out, operands, rows * columns)?;
        reference::tensor(&to.shape, out)
    }
}

/// Channel, row, column of every element of a kernel.
pub(super) fn taps(channels: usize, kh: usize, kw: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..channels).flat_map(move |c| (0..kh).flat_map(move |i| (0..kw).map(move |j| (c, i, j))))
}

/// `y[k] += w·x[k·stride]`
fn add_product<T: Float>(y: &mut [T], w: T, x: &[T], stride: usize) {
    if stride == 1 {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = y.add(w.mul(x));
        }
    } else {
        for (k, y) in y.iter_mut().enumerate() {
            *y = y.add(w.mul(x[k * stride]));
        }
    }
}

/// Adds the optional third operand to every plane of its channel.
fn add_bias<T: Float>(out: &mut [T], operands: &[&Tensor], plane: usize) -> Result<(), OpError> {
    if operands.len() > 2 {
        let bias = reference::elements::<T>(operands, 2)?;
        for (plane, &b) in out.chunks_mut(plane).zip(bias.iter().cycle()) {
            plane.iter_mut().for_each(|y| *y = y.add(b));
        }
    }
    Ok(())
}

/// The operation of this family with that name, its attributes read; `None` for other names.
pub fn parse(name: &str, r: &mut Reader) -> Result<Option<Op>, String> {
    Ok(Some(match name {
        "conv2d" => Op::Conv2d(Conv2d::read(r)?),
        "conv_transpose2d" => Op::ConvTranspose2d(ConvTranspose2d {
            stride: r.pair(Some([1, 1]), "stride")?,
            padding: r.padding()?,
            output_padding: r.pair(Some([0, 0]), "output_padding")?,
            dilation: r.pair(Some([1, 1]), "dilation")?,
            groups: r.value_or(1, "groups")?,
        }),
        _ => return Ok(None),
    }))
}
