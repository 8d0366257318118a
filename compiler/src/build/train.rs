//! `train { … }`: checked in a throw-away copy of the graph.
//!
//! The section takes effect in a training program only; what is wrong with it is said whenever
//! the net is built: keys, the shapes of losses and metrics, optimizers and schedules.

use nnc_dsl::Span;
use nnc_dsl::ast::{Block, Expr, Ident};

use super::eval::Evaluator;
use super::hints;
use super::values::{Eval, Reported, Value};

/// The names that a section assigns to, and what they must be.
const KEYS: [(&str, &str); 6] = [
    ("loss", "a number: a tensor without dimensions"),
    ("optimizer", "an optimizer such as `sgd(lr = 0.01)`"),
    ("schedule", "a schedule such as `step(every = 30)`"),
    ("regularizer", "a regularizer such as `l2(5e-4)`"),
    ("epochs", "an integer of at least 1"),
    ("batch", "an integer of at least 1"),
];

/// The section that is being checked.
#[derive(Default)]
pub(super) struct TrainSection {
    given: Vec<(String, Span)>,
}

impl Evaluator<'_> {
    /// Checks a section. The graph is afterwards what it was.
    pub(super) fn train_section(&mut self, body: &Block, span: Span) -> Eval<()> {
        if !self.frame().function.is_net {
            return Err(self.error("`train` belongs in a net", span, ""));
        }
        if !self.training || !self.frame().root {
            return Ok(());
        }
        let graph = self.graph.clone();
        self.train = Some(TrainSection::default());
        let result = self.block(body);
        let section = self.train.take().unwrap_or_default();
        self.graph = graph;
        for key in ["loss", "optimizer"] {
            if result.is_ok() && !section.given.iter().any(|(k, _)| k == key) {
                let (_, what) = KEYS[usize::from(key == "optimizer")];
                let help = format!("add `{key} = …`, {what}");
                self.error_help(format!("the `train` section has no `{key}`"), span, "", Some(help));
            }
        }
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
        let before = section.given.iter().find(|(k, _)| k == key).map(|(_, s)| *s);
        section.given.push((key.to_string(), name.span));
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
            Ok(Value::Tensor(n)) if self.graph.node(n).ty.rank() == 0 => Ok(Value::Tensor(n)),
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
