//! The compact form that kernels are decoded to: operands are slots of a warp's register files.
//!
//! There are three files: predicates (a bit a lane), words (registers of 16 and 32 bits, the former
//! in the lower half with the upper half zero) and longs (64 bits). Constants and special registers
//! are slots too, so an instruction knows one kind of operand only.

/// A slot of the predicate file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct P(pub u16);
/// A slot of the file of 32-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct W(pub u16);
/// A slot of the file of 64-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct L(pub u16);

/// A slot of any file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    P(P),
    W(W),
    L(L),
}

/// Integer functions of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntFn {
    Add,
    Sub,
    MulLo,
    MulHiU,
    MulHiS,
    DivU,
    DivS,
    RemU,
    RemS,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
}

/// Shifts; the amount is clamped to the size of the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShiftFn {
    Left,
    RightU,
    RightS,
}

/// Integer functions of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntUnary {
    Neg,
    Abs,
    Not,
    Popc,
    Clz,
    /// The bits from the last to the first.
    Reverse,
    /// `bfind`: where the highest bit is that is set (or, of negative numbers, not set); all ones if there is none.
    Find {
        signed: bool,
        /// Counted from the highest one down.
        from_top: bool,
    },
}

/// Functions of three words that pick bits of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldFn {
    /// Bits of the first, from a position on, so many.
    ExtractU,
    /// The same, with the field's sign.
    ExtractS,
    /// The first word and above it the second, shifted: the upper word (left) or the lower one (right).
    Funnel {
        left: bool,
        /// Amounts count modulo 32; else up to 32.
        wrap: bool,
    },
    /// Ones from a position on, so many; the third word does not count.
    Mask {
        /// Positions and lengths count modulo 32; else those beyond are beyond.
        wrap: bool,
    },
    /// Bytes of the first two.
    Permute,
    /// A bit for each of the eight combinations of the three words' bits.
    Table(u8),
}

/// f32 functions of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatUnary {
    Abs,
    Neg,
    Sqrt,
    Rsqrt,
    Rcp,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
}

/// f32 functions of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatFn {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    MinNan,
    MaxNan,
    CopySign,
}

/// How a narrow operand lies in its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Narrow {
    /// All 32 bits.
    No,
    /// 16 bits, zero-extended to compute.
    Unsigned,
    /// 16 bits, sign-extended to compute.
    Signed,
}

/// Comparisons; those of floats that hold if an operand is NaN are named `...OrNan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    EqOrNan,
    NeOrNan,
    LtOrNan,
    LeOrNan,
    GtOrNan,
    GeOrNan,
    Num,
    Nan,
}

/// How a comparison's operands are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompareAs {
    Unsigned,
    Signed,
    Float,
}

/// Functions of predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BoolFn {
    And,
    Or,
    Xor,
}

/// What `setp` does with its third operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Combine {
    pub f: BoolFn,
    pub c: P,
    pub negate: bool,
}

/// A comparison, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub f: Compare,
    pub read: CompareAs,
}

/// Where `setp` puts its result, and in `q` its opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetTo {
    pub p: P,
    pub q: Option<P>,
    pub combine: Option<Combine>,
}

/// Rounding of a sum or product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    Zero,
    Down,
    Up,
}

/// Rounding of a float to an integer value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Integral {
    Nearest,
    Zero,
    Down,
    Up,
}

/// An integer type inside its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IntType {
    pub bytes: u8,
    pub signed: bool,
}

/// Conversions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cvt {
    /// Integer to integer; the result is extended to `slot_bytes`, the destination's size.
    Int {
        from: IntType,
        to: IntType,
        saturate: bool,
        slot_bytes: u8,
    },
    /// Integer to f32, to nearest even.
    IntToFloat {
        from: IntType,
    },
    /// f32 to integer; saturates, NaN becomes 0 (64 bits: the lowest number's bits).
    FloatToInt {
        to: IntType,
        rounding: Integral,
        slot_bytes: u8,
    },
    /// f32 to f32.
    Float {
        rounding: Option<Integral>,
        saturate: bool,
    },
    FloatToHalf,
    FloatToBf16,
    HalfToFloat,
    Bf16ToFloat,
    /// Round to 10 bits of mantissa, ties away from zero.
    FloatToTf32,
}

/// State spaces that are addressed by registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Shared,
    Local,
}

/// An address: base and displacement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub base: Base,
    pub offset: i64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Base {
    W(W),
    L(L),
    /// The offset alone (a variable's address is folded into it).
    Zero,
}

/// Up to four registers of a vector access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes {
    pub slots: [Slot; 4],
    pub count: u8,
}

impl Lanes {
    pub fn iter(&self) -> impl Iterator<Item = Slot> {
        self.slots.into_iter().take(self.count.into())
    }
}

/// Operand types of an `mma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MmaType {
    Tf32,
    F16,
    Bf16,
}

/// `mma.sync.aligned.m16n8kK.row.col.f32.T.T.f32`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mma {
    pub ty: MmaType,
    pub k: u8,
    pub d: [W; 4],
    pub a: [W; 4],
    pub b: [W; 2],
    pub c: [W; 4],
}

/// Where a shuffle takes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Bfly,
    Idx,
}

/// Votes of a warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

/// An instruction without guard and line.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    MovW(W, W),
    MovL(L, L),
    MovP(P, P),
    NotP(P, P),
    BoolP(BoolFn, P, P, P),
    Int32 {
        f: IntFn,
        narrow: Narrow,
        d: W,
        a: W,
        b: W,
    },
    Int64 {
        f: IntFn,
        d: L,
        a: L,
        b: L,
    },
    Shift32 {
        f: ShiftFn,
        narrow: Narrow,
        d: W,
        a: W,
        b: W,
    },
    Shift64 {
        f: ShiftFn,
        d: L,
        a: L,
        b: W,
    },
    Unary32 {
        f: IntUnary,
        narrow: Narrow,
        d: W,
        a: W,
    },
    Unary64 {
        f: IntUnary,
        d: L,
        a: L,
    },
    /// `popc.b64`, `clz.b64`.
    Count64 {
        f: IntUnary,
        d: W,
        a: L,
    },
    Field {
        f: FieldFn,
        d: W,
        a: W,
        b: W,
        c: W,
    },
    /// `bfe` of 64 bits.
    Extract64 {
        signed: bool,
        d: L,
        a: L,
        b: W,
        c: W,
    },
    /// `bfi`: `a` put into `b`.
    Insert32 {
        d: W,
        a: W,
        b: W,
        position: W,
        length: W,
    },
    Insert64 {
        d: L,
        a: L,
        b: L,
        position: W,
        length: W,
    },
    /// `mad.lo`, `mad.hi`.
    Mad32 {
        f: IntFn,
        narrow: Narrow,
        d: W,
        a: W,
        b: W,
        c: W,
    },
    Mad64 {
        f: IntFn,
        d: L,
        a: L,
        b: L,
        c: L,
    },
    /// `mul.wide`, `mad.wide` of 32-bit factors.
    Wide64 {
        signed: bool,
        d: L,
        a: W,
        b: W,
        c: Option<L>,
    },
    /// `mul.wide`, `mad.wide` of 16-bit factors.
    Wide32 {
        signed: bool,
        d: W,
        a: W,
        b: W,
        c: Option<W>,
    },
    Float {
        f: FloatFn,
        flush: bool,
        d: W,
        a: W,
        b: W,
    },
    FloatUnary {
        f: FloatUnary,
        flush: bool,
        d: W,
        a: W,
    },
    Fma {
        rounding: Rounding,
        flush: bool,
        d: W,
        a: W,
        b: W,
        c: W,
    },
    SetP32 {
        test: Test,
        narrow: Narrow,
        flush: bool,
        to: SetTo,
        a: W,
        b: W,
    },
    SetP64 {
        test: Test,
        to: SetTo,
        a: L,
        b: L,
    },
    Selp32 {
        d: W,
        a: W,
        b: W,
        c: P,
    },
    Selp64 {
        d: L,
        a: L,
        b: L,
        c: P,
    },
    Cvt {
        f: Cvt,
        flush: bool,
        d: Slot,
        a: Slot,
    },
    /// Two floats to a pair of halves; `high` goes to the upper one.
    CvtPair {
        bf16: bool,
        d: W,
        high: W,
        low: W,
    },
    /// Parts side by side, the first lowest.
    Pack {
        d: Slot,
        parts: Lanes,
    },
    Unpack {
        parts: Lanes,
        a: Slot,
    },
    LdParam {
        bytes: u8,
        signed: bool,
        d: Lanes,
        offset: u32,
    },
    Ld {
        space: Space,
        bytes: u8,
        signed: bool,
        read_only: bool,
        d: Lanes,
        address: Address,
    },
    St {
        space: Space,
        bytes: u8,
        a: Lanes,
        address: Address,
    },
    /// `prefetch`: nothing happens.
    Nothing,
    CpAsync {
        bytes: u8,
        to: Address,
        from: Address,
        size: Option<W>,
        ignore: Option<P>,
    },
    CpCommit,
    /// All but this many of the youngest groups.
    CpWait(u32),
    CpWaitAll,
    LdMatrix {
        count: u8,
        transpose: bool,
        d: Lanes,
        address: Address,
    },
    Mma(Box<Mma>),
    Shuffle {
        mode: ShuffleMode,
        d: W,
        p: Option<P>,
        a: W,
        b: W,
        c: W,
        members: W,
    },
    Vote {
        f: Vote,
        d: Slot,
        a: P,
        negate: bool,
        members: W,
    },
    ActiveMask(W),
    WarpBarrier(W),
    Barrier(u8),
    Branch {
        target: u32,
        uniform: bool,
    },
    Exit,
}

/// An instruction.
#[derive(Clone, Debug)]
pub(crate) struct Inst {
    pub op: Op,
    /// `@p` and `@!p` (the flag is set).
    pub guard: Option<(P, bool)>,
    pub line: u32,
}
