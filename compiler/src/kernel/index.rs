//! Index arithmetic of kernels: affine forms over loop variables, with floor division and
//! remainder by constants, kept in a normal form so that bounds can be proved.

use std::collections::BTreeMap;
use std::fmt;

/// A loop variable: index into [`Kernel::vars`](super::Kernel::vars). Runs from 0 to its extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Var(pub u32);

/// The extents of the variables: `extents[v]` for [`Var`]`(v)`.
pub type Extents = Vec<usize>;

/// What an affine form is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// A loop variable.
    Var(Var),
    /// `floor(a / d)`, d > 1.
    Div(Box<Index>, i64),
    /// `a - d·floor(a / d)`, d > 1.
    Mod(Box<Index>, i64),
}

/// `Σ coefficient · atom + constant`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Index {
    /// Coefficients, none of them zero.
    pub terms: BTreeMap<Atom, i64>,
    /// The rest.
    pub constant: i64,
}

impl Index {
    /// Its value, if it has no variables.
    pub fn known(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// `floor(self / d)`, simplified with what is known of the variables' ranges.
    pub fn div(&self, d: usize, extents: &Extents) -> Index {
        let d = d as i64;
        assert!(d > 0, "division of an index by zero");
        if d == 1 {
            return self.clone();
        }
        let (whole, rest) = self.split(d);
        let (low, high) = rest.range(extents);
        if low.div_euclid(d) == high.div_euclid(d) {
            return whole + Index::from(low.div_euclid(d));
        }
        whole + Index { terms: BTreeMap::from([(Atom::Div(Box::new(rest), d), 1)]), constant: 0 }
    }

    /// `self mod d`, in `0..d`, simplified.
    pub fn rem(&self, d: usize, extents: &Extents) -> Index {
        let d = d as i64;
        assert!(d > 0, "remainder of an index by zero");
        if d == 1 {
            return Index::default();
        }
        let (_, rest) = self.split(d);
        let (low, high) = rest.range(extents);
        if low.div_euclid(d) == high.div_euclid(d) {
            return rest - Index::from(low.div_euclid(d) * d);
        }
        Index { terms: BTreeMap::from([(Atom::Mod(Box::new(rest), d), 1)]), constant: 0 }
    }

    /// `self = d·whole + rest`, the coefficients of `rest` in `0..d`.
    fn split(&self, d: i64) -> (Index, Index) {
        let (mut whole, mut rest) =
            (Index::from(self.constant.div_euclid(d)), Index::from(self.constant.rem_euclid(d)));
        for (a, &c) in &self.terms {
            whole.add_term(a.clone(), c.div_euclid(d));
            rest.add_term(a.clone(), c.rem_euclid(d));
        }
        (whole, rest)
    }

    /// The smallest and the largest value it can take (both included; may be wider than the truth).
    pub fn range(&self, extents: &Extents) -> (i64, i64) {
        let (mut low, mut high) = (self.constant, self.constant);
        for (a, &c) in &self.terms {
            let (l, h) = match a {
                Atom::Var(v) => (0, extents[v.0 as usize].max(1) as i64 - 1),
                Atom::Div(a, d) => {
                    let (l, h) = a.range(extents);
                    (l.div_euclid(*d), h.div_euclid(*d))
                }
                Atom::Mod(a, d) => {
                    let (l, h) = a.range(extents);
                    if l.div_euclid(*d) == h.div_euclid(*d) {
                        (l.rem_euclid(*d), h.rem_euclid(*d))
                    } else {
                        // Its values are as far apart as the terms' and the divisor's common steps.
                        let step = a.terms.values().fold(*d, |g, &c| gcd(g, c.abs()));
                        let first = a.constant.rem_euclid(step);
                        (first, d - step + first)
                    }
                }
            };
            low += if c > 0 { c * l } else { c * h };
            high += if c > 0 { c * h } else { c * l };
        }
        (low, high)
    }

    /// Its value for values of the variables.
    pub fn eval(&self, values: &[i64]) -> i64 {
        self.terms.iter().fold(self.constant, |sum, (a, &c)| {
            sum + c * match a {
                Atom::Var(v) => values[v.0 as usize],
                Atom::Div(a, d) => a.eval(values).div_euclid(*d),
                Atom::Mod(a, d) => a.eval(values).rem_euclid(*d),
            }
        })
    }

    /// True if it is a multiple of that, whatever the variables.
    pub fn is_multiple_of(&self, n: i64) -> bool {
        let whole = |(a, &c): (&Atom, &i64)| {
            c % n == 0 || matches!(a, Atom::Mod(i, d) if d % n == 0 && i.is_multiple_of(n))
        };
        self.constant % n == 0 && self.terms.iter().all(whole)
    }

    /// True if the variable is in it.
    pub fn mentions(&self, v: Var) -> bool {
        self.terms.keys().any(|a| match a {
            Atom::Var(x) => *x == v,
            Atom::Div(a, _) | Atom::Mod(a, _) => a.mentions(v),
        })
    }

    /// Calls the function with every variable in it (some more than once).
    pub fn each_var(&self, f: &mut dyn FnMut(Var)) {
        for a in self.terms.keys() {
            match a {
                Atom::Var(v) => f(*v),
                Atom::Div(i, _) | Atom::Mod(i, _) => i.each_var(f),
            }
        }
    }

    /// `Some(c)` if it is `c·v` plus something without `v`.
    pub fn stride_of(&self, v: Var) -> Option<i64> {
        let inside = |a: &Atom| matches!(a, Atom::Div(i, _) | Atom::Mod(i, _) if i.mentions(v));
        if self.terms.keys().any(inside) {
            return None;
        }
        Some(self.terms.get(&Atom::Var(v)).copied().unwrap_or(0))
    }

    /// Puts another form for a variable.
    pub fn substitute(&self, v: Var, by: &Index, extents: &Extents) -> Index {
        let mut out = Index::from(self.constant);
        for (a, &c) in &self.terms {
            let part = match a {
                Atom::Var(x) if *x == v => by.clone(),
                Atom::Var(x) => Index::from(*x),
                Atom::Div(a, d) => a.substitute(v, by, extents).div(*d as usize, extents),
                Atom::Mod(a, d) => a.substitute(v, by, extents).rem(*d as usize, extents),
            };
            out = out + part * c;
        }
        out
    }

    /// Puts in the variables whose value is known.
    pub fn with_known(&self, known: &dyn Fn(Var) -> Option<i64>, extents: &Extents) -> Index {
        let mut out = Index::from(self.constant);
        for (a, &c) in &self.terms {
            match a {
                Atom::Var(v) => match known(*v) {
                    Some(k) => out.constant += c * k,
                    None => out = out + Index::from(*v) * c,
                },
                Atom::Div(a, d) => out = out + a.with_known(known, extents).div(*d as usize, extents) * c,
                Atom::Mod(a, d) => out = out + a.with_known(known, extents).rem(*d as usize, extents) * c,
            }
        }
        out
    }

    fn add_term(&mut self, a: Atom, c: i64) {
        let sum = self.terms.get(&a).copied().unwrap_or(0) + c;
        if sum == 0 {
            self.terms.remove(&a);
        } else {
            self.terms.insert(a, sum);
        }
    }

    /// As text, with the variables' names.
    pub fn display<'a>(&'a self, names: &'a dyn Fn(Var) -> String) -> impl fmt::Display + 'a {
        Shown { index: self, names }
    }
}

/// The greatest common divisor of two numbers that are not negative.
fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

struct Shown<'a> {
    index: &'a Index,
    names: &'a dyn Fn(Var) -> String,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (a, &c) in &self.index.terms {
            let sign = match (first, c < 0) {
                (true, false) => "",
                (true, true) => "-",
                (false, false) => " + ",
                (false, true) => " - ",
            };
            first = false;
            f.write_str(sign)?;
            if c.abs() != 1 {
                write!(f, "{}*", c.abs())?;
            }
            match a {
                Atom::Var(v) => f.write_str(&(self.names)(*v))?,
                Atom::Div(i, d) => write!(f, "({}) / {d}", Shown { index: i, names: self.names })?,
                Atom::Mod(i, d) => write!(f, "({}) % {d}", Shown { index: i, names: self.names })?,
            }
        }
        match (first, self.index.constant) {
            (true, c) => write!(f, "{c}"),
            (false, 0) => Ok(()),
            (false, c) if c < 0 => write!(f, " - {}", -c),
            (false, c) => write!(f, " + {c}"),
        }
    }
}

impl From<i64> for Index {
    fn from(constant: i64) -> Index {
        Index { terms: BTreeMap::new(), constant }
    }
}

impl From<usize> for Index {
    fn from(n: usize) -> Index {
        Index::from(n as i64)
    }
}

impl From<Var> for Index {
    fn from(v: Var) -> Index {
        Index { terms: BTreeMap::from([(Atom::Var(v), 1)]), constant: 0 }
    }
}

impl<T: Into<Index>> std::ops::Add<T> for Index {
    type Output = Index;
    fn add(mut self, other: T) -> Index {
        let other = other.into();
        for (a, c) in other.terms {
            self.add_term(a, c);
        }
        self.constant += other.constant;
        self
    }
}

impl<T: Into<Index>> std::ops::Sub<T> for Index {
    type Output = Index;
    fn sub(self, other: T) -> Index {
        self + other.into() * -1
    }
}

impl std::ops::Mul<i64> for Index {
    type Output = Index;
    fn mul(mut self, c: i64) -> Index {
        if c == 0 {
            return Index::default();
        }
        self.terms.values_mut().for_each(|x| *x *= c);
        self.constant *= c;
        self
    }
}
