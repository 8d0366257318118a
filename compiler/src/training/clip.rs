//! Gradient clipping: by the norm of all gradients together, or by value.

use crate::autodiff::GradientBuilder;
use crate::build::Spec;
use crate::graph::op::{Binary, Unary};
use crate::graph::{Graph, NodeId};

/// Added to the norm, as in PyTorch's `clip_grad_norm_`.
const NORM_EPS: f64 = 1e-6;

/// What keeps gradients small.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// All gradients, as one vector, are scaled down to that length if they are longer (Pascanu et
    /// al. 2013).
    Norm(f64),
    /// Each element lies within plus and minus that.
    Value(f64),
}

impl Clip {
    /// As written; `None` for other specs.
    pub fn from_spec(spec: &Spec) -> Option<Clip> {
        match spec.name {
            "clip_norm" => Some(Clip::Norm(spec.number("limit"))),
            "clip_value" => Some(Clip::Value(spec.number("limit"))),
            _ => None,
        }
    }

    /// Clips the gradients of pairs (parameter, gradient).
    pub(super) fn apply(self, graph: &mut Graph, pairs: &mut [(NodeId, NodeId)]) {
        match self {
            Clip::Norm(limit) => {
                let Some(factor) = norm_factor(graph, limit, pairs) else { return };
                for (_, gradient) in pairs {
                    *gradient = GradientBuilder::in_place_of(graph, *gradient).mul(*gradient, factor);
                }
            }
            Clip::Value(limit) => {
                for (_, gradient) in pairs {
                    let g = GradientBuilder::in_place_of(graph, *gradient);
                    *gradient = g.unary(Unary::Clamp(-limit, limit), *gradient);
                }
            }
        }
    }
}

/// `min(1, limit / (norm + eps))`
fn norm_factor(graph: &mut Graph, limit: f64, pairs: &[(NodeId, NodeId)]) -> Option<NodeId> {
    let g = GradientBuilder::new(graph);
    let squares = pairs
        .iter()
        .map(|&(_, gradient)| g.sum(g.mul(gradient, gradient), (0..g.ty(gradient).rank()).collect()));
    let sum = squares.reduce(|a, b| g.add(a, b))?;
    let norm = g.unary(Unary::Sqrt, sum);
    let factor = g.div(g.number(limit, norm), g.offset(norm, NORM_EPS));
    Some(g.binary(Binary::Min, factor, g.number(1.0, factor)))
}
