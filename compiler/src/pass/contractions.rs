//! Writes contractions of the backward graph as those that have fast kernels: convolutions and
//! linear layers.
//!
//! ```text
//! %2 = conv2d_input_grad %dy, %w {padding=1x1, …}       %3 = reverse %w {axes=[2, 3]}
//!                                                  →    %4 = transpose %3 {order=[1, 0, 2, 3]}
//!                                                       %5 = conv2d %dy, %4 {padding=1x1}
//!
//! %2 = matmul %a, %b                               →    %3 = transpose %b {order=[1, 0]}
//!                                                       %4 = linear %a, %3
//! ```
//!
//! The input's gradient of a strided convolution reads `dy` with zeros between its elements; with a
//! 1x1 kernel it is computed at the few elements first. What has no such form (most grouped
//! convolutions, padding wider than the kernel) stays, and so do the gradients of weights, which have
//! kernels of their own.

use super::{Report, label};
use crate::graph::op::{Conv2d, Conv2dInputGrad, Padding};
use crate::graph::{Graph, NodeId, Op};
use nnc_runtime::DType;

/// Exchanges batch and channels.
const EXCHANGE: [usize; 4] = [1, 0, 2, 3];

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Report {
    let mut report = Report::new("contractions");
    for id in graph.topological() {
        if graph.node(id).ty.dtype != DType::F32 {
            continue;
        }
        let mut rewriter = Rewriter { graph, id };
        let new = match rewriter.graph.node(id).op.clone() {
            Op::Conv2dInputGrad(g) => rewriter.input_grad(&g),
            Op::MatMul => rewriter.matrix_product(),
            _ => continue,
        };
        match new {
            Some(new) => {
                graph.inherit(new, id);
                graph.replace_uses(id, new);
                graph.remove(id);
                report.changes += 1;
            }
            None if graph.node(id).op != Op::MatMul => {
                let text = format!("{} has no fast form", label(graph, id));
                report.remark(graph, id, text);
            }
            None => {}
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

    /// The transposed value; that of a transposition is its operand.
    fn transpose(&mut self, x: NodeId, order: &[usize]) -> Option<NodeId> {
        match &self.graph.node(x).op {
            Op::Transpose(before) if order.iter().enumerate().all(|(i, &axis)| before[axis] == i) => {
                Some(self.graph.operands(x)[0])
            }
            _ => self.op(Op::Transpose(order.to_vec()), &[x]),
        }
    }

    fn sizes(&self, id: NodeId) -> Option<[usize; 4]> {
        self.graph.node(id).ty.sizes()?.try_into().ok()
    }

    fn input_grad(&mut self, g: &Conv2dInputGrad) -> Option<NodeId> {
        let (dy, weight) = (self.graph.operands(self.id)[0], self.graph.operands(self.id)[1]);
        let ([_, _, height, width], [_, out_channels, rows, columns]) =
            (self.sizes(self.id)?, self.sizes(dy)?);
        let [_, group_in, kh, kw] = self.sizes(weight)?;
        let Conv2d { stride, padding, dilation, groups } = g.conv.clone();
        let depthwise = groups == out_channels && group_in == 1;
        if groups != 1 && !depthwise {
            return None;
        }
        let point = [kh, kw] == [1, 1] && padding == [0; 4];
        let mut around = [0; 4];
        let mut spread = vec![Padding::default(); 4];
        for (i, (size, out, kernel)) in [(height, rows, kh), (width, columns, kw)].into_iter().enumerate() {
            let reach = dilation[i] * (kernel - 1);
            let spread_size = stride[i] * (out - 1) + 1;
            spread[2 + i].interior = stride[i] - 1;
            if point {
                spread[2 + i].after = size - spread_size;
            } else {
                around[2 * i] = reach.checked_sub(padding[2 * i])?;
                around[2 * i + 1] = (size + reach).checked_sub(spread_size + around[2 * i])?;
            }
        }
        let weight = self.op(Op::Reverse(vec![2, 3]), &[weight])?;
        let weight = if depthwise { weight } else { self.transpose(weight, &EXCHANGE)? };
        let conv = Op::Conv2d(Conv2d { stride: [1; 2], padding: around, dilation, groups });
        let pad = Op::Pad { pads: spread, value: 0.0 };
        match (stride == [1, 1], point) {
            (true, _) => self.op(conv, &[dy, weight]),
            (false, true) => {
                let dx = self.op(conv, &[dy, weight])?;
                self.op(pad, &[dx])
            }
            (false, false) => {
                let dy = self.op(pad, &[dy])?;
                self.op(conv, &[dy, weight])
            }
        }
    }

    fn matrix_product(&mut self) -> Option<NodeId> {
        let (a, b) = (self.graph.operands(self.id)[0], self.graph.operands(self.id)[1]);
        if self.graph.node(b).ty.rank() != 2 {
            return None;
        }
        let b = self.transpose(b, &[1, 0])?;
        self.op(Op::Linear, &[a, b])
    }
}
