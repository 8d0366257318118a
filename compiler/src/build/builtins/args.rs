//! The arguments of a built-in function, by name and with their types checked.

use nnc_dsl::Span;
use nnc_runtime::DType;

use super::super::eval::{Evaluator, Site};
use super::super::values::{Argument, Eval, Reported, Value};
use crate::graph::{Dim, NodeId, Op, Shape, TensorType};

/// The arguments of one call.
pub(crate) struct Args {
    /// The function.
    pub function: &'static str,
    /// Every parameter with its argument or default.
    pub values: Vec<(&'static str, Argument)>,
    /// Of a variadic function: what was given without a name.
    pub rest: Vec<Argument>,
    /// The call.
    pub site: Site,
}

impl Args {
    /// The call's text.
    pub fn span(&self) -> Span {
        self.site.span
    }

    /// The argument of that name.
    pub fn get(&self, name: &str) -> &Argument {
        let found = self.values.iter().find(|(n, _)| *n == name);
        &found.expect("a built-in function asks for its own parameters").1
    }

    /// The value of that argument.
    pub fn value(&self, name: &str) -> &Value {
        &self.get(name).value
    }

    /// Whether it is `none`.
    pub fn is_none(&self, name: &str) -> bool {
        matches!(self.value(name), Value::None)
    }

    /// Says that an argument is not what was expected.
    pub fn wrong(&self, ev: &mut Evaluator, name: &str, expected: &str) -> Reported {
        let arg = self.get(name);
        let title = match ev.blamed(arg.span).0 {
            Some(param) => {
                format!("`{param}` of `{}` must be {expected}", ev.frame().function.ast.name.name)
            }
            None => format!("`{name}` of `{}` must be {expected}", self.function),
        };
        let message = format!("found {}", arg.value.describe(&ev.graph));
        let help = match &arg.value {
            Value::Dim(d) => ev.set_hint(d),
            Value::List(_) if expected.contains("tensor") => {
                Some("write a literal tensor with `const name = [[…]]`".to_string())
            }
            _ => None,
        };
        ev.error_help(title, arg.span, message, help)
    }

    /// A tensor.
    pub fn tensor(&self, ev: &mut Evaluator, name: &str) -> Eval<NodeId> {
        match self.value(name) {
            Value::Tensor(n) => Ok(*n),
            _ => Err(self.wrong(ev, name, "a tensor")),
        }
    }

    /// A tensor or `none`.
    pub fn optional_tensor(&self, ev: &mut Evaluator, name: &str) -> Eval<Option<NodeId>> {
        if self.is_none(name) { Ok(None) } else { self.tensor(ev, name).map(Some) }
    }

    /// A tensor, or a number as one of an element type.
    pub fn operand(&self, ev: &mut Evaluator, name: &str, dtype: DType) -> Eval<NodeId> {
        let arg = self.get(name);
        ev.as_tensor(&arg.value, dtype, arg.span)
    }

    /// The type of a tensor argument.
    pub fn ty(&self, ev: &mut Evaluator, name: &str) -> Eval<TensorType> {
        let n = self.tensor(ev, name)?;
        Ok(ev.graph.node(n).ty.clone())
    }

    /// An integer of at least `least`.
    pub fn count(&self, ev: &mut Evaluator, name: &str, least: i64) -> Eval<usize> {
        match self.value(name) {
            Value::Int(n) if *n >= least => Ok(usize::try_from(*n).unwrap_or(usize::MAX)),
            _ => Err(self.wrong(ev, name, &format!("an integer of at least {least}"))),
        }
    }

    /// A number.
    pub fn number(&self, ev: &mut Evaluator, name: &str) -> Eval<f64> {
        match self.value(name).as_number() {
            Some(x) => Ok(x),
            None => Err(self.wrong(ev, name, "a number")),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, ev: &mut Evaluator, name: &str) -> Eval<bool> {
        match self.value(name) {
            Value::Bool(b) => Ok(*b),
            _ => Err(self.wrong(ev, name, "true or false")),
        }
    }

    /// Height and width, at least 1: `3`, `3x5` or `[3, 5]`.
    pub fn size(&self, ev: &mut Evaluator, name: &str, least: i64) -> Eval<[usize; 2]> {
        let pair = match self.value(name) {
            Value::Int(n) => Some((*n, *n)),
            Value::Pair(h, w) => Some((*h, *w)),
            Value::List(items) => match items[..] {
                [Value::Int(h), Value::Int(w)] => Some((h, w)),
                _ => None,
            },
            _ => None,
        };
        let expected = format!("a size such as 3 or 3x5, of at least {least}");
        match pair.filter(|&(h, w)| h >= least && w >= least) {
            Some((h, w)) => Ok([h as usize, w as usize]),
            None => Err(self.wrong(ev, name, &expected)),
        }
    }

    /// An axis of a tensor of that rank; negative ones count from the end.
    pub fn axis(&self, ev: &mut Evaluator, name: &str, rank: usize) -> Eval<usize> {
        let arg = self.get(name);
        let Value::Int(i) = arg.value else { return Err(self.wrong(ev, name, "an axis: an integer")) };
        self.check_axis(ev, name, i, rank)
    }

    fn check_axis(&self, ev: &mut Evaluator, name: &str, i: i64, rank: usize) -> Eval<usize> {
        let n = rank as i64;
        if (-n..n).contains(&i) {
            return Ok((if i < 0 { i + n } else { i }) as usize);
        }
        let title = format!("`{name}` of `{}` must be from {} to {}, found {i}", self.function, -n, n - 1);
        Err(ev.error(title, self.get(name).span, format!("the tensor has rank {rank}")))
    }

    /// Axes: one, a list, or `none` for all; sorted.
    pub fn axes(&self, ev: &mut Evaluator, name: &str, rank: usize) -> Eval<Vec<usize>> {
        let mut axes = match self.value(name) {
            Value::None => (0..rank).collect(),
            Value::Int(i) => vec![self.check_axis(ev, name, *i, rank)?],
            Value::List(items) => {
                let mut axes = vec![];
                for item in items.iter() {
                    let Value::Int(i) = item else { return Err(self.wrong(ev, name, "a list of integers")) };
                    axes.push(self.check_axis(ev, name, *i, rank)?);
                }
                axes
            }
            _ => return Err(self.wrong(ev, name, "an axis or a list of axes")),
        };
        axes.sort_unstable();
        if axes.windows(2).any(|w| w[0] == w[1]) {
            return Err(self.wrong(ev, name, "a list in which every axis stands once"));
        }
        Ok(axes)
    }

    /// A shape: a list of sizes.
    pub fn shape(&self, ev: &mut Evaluator, name: &str) -> Eval<Shape> {
        let dims: Option<Vec<Dim>> = match self.value(name) {
            Value::List(items) => items.iter().map(Value::as_dim).collect(),
            _ => None,
        };
        dims.ok_or_else(|| self.wrong(ev, name, "a shape: a list of sizes"))
    }

    /// Adds the operation that the call stands for.
    pub fn add(&self, ev: &mut Evaluator, op: Op, operands: &[NodeId]) -> Eval<Value> {
        ev.add(op, operands, self.function, &self.site).map(Value::Tensor)
    }
}
