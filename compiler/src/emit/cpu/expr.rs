//! Expressions: scalars, or lanes side by side inside a vectorised loop.
//!
//! What is the same for all lanes stays scalar until it meets lanes.

use nnc_runtime::DType;

use super::address::{Address, Form};
use super::assembler::{Assembler, Kind};
use super::function::Emitter;
use crate::kernel::verify::types;
use crate::kernel::{BinOp, BufferId, Expr, Guard, Index, Memory};

/// The value of an expression.
#[derive(Clone, Copy, Debug)]
pub struct Operand<V> {
    pub value: V,
    pub dtype: DType,
    /// So many lanes, or one value for all.
    pub lanes: Option<usize>,
}

impl<V> Operand<V> {
    pub fn kind(&self) -> Kind {
        Kind::new(self.dtype, self.lanes)
    }
}

impl<'k, A: Assembler> Emitter<'k, A> {
    /// Emits an expression.
    pub fn expr(&mut self, e: &'k Expr) -> Operand<A::Value> {
        match e {
            Expr::Const(dtype, c) => self.constant(*dtype, None, *c),
            Expr::Index(i) => self.index(i),
            Expr::Load(b, i) => self.load(*b, i, Form::Scalar),
            Expr::Gather { buffer, index, axis, at } => self.gather(*buffer, index, *axis, at),
            Expr::Guarded { guards, value, otherwise } => self.guarded(guards, value, otherwise),
            Expr::Let(name, value, body) => {
                let value = self.expr(value);
                self.locals.insert(*name, value);
                self.expr(body)
            }
            Expr::Local(name) => self.locals[name],
            Expr::Select(..) | Expr::Unary(..) | Expr::Binary(..) | Expr::Fma(..) | Expr::Cast(..) => {
                self.operations += 1;
                self.operation(e)
            }
        }
    }

    fn operation(&mut self, e: &'k Expr) -> Operand<A::Value> {
        match e {
            Expr::Select(c, a, b) => {
                let c = self.expr(c);
                let [a, b] = self.operands([a, b], c.lanes);
                let c = if a.lanes.is_some() { self.lanes(c) } else { c };
                Operand { value: self.asm.select(a.kind(), c.value, a.value, b.value), ..a }
            }
            Expr::Unary(op, a) => {
                let a = self.expr(a);
                Operand {
                    value: self.asm.unary(*op, a.kind(), a.value),
                    dtype: types::unary(*op).1.unwrap_or(a.dtype),
                    ..a
                }
            }
            Expr::Binary(op @ (BinOp::Shl | BinOp::Shr), a, b) if !self.has_lanes(b) => {
                let (a, b) = (self.expr(a), self.expr(b));
                Operand { value: self.asm.shift(*op, a.kind(), a.value, b.value), ..a }
            }
            Expr::Binary(op, a, b) => {
                let [a, b] = self.operands([a, b], None);
                let value = self.asm.binary(*op, a.kind(), a.value, b.value);
                Operand { value, dtype: types::binary(*op).1.unwrap_or(a.dtype), ..a }
            }
            Expr::Fma(a, b, c) => {
                let [a, b, c] = self.operands([a, b, c], None);
                Operand { value: self.asm.fma(a.kind(), a.value, b.value, c.value), ..a }
            }
            Expr::Cast(dtype, a) => {
                let a = self.expr(a);
                Operand { value: self.asm.cast(a.kind(), *dtype, a.value), dtype: *dtype, ..a }
            }
            _ => unreachable!("not an operation"),
        }
    }

    fn constant(&mut self, dtype: DType, lanes: Option<usize>, c: f64) -> Operand<A::Value> {
        Operand { value: self.asm.constant(Kind::new(dtype, lanes), c), dtype, lanes }
    }

    /// Operands of one operation: all lanes if asked for or if one of them is, else all scalar.
    pub fn operands<const N: usize>(
        &mut self,
        e: [&'k Expr; N],
        lanes: Option<usize>,
    ) -> [Operand<A::Value>; N] {
        let side_by_side = self.lane.filter(|_| e.iter().any(|e| self.has_lanes(e)));
        let lanes = lanes.or(side_by_side.map(|lane| lane.width));
        e.map(|e| match (e, lanes) {
            (Expr::Load(b, i), Some(width)) => {
                let x = self.load(*b, i, Form::Splat(width));
                self.lanes(x)
            }
            (Expr::Const(dtype, c), Some(_)) => self.constant(*dtype, lanes, *c),
            (e, Some(_)) => {
                let x = self.expr(e);
                self.lanes(x)
            }
            (e, None) => self.expr(e),
        })
    }

    /// True if the expression differs from lane to lane.
    fn has_lanes(&self, e: &Expr) -> bool {
        let Some(lane) = self.lane.map(|l| l.var) else { return false };
        let mut found = false;
        e.walk(&mut |e| {
            found |= match e {
                Expr::Index(i) => i.mentions(lane),
                Expr::Load(_, i) => i.iter().any(|i| i.mentions(lane)),
                Expr::Gather { index, axis, .. } => {
                    index.iter().enumerate().any(|(d, i)| d != *axis && i.mentions(lane))
                }
                Expr::Local(name) => self.locals.get(name).is_some_and(|x| x.lanes.is_some()),
                _ => false,
            }
        });
        found
    }

    /// The value in all lanes of the loop that is being emitted.
    pub fn lanes(&mut self, x: Operand<A::Value>) -> Operand<A::Value> {
        match self.lane {
            Some(lane) if x.lanes.is_none() => {
                let value = self.asm.splat(x.dtype, lane.width, x.value);
                Operand { value, lanes: Some(lane.width), ..x }
            }
            _ => x,
        }
    }

    fn index(&mut self, i: &Index) -> Operand<A::Value> {
        let wide = self.index_value(i);
        let start = self.asm.narrow(wide);
        let moving = self.lane.map(|l| (l.width, i.stride_of(l.var).unwrap_or(0) as i32));
        match moving {
            Some((width, step)) if step != 0 => {
                let value = self.asm.ramp(start, step, width);
                Operand { value, dtype: DType::I32, lanes: Some(width) }
            }
            _ => Operand { value: start, dtype: DType::I32, lanes: None },
        }
    }

    /// How far apart the places of neighbouring lanes are.
    fn stride(&self, flat: &Index) -> i64 {
        self.lane.and_then(|l| flat.stride_of(l.var)).unwrap_or(0)
    }

    /// Loads lanes where the place moves with the lane, else a scalar or, if asked for, a splat.
    fn load(&mut self, buffer: BufferId, index: &[Index], form: Form) -> Operand<A::Value> {
        let flat = self.flat(buffer, index);
        let b = self.kernel.buffer_of(buffer);
        let dtype = b.dtype;
        let form = match (self.lane, form) {
            (Some(lane), _) if self.stride(&flat) != 0 => Form::Lanes(lane.width),
            (_, Form::Splat(_)) if b.memory == Memory::Register || dtype == DType::Bool => Form::Scalar,
            _ => form,
        };
        let lanes = match form {
            Form::Scalar => None,
            Form::Splat(width) | Form::Lanes(width) => Some(width),
        };
        if b.memory == Memory::Register {
            let element = self.resolve(&flat).known().expect("verified: registers have constant places");
            let registers = &self.registers[buffer.0 as usize];
            let (group, (variable, lane)) = (registers.group, registers.cell(element as usize));
            let held = self.asm.get(variable);
            let value = match group {
                Some(n) if lanes.is_none() => self.asm.extract(dtype, n, held, lane),
                _ => held,
            };
            return Operand { value, dtype, lanes };
        }
        let key = (self.address(buffer, index), form);
        if let Some(value) = self.remembered(&key) {
            return Operand { value, dtype, lanes };
        }
        let place = self.place(&key.0);
        let value = match form {
            Form::Splat(width) => self.asm.load_splat(dtype, width, place),
            Form::Scalar | Form::Lanes(_) => self.asm.load(Kind::new(dtype, lanes), place),
        };
        self.remember(key, value);
        Operand { value, dtype, lanes }
    }

    fn gather(&mut self, buffer: BufferId, index: &[Index], axis: usize, at: &'k Expr) -> Operand<A::Value> {
        let b = self.kernel.buffer_of(buffer);
        let (dtype, size) = (b.dtype, b.dtype.size() as i64);
        let (stride, extent) = (b.strides[axis] as i64, b.shape[axis] as i64);
        let (at, i32) = (self.expr(at).value, Kind::Scalar(DType::I32));
        let first = self.asm.constant(i32, 0.0);
        let last = self.asm.constant(i32, (extent - 1) as f64);
        let at = self.asm.binary(BinOp::Max, i32, at, first);
        let at = self.asm.binary(BinOp::Min, i32, at, last);
        let at = self.asm.widen(at);
        let at = self.asm.multiply_constant(at, stride * size);
        let mut fixed = index.to_vec();
        fixed[axis] = Index::default();
        let flat = self.kernel.flat(buffer, &fixed);
        let lanes = self.lane.filter(|_| self.stride(&flat) != 0).map(|lane| lane.width);
        let mut sum = self.resolve(&flat);
        let constant = std::mem::take(&mut sum.constant);
        let mut place = self.place(&Address { buffer, sum, constant });
        place.base = self.asm.add(place.base, at);
        let value = self.asm.load(Kind::new(dtype, lanes), place);
        Operand { value, dtype, lanes }
    }

    fn guarded(&mut self, guards: &[Guard], value: &'k Expr, otherwise: &'k Expr) -> Operand<A::Value> {
        let side_by_side = self.has_lanes(value) || self.has_lanes(otherwise);
        let arm = |s: &mut Self, e: &'k Expr| {
            let x = s.expr(e);
            if side_by_side { s.lanes(x) } else { x }
        };
        let not_negative = match self.guards(guards) {
            Ok(holds) => return arm(self, if holds { value } else { otherwise }),
            Err(v) => v,
        };
        let mut branch = self.asm.begin_if(not_negative);
        let x = self.scoped(|s| arm(s, value));
        let result = self.asm.declare(x.kind());
        self.asm.set(result, x.value);
        self.asm.otherwise(&mut branch);
        let y = self.scoped(|s| arm(s, otherwise));
        self.asm.set(result, y.value);
        self.asm.end_if(branch);
        Operand { value: self.asm.get(result), ..x }
    }
}
