//! Arithmetic on scalars and lanes, bit for bit as the kernel interpreter does it.

use nnc_runtime::DType;

use super::elements::predicate;
use super::lir::{Condition, Inst, Op, Reg, Width};
use super::select::X86;
use crate::emit::cpu::assembler::Kind;
use crate::kernel::{BinOp, UnOp};

const SIGN: u32 = 0x8000_0000;

/// Rounds to negative infinity, without exceptions.
const FLOOR: i64 = 0x09;

impl X86 {
    pub(super) fn unary_of(&mut self, op: UnOp, kind: Kind, x: Reg) -> Reg {
        match kind {
            Kind::Lanes(DType::Bool, _) => self.not(x),
            Kind::Scalar(DType::Bool) => self.op_general(Op::XorImmediate, Width::Double, &[x], 1),
            Kind::Scalar(DType::I32) | Kind::Index => self.unary_integer(op, x),
            Kind::Lanes(DType::I32, n) => self.unary_integers(op, Width::of_lanes(n), x),
            Kind::Lanes(_, n) => self.unary_floats(op, Width::of_lanes(n), x),
            Kind::Scalar(_) if op == UnOp::Bits => self.op_general(Op::ToGeneral, Width::X, &[x], 0),
            Kind::Scalar(_) => self.unary_floats(op, Width::Scalar, x),
        }
    }

    fn not(&mut self, x: Reg) -> Reg {
        if self.avx512() {
            return self.truth(Inst::new(Op::NotM, Width::Quad, Reg::NONE, &[x]));
        }
        let all = self.word(Width::Y, u32::MAX);
        self.op(Op::XorI, Width::Y, &[x, all])
    }

    fn unary_floats(&mut self, op: UnOp, width: Width, x: Reg) -> Reg {
        let whole = width.max(Width::X);
        match op {
            UnOp::Neg => {
                let sign = self.word(width, SIGN);
                self.op(Op::XorI, whole, &[x, sign])
            }
            UnOp::Abs => {
                let rest = self.word(width, !SIGN);
                self.op(Op::AndI, whole, &[x, rest])
            }
            UnOp::Sqrt => self.op(Op::Sqrt, whole, &[x]),
            UnOp::Floor => self.op_imm(Op::Round, whole, &[x], FLOOR),
            UnOp::Relu => {
                // The second operand is the result if one is NaN or both are zero.
                let zero = self.op(Op::Zero, whole, &[]);
                self.op(Op::MaxF, width, &[zero, x])
            }
            _ => x,
        }
    }

    fn unary_integers(&mut self, op: UnOp, width: Width, x: Reg) -> Reg {
        match op {
            UnOp::Neg => {
                let zero = self.op(Op::Zero, width, &[]);
                self.op(Op::SubI, width, &[zero, x])
            }
            UnOp::Abs => self.op(Op::AbsI, width, &[x]),
            UnOp::Relu => {
                let zero = self.op(Op::Zero, width, &[]);
                self.op(Op::MaxI, width, &[x, zero])
            }
            _ => x,
        }
    }

    fn unary_integer(&mut self, op: UnOp, x: Reg) -> Reg {
        let double = Width::Double;
        match op {
            UnOp::Neg => self.op_general(Op::Negate, double, &[x], 0),
            UnOp::Abs => {
                let sign = self.op_general(Op::SarImmediate, double, &[x], 31);
                let flipped = self.op_general(Op::Xor, double, &[x, sign], 0);
                self.op_general(Op::Sub, double, &[flipped, sign], 0)
            }
            UnOp::Relu => {
                let zero = self.immediate(0);
                self.op_general(Op::Max, double, &[x, zero], 0)
            }
            UnOp::FromBits => self.op(Op::ToVector, Width::X, &[x]),
            _ => x,
        }
    }

    pub(super) fn binary_of(&mut self, op: BinOp, kind: Kind, x: Reg, y: Reg) -> Reg {
        match kind {
            Kind::Lanes(DType::Bool, _) => self.binary_truths(op, x, y),
            Kind::Scalar(DType::I32 | DType::Bool) | Kind::Index => self.binary_integer(op, x, y),
            Kind::Lanes(DType::I32, n) => self.binary_integers(op, Width::of_lanes(n), x, y),
            Kind::Lanes(_, n) => self.binary_floats(op, Width::of_lanes(n), x, y),
            Kind::Scalar(_) => {
                let result = self.binary_floats(op, Width::Scalar, x, y);
                match op {
                    BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le => self.scalar_of_truth(result),
                    _ => result,
                }
            }
        }
    }

    fn binary_truths(&mut self, op: BinOp, x: Reg, y: Reg) -> Reg {
        let (op, negate) = match op {
            BinOp::And | BinOp::Or => (op, false),
            _ => (BinOp::Xor, op == BinOp::Eq),
        };
        let result = self.logic(op, x, y);
        if negate { self.not(result) } else { result }
    }

    fn binary_floats(&mut self, op: BinOp, width: Width, x: Reg, y: Reg) -> Reg {
        let op = match op {
            BinOp::Add => Op::AddF,
            BinOp::Sub => Op::SubF,
            BinOp::Mul => Op::MulF,
            BinOp::Div => Op::DivF,
            BinOp::Max => return self.extreme(Op::MaxF, width, x, y),
            BinOp::Min => return self.extreme(Op::MinF, width, x, y),
            BinOp::Eq => return self.compare(predicate::EQUAL, width, x, y),
            BinOp::Ne => return self.compare(predicate::NOT_EQUAL, width, x, y),
            BinOp::Lt => return self.compare(predicate::LESS, width, x, y),
            BinOp::Le => return self.compare(predicate::LESS_OR_EQUAL, width, x, y),
            _ => unreachable!("verified kernels have no such operation on floats"),
        };
        self.op(op, width, &[x, y])
    }

    /// The instruction gives its second operand if one is NaN, so only NaN in the first is left.
    fn extreme(&mut self, op: Op, width: Width, x: Reg, y: Reg) -> Reg {
        let chosen = self.op(op, width, &[x, y]);
        if self.is_number(x) {
            return chosen;
        }
        let nan = self.compare(predicate::UNORDERED, width, x, x);
        self.blend(width, nan, x, chosen)
    }

    fn binary_integer(&mut self, op: BinOp, x: Reg, y: Reg) -> Reg {
        let double = Width::Double;
        let op = match op {
            BinOp::Add => Op::Lea,
            BinOp::Sub => Op::Sub,
            BinOp::Mul => Op::Multiply,
            BinOp::Max => Op::Max,
            BinOp::Min => Op::Min,
            BinOp::And => Op::And,
            BinOp::Or => Op::Or,
            BinOp::Xor => Op::Xor,
            BinOp::Shl => Op::Shl,
            BinOp::Shr => Op::Sar,
            BinOp::Eq => return self.compare_scalars(Condition::Equal, x, y),
            BinOp::Ne => return self.compare_scalars(Condition::NotEqual, x, y),
            BinOp::Lt => return self.compare_scalars(Condition::Less, x, y),
            BinOp::Le => return self.compare_scalars(Condition::LessOrEqual, x, y),
            BinOp::MulHigh => {
                let [x, y] = [x, y].map(|v| self.op_general(Op::ZeroExtend, double, &[v], 0));
                let product = self.op_general(Op::Multiply, Width::Quad, &[x, y], 0);
                return self.op_general(Op::ShrImmediate, Width::Quad, &[product], 32);
            }
            BinOp::Div => {
                let [x, y] = [x, y].map(|v| self.op(Op::ToVector, Width::X, &[v]));
                let quotient = self.divide(Width::X, x, y);
                return self.op_general(Op::ToGeneral, Width::X, &[quotient], 0);
            }
            BinOp::Pow => unreachable!("expanded before emission"),
        };
        self.op_general(op, double, &[x, y], 0)
    }

    fn binary_integers(&mut self, op: BinOp, width: Width, x: Reg, y: Reg) -> Reg {
        let op = match op {
            BinOp::Add => Op::AddI,
            BinOp::Sub => Op::SubI,
            BinOp::Mul => Op::MulI,
            BinOp::Max => Op::MaxI,
            BinOp::Min => Op::MinI,
            BinOp::And => Op::AndI,
            BinOp::Or => Op::OrI,
            BinOp::Xor => Op::XorI,
            BinOp::Shl | BinOp::Shr => {
                let most = self.word(width, 31);
                let by = self.op(Op::AndI, width, &[y, most]);
                let op = if op == BinOp::Shl { Op::ShlLanes } else { Op::SarLanes };
                return self.op(op, width, &[x, by]);
            }
            BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le => {
                return self.compare_integers(op, width, x, y);
            }
            BinOp::MulHigh => return self.multiply_high(width, x, y),
            BinOp::Div => return self.divide(width, x, y),
            BinOp::Pow => unreachable!("expanded before emission"),
        };
        self.op(op, width, &[x, y])
    }

    pub(super) fn compare_integers(&mut self, op: BinOp, width: Width, x: Reg, y: Reg) -> Reg {
        if self.avx512() {
            let predicate = match op {
                BinOp::Eq => 0,
                BinOp::Lt => 1,
                BinOp::Le => 2,
                _ => 4,
            };
            return self.truth(Inst::new(Op::CompareI, width, Reg::NONE, &[x, y]).imm(predicate));
        }
        match op {
            BinOp::Eq => self.op(Op::EqualI, width, &[x, y]),
            BinOp::Lt => self.op(Op::GreaterI, width, &[y, x]),
            BinOp::Le => {
                let greater = self.op(Op::GreaterI, width, &[x, y]);
                self.not(greater)
            }
            _ => {
                let equal = self.op(Op::EqualI, width, &[x, y]);
                self.not(equal)
            }
        }
    }

    /// Upper halves of unsigned products: even lanes and odd lanes apart.
    fn multiply_high(&mut self, width: Width, x: Reg, y: Reg) -> Reg {
        let even = self.op(Op::MulWide, width, &[x, y]);
        let [x, y] = [x, y].map(|v| self.op_imm(Op::ShrQuadsImmediate, width, &[v], 32));
        let odd = self.op(Op::MulWide, width, &[x, y]);
        let even = self.op_imm(Op::ShrQuadsImmediate, width, &[even], 32);
        let upper: Vec<u32> = (0..width.bytes() / 4).map(|l| if l % 2 == 1 { u32::MAX } else { 0 }).collect();
        let upper = self.lanes_of(&upper);
        let odd = self.op(Op::AndI, width, &[odd, upper]);
        self.op(Op::OrI, width, &[even, odd])
    }

    /// Truncating division: exact in f64, whose quotient of two i32 is never rounded to the next
    /// integer. The smallest by -1 does not fit and gives the smallest; by zero is zero.
    fn divide(&mut self, width: Width, x: Reg, y: Reg) -> Reg {
        let quotient = if width == Width::X {
            self.divide_half(Width::Y, x, y)
        } else {
            let (part, join) = if width == Width::Z { (Width::Z, Op::JoinY) } else { (Width::Y, Op::JoinX) };
            let halves = [0, 1].map(|h| {
                let (x, y) = (self.half(width, x, h), self.half(width, y, h));
                self.divide_half(part, x, y)
            });
            self.op(join, width, &halves)
        };
        let zero = self.op(Op::Zero, width, &[]);
        let by_zero = self.compare_integers(BinOp::Eq, width, y, zero);
        self.blend(width, by_zero, zero, quotient)
    }

    /// Quotients of half as many lanes as the width has.
    fn divide_half(&mut self, width: Width, x: Reg, y: Reg) -> Reg {
        let [x, y] = [x, y].map(|v| self.op(Op::IntToDouble, width, &[v]));
        let quotient = self.op(Op::DivD, width, &[x, y]);
        let half = if width == Width::Z { Width::Y } else { Width::X };
        self.vector_of(half, Inst::new(Op::DoubleToInt, width, Reg::NONE, &[quotient]))
    }

    pub(super) fn shift_of(&mut self, op: BinOp, kind: Kind, x: Reg, by: Reg) -> Reg {
        let left = op == BinOp::Shl;
        let Kind::Lanes(_, n) = kind else {
            if let Some(c) = self.known(by) {
                let op = if left { Op::ShlImmediate } else { Op::SarImmediate };
                return self.op_general(op, Width::Double, &[x], c & 31);
            }
            return self.op_general(if left { Op::Shl } else { Op::Sar }, Width::Double, &[x, by], 0);
        };
        let width = Width::of_lanes(n);
        if let Some(c) = self.known(by) {
            let op = if left { Op::ShlLanesImmediate } else { Op::SarLanesImmediate };
            return self.op_imm(op, width, &[x], c & 31);
        }
        let by = self.op_general(Op::AndImmediate, Width::Double, &[by], 31);
        let by = self.op(Op::ToVector, Width::X, &[by]);
        self.op(if left { Op::ShlLanesBy } else { Op::SarLanesBy }, width, &[x, by])
    }
}
