//! Operations on elements: scalars, or four lanes side by side.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value, types};
use nnc_runtime::DType;

use super::super::assembler::Kind;
use super::{Builder, LANES, is_float, type_of};
use crate::kernel::{BinOp, UnOp};

impl Builder<'_> {
    /// A vector from the constants behind the code.
    pub fn vector_constant(&mut self, ty: Type, lane: impl Fn(i32) -> i32) -> Value {
        let bytes: Vec<u8> = (0..LANES as i32).flat_map(|l| lane(l).to_le_bytes()).collect();
        let constant = self.b.func.dfg.constants.insert(bytes.into());
        self.b.ins().vconst(ty, constant)
    }

    pub fn number(&mut self, kind: Kind, c: f64) -> Value {
        match kind {
            Kind::Index => self.b.ins().iconst(types::I64, c as i64),
            Kind::Scalar(DType::F32 | DType::F64) => self.b.ins().f32const(c as f32),
            Kind::Scalar(DType::I32) => self.b.ins().iconst(types::I32, c as i32 as u32 as i64),
            Kind::Scalar(DType::Bool) => self.b.ins().iconst(types::I8, (c != 0.0) as i64),
            Kind::Lanes(dtype, _) => {
                let bits = match dtype {
                    DType::F32 | DType::F64 => (c as f32).to_bits() as i32,
                    DType::I32 => c as i32,
                    DType::Bool => -((c != 0.0) as i32),
                };
                self.vector_constant(type_of(kind), |_| bits)
            }
        }
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

    /// `c ? a : b`
    pub fn choose(&mut self, kind: Kind, c: Value, a: Value, b: Value) -> Value {
        if !matches!(kind, Kind::Lanes(..)) {
            return self.b.ins().select(c, a, b);
        }
        let mask = if is_float(kind) { self.bits(types::F32X4, c) } else { c };
        self.b.ins().bitselect(mask, a, b)
    }

    pub fn function_of_one(&mut self, op: UnOp, kind: Kind, x: Value) -> Value {
        let (float, lanes) = (is_float(kind), matches!(kind, Kind::Lanes(..)));
        match op {
            UnOp::Neg if float => self.b.ins().fneg(x),
            UnOp::Neg => self.b.ins().ineg(x),
            UnOp::Abs if float => self.b.ins().fabs(x),
            UnOp::Abs => self.b.ins().iabs(x),
            UnOp::Sqrt => self.b.ins().sqrt(x),
            UnOp::Floor => self.b.ins().floor(x),
            UnOp::Relu if float => {
                let zero = self.number(kind, 0.0);
                let negative = self.b.ins().fcmp(FloatCC::LessThan, x, zero);
                self.choose(kind, negative, zero, x)
            }
            UnOp::Relu => {
                let zero = self.number(kind, 0.0);
                self.b.ins().smax(x, zero)
            }
            UnOp::Not if lanes => self.b.ins().bnot(x),
            UnOp::Not => self.b.ins().bxor_imm_s(x, 1),
            UnOp::Bits => self.bits(if lanes { types::I32X4 } else { types::I32 }, x),
            UnOp::FromBits => self.bits(if lanes { types::F32X4 } else { types::F32 }, x),
            UnOp::Tf32 => unreachable!("kernels that round so are refused"),
            UnOp::Exp | UnOp::Log | UnOp::Tanh | UnOp::Sigmoid | UnOp::Erf => {
                unreachable!("expanded before emission")
            }
        }
    }

    /// `a` if it is NaN or comes first, else `b`.
    fn extreme(&mut self, kind: Kind, a: Value, b: Value, first: Value) -> Value {
        let chosen = self.choose(kind, first, a, b);
        let nan = self.b.ins().fcmp(FloatCC::Unordered, a, a);
        self.choose(kind, nan, a, chosen)
    }

    pub fn function_of_two(&mut self, op: BinOp, kind: Kind, x: Value, y: Value) -> Value {
        match (op, is_float(kind)) {
            (BinOp::Add, true) => self.b.ins().fadd(x, y),
            (BinOp::Add, false) => self.b.ins().iadd(x, y),
            (BinOp::Sub, true) => self.b.ins().fsub(x, y),
            (BinOp::Sub, false) => self.b.ins().isub(x, y),
            (BinOp::Mul, true) => self.b.ins().fmul(x, y),
            (BinOp::Mul, false) => self.b.ins().imul(x, y),
            (BinOp::Div, true) => self.b.ins().fdiv(x, y),
            (BinOp::Max, true) => {
                let first = self.b.ins().fcmp(FloatCC::LessThan, y, x);
                self.extreme(kind, x, y, first)
            }
            (BinOp::Min, true) => {
                let first = self.b.ins().fcmp(FloatCC::LessThan, x, y);
                self.extreme(kind, x, y, first)
            }
            (BinOp::Max, false) => self.b.ins().smax(x, y),
            (BinOp::Min, false) => self.b.ins().smin(x, y),
            (BinOp::And, _) => self.b.ins().band(x, y),
            (BinOp::Or, _) => self.b.ins().bor(x, y),
            (BinOp::Xor, _) => self.b.ins().bxor(x, y),
            (BinOp::MulHigh, _) => self.lane_by_lane(kind, x, y, Self::multiply_high),
            (BinOp::Div, false) => self.lane_by_lane(kind, x, y, Self::divide_integers),
            (BinOp::Shl, _) => self.lane_by_lane(kind, x, y, |s, x, y| s.b.ins().ishl(x, y)),
            (BinOp::Shr, _) => self.lane_by_lane(kind, x, y, |s, x, y| s.b.ins().sshr(x, y)),
            (BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le, true) => {
                self.b.ins().fcmp(float_condition(op), x, y)
            }
            (BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le, false) => {
                self.b.ins().icmp(integer_condition(op), x, y)
            }
            (BinOp::Pow, _) => unreachable!("expanded before emission"),
        }
    }

    /// Operations that vectors lack.
    fn lane_by_lane(
        &mut self,
        kind: Kind,
        x: Value,
        y: Value,
        mut operation: impl FnMut(&mut Self, Value, Value) -> Value,
    ) -> Value {
        if !matches!(kind, Kind::Lanes(..)) {
            return operation(self, x, y);
        }
        let mut result = x;
        for lane in 0..LANES as u8 {
            let a = self.b.ins().extractlane(x, lane);
            let b = self.b.ins().extractlane(y, lane);
            let c = operation(self, a, b);
            result = self.b.ins().insertlane(result, c, lane);
        }
        result
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

    pub fn convert(&mut self, kind: Kind, to: DType, x: Value) -> Value {
        let (from, lanes) = match kind {
            Kind::Lanes(dtype, n) => (dtype, Some(n)),
            Kind::Scalar(dtype) => (dtype, None),
            Kind::Index => return x,
        };
        let integer = type_of(Kind::new(DType::I32, lanes));
        let float = type_of(Kind::new(DType::F32, lanes));
        match (from, to) {
            (DType::F32, DType::I32) => self.b.ins().fcvt_to_sint_sat(integer, x),
            (DType::I32, DType::F32) => self.b.ins().fcvt_from_sint(float, x),
            (DType::F32, DType::Bool) => {
                let zero = self.number(kind, 0.0);
                self.b.ins().fcmp(FloatCC::NotEqual, x, zero)
            }
            (DType::I32, DType::Bool) => {
                let zero = self.number(kind, 0.0);
                self.b.ins().icmp(IntCC::NotEqual, x, zero)
            }
            (DType::Bool, DType::I32) if lanes.is_some() => self.b.ins().ineg(x),
            (DType::Bool, DType::I32) => self.b.ins().uextend(types::I32, x),
            (DType::Bool, DType::F32) => {
                let whole = self.convert(kind, DType::I32, x);
                self.b.ins().fcvt_from_sint(float, whole)
            }
            _ => x,
        }
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
