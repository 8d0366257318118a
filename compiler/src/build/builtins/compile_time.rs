//! Arithmetic on values that are known while the program is built, and on lists.

use super::super::eval::Evaluator;
use super::super::values::{Eval, Value};
use super::{Args, Row};
use crate::graph::Dim;

pub(super) const FUNCTIONS: &[Row] = &[
    ("len(list)", len),
    ("range(from, to)", range),
    ("zip(lists..)", zip),
    ("reversed(list)", reversed),
    ("floor_div(a, b)", floor_div),
    ("ceil_div(a, b)", ceil_div),
    ("round(x)", round),
    ("int(x)", int),
    ("float(x)", float),
    ("size(value)", size),
];

fn list(ev: &mut Evaluator, a: &Args, name: &str) -> Eval<Vec<Value>> {
    match a.value(name) {
        Value::List(items) => {
            ev.charge(items.len(), a.span())?;
            Ok(items.to_vec())
        }
        Value::Tuple(t) => Ok(t.parts.clone()),
        _ => Err(a.wrong(ev, name, "a list")),
    }
}

fn len(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    if let Value::Str(s) = a.value("list") {
        return Ok(Value::Int(s.chars().count() as i64));
    }
    Ok(Value::Int(list(ev, a, "list")?.len() as i64))
}

fn range(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let (from, to) = match (a.value("from"), a.value("to")) {
        (Value::Int(from), Value::Int(to)) => (*from, *to),
        (Value::Int(_), _) => return Err(a.wrong(ev, "to", "an integer")),
        _ => return Err(a.wrong(ev, "from", "an integer")),
    };
    if to.saturating_sub(from) > 1_000_000 {
        return Err(a.wrong(ev, "to", "at most 1000000 more than `from`"));
    }
    ev.charge(to.saturating_sub(from).max(0) as usize, a.span())?;
    Ok(Value::list((from..to).map(Value::Int).collect()))
}

fn zip(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let mut lists = vec![];
    for arg in &a.rest {
        match &arg.value {
            Value::List(items) => lists.push(items.clone()),
            other => {
                let message = format!("found {}", other.describe(&ev.graph));
                return Err(ev.error("`zip` takes lists", arg.span, message));
            }
        }
    }
    let len = lists.first().map_or(0, |l| l.len());
    if let Some(i) = lists.iter().position(|l| l.len() != len) {
        let title = "`zip` takes lists of one length";
        let message = format!("expected {len} elements, found {}", lists[i].len());
        return Err(ev.error(title, a.rest[i].span, message));
    }
    ev.charge(len.saturating_mul(lists.len()), a.span())?;
    let row = |i: usize| Value::tuple(lists.iter().map(|l| l[i].clone()).collect());
    Ok(Value::list((0..len).map(row).collect()))
}

fn reversed(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let mut items = list(ev, a, "list")?;
    items.reverse();
    Ok(Value::list(items))
}

fn sizes(ev: &mut Evaluator, a: &Args) -> Eval<(Dim, Dim)> {
    let Some(x) = a.value("a").as_dim() else { return Err(a.wrong(ev, "a", "an integer")) };
    let Some(y) = a.value("b").as_dim() else { return Err(a.wrong(ev, "b", "an integer")) };
    if y.known().is_some_and(|n| n < 1) {
        return Err(a.wrong(ev, "b", "an integer of at least 1"));
    }
    Ok((x, y))
}

fn floor_div(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let (x, y) = sizes(ev, a)?;
    Ok(Value::dim(x.floor_div(&y)))
}

fn ceil_div(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let (x, y) = sizes(ev, a)?;
    Ok(Value::dim(x.ceil_div(&y)))
}

fn round(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    Ok(Value::Int(a.number(ev, "x")?.round() as i64))
}

fn int(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    Ok(Value::Int(a.number(ev, "x")? as i64))
}

fn float(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    a.number(ev, "x").map(Value::Float)
}

fn size(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let [h, w] = a.size(ev, "value", 1)?;
    Ok(Value::Pair(h as i64, w as i64))
}
