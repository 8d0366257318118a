//! Regularizers: penalties on large weights, added to the loss.

use crate::autodiff::GradientBuilder;
use crate::build::Spec;
use crate::graph::op::Unary;
use crate::graph::{Graph, NodeId};

/// What keeps weights small. Weights are the parameters of rank 2 and more: biases and the factors of
/// normalisation are left alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Regularizer {
    /// The sum of magnitudes, times a factor.
    L1(f64),
    /// The sum of squares, times a factor.
    L2(f64),
}

impl Regularizer {
    /// As written; `None` for other specs.
    pub fn from_spec(spec: &Spec) -> Option<Regularizer> {
        match spec.name {
            "l1" => Some(Regularizer::L1(spec.number("factor"))),
            "l2" => Some(Regularizer::L2(spec.number("factor"))),
            _ => None,
        }
    }

    /// The loss with the penalties of some parameters.
    pub(super) fn add_to(self, graph: &mut Graph, loss: NodeId, parameters: &[NodeId]) -> NodeId {
        let mut total = loss;
        for &p in parameters.iter().filter(|&&p| graph.node(p).ty.rank() >= 2).collect::<Vec<_>>() {
            // Named and placed as the weight is.
            let g = GradientBuilder::in_place_of(graph, p);
            let (size, factor) = match self {
                Regularizer::L1(factor) => (g.unary(Unary::Abs, p), factor),
                Regularizer::L2(factor) => (g.mul(p, p), factor),
            };
            let sum = g.sum(size, (0..g.ty(p).rank()).collect());
            total = g.add(total, g.scale(sum, factor));
        }
        total
    }
}
