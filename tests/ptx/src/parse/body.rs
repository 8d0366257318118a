//! A kernel's body: declarations, labels, instructions.

use super::lexer::Token;
use super::operand::Operand;
use super::{Parsed, Parser};
use crate::decode::Builder;

/// An instruction as it is written.
pub(crate) struct Statement<'a> {
    /// `@p`, `@!p` (true).
    pub guard: Option<(&'a str, bool)>,
    pub opcode: &'a str,
    pub operands: Vec<Operand<'a>>,
    pub line: u32,
}

impl<'a> Parser<'a> {
    /// All up to the brace that closes the kernel, which is taken too.
    pub(super) fn body(&mut self, builder: &mut Builder<'a>) -> Parsed<()> {
        let mut depth = 1;
        while depth > 0 {
            let line = self.line();
            match self.peek() {
                Token::Mark('{') => {
                    self.at += 1;
                    depth += 1;
                    builder.open();
                }
                Token::Mark('}') => {
                    self.at += 1;
                    depth -= 1;
                    builder.close();
                }
                Token::Word(".reg") => self.registers(builder)?,
                Token::Word(".shared") => {
                    self.at += 1;
                    let variable = self.variable(false)?;
                    builder.shared(variable, line)?;
                }
                Token::Word(".local") => {
                    self.at += 1;
                    let variable = self.variable(false)?;
                    builder.local(variable, line)?;
                }
                Token::Word(".loc") => self.source_line(),
                Token::Word(".pragma") => self.pragma()?,
                Token::Word(name)
                    if self.tokens.get(self.at + 1).is_some_and(|t| t.0 == Token::Mark(':')) =>
                {
                    self.at += 2;
                    builder.label(name, line)?;
                }
                Token::Word(_) | Token::Mark('@') => {
                    let statement = self.statement()?;
                    builder.instruction(&statement)?;
                }
                _ => return self.expected("a statement"),
            }
        }
        Ok(())
    }

    /// `.loc file line column`, to the end of its line.
    fn source_line(&mut self) {
        let line = self.line();
        while self.line() == line && self.peek() != Token::End {
            self.at += 1;
        }
    }

    /// `.pragma "nounroll";`, or what says which bytes of the next load are used (here all must have been written).
    fn pragma(&mut self) -> Parsed<()> {
        self.at += 1;
        match self.next() {
            Token::Text(text) if text == "nounroll" || text.starts_with("used_bytes_mask ") => {
                self.expect(';')
            }
            _ => self.error("the pragmas that are known are \"nounroll\" and \"used_bytes_mask\""),
        }
    }

    fn registers(&mut self, builder: &mut Builder<'a>) -> Parsed<()> {
        self.at += 1;
        let vector = match self.peek() {
            Token::Word(".v2") => 2,
            Token::Word(".v4") => 4,
            _ => 1,
        };
        self.at += usize::from(vector > 1);
        let ty = self.ty()?;
        if !ty.declares_register() {
            return self.error(format!("registers of type .{} are not supported", ty.name()));
        }
        loop {
            let line = self.line();
            let name = self.name("a register's name")?;
            if self.eat('<') {
                let count = self.unsigned("a number of registers")?;
                self.expect('>')?;
                if vector > 1 {
                    return self.error("a range of vectors");
                }
                builder.register_range(name, count, ty, line)?;
            } else if vector > 1 {
                builder.register_vector(name, vector, ty, line)?;
            } else {
                builder.register(name, ty, line)?;
            }
            if !self.eat(',') {
                return self.expect(';');
            }
        }
    }

    fn statement(&mut self) -> Parsed<Statement<'a>> {
        let line = self.line();
        let mut guard = None;
        if self.eat('@') {
            let negate = self.eat('!');
            guard = Some((self.word("a predicate")?, negate));
        }
        let opcode = self.word("an instruction")?;
        let mut operands = Vec::new();
        if !self.eat(';') {
            loop {
                operands.push(self.operand()?);
                if !self.eat(',') {
                    break;
                }
            }
            self.expect(';')?;
        }
        Ok(Statement { guard, opcode, operands, line })
    }
}
