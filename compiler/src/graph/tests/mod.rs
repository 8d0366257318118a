//! Tests of the graph: sizes, shape rules, reference semantics, interpreter, text form, verifier.

mod dim;
mod eval;
mod eval_training;
mod interpret;
mod rules;
mod specialise;
mod text;
mod verify;

use ndarray::{ArrayD, IxDyn};
use nnc_runtime::Tensor;

use super::{Graph, NodeId, Op, OpError, TensorType};

/// The type of that text; panics on a mistake in the test.
fn ty(text: &str) -> TensorType {
    text.parse().unwrap()
}

/// An f32 tensor.
fn floats(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor::F32(ArrayD::from_shape_vec(IxDyn(shape), data.to_vec()).unwrap())
}

/// An i32 tensor.
fn ints(shape: &[usize], data: &[i32]) -> Tensor {
    Tensor::I32(ArrayD::from_shape_vec(IxDyn(shape), data.to_vec()).unwrap())
}

/// A bool tensor.
fn bools(shape: &[usize], data: &[bool]) -> Tensor {
    Tensor::Bool(ArrayD::from_shape_vec(IxDyn(shape), data.to_vec()).unwrap())
}

/// `(i·step + 3) mod modulus - modulus/2`, divided: small exact numbers, as in `expected.py`.
fn fill(shape: &[usize], step: usize, modulus: usize, divisor: f32) -> Tensor {
    let count: usize = shape.iter().product();
    let value = |i: usize| (((i * step + 3) % modulus) as f32 - (modulus / 2) as f32) / divisor;
    floats(shape, &(0..count).map(value).collect::<Vec<_>>())
}

/// The operation of that text form applied to values.
fn eval(name: &str, attributes: &str, operands: &[&Tensor]) -> Result<Tensor, OpError> {
    let op = Op::parse(name, attributes).unwrap();
    let types: Vec<TensorType> = operands.iter().map(|t| TensorType::new(t.dtype(), t.shape())).collect();
    let ty = op.infer(&types.iter().collect::<Vec<_>>())?;
    op.eval(operands, &ty)
}

/// The same; `None` where the shape rule refuses.
fn output_of(name: &str, attributes: &str, operands: &[&Tensor]) -> Option<Tensor> {
    eval(name, attributes, operands).ok()
}

/// All elements as f64.
fn elements(t: &Tensor) -> Vec<f64> {
    match t {
        Tensor::F32(a) => a.iter().map(|&x| f64::from(x)).collect(),
        Tensor::F64(a) => a.iter().copied().collect(),
        Tensor::I32(a) => a.iter().map(|&x| f64::from(x)).collect(),
        Tensor::Bool(a) => a.iter().map(|&x| f64::from(u8::from(x))).collect(),
    }
}

/// Shape and elements are these, within 2e-6; NaN is equal to NaN.
#[track_caller]
fn assert_near(found: &Tensor, shape: &[usize], expected: &[f64]) {
    assert_eq!(found.shape(), shape);
    let found = elements(found);
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let same = f == e || (f.is_nan() && e.is_nan()) || (f - e).abs() <= 2e-6 * e.abs().max(1.0);
        assert!(same, "element {i}: expected {e}, found {f}\nall: {found:?}");
    }
}

/// A node without name or span; panics on a mistake in the test.
fn node(graph: &mut Graph, text: &str, operands: &[NodeId]) -> NodeId {
    let (name, attributes) = text.split_once(' ').unwrap_or((text, ""));
    graph.add(Op::parse(name, attributes).unwrap(), operands, "", None).unwrap()
}

/// An input or parameter.
fn source(graph: &mut Graph, op: &str, name: &str, type_text: &str) -> NodeId {
    let attributes = if op == "parameter" { "init=constant(0.0)" } else { "" };
    graph.add_typed(Op::parse(op, attributes).unwrap(), &[], ty(type_text), name, None)
}
