//! Optimizers, schedules, regularizers and clipping: signatures that a `train` section is checked against.

use super::super::eval::Evaluator;
use super::super::train::{Spec, SpecValue};
use super::super::values::{Eval, Value};
use super::{Args, Row};

pub(super) const FUNCTIONS: &[Row] = &[
    ("sgd(lr, momentum = 0.0, nesterov = false, weight_decay = 0.0)", |ev, a| {
        spec(ev, a, "optimizer", "sgd")
    }),
    ("rmsprop(lr, alpha = 0.99, eps = 1e-8, momentum = 0.0, weight_decay = 0.0)", |ev, a| {
        spec(ev, a, "optimizer", "rmsprop")
    }),
    ("adam(lr = 0.001, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0)", |ev, a| {
        spec(ev, a, "optimizer", "adam")
    }),
    ("adamw(lr = 0.001, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01)", |ev, a| {
        spec(ev, a, "optimizer", "adamw")
    }),
    ("step(every, factor = 0.1)", |ev, a| spec(ev, a, "schedule", "step")),
    ("cosine(epochs, final = 0.0)", |ev, a| spec(ev, a, "schedule", "cosine")),
    ("warmup(schedule = none, epochs = 5, start = 0.0)", |ev, a| spec(ev, a, "schedule", "warmup")),
    ("clip_norm(limit)", |ev, a| spec(ev, a, "clip", "clip_norm")),
    ("clip_value(limit)", |ev, a| spec(ev, a, "clip", "clip_value")),
    ("l1(factor)", |ev, a| spec(ev, a, "regularizer", "l1")),
    ("l2(factor)", |ev, a| spec(ev, a, "regularizer", "l2")),
];

fn spec(ev: &mut Evaluator, a: &Args, kind: &'static str, name: &'static str) -> Eval<Value> {
    let mut arguments = vec![];
    for (param, _) in &a.values {
        let value = match *param {
            "schedule" => match a.value("schedule") {
                Value::None => continue,
                Value::Spec(s) if s.kind == "schedule" => SpecValue::Spec(Box::new(s.as_ref().clone())),
                _ => return Err(a.wrong(ev, "schedule", "a schedule")),
            },
            "nesterov" => SpecValue::Bool(a.boolean(ev, param)?),
            "every" | "epochs" => SpecValue::Number(a.count(ev, param, 1)? as f64),
            "momentum" | "alpha" | "beta1" | "beta2" => match a.number(ev, param)? {
                x if (0.0..1.0).contains(&x) => SpecValue::Number(x),
                _ => return Err(a.wrong(ev, param, "at least 0 and less than 1")),
            },
            "limit" => match a.number(ev, param)? {
                x if x > 0.0 => SpecValue::Number(x),
                _ => return Err(a.wrong(ev, param, "a number above 0")),
            },
            _ => match a.number(ev, param)? {
                x if x >= 0.0 => SpecValue::Number(x),
                _ => return Err(a.wrong(ev, param, "a number of at least 0")),
            },
        };
        arguments.push((*param, value));
    }
    let span = ev.user_span(a.span());
    Ok(Value::Spec(std::rc::Rc::new(Spec { kind, name, arguments, span })))
}
