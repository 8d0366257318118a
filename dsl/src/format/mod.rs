//! The canonical layout (`nnc fmt`).
//!
//! Walks the tree and the tokens together: the tree says how things belong to each other, the tokens bring text
//! and comments, none of which is lost. Lines are at most 100 columns wide where that can be; the author's line
//! breaks are kept before `->` and other operators, behind an opening bracket and between the elements of a list that
//! is broken, inside of braces, and as single blank lines between statements. Formatting twice changes nothing more.

mod doc;
mod expr;

use std::ops::Range;

use crate::ast::{Block, Function, Ident, Item, Module, Stmt, StmtKind, TensorType};
use crate::diagnostic::{Diagnostic, Severity};
use crate::errors::Errors;
use crate::lexer::{Lexed, lex};
use crate::parser::parse;
use crate::source::{FileId, SourceMap};
use crate::token::{Token, TokenKind};
use doc::Doc;

/// The file in its canonical layout, or why it cannot be read.
pub fn format(map: &SourceMap, file: FileId) -> Result<String, Vec<Diagnostic>> {
    let (module, diagnostics) = parse(map, file);
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        return Err(diagnostics);
    }
    let text = map.file(file).text.as_str();
    let Lexed { tokens, comments } = lex(text, file, 0..text.len(), &mut Errors::default());
    let mut formatter = Formatter { text, tokens, comments, at: 0, comment: 0 };
    let doc = formatter.module(&module);
    Ok(doc::print(&doc))
}

struct Formatter<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    comments: Vec<Range<u32>>,
    /// The next token.
    at: usize,
    /// The next comment.
    comment: usize,
}

impl Formatter<'_> {
    // --- tokens and comments ---

    fn token(&self) -> Token {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn is(&self, kind: TokenKind) -> bool {
        self.token().kind == kind
    }

    /// Line ends between two bytes.
    fn lines_between(&self, from: u32, to: u32) -> usize {
        self.text[from as usize..to as usize].bytes().filter(|&b| b == b'\n').count()
    }

    /// End of the token or comment before byte `at`.
    fn end_before(&self, at: u32) -> u32 {
        let token = if self.at > 0 { self.tokens[self.at - 1].end } else { 0 };
        let comment = if self.comment > 0 { self.comments[self.comment - 1].end } else { 0 };
        token.max(comment).min(at)
    }

    /// Own-line comments before the next token; with blank lines if `blanks`, but none before the first if `first`.
    fn leading(&mut self, blanks: bool, mut first: bool) -> Vec<Doc> {
        let mut docs = Vec::new();
        let next = self.token().start;
        while let Some(comment) = self.comments.get(self.comment).filter(|c| c.start < next).cloned() {
            if blanks && !first && self.lines_between(self.end_before(comment.start), comment.start) > 1 {
                docs.push(Doc::blank());
            }
            docs.push(Doc::own_line(&self.text[comment.start as usize..comment.end as usize]));
            self.comment += 1;
            first = false;
        }
        if blanks && !first && self.lines_between(self.end_before(next), next) > 1 {
            docs.push(Doc::blank());
        }
        docs
    }

    /// The comment behind the token just passed, on its line.
    fn trailing(&mut self) -> Vec<Doc> {
        let Some(comment) = self.comments.get(self.comment).cloned() else { return vec![] };
        let end = self.tokens[self.at - 1].end;
        if comment.start >= self.token().start || self.lines_between(end, comment.start) > 0 {
            return vec![];
        }
        self.comment += 1;
        vec![Doc::trailing(&self.text[comment.start as usize..comment.end as usize])]
    }

    /// The next token with its comments.
    fn take(&mut self) -> Doc {
        let mut docs = self.leading(false, true);
        docs.push(self.bare());
        docs.extend(self.trailing());
        Doc::concat(docs)
    }

    /// The text of the next token.
    fn bare(&mut self) -> Doc {
        let doc = Doc::text(self.token().text(self.text));
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        doc
    }

    /// Drops the next token if it is of that kind; its comments stay.
    fn skip(&mut self, kind: TokenKind) -> Doc {
        if !self.is(kind) {
            return Doc::concat([]);
        }
        let mut docs = self.leading(false, true);
        self.bare();
        docs.extend(self.trailing());
        Doc::concat(docs)
    }

    /// The next token, a space behind it.
    fn word(&mut self) -> Doc {
        Doc::concat([self.take(), Doc::text(" ")])
    }

    // --- top level ---

    fn module(&mut self, module: &Module) -> Doc {
        let mut docs = Vec::new();
        let mut before: Option<&Item> = None;
        for item in &module.items {
            docs.push(self.skip_semicolons());
            let is_use = |i: &Item| matches!(i, Item::Use(_));
            if before.is_some_and(|b| !is_use(b) || !is_use(item)) {
                docs.push(Doc::blank());
            }
            docs.push(Doc::hard());
            docs.extend(self.leading(true, before.is_none()));
            docs.push(match item {
                Item::Use(_) => self.use_item(),
                Item::Net(f) | Item::Block(f) => self.function(f),
            });
            before = Some(item);
        }
        docs.push(self.skip_semicolons());
        docs.extend(self.leading(true, before.is_none()));
        Doc::concat(docs)
    }

    fn skip_semicolons(&mut self) -> Doc {
        let mut docs = Vec::new();
        while self.is(TokenKind::Semicolon) {
            docs.push(self.skip(TokenKind::Semicolon));
        }
        Doc::concat(docs)
    }

    fn use_item(&mut self) -> Doc {
        let mut docs = vec![self.word(), self.take()];
        while self.is(TokenKind::Dot) {
            docs.extend([self.take(), self.take()]);
        }
        Doc::concat(docs)
    }

    fn function(&mut self, function: &Function) -> Doc {
        let mut docs = vec![self.word(), self.take()];
        if function.params.is_empty() {
            docs.extend([self.skip(TokenKind::ParenOpen), self.skip(TokenKind::ParenClose)]);
        } else {
            docs.push(self.bracketed(
                function.params.len(),
                false,
                |f, i| match &function.params[i].default {
                    Some(default) => Doc::concat([f.word(), f.word(), f.expr(default)]),
                    None => f.take(),
                },
            ));
        }
        docs.push(Doc::text(" "));
        if function.kind.is_some() {
            docs.extend([self.word(), self.word()]);
        }
        docs.push(self.block(&function.body));
        Doc::concat(docs)
    }

    // --- blocks and statements ---

    /// True if the block at hand stays on lines of its own: the author broke it, or it cannot be on one line.
    fn is_broken(&self, block: &Block) -> bool {
        let comments = self.comments[self.comment..].iter().take_while(|c| c.start < block.span.end);
        let inside = comments.filter(|c| c.start > self.token().start).count() > 0;
        let next = self.tokens[(self.at + 1).min(self.tokens.len() - 1)];
        inside || block.stmts.len() > 1 || (next.first_of_line && !block.stmts.is_empty())
    }

    fn block(&mut self, block: &Block) -> Doc {
        let broken = self.is_broken(block);
        let open = self.take();
        if !broken && block.stmts.is_empty() {
            let dropped = self.skip_semicolons();
            return Doc::concat([open, dropped, self.take()]);
        }
        let gap = || if broken { Doc::hard() } else { Doc::line(" ") };
        let mut body = vec![self.skip_semicolons()];
        for (i, stmt) in block.stmts.iter().enumerate() {
            body.push(gap());
            body.extend(self.leading(true, i == 0));
            body.push(self.stmt(stmt));
            let dropped = self.skip_semicolons();
            // Without its `;` a statement would go on in a line that begins with a sign.
            if self.is(TokenKind::Minus) {
                body.push(Doc::text(";"));
            }
            body.push(dropped);
        }
        // Comments before the brace belong to the body; a blank line before the brace does not.
        let mut last = self.leading(true, block.stmts.is_empty());
        if self.lines_between(self.end_before(self.token().start), self.token().start) > 1 {
            last.pop();
        }
        if !last.is_empty() {
            body.push(Doc::hard());
            body.extend(last);
        }
        let close = self.bare();
        let inner = Doc::concat([open, Doc::concat(body).indent(), gap(), close]).group();
        let behind = self.trailing();
        Doc::concat(std::iter::once(inner).chain(behind))
    }

    /// A block that stays on the line it is on.
    fn inline_block(&mut self, block: &Block) -> Doc {
        let mut docs = vec![self.take(), self.skip_semicolons()];
        for stmt in &block.stmts {
            docs.extend([Doc::text(" "), self.stmt(stmt), self.skip_semicolons(), Doc::text(" ")]);
        }
        docs.push(self.take());
        Doc::concat(docs)
    }

    fn stmt(&mut self, stmt: &Stmt) -> Doc {
        match &stmt.kind {
            StmtKind::Input { ty, .. } => {
                Doc::concat([self.word(), self.take(), self.word(), self.tensor_type(ty)])
            }
            StmtKind::Output { value, .. }
            | StmtKind::Layer { value, .. }
            | StmtKind::Const { value, .. }
            | StmtKind::Metric { value, .. } => {
                Doc::concat([self.word(), self.word(), self.word(), self.expr(value)])
            }
            StmtKind::Let { names, value } => {
                Doc::concat([self.word(), self.names(names), self.word(), self.expr(value)])
            }
            StmtKind::Assign { names, value } => {
                Doc::concat([self.names(names), self.word(), self.expr(value)])
            }
            StmtKind::Param { ty, init, .. } => {
                let mut docs = vec![self.word(), self.take(), self.word(), self.tensor_type(ty)];
                if let Some(init) = init {
                    docs.extend([Doc::text(" "), self.word(), self.expr(init)]);
                }
                Doc::concat(docs)
            }
            StmtKind::Repeat { count, body } => {
                Doc::concat([self.word(), self.expr(count), Doc::text(" "), self.block(body)])
            }
            StmtKind::For { names, iter, body } => Doc::concat([
                self.word(),
                self.names(names),
                self.word(),
                self.expr(iter),
                Doc::text(" "),
                self.block(body),
            ]),
            StmtKind::Require { condition, message } => {
                let mut docs = vec![self.word(), self.expr(condition)];
                if let Some(message) = message {
                    docs.push(self.take());
                    let broken = self.token().first_of_line;
                    let gap = if broken { Doc::hard() } else { Doc::line(" ") };
                    docs.push(Doc::concat([gap, self.expr(message)]).indent());
                    let doc = Doc::concat(docs);
                    return if broken { doc.group() } else { doc.loose_group() };
                }
                Doc::concat(docs)
            }
            StmtKind::Train(body) => Doc::concat([self.word(), self.block(body)]),
            StmtKind::Expr(value) => self.expr(value),
        }
    }

    /// `a, b ` with a space behind.
    fn names(&mut self, names: &[Ident]) -> Doc {
        let mut docs = Vec::new();
        for i in 0..names.len() {
            docs.push(if i + 1 < names.len() { self.take() } else { self.word() });
            if i + 1 < names.len() {
                docs.push(self.word());
            }
        }
        Doc::concat(docs)
    }

    fn tensor_type(&mut self, ty: &TensorType) -> Doc {
        let name = self.take();
        if !self.is(TokenKind::BracketOpen) || self.token().start >= ty.span.end {
            return name;
        }
        let dims = self.bracketed(ty.dims.len(), false, |f, i| f.expr(&ty.dims[i]));
        Doc::concat([name, dims])
    }
}
