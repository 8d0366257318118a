//! The types of PTX registers and instructions, and which go together.

/// A type as instructions and declarations write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Type {
    Pred,
    B8,
    U8,
    S8,
    B16,
    U16,
    S16,
    F16,
    Bf16,
    B32,
    U32,
    S32,
    F32,
    F16x2,
    Bf16x2,
    Tf32,
    B64,
    U64,
    S64,
}

/// What the bits of a type mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bits,
    Unsigned,
    Signed,
    Float,
    Pred,
}

const NAMES: [(&str, Type, u32, Kind); 19] = [
    ("pred", Type::Pred, 0, Kind::Pred),
    ("b8", Type::B8, 1, Kind::Bits),
    ("u8", Type::U8, 1, Kind::Unsigned),
    ("s8", Type::S8, 1, Kind::Signed),
    ("b16", Type::B16, 2, Kind::Bits),
    ("u16", Type::U16, 2, Kind::Unsigned),
    ("s16", Type::S16, 2, Kind::Signed),
    ("f16", Type::F16, 2, Kind::Float),
    ("bf16", Type::Bf16, 2, Kind::Float),
    ("b32", Type::B32, 4, Kind::Bits),
    ("u32", Type::U32, 4, Kind::Unsigned),
    ("s32", Type::S32, 4, Kind::Signed),
    ("f32", Type::F32, 4, Kind::Float),
    ("f16x2", Type::F16x2, 4, Kind::Float),
    ("bf16x2", Type::Bf16x2, 4, Kind::Float),
    ("tf32", Type::Tf32, 4, Kind::Float),
    ("b64", Type::B64, 8, Kind::Bits),
    ("u64", Type::U64, 8, Kind::Unsigned),
    ("s64", Type::S64, 8, Kind::Signed),
];

impl Type {
    /// The type of this name, which is written without its dot.
    pub fn parse(name: &str) -> Option<Type> {
        NAMES.iter().find(|n| n.0 == name).map(|n| n.1)
    }

    fn row(self) -> &'static (&'static str, Type, u32, Kind) {
        &NAMES[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Size in bytes; that of a predicate is 0.
    pub fn bytes(self) -> u32 {
        self.row().2
    }

    pub fn kind(self) -> Kind {
        self.row().3
    }

    pub fn is_signed(self) -> bool {
        self.kind() == Kind::Signed
    }

    pub fn is_integer(self) -> bool {
        matches!(self.kind(), Kind::Signed | Kind::Unsigned)
    }

    pub fn is_bits(self) -> bool {
        self.kind() == Kind::Bits
    }

    /// Whether registers of the type may be declared. (PTX has no registers of the alternate
    /// floating-point types; 8-bit registers exist but hardly any instruction takes them.)
    pub fn declares_register(self) -> bool {
        use Type::*;
        !matches!(self, B8 | U8 | S8 | Bf16 | Bf16x2 | Tf32)
    }

    /// Whether a register of this type may be an operand of an instruction of `instruction` type:
    /// equal size, and equal kind unless one of them is untyped bits; signs do not matter.
    pub fn fits(self, instruction: Type) -> bool {
        use Type::*;
        if matches!(instruction, Bf16 | Bf16x2 | Tf32) {
            return self.is_bits() && self.bytes() == instruction.bytes();
        }
        self == instruction
            || self.bytes() == instruction.bytes()
                && self != Pred
                && instruction != Pred
                && (self.is_bits() || instruction.is_bits() || self.is_integer() && instruction.is_integer())
    }

    /// The rule of loads, stores and conversions, whose registers may also be wider than the
    /// instruction's type, if neither is a floating-point type.
    pub fn fits_wider(self, instruction: Type) -> bool {
        let plain = |t: Type| t.is_bits() || t.is_integer();
        self.fits(instruction) || plain(self) && plain(instruction) && self.bytes() > instruction.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_type() {
        for row in &NAMES {
            assert_eq!(Type::parse(row.0), Some(row.1));
            assert_eq!(row.1.name(), row.0);
        }
    }

    #[test]
    fn registers_and_instructions() {
        assert!(Type::B32.fits(Type::F32) && Type::S32.fits(Type::U32) && Type::F32.fits(Type::B32));
        assert!(!Type::F32.fits(Type::U32) && !Type::U64.fits(Type::U32) && !Type::F32.fits(Type::Tf32));
        assert!(Type::U32.fits_wider(Type::U8) && !Type::F32.fits_wider(Type::U8));
        assert!(!Type::U16.fits_wider(Type::U32));
    }
}
