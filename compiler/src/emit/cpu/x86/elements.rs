//! Elements: constants, lanes, choices and conversions.
//!
//! A truth value in lanes is a mask with AVX-512, else all bits of the lane or none. Scalars of f32
//! are lane 0 of a vector register, so that what has no cheap scalar form is done on four lanes.

use nnc_runtime::DType;

use super::lir::{Base, Condition, Inst, Mem, Op, Reg, Width};
use super::select::X86;
use crate::emit::cpu::assembler::Kind;
use crate::kernel::BinOp;

/// Predicates of float comparisons; those that are false for NaN save for `NOT_EQUAL` and `UNORDERED`.
pub mod predicate {
    pub const EQUAL: i64 = 0x00;
    pub const LESS: i64 = 0x11;
    pub const LESS_OR_EQUAL: i64 = 0x12;
    pub const UNORDERED: i64 = 0x03;
    pub const NOT_EQUAL: i64 = 0x04;
    pub const ORDERED: i64 = 0x07;
    pub const GREATER_OR_EQUAL: i64 = 0x1d;
}

impl X86 {
    /// An operation on vectors (or on lane 0).
    pub(super) fn op(&mut self, op: Op, width: Width, src: &[Reg]) -> Reg {
        self.vector(Inst::new(op, width, Reg::NONE, src))
    }

    /// Likewise with an immediate.
    pub(super) fn op_imm(&mut self, op: Op, width: Width, src: &[Reg], imm: i64) -> Reg {
        self.vector(Inst::new(op, width, Reg::NONE, src).imm(imm))
    }

    /// An operation on general registers.
    pub(super) fn op_general(&mut self, op: Op, width: Width, src: &[Reg], imm: i64) -> Reg {
        self.general(Inst::new(op, width, Reg::NONE, src).imm(imm))
    }

    /// A vector constant.
    pub(super) fn lanes_of(&mut self, words: &[u32]) -> Reg {
        let width = Width::of_lanes(words.len());
        let mem = |offset, splat| Mem { base: Base::Constants, offset, splat, constant: true };
        if words.iter().all(|w| *w == 0) {
            return self.op(Op::Zero, width, &[]);
        }
        if self.avx512() && words.iter().all(|w| *w == words[0]) {
            let at = self.f.constants.place(&words[..1]);
            return self.vector(Inst::new(Op::Splat, width, Reg::NONE, &[]).mem(mem(at, true)));
        }
        let at = self.f.constants.place(words);
        self.vector(Inst::new(Op::Load, width, Reg::NONE, &[]).mem(mem(at, false)))
    }

    /// True for float constants without NaN.
    pub(super) fn is_number(&self, x: Reg) -> bool {
        let Some(made) = self.definition(x) else { return false };
        match (made.op, made.mem) {
            (Op::Zero, _) => true,
            (Op::Load | Op::Splat, Some(mem)) if mem.base == Base::Constants => {
                let words = if mem.splat { 1 } else { made.width.bytes() / 4 };
                self.f.constants.words(mem.offset, words).all(|w| !f32::from_bits(w).is_nan())
            }
            _ => false,
        }
    }

    /// The same word in all lanes of a width, which may be [`Width::Scalar`] for four lanes.
    pub(super) fn word(&mut self, width: Width, word: u32) -> Reg {
        self.lanes_of(&vec![word; width.max(Width::X).bytes() / 4])
    }

    pub(super) fn constant_of(&mut self, kind: Kind, c: f64) -> Reg {
        match kind {
            Kind::Index => self.immediate(c as i64),
            Kind::Scalar(DType::Bool) => self.immediate(i64::from(c != 0.0)),
            Kind::Scalar(DType::I32) => self.immediate(i64::from(c as i32)),
            Kind::Scalar(_) => self.scalar_float((c as f32).to_bits()),
            Kind::Lanes(DType::Bool, _) if self.avx512() => {
                let all = self.immediate(if c != 0.0 { 0xffff } else { 0 });
                self.truth(Inst::new(Op::ToMask, Width::Double, Reg::NONE, &[all]))
            }
            Kind::Lanes(dtype, n) => {
                let word = match dtype {
                    DType::Bool => -i32::from(c != 0.0) as u32,
                    DType::I32 => c as i32 as u32,
                    _ => (c as f32).to_bits(),
                };
                self.lanes_of(&vec![word; n])
            }
        }
    }

    fn scalar_float(&mut self, bits: u32) -> Reg {
        if bits == 0 {
            return self.op(Op::Zero, Width::X, &[]);
        }
        let offset = self.f.constants.place(&[bits]);
        let mem = Mem { base: Base::Constants, offset, splat: false, constant: true };
        self.vector(Inst::new(Op::Load, Width::Scalar, Reg::NONE, &[]).mem(mem))
    }

    pub(super) fn splat_of(&mut self, dtype: DType, lanes: usize, scalar: Reg) -> Reg {
        let width = Width::of_lanes(lanes);
        match dtype {
            DType::Bool => {
                let all = self.op_general(Op::Negate, Width::Double, &[scalar], 0);
                if self.avx512() {
                    return self.truth(Inst::new(Op::ToMask, Width::Double, Reg::NONE, &[all]));
                }
                self.splat_of(DType::I32, lanes, all)
            }
            DType::I32 => match self.known(scalar) {
                Some(c) => self.lanes_of(&vec![c as u32; lanes]),
                None if self.avx512() => self.op(Op::SplatGeneral, width, &[scalar]),
                None => {
                    let low = self.op(Op::ToVector, Width::X, &[scalar]);
                    self.op(Op::Splat, width, &[low])
                }
            },
            DType::F32 | DType::F64 => self.op(Op::Splat, width, &[scalar]),
        }
    }

    /// The quarter of a vector that has a lane.
    fn quarter(&mut self, lanes: usize, x: Reg, lane: usize) -> Reg {
        if lane < 4 {
            return x;
        }
        let inst = Inst::new(Op::ExtractX, Width::of_lanes(lanes), Reg::NONE, &[x]);
        self.vector_of(Width::X, inst.imm(lane as i64 / 4))
    }

    pub(super) fn extract_of(&mut self, dtype: DType, lanes: usize, x: Reg, lane: usize) -> Reg {
        let quarter = self.quarter(lanes, x, lane);
        let first = match lane % 4 {
            0 => quarter,
            l => self.op_imm(Op::Permute, Width::X, &[quarter], l as i64),
        };
        match dtype {
            DType::I32 => self.op_general(Op::ToGeneral, Width::X, &[first], 0),
            _ => first,
        }
    }

    pub(super) fn insert_of(&mut self, dtype: DType, lanes: usize, x: Reg, lane: usize, scalar: Reg) -> Reg {
        let all = self.splat_of(dtype, lanes, scalar);
        let width = Width::of_lanes(lanes);
        if self.avx512() {
            let bit = self.immediate(1 << lane);
            let mask = self.truth(Inst::new(Op::ToMask, Width::Double, Reg::NONE, &[bit]));
            return self.op(Op::Blend, width, &[x, all, mask]);
        }
        self.op_imm(Op::BlendImmediate, width, &[x, all], 1 << lane)
    }

    /// Lanes of all bits or none; floats.
    pub(super) fn compare(&mut self, predicate: i64, width: Width, a: Reg, b: Reg) -> Reg {
        self.truth(Inst::new(Op::CompareF, width, Reg::NONE, &[a, b]).imm(predicate))
    }

    /// `condition ? a : b`, lane by lane.
    pub(super) fn blend(&mut self, width: Width, condition: Reg, a: Reg, b: Reg) -> Reg {
        self.op(Op::Blend, width.max(Width::X), &[b, a, condition])
    }

    /// A scalar truth value for the blend of lane 0.
    fn truth_of_scalar(&mut self, condition: Reg) -> Reg {
        if self.avx512() {
            return self.truth(Inst::new(Op::ToMask, Width::Double, Reg::NONE, &[condition]));
        }
        let all = self.op_general(Op::Negate, Width::Double, &[condition], 0);
        self.op(Op::ToVector, Width::X, &[all])
    }

    /// Lane 0 of a comparison as 0 or 1.
    pub(super) fn scalar_of_truth(&mut self, truth: Reg) -> Reg {
        let bits = if self.avx512() {
            self.op_general(Op::FromMask, Width::Double, &[truth], 0)
        } else {
            self.op_general(Op::ToGeneral, Width::X, &[truth], 0)
        };
        self.op_general(Op::AndImmediate, Width::Double, &[bits], 1)
    }

    pub(super) fn select_of(&mut self, kind: Kind, condition: Reg, a: Reg, b: Reg) -> Reg {
        match kind {
            Kind::Lanes(DType::Bool, _) => {
                let differ = self.logic(BinOp::Xor, a, b);
                let chosen = self.logic(BinOp::And, differ, condition);
                self.logic(BinOp::Xor, chosen, b)
            }
            Kind::Lanes(_, n) => self.blend(Width::of_lanes(n), condition, a, b),
            Kind::Scalar(DType::F32 | DType::F64) => {
                let truth = self.truth_of_scalar(condition);
                self.blend(Width::X, truth, a, b)
            }
            Kind::Scalar(_) | Kind::Index => self.op_general(Op::Choose, Width::Quad, &[condition, a, b], 0),
        }
    }

    /// And, or, xor of truth values in lanes (of any number).
    pub(super) fn logic(&mut self, op: BinOp, x: Reg, y: Reg) -> Reg {
        let (op, width) = match (op, self.avx512()) {
            (BinOp::And, true) => (Op::AndM, Width::Quad),
            (BinOp::Or, true) => (Op::OrM, Width::Quad),
            (_, true) => (Op::XorM, Width::Quad),
            (BinOp::And, false) => (Op::AndI, Width::Y),
            (BinOp::Or, false) => (Op::OrI, Width::Y),
            (_, false) => (Op::XorI, Width::Y),
        };
        self.truth(Inst::new(op, width, Reg::NONE, &[x, y]))
    }

    /// A comparison of scalar i32.
    pub(super) fn compare_scalars(&mut self, condition: Condition, a: Reg, b: Reg) -> Reg {
        match self.known(b).filter(|c| i32::try_from(*c).is_ok()) {
            Some(c) => self.op_general(Op::Set(condition), Width::Double, &[a], c),
            None => self.op_general(Op::Set(condition), Width::Double, &[a, b], 0),
        }
    }

    pub(super) fn cast_of(&mut self, kind: Kind, to: DType, x: Reg) -> Reg {
        let (from, lanes) = match kind {
            Kind::Scalar(dtype) => (dtype, None),
            Kind::Lanes(dtype, n) => (dtype, Some(n)),
            Kind::Index => return x,
        };
        let width = Width::of_lanes(lanes.unwrap_or(4));
        match (from, to) {
            (DType::F32, DType::I32) => {
                let whole = self.truncate(width, x);
                if lanes.is_some() { whole } else { self.op_general(Op::ToGeneral, Width::X, &[whole], 0) }
            }
            (DType::I32, DType::F32) => {
                let x = if lanes.is_some() { x } else { self.op(Op::ToVector, Width::X, &[x]) };
                self.op(Op::IntToFloat, width, &[x])
            }
            (DType::F32, DType::Bool) => {
                let zero = self.op(Op::Zero, width, &[]);
                let width = if lanes.is_some() { width } else { Width::Scalar };
                let truth = self.compare(predicate::NOT_EQUAL, width, x, zero);
                if lanes.is_some() { truth } else { self.scalar_of_truth(truth) }
            }
            (DType::I32, DType::Bool) if lanes.is_some() => {
                let zero = self.op(Op::Zero, width, &[]);
                self.compare_integers(BinOp::Ne, width, x, zero)
            }
            (DType::I32, DType::Bool) => {
                self.op_general(Op::Set(Condition::NotEqual), Width::Double, &[x], 0)
            }
            (DType::Bool, DType::I32) if lanes.is_some() => {
                let all = if self.avx512() { self.op(Op::MaskToLanes, width, &[x]) } else { x };
                self.op_imm(Op::ShrLanesImmediate, width, &[all], 31)
            }
            (DType::Bool, DType::F32) => {
                let whole = self.cast_of(kind, DType::I32, x);
                let kind = lanes.map_or(Kind::Scalar(DType::I32), |n| Kind::Lanes(DType::I32, n));
                self.cast_of(kind, DType::F32, whole)
            }
            _ => x,
        }
    }

    /// Float to i32, saturating, NaN as 0. The instruction gives the smallest i32 for all that does
    /// not fit; what is too large differs from the right answer in every bit.
    fn truncate(&mut self, width: Width, x: Reg) -> Reg {
        let whole = self.op(Op::FloatToInt, width, &[x]);
        let limit = self.word(width, 2_147_483_648f32.to_bits());
        let large = self.compare(predicate::GREATER_OR_EQUAL, width, x, limit);
        let most = self.word(width, i32::MAX as u32);
        let whole = self.blend(width, large, most, whole);
        let number = self.compare(predicate::ORDERED, width, x, x);
        let zero = self.op(Op::Zero, width, &[]);
        self.blend(width, number, whole, zero)
    }

    /// Upper or lower halves of a wide vector (or of a Y or Z): the half number `half`.
    pub(super) fn half(&mut self, width: Width, x: Reg, half: i64) -> Reg {
        if half == 0 {
            return x;
        }
        let (op, part) = if width == Width::Z { (Op::ExtractY, Width::Y) } else { (Op::ExtractX, Width::X) };
        self.vector_of(part, Inst::new(op, width, Reg::NONE, &[x]).imm(half))
    }
}
