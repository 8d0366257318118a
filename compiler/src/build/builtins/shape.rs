//! Movement of elements: reshape, concat, slices, padding, indexing.

use super::super::eval::Evaluator;
use super::super::values::{Argument, Eval, Value};
use super::{Args, Row};
use crate::graph::op::Padding;
use crate::graph::{Dim, NodeId, Op, Shape};

pub(super) const FUNCTIONS: &[Row] = &[
    ("reshape(x, shape)", reshape),
    ("flatten(x, from = 1)", flatten),
    ("transpose(x, axes = none)", transpose),
    ("concat(values.., axis = 1)", concat),
    ("stack(values.., axis = 0)", stack),
    ("split(x, parts, axis = 1)", split),
    ("slice(x, start, end, axis = 0, step = 1)", slice),
    ("pad(x, pads, value = 0.0)", pad),
    ("tile(x, counts)", tile),
    ("broadcast(x, shape)", |ev, a| {
        let (x, shape) = (a.tensor(ev, "x")?, a.shape(ev, "shape")?);
        a.add(ev, Op::Broadcast(shape), &[x])
    }),
    ("gather(table, indices, axis = 0)", |ev, a| {
        let operands = [a.tensor(ev, "table")?, a.tensor(ev, "indices")?];
        let rank = ev.graph.node(operands[0]).ty.rank();
        let axis = a.axis(ev, "axis", rank)?;
        a.add(ev, Op::Gather(axis), &operands)
    }),
    ("one_hot(indices, classes)", |ev, a| {
        let (x, classes) = (a.tensor(ev, "indices")?, a.count(ev, "classes", 1)?);
        a.add(ev, Op::OneHot(classes), &[x])
    }),
];

fn product(dims: &[Dim]) -> Dim {
    dims.iter().fold(Dim::constant(1), |a, b| a * b.clone())
}

fn reshape(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let (x, mut shape) = (a.tensor(ev, "x")?, a.shape(ev, "shape")?);
    let free: Vec<usize> = (0..shape.len()).filter(|&i| shape[i].known() == Some(-1)).collect();
    if let [i] = free[..] {
        let from = ev.graph.node(x).ty.clone();
        let rest: Vec<Dim> =
            shape.iter().enumerate().filter(|&(j, _)| j != i).map(|(_, d)| d.clone()).collect();
        let rest = product(&rest);
        let total = product(&from.shape);
        match total.exact_div(&rest).filter(|_| rest.known() != Some(0)) {
            Some(d) => shape[i] = d,
            None => {
                let title = format!("{from} has {total} elements, which {rest} does not divide");
                return Err(ev.error(title, a.get("shape").span, "the size -1 cannot be found"));
            }
        }
    } else if free.len() > 1 {
        return Err(a.wrong(ev, "shape", "a list with at most one -1"));
    }
    a.add(ev, Op::Reshape(shape), &[x])
}

fn flatten(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let x = a.tensor(ev, "x")?;
    let mut shape = ev.graph.node(x).ty.shape.clone();
    let from = a.count(ev, "from", 0)?;
    if from >= shape.len() {
        return Err(a.wrong(ev, "x", &format!("a tensor of rank {} or more", from + 1)));
    }
    let rest = product(&shape[from..]);
    shape.truncate(from);
    shape.push(rest);
    a.add(ev, Op::Reshape(shape), &[x])
}

fn transpose(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let x = a.tensor(ev, "x")?;
    let rank = ev.graph.node(x).ty.rank();
    let order = match a.value("axes") {
        Value::None if rank >= 2 => {
            let mut order: Vec<usize> = (0..rank).collect();
            order.swap(rank - 1, rank - 2);
            order
        }
        Value::List(items) if items.len() == rank => {
            let order: Option<Vec<usize>> = items
                .iter()
                .map(|v| match v {
                    Value::Int(i) => usize::try_from(if *i < 0 { i + rank as i64 } else { *i }).ok(),
                    _ => None,
                })
                .collect();
            match order {
                Some(order) => order,
                None => return Err(a.wrong(ev, "axes", "a list of axes")),
            }
        }
        _ => return Err(a.wrong(ev, "axes", &format!("a list of the {rank} axes in their new order"))),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(a.wrong(ev, "axes", "a list in which every axis stands once"));
    }
    a.add(ev, Op::Transpose(order), &[x])
}

/// The tensors of a variadic call: several, or one list of them.
fn tensors(ev: &mut Evaluator, a: &Args) -> Eval<Vec<NodeId>> {
    let args: Vec<Argument> = match &a.rest[..] {
        [Argument { value: Value::List(items), span, .. }] => {
            items.iter().map(|v| Argument { name: None, value: v.clone(), span: *span }).collect()
        }
        [Argument { value: Value::Tuple(t), span, .. }] => {
            t.parts.iter().map(|v| Argument { name: None, value: v.clone(), span: *span }).collect()
        }
        rest => rest.to_vec(),
    };
    if args.is_empty() {
        return Err(ev.error(format!("`{}` needs at least one tensor", a.function), a.span(), ""));
    }
    let mut out = vec![];
    for arg in args {
        match arg.value {
            Value::Tensor(n) => out.push(n),
            other => {
                let message = format!("found {}", other.describe(&ev.graph));
                return Err(ev.error(format!("`{}` takes tensors", a.function), arg.span, message));
            }
        }
    }
    Ok(out)
}

fn concat(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let operands = tensors(ev, a)?;
    let rank = ev.graph.node(operands[0]).ty.rank();
    let axis = a.axis(ev, "axis", rank)?;
    a.add(ev, Op::Concat(axis), &operands)
}

fn stack(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let operands = tensors(ev, a)?;
    let rank = ev.graph.node(operands[0]).ty.rank() + 1;
    let axis = a.axis(ev, "axis", rank)?;
    let name = ev.node_name(a.function, &a.site)?;
    let mut rows = vec![];
    for x in operands {
        let mut shape = ev.graph.node(x).ty.shape.clone();
        shape.insert(axis.min(shape.len()), Dim::constant(1));
        rows.push(ev.add_named(Op::Reshape(shape), &[x], &name, a.span())?);
    }
    ev.add_named(Op::Concat(axis), &rows, &name, a.span()).map(Value::Tensor)
}

/// In equal parts, or in parts of given sizes.
fn split(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let x = a.tensor(ev, "x")?;
    let ty = ev.graph.node(x).ty.clone();
    let axis = a.axis(ev, "axis", ty.rank())?;
    let size = ty.shape[axis].clone();
    let sizes: Shape = match a.value("parts") {
        Value::Int(n) if *n >= 1 => match size.exact_div(&Dim::constant(*n)) {
            Some(part) if *n <= 4096 => vec![part; *n as usize],
            _ => {
                let title = format!("axis {axis} of {ty} cannot be split in {n} equal parts");
                return Err(ev.error(title, a.get("parts").span, ""));
            }
        },
        Value::List(_) => a.shape(ev, "parts")?,
        _ => return Err(a.wrong(ev, "parts", "a number of parts, or a list of their sizes")),
    };
    let total = sizes.iter().fold(Dim::constant(0), |a, b| a + b.clone());
    if total != size {
        let title = format!("the parts have {total} elements, axis {axis} of {ty} has {size}");
        return Err(ev.error(title, a.get("parts").span, ""));
    }
    let name = ev.node_name(a.function, &a.site)?;
    let mut start = Dim::constant(0);
    let mut parts = vec![];
    for s in sizes {
        let end = start.clone() + s;
        let op = Op::Slice { axis, start, end: end.clone(), step: 1 };
        parts.push(Value::Tensor(ev.add_named(op, &[x], &name, a.span())?));
        start = end;
    }
    Ok(Value::tuple(parts))
}

fn slice(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let x = a.tensor(ev, "x")?;
    let ty = ev.graph.node(x).ty.clone();
    let axis = a.axis(ev, "axis", ty.rank())?;
    let size = ty.shape[axis].clone();
    let bound = |ev: &mut Evaluator, name: &str, default: Dim| match (a.value(name), a.value(name).as_dim()) {
        (Value::None, _) => Ok(default),
        (_, Some(d)) if d.known().is_some_and(|n| n < 0) => Ok(size.clone() + d),
        (_, Some(d)) => Ok(d),
        _ => Err(a.wrong(ev, name, "an integer")),
    };
    let (start, end) = (bound(ev, "start", Dim::constant(0))?, bound(ev, "end", size.clone())?);
    let step = a.count(ev, "step", 1)?;
    a.add(ev, Op::Slice { axis, start, end, step }, &[x])
}

/// `[[before, after], …]` for every axis; or for the last two what a convolution's padding takes.
fn pad(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let x = a.tensor(ev, "x")?;
    let rank = ev.graph.node(x).ty.rank();
    let two = |v: &Value| match v {
        Value::List(p) => match p[..] {
            [Value::Int(b), Value::Int(e)] => {
                Some(Padding::around(usize::try_from(b).ok()?, usize::try_from(e).ok()?))
            }
            _ => None,
        },
        _ => None,
    };
    let size = |n: &i64| usize::try_from(*n).ok();
    let last_two = |sides: Option<[usize; 4]>| {
        sides.filter(|_| rank >= 2).map(|[t, b, l, r]| {
            let mut pads = vec![Padding::default(); rank - 2];
            pads.extend([Padding::around(t, b), Padding::around(l, r)]);
            pads
        })
    };
    let pads: Option<Vec<Padding>> = match a.value("pads") {
        Value::List(items) if items.len() == rank && items.iter().all(|i| two(i).is_some()) => {
            items.iter().map(two).collect()
        }
        Value::Int(n) => last_two(size(n).map(|n| [n; 4])),
        Value::Pair(h, w) => last_two(size(h).zip(size(w)).map(|(h, w)| [h, h, w, w])),
        Value::List(items) => match items[..] {
            [Value::Int(t), Value::Int(b), Value::Int(l), Value::Int(r)] => {
                let sides: Option<Vec<usize>> = [t, b, l, r].iter().map(size).collect();
                last_two(sides.and_then(|s| s.try_into().ok()))
            }
            _ => None,
        },
        _ => None,
    };
    let Some(pads) = pads else {
        let expected =
            "an integer, a size, [top, bottom, left, right] or [[before, after], …] for every axis";
        return Err(a.wrong(ev, "pads", expected));
    };
    let value = a.number(ev, "value")?;
    a.add(ev, Op::Pad { pads, value }, &[x])
}

/// `[2, 3]` copies along the axes: `[a, b]` → `[1, a, 1, b]` → `[2, a, 3, b]` → `[2a, 3b]`.
fn tile(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let (x, counts) = (a.tensor(ev, "x")?, a.shape(ev, "counts")?);
    let shape = ev.graph.node(x).ty.shape.clone();
    if counts.len() != shape.len() {
        return Err(a.wrong(ev, "counts", &format!("a list of {} counts, one an axis", shape.len())));
    }
    let name = ev.node_name(a.function, &a.site)?;
    let apart = shape.iter().flat_map(|d| [Dim::constant(1), d.clone()]).collect();
    let copied = counts.iter().zip(&shape).flat_map(|(c, d)| [c.clone(), d.clone()]).collect();
    let together = counts.iter().zip(&shape).map(|(c, d)| c.clone() * d.clone()).collect();
    let mut value = x;
    for op in [Op::Reshape(apart), Op::Broadcast(copied), Op::Reshape(together)] {
        value = ev.add_named(op, &[value], &name, a.span())?;
    }
    Ok(Value::Tensor(value))
}
