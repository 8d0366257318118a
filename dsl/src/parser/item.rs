//! The top level of a file: `use`, `net`, `block`.

use super::{Failed, Parsed, Parser};
use crate::ast::{Function, Ident, Item, Module, Param, Use, UseTarget};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::token::{Keyword, TokenKind};

impl Parser<'_> {
    pub(super) fn module(&mut self) -> Module {
        let mut items = Vec::new();
        loop {
            while self.eat(TokenKind::Semicolon) {}
            if self.is(TokenKind::End) {
                break;
            }
            let before = self.at;
            self.began = before;
            match self.item() {
                Ok(item) => items.push(item),
                Err(_) => {
                    if self.at == before {
                        self.bump();
                    }
                    self.skip_item();
                }
            }
        }
        Module { items, span: Span::new(self.file, 0, self.text.len()) }
    }

    fn item(&mut self) -> Parsed<Item> {
        match self.kind() {
            TokenKind::Key(Keyword::Use) => self.use_item(),
            TokenKind::Key(Keyword::Net) => self.function().map(Item::Net),
            TokenKind::Key(Keyword::Block) => self.function().map(Item::Block),
            TokenKind::BraceClose => {
                let span = self.span();
                self.bump();
                Err(self.fail(Diagnostic::error("`}` that closes nothing", span, "no `{` is open here")))
            }
            _ => Err(self.expected("`net`, `block` or `use`")),
        }
    }

    fn use_item(&mut self) -> Parsed<Item> {
        let start = self.bump().span(self.file);
        let target = if self.is(TokenKind::Str) {
            let token = self.bump();
            UseTarget::File(self.plain_string(token)?)
        } else if self.token().is_word() && !self.token().first_of_line {
            let mut path = self.word("a name")?.name;
            while self.eat(TokenKind::Dot) {
                path.push('.');
                path.push_str(&self.word("a name")?.name);
            }
            UseTarget::Std(path)
        } else {
            return Err(self.expected("a library such as `std.vision` or a file such as `\"blocks.nn\"`"));
        };
        let span = self.since(start);
        if !self.is(TokenKind::End) && !self.token().first_of_line && !self.eat(TokenKind::Semicolon) {
            return Err(self.expected("the end of the line"));
        }
        Ok(Item::Use(Use { target, span }))
    }

    pub(super) fn function(&mut self) -> Parsed<Function> {
        let start = self.bump();
        let what =
            if start.kind == TokenKind::Key(Keyword::Net) { "the net's name" } else { "the block's name" };
        let name = self.function_name(what)?;
        let mut params = Vec::new();
        let depth = self.open.len();
        if self.is(TokenKind::ParenOpen) && self.params(&mut params).is_err() {
            self.skip_to_body(depth)?;
        }
        let kind = if self.is_key(Keyword::As) {
            self.bump();
            Some(self.word("the kind by which uses are numbered")?)
        } else {
            None
        };
        let body = self.block()?;
        Ok(Function { name, params, kind, body, span: self.since(start.span(self.file)) })
    }

    /// A reserved word is reported and taken for the name, so that the body is checked all the same.
    fn function_name(&mut self, what: &str) -> Parsed<Ident> {
        let token = self.token();
        self.ident(what).or_else(|error| match token.kind {
            TokenKind::Key(_) if self.ahead(1).kind == TokenKind::ParenOpen => {
                self.bump();
                Ok(Ident { name: self.source(token).to_owned(), span: token.span(self.file) })
            }
            _ => Err(error),
        })
    }

    /// Skips the rest of bad parameters if the body's `{` is on the same line.
    fn skip_to_body(&mut self, depth: usize) -> Parsed<()> {
        self.open.truncate(depth);
        while !self.is(TokenKind::BraceOpen) {
            if self.token().first_of_line || self.is(TokenKind::End) {
                return Err(Failed);
            }
            self.bump();
        }
        Ok(())
    }

    fn params(&mut self, params: &mut Vec<Param>) -> Parsed<()> {
        self.open(TokenKind::ParenClose);
        while !self.is(TokenKind::ParenClose) {
            let name = self.ident("a parameter's name")?;
            let default = if self.eat(TokenKind::Assign) { Some(self.expr()?) } else { None };
            params.push(Param { name, default });
            if !self.eat(TokenKind::Comma) {
                break;
            }
        }
        self.close("`,` or `)`")
    }
}
