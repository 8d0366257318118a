//! Expressions, by precedence: pipe, `as`, `or`, `and`, `not`, comparison, range, sum, product, sign, power, then what
//! follows a value directly (call, subscript, field).

use super::{Parsed, Parser};
use crate::ast::{Arg, BinaryOp, Block, Expr, ExprKind, Subscript, UnaryOp};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::token::{Keyword, TokenKind};

/// Binding powers, loosest first; see [`infix`].
mod power {
    pub const OR: u8 = 1;
    pub const AND: u8 = 2;
    pub const NOT: u8 = 3;
    pub const COMPARE: u8 = 4;
    pub const RANGE: u8 = 5;
    pub const SUM: u8 = 6;
    pub const PRODUCT: u8 = 7;
    pub const SIGN: u8 = 8;
    pub const POWER: u8 = 9;
}

/// An infix operator at the place of reading.
#[derive(Clone, Copy, PartialEq)]
enum Infix {
    Binary(BinaryOp),
    Range,
}

impl Parser<'_> {
    /// An expression: a value and the stages it flows through.
    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        self.nested(|p| {
            let start = p.span();
            let mut value = p.operand()?;
            while p.is(TokenKind::Arrow) {
                let arrow = p.bump().span(p.file);
                let stage = p.also(|p| p.stage(arrow))?;
                p.raise(p.height, start)?;
                let kind = ExprKind::Pipe { value: Box::new(value), stage: Box::new(stage) };
                value = Expr { kind, span: p.since(start) };
            }
            Ok(value)
        })
    }

    /// What flows into a pipe: `a + b`, `conv(x, 3) as c1`.
    fn operand(&mut self) -> Parsed<Expr> {
        let value = self.binary(0)?;
        self.named(value)
    }

    /// Where a pipe flows: a name, a call, or either with `as`.
    fn stage(&mut self, arrow: Span) -> Parsed<Expr> {
        let start = self.token();
        let begins = start.kind == TokenKind::Name
            || start.kind == TokenKind::ParenOpen
            || start.kind == TokenKind::Invalid;
        if !begins || (self.at_new_line() && start.kind == TokenKind::ParenOpen) {
            return Err(self.no_stage(arrow));
        }
        let stage = self.postfix()?;
        let stage = self.named(stage)?;
        if self.infix().is_some() {
            return Err(self.operator_behind_pipe(arrow));
        }
        Ok(stage)
    }

    fn operator_behind_pipe(&mut self, arrow: Span) -> super::Failed {
        let (found, span) = (self.found(), self.span());
        let error =
            Diagnostic::error(format!("expected `->` or the end of the pipe, found {found}"), span, "")
                .label(arrow, "binds looser than any operator")
                .help(format!("put the pipe in parentheses: `(x -> f) {} y`", found.trim_matches('`')));
        let continued = self.token().first_of_line;
        self.fail(if continued {
            error.note("a line that begins with an operator continues the one above")
        } else {
            error
        })
    }

    fn no_stage(&mut self, arrow: Span) -> super::Failed {
        let (found, span) = (self.found(), self.place());
        let error = Diagnostic::error(format!("expected a layer behind `->`, found {found}"), span, "")
            .label(arrow, "flows into nothing");
        let error = match self.kind() {
            TokenKind::Key(Keyword::If) => {
                error.help("write the pipe into both branches: `if c { x -> f } else { x -> g }`")
            }
            TokenKind::Int | TokenKind::Float | TokenKind::Pair => {
                error.help("values flow into layers; bind a result with `let y = x -> …`")
            }
            TokenKind::Arrow => error.help("there is one `->` between two layers"),
            TokenKind::Key(k) if !self.line_ended() => error.help(super::hint::reserved(k.text())),
            _ => error,
        };
        self.fail(error)
    }

    /// `as path` behind a value, if there.
    fn named(&mut self, value: Expr) -> Parsed<Expr> {
        if !self.is_key(Keyword::As) {
            return Ok(value);
        }
        self.bump();
        let path = self.also(Self::path)?;
        let span = value.span;
        self.raise(self.height, span)?;
        Ok(Expr { kind: ExprKind::As { value: Box::new(value), path }, span: self.since(span) })
    }

    /// The infix operator at hand, its power, and of how many tokens it is made.
    fn infix(&self) -> Option<(Infix, u8, usize)> {
        use BinaryOp::*;
        let (op, power) = match self.kind() {
            TokenKind::Key(Keyword::Or) => (Or, power::OR),
            TokenKind::Key(Keyword::And) => (And, power::AND),
            TokenKind::Eq => (Eq, power::COMPARE),
            TokenKind::Ne => (Ne, power::COMPARE),
            TokenKind::Lt => (Lt, power::COMPARE),
            TokenKind::Le => (Le, power::COMPARE),
            TokenKind::Gt => (Gt, power::COMPARE),
            TokenKind::Ge => (Ge, power::COMPARE),
            TokenKind::Key(Keyword::In) => (In, power::COMPARE),
            TokenKind::Key(Keyword::Not) if self.ahead(1).kind == TokenKind::Key(Keyword::In) => {
                return Some((Infix::Binary(NotIn), power::COMPARE, 2));
            }
            TokenKind::DotDot => return Some((Infix::Range, power::RANGE, 1)),
            TokenKind::Plus => (Add, power::SUM),
            TokenKind::Minus => (Sub, power::SUM),
            TokenKind::Star => (Mul, power::PRODUCT),
            TokenKind::Slash => (Div, power::PRODUCT),
            TokenKind::Percent => (Rem, power::PRODUCT),
            TokenKind::Caret => (Pow, power::POWER),
            _ => return None,
        };
        Some((Infix::Binary(op), power, 1))
    }

    /// Operators that bind tighter than `floor`.
    fn binary(&mut self, floor: u8) -> Parsed<Expr> {
        let start = self.span();
        let mut left = self.prefix(floor)?;
        while let Some((op, power, tokens)) = self.infix() {
            if power <= floor {
                break;
            }
            let operator = self.span();
            self.warn_of_sign();
            for _ in 0..tokens {
                self.bump();
            }
            // The power's right side may be a power or a sign again; all else groups to the left.
            let right = if power == power::POWER {
                self.also(|p| p.nested(|p| p.binary(power::SIGN - 1)))?
            } else {
                self.also(|p| p.binary(power))?
            };
            self.raise(self.height, start)?;
            left = self.joined(op, left, right, start);
            if matches!(power, power::COMPARE | power::RANGE) {
                self.no_second(power, operator)?;
            }
        }
        Ok(left)
    }

    /// A line that begins with `-x` looks like a value of its own, but continues the line above.
    fn warn_of_sign(&mut self) {
        if !self.is(TokenKind::Minus) || !self.at_new_line() || self.ahead(1).start != self.token().end {
            return;
        }
        let span = self.span();
        self.errors.push(
            Diagnostic::warning("this line continues the one above", span, "subtracts from the value above")
                .help("write `- x` if that is meant, else `(-x)`"),
        );
    }

    fn joined(&self, op: Infix, left: Expr, right: Expr, start: Span) -> Expr {
        let (left, right) = (Box::new(left), Box::new(right));
        let kind = match op {
            Infix::Binary(op) => ExprKind::Binary(op, left, right),
            Infix::Range => ExprKind::Range(left, right),
        };
        Expr { kind, span: self.since(start) }
    }

    /// `a < b < c` and `a..b..c` mean nothing.
    fn no_second(&mut self, power: u8, first: Span) -> Parsed<()> {
        if self.infix().is_none_or(|(_, second, _)| second != power) {
            return Ok(());
        }
        let span = self.span();
        let error = if power == power::RANGE {
            Diagnostic::error("a range of three parts", span, "second `..`").label(first, "first `..`")
        } else {
            Diagnostic::error("a chain of comparisons", span, "second comparison")
                .label(first, "first comparison")
                .help("write `a < b and b < c`")
        };
        Err(self.fail(error))
    }

    /// `-a`, `not a`, or a value.
    fn prefix(&mut self, floor: u8) -> Parsed<Expr> {
        let (op, power) = match self.kind() {
            TokenKind::Minus => (UnaryOp::Neg, power::SIGN),
            TokenKind::Key(Keyword::Not) => (UnaryOp::Not, power::NOT.max(floor)),
            _ => return self.postfix(),
        };
        let start = self.bump().span(self.file);
        let value = self.nested(|p| p.binary(power))?;
        self.raise(self.height, start)?;
        Ok(Expr { kind: ExprKind::Unary(op, Box::new(value)), span: self.since(start) })
    }

    /// A value with calls, subscripts and fields.
    fn postfix(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let mut value = self.primary()?;
        loop {
            let kind = match self.kind() {
                TokenKind::ParenOpen if !self.at_new_line() => {
                    self.callable(&value)?;
                    let args = self.also(Self::args)?;
                    ExprKind::Call { callee: Box::new(value), args }
                }
                TokenKind::BracketOpen if !self.at_new_line() => {
                    let subscripts = self.also(Self::subscripts)?;
                    ExprKind::Index { value: Box::new(value), subscripts }
                }
                TokenKind::Dot if !self.at_new_line() => {
                    self.bump();
                    let name = self.word("a field's name")?;
                    ExprKind::Field { value: Box::new(value), name }
                }
                _ => return Ok(value),
            };
            self.raise(self.height, start)?;
            value = Expr { kind, span: self.since(start) };
        }
    }

    fn callable(&mut self, value: &Expr) -> Parsed<()> {
        let what = match value.kind {
            ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Pair(..) => "a number",
            ExprKind::Str(_) => "a string",
            ExprKind::Bool(_) => "a truth value",
            ExprKind::List(_) => "a list",
            ExprKind::If { .. } => "the result of `if`",
            _ => return Ok(()),
        };
        let span = self.span();
        Err(self.fail(
            Diagnostic::error(format!("{what} cannot be called"), span, "a call").label(value.span, what),
        ))
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let token = self.token();
        let start = token.span(self.file);
        self.height = 1;
        let kind = match token.kind {
            TokenKind::Int => ExprKind::Int(self.int(token)?),
            TokenKind::Float => ExprKind::Float(self.float(token)?),
            TokenKind::Pair => self.pair(token)?,
            TokenKind::Str => {
                self.bump();
                ExprKind::Str(self.string(token)?)
            }
            TokenKind::Key(Keyword::True) => {
                self.bump();
                ExprKind::Bool(true)
            }
            TokenKind::Key(Keyword::False) => {
                self.bump();
                ExprKind::Bool(false)
            }
            TokenKind::Name => {
                self.bump();
                ExprKind::Name(self.source(token).to_owned())
            }
            TokenKind::ParenOpen => self.parenthesised()?,
            TokenKind::BracketOpen => self.list()?,
            TokenKind::Key(Keyword::If) => self.conditional()?,
            _ => return Err(self.expected("an expression")),
        };
        Ok(Expr { kind, span: self.since(start) })
    }

    /// `(a)` or `(a, b)`
    fn parenthesised(&mut self) -> Parsed<ExprKind> {
        let start = self.open(TokenKind::ParenClose);
        let first = self.expr()?;
        if !self.is(TokenKind::Comma) {
            self.close("`)`")?;
            self.raise(self.height, start)?;
            return Ok(ExprKind::Paren(Box::new(first)));
        }
        let mut parts = vec![first];
        while self.eat(TokenKind::Comma) && !self.is(TokenKind::ParenClose) {
            parts.push(self.also(Self::expr)?);
        }
        self.close("`,` or `)`")?;
        self.raise(self.height, start)?;
        Ok(ExprKind::Tuple(parts))
    }

    fn list(&mut self) -> Parsed<ExprKind> {
        let start = self.open(TokenKind::BracketClose);
        let mut items = Vec::new();
        while !self.is(TokenKind::BracketClose) {
            items.push(self.also(Self::expr)?);
            if !self.eat(TokenKind::Comma) {
                break;
            }
        }
        self.close("`,` or `]`")?;
        self.raise(self.height, start)?;
        Ok(ExprKind::List(items))
    }

    fn args(&mut self) -> Parsed<Vec<Arg>> {
        self.open(TokenKind::ParenClose);
        let mut args: Vec<Arg> = Vec::new();
        while !self.is(TokenKind::ParenClose) {
            let named = self.token().is_word() && self.ahead(1).kind == TokenKind::Assign;
            let name = if named {
                let name = self.word("an argument's name")?;
                self.bump();
                Some(name)
            } else {
                None
            };
            if let (None, Some(last)) = (&name, args.last().and_then(|a| a.name.as_ref())) {
                let (last, span) = (last.span, self.span());
                return Err(self.fail(
                    Diagnostic::error("argument without a name behind one with a name", span, "needs a name")
                        .label(last, "named")
                        .help("arguments without names come first"),
                ));
            }
            let value = self.also(Self::expr)?;
            args.push(Arg { name, value });
            if !self.eat(TokenKind::Comma) {
                break;
            }
        }
        self.close("`,` or `)`")?;
        Ok(args)
    }

    fn subscripts(&mut self) -> Parsed<Vec<Subscript>> {
        self.open(TokenKind::BracketClose);
        let mut subscripts = Vec::new();
        while !self.is(TokenKind::BracketClose) {
            subscripts.push(self.subscript()?);
            if !self.eat(TokenKind::Comma) {
                break;
            }
        }
        if subscripts.is_empty() {
            return Err(self.expected("a subscript"));
        }
        self.close("`,` or `]`")?;
        Ok(subscripts)
    }

    fn subscript(&mut self) -> Parsed<Subscript> {
        let from = if self.is(TokenKind::Colon) { None } else { Some(self.also(Self::expr)?) };
        if !self.is(TokenKind::Colon) {
            return match from {
                Some(at) => Ok(Subscript::At(at)),
                None => Err(self.expected("a subscript")),
            };
        }
        self.bump();
        let open = matches!(self.kind(), TokenKind::Comma | TokenKind::BracketClose);
        let to = if open { None } else { Some(self.also(Self::expr)?) };
        Ok(Subscript::Slice(from, to))
    }

    /// `if c { a } else if d { b } else { e }`
    fn conditional(&mut self) -> Parsed<ExprKind> {
        let start = self.bump().span(self.file);
        let mut arms: Vec<(Expr, Block)> = Vec::new();
        loop {
            let condition = self.also(Self::expr)?;
            let body = self.also(Self::block)?;
            arms.push((condition, body));
            if !self.is_key(Keyword::Else) {
                self.raise(self.height, start)?;
                return Ok(ExprKind::If { arms, otherwise: None });
            }
            self.bump();
            if self.is_key(Keyword::If) {
                self.bump();
                continue;
            }
            let otherwise = Some(self.also(Self::block)?);
            self.raise(self.height, start)?;
            return Ok(ExprKind::If { arms, otherwise });
        }
    }
}
