//! Identities of elementwise operations.

use nnc_runtime::DType;

use super::constant::{rounded, scalar, splat};
use super::{make, only_operand};
use crate::graph::op::{Binary, Unary};
use crate::graph::{Dim, Graph, NodeId, Op, Shape};

/// Unary operations and casts, alone or after another one.
pub fn unary(graph: &mut Graph, id: NodeId) -> Option<NodeId> {
    use Unary::*;
    let node = graph.node(id);
    let x = only_operand(graph, id)?;
    let outer = match node.op {
        Op::Unary(u) => u,
        Op::Cast(to) if to == graph.node(x).ty.dtype => return Some(x),
        Op::Dropout(_) | Op::StopGradient => return Some(x),
        _ => return None,
    };
    match outer {
        Clamp(lo, hi) if lo == f64::NEG_INFINITY && hi == f64::INFINITY => return Some(x),
        LeakyRelu(1.0) => return Some(x),
        _ => {}
    }
    let Op::Unary(inner) = graph.node(x).op else { return None };
    let before = graph.operands(x)[0];
    match (outer, inner) {
        (Neg, Neg) | (Not, Not) => Some(before),
        (Relu, Relu) | (Abs, Abs) | (Floor, Floor) | (Sign, Sign) => Some(x),
        (Relu, Abs | Exp | Sigmoid | Sqrt | HardSigmoid) => Some(x),
        (Abs, Neg) => Some(make(graph, Op::Unary(Abs), &[before], graph.node(x).ty.clone(), &[id])),
        _ => {
            let (a, b) = (bounds(inner)?, bounds(outer)?);
            let clamp = |v: f64| v.max(b.0).min(b.1);
            let (lo, hi) = (clamp(a.0), clamp(a.1));
            // A bound that is no number, or bounds that cross, are left as the author has them.
            if !(a.0 <= a.1 && b.0 <= b.1) {
                return None;
            }
            let joined = if (lo, hi) == (0.0, f64::INFINITY) { Relu } else { Clamp(lo, hi) };
            if joined == inner {
                return Some(x);
            }
            Some(make(graph, Op::Unary(joined), &[before], graph.node(x).ty.clone(), &[id, x]))
        }
    }
}

/// The interval that a function clamps to, if that is what it does.
fn bounds(u: Unary) -> Option<(f64, f64)> {
    match u {
        Unary::Relu => Some((0.0, f64::INFINITY)),
        Unary::Clamp(lo, hi) => Some((lo, hi)),
        _ => None,
    }
}

/// Binary operations: neutral elements, equal operands, chains of factors, needless broadcasts.
pub fn binary(graph: &mut Graph, id: NodeId) -> Option<NodeId> {
    use Binary::*;
    let Op::Binary(op) = graph.node(id).op else { return None };
    let [a, b] = graph.operands(id)[..] else { return None };
    if let Some(new) = drop_broadcast(graph, id) {
        return Some(new);
    }
    let ty = graph.node(id).ty.clone();
    let is_result = |x: NodeId| graph.node(x).ty == ty;
    let (value_a, value_b) = (splat(graph, a), splat(graph, b));
    match (op, value_b) {
        (Add | Sub, Some(0.0)) | (Mul | Div | Pow, Some(1.0)) if is_result(a) => return Some(a),
        (And, Some(v)) if v != 0.0 && is_result(a) => return Some(a),
        (Or, Some(0.0)) if is_result(a) => return Some(a),
        (Pow, Some(2.0)) if is_result(a) => return Some(make(graph, Op::Binary(Mul), &[a, a], ty, &[id])),
        (Mul | Div, Some(-1.0)) if is_result(a) => {
            return Some(make(graph, Op::Unary(Unary::Neg), &[a], ty, &[id]));
        }
        (Max, Some(0.0)) if is_result(a) && ty.dtype.is_float() => {
            return Some(make(graph, Op::Unary(Unary::Relu), &[a], ty, &[id]));
        }
        (Div, Some(v)) if is_result(a) && has_exact_reciprocal(v, ty.dtype) => {
            let factor = scalar(graph, ty.dtype, 1.0 / v);
            return Some(make(graph, Op::Binary(Mul), &[a, factor], ty, &[id]));
        }
        (Mul, Some(v)) if is_result(a) => return factors(graph, id, a, v),
        _ => {}
    }
    match (op, value_a) {
        (Add, Some(0.0)) | (Mul, Some(1.0)) | (Or, Some(0.0)) if is_result(b) => Some(b),
        (And, Some(v)) if v != 0.0 && is_result(b) => Some(b),
        (Mul, Some(-1.0)) | (Sub, Some(0.0)) if is_result(b) => {
            Some(make(graph, Op::Unary(Unary::Neg), &[b], ty, &[id]))
        }
        (Max, Some(0.0)) if is_result(b) && ty.dtype.is_float() => {
            Some(make(graph, Op::Unary(Unary::Relu), &[b], ty, &[id]))
        }
        (Mul, Some(v)) if is_result(b) => factors(graph, id, b, v),
        (Max | Min | And | Or, _) if a == b => Some(a),
        _ => None,
    }
}

/// `(y·v)·w` → `y·(v·w)`, where both factors grow or both shrink: then the product in between
/// overflows or vanishes only if the result does, too.
fn factors(graph: &mut Graph, id: NodeId, x: NodeId, w: f64) -> Option<NodeId> {
    let ty = graph.node(id).ty.clone();
    if !matches!(graph.node(x).op, Op::Binary(Binary::Mul)) || !ty.dtype.is_float() {
        return None;
    }
    let [a, b] = graph.operands(x)[..] else { return None };
    let (y, v) = match (splat(graph, a), splat(graph, b)) {
        (None, Some(v)) => (a, v),
        (Some(v), None) => (b, v),
        _ => return None,
    };
    let product = rounded(v * w, ty.dtype);
    let grow = v.abs() >= 1.0 && w.abs() >= 1.0;
    let shrink = v.abs() <= 1.0 && w.abs() <= 1.0;
    let normal = product.is_finite() && product.abs() >= f64::from(f32::MIN_POSITIVE);
    if graph.node(y).ty != ty || !(grow || shrink) || !normal {
        return None;
    }
    let factor = scalar(graph, ty.dtype, product);
    Some(make(graph, Op::Binary(Binary::Mul), &[y, factor], ty, &[id, x]))
}

/// True for powers of two, well inside the type's range: dividing and multiplying by the reciprocal
/// round alike.
fn has_exact_reciprocal(v: f64, dtype: DType) -> bool {
    let mantissa = v.to_bits() & ((1 << 52) - 1);
    dtype.is_float() && v.is_normal() && mantissa == 0 && (1e-30..1e30).contains(&v.abs())
}

/// `condition ? a : b` with a known condition or equal values.
pub fn select(graph: &mut Graph, id: NodeId) -> Option<NodeId> {
    if graph.node(id).op != Op::Where {
        return None;
    }
    let [condition, a, b] = graph.operands(id)[..] else { return None };
    if let Some(new) = drop_broadcast(graph, id) {
        return Some(new);
    }
    let chosen = match splat(graph, condition) {
        Some(v) => [b, a][usize::from(v != 0.0)],
        None if a == b => a,
        None => return None,
    };
    (graph.node(chosen).ty == graph.node(id).ty).then_some(chosen)
}

/// Operands are broadcast by the operation itself: a broadcast before it is not needed unless the
/// result owes its shape to it.
fn drop_broadcast(graph: &mut Graph, id: NodeId) -> Option<NodeId> {
    let mut operands = graph.operands(id);
    let i = (0..operands.len()).find(|&i| {
        let mut without = operands.clone();
        matches!(graph.node(without[i]).op, Op::Broadcast(_)) && {
            without[i] = graph.operands(without[i])[0];
            broadcast_shape(graph, &without).as_ref() == Some(&graph.node(id).ty.shape)
        }
    })?;
    operands[i] = graph.operands(operands[i])[0];
    let node = graph.node(id);
    let (op, ty) = (node.op.clone(), node.ty.clone());
    Some(make(graph, op, &operands, ty, &[id]))
}

/// The shape that values broadcast to by NumPy's rules, where that is certain.
fn broadcast_shape(graph: &Graph, values: &[NodeId]) -> Option<Shape> {
    let shapes: Vec<&Shape> = values.iter().map(|&v| &graph.node(v).ty.shape).collect();
    let rank = shapes.iter().map(|s| s.len()).max()?;
    let one = Dim::constant(1);
    (0..rank)
        .map(|i| {
            let mut size = one.clone();
            for shape in &shapes {
                // Right-aligned: missing dimensions are 1.
                let Some(at) = (i + shape.len()).checked_sub(rank) else { continue };
                if shape[at] != one && size != one && shape[at] != size {
                    return None;
                }
                if shape[at] != one {
                    size = shape[at].clone();
                }
            }
            Some(size)
        })
        .collect()
}
