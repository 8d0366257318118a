//! Reverse-mode automatic differentiation, graph to graph.
//!
//! Takes a graph and a node without dimensions, the loss; adds the nodes that compute its gradients
//! with respect to parameters. They are ordinary nodes, with the source spans of the forward node that
//! they are due to and its name with `.grad` behind it. What an operation's gradient is, is said beside
//! the operation ([`Operation::gradient`](crate::graph::op::Operation::gradient)); here is only the
//! walk from the loss backwards that adds up what comes from several users.
//!
//! ```text
//! %2 = mul %0, %1 : f32[4]            %4 = broadcast 1.0 : f32[4]
//! %3 = reduce_sum %2 : f32[]    →     %5 = mul %4, %0 : f32[4]          gradient of %1
//! ```

mod builder;
pub mod expand;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use nnc_dsl::{Diagnostic, Span};

use crate::graph::op::OpError;
use crate::graph::{Graph, NodeId, Op};

pub use builder::GradientBuilder;

/// A node that a gradient is to be sent through.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Its operands.
    pub operands: &'a [NodeId],
    /// Its value.
    pub result: NodeId,
    /// The gradient of the loss with respect to its value: of the same type.
    pub gradient: NodeId,
}

/// The gradients with respect to the operands, of the operands' types; `None` where there is none.
pub type Gradients = Vec<Option<NodeId>>;

/// Why an operation has no gradient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoGradient {
    /// Starts lowercase.
    pub reason: String,
    /// What to do, where that is obvious.
    pub help: Option<String>,
}

impl NoGradient {
    /// For that reason.
    pub fn new(reason: impl Into<String>) -> NoGradient {
        NoGradient { reason: reason.into(), help: None }
    }

    /// With a hint.
    pub fn help(mut self, help: impl Into<String>) -> NoGradient {
        self.help = Some(help.into());
        self
    }
}

impl From<OpError> for NoGradient {
    fn from(e: OpError) -> NoGradient {
        NoGradient { reason: e.message, help: e.help }
    }
}

/// A node that no gradient can be sent through.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct NotDifferentiable {
    /// The node.
    pub node: NodeId,
    /// Starts lowercase, names the operation.
    pub message: String,
    /// What is to be said at its place.
    pub label: &'static str,
    /// Where it was written.
    pub span: Option<Span>,
    /// What to do, where that is obvious.
    pub help: Option<String>,
}

impl NotDifferentiable {
    /// About that node.
    pub fn new(graph: &Graph, id: NodeId, why: NoGradient) -> NotDifferentiable {
        let node = graph.node(id);
        let layer = if node.name.is_empty() { String::new() } else { format!("`{}`: ", node.name) };
        NotDifferentiable {
            node: id,
            message: format!("{layer}`{}` has no gradient: {}", node.op.name(), why.reason),
            label: "the loss depends on parameters through this",
            span: node.spans.first().copied(),
            help: why.help,
        }
    }

    /// About a loss that no gradient leads from to any of the values.
    fn unreached(graph: &Graph, loss: NodeId, active: &HashSet<NodeId>) -> NotDifferentiable {
        let (message, node, label) = match where_it_ends(graph, loss, active) {
            Some(end) => {
                let op = graph.node(end).op.name();
                let message =
                    format!("the loss depends on parameters through `{op}` alone, which has no gradient");
                (message, end, "its result does not change with small changes of the parameters")
            }
            None => ("the loss depends on no parameter".to_string(), loss, "nothing here can be trained"),
        };
        let span = graph.node(node).spans.first().copied();
        NotDifferentiable { node, message, label, span, help: None }
    }

    /// For the author of the program.
    pub fn diagnostic(&self) -> Diagnostic {
        let mut d = match self.span {
            Some(span) => Diagnostic::error(&self.message, span, self.label),
            None => Diagnostic::global(&self.message),
        };
        d.help = self.help.clone();
        d
    }
}

/// Adds the gradients of `loss` with respect to some values of the graph, each of that value's type;
/// `None` where the loss does not depend on it.
///
/// # Errors
/// An operation in between that has no gradient, or a loss that depends on none of the values.
pub fn gradients(
    graph: &mut Graph,
    loss: NodeId,
    wanted: &[NodeId],
) -> Result<Vec<Option<NodeId>>, NotDifferentiable> {
    let order = graph.topological();
    let active = dependent(graph, &order, wanted);
    let mut found: HashMap<NodeId, NodeId> = HashMap::new();
    let g = GradientBuilder::new(graph);
    g.differentiates(loss);
    found.insert(loss, g.ones_like(loss));
    for &id in order.iter().rev().filter(|id| active.contains(id)) {
        let Some(&gradient) = found.get(&id) else { continue };
        let op = g.op_of(id);
        let operands = g.operands(id);
        if operands.is_empty() {
            continue;
        }
        g.differentiates(id);
        let at = At { operands: &operands, result: id, gradient };
        let result = op.gradient(&g, &at).and_then(|gradients| g.checked().map(|()| gradients));
        let result = result.map_err(|why| g.not_differentiable(id, why))?;
        for (&operand, part) in operands.iter().zip(result) {
            let Some(part) = part.filter(|_| active.contains(&operand)) else { continue };
            debug_assert_eq!(g.ty(part), g.ty(operand), "the gradient of `{}`", op.name());
            let sum = found.get(&operand).map_or(part, |&so_far| g.add(so_far, part));
            found.insert(operand, sum);
        }
    }
    if !wanted.iter().any(|w| found.contains_key(w)) {
        return Err(NotDifferentiable::unreached(graph, loss, &active));
    }
    Ok(wanted.iter().map(|w| found.get(w).copied()).collect())
}

/// The values that depend on some of these, not counting what flows through `stop_gradient`.
fn dependent(graph: &Graph, order: &[NodeId], wanted: &[NodeId]) -> HashSet<NodeId> {
    let mut active: HashSet<NodeId> = wanted.iter().copied().collect();
    for &id in order {
        let flows = graph.node(id).op != Op::StopGradient;
        if flows && graph.operands(id).iter().any(|o| active.contains(o)) {
            active.insert(id);
        }
    }
    active
}

/// The node before the loss whose value is no float although parameters lead to it, if there is one.
fn where_it_ends(graph: &Graph, loss: NodeId, active: &HashSet<NodeId>) -> Option<NodeId> {
    let (mut seen, mut work) = (HashSet::new(), vec![loss]);
    while let Some(id) = work.pop() {
        if !active.contains(&id) || !seen.insert(id) {
            continue;
        }
        let is_float = |n: &NodeId| graph.node(*n).ty.dtype.is_float();
        let operands = graph.operands(id);
        if !is_float(&id) && operands.iter().any(|o| active.contains(o) && is_float(o)) {
            return Some(id);
        }
        work.extend(operands);
    }
    None
}
