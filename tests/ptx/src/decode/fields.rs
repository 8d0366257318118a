//! Fields of bits: extraction, insertion, funnel shifts, permutations of bytes, any function of three bits.

use super::{Decoded, Decoder};
use crate::op::{FieldFn, IntUnary, Narrow, Op};
use crate::types::Type;

const LONG: [Type; 2] = [Type::U64, Type::S64];

impl Decoder<'_, '_> {
    /// d = f(a, b, c) on words.
    fn field(&mut self, f: FieldFn, ty: Type) -> Decoded<Op> {
        self.end(4)?;
        let (d, a) = (self.destination_w(0, ty)?, self.source_w(1, ty)?);
        // `b` of a funnel shift and of a permutation is a value like `a`; of an extraction it is a position.
        let second = if matches!(f, FieldFn::ExtractU | FieldFn::ExtractS) { Type::U32 } else { ty };
        Ok(Op::Field { f, d, a, b: self.source_w(2, second)?, c: self.source_w(3, Type::U32)? })
    }

    /// `bfe.u32 d, a, position, length`
    pub(super) fn bfe(&mut self) -> Decoded<Op> {
        let ty = self.ty(&[Type::U32, Type::S32, Type::U64, Type::S64])?;
        if LONG.contains(&ty) {
            self.end(4)?;
            let (d, a) = (self.destination_l(0, ty)?, self.source_l(1, ty)?);
            let (b, c) = (self.source_w(2, Type::U32)?, self.source_w(3, Type::U32)?);
            return Ok(Op::Extract64 { signed: ty.is_signed(), d, a, b, c });
        }
        self.field(if ty.is_signed() { FieldFn::ExtractS } else { FieldFn::ExtractU }, ty)
    }

    /// `bfi.b32 d, field, into, position, length`
    pub(super) fn bfi(&mut self) -> Decoded<Op> {
        let ty = self.ty(&[Type::B32, Type::B64])?;
        self.end(5)?;
        let (position, length) = (self.source_w(3, Type::U32)?, self.source_w(4, Type::U32)?);
        if ty == Type::B64 {
            let (d, a, b) = (self.destination_l(0, ty)?, self.source_l(1, ty)?, self.source_l(2, ty)?);
            return Ok(Op::Insert64 { d, a, b, position, length });
        }
        let (d, a, b) = (self.destination_w(0, ty)?, self.source_w(1, ty)?, self.source_w(2, ty)?);
        Ok(Op::Insert32 { d, a, b, position, length })
    }

    /// `bmsk.clamp.b32 d, position, length`
    pub(super) fn bmsk(&mut self) -> Decoded<Op> {
        let Some(wrap) = self.choose(&[("wrap", true), ("clamp", false)]) else { return self.unsupported() };
        let ty = self.ty(&[Type::B32])?;
        self.end(3)?;
        let (d, a, b) = (self.destination_w(0, ty)?, self.source_w(1, ty)?, self.source_w(2, ty)?);
        Ok(Op::Field { f: FieldFn::Mask { wrap }, d, a, b, c: b })
    }

    /// `shf.l.wrap.b32 d, low, high, by`
    pub(super) fn shf(&mut self) -> Decoded<Op> {
        let Some(left) = self.choose(&[("l", true), ("r", false)]) else { return self.unsupported() };
        let Some(wrap) = self.choose(&[("wrap", true), ("clamp", false)]) else { return self.unsupported() };
        let ty = self.ty(&[Type::B32])?;
        self.field(FieldFn::Funnel { left, wrap }, ty)
    }

    /// `prmt.b32 d, a, b, selectors`
    pub(super) fn prmt(&mut self) -> Decoded<Op> {
        let ty = self.ty(&[Type::B32])?;
        self.field(FieldFn::Permute, ty)
    }

    /// `lop3.b32 d, a, b, c, table`
    pub(super) fn lop3(&mut self) -> Decoded<Op> {
        let ty = self.ty(&[Type::B32])?;
        self.end(5)?;
        let table = self.immediate(4, 255)? as u8;
        let (d, a, b) = (self.destination_w(0, ty)?, self.source_w(1, ty)?, self.source_w(2, ty)?);
        Ok(Op::Field { f: FieldFn::Table(table), d, a, b, c: self.source_w(3, ty)? })
    }

    /// `brev.b32 d, a`
    pub(super) fn brev(&mut self) -> Decoded<Op> {
        let ty = self.ty(&[Type::B32, Type::B64])?;
        self.end(2)?;
        let f = IntUnary::Reverse;
        if ty == Type::B64 {
            return Ok(Op::Unary64 { f, d: self.destination_l(0, ty)?, a: self.source_l(1, ty)? });
        }
        Ok(Op::Unary32 { f, narrow: Narrow::No, d: self.destination_w(0, ty)?, a: self.source_w(1, ty)? })
    }

    /// `bfind.u32 d, a`: the number of the highest bit that is not the sign's; `.shiftamt` counts from the top.
    pub(super) fn bfind(&mut self) -> Decoded<Op> {
        let from_top = self.has("shiftamt");
        let ty = self.ty(&[Type::U32, Type::S32, Type::U64, Type::S64])?;
        self.end(2)?;
        let f = IntUnary::Find { signed: ty.is_signed(), from_top };
        let d = self.destination_w(0, Type::U32)?;
        if LONG.contains(&ty) {
            return Ok(Op::Count64 { f, d, a: self.source_l(1, ty)? });
        }
        Ok(Op::Unary32 { f, narrow: Narrow::No, d, a: self.source_w(1, ty)? })
    }
}
