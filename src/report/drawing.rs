//! What is drawn of a graph: boxes, arrows and frames. `dot` and `svg` say how.

use std::collections::{BTreeSet, HashMap};

use nnc_compiler::graph::{Graph, NodeId, Op};
use nnc_dsl::SourceMap;

use super::place;
use crate::Network;

/// What a box stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An input of the net.
    Input,
    /// An operation.
    Operation,
    /// An output of the net.
    Output,
}

/// A box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Box {
    /// Its lines: operation (and the author's name), parameters, shape.
    pub lines: Vec<String>,
    /// What it stands for.
    pub kind: Kind,
    /// Index of the frame it stands in.
    pub frame: Option<usize>,
    /// Where it is written: `vgg.nn:9`; may be empty.
    pub location: String,
}

/// A frame around the boxes of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its title.
    pub title: String,
}

/// See the module's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// The net's name.
    pub name: String,
    /// In topological order.
    pub boxes: Vec<Box>,
    /// From box to box.
    pub arrows: Vec<(usize, usize)>,
    /// In the order in which the kernels run.
    pub frames: Vec<Frame>,
}

impl Drawing {
    /// A net after all passes, with frames around what becomes one kernel.
    pub fn fused(network: &Network) -> Drawing {
        Drawing::of(&network.optimized().0, network.sources())
    }

    /// A graph with its inputs, operations and outputs. Parameters are lines in the boxes of those
    /// that use them, so that the drawing shows how data flows. Groups of more than one node
    /// become frames.
    pub fn of(graph: &Graph, sources: &SourceMap) -> Drawing {
        let order = graph.topological();
        let hidden: BTreeSet<NodeId> = hidden(graph, &order);
        let mut drawing = Drawing { name: graph.name.clone(), boxes: vec![], arrows: vec![], frames: vec![] };
        let frame_of = drawing.add_frames(graph, &hidden);
        let mut box_of = HashMap::new();
        for &id in order.iter().filter(|id| !hidden.contains(id)) {
            let node = graph.node(id);
            let kind = if matches!(node.op, Op::Input) { Kind::Input } else { Kind::Operation };
            box_of.insert(id, drawing.boxes.len());
            drawing.boxes.push(Box {
                lines: lines(graph, id, &hidden),
                kind,
                frame: node.group.and_then(|g| frame_of.get(&(g.0 as usize)).copied()),
                location: place::location(node, sources),
            });
            for o in graph.operands(id) {
                if let Some(&from) = box_of.get(&o) {
                    drawing.arrows.push((from, box_of[&id]));
                }
            }
        }
        for output in &graph.outputs {
            let Some(&from) = box_of.get(&output.node) else { continue };
            let lines = vec![output.name.clone(), graph.node(output.node).ty.to_string()];
            drawing.arrows.push((from, drawing.boxes.len()));
            drawing.boxes.push(Box { lines, kind: Kind::Output, frame: None, location: String::new() });
        }
        drawing
    }

    fn add_frames(&mut self, graph: &Graph, hidden: &BTreeSet<NodeId>) -> HashMap<usize, usize> {
        let mut frame_of = HashMap::new();
        for (i, group) in graph.groups.iter().enumerate() {
            if group.nodes.len() > 1 && group.nodes.iter().any(|n| !hidden.contains(n)) {
                frame_of.insert(i, self.frames.len());
                self.frames.push(Frame { title: format!("kernel {i}") });
            }
        }
        frame_of
    }
}

/// Parameters, constants, and what is computed from those alone.
fn hidden(graph: &Graph, order: &[NodeId]) -> BTreeSet<NodeId> {
    let mut out = BTreeSet::new();
    for &id in order {
        let hide = match graph.node(id).op {
            Op::Input | Op::Random(_) => false,
            Op::Parameter(_) | Op::Constant(_) => true,
            _ => graph.operands(id).iter().all(|o| out.contains(o)),
        };
        if hide && !graph.is_output(id) {
            out.insert(id);
        }
    }
    out
}

fn lines(graph: &Graph, id: NodeId, hidden: &BTreeSet<NodeId>) -> Vec<String> {
    let node = graph.node(id);
    let mut lines = vec![match (&node.op, node.name.as_str()) {
        (Op::Input, name) => name.to_string(),
        (op, "") => op.name().to_string(),
        (op, name) => format!("{} {name}", op.name()),
    }];
    for o in graph.operands(id) {
        let operand = graph.node(o);
        if hidden.contains(&o) && matches!(operand.op, Op::Parameter(_)) {
            let dims: Vec<String> = operand.ty.shape.iter().map(|d| d.to_string()).collect();
            let own = operand.name.rsplit('.').next().unwrap_or(&operand.name);
            lines.push(format!("{own} [{}]", dims.join(", ")));
        }
    }
    lines.push(node.ty.to_string());
    lines
}
