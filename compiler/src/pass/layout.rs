//! Chooses how values lie in memory: channels in blocks inside, row-major at the borders.
//!
//! ```text
//! %3 = conv2d %0, %1, %2              %3 = conv2d %0, %1, %2 : f32[1, 16, 8, 8] blocked8
//! %4 = max_pool2d %3           →      %4 = max_pool2d %3 : f32[1, 16, 4, 4] blocked8
//! %5 = reshape %4                     %5 = relayout %4 : f32[1, 16, 4, 4]
//!                                     %6 = reshape %5 : f32[1, 256]
//! ```
//!
//! One forward walk. A convolution gives blocks whatever it reads, if its channels fill them well
//! enough; pooling, its gradient, normalisation across channels, elementwise work and concatenation of channels
//! keep the layout of their operands; sums that leave channels apart read blocks; all else is row-major. Where a user needs the other layout,
//! an explicit relayout is put in between, one a value, however many users need it. Reading
//! row-major data is no burden for a dense convolution, which spreads single elements over its
//! lanes anyway: the picture itself is never converted.
//!
//! What is prepared once (weights) stays row-major here: packing it is the business of the kernels
//! that read it.

use std::collections::{HashMap, HashSet};

use nnc_runtime::DType;

use super::{Report, is_elementwise, is_source, label, prepared};
use crate::graph::{Graph, Layout, NodeId, Op};
use crate::target::CpuTarget;

/// Channel counts from here on are blocked (LeNet's 6 among them), fewer (pictures, masks, attention
/// maps) are not: half-empty vectors still beat the gathering and spilling of row-major
/// convolutions, emptier ones do not.
const LEAST_CHANNELS: usize = 4;

/// Runs the pass: blocks of as many channels as the target wants. Where vectors have one lane (threads
/// of a GPU), everything stays row-major.
pub fn run(graph: &mut Graph, target: &CpuTarget) -> Report {
    if target.lanes == 1 {
        return Report::new("layout");
    }
    let mut walk = Walk {
        block: target.block(),
        prepared: prepared(graph),
        converted: HashMap::new(),
        report: Report::new("layout"),
    };
    for id in graph.topological() {
        walk.visit(graph, id);
    }
    walk.finish_outputs(graph);
    walk.report
}

struct Walk {
    /// Channels in a block.
    block: usize,
    prepared: HashSet<NodeId>,
    /// The relayouts made so far, by operand.
    converted: HashMap<NodeId, NodeId>,
    report: Report,
}

/// What a node does about layouts.
enum Choice {
    /// Result and all operands row-major.
    Plain,
    /// Blocked result; operand 0 is read as it lies.
    Producer,
    /// Blocked result; the operands at these positions must be blocked, too.
    Blocked(Vec<usize>),
    /// Row-major result; the operands at these positions must be blocked, the others row-major.
    Reader(Vec<usize>),
}

impl Walk {
    fn blocked(&self) -> Layout {
        Layout::Blocked(self.block as u8)
    }

    fn visit(&mut self, graph: &mut Graph, id: NodeId) {
        if is_source(&graph.node(id).op) || graph.node(id).op == Op::Relayout {
            return;
        }
        let blocked_operands = match self.choose(graph, id) {
            Choice::Plain => {
                for (i, operand) in graph.operands(id).into_iter().enumerate() {
                    self.require(graph, id, i, operand, Layout::Plain);
                }
                return;
            }
            Choice::Reader(blocked) => {
                for (i, operand) in graph.operands(id).into_iter().enumerate() {
                    let layout = if blocked.contains(&i) { self.blocked() } else { Layout::Plain };
                    self.require(graph, id, i, operand, layout);
                }
                return;
            }
            Choice::Producer => vec![],
            Choice::Blocked(operands) => operands,
        };
        graph.node_mut(id).layout = self.blocked();
        self.report.changes += 1;
        let operands = graph.operands(id);
        for i in blocked_operands {
            self.require(graph, id, i, operands[i], self.blocked());
        }
    }

    fn choose(&self, graph: &Graph, id: NodeId) -> Choice {
        let operands = graph.operands(id);
        if let Op::Conv2dWeightGrad(g) = &graph.node(id).op
            && !self.prepared.contains(&id)
        {
            return weight_grad(graph, g.conv.groups, [operands[0], operands[1]]);
        }
        if let Op::Reduce { kind, axes, .. } = &graph.node(id).op
            && kind.adds()
            && !axes.contains(&1)
            && graph.node(operands[0]).layout != Layout::Plain
        {
            return Choice::Reader(vec![0]);
        }
        if self.prepared.contains(&id) || !fills_blocks(graph, id) {
            return Choice::Plain;
        }
        let blocked = |o: &NodeId| graph.node(*o).layout == self.blocked();
        if let Some(groups) = conv_groups(&graph.node(id).op) {
            // A block of channels is a vector of filters, each with its own input channel.
            let fits = is_depthwise(graph, id, groups) || self.groups_fill_blocks(graph, id, groups);
            return match groups {
                1 => Choice::Producer,
                _ if fits => Choice::Blocked(vec![0]),
                _ => Choice::Plain,
            };
        }
        match &graph.node(id).op {
            Op::MaxPool2d(_)
            | Op::AvgPool2d(_)
            | Op::AdaptiveMaxPool2d(_)
            | Op::AdaptiveAvgPool2d(_)
            | Op::BatchNorm(_)
            | Op::LocalResponseNorm(_)
                if blocked(&operands[0]) =>
            {
                Choice::Blocked(vec![0])
            }
            Op::MaxPool2dGrad(_) | Op::AdaptiveMaxPool2dGrad if blocked(&operands[0]) => {
                Choice::Blocked(vec![0, 1])
            }
            // Back to what a convolution gave, most likely; `dy` is the smaller one.
            Op::AvgPool2dGrad(_) | Op::AdaptiveAvgPool2dGrad(_) => Choice::Blocked(vec![0]),
            Op::Concat(1) if operands.iter().any(blocked) && self.concat_fits(graph, id) => {
                Choice::Blocked((0..operands.len()).collect())
            }
            op if is_elementwise(op) => {
                let full: Vec<usize> = (0..operands.len())
                    .filter(|&i| graph.node(operands[i]).ty.shape == graph.node(id).ty.shape)
                    .collect();
                let fits = operands.iter().all(|&o| is_blockable(graph, o));
                if fits && full.iter().any(|&i| blocked(&operands[i])) {
                    Choice::Blocked(full)
                } else {
                    Choice::Plain
                }
            }
            _ => Choice::Plain,
        }
    }

    /// True if a convolution's groups begin and end with blocks.
    fn groups_fill_blocks(&self, graph: &Graph, id: NodeId, groups: usize) -> bool {
        let whole = |c: usize| c.is_multiple_of(groups * self.block);
        [id, graph.operands(id)[0]].into_iter().all(|n| channels(graph, n).is_some_and(whole))
    }

    /// Every operand must begin and end with a block.
    fn concat_fits(&self, graph: &Graph, id: NodeId) -> bool {
        graph.operands(id).iter().all(|&o| {
            is_f32(graph, o) && graph.node(o).ty.shape[1].size().is_some_and(|c| c % self.block == 0)
        })
    }

    /// Lets the i-th operand of a node come in that layout.
    fn require(&mut self, graph: &mut Graph, id: NodeId, i: usize, operand: NodeId, layout: Layout) {
        if graph.node(operand).layout == layout {
            return;
        }
        let new = self.convert(graph, operand, layout);
        let to = if layout == Layout::Plain { "row-major" } else { "blocked" };
        let text = format!("{} is converted to {to} for {}", label(graph, operand), label(graph, id));
        self.report.remark(graph, id, text);
        graph.set_operand(id, i, new);
    }

    /// The value in the other layout.
    fn convert(&mut self, graph: &mut Graph, value: NodeId, layout: Layout) -> NodeId {
        *self.converted.entry(value).or_insert_with(|| {
            let ty = graph.node(value).ty.clone();
            let span = graph.node(value).spans.first().copied();
            let new = graph.add_typed(Op::Relayout, &[value], ty, "", span);
            graph.node_mut(new).layout = layout;
            new
        })
    }

    /// Outputs are the caller's memory, parameters are kept: row-major.
    fn finish_outputs(&mut self, graph: &mut Graph) {
        for i in 0..graph.outputs.len() {
            let value = graph.outputs[i].node;
            if graph.node(value).layout != Layout::Plain {
                graph.outputs[i].node = self.convert(graph, value, Layout::Plain);
            }
        }
        for i in 0..graph.updates.len() {
            let value = graph.updates[i].value;
            if graph.node(value).layout != Layout::Plain {
                graph.updates[i].value = self.convert(graph, value, Layout::Plain);
            }
        }
    }
}

/// Weights are row-major. Their gradient's sums run over lanes of output channels, however few; few
/// input channels (a picture's) are read as they lie.
fn weight_grad(graph: &Graph, groups: usize, [x, dy]: [NodeId; 2]) -> Choice {
    match groups {
        1 if fills_blocks(graph, x) => Choice::Reader(vec![0, 1]),
        1 => Choice::Reader(vec![1]),
        g if channels(graph, x) == Some(g) && channels(graph, dy) == Some(g) => Choice::Reader(vec![0, 1]),
        _ => Choice::Plain,
    }
}

/// The groups of a convolution, forward or transposed.
fn conv_groups(op: &Op) -> Option<usize> {
    match op {
        Op::Conv2d(c) => Some(c.groups),
        Op::Conv2dInputGrad(g) => Some(g.conv.groups),
        Op::ConvTranspose2d(c) => Some(c.groups),
        _ => None,
    }
}

/// True for `f32`, and for masks over it.
fn is_blockable(graph: &Graph, id: NodeId) -> bool {
    matches!(graph.node(id).ty.dtype, DType::F32 | DType::Bool)
}

fn is_f32(graph: &Graph, id: NodeId) -> bool {
    graph.node(id).ty.dtype == DType::F32
}

/// True for values `[N, C, H, W]` with enough channels for blocks.
fn fills_blocks(graph: &Graph, id: NodeId) -> bool {
    let enough = channels(graph, id).is_some_and(|c| c >= LEAST_CHANNELS);
    is_blockable(graph, id) && graph.node(id).ty.rank() == 4 && enough
}

fn channels(graph: &Graph, id: NodeId) -> Option<usize> {
    graph.node(id).ty.shape.get(1).and_then(crate::graph::Dim::size)
}

/// One filter a channel: as many groups as input and output channels.
fn is_depthwise(graph: &Graph, id: NodeId, groups: usize) -> bool {
    [id, graph.operands(id)[0]].into_iter().all(|n| channels(graph, n) == Some(groups))
}
