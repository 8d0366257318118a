//! Computes equal values once: operation, operands and type alike. The operands of commutative
//! operations may come in either order. Random numbers are drawn each on their own, and inputs and
//! parameters are known by name: those are never merged.
//!
//! ```text
//! %1 = exp %0                         %1 = exp %0
//! %2 = exp %0                  →      %2 = add %1, %1
//! %3 = add %1, %2
//! ```

use std::collections::HashMap;
use std::fmt::Write;

use super::{Report, dead_code, label};
use crate::graph::op::{Binary, Literal};
use crate::graph::{Graph, NodeId, Op};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Report {
    let mut report = Report::new("common_subexpressions");
    let mut known: HashMap<String, NodeId> = HashMap::new();
    for id in graph.topological() {
        let Some(key) = key(graph, id) else { continue };
        let Some(&first) = known.get(&key) else {
            known.insert(key, id);
            continue;
        };
        report.changes += 1;
        if !matches!(graph.node(id).op, Op::Constant(_)) {
            report.remark(
                graph,
                id,
                format!("{} is computed once, as {}", label(graph, id), label(graph, first)),
            );
        }
        graph.replace_uses(id, first);
        graph.inherit(first, id);
    }
    dead_code::sweep(graph);
    report
}

/// A text that two nodes share exactly if their values are equal; `None` for nodes that stand alone.
fn key(graph: &Graph, id: NodeId) -> Option<String> {
    let node = graph.node(id);
    let mut key = match &node.op {
        Op::Input | Op::Parameter(_) | Op::Random(_) | Op::Dropout(_) => return None,
        Op::Constant(Literal::Splat(v)) => format!("splat {:x}", v.to_bits()),
        Op::Constant(Literal::Dense(values)) => {
            let mut s = String::from("dense");
            for v in values.iter() {
                let _ = write!(s, " {:x}", v.to_bits());
            }
            s
        }
        op => format!("{op:?}"),
    };
    let mut operands = graph.operands(id);
    if is_commutative(&node.op) {
        operands.sort();
    }
    let _ = write!(key, " {operands:?} {} {:?}", node.ty, node.layout);
    Some(key)
}

fn is_commutative(op: &Op) -> bool {
    use Binary::*;
    matches!(op, Op::Binary(Add | Mul | Max | Min | Eq | Ne | And | Or))
}
