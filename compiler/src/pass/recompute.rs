//! Computes cheap values again where they are used, instead of keeping them.
//!
//! ```text
//! %2 = sub %0, %1 : f32[64, 32, 8, 8]      %2 = sub %0, %1
//! %3 = mul %2, %2                     →    %3 = mul %2, %2
//! …                                        …
//! %90 = mul %2, %80                        %89 = sub %0, %1
//!                                          %90 = mul %89, %80
//! ```
//!
//! In a training step, values of the forward part wait for the backward part. One that is a cheap
//! function of a single value of its size (a picture minus the mean of its channel) need not: it is
//! computed in the kernels of its users, which read the other value in its place. That saves the
//! value's memory, and writing it. In inference nothing waits so long: graphs without updates are
//! left alone.

use super::{Report, is_elementwise, label};
use crate::graph::op::{Binary, Unary};
use crate::graph::{Graph, NodeId, Op};

/// Values with fewer elements are not worth it.
const MIN_ELEMENTS: usize = 4096;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Report {
    let mut report = Report::new("recompute");
    if graph.updates.is_empty() {
        return report;
    }
    for id in graph.topological() {
        if !is_cheap(graph, id) || graph.is_output(id) {
            continue;
        }
        let mut users = graph.users(id);
        users.dedup();
        let fuses = |u: &NodeId| {
            let user = graph.node(*u);
            is_elementwise(&user.op) && user.ty.shape == graph.node(id).ty.shape
        };
        if users.len() < 2 || !users.iter().all(fuses) {
            continue;
        }
        report.changes += users.len() - 1;
        report.remark(
            graph,
            id,
            format!("{} is computed again for each of {} users", label(graph, id), users.len()),
        );
        for &user in &users[1..] {
            let node = graph.node(id).clone();
            let copy = graph.add_typed(node.op, &graph.operands(id), node.ty, &node.name, None);
            graph.node_mut(copy).spans = node.spans;
            for (i, operand) in graph.operands(user).into_iter().enumerate() {
                if operand == id {
                    graph.set_operand(user, i, copy);
                }
            }
        }
    }
    report
}

/// True for a cheap function of one value of its size that is kept in any case, and of values that take
/// little room.
fn is_cheap(graph: &Graph, id: NodeId) -> bool {
    use Binary::*;
    let node = graph.node(id);
    let cheap = match &node.op {
        Op::Binary(f) => matches!(f, Add | Sub | Mul | Max | Min),
        Op::Unary(f) => matches!(f, Unary::Neg | Unary::Abs | Unary::Relu),
        _ => false,
    };
    let elements = |n: NodeId| graph.node(n).ty.sizes().map(|s| s.iter().product::<usize>());
    let Some(size) = elements(id).filter(|&n| cheap && n >= MIN_ELEMENTS) else { return false };
    let mut whole = graph.operands(id);
    whole.retain(|&o| elements(o).is_none_or(|n| n * 16 > size));
    // The operand has another user: it is in memory whether or not this value is.
    matches!(whole[..], [x] if graph.users(x).iter().any(|&u| u != id) && !is_elementwise(&graph.node(x).op))
}
