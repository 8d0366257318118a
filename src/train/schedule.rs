//! How the learning rate changes while a network learns: host code, a number for each step.
//!
//! | schedule | rate in epoch e (from 0) | as in PyTorch's |
//! |---|---|---|
//! | none | base | |
//! | `step(every, factor)` | base · factor^⌊e / every⌋ | `StepLR` |
//! | `cosine(epochs, final)` | final + (base - final) · (1 + cos(π e / epochs)) / 2, then final | `CosineAnnealingLR` |
//! | `warmup(schedule, epochs, start)` | rises from start · base to base, a little every step; then `schedule`, from its epoch 0 | `LinearLR`, `SequentialLR` |

use std::f64::consts::PI;

use nnc_compiler::build::{Spec, SpecValue};

use crate::Error;
use crate::error::Result;

/// The learning rate as a function of the step.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    base: f64,
    shape: Shape,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Constant,
    Step { every: u64, factor: f64 },
    Cosine { epochs: u64, last: f64 },
    WarmUp { epochs: u64, start: f64, then: Box<Shape> },
}

impl Schedule {
    /// The schedule of a `train` section, around the optimizer's rate.
    pub fn new(base: f64, spec: Option<&Spec>) -> Result<Schedule> {
        Ok(Schedule { base, shape: spec.map_or(Ok(Shape::Constant), Shape::of)? })
    }

    /// The rate at a step (from 0), with so many steps an epoch.
    pub fn rate(&self, step: u64, steps_an_epoch: u64) -> f64 {
        self.shape.rate(self.base, step, steps_an_epoch.max(1))
    }
}

impl Shape {
    fn of(spec: &Spec) -> Result<Shape> {
        let count = |name: &str| spec.number(name).max(1.0) as u64;
        Ok(match spec.name {
            "step" => Shape::Step { every: count("every"), factor: spec.number("factor") },
            "cosine" => Shape::Cosine { epochs: count("epochs"), last: spec.number("final") },
            "warmup" => {
                let then = match spec.get("schedule") {
                    Some(SpecValue::Spec(inner)) => Shape::of(inner)?,
                    _ => Shape::Constant,
                };
                Shape::WarmUp { epochs: count("epochs"), start: spec.number("start"), then: Box::new(then) }
            }
            other => return Err(Error::Internal(format!("no schedule `{other}`"))),
        })
    }

    fn rate(&self, base: f64, step: u64, steps: u64) -> f64 {
        let epoch = step / steps;
        match *self {
            Shape::Constant => base,
            Shape::Step { every, factor } => base * factor.powf((epoch / every) as f64),
            Shape::Cosine { epochs, last } if epoch < epochs => {
                last + (base - last) * (1.0 + (PI * epoch as f64 / epochs as f64).cos()) / 2.0
            }
            Shape::Cosine { last, .. } => last,
            Shape::WarmUp { epochs, start, ref then } => {
                let length = epochs.saturating_mul(steps);
                match step.checked_sub(length) {
                    Some(after) => then.rate(base, after, steps),
                    None => base * (start + (1.0 - start) * (step + 1) as f64 / length as f64),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Source};

    /// The rates of the first steps, at 2 steps an epoch and a base of 0.8.
    fn rates(schedule: &str, steps: u64) -> Vec<f64> {
        let text = format!(
            "net a {{
                 input x: f32[N, 2]
                 output y = x -> dense(3)
                 train {{
                     input label: i32[N]
                     loss = cross_entropy(y, label)
                     optimizer = sgd(lr = 0.8)
                     {schedule}
                 }}
             }}"
        );
        let source = Source::from_text("a.nn", text).unwrap();
        let (built, _) = crate::pipeline::build(&source, &Options::new().training(true)).unwrap();
        let section = built.train.unwrap();
        let s = Schedule::new(section.optimizer.number("lr"), section.schedule.as_ref()).unwrap();
        (0..steps).map(|step| (s.rate(step, 2) * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn without_a_schedule_the_rate_stays() {
        assert_eq!(rates("", 3), [0.8; 3]);
    }

    #[test]
    fn steps_multiply() {
        assert_eq!(
            rates("schedule = step(every = 2, factor = 0.5)", 9),
            [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.2]
        );
    }

    #[test]
    fn a_cosine_falls_to_its_final_rate_and_stays_there() {
        let cosine = rates("schedule = cosine(epochs = 2, final = 0.2)", 7);
        assert_eq!(cosine, [0.8, 0.8, 0.5, 0.5, 0.2, 0.2, 0.2]);
    }

    #[test]
    fn a_warm_up_rises_every_step_and_leads_to_another() {
        assert_eq!(
            rates("schedule = step(every = 1, factor = 0.5) -> warmup(epochs = 2)", 8),
            [0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.4, 0.4]
        );
        assert_eq!(rates("schedule = warmup(epochs = 1, start = 0.5)", 3), [0.6, 0.8, 0.8]);
    }
}
