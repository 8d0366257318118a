//! Elementwise functions: on tensors core operations, on compile-time numbers arithmetic.

use nnc_runtime::DType;

use super::super::eval::Evaluator;
use super::super::values::{Eval, Value};
use super::{Args, Row};
use crate::graph::Op;
use crate::graph::op::{Binary, Unary};

pub(super) const FUNCTIONS: &[Row] = &[
    ("relu(x)", |ev, a| unary(ev, a, Unary::Relu, |x| x.max(0.0))),
    ("leaky_relu(x, slope = 0.01)", |ev, a| {
        let (x, slope) = (a.tensor(ev, "x")?, a.number(ev, "slope")?);
        a.add(ev, Op::Unary(Unary::LeakyRelu(slope)), &[x])
    }),
    ("elu(x, alpha = 1.0)", |ev, a| {
        let (x, alpha) = (a.tensor(ev, "x")?, a.number(ev, "alpha")?);
        a.add(ev, Op::Unary(Unary::Elu(alpha)), &[x])
    }),
    ("gelu(x)", |ev, a| tensor_only(ev, a, Unary::Gelu)),
    ("silu(x)", |ev, a| tensor_only(ev, a, Unary::Silu)),
    ("hard_swish(x)", |ev, a| tensor_only(ev, a, Unary::HardSwish)),
    ("hard_sigmoid(x)", |ev, a| tensor_only(ev, a, Unary::HardSigmoid)),
    ("sigmoid(x)", |ev, a| unary(ev, a, Unary::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()))),
    ("tanh(x)", |ev, a| unary(ev, a, Unary::Tanh, f64::tanh)),
    ("erf(x)", |ev, a| tensor_only(ev, a, Unary::Erf)),
    ("exp(x)", |ev, a| unary(ev, a, Unary::Exp, f64::exp)),
    ("log(x)", |ev, a| unary(ev, a, Unary::Log, f64::ln)),
    ("sqrt(x)", |ev, a| unary(ev, a, Unary::Sqrt, f64::sqrt)),
    ("rsqrt(x)", |ev, a| unary(ev, a, Unary::Rsqrt, |x| 1.0 / x.sqrt())),
    ("floor(x)", |ev, a| unary(ev, a, Unary::Floor, f64::floor)),
    ("sign(x)", |ev, a| tensor_only(ev, a, Unary::Sign)),
    ("abs(x)", |ev, a| match a.value("x") {
        Value::Int(n) => Ok(Value::Int(n.saturating_abs())),
        _ => unary(ev, a, Unary::Abs, f64::abs),
    }),
    ("clamp(x, low, high)", |ev, a| {
        let (x, low, high) = (a.tensor(ev, "x")?, a.number(ev, "low")?, a.number(ev, "high")?);
        if low > high {
            return Err(a.wrong(ev, "low", "at most `high`"));
        }
        a.add(ev, Op::Unary(Unary::Clamp(low, high)), &[x])
    }),
    ("maximum(a, b)", |ev, a| binary(ev, a, Binary::Max)),
    ("minimum(a, b)", |ev, a| binary(ev, a, Binary::Min)),
    ("where(condition, a, b)", select),
    ("cast(x, to)", |ev, a| {
        let x = a.tensor(ev, "x")?;
        match a.value("to") {
            Value::DType(to) => a.add(ev, Op::Cast(*to), &[x]),
            _ => Err(a.wrong(ev, "to", "`f32`, `i32` or `bool`")),
        }
    }),
    ("dropout(x, p = 0.5)", |ev, a| {
        let (x, p) = (a.tensor(ev, "x")?, a.number(ev, "p")?);
        if !(0.0..1.0).contains(&p) {
            return Err(a.wrong(ev, "p", "a probability: at least 0, less than 1"));
        }
        a.add(ev, Op::Dropout(p), &[x])
    }),
    ("stop_gradient(x)", |ev, a| {
        let x = a.tensor(ev, "x")?;
        a.add(ev, Op::StopGradient, &[x])
    }),
];

fn tensor_only(ev: &mut Evaluator, a: &Args, op: Unary) -> Eval<Value> {
    let x = a.tensor(ev, "x")?;
    a.add(ev, Op::Unary(op), &[x])
}

fn unary(ev: &mut Evaluator, a: &Args, op: Unary, on_number: fn(f64) -> f64) -> Eval<Value> {
    match a.value("x") {
        Value::Tensor(_) => tensor_only(ev, a, op),
        other => match other.as_number() {
            Some(x) => Ok(Value::Float(on_number(x))),
            None => Err(a.wrong(ev, "x", "a tensor or a number")),
        },
    }
}

/// The element type that two operands share: that of the first tensor.
fn dtype(ev: &Evaluator, a: &Args, names: [&str; 2]) -> DType {
    names
        .iter()
        .find_map(|n| match a.value(n) {
            Value::Tensor(t) => Some(ev.graph.node(*t).ty.dtype),
            _ => None,
        })
        .unwrap_or(DType::F32)
}

fn binary(ev: &mut Evaluator, a: &Args, op: Binary) -> Eval<Value> {
    let dtype = dtype(ev, a, ["a", "b"]);
    let operands = [a.operand(ev, "a", dtype)?, a.operand(ev, "b", dtype)?];
    a.add(ev, Op::Binary(op), &operands)
}

fn select(ev: &mut Evaluator, a: &Args) -> Eval<Value> {
    let condition = a.tensor(ev, "condition")?;
    let dtype = dtype(ev, a, ["a", "b"]);
    let operands = [condition, a.operand(ev, "a", dtype)?, a.operand(ev, "b", dtype)?];
    a.add(ev, Op::Where, &operands)
}
