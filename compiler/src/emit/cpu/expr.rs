//! Expressions: scalars, or four lanes side by side inside a vectorised loop.
//!
//! What is the same for all lanes stays scalar until it meets lanes. Truth values are 0 or 1 in a
//! byte as scalars and masks as lanes. The choice of instructions follows what Cranelift matches
//! on x86-64: `0 > x ? 0 : x` is one `maxps`, a splat of a load one `vbroadcastss` from memory.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{BlockArg, Endianness, InstBuilder, MemFlagsData, Type, Value, types};
use nnc_runtime::DType;

use super::address::Form;
use super::function::Emitter;
use super::registers::{scalar_type, vector_type};
use super::vector::LANES;
use crate::kernel::{BinOp, BufferId, Expr, Guard, Index, Memory, UnOp};

/// The value of an expression.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    pub value: Value,
    pub dtype: DType,
    /// Four lanes, or one value for all.
    pub lanes: bool,
}

impl<'k> Emitter<'k, '_> {
    /// Emits an expression.
    pub fn expr(&mut self, e: &'k Expr) -> Operand {
        match e {
            Expr::Const(dtype, c) => {
                let value = match dtype {
                    DType::F32 | DType::F64 => self.b.ins().f32const(*c as f32),
                    DType::I32 => self.b.ins().iconst(types::I32, *c as i32 as u32 as i64),
                    DType::Bool => self.b.ins().iconst(types::I8, (*c != 0.0) as i64),
                };
                Operand { value, dtype: *dtype, lanes: false }
            }
            Expr::Index(i) => self.index(i),
            Expr::Load(b, i) => self.load(*b, i, Form::Scalar),
            Expr::Gather { buffer, index, axis, at } => self.gather(*buffer, index, *axis, at),
            Expr::Guarded { guards, value, otherwise } => self.guarded(guards, value, otherwise),
            Expr::Select(c, a, b) => {
                let c = self.expr(c);
                let [a, b] = self.operands([a, b], c.lanes);
                self.select(c, a, b)
            }
            Expr::Unary(op, a) => {
                let a = self.expr(a);
                self.unary(*op, a)
            }
            // A shift by the same amount in all lanes takes a scalar amount.
            Expr::Binary(op @ (BinOp::Shl | BinOp::Shr), a, b) if !self.has_lanes(b) => {
                let (a, b) = (self.expr(a), self.expr(b));
                let value = match op {
                    BinOp::Shl => self.b.ins().ishl(a.value, b.value),
                    _ => self.b.ins().sshr(a.value, b.value),
                };
                Operand { value, ..a }
            }
            Expr::Binary(op, a, b) => {
                let [a, b] = self.operands([a, b], false);
                self.binary(*op, a, b)
            }
            Expr::Fma(a, b, c) => {
                let [a, b, c] = self.operands([a, b, c], false);
                self.operations += 1;
                let value = self.b.ins().fma(a.value, b.value, c.value);
                Operand { value, ..a }
            }
            Expr::Cast(dtype, a) => {
                let a = self.expr(a);
                self.cast(*dtype, a)
            }
            Expr::Let(name, value, body) => {
                let value = self.expr(value);
                self.locals.insert(*name, value);
                self.expr(body)
            }
            Expr::Local(name) => self.locals[name],
        }
    }

    /// Operands of one operation: all scalar or all lanes.
    fn operands<const N: usize>(&mut self, e: [&'k Expr; N], lanes: bool) -> [Operand; N] {
        let lanes = lanes || self.lane.is_some() && e.iter().any(|e| self.has_lanes(e));
        e.map(|e| {
            let x = match e {
                Expr::Load(b, i) if lanes => self.load(*b, i, Form::Splat),
                Expr::Const(dtype, c) if lanes => self.constant_lanes(*dtype, *c),
                e => self.expr(e),
            };
            if lanes { self.lanes(x) } else { x }
        })
    }

    /// True if the expression differs from lane to lane.
    fn has_lanes(&self, e: &Expr) -> bool {
        let Some(lane) = self.lane else { return false };
        let mut found = false;
        e.walk(&mut |e| {
            found |= match e {
                Expr::Index(i) => i.mentions(lane),
                Expr::Load(_, i) => i.iter().any(|i| i.mentions(lane)),
                Expr::Gather { index, axis, .. } => {
                    index.iter().enumerate().any(|(d, i)| d != *axis && i.mentions(lane))
                }
                Expr::Local(name) => self.locals.get(name).is_some_and(|x| x.lanes),
                _ => false,
            }
        });
        found
    }

    /// The value in all lanes.
    pub fn lanes(&mut self, x: Operand) -> Operand {
        if x.lanes {
            return x;
        }
        let value = if x.dtype == DType::Bool {
            let wide = self.b.ins().uextend(types::I32, x.value);
            let mask = self.b.ins().ineg(wide);
            self.b.ins().splat(types::I32X4, mask)
        } else {
            self.b.ins().splat(vector_type(x.dtype), x.value)
        };
        Operand { value, lanes: true, ..x }
    }

    fn index(&mut self, i: &Index) -> Operand {
        let wide = self.index_value(i);
        let value = self.b.ins().ireduce(types::I32, wide);
        let x = Operand { value, dtype: DType::I32, lanes: false };
        let stride = self.lane.and_then(|v| i.stride_of(v)).unwrap_or(0) as i32;
        if stride == 0 {
            return x;
        }
        let x = self.lanes(x);
        let steps = self.vector_constant(types::I32X4, |l| l.wrapping_mul(stride));
        Operand { value: self.b.ins().iadd(x.value, steps), ..x }
    }

    /// A vector from the constants behind the code.
    fn vector_constant(&mut self, ty: Type, lane: impl Fn(i32) -> i32) -> Value {
        let bytes: Vec<u8> = (0..LANES as i32).flat_map(|l| lane(l).to_le_bytes()).collect();
        let constant = self.b.func.dfg.constants.insert(bytes.into());
        self.b.ins().vconst(ty, constant)
    }

    fn constant_lanes(&mut self, dtype: DType, c: f64) -> Operand {
        let bits = match dtype {
            DType::F32 | DType::F64 => (c as f32).to_bits() as i32,
            DType::I32 => c as i32,
            DType::Bool => -((c != 0.0) as i32),
        };
        let value = self.vector_constant(vector_type(dtype), |_| bits);
        Operand { value, dtype, lanes: true }
    }

    /// Loads lanes where the place moves with the lane, else a scalar or, if asked for, a splat.
    fn load(&mut self, buffer: BufferId, index: &[Index], form: Form) -> Operand {
        let flat = self.flat(buffer, index);
        let stride = self.lane.and_then(|v| flat.stride_of(v)).unwrap_or(0);
        let b = self.kernel.buffer_of(buffer);
        let dtype = b.dtype;
        let splat_of_load = b.memory != Memory::Register && dtype != DType::Bool;
        let form = match form {
            _ if stride != 0 => Form::Lanes,
            Form::Splat if !splat_of_load => Form::Scalar,
            form => form,
        };
        let lanes = form != Form::Scalar;
        if b.memory == Memory::Register {
            let element = self.resolve(&flat).known().expect("verified: registers have constant places");
            let registers = &self.registers[buffer.0 as usize];
            let (vector, (variable, lane)) = (registers.vector, registers.cell(element as usize));
            let held = self.b.use_var(variable);
            let value = if vector && !lanes { self.b.ins().extractlane(held, lane) } else { held };
            return Operand { value, dtype, lanes };
        }
        let key = (self.address(buffer, index), form);
        if let Some(value) = self.remembered(&key) {
            return Operand { value, dtype, lanes };
        }
        let (pointer, offset) = self.pointer_and_offset(&key.0);
        let (flags, ty) =
            (self.flags(buffer), if form == Form::Lanes { vector_type(dtype) } else { scalar_type(dtype) });
        let mut value = self.b.ins().load(ty, flags, pointer, offset);
        if form == Form::Splat {
            value = self.b.ins().splat(vector_type(dtype), value);
        }
        self.remember(key, value);
        Operand { value, dtype, lanes }
    }

    fn gather(&mut self, buffer: BufferId, index: &[Index], axis: usize, at: &'k Expr) -> Operand {
        let b = self.kernel.buffer_of(buffer);
        let (dtype, size) = (b.dtype, b.dtype.size() as i64);
        let (stride, extent) = (b.strides[axis] as i64, b.shape[axis] as i64);
        let at = self.expr(at).value;
        let zero = self.b.ins().iconst(types::I32, 0);
        let last = self.b.ins().iconst(types::I32, extent - 1);
        let at = self.b.ins().smax(at, zero);
        let at = self.b.ins().smin(at, last);
        let at = self.b.ins().uextend(types::I64, at);
        let at = self.b.ins().imul_imm_s(at, stride * size);
        let mut fixed = index.to_vec();
        fixed[axis] = Index::default();
        let flat = self.kernel.flat(buffer, &fixed);
        let lanes = self.lane.and_then(|v| flat.stride_of(v)).unwrap_or(0) != 0;
        let mut sum = self.resolve(&flat);
        let constant = std::mem::take(&mut sum.constant);
        let address = super::address::Address { buffer, sum, constant };
        let (pointer, offset) = self.pointer_and_offset(&address);
        let pointer = self.b.ins().iadd(pointer, at);
        let (flags, ty) = (self.flags(buffer), if lanes { vector_type(dtype) } else { scalar_type(dtype) });
        let value = self.b.ins().load(ty, flags, pointer, offset);
        Operand { value, dtype, lanes }
    }

    fn guarded(&mut self, guards: &[Guard], value: &'k Expr, otherwise: &'k Expr) -> Operand {
        let lanes = self.has_lanes(value) || self.has_lanes(otherwise);
        let not_negative = match self.guards(guards) {
            Ok(holds) => {
                let x = self.expr(if holds { value } else { otherwise });
                return if lanes { self.lanes(x) } else { x };
            }
            Err(v) => v,
        };
        let (inside, outside, after) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.branch_on(not_negative, inside, outside);
        let mut result = None;
        for (block, e) in [(inside, value), (outside, otherwise)] {
            self.b.seal_block(block);
            self.b.switch_to_block(block);
            let x = self.scoped(|s| {
                let x = s.expr(e);
                if lanes { s.lanes(x) } else { x }
            });
            self.b.ins().jump(after, &[BlockArg::Value(x.value)]);
            result = Some(x);
        }
        let x = result.expect("two arms");
        self.b.seal_block(after);
        let ty = if x.lanes { vector_type(x.dtype) } else { scalar_type(x.dtype) };
        let value = self.b.append_block_param(after, ty);
        self.b.switch_to_block(after);
        Operand { value, ..x }
    }

    /// Reads the same bits as another type of the same size.
    fn bits(&mut self, ty: Type, x: Value) -> Value {
        let flags = if ty.is_vector() {
            MemFlagsData::new().with_endianness(Endianness::Little)
        } else {
            MemFlagsData::new()
        };
        self.b.ins().bitcast(ty, flags, x)
    }

    /// `c ? a : b`, all of one width save for a scalar condition.
    fn select(&mut self, c: Operand, a: Operand, b: Operand) -> Operand {
        self.operations += 1;
        let value = if a.lanes {
            let mask = self.lanes(c).value;
            let float = a.dtype == DType::F32;
            let mask = if float { self.bits(types::F32X4, mask) } else { mask };
            self.b.ins().bitselect(mask, a.value, b.value)
        } else {
            self.b.ins().select(c.value, a.value, b.value)
        };
        Operand { value, ..a }
    }

    fn zero(&mut self, like: Operand) -> Operand {
        if like.lanes {
            return self.constant_lanes(like.dtype, 0.0);
        }
        let value = match like.dtype {
            DType::F32 | DType::F64 => self.b.ins().f32const(0.0),
            DType::I32 => self.b.ins().iconst(types::I32, 0),
            DType::Bool => self.b.ins().iconst(types::I8, 0),
        };
        Operand { value, dtype: like.dtype, lanes: false }
    }

    fn unary(&mut self, op: UnOp, a: Operand) -> Operand {
        self.operations += 1;
        let float = a.dtype == DType::F32;
        let x = a.value;
        let value = match op {
            UnOp::Neg if float => self.b.ins().fneg(x),
            UnOp::Neg => self.b.ins().ineg(x),
            UnOp::Abs if float => self.b.ins().fabs(x),
            UnOp::Abs => self.b.ins().iabs(x),
            UnOp::Sqrt => self.b.ins().sqrt(x),
            UnOp::Floor => self.b.ins().floor(x),
            UnOp::Relu if float => {
                let zero = self.zero(a);
                let negative = self.compare(FloatCC::LessThan, a, zero);
                return self.select(negative, zero, a);
            }
            UnOp::Relu => {
                let zero = self.zero(a);
                self.b.ins().smax(x, zero.value)
            }
            UnOp::Not if a.lanes => self.b.ins().bnot(x),
            UnOp::Not => self.b.ins().bxor_imm_s(x, 1),
            UnOp::Bits => {
                let value = self.bits(if a.lanes { types::I32X4 } else { types::I32 }, x);
                return Operand { value, dtype: DType::I32, ..a };
            }
            UnOp::FromBits => {
                let value = self.bits(if a.lanes { types::F32X4 } else { types::F32 }, x);
                return Operand { value, dtype: DType::F32, ..a };
            }
            UnOp::Exp | UnOp::Log | UnOp::Tanh | UnOp::Sigmoid | UnOp::Erf => {
                unreachable!("expanded before emission")
            }
        };
        Operand { value, ..a }
    }

    fn compare(&mut self, condition: FloatCC, a: Operand, b: Operand) -> Operand {
        let value = self.b.ins().fcmp(condition, a.value, b.value);
        Operand { value, dtype: DType::Bool, ..a }
    }

    /// `a` if it is NaN or comes first, else `b`.
    fn extreme(&mut self, a: Operand, b: Operand, first: Operand) -> Operand {
        let chosen = self.select(first, a, b);
        let nan = self.compare(FloatCC::Unordered, a, a);
        self.select(nan, a, chosen)
    }

    fn binary(&mut self, op: BinOp, a: Operand, b: Operand) -> Operand {
        self.operations += 1;
        let (x, y) = (a.value, b.value);
        let value = match (op, a.dtype == DType::F32) {
            (BinOp::Add, true) => self.b.ins().fadd(x, y),
            (BinOp::Add, false) => self.b.ins().iadd(x, y),
            (BinOp::Sub, true) => self.b.ins().fsub(x, y),
            (BinOp::Sub, false) => self.b.ins().isub(x, y),
            (BinOp::Mul, true) => self.b.ins().fmul(x, y),
            (BinOp::Mul, false) => self.b.ins().imul(x, y),
            (BinOp::Div, true) => self.b.ins().fdiv(x, y),
            (BinOp::Max, true) => {
                let first = self.compare(FloatCC::LessThan, b, a);
                return self.extreme(a, b, first);
            }
            (BinOp::Min, true) => {
                let first = self.compare(FloatCC::LessThan, a, b);
                return self.extreme(a, b, first);
            }
            (BinOp::Max, false) => self.b.ins().smax(x, y),
            (BinOp::Min, false) => self.b.ins().smin(x, y),
            (BinOp::And, _) => self.b.ins().band(x, y),
            (BinOp::Or, _) => self.b.ins().bor(x, y),
            (BinOp::Xor, _) => self.b.ins().bxor(x, y),
            (BinOp::MulHigh, _) => return self.lane_by_lane(a, b, Self::multiply_high),
            (BinOp::Div, false) => return self.lane_by_lane(a, b, Self::divide_integers),
            (BinOp::Shl, _) => return self.lane_by_lane(a, b, |e, x, y| e.b.ins().ishl(x, y)),
            (BinOp::Shr, _) => return self.lane_by_lane(a, b, |e, x, y| e.b.ins().sshr(x, y)),
            (BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le, float) => {
                let value = if float {
                    self.b.ins().fcmp(float_condition(op), x, y)
                } else {
                    self.b.ins().icmp(integer_condition(op), x, y)
                };
                return Operand { value, dtype: DType::Bool, ..a };
            }
            (BinOp::Pow, _) => unreachable!("expanded before emission"),
        };
        Operand { value, ..a }
    }

    /// Operations that vectors lack.
    fn lane_by_lane(
        &mut self,
        a: Operand,
        b: Operand,
        mut operation: impl FnMut(&mut Self, Value, Value) -> Value,
    ) -> Operand {
        if !a.lanes {
            return Operand { value: operation(self, a.value, b.value), ..a };
        }
        let mut result = a.value;
        for lane in 0..LANES as u8 {
            let x = self.b.ins().extractlane(a.value, lane);
            let y = self.b.ins().extractlane(b.value, lane);
            let z = operation(self, x, y);
            result = self.b.ins().insertlane(result, z, lane);
        }
        Operand { value: result, ..a }
    }

    /// The upper half of the product of unsigned numbers.
    fn multiply_high(&mut self, x: Value, y: Value) -> Value {
        let [x, y] = [x, y].map(|v| self.b.ins().uextend(types::I64, v));
        let product = self.b.ins().imul(x, y);
        let high = self.b.ins().ushr_imm_u(product, 32);
        self.b.ins().ireduce(types::I32, high)
    }

    /// Truncating division that does not trap: by zero is zero, the smallest by -1 wraps.
    fn divide_integers(&mut self, x: Value, y: Value) -> Value {
        let zero = self.b.ins().iconst(types::I32, 0);
        let one = self.b.ins().iconst(types::I32, 1);
        let by_zero = self.b.ins().icmp_imm_s(IntCC::Equal, y, 0);
        let by_minus_one = self.b.ins().icmp_imm_s(IntCC::Equal, y, -1);
        let special = self.b.ins().bor(by_zero, by_minus_one);
        let safe = self.b.ins().select(special, one, y);
        let quotient = self.b.ins().sdiv(x, safe);
        let negated = self.b.ins().ineg(x);
        let quotient = self.b.ins().select(by_minus_one, negated, quotient);
        self.b.ins().select(by_zero, zero, quotient)
    }

    fn cast(&mut self, to: DType, a: Operand) -> Operand {
        self.operations += 1;
        let (x, lanes) = (a.value, a.lanes);
        let integer = if lanes { types::I32X4 } else { types::I32 };
        let float = if lanes { types::F32X4 } else { types::F32 };
        let value = match (a.dtype, to) {
            (DType::F32, DType::I32) => self.b.ins().fcvt_to_sint_sat(integer, x),
            (DType::I32, DType::F32) => self.b.ins().fcvt_from_sint(float, x),
            (DType::F32, DType::Bool) => {
                let zero = self.zero(a);
                self.b.ins().fcmp(FloatCC::NotEqual, x, zero.value)
            }
            (DType::I32, DType::Bool) => {
                let zero = self.zero(a);
                self.b.ins().icmp(IntCC::NotEqual, x, zero.value)
            }
            (DType::Bool, DType::I32) if lanes => self.b.ins().ineg(x),
            (DType::Bool, DType::I32) => self.b.ins().uextend(types::I32, x),
            (DType::Bool, DType::F32) => {
                let whole = self.cast(DType::I32, a);
                return self.cast(DType::F32, whole);
            }
            _ => x,
        };
        Operand { value, dtype: to, lanes }
    }
}

fn float_condition(op: BinOp) -> FloatCC {
    match op {
        BinOp::Eq => FloatCC::Equal,
        BinOp::Ne => FloatCC::NotEqual,
        BinOp::Le => FloatCC::LessThanOrEqual,
        _ => FloatCC::LessThan,
    }
}

fn integer_condition(op: BinOp) -> IntCC {
    match op {
        BinOp::Eq => IntCC::Equal,
        BinOp::Ne => IntCC::NotEqual,
        BinOp::Le => IntCC::SignedLessThanOrEqual,
        _ => IntCC::SignedLessThan,
    }
}
