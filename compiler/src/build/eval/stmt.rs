//! Statements, and blocks of them.

use std::sync::Arc;

use nnc_dsl::Span;
use nnc_dsl::ast::{Block, Expr, ExprKind, Ident, Stmt, StmtKind, TensorType as TypeSyntax};
use nnc_runtime::DType;

use super::super::hints;
use super::super::values::{Callable, Eval, Layer, Reported, Value};
use super::Evaluator;
use crate::graph::op::Literal;
use crate::graph::{Dim, Op, Shape, TensorType};

impl Evaluator<'_> {
    /// The value of a block: of its last statement, if that is an expression.
    pub(crate) fn block(&mut self, block: &Block) -> Eval<Value> {
        self.frame_mut().open();
        let value = self.statements(block);
        self.frame_mut().close();
        value
    }

    /// The same without a scope of its own. Goes on after an error, to find others.
    pub(in super::super) fn statements(&mut self, block: &Block) -> Eval<Value> {
        let mut result = Ok(Value::Unit);
        for stmt in &block.stmts {
            let value = self.deeper(stmt.span, |ev| ev.stmt(stmt));
            if self.stopped {
                return Err(Reported);
            }
            // What a `require` guards would only be said again, in other words; and a layer of
            // the library says one thing of one use.
            if value.is_err() && (self.in_std() || matches!(stmt.kind, StmtKind::Require { .. })) {
                return value;
            }
            result = match (result, value) {
                (Err(r), _) | (_, Err(r)) => Err(r),
                (Ok(_), value) => value,
            };
        }
        result
    }

    fn stmt(&mut self, stmt: &Stmt) -> Eval<Value> {
        self.tick(stmt.span)?;
        match &stmt.kind {
            StmtKind::Expr(e) => return self.expr(e),
            StmtKind::Let { names, value } => {
                let value = self.expr(value);
                self.bind(names, value, stmt.span)?;
            }
            StmtKind::Assign { names, value } => self.assign(names, value, stmt.span)?,
            StmtKind::Input { name, ty } => self.input(name, ty, stmt.span)?,
            StmtKind::Output { name, value } => self.output(name, value, stmt.span)?,
            StmtKind::Layer { name, value } => {
                let layer = self.layer(name, value);
                self.bind_one(name, layer)?;
            }
            StmtKind::Param { name, ty, init, trainable } => {
                let value = self.parameter(name, ty, init.as_ref(), *trainable, stmt.span);
                self.bind_one(name, value)?;
            }
            StmtKind::Const { name, value } => {
                let value = self.constant(name, value);
                self.bind_one(name, value)?;
            }
            StmtKind::Repeat { count, body } => {
                let n = self.integer(count)?;
                if n < 0 {
                    let title = "expected a count of at least 0";
                    return Err(self.error(title, count.span, format!("found {n}")));
                }
                for _ in 0..n {
                    self.tick(body.span)?;
                    self.block(body)?;
                }
            }
            StmtKind::For { names, iter, body } => self.for_loop(names, iter, body)?,
            StmtKind::Require { condition, message } => self.require(condition, message.as_ref())?,
            StmtKind::Train(body) => self.train_section(body, stmt.span)?,
            StmtKind::Metric { name, value } => self.metric(name, value, stmt.span)?,
        }
        Ok(Value::Unit)
    }

    /// Binds a name; an error makes it an erroneous one, so that its uses stay silent.
    pub(in super::super) fn bind_one(&mut self, name: &Ident, value: Eval<Value>) -> Eval<()> {
        let (value, result) = match value {
            Ok(value) => (value, Ok(())),
            Err(r) => (Value::Error, Err(r)),
        };
        self.frame_mut().bind(&name.name, value);
        result
    }

    fn bind(&mut self, names: &[Ident], value: Eval<Value>, span: Span) -> Eval<()> {
        match self.split(names, value, span) {
            Ok(parts) => {
                for (name, part) in names.iter().zip(parts) {
                    self.frame_mut().bind(&name.name, part);
                }
                Ok(())
            }
            Err(r) => {
                for name in names {
                    self.frame_mut().bind(&name.name, Value::Error);
                }
                Err(r)
            }
        }
    }

    /// A value for each of several names.
    fn split(&mut self, names: &[Ident], value: Eval<Value>, span: Span) -> Eval<Vec<Value>> {
        let value = value?;
        if let [name] = names {
            if matches!(value, Value::Unit) {
                let title = format!("`{}` is given a value that is none", name.name);
                return Err(self.error_help(
                    title,
                    span,
                    "this gives nothing",
                    Some(
                        "a block's value is that of its last statement, if that is an expression".to_string(),
                    ),
                ));
            }
            return Ok(vec![value]);
        }
        let parts = match &value {
            Value::Tuple(t) => t.parts.clone(),
            Value::List(items) => items.to_vec(),
            Value::Pair(h, w) => vec![Value::Int(*h), Value::Int(*w)],
            other => {
                let title = format!("expected {} values, found one", names.len());
                let message = format!("this is {}", other.describe(&self.graph));
                return Err(self.error(title, span, message));
            }
        };
        if parts.len() != names.len() {
            let title = format!("expected {} values, found {}", names.len(), parts.len());
            return Err(self.error(title, span, "a name each is needed"));
        }
        Ok(parts)
    }

    fn assign(&mut self, names: &[Ident], value: &Expr, span: Span) -> Eval<()> {
        if let Some(result) = self.train_assign(names, value) {
            return result;
        }
        let value = self.expr(value);
        let parts = match self.split(names, value, span) {
            Ok(parts) => parts,
            Err(r) => {
                for name in names {
                    self.frame_mut().rebind(&name.name, Value::Error);
                }
                return Err(r);
            }
        };
        let mut result = Ok(());
        for (name, part) in names.iter().zip(parts) {
            if !self.frame_mut().rebind(&name.name, part) {
                let known: Vec<String> = self.frame().names().map(str::to_string).collect();
                let help = hints::did_you_mean(&name.name, known.iter().map(String::as_str))
                    .unwrap_or_else(|| format!("`let {} = …` introduces a name", name.name));
                let title = format!("`{}` is not bound here", name.name);
                result = Err(self.error_help(
                    title,
                    name.span,
                    "only a name that exists can be re-bound",
                    Some(help),
                ));
                self.frame_mut().bind(&name.name, Value::Error);
            }
        }
        result
    }

    fn for_loop(&mut self, names: &[Ident], iter: &Expr, body: &Block) -> Eval<()> {
        let items = match self.expr(iter)? {
            Value::List(items) => items,
            other => {
                let message = format!("this is {}", other.describe(&self.graph));
                let help = matches!(other, Value::Int(_)).then(|| "a range is written `0..n`".to_string());
                return Err(self.error_help("expected a list or a range", iter.span, message, help));
            }
        };
        for item in items.iter() {
            self.tick(body.span)?;
            self.frame_mut().open();
            let bound = self.bind(names, Ok(item.clone()), iter.span);
            let done = bound.and_then(|()| self.block(body));
            self.frame_mut().close();
            done?;
        }
        Ok(())
    }

    /// `require`: the author's own message, at the place of use.
    fn require(&mut self, condition: &Expr, message: Option<&Expr>) -> Eval<()> {
        if self.condition(condition)? {
            return Ok(());
        }
        let text = match message.map(|m| self.expr(m)).transpose()? {
            Some(value) => value.show(&self.graph),
            None => format!("required: {}", self.map.text(condition.span)),
        };
        let frame = self.frame();
        let name = frame.function.ast.name.name.clone();
        if frame.root {
            return Err(self.error(text, condition.span, "this does not hold"));
        }
        let call = frame.call;
        let mut d = self.located(text, call, format!("in this use of `{name}`"));
        let user = self.user_span(call);
        d.secondary.retain(|l| l.span != user);
        let place = format!(
            "`{name}` requires `{}`, {}",
            self.map.text(condition.span),
            self.map.location(condition.span)
        );
        d.notes.push(place);
        Err(self.report(d))
    }

    /// `layer embed = conv(32, 3)`
    fn layer(&mut self, name: &Ident, value: &Expr) -> Eval<Value> {
        let (inner, path) = match &value.kind {
            ExprKind::As { value, path } => (&**value, Some(path)),
            _ => (value, None),
        };
        let (callee, args) = match &inner.kind {
            ExprKind::Call { callee, args } => {
                let callee_value = self.expr(callee);
                let args = self.arguments(args);
                (callee_value?, args?)
            }
            _ => (self.expr(inner)?, vec![]),
        };
        let callee: Callable = match callee {
            Value::Function(f) => f,
            other => {
                let message = format!("this is {}", other.describe(&self.graph));
                let help = "a layer is a call without what flows in: `layer embed = conv(32, 3)`".to_string();
                return Err(self.error_help(
                    "expected a layer, a block or a net",
                    inner.span,
                    message,
                    Some(help),
                ));
            }
        };
        let (text, span) = match path {
            Some(path) => (self.path(path)?, path.span),
            None => (name.name.clone(), name.span),
        };
        let path = self.claim(&text, span)?;
        Ok(Value::Layer(std::rc::Rc::new(Layer { callee, args, path, applied: std::cell::Cell::new(false) })))
    }

    /// `const w = [[1, 0], [0, 1]]`
    fn constant(&mut self, name: &Ident, value: &Expr) -> Eval<Value> {
        let list = self.expr(value)?;
        if let Value::Tensor(_) = list {
            let title = format!("`const {}` must be numbers, found a tensor", name.name);
            return Err(self.error_help(title, value.span, "not a literal", Some("use `let`".to_string())));
        }
        let mut data = vec![];
        let mut shape: Vec<usize> = vec![];
        self.flatten_list(&list, 0, &mut shape, &mut data, value.span)?;
        let boolean = data.iter().all(|(_, b)| *b) && !data.is_empty();
        if !boolean && data.iter().any(|(_, b)| *b) {
            return Err(self.error(
                "a literal tensor holds numbers or truth values, not both",
                value.span,
                "",
            ));
        }
        let dtype = if boolean { DType::Bool } else { DType::F32 };
        let data: Arc<[f64]> = data.into_iter().map(|(x, _)| x).collect();
        let full = self.names.join(&name.name);
        self.add_source(Op::Constant(Literal::Dense(data)), TensorType::new(dtype, &shape), &full, value.span)
            .map(Value::Tensor)
    }

    fn flatten_list(
        &mut self,
        value: &Value,
        depth: usize,
        shape: &mut Vec<usize>,
        data: &mut Vec<(f64, bool)>,
        span: Span,
    ) -> Eval<()> {
        self.tick(span)?;
        match value {
            Value::List(items) => {
                let first = data.is_empty() && shape.len() == depth;
                if first {
                    shape.push(items.len());
                }
                if items.is_empty() || shape.get(depth) != Some(&items.len()) {
                    let title = "the rows of a literal tensor must have the same length, at least 1";
                    let expected = shape.get(depth).copied().unwrap_or(0);
                    let message = format!("expected {expected} elements in every row, found {}", items.len());
                    return Err(self.error(title, span, message));
                }
                items.iter().try_for_each(|i| self.flatten_list(i, depth + 1, shape, data, span))
            }
            Value::Int(_) | Value::Float(_) | Value::Bool(_) if shape.len() == depth => {
                let (x, boolean) = match value {
                    Value::Bool(b) => (f64::from(u8::from(*b)), true),
                    other => (other.as_number().unwrap_or(0.0), false),
                };
                data.push((x, boolean));
                Ok(())
            }
            other => {
                let message = format!("found {}", other.describe(&self.graph));
                Err(self.error(
                    "a literal tensor is a list of numbers, or of such lists of the same shape",
                    span,
                    message,
                ))
            }
        }
    }

    /// The element type of a type in the text.
    pub(in super::super) fn dtype(&mut self, ty: &TypeSyntax) -> Eval<DType> {
        DType::from_name(&ty.dtype.name).ok_or_else(|| {
            let names = ["f32", "f64", "i32", "bool"];
            let help = hints::did_you_mean(&ty.dtype.name, names)
                .unwrap_or_else(|| "there are `f32`, `f64`, `i32` and `bool`".to_string());
            self.error_help(
                format!("unknown element type `{}`", ty.dtype.name),
                ty.dtype.span,
                "",
                Some(help),
            )
        })
    }

    /// The sizes of a type in the text. `declare`: a capitalised name that is not known becomes a
    /// symbol, as in an input.
    pub(in super::super) fn sizes(&mut self, ty: &TypeSyntax, declare: bool) -> Eval<Shape> {
        let dims: Vec<Eval<Dim>> = ty.dims.iter().map(|e| self.size(e, declare)).collect();
        dims.into_iter().collect()
    }

    fn size(&mut self, e: &Expr, declare: bool) -> Eval<Dim> {
        if let ExprKind::Name(name) = &e.kind
            && declare
            && self.frame().get(name).is_none()
            && name.chars().next().is_some_and(char::is_uppercase)
        {
            return self.symbol(name, e.span);
        }
        let value = self.expr(e)?;
        match value.as_dim() {
            Some(d) if d.known().is_none_or(|n| n >= 1) => Ok(d),
            Some(d) => Err(self.error("a size must be at least 1", e.span, format!("this is {d}"))),
            None => {
                let message = format!("found {}", value.describe(&self.graph));
                Err(self.error("expected a size: an integer or a symbol such as `N`", e.span, message))
            }
        }
    }

    /// The size that a symbol stands for in the net being evaluated.
    fn symbol(&mut self, name: &str, span: Span) -> Eval<Dim> {
        if let Some(known) = self.symbols.last().and_then(|s| s.get(name)).and_then(Value::as_dim) {
            return Ok(known);
        }
        let value = match self.sets.get(name).filter(|_| self.symbols.len() == 1) {
            Some(text) => match text.trim().parse::<i64>() {
                Ok(n) if n >= 1 => Value::Int(n),
                _ => {
                    let message = format!("`--set {name}={text}`");
                    let title = format!("expected a size of at least 1 for `{name}`, found `{text}`");
                    return Err(self.error(title, span, message));
                }
            },
            None => Value::Dim(Dim::symbol(name)),
        };
        if let Some(symbols) = self.symbols.last_mut() {
            symbols.insert(name.to_string(), value.clone());
        }
        Ok(value.as_dim().unwrap_or_else(|| Dim::symbol(name)))
    }
}
