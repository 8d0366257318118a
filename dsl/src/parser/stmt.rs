//! Blocks and the statements in them.

use super::{Failed, Parsed, Parser};
use crate::ast::{Block, Expr, ExprKind, Ident, Stmt, StmtKind, TensorType};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::token::{Keyword, TokenKind};

impl Parser<'_> {
    /// `{ statements }`
    pub(super) fn block(&mut self) -> Parsed<Block> {
        if !self.is(TokenKind::BraceOpen) {
            return Err(self.expected("`{`"));
        }
        self.nested(|p| {
            let start = p.open(TokenKind::BraceClose);
            let depth = p.open.len();
            let mut stmts = Vec::new();
            let mut height = 0;
            loop {
                while p.eat(TokenKind::Semicolon) {}
                match p.kind() {
                    TokenKind::BraceClose => break,
                    TokenKind::End => return Err(p.unended(start, "the end of the file")),
                    TokenKind::Key(k @ (Keyword::Net | Keyword::Block)) => {
                        p.misplaced_item(start, k)?;
                        continue;
                    }
                    _ => {}
                }
                let before = p.at;
                p.began = before;
                let statement = p.statement(&mut stmts).and_then(|()| p.statement_end());
                height = height.max(p.height);
                if statement.is_err() {
                    p.skip_statement(depth);
                    if p.at == before {
                        p.bump();
                    }
                }
            }
            p.close("`}`")?;
            p.raise(height, start)?;
            Ok(Block { stmts, span: p.since(start) })
        })
    }

    fn unended(&mut self, open: Span, before: &str) -> Failed {
        let span = self.span();
        self.fail(
            Diagnostic::error(format!("expected `}}`, found {before}"), span, "expected `}`")
                .label(open, "opened here")
                .help("close the block with `}`"),
        )
    }

    /// A net or block within braces: at the left border a `}` is missing, else it is read and reported.
    fn misplaced_item(&mut self, open: Span, keyword: Keyword) -> Parsed<()> {
        let word = keyword.text();
        let before = self.token().start as usize;
        if before == 0 || self.text[..before].ends_with('\n') {
            return Err(self.unended(open, &format!("`{word}`")));
        }
        let span = self.span();
        self.fail(
            Diagnostic::error(format!("`{word}` inside of a block"), span, "only at the top level of a file")
                .help("nets and blocks stand beside each other, not inside each other"),
        );
        self.began = self.at;
        let depth = self.open.len();
        if self.function().is_err() {
            self.skip_statement(depth);
        }
        Ok(())
    }

    /// A statement ends at a line end, `;` or `}`.
    fn statement_end(&mut self) -> Parsed<()> {
        match self.kind() {
            TokenKind::Semicolon => {
                self.bump();
                Ok(())
            }
            TokenKind::BraceClose | TokenKind::End => Ok(()),
            _ if self.token().first_of_line && !self.continues_line() => Ok(()),
            _ => Err(self.expected("the end of the statement")),
        }
    }

    /// Reads a statement into `stmts`; where only its value failed, the names are bound all the same.
    fn statement(&mut self, stmts: &mut Vec<Stmt>) -> Parsed<()> {
        use Keyword::*;
        self.height = 0;
        let start = self.span();
        let mut failed = Ok(());
        let kind = match self.kind() {
            TokenKind::Key(keyword) => match keyword {
                Input => {
                    self.bump();
                    let name = self.ident("the input's name")?;
                    self.expect(TokenKind::Colon)?;
                    StmtKind::Input { name, ty: self.tensor_type()? }
                }
                Output => {
                    self.bump();
                    let name = self.ident("the output's name")?;
                    StmtKind::Output { name, value: self.bound_value(&mut failed)? }
                }
                Let => {
                    self.bump();
                    let names = self.idents("a name")?;
                    StmtKind::Let { names, value: self.bound_value(&mut failed)? }
                }
                Layer => {
                    self.bump();
                    let name = self.ident("the layer's name")?;
                    StmtKind::Layer { name, value: self.bound_value(&mut failed)? }
                }
                Param | State => {
                    self.bump();
                    self.param(keyword == Param, &mut failed)?
                }
                Const => {
                    self.bump();
                    let name = self.ident("the constant's name")?;
                    StmtKind::Const { name, value: self.bound_value(&mut failed)? }
                }
                Metric => {
                    self.bump();
                    let name = self.ident("the metric's name")?;
                    StmtKind::Metric { name, value: self.bound_value(&mut failed)? }
                }
                Repeat => {
                    self.bump();
                    let count = self.expr()?;
                    StmtKind::Repeat { count, body: self.also(Self::block)? }
                }
                For => self.for_statement()?,
                Require => self.require()?,
                Train => {
                    self.bump();
                    StmtKind::Train(self.block()?)
                }
                Use => {
                    return Err(
                        self.misplaced("`use` stands at the top of a file, outside of nets and blocks")
                    );
                }
                Else => return Err(self.misplaced("`else` follows the `}` of an `if`")),
                _ => StmtKind::Expr(self.expr()?),
            },
            TokenKind::Name if self.is_assignment() => {
                let names = self.idents("a name")?;
                StmtKind::Assign { names, value: self.bound_value(&mut failed)? }
            }
            _ => StmtKind::Expr(self.expr()?),
        };
        stmts.push(Stmt { kind, span: self.since(start) });
        failed
    }

    fn misplaced(&mut self, help: &str) -> Failed {
        let (found, span) = (self.found(), self.span());
        self.fail(Diagnostic::error(format!("unexpected {found}"), span, "not here").help(help))
    }

    /// `= value`; a value that cannot be read becomes an error node, so that the name is known further down.
    fn bound_value(&mut self, failed: &mut Parsed<()>) -> Parsed<Expr> {
        if !self.is(TokenKind::Assign) {
            return Err(self.expected("`=`"));
        }
        self.bump();
        let start = self.span();
        Ok(self.expr().unwrap_or_else(|error| {
            *failed = Err(error);
            Expr { kind: ExprKind::Error, span: start }
        }))
    }

    /// `name =` or `a, b =` at the beginning of a statement.
    fn is_assignment(&self) -> bool {
        let mut i = 0;
        while self.ahead(i).kind == TokenKind::Name {
            match self.ahead(i + 1).kind {
                TokenKind::Assign => return true,
                TokenKind::Comma => i += 2,
                _ => return false,
            }
        }
        false
    }

    fn param(&mut self, trainable: bool, failed: &mut Parsed<()>) -> Parsed<StmtKind> {
        let name = self.ident(if trainable { "the parameter's name" } else { "the state's name" })?;
        self.expect(TokenKind::Colon)?;
        let ty = self.tensor_type()?;
        let init =
            if self.is(TokenKind::Assign) { Some(self.also(|p| p.bound_value(failed))?) } else { None };
        Ok(StmtKind::Param { name, ty, init, trainable })
    }

    fn for_statement(&mut self) -> Parsed<StmtKind> {
        self.bump();
        let names = self.idents("a name")?;
        if !self.is_key(Keyword::In) {
            return Err(self.expected("`in`"));
        }
        self.bump();
        let iter = self.expr()?;
        let body = self.also(Self::block)?;
        Ok(StmtKind::For { names, iter, body })
    }

    fn require(&mut self) -> Parsed<StmtKind> {
        self.bump();
        let condition = self.expr()?;
        let message = if self.eat(TokenKind::Comma) { Some(self.also(Self::expr)?) } else { None };
        Ok(StmtKind::Require { condition, message })
    }

    /// `f32[N, 3]` or `f32`
    pub(super) fn tensor_type(&mut self) -> Parsed<TensorType> {
        let dtype: Ident = self.ident("a type such as `f32[N, 3]`")?;
        let mut dims = Vec::new();
        if self.is(TokenKind::BracketOpen) && !self.at_new_line() {
            self.open(TokenKind::BracketClose);
            while !self.is(TokenKind::BracketClose) {
                dims.push(self.also(Self::expr)?);
                if !self.eat(TokenKind::Comma) {
                    break;
                }
            }
            self.close("`,` or `]`")?;
        }
        let span = self.since(dtype.span);
        Ok(TensorType { dtype, dims, span })
    }
}
