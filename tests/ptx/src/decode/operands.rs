//! Operands of an instruction: registers, constants, addresses, vectors, with their types checked.

use super::{Decoded, Decoder, Register};
use crate::kernel::Special;
use crate::op::{Address, Base, L, Lanes, P, Slot, Space, W};
use crate::parse::lexer::Literal;
use crate::parse::operand::Operand;
use crate::types::Type;

impl<'a> Decoder<'_, 'a> {
    pub(super) fn operand(&self, i: usize) -> Decoded<&Operand<'a>> {
        match self.statement.operands.get(i) {
            Some(operand) => Ok(operand),
            None => self.error("an operand is missing"),
        }
    }

    fn register(&mut self, name: &str) -> Decoded<Register> {
        match self.builder.find_register(name, self.statement.line)? {
            Some(register) => Ok(register),
            None => self.error(format!("`{name}` is not declared")),
        }
    }

    /// A register whose type suits the instruction's; `wider` ones too, where the instruction allows them.
    pub(super) fn typed(&mut self, name: &str, ty: Type, wider: bool) -> Decoded<Slot> {
        let register = self.register(name)?;
        let fits = if wider { register.ty.fits_wider(ty) } else { register.ty.fits(ty) };
        if !fits {
            let found = register.ty.name();
            return self
                .error(format!("`{name}` is a .{found} register, which does not suit .{}", ty.name()));
        }
        Ok(register.slot)
    }

    /// The destination, operand `i`.
    pub(super) fn destination(&mut self, i: usize, ty: Type) -> Decoded<Slot> {
        match *self.operand(i)? {
            Operand::Name(name) => self.typed(name, ty, false),
            ref other => self.error(format!("{other} is no destination")),
        }
    }

    fn literal(&self, literal: Literal, ty: Type) -> Decoded<u64> {
        let bits = ty.bytes() * 8;
        match literal {
            Literal::Int(v) if ty.is_integer() || ty.is_bits() => {
                let range = -(1i128 << (bits - 1))..(1i128 << bits);
                if !range.contains(&v) {
                    return self.error(format!("{v} does not fit .{}", ty.name()));
                }
                Ok(v as u64 & (u64::MAX >> (64 - bits)))
            }
            Literal::Single(v) if matches!(ty, Type::F32 | Type::B32) => Ok(v.into()),
            Literal::Double(v) if ty == Type::F32 => Ok((v as f32).to_bits().into()),
            other => self.error(format!("{} is no constant of type .{}", Operand::Literal(other), ty.name())),
        }
    }

    fn constant(&mut self, value: u64, ty: Type) -> Decoded<Slot> {
        let line = self.statement.line;
        match ty.bytes() {
            8 => self.builder.constant_long(value, line).map(Slot::L),
            _ => self.builder.constant_word(value as u32, line).map(Slot::W),
        }
    }

    /// A source: register or constant.
    pub(super) fn source_of(&mut self, operand: &Operand<'a>, ty: Type) -> Decoded<Slot> {
        match *operand {
            Operand::Literal(literal) if ty != Type::Pred => {
                let value = self.literal(literal, ty)?;
                self.constant(value, ty)
            }
            Operand::Name(name) if Special::parse(name).is_some() => {
                self.error(format!("`{name}` must be moved to a register first"))
            }
            Operand::Name(name) => self.typed(name, ty, false),
            ref other => self.error(format!("{other} is no source of type .{}", ty.name())),
        }
    }

    /// A special register, which `mov` and `cvt` alone read.
    pub(super) fn special(&mut self, name: &str, ty: Type) -> Decoded<Slot> {
        match Special::parse(name) {
            Some(special) if Type::U32.fits(ty) => {
                self.builder.special(special, name, self.statement.line).map(Slot::W)
            }
            _ => self.error(format!("`{name}` is a .u32 register, which does not suit .{}", ty.name())),
        }
    }

    pub(super) fn source(&mut self, i: usize, ty: Type) -> Decoded<Slot> {
        let operand = self.operand(i)?.clone();
        self.source_of(&operand, ty)
    }

    pub(super) fn word(&self, slot: Slot) -> Decoded<W> {
        match slot {
            Slot::W(w) => Ok(w),
            _ => self.error("a 32-bit operand is expected"),
        }
    }

    pub(super) fn long(&self, slot: Slot) -> Decoded<L> {
        match slot {
            Slot::L(l) => Ok(l),
            _ => self.error("a 64-bit operand is expected"),
        }
    }

    pub(super) fn destination_w(&mut self, i: usize, ty: Type) -> Decoded<W> {
        let slot = self.destination(i, ty)?;
        self.word(slot)
    }

    pub(super) fn source_w(&mut self, i: usize, ty: Type) -> Decoded<W> {
        let slot = self.source(i, ty)?;
        self.word(slot)
    }

    pub(super) fn destination_l(&mut self, i: usize, ty: Type) -> Decoded<L> {
        let slot = self.destination(i, ty)?;
        self.long(slot)
    }

    pub(super) fn source_l(&mut self, i: usize, ty: Type) -> Decoded<L> {
        let slot = self.source(i, ty)?;
        self.long(slot)
    }

    pub(super) fn predicate_of(&mut self, name: &str) -> Decoded<P> {
        match self.register(name)?.slot {
            Slot::P(p) => Ok(p),
            _ => self.error(format!("`{name}` is no predicate")),
        }
    }

    /// A predicate; `!p` where it may be negated.
    pub(super) fn predicate(&mut self, i: usize, may_negate: bool) -> Decoded<(P, bool)> {
        match *self.operand(i)? {
            Operand::Name(name) => Ok((self.predicate_of(name)?, false)),
            Operand::Not(name) if may_negate => Ok((self.predicate_of(name)?, true)),
            ref other => self.error(format!("{other} is no predicate")),
        }
    }

    /// A destination that may be `d|p`.
    pub(super) fn pair(&mut self, i: usize) -> Decoded<(&'a str, Option<P>)> {
        match *self.operand(i)? {
            Operand::Name(name) => Ok((name, None)),
            Operand::Pair(name, second) => Ok((name, Some(self.predicate_of(second)?))),
            ref other => self.error(format!("{other} is no destination")),
        }
    }

    /// A constant of an instruction that takes no register there.
    pub(super) fn immediate(&mut self, i: usize, limit: u32) -> Decoded<u32> {
        match *self.operand(i)? {
            Operand::Literal(Literal::Int(v)) if (0..=i128::from(limit)).contains(&v) => Ok(v as u32),
            ref other => self.error(format!("{other} must be a constant of at most {limit}")),
        }
    }

    /// Registers of a vector: `{a, b}` or the name of a vector register.
    pub(super) fn lanes(
        &mut self,
        i: usize,
        count: u8,
        ty: Type,
        wider: bool,
        constants: bool,
    ) -> Decoded<Lanes> {
        let parts: Vec<Operand<'a>> = match self.operand(i)? {
            Operand::Vector(parts) => parts.clone(),
            &Operand::Name(name) if self.builder.scopes.iter().any(|s| s.vectors.contains_key(name)) => {
                return self.vector_register(name, count, ty, wider);
            }
            other => vec![other.clone()],
        };
        if parts.len() != usize::from(count) {
            return self.error(format!("expected a vector of {count}, found {}", parts.len()));
        }
        let mut slots = [Slot::W(W(0)); 4];
        for (slot, part) in slots.iter_mut().zip(&parts) {
            *slot = match part {
                Operand::Name(name) if Special::parse(name).is_none() => self.typed(name, ty, wider)?,
                other if constants => self.source_of(other, ty)?,
                other => return self.error(format!("{other} is no register")),
            };
        }
        Ok(Lanes { slots, count })
    }

    /// Even one register must be in braces here.
    pub(super) fn braces(&self, i: usize) -> Decoded<()> {
        match self.operand(i)? {
            Operand::Vector(_) => Ok(()),
            other => self.error(format!("{other} must be a vector in braces")),
        }
    }

    fn vector_register(&mut self, name: &str, count: u8, ty: Type, wider: bool) -> Decoded<Lanes> {
        let declared = self.builder.scopes.iter().rev().find_map(|s| s.vectors.get(name).copied());
        if declared != Some(count) {
            return self.error(format!("`{name}` is no vector of {count}"));
        }
        let mut slots = [Slot::W(W(0)); 4];
        for (slot, part) in slots.iter_mut().zip(["x", "y", "z", "w"]).take(count.into()) {
            *slot = self.typed(&format!("{name}.{part}"), ty, wider)?;
        }
        Ok(Lanes { slots, count })
    }

    /// Registers of a fragment, all of 32 bits and always in braces.
    pub(super) fn fragment<const N: usize>(&mut self, i: usize, ty: Type) -> Decoded<[W; N]> {
        self.braces(i)?;
        let lanes = self.lanes(i, N as u8, ty, false, false)?;
        let mut out = [W(0); N];
        for (o, slot) in out.iter_mut().zip(lanes.iter()) {
            *o = self.word(slot)?;
        }
        Ok(out)
    }

    /// `[base + offset]` in a state space that is addressed by registers.
    pub(super) fn address(&mut self, i: usize, space: Space) -> Decoded<Address> {
        let Operand::Address(name, offset) = *self.operand(i)? else {
            return self.error("expected an address in brackets");
        };
        if let Some((local, at)) = self.builder.variable(name) {
            if local != (space == Space::Local) || space == Space::Global {
                return self.error(format!("`{name}` is in another state space"));
            }
            return Ok(Address { base: Base::Zero, offset: i64::from(at) + offset });
        }
        if self.builder.kernel.params.iter().any(|p| p.name == name) {
            return self.error(format!("`{name}` is a parameter: load it with ld.param"));
        }
        let register = self.register(name)?;
        if !(register.ty.is_bits() || register.ty.is_integer()) {
            return self.error(format!("`{name}` is a .{} register, no address", register.ty.name()));
        }
        let base = match (register.slot, space) {
            (Slot::L(l), _) => Base::L(l),
            (Slot::W(w), Space::Shared | Space::Local) if register.ty.bytes() == 4 => Base::W(w),
            _ => return self.error(format!("`{name}` has not the size of an address")),
        };
        Ok(Address { base, offset })
    }
}
