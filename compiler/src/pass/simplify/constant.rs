//! Constant folding, by the reference semantics of each operation.

use std::sync::Arc;

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
    if matches!(node.op, Op::Random(_) | Op::Philox(_) | Op::Dropout(_) | Op::Relayout) {
        return None;
    }
    let operands = graph.operands(id);
    if operands.is_empty() || !operands.iter().all(|&o| matches!(graph.node(o).op, Op::Constant(_))) {
        return None;
    }
    let splats: Option<Vec<f64>> = operands.iter().map(|&o| splat(graph, o)).collect();
    let literal = match (&node.op, splats) {
        // All elements are equal: whatever the size, one is enough.
        (
            Op::Reshape(_) | Op::Broadcast(_) | Op::Transpose(_) | Op::Reverse(_) | Op::StopGradient,
            Some(s),
        ) => Literal::Splat(s[0]),
        (op, Some(_)) if is_elementwise(op) => {
            let scalar = |o: &NodeId| TensorType::new(graph.node(*o).ty.dtype, &[]);
            let types: Vec<TensorType> = operands.iter().map(scalar).collect();
            evaluate(graph, op, &operands, &types, &TensorType::new(node.ty.dtype, &[]))?
        }
        (op, _) => {
            let types: Vec<TensorType> = operands.iter().map(|&o| graph.node(o).ty.clone()).collect();
            if !types.iter().chain([&node.ty]).all(is_small) {
                return None;
            }
            evaluate(graph, op, &operands, &types, &node.ty)?
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

fn is_small(ty: &TensorType) -> bool {
    let count = |sizes: Vec<usize>| sizes.into_iter().try_fold(1usize, usize::checked_mul);
    ty.sizes().and_then(count).is_some_and(|n| n <= FOLD_LIMIT)
}

/// The value of an operation on constants, these taken in the given types.
fn evaluate(
    graph: &Graph,
    op: &Op,
    constants: &[NodeId],
    types: &[TensorType],
    ty: &TensorType,
) -> Option<Literal> {
    let operands: Vec<Tensor> = constants
        .iter()
        .zip(types)
        .map(|(&c, t)| graph.node(c).op.eval(&[], t).ok())
        .collect::<Option<_>>()?;
    let values: Vec<f64> = match op.eval(&operands.iter().collect::<Vec<_>>(), ty).ok()? {
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
