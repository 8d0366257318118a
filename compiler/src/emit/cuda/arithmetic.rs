//! The operations of kernels as instructions, with exactly the kernel interpreter's bits: rounding
//! to nearest, denormal numbers kept, products and sums not contracted, NaN and the sign of zero as
//! [`crate::kernel::UnOp`] and [`crate::kernel::BinOp`] say.

use nnc_runtime::DType;

use super::expr::Operand;
use super::text::{Class, Writer};
use crate::kernel::{BinOp, UnOp};

impl Writer {
    /// The register to write, or a new one.
    pub fn target(&mut self, class: Class, to: Option<&str>) -> String {
        to.map_or_else(|| self.fresh(class), str::to_string)
    }

    /// An instruction with a result of that type.
    fn op(&mut self, dtype: DType, to: Option<&str>, instruction: &str, operands: &[&str]) -> Operand {
        let to = self.target(Class::of(dtype), to);
        self.line(format!("{instruction} {to}, {}", operands.join(", ")));
        Operand::new(to, dtype)
    }

    /// `condition ? a : b`
    pub fn select(&mut self, condition: &Operand, a: &Operand, b: &Operand, to: Option<&str>) -> Operand {
        let c = &condition.text;
        if a.dtype == DType::Bool {
            let first = self.op(DType::Bool, None, "and.pred", &[c, &a.text]);
            let not = self.op(DType::Bool, None, "not.pred", &[c]);
            let second = self.op(DType::Bool, None, "and.pred", &[&not.text, &b.text]);
            return self.op(DType::Bool, to, "or.pred", &[&first.text, &second.text]);
        }
        let instruction = format!("selp.{}", Class::of(a.dtype).ptx());
        self.op(a.dtype, to, &instruction, &[&a.text, &b.text, c])
    }

    /// A constant as instructions have it; of a bool the byte that it is in memory.
    pub fn number(&self, dtype: DType, c: f64) -> String {
        match dtype {
            DType::F32 | DType::F64 => super::text::float(c as f32),
            DType::I32 => (c as i32).to_string(),
            DType::Bool => i32::from(c != 0.0).to_string(),
        }
    }

    /// `a·b + c`, rounded once.
    pub fn fma(&mut self, a: &Operand, b: &Operand, c: &Operand, to: Option<&str>) -> Operand {
        self.op(DType::F32, to, "fma.rn.f32", &[&a.text, &b.text, &c.text])
    }

    /// A function of one operand.
    pub fn unary(&mut self, op: UnOp, x: &Operand, to: Option<&str>) -> Operand {
        let (dtype, float) = (x.dtype, x.dtype == DType::F32);
        let x = &self.in_register(x);
        match op {
            UnOp::Neg if float => self.op(dtype, to, "neg.f32", &[x]),
            UnOp::Neg => self.op(dtype, to, "neg.s32", &[x]),
            UnOp::Abs if float => self.op(dtype, to, "abs.f32", &[x]),
            // `abs.s32` does not say what it makes of the smallest number.
            UnOp::Abs => {
                let negative = self.op(DType::Bool, None, "setp.lt.s32", &[x, "0"]);
                let negated = self.op(dtype, None, "neg.s32", &[x]);
                self.op(dtype, to, "selp.s32", &[&negated.text, x, &negative.text])
            }
            UnOp::Sqrt => self.op(dtype, to, "sqrt.rn.f32", &[x]),
            UnOp::Floor => self.op(dtype, to, "cvt.rmi.f32.f32", &[x]),
            // `max` would make a positive zero of a negative one.
            UnOp::Relu if float => {
                let zero = &super::text::float(0.0);
                let negative = self.op(DType::Bool, None, "setp.lt.f32", &[x, zero]);
                self.op(dtype, to, "selp.f32", &[zero, x, &negative.text])
            }
            UnOp::Relu => self.op(dtype, to, "max.s32", &[x, "0"]),
            UnOp::Not => self.op(dtype, to, "not.pred", &[x]),
            UnOp::Bits => self.op(DType::I32, to, "mov.b32", &[x]),
            UnOp::FromBits => self.op(DType::F32, to, "mov.b32", &[x]),
            // The instruction's result is of no floating-point type.
            UnOp::Tf32 => {
                let bits = self.fresh(Class::Bits);
                self.line(format!("cvt.rna.tf32.f32 {bits}, {x}"));
                self.op(DType::F32, to, "mov.b32", &[&bits])
            }
            UnOp::Exp | UnOp::Log | UnOp::Tanh | UnOp::Sigmoid | UnOp::Erf => {
                unreachable!("expanded before: see `kernel::math`")
            }
        }
    }

    /// A function of two.
    pub fn binary(&mut self, op: BinOp, a: &Operand, b: &Operand, to: Option<&str>) -> Operand {
        match (op, a.dtype) {
            (BinOp::Max | BinOp::Min, DType::F32) => self.choose(op, a, b, to),
            (BinOp::Div, DType::I32) => self.divide_ints(a, b, to),
            (BinOp::Shl | BinOp::Shr, _) => self.shift(op, a, b, to),
            (BinOp::Eq | BinOp::Ne, DType::Bool) => self.compare_bools(op, a, b, to),
            _ => {
                let compares = matches!(op, BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le);
                let dtype = if compares { DType::Bool } else { a.dtype };
                let a = self.in_register(a);
                self.op(dtype, to, instruction(op, b.dtype), &[&a, &b.text])
            }
        }
    }

    /// `a is NaN or a > b ? a : b`, and likewise for the smaller one.
    fn choose(&mut self, op: BinOp, a: &Operand, b: &Operand, to: Option<&str>) -> Operand {
        let [a, b] = [a, b].map(|x| self.in_register(x));
        let word = if op == BinOp::Max { "setp.gt.f32" } else { "setp.lt.f32" };
        let wins = self.op(DType::Bool, None, word, &[&a, &b]).text;
        let nan = self.op(DType::Bool, None, "setp.nan.f32", &[&a, &a]).text;
        let first = self.op(DType::Bool, None, "or.pred", &[&wins, &nan]).text;
        self.op(DType::F32, to, "selp.f32", &[&a, &b, &first])
    }

    /// Truncates; by zero is zero, and the smallest number by -1 wraps: both undefined in PTX.
    fn divide_ints(&mut self, a: &Operand, b: &Operand, to: Option<&str>) -> Operand {
        if !b.text.starts_with('%') && b.text != "0" && b.text != "-1" {
            let a = self.in_register(a);
            return self.op(DType::I32, to, "div.s32", &[&a, &b.text]);
        }
        let [a, b] = [a, b].map(|x| self.in_register(x));
        let zero = self.op(DType::Bool, None, "setp.eq.s32", &[&b, "0"]).text;
        let minus = self.op(DType::Bool, None, "setp.eq.s32", &[&b, "-1"]).text;
        let special = self.op(DType::Bool, None, "or.pred", &[&zero, &minus]).text;
        let divisor = self.op(DType::I32, None, "selp.s32", &["1", &b, &special]).text;
        let quotient = self.op(DType::I32, None, "div.s32", &[&a, &divisor]).text;
        let negated = self.op(DType::I32, None, "neg.s32", &[&a]).text;
        let signed = self.op(DType::I32, None, "selp.s32", &[&negated, &quotient, &minus]).text;
        self.op(DType::I32, to, "selp.s32", &["0", &signed, &zero])
    }

    /// The amount counts modulo 32, where PTX would clamp it.
    fn shift(&mut self, op: BinOp, a: &Operand, by: &Operand, to: Option<&str>) -> Operand {
        let word = if op == BinOp::Shl { "shl.b32" } else { "shr.s32" };
        let a = self.in_register(a);
        let by = match by.text.parse::<i32>() {
            Ok(c) => (c & 31).to_string(),
            Err(_) => self.op(DType::I32, None, "and.b32", &[&by.text, "31"]).text,
        };
        self.op(DType::I32, to, word, &[&a, &by])
    }

    fn compare_bools(&mut self, op: BinOp, a: &Operand, b: &Operand, to: Option<&str>) -> Operand {
        if op == BinOp::Ne {
            return self.op(DType::Bool, to, "xor.pred", &[&a.text, &b.text]);
        }
        let differ = self.op(DType::Bool, None, "xor.pred", &[&a.text, &b.text]).text;
        self.op(DType::Bool, to, "not.pred", &[&differ])
    }

    /// Conversion between types.
    pub fn cast(&mut self, dtype: DType, x: &Operand, to: Option<&str>) -> Operand {
        if x.dtype == dtype {
            return x.clone();
        }
        let from = x.dtype;
        let x = &self.in_register(x);
        match (from, dtype) {
            // Saturates, and makes zero of NaN.
            (DType::F32, DType::I32) => self.op(dtype, to, "cvt.rzi.s32.f32", &[x]),
            (DType::F32, DType::Bool) => self.op(dtype, to, "setp.neu.f32", &[x, &super::text::float(0.0)]),
            (DType::I32, DType::Bool) => self.op(dtype, to, "setp.ne.s32", &[x, "0"]),
            (DType::I32, _) => self.op(dtype, to, "cvt.rn.f32.s32", &[x]),
            (DType::Bool, DType::I32) => self.op(dtype, to, "selp.s32", &["1", "0", x]),
            _ => {
                let [one, zero] = [1.0, 0.0].map(super::text::float);
                self.op(dtype, to, "selp.f32", &[&one, &zero, x])
            }
        }
    }
}

/// The instruction of an operation that is one, for operands of a type that the verifier has allowed.
fn instruction(op: BinOp, dtype: DType) -> &'static str {
    match (op, dtype) {
        (BinOp::Add, DType::F32) => "add.rn.f32",
        (BinOp::Add, _) => "add.s32",
        (BinOp::Sub, DType::F32) => "sub.rn.f32",
        (BinOp::Sub, _) => "sub.s32",
        (BinOp::Mul, DType::F32) => "mul.rn.f32",
        (BinOp::Mul, _) => "mul.lo.s32",
        (BinOp::Div, _) => "div.rn.f32",
        (BinOp::Max, _) => "max.s32",
        (BinOp::Min, _) => "min.s32",
        (BinOp::Eq, DType::F32) => "setp.eq.f32",
        (BinOp::Eq, _) => "setp.eq.s32",
        // True if one of them is NaN.
        (BinOp::Ne, DType::F32) => "setp.neu.f32",
        (BinOp::Ne, _) => "setp.ne.s32",
        (BinOp::Lt, DType::F32) => "setp.lt.f32",
        (BinOp::Lt, _) => "setp.lt.s32",
        (BinOp::Le, DType::F32) => "setp.le.f32",
        (BinOp::Le, _) => "setp.le.s32",
        (BinOp::And, DType::Bool) => "and.pred",
        (BinOp::And, _) => "and.b32",
        (BinOp::Or, DType::Bool) => "or.pred",
        (BinOp::Or, _) => "or.b32",
        (BinOp::Xor, DType::Bool) => "xor.pred",
        (BinOp::Xor, _) => "xor.b32",
        (BinOp::MulHigh, _) => "mul.hi.u32",
        (BinOp::Shl, _) => "shl.b32",
        (BinOp::Shr, _) => "shr.s32",
        (BinOp::Pow, _) => unreachable!("expanded before: see `kernel::math`"),
    }
}
