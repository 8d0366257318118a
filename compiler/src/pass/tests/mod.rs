//! Tests of the passes.

mod golden;
mod groups;
mod invariants;
mod meaning;
pub(crate) mod random;
mod recompute;

use nnc_runtime::DType;

use super::{fuse, run_all};
use crate::graph::op::{Conv2d, MaxPool2d, Parameter, Unary, Window};
use crate::graph::{Graph, NodeId, Op, Output, TensorType};
use crate::target::CpuTarget;
use nnc_runtime::program::Initializer;

fn parameter(graph: &mut Graph, name: &str, shape: &[usize]) -> NodeId {
    let op = Op::Parameter(Parameter { init: Initializer::Constant(0.0), trainable: true });
    graph.add_typed(op, &[], TensorType::new(DType::F32, shape), name, None)
}

fn pool(kernel: usize, stride: usize) -> Op {
    let window =
        Window { kernel: [kernel; 2], stride: [stride; 2], padding: [0; 4], dilation: [1, 1], ceil: false };
    Op::MaxPool2d(MaxPool2d { window })
}

/// Vectors of 128 bits, blocks of eight channels: the same on every machine.
fn target() -> CpuTarget {
    CpuTarget::named("fma").expect("a target of that name")
}

fn stage(pooling: Op) -> Graph {
    let mut g = Graph::new("stage");
    let x = g.add_typed(Op::Input, &[], TensorType::new(DType::F32, &[1, 3, 8, 8]), "x", None);
    let w = parameter(&mut g, "conv1.weight", &[16, 3, 3, 3]);
    let b = parameter(&mut g, "conv1.bias", &[16]);
    let conv = Conv2d { stride: [1, 1], padding: [1; 4], dilation: [1, 1], groups: 1 };
    let y = g.add(Op::Conv2d(conv), &[x, w, b], "conv1", None).unwrap();
    let y = g.add(Op::Unary(Unary::Relu), &[y], "", None).unwrap();
    let y = g.add(pooling, &[y], "pool1", None).unwrap();
    g.outputs.push(Output { name: "y".into(), node: y });
    g
}

#[test]
fn convolution_relu_and_pooling_are_one_group() {
    let mut g = stage(pool(2, 2));
    run_all(&mut g, &target(), &mut |_, _| {});
    invariants::check(&g);
    assert_eq!(g.groups.len(), 1);
    let ops: Vec<&str> = g.groups[0].nodes.iter().map(|&n| g.node(n).op.name()).collect();
    assert_eq!(ops, ["conv2d", "relu", "max_pool2d", "relayout"]);
}

#[test]
fn overlapping_pooling_stays_outside_with_a_remark() {
    let mut g = stage(pool(3, 1));
    let report = fuse::run(&mut g);
    invariants::check(&g);
    assert_eq!(g.groups.len(), 2);
    assert!(report.remarks.iter().any(|r| r.text.contains("overlap")), "{:?}", report.remarks);
}
