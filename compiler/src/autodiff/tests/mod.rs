//! Gradients against central finite differences, in f64 through the reference interpreter.

mod layers;
mod nets;
mod rules;

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use nnc_runtime::program::Initializer;
use nnc_runtime::{DType, Tensor};

use super::gradients;
use crate::graph::interpret::{Precision, trace};
use crate::graph::op::{Parameter, ReduceKind};
use crate::graph::{Graph, NodeId, Op, Output, TensorType};

type Feeds = BTreeMap<String, Tensor>;

/// Half the distance of the two points of a difference: errors are its square, and rounding over it.
const STEP: f64 = 1e-5;

/// Elements of a parameter whose differences are taken.
const SAMPLES: usize = 10;

/// A sequence of distinct numbers in an interval, none of them near a kink: `(i·factor + 7) mod PRIME`,
/// on a grid that is shifted by a quarter.
#[derive(Clone, Copy, Debug)]
struct Values {
    factor: usize,
    low: f64,
    high: f64,
}

const PRIME: usize = 1009;

impl Values {
    fn between(factor: usize, low: f64, high: f64) -> Values {
        Values { factor: factor % (PRIME - 1) + 1, low, high }
    }

    fn at(self, i: usize) -> f64 {
        let m = (i * self.factor + 7) % PRIME;
        self.low + (m as f64 + 0.25) * (self.high - self.low) / PRIME as f64
    }

    fn tensor(self, shape: &[usize]) -> Tensor {
        let data = (0..shape.iter().product()).map(|i| self.at(i)).collect();
        Tensor::F64(ArrayD::from_shape_vec(IxDyn(shape), data).unwrap())
    }
}

fn ints(shape: &[usize], data: Vec<i32>) -> Tensor {
    Tensor::I32(ArrayD::from_shape_vec(IxDyn(shape), data).unwrap())
}

/// A graph in the making and the values for it.
struct Net {
    graph: Graph,
    feeds: Feeds,
}

impl Net {
    fn new() -> Net {
        Net { graph: Graph::new("net"), feeds: Feeds::new() }
    }

    fn parameter(&mut self, shape: &[usize], values: Values) -> NodeId {
        let name = format!("p{}", self.graph.parameters().len());
        self.feeds.insert(name.clone(), values.tensor(shape));
        let op = Op::Parameter(Parameter { init: Initializer::Constant(0.0), trainable: true });
        self.graph.add_typed(op, &[], TensorType::new(DType::F32, shape), &name, None)
    }

    fn input(&mut self, value: Tensor) -> NodeId {
        let name = format!("x{}", self.graph.inputs().len());
        let dtype = if value.dtype() == DType::F64 { DType::F32 } else { value.dtype() };
        let ty = TensorType::new(dtype, value.shape());
        self.feeds.insert(name.clone(), value);
        self.graph.add_typed(Op::Input, &[], ty, &name, None)
    }

    /// An operation by its text form, `softmax axis=1`.
    fn op(&mut self, text: &str, operands: &[NodeId]) -> NodeId {
        self.try_op(text, operands).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn try_op(&mut self, text: &str, operands: &[NodeId]) -> Result<NodeId, String> {
        let (name, attributes) = text.split_once(' ').unwrap_or((text, ""));
        let op = Op::parse(name, attributes)?;
        self.graph.add(op, operands, "", None).map_err(|e| e.to_string())
    }

    /// A number that all elements of a value matter to, each in another way.
    fn loss_of(&mut self, y: NodeId) -> NodeId {
        let shape = self.graph.node(y).ty.sizes().unwrap();
        let weights = self.input(Values::between(123, -1.0, 1.5).tensor(&shape));
        let product = self.op("mul", &[y, weights]);
        let axes = (0..shape.len()).collect();
        let sum = Op::Reduce { kind: ReduceKind::Sum, axes, keep: false };
        self.graph.add(sum, &[product], "", None).unwrap()
    }
}

fn numbers(t: &Tensor) -> Vec<f64> {
    match t {
        Tensor::F64(a) => a.iter().copied().collect(),
        Tensor::F32(a) => a.iter().map(|&x| f64::from(x)).collect(),
        other => panic!("{} is no float", other.dtype()),
    }
}

fn run(graph: &Graph, feeds: &Feeds) -> BTreeMap<String, Tensor> {
    trace(graph, feeds, Precision::Double, &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}\n{graph}"))
}

/// Checks the gradients of `loss` with respect to all parameters of a graph.
fn check(graph: &Graph, loss: NodeId, feeds: &Feeds) {
    let mut graph = graph.clone();
    graph.outputs = vec![Output { name: "loss".to_string(), node: loss }];
    let forward = graph.clone();
    let trainable = |n: &NodeId| matches!(&graph.node(*n).op, Op::Parameter(p) if p.trainable);
    let parameters: Vec<NodeId> = graph.parameters().into_iter().filter(trainable).collect();
    let found = gradients(&mut graph, loss, &parameters).unwrap_or_else(|e| panic!("{e}\n{forward}"));
    for (&p, gradient) in parameters.iter().zip(found) {
        let name = graph.node(p).name.clone();
        let node = gradient.unwrap_or_else(|| panic!("`{name}` has no gradient\n{forward}"));
        graph.outputs.push(Output { name, node });
    }
    crate::graph::verify::assert_valid(&graph, "autodiff");
    let results = run(&graph, feeds);
    for &p in &parameters {
        let name = &graph.node(p).name;
        let gradient = numbers(&results[name]);
        let largest = gradient.iter().fold(0f64, |m, g| m.max(g.abs()));
        let every = gradient.len().div_ceil(SAMPLES);
        for i in (0..gradient.len()).step_by(every) {
            let loss_at = |offset: f64| {
                let mut moved = feeds.clone();
                let mut data = numbers(&feeds[name]);
                data[i] += offset;
                let shape = IxDyn(feeds[name].shape());
                moved.insert(name.clone(), Tensor::F64(ArrayD::from_shape_vec(shape, data).unwrap()));
                numbers(&run(&forward, &moved)["loss"])[0]
            };
            let expected = (loss_at(STEP) - loss_at(-STEP)) / (2.0 * STEP);
            let error = (gradient[i] - expected).abs();
            assert!(
                error <= 2e-6 * largest.max(1.0),
                "element {i} of the gradient of `{name}`: expected {expected}, found {}\n{graph}",
                gradient[i]
            );
        }
    }
}

/// Checks the gradients of one operation; `false` where its shape rule refuses the operands.
fn check_op(net: &mut Net, text: &str, operands: &[NodeId]) -> bool {
    let Ok(y) = net.try_op(text, operands) else { return false };
    let loss = net.loss_of(y);
    check(&net.graph, loss, &net.feeds);
    true
}
