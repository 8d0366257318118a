//! Lets the operands of a concatenation write straight into its result, which then costs nothing.
//!
//! ```text
//! %5 = relu %4                        %5 = relu %4  into %9 at 0
//! %8 = relu %7                 →      %8 = relu %7  into %9 at 64
//! %9 = concat %5, %8 {axis=1}         %9 = concat %5, %8 {axis=1}
//! ```
//!
//! An operand can be placed if it is the result of a group, in the concatenation's layout, not an
//! output, and placed nowhere else. Its own users read it where it lies. Either all operands of a
//! concatenation are placed or none: a half-filled one would need its kernel anyway.
//!
//! An operand that is itself a concatenation of placed operands is not placed (its parts would lie
//! in a part); simplification has joined those where it could.

use std::collections::HashSet;

use super::{Report, label, prepared};
use crate::graph::{Graph, NodeId, Op, Placement};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Report {
    let mut report = Report::new("place_concat");
    for id in graph.ids().collect::<Vec<_>>() {
        graph.node_mut(id).placement = None;
    }
    let prepared = prepared(graph);
    for id in graph.topological() {
        let Op::Concat(axis) = graph.node(id).op else { continue };
        match placements(graph, id, axis, &prepared) {
            Ok(offsets) => {
                report.changes += 1;
                report.remark(graph, id, format!("{} is written in place by its operands", label(graph, id)));
                for (operand, offset) in offsets {
                    graph.node_mut(operand).placement = Some(Placement { into: id, offset });
                }
            }
            Err(why) => report.remark(graph, id, format!("{} is copied together: {why}", label(graph, id))),
        }
    }
    report
}

/// Every operand and where it begins along the axis; or why they cannot all be placed.
fn placements(
    graph: &Graph,
    id: NodeId,
    axis: usize,
    prepared: &HashSet<NodeId>,
) -> Result<Vec<(NodeId, usize)>, String> {
    let concat = graph.node(id);
    let mut offset = 0;
    let mut out: Vec<(NodeId, usize)> = vec![];
    for operand in graph.operands(id) {
        let node = graph.node(operand);
        let name = label(graph, operand);
        let block = concat.layout.block();
        let why = match node.op {
            Op::Input => "is the caller's memory",
            Op::Parameter(_) => "is the memory of the weights",
            Op::Constant(_) => "is part of the program",
            Op::Concat(_) if is_placed_into(graph, operand) => "is written in place itself",
            _ if node.group.and_then(|g| graph.groups.get(g.0 as usize)?.nodes.last()) != Some(&operand) => {
                "is not the result of a kernel"
            }
            _ if prepared.contains(&operand) != prepared.contains(&id) => {
                "is prepared once, when weights are loaded"
            }
            _ if graph.is_output(operand) => "is an output, with memory of its own",
            _ if is_output_memory(graph, operand) => "is the memory of an output",
            _ if node.placement.is_some() => "is part of another concatenation",
            _ if out.iter().any(|&(o, _)| o == operand) => "occurs twice",
            _ if node.layout != concat.layout => "has another layout",
            _ if is_reshaped(graph, operand) => "is reshaped, and parts of a result cannot be",
            _ if axis == 1 && offset % block != 0 => "does not begin with a block of channels",
            _ => "",
        };
        if !why.is_empty() {
            return Err(format!("{name} {why}"));
        }
        out.push((operand, offset));
        offset += node.ty.shape[axis].size().ok_or_else(|| format!("the size of {name} is not known"))?;
    }
    Ok(out)
}

/// True for a concatenation whose operands are placed in it.
fn is_placed_into(graph: &Graph, id: NodeId) -> bool {
    graph.operands(id).iter().any(|&o| graph.node(o).placement.is_some_and(|p| p.into == id))
}

/// True if a reshape gives the value's memory another name: it must be in one piece then.
fn is_reshaped(graph: &Graph, id: NodeId) -> bool {
    graph.users(id).iter().any(|&u| matches!(graph.node(u).op, Op::Reshape(_)))
}

/// True if an output is the value under another name.
fn is_output_memory(graph: &Graph, id: NodeId) -> bool {
    graph.users(id).iter().any(|&u| {
        matches!(graph.node(u).op, Op::Reshape(_)) && (graph.is_output(u) || is_output_memory(graph, u))
    })
}
