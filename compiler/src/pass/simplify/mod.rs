//! Folds constants, removes what changes nothing, joins chains.
//!
//! ```text
//! %1 = constant {value=1.0}
//! %2 = mul %0, %1                     %1 = relu %0
//! %3 = relu %2                 →      output y = %1
//! %4 = relu %3
//! output y = %4
//! ```
//!
//! No rule changes which results are NaN or infinite: `x·0` and `x - x` stay. Signs of zeros are
//! not kept (`x + 0` is `x`, also where `x` is -0). Dropout and stop_gradient go: training graphs
//! have had their masks and gradients written out before, so what arrives here is the identity.
//!
//! Rules are functions from a node to its replacement, one file a family: [`elementwise`],
//! [`movement`], [`constant`].

mod constant;
mod elementwise;
mod movement;

use super::{Report, dead_code, is_source, label};
use crate::graph::{Graph, NodeId, Op, TensorType};

/// Families of rules, in the order in which they are tried. A rule gives the node to use instead:
/// one that is there already or one made for it.
const RULES: &[fn(&mut Graph, NodeId) -> Option<NodeId>] =
    &[constant::fold, elementwise::unary, elementwise::binary, elementwise::select, movement::rewrite];

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Report {
    let mut report = Report::new("simplify");
    for id in graph.topological() {
        let mut at = id;
        loop {
            let nodes = graph.len();
            let Some(new) = RULES.iter().find_map(|rule| rule(graph, at)) else { break };
            report.changes += 1;
            let old = label(graph, at);
            let text = match &graph.node(new).op {
                Op::Constant(_) => format!("{old} is a constant"),
                _ if graph.len() == nodes => format!("{old} is not needed"),
                op if op.name() == graph.node(at).op.name() => format!("{old} is joined with its operand"),
                op => format!("{old} becomes {}", op.name()),
            };
            report.remark(graph, at, text);
            graph.replace_uses(at, new);
            merge(graph, new, at);
            at = new;
        }
    }
    dead_code::sweep(graph);
    report
}

/// Lets a node carry the names and spans of one that it replaces. Sources are known by their own
/// names and places.
fn merge(graph: &mut Graph, to: NodeId, from: NodeId) {
    if !is_source(&graph.node(to).op) {
        graph.inherit(to, from);
    }
}

/// Adds a node that stands for others and carries their names and spans.
fn make(graph: &mut Graph, op: Op, operands: &[NodeId], ty: TensorType, stands_for: &[NodeId]) -> NodeId {
    let new = graph.add_typed(op, operands, ty, "", None);
    for &old in stands_for {
        graph.inherit(new, old);
    }
    new
}

/// The operand of a node with that operation, if there is just one.
fn only_operand(graph: &Graph, id: NodeId) -> Option<NodeId> {
    match graph.operands(id)[..] {
        [x] => Some(x),
        _ => None,
    }
}
