//! Reductions over axes, softmax; `max` and `min` also of compile-time numbers.

use super::super::eval::Evaluator;
use super::super::values::{Eval, Value};
use super::{Args, Row};
use crate::graph::Op;
use crate::graph::op::ReduceKind;

pub(super) const FUNCTIONS: &[Row] = &[
    ("sum(x, axis = none, keep = false)", |ev, a| reduce(ev, a, ReduceKind::Sum)),
    ("mean(x, axis = none, keep = false)", |ev, a| reduce(ev, a, ReduceKind::Mean)),
    ("prod(x, axis = none, keep = false)", |ev, a| reduce(ev, a, ReduceKind::Prod)),
    ("max(values.., axis = none, keep = false)", |ev, a| extreme(ev, a, ReduceKind::Max)),
    ("min(values.., axis = none, keep = false)", |ev, a| extreme(ev, a, ReduceKind::Min)),
    ("argmax(x, axis = -1, keep = false)", |ev, a| {
        let x = a.tensor(ev, "x")?;
        let rank = ev.graph.node(x).ty.rank();
        let (axis, keep) = (a.axis(ev, "axis", rank)?, a.boolean(ev, "keep")?);
        a.add(ev, Op::ArgMax { axis, keep }, &[x])
    }),
    ("softmax(x, axis = none)", |ev, a| {
        let axis = channel_axis(ev, a)?;
        let x = a.tensor(ev, "x")?;
        a.add(ev, Op::Softmax(axis), &[x])
    }),
    ("log_softmax(x, axis = none)", |ev, a| {
        let axis = channel_axis(ev, a)?;
        let x = a.tensor(ev, "x")?;
        a.add(ev, Op::LogSoftmax(axis), &[x])
    }),
];

/// The axis of the classes: 1 for pictures [N, C, H, W], else the last one.
fn channel_axis(ev: &mut Evaluator, a: &Args) -> Eval<usize> {
    let rank = a.ty(ev, "x")?.rank();
    match (a.is_none("axis"), rank) {
        (false, _) => a.axis(ev, "axis", rank),
        (true, 0) => Err(a.wrong(ev, "x", "a tensor of rank 1 or more")),
        (true, 4) => Ok(1),
        (true, _) => Ok(rank - 1),
    }
}

fn reduce(ev: &mut Evaluator, a: &Args, kind: ReduceKind) -> Eval<Value> {
    if let Value::List(items) = a.value("x") {
        return fold(ev, a, kind, &items.to_vec());
    }
    let x = a.tensor(ev, "x")?;
    let rank = ev.graph.node(x).ty.rank();
    let (axes, keep) = (a.axes(ev, "axis", rank)?, a.boolean(ev, "keep")?);
    a.add(ev, Op::Reduce { kind, axes, keep }, &[x])
}

fn extreme(ev: &mut Evaluator, a: &Args, kind: ReduceKind) -> Eval<Value> {
    let values: Vec<Value> = a.rest.iter().map(|r| r.value.clone()).collect();
    match &values[..] {
        [Value::Tensor(x)] => {
            let rank = ev.graph.node(*x).ty.rank();
            let (axes, keep) = (a.axes(ev, "axis", rank)?, a.boolean(ev, "keep")?);
            a.add(ev, Op::Reduce { kind, axes, keep }, &[*x])
        }
        [Value::List(items)] => fold(ev, a, kind, items),
        _ if values.iter().any(|v| matches!(v, Value::Tensor(_))) => {
            let word = if kind == ReduceKind::Max { "maximum" } else { "minimum" };
            let title = format!("`{}` of a tensor takes no second value", a.function);
            let help =
                format!("`{word}(a, b)` works elementwise; axes are named: `{}(x, axis = 1)`", a.function);
            Err(ev.error_help(title, a.span(), "", Some(help)))
        }
        _ => fold(ev, a, kind, &values),
    }
}

/// The same of a list of compile-time numbers.
fn fold(ev: &mut Evaluator, a: &Args, kind: ReduceKind, items: &[Value]) -> Eval<Value> {
    let numbers: Option<Vec<f64>> = items.iter().map(Value::as_number).collect();
    let Some(numbers) = numbers.filter(|n| !n.is_empty()) else {
        let title = format!("`{}` takes a tensor, a list of numbers, or numbers", a.function);
        return Err(ev.error(title, a.span(), ""));
    };
    let integers: Option<Vec<i64>> =
        items.iter().map(|v| if let Value::Int(n) = v { Some(*n) } else { None }).collect();
    if let Some(n) = integers.filter(|_| !matches!(kind, ReduceKind::Mean | ReduceKind::Variance)) {
        let result = match kind {
            ReduceKind::Max => n.iter().max().copied(),
            ReduceKind::Min => n.iter().min().copied(),
            ReduceKind::Prod => n.iter().try_fold(1_i64, |a, &b| a.checked_mul(b)),
            _ => n.iter().try_fold(0_i64, |a, &b| a.checked_add(b)),
        };
        return result
            .map(Value::Int)
            .ok_or_else(|| ev.error("the result does not fit a 64-bit integer", a.span(), "overflows here"));
    }
    let mean = |n: &[f64]| n.iter().sum::<f64>() / n.len() as f64;
    Ok(Value::Float(match kind {
        ReduceKind::Max => numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        ReduceKind::Min => numbers.iter().copied().fold(f64::INFINITY, f64::min),
        ReduceKind::Prod => numbers.iter().product(),
        ReduceKind::Sum => numbers.iter().sum(),
        ReduceKind::Mean => mean(&numbers),
        ReduceKind::Variance => {
            let squares: Vec<f64> = numbers.iter().map(|x| (x - mean(&numbers)).powi(2)).collect();
            mean(&squares)
        }
    }))
}
