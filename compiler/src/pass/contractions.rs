//! Writes contractions of the backward graph with transposed matrices as those that have fast kernels.
//!
//! ```text
//! %1 = transpose %w {order=[1, 0]}                 →    %3 = matmul %dy, %w
//! %2 = linear %dy, %1
//!
//! %1 = transpose %b {order=[1, 0]}                 →    %3 = linear %a, %b
//! %2 = matmul %a, %1
//! ```
//!
//! The gradients of convolutions have kernels of their own.

use super::{Report, prepared};
use crate::graph::{Graph, NodeId, Op};
use nnc_runtime::DType;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Report {
    let mut report = Report::new("contractions");
    let prepared = prepared(graph);
    for id in graph.topological() {
        if graph.node(id).ty.dtype != DType::F32 {
            continue;
        }
        let mut rewriter = Rewriter { graph, id };
        let new = match &rewriter.graph.node(id).op {
            // What is prepared once may be copied.
            Op::Linear | Op::MatMul if !prepared.contains(&rewriter.operand(1)) => rewriter.matrix_product(),
            _ => continue,
        };
        if let Some(new) = new {
            graph.inherit(new, id);
            graph.replace_uses(id, new);
            graph.remove(id);
            report.changes += 1;
        }
    }
    report
}

/// Writes one node anew.
struct Rewriter<'g> {
    graph: &'g mut Graph,
    id: NodeId,
}

impl Rewriter<'_> {
    /// Adds a node in place of the old one.
    fn op(&mut self, op: Op, operands: &[NodeId]) -> Option<NodeId> {
        let old = self.graph.node(self.id);
        let (name, span) = (old.name.clone(), old.spans.first().copied());
        self.graph.add(op, operands, &name, span).ok()
    }

    fn operand(&self, i: usize) -> NodeId {
        self.graph.operands(self.id)[i]
    }

    /// A linear layer with a transposed matrix is a product with the matrix, and the other way round.
    fn matrix_product(&mut self) -> Option<NodeId> {
        let operands = self.graph.operands(self.id);
        let &[a, b] = operands.as_slice() else { return None };
        let Op::Transpose(order) = &self.graph.node(b).op else { return None };
        if order[..] != [1, 0] {
            return None;
        }
        let op = if self.graph.node(self.id).op == Op::Linear { Op::MatMul } else { Op::Linear };
        // A product has rows; so has the layer's input then.
        if self.graph.node(a).ty.rank() < 2 {
            return None;
        }
        self.op(op, &[a, self.graph.operands(b)[0]])
    }
}
