//! Sizes of dimensions: integers, symbols such as `N`, and what arithmetic makes of them.
//!
//! A [`Dim`] is a polynomial over symbols and floor divisions in a normal form, so that equal
//! sizes compare equal: `2*N + N` is `3*N`, `N*4 / 4` is `N`. Symbols stand for sizes, at least 1.
//! Arithmetic saturates; sizes past [`MAX_ELEMENTS`] are refused where tensors are made.

use std::collections::BTreeMap;
use std::fmt;

/// No tensor may have more elements: 2^37 (half a TiB in `f32`) is beyond any machine this runs on.
pub const MAX_ELEMENTS: i64 = 1 << 37;

/// What the symbols stand for.
pub type Bindings = BTreeMap<String, usize>;

/// The size of a dimension.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dim {
    /// Coefficient of every product of atoms (sorted); the empty product is the constant. No zeros.
    terms: BTreeMap<Vec<Atom>, i64>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Atom {
    Symbol(String),
    FloorDiv(Dim, Dim),
}

impl Dim {
    /// The symbol of that name.
    pub fn symbol(name: impl Into<String>) -> Dim {
        Dim { terms: BTreeMap::from([(vec![Atom::Symbol(name.into())], 1)]) }
    }

    /// A known size.
    pub fn constant(n: i64) -> Dim {
        let terms = if n == 0 { BTreeMap::new() } else { BTreeMap::from([(vec![], n)]) };
        Dim { terms }
    }

    /// Its value, if no symbol is left in it.
    pub fn known(&self) -> Option<i64> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&[][..]).copied(),
            _ => None,
        }
    }

    /// One less.
    pub fn minus_one(self) -> Dim {
        self - Dim::constant(1)
    }

    /// True for a single product of symbols, such as `N*13`: never zero, as sizes are at least 1.
    pub fn is_multiple_of_symbols(&self) -> bool {
        let symbol = |a: &Atom| matches!(a, Atom::Symbol(_));
        self.terms.len() == 1 && self.terms.keys().all(|atoms| atoms.iter().all(symbol))
    }

    /// Its value as a size; `None` where a symbol is left or it is negative.
    pub fn size(&self) -> Option<usize> {
        self.known().and_then(|n| usize::try_from(n).ok())
    }

    /// `self / d`, rounded down (0 where `d` is 0).
    pub fn floor_div(&self, d: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.known(), d.known()) {
            return Dim::constant(floor_quotient(a, b));
        }
        if let Some(exact) = self.exact_div(d) {
            return exact;
        }
        match d.known().filter(|&b| b > 0) {
            Some(b) => self.floor_div_by(b),
            None if self == d => Dim::constant(1),
            None => Dim::atom(Atom::FloorDiv(self.clone(), d.clone())),
        }
    }

    /// `self / b`, rounded down, for `b > 0`, in normal form: whole multiples are taken out,
    /// common factors cancelled, nested divisions made one.
    fn floor_div_by(&self, b: i64) -> Dim {
        // floor((q·b + r) / b) = q + floor(r / b): (2·N + 3) / 2 is N + 1.
        let (mut whole, mut rest) = (Dim::constant(0), Dim::constant(0));
        for (atoms, &c) in &self.terms {
            whole.add_term(atoms.clone(), c.div_euclid(b));
            rest.add_term(atoms.clone(), c.rem_euclid(b));
        }
        // floor((g·p + r) / (g·d)) = floor((p + floor(r / g)) / d): (2·N + 1) / 4 is N / 2.
        let constant = rest.terms.remove(&[][..]).unwrap_or(0);
        let g = rest.terms.values().fold(b, |g, &c| gcd(g, c));
        for c in rest.terms.values_mut() {
            *c /= g;
        }
        let (constant, b) = (constant.div_euclid(g), b / g);
        if rest.terms.is_empty() {
            return whole;
        }
        // floor((floor(a / c) + k) / b) = floor((a + k·c) / (c·b))
        if let Some((a, c)) = rest.as_floor_div()
            && let (Some(shift), Some(divisor)) = (constant.checked_mul(c), c.checked_mul(b))
        {
            return whole + (a.clone() + Dim::constant(shift)).floor_div(&Dim::constant(divisor));
        }
        whole + Dim::atom(Atom::FloorDiv(rest + Dim::constant(constant), Dim::constant(b)))
    }

    /// `(a, c)` if this is `floor(a / c)` with a number `c > 0`.
    fn as_floor_div(&self) -> Option<(&Dim, i64)> {
        match self.terms.iter().next() {
            Some((atoms, 1)) if self.terms.len() == 1 => match &atoms[..] {
                [Atom::FloorDiv(a, c)] => Some((a, c.known().filter(|&c| c > 0)?)),
                _ => None,
            },
            _ => None,
        }
    }

    /// `self / d`, rounded up.
    pub fn ceil_div(&self, d: &Dim) -> Dim {
        (self.clone() + d.clone() - Dim::constant(1)).floor_div(d)
    }

    /// `self / d` where that is exact for every value of the symbols (`d` a single product).
    pub fn exact_div(&self, d: &Dim) -> Option<Dim> {
        let (divisor, &factor) = d.terms.iter().next().filter(|_| d.terms.len() == 1)?;
        let mut out = Dim::constant(0);
        for (atoms, &c) in &self.terms {
            let mut left = atoms.clone();
            for a in divisor {
                left.remove(left.iter().position(|x| x == a)?);
            }
            if c.checked_rem(factor)? != 0 {
                return None;
            }
            out.add_term(left, c.checked_div(factor)?);
        }
        Some(out)
    }

    /// Puts sizes for symbols, as far as they are given.
    pub fn substitute(&self, bindings: &Bindings) -> Dim {
        let mut out = Dim::constant(0);
        for (atoms, &c) in &self.terms {
            let mut product = Dim::constant(c);
            for a in atoms {
                product = product
                    * match a {
                        Atom::Symbol(s) => match bindings.get(s) {
                            Some(&n) => Dim::constant(i64::try_from(n).unwrap_or(i64::MAX)),
                            None => Dim::symbol(s.clone()),
                        },
                        Atom::FloorDiv(a, b) => a.substitute(bindings).floor_div(&b.substitute(bindings)),
                    };
            }
            out = out + product;
        }
        out
    }

    /// The names of the symbols in it, sorted, each once.
    pub fn symbols(&self) -> Vec<String> {
        let mut out = vec![];
        for a in self.terms.keys().flatten() {
            match a {
                Atom::Symbol(s) => out.push(s.clone()),
                Atom::FloorDiv(a, b) => {
                    out.extend(a.symbols());
                    out.extend(b.symbols());
                }
            }
        }
        out.sort();
        out.dedup();
        out
    }

    fn atom(a: Atom) -> Dim {
        Dim { terms: BTreeMap::from([(vec![a], 1)]) }
    }

    fn add_term(&mut self, atoms: Vec<Atom>, c: i64) {
        let sum = self.terms.get(&atoms).copied().unwrap_or(0).saturating_add(c);
        if sum == 0 {
            self.terms.remove(&atoms);
        } else {
            self.terms.insert(atoms, sum);
        }
    }
}

/// `a / b` rounded down; 0 where `b` is 0.
fn floor_quotient(a: i64, b: i64) -> i64 {
    let q = match b {
        0 => return 0,
        -1 => return a.saturating_neg(),
        _ => a / b,
    };
    if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q }
}

/// Greatest common divisor of a positive number and one that is not negative.
fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::constant(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl std::ops::Add for Dim {
    type Output = Dim;
    fn add(mut self, other: Dim) -> Dim {
        for (atoms, c) in other.terms {
            self.add_term(atoms, c);
        }
        self
    }
}

impl std::ops::Sub for Dim {
    type Output = Dim;
    fn sub(self, other: Dim) -> Dim {
        self + Dim::constant(-1) * other
    }
}

impl std::ops::Mul for Dim {
    type Output = Dim;
    fn mul(self, other: Dim) -> Dim {
        let mut out = Dim::constant(0);
        for (a, &c) in &self.terms {
            for (b, &d) in &other.terms {
                let mut atoms = [a.as_slice(), b.as_slice()].concat();
                atoms.sort();
                out.add_term(atoms, c.saturating_mul(d));
            }
        }
        out
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        // Symbols first, the constant last: `N*4 + 1`.
        let (constants, rest): (Vec<_>, Vec<_>) = self.terms.iter().partition(|(a, _)| a.is_empty());
        for (i, (atoms, c)) in rest.into_iter().chain(constants).enumerate() {
            let sign = match (i, *c < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            };
            f.write_str(sign)?;
            let magnitude = c.unsigned_abs();
            if atoms.is_empty() {
                write!(f, "{magnitude}")?;
            } else {
                for (k, a) in atoms.iter().enumerate() {
                    write!(f, "{}{a}", if k > 0 { "*" } else { "" })?;
                }
                if magnitude != 1 {
                    write!(f, "*{magnitude}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(s) => f.write_str(s),
            Atom::FloorDiv(a, b) => {
                let brackets = |d: &Dim, plain: bool| if plain { d.to_string() } else { format!("({d})") };
                let (a, b) = (brackets(a, a.terms.len() == 1), brackets(b, b.known().is_some()));
                write!(f, "floor({a}/{b})")
            }
        }
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
