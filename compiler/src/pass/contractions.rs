//! Writes contractions of the backward graph as those that have fast kernels: convolutions and
//! linear layers.
//!
//! ```text
//! %2 = conv2d_input_grad %dy, %w {padding=1x1, …}       %3 = reverse %w {axes=[2, 3]}
//!                                                  →    %4 = transpose %3 {order=[1, 0, 2, 3]}
//!                                                       %5 = conv2d %dy, %4 {padding=1x1}
//!
//! %2 = conv2d_weight_grad %x, %dy {stride=2x2, …}       %3 = transpose %x {order=[1, 0, 2, 3]}
//!                                                  →    %4 = transpose %dy {order=[1, 0, 2, 3]}
//!                                                       %5 = conv2d %3, %4 {dilation=2x2, …}
//!                                                       %6 = transpose %5 {order=[1, 0, 2, 3]}
//!
//! %2 = matmul %a, %b                               →    %3 = transpose %b {order=[1, 0]}
//!                                                       %4 = linear %a, %3
//! ```
//!
//! The input's gradient of a strided convolution reads `dy` with zeros between its elements; with a
//! 1x1 kernel it is computed at the few elements first. The weights' gradient of a 1x1 convolution is
//! a linear layer over all pixels. What has no such form (most grouped convolutions, padding wider
//! than the kernel) stays.

use super::{Report, label};
use crate::graph::op::{Conv2d, Conv2dInputGrad, Conv2dWeightGrad, Padding};
use crate::graph::{Dim, Graph, NodeId, Op};
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
            Op::Conv2dWeightGrad(g) => rewriter.weight_grad(&g),
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

    fn weight_grad(&mut self, g: &Conv2dWeightGrad) -> Option<NodeId> {
        let (mut x, dy) = (self.graph.operands(self.id)[0], self.graph.operands(self.id)[1]);
        let ([_, _, height, width], [_, _, rows, columns]) = (self.sizes(x)?, self.sizes(dy)?);
        let Conv2d { stride, padding, dilation, groups } = g.conv.clone();
        if groups != 1 {
            return None;
        }
        if g.kernel == [1, 1] && padding == [0; 4] {
            return self.point_weight_grad(x, dy, stride);
        }
        let mut around = padding;
        for (i, (size, out)) in [(height, rows), (width, columns)].into_iter().enumerate() {
            // As many rows as the kernel has, and no more.
            let needed = dilation[i] * (g.kernel[i] - 1) + stride[i] * (out - 1) + 1;
            let before = padding[2 * i];
            around[2 * i + 1] = needed.saturating_sub(size + before);
            if size + before > needed {
                let (start, end) = (Dim::from(0), Dim::from(needed.checked_sub(before)?));
                x = self.op(Op::Slice { axis: 2 + i, start, end, step: 1 }, &[x])?;
            }
        }
        let (x, dy) = (self.transpose(x, &EXCHANGE)?, self.transpose(dy, &EXCHANGE)?);
        let conv = Conv2d { stride: dilation, padding: around, dilation: stride, groups };
        let dw = self.op(Op::Conv2d(conv), &[x, dy])?;
        self.transpose(dw, &EXCHANGE)
    }

    /// `dw[o, c] = Σ dy[n, o, h, w] · x[n, c, h, w]`
    fn point_weight_grad(&mut self, mut x: NodeId, dy: NodeId, stride: [usize; 2]) -> Option<NodeId> {
        for (i, &step) in stride.iter().enumerate().filter(|(_, s)| **s > 1) {
            let end = Dim::from(self.sizes(x)?[2 + i]);
            x = self.op(Op::Slice { axis: 2 + i, start: Dim::from(0), end, step }, &[x])?;
        }
        let mut flat = vec![];
        for v in [dy, x] {
            let [batch, channels, height, width] = self.sizes(v)?;
            let v = self.transpose(v, &EXCHANGE)?;
            let shape = vec![Dim::from(channels), Dim::from(batch * height * width)];
            flat.push(self.op(Op::Reshape(shape), &[v])?);
        }
        let dw = self.op(Op::Linear, &flat)?;
        let shape = self.graph.node(self.id).ty.shape.clone();
        self.op(Op::Reshape(shape), &[dw])
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
