//! Normalisation: batch normalisation, local response normalisation, softmax, log_softmax.

use nnc_runtime::Tensor;

use super::reference::{self, Element, Float, Number, Target, for_dtype};
use super::rule::{self, Signature};
use super::text::{Reader, Writer};
use super::{AvgPool2d, Binary, Op, OpError, Operation, Unary, Window};
use crate::autodiff::{At, GradientBuilder, Gradients, NoGradient};
use crate::graph::{Dim, NodeId, TensorType};

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

/// See [`Op::Softmax`].
pub struct Softmax {
    /// The axis.
    pub axis: usize,
}

/// See [`Op::LogSoftmax`].
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

    fn attributes(&self, w: &mut Writer) {
        w.float("eps", self.eps).float("momentum", self.momentum).flag("training", self.training);
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

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => {
            let x = reference::elements::<T>(operands, 0)?;
            let [weight, bias, mean, var] = [1, 2, 3, 4].map(|i| reference::elements::<T>(operands, i));
            let (weight, bias, mean, var) = (weight?, bias?, mean?, var?);
            let (batch, channels, inner) = reference::around(&to.shape, 1);
            let mut out = vec![T::default(); x.len()];
            for c in 0..channels {
                let elements = || (0..batch).flat_map(|n| (0..inner).map(move |i| (n * channels + c) * inner + i));
                let count = T::from_f64((batch * inner) as f64);
                let average = |f: &dyn Fn(T) -> T| elements().fold(T::default(), |sum, at| sum.add(f(x[at]))).div(count);
                let (mean, var) = if self.training {
                    let mean = average(&|x| x);
                    (mean, average(&|x| x.sub(mean).mul(x.sub(mean))))
                } else {
                    (mean[c], var[c])
                };
                let deviation = var.add(T::from_f64(self.eps)).sqrt();
                for at in elements() {
                    out[at] = x[at].sub(mean).div(deviation).mul(weight[c]).add(bias[c]);
                }
            }
            reference::tensor(&to.shape, out)
        })
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        if self.training {
            return Err(NoGradient::new("the statistics of the batch must be written out before"));
        }
        let &[x, weight, _, mean, var] = at.operands else {
            return Err(NoGradient::new("it takes 5 operands"));
        };
        let dy = at.gradient;
        let axes: Vec<usize> = (0..g.ty(x).rank()).filter(|&a| a != 1).collect();
        let inverse = g.unary(Unary::Rsqrt, g.offset(var, self.eps));
        let normal = g.mul(g.sub(x, g.by_channel(mean, x)), g.by_channel(inverse, x));
        let (dweight, dbias) = (g.sum(g.mul(dy, normal), axes.clone()), g.sum(dy, axes));
        let factor = g.mul(weight, inverse);
        let dx = g.mul(dy, g.by_channel(factor, x));
        let dmean = g.neg(g.mul(factor, dbias));
        let dvar = g.scale(g.mul(g.mul(factor, inverse), dweight), -0.5);
        Ok([dx, dweight, dbias, dmean, dvar].map(Some).to_vec())
    }
}

impl Operation for LocalResponseNorm {
    fn name(&self) -> &'static str {
        "local_response_norm"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.put("size", self.size).float("alpha", self.alpha).float("beta", self.beta).float("k", self.k);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        rule::float(0, "x", operands[0])?;
        rule::min_rank(0, "x", operands[0], 2)?;
        rule::at_least_one("size", &[self.size])?;
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => {
            let x = reference::elements::<T>(operands, 0)?;
            let (batch, channels, inner) = reference::around(&to.shape, 1);
            let (beta, k) = (T::from_f64(self.beta), T::from_f64(self.k));
            let factor = T::from_f64(self.alpha / self.size as f64);
            let mut out = Vec::with_capacity(x.len());
            for n in 0..batch {
                for c in 0..channels {
                    let first = c.saturating_sub(self.size / 2);
                    let end = (c + self.size - self.size / 2).min(channels);
                    for i in 0..inner {
                        let at = |c: usize| x[(n * channels + c) * inner + i];
                        let sum = (first..end).fold(T::default(), |sum, c| sum.add(at(c).mul(at(c))));
                        out.push(at(c).div(k.add(factor.mul(sum)).powf(beta)));
                    }
                }
            }
            reference::tensor(&to.shape, out)
        })
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        // With d = k + alpha·mean(x²) over the neighbours, y = x·d^-beta:
        // dx = dy·d^-beta - 2·alpha·beta·x·mean'(dy·x·d^(-beta - 1)), mean' the adjoint of the mean.
        let (x, dy) = (at.operands[0], at.gradient);
        let (before, after) = (self.size / 2, self.size - 1 - self.size / 2);
        let d = g.offset(g.scale(self.neighbours(g, g.mul(x, x), before, after), self.alpha), self.k);
        let power = g.binary(Binary::Pow, d, g.number(-self.beta - 1.0, d));
        let back = self.neighbours(g, g.mul(g.mul(dy, x), power), after, before);
        let through = g.scale(g.mul(x, back), 2.0 * self.alpha * self.beta);
        Ok(vec![Some(g.sub(g.mul(dy, g.mul(power, d)), through))])
    }
}

impl Operation for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.put("axis", self.axis);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        rule::float(0, "x", operands[0])?;
        rule::axis(0, "x", operands[0], self.axis)?;
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => lines(operands, to, self.axis, |line: &mut [T]| {
            let largest = line.iter().fold(T::LOWEST, |m, &x| Number::max(m, x));
            line.iter_mut().for_each(|x| *x = x.sub(largest).exp());
            let sum = line.iter().fold(T::default(), |sum, &x| sum.add(x));
            line.iter_mut().for_each(|x| *x = Number::div(*x, sum));
        }))
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let (y, dy) = (at.result, at.gradient);
        let sum = g.sum_keeping(g.mul(dy, y), vec![self.axis]);
        Ok(vec![Some(g.mul(y, g.sub(dy, sum)))])
    }
}

impl Operation for LogSoftmax {
    fn name(&self) -> &'static str {
        "log_softmax"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.put("axis", self.axis);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        Softmax { axis: self.axis }.infer(operands)
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(floats, to.dtype, T => lines(operands, to, self.axis, |line: &mut [T]| {
            let largest = line.iter().fold(T::LOWEST, |m, &x| Number::max(m, x));
            let sum = line.iter().fold(T::default(), |sum, &x| sum.add(x.sub(largest).exp()));
            line.iter_mut().for_each(|x| *x = x.sub(largest).sub(sum.ln()));
        }))
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        // For a cross entropy, dy is minus the label's one-hot row: this is softmax(x) - onehot, and no
        // logit is too large for it.
        let (y, dy) = (at.result, at.gradient);
        let sum = g.sum_keeping(dy, vec![self.axis]);
        Ok(vec![Some(g.sub(dy, g.mul(g.unary(Unary::Exp, y), sum)))])
    }
}

impl LocalResponseNorm {
    /// The mean over the channels `c - before ..= c + after`, zeros outside: a pooling over channels.
    fn neighbours(&self, g: &GradientBuilder, x: NodeId, before: usize, after: usize) -> NodeId {
        let shape = g.shape(x);
        let inner = rule::elements(&shape[2..]);
        let rows = g.reshape(x, vec![shape[0].clone(), Dim::from(1), shape[1].clone(), inner]);
        let window = Window {
            kernel: [self.size, 1],
            stride: [1, 1],
            padding: [before, after, 0, 0],
            dilation: [1, 1],
            ceil: false,
        };
        let mean = Op::AvgPool2d(AvgPool2d { window, count_include_pad: true });
        g.reshape(g.op(mean, &[rows]), shape)
    }
}

/// Rewrites every line of `x` along the axis.
fn lines<T: Float>(
    operands: &[&Tensor],
    to: &Target,
    axis: usize,
    rewrite: impl Fn(&mut [T]),
) -> Result<Tensor, OpError> {
    let mut out = reference::elements::<T>(operands, 0)?.to_vec();
    let (outer, size, inner) = reference::around(&to.shape, axis);
    let mut line = vec![T::default(); size];
    for o in 0..outer {
        for i in 0..inner {
            let at = |k: usize| (o * size + k) * inner + i;
            (0..size).for_each(|k| line[k] = out[at(k)]);
            rewrite(&mut line);
            (0..size).for_each(|k| out[at(k)] = line[k]);
        }
    }
    reference::tensor(&to.shape, out)
}

/// The operation of this family with that name, its attributes read; `None` for other names.
pub fn parse(name: &str, r: &mut Reader) -> Result<Option<Op>, String> {
    Ok(Some(match name {
        "batch_norm" => Op::BatchNorm(BatchNorm {
            eps: r.value("eps")?,
            momentum: r.value("momentum")?,
            training: r.flag("training"),
        }),
        "local_response_norm" => Op::LocalResponseNorm(LocalResponseNorm {
            size: r.value("size")?,
            alpha: r.value("alpha")?,
            beta: r.value("beta")?,
            k: r.value("k")?,
        }),
        "softmax" => Op::Softmax(r.value("axis")?),
        "log_softmax" => Op::LogSoftmax(r.value("axis")?),
        _ => return Ok(None),
    }))
}
