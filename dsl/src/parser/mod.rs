//! Tokens to syntax tree: recursive descent with recovery.
//!
//! Takes a file; gives a tree and the diagnostics. What cannot be read is left out of the tree or becomes
//! [`ExprKind::Error`](crate::ast::ExprKind::Error), and reading goes on at the next statement, so one run reports
//! several errors. A function that returns [`Failed`] has reported why. Promises: no panic, time linear in the
//! text, and trees no higher than [`MAX_HEIGHT`], so that whoever walks them may recurse.

mod expr;
mod hint;
mod item;
mod literal;
mod recover;
mod stmt;

use crate::ast::{Ident, Module};
use crate::diagnostic::Diagnostic;
use crate::errors::{Errors, shortened};
use crate::lexer::lex;
use crate::source::{FileId, MAX_SOURCE_BYTES, SourceMap, Span};
use crate::token::{Keyword, Token, TokenKind};

/// How deep brackets, blocks and operators may be nested in each other.
pub const MAX_NESTING: usize = 100;

/// How high a tree may be; a chain `a -> b -> c` is as high as it is long.
pub const MAX_HEIGHT: usize = 500;

/// Reads a file of the map.
///
/// The diagnostics are in the order of the text and may be warnings; the tree can be built if none is an error.
/// At most [`MAX_ERRORS`](crate::errors::MAX_ERRORS) errors are given, then how many more there are.
pub fn parse(map: &SourceMap, file: FileId) -> (Module, Vec<Diagnostic>) {
    let text = map.file(file).text.as_str();
    if text.len() > MAX_SOURCE_BYTES {
        let span = Span::new(file, 0, 0);
        return (Module { items: vec![], span }, vec![SourceMap::too_large(&map.file(file).name)]);
    }
    let mut errors = Errors::default();
    let tokens = lex(text, file, 0..text.len(), &mut errors).tokens;
    let mut parser = Parser::new(text, file, tokens, errors);
    let module = parser.module();
    (module, parser.errors.finish())
}

/// The reason was reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed;

pub(crate) type Parsed<T> = Result<T, Failed>;

/// A bracket that is open at the place of reading.
#[derive(Clone, Copy, Debug)]
struct Open {
    closer: TokenKind,
    span: Span,
}

pub(crate) struct Parser<'a> {
    text: &'a str,
    file: FileId,
    tokens: Vec<Token>,
    at: usize,
    open: Vec<Open>,
    nesting: usize,
    /// Where the statement or item at hand begins.
    began: usize,
    /// Height of the tree that was read last.
    height: usize,
    /// Where the error before was.
    failed_at: Option<u32>,
    errors: Errors,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, file: FileId, tokens: Vec<Token>, errors: Errors) -> Parser<'a> {
        Parser {
            text,
            file,
            tokens,
            at: 0,
            open: vec![],
            nesting: 0,
            began: 0,
            height: 0,
            failed_at: None,
            errors,
        }
    }

    // --- looking ---

    fn token(&self) -> Token {
        self.tokens[self.at]
    }

    fn kind(&self) -> TokenKind {
        self.token().kind
    }

    /// The token `n` further on, or the end.
    fn ahead(&self, n: usize) -> Token {
        self.tokens[(self.at + n).min(self.tokens.len() - 1)]
    }

    fn is(&self, kind: TokenKind) -> bool {
        self.kind() == kind
    }

    fn is_key(&self, keyword: Keyword) -> bool {
        self.kind() == TokenKind::Key(keyword)
    }

    /// The place of the token at hand; the end of the text is right behind its last token.
    fn span(&self) -> Span {
        match self.token().kind {
            TokenKind::End if self.at > 0 => {
                let end = self.tokens[self.at - 1].end as usize;
                Span::new(self.file, end, end)
            }
            _ => self.token().span(self.file),
        }
    }

    /// From `start` to the end of the token read last.
    fn since(&self, start: Span) -> Span {
        let end = self.tokens[self.at.saturating_sub(1)].span(self.file);
        if end.end > start.start { start.to(end) } else { start }
    }

    fn source(&self, token: Token) -> &'a str {
        token.text(self.text)
    }

    /// True if the token at hand begins a new line and lines matter here, that is outside of `(` and `[`.
    fn at_new_line(&self) -> bool {
        self.token().first_of_line && self.open.last().is_none_or(|o| o.closer == TokenKind::BraceClose)
    }

    // --- going on ---

    fn bump(&mut self) -> Token {
        let token = self.token();
        if token.kind != TokenKind::End {
            self.at += 1;
        }
        token
    }

    fn eat(&mut self, kind: TokenKind) -> bool {
        let found = self.is(kind);
        if found {
            self.bump();
        }
        found
    }

    fn expect(&mut self, kind: TokenKind) -> Parsed<Token> {
        if self.is(kind) {
            return Ok(self.bump());
        }
        Err(self.expected(kind.describe()))
    }

    /// A name that is not a reserved word.
    fn ident(&mut self, what: &str) -> Parsed<Ident> {
        let token = self.token();
        if token.kind == TokenKind::Name {
            self.bump();
            return Ok(Ident { name: self.source(token).to_owned(), span: token.span(self.file) });
        }
        if let (TokenKind::Key(keyword), false) = (token.kind, self.line_ended()) {
            let word = keyword.text();
            return Err(self.fail(
                Diagnostic::error(
                    format!("expected {what}, found the reserved word `{word}`"),
                    token.span(self.file),
                    "reserved",
                )
                .help(format!("choose another name, such as `{word}_`")),
            ));
        }
        Err(self.expected(what))
    }

    /// A name, reserved or not: a field, an argument's name.
    fn word(&mut self, what: &str) -> Parsed<Ident> {
        let token = self.token();
        if token.is_word() && !self.at_new_line() {
            self.bump();
            return Ok(Ident { name: self.source(token).to_owned(), span: token.span(self.file) });
        }
        Err(self.expected(what))
    }

    /// Names with commas between them.
    fn idents(&mut self, what: &str) -> Parsed<Vec<Ident>> {
        let mut names = vec![self.ident(what)?];
        while self.eat(TokenKind::Comma) {
            names.push(self.ident(what)?);
        }
        Ok(names)
    }

    // --- brackets ---

    /// Reads an opening bracket, which must be at hand.
    fn open(&mut self, closer: TokenKind) -> Span {
        let span = self.bump().span(self.file);
        self.open.push(Open { closer, span });
        span
    }

    /// Reads the closing bracket of the innermost open one.
    fn close(&mut self, expected: &str) -> Parsed<()> {
        let Some(open) = self.open.last().copied() else { return Err(self.expected(expected)) };
        if self.is(open.closer) {
            self.bump();
            self.open.pop();
            return Ok(());
        }
        Err(self.unclosed(expected, open))
    }

    /// Calls `read` one level deeper, unless that is too deep.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= MAX_NESTING {
            let span = self.span();
            return Err(self.fail(
                Diagnostic::error(
                    format!("more than {MAX_NESTING} levels of nesting"),
                    span,
                    "too deep here",
                )
                .help("bind parts of it to names with `let`"),
            ));
        }
        self.nesting += 1;
        let result = read(self);
        self.nesting -= 1;
        result
    }

    /// Reads a further child of a node: the height is then that of the highest child.
    fn also<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let before = self.height;
        let result = read(self)?;
        self.height = self.height.max(before);
        Ok(result)
    }

    /// Sets the height of a node from that of its highest child.
    fn raise(&mut self, children: usize, span: Span) -> Parsed<()> {
        self.height = children + 1;
        if self.height < MAX_HEIGHT {
            return Ok(());
        }
        self.height = 0;
        Err(self.fail(
            Diagnostic::error(
                format!("an expression of more than {MAX_HEIGHT} steps"),
                span,
                "too long here",
            )
            .help("bind parts of it to names with `let`, or write a loop with `repeat`"),
        ))
    }

    // --- reporting ---

    /// Reports an error, unless one was reported at that very place.
    fn fail(&mut self, error: Diagnostic) -> Failed {
        let place = error.primary.first().map(|l| l.span.start);
        if place.is_none() || place != self.failed_at {
            self.errors.push(error);
            self.failed_at = place;
        }
        Failed
    }

    /// Reports that something else was expected than what is at hand; silent where the lexer has complained.
    fn expected(&mut self, what: &str) -> Failed {
        if self.is(TokenKind::Invalid) {
            return Failed;
        }
        let title = format!("expected {what}, found {}", self.found());
        let error = Diagnostic::error(title, self.place(), format!("expected {what}"));
        let error = self.hinted(error);
        self.fail(error)
    }

    /// True if a statement stops short: the token at hand begins the next line.
    fn line_ended(&self) -> bool {
        self.at > self.began && self.at_new_line() && !self.continues_line()
    }

    /// The place of what is at hand: where a line stops short, its end.
    fn place(&self) -> Span {
        if !self.line_ended() {
            return self.span();
        }
        let end = self.tokens[self.at - 1].end as usize;
        Span::new(self.file, end, end)
    }

    /// What is at hand, in words.
    fn found(&self) -> String {
        let token = self.token();
        match token.kind {
            _ if self.line_ended() => "the end of the line".into(),
            TokenKind::Str => "a string".into(),
            // The end of a string's computed part is not that of the file.
            TokenKind::End if (token.end as usize) < self.text.len() => "`}`".into(),
            TokenKind::End => "the end of the file".into(),
            TokenKind::Invalid => "unreadable text".into(),
            _ => format!("`{}`", shortened(self.source(token))),
        }
    }

    fn unclosed(&mut self, expected: &str, open: Open) -> Failed {
        if self.is(TokenKind::Invalid) {
            return Failed;
        }
        let error = Diagnostic::error(
            format!("expected {expected}, found {}", self.found()),
            self.span(),
            format!("expected {expected}"),
        )
        .label(open.span, "opened here");
        let error = self.hinted(error);
        self.fail(error)
    }
}
