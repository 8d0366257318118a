//! The top level of a file: `use`, `net`, `block`.

use super::{Parsed, Parser};
use crate::ast::{Function, Item, Module, Param, Use, UseTarget};
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
        } else if self.token().is_word() && !self.at_new_line() {
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

    fn function(&mut self) -> Parsed<Function> {
        let start = self.bump();
        let what =
            if start.kind == TokenKind::Key(Keyword::Net) { "the net's name" } else { "the block's name" };
        let name = self.ident(what)?;
        let params = if self.is(TokenKind::ParenOpen) { self.params()? } else { vec![] };
        let kind = if self.is_key(Keyword::As) {
            self.bump();
            Some(self.word("the kind by which uses are numbered")?)
        } else {
            None
        };
        let body = self.block()?;
        Ok(Function { name, params, kind, body, span: self.since(start.span(self.file)) })
    }

    fn params(&mut self) -> Parsed<Vec<Param>> {
        self.open(TokenKind::ParenClose);
        let mut params = Vec::new();
        while !self.is(TokenKind::ParenClose) {
            let name = self.ident("a parameter's name")?;
            let default = if self.eat(TokenKind::Assign) { Some(self.expr()?) } else { None };
            params.push(Param { name, default });
            if !self.eat(TokenKind::Comma) {
                break;
            }
        }
        self.close("`,` or `)`")?;
        Ok(params)
    }
}
