//! The text of one PTX function in the making: registers by type and meaning, labels, indented lines.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use nnc_runtime::DType;

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A truth value: `%p…`.
    Predicate,
    /// An i32, an index: `%r…`.
    Int,
    /// An f32: `%f…`.
    Float,
    /// An address: `%a…`.
    Address,
    /// An operand of tensor cores: `%b…`.
    Bits,
}

impl Class {
    const ALL: [Class; 5] = [Class::Predicate, Class::Int, Class::Float, Class::Address, Class::Bits];

    /// The class of elements in registers.
    pub fn of(dtype: DType) -> Class {
        match dtype {
            DType::Bool => Class::Predicate,
            DType::I32 => Class::Int,
            DType::F32 | DType::F64 => Class::Float,
        }
    }

    /// The type in declarations and moves.
    pub fn ptx(self) -> &'static str {
        match self {
            Class::Predicate => "pred",
            Class::Int => "s32",
            Class::Float => "f32",
            Class::Address => "u64",
            Class::Bits => "b32",
        }
    }

    fn letter(self) -> char {
        match self {
            Class::Predicate => 'p',
            Class::Int => 'r',
            Class::Float => 'f',
            Class::Address => 'a',
            Class::Bits => 'b',
        }
    }
}

/// The body of a function.
#[derive(Default)]
pub struct Writer {
    body: String,
    depth: usize,
    /// Temporaries so far.
    counts: HashMap<Class, usize>,
    /// Registers with names.
    named: Vec<(Class, String)>,
    taken: HashSet<String>,
    labels: HashMap<String, usize>,
}

impl Writer {
    /// A temporary.
    pub fn fresh(&mut self, class: Class) -> String {
        let count = self.counts.entry(class).or_default();
        *count += 1;
        format!("%{}{}", class.letter(), *count - 1)
    }

    /// A register with a name of its own; a taken name gets a number.
    pub fn named(&mut self, class: Class, name: &str) -> String {
        let wanted = format!("%{}_{name}", class.letter());
        let mut register = wanted.clone();
        let mut i = 2;
        while !self.taken.insert(register.clone()) {
            register = format!("{wanted}_{i}");
            i += 1;
        }
        self.named.push((class, register.clone()));
        register
    }

    /// A label that begins with a word.
    pub fn label(&mut self, word: &str) -> String {
        let count = self.labels.entry(word.to_string()).or_default();
        *count += 1;
        if *count == 1 { word.to_string() } else { format!("{word}_{count}") }
    }

    /// Puts a label here.
    pub fn place(&mut self, label: &str, comment: &str) {
        let indent = "  ".repeat(self.depth);
        let comment = if comment.is_empty() { String::new() } else { format!("  // {comment}") };
        let _ = writeln!(self.body, "{indent}{label}:{comment}");
    }

    /// An instruction.
    pub fn line(&mut self, instruction: impl AsRef<str>) {
        let indent = "  ".repeat(self.depth);
        let _ = writeln!(self.body, "    {indent}{};", instruction.as_ref());
    }

    /// What follows is inside a loop.
    pub fn indent(&mut self) {
        self.depth += 1;
    }

    /// What follows is no longer.
    pub fn outdent(&mut self) {
        self.depth -= 1;
    }

    /// Declarations of all registers, and the lines so far.
    pub fn finish(self) -> String {
        let mut out = String::new();
        for class in Class::ALL {
            let ptx = class.ptx();
            if let Some(n) = self.counts.get(&class) {
                let _ = writeln!(out, "    .reg .{ptx} %{}<{n}>;", class.letter());
            }
            let names: Vec<&str> =
                self.named.iter().filter(|(c, _)| *c == class).map(|(_, name)| name.as_str()).collect();
            for names in names.chunks(8) {
                let _ = writeln!(out, "    .reg .{ptx} {};", names.join(", "));
            }
        }
        out.push('\n');
        out.push_str(&self.body);
        out
    }
}

/// A name made of what PTX allows in names.
pub fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Plain names, all different: those that are taken get a number.
pub fn unique(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut out: Vec<String> = vec![];
    for name in names {
        let mut free = name.clone();
        let mut i = 2;
        while out.contains(&free) {
            free = format!("{name}_{i}");
            i += 1;
        }
        out.push(free);
    }
    out
}

/// An f32 constant.
pub fn float(x: f32) -> String {
    format!("0f{:08X}", x.to_bits())
}
