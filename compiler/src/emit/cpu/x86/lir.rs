//! The linear IR between the emitter and the encoder: x86 instructions over virtual registers.
//!
//! Control flow is structured: markers open and close loops and branches, so that an instruction's
//! place in the list is also its place in time. *Values* have one definition, which comes before all
//! uses; *variables* may have several. Every instruction has one destination at most.

/// A virtual register.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reg(pub u32);

impl Reg {
    /// No register.
    pub const NONE: Reg = Reg(u32::MAX);

    pub fn some(self) -> Option<Reg> {
        (self != Reg::NONE).then_some(self)
    }

    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl std::fmt::Debug for Reg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.some() {
            Some(r) => write!(f, "%{}", r.0),
            None => write!(f, "-"),
        }
    }
}

/// The files of machine registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Addresses, counters, scalar i32 (in the low half; the rest is anything) and bool (0 or 1).
    General,
    /// Scalar f32 (in lane 0; the rest is anything) and lanes.
    Vector,
    /// One bit a lane: AVX-512 only.
    Mask,
}

/// How much an instruction works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    Byte,
    /// General, 32 bits.
    Double,
    /// General, 64 bits.
    Quad,
    /// Lane 0 of a vector register.
    Scalar,
    /// 4 lanes.
    X,
    /// 8 lanes.
    Y,
    /// 16 lanes.
    Z,
}

impl Width {
    pub fn of_lanes(lanes: usize) -> Width {
        match lanes {
            4 => Width::X,
            8 => Width::Y,
            16 => Width::Z,
            _ => unreachable!("the assembler said which widths there are"),
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Width::Byte => 1,
            Width::Double | Width::Scalar => 4,
            Width::Quad => 8,
            Width::X => 16,
            Width::Y => 32,
            Width::Z => 64,
        }
    }
}

/// What a memory operand is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Register(Reg),
    /// Into the constants behind the code.
    Constants,
    /// Into the stack frame.
    Frame,
}

/// A memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    pub base: Base,
    pub offset: i32,
    /// One element for all lanes.
    pub splat: bool,
    /// Not written by the function.
    pub constant: bool,
}

/// Conditions of integer comparisons, signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
}

/// Instructions, or short sequences of them. `a`, `b`, `c` are the sources in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    // Structure.
    Loop,
    /// Again while a < b (or the immediate if b is none).
    EndLoop,
    /// Runs what follows if a is not negative.
    If,
    Else,
    EndIf,
    // Any class.
    /// The function's argument number `imm`.
    Argument,
    Copy,
    Load,
    /// Stores a to the memory operand.
    Store,
    /// Fetches the memory operand's cache line to the first or second cache.
    PrefetchFirst,
    PrefetchSecond,
    // General.
    Immediate,
    /// a + b·2^(imm >> 32) + low half of imm; b may be none.
    Lea,
    Sub,
    And,
    Or,
    Xor,
    Multiply,
    /// a by the immediate.
    AndImmediate,
    XorImmediate,
    MultiplyImmediate,
    ShlImmediate,
    SarImmediate,
    ShrImmediate,
    /// a by b modulo the width.
    Shl,
    Sar,
    Negate,
    /// The low 32 bits, zeros above.
    ZeroExtend,
    /// 1 or 0: a compared with b, or with the immediate if b is none.
    Set(Condition),
    /// a not zero ? b : c
    Choose,
    Max,
    Min,
    /// a / immediate, 64 bits unsigned.
    Divide,
    // Between classes.
    /// General to lane 0.
    ToVector,
    ToGeneral,
    /// General to all lanes.
    SplatGeneral,
    ToMask,
    FromMask,
    /// Lanes of all bits or none.
    MaskToLanes,
    // Vectors.
    Zero,
    AddF,
    SubF,
    MulF,
    DivF,
    MaxF,
    MinF,
    Fma,
    Sqrt,
    Round,
    AndI,
    OrI,
    XorI,
    AddI,
    SubI,
    MulI,
    MaxI,
    MinI,
    AbsI,
    /// Products of the even lanes, 64 bits.
    MulWide,
    ShlLanes,
    SarLanes,
    ShlLanesImmediate,
    SarLanesImmediate,
    ShrLanesImmediate,
    ShrQuadsImmediate,
    /// All lanes of a by the number in lane 0 of b.
    ShlLanesBy,
    SarLanesBy,
    IntToFloat,
    FloatToInt,
    IntToDouble,
    DivD,
    DoubleToInt,
    /// A mask (AVX-512) or lanes of all bits or none; the immediate is the predicate.
    CompareF,
    /// To a mask; AVX-512.
    CompareI,
    EqualI,
    GreaterI,
    /// c ? b : a, lane by lane.
    Blend,
    /// b in the lanes of the immediate's bits, else a.
    BlendImmediate,
    /// Lane 0 of a, or a memory operand, in all lanes.
    Splat,
    /// Lane k is lane (imm >> 2k) & 3; X only.
    Permute,
    /// The quarter (X) number `imm` of a vector of the width.
    ExtractX,
    ExtractY,
    /// The width's vector with a below and b above.
    JoinX,
    JoinY,
    // Masks.
    AndM,
    OrM,
    XorM,
    NotM,
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub struct Inst {
    pub op: Op,
    pub width: Width,
    pub dst: Reg,
    pub src: [Reg; 3],
    /// The memory operand; of a load or store, or in the place of the source `mem_at`, which is none.
    pub mem: Option<Mem>,
    pub mem_at: u8,
    pub imm: i64,
}

impl Inst {
    pub fn new(op: Op, width: Width, dst: Reg, src: &[Reg]) -> Inst {
        let mut all = [Reg::NONE; 3];
        all[..src.len()].copy_from_slice(src);
        Inst { op, width, dst, src: all, mem: None, mem_at: 0, imm: 0 }
    }

    pub fn imm(self, imm: i64) -> Inst {
        Inst { imm, ..self }
    }

    pub fn mem(self, mem: Mem) -> Inst {
        Inst { mem: Some(mem), ..self }
    }

    /// All registers that it reads.
    pub fn reads(&self) -> impl Iterator<Item = Reg> + use<> {
        let base = match self.mem {
            Some(Mem { base: Base::Register(r), .. }) => r,
            _ => Reg::NONE,
        };
        self.src.into_iter().chain([base]).filter(|r| *r != Reg::NONE)
    }

    /// Calls the function on every register that it reads.
    pub fn each_read(&mut self, mut f: impl FnMut(&mut Reg)) {
        for r in &mut self.src {
            if *r != Reg::NONE {
                f(r);
            }
        }
        if let Some(Mem { base: Base::Register(r), .. }) = &mut self.mem {
            f(r);
        }
    }

    /// True if it must stay although nobody reads its destination.
    pub fn has_effect(&self) -> bool {
        let fetches = matches!(self.op, Op::PrefetchFirst | Op::PrefetchSecond);
        self.is_structure() || self.op == Op::Store || fetches
    }

    /// True for what begins or ends a straight line.
    pub fn is_structure(&self) -> bool {
        matches!(self.op, Op::Loop | Op::EndLoop | Op::If | Op::Else | Op::EndIf)
    }
}

/// What is known of a virtual register.
#[derive(Clone, Copy, Debug)]
pub struct RegInfo {
    pub class: Class,
    /// What a copy must carry.
    pub width: Width,
    pub variable: bool,
    /// Made by the allocator for one instruction: not to be spilled again.
    pub brief: bool,
}

/// Instruction sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// AVX2, FMA, BMI2: 16 vector registers of 8 lanes.
    Avx2,
    /// And AVX-512 F, VL, DQ, BW: 32 of 16 lanes, masks, splats from memory in every instruction.
    Avx512,
}

/// A function before encoding.
#[derive(Debug)]
pub struct Function {
    pub level: Level,
    pub code: Vec<Inst>,
    pub regs: Vec<RegInfo>,
    pub constants: super::constants::Constants,
    /// Bytes of the stack frame.
    pub frame: u32,
}

impl Function {
    pub fn new(level: Level) -> Function {
        Function { level, code: vec![], regs: vec![], constants: Default::default(), frame: 0 }
    }

    pub fn reg(&mut self, class: Class, width: Width) -> Reg {
        self.regs.push(RegInfo { class, width, variable: false, brief: false });
        Reg(self.regs.len() as u32 - 1)
    }

    pub fn info(&self, r: Reg) -> RegInfo {
        self.regs[r.index()]
    }
}
