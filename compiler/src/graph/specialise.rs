//! Symbolic sizes of a whole graph: which there are, and numbers in their place.

use std::collections::BTreeSet;

use super::op::{AvgPool2dGrad, Conv2dInputGrad, Op, OpError, Philox, check_type};
use super::{Bindings, Dim, Graph, NodeId, Shape, TensorType};

/// A node that does not allow these sizes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{op}{}: {error}", if name.is_empty() { String::new() } else { format!(" `{name}`") })]
pub struct SpecialiseError {
    /// The node.
    pub node: NodeId,
    /// Its operation.
    pub op: &'static str,
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub error: OpError,
}

impl Graph {
    /// The names of the symbols in any type or attribute, sorted.
    pub fn symbols(&self) -> Vec<String> {
        let mut out = BTreeSet::new();
        for id in self.ids() {
            let node = self.node(id);
            out.extend(node.ty.shape.iter().chain(attribute_dims(&node.op)).flat_map(Dim::symbols));
        }
        out.into_iter().collect()
    }

    /// The graph with numbers for symbols, as far as they are given; every shape rule is applied
    /// again, for a window may now be too large or a slice lie outside.
    pub fn specialise(&self, bindings: &Bindings) -> Result<Graph, SpecialiseError> {
        let mut graph = self.clone();
        for id in graph.topological() {
            let operands = graph.operands(id);
            let types: Vec<TensorType> = operands.iter().map(|&o| graph.node(o).ty.clone()).collect();
            let node = graph.node_mut(id);
            substitute_attributes(&mut node.op, bindings);
            let inferred = if node.op.is_source() {
                let ty = TensorType { dtype: node.ty.dtype, shape: substitute(&node.ty.shape, bindings) };
                check_type(&ty).map(|()| ty)
            } else {
                node.op.infer(&types.iter().collect::<Vec<_>>())
            };
            node.ty = inferred.map_err(|error| SpecialiseError {
                node: id,
                op: node.op.name(),
                name: node.name.clone(),
                error,
            })?;
        }
        Ok(graph)
    }

    /// Multiply-accumulates of a node: convolutions and contractions count, all else is 0. `None`
    /// if a size is symbolic.
    pub fn macs(&self, id: NodeId) -> Option<u64> {
        let node = self.node(id);
        let operand = |i: usize| self.operands(id).get(i).and_then(|&o| self.node(o).ty.sizes());
        let product = |shape: &[usize]| shape.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64));
        let out = product(&node.ty.sizes()?);
        match node.op {
            Op::Conv2d(_) => Some(out.saturating_mul(product(operand(1)?.get(1..)?))),
            // As many as the convolution that it is the gradient of.
            Op::Conv2dInputGrad(_) => {
                Some(product(&operand(0)?).saturating_mul(product(operand(1)?.get(1..)?)))
            }
            Op::Conv2dWeightGrad(_) => {
                let taps = product(node.ty.sizes()?.get(1..)?);
                Some(product(&operand(1)?).saturating_mul(taps))
            }
            Op::ConvTranspose2d(_) => {
                Some(product(&operand(0)?).saturating_mul(product(operand(1)?.get(1..)?)))
            }
            Op::Linear | Op::MatMul => {
                let depth = *operand(0)?.last()?;
                Some(out.saturating_mul(depth as u64))
            }
            _ => Some(0),
        }
    }
}

/// The sizes among an operation's attributes.
fn attribute_dims(op: &Op) -> Vec<&Dim> {
    match op {
        Op::Reshape(shape) | Op::Broadcast(shape) => shape.iter().collect(),
        Op::Philox(Philox { shape, .. }) => shape.iter().collect(),
        Op::Slice { start, end, .. } => vec![start, end],
        Op::Conv2dInputGrad(Conv2dInputGrad { input, .. })
        | Op::AvgPool2dGrad(AvgPool2dGrad { input, .. })
        | Op::AdaptiveAvgPool2dGrad(input) => input.iter().collect(),
        Op::GatherGrad { size, .. } => vec![size],
        _ => vec![],
    }
}

fn substitute_attributes(op: &mut Op, bindings: &Bindings) {
    match op {
        Op::Reshape(shape) | Op::Broadcast(shape) => *shape = substitute(shape, bindings),
        Op::Philox(Philox { shape, .. }) => *shape = substitute(shape, bindings),
        Op::Slice { start, end, .. } => {
            *start = start.substitute(bindings);
            *end = end.substitute(bindings);
        }
        Op::Conv2dInputGrad(Conv2dInputGrad { input, .. })
        | Op::AvgPool2dGrad(AvgPool2dGrad { input, .. })
        | Op::AdaptiveAvgPool2dGrad(input) => input.iter_mut().for_each(|d| *d = d.substitute(bindings)),
        Op::GatherGrad { size, .. } => *size = size.substitute(bindings),
        _ => {}
    }
}

fn substitute(shape: &Shape, bindings: &Bindings) -> Shape {
    shape.iter().map(|d| d.substitute(bindings)).collect()
}
