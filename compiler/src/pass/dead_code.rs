//! Removes what no output and no update needs. Inputs and parameters stay: they are the program's interface, and
//! a weights file that has an unused one is not wrong.
//!
//! ```text
//! %0 = input "x"                      %0 = input "x"
//! %1 = exp %0                  →      %1 = neg %0
//! %2 = neg %0                         output y = %1
//! output y = %2
//! ```

use std::collections::HashSet;

use super::Report;
use crate::graph::{Graph, Op};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Report {
    let mut report = Report::new("dead_code");
    report.changes = sweep(graph);
    report
}

/// Removes all nodes that no result needs, save inputs and parameters; tells how many.
pub fn sweep(graph: &mut Graph) -> usize {
    let mut needed = HashSet::new();
    let mut work: Vec<_> = graph.results().collect();
    while let Some(id) = work.pop() {
        if needed.insert(id) {
            work.extend(graph.operands(id));
        }
    }
    let dead: Vec<_> = graph
        .topological()
        .into_iter()
        .rev() // users before operands
        .filter(|id| !needed.contains(id))
        .filter(|&id| !matches!(graph.node(id).op, Op::Input | Op::Parameter(_)))
        .collect();
    for &id in &dead {
        graph.remove(id);
    }
    dead.len()
}
