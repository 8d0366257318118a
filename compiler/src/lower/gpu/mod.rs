//! Kernels for GPUs: a task is a thread, or a block of them where [`schedule`] says so.
//!
//! Inside, channels lie last ([`Layout::ChannelsLast`](crate::graph::Layout)), at the borders values are row-major;
//! neighbouring threads compute neighbouring elements, and what a thread needs
//! is in registers. A group becomes one kernel for each node that is no elementwise work or movement
//! (a convolution and the pooling after it are two: a thread that pools would compute a whole window of
//! sums), with the elementwise work around it inside.
//!
//! Right for every operation is a thread for an element, or for a small tile of a convolution in registers; large
//! sums are cut into parts. Contractions that are large enough are computed by blocks, which share tiles
//! of the factors ([`product`]).

mod ahead;
mod conv;
mod depthwise;
mod dot;
mod elements;
mod pool_grad;
mod product;
mod random;
mod reduction;
mod rounded;
mod rows;
mod schedule;
mod softmax;
#[cfg(test)]
mod tests;
mod tile;
mod turned;
mod wide;

use super::access::Place;
use super::builder::{Operand, Scope};
use super::elementwise::{is_elementwise, is_movement, sizes};
use super::{LowerError, Lowering, label};
use crate::graph::{Graph, NodeId, Op};
use crate::kernel::Kernel;
use crate::kernel::module::Arg;

pub(super) use elements::{copy, each_element};
pub use schedule::{Blocks, GpuOptions, Products};

/// A kernel and its arguments.
type Made = (Kernel, Vec<Arg>);

/// The most nodes that become one kernel.
const PART_LIMIT: usize = 128;

impl<'a> Lowering<'a> {
    /// Lowers a group for a GPU.
    pub(super) fn gpu_group(&mut self, nodes: &[NodeId]) -> Result<(), LowerError> {
        if let Some(kernels) = self.gpu_pooled_conv(nodes)? {
            self.gpu_launches(nodes, kernels);
            return Ok(());
        }
        parts(self.graph, nodes).iter().try_for_each(|part| self.gpu_part(part))
    }

    /// Launches of the kernels that nodes became.
    fn gpu_launches(&mut self, nodes: &[NodeId], mut kernels: Vec<Made>) {
        kernels[0].0.flops = nodes.iter().map(|&n| self.flops(n)).sum();
        let phase = self.phase(nodes[nodes.len() - 1]);
        for (kernel, args) in kernels {
            self.launch(kernel, args, nodes, phase);
        }
    }

    /// Lowers the nodes of a kernel; where they do not fit one, a kernel each.
    fn gpu_part(&mut self, nodes: &[NodeId]) -> Result<(), LowerError> {
        let result = nodes[nodes.len() - 1];
        if let ([_], Op::Concat(axis)) = (nodes, &self.graph.node(result).op) {
            return self.concat(result, *axis);
        }
        if self.place(result)?.elements() == 0 {
            return Ok(());
        }
        let made = if nodes.len() <= PART_LIMIT { self.gpu_kernels(nodes)? } else { None };
        if let Some(kernels) = made {
            self.gpu_launches(nodes, kernels);
            return Ok(());
        }
        if nodes.len() == 1 {
            let what = format!("{} of these shapes", self.graph.node(result).op.name());
            return Err(LowerError::Unsupported { name: label(self.graph, result), what });
        }
        nodes.iter().try_for_each(|n| self.gpu_part(std::slice::from_ref(n)))
    }

    /// The nodes as kernels, the results of the last one in memory; `None` if they do not fit together.
    fn gpu_kernels(&mut self, nodes: &[NodeId]) -> Result<Option<Vec<Made>>, LowerError> {
        let graph = self.graph;
        let mut results = vec![];
        for id in graph.results_of(nodes) {
            results.push((id, self.place(id)?));
        }
        let out = &results[0].1;
        if results.iter().any(|(_, p)| p.shape != out.shape || p.layout != out.layout) {
            return Ok(None);
        }
        let scope = self.scope(nodes)?;
        let name = self.kernel_name(nodes);
        let anchors = anchors(graph, nodes);
        if let &[anchor] = anchors.as_slice() {
            match &graph.node(anchor).op {
                Op::Softmax(axis) => return Ok(self.gpu_softmax(&scope, &name, anchor, *axis, &results)),
                Op::LogSoftmax(axis) => return Ok(self.gpu_softmax(&scope, &name, anchor, *axis, &results)),
                Op::Philox(draw) if nodes.len() == 1 => {
                    return Ok(random::kernel(&scope, &name, anchor, draw, out).map(|k| vec![k]));
                }
                Op::Concat(_) | Op::Philox(_) => return Ok(None),
                Op::Gather(_) if !scope.operands.contains_key(&graph.operands(anchor)[0]) => return Ok(None),
                _ => {}
            }
        }
        if let &[anchor] = anchors.as_slice() {
            let made = match &graph.node(anchor).op {
                Op::Linear | Op::MatMul => match self.gpu_dots(&scope, &name, anchor, &results) {
                    Some(kernel) => Some(vec![kernel]),
                    None => self.gpu_matrix(&scope, &name, anchor, &results)?,
                },
                Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::Conv2dInputGrad(_) | Op::Conv2dWeightGrad(_) => {
                    self.gpu_conv(&scope, &name, anchor, &results)?
                }
                Op::MaxPool2dGrad(_) => self.gpu_max_pool_grad(&scope, &name, anchor, &results),
                _ => None,
            };
            if made.is_some() {
                return Ok(made);
            }
        }
        if let &[anchor] = anchors.as_slice() {
            if let Some(kernels) = self.gpu_depthwise(&scope, &name, anchor, &results)? {
                return Ok(Some(kernels));
            }
            if let Op::Conv2d(conv) = &graph.node(anchor).op
                && let Some(kernel) = self.gpu_tiled_conv(&scope, &name, (anchor, conv), &results)?
            {
                return Ok(Some(vec![kernel]));
            }
        }
        if let Some(kernels) = self.gpu_reduction(&scope, &name, nodes, &results) {
            return Ok(Some(kernels));
        }
        if let &[node] = nodes
            && graph.node(node).op == Op::Relayout
            && let Some(Operand::Memory(from)) = scope.operands.get(&graph.operands(node)[0])
            && let Some(kernel) = turned::relayout(&scope, &name, from, out)
        {
            return Ok(Some(vec![kernel]));
        }
        let is_flat = is_flat(&scope, nodes, out);
        Ok(elements::kernel(&scope, &name, &results, is_flat, self.gpu_options).map(|k| vec![k]))
    }
}

/// True for what is neither elementwise nor movement.
fn is_anchor(graph: &Graph, id: NodeId) -> bool {
    let op = &graph.node(id).op;
    !is_elementwise(op) && !is_movement(op)
}

fn anchors(graph: &Graph, nodes: &[NodeId]) -> Vec<NodeId> {
    nodes.iter().copied().filter(|&n| is_anchor(graph, n)).collect()
}

/// Cuts a group before its last anchor, if it has several and they are not sums beside each other, and so on.
fn parts(graph: &Graph, nodes: &[NodeId]) -> Vec<Vec<NodeId>> {
    let anchors = anchors(graph, nodes);
    let reduces = |n: &NodeId| matches!(graph.node(*n).op, Op::Reduce { .. });
    let Some(&last) = anchors.last() else { return vec![nodes.to_vec()] };
    if anchors.len() == 1 || anchors.iter().all(reduces) {
        return vec![nodes.to_vec()];
    }
    // Nodes are in topological order.
    let mut needed = graph.operands(last);
    for &n in nodes.iter().rev() {
        if needed.contains(&n) {
            needed.extend(graph.operands(n));
        }
    }
    let (before, after): (Vec<NodeId>, Vec<NodeId>) = nodes.iter().partition(|n| needed.contains(n));
    if before.is_empty() {
        return nodes.iter().map(|&n| vec![n]).collect();
    }
    let mut out = parts(graph, &before);
    out.push(after);
    out
}

/// True if all that is read lies as the results do, or is one element: then one index does for all.
fn is_flat(scope: &Scope, nodes: &[NodeId], out: &Place) -> bool {
    let pointwise = |n: &NodeId| {
        let node = scope.graph.node(*n);
        let op = is_elementwise(&node.op) && !matches!(node.op, Op::BatchNorm(_));
        op && (sizes(node) == out.shape || sizes(node).iter().all(|&d| d == 1))
    };
    let even = |operand: &Operand| match operand {
        Operand::Splat(..) => true,
        Operand::Memory(p) => {
            let alike = p.shape == out.shape && p.layout == out.layout;
            (alike || p.elements() == 1) && p.is_dense()
        }
    };
    nodes.iter().all(pointwise) && scope.operands.values().all(even)
}
