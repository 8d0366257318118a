//! Gradient rules, compiled: what a rule adds to a graph gives the same numbers in kernels as in the
//! reference interpreter.

use nnc_compiler::autodiff::gradients;
use nnc_compiler::graph::op::ReduceKind;
use nnc_compiler::graph::{NodeId, Op};

use crate::support::{Net, check};

/// Lets every parameter's gradient of a weighted sum of `y` be an output, and checks the whole.
fn check_gradients(mut net: Net, y: NodeId, what: &str) {
    let shape = net.shape(y);
    let weights = net.input(&shape);
    let product = net.op(Op::parse("mul", "").unwrap(), &[y, weights]);
    let axes = (0..shape.len()).collect();
    let loss = net.op(Op::Reduce { kind: ReduceKind::Sum, axes, keep: false }, &[product]);
    let parameters = net.graph.parameters();
    let found = gradients(&mut net.graph, loss, &parameters).unwrap_or_else(|e| panic!("{what}: {e}"));
    for gradient in found {
        net.output(gradient.unwrap_or_else(|| panic!("{what}: a parameter has no gradient")));
    }
    check(&net);
}

fn op(text: &str) -> Op {
    let (name, attributes) = text.split_once(' ').unwrap_or((text, ""));
    Op::parse(name, attributes).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// One operation on parameters of these shapes.
fn on_parameters(text: &str, shapes: &[&[usize]]) {
    let mut net = Net::new(21);
    let operands: Vec<NodeId> = shapes.iter().map(|s| net.parameter(s)).collect();
    let y = net.op(op(text), &operands);
    check_gradients(net, y, text);
}

#[test]
fn elementwise() {
    for f in [
        "neg",
        "abs",
        "exp",
        "tanh",
        "sigmoid",
        "relu",
        "leaky_relu slope=0.1",
        "elu alpha=1.5",
        "gelu",
        "silu",
        "hard_swish",
        "hard_sigmoid",
        "erf",
        "clamp low=-0.25, high=0.5",
    ] {
        on_parameters(f, &[&[3, 5]]);
    }
    for f in ["add", "sub", "mul", "maximum", "minimum"] {
        on_parameters(f, &[&[2, 3, 4], &[3, 1]]);
        on_parameters(f, &[&[4], &[2, 3, 4]]);
    }
    for f in ["log", "sqrt", "rsqrt", "div", "pow"] {
        let mut net = Net::new(22);
        let (a, b) = (net.positive(&[12]), net.positive(&[12]));
        let y = match f {
            "div" | "pow" => net.op(op(f), &[a, b]),
            _ => {
                let y = net.op(op(f), &[a]);
                net.op(op("mul"), &[y, b])
            }
        };
        check_gradients(net, y, f);
    }
}

#[test]
fn contractions() {
    on_parameters("matmul", &[&[2, 3, 4], &[4, 5]]);
    on_parameters("matmul", &[&[3, 4], &[2, 4, 5]]);
    on_parameters("linear", &[&[6, 9], &[7, 9], &[7]]);
    on_parameters("linear", &[&[2, 3, 5], &[4, 5]]);
}

#[test]
fn normalisations_and_reductions() {
    for axis in [0, 1, 2] {
        on_parameters(&format!("softmax axis={axis}"), &[&[3, 4, 5]]);
        on_parameters(&format!("log_softmax axis={axis}"), &[&[3, 4, 5]]);
    }
    on_parameters("local_response_norm size=4, alpha=0.5, beta=0.75, k=1.0", &[&[2, 9, 3, 3]]);
    for kind in ["sum", "mean", "max", "min", "prod", "variance"] {
        on_parameters(&format!("reduce_{kind} axes=[1]"), &[&[3, 4, 2]]);
        on_parameters(&format!("reduce_{kind} axes=[0, 2], keep"), &[&[3, 4, 2]]);
    }
    let mut net = Net::new(23);
    let x = net.parameter(&[2, 9, 3, 3]);
    let operands = [x, net.parameter(&[9]), net.parameter(&[9]), net.parameter(&[9]), net.positive(&[9])];
    let y = net.op(op("batch_norm eps=0.001, momentum=0.1"), &operands);
    check_gradients(net, y, "batch_norm");
}

#[test]
fn movements() {
    for text in [
        "reshape shape=[6, 4]",
        "transpose order=[2, 0, 1]",
        "slice axis=2, start=1, end=4, step=2",
        "reverse axes=[0, 2]",
        "pad pads=[0:1, 2:0:1, 1:1:2], value=1.5",
        "broadcast shape=[5, 2, 3, 4]",
    ] {
        on_parameters(text, &[&[2, 3, 4]]);
    }
    on_parameters("concat axis=1", &[&[2, 3, 4], &[2, 1, 4]]);
}

#[test]
fn convolutions_poolings_and_tables() {
    on_parameters("conv2d stride=2x1, padding=1x1", &[&[2, 8, 7, 6], &[9, 8, 3, 3], &[9]]);
    on_parameters("conv2d padding=0:1x1:0, dilation=2x1, groups=2", &[&[2, 4, 6, 6], &[6, 2, 2, 2]]);
    on_parameters(
        "conv_transpose2d stride=2x2, padding=1x1, output_padding=1x0",
        &[&[2, 4, 3, 3], &[4, 5, 3, 3], &[5]],
    );
    for pool in [
        "max_pool2d window=3x3, stride=2x2, padding=1x1, ceil",
        "avg_pool2d window=3x2, stride=2x2, padding=1x0, count_include_pad=false",
        "adaptive_max_pool2d output=2x3",
        "adaptive_avg_pool2d output=3x2",
    ] {
        on_parameters(pool, &[&[2, 8, 7, 6]]);
    }
    let mut net = Net::new(25);
    let (table, indices) = (net.parameter(&[3, 6, 2]), net.integers(&[7], 6));
    let y = net.op(op("gather axis=1"), &[table, indices]);
    check_gradients(net, y, "gather");
}

#[test]
fn a_classifier() {
    let mut net = Net::new(24);
    let x = net.input(&[4, 9]);
    let (w, b) = (net.parameter(&[8, 9]), net.parameter(&[8]));
    let h = net.op(Op::Linear, &[x, w, b]);
    let h = net.op(op("relu"), &[h]);
    let (w, b) = (net.parameter(&[5, 8]), net.parameter(&[5]));
    let logits = net.op(Op::Linear, &[h, w, b]);
    let log = net.op(op("log_softmax axis=1"), &[logits]);
    let label = net.integers(&[4], 5);
    let hot = net.op(Op::OneHot(5), &[label]);
    let y = net.op(op("mul"), &[hot, log]);
    check_gradients(net, y, "classifier");
}
