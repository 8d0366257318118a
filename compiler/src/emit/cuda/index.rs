//! Index values and addresses.
//!
//! With unrolled variables put in, an offset is a sum over live loop variables plus a constant. The
//! sum, from the outermost variable inwards, becomes an address that is shared by all accesses with
//! the same sum; the constant goes into the instruction. What does not change in a loop is computed
//! before it ([`Emitter::hoist`]). Indices are i32 ([`check`] refuses kernels that need more),
//! addresses 64 bits wide.

use std::collections::HashMap;

use super::expr::in_registers;
use super::function::{Binding, Emitter, accesses};
use super::text::Class;
use crate::kernel::index::Atom;
use crate::kernel::{BufferId, Expr, Extents, Guard, Index, Joint, Kernel, LoopKind, Stmt, Var};

/// Values known in a region of code and the regions inside it.
#[derive(Default)]
pub struct Scope {
    addresses: HashMap<(BufferId, Index), String>,
    indices: HashMap<Index, String>,
    /// What copies of so many bytes read, by their guards.
    pub sizes: HashMap<(Vec<Index>, usize), String>,
}

impl Emitter<'_> {
    /// Puts in the variables that have a known value.
    pub fn resolve(&self, i: &Index) -> Index {
        let known = |v: Var| match self.vars[v.0 as usize] {
            Binding::Known(k) => Some(k),
            Binding::Unbound | Binding::Dynamic { .. } => None,
        };
        let mut out = i.with_known(&known, &self.extents);
        for (n, binding) in self.vars.iter().enumerate() {
            let v = Var(n as u32);
            if let Binding::Dynamic { offset, .. } = binding
                && *offset != 0
                && out.mentions(v)
            {
                out = out.substitute(v, &(Index::from(v) + *offset), &self.extents);
            }
        }
        out
    }

    /// The place of an access, as instructions have it: `[%a3+16]`.
    pub fn place(&mut self, buffer: BufferId, index: &[Index]) -> String {
        let flat = self.kernel.flat(buffer, index);
        self.place_of(buffer, &flat, None)
    }

    /// Likewise of an element offset, and so many bytes further on.
    pub fn place_of(&mut self, buffer: BufferId, flat: &Index, further: Option<&str>) -> String {
        let mut sum = joined(self.resolve(flat));
        let elements = std::mem::take(&mut sum.constant);
        let mut base = self.address(buffer, &sum);
        if let Some(bytes) = further {
            let moved = self.out.fresh(Class::Address);
            self.out.line(format!("add.s64 {moved}, {base}, {bytes}"));
            base = moved;
        }
        match elements * self.kernel.buffer_of(buffer).dtype.size() as i64 {
            0 => format!("[{base}]"),
            bytes if i32::try_from(bytes).is_ok() => format!("[{base}+{bytes}]"),
            bytes => {
                let far = self.out.fresh(Class::Address);
                self.out.line(format!("add.s64 {far}, {base}, {bytes}"));
                format!("[{far}]")
            }
        }
    }

    /// `buffer + sum`, where the sum has no constant.
    fn address(&mut self, buffer: BufferId, sum: &Index) -> String {
        if sum.terms.is_empty() {
            return self.bases[buffer.0 as usize].clone();
        }
        let key = (buffer, sum.clone());
        if let Some(a) = self.scopes.iter().rev().find_map(|s| s.addresses.get(&key)) {
            return a.clone();
        }
        let (atom, c, rest) = self.innermost(sum);
        let outer = self.address(buffer, &rest);
        let step = c * self.kernel.buffer_of(buffer).dtype.size() as i64;
        let value = self.atom(&atom);
        let address = self.out.fresh(Class::Address);
        self.out.line(format!("mad.wide.s32 {address}, {value}, {step}, {outer}"));
        self.scope().addresses.insert(key, address.clone());
        address
    }

    /// The innermost region.
    pub fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("a function has a scope")
    }

    /// Takes out the term that changes most often.
    fn innermost(&self, sum: &Index) -> (Atom, i64, Index) {
        let deepest = sum.terms.iter().max_by_key(|(a, _)| self.depth_of(a)).expect("has terms");
        let (atom, c) = (deepest.0.clone(), *deepest.1);
        let mut rest = sum.clone();
        rest.terms.remove(&atom);
        (atom, c, rest)
    }

    fn atom(&mut self, atom: &Atom) -> String {
        let (inner, d, remainder) = match atom {
            Atom::Var(v) => match &self.vars[v.0 as usize] {
                Binding::Dynamic { register, .. } => return register.clone(),
                Binding::Known(k) => return k.to_string(),
                Binding::Unbound => unreachable!("verified kernels use variables inside their loops"),
            },
            Atom::Div(i, d) => (i, *d, false),
            Atom::Mod(i, d) => (i, *d, true),
        };
        let key = Index { terms: [(atom.clone(), 1)].into(), constant: 0 };
        if let Some(v) = self.scopes.iter().rev().find_map(|s| s.indices.get(&key)) {
            return v.clone();
        }
        let x = self.sum_value(inner);
        let v = self.divide(&x, inner.range(&self.extents).0, d, remainder, None);
        self.scope().indices.insert(key, v.clone());
        v
    }

    /// Floor division by a constant or its remainder, for x no less than `low`.
    pub fn divide(&mut self, x: &str, low: i64, d: i64, remainder: bool, to: Option<&str>) -> String {
        let to = to.map_or_else(|| self.out.fresh(Class::Int), str::to_string);
        match (d.count_ones() == 1, remainder) {
            (true, true) => self.out.line(format!("and.b32 {to}, {x}, {}", d - 1)),
            (true, false) => self.out.line(format!("shr.s32 {to}, {x}, {}", d.trailing_zeros())),
            (false, _) => {
                // Raised by a multiple of d, x is not negative.
                let raise = if low < 0 { (-low + d - 1) / d } else { 0 };
                let mut x = x.to_string();
                if raise > 0 {
                    let raised = self.out.fresh(Class::Int);
                    self.out.line(format!("add.s32 {raised}, {x}, {}", raise * d));
                    x = raised;
                }
                let word = if remainder { "rem" } else { "div" };
                self.out.line(format!("{word}.u32 {to}, {x}, {d}"));
                if raise > 0 && !remainder {
                    self.out.line(format!("sub.s32 {to}, {to}, {raise}"));
                }
            }
        }
        to
    }

    /// The value of an index: a register or a number.
    pub fn index_value(&mut self, i: &Index) -> String {
        let i = self.resolve(i);
        self.sum_value(&i)
    }

    /// Likewise, where known variables have been put in.
    fn sum_value(&mut self, i: &Index) -> String {
        if let Some(c) = i.known() {
            return c.to_string();
        }
        if let Some(v) = self.scopes.iter().rev().find_map(|s| s.indices.get(i)) {
            return v.clone();
        }
        let value = if i.constant != 0 {
            let mut sum = i.clone();
            let c = std::mem::take(&mut sum.constant);
            let sum = self.sum_value(&sum);
            let value = self.out.fresh(Class::Int);
            self.out.line(format!("add.s32 {value}, {sum}, {c}"));
            value
        } else {
            let (atom, c, rest) = self.innermost(i);
            let rest = if rest.terms.is_empty() { None } else { Some(self.sum_value(&rest)) };
            let x = self.atom(&atom);
            if (c, &rest) == (1, &None) {
                return x;
            }
            let value = self.out.fresh(Class::Int);
            self.out.line(match (c, rest) {
                (1, Some(rest)) => format!("add.s32 {value}, {rest}, {x}"),
                (-1, Some(rest)) => format!("sub.s32 {value}, {rest}, {x}"),
                (c, Some(rest)) => format!("mad.lo.s32 {value}, {x}, {c}, {rest}"),
                (-1, None) => format!("neg.s32 {value}, {x}"),
                (c, None) => format!("mul.lo.s32 {value}, {x}, {c}"),
            });
            value
        };
        self.scope().indices.insert(i.clone(), value.clone());
        value
    }

    /// What is known of guards here: `Ok(holds)`, or the predicate that says so.
    pub fn guards(&mut self, guards: &[Guard]) -> Result<bool, String> {
        let mut open = vec![];
        for g in guards {
            let i = self.resolve(&g.0);
            let (low, high) = i.range(&self.extents);
            if high < 0 {
                return Ok(false);
            }
            if low < 0 {
                open.push(i);
            }
        }
        let mut all: Option<String> = None;
        for i in &open {
            let holds = self.out.fresh(Class::Predicate);
            // Without the constant, the sum may be known already.
            let (sum, is_negated) = guarded_sum(i);
            let value = self.sum_value(&sum);
            self.out.line(match is_negated {
                true => format!("setp.le.s32 {holds}, {value}, {}", i.constant),
                false => format!("setp.ge.s32 {holds}, {value}, {}", -i.constant),
            });
            if let Some(others) = all {
                self.out.line(format!("and.pred {holds}, {holds}, {others}"));
            }
            all = Some(holds);
        }
        all.map_or(Ok(true), Err)
    }

    /// Computes the addresses and sums that a region needs, as far as the variables that are bound by
    /// now say, so that loops inside do not compute them again and again.
    pub fn hoist(&mut self, body: &[Stmt]) {
        self.hoist_bound(&accesses(body), &guards_in(body));
        self.hoist_copies(body);
    }

    fn hoist_bound(&mut self, accesses: &[(BufferId, &[Index])], guards: &[&Guard]) {
        for (buffer, index) in accesses {
            if !in_registers(self.kernel.buffer_of(*buffer).memory) {
                let sum = self.bound_part(&joined(self.resolve(&self.kernel.flat(*buffer, index))));
                self.address(*buffer, &sum);
            }
        }
        for guard in guards {
            let (sum, _) = guarded_sum(&self.resolve(&guard.0));
            let sum = self.bound_part(&sum);
            if !sum.terms.is_empty() {
                self.sum_value(&sum);
            }
        }
    }

    /// Likewise for every copy of loops that are written out: of where it reads, each has its own row and column.
    fn hoist_copies(&mut self, body: &[Stmt]) {
        for s in body {
            match s {
                Stmt::Loop { var, kind: LoopKind::Unroll, body } if has_copies(body) => {
                    for k in 0..self.extents[var.0 as usize] {
                        self.vars[var.0 as usize] = Binding::Known(k as i64);
                        self.hoist_copies(body);
                    }
                    self.vars[var.0 as usize] = Binding::Unbound;
                }
                Stmt::Loop { body, .. } | Stmt::If { body, .. } => self.hoist_copies(body),
                Stmt::Joint(copy @ Joint::Copy { .. }) => {
                    self.hoist_bound(&copy.accesses(), &copy.guards().iter().collect::<Vec<_>>());
                }
                _ => {}
            }
        }
    }

    /// The terms of variables that have values here, of an index with known variables put in.
    fn bound_part(&self, i: &Index) -> Index {
        let mut sum = i.clone();
        sum.constant = 0;
        sum.terms.retain(|a, _| {
            let mut bound = true;
            let mut see = |v: Var| bound &= !matches!(self.vars[v.0 as usize], Binding::Unbound);
            match a {
                Atom::Var(v) => see(*v),
                Atom::Div(i, _) | Atom::Mod(i, _) => i.each_var(&mut see),
            }
            bound
        });
        sum
    }
}

/// The same sum, where `c·d·(a / d) + c·(a mod d)` is `c·a`: rows that lie one after the other.
fn joined(mut sum: Index) -> Index {
    loop {
        let whole = sum.terms.iter().find_map(|(atom, &c)| match atom {
            Atom::Mod(a, d) => {
                let quotient = Atom::Div(a.clone(), *d);
                (sum.terms.get(&quotient) == Some(&(c * d))).then(|| (atom.clone(), quotient, a.clone(), c))
            }
            Atom::Var(_) | Atom::Div(..) => None,
        });
        let Some((remainder, quotient, a, c)) = whole else { return sum };
        sum.terms.remove(&remainder);
        sum.terms.remove(&quotient);
        sum = sum + *a * c;
    }
}

/// The terms of a guard, negated if the first one is negative.
fn guarded_sum(i: &Index) -> (Index, bool) {
    let mut sum = i.clone();
    sum.constant = 0;
    let is_negated = sum.terms.values().next().is_some_and(|&c| c < 0);
    (if is_negated { sum * -1 } else { sum }, is_negated)
}

/// True if there are copies to shared memory among the statements.
fn has_copies(body: &[Stmt]) -> bool {
    body.iter().any(|s| match s {
        Stmt::Loop { body, .. } | Stmt::If { body, .. } => has_copies(body),
        Stmt::Joint(joint) => matches!(joint, Joint::Copy { .. }),
        _ => false,
    })
}

/// All guards of statements and expressions.
fn guards_in(body: &[Stmt]) -> Vec<&Guard> {
    let mut out = vec![];
    for s in body {
        match s {
            Stmt::Loop { body, .. } => out.extend(guards_in(body)),
            Stmt::If { guards, body } => {
                out.extend(guards);
                out.extend(guards_in(body));
            }
            Stmt::Store { value, .. } => value.walk(&mut |e| {
                if let Expr::Guarded { guards, .. } = e {
                    out.extend(guards);
                }
            }),
            Stmt::Joint(joint) => out.extend(joint.guards()),
            Stmt::Prefetch { .. } => {}
        }
    }
    out
}

/// What of a kernel does not fit into the numbers of its code; `None` if all does.
pub fn check(kernel: &Kernel) -> Option<String> {
    let extents = kernel.extents();
    let mut wide = None;
    let mut see = |i: &Index, bytes: i64| {
        if !fits(i, bytes, &extents) && wide.is_none() {
            wide = Some(i.display(&|v| kernel.var_name(v)).to_string());
        }
    };
    for (buffer, index) in accesses(&kernel.body) {
        see(&kernel.flat(buffer, index), kernel.buffer_of(buffer).dtype.size() as i64);
    }
    for guard in guards_in(&kernel.body) {
        see(&guard.0, 1);
    }
    each_value(&kernel.body, &mut |e| match e {
        Expr::Index(i) => see(i, 1),
        Expr::Gather { buffer, index, axis, .. } => {
            let mut index = index.clone();
            index[*axis] = Index::default();
            see(&kernel.flat(*buffer, &index), kernel.buffer_of(*buffer).dtype.size() as i64);
        }
        _ => {}
    });
    wide.map(|i| format!("the index `{i}` does not fit into 32 bits"))
}

/// True if the index with and without its constant, and each coefficient times so many bytes, are i32.
fn fits(i: &Index, bytes: i64, extents: &Extents) -> bool {
    let narrow = |x: i64| i32::try_from(x).is_ok();
    let (low, high) = i.range(extents);
    let values = [low, high, low - i.constant, high - i.constant, i.constant];
    values.into_iter().all(narrow)
        && i.terms.iter().all(|(a, &c)| {
            narrow(c.saturating_mul(bytes))
                && match a {
                    Atom::Var(_) => true,
                    // A raised dividend grows by less than a divisor more than its lowest value.
                    Atom::Div(inner, d) | Atom::Mod(inner, d) => {
                        let (low, high) = inner.range(extents);
                        narrow(high - low.min(0) + d) && fits(inner, 1, extents)
                    }
                }
        })
}

fn each_value(body: &[Stmt], see: &mut dyn FnMut(&Expr)) {
    for s in body {
        match s {
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => each_value(body, see),
            Stmt::Store { value, .. } => value.walk(&mut |e| see(e)),
            Stmt::Prefetch { .. } | Stmt::Joint(_) => {}
        }
    }
}
