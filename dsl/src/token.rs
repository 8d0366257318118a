//! The tokens of the language.
//!
//! A [`Token`] is a kind and a place; its text stays in the source. Line ends are no tokens of their own:
//! each token knows whether it is the first of its line, and the parser decides whether that matters.

use crate::source::{FileId, Span};

/// A token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// True if a line end lies between the token before and this one.
    pub first_of_line: bool,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Token {
    /// Its place.
    pub fn span(self, file: FileId) -> Span {
        Span { file, start: self.start, end: self.end }
    }

    /// Its text.
    pub fn text(self, source: &str) -> &str {
        &source[self.start as usize..self.end as usize]
    }

    /// True for names and reserved words alike: both may name fields, arguments and parts of paths.
    pub fn is_word(self) -> bool {
        matches!(self.kind, TokenKind::Name | TokenKind::Key(_))
    }
}

macro_rules! keywords {
    ($($variant:ident $text:literal),* $(,)?) => {
        /// The reserved words.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // each is its own word
        pub enum Keyword { $($variant),* }

        impl Keyword {
            /// As it is written.
            pub fn text(self) -> &'static str {
                match self { $(Keyword::$variant => $text),* }
            }

            /// The reserved word of that text.
            pub fn of(text: &str) -> Option<Keyword> {
                match text { $($text => Some(Keyword::$variant),)* _ => None }
            }
        }
    };
}

keywords! {
    Net "net", Block "block", Use "use", Input "input", Output "output", Let "let", Layer "layer",
    Param "param", State "state", Const "const", Repeat "repeat", For "for", In "in", If "if", Else "else",
    Require "require", Train "train", Metric "metric", As "as", And "and", Or "or", Not "not",
    True "true", False "false",
}

impl Keyword {
    /// True if a statement or an item begins with it and nothing else does.
    pub fn begins_statement(self) -> bool {
        use Keyword::*;
        matches!(
            self,
            Net | Block
                | Use
                | Input
                | Output
                | Let
                | Layer
                | Param
                | State
                | Const
                | Repeat
                | For
                | Require
                | Train
                | Metric
        )
    }
}

/// The kinds of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the punctuation is its own name
pub enum TokenKind {
    /// A name that is not reserved.
    Name,
    /// A reserved word.
    Key(Keyword),
    /// `12`
    Int,
    /// `0.5`, `5e-4`
    Float,
    /// `3x3`
    Pair,
    /// Digits (and letters) right behind a dot: the `0` of `layer1.0.conv1`.
    Digits,
    /// `"…"`, both quotes included.
    Str,
    Arrow,
    DotDot,
    Dot,
    Comma,
    Colon,
    Semicolon,
    ParenOpen,
    ParenClose,
    BracketOpen,
    BracketClose,
    BraceOpen,
    BraceClose,
    Assign,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
    Caret,
    /// Text that is no token; the lexer has reported it.
    Invalid,
    /// The end of the text.
    End,
}

impl TokenKind {
    /// How punctuation is written; for all else what it is.
    pub fn describe(self) -> &'static str {
        use TokenKind::*;
        match self {
            Name => "a name",
            Key(k) => k.text(),
            Int | Float => "a number",
            Pair => "a size pair",
            Digits => "digits",
            Str => "a string",
            Arrow => "`->`",
            DotDot => "`..`",
            Dot => "`.`",
            Comma => "`,`",
            Colon => "`:`",
            Semicolon => "`;`",
            ParenOpen => "`(`",
            ParenClose => "`)`",
            BracketOpen => "`[`",
            BracketClose => "`]`",
            BraceOpen => "`{`",
            BraceClose => "`}`",
            Assign => "`=`",
            Eq => "`==`",
            Ne => "`!=`",
            Lt => "`<`",
            Le => "`<=`",
            Gt => "`>`",
            Ge => "`>=`",
            Plus => "`+`",
            Minus => "`-`",
            Star => "`*`",
            Slash => "`/`",
            Percent => "`%`",
            Caret => "`^`",
            Invalid => "unreadable text",
            End => "the end of the file",
        }
    }
}
