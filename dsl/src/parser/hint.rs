//! What to do about an error of syntax, where that is obvious.

use super::Parser;
use crate::diagnostic::Diagnostic;
use crate::token::{Keyword, TokenKind};

impl Parser<'_> {
    /// Adds a hint that fits the token at hand and the one before it.
    pub(super) fn hinted(&self, error: Diagnostic) -> Diagnostic {
        match self.hint(&error.title) {
            Some(help) => error.help(help),
            None => error,
        }
    }

    fn hint(&self, title: &str) -> Option<String> {
        let token = self.token();
        let before = (self.at > 0).then(|| self.tokens[self.at - 1]);
        let expects = |what: &str| title.starts_with(&format!("expected {what}"));
        if expects("an expression") {
            return self.hint_for_value(token.kind, before.map(|t| t.kind));
        }
        if expects("`:`") {
            return Some("the type stands behind a colon: `image: f32[N, 3, 224, 224]`".into());
        }
        if expects("`in`") {
            return Some("a loop is written `for i in 0..n { … }`".into());
        }
        if expects("a name such as") && token.kind == TokenKind::Str {
            return Some("a name has no quotes; computed parts stand in braces: `layer1.{i}`".into());
        }
        if expects("a field's name") && self.at > 1 && self.tokens[self.at - 2].kind == TokenKind::Int {
            return Some("a number has digits on both sides of its point: `5.0`".into());
        }
        if token.kind == TokenKind::Name
            && let Some(help) = foreign_word(self.source(token))
        {
            return Some(help.into());
        }
        if let Some(help) =
            before.filter(|t| t.kind == TokenKind::Name).and_then(|t| foreign_word(self.source(t)))
        {
            return Some(help.into());
        }
        match token.kind {
            TokenKind::Assign | TokenKind::Arrow | TokenKind::Comma
                if before.is_some_and(|t| matches!(t.kind, TokenKind::Key(k) if k.begins_statement())) =>
            {
                before.map(|t| reserved(self.source(t)))
            }
            TokenKind::Assign if expects("the end of the statement") => {
                Some("only names can be bound with `=`; equality is written `==`".into())
            }
            TokenKind::Assign if !expects("a name") => {
                Some("`=` binds a name to a value; equality is written `==`".into())
            }
            TokenKind::Eq if expects("`=`") => Some("a name is bound with `=`".into()),
            TokenKind::Colon if expects("`{`") => Some("a body is written in braces: `{ … }`".into()),
            TokenKind::Arrow if expects("`{`") => Some("a body is written in braces: `{ … }`".into()),
            TokenKind::ParenClose | TokenKind::BracketClose if expects("the end of the statement") => {
                Some(format!("no bracket is open that {} could close", token.kind.describe()))
            }
            TokenKind::ParenClose | TokenKind::BracketClose => {
                self.open.last().map(|o| format!("the bracket is closed with {}", o.closer.describe()))
            }
            _ if expects("`{`") => Some("a body is written in braces: `{ … }`".into()),
            _ if expects("`)`") || expects("`,` or `)`") => Some(self.hint_for_unclosed(')')),
            _ if expects("`]`") || expects("`,` or `]`") => Some(self.hint_for_unclosed(']')),
            TokenKind::Comma if expects("the end of the statement") => {
                Some("several values stand in parentheses: `(a, b)`".into())
            }
            TokenKind::Int | TokenKind::Float | TokenKind::Pair
                if before.is_some_and(|t| t.kind == TokenKind::Name) =>
            {
                Some("the arguments of a call stand in parentheses: `dense(10)`".into())
            }
            TokenKind::Key(Keyword::As) => Some("a value has one name; `{ }` computes a part of it".into()),
            _ if expects("the end of the statement") => {
                Some("statements stand on lines of their own, or have `;` between them".into())
            }
            _ => None,
        }
    }

    fn hint_for_unclosed(&self, closer: char) -> String {
        if self.token().first_of_line || self.is(TokenKind::End) {
            format!("close the bracket with `{closer}`")
        } else {
            format!("write `,` before another element, or close the bracket with `{closer}`")
        }
    }

    fn hint_for_value(&self, found: TokenKind, before: Option<TokenKind>) -> Option<String> {
        Some(match found {
            TokenKind::Arrow if before == Some(TokenKind::Arrow) => {
                "there is one `->` between two layers".into()
            }
            TokenKind::Arrow => "a pipe begins with a value: `x -> f`".into(),
            TokenKind::BraceOpen if before == Some(TokenKind::Key(Keyword::Repeat)) => {
                "say how often: `repeat 3 { … }`".into()
            }
            TokenKind::BraceOpen if before == Some(TokenKind::Key(Keyword::If)) => {
                "the condition is missing".into()
            }
            TokenKind::Dot => "a number has digits on both sides of its point: `0.5`".into(),
            TokenKind::BraceOpen => "lists are written in `[ ]`; braces hold statements".into(),
            TokenKind::Assign if before == Some(TokenKind::Assign) => "equality is written `==`".into(),
            TokenKind::ParenClose if before == Some(TokenKind::ParenOpen) => {
                "a tuple has at least one part".into()
            }
            TokenKind::Plus => "a number needs no `+` before it".into(),
            TokenKind::Key(k) if !self.line_ended() && !self.token().first_of_line => reserved(k.text()),
            TokenKind::Key(k) if self.ahead(1).kind == TokenKind::Assign => reserved(k.text()),
            _ => return None,
        })
    }
}

pub(super) fn reserved(word: &str) -> String {
    format!("`{word}` is a reserved word; choose another name, such as `{word}_`")
}

/// Words with which other languages begin what stands at the top level here.
pub(super) fn foreign_item(word: &str) -> bool {
    foreign_item_help(word).is_some()
}

fn foreign_item_help(word: &str) -> Option<&'static str> {
    Some(match word {
        "def" | "fn" | "func" | "function" | "fun" | "module" | "class" | "struct" => {
            "a layer of your own is written `block name(x, …) { … }`"
        }
        "network" | "model" | "graph" => "a network is written `net name(…) { … }`",
        "import" | "include" | "from" | "using" => "write `use std.vision` or `use \"file.nn\"`",
        _ => return None,
    })
}

/// Words of other languages.
fn foreign_word(word: &str) -> Option<&'static str> {
    Some(match word {
        "var" | "val" | "auto" | "mut" => "a name is bound with `let name = value`",
        "elif" | "elsif" | "elseif" => "write `else if`",
        "while" | "loop" => "the loops are `repeat n { … }` and `for i in 0..n { … }`",
        "return" => "the last expression of a block is its value; there is no `return`",
        "assert" => "write `require condition, \"message\"`",
        "weight" | "parameter" | "buffer" => {
            "tensors of a layer are declared with `param name: f32[…]` or `state`"
        }
        _ => return foreign_item_help(word),
    })
}
