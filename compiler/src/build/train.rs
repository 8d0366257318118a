//! `train { … }`: a part of the training variant of a net.
//!
//! Loss and metrics become nodes of its graph; optimizer, schedule and the rest become [`Spec`]s for
//! those who make and run a training step. What is wrong with a section is said whenever the net is
//! built, for the training variant is evaluated then, too.

use std::fmt;

use nnc_dsl::Span;
use nnc_dsl::ast::{Block, Expr, Ident};

use super::eval::Evaluator;
use super::hints;
use super::values::{Eval, Reported, Value};
use crate::graph::NodeId;

/// The names that a section assigns to, and what they must be.
const KEYS: [(&str, &str); 7] = [
    ("loss", "a number: a tensor without dimensions"),
    ("optimizer", "an optimizer such as `sgd(lr = 0.01)`"),
    ("schedule", "a schedule such as `step(every = 30)`"),
    ("regularizer", "a regularizer such as `l2(5e-4)`"),
    ("clip", "`clip_norm(1.0)` or `clip_value(0.5)`"),
    ("epochs", "an integer of at least 1"),
    ("batch", "an integer of at least 1"),
];

/// What a `train` section says.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSection {
    /// What is to become small: a float without dimensions.
    pub loss: NodeId,
    /// What is measured besides, by name: values without dimensions.
    pub metrics: Vec<(String, NodeId)>,
    /// How parameters follow their gradients.
    pub optimizer: Spec,
    /// How the learning rate changes.
    pub schedule: Option<Spec>,
    /// What keeps parameters small.
    pub regularizer: Option<Spec>,
    /// What keeps gradients small.
    pub clip: Option<Spec>,
    /// Passes over the data.
    pub epochs: Option<usize>,
    /// Examples in a step.
    pub batch: Option<usize>,
    /// Its text.
    pub span: Span,
}

/// A checked call such as `sgd(lr = 0.01, momentum = 0.9)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The key that it is for: `optimizer`, `schedule`, `regularizer`, `clip`.
    pub kind: &'static str,
    /// `sgd`.
    pub name: &'static str,
    /// All arguments, defaults included, save those that are `none`.
    pub arguments: Vec<(&'static str, SpecValue)>,
    /// Its text.
    pub span: Span,
}

/// An argument of a [`Spec`].
#[derive(Clone, Debug, PartialEq)]
pub enum SpecValue {
    /// A number.
    Number(f64),
    /// Yes or no.
    Bool(bool),
    /// Another one: the schedule that a warm-up leads to.
    Spec(Box<Spec>),
}

impl Spec {
    /// The argument of that name.
    pub fn get(&self, name: &str) -> Option<&SpecValue> {
        self.arguments.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The number of that name; 0 if there is none.
    pub fn number(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(SpecValue::Number(x)) => *x,
            _ => 0.0,
        }
    }

    /// Whether the argument of that name is `true`.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name) == Some(&SpecValue::Bool(true))
    }
}

impl fmt::Display for Spec {
    /// With all arguments: `sgd(lr = 0.1, momentum = 0.9, nesterov = false, weight_decay = 0)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments: Vec<String> = self.arguments.iter().map(|(n, v)| format!("{n} = {v}")).collect();
        write!(f, "{}({})", self.name, arguments.join(", "))
    }
}

impl fmt::Display for SpecValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpecValue::Number(x) => write!(f, "{x}"),
            SpecValue::Bool(b) => write!(f, "{b}"),
            SpecValue::Spec(s) => write!(f, "{s}"),
        }
    }
}

impl TrainSection {
    /// How parameters follow their gradients, in words: key and value of `optimizer`, `schedule`,
    /// `regularizer` and `clip`, those that are given.
    pub fn recipe(&self) -> Vec<(&'static str, String)> {
        let optional = [&self.schedule, &self.regularizer, &self.clip].into_iter().flatten();
        [&self.optimizer].into_iter().chain(optional).map(|s| (s.kind, s.to_string())).collect()
    }
}

/// The section that is being evaluated.
#[derive(Default)]
pub(super) struct Section {
    given: Vec<(&'static str, Span, Option<Value>)>,
    metrics: Vec<(String, NodeId)>,
}

impl Section {
    fn value(&self, key: &str) -> Option<&Value> {
        self.given.iter().find(|(k, _, _)| *k == key).and_then(|(_, _, v)| v.as_ref())
    }

    fn spec(&self, key: &str) -> Option<Spec> {
        match self.value(key) {
            Some(Value::Spec(s)) => Some(s.as_ref().clone()),
            _ => None,
        }
    }

    fn count(&self, key: &str) -> Option<usize> {
        match self.value(key) {
            Some(Value::Int(n)) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The whole; `None` if something needed is missing, which has been said.
    fn finish(self, span: Span) -> Option<TrainSection> {
        let Some(&Value::Tensor(loss)) = self.value("loss") else { return None };
        Some(TrainSection {
            loss,
            optimizer: self.spec("optimizer")?,
            schedule: self.spec("schedule"),
            regularizer: self.spec("regularizer"),
            clip: self.spec("clip"),
            epochs: self.count("epochs"),
            batch: self.count("batch"),
            metrics: self.metrics,
            span,
        })
    }
}

impl Evaluator<'_> {
    /// Evaluates the section of the net that is built, in its training variant.
    pub(super) fn train_section(&mut self, body: &Block, span: Span) -> Eval<()> {
        if !self.frame().function.is_net {
            return Err(self.error("`train` belongs in a net", span, ""));
        }
        if !self.training || !self.frame().root {
            return Ok(());
        }
        self.train = Some(Section::default());
        let result = self.block(body);
        let section = self.train.take().unwrap_or_default();
        for key in ["loss", "optimizer"] {
            if result.is_ok() && !section.given.iter().any(|(k, _, _)| *k == key) {
                let (_, what) = KEYS[usize::from(key == "optimizer")];
                let help = format!("add `{key} = …`, {what}");
                self.error_help(format!("the `train` section has no `{key}`"), span, "", Some(help));
            }
        }
        self.trained = section.finish(span);
        result.map(|_| ())
    }

    /// `loss = value` in a section; `None` where the assignment is an ordinary one.
    pub(super) fn train_assign(&mut self, names: &[Ident], value: &Expr) -> Option<Eval<()>> {
        let [name] = names else { return None };
        self.train.as_ref()?;
        let is_key = KEYS.iter().any(|(k, _)| *k == name.name);
        if !is_key && self.frame().get(&name.name).is_some() {
            return None;
        }
        Some(self.train_key(name, value))
    }

    fn train_key(&mut self, name: &Ident, value: &Expr) -> Eval<()> {
        let result = self.expr(value);
        let Some((key, what)) = KEYS.iter().find(|(k, _)| *k == name.name) else {
            let names = KEYS.map(|(k, _)| k);
            let help = hints::did_you_mean(&name.name, names)
                .unwrap_or_else(|| format!("it has {}", names.map(|k| format!("`{k}`")).join(", ")));
            let title = format!("a `train` section has no `{}`", name.name);
            return Err(self.error_help(title, name.span, "unknown", Some(help)));
        };
        let section = self.train.get_or_insert_default();
        let before = section.given.iter().find(|(k, _, _)| k == key).map(|(_, s, _)| *s);
        section.given.push((*key, name.span, None));
        if let Some(before) = before {
            let d = self.located(format!("`{key}` is given twice"), name.span, "again here");
            let d = d.label(before, "first here");
            self.report(d);
            return Err(Reported);
        }
        let value_of_key = result?;
        let fits = match (&value_of_key, *key) {
            (Value::Tensor(n), "loss") => {
                let ty = &self.graph.node(*n).ty;
                ty.rank() == 0 && ty.dtype.is_float()
            }
            (Value::Spec(s), _) => s.kind == *key,
            (Value::Int(n), "epochs" | "batch") => *n >= 1,
            _ => false,
        };
        if fits {
            let section = self.train.get_or_insert_default();
            if let Some(last) = section.given.last_mut() {
                last.2 = Some(value_of_key);
            }
            return Ok(());
        }
        let message = format!("found {}", value_of_key.describe(&self.graph));
        Err(self.error(format!("`{key}` must be {what}"), value.span, message))
    }

    /// `metric top1 = value`
    pub(super) fn metric(&mut self, name: &Ident, value: &Expr, span: Span) -> Eval<()> {
        if self.train.is_none() {
            return Err(self.error("`metric` belongs in a `train` section", span, ""));
        }
        let result = match self.expr(value) {
            Ok(Value::Tensor(n)) if self.graph.node(n).ty.rank() == 0 => {
                self.train.get_or_insert_default().metrics.push((name.name.clone(), n));
                Ok(Value::Tensor(n))
            }
            Ok(other) => {
                let message = format!("found {}", other.describe(&self.graph));
                let title =
                    format!("the metric `{}` must be a number: a tensor without dimensions", name.name);
                Err(self.error(title, value.span, message))
            }
            Err(r) => Err(r),
        };
        self.bind_one(name, result)
    }
}
