//! Statements to [`Op`]s: names get slots, modifiers and operand types are checked as `ptxas` does.
//! [`Builder`] holds a kernel's names, [`Decoder`] one instruction; the families are files.

mod arithmetic;
mod convert;
mod fields;
mod logic;
mod memory;
mod operands;
mod warp;

use std::collections::HashMap;

use crate::error::Error;
use crate::kernel::{Kernel, Special, Variable, WINDOW};
use crate::op::{Inst, L, Op, P, Slot, W};
use crate::parse::body::Statement;
use crate::types::Type;

type Decoded<T> = Result<T, Error>;

/// Names of special registers, which cannot be declared.
const PREDEFINED: [&str; 8] =
    ["%tid", "%ntid", "%ctaid", "%nctaid", "%laneid", "%warpid", "%nwarpid", "WARP_SZ"];

/// Registers a kernel may use; more would not fit a slot's number.
const MOST_SLOTS: usize = 60_000;

#[derive(Clone, Copy, Debug)]
struct Register {
    ty: Type,
    slot: Slot,
}

/// The names of a pair of braces.
#[derive(Default)]
struct Scope<'a> {
    id: u32,
    registers: HashMap<String, Register>,
    ranges: Vec<(&'a str, u32, Type)>,
    vectors: HashMap<&'a str, u8>,
}

/// A kernel that is being decoded.
pub(crate) struct Builder<'a> {
    kernel: Kernel,
    scopes: Vec<Scope<'a>>,
    /// Scopes so far.
    opened: u32,
    /// Labels with the scope that they are seen in.
    labels: HashMap<(u32, &'a str), u32>,
    branches: Vec<Branch<'a>>,
}

/// A branch whose label may still come.
struct Branch<'a> {
    at: usize,
    label: &'a str,
    /// The scopes around it, outermost first.
    scopes: Vec<u32>,
}

fn error<T>(line: u32, message: impl Into<String>) -> Decoded<T> {
    Err(Error::Parse { line, message: message.into() })
}

/// Whether a name is one of `prefix<count>`.
fn in_range(name: &str, prefix: &str, count: u32) -> bool {
    match name.strip_prefix(prefix) {
        Some(digits) if digits == "0" || digits.starts_with(|c: char| matches!(c, '1'..='9')) => {
            digits.parse().is_ok_and(|n: u32| n < count)
        }
        _ => false,
    }
}

impl<'a> Builder<'a> {
    pub fn new(kernel: Kernel) -> Builder<'a> {
        let scopes = vec![Scope::default()];
        Builder { kernel, scopes, opened: 0, labels: HashMap::new(), branches: Vec::new() }
    }

    pub fn open(&mut self) {
        self.opened += 1;
        self.scopes.push(Scope { id: self.opened, ..Scope::default() });
    }

    pub fn close(&mut self) {
        self.scopes.pop();
    }

    /// Whether a name of this scope, or a variable or parameter, is already so called.
    fn check_new(&self, name: &str, line: u32) -> Decoded<()> {
        let scope = self.scopes.last();
        let twice = scope.is_some_and(|s| s.registers.contains_key(name) || s.vectors.contains_key(name))
            || scope.is_some_and(|s| s.ranges.iter().any(|r| in_range(name, r.0, r.1)))
            || self.variable(name).is_some()
            || self.kernel.params.iter().any(|p| p.name == name);
        if PREDEFINED.contains(&name) {
            return error(line, format!("`{name}` is a special register"));
        }
        if twice { error(line, format!("`{name}` is declared twice")) } else { Ok(()) }
    }

    pub fn register(&mut self, name: &'a str, ty: Type, line: u32) -> Decoded<()> {
        self.check_new(name, line)?;
        self.add_register(name.into(), ty, line).map(|_| ())
    }

    fn add_register(&mut self, name: String, ty: Type, line: u32) -> Decoded<Register> {
        let slot = self.slot(ty, name.clone(), line)?;
        let register = Register { ty, slot };
        if let Some(scope) = self.scopes.last_mut() {
            scope.registers.insert(name, register);
        }
        Ok(register)
    }

    /// `%r<10>`: `%r0` to `%r9`.
    pub fn register_range(&mut self, prefix: &'a str, count: u32, ty: Type, line: u32) -> Decoded<()> {
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        let clash = |name: &String| in_range(name, prefix, count);
        if scope.ranges.iter().any(|r| r.0 == prefix) || scope.registers.keys().any(clash) {
            return error(line, format!("`{prefix}<...>` is declared twice"));
        }
        scope.ranges.push((prefix, count, ty));
        Ok(())
    }

    pub fn register_vector(&mut self, name: &'a str, count: u8, ty: Type, line: u32) -> Decoded<()> {
        self.check_new(name, line)?;
        for part in ["x", "y", "z", "w"].iter().take(count.into()) {
            self.add_register(format!("{name}.{part}"), ty, line)?;
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.vectors.insert(name, count);
        }
        Ok(())
    }

    pub fn shared(&mut self, variable: Variable, line: u32) -> Decoded<()> {
        self.check_new(&variable.name, line)?;
        self.kernel.shared.push(variable);
        if self.kernel.shared.len() > 1000 { error(line, "more than 1000 variables") } else { Ok(()) }
    }

    pub fn local(&mut self, variable: Variable, line: u32) -> Decoded<()> {
        self.check_new(&variable.name, line)?;
        self.kernel.local.push(variable);
        if self.kernel.local.len() > 1000 { error(line, "more than 1000 variables") } else { Ok(()) }
    }

    pub fn label(&mut self, name: &'a str, line: u32) -> Decoded<()> {
        if name.contains('.') && !name.starts_with(['$', '_']) || name.starts_with('%') {
            return error(line, format!("`{name}` is no label"));
        }
        let scope = self.scopes.last().map_or(0, |s| s.id);
        if self.labels.insert((scope, name), self.kernel.code.len() as u32).is_some() {
            return error(line, format!("the label `{name}` is defined twice"));
        }
        Ok(())
    }

    /// The instruction that follows goes to a label.
    fn branch(&mut self, label: &'a str) {
        let scopes = self.scopes.iter().map(|s| s.id).collect();
        self.branches.push(Branch { at: self.kernel.code.len(), label, scopes });
    }

    /// A fresh slot of the file that holds the type.
    fn slot(&mut self, ty: Type, name: String, line: u32) -> Decoded<Slot> {
        let k = &mut self.kernel;
        let file = match ty.bytes() {
            0 => &mut k.preds,
            8 => &mut k.longs,
            _ => &mut k.words,
        };
        if file.len() >= MOST_SLOTS {
            return error(line, "too many registers");
        }
        let index = file.len() as u16;
        file.push(name);
        Ok(match ty.bytes() {
            0 => Slot::P(P(index)),
            8 => Slot::L(L(index)),
            _ => Slot::W(W(index)),
        })
    }

    /// The declared register of this name, innermost braces first.
    fn find_register(&mut self, name: &str, line: u32) -> Decoded<Option<Register>> {
        for depth in (0..self.scopes.len()).rev() {
            let scope = &self.scopes[depth];
            if let Some(&register) = scope.registers.get(name) {
                return Ok(Some(register));
            }
            let range = scope.ranges.iter().find(|r| in_range(name, r.0, r.1));
            if let Some(&(_, _, ty)) = range {
                let slot = self.slot(ty, name.into(), line)?;
                let register = Register { ty, slot };
                self.scopes[depth].registers.insert(name.into(), register);
                return Ok(Some(register));
            }
        }
        Ok(None)
    }

    /// Address of a `.shared` (false) or `.local` (true) variable.
    fn variable(&self, name: &str) -> Option<(bool, u32)> {
        let find = |list: &[Variable]| list.iter().position(|v| v.name == name);
        let at = |i: usize| (i as u32 + 1) << WINDOW;
        match find(&self.kernel.local) {
            Some(i) => Some((true, at(i))),
            None => find(&self.kernel.shared).map(|i| (false, at(i))),
        }
    }

    fn constant_word(&mut self, value: u32, line: u32) -> Decoded<W> {
        if let Some(&w) = self.kernel.constant_words.get(&value) {
            return Ok(w);
        }
        match self.slot(Type::B32, format!("{value:#x}"), line)? {
            Slot::W(w) => {
                self.kernel.constant_words.insert(value, w);
                Ok(w)
            }
            _ => error(line, "no slot for a constant"),
        }
    }

    fn constant_long(&mut self, value: u64, line: u32) -> Decoded<L> {
        if let Some(&l) = self.kernel.constant_longs.get(&value) {
            return Ok(l);
        }
        match self.slot(Type::B64, format!("{value:#x}"), line)? {
            Slot::L(l) => {
                self.kernel.constant_longs.insert(value, l);
                Ok(l)
            }
            _ => error(line, "no slot for a constant"),
        }
    }

    fn special(&mut self, special: Special, name: &str, line: u32) -> Decoded<W> {
        if let Some(&w) = self.kernel.specials.get(&special) {
            return Ok(w);
        }
        match self.slot(Type::U32, name.into(), line)? {
            Slot::W(w) => {
                self.kernel.specials.insert(special, w);
                Ok(w)
            }
            _ => error(line, "no slot for a special register"),
        }
    }

    pub fn instruction(&mut self, statement: &Statement<'a>) -> Decoded<()> {
        let line = statement.line;
        let guard = match statement.guard {
            None => None,
            Some((name, negate)) => match self.find_register(name, line)? {
                Some(Register { slot: Slot::P(p), .. }) => Some((p, negate)),
                Some(_) => return error(line, format!("the guard `{name}` is no predicate")),
                None => return error(line, format!("`{name}` is not declared")),
            },
        };
        let mut words = statement.opcode.split('.');
        let head = words.next().unwrap_or_default();
        let decoder = Decoder { words: words.collect(), builder: self, statement, at: 0 };
        let op = decoder.decode(head)?;
        self.kernel.code.push(Inst { op, guard, line });
        Ok(())
    }

    /// The kernel, with its branches resolved; its end is an exit.
    pub fn finish(mut self, line: u32) -> Decoded<Kernel> {
        for Branch { at, label, scopes } in &self.branches {
            let inst = &mut self.kernel.code[*at];
            let found = scopes.iter().rev().find_map(|&scope| self.labels.get(&(scope, *label)));
            match (&mut inst.op, found) {
                (Op::Branch { target, .. }, Some(&to)) => *target = to,
                _ => return error(inst.line, format!("there is no label `{label}` here")),
            }
        }
        self.kernel.code.push(Inst { op: Op::Exit, guard: None, line });
        Ok(self.kernel)
    }
}

/// One instruction.
struct Decoder<'b, 'a> {
    builder: &'b mut Builder<'a>,
    statement: &'b Statement<'a>,
    /// The opcode's modifiers, and how many of them are read.
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Decoder<'_, 'a> {
    fn error<T>(&self, message: impl std::fmt::Display) -> Decoded<T> {
        error(self.statement.line, format!("`{}`: {message}", self.statement.opcode))
    }

    fn unsupported<T>(&self) -> Decoded<T> {
        match self.words.get(self.at) {
            Some(word) => self.error(format!("`.{word}` is not supported here")),
            None => self.error("a modifier is missing"),
        }
    }

    /// Takes the next modifier if it is this one.
    fn has(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }

    /// Takes modifiers that must stand here.
    fn need(&mut self, words: &[&str]) -> Decoded<()> {
        for word in words {
            if !self.has(word) {
                return self.unsupported();
            }
        }
        Ok(())
    }

    /// Takes the next modifier if it is of the table.
    fn choose<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        let word = self.words.get(self.at)?;
        let found = table.iter().find(|t| t.0 == *word)?;
        self.at += 1;
        Some(found.1)
    }

    /// The next modifier, which is a type out of the list.
    fn ty(&mut self, allowed: &[Type]) -> Decoded<Type> {
        match self.words.get(self.at).and_then(|w| Type::parse(w)) {
            Some(ty) if allowed.contains(&ty) => {
                self.at += 1;
                Ok(ty)
            }
            _ => self.unsupported(),
        }
    }

    /// No more modifiers, and this many operands.
    fn end(&self, operands: usize) -> Decoded<()> {
        if self.at < self.words.len() {
            return self.unsupported();
        }
        match self.statement.operands.len() {
            n if n == operands => Ok(()),
            n => self.error(format!("expected {operands} operands, found {n}")),
        }
    }

    fn decode(mut self, head: &str) -> Decoded<Op> {
        match head {
            "mov" => self.mov(),
            "add" | "sub" => self.add(head),
            "mul" => self.mul(),
            "mad" | "fma" => self.mad(head),
            "div" | "rem" => self.div(head),
            "min" | "max" => self.min_max(head),
            "abs" | "neg" => self.abs_neg(head),
            "sqrt" | "rsqrt" | "rcp" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => self.float_function(head),
            "copysign" => self.copysign(),
            "and" | "or" | "xor" => self.bits(head),
            "not" => self.not(),
            "shl" | "shr" => self.shift(head),
            "popc" | "clz" => self.count(head),
            "bfe" => self.bfe(),
            "bfi" => self.bfi(),
            "bmsk" => self.bmsk(),
            "bfind" => self.bfind(),
            "brev" => self.brev(),
            "shf" => self.shf(),
            "prmt" => self.prmt(),
            "lop3" => self.lop3(),
            "setp" => self.setp(),
            "selp" => self.selp(),
            "cvt" => self.cvt(),
            "cvta" => self.cvta(),
            "ld" => self.ld(),
            "st" => self.st(),
            "prefetch" => self.prefetch(),
            "cp" => self.cp(),
            "ldmatrix" => self.ldmatrix(),
            "mma" => self.mma(),
            "shfl" => self.shfl(),
            "vote" => self.vote(),
            "activemask" => self.activemask(),
            "bar" => self.bar(),
            "bra" => self.bra(),
            "ret" | "exit" => self.exit(head),
            "atom" | "red" => self.error(
                "atomic operations are not supported: their order is not fixed, so sums would differ from run to run",
            ),
            "" => error(self.statement.line, format!("the directive `{}` is not supported here", self.statement.opcode)),
            _ => error(self.statement.line, format!("the instruction `{}` is not supported", self.statement.opcode)),
        }
    }
}
