//! Vector loops: all iterations of a statement side by side. Four (or two) lanes that are neighbours in memory are one
//! access, where the first of them is known to lie at a multiple of its size; what is the same in all lanes is computed
//! once. The neighbouring columns that a thread has of a fragment of sums are two such lanes.

use nnc_runtime::DType;

use super::expr::{Operand, in_registers};
use super::function::{Binding, Emitter, space, stored};
use super::text::{Class, Writer};
use crate::kernel::{BufferId, Expr, Index, Stmt, Var};

/// Lanes of the widest access.
pub const WIDEST: usize = 4;

/// A vector loop, or one over the columns of a fragment.
#[derive(Clone, Copy)]
struct Lanes {
    var: Var,
    count: usize,
    /// How far a thread's columns of a fragment are from its first one, which is a multiple of their number.
    slots: Option<&'static [i64]>,
}

impl<'k> Emitter<'k> {
    /// Emits the iterations of a vector loop, statement by statement.
    pub fn lanes(&mut self, var: Var, body: &'k [Stmt]) {
        self.statements(Lanes { var, count: self.extents[var.0 as usize], slots: None }, body);
    }

    /// Likewise those of a thread's columns of a fragment of sums.
    pub fn columns(&mut self, var: Var, slots: &'static [i64], body: &'k [Stmt]) {
        self.statements(Lanes { var, count: slots.len(), slots: Some(slots) }, body);
    }

    fn statements(&mut self, lanes: Lanes, body: &'k [Stmt]) {
        let var = lanes.var;
        for s in body {
            match s {
                Stmt::Store { buffer, index, value } => self.store_lanes(lanes, *buffer, index, value),
                Stmt::If { guards, body } if !guards.iter().any(|g| g.0.mentions(var)) => {
                    match self.guards(guards) {
                        Ok(true) => self.statements(lanes, body),
                        Ok(false) => {}
                        Err(holds) => {
                            let after = self.out.label("after");
                            self.out.line(format!("@!{holds} bra {after}"));
                            self.scoped(|e| e.statements(lanes, body));
                            self.out.place(&after, "");
                        }
                    }
                }
                other => {
                    self.each_lane(lanes, |e, _| e.body(std::slice::from_ref(other)));
                }
            }
        }
    }

    /// Does something for every lane.
    fn each_lane<T>(&mut self, lanes: Lanes, mut f: impl FnMut(&mut Self, usize) -> T) -> Vec<T> {
        let mut out = vec![];
        for lane in 0..lanes.count {
            match lanes.slots {
                None => self.vars[lanes.var.0 as usize] = Binding::Known(lane as i64),
                Some(slots) => self.slot(1, lanes.var, (lane, slots[lane])),
            }
            out.push(f(self, lane));
        }
        match lanes.slots {
            None => self.vars[lanes.var.0 as usize] = Binding::Unbound,
            Some(_) => self.slot(1, lanes.var, (0, 0)),
        }
        out
    }

    fn store_lanes(&mut self, lanes: Lanes, buffer: BufferId, index: &[Index], value: &Expr) {
        self.lane_locals.clear();
        let b = self.kernel.buffer_of(buffer);
        if in_registers(b.memory) {
            let cells = self.each_lane(lanes, |e, _| e.cell(buffer, index));
            let values = self.lane_values(lanes, value, Some(&cells));
            cells.iter().zip(&values).for_each(|(cell, value)| self.out.copy(cell, value));
            return;
        }
        let values = self.lane_values(lanes, value, None);
        let values: Vec<String> = values.iter().map(|v| self.out.in_memory(v)).collect();
        let (memory, dtype) = (b.memory, b.dtype);
        let width = self.width(lanes, buffer, index);
        self.each_lane(lanes, |e, lane| {
            if lane % width == 0 {
                let place = e.place(buffer, index);
                let (suffix, what) = vector(&values[lane..lane + width]);
                e.out.line(format!("st.{}{suffix}.{} {place}, {what}", space(memory), stored(dtype)));
            }
        });
    }

    /// How many lanes are one access of a buffer in memory.
    fn width(&self, lanes: Lanes, buffer: BufferId, index: &[Index]) -> usize {
        let flat = self.resolve(&self.kernel.flat(buffer, index));
        let first = flat.with_known(&|v| (v == lanes.var).then_some(0), &self.extents);
        let fits = |n: usize| {
            let n_divides = lanes.count.is_multiple_of(n) && first.is_multiple_of(n as i64);
            n_divides && self.alignments[buffer.0 as usize].is_multiple_of(n)
        };
        match flat.stride_of(lanes.var) {
            Some(1) => [WIDEST, WIDEST / 2].into_iter().find(|&n| fits(n)).unwrap_or(1),
            _ => 1,
        }
    }

    /// An expression's value in every lane. With `to`, what computes it last may write to these registers.
    fn lane_values(&mut self, lanes: Lanes, e: &Expr, to: Option<&[String]>) -> Vec<Operand> {
        if is_uniform(e, lanes.var) {
            let value = self.expr(e);
            return vec![value; lanes.count];
        }
        let target = |lane: usize| to.map(|cells| cells[lane].as_str());
        let each = 0..lanes.count;
        match e {
            Expr::Load(b, i) if !in_registers(self.kernel.buffer_of(*b).memory) => {
                self.load_lanes(lanes, (*b, i), None, to)
            }
            Expr::Guarded { guards, value, otherwise } if !guards.iter().any(|g| g.0.mentions(lanes.var)) => {
                match self.guards(guards) {
                    Ok(true) => self.lane_values(lanes, value, to),
                    Ok(false) => self.lane_values(lanes, otherwise, to),
                    Err(holds) => self.guarded_lanes(lanes, &holds, (value, otherwise), to),
                }
            }
            Expr::Let(name, value, body) => {
                let values = self.lane_values(lanes, value, None);
                self.lane_locals.insert(*name, values);
                self.lane_values(lanes, body, to)
            }
            Expr::Local(name) => self.lane_locals[name].clone(),
            Expr::Select(c, a, b) => {
                let [c, a, b] = [c, a, b].map(|e| self.lane_values(lanes, e, None));
                each.map(|l| self.out.select(&c[l], &a[l], &b[l], target(l))).collect()
            }
            Expr::Unary(op, a) => {
                let a = self.lane_values(lanes, a, None);
                each.map(|l| self.out.unary(*op, &a[l], target(l))).collect()
            }
            Expr::Binary(op, a, b) => {
                let [a, b] = [a, b].map(|e| self.lane_values(lanes, e, None));
                each.map(|l| self.out.binary(*op, &a[l], &b[l], target(l))).collect()
            }
            Expr::Fma(a, b, c) => {
                let [a, b, c] = [a, b, c].map(|e| self.lane_values(lanes, e, None));
                each.map(|l| self.out.fma(&a[l], &b[l], &c[l], target(l))).collect()
            }
            Expr::Cast(dtype, a) => {
                let a = self.lane_values(lanes, a, None);
                each.map(|l| self.out.cast(*dtype, &a[l], target(l))).collect()
            }
            // Registers and numbers of one lane; guards and positions that lanes differ in.
            Expr::Const(..)
            | Expr::Index(_)
            | Expr::Load(..)
            | Expr::Gather { .. }
            | Expr::Guarded { .. } => self.each_lane(lanes, |e_, l| {
                e_.locals = e_.lane_locals.iter().map(|(name, values)| (*name, values[l].clone())).collect();
                e_.expr_to(e, target(l))
            }),
        }
    }

    /// The elements of all lanes; under a guard if there is one, with what they are otherwise.
    fn load_lanes(
        &mut self,
        lanes: Lanes,
        (buffer, index): (BufferId, &[Index]),
        guard: Option<(&str, f64)>,
        to: Option<&[String]>,
    ) -> Vec<Operand> {
        let b = self.kernel.buffer_of(buffer);
        let (memory, dtype) = (b.memory, b.dtype);
        let class = if dtype == DType::Bool { Class::Int } else { Class::of(dtype) };
        let to = to.filter(|_| dtype != DType::Bool);
        let registers = to.map_or_else(|| self.fresh_lanes(class, lanes), <[String]>::to_vec);
        let mut holds = String::new();
        if let Some((predicate, otherwise)) = guard {
            let other = self.out.number(dtype, otherwise);
            registers.iter().for_each(|r| self.out.line(format!("mov.{} {r}, {other}", class.ptx())));
            holds = format!("@{predicate} ");
        }
        let width = self.width(lanes, buffer, index);
        self.each_lane(lanes, |e, lane| {
            if lane % width == 0 {
                let place = e.place(buffer, index);
                let (suffix, what) = vector(&registers[lane..lane + width]);
                e.out.line(format!("{holds}ld.{}{suffix}.{} {what}, {place}", space(memory), stored(dtype)));
            }
        });
        registers.into_iter().map(|r| self.out.loaded(r, dtype)).collect()
    }

    fn fresh_lanes(&mut self, class: Class, lanes: Lanes) -> Vec<String> {
        (0..lanes.count).map(|_| self.out.fresh(class)).collect()
    }

    fn guarded_lanes(
        &mut self,
        lanes: Lanes,
        holds: &str,
        (value, otherwise): (&Expr, &Expr),
        to: Option<&[String]>,
    ) -> Vec<Operand> {
        if let (Expr::Load(b, i), Expr::Const(_, c)) = (value, otherwise)
            && !in_registers(self.kernel.buffer_of(*b).memory)
        {
            return self.load_lanes(lanes, (*b, i), Some((holds, *c)), to);
        }
        let (other, after) = (self.out.label("else"), self.out.label("after"));
        self.out.line(format!("@!{holds} bra {other}"));
        let x = self.scoped(|e| e.lane_values(lanes, value, None));
        // Not `to`: the other arm may read those registers.
        let results = self.fresh_lanes(Class::of(x[0].dtype), lanes);
        results.iter().zip(&x).for_each(|(r, x)| self.out.copy(r, x));
        self.out.line(format!("bra {after}"));
        self.out.place(&other, "");
        let y = self.scoped(|e| e.lane_values(lanes, otherwise, None));
        results.iter().zip(&y).for_each(|(r, y)| self.out.copy(r, y));
        self.out.place(&after, "");
        results.into_iter().map(|r| Operand::new(r, x[0].dtype)).collect()
    }
}

impl Writer {
    /// A value as a register that memory takes: of a bool its byte.
    pub fn in_memory(&mut self, value: &Operand) -> String {
        if value.dtype != DType::Bool {
            return self.in_register(value);
        }
        let byte = self.fresh(Class::Int);
        self.line(format!("selp.s32 {byte}, 1, 0, {}", value.text));
        byte
    }

    /// What was read from memory to a register.
    pub fn loaded(&mut self, register: String, dtype: DType) -> Operand {
        if dtype != DType::Bool {
            return Operand::new(register, dtype);
        }
        let p = self.fresh(Class::Predicate);
        self.line(format!("setp.ne.s32 {p}, {register}, 0"));
        Operand::new(p, dtype)
    }
}

/// What an instruction needs to access so many registers at once: its suffix and operand.
fn vector(registers: &[String]) -> (String, String) {
    match registers {
        [one] => (String::new(), one.clone()),
        all => (format!(".v{}", all.len()), format!("{{{}}}", all.join(", "))),
    }
}

/// True if an expression is the same in all lanes, and needs no name that has a value in each.
fn is_uniform(e: &Expr, var: Var) -> bool {
    let mut uniform = true;
    e.walk(&mut |e| {
        uniform &= match e {
            Expr::Index(i) => !i.mentions(var),
            Expr::Load(_, index) | Expr::Gather { index, .. } => !index.iter().any(|i| i.mentions(var)),
            Expr::Guarded { guards, .. } => !guards.iter().any(|g| g.0.mentions(var)),
            Expr::Let(..) | Expr::Local(_) => false,
            _ => true,
        };
    });
    uniform
}
