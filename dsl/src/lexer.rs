//! Text to tokens, with nom.
//!
//! Takes a range of a file's text; gives tokens, comments (kept for the formatter) and the diagnostics of text that
//! is no token. Never fails and never panics: what cannot be read becomes one [`TokenKind::Invalid`]. The kinds of
//! token are documented in `docs/language.md`, section "Lexical structure".

use std::ops::Range;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::character::complete::{char, digit1, one_of};
use nom::combinator::{opt, recognize, value};
use nom::{IResult, Parser};

use crate::diagnostic::Diagnostic;
use crate::errors::{Errors, shortened};
use crate::source::{FileId, Span};
use crate::token::{Keyword, Token, TokenKind};

/// What was read.
#[derive(Debug, Default)]
pub struct Lexed {
    /// The tokens; the last one is [`TokenKind::End`].
    pub tokens: Vec<Token>,
    /// The comments, in order: byte ranges from `//` to the line's last visible character.
    pub comments: Vec<Range<u32>>,
}

/// Reads `range` of `text`, which is the text of `file`; reports to `errors`.
pub fn lex(text: &str, file: FileId, range: Range<usize>, errors: &mut Errors) -> Lexed {
    let mut lexer =
        Lexer { text, file, at: range.start, end: range.end, newline: false, lexed: Lexed::default() };
    if lexer.at == 0 && lexer.rest().starts_with('\u{feff}') {
        lexer.at = '\u{feff}'.len_utf8();
    }
    loop {
        lexer.skip_trivia();
        if lexer.rest().is_empty() {
            lexer.push(TokenKind::End, 0);
            return lexer.lexed;
        }
        lexer.token(errors);
    }
}

struct Lexer<'a> {
    text: &'a str,
    file: FileId,
    at: usize,
    end: usize,
    newline: bool,
    lexed: Lexed,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..self.end]
    }

    fn span(&self, len: usize) -> Span {
        Span::new(self.file, self.at, self.at + len)
    }

    fn push(&mut self, kind: TokenKind, len: usize) {
        let (start, end) = (self.at as u32, (self.at + len) as u32);
        self.lexed.tokens.push(Token { kind, first_of_line: self.newline, start, end });
        self.newline = false;
        self.at += len;
    }

    fn skip_trivia(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
            self.newline |= rest[..blank].contains('\n');
            self.at += blank;
            let Some(line) = self.rest().strip_prefix("//") else { return };
            let line = line.split('\n').next().unwrap_or("");
            let start = self.at as u32;
            self.lexed.comments.push(start..start + 2 + line.trim_end().len() as u32);
            self.at += 2 + line.len();
        }
    }

    fn token(&mut self, errors: &mut Errors) {
        let rest = self.rest();
        // Behind a dot that touches it, a number is a part of a path: `downsample.0.1` has no float in it.
        let part =
            self.lexed.tokens.last().is_some_and(|t| t.kind == TokenKind::Dot && t.end as usize == self.at)
                && rest.starts_with(|c: char| c.is_ascii_digit());
        if part {
            let len = word_length(rest);
            return self.push(TokenKind::Digits, len);
        }
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            return self.number(errors);
        }
        if let Ok((after, word)) = word(rest) {
            if after.starts_with(|c: char| !c.is_ascii() && c.is_alphabetic()) {
                return self.unknown_word(errors);
            }
            let kind = Keyword::of(word).map_or(TokenKind::Name, TokenKind::Key);
            return self.push(kind, rest.len() - after.len());
        }
        if rest.starts_with('"') {
            return self.string(errors);
        }
        if let Some((len, found, kind, help)) = foreign(rest) {
            errors.push(
                Diagnostic::error(format!("unknown operator `{found}`"), self.span(len), "").help(help),
            );
            return self.push(kind, len);
        }
        match punctuation(rest) {
            Ok((after, kind)) => self.push(kind, rest.len() - after.len()),
            Err(_) => self.unknown(errors),
        }
    }

    fn number(&mut self, errors: &mut Errors) {
        let rest = self.rest();
        let (after, kind) = number(rest).unwrap_or((rest, TokenKind::Invalid));
        let len = rest.len() - after.len();
        let tail = word_length(after);
        if tail == 0 && len > 0 {
            return self.push(kind, len);
        }
        let all = (len + tail).max(1);
        let text = &rest[..all];
        let mut error =
            Diagnostic::error(format!("malformed number `{}`", shortened(text)), self.span(all), "");
        if let Some(size) = text.strip_suffix(['x', 'X']).filter(|t| t.bytes().all(|b| b.is_ascii_digit())) {
            error =
                error.help(format!("a size pair has no spaces and two numbers: `{0}x{0}`", shortened(size)));
        } else if text.contains('X') {
            error = error.help("size pairs are written with a small `x`: `3x3`");
        } else if text.contains('_') {
            error = error.help("write the digits without `_`");
        } else {
            error =
                error.help("names do not begin with a digit; numbers are written `12`, `0.5`, `5e-4`, `3x3`");
        }
        errors.push(error);
        self.push(TokenKind::Invalid, all);
    }

    fn string(&mut self, errors: &mut Errors) {
        let rest = self.rest();
        let mut escaped = false;
        for (i, b) in rest.bytes().enumerate().skip(1) {
            match b {
                b'\n' => break,
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return self.push(TokenKind::Str, i + 1),
                _ => {}
            }
        }
        let line = rest.split('\n').next().unwrap_or("").trim_end();
        errors.push(
            Diagnostic::error("string without an end", self.span(line.len()), "no closing `\"` on this line")
                .help("a string ends on its line; `\\n` in it stands for a line end, `\\\"` for a quote"),
        );
        self.push(TokenKind::Invalid, line.len());
    }

    fn unknown(&mut self, errors: &mut Errors) {
        let rest = self.rest();
        let mut chars = rest.chars();
        let Some(first) = chars.next() else { return };
        if first.is_alphabetic() {
            return self.unknown_word(errors);
        }
        // A run of the same character is one error, so that binary data does not drown the report.
        let len = rest.find(|c| c != first).unwrap_or(rest.len());
        let name = if first.is_control() || first.is_whitespace() {
            format!("U+{:04X}", first as u32)
        } else {
            format!("`{first}`")
        };
        let mut error = Diagnostic::error(format!("unexpected character {name}"), self.span(len), "");
        let help = match first {
            '\'' | '\u{201c}' | '\u{201d}' | '\u{2018}' | '\u{2019}' => Some("strings are written in `\"`"),
            '#' => Some("comments begin with `//`"),
            '\u{2013}' | '\u{2014}' | '\u{2212}' => Some("write the minus sign as `-`"),
            '\u{d7}' => Some("a size pair is written with the letter `x`: `3x3`"),
            '\u{a0}' => Some("this is a non-breaking space; replace it by an ordinary one"),
            '@' => Some("a matrix product is written `matmul(a, b)`"),
            _ => None,
        };
        if let Some(help) = help {
            error = error.help(help);
        }
        errors.push(error);
        let len = match first {
            // Behind a foreign comment sign the rest of the line is prose.
            '#' => rest.split('\n').next().unwrap_or("").trim_end().len(),
            '\'' if len == 1 => rest
                .bytes()
                .skip(1)
                .take(100)
                .take_while(|&b| b != b'\n')
                .position(|b| b == b'\'')
                .map_or(len, |i| i + 2),
            _ => len,
        };
        self.push(TokenKind::Invalid, len);
    }

    fn unknown_word(&mut self, errors: &mut Errors) {
        let rest = self.rest();
        let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        errors.push(
            Diagnostic::error(format!("unknown word `{}`", shortened(&rest[..len])), self.span(len), "")
                .help("names are made of the letters a to z, digits and `_`"),
        );
        self.push(TokenKind::Invalid, len);
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn word_length(text: &str) -> usize {
    text.find(|c| !is_word(c)).unwrap_or(text.len())
}

fn word(input: &str) -> IResult<&str, &str> {
    recognize((take_while1(|c: char| c.is_ascii_alphabetic() || c == '_'), take_while(is_word))).parse(input)
}

fn number(input: &str) -> IResult<&str, TokenKind> {
    let fraction = || recognize((char('.'), digit1));
    let exponent = || recognize((one_of("eE"), opt(one_of("+-")), digit1));
    alt((
        value(TokenKind::Pair, (digit1, char('x'), digit1)),
        value(TokenKind::Float, (digit1, fraction(), opt(exponent()))),
        value(TokenKind::Float, (digit1, exponent())),
        value(TokenKind::Int, digit1),
    ))
    .parse(input)
}

fn punctuation(input: &str) -> IResult<&str, TokenKind> {
    use TokenKind::*;
    let two = alt((
        value(Arrow, tag("->")),
        value(DotDot, tag("..")),
        value(Eq, tag("==")),
        value(Ne, tag("!=")),
        value(Le, tag("<=")),
        value(Ge, tag(">=")),
    ));
    let bracket = alt((
        value(ParenOpen, char('(')),
        value(ParenClose, char(')')),
        value(BracketOpen, char('[')),
        value(BracketClose, char(']')),
        value(BraceOpen, char('{')),
        value(BraceClose, char('}')),
    ));
    let operator = alt((
        value(Assign, char('=')),
        value(Lt, char('<')),
        value(Gt, char('>')),
        value(Plus, char('+')),
        value(Minus, char('-')),
        value(Star, char('*')),
        value(Slash, char('/')),
        value(Percent, char('%')),
        value(Caret, char('^')),
    ));
    let separator = alt((
        value(Comma, char(',')),
        value(Dot, char('.')),
        value(Colon, char(':')),
        value(Semicolon, char(';')),
    ));
    alt((two, bracket, separator, operator)).parse(input)
}

/// Operators of other languages: what was written, what it is read as, and what to write.
fn foreign(rest: &str) -> Option<(usize, &'static str, TokenKind, &'static str)> {
    use TokenKind::*;
    const TABLE: &[(&str, TokenKind, &str)] = &[
        ("&&", Key(Keyword::And), "write `and`"),
        ("||", Key(Keyword::Or), "write `or`"),
        ("**", Caret, "a power is written `a ^ b`"),
        ("===", Eq, "write `==`"),
        ("!==", Ne, "write `!=`"),
        ("<>", Ne, "write `!=`"),
        ("|>", Arrow, "a pipe is written `->`"),
        (">>", Arrow, "a pipe is written `->`"),
        ("=>", Arrow, "a pipe is written `->`"),
        ("\u{2192}", Arrow, "a pipe is written `->`"),
        ("+=", Invalid, "write it out: `x = x + …`"),
        ("-=", Invalid, "write it out: `x = x - …`"),
        ("*=", Invalid, "write it out: `x = x * …`"),
        ("/=", Invalid, "write it out: `x = x / …`; unequal is `!=`"),
        (":=", Assign, "write `=`"),
        ("//=", Invalid, "write it out"),
        ("...", DotDot, "a range is written `0..n`; its end is not in it"),
        ("..=", DotDot, "a range is written `0..n`; its end is not in it"),
        ("::", Dot, "write `.`"),
    ];
    if let Some(&(text, kind, help)) = TABLE.iter().find(|(text, ..)| rest.starts_with(text)) {
        return Some((text.len(), text, kind, help));
    }
    if rest.starts_with('!') && !rest.starts_with("!=") {
        return Some((1, "!", Key(Keyword::Not), "write `not`"));
    }
    None
}
