//! The syntax tree as text, for `nnc compile --emit ast` and the tests.
//!
//! One node a line, children indented, `line:column` of its beginning behind it.

use std::fmt::Write;

use crate::ast::*;
use crate::source::{SourceMap, Span};

/// The text of a tree.
pub fn dump(map: &SourceMap, module: &Module) -> String {
    let mut dump = Dump { map, text: String::new(), depth: 0 };
    for item in &module.items {
        match item {
            Item::Use(u) => match &u.target {
                UseTarget::Std(name) => dump.line(&format!("use {name}"), u.span),
                UseTarget::File(path) => dump.line(&format!("use {path:?}"), u.span),
            },
            Item::Net(f) => dump.function("net", f),
            Item::Block(f) => dump.function("block", f),
        }
    }
    dump.text
}

struct Dump<'a> {
    map: &'a SourceMap,
    text: String,
    depth: usize,
}

impl Dump<'_> {
    fn line(&mut self, what: &str, span: Span) {
        let (line, column) = self.map.line_column(span);
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{:1$}{what}  {line}:{column}", "", 2 * self.depth);
    }

    /// A line and, indented below it, what `children` writes.
    fn node(&mut self, what: &str, span: Span, children: impl FnOnce(&mut Self)) {
        self.line(what, span);
        self.depth += 1;
        children(self);
        self.depth -= 1;
    }

    fn function(&mut self, keyword: &str, f: &Function) {
        let kind = f.kind.as_ref().map_or(String::new(), |k| format!(" as {}", k.name));
        self.node(&format!("{keyword} {}{kind}", f.name.name), f.span, |d| {
            for param in &f.params {
                d.node(&format!("parameter {}", param.name.name), param.name.span, |d| {
                    param.default.iter().for_each(|e| d.expr(e));
                });
            }
            d.stmts(&f.body);
        });
    }

    fn stmts(&mut self, block: &Block) {
        block.stmts.iter().for_each(|s| self.stmt(s));
    }

    fn stmt(&mut self, stmt: &Stmt) {
        let span = stmt.span;
        match &stmt.kind {
            StmtKind::Input { name, ty } => {
                self.node(&format!("input {}", name.name), span, |d| d.tensor_type(ty));
            }
            StmtKind::Output { name, value } => self.bound("output", std::slice::from_ref(name), value, span),
            StmtKind::Let { names, value } => self.bound("let", names, value, span),
            StmtKind::Assign { names, value } => self.bound("assign", names, value, span),
            StmtKind::Layer { name, value } => self.bound("layer", std::slice::from_ref(name), value, span),
            StmtKind::Const { name, value } => self.bound("const", std::slice::from_ref(name), value, span),
            StmtKind::Metric { name, value } => self.bound("metric", std::slice::from_ref(name), value, span),
            StmtKind::Param { name, ty, init, trainable } => {
                let keyword = if *trainable { "param" } else { "state" };
                self.node(&format!("{keyword} {}", name.name), span, |d| {
                    d.tensor_type(ty);
                    init.iter().for_each(|e| d.expr(e));
                });
            }
            StmtKind::Repeat { count, body } => self.node("repeat", span, |d| {
                d.expr(count);
                d.block("do", body);
            }),
            StmtKind::For { names, iter, body } => {
                self.node(&format!("for {}", joined(names)), span, |d| {
                    d.expr(iter);
                    d.block("do", body);
                });
            }
            StmtKind::Require { condition, message } => self.node("require", span, |d| {
                d.expr(condition);
                message.iter().for_each(|e| d.expr(e));
            }),
            StmtKind::Train(body) => self.node("train", span, |d| d.stmts(body)),
            StmtKind::Expr(value) => self.node("value", span, |d| d.expr(value)),
        }
    }

    fn bound(&mut self, keyword: &str, names: &[Ident], value: &Expr, span: Span) {
        self.node(&format!("{keyword} {}", joined(names)), span, |d| d.expr(value));
    }

    fn block(&mut self, what: &str, block: &Block) {
        self.node(what, block.span, |d| d.stmts(block));
    }

    fn tensor_type(&mut self, ty: &TensorType) {
        self.node(&format!("type {}", ty.dtype.name), ty.span, |d| d.exprs(&ty.dims));
    }

    fn exprs(&mut self, exprs: &[Expr]) {
        exprs.iter().for_each(|e| self.expr(e));
    }

    fn expr(&mut self, expr: &Expr) {
        let span = expr.span;
        match &expr.kind {
            ExprKind::Int(value) => self.line(&format!("int {value}"), span),
            ExprKind::Float(value) => self.line(&format!("float {value:?}"), span),
            ExprKind::Bool(value) => self.line(&format!("bool {value}"), span),
            ExprKind::Pair(height, width) => self.line(&format!("pair {height}x{width}"), span),
            ExprKind::Name(name) => self.line(&format!("name {name}"), span),
            ExprKind::Str(parts) => self.string(parts, span),
            ExprKind::List(items) => self.node("list", span, |d| d.exprs(items)),
            ExprKind::Tuple(parts) => self.node("tuple", span, |d| d.exprs(parts)),
            ExprKind::Paren(inner) => self.node("parentheses", span, |d| d.expr(inner)),
            ExprKind::Unary(op, value) => {
                let op = match op {
                    UnaryOp::Neg => "-",
                    UnaryOp::Not => "not",
                };
                self.node(&format!("unary {op}"), span, |d| d.expr(value));
            }
            ExprKind::Binary(op, left, right) => self.node(&format!("binary {}", op.symbol()), span, |d| {
                d.expr(left);
                d.expr(right);
            }),
            ExprKind::Range(from, to) => self.node("range", span, |d| {
                d.expr(from);
                d.expr(to);
            }),
            ExprKind::Call { callee, args } => self.node("call", span, |d| {
                d.expr(callee);
                args.iter().for_each(|a| d.arg(a));
            }),
            ExprKind::Pipe { value, stage } => self.node("pipe", span, |d| {
                d.expr(value);
                d.expr(stage);
            }),
            ExprKind::As { value, path } => self.node("as", span, |d| {
                d.expr(value);
                d.path(path);
            }),
            ExprKind::Index { value, subscripts } => self.node("index", span, |d| {
                d.expr(value);
                subscripts.iter().for_each(|s| d.subscript(s, span));
            }),
            ExprKind::Field { value, name } => {
                self.node(&format!("field {}", name.name), span, |d| d.expr(value));
            }
            ExprKind::If { arms, otherwise } => self.node("if", span, |d| {
                for (condition, body) in arms {
                    d.expr(condition);
                    d.block("then", body);
                }
                otherwise.iter().for_each(|b| d.block("else", b));
            }),
            ExprKind::Error => self.line("error", span),
        }
    }

    fn string(&mut self, parts: &[StrPart], span: Span) {
        self.node("string", span, |d| {
            for part in parts {
                match part {
                    StrPart::Text(text) => d.line(&format!("text {text:?}"), span),
                    StrPart::Expr(value) => d.expr(value),
                }
            }
        });
    }

    fn arg(&mut self, arg: &Arg) {
        match &arg.name {
            Some(name) => self.node(&format!("argument {}", name.name), name.span, |d| d.expr(&arg.value)),
            None => self.expr(&arg.value),
        }
    }

    fn path(&mut self, path: &Path) {
        self.node("path", path.span, |d| {
            for part in &path.parts {
                match part {
                    PathPart::Name(name) => d.line(&format!("part {name}"), path.span),
                    PathPart::Expr(value) => d.expr(value),
                }
            }
        });
    }

    fn subscript(&mut self, subscript: &Subscript, span: Span) {
        match subscript {
            Subscript::At(at) => self.expr(at),
            Subscript::Slice(from, to) => {
                let span = from.as_ref().or(to.as_ref()).map_or(span, |e| e.span);
                self.node("slice", span, |d| {
                    d.bound_of_slice("from", from.as_ref());
                    d.bound_of_slice("to", to.as_ref());
                });
            }
        }
    }

    fn bound_of_slice(&mut self, what: &str, bound: Option<&Expr>) {
        if let Some(bound) = bound {
            self.node(what, bound.span, |d| d.expr(bound));
        }
    }
}

fn joined(names: &[Ident]) -> String {
    names.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ")
}
