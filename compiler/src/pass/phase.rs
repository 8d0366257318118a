//! Which values are prepared once, when weights are loaded, instead of in every run.

use std::collections::HashSet;

use crate::graph::{Graph, NodeId, Op};

/// The computed values that depend on parameters and constants alone. Outputs are not among them,
/// nor what depends on those: an output is the caller's memory, another one in every run.
pub fn prepared(graph: &Graph) -> HashSet<NodeId> {
    let mut out = HashSet::new();
    for id in graph.topological() {
        let once = match graph.node(id).op {
            Op::Input | Op::Parameter(_) | Op::Constant(_) | Op::Random(_) | Op::Dropout(_) => false,
            _ => graph.operands(id).iter().all(|&o| is_settled(graph, o) || out.contains(&o)),
        };
        if once && !graph.is_output(id) {
            out.insert(id);
        }
    }
    out
}

/// True for sources that are the same in every run: constants, and parameters that no run updates.
pub fn is_settled(graph: &Graph, id: NodeId) -> bool {
    match graph.node(id).op {
        Op::Constant(_) => true,
        Op::Parameter(_) => !graph.is_updated(id),
        _ => false,
    }
}
