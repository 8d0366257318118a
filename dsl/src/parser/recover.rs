//! Where reading goes on after an error.

use super::hint::foreign_item;
use super::{Open, Parser};
use crate::token::{Keyword, TokenKind};

/// How far a closing bracket is looked for; bounds the time an error can cost.
const LOOKAHEAD: usize = 2000;

impl Parser<'_> {
    /// Skips the rest of a statement that failed inside of `depth` open brackets: behind the bracket that closes the
    /// outermost one opened since, if it is in sight, else to the next line.
    pub(super) fn skip_statement(&mut self, depth: usize) {
        let opened: Vec<Open> = self.open.drain(depth..).collect();
        if !opened.is_empty() {
            if let Some(behind) = self.behind_closers(&opened) {
                self.at = behind;
            } else if self.token().first_of_line {
                return;
            }
        }
        let mut braces = 0usize;
        let mut brackets = 0usize;
        loop {
            let token = self.token();
            match token.kind {
                TokenKind::End => return,
                TokenKind::Key(k) if token.first_of_line && k.begins_statement() && braces == 0 => return,
                TokenKind::Key(Keyword::Net | Keyword::Block) if token.first_of_line => return,
                TokenKind::BraceClose if braces == 0 => return,
                TokenKind::BraceClose => braces -= 1,
                TokenKind::BraceOpen => braces += 1,
                TokenKind::ParenOpen | TokenKind::BracketOpen => brackets += 1,
                TokenKind::ParenClose | TokenKind::BracketClose => brackets = brackets.saturating_sub(1),
                TokenKind::Semicolon if braces == 0 && brackets == 0 => return,
                _ if token.first_of_line && braces == 0 && brackets == 0 && !self.continues_line() => return,
                _ => {}
            }
            self.bump();
        }
    }

    /// Skips to the next `use`, `net` or `block` that begins a line.
    pub(super) fn skip_item(&mut self) {
        self.open.clear();
        loop {
            let token = self.token();
            match token.kind {
                TokenKind::End => return,
                TokenKind::Key(Keyword::Use | Keyword::Net | Keyword::Block) if token.first_of_line => return,
                TokenKind::Name if token.first_of_line && foreign_item(self.source(token)) => return,
                _ => self.bump(),
            };
        }
    }

    /// True if the token at hand, the first of its line, belongs to the statement above.
    pub(super) fn continues_line(&self) -> bool {
        use TokenKind::*;
        match self.kind() {
            Arrow | DotDot | Plus | Minus | Star | Slash | Percent | Caret => true,
            Eq | Ne | Lt | Le | Gt | Ge => true,
            Key(Keyword::As | Keyword::And | Keyword::Or | Keyword::In | Keyword::Else) => true,
            Key(Keyword::Not) => self.ahead(1).kind == Key(Keyword::In),
            ParenClose | BracketClose | Comma => true,
            _ => false,
        }
    }

    /// The token behind the brackets that close `opened`, if they are near and nothing speaks against it.
    fn behind_closers(&self, opened: &[Open]) -> Option<usize> {
        if self.errors.len() > crate::errors::MAX_ERRORS {
            return None;
        }
        let mut expected: Vec<TokenKind> = opened.iter().map(|o| o.closer).collect();
        let first = self.at;
        for (i, token) in self.tokens[first..].iter().take(LOOKAHEAD).enumerate() {
            match token.kind {
                TokenKind::End => return None,
                TokenKind::Key(k) if token.first_of_line && k.begins_statement() => return None,
                TokenKind::ParenOpen => expected.push(TokenKind::ParenClose),
                TokenKind::BracketOpen => expected.push(TokenKind::BracketClose),
                TokenKind::BraceOpen => expected.push(TokenKind::BraceClose),
                TokenKind::ParenClose | TokenKind::BracketClose | TokenKind::BraceClose => {
                    if expected.pop() != Some(token.kind) {
                        return None;
                    }
                    if expected.is_empty() {
                        return Some(first + i + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}
