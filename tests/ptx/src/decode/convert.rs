//! Conversions of values and addresses.

use super::{Decoded, Decoder};
use crate::kernel::Special;
use crate::op::{Cvt, IntType, Integral, Op, Slot};
use crate::parse::operand::Operand;
use crate::types::Type;

const INTEGRAL: [(&str, Integral); 4] =
    [("rni", Integral::Nearest), ("rzi", Integral::Zero), ("rmi", Integral::Down), ("rpi", Integral::Up)];

const CONVERTIBLE: [Type; 14] = [
    Type::U8,
    Type::S8,
    Type::U16,
    Type::S16,
    Type::U32,
    Type::S32,
    Type::U64,
    Type::S64,
    Type::F16,
    Type::Bf16,
    Type::F32,
    Type::F16x2,
    Type::Bf16x2,
    Type::Tf32,
];

/// How a conversion rounds, as its modifiers say.
#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    None,
    Nearest,
    AwayFromZero,
    ToInteger(Integral),
}

fn int_type(ty: Type) -> IntType {
    IntType { bytes: ty.bytes() as u8, signed: ty.is_signed() }
}

impl<'a> Decoder<'_, 'a> {
    fn rounding(&mut self) -> Rounding {
        if let Some(integral) = self.choose(&INTEGRAL) {
            Rounding::ToInteger(integral)
        } else if self.has("rn") {
            Rounding::Nearest
        } else if self.has("rna") {
            Rounding::AwayFromZero
        } else {
            Rounding::None
        }
    }

    pub(super) fn cvt(&mut self) -> Decoded<Op> {
        let rounding = self.rounding();
        let flush = self.has("ftz");
        let saturate = self.has("sat");
        let to = self.ty(&CONVERTIBLE)?;
        let from = self.ty(&CONVERTIBLE)?;
        if matches!(to, Type::F16x2 | Type::Bf16x2) {
            return self.cvt_pair(rounding, flush || saturate, to, from);
        }
        self.end(2)?;
        let f = self.conversion(rounding, saturate, to, from)?;
        if flush && to != Type::F32 && from != Type::F32 {
            return self.error("`.ftz` needs an f32");
        }
        let d = match *self.operand(0)? {
            Operand::Name(name) => self.typed(name, to, true)?,
            ref other => return self.error(format!("{other} is no destination")),
        };
        let a = match *self.operand(1)? {
            Operand::Name(name) if Special::parse(name).is_some() => self.special(name, from)?,
            Operand::Name(name) => self.typed(name, from, true)?,
            _ => self.source(1, from)?,
        };
        Ok(Op::Cvt { f: with_slot(f, d), flush, d, a })
    }

    fn conversion(&self, rounding: Rounding, saturate: bool, to: Type, from: Type) -> Decoded<Cvt> {
        use Rounding::*;
        let f = match (to, from, rounding) {
            _ if to.is_integer() && from.is_integer() && rounding == None => {
                Cvt::Int { from: int_type(from), to: int_type(to), saturate, slot_bytes: 0 }
            }
            (Type::F32, _, Nearest) if from.is_integer() && !saturate => {
                Cvt::IntToFloat { from: int_type(from) }
            }
            (_, Type::F32, ToInteger(rounding)) if to.is_integer() => {
                Cvt::FloatToInt { to: int_type(to), rounding, slot_bytes: 0 }
            }
            (Type::F32, Type::F32, None) => Cvt::Float { rounding: Option::None, saturate },
            (Type::F32, Type::F32, ToInteger(r)) => Cvt::Float { rounding: Some(r), saturate },
            (Type::F16, Type::F32, Nearest) if !saturate => Cvt::FloatToHalf,
            (Type::Bf16, Type::F32, Nearest) if !saturate => Cvt::FloatToBf16,
            (Type::F32, Type::F16, None) if !saturate => Cvt::HalfToFloat,
            (Type::F32, Type::Bf16, None) if !saturate => Cvt::Bf16ToFloat,
            (Type::Tf32, Type::F32, AwayFromZero) if !saturate => Cvt::FloatToTf32,
            _ => return self.error("this conversion with this rounding is not supported"),
        };
        Ok(f)
    }

    /// `cvt.rn.bf16x2.f32 d, high, low`
    fn cvt_pair(&mut self, rounding: Rounding, other: bool, to: Type, from: Type) -> Decoded<Op> {
        if rounding != Rounding::Nearest || from != Type::F32 || other {
            return self.error("this conversion with this rounding is not supported");
        }
        self.end(3)?;
        let (d, high, low) = (self.destination_w(0, to)?, self.source_w(1, from)?, self.source_w(2, from)?);
        Ok(Op::CvtPair { bf16: to == Type::Bf16x2, d, high, low })
    }

    /// Generic addresses are the same numbers as those of the state space: nothing is computed.
    pub(super) fn cvta(&mut self) -> Decoded<Op> {
        let _to = self.has("to");
        if self.choose(&[("global", ()), ("shared", ()), ("local", ())]).is_none() {
            return self.unsupported();
        }
        let ty = self.ty(&[Type::U32, Type::U64])?;
        self.end(2)?;
        if ty == Type::U32 {
            return self.error("addresses have 64 bits");
        }
        Ok(Op::MovL(self.destination_l(0, ty)?, self.source_l(1, ty)?))
    }
}

/// Integer results are extended to the register's size, which may be wider.
fn with_slot(f: Cvt, d: Slot) -> Cvt {
    let bytes = if matches!(d, Slot::L(_)) { 8 } else { 4 };
    match f {
        Cvt::Int { from, to, saturate, .. } => Cvt::Int { from, to, saturate, slot_bytes: bytes },
        Cvt::FloatToInt { to, rounding, .. } => Cvt::FloatToInt { to, rounding, slot_bytes: bytes },
        other => other,
    }
}
