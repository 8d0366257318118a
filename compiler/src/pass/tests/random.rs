//! Random graphs, as proptest strategies: sensible layers in senseless order.

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use nnc_runtime::program::Initializer;
use nnc_runtime::{DType, Tensor};
use proptest::prelude::*;

use crate::graph::op::{
    AvgPool2d, BatchNorm, Binary, Conv2d, ConvTranspose2d, Literal, LocalResponseNorm, MaxPool2d, Padding,
    Parameter, ReduceKind, Unary, Window,
};
use crate::graph::{Dim, Graph, NodeId, Op, Output, TensorType};

/// Values with more elements are not made: the interpreter is slow.
const MOST_ELEMENTS: usize = 4096;

/// A graph that shows itself as text when a test fails.
#[derive(Clone)]
pub struct Case(pub Graph);

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One layer to come: its kind, a variant, and which earlier values it takes.
type Step = (u8, u32, prop::sample::Index, prop::sample::Index);

/// Graphs of up to `most` layers.
pub fn graphs(most: usize) -> impl Strategy<Value = Case> {
    let step = (any::<u8>(), any::<u32>(), any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let channels = prop::sample::select(vec![1usize, 3, 4, 6, 8, 16]);
    let extra = any::<prop::sample::Index>();
    (channels, prop::collection::vec(step, 1..most), extra).prop_map(|(channels, steps, extra)| {
        let mut maker = Maker::new(channels);
        for step in steps {
            maker.step(step);
        }
        Case(maker.finish(extra))
    })
}

/// Values for all inputs and parameters: small, of both signs, variances positive.
pub fn feeds(graph: &Graph) -> BTreeMap<String, Tensor> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32 / (1u64 << 24) as f32) * 2.0 - 1.0
    };
    graph
        .inputs()
        .into_iter()
        .chain(graph.parameters())
        .map(|id| {
            let node = graph.node(id);
            let shape = node.ty.sizes().expect("sizes are known");
            let positive = node.name.ends_with("var");
            let values = (0..shape.iter().product())
                .map(|_| if positive { next().abs() + 0.5 } else { next() })
                .collect();
            let array = ArrayD::from_shape_vec(IxDyn(&shape), values).expect("the count fits");
            (node.name.clone(), Tensor::F32(array))
        })
        .collect()
}

/// One choice of `n` out of a variant number.
fn digit(v: usize, place: usize, n: usize) -> usize {
    v / place % n
}

struct Maker {
    graph: Graph,
    /// What layers may take.
    values: Vec<NodeId>,
    parameters: usize,
}

impl Maker {
    fn new(channels: usize) -> Maker {
        let mut graph = Graph::new("random");
        let ty = TensorType::new(DType::F32, &[2, channels, 6, 6]);
        let x = graph.add_typed(Op::Input, &[], ty, "x", None);
        Maker { graph, values: vec![x], parameters: 0 }
    }

    fn finish(mut self, extra: prop::sample::Index) -> Graph {
        let last = *self.values.last().expect("there is an input");
        self.graph.outputs.push(Output { name: "last".into(), node: last });
        let other = *extra.get(&self.values);
        self.graph.outputs.push(Output { name: "other".into(), node: other });
        self.graph
    }

    fn sizes(&self, id: NodeId) -> Vec<usize> {
        self.graph.node(id).ty.sizes().expect("sizes are known")
    }

    fn parameter(&mut self, kind: &str, shape: &[usize]) -> NodeId {
        self.parameters += 1;
        let name = format!("p{}.{kind}", self.parameters);
        let op = Op::Parameter(Parameter { init: Initializer::Constant(0.0), trainable: true });
        self.graph.add_typed(op, &[], TensorType::new(DType::F32, shape), &name, None)
    }

    fn scalar(&mut self, value: f64) -> NodeId {
        let op = Op::Constant(Literal::Splat(value));
        self.graph.add_typed(op, &[], TensorType::new(DType::F32, &[]), "", None)
    }

    /// Adds the node where shapes and types allow it.
    fn add(&mut self, op: Op, operands: &[NodeId]) -> Option<NodeId> {
        let types: Vec<&TensorType> = operands.iter().map(|&o| &self.graph.node(o).ty).collect();
        let ty = op.infer(&types).ok()?;
        if ty.sizes()?.iter().product::<usize>() > MOST_ELEMENTS {
            return None;
        }
        let name = format!("v{}", self.values.len());
        let id = self.graph.add_typed(op, operands, ty, &name, None);
        if self.graph.node(id).ty.dtype == DType::F32 {
            self.values.push(id);
        }
        Some(id)
    }

    fn step(&mut self, (kind, variant, a, b): Step) {
        // Mostly go on from the last values, so that chains become long.
        let near = self.values.len().saturating_sub(3);
        let a = *a.get(&self.values[near..]);
        let b = *b.get(&self.values);
        let v = variant as usize;
        match kind % 20 {
            0 | 1 => self.unary(v, a),
            2 | 3 => self.binary(v, a, b),
            4 => self.binary_constant(v, a),
            5 | 6 => self.convolution(v, a),
            7 | 8 => self.batch_norm(a),
            9 => self.pool(v, a),
            10 => self.transposed_convolution(v, a),
            11 => self.linear(v, a),
            12 => self.movement(v, a),
            13 => self.concat(v, a, b),
            14 => self.normalise(v, a),
            15 => self.select(a, b),
            16 => self.weights_only(v, a),
            17 => self.sum_of_like(a),
            18 => self.reshape(v, a),
            _ => self.repeat_last(),
        }
    }

    fn unary(&mut self, v: usize, a: NodeId) {
        use Unary::*;
        let all = [
            Neg,
            Abs,
            Tanh,
            Sigmoid,
            Relu,
            Relu,
            LeakyRelu(0.1),
            LeakyRelu(1.0),
            Elu(1.0),
            Gelu,
            Silu,
            HardSwish,
            HardSigmoid,
            Clamp(0.0, 6.0),
            Clamp(-0.5, 0.5),
            Clamp(0.25, f64::INFINITY),
        ];
        self.add(Op::Unary(all[v % all.len()]), &[a]);
    }

    fn binary(&mut self, v: usize, a: NodeId, b: NodeId) {
        use Binary::*;
        let all = [Add, Add, Sub, Mul, Max, Min];
        self.add(Op::Binary(all[v % all.len()]), &[a, b]);
    }

    /// With a number or a value for each channel, on either side.
    fn binary_constant(&mut self, v: usize, a: NodeId) {
        use Binary::*;
        let (op, number) = [
            (Add, 0.0),
            (Sub, 0.0),
            (Mul, 1.0),
            (Div, 1.0),
            (Mul, 2.0),
            (Mul, 3.0),
            (Mul, 0.5),
            (Div, 4.0),
            (Div, 3.0),
            (Mul, -1.0),
            (Max, 0.0),
            (Pow, 2.0),
            (Pow, 1.0),
            (Mul, 0.0),
        ][v % 14];
        let mut c = self.scalar(number);
        if digit(v, 14, 3) == 0 && op != Pow && self.sizes(a).len() == 4 {
            c = self.parameter("gain", &[self.sizes(a)[1], 1, 1]);
        }
        let swap = digit(v, 64, 2) == 0 && !matches!(op, Div | Pow);
        self.add(Op::Binary(op), &if swap { [c, a] } else { [a, c] });
    }

    fn convolution(&mut self, v: usize, a: NodeId) {
        let &[_, c, _, _] = &self.sizes(a)[..] else { return };
        let kernel = [1, 3][v % 2];
        let depthwise = digit(v, 2, 3) == 0;
        let out = if depthwise { c } else { [4, 5, 8, 16, 2][v / 8 % 5] };
        let groups = if depthwise { c } else { 1 };
        let weight = self.parameter("weight", &[out, c / groups, kernel, kernel]);
        let mut operands = vec![a, weight];
        if digit(v, 64, 2) == 0 {
            operands.push(self.parameter("bias", &[out]));
        }
        let (stride, pad) = (1 + v / 128 % 2, (kernel / 2) * (v / 256 % 2));
        let conv = Conv2d { stride: [stride; 2], padding: [pad; 4], dilation: [1, 1], groups };
        self.add(Op::Conv2d(conv), &operands);
    }

    fn transposed_convolution(&mut self, v: usize, a: NodeId) {
        let &[_, c, _, _] = &self.sizes(a)[..] else { return };
        let groups = if c.is_multiple_of(2) { 1 + v % 2 } else { 1 };
        let weight = self.parameter("weight", &[c, 3, 2, 2]);
        let mut operands = vec![a, weight];
        if digit(v, 2, 2) == 0 {
            operands.push(self.parameter("bias", &[3 * groups]));
        }
        let conv = ConvTranspose2d {
            stride: [1, 1],
            padding: [0; 4],
            output_padding: [0, 0],
            dilation: [1, 1],
            groups,
        };
        self.add(Op::ConvTranspose2d(conv), &operands);
    }

    fn batch_norm(&mut self, a: NodeId) {
        let Some(&c) = self.sizes(a).get(1) else { return };
        let mut operands = vec![a];
        for kind in ["gamma", "beta", "mean", "var"] {
            operands.push(self.parameter(kind, &[c]));
        }
        self.add(Op::BatchNorm(BatchNorm { eps: 1e-5, momentum: 0.1, training: false }), &operands);
    }

    fn pool(&mut self, v: usize, a: NodeId) {
        let (kernel, stride) = [(2, 2), (3, 2), (3, 1), (1, 1), (2, 1)][v % 5];
        let pad = usize::from(kernel > 1) * (v / 5 % 2);
        let window = Window {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [pad; 4],
            dilation: [1, 1],
            ceil: digit(v, 16, 2) == 0,
        };
        let op = match v / 32 % 4 {
            0 => Op::AvgPool2d(AvgPool2d { window, count_include_pad: true }),
            1 => Op::AdaptiveAvgPool2d([1, 1]),
            _ => Op::MaxPool2d(MaxPool2d { window }),
        };
        self.add(op, &[a]);
    }

    fn linear(&mut self, v: usize, a: NodeId) {
        let Some(&features) = self.sizes(a).last() else { return };
        let weight = self.parameter("weight", &[5, features]);
        let mut operands = vec![a, weight];
        if digit(v, 1, 2) == 0 {
            operands.push(self.parameter("bias", &[5]));
        }
        self.add(Op::Linear, &operands);
    }

    fn movement(&mut self, v: usize, a: NodeId) {
        let shape = self.sizes(a);
        let rank = shape.len();
        if rank == 0 {
            return;
        }
        let axis = v / 8 % rank;
        let op = match v % 8 {
            0 | 1 => {
                let mut axes: Vec<usize> = (0..rank).collect();
                axes.swap(axis, rank - 1);
                Op::Transpose(axes)
            }
            2 | 3 => {
                let start = usize::from(shape[axis] > 1) * (v / 64 % 2);
                Op::Slice { axis, start: start.into(), end: shape[axis].into(), step: 1 + v / 128 % 2 }
            }
            4 | 5 => {
                let mut pads = vec![Padding::default(); rank];
                pads[axis] = Padding { before: v / 64 % 2, after: v / 128 % 2, interior: v / 512 % 2 };
                Op::Pad { pads, value: [0.0, 1.0][v / 256 % 2] }
            }
            6 => Op::Broadcast(std::iter::once(2).chain(shape).map(Dim::from).collect()),
            _ => [Op::Dropout(0.5), Op::StopGradient][v / 8 % 2].clone(),
        };
        self.add(op, &[a]);
    }

    fn concat(&mut self, v: usize, a: NodeId, b: NodeId) {
        let axis = [1, 1, 0][v % 3];
        match v / 4 % 3 {
            0 => self.add(Op::Concat(axis), &[a]),
            1 => self.add(Op::Concat(axis), &[a, b, a]),
            _ => self.add(Op::Concat(axis), &[a, b]),
        };
    }

    fn normalise(&mut self, v: usize, a: NodeId) {
        let rank = self.sizes(a).len();
        if rank == 0 {
            return;
        }
        let axis = v / 8 % rank;
        let op = match v % 5 {
            4 => Op::Reduce { kind: ReduceKind::Mean, axes: vec![2, 3], keep: digit(v, 4, 2) == 0 },
            0 => Op::Softmax(axis),
            1 => Op::LocalResponseNorm(LocalResponseNorm { size: 5, alpha: 1e-4, beta: 0.75, k: 2.0 }),
            2 => Op::Reduce { kind: ReduceKind::Mean, axes: vec![axis], keep: digit(v, 4, 2) == 0 },
            _ => Op::Reduce { kind: ReduceKind::Max, axes: vec![axis], keep: true },
        };
        self.add(op, &[a]);
    }

    /// The larger one of two values, the long way: continuous, so that rounding does not matter.
    fn select(&mut self, a: NodeId, b: NodeId) {
        if let Some(condition) = self.add(Op::Binary(Binary::Gt), &[a, b]) {
            self.add(Op::Where, &[condition, a, b]);
        }
    }

    /// A value that is prepared once, then used beside `a`.
    fn weights_only(&mut self, v: usize, a: NodeId) {
        let shape = self.sizes(a);
        let p = self.parameter("mask", &shape);
        let op = Op::Unary([Unary::Sigmoid, Unary::Tanh][v % 2]);
        if let Some(mask) = self.add(op, &[p]) {
            self.add(Op::Binary(Binary::Mul), &[a, mask]);
        }
    }

    /// The residual sum of a value and one of its shape that came long before.
    fn sum_of_like(&mut self, a: NodeId) {
        let like = |&&b: &&NodeId| b != a && self.graph.node(b).ty == self.graph.node(a).ty;
        if let Some(&b) = self.values.iter().find(like) {
            self.add(Op::Binary(Binary::Add), &[a, b]);
        }
    }

    fn reshape(&mut self, v: usize, a: NodeId) {
        let shape = self.sizes(a);
        let count: usize = shape.iter().product();
        let new = match v % 3 {
            0 if !shape.is_empty() => vec![shape[0], count / shape[0].max(1)],
            1 => shape,
            _ => vec![1, count, 1, 1],
        };
        self.add(Op::Reshape(new.into_iter().map(Dim::from).collect()), &[a]);
    }

    /// The last node again, with the same operands: a common subexpression.
    fn repeat_last(&mut self) {
        let last = *self.values.last().expect("there is an input");
        let op = self.graph.node(last).op.clone();
        if op != Op::Input {
            let operands = self.graph.operands(last);
            if let Some(again) = self.add(op, &operands) {
                self.add(Op::Binary(Binary::Add), &[last, again]);
            }
        }
    }
}
