//! The syntax tree. Every node has the span of its text; nothing is resolved or checked yet.
//!
//! Grammar and meaning are in `docs/language.md`; names here are those used there.

use crate::source::Span;

/// A name as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Ident {
    /// The name.
    pub name: String,
    /// Its place.
    pub span: Span,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// `use`, `net`, `block` in source order.
    pub items: Vec<Item>,
    /// The whole file.
    pub span: Span,
}

/// Something at the top level of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// `use std.vision` or `use "blocks.nn"`.
    Use(Use),
    /// `net name(params) { … }`.
    Net(Function),
    /// `block name(params) as kind { … }`.
    Block(Function),
}

/// `use …`
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    /// What is used.
    pub target: UseTarget,
    /// The whole statement.
    pub span: Span,
}

/// The operand of `use`.
#[derive(Clone, Debug, PartialEq)]
pub enum UseTarget {
    /// `std.vision`: the dotted name.
    Std(String),
    /// `"blocks.nn"`: a path relative to this file.
    File(String),
}

/// A `net` or a `block`.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: Ident,
    /// Its parameters. A net's are compile-time values with defaults; a block's first ones are usually tensors.
    pub params: Vec<Param>,
    /// `as bn`: the kind by which unnamed uses are numbered (`bn1`, `bn2`), if not the name.
    pub kind: Option<Ident>,
    /// Its statements.
    pub body: Block,
    /// From the keyword to the closing brace.
    pub span: Span,
}

/// `name` or `name = default`.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: Ident,
    /// Its default.
    pub default: Option<Expr>,
}

/// `{ statements }`. Its value is that of its last statement if that is an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The statements.
    pub stmts: Vec<Stmt>,
    /// With the braces.
    pub span: Span,
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Stmt {
    /// What it is.
    pub kind: StmtKind,
    /// Its text.
    pub span: Span,
}

/// The kinds of statement.
#[derive(Clone, Debug, PartialEq)]
pub enum StmtKind {
    /// `input image: f32[N, 3, 224, 224]`
    Input {
        /// The name.
        name: Ident,
        /// The type.
        ty: TensorType,
    },
    /// `output logits = value`
    Output {
        /// The name; also bound in the rest of the block.
        name: Ident,
        /// The value.
        value: Expr,
    },
    /// `let y, aux = value`
    Let {
        /// One name or several (a tuple's parts).
        names: Vec<Ident>,
        /// The value.
        value: Expr,
    },
    /// `x = value`, `x, y = value`: re-binds names of an enclosing block.
    Assign {
        /// The names.
        names: Vec<Ident>,
        /// The value.
        value: Expr,
    },
    /// `layer embed = conv(32, 3)`: one set of weights, however often it is applied.
    Layer {
        /// The name.
        name: Ident,
        /// A call without its first argument.
        value: Expr,
    },
    /// `param gain: f32[x.features] = ones` (trainable) or `state mean: f32[c] = zeros` (not trained).
    Param {
        /// The name.
        name: Ident,
        /// The type.
        ty: TensorType,
        /// The initialiser.
        init: Option<Expr>,
        /// False for `state`.
        trainable: bool,
    },
    /// `const w = [[1, 0], [0, 1]]`: a literal tensor.
    Const {
        /// The name.
        name: Ident,
        /// Nested lists of numbers, or any compile-time value.
        value: Expr,
    },
    /// `repeat depth { … }`
    Repeat {
        /// How often.
        count: Expr,
        /// What.
        body: Block,
    },
    /// `for c, n in zip(a, b) { … }`
    For {
        /// One name or several.
        names: Vec<Ident>,
        /// A list or a range.
        iter: Expr,
        /// What.
        body: Block,
    },
    /// `require condition, "message"`
    Require {
        /// Must be true.
        condition: Expr,
        /// What is said otherwise.
        message: Option<Expr>,
    },
    /// `train { … }`, in a net only.
    Train(Block),
    /// `loss = value` inside `train` is an [`Assign`](StmtKind::Assign); `metric top1 = value` is this.
    Metric {
        /// The name.
        name: Ident,
        /// The value.
        value: Expr,
    },
    /// An expression.
    Expr(Expr),
}

/// `f32[N, 3, 224, 224]`; a scalar is `f32[]` or `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorType {
    /// `f32`, `i32`, `bool`, …
    pub dtype: Ident,
    /// The dimensions: compile-time integers, or a capitalised name for a symbolic size.
    pub dims: Vec<Expr>,
    /// The whole type.
    pub span: Span,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Its text.
    pub span: Span,
}

/// The kinds of expression.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `12`
    Int(i64),
    /// `0.5`, `5e-4`
    Float(f64),
    /// `true`
    Bool(bool),
    /// `"no VGG has {depth} layers"`
    Str(Vec<StrPart>),
    /// `3x3`, `1x7`: height and width.
    Pair(i64, i64),
    /// `x`
    Name(String),
    /// `[1, 2]`
    List(Vec<Expr>),
    /// `(a, b)`; one element in parentheses is [`Paren`](ExprKind::Paren).
    Tuple(Vec<Expr>),
    /// `(a)`
    Paren(Box<Expr>),
    /// `-a`, `not a`
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `0..n`, the end not included.
    Range(Box<Expr>, Box<Expr>),
    /// `f(b, k = c)`
    Call {
        /// What is called: almost always a name.
        callee: Box<Expr>,
        /// The arguments.
        args: Vec<Arg>,
    },
    /// `a -> f(b)`: `f(a, b)`; the stage is a name, a call, or either with `as`.
    Pipe {
        /// What flows in.
        value: Box<Expr>,
        /// Where it flows.
        stage: Box<Expr>,
    },
    /// `conv(64, 3) as features.{i}`, `(a + b) as sum`: names a layer's use, or a value.
    As {
        /// What is named.
        value: Box<Expr>,
        /// The name.
        path: Path,
    },
    /// `xs[:, t]`, `counts[i]`
    Index {
        /// What is indexed.
        value: Box<Expr>,
        /// One subscript a dimension.
        subscripts: Vec<Subscript>,
    },
    /// `x.channels`
    Field {
        /// Whose.
        value: Box<Expr>,
        /// Which.
        name: Ident,
    },
    /// `if c { a } else if d { b } else { e }`: the conditions with their blocks, then the `else`.
    If {
        /// Conditions and what follows them.
        arms: Vec<(Expr, Block)>,
        /// The rest.
        otherwise: Option<Block>,
    },
    /// Text that could not be parsed; an error was reported. Evaluates to "already reported".
    Error,
}

/// A piece of a string.
#[derive(Clone, Debug, PartialEq)]
pub enum StrPart {
    /// As it is (escapes already replaced).
    Text(String),
    /// `{depth}`
    Expr(Expr),
}

/// An argument of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Arg {
    /// `k` of `k = c`.
    pub name: Option<Ident>,
    /// The value.
    pub value: Expr,
}

/// A subscript.
#[derive(Clone, Debug, PartialEq)]
pub enum Subscript {
    /// `t`: picks one and drops the dimension.
    At(Expr),
    /// `a:b`, `:b`, `a:`, `:`.
    Slice(Option<Expr>, Option<Expr>),
}

/// `layer1.{i}.conv1`: the parts of a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Its parts, joined by dots.
    pub parts: Vec<PathPart>,
    /// The whole path.
    pub span: Span,
}

/// A part of a path.
#[derive(Clone, Debug, PartialEq)]
pub enum PathPart {
    /// `conv1`, `0`
    Name(String),
    /// `{i}`
    Expr(Expr),
}

/// Prefix operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `-a`
    Neg,
    /// `not a`
    Not,
}

/// Infix operators, loosest first: `or`, `and`, comparison and `in`, `+ -`, `* / %`, `^`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is its own symbol
pub enum BinaryOp {
    Or,
    And,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
    Add,
    Sub,
    Mul,
    /// `a / b`: on integers exact, an error otherwise; on tensors elementwise.
    Div,
    Rem,
    Pow,
}

impl BinaryOp {
    /// As it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Or => "or",
            BinaryOp::And => "and",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::Ge => ">=",
            BinaryOp::In => "in",
            BinaryOp::NotIn => "not in",
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Rem => "%",
            BinaryOp::Pow => "^",
        }
    }
}
