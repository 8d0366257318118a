//! What expressions evaluate to.
//!
//! Everything but the numbers inside tensors is known while a program is built; a tensor is the
//! node that will compute it.

use std::rc::Rc;

use nnc_dsl::Span;
use nnc_runtime::DType;
use nnc_runtime::program::Initializer;

use super::builtins::Builtin;
use super::modules::FunctionDef;
use super::train::Spec;
use crate::graph::{Dim, Graph, NodeId};

/// An error was reported; nothing more is to be said of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reported;

/// The result of evaluating something.
pub(crate) type Eval<T> = Result<T, Reported>;

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// The value of something erroneous that was reported; silences what follows from it.
    Error,
    /// The value of a block without one.
    Unit,
    /// `none`: an optional argument that is not given.
    None,
    Int(i64),
    Float(f64),
    Bool(bool),
    Str(Rc<str>),
    /// Height and width.
    Pair(i64, i64),
    List(Rc<Vec<Value>>),
    Tuple(Rc<Tuple>),
    /// A size with a symbol in it (a known one is an `Int`).
    Dim(Dim),
    DType(DType),
    Tensor(NodeId),
    Layer(Rc<Layer>),
    Init(Initializer),
    Function(Callable),
    /// An optimizer, a schedule or a regularizer.
    Spec(Rc<Spec>),
}

/// Several results; those of a net have names.
#[derive(Clone, Debug)]
pub(crate) struct Tuple {
    /// The parts.
    pub parts: Vec<Value>,
    /// As many names, or none.
    pub names: Vec<String>,
}

/// Something that can be called.
#[derive(Clone, Debug)]
pub(crate) enum Callable {
    User(Rc<FunctionDef>),
    Builtin(Rc<Builtin>),
}

impl Callable {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Callable::User(f) => &f.ast.name.name,
            Callable::Builtin(b) => b.name,
        }
    }
}

/// `layer embed = conv(32, 3)`.
#[derive(Debug)]
pub(crate) struct Layer {
    /// What is applied.
    pub callee: Callable,
    /// The arguments after those that flow in.
    pub args: Vec<Argument>,
    /// The full path of its name.
    pub path: String,
    /// Whether it owns its parameters already.
    pub applied: std::cell::Cell<bool>,
}

/// An argument of a call.
#[derive(Clone, Debug)]
pub(crate) struct Argument {
    /// `k` of `k = c`.
    pub name: Option<nnc_dsl::ast::Ident>,
    /// Its value.
    pub value: Value,
    /// Its text.
    pub span: Span,
}

impl Value {
    /// A list.
    pub fn list(items: Vec<Value>) -> Value {
        Value::List(Rc::new(items))
    }

    /// A tuple without names.
    pub fn tuple(parts: Vec<Value>) -> Value {
        Value::Tuple(Rc::new(Tuple { parts, names: vec![] }))
    }

    /// A string.
    pub fn string(text: &str) -> Value {
        Value::Str(Rc::from(text))
    }

    /// A size: an integer where it is known.
    pub fn dim(d: Dim) -> Value {
        d.known().map_or(Value::Dim(d), Value::Int)
    }

    /// As a size, if it can be one.
    pub fn as_dim(&self) -> Option<Dim> {
        match self {
            Value::Int(n) => Some(Dim::constant(*n)),
            Value::Dim(d) => Some(d.clone()),
            _ => None,
        }
    }

    /// As a number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Int(n) => Some(*n as f64),
            Value::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// For messages: `the integer 3`, `a tensor f32[N, 10]`.
    pub fn describe(&self, graph: &Graph) -> String {
        match self {
            Value::Error => "an erroneous value".to_string(),
            Value::Unit => "nothing".to_string(),
            Value::None => "`none`".to_string(),
            Value::Int(n) => format!("the integer {n}"),
            Value::Float(_) => format!("the number {}", self.show(graph)),
            Value::Bool(b) => format!("`{b}`"),
            Value::Str(s) => format!("the string \"{s}\""),
            Value::Pair(h, w) => format!("the size {h}x{w}"),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Tuple(t) => format!("{} values", t.parts.len()),
            Value::Dim(d) => format!("the symbolic size {d}"),
            Value::DType(t) => format!("the type {t}"),
            Value::Tensor(n) => format!("a tensor {}", graph.node(*n).ty),
            Value::Layer(l) => format!("the layer `{}`", l.path),
            Value::Init(_) => "an initialiser".to_string(),
            Value::Function(Callable::User(f)) if f.is_net => format!("the net `{}`", f.ast.name.name),
            Value::Function(f) => format!("the function `{}`", f.name()),
            Value::Spec(s) => format!("the {} `{}`", s.kind, s.name),
        }
    }

    /// As `{…}` in a string shows it.
    pub fn show(&self, graph: &Graph) -> String {
        match self {
            Value::Int(n) => n.to_string(),
            Value::Float(x) => format!("{x:?}"),
            Value::Bool(b) => b.to_string(),
            Value::Str(s) => s.to_string(),
            Value::Pair(h, w) => format!("{h}x{w}"),
            Value::Dim(d) => d.to_string(),
            Value::DType(t) => t.to_string(),
            Value::Tensor(n) => graph.node(*n).ty.to_string(),
            Value::None => "none".to_string(),
            // Long lists and lists in lists are cut short: their text is for messages.
            Value::List(items) => format!("[{}]", show_parts(items, graph)),
            Value::Tuple(t) => format!("({})", show_parts(&t.parts, graph)),
            other => other.describe(graph),
        }
    }
}

/// The first parts; lists inside them by their length.
fn show_parts(parts: &[Value], graph: &Graph) -> String {
    const MOST: usize = 32;
    let shown = parts.iter().take(MOST).map(|v| match v {
        Value::List(_) | Value::Tuple(_) => v.describe(graph),
        other => other.show(graph),
    });
    let mut texts: Vec<String> = shown.collect();
    if parts.len() > MOST {
        texts.push("…".to_string());
    }
    texts.join(", ")
}
