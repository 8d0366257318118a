//! Identities of operations that move elements, and of windows and reductions over one element.

use super::{make, only_operand};
use crate::graph::op::{AvgPool2d, MaxPool2d, Padding, ReduceKind, Window};
use crate::graph::{Dim, Graph, NodeId, Op, TensorType};

/// Dispatches to the operation's rules.
pub fn rewrite(graph: &mut Graph, id: NodeId) -> Option<NodeId> {
    if let Op::Concat(axis) = graph.node(id).op {
        return concat(graph, id, axis);
    }
    if matches!(graph.node(id).op, Op::Conv2d(_)) {
        return pad_into_convolution(graph, id);
    }
    let x = only_operand(graph, id)?;
    let (ty, from) = (graph.node(id).ty.clone(), graph.node(x).ty.clone());
    match graph.node(id).op.clone() {
        Op::Reshape(_) | Op::Broadcast(_) | Op::Slice { step: 1, .. } | Op::Pad { .. } if ty == from => {
            Some(x)
        }
        Op::AdaptiveMaxPool2d(_) | Op::AdaptiveAvgPool2d(_) if ty == from => Some(x),
        Op::MaxPool2d(MaxPool2d { window }) | Op::AvgPool2d(AvgPool2d { window, .. }) => {
            is_trivial(&window).then_some(x)
        }
        op @ (Op::Reshape(_) | Op::Broadcast(_)) => {
            let same = matches!(
                (&op, &graph.node(x).op),
                (Op::Reshape(_), Op::Reshape(_)) | (Op::Broadcast(_), Op::Broadcast(_))
            );
            let before = same.then(|| graph.operands(x)[0])?;
            Some(make(graph, op, &[before], ty, &[id, x]))
        }
        Op::Transpose(axes) => transpose(graph, id, x, &axes),
        Op::Slice { axis, start, end, step: 1 } => {
            let Op::Slice { axis: inner, start: first, step: 1, .. } = graph.node(x).op.clone() else {
                return None;
            };
            if inner != axis {
                return None;
            }
            let op = Op::Slice { axis, start: first.clone() + start, end: first + end, step: 1 };
            let before = graph.operands(x)[0];
            Some(make(graph, op, &[before], ty, &[id, x]))
        }
        Op::Pad { pads, value } => {
            let Op::Pad { pads: inner, value: before } = &graph.node(x).op else { return None };
            if before.to_bits() != value.to_bits() {
                return None;
            }
            // Outer gaps would also part what the inner padding has put around.
            if pads.iter().any(|p| p.interior > 0) {
                return None;
            }
            let join = |(a, b): (&Padding, &Padding)| Padding {
                before: a.before + b.before,
                after: a.after + b.after,
                interior: b.interior,
            };
            let pads = pads.iter().zip(inner).map(join).collect();
            let before = graph.operands(x)[0];
            Some(make(graph, Op::Pad { pads, value }, &[before], ty, &[id, x]))
        }
        Op::Reduce { kind, axes, .. }
            if kind != ReduceKind::Variance && axes.iter().all(|&a| is_one(&from.shape[a])) =>
        {
            reshape(graph, id, x, ty)
        }
        Op::Reduce { kind: ReduceKind::Mean, axes, .. } if axes == [2, 3] => mean_of_picture(graph, id, x),
        _ => None,
    }
}

/// The mean over height and width is a pooling to one value, which keeps blocked channels where a
/// reduction would ask for row-major ones.
fn mean_of_picture(graph: &mut Graph, id: NodeId, x: NodeId) -> Option<NodeId> {
    let (ty, from) = (graph.node(id).ty.clone(), graph.node(x).ty.clone());
    let [n, c, h, w] = &from.shape[..] else { return None };
    if h.size()? == 0 || w.size()? == 0 {
        return None;
    }
    let one = Dim::constant(1);
    let pooled = TensorType { dtype: from.dtype, shape: vec![n.clone(), c.clone(), one.clone(), one] };
    let pool = make(graph, Op::AdaptiveAvgPool2d([1, 1]), &[x], pooled, &[id]);
    reshape(graph, id, pool, ty)
}

fn is_one(d: &Dim) -> bool {
    d.known() == Some(1)
}

fn reshape(graph: &mut Graph, id: NodeId, x: NodeId, ty: TensorType) -> Option<NodeId> {
    if graph.node(x).ty == ty {
        return Some(x);
    }
    Some(make(graph, Op::Reshape(ty.shape.clone()), &[x], ty, &[id]))
}

/// Windows of one element each, all of them.
fn is_trivial(w: &Window) -> bool {
    w.kernel == [1, 1] && w.stride == [1, 1] && w.padding == [0; 4]
}

/// The identity; two in a row; one that moves only axes of size 1, which is a reshape.
fn transpose(graph: &mut Graph, id: NodeId, x: NodeId, axes: &[usize]) -> Option<NodeId> {
    let (ty, from) = (graph.node(id).ty.clone(), &graph.node(x).ty);
    if axes.iter().enumerate().all(|(i, &a)| i == a) {
        return Some(x);
    }
    if let Op::Transpose(inner) = &graph.node(x).op {
        let joined = axes.iter().map(|&a| inner[a]).collect();
        let before = graph.operands(x)[0];
        return Some(make(graph, Op::Transpose(joined), &[before], ty, &[id, x]));
    }
    let moved: Vec<usize> = axes.iter().copied().filter(|&a| !is_one(&from.shape[a])).collect();
    if moved.is_sorted() {
        return reshape(graph, id, x, ty);
    }
    None
}

/// One operand; concatenations along the same axis within it that nothing else uses.
fn concat(graph: &mut Graph, id: NodeId, axis: usize) -> Option<NodeId> {
    let operands = graph.operands(id);
    if let [x] = operands[..] {
        return Some(x);
    }
    let inner =
        |o: NodeId| graph.node(o).op == Op::Concat(axis) && graph.users(o).len() == 1 && !graph.is_output(o);
    let merged: Vec<NodeId> = operands.iter().copied().filter(|&o| inner(o)).collect();
    if merged.is_empty() {
        return None;
    }
    let flat: Vec<NodeId> = operands
        .iter()
        .flat_map(|&o| if merged.contains(&o) { graph.operands(o) } else { vec![o] })
        .collect();
    let ty = graph.node(id).ty.clone();
    let stands_for = [&[id], &merged[..]].concat();
    Some(make(graph, Op::Concat(axis), &flat, ty, &stands_for))
}

/// A convolution pads with zeros by itself: `conv2d(pad(x))` → `conv2d(x)` with more padding.
fn pad_into_convolution(graph: &mut Graph, id: NodeId) -> Option<NodeId> {
    let Op::Conv2d(mut conv) = graph.node(id).op.clone() else { return None };
    let mut operands = graph.operands(id);
    let pad = operands[0];
    let Op::Pad { pads, value } = graph.node(pad).op.clone() else { return None };
    let [n, c, rows, columns] = pads[..] else { return None };
    let nothing = Padding::default();
    if value != 0.0 || n != nothing || c != nothing || rows.interior > 0 || columns.interior > 0 {
        return None;
    }
    let more = [rows.before, rows.after, columns.before, columns.after];
    for (p, more) in conv.padding.iter_mut().zip(more) {
        *p += more;
    }
    operands[0] = graph.operands(pad)[0];
    let ty = graph.node(id).ty.clone();
    Some(make(graph, Op::Conv2d(conv), &operands, ty, &[id, pad]))
}
