//! Numbers, size pairs, strings and paths.

use super::{Parsed, Parser};
use crate::ast::{Expr, ExprKind, Path, PathPart, StrPart};
use crate::diagnostic::Diagnostic;
use crate::lexer::lex;
use crate::source::Span;
use crate::token::{Token, TokenKind};

impl Parser<'_> {
    pub(super) fn int(&mut self, token: Token) -> Parsed<i64> {
        self.bump();
        self.parsed_int(self.source(token), token)
    }

    fn parsed_int(&mut self, text: &str, token: Token) -> Parsed<i64> {
        text.parse().map_err(|_| {
            let span = token.span(self.file);
            self.fail(
                Diagnostic::error("integer too large", span, "does not fit 64 bits")
                    .note(format!("the largest integer is {}", i64::MAX)),
            )
        })
    }

    pub(super) fn float(&mut self, token: Token) -> Parsed<f64> {
        self.bump();
        match self.source(token).parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => {
                let span = token.span(self.file);
                Err(self.fail(Diagnostic::error("number too large", span, "does not fit a 64-bit float")))
            }
        }
    }

    pub(super) fn pair(&mut self, token: Token) -> Parsed<ExprKind> {
        self.bump();
        let (height, width) = self.source(token).split_once('x').unwrap_or(("0", "0"));
        Ok(ExprKind::Pair(self.parsed_int(height, token)?, self.parsed_int(width, token)?))
    }

    /// A string in which nothing is computed.
    pub(super) fn plain_string(&mut self, token: Token) -> Parsed<String> {
        let parts = self.string(token)?;
        let mut text = String::new();
        for part in parts {
            match part {
                StrPart::Text(t) => text.push_str(&t),
                StrPart::Expr(e) => {
                    return Err(self.fail(
                        Diagnostic::error("computed part in a file name", e.span, "not known here")
                            .help("write the name out; a `{` that means itself is written `\\{`"),
                    ));
                }
            }
        }
        Ok(text)
    }

    /// The parts of a string token that has been read.
    pub(super) fn string(&mut self, token: Token) -> Parsed<Vec<StrPart>> {
        let source = self.source(token);
        let content = &source[1..source.len() - 1];
        let base = token.start as usize + 1;
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut at = 0;
        let mut highest = 0;
        while let Some(c) = content[at..].chars().next() {
            at += c.len_utf8();
            match c {
                '\\' => {
                    let Some(escape) = content[at..].chars().next() else { break };
                    text.push(self.escaped(escape, base + at - 1)?);
                    at += escape.len_utf8();
                }
                '{' => {
                    let Some(len) = content[at..].find('}') else {
                        let span = Span::new(self.file, base + at - 1, base + at);
                        return Err(self.fail(
                            Diagnostic::error("`{` without `}` in a string", span, "begins a computed part")
                                .help("a `{` that means itself is written `\\{`"),
                        ));
                    };
                    if !text.is_empty() {
                        parts.push(StrPart::Text(std::mem::take(&mut text)));
                    }
                    let value = self.embedded(base + at, base + at + len)?;
                    highest = highest.max(self.height);
                    parts.push(StrPart::Expr(value));
                    at += len + 1;
                }
                _ => text.push(c),
            }
        }
        if !text.is_empty() {
            parts.push(StrPart::Text(text));
        }
        self.raise(highest, token.span(self.file))?;
        Ok(parts)
    }

    fn escaped(&mut self, escape: char, at: usize) -> Parsed<char> {
        Ok(match escape {
            'n' => '\n',
            't' => '\t',
            '"' | '\\' | '{' | '}' => escape,
            _ => {
                let span = Span::new(self.file, at, at + 1 + escape.len_utf8());
                return Err(self.fail(
                    Diagnostic::error(format!("unknown escape `\\{escape}`"), span, "")
                        .help("the escapes are `\\n`, `\\t`, `\\\"`, `\\\\`, `\\{` and `\\}`"),
                ));
            }
        })
    }

    /// Reads the expression that the text from `start` to `end` is.
    fn embedded(&mut self, start: usize, end: usize) -> Parsed<Expr> {
        let mut errors = std::mem::take(&mut self.errors);
        let tokens = lex(self.text, self.file, start..end, &mut errors).tokens;
        let mut inner = Parser::new(self.text, self.file, tokens, errors);
        inner.nesting = self.nesting;
        let value = inner
            .expr()
            .and_then(|value| if inner.is(TokenKind::End) { Ok(value) } else { Err(inner.expected("`}`")) });
        self.height = inner.height;
        self.errors = inner.errors;
        value
    }

    /// `layer1.{i}.conv1`; a part may be glued together, as in `layer{i}`.
    pub(super) fn path(&mut self) -> Parsed<Path> {
        let start = self.span();
        let mut parts = Vec::new();
        self.height = 0;
        loop {
            parts.push(self.also(Self::path_part)?);
            if !self.is(TokenKind::Dot) || self.at_new_line() {
                break;
            }
            self.bump();
        }
        Ok(Path { parts, span: self.since(start) })
    }

    fn path_part(&mut self) -> Parsed<PathPart> {
        let start = self.span();
        let mut pieces = Vec::new();
        self.height = 0;
        loop {
            let token = self.token();
            let glued = token.start == self.tokens[self.at.saturating_sub(1)].end;
            if !pieces.is_empty() && !glued {
                break;
            }
            match token.kind {
                TokenKind::Digits | TokenKind::Int => {
                    self.bump();
                    pieces.push(StrPart::Text(self.source(token).to_owned()));
                }
                _ if token.is_word() => {
                    self.bump();
                    pieces.push(StrPart::Text(self.source(token).to_owned()));
                }
                TokenKind::BraceOpen => {
                    self.open(TokenKind::BraceClose);
                    pieces.push(StrPart::Expr(self.also(Self::expr)?));
                    self.close("`}`")?;
                }
                _ if pieces.is_empty() => return Err(self.expected("a name such as `conv1` or `layer1.{i}`")),
                _ => break,
            }
        }
        self.height += 1;
        Ok(match pieces.pop() {
            Some(StrPart::Text(name)) if pieces.is_empty() => PathPart::Name(name),
            Some(StrPart::Expr(value)) if pieces.is_empty() => PathPart::Expr(value),
            last => {
                pieces.extend(last);
                PathPart::Expr(Expr { kind: ExprKind::Str(pieces), span: self.since(start) })
            }
        })
    }
}
