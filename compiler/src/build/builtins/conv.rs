//! Convolution, pooling, contraction, normalisation: one core operation each.

use super::super::eval::Evaluator;
use super::super::values::{Eval, Value};
use super::{Args, Row};
use crate::graph::op::{AvgPool2d, BatchNorm, Conv2d, ConvTranspose2d, LocalResponseNorm, MaxPool2d, Window};
use crate::graph::{NodeId, Op};

pub(super) const FUNCTIONS: &[Row] = &[
    ("conv2d(x, weight, bias = none, stride = 1, pad = 0, dilation = 1, groups = 1)", conv2d),
    (
        "conv_transpose2d(x, weight, bias = none, stride = 1, pad = 0, output_pad = 0, dilation = 1, groups = 1)",
        conv_transpose2d,
    ),
    ("max_pool2d(x, window, stride = none, pad = 0, dilation = 1, ceil = false)", max_pool2d),
    ("avg_pool2d(x, window, stride = none, pad = 0, ceil = false, count_pad = true)", avg_pool2d),
    ("adaptive_max_pool2d(x, grid)", |ev, a| {
        let (x, grid) = (a.tensor(ev, "x")?, a.size(ev, "grid", 1)?);
        a.add(ev, Op::AdaptiveMaxPool2d(grid), &[x])
    }),
    ("adaptive_avg_pool2d(x, grid)", |ev, a| {
        let (x, grid) = (a.tensor(ev, "x")?, a.size(ev, "grid", 1)?);
        a.add(ev, Op::AdaptiveAvgPool2d(grid), &[x])
    }),
    ("matmul(a, b)", |ev, a| {
        let operands = [a.tensor(ev, "a")?, a.tensor(ev, "b")?];
        a.add(ev, Op::MatMul, &operands)
    }),
    ("linear(x, weight, bias = none)", |ev, a| {
        let operands = with_bias(ev, a)?;
        a.add(ev, Op::Linear, &operands)
    }),
    ("batch_norm(x, weight, bias, running_mean, running_var, eps = 1e-5, momentum = 0.1)", batch_norm),
    ("local_response_norm(x, size, alpha = 1e-4, beta = 0.75, k = 1.0)", local_response_norm),
];

fn with_bias(ev: &mut Evaluator, a: &Args) -> Eval<Vec<NodeId>> {
    let mut operands = vec![a.tensor(ev, "x")?, a.tensor(ev, "weight")?];
    operands.extend(a.optional_tensor(ev, "bias")?);
    Ok(operands)
}

fn conv2d(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let operands = with_bias(ev, a)?;
    let (stride, dilation) = (a.size(ev, "stride", 1)?, a.size(ev, "dilation", 1)?);
    let weight = ev.graph.node(operands[1]).ty.sizes();
    let kernel = match weight.as_deref() {
        Some([_, _, h, w]) => [*h, *w],
        _ => [1, 1],
    };
    let padding = padding(ev, a, operands[0], kernel, stride, dilation)?;
    let groups = a.count(ev, "groups", 1)?;
    a.add(ev, Op::Conv2d(Conv2d { stride, padding, dilation, groups }), &operands)
}

fn conv_transpose2d(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let operands = with_bias(ev, a)?;
    let (stride, dilation) = (a.size(ev, "stride", 1)?, a.size(ev, "dilation", 1)?);
    let Some(padding) = explicit_padding(a.value("pad")) else { return Err(wrong_padding(ev, a)) };
    let output_padding = a.size(ev, "output_pad", 0)?;
    let groups = a.count(ev, "groups", 1)?;
    let op = ConvTranspose2d { stride, padding, output_padding, dilation, groups };
    a.add(ev, Op::ConvTranspose2d(op), &operands)
}

/// Rows above, below, columns left, right: an integer, a size (height, width), a list of these
/// four, or `"same"`: as many as keep `ceil(size / stride)`, the odd one below and right, as
/// TensorFlow and ONNX's SAME_UPPER do.
fn padding(
    ev: &mut Evaluator,
    a: &Args,
    x: NodeId,
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
) -> Eval<[usize; 4]> {
    let same = match a.value("pad") {
        Value::Str(s) if &**s == "same" => true,
        Value::Str(s) if &**s == "valid" => return Ok([0; 4]),
        _ => false,
    };
    if !same {
        return explicit_padding(a.value("pad")).ok_or_else(|| wrong_padding(ev, a));
    }
    let shape = ev.graph.node(x).ty.shape.clone();
    let mut out = [0; 4];
    for i in 0..2 {
        let reach = (kernel[i] - 1).saturating_mul(dilation[i]).saturating_add(1);
        let size = shape.get(2 + i).and_then(|d| d.size());
        let total = match (size, stride[i]) {
            (_, 1) => reach - 1,
            (Some(n), s) => ((n.div_ceil(s) - 1).saturating_mul(s).saturating_add(reach)).saturating_sub(n),
            (None, _) => {
                let title = "`pad = \"same\"` with a stride needs a known size".to_string();
                let help = shape.get(2 + i).and_then(|d| ev.set_hint(d));
                return Err(ev.error_help(title, a.get("pad").span, "", help));
            }
        };
        out[2 * i] = total / 2;
        out[2 * i + 1] = total - total / 2;
    }
    Ok(out)
}

fn explicit_padding(value: &Value) -> Option<[usize; 4]> {
    let four = match value {
        Value::Int(n) => [*n; 4],
        Value::Pair(h, w) => [*h, *h, *w, *w],
        Value::List(items) => match items[..] {
            [Value::Int(h), Value::Int(w)] => [h, h, w, w],
            [Value::Int(top), Value::Int(bottom), Value::Int(left), Value::Int(right)] => {
                [top, bottom, left, right]
            }
            _ => return None,
        },
        _ => return None,
    };
    let sizes: Option<Vec<usize>> = four.iter().map(|&n| usize::try_from(n).ok()).collect();
    sizes?.try_into().ok()
}

fn wrong_padding(ev: &mut Evaluator, a: &Args) -> super::super::values::Reported {
    a.wrong(ev, "pad", "an integer of at least 0, a size, [top, bottom, left, right] or \"same\"")
}

fn window(ev: &mut Evaluator, a: &Args, dilation: [usize; 2]) -> Eval<(NodeId, Window)> {
    let x = a.tensor(ev, "x")?;
    let kernel = a.size(ev, "window", 1)?;
    let stride = if a.is_none("stride") { kernel } else { a.size(ev, "stride", 1)? };
    let padding = padding(ev, a, x, kernel, stride, dilation)?;
    let ceil = a.boolean(ev, "ceil")?;
    Ok((x, Window { kernel, stride, padding, dilation, ceil }))
}

fn max_pool2d(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let dilation = a.size(ev, "dilation", 1)?;
    let (x, window) = window(ev, a, dilation)?;
    a.add(ev, Op::MaxPool2d(MaxPool2d { window }), &[x])
}

fn avg_pool2d(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let (x, window) = window(ev, a, [1, 1])?;
    let count_include_pad = a.boolean(ev, "count_pad")?;
    a.add(ev, Op::AvgPool2d(AvgPool2d { window, count_include_pad }), &[x])
}

fn batch_norm(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let mut operands = vec![];
    for name in ["x", "weight", "bias", "running_mean", "running_var"] {
        operands.push(a.tensor(ev, name)?);
    }
    let (eps, momentum) = (a.number(ev, "eps")?, a.number(ev, "momentum")?);
    let training = ev.training;
    a.add(ev, Op::BatchNorm(BatchNorm { eps, momentum, training }), &operands)
}

fn local_response_norm(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let x = a.tensor(ev, "x")?;
    let op = LocalResponseNorm {
        size: a.count(ev, "size", 1)?,
        alpha: a.number(ev, "alpha")?,
        beta: a.number(ev, "beta")?,
        k: a.number(ev, "k")?,
    };
    a.add(ev, Op::LocalResponseNorm(op), &[x])
}
