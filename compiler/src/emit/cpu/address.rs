//! Addresses and index values.
//!
//! With unrolled variables put in, an offset is a sum over live loop variables plus a constant.
//! The sum, from the outermost variable inwards, becomes a pointer that is shared by all accesses
//! with the same sum; the constant goes into the instruction. Innermost loops carry their pointers
//! along and add to them ([`Emitter::induction_keys`]), others compute them once an iteration
//! ([`Emitter::hoist_pointers`]).

use std::collections::HashMap;
use std::rc::Rc;

use nnc_runtime::program::Access;

use super::assembler::{Assembler, Place};
use super::function::{Binding, Emitter};
use crate::kernel::index::Atom;
use crate::kernel::{BufferId, Guard, Index, Memory, Stmt, Var};

/// Pointers that an innermost loop carries; more would not stay in registers.
const MOST_INDUCTIONS: usize = 8;

/// What an access loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// One element.
    Scalar,
    /// One element in so many lanes.
    Splat(usize),
    /// So many neighbours.
    Lanes(usize),
}

/// A place in memory: a pointer and a displacement in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub buffer: BufferId,
    /// The part with variables, in elements.
    pub sum: Index,
    /// The rest, in elements.
    pub constant: i64,
}

/// Values known in a region of code and the regions inside it.
pub struct Scope<V> {
    pointers: HashMap<(BufferId, Index), V>,
    indices: HashMap<Index, V>,
    loads: HashMap<(Address, Form), (V, u32)>,
}

impl<V> Default for Scope<V> {
    fn default() -> Scope<V> {
        Scope { pointers: HashMap::new(), indices: HashMap::new(), loads: HashMap::new() }
    }
}

impl<A: Assembler> Emitter<'_, A> {
    /// The offset of an access, in elements, without the lane of a vector.
    pub fn flat(&mut self, buffer: BufferId, index: &[Index]) -> Rc<Index> {
        if let Some(flat) = self.flats.get(&(buffer, index.as_ptr())) {
            return flat.clone();
        }
        let flat = Rc::new(self.kernel.flat(buffer, index));
        self.flats.insert((buffer, index.as_ptr()), flat.clone());
        flat
    }

    /// Puts in the variables that have a known value.
    pub fn resolve(&self, i: &Index) -> Index {
        let known = |v: Var| match self.vars[v.0 as usize] {
            Binding::Known(k) => Some(k),
            Binding::Unbound | Binding::Dynamic { .. } => None,
        };
        i.with_known(&known, &self.extents)
    }

    /// The address of an access.
    pub fn address(&mut self, buffer: BufferId, index: &[Index]) -> Address {
        let flat = self.flat(buffer, index);
        let mut sum = self.resolve(&flat);
        let constant = std::mem::take(&mut sum.constant);
        Address { buffer, sum, constant }
    }

    /// The pointer and displacement of an address.
    pub fn place(&mut self, a: &Address) -> Place<A::Value> {
        let buffer = self.kernel.buffer_of(a.buffer);
        let constant = buffer.memory == Memory::Global(Access::Read);
        let distance = a.constant * buffer.dtype.size() as i64;
        let base = self.pointer(a.buffer, &a.sum);
        match i32::try_from(distance) {
            Ok(offset) => Place { base, offset, constant },
            Err(_) => Place { base: self.asm.add_constant(base, distance), offset: 0, constant },
        }
    }

    /// `buffer + sum`, where the sum has no constant.
    pub fn pointer(&mut self, buffer: BufferId, sum: &Index) -> A::Value {
        if sum.terms.is_empty() {
            return self.bases[buffer.0 as usize];
        }
        let key = (buffer, sum.clone());
        if let Some(p) = self.scopes.iter().rev().find_map(|s| s.pointers.get(&key)) {
            return *p;
        }
        let (atom, c, rest) = self.innermost(sum);
        let outer = self.pointer(buffer, &rest);
        let step = c * self.kernel.buffer_of(buffer).dtype.size() as i64;
        let value = self.atom(&atom);
        let offset = self.asm.multiply_constant(value, step);
        let p = self.asm.add(outer, offset);
        self.remember_pointer(key, p);
        p
    }

    /// Makes a pointer known in the current region.
    pub fn remember_pointer(&mut self, key: (BufferId, Index), p: A::Value) {
        self.scope().pointers.insert(key, p);
    }

    fn scope(&mut self) -> &mut Scope<A::Value> {
        self.scopes.last_mut().expect("a function has a scope")
    }

    /// Takes out the term that changes most often.
    fn innermost(&self, sum: &Index) -> (Atom, i64, Index) {
        let deepest = sum.terms.iter().max_by_key(|(a, _)| self.depth(a)).expect("has terms");
        let (atom, c) = (deepest.0.clone(), *deepest.1);
        let mut rest = sum.clone();
        rest.terms.remove(&atom);
        (atom, c, rest)
    }

    fn depth(&self, atom: &Atom) -> usize {
        match atom {
            Atom::Var(v) => match self.vars[v.0 as usize] {
                Binding::Dynamic { depth, .. } => depth,
                Binding::Unbound | Binding::Known(_) => 0,
            },
            Atom::Div(i, _) | Atom::Mod(i, _) => i.terms.keys().map(|a| self.depth(a)).max().unwrap_or(0),
        }
    }

    fn atom(&mut self, atom: &Atom) -> A::Value {
        let (inner, d, remainder) = match atom {
            Atom::Var(v) => match self.vars[v.0 as usize] {
                Binding::Dynamic { value, .. } => return value,
                Binding::Known(k) => return self.asm.index(k),
                Binding::Unbound => unreachable!("verified kernels use variables inside their loops"),
            },
            Atom::Div(i, d) => (i, *d, false),
            Atom::Mod(i, d) => (i, *d, true),
        };
        let key = Index { terms: [(atom.clone(), 1)].into(), constant: 0 };
        if let Some(v) = self.scopes.iter().rev().find_map(|s| s.indices.get(&key)) {
            return *v;
        }
        let x = self.index_value(inner);
        let v = self.divide(x, inner.range(&self.extents).0, d, remainder);
        self.scope().indices.insert(key, v);
        v
    }

    /// Floor division by a constant, for x no less than `low`.
    fn divide(&mut self, x: A::Value, low: i64, d: i64, remainder: bool) -> A::Value {
        match (d.count_ones() == 1, remainder) {
            (true, true) => return self.asm.and_constant(x, d - 1),
            (true, false) => return self.asm.shift_constant(x, d.trailing_zeros() as u8),
            (false, _) => {}
        }
        // Raised by a multiple of d, x is not negative.
        let raise = if low < 0 { (-low + d - 1) / d } else { 0 };
        let x = if raise > 0 { self.asm.add_constant(x, raise * d) } else { x };
        let q = self.divide_natural(x, d);
        if remainder {
            let whole = self.asm.multiply_constant(q, d);
            return self.asm.sub(x, whole);
        }
        if raise > 0 { self.asm.add_constant(q, -raise) } else { q }
    }

    /// `floor(x / d)` for x in `0..2^31` as a product with the rounded-up reciprocal: exact by
    /// Granlund and Montgomery (1994), theorem 4.2, and below 2^64.
    fn divide_natural(&mut self, x: A::Value, d: i64) -> A::Value {
        let shift = 32 + (64 - (d - 1).leading_zeros()) as u8;
        let reciprocal = (1u128 << shift).div_ceil(d as u128) as i64;
        let product = self.asm.multiply_constant(x, reciprocal);
        self.asm.shift_unsigned_constant(product, shift)
    }

    /// The value of an index (without the lane of a vector), as i64.
    pub fn index_value(&mut self, i: &Index) -> A::Value {
        let i = self.resolve(i);
        if let Some(c) = i.known() {
            return self.asm.index(c);
        }
        if let Some(v) = self.scopes.iter().rev().find_map(|s| s.indices.get(&i)) {
            return *v;
        }
        let mut terms: Vec<_> = i.terms.iter().collect();
        terms.sort_by_key(|(a, _)| self.depth(a));
        let mut sum = None;
        let mut constant = i.constant;
        for (a, &c) in terms {
            let v = self.atom(a);
            sum = Some(match (c, sum) {
                (1, None) => v,
                (1, Some(s)) => self.asm.add(s, v),
                (-1, None) => {
                    let start = self.asm.index(std::mem::take(&mut constant));
                    self.asm.sub(start, v)
                }
                (-1, Some(s)) => self.asm.sub(s, v),
                (c, sum) => {
                    let v = self.asm.multiply_constant(v, c);
                    sum.map_or(v, |s| self.asm.add(s, v))
                }
            });
        }
        let sum = sum.expect("has terms");
        let sum = if constant == 0 { sum } else { self.asm.add_constant(sum, constant) };
        self.scope().indices.insert(i, sum);
        sum
    }

    /// What is known of guards here: `Ok(holds)`, or the value that is not negative if they hold.
    pub fn guards(&mut self, guards: &[Guard]) -> Result<bool, A::Value> {
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
        let mut all = None;
        for i in &open {
            let v = self.index_value(i);
            // The sign bit of a union is set if one of them is negative.
            all = Some(all.map_or(v, |a| self.asm.or(a, v)));
        }
        all.map_or(Ok(true), Err)
    }

    /// A value loaded a short while ago: used within some vector operations. After that it is loaded
    /// again, since holding it would cost a register that a tile needs.
    pub fn remembered(&mut self, key: &(Address, Form)) -> Option<A::Value> {
        let now = self.operations;
        let found = self.scopes.iter_mut().rev().find_map(|s| s.loads.get_mut(key))?;
        if now - found.1 > self.remembered_for {
            return None;
        }
        found.1 = now;
        Some(found.0)
    }

    /// Remembers what lies at an address.
    pub fn remember(&mut self, key: (Address, Form), value: A::Value) {
        let now = self.operations;
        self.scope().loads.insert(key, (value, now));
    }

    /// Forgets what was loaded from a buffer that is stored to.
    pub fn forget(&mut self, buffer: BufferId) {
        for s in &mut self.scopes {
            s.loads.retain(|(a, _), _| a.buffer != buffer);
        }
    }

    /// Makes the pointers known that the body of a loop needs, as far as its variable and those
    /// around it say, so that loops inside do not compute them again and again.
    pub fn hoist_pointers(&mut self, body: &[Stmt]) {
        for (buffer, index) in accesses(body) {
            if self.kernel.buffer_of(buffer).memory == Memory::Register {
                continue;
            }
            let flat = self.flat(buffer, index);
            let mut sum = self.resolve(&flat);
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
            self.pointer(buffer, &sum);
        }
    }

    /// The pointers that an innermost loop over `v` needs and that move with it.
    pub fn induction_keys(&mut self, v: Var, body: &[Stmt]) -> Vec<(BufferId, Index)> {
        let mut keys = vec![];
        for (buffer, index) in accesses(body) {
            if self.kernel.buffer_of(buffer).memory == Memory::Register {
                continue;
            }
            let flat = self.flat(buffer, index);
            let mut sum = self.resolve(&flat);
            sum.constant = 0;
            // What is still to be unrolled only adds to the constant.
            let known_later = |e: &Self, x: Var| x != v && matches!(e.vars[x.0 as usize], Binding::Unbound);
            sum.terms.retain(|a, _| !matches!(a, Atom::Var(x) if known_later(self, *x)));
            let mut plain = true;
            for a in sum.terms.keys() {
                if let Atom::Div(i, _) | Atom::Mod(i, _) = a {
                    i.each_var(&mut |x| plain &= x != v && !known_later(self, x));
                }
            }
            let moves = sum.stride_of(v).is_some_and(|c| c != 0);
            if plain && moves && !keys.contains(&(buffer, sum.clone())) {
                keys.push((buffer, sum));
            }
        }
        keys.truncate(MOST_INDUCTIONS);
        keys
    }
}

/// All loads, stores and prefetches.
pub fn accesses(body: &[Stmt]) -> Vec<(BufferId, &[Index])> {
    let mut out = vec![];
    Stmt::walk(body, &mut |stmt| out.extend(stmt.places()));
    out
}
