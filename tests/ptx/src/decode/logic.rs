//! Moves, bit operations, comparisons, selection.

use super::arithmetic::narrow;
use super::{Decoded, Decoder};
use crate::kernel::Special;
use crate::op::{
    BoolFn, Combine, Compare, CompareAs, IntFn, IntUnary, L, Lanes, Narrow, Op, SetTo, ShiftFn, Slot, Test, W,
};
use crate::parse::operand::Operand;
use crate::types::{Kind, Type};

const BITS: [Type; 4] = [Type::Pred, Type::B16, Type::B32, Type::B64];
const PLAIN: [Type; 10] = [
    Type::B16,
    Type::U16,
    Type::S16,
    Type::B32,
    Type::U32,
    Type::S32,
    Type::F32,
    Type::B64,
    Type::U64,
    Type::S64,
];

const BOOLS: [(&str, BoolFn); 3] = [("and", BoolFn::And), ("or", BoolFn::Or), ("xor", BoolFn::Xor)];

/// Comparison, and whether it is one of unsigned integers or of floats only.
const COMPARISONS: [(&str, (Compare, Option<Kind>)); 18] = [
    ("eq", (Compare::Eq, None)),
    ("ne", (Compare::Ne, None)),
    ("lt", (Compare::Lt, None)),
    ("le", (Compare::Le, None)),
    ("gt", (Compare::Gt, None)),
    ("ge", (Compare::Ge, None)),
    ("lo", (Compare::Lt, Some(Kind::Unsigned))),
    ("ls", (Compare::Le, Some(Kind::Unsigned))),
    ("hi", (Compare::Gt, Some(Kind::Unsigned))),
    ("hs", (Compare::Ge, Some(Kind::Unsigned))),
    ("equ", (Compare::EqOrNan, Some(Kind::Float))),
    ("neu", (Compare::NeOrNan, Some(Kind::Float))),
    ("ltu", (Compare::LtOrNan, Some(Kind::Float))),
    ("leu", (Compare::LeOrNan, Some(Kind::Float))),
    ("gtu", (Compare::GtOrNan, Some(Kind::Float))),
    ("geu", (Compare::GeOrNan, Some(Kind::Float))),
    ("num", (Compare::Num, Some(Kind::Float))),
    ("nan", (Compare::Nan, Some(Kind::Float))),
];

impl<'a> Decoder<'_, 'a> {
    pub(super) fn mov(&mut self) -> Decoded<Op> {
        let mut allowed = PLAIN.to_vec();
        allowed.push(Type::Pred);
        let ty = self.ty(&allowed)?;
        self.end(2)?;
        if matches!(self.operand(1)?, Operand::Vector(_)) {
            let parts = self.parts(1, ty, true)?;
            return Ok(Op::Pack { d: self.destination(0, ty)?, parts });
        }
        if matches!(self.operand(0)?, Operand::Vector(_)) {
            let parts = self.parts(0, ty, false)?;
            return Ok(Op::Unpack { parts, a: self.source(1, ty)? });
        }
        let d = self.destination(0, ty)?;
        let a = self.move_source(ty)?;
        match (d, a) {
            (Slot::W(d), Slot::W(a)) => Ok(Op::MovW(d, a)),
            (Slot::L(d), Slot::L(a)) => Ok(Op::MovL(d, a)),
            (Slot::P(d), Slot::P(a)) => Ok(Op::MovP(d, a)),
            _ => self.error("operands of two sizes"),
        }
    }

    /// A source that may also be a variable's address.
    fn move_source(&mut self, ty: Type) -> Decoded<Slot> {
        let (name, offset) = match *self.operand(1)? {
            Operand::Name(name) if Special::parse(name).is_some() => return self.special(name, ty),
            Operand::Name(name) => (name, None),
            Operand::Sum(name, offset) => (name, Some(offset)),
            _ => return self.source(1, ty),
        };
        let Some((_, at)) = self.builder.variable(name) else {
            return match offset {
                None => self.source(1, ty),
                Some(_) => self.error(format!("`{name}` is no variable")),
            };
        };
        let address = i64::from(at) + offset.unwrap_or(0);
        let line = self.statement.line;
        match (ty, u32::try_from(address)) {
            (Type::U32 | Type::B32 | Type::S32, Ok(v)) => self.builder.constant_word(v, line).map(Slot::W),
            (Type::U64 | Type::B64 | Type::S64, Ok(v)) => {
                self.builder.constant_long(v.into(), line).map(Slot::L)
            }
            _ => self.error(format!("the address of `{name}` does not suit .{}", ty.name())),
        }
    }

    /// The registers that a wider one is made of.
    fn parts(&mut self, i: usize, ty: Type, constants: bool) -> Decoded<Lanes> {
        let count = match self.operand(i)? {
            Operand::Vector(parts) => parts.len() as u32,
            _ => 0,
        };
        let part = match (ty, count) {
            (Type::B32, 2) | (Type::B64, 4) => Type::B16,
            (Type::B64, 2) => Type::B32,
            _ => return self.error(format!("a .{} is not made of {count} parts", ty.name())),
        };
        self.lanes(i, count as u8, part, false, constants)
    }

    pub(super) fn bits(&mut self, head: &str) -> Decoded<Op> {
        let ty = self.ty(&BITS)?;
        self.end(3)?;
        let f = match head {
            "and" => IntFn::And,
            "or" => IntFn::Or,
            _ => IntFn::Xor,
        };
        match ty {
            Type::Pred => {
                let b = BOOLS.iter().find(|b| b.0 == head).map_or(BoolFn::Xor, |b| b.1);
                let (d, x, y) =
                    (self.predicate(0, false)?.0, self.predicate(1, false)?.0, self.predicate(2, false)?.0);
                Ok(Op::BoolP(b, d, x, y))
            }
            Type::B64 => {
                let (d, a, b) = (self.destination_l(0, ty)?, self.source_l(1, ty)?, self.source_l(2, ty)?);
                Ok(Op::Int64 { f, d, a, b })
            }
            _ => {
                let (d, a, b) = (self.destination_w(0, ty)?, self.source_w(1, ty)?, self.source_w(2, ty)?);
                Ok(Op::Int32 { f, narrow: narrow(ty), d, a, b })
            }
        }
    }

    pub(super) fn not(&mut self) -> Decoded<Op> {
        let ty = self.ty(&BITS)?;
        self.end(2)?;
        let f = IntUnary::Not;
        match ty {
            Type::Pred => Ok(Op::NotP(self.predicate(0, false)?.0, self.predicate(1, false)?.0)),
            Type::B64 => Ok(Op::Unary64 { f, d: self.destination_l(0, ty)?, a: self.source_l(1, ty)? }),
            _ => {
                let (d, a) = (self.destination_w(0, ty)?, self.source_w(1, ty)?);
                Ok(Op::Unary32 { f, narrow: narrow(ty), d, a })
            }
        }
    }

    pub(super) fn shift(&mut self, head: &str) -> Decoded<Op> {
        let bits = [Type::B16, Type::B32, Type::B64];
        let ty = if head == "shl" {
            self.ty(&bits)?
        } else {
            let mut allowed = bits.to_vec();
            allowed.extend([Type::U16, Type::S16, Type::U32, Type::S32, Type::U64, Type::S64]);
            self.ty(&allowed)?
        };
        self.end(3)?;
        let f = match (head, ty.is_signed()) {
            ("shl", _) => ShiftFn::Left,
            (_, true) => ShiftFn::RightS,
            (_, false) => ShiftFn::RightU,
        };
        let b = self.source_w(2, Type::U32)?;
        if ty.bytes() == 8 {
            return Ok(Op::Shift64 { f, d: self.destination_l(0, ty)?, a: self.source_l(1, ty)?, b });
        }
        Ok(Op::Shift32 { f, narrow: narrow(ty), d: self.destination_w(0, ty)?, a: self.source_w(1, ty)?, b })
    }

    pub(super) fn count(&mut self, head: &str) -> Decoded<Op> {
        let f = if head == "popc" { IntUnary::Popc } else { IntUnary::Clz };
        let ty = self.ty(&[Type::B32, Type::B64])?;
        self.end(2)?;
        let d = self.destination_w(0, Type::U32)?;
        if ty == Type::B64 {
            return Ok(Op::Count64 { f, d, a: self.source_l(1, ty)? });
        }
        Ok(Op::Unary32 { f, narrow: Narrow::No, d, a: self.source_w(1, ty)? })
    }

    pub(super) fn setp(&mut self) -> Decoded<Op> {
        let Some((f, kind)) = self.choose(&COMPARISONS) else { return self.unsupported() };
        let combine = self.choose(&BOOLS);
        let flush = self.has("ftz");
        let ty = self.ty(&PLAIN)?;
        let suits = match kind {
            Some(kind) => ty.kind() == kind,
            None => !ty.is_bits() || matches!(f, Compare::Eq | Compare::Ne),
        };
        if !suits || flush && ty != Type::F32 {
            return self.error("there is no such comparison of this type");
        }
        self.end(if combine.is_some() { 4 } else { 3 })?;
        let combine = match combine {
            None => None,
            Some(f) => {
                let (c, negate) = self.predicate(3, true)?;
                Some(Combine { f, c, negate })
            }
        };
        let (name, q) = self.pair(0)?;
        let to = SetTo { p: self.predicate_of(name)?, q, combine };
        let read = match ty.kind() {
            Kind::Float => CompareAs::Float,
            Kind::Signed => CompareAs::Signed,
            _ => CompareAs::Unsigned,
        };
        let test = Test { f, read };
        if ty.bytes() == 8 {
            let (a, b) = (self.source_l(1, ty)?, self.source_l(2, ty)?);
            return Ok(Op::SetP64 { test, to, a, b });
        }
        let (a, b) = (self.source_w(1, ty)?, self.source_w(2, ty)?);
        Ok(Op::SetP32 { test, narrow: narrow(ty), flush, to, a, b })
    }

    pub(super) fn selp(&mut self) -> Decoded<Op> {
        let ty = self.ty(&PLAIN)?;
        self.end(4)?;
        let c = self.predicate(3, false)?.0;
        if ty.bytes() == 8 {
            let (d, a, b): (L, L, L) =
                (self.destination_l(0, ty)?, self.source_l(1, ty)?, self.source_l(2, ty)?);
            return Ok(Op::Selp64 { d, a, b, c });
        }
        let (d, a, b): (W, W, W) = (self.destination_w(0, ty)?, self.source_w(1, ty)?, self.source_w(2, ty)?);
        Ok(Op::Selp32 { d, a, b, c })
    }
}
