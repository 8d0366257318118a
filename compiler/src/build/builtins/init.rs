//! Initialisers of parameters, and tensors of zeros, ones and random numbers.
//!
//! `zeros`, `ones`, `uniform` and `normal` are both: with a shape a tensor, without one an initialiser.

use nnc_dsl::Span;
use nnc_runtime::DType;
use nnc_runtime::program::Initializer;

use super::super::eval::{Evaluator, Site};
use super::super::values::{Callable, Eval, Value};
use super::{Args, Row};
use crate::graph::op::{Distribution, Literal};
use crate::graph::{Op, TensorType};

pub(super) const FUNCTIONS: &[Row] = &[
    ("zeros(shape = none)", |ev, a| filled(ev, a, 0.0)),
    ("ones(shape = none)", |ev, a| filled(ev, a, 1.0)),
    ("constant(value)", |ev, a| Ok(Value::Init(Initializer::Constant(a.number(ev, "value")?)))),
    ("uniform(values..)", |ev, a| random(ev, a, [-1.0, 1.0])),
    ("normal(values..)", |ev, a| random(ev, a, [0.0, 1.0])),
    ("glorot_uniform()", |_, _| Ok(Value::Init(Initializer::GlorotUniform))),
    ("glorot_normal()", |_, _| Ok(Value::Init(Initializer::GlorotNormal))),
    ("he_uniform(gain = 1.4142135623730951)", |ev, a| {
        Ok(Value::Init(Initializer::HeUniform { gain: a.number(ev, "gain")? }))
    }),
    ("he_normal(gain = 1.4142135623730951)", |ev, a| {
        Ok(Value::Init(Initializer::HeNormal { gain: a.number(ev, "gain")? }))
    }),
    ("orthogonal(gain = 1.0)", |ev, a| {
        Ok(Value::Init(Initializer::Orthogonal { gain: a.number(ev, "gain")? }))
    }),
    ("fan_in_uniform(fan_in)", |ev, a| {
        Ok(Value::Init(Initializer::FanInUniform { fan_in: a.count(ev, "fan_in", 1)? as u64 }))
    }),
];

/// The initialiser that a value stands for: itself, a number, or a function called without
/// arguments (`= ones`).
pub(in super::super) fn initialiser(ev: &mut Evaluator, value: &Value, span: Span) -> Eval<Initializer> {
    match value {
        Value::Init(init) => return Ok(init.clone()),
        Value::Int(_) | Value::Float(_) => {
            return Ok(Initializer::Constant(value.as_number().unwrap_or(0.0)));
        }
        Value::Function(Callable::Builtin(b)) if FUNCTIONS.iter().any(|(s, _)| is_named(s, b.name)) => {
            if let Value::Init(init) = ev.call_builtin(b, vec![], Site::at(span))? {
                return Ok(init);
            }
        }
        _ => {}
    }
    let message = format!("found {}", value.describe(&ev.graph));
    let help = "there are `zeros`, `ones`, `constant(…)`, `uniform(low, high)`, `normal(mean, std)`, \
                `glorot_uniform`, `he_normal`, `orthogonal` and others"
        .to_string();
    Err(ev.error_help("expected an initialiser", span, message, Some(help)))
}

fn is_named(signature: &str, name: &str) -> bool {
    signature.strip_prefix(name).is_some_and(|rest| rest.starts_with('('))
}

fn filled(ev: &mut Evaluator, a: &Args, value: f64) -> Eval<Value> {
    if a.is_none("shape") {
        return Ok(Value::Init(Initializer::Constant(value)));
    }
    let ty = TensorType { dtype: DType::F32, shape: a.shape(ev, "shape")? };
    let name = ev.node_name(a.function, &a.site)?;
    ev.add_source(Op::Constant(Literal::Splat(value)), ty, &name, a.span()).map(Value::Tensor)
}

/// `uniform(low, high)`, `normal(mean, std)`: an initialiser; with a shape before: a tensor that
/// is drawn anew every run.
fn random(ev: &mut Evaluator, a: &Args, defaults: [f64; 2]) -> Eval<Value> {
    let shape = match a.rest.first().map(|r| &r.value) {
        Some(Value::List(items)) => Some(items.iter().map(Value::as_dim).collect::<Option<Vec<_>>>()),
        _ => None,
    };
    let numbers = &a.rest[usize::from(shape.is_some())..];
    let values: Option<Vec<f64>> = numbers.iter().map(|n| n.value.as_number()).collect();
    let [p, q] = match (values.as_deref(), &shape) {
        (Some([]), _) => defaults,
        (Some([p, q]), None | Some(Some(_))) => [*p, *q],
        _ => {
            let title = format!("`{}` takes two numbers, or a shape and two numbers", a.function);
            return Err(ev.error(title, a.span(), ""));
        }
    };
    let uniform = a.function == "uniform";
    let Some(shape) = shape.flatten() else {
        return Ok(Value::Init(if uniform {
            Initializer::Uniform { low: p, high: q }
        } else {
            Initializer::Normal { mean: p, std: q }
        }));
    };
    let distribution = if uniform {
        Distribution::Uniform { low: p, high: q }
    } else {
        Distribution::Normal { mean: p, std: q }
    };
    let name = ev.node_name(a.function, &a.site)?;
    let ty = TensorType { dtype: DType::F32, shape };
    ev.add_source(Op::Random(distribution), ty, &name, a.span()).map(Value::Tensor)
}
