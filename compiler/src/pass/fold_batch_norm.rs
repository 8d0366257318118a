//! Puts batch normalisation (with running statistics) into the weights before it.
//!
//! ```text
//! // %2..%5: gamma, beta, mean, var           %8 = rsqrt %7                 // of var + eps
//! %6 = conv2d %0, %1                          %9 = mul %2, %8               // s
//! %7 = batch_norm %6, %2, %3, %4, %5     →    %11 = mul %1, %10             // s reshaped
//!                                             %13 = sub %3, %12             // beta - mean·s
//!                                             %14 = conv2d %0, %11, %13
//! ```
//!
//! `gamma·(W x + b - mean)/√(var + eps) + beta` is `(s·W) x + (beta + (b - mean)·s)` with
//! `s = gamma/√(var + eps)`. The new weights are nodes on parameters alone, so they are computed
//! once, when weights are loaded. A normalisation without a convolution or dense layer of its own
//! before it becomes `x·s + (beta - mean·s)`, which fuses like any other elementwise work. With
//! the statistics of the batch (`training`) nothing is folded.

use std::collections::HashSet;

use super::{Report, dead_code, is_settled, label, prepared};
use crate::graph::op::{Binary, Literal, Unary};
use crate::graph::{Dim, Graph, NodeId, Op, Shape, TensorType};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Report {
    let mut report = Report::new("fold_batch_norm");
    let prepared = prepared(graph);
    let order = graph.topological();
    let mut folder = Folder { graph, prepared };
    for id in order {
        let Some(norm) = folder.normalisation(id, &mut report) else { continue };
        let name = label(folder.graph, id);
        let before = label(folder.graph, norm.x);
        let (new, text) = match folder.foldable(&norm) {
            Ok(()) => (folder.fold(&norm), format!("{name} is folded into {before}")),
            Err(why) => (folder.scale_and_shift(&norm), format!("{name} is a scale and a shift: {why}")),
        };
        report.changes += 1;
        report.remark(folder.graph, id, text);
        folder.graph.replace_uses(id, new);
        folder.graph.inherit(new, id);
    }
    dead_code::sweep(folder.graph);
    report
}

/// A batch normalisation in inference.
struct Normalisation {
    node: NodeId,
    x: NodeId,
    gamma: NodeId,
    beta: NodeId,
    mean: NodeId,
    var: NodeId,
    eps: f64,
}

struct Folder<'a> {
    graph: &'a mut Graph,
    /// The values that are computed when weights are loaded; kept up to date.
    prepared: HashSet<NodeId>,
}

impl Folder<'_> {
    /// The normalisation that a node is, unless its scale changes with every run.
    fn normalisation(&self, id: NodeId, report: &mut Report) -> Option<Normalisation> {
        let Op::BatchNorm(bn) = &self.graph.node(id).op else { return None };
        let operands = self.graph.operands(id);
        let &[x, gamma, beta, mean, var] = &operands[..] else { return None };
        if bn.training {
            let text = format!("{} uses the batch's statistics", label(self.graph, id));
            report.remark(self.graph, id, text);
            return None;
        }
        if !operands[1..].iter().all(|&o| self.is_ready(o)) {
            let text = format!("{} has statistics computed in every run", label(self.graph, id));
            report.remark(self.graph, id, text);
            return None;
        }
        Some(Normalisation { node: id, x, gamma, beta, mean, var, eps: bn.eps })
    }

    /// True for values that are known when weights are loaded.
    fn is_ready(&self, id: NodeId) -> bool {
        is_settled(self.graph, id) || self.prepared.contains(&id)
    }

    /// Whether the weights before a normalisation can take it in; if not, why.
    fn foldable(&self, norm: &Normalisation) -> Result<(), &'static str> {
        let layer = self.graph.node(norm.x);
        if !matches!(layer.op, Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::Linear) {
            return Err("no convolution or dense layer is before it");
        }
        if layer.op == Op::Linear && layer.ty.rank() != 2 {
            return Err("its channels are not the features of the dense layer before it");
        }
        if self.graph.users(norm.x).len() > 1 || self.graph.is_output(norm.x) {
            return Err("the value before it has other users");
        }
        if !self.graph.operands(norm.x)[1..].iter().all(|&o| self.is_ready(o)) {
            return Err("the weights before it are computed in every run");
        }
        Ok(())
    }

    /// The layer before with the normalisation in its weights.
    fn fold(&mut self, norm: &Normalisation) -> NodeId {
        let layer = self.graph.node(norm.x).clone();
        let operands = self.graph.operands(norm.x);
        let scale = self.scale(norm);
        let weight = self.scaled_weight(norm, &layer.op, operands[1], scale);
        let bias = match operands.get(2) {
            Some(&bias) => {
                let centred = self.binary(norm, Binary::Sub, bias, norm.mean);
                let scaled = self.binary(norm, Binary::Mul, centred, scale);
                self.binary(norm, Binary::Add, norm.beta, scaled)
            }
            None => self.shift(norm, scale),
        };
        let new = self.graph.add_typed(layer.op, &[operands[0], weight, bias], layer.ty, "", None);
        self.graph.inherit(new, norm.x);
        new
    }

    /// The weight with every output channel scaled.
    fn scaled_weight(&mut self, norm: &Normalisation, layer: &Op, weight: NodeId, scale: NodeId) -> NodeId {
        let shape = self.graph.node(weight).ty.shape.clone();
        let one = Dim::constant(1);
        let Op::ConvTranspose2d(conv) = layer else {
            // Output channels come first: [O, ..].
            let mut per_channel = vec![one; shape.len()];
            per_channel[0] = shape[0].clone();
            let scale = self.reshape(norm, scale, per_channel);
            return self.binary(norm, Binary::Mul, weight, scale);
        };
        // [C, O/groups, KH, KW]: split into groups, a group's output channels are the third axis.
        let groups = Dim::from(conv.groups);
        let mut split = vec![groups.clone(), shape[0].floor_div(&groups)];
        split.extend_from_slice(&shape[1..]);
        let per_channel = vec![groups, one.clone(), shape[1].clone(), one.clone(), one];
        let weight = self.reshape(norm, weight, split);
        let scale = self.reshape(norm, scale, per_channel);
        let product = self.binary(norm, Binary::Mul, weight, scale);
        self.reshape(norm, product, shape)
    }

    /// `x·s + (beta - mean·s)`.
    fn scale_and_shift(&mut self, norm: &Normalisation) -> NodeId {
        // [C, 1, .., 1]: aligned with the channels of [N, C, ..].
        let mut per_channel = vec![Dim::constant(1); self.graph.node(norm.x).ty.rank() - 1];
        per_channel[0] = self.graph.node(norm.gamma).ty.shape[0].clone();
        let scale = self.scale(norm);
        let shift = self.shift(norm, scale);
        let scale = self.reshape(norm, scale, per_channel.clone());
        let shift = self.reshape(norm, shift, per_channel);
        let scaled = self.binary(norm, Binary::Mul, norm.x, scale);
        self.binary(norm, Binary::Add, scaled, shift)
    }

    /// `s = gamma · rsqrt(var + eps)`.
    fn scale(&mut self, norm: &Normalisation) -> NodeId {
        let ty = TensorType::new(self.graph.node(norm.var).ty.dtype, &[]);
        let eps = self.graph.add_typed(Op::Constant(Literal::Splat(norm.eps)), &[], ty, "", None);
        let sum = self.binary(norm, Binary::Add, norm.var, eps);
        let ty = self.graph.node(sum).ty.clone();
        let inverse = self.add(norm, Op::Unary(Unary::Rsqrt), &[sum], ty);
        self.binary(norm, Binary::Mul, norm.gamma, inverse)
    }

    /// `beta - mean·s`: without a bias, the mean is subtracted from nothing.
    fn shift(&mut self, norm: &Normalisation, scale: NodeId) -> NodeId {
        let product = self.binary(norm, Binary::Mul, norm.mean, scale);
        self.binary(norm, Binary::Sub, norm.beta, product)
    }

    /// A binary operation whose result has the type of `a`.
    fn binary(&mut self, norm: &Normalisation, op: Binary, a: NodeId, b: NodeId) -> NodeId {
        let ty = self.graph.node(a).ty.clone();
        self.add(norm, Op::Binary(op), &[a, b], ty)
    }

    fn reshape(&mut self, norm: &Normalisation, x: NodeId, shape: Shape) -> NodeId {
        if self.graph.node(x).ty.shape == shape {
            return x;
        }
        let ty = TensorType { dtype: self.graph.node(x).ty.dtype, shape: shape.clone() };
        self.add(norm, Op::Reshape(shape), &[x], ty)
    }

    /// A node that stands for a part of the normalisation.
    fn add(&mut self, norm: &Normalisation, op: Op, operands: &[NodeId], ty: TensorType) -> NodeId {
        let new = self.graph.add_typed(op, operands, ty, "", None);
        self.graph.node_mut(new).spans = self.graph.node(norm.node).spans.clone();
        if operands.iter().all(|&o| self.is_ready(o)) {
            self.prepared.insert(new);
        }
        new
    }
}
