//! Sums, products, quotients, extrema; functions of floats.

use super::{Decoded, Decoder};
use crate::op::{FloatFn, FloatUnary, IntFn, IntUnary, Narrow, Op, Rounding};
use crate::types::Type;

const INTEGERS: [Type; 6] = [Type::U16, Type::S16, Type::U32, Type::S32, Type::U64, Type::S64];
const NUMBERS: [Type; 7] = [Type::U16, Type::S16, Type::U32, Type::S32, Type::U64, Type::S64, Type::F32];
const SIGNED: [Type; 4] = [Type::S16, Type::S32, Type::S64, Type::F32];

/// How operands of the type lie in a word.
pub(super) fn narrow(ty: Type) -> Narrow {
    match (ty.bytes(), ty.is_signed()) {
        (2, true) => Narrow::Signed,
        (2, false) => Narrow::Unsigned,
        _ => Narrow::No,
    }
}

/// Which part of a product is wanted.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Low,
    High,
    Wide,
}

/// Those of `fma`; sums and products for themselves have `.rn` only.
const ROUNDINGS: [(&str, Rounding); 4] =
    [("rn", Rounding::Nearest), ("rz", Rounding::Zero), ("rm", Rounding::Down), ("rp", Rounding::Up)];

const PARTS: [(&str, Part); 3] = [("lo", Part::Low), ("hi", Part::High), ("wide", Part::Wide)];

impl Decoder<'_, '_> {
    /// d = f(a, b) on integers of one type.
    fn int(&mut self, f: IntFn, ty: Type) -> Decoded<Op> {
        self.end(3)?;
        if ty.bytes() == 8 {
            return Ok(Op::Int64 {
                f,
                d: self.destination_l(0, ty)?,
                a: self.source_l(1, ty)?,
                b: self.source_l(2, ty)?,
            });
        }
        let (d, a, b) = (self.destination_w(0, ty)?, self.source_w(1, ty)?, self.source_w(2, ty)?);
        Ok(Op::Int32 { f, narrow: narrow(ty), d, a, b })
    }

    fn float(&mut self, f: FloatFn, flush: bool) -> Decoded<Op> {
        self.end(3)?;
        let (d, a, b) =
            (self.destination_w(0, Type::F32)?, self.source_w(1, Type::F32)?, self.source_w(2, Type::F32)?);
        Ok(Op::Float { f, flush, d, a, b })
    }

    /// Modifiers `.rn` (the only rounding that is supported) and `.ftz`, then the type.
    fn rounded(&mut self, types: &[Type]) -> Decoded<(bool, bool, Type)> {
        let rn = self.has("rn");
        let flush = self.has("ftz");
        let ty = self.ty(types)?;
        if ty != Type::F32 && (rn || flush) {
            return self.error("integers are not rounded");
        }
        Ok((rn, flush, ty))
    }

    pub(super) fn add(&mut self, head: &str) -> Decoded<Op> {
        let (_, flush, ty) = self.rounded(&NUMBERS)?;
        match (ty, head) {
            (Type::F32, "add") => self.float(FloatFn::Add, flush),
            (Type::F32, _) => self.float(FloatFn::Sub, flush),
            (_, "add") => self.int(IntFn::Add, ty),
            _ => self.int(IntFn::Sub, ty),
        }
    }

    fn product(part: Part, ty: Type) -> IntFn {
        match (part, ty.is_signed()) {
            (Part::High, true) => IntFn::MulHiS,
            (Part::High, false) => IntFn::MulHiU,
            _ => IntFn::MulLo,
        }
    }

    pub(super) fn mul(&mut self) -> Decoded<Op> {
        let Some(part) = self.choose(&PARTS) else {
            let (_, flush, _) = self.rounded(&[Type::F32])?;
            return self.float(FloatFn::Mul, flush);
        };
        let ty = self.ty(&INTEGERS)?;
        if part == Part::Wide {
            return self.wide(ty, 3);
        }
        self.int(Self::product(part, ty), ty)
    }

    /// `mul.wide` and `mad.wide`: the result has twice the factors' size.
    fn wide(&mut self, ty: Type, operands: usize) -> Decoded<Op> {
        self.end(operands)?;
        let signed = ty.is_signed();
        let result = match (ty.bytes(), signed) {
            (2, false) => Type::U32,
            (2, true) => Type::S32,
            (4, false) => Type::U64,
            (4, true) => Type::S64,
            _ => return self.error("there is no product of 128 bits"),
        };
        let (a, b) = (self.source_w(1, ty)?, self.source_w(2, ty)?);
        if ty.bytes() == 4 {
            let c = if operands == 4 { Some(self.source_l(3, result)?) } else { None };
            return Ok(Op::Wide64 { signed, d: self.destination_l(0, result)?, a, b, c });
        }
        let c = if operands == 4 { Some(self.source_w(3, result)?) } else { None };
        Ok(Op::Wide32 { signed, d: self.destination_w(0, result)?, a, b, c })
    }

    pub(super) fn mad(&mut self, head: &str) -> Decoded<Op> {
        let part = if head == "mad" { self.choose(&PARTS) } else { None };
        let Some(part) = part else {
            let Some(rounding) = self.choose(&ROUNDINGS) else {
                return self.error("a rounding is missing (`.rn`)");
            };
            let flush = self.has("ftz");
            let ty = self.ty(&[Type::F32])?;
            self.end(4)?;
            let (d, a) = (self.destination_w(0, ty)?, self.source_w(1, ty)?);
            return Ok(Op::Fma { rounding, flush, d, a, b: self.source_w(2, ty)?, c: self.source_w(3, ty)? });
        };
        let ty = self.ty(&INTEGERS)?;
        if part == Part::Wide {
            return self.wide(ty, 4);
        }
        self.end(4)?;
        let f = Self::product(part, ty);
        if ty.bytes() == 8 {
            let (d, a) = (self.destination_l(0, ty)?, self.source_l(1, ty)?);
            return Ok(Op::Mad64 { f, d, a, b: self.source_l(2, ty)?, c: self.source_l(3, ty)? });
        }
        let (d, a) = (self.destination_w(0, ty)?, self.source_w(1, ty)?);
        Ok(Op::Mad32 { f, narrow: narrow(ty), d, a, b: self.source_w(2, ty)?, c: self.source_w(3, ty)? })
    }

    pub(super) fn div(&mut self, head: &str) -> Decoded<Op> {
        if head == "div" && self.choose(&[("rn", ()), ("approx", ()), ("full", ())]).is_some() {
            let flush = self.has("ftz");
            self.ty(&[Type::F32])?;
            return self.float(FloatFn::Div, flush);
        }
        let ty = self.ty(&INTEGERS)?;
        let f = match (head, ty.is_signed()) {
            ("div", false) => IntFn::DivU,
            ("div", true) => IntFn::DivS,
            (_, false) => IntFn::RemU,
            (_, true) => IntFn::RemS,
        };
        self.int(f, ty)
    }

    pub(super) fn min_max(&mut self, head: &str) -> Decoded<Op> {
        let flush = self.has("ftz");
        let nan = self.has("NaN");
        let ty = self.ty(&NUMBERS)?;
        if ty == Type::F32 {
            let f = match (head, nan) {
                ("min", false) => FloatFn::Min,
                ("min", true) => FloatFn::MinNan,
                (_, false) => FloatFn::Max,
                (_, true) => FloatFn::MaxNan,
            };
            return self.float(f, flush);
        }
        if flush || nan {
            return self.error("integers have no NaN and no subnormal numbers");
        }
        let f = match (head, ty.is_signed()) {
            ("min", false) => IntFn::MinU,
            ("min", true) => IntFn::MinS,
            (_, false) => IntFn::MaxU,
            (_, true) => IntFn::MaxS,
        };
        self.int(f, ty)
    }

    pub(super) fn abs_neg(&mut self, head: &str) -> Decoded<Op> {
        let flush = self.has("ftz");
        let ty = self.ty(&SIGNED)?;
        self.end(2)?;
        let abs = head == "abs";
        if ty == Type::F32 {
            let f = if abs { FloatUnary::Abs } else { FloatUnary::Neg };
            return Ok(Op::FloatUnary { f, flush, d: self.destination_w(0, ty)?, a: self.source_w(1, ty)? });
        }
        if flush {
            return self.error("integers have no subnormal numbers");
        }
        let f = if abs { IntUnary::Abs } else { IntUnary::Neg };
        if ty.bytes() == 8 {
            return Ok(Op::Unary64 { f, d: self.destination_l(0, ty)?, a: self.source_l(1, ty)? });
        }
        Ok(Op::Unary32 { f, narrow: narrow(ty), d: self.destination_w(0, ty)?, a: self.source_w(1, ty)? })
    }

    /// Square roots, reciprocals and the approximate functions.
    pub(super) fn float_function(&mut self, head: &str) -> Decoded<Op> {
        let f = match head {
            "sqrt" => FloatUnary::Sqrt,
            "rsqrt" => FloatUnary::Rsqrt,
            "rcp" => FloatUnary::Rcp,
            "ex2" => FloatUnary::Ex2,
            "lg2" => FloatUnary::Lg2,
            "sin" => FloatUnary::Sin,
            "cos" => FloatUnary::Cos,
            _ => FloatUnary::Tanh,
        };
        let exact = matches!(f, FloatUnary::Sqrt | FloatUnary::Rcp) && self.has("rn");
        if !exact {
            self.need(&["approx"])?;
        }
        let flush = f != FloatUnary::Tanh && self.has("ftz");
        let ty = self.ty(&[Type::F32])?;
        self.end(2)?;
        Ok(Op::FloatUnary { f, flush, d: self.destination_w(0, ty)?, a: self.source_w(1, ty)? })
    }

    /// The first operand's sign on the second's magnitude.
    pub(super) fn copysign(&mut self) -> Decoded<Op> {
        self.ty(&[Type::F32])?;
        self.float(FloatFn::CopySign, false)
    }
}
