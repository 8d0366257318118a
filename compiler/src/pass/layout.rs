//! Chooses how values lie in memory: channels in blocks inside (on a GPU, channels last), row-major at the
//! borders.
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
//! Threads of a GPU have no vectors to fill: what lies side by side is what neighbouring threads read, and what
//! tensor cores sum over. There the layout inside is channels last, for any number of groups, channels of a
//! concatenation and axes of a sum; and a convolution that reads more than a picture's few channels wants them
//! last, too.
//!
//! What is prepared once (weights) stays row-major here: packing it is the business of the kernels
//! that read it.

use std::collections::{HashMap, HashSet};

use nnc_runtime::DType;

use super::{Report, is_elementwise, is_source, label, prepared};
use crate::graph::{Graph, Layout, NodeId, Op};
use crate::target::CpuTarget;

/// Channel counts from here on are blocked, or last (LeNet's 6 among them), fewer (pictures, masks, attention
/// maps) are not: half-empty vectors still beat the gathering and spilling of row-major
/// convolutions, emptier ones do not.
const LEAST_CHANNELS: usize = 4;

/// Runs the pass: blocks of as many channels as the target wants; channels last, where vectors have one lane
/// (threads of a GPU).
pub fn run(graph: &mut Graph, target: &CpuTarget) -> Report {
    let mut walk = Walk {
        inner: match target.lanes {
            1 => Layout::ChannelsLast,
            _ => Layout::Blocked(target.block() as u8),
        },
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
    /// The layout inside.
    inner: Layout,
    prepared: HashSet<NodeId>,
    /// The relayouts made so far, by operand.
    converted: HashMap<NodeId, NodeId>,
    report: Report,
}

/// What a node does about layouts.
enum Choice {
    /// Result and all operands row-major.
    Plain,
    /// Result in the layout inside; operand 0 is read as it lies.
    Producer,
    /// Result in the layout inside; the operands at these positions must be, too.
    Inner(Vec<usize>),
    /// Row-major result; the operands at these positions must be in the layout inside, the others row-major.
    Reader(Vec<usize>),
}

impl Walk {
    fn visit(&mut self, graph: &mut Graph, id: NodeId) {
        if is_source(&graph.node(id).op) || graph.node(id).op == Op::Relayout {
            return;
        }
        let inner_operands = match self.choose(graph, id) {
            Choice::Plain => {
                for (i, operand) in graph.operands(id).into_iter().enumerate() {
                    self.require(graph, id, i, operand, Layout::Plain);
                }
                return;
            }
            Choice::Reader(inner) => {
                for (i, operand) in graph.operands(id).into_iter().enumerate() {
                    let layout = if inner.contains(&i) { self.inner } else { Layout::Plain };
                    self.require(graph, id, i, operand, layout);
                }
                return;
            }
            Choice::Producer => vec![],
            Choice::Inner(operands) => operands,
        };
        graph.node_mut(id).layout = self.inner;
        self.report.changes += 1;
        let operands = graph.operands(id);
        for i in inner_operands {
            self.require(graph, id, i, operands[i], self.inner);
        }
    }

    fn choose(&self, graph: &Graph, id: NodeId) -> Choice {
        let operands = graph.operands(id);
        if let Op::Conv2dWeightGrad(g) = &graph.node(id).op
            && !self.prepared.contains(&id)
        {
            return self.weight_grad(graph, g.conv.groups, [operands[0], operands[1]]);
        }
        if let Op::Reduce { kind, axes, .. } = &graph.node(id).op
            && (self.is_channels_last() || kind.adds() && !axes.contains(&1))
            && graph.node(operands[0]).layout != Layout::Plain
        {
            return Choice::Reader(vec![0]);
        }
        let is_inner = |o: &NodeId| graph.node(*o).layout == self.inner;
        let groups = conv_groups(&graph.node(id).op);
        if self.prepared.contains(&id) || !fills_blocks(graph, id) {
            return match groups {
                // A picture, of many channels.
                Some(_) if self.is_channels_last() && is_inner(&operands[0]) => Choice::Reader(vec![0]),
                _ => Choice::Plain,
            };
        }
        if let Some(groups) = groups {
            return self.convolution(graph, id, groups);
        }
        match &graph.node(id).op {
            Op::MaxPool2d(_)
            | Op::AvgPool2d(_)
            | Op::AdaptiveMaxPool2d(_)
            | Op::AdaptiveAvgPool2d(_)
            | Op::BatchNorm(_)
            | Op::LocalResponseNorm(_)
                if is_inner(&operands[0]) =>
            {
                Choice::Inner(vec![0])
            }
            Op::MaxPool2dGrad(_) | Op::AdaptiveMaxPool2dGrad if is_inner(&operands[0]) => {
                Choice::Inner(vec![0, 1])
            }
            // Back to what a convolution gave, most likely; `dy` is the smaller one.
            Op::AvgPool2dGrad(_) | Op::AdaptiveAvgPool2dGrad(_) => Choice::Inner(vec![0]),
            Op::Concat(1) if operands.iter().any(is_inner) && self.concat_fits(graph, id) => {
                Choice::Inner((0..operands.len()).collect())
            }
            // Gradients of concatenations are slices.
            Op::Slice { .. } | Op::Pad { .. } if self.is_channels_last() && is_inner(&operands[0]) => {
                Choice::Inner(vec![0])
            }
            op if is_elementwise(op) => {
                let full: Vec<usize> = (0..operands.len())
                    .filter(|&i| graph.node(operands[i]).ty.shape == graph.node(id).ty.shape)
                    .collect();
                let fits = operands.iter().all(|&o| is_blockable(graph, o));
                if fits && full.iter().any(|&i| is_inner(&operands[i])) {
                    Choice::Inner(full)
                } else {
                    Choice::Plain
                }
            }
            _ => Choice::Plain,
        }
    }

    fn is_channels_last(&self) -> bool {
        self.inner == Layout::ChannelsLast
    }

    fn convolution(&self, graph: &Graph, id: NodeId, groups: usize) -> Choice {
        let few = !fills_blocks(graph, graph.operands(id)[0]);
        match groups {
            1 if few || !self.is_channels_last() => Choice::Producer,
            1 => Choice::Inner(vec![0]),
            _ if few && self.is_channels_last() => Choice::Producer,
            // A block of channels is a vector of filters, each with its own input channel.
            _ if is_depthwise(graph, id, groups) || self.groups_fill_blocks(graph, id, groups) => {
                Choice::Inner(vec![0])
            }
            _ => Choice::Plain,
        }
    }

    /// Weights are row-major. Their gradient's sums run over lanes of output channels, however few; few
    /// input channels (a picture's) are read as they lie.
    fn weight_grad(&self, graph: &Graph, groups: usize, [x, dy]: [NodeId; 2]) -> Choice {
        match groups {
            1 if fills_blocks(graph, x) => Choice::Reader(vec![0, 1]),
            1 => Choice::Reader(vec![1]),
            g if channels(graph, x) == Some(g) && channels(graph, dy) == Some(g) => {
                Choice::Reader(vec![0, 1])
            }
            _ if self.is_channels_last() => Choice::Reader(vec![0, 1]),
            _ => Choice::Plain,
        }
    }

    /// True if a convolution's groups begin and end with blocks.
    fn groups_fill_blocks(&self, graph: &Graph, id: NodeId, groups: usize) -> bool {
        let whole = |c: usize| self.is_channels_last() || c.is_multiple_of(groups * self.inner.block());
        [id, graph.operands(id)[0]].into_iter().all(|n| channels(graph, n).is_some_and(whole))
    }

    /// Every operand must begin and end with a block.
    fn concat_fits(&self, graph: &Graph, id: NodeId) -> bool {
        graph.operands(id).iter().all(|&o| {
            let fits = |c: usize| c.is_multiple_of(self.inner.block());
            is_f32(graph, o) && graph.node(o).ty.shape[1].size().is_some_and(fits)
        })
    }

    /// Lets the i-th operand of a node come in that layout.
    fn require(&mut self, graph: &mut Graph, id: NodeId, i: usize, operand: NodeId, layout: Layout) {
        if graph.node(operand).layout == layout {
            return;
        }
        let new = self.convert(graph, operand, layout);
        let to = match layout {
            Layout::Plain => "row-major",
            Layout::Blocked(_) => "blocked",
            Layout::ChannelsLast => "channels last",
        };
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
