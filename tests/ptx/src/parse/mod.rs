//! PTX text to decoded kernels: directives here, statements in [`body`], operands in [`operand`].
//! Whatever is not understood is an error; nothing is skipped but comments and debug line tables.

pub(crate) mod body;
pub(crate) mod lexer;
pub(crate) mod operand;

use lexer::{Literal, Token, literal, tokens};

use crate::decode::Builder;
use crate::error::Error;
use crate::kernel::{Kernel, Param, Variable, WINDOW};
use crate::types::Type;

/// The newest PTX version that this crate claims to know.
const NEWEST_VERSION: (u32, u32) = (9, 4);

/// The tokens of a text and a place among them.
pub(crate) struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32)>,
    at: usize,
}

type Parsed<T> = Result<T, Error>;

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).map_or(Token::End, |t| t.0)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.1)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn error<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(Error::Parse { line: self.line(), message: message.into() })
    }

    fn expected<T>(&self, what: &str) -> Parsed<T> {
        self.error(format!("expected {what}, found {}", self.peek()))
    }

    fn eat(&mut self, mark: char) -> bool {
        let found = self.peek() == Token::Mark(mark);
        self.at += usize::from(found);
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Token::Word(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char) -> Parsed<()> {
        if self.eat(mark) { Ok(()) } else { self.expected(&format!("`{mark}`")) }
    }

    fn word(&mut self, what: &str) -> Parsed<&'a str> {
        match self.peek() {
            Token::Word(w) => {
                self.at += 1;
                Ok(w)
            }
            _ => self.expected(what),
        }
    }

    /// A name that the text chooses: no directive, no dots.
    fn name(&mut self, what: &str) -> Parsed<&'a str> {
        match self.peek() {
            Token::Word(w) if !w.contains(['.', ':']) && w != "%" && w != "_" => self.word(what),
            _ => self.expected(what),
        }
    }

    fn unsigned(&mut self, what: &str) -> Parsed<u32> {
        if let Token::Number(n) = self.peek()
            && let Some(Literal::Int(v)) = literal(n)
            && let Ok(v) = u32::try_from(v)
        {
            self.at += 1;
            return Ok(v);
        }
        self.expected(what)
    }

    /// A type behind its dot.
    fn ty(&mut self) -> Parsed<Type> {
        if let Token::Word(w) = self.peek()
            && let Some(ty) = w.strip_prefix('.').and_then(Type::parse)
        {
            self.at += 1;
            return Ok(ty);
        }
        self.expected("a type")
    }

    /// `.align n`, if it is there: a power of two.
    fn align(&mut self) -> Parsed<Option<u32>> {
        if !self.eat_word(".align") {
            return Ok(None);
        }
        let n = self.unsigned("an alignment")?;
        if n.is_power_of_two() && n <= 1024 {
            Ok(Some(n))
        } else {
            self.error(format!("{n} is no alignment"))
        }
    }

    /// `[n]`, if it is there: the number of elements; `None` inside for `[]`.
    fn array(&mut self) -> Parsed<Option<Option<u32>>> {
        if !self.eat('[') {
            return Ok(None);
        }
        let n =
            if self.peek() == Token::Mark(']') { None } else { Some(self.unsigned("a number of elements")?) };
        self.expect(']')?;
        Ok(Some(n))
    }

    /// What stands behind `.shared` or `.local`, up to the semicolon.
    fn variable(&mut self, external: bool) -> Parsed<Variable> {
        let align = self.align()?;
        let ty = self.ty()?;
        if ty.bytes() == 0 {
            return self.error("a variable of predicates");
        }
        let name = self.name("a variable's name")?;
        let (count, dynamic) = match self.array()? {
            None => (1, false),
            Some(Some(0)) => return self.error(format!("`{name}` has no elements")),
            Some(Some(n)) => (n, false),
            Some(None) if external => (0, true),
            Some(None) => return self.error(format!("`{name}` needs a number of elements")),
        };
        if external && !dynamic {
            return self.error(format!("the external variable `{name}` must have the size `[]`"));
        }
        if u64::from(ty.bytes()) * u64::from(count) >= 1 << WINDOW {
            return self.error(format!("`{name}` is larger than any memory of a block"));
        }
        self.expect(';')?;
        let bytes = ty.bytes() * count;
        Ok(Variable { name: name.into(), bytes, align: align.unwrap_or(ty.bytes()).max(ty.bytes()), dynamic })
    }

    /// What stands behind `.global`, up to the semicolon: constants that libraries leave behind. Nothing knows their
    /// names, so a kernel that uses one is refused.
    fn unused_global(&mut self) -> Parsed<()> {
        self.align()?;
        self.ty()?;
        self.name("a variable's name")?;
        self.array()?;
        if self.eat('=') {
            let values = self.operand()?;
            if !matches!(values, operand::Operand::Vector(_) | operand::Operand::Literal(_)) {
                return self.expected("constants");
            }
        }
        self.expect(';')
    }

    fn header(&mut self) -> Parsed<()> {
        if !self.eat_word(".version") {
            return self.expected("`.version`");
        }
        let Token::Number(version) = self.next() else { return self.expected("a version") };
        let parts = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match parts {
            Some(v) if ((6, 0)..=NEWEST_VERSION).contains(&v) => {}
            _ => return self.error(format!("PTX version {version} is not known (6.0 to 9.4 are)")),
        }
        if !self.eat_word(".target") {
            return self.expected("`.target`");
        }
        let target = self.word("a target")?;
        let number = target.strip_prefix("sm_").map(|n| n.strip_suffix('a').unwrap_or(n));
        match number.and_then(|n| n.parse::<u32>().ok()) {
            Some(n) if (70..=121).contains(&n) => {}
            _ => return self.error(format!("`{target}` is no target that is known (sm_70 to sm_121)")),
        }
        if !self.eat_word(".address_size") {
            return self.expected("`.address_size`");
        }
        match self.unsigned("64")? {
            64 => Ok(()),
            n => self.error(format!("address size {n} is not supported (64 is)")),
        }
    }

    fn param(&mut self, offset: &mut u32) -> Parsed<Param> {
        if !self.eat_word(".param") {
            return self.expected("`.param`");
        }
        let mut align = self.align()?;
        let ty = self.ty()?;
        if ty.bytes() == 0 {
            return self.error("a parameter that is a predicate");
        }
        if self.eat_word(".ptr") {
            let _space = self.eat_word(".global");
            self.align()?;
        }
        let name = self.name("a parameter's name")?;
        let count = match self.array()? {
            None => 1,
            Some(Some(n)) => n,
            Some(None) => return self.error("a parameter needs a number of elements"),
        };
        if align.is_none() {
            align = Some(ty.bytes());
        }
        let bytes = u64::from(ty.bytes()) * u64::from(count);
        let start = offset.next_multiple_of(align.unwrap_or(1).max(ty.bytes()));
        if bytes + u64::from(start) > 4096 {
            return self.error("more than 4096 bytes of parameters");
        }
        *offset = start + bytes as u32;
        Ok(Param { name: name.into(), bytes: bytes as u32, offset: start })
    }

    fn params(&mut self, kernel: &mut Kernel) -> Parsed<()> {
        if !self.eat('(') || self.eat(')') {
            return Ok(());
        }
        loop {
            let param = self.param(&mut kernel.param_bytes)?;
            if kernel.params.iter().any(|p| p.name == param.name) {
                return self.error(format!("the parameter `{}` is declared twice", param.name));
            }
            kernel.params.push(param);
            if !self.eat(',') {
                return self.expect(')');
            }
        }
    }

    /// One to three numbers.
    fn shape(&mut self) -> Parsed<[u32; 3]> {
        let mut shape = [1; 3];
        for (axis, n) in shape.iter_mut().enumerate() {
            if axis > 0 && !self.eat(',') {
                break;
            }
            *n = self.unsigned("a number of threads")?;
        }
        Ok(shape)
    }

    fn tuning(&mut self, kernel: &mut Kernel) -> Parsed<()> {
        loop {
            if self.eat_word(".maxntid") {
                kernel.max_threads = Some(self.shape()?.iter().map(|&n| u64::from(n)).product());
            } else if self.eat_word(".reqntid") {
                kernel.required = Some(self.shape()?);
            } else if self.eat_word(".minnctapersm") || self.eat_word(".maxnreg") {
                self.unsigned("a number")?;
            } else {
                return Ok(());
            }
        }
    }

    fn entry(&mut self, shared: &[Variable]) -> Parsed<Kernel> {
        let name = self.name("a kernel's name")?;
        let mut kernel = Kernel { name: name.into(), shared: shared.to_vec(), ..Kernel::default() };
        self.params(&mut kernel)?;
        self.tuning(&mut kernel)?;
        let mut builder = Builder::new(kernel);
        self.expect('{')?;
        self.body(&mut builder)?;
        builder.finish(self.line())
    }
}

/// All kernels of a module.
pub(crate) fn parse(text: &str) -> Result<Vec<Kernel>, Error> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    parser.header()?;
    let mut kernels: Vec<Kernel> = Vec::new();
    let mut shared: Vec<Variable> = Vec::new();
    loop {
        let external = parser.eat_word(".extern");
        let visible = !external && parser.eat_word(".visible");
        if parser.eat_word(".shared") {
            let variable = parser.variable(external)?;
            if shared.iter().any(|v| v.name == variable.name) {
                return parser.error(format!("`{}` is declared twice", variable.name));
            }
            shared.push(variable);
        } else if !external && parser.eat_word(".entry") {
            let kernel = parser.entry(&shared)?;
            if kernels.iter().any(|k| k.name == kernel.name) {
                return parser.error(format!("the kernel `{}` is defined twice", kernel.name));
            }
            kernels.push(kernel);
        } else if !external && parser.eat_word(".global") {
            parser.unused_global()?;
        } else if !external && !visible && parser.peek() == Token::End {
            return Ok(kernels);
        } else if !external && !visible && parser.eat_word(".file") {
            parser.unsigned("a file's number")?;
            if !matches!(parser.next(), Token::Text(_)) {
                return parser.expected("a file's name");
            }
        } else {
            return parser.expected("`.entry`, `.shared` or the end");
        }
    }
}
