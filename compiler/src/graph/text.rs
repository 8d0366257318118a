//! Pieces of the graph's text form that its readers share: a scanner, quoted strings, sizes.

use std::str::FromStr;

use nnc_runtime::DType;

use super::{Dim, TensorType};

/// Sizes nest no deeper than this when read: `floor(floor(N/2)/2)` is two deep.
const MAX_DEPTH: usize = 64;

/// Reads a text from left to right. Spaces before what is read are skipped.
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// At the start of a text.
    pub fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0 }
    }

    /// What is left.
    pub fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    /// True if nothing is left.
    pub fn is_end(&mut self) -> bool {
        self.rest().is_empty()
    }

    /// Skips a symbol, if it comes next.
    pub fn skip(&mut self, symbol: &str) -> bool {
        let next = self.rest().starts_with(symbol);
        self.at += if next { symbol.len() } else { 0 };
        next
    }

    /// Skips a symbol that must come next.
    pub fn expect(&mut self, symbol: &str) -> Result<(), String> {
        if self.skip(symbol) { Ok(()) } else { Err(self.expected(&format!("`{symbol}`"))) }
    }

    /// The message that something else was expected here.
    pub fn expected(&mut self, what: &str) -> String {
        match self.rest() {
            "" => format!("expected {what}, found the end of the line"),
            rest => {
                let found: String = rest.chars().take(20).collect();
                format!("expected {what}, found `{found}`")
            }
        }
    }

    /// The longest run of such characters.
    pub fn take_while(&mut self, f: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !f(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// A word of letters, digits and `_`; may be empty.
    pub fn word(&mut self) -> &'a str {
        self.take_while(|c| c.is_alphanumeric() || c == '_')
    }

    /// A number without sign.
    pub fn number<T: FromStr>(&mut self) -> Result<T, String> {
        let expected = self.expected("a number");
        self.take_while(|c| c.is_ascii_digit()).parse().map_err(|_| expected)
    }

    /// A name: bare or in quotes, see [`quote_name`].
    pub fn name(&mut self) -> Result<String, String> {
        if self.rest().starts_with('"') {
            return self.string();
        }
        let expected = self.expected("a name");
        match self.take_while(is_bare) {
            "" => Err(expected),
            name => Ok(name.to_string()),
        }
    }

    /// A string in quotes, with Rust's escapes.
    pub fn string(&mut self) -> Result<String, String> {
        self.expect("\"")?;
        let mut out = String::new();
        let mut chars = self.text[self.at..].char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += i + 1;
                    return Ok(out);
                }
                '\\' => out.push(escape(&mut chars).ok_or("unknown escape in a string")?),
                c => out.push(c),
            }
        }
        Err("a string is not closed".to_string())
    }

    /// A size.
    pub fn dim(&mut self) -> Result<Dim, String> {
        self.sum(0)
    }

    /// Sizes in square brackets.
    pub fn shape(&mut self) -> Result<Vec<Dim>, String> {
        self.expect("[")?;
        let mut out = vec![];
        while !self.skip("]") {
            if !out.is_empty() {
                self.expect(",")?;
            }
            out.push(self.dim()?);
        }
        Ok(out)
    }

    /// Element type and shape: `f32[N, 1, 28, 28]`.
    pub fn tensor_type(&mut self) -> Result<TensorType, String> {
        let expected = self.expected("an element type");
        let dtype = DType::from_name(self.word()).ok_or(expected)?;
        Ok(TensorType { dtype, shape: self.shape()? })
    }

    fn sum(&mut self, depth: usize) -> Result<Dim, String> {
        if depth > MAX_DEPTH {
            return Err("a size is nested too deeply".to_string());
        }
        let mut out = Dim::constant(0);
        let mut sign = if self.skip("-") { -1 } else { 1 };
        loop {
            let mut product = self.factor(depth)?;
            while self.skip("*") {
                product = product * self.factor(depth)?;
            }
            out = out + Dim::constant(sign) * product;
            sign = match (self.skip("+"), self.skip("-")) {
                (true, _) => 1,
                (_, true) => -1,
                _ => return Ok(out),
            };
        }
    }

    fn factor(&mut self, depth: usize) -> Result<Dim, String> {
        if self.skip("(") {
            let inner = self.sum(depth + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(Dim::constant(self.number()?));
        }
        let expected = self.expected("a size");
        let word = self.word();
        if word == "floor" && self.skip("(") {
            let a = self.sum(depth + 1)?;
            self.expect("/")?;
            let b = self.factor(depth + 1)?;
            self.expect(")")?;
            return Ok(a.floor_div(&b));
        }
        if word.is_empty() { Err(expected) } else { Ok(Dim::symbol(word)) }
    }
}

/// The character of an escape whose backslash was read.
fn escape(chars: &mut std::str::CharIndices) -> Option<char> {
    Some(match chars.next()?.1 {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        'u' => {
            let digits: String = chars.map(|(_, c)| c).skip(1).take_while(|&c| c != '}').collect();
            char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
        }
        c @ ('"' | '\'' | '\\') => c,
        _ => return None,
    })
}

/// True for the characters of names that need no quotes.
fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || "_.-/".contains(c)
}

/// A name as written: bare if it is of letters, digits and `_.-/`, else in quotes.
pub fn quote_name(name: &str) -> String {
    if !name.is_empty() && name.chars().all(is_bare) { name.to_string() } else { format!("{name:?}") }
}

impl FromStr for Dim {
    type Err = String;

    fn from_str(text: &str) -> Result<Dim, String> {
        whole(text, Scanner::dim)
    }
}

impl FromStr for TensorType {
    type Err = String;

    fn from_str(text: &str) -> Result<TensorType, String> {
        whole(text, Scanner::tensor_type)
    }
}

fn whole<'a, T>(text: &'a str, read: impl Fn(&mut Scanner<'a>) -> Result<T, String>) -> Result<T, String> {
    let mut scanner = Scanner::new(text);
    let value = read(&mut scanner)?;
    if scanner.is_end() { Ok(value) } else { Err(scanner.expected("the end")) }
}
