//! Calls: arguments meet parameters; blocks, nets and shared layers are expanded.

use std::rc::Rc;

use nnc_dsl::Span;
use nnc_dsl::ast::{Expr, Ident, Param, TensorType as TypeSyntax};

use super::builtins::initialiser;
use super::eval::{Evaluator, ParameterRecord, Site};
use super::hints;
use super::modules::FunctionDef;
use super::scope::Frame;
use super::sets;
use super::values::{Argument, Callable, Eval, Layer, Reported, Tuple, Value};
use crate::graph::op::Parameter;
use crate::graph::{Op, Output, TensorType};

/// Calls inside calls: blocks that call themselves without end are stopped here.
const MAX_CALLS: usize = 128;

/// How the names inside a use of a block are found.
enum Naming {
    /// The site's name, else a number if the block has parameters, else those of the caller.
    OfSite,
    /// A shared layer: its path, and whether it was applied before.
    Shared { path: String, reuse: bool },
}

impl Evaluator<'_> {
    /// Calls something.
    pub(super) fn call(&mut self, callee: Value, args: Vec<Argument>, site: Site) -> Eval<Value> {
        match callee {
            Value::Function(Callable::User(f)) => self.call_user(&f, args, site, Naming::OfSite),
            Value::Function(Callable::Builtin(b)) => self.call_builtin(&b, args, site),
            Value::Layer(layer) => self.apply(&layer, args, site),
            other => {
                let message = format!("this is {}", other.describe(&self.graph));
                Err(self.error("expected a layer, a block or a function", site.span, message))
            }
        }
    }

    /// Applies a shared layer: what flows in, then the arguments of its declaration.
    fn apply(&mut self, layer: &Rc<Layer>, mut args: Vec<Argument>, site: Site) -> Eval<Value> {
        args.extend(layer.args.iter().cloned());
        let reuse = layer.applied.replace(true);
        let inner = Site::at(site.span);
        let value = match &layer.callee {
            Callable::User(f) => {
                self.call_user(f, args, inner, Naming::Shared { path: layer.path.clone(), reuse })?
            }
            Callable::Builtin(b) => {
                self.names.enter(layer.path.clone(), reuse);
                let value = self.call_builtin(b, args, inner);
                self.names.leave();
                value?
            }
        };
        match site.name {
            Some((name, span)) => self.tap(value, name, span),
            None => Ok(value),
        }
    }

    fn call_user(
        &mut self,
        f: &Rc<FunctionDef>,
        args: Vec<Argument>,
        site: Site,
        naming: Naming,
    ) -> Eval<Value> {
        if self.frames.len() >= MAX_CALLS {
            return Err(self.endless(f, site.span));
        }
        let mut frame = Frame::new(Rc::clone(f), site.span);
        let args = if f.is_net { self.net_inputs(f, args, &mut frame) } else { args };
        let bound = self.match_arguments(f, args, site.span)?;
        let entered = self.enter_names(f, naming, &site)?;
        for (param, arg) in f.ast.params.iter().zip(&bound) {
            if let Some(arg) = arg {
                frame.arguments.insert(param.name.name.clone(), self.blamed(arg.span).1);
            }
        }
        self.frames.push(frame);
        if f.is_net {
            self.symbols.push(Default::default());
        }
        let result = self.call_body(f, bound);
        if f.is_net {
            self.symbols.pop();
        }
        let frame = self.frames.pop();
        if entered {
            self.names.leave();
        }
        let value = result?;
        match frame {
            Some(frame) if f.is_net => self.net_result(frame),
            _ => Ok(value),
        }
    }

    fn call_body(&mut self, f: &Rc<FunctionDef>, bound: Vec<Option<Argument>>) -> Eval<Value> {
        for (param, value) in f.ast.params.iter().zip(bound) {
            let value = match (value, &param.default) {
                (Some(arg), _) => arg.value,
                (None, Some(default)) => self.expr(default)?,
                (None, None) => Value::Error,
            };
            self.frame_mut().bind(&param.name.name, value);
        }
        self.deeper(f.ast.body.span, |ev| ev.statements(&f.ast.body))
    }

    /// Opens the scope of names of a use; whether there is one.
    fn enter_names(&mut self, f: &FunctionDef, naming: Naming, site: &Site) -> Eval<bool> {
        let (path, reuse) = match (naming, &site.name) {
            (Naming::Shared { path, reuse }, _) => (path, reuse),
            (Naming::OfSite, Some((name, span))) => (self.claim(name, *span)?, false),
            (Naming::OfSite, None) => {
                let library_use = f.std && !self.in_std();
                if !f.is_layer && !library_use {
                    return Ok(false);
                }
                (self.names.number(f.kind(), site.span), false)
            }
        };
        self.names.enter(path, reuse);
        Ok(true)
    }

    /// Puts arguments to parameters: by position, then by name. A default is evaluated later, in
    /// the scope of the function.
    fn match_arguments(
        &mut self,
        f: &FunctionDef,
        args: Vec<Argument>,
        call: Span,
    ) -> Eval<Vec<Option<Argument>>> {
        let names: Vec<&str> = f.ast.params.iter().map(|p| p.name.name.as_str()).collect();
        let required: Vec<bool> = f.ast.params.iter().map(|p: &Param| p.default.is_none()).collect();
        let declared = Declaration {
            name: &f.ast.name.name,
            head: Some(f.ast.name.span),
            names: &names,
            required: &required,
        };
        self.match_names(&declared, args, call)
    }

    /// The same for any declaration; also used for built-in functions.
    pub(super) fn match_names(
        &mut self,
        declared: &Declaration,
        args: Vec<Argument>,
        call: Span,
    ) -> Eval<Vec<Option<Argument>>> {
        let mut slots: Vec<Option<Argument>> = declared.names.iter().map(|_| None).collect();
        let mut failed = false;
        let positional = args.iter().filter(|a| a.name.is_none()).count();
        let flows_in = args.first().is_some_and(|a| matches!(a.value, Value::Tensor(_)));
        for (next, arg) in args.into_iter().enumerate() {
            let slot = match &arg.name {
                None => next,
                Some(name) => match declared.names.iter().position(|n| *n == name.name) {
                    Some(i) => i,
                    None => {
                        self.unknown_argument(declared, name);
                        failed = true;
                        continue;
                    }
                },
            };
            match slots.get_mut(slot) {
                Some(s @ None) => *s = Some(arg),
                Some(Some(_)) => {
                    let title = format!("`{}` of `{}` is given twice", declared.names[slot], declared.name);
                    self.error(title, arg.name.map_or(arg.span, |n| n.span), "given again here");
                    failed = true;
                }
                None => {
                    let most = declared.names.len();
                    let plural = if most == 1 { "" } else { "s" };
                    let title = format!(
                        "`{}` takes at most {most} argument{plural}, found {positional}",
                        declared.name
                    );
                    let d = self.located(title, arg.span, "one too many");
                    let d = declared.label(d);
                    self.report(d);
                    return Err(Reported);
                }
            }
        }
        let missing: Vec<String> = (0..slots.len())
            .filter(|&i| slots[i].is_none() && declared.required[i])
            .map(|i| format!("`{}`", declared.names[i]))
            .collect();
        if !missing.is_empty() && !failed {
            let plural = if missing.len() == 1 { "" } else { "s" };
            let title = format!("`{}` misses the argument{plural} {}", declared.name, missing.join(", "));
            let mut d = declared.label(self.located(title, call, ""));
            if !flows_in && self.module_is_users(call) {
                d.help = Some(
                    "what flows in is the first argument: `x -> f(…)`; without it, a call makes a `layer`"
                        .to_string(),
                );
            }
            self.report(d);
            failed = true;
        }
        if failed { Err(Reported) } else { Ok(slots) }
    }

    fn unknown_argument(&mut self, declared: &Declaration, name: &Ident) {
        let title = format!("`{}` has no parameter `{}`", declared.name, name.name);
        let mut d = declared.label(self.located(title, name.span, "unknown parameter"));
        d.help = hints::did_you_mean(&name.name, declared.names.iter().copied()).or_else(|| {
            let list: Vec<String> = declared.names.iter().map(|n| format!("`{n}`")).collect();
            Some(format!("its parameters are {}", list.join(", ")))
        });
        self.report(d);
    }

    /// Recursion without end, with the calls that led there.
    fn endless(&mut self, f: &FunctionDef, span: Span) -> Reported {
        // The innermost function that is in progress several times; not a layer that it uses.
        let times = |name: &str| self.frames.iter().filter(|f| f.function.ast.name.name == name).count();
        let called = self.frames.iter().rev().find(|f| times(&f.function.ast.name.name) > 1);
        let (name, span) =
            called.map_or((f.ast.name.name.clone(), span), |f| (f.function.ast.name.name.clone(), f.call));
        let lines: Vec<String> = self
            .frames
            .iter()
            .rev()
            .take(4)
            .map(|f| format!("`{}`, {}", f.function.ast.name.name, self.map.location(f.call)))
            .collect();
        let title = format!("calls are nested more than {MAX_CALLS} deep: recursion without end");
        let mut d = self.located(title, span, format!("`{name}` is called again here"));
        d.secondary.clear();
        d = d.note(format!("the innermost calls are of\n  {}\n  …", lines.join("\n  ")));
        d.help = Some(
            "recursion must end while the program is compiled: let an argument shrink and stop with `if`"
                .to_string(),
        );
        self.report(d);
        self.stopped = true;
        Reported
    }

    /// Sorts out which arguments of a net are for its inputs: tensors by position, and those
    /// whose name is an input's.
    fn net_inputs(&mut self, f: &FunctionDef, args: Vec<Argument>, frame: &mut Frame) -> Vec<Argument> {
        let is_param = |n: &str| f.ast.params.iter().any(|p| p.name.name == n);
        let mut rest = vec![];
        for arg in args {
            match &arg.name {
                None if matches!(arg.value, Value::Tensor(_)) => frame.inputs.push_back(arg),
                Some(n) if matches!(arg.value, Value::Tensor(_)) && !is_param(&n.name) => {
                    frame.named_inputs.insert(n.name.clone(), arg.clone());
                }
                _ => rest.push(arg),
            }
        }
        rest
    }

    fn net_result(&mut self, frame: Frame) -> Eval<Value> {
        let extra = frame.inputs.front().or(frame.named_inputs.values().next());
        let name = frame.function.ast.name.name.clone();
        if let Some(extra) = extra {
            let title = format!("`{name}` has no further input");
            return Err(self.error(title, extra.span, "nothing takes this tensor"));
        }
        let mut outputs = frame.outputs;
        Ok(match outputs.len() {
            0 => Value::Unit,
            1 => outputs.remove(0).1,
            _ => {
                let (names, parts) = outputs.into_iter().unzip();
                Value::Tuple(Rc::new(Tuple { parts, names }))
            }
        })
    }

    /// Evaluates the net that is built.
    pub(super) fn run_root(&mut self, net: &Rc<FunctionDef>) {
        let mut frame = Frame::new(Rc::clone(net), net.ast.name.span);
        frame.root = true;
        self.frames.push(frame);
        self.check_sets(net);
        for param in &net.ast.params {
            let value = self.root_parameter(param);
            let _ = self.bind_one(&param.name, value);
        }
        let result = self.statements(&net.ast.body);
        if result.is_ok() && self.graph.outputs.is_empty() {
            let title = format!("the net `{}` has no output", net.ast.name.name);
            let help = "say what it computes: `output logits = …`".to_string();
            self.error_help(title, net.ast.name.span, "", Some(help));
        }
        self.frames.pop();
    }

    fn root_parameter(&mut self, param: &Param) -> Eval<Value> {
        let default = param.default.as_ref().map(|d| self.expr(d)).transpose()?;
        let name = &param.name.name;
        match self.sets.get(name) {
            Some(text) => sets::convert(text, default.as_ref()).map_err(|expected| {
                self.error(
                    format!("`--set {name}={text}`: {expected}"),
                    param.default.as_ref().map_or(param.name.span, |d| d.span),
                    "its default",
                )
            }),
            None => default.ok_or_else(|| {
                let help = format!("give it with `--set {name}=…`, or write a default");
                self.error_help(
                    format!("the parameter `{name}` has no value"),
                    param.name.span,
                    "",
                    Some(help),
                )
            }),
        }
    }

    /// Refuses `--set` of names that the net does not have.
    fn check_sets(&mut self, net: &FunctionDef) {
        let params: Vec<&str> = net.ast.params.iter().map(|p| p.name.name.as_str()).collect();
        let symbols = input_symbols(net);
        let unknown: Vec<&String> = self
            .sets
            .keys()
            .filter(|k| !params.contains(&k.as_str()) && !symbols.iter().any(|s| s == *k))
            .collect();
        for name in unknown {
            let known = params.iter().copied().chain(symbols.iter().copied());
            let title =
                format!("`--set {name}`: the net `{}` has no such parameter or size", net.ast.name.name);
            let help = hints::did_you_mean(name, known.clone()).or_else(|| {
                let mut list: Vec<String> = vec![];
                for shown in known.map(|n| format!("`{n}`")) {
                    if !list.contains(&shown) {
                        list.push(shown);
                    }
                }
                Some(if list.is_empty() {
                    "it has none".to_string()
                } else {
                    format!("it has {}", list.join(", "))
                })
            });
            self.error_help(title, net.ast.name.span, "", help);
        }
    }

    /// `input image: f32[N, 3, 224, 224]`: a tensor from outside, or from the net that calls.
    pub(super) fn input(&mut self, name: &Ident, ty: &TypeSyntax, span: Span) -> Eval<()> {
        if !self.frame().function.is_net {
            let help = "a block takes its tensors as arguments".to_string();
            return Err(self.error_help("`input` belongs in a net", span, "", Some(help)));
        }
        let value = if self.frame().root { self.root_input(name, ty) } else { self.passed_input(name, ty) };
        self.bind_one(name, value)
    }

    fn root_input(&mut self, name: &Ident, syntax: &TypeSyntax) -> Eval<Value> {
        let dtype = self.dtype(syntax);
        let shape = self.sizes(syntax, true)?;
        let ty = TensorType { dtype: dtype?, shape };
        let full = self.claim(&name.name, name.span)?;
        self.add_source(Op::Input, ty, &full, name.span.to(syntax.span)).map(Value::Tensor)
    }

    /// The tensor that a calling net passes, checked against the declared type: a symbol takes the
    /// size it finds.
    fn passed_input(&mut self, name: &Ident, syntax: &TypeSyntax) -> Eval<Value> {
        let dtype = self.dtype(syntax)?;
        let call = self.frame().call;
        let frame = self.frame_mut();
        let Some(arg) = frame.named_inputs.remove(&name.name).or_else(|| frame.inputs.pop_front()) else {
            let net = frame.function.ast.name.name.clone();
            let d = self.located(format!("`{net}` misses its input `{}`", name.name), call, "");
            let d = d.label(name.span, "declared here");
            return Err(self.report(d));
        };
        let Value::Tensor(node) = arg.value else { return Err(Reported) };
        let found = self.graph.node(node).ty.clone();
        let mut fits = found.dtype == dtype && found.rank() == syntax.dims.len();
        let mut expected = vec![];
        for (dim, size) in syntax.dims.iter().zip(&found.shape) {
            self.bind_symbol(dim, size);
            let d = self.sizes(&TypeSyntax { dims: vec![dim.clone()], ..syntax.clone() }, true)?;
            fits &= d.first() == Some(size);
            expected.extend(d);
        }
        if fits {
            return Ok(Value::Tensor(node));
        }
        let ty = TensorType { dtype, shape: expected };
        let ty = if found.rank() == syntax.dims.len() {
            ty.to_string()
        } else {
            self.map.text(syntax.span).to_string()
        };
        let mut d =
            self.located(format!("`{}` expects {ty}, found {found}", name.name), arg.span, "passed here");
        d.secondary.retain(|l| l.span != arg.span);
        let mut d = d.label(syntax.span, "declared here");
        if let Some(chain) = self.chain(node) {
            d.notes.insert(0, chain);
        }
        Err(self.report(d))
    }

    /// Lets a symbol that is not known yet stand for a size.
    fn bind_symbol(&mut self, dim: &Expr, size: &crate::graph::Dim) {
        let nnc_dsl::ast::ExprKind::Name(name) = &dim.kind else { return };
        if self.frame().get(name).is_some() || !name.chars().next().is_some_and(char::is_uppercase) {
            return;
        }
        if let Some(symbols) = self.symbols.last_mut() {
            symbols.entry(name.clone()).or_insert_with(|| Value::dim(size.clone()));
        }
    }

    /// `output logits = value`
    pub(super) fn output(&mut self, name: &Ident, value: &Expr, span: Span) -> Eval<()> {
        if !self.frame().function.is_net {
            let help = "a block's value is that of its last statement".to_string();
            return Err(self.error_help("`output` belongs in a net", span, "", Some(help)));
        }
        let result = match self.expr(value) {
            Ok(Value::Tensor(node)) => self.add_output(name, node),
            Ok(other) => {
                let message = format!("found {}", other.describe(&self.graph));
                Err(self.error(format!("the output `{}` must be a tensor", name.name), value.span, message))
            }
            Err(r) => Err(r),
        };
        self.bind_one(name, result)
    }

    fn add_output(&mut self, name: &Ident, node: crate::graph::NodeId) -> Eval<Value> {
        if self.frame().outputs.iter().any(|(n, _)| *n == name.name) {
            return Err(self.error(
                format!("two outputs are named `{}`", name.name),
                name.span,
                "again here",
            ));
        }
        let root = self.frame().root;
        self.frame_mut().outputs.push((name.name.clone(), Value::Tensor(node)));
        if root {
            self.graph.outputs.push(Output { name: name.name.clone(), node });
        }
        Ok(Value::Tensor(node))
    }

    /// `param weight: f32[..] = init`
    pub(super) fn parameter(
        &mut self,
        name: &Ident,
        syntax: &TypeSyntax,
        init: Option<&Expr>,
        trainable: bool,
        span: Span,
    ) -> Eval<Value> {
        let dtype = self.dtype(syntax);
        let shape = self.sizes(syntax, false)?;
        let ty = TensorType { dtype: dtype?, shape };
        let full = self.names.join(&name.name);
        if ty.sizes().is_none() {
            let unknown: Vec<String> = ty.shape.iter().flat_map(|d| d.symbols()).collect();
            let title = format!("the size of the parameter `{full}` is not known: {ty}");
            let help = unknown.first().map(|s| format!("make it known with `--set {s}=…`"));
            return Err(self.error_help(title, syntax.span, "depends on a symbolic size", help));
        }
        let init = match init {
            Some(e) => {
                let value = self.expr(e)?;
                initialiser(self, &value, e.span)?
            }
            None => nnc_runtime::program::Initializer::Constant(0.0),
        };
        if let Some(known) = self.parameters.get(&full) {
            let (node, first) = (known.node, known.span);
            return self.existing_parameter(&full, node, first, &ty, span);
        }
        let op = Op::Parameter(Parameter { init, trainable });
        let node = self.add_source(op, ty, &full, span)?;
        let span = self.user_span(span);
        self.parameters.insert(full, ParameterRecord { node, span });
        Ok(Value::Tensor(node))
    }

    /// A parameter whose name exists: that of a shared layer, if the type is the same.
    fn existing_parameter(
        &mut self,
        full: &str,
        node: crate::graph::NodeId,
        first: Span,
        ty: &TensorType,
        span: Span,
    ) -> Eval<Value> {
        if !self.names.reuse() {
            return Err(self.duplicate_name(full, span, first));
        }
        let known = self.graph.node(node).ty.clone();
        if known == *ty {
            return Ok(Value::Tensor(node));
        }
        let title = format!("the shared parameter `{full}` is {known}, this use needs {ty}");
        let d = self.located(title, span, "applied to another shape here");
        let d = d.label(first, "its shape was settled here");
        Err(self.report(d))
    }
}

/// What can be called, as far as its parameters go.
pub(super) struct Declaration<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its text, if it has one.
    pub head: Option<Span>,
    /// The parameters.
    pub names: &'a [&'a str],
    /// Which must be given.
    pub required: &'a [bool],
}

impl Declaration<'_> {
    /// Adds a label on the declaration.
    fn label(&self, d: nnc_dsl::Diagnostic) -> nnc_dsl::Diagnostic {
        match self.head {
            Some(head) => d.label(head, "declared here"),
            None => d.note(format!("it is `{}({})`", self.name, self.names.join(", "))),
        }
    }
}

/// The capitalised names in the shapes of a net's inputs.
fn input_symbols(net: &FunctionDef) -> Vec<&str> {
    use super::modules::{Seen, walk};
    use nnc_dsl::ast::{ExprKind, StmtKind};
    let mut out = vec![];
    walk(&net.ast.body, &mut |seen| {
        if let Seen::Stmt(StmtKind::Input { ty, .. }) = seen {
            for dim in &ty.dims {
                if let ExprKind::Name(n) = &dim.kind
                    && n.chars().next().is_some_and(char::is_uppercase)
                {
                    out.push(n.as_str());
                }
            }
        }
    });
    out
}
