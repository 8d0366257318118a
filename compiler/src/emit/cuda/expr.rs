//! Expressions: places, guards and names; the operations themselves are in [`super::arithmetic`].

use nnc_runtime::DType;

use super::function::{Emitter, space, stored};
use super::text::Class;
use crate::kernel::{BufferId, Expr, Guard, Index, Memory};

/// A value: a register, or a number written into instructions. A bool is always a predicate register.
#[derive(Clone, Debug)]
pub struct Operand {
    pub text: String,
    pub dtype: DType,
}

impl Operand {
    /// A value of that type.
    pub fn new(text: impl Into<String>, dtype: DType) -> Operand {
        Operand { text: text.into(), dtype }
    }
}

/// True for elements that are registers.
pub fn in_registers(memory: Memory) -> bool {
    matches!(memory, Memory::Register | Memory::Fragment(_))
}

impl Emitter<'_> {
    /// Emits an expression.
    pub fn expr(&mut self, e: &Expr) -> Operand {
        self.expr_to(e, None)
    }

    /// Emits an expression whose last instruction writes a register, if it is one that computes.
    pub fn expr_to(&mut self, e: &Expr, to: Option<&str>) -> Operand {
        match e {
            Expr::Const(dtype, c) => self.constant(*dtype, *c),
            Expr::Index(i) => Operand::new(self.index_value(i), DType::I32),
            Expr::Load(b, i) if in_registers(self.kernel.buffer_of(*b).memory) => {
                Operand::new(self.cell(*b, i), self.kernel.buffer_of(*b).dtype)
            }
            Expr::Load(b, i) => {
                let place = self.place(*b, i);
                self.load(*b, &place, None, to)
            }
            Expr::Gather { buffer, index, axis, at } => {
                let place = self.gathered(*buffer, index, *axis, at);
                self.load(*buffer, &place, None, to)
            }
            Expr::Guarded { guards, value, otherwise } => self.guarded(guards, value, otherwise, to),
            Expr::Let(name, value, body) => {
                let value = self.expr(value);
                self.locals.insert(*name, value);
                self.expr_to(body, to)
            }
            Expr::Local(name) => self.locals[name].clone(),
            Expr::Select(c, a, b) => {
                let (c, a, b) = (self.expr(c), self.expr(a), self.expr(b));
                self.out.select(&c, &a, &b, to)
            }
            Expr::Unary(op, a) => {
                let a = self.expr(a);
                self.out.unary(*op, &a, to)
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.expr(a), self.expr(b));
                self.out.binary(*op, &a, &b, to)
            }
            Expr::Fma(a, b, c) => {
                let [a, b, c] = [a, b, c].map(|e| self.expr(e));
                self.out.fma(&a, &b, &c, to)
            }
            Expr::Cast(dtype, a) => {
                let a = self.expr(a);
                self.out.cast(*dtype, &a, to)
            }
        }
    }

    fn constant(&mut self, dtype: DType, c: f64) -> Operand {
        if dtype != DType::Bool {
            return Operand::new(self.out.number(dtype, c), dtype);
        }
        let p = self.out.fresh(Class::Predicate);
        let word = if c != 0.0 { "eq" } else { "ne" };
        self.out.line(format!("setp.{word}.s32 {p}, 0, 0"));
        Operand::new(p, dtype)
    }

    /// Loads an element; under a guard if there is one: then the register must hold what else it is.
    fn load(&mut self, buffer: BufferId, place: &str, guard: Option<&str>, to: Option<&str>) -> Operand {
        let b = self.kernel.buffer_of(buffer);
        let guard = guard.map_or_else(String::new, |g| format!("@{g} "));
        let instruction = format!("{guard}ld.{}.{}", space(b.memory), stored(b.dtype));
        if b.dtype == DType::Bool {
            let byte = match to {
                Some(byte) if !guard.is_empty() => byte.to_string(),
                _ => self.out.fresh(Class::Int),
            };
            self.out.line(format!("{instruction} {byte}, {place}"));
            return self.out.loaded(byte, DType::Bool);
        }
        let to = self.out.target(Class::of(b.dtype), to);
        self.out.line(format!("{instruction} {to}, {place}"));
        Operand::new(to, b.dtype)
    }

    /// The place of an element whose position along an axis is computed, and clamped to its size.
    fn gathered(&mut self, buffer: BufferId, index: &[Index], axis: usize, at: &Expr) -> String {
        let b = self.kernel.buffer_of(buffer);
        let (step, last) = (b.strides[axis] * b.dtype.size(), b.shape[axis] as i64 - 1);
        let at = self.expr(at);
        let at = self.out.in_register(&at);
        let clamped = self.out.fresh(Class::Int);
        self.out.line(format!("max.s32 {clamped}, {at}, 0"));
        self.out.line(format!("min.s32 {clamped}, {clamped}, {last}"));
        let bytes = self.out.fresh(Class::Address);
        self.out.line(format!("cvt.u64.u32 {bytes}, {clamped}"));
        self.out.line(format!("mul.lo.u64 {bytes}, {bytes}, {step}"));
        let mut fixed = index.to_vec();
        fixed[axis] = Index::default();
        let flat = self.kernel.flat(buffer, &fixed);
        self.place_of(buffer, &flat, Some(&bytes))
    }

    fn guarded(&mut self, guards: &[Guard], value: &Expr, otherwise: &Expr, to: Option<&str>) -> Operand {
        let holds = match self.guards(guards) {
            Ok(true) => return self.expr_to(value, to),
            Ok(false) => return self.expr_to(otherwise, to),
            Err(holds) => holds,
        };
        if let (Expr::Load(b, i), Expr::Const(dtype, c)) = (value, otherwise)
            && !in_registers(self.kernel.buffer_of(*b).memory)
        {
            return self.guarded_load(*b, i, &holds, (*dtype, *c), to);
        }
        let (other, after) = (self.out.label("else"), self.out.label("after"));
        self.out.line(format!("@!{holds} bra {other}"));
        // The register may be one that the arms read: it is written when both have been computed.
        let x = self.scoped(|e| e.expr(value));
        let result = self.out.fresh(Class::of(x.dtype));
        self.out.copy(&result, &x);
        self.out.line(format!("bra {after}"));
        self.out.place(&other, "");
        let y = self.scoped(|e| e.expr(otherwise));
        self.out.copy(&result, &y);
        self.out.place(&after, "");
        Operand::new(result, x.dtype)
    }

    /// A load that only happens if the guard holds, without a branch.
    fn guarded_load(
        &mut self,
        buffer: BufferId,
        index: &[Index],
        holds: &str,
        (dtype, otherwise): (DType, f64),
        to: Option<&str>,
    ) -> Operand {
        let place = self.place(buffer, index);
        if dtype == DType::Bool {
            let byte = self.out.fresh(Class::Int);
            self.out.line(format!("mov.s32 {byte}, {}", self.out.number(dtype, otherwise)));
            return self.load(buffer, &place, Some(holds), Some(&byte));
        }
        let to = self.out.target(Class::of(dtype), to);
        let other = self.constant(dtype, otherwise);
        self.out.copy(&to, &other);
        self.load(buffer, &place, Some(holds), Some(&to))
    }
}
