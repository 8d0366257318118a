//! Operands as they are written, before names have a meaning.

use super::lexer::{Literal, Token, literal};
use super::{Parsed, Parser};

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand<'a> {
    /// A register, special register, variable or label.
    Name(&'a str),
    /// `!p`
    Not(&'a str),
    /// A literal, with its sign.
    Literal(Literal),
    /// `d|p`
    Pair(&'a str, &'a str),
    /// `{a, b}`
    Vector(Vec<Operand<'a>>),
    /// `[name + offset]`
    Address(&'a str, i64),
    /// `name + offset` without brackets.
    Sum(&'a str, i64),
}

impl std::fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Operand::Name(n) => write!(f, "`{n}`"),
            Operand::Not(n) => write!(f, "`!{n}`"),
            Operand::Literal(Literal::Int(v)) => write!(f, "`{v}`"),
            Operand::Literal(Literal::Single(v)) => write!(f, "`0f{v:08X}`"),
            Operand::Literal(Literal::Double(v)) => write!(f, "`{v}`"),
            Operand::Pair(a, b) => write!(f, "`{a}|{b}`"),
            Operand::Vector(_) => f.write_str("a vector"),
            Operand::Address(n, o) => write!(f, "`[{n}+{o}]`"),
            Operand::Sum(n, o) => write!(f, "`{n}+{o}`"),
        }
    }
}

impl<'a> Parser<'a> {
    fn number(&mut self, negative: bool) -> Parsed<Literal> {
        let Token::Number(text) = self.peek() else { return self.expected("a number") };
        let Some(value) = literal(text) else { return self.error(format!("`{text}` is no number")) };
        self.at += 1;
        match value {
            Literal::Int(v) => Ok(Literal::Int(if negative { -v } else { v })),
            Literal::Double(v) => Ok(Literal::Double(if negative { -v } else { v })),
            Literal::Single(_) if negative => self.error("a sign before the bits of a number"),
            Literal::Single(v) => Ok(Literal::Single(v)),
        }
    }

    /// `+ n`, `- n`, `+ -n` or nothing.
    fn displacement(&mut self) -> Parsed<Option<i64>> {
        let minus = match self.peek() {
            Token::Mark('+') => false,
            Token::Mark('-') => true,
            _ => return Ok(None),
        };
        self.at += 1;
        let inner = self.eat('-');
        match self.number(minus != inner)? {
            Literal::Int(v) if i64::try_from(v).is_ok_and(|v| v.unsigned_abs() < 1 << 40) => {
                Ok(Some(v as i64))
            }
            _ => self.error("expected a byte offset"),
        }
    }

    pub(super) fn operand(&mut self) -> Parsed<Operand<'a>> {
        match self.peek() {
            Token::Mark('-') => {
                self.at += 1;
                Ok(Operand::Literal(self.number(true)?))
            }
            Token::Number(_) => Ok(Operand::Literal(self.number(false)?)),
            Token::Mark('!') => {
                self.at += 1;
                Ok(Operand::Not(self.word("a predicate")?))
            }
            Token::Mark('{') => self.vector(),
            Token::Mark('[') => {
                self.at += 1;
                let base = self.word("an address")?;
                let offset = self.displacement()?.unwrap_or(0);
                self.expect(']')?;
                Ok(Operand::Address(base, offset))
            }
            Token::Word("WARP_SZ") => {
                self.at += 1;
                Ok(Operand::Literal(Literal::Int(32)))
            }
            Token::Word(name) => {
                self.at += 1;
                if self.eat('|') {
                    return Ok(Operand::Pair(name, self.word("a second destination")?));
                }
                Ok(self.displacement()?.map_or(Operand::Name(name), |offset| Operand::Sum(name, offset)))
            }
            _ => self.expected("an operand"),
        }
    }

    fn vector(&mut self) -> Parsed<Operand<'a>> {
        self.expect('{')?;
        let mut parts = Vec::new();
        loop {
            if self.peek() == Token::Mark('{') {
                return self.error("a vector in a vector");
            }
            parts.push(self.operand()?);
            if !self.eat(',') {
                break;
            }
        }
        self.expect('}')?;
        Ok(Operand::Vector(parts))
    }
}
