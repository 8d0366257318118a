//! Attributes in the text form: how pairs, lists, numbers and initialisers are written and read.

use std::fmt::Display;
use std::str::FromStr;

use crate::graph::text::Scanner;
use crate::graph::{Dim, Shape};

/// Literals longer than this are printed as a digest, and cannot be read back.
pub const MAX_PRINTED_LITERAL: usize = 64;

/// Attributes being written. Those with their default value are left out.
#[derive(Debug, Default)]
pub struct Writer {
    parts: Vec<String>,
}

impl Writer {
    /// `name=value`
    pub fn put(&mut self, name: &str, value: impl Display) -> &mut Writer {
        self.parts.push(format!("{name}={value}"));
        self
    }

    /// `name=value`, unless it is the default.
    pub fn put_unless<T: Display + PartialEq>(&mut self, default: T, name: &str, value: T) -> &mut Writer {
        if value == default { self } else { self.put(name, value) }
    }

    /// `name`, if set.
    pub fn flag(&mut self, name: &str, set: bool) -> &mut Writer {
        if set {
            self.parts.push(name.to_string());
        }
        self
    }

    /// `name=2x3`, unless it is the default.
    pub fn pair(&mut self, default: Option<[usize; 2]>, name: &str, v: [usize; 2]) -> &mut Writer {
        if default == Some(v) { self } else { self.put(name, format!("{}x{}", v[0], v[1])) }
    }

    /// `padding=1x2`, or `padding=0:1x0:1` where the sides differ; none is left out.
    pub fn padding(&mut self, v: [usize; 4]) -> &mut Writer {
        let side = |a: usize, b: usize| if a == b { a.to_string() } else { format!("{a}:{b}") };
        if v == [0; 4] {
            return self;
        }
        self.put("padding", format!("{}x{}", side(v[0], v[1]), side(v[2], v[3])))
    }

    /// `name=[1, 2]`
    pub fn list<T: Display>(&mut self, name: &str, values: impl IntoIterator<Item = T>) -> &mut Writer {
        let parts: Vec<String> = values.into_iter().map(|v| v.to_string()).collect();
        self.put(name, format!("[{}]", parts.join(", ")))
    }

    /// A float, in the shortest form that reads back as the same.
    pub fn float(&mut self, name: &str, v: f64) -> &mut Writer {
        self.put(name, format!("{v:?}"))
    }

    /// `name=function(1.0, 2.0)`
    pub fn call(&mut self, name: &str, function: &str, arguments: &[f64]) -> &mut Writer {
        if arguments.is_empty() {
            return self.put(name, function);
        }
        let arguments: Vec<String> = arguments.iter().map(|a| format!("{a:?}")).collect();
        self.put(name, format!("{function}({})", arguments.join(", ")))
    }

    /// All of them, separated by commas; empty if there are none.
    pub fn finish(&self) -> String {
        self.parts.join(", ")
    }
}

/// Attributes being read: each is taken once, what is left over is an error.
#[derive(Debug, Default)]
pub struct Reader {
    entries: Vec<(String, String)>,
}

impl Reader {
    /// Splits the text between the braces at its top-level commas.
    pub fn new(text: &str) -> Result<Reader, String> {
        let mut entries: Vec<(String, String)> = vec![];
        let mut depth = 0usize;
        let parts = text.split(|c| {
            match c {
                '(' | '[' | '<' => depth += 1,
                ')' | ']' | '>' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        });
        for part in parts.map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if entries.iter().any(|(n, _)| n == name) {
                return Err(format!("attribute `{name}` is given twice"));
            }
            entries.push((name.trim().to_string(), value.trim().to_string()));
        }
        Ok(Reader { entries })
    }

    /// Its text, if it is there.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let i = self.entries.iter().position(|(n, _)| n == name)?;
        Some(self.entries.remove(i).1)
    }

    /// Its text, which must be there.
    pub fn need(&mut self, name: &str) -> Result<String, String> {
        self.take(name).ok_or_else(|| format!("attribute `{name}` is missing"))
    }

    /// A value that must be there.
    pub fn value<T: FromStr>(&mut self, name: &str) -> Result<T, String> {
        let text = self.need(name)?;
        text.parse().map_err(|_| format!("attribute `{name}` has a value that cannot be read: `{text}`"))
    }

    /// A value, or its default.
    pub fn value_or<T: FromStr>(&mut self, default: T, name: &str) -> Result<T, String> {
        match self.take(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| format!("attribute `{name}` has a value that cannot be read: `{text}`")),
        }
    }

    /// Whether it is there.
    pub fn flag(&mut self, name: &str) -> bool {
        self.take(name).is_some()
    }

    /// `2x3`; the default if it is not there, an error if there is none.
    pub fn pair(&mut self, default: Option<[usize; 2]>, name: &str) -> Result<[usize; 2], String> {
        match (self.take(name), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(format!("attribute `{name}` is missing")),
            (Some(text), _) => {
                let read =
                    || Some(text.split_once('x')).map(|p| Some([p?.0.parse().ok()?, p?.1.parse().ok()?]));
                read()
                    .flatten()
                    .ok_or_else(|| format!("attribute `{name}` should be like 2x3, it is `{text}`"))
            }
        }
    }

    /// See [`Writer::padding`].
    pub fn padding(&mut self) -> Result<[usize; 4], String> {
        let Some(text) = self.take("padding") else { return Ok([0; 4]) };
        let side = |s: &str| match s.split_once(':') {
            Some((a, b)) => Some([a.parse().ok()?, b.parse().ok()?]),
            None => Some([s.parse().ok()?; 2]),
        };
        let read = || {
            let (rows, columns) = text.split_once('x')?;
            let ([top, bottom], [left, right]) = (side(rows)?, side(columns)?);
            Some([top, bottom, left, right])
        };
        read().ok_or_else(|| format!("attribute `padding` should be like 1x1 or 0:1x0:1, it is `{text}`"))
    }

    /// `[a, b]`
    pub fn list<T: FromStr>(&mut self, name: &str) -> Result<Vec<T>, String> {
        let text = self.need(name)?;
        let bad = || format!("attribute `{name}` should be a list, it is `{text}`");
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).ok_or_else(bad)?;
        let items = inner.split(',').map(str::trim).filter(|t| !t.is_empty());
        items.map(|t| t.parse().map_err(|_| bad())).collect()
    }

    /// A shape.
    pub fn shape(&mut self, name: &str) -> Result<Shape, String> {
        let text = self.need(name)?;
        Scanner::new(&text).shape().map_err(|e| format!("in attribute `{name}`: {e}"))
    }

    /// Two sizes: `[28, W]`.
    pub fn dims(&mut self, name: &str) -> Result<[Dim; 2], String> {
        self.shape(name)?.try_into().map_err(|_| format!("attribute `{name}` should be two sizes"))
    }

    /// A size.
    pub fn dim(&mut self, name: &str) -> Result<Dim, String> {
        self.need(name)?.parse().map_err(|e| format!("in attribute `{name}`: {e}"))
    }

    /// `function(1.0, 2.0)`: the function and its arguments.
    pub fn call(&mut self, name: &str) -> Result<(String, Vec<f64>), String> {
        let text = self.need(name)?;
        let Some((function, arguments)) = text.split_once('(') else { return Ok((text, vec![])) };
        let bad = || format!("attribute `{name}` should be like `uniform(0.0, 1.0)`, it is `{text}`");
        let arguments = arguments.strip_suffix(')').ok_or_else(bad)?.split(',');
        let arguments: Result<Vec<f64>, _> = arguments.map(|a| a.trim().parse().map_err(|_| bad())).collect();
        Ok((function.trim().to_string(), arguments?))
    }

    /// Refuses what was not taken.
    pub fn finish(self) -> Result<(), String> {
        match self.entries.first() {
            Some((name, _)) => Err(format!("unknown attribute `{name}`")),
            None => Ok(()),
        }
    }
}
