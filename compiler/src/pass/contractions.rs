//! Writes contractions of the backward graph as those that have fast kernels: convolutions, linear
//! layers and products of matrices.
//!
//! ```text
//! %2 = conv2d_input_grad %dy, %w {padding=1x1, …}       %3 = reverse %w {axes=[2, 3]}
//!                                                  →    %4 = transpose %3 {order=[1, 0, 2, 3]}
//!                                                       %5 = conv2d %dy, %4 {padding=1x1}
//!
//! %1 = transpose %w {order=[1, 0]}                 →    %3 = matmul %dy, %w
//! %2 = linear %dy, %1
//!
//! %1 = transpose %b {order=[1, 0]}                 →    %3 = linear %a, %b
//! %2 = matmul %a, %1
//! ```
//!
//! The input's gradient of a strided convolution reads `dy` with zeros between its elements; with a
//! 1x1 kernel it is computed at the few elements first. What has no such form (most grouped
//! convolutions, padding wider than the kernel) stays, and so do the gradients of weights, which have
//! kernels of their own.

use super::{Report, label, prepared};
use crate::graph::op::{Conv2d, Conv2dInputGrad, Padding};
use crate::graph::{Graph, NodeId, Op};
use nnc_runtime::DType;

/// Exchanges batch and channels.
const EXCHANGE: [usize; 4] = [1, 0, 2, 3];

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Report {
    let mut report = Report::new("contractions");
    let prepared = prepared(graph);
    for id in graph.topological() {
        if graph.node(id).ty.dtype != DType::F32 {
            continue;
        }
        let mut rewriter = Rewriter { graph, id };
        let new = match rewriter.graph.node(id).op.clone() {
            Op::Conv2dInputGrad(g) => rewriter.input_grad(&g),
            // What is prepared once may be copied.
            Op::Linear | Op::MatMul if !prepared.contains(&rewriter.operand(1)) => rewriter.matrix_product(),
            _ => continue,
        };
        match new {
            Some(new) => {
                graph.inherit(new, id);
                graph.replace_uses(id, new);
                graph.remove(id);
                report.changes += 1;
            }
            None if matches!(graph.node(id).op, Op::Conv2dInputGrad(_)) => {
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

    fn operand(&self, i: usize) -> NodeId {
        self.graph.operands(self.id)[i]
    }

    fn sizes(&self, id: NodeId) -> Option<[usize; 4]> {
        self.graph.node(id).ty.sizes()?.try_into().ok()
    }

    fn input_grad(&mut self, g: &Conv2dInputGrad) -> Option<NodeId> {
        let (dy, weight) = (self.operand(0), self.operand(1));
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
