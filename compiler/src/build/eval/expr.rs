//! Expressions: literals, names, pipes, `as`, `if`, strings.

use nnc_dsl::Span;
use nnc_dsl::ast::{Arg, Expr, ExprKind, Path, PathPart, StrPart};
use nnc_runtime::DType;

use super::super::hints;
use super::super::modules::std_module_with;
use super::super::values::{Argument, Callable, Eval, Reported, Value};
use super::{Evaluator, Site};
use crate::graph::Op;

/// Longest list that a range may make.
const MAX_RANGE: i64 = 1_000_000;

impl Evaluator<'_> {
    /// The value of an expression.
    pub(crate) fn expr(&mut self, e: &Expr) -> Eval<Value> {
        self.tick(e.span)?;
        self.deeper(e.span, |ev| ev.expr_kind(e))
    }

    fn expr_kind(&mut self, e: &Expr) -> Eval<Value> {
        match &e.kind {
            ExprKind::Int(n) => Ok(Value::Int(*n)),
            ExprKind::Float(x) => Ok(Value::Float(*x)),
            ExprKind::Bool(b) => Ok(Value::Bool(*b)),
            ExprKind::Str(parts) => Ok(Value::string(&self.string(parts)?)),
            ExprKind::Pair(h, w) => Ok(Value::Pair(*h, *w)),
            ExprKind::Name(name) => self.name(name, e.span),
            ExprKind::List(items) => Ok(Value::list(self.all(items)?)),
            ExprKind::Tuple(items) => Ok(Value::tuple(self.all(items)?)),
            ExprKind::Paren(inner) => self.expr(inner),
            ExprKind::Unary(op, a) => self.unary(*op, a, e.span),
            ExprKind::Binary(op, a, b) => self.binary(*op, a, b, e.span),
            ExprKind::Range(a, b) => self.range(a, b, e.span),
            ExprKind::Call { callee, args } => self.call_expr(callee, args, Site::at(e.span)),
            ExprKind::Pipe { .. } => self.pipe(e),
            ExprKind::As { value, path } => self.named(value, path),
            ExprKind::Index { value, subscripts } => self.index(value, subscripts, e.span),
            ExprKind::Field { value, name } => self.field(value, name),
            ExprKind::If { arms, otherwise } => {
                for (condition, body) in arms {
                    if self.condition(condition)? {
                        return self.block(body);
                    }
                }
                otherwise.as_ref().map_or(Ok(Value::Unit), |b| self.block(b))
            }
            ExprKind::Error => Err(Reported),
        }
    }

    /// All values, so that every error among them is found.
    fn all(&mut self, items: &[Expr]) -> Eval<Vec<Value>> {
        let values: Vec<Eval<Value>> = items.iter().map(|e| self.expr(e)).collect();
        values.into_iter().collect()
    }

    /// A condition: known while the program is built.
    pub(super) fn condition(&mut self, e: &Expr) -> Eval<bool> {
        match self.expr(e)? {
            Value::Bool(b) => Ok(b),
            Value::Tensor(_) => Err(self.error_help(
                "a condition must be known when the program is compiled",
                e.span,
                "expected true or false, found a tensor",
                Some("`where(condition, a, b)` chooses between tensors element by element".to_string()),
            )),
            other => {
                let message = format!("expected true or false, found {}", other.describe(&self.graph));
                Err(self.error("a condition must be true or false", e.span, message))
            }
        }
    }

    pub(super) fn string(&mut self, parts: &[StrPart]) -> Eval<String> {
        let mut out = String::new();
        for part in parts {
            match part {
                StrPart::Text(text) => out.push_str(text),
                StrPart::Expr(e) => {
                    let value = self.expr(e)?;
                    out.push_str(&value.show(&self.graph));
                    self.charge(out.len(), e.span)?;
                }
            }
        }
        Ok(out)
    }

    fn range(&mut self, a: &Expr, b: &Expr, span: Span) -> Eval<Value> {
        let (from, to) = (self.integer(a)?, self.integer(b)?);
        if to.saturating_sub(from) > MAX_RANGE {
            let message = format!("{from}..{to}");
            return Err(self.error(format!("a range may have at most {MAX_RANGE} elements"), span, message));
        }
        self.charge(to.saturating_sub(from).max(0) as usize, span)?;
        Ok(Value::list((from..to).map(Value::Int).collect()))
    }

    /// The value of an expression that must be an integer.
    pub(super) fn integer(&mut self, e: &Expr) -> Eval<i64> {
        match self.expr(e)? {
            Value::Int(n) => Ok(n),
            other => Err(self.not_an_integer(&other, e.span)),
        }
    }

    pub(super) fn not_an_integer(&mut self, found: &Value, span: Span) -> Reported {
        let message = format!("found {}", found.describe(&self.graph));
        let help = match found {
            Value::Dim(d) => self.set_hint(d),
            _ => None,
        };
        self.error_help("expected an integer known when the program is compiled", span, message, help)
    }

    /// How to make a symbolic size known.
    pub(crate) fn set_hint(&self, d: &crate::graph::Dim) -> Option<String> {
        let sets: Vec<String> = d.symbols().iter().map(|s| format!("`--set {s}=…`")).collect();
        Some(format!("make it known with {}", sets.join(" ")))
    }

    /// What a name stands for.
    fn name(&mut self, name: &str, span: Span) -> Eval<Value> {
        if let Some(value) = self.frame().get(name) {
            return if matches!(value, Value::Error) { Err(Reported) } else { Ok(value.clone()) };
        }
        match name {
            "training" => return Ok(Value::Bool(self.training)),
            "none" => return Ok(Value::None),
            _ => {}
        }
        if let Some(dtype) = DType::from_name(name) {
            return Ok(Value::DType(dtype));
        }
        if let Some(f) = self.modules.find(self.frame().function.module, name) {
            return Ok(Value::Function(Callable::User(f.clone())));
        }
        if let Some(b) = self.builtins.get(name) {
            return Ok(Value::Function(Callable::Builtin(b.clone())));
        }
        if let Some(value) = self.symbols.last().and_then(|s| s.get(name)) {
            return Ok(value.clone());
        }
        Err(self.unknown_name(name, span))
    }

    fn unknown_name(&mut self, name: &str, span: Span) -> Reported {
        let help = self.unknown_name_hint(name);
        self.error_help(format!("unknown name `{name}`"), span, "not found in this scope", help)
    }

    fn unknown_name_hint(&self, name: &str) -> Option<String> {
        if let Some(module) = std_module_with(name) {
            return Some(format!("`{name}` is in the standard library: add `use {module}`"));
        }
        if self.names.is_claimed(name) {
            return Some(format!(
                "`as {name}` names a layer; bind its value with `let {name} = …` to use it"
            ));
        }
        let frame = self.frame();
        let candidates = frame
            .names()
            .chain(self.modules.visible(frame.function.module))
            .chain(self.builtins.keys().copied())
            .chain(self.symbols.last().into_iter().flat_map(|s| s.keys().map(String::as_str)));
        hints::did_you_mean(name, candidates).or_else(|| {
            let symbolic = name.chars().next().is_some_and(char::is_uppercase);
            symbolic.then(|| format!("a symbolic size such as `{name}` must stand in an input's shape first"))
        })
    }

    /// `a -> f -> g`: without recursion, however long the chain is.
    fn pipe(&mut self, e: &Expr) -> Eval<Value> {
        let mut stages = vec![];
        let mut head = e;
        while let ExprKind::Pipe { value, stage } = &head.kind {
            stages.push(&**stage);
            head = value;
        }
        let mut value = self.expr(head);
        let mut span = head.span;
        for stage in stages.into_iter().rev() {
            self.tick(stage.span)?;
            value = match value {
                Ok(value) => {
                    let first = Argument { name: None, value, span };
                    self.deeper(stage.span, |ev| ev.stage(first, stage))
                }
                Err(Reported) => {
                    self.check_stage(stage);
                    Err(Reported)
                }
            };
            span = stage.span;
        }
        value
    }

    fn stage(&mut self, first: Argument, stage: &Expr) -> Eval<Value> {
        let mut site = Site::at(stage.span);
        let mut inner = stage;
        if let ExprKind::As { value, path } = &stage.kind {
            site.name = Some((self.path(path)?, path.span));
            inner = value;
            site.span = value.span;
        }
        match &inner.kind {
            ExprKind::Call { callee, args } => {
                let callee_value = self.expr(callee);
                let rest = self.arguments(args);
                let mut arguments = vec![first];
                arguments.extend(rest?);
                self.call(callee_value?, arguments, site)
            }
            _ => {
                let callee = self.expr(inner)?;
                self.call(callee, vec![first], site)
            }
        }
    }

    /// Finds what is wrong in a stage into which an erroneous value flows.
    fn check_stage(&mut self, stage: &Expr) {
        let inner = if let ExprKind::As { value, .. } = &stage.kind { value } else { stage };
        match &inner.kind {
            ExprKind::Call { callee, args } => {
                let _ = self.expr(callee);
                let _ = self.arguments(args);
            }
            ExprKind::Name(_) => {
                let _ = self.expr(inner);
            }
            _ => {}
        }
    }

    fn call_expr(&mut self, callee: &Expr, args: &[Arg], site: Site) -> Eval<Value> {
        let callee = self.expr(callee);
        let arguments = self.arguments(args);
        self.call(callee?, arguments?, site)
    }

    /// The arguments of a call; all are evaluated, so that every error among them is found.
    pub(super) fn arguments(&mut self, args: &[Arg]) -> Eval<Vec<Argument>> {
        let evaluated: Vec<Eval<Argument>> = args
            .iter()
            .map(|a| {
                let value = self.expr(&a.value)?;
                Ok(Argument { name: a.name.clone(), value, span: a.value.span })
            })
            .collect();
        evaluated.into_iter().collect()
    }

    /// `conv(x, 32, 3) as stem`, `(a + b) as sum`.
    fn named(&mut self, value: &Expr, path: &Path) -> Eval<Value> {
        if let ExprKind::Call { callee, args } = &value.kind {
            let name = self.path(path)?;
            return self.call_expr(callee, args, Site { span: value.span, name: Some((name, path.span)) });
        }
        let result = self.expr(value);
        let name = self.path(path)?;
        let result = result?;
        self.tap(result, name, path.span)
    }

    /// Names a value that is there already.
    pub(crate) fn tap(&mut self, value: Value, name: String, span: Span) -> Eval<Value> {
        let Value::Tensor(node) = value else {
            let message = format!("found {}", value.describe(&self.graph));
            return Err(self.error("only layers and tensors can be named with `as`", span, message));
        };
        let full = self.claim(&name, span)?;
        if !matches!(self.graph.node(node).op, Op::Input | Op::Parameter(_)) {
            self.graph.node_mut(node).name = full;
        }
        Ok(value)
    }

    /// The text of a path, its computed parts put in.
    pub(super) fn path(&mut self, path: &Path) -> Eval<String> {
        let mut out = String::new();
        for (i, part) in path.parts.iter().enumerate() {
            if i > 0 {
                out.push('.');
            }
            match part {
                PathPart::Name(n) => out.push_str(n),
                PathPart::Expr(e) => match self.expr(e)? {
                    value @ (Value::Int(_) | Value::Str(_)) => out.push_str(&value.show(&self.graph)),
                    other => {
                        let message =
                            format!("expected an integer or a string, found {}", other.describe(&self.graph));
                        return Err(self.error("a part of a name is no name", e.span, message));
                    }
                },
            }
        }
        Ok(out)
    }
}
