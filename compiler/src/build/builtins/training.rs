//! Optimizers, schedules and regularizers: signatures that a `train` section is checked against.

use super::super::eval::Evaluator;
use super::super::values::{Eval, Spec, Value};
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
    ("l1(factor)", |ev, a| spec(ev, a, "regularizer", "l1")),
    ("l2(factor)", |ev, a| spec(ev, a, "regularizer", "l2")),
];

fn spec(ev: &mut Evaluator, a: &Args, kind: &'static str, name: &'static str) -> Eval<Value> {
    for (param, _) in &a.values {
        match *param {
            "schedule" => match a.value("schedule") {
                Value::None => {}
                Value::Spec(s) if s.kind == "schedule" => {}
                _ => return Err(a.wrong(ev, "schedule", "a schedule")),
            },
            "nesterov" => {
                a.boolean(ev, param)?;
            }
            "every" | "epochs" => {
                a.count(ev, param, 1)?;
            }
            "momentum" | "alpha" | "beta1" | "beta2" => {
                if !(0.0..1.0).contains(&a.number(ev, param)?) {
                    return Err(a.wrong(ev, param, "at least 0 and less than 1"));
                }
            }
            _ => {
                if a.number(ev, param)? < 0.0 {
                    return Err(a.wrong(ev, param, "a number of at least 0"));
                }
            }
        }
    }
    Ok(Value::Spec(std::rc::Rc::new(Spec { kind, name })))
}
