//! The interpreter on whole graphs.

use std::collections::BTreeMap;

use nnc_runtime::{DType, Tensor};

use super::{assert_near, elements, fill, floats, node, source, ty};
use crate::graph::interpret::{InterpretError, Precision, run, trace};
use crate::graph::{Graph, NodeId, Op, Output};

type Feeds = BTreeMap<String, Tensor>;

fn output(graph: &mut Graph, name: &str, node: NodeId) {
    graph.outputs.push(Output { name: name.to_string(), node });
}

/// A LeNet of 12x12 pictures and 3, 4, 6, 5 channels, with its parameters.
fn tiny_lenet() -> (Graph, Feeds) {
    let mut g = Graph::new("tiny_lenet");
    let mut feeds = Feeds::new();
    let mut parameter = |g: &mut Graph, name: &str, shape: &[usize], step, modulus| {
        let id = source(g, "parameter", name, &format!("f32{shape:?}"));
        feeds.insert(name.to_string(), fill(shape, step, modulus, 16.0));
        id
    };
    let x = source(&mut g, "input", "image", "f32[N, 1, 12, 12]");
    let (w, b) = (
        parameter(&mut g, "conv1.weight", &[3, 1, 3, 3], 5, 13),
        parameter(&mut g, "conv1.bias", &[3], 3, 7),
    );
    let x = node(&mut g, "conv2d padding=1x1", &[x, w, b]);
    let x = node(&mut g, "relu", &[x]);
    let x = node(&mut g, "max_pool2d window=2x2, stride=2x2", &[x]);
    let (w, b) = (
        parameter(&mut g, "conv2.weight", &[4, 3, 3, 3], 7, 11),
        parameter(&mut g, "conv2.bias", &[4], 5, 7),
    );
    let x = node(&mut g, "conv2d", &[x, w, b]);
    let x = node(&mut g, "relu", &[x]);
    let x = node(&mut g, "max_pool2d window=2x2, stride=2x2", &[x]);
    let x = node(&mut g, "reshape shape=[N, 16]", &[x]);
    let (w, b) =
        (parameter(&mut g, "fc1.weight", &[6, 16], 5, 17), parameter(&mut g, "fc1.bias", &[6], 3, 5));
    let x = node(&mut g, "linear", &[x, w, b]);
    let x = node(&mut g, "relu", &[x]);
    let (w, b) = (parameter(&mut g, "fc2.weight", &[5, 6], 7, 13), parameter(&mut g, "fc2.bias", &[5], 2, 5));
    let x = node(&mut g, "linear", &[x, w, b]);
    output(&mut g, "logits", x);
    let x = node(&mut g, "softmax axis=1", &[x]);
    output(&mut g, "probabilities", x);
    (g, feeds)
}

/// Computed by NumPy in double precision (`expected.py`).
const LOGITS: [f64; 10] =
    [0.160812, -0.226921, 0.084495, -0.025242, -0.026326, 0.198293, -0.283056, 0.040782, 0.053895, 0.007013];
const PROBABILITIES: [f64; 10] =
    [0.234485, 0.15912, 0.217255, 0.194676, 0.194465, 0.240173, 0.148415, 0.205172, 0.20788, 0.198359];

#[test]
fn lenet() {
    let (g, mut feeds) = tiny_lenet();
    feeds.insert("image".to_string(), fill(&[2, 1, 12, 12], 29, 31, 16.0));
    let out = run(&g, &feeds).unwrap();
    assert_near(&out["logits"], &[2, 5], &LOGITS);
    assert_near(&out["probabilities"], &[2, 5], &PROBABILITIES);
    let mut seen = vec![];
    let double = trace(&g, &feeds, Precision::Double, &mut |id, value| {
        assert_eq!(value.dtype(), DType::F64);
        seen.push(id);
    });
    assert_eq!(seen, g.topological());
    assert_near(&double.unwrap()["logits"], &[2, 5], &LOGITS);
}

#[test]
fn what_is_missing_or_does_not_fit() {
    let (g, mut feeds) = tiny_lenet();
    let message = |feeds: &Feeds| run(&g, feeds).unwrap_err().to_string();
    assert_eq!(message(&feeds), "no value is given for input `image`: f32[N, 1, 12, 12]");
    feeds.insert("image".to_string(), fill(&[2, 1, 12], 29, 31, 16.0));
    assert_eq!(message(&feeds), "input `image` is f32[N, 1, 12, 12], got f32[2, 1, 12]");
    feeds.insert("image".to_string(), fill(&[2, 1, 12, 13], 29, 31, 16.0));
    assert_eq!(message(&feeds), "input `image` is f32[2, 1, 12, 12], got f32[2, 1, 12, 13]");
    feeds.insert("image".to_string(), fill(&[2, 1, 12, 12], 29, 31, 16.0));
    feeds.insert("surplus".to_string(), floats(&[], &[0.0]));
    assert!(run(&g, &feeds).is_ok());
    feeds.remove("fc1.bias");
    assert_eq!(message(&feeds), "no value is given for parameter `fc1.bias`: f32[6]");
    feeds.insert("fc1.bias".to_string(), super::ints(&[6], &[0; 6]));
    assert_eq!(message(&feeds), "parameter `fc1.bias` is f32[6], got i32[6]");
}

#[test]
fn symbols_come_from_the_inputs() {
    let mut g = Graph::new("two");
    let a = source(&mut g, "input", "a", "f32[N, 2]");
    let b = source(&mut g, "input", "b", "f32[N*2]");
    let r = node(&mut g, "reshape shape=[N*2]", &[a]);
    let sum = node(&mut g, "add", &[r, b]);
    let last = node(&mut g, "slice axis=0, start=N*2 - 1, end=N*2", &[sum]);
    output(&mut g, "last", last);
    let feeds = |n: usize, m: usize| {
        Feeds::from([("a".to_string(), fill(&[n, 2], 1, 97, 1.0)), ("b".to_string(), fill(&[m], 0, 7, 1.0))])
    };
    let out = run(&g, &feeds(3, 6)).unwrap();
    assert_near(&out["last"], &[1], &[5.0 + 3.0 - 48.0]);
    let e = run(&g, &feeds(3, 5)).unwrap_err();
    assert_eq!(e.to_string(), "input `b` is f32[6], got f32[5]");

    let mut g = Graph::new("conflict");
    let a = source(&mut g, "input", "a", "f32[N]");
    let b = source(&mut g, "input", "b", "f32[N]");
    let sum = node(&mut g, "add", &[a, b]);
    output(&mut g, "sum", sum);
    let e = run(&g, &feeds(3, 6)).unwrap_err();
    assert!(matches!(e, InterpretError::Mismatch { .. }), "{e}");
    let feeds =
        Feeds::from([("a".to_string(), floats(&[1], &[0.0])), ("b".to_string(), floats(&[2], &[0.0; 2]))]);
    let e = run(&g, &feeds).unwrap_err();
    assert_eq!(e.to_string(), "`N` is 1 in one input and 2 in input `b`");
}

#[test]
fn values_that_are_not_row_major() {
    let mut g = Graph::new("t");
    let x = source(&mut g, "input", "x", "f32[3, 2]");
    let y = node(&mut g, "neg", &[x]);
    output(&mut g, "y", y);
    output(&mut g, "x", x);
    let Tensor::F32(a) = floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) else { panic!("f32") };
    let feeds = Feeds::from([("x".to_string(), Tensor::F32(a.reversed_axes()))]);
    let out = run(&g, &feeds).unwrap();
    assert_eq!(elements(&out["y"]), [-1.0, -4.0, -2.0, -5.0, -3.0, -6.0]);
    assert_eq!(elements(&out["x"]), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
}

#[test]
fn random_numbers_must_be_fed() {
    let mut g = Graph::new("noise");
    let op = Op::parse("random", "from=uniform(0.0, 1.0)").unwrap();
    let x = g.add_typed(op, &[], ty("f32[2]"), "noise", None);
    output(&mut g, "x", x);
    let e = run(&g, &Feeds::new()).unwrap_err();
    assert_eq!(e.to_string(), "no value is given for random `noise`: f32[2]");
    let feeds = Feeds::from([("noise".to_string(), floats(&[2], &[0.25, 0.5]))]);
    assert_near(&run(&g, &feeds).unwrap()["x"], &[2], &[0.25, 0.5]);
}

#[test]
fn values_that_do_not_fit_into_memory() {
    let mut g = Graph::new("g");
    let x = source(&mut g, "input", "x", "f32[]");
    let y = node(&mut g, "broadcast shape=[524288, 262144]", &[x]);
    output(&mut g, "y", y);
    let feeds = Feeds::from([("x".to_string(), floats(&[], &[0.0]))]);
    let e = run(&g, &feeds).unwrap_err();
    assert_eq!(e.to_string(), "no memory for the value of broadcast ``: f32[524288, 262144]");
}
