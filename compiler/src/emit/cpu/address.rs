//! Addresses and index values.
//!
//! With unrolled variables put in, an offset is a sum over live loop variables plus a constant.
//! The sum, from the outermost variable inwards, becomes a pointer that is shared by all accesses
//! with the same sum; the constant goes into the instruction. Innermost loops carry their pointers
//! along and add to them ([`Emitter::induction_keys`]), others compute them once an iteration
//! ([`Emitter::hoist_pointers`]).

use std::collections::HashMap;
use std::rc::Rc;

use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use nnc_runtime::program::Access;

use super::function::{Binding, Emitter};
use crate::kernel::index::Atom;
use crate::kernel::{BufferId, Expr, Guard, Index, Memory, Stmt, Var};

/// Pointers that an innermost loop carries; more would not stay in registers.
const MOST_INDUCTIONS: usize = 8;

/// A loaded value is used again if it was used within so many vector operations; after that it is
/// loaded again, since holding it would cost a register that a tile needs.
const REMEMBERED_FOR: u32 = 8;

/// What an access loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// One element.
    Scalar,
    /// One element in all lanes.
    Splat,
    /// Four neighbours.
    Lanes,
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
#[derive(Default)]
pub struct Scope {
    pointers: HashMap<(BufferId, Index), Value>,
    indices: HashMap<Index, Value>,
    loads: HashMap<(Address, Form), (Value, u32)>,
}

impl Emitter<'_, '_> {
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
        let mut out = Index::from(i.constant);
        for (atom, &c) in &i.terms {
            match atom {
                Atom::Var(v) => match self.vars[v.0 as usize] {
                    Binding::Known(k) => out.constant += c * k,
                    Binding::Unbound | Binding::Dynamic { .. } => out = out + Index::from(*v) * c,
                },
                Atom::Div(a, d) => out = out + self.resolve(a).div(*d as usize, &self.extents) * c,
                Atom::Mod(a, d) => out = out + self.resolve(a).rem(*d as usize, &self.extents) * c,
            }
        }
        out
    }

    /// The address of an access.
    pub fn address(&mut self, buffer: BufferId, index: &[Index]) -> Address {
        let flat = self.flat(buffer, index);
        let mut sum = self.resolve(&flat);
        let constant = std::mem::take(&mut sum.constant);
        Address { buffer, sum, constant }
    }

    /// The pointer and displacement of an address.
    pub fn pointer_and_offset(&mut self, a: &Address) -> (Value, i32) {
        let size = self.kernel.buffer_of(a.buffer).dtype.size() as i64;
        let pointer = self.pointer(a.buffer, &a.sum);
        match i32::try_from(a.constant * size) {
            Ok(offset) => (pointer, offset),
            Err(_) => (self.b.ins().iadd_imm_s(pointer, a.constant * size), 0),
        }
    }

    /// `buffer + sum`, where the sum has no constant.
    pub fn pointer(&mut self, buffer: BufferId, sum: &Index) -> Value {
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
        let offset = self.b.ins().imul_imm_s(value, step);
        let p = self.b.ins().iadd(outer, offset);
        self.remember_pointer(key, p);
        p
    }

    /// Makes a pointer known in the current region.
    pub fn remember_pointer(&mut self, key: (BufferId, Index), p: Value) {
        self.scope().pointers.insert(key, p);
    }

    fn scope(&mut self) -> &mut Scope {
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

    fn atom(&mut self, atom: &Atom) -> Value {
        let (inner, d, remainder) = match atom {
            Atom::Var(v) => match self.vars[v.0 as usize] {
                Binding::Dynamic { value, .. } => return value,
                Binding::Known(k) => return self.b.ins().iconst(types::I64, k),
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
    fn divide(&mut self, x: Value, low: i64, d: i64, remainder: bool) -> Value {
        let ins = &mut self.b;
        match (d.count_ones() == 1, remainder) {
            (true, true) => return ins.ins().band_imm_s(x, d - 1),
            (true, false) => return ins.ins().sshr_imm_u(x, d.trailing_zeros() as i64),
            (false, _) => {}
        }
        // Raised by a multiple of d, x is not negative.
        let raise = if low < 0 { (-low + d - 1) / d } else { 0 };
        let x = if raise > 0 { ins.ins().iadd_imm_s(x, raise * d) } else { x };
        let q = self.divide_natural(x, d);
        if remainder {
            let whole = self.b.ins().imul_imm_s(q, d);
            return self.b.ins().isub(x, whole);
        }
        if raise > 0 { self.b.ins().iadd_imm_s(q, -raise) } else { q }
    }

    /// `floor(x / d)` for x in `0..2^31` as a product with the rounded-up reciprocal: exact by
    /// Granlund and Montgomery (1994), theorem 4.2, and below 2^64.
    fn divide_natural(&mut self, x: Value, d: i64) -> Value {
        let shift = 32 + (64 - (d - 1).leading_zeros() as i64);
        let reciprocal = (1u128 << shift).div_ceil(d as u128) as i64;
        let product = self.b.ins().imul_imm_s(x, reciprocal);
        self.b.ins().ushr_imm_u(product, shift)
    }

    /// The value of an index (without the lane of a vector), as i64.
    pub fn index_value(&mut self, i: &Index) -> Value {
        let i = self.resolve(i);
        if let Some(c) = i.known() {
            return self.b.ins().iconst(types::I64, c);
        }
        if let Some(v) = self.scopes.iter().rev().find_map(|s| s.indices.get(&i)) {
            return *v;
        }
        let mut terms: Vec<_> = i.terms.iter().collect();
        terms.sort_by_key(|(a, _)| self.depth(a));
        let mut sum = None;
        for (a, &c) in terms {
            let v = self.atom(a);
            let v = if c == 1 { v } else { self.b.ins().imul_imm_s(v, c) };
            sum = Some(sum.map_or(v, |s| self.b.ins().iadd(s, v)));
        }
        let sum = sum.expect("has terms");
        let sum = if i.constant == 0 { sum } else { self.b.ins().iadd_imm_s(sum, i.constant) };
        self.scope().indices.insert(i, sum);
        sum
    }

    /// What is known of guards here: `Ok(holds)`, or the value that is not negative if they hold.
    pub fn guards(&mut self, guards: &[Guard]) -> Result<bool, Value> {
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
            all = Some(all.map_or(v, |a| self.b.ins().bor(a, v)));
        }
        all.map_or(Ok(true), Err)
    }

    /// Memory flags of accesses to a buffer. Not `can_move`: a load stays behind its guard.
    pub fn flags(&self, buffer: BufferId) -> MemFlagsData {
        let flags = MemFlagsData::new().with_notrap();
        match self.kernel.buffer_of(buffer).memory {
            Memory::Global(Access::Read) => flags.with_readonly(),
            _ => flags,
        }
    }

    /// A value loaded a short while ago.
    pub fn remembered(&mut self, key: &(Address, Form)) -> Option<Value> {
        let now = self.operations;
        let found = self.scopes.iter_mut().rev().find_map(|s| s.loads.get_mut(key))?;
        if now - found.1 > REMEMBERED_FOR {
            return None;
        }
        found.1 = now;
        Some(found.0)
    }

    /// Remembers what lies at an address.
    pub fn remember(&mut self, key: (Address, Form), value: Value) {
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
            let known_later =
                |e: &Emitter<'_, '_>, x: Var| x != v && matches!(e.vars[x.0 as usize], Binding::Unbound);
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

/// All loads and stores.
pub fn accesses(body: &[Stmt]) -> Vec<(BufferId, &[Index])> {
    let mut out = vec![];
    for s in body {
        match s {
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => out.extend(accesses(body)),
            Stmt::Store { buffer, index, value } => {
                out.push((*buffer, index.as_slice()));
                value.walk(&mut |e| {
                    if let Expr::Load(b, i) = e {
                        out.push((*b, i));
                    }
                });
            }
        }
    }
    out
}
