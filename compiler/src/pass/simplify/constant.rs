//! Constant folding, by the reference semantics of each operation.

use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use nnc_runtime::{DType, Tensor};

use super::super::is_elementwise;
use super::make;
use crate::graph::op::Literal;
use crate::graph::{Graph, NodeId, Op, TensorType};

/// Larger results are left to the prepare phase: they would only fatten the program.
const FOLD_LIMIT: usize = 1 << 16;

/// An operation on constants alone → a constant.
pub fn fold(graph: &mut Graph, id: NodeId) -> Option<NodeId> {
    let node = graph.node(id);
    if matches!(node.op, Op::Random(_) | Op::Dropout(_) | Op::Relayout) {
        return None;
    }
    let operands = graph.operands(id);
    if operands.is_empty() || !operands.iter().all(|&o| matches!(graph.node(o).op, Op::Constant(_))) {
        return None;
    }
    let splats: Option<Vec<f64>> = operands.iter().map(|&o| splat(graph, o)).collect();
    let literal = match (&node.op, splats) {
        // All elements are equal: whatever the size, one is enough.
        (Op::Reshape(_) | Op::Broadcast(_) | Op::Transpose(_) | Op::StopGradient, Some(s)) => {
            Literal::Splat(s[0])
        }
        (op, Some(_)) if is_elementwise(op) => {
            let scalars: Vec<Tensor> = operands
                .iter()
                .map(|&o| tensor(graph, o, &TensorType::new(graph.node(o).ty.dtype, &[])))
                .collect::<Option<_>>()?;
            evaluate(op, &scalars, &TensorType::new(node.ty.dtype, &[]))?
        }
        (op, _) => {
            let small = |ty: &TensorType| {
                ty.sizes().is_some_and(|s| {
                    s.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).is_some_and(|n| n <= FOLD_LIMIT)
                })
            };
            if !small(&node.ty) || !operands.iter().all(|&o| small(&graph.node(o).ty)) {
                return None;
            }
            let tensors: Vec<Tensor> =
                operands.iter().map(|&o| tensor(graph, o, &graph.node(o).ty)).collect::<Option<_>>()?;
            evaluate(op, &tensors, &node.ty)?
        }
    };
    let ty = node.ty.clone();
    Some(make(graph, Op::Constant(literal), &[], ty, &[id]))
}

/// The value of all elements, if the node is a constant with equal ones.
pub fn splat(graph: &Graph, id: NodeId) -> Option<f64> {
    match &graph.node(id).op {
        Op::Constant(Literal::Splat(v)) => Some(*v),
        Op::Constant(Literal::Dense(values)) => match values[..] {
            [v] => Some(v),
            _ => None,
        },
        _ => None,
    }
}

/// A constant without dimensions.
pub fn scalar(graph: &mut Graph, dtype: DType, value: f64) -> NodeId {
    graph.add_typed(Op::Constant(Literal::Splat(value)), &[], TensorType::new(dtype, &[]), "", None)
}

/// The value nearest to `v` that the type has.
pub fn rounded(v: f64, dtype: DType) -> f64 {
    if dtype == DType::F32 { f64::from(v as f32) } else { v }
}

fn evaluate(op: &Op, operands: &[Tensor], ty: &TensorType) -> Option<Literal> {
    let operands: Vec<&Tensor> = operands.iter().collect();
    let values: Vec<f64> = match eval(op, &operands, ty)? {
        Tensor::F32(a) => a.iter().map(|&v| f64::from(v)).collect(),
        Tensor::F64(a) => a.iter().copied().collect(),
        Tensor::I32(a) => a.iter().map(|&v| f64::from(v)).collect(),
        Tensor::Bool(a) => a.iter().map(|&v| f64::from(u8::from(v))).collect(),
    };
    match values.first() {
        Some(&v) if values.iter().all(|w| w.to_bits() == v.to_bits()) => Some(Literal::Splat(v)),
        _ => Some(Literal::Dense(Arc::from(values))),
    }
}

/// The constant as a tensor of that type (a splat takes any shape).
fn tensor(graph: &Graph, id: NodeId, ty: &TensorType) -> Option<Tensor> {
    let shape = ty.sizes()?;
    let count = shape.iter().product();
    let values: Vec<f64> = match (&graph.node(id).op, splat(graph, id)) {
        (_, Some(v)) => vec![v; count],
        (Op::Constant(Literal::Dense(values)), None) => values.to_vec(),
        _ => return None,
    };
    fn array<T>(shape: &[usize], values: Vec<f64>, from: impl Fn(f64) -> T) -> Option<ArrayD<T>> {
        ArrayD::from_shape_vec(IxDyn(shape), values.into_iter().map(from).collect()).ok()
    }
    Some(match ty.dtype {
        DType::F32 => Tensor::F32(array(&shape, values, |v| v as f32)?),
        DType::F64 => Tensor::F64(array(&shape, values, |v| v)?),
        DType::I32 => Tensor::I32(array(&shape, values, |v| v as i32)?),
        DType::Bool => Tensor::Bool(array(&shape, values, |v| v != 0.0)?),
    })
}

/// The reference semantics.
fn eval(_: &Op, _: &[&Tensor], _: &TensorType) -> Option<Tensor> {
    None
}
