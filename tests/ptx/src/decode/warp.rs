//! Tensor cores, exchange between lanes, barriers, control.

use super::{Decoded, Decoder};
use crate::op::{Mma, MmaType, Op, ShuffleMode, Slot, Vote, W};
use crate::parse::operand::Operand;
use crate::types::Type;

const MODES: [(&str, ShuffleMode); 4] = [
    ("up", ShuffleMode::Up),
    ("down", ShuffleMode::Down),
    ("bfly", ShuffleMode::Bfly),
    ("idx", ShuffleMode::Idx),
];

impl<'a> Decoder<'_, 'a> {
    pub(super) fn mma(&mut self) -> Decoded<Op> {
        self.need(&["sync", "aligned"])?;
        let Some(k) = self.choose(&[("m16n8k4", 4u8), ("m16n8k8", 8), ("m16n8k16", 16)]) else {
            return self.unsupported();
        };
        self.need(&["row", "col", "f32"])?;
        let from = self.ty(&[Type::Tf32, Type::F16, Type::Bf16])?;
        self.ty(&[from])?;
        self.ty(&[Type::F32])?;
        self.end(4)?;
        // Operands are one tf32 or pairs of halves, in registers of 32 bits.
        let (ty, register) = match from {
            Type::Tf32 => (MmaType::Tf32, Type::Tf32),
            Type::F16 => (MmaType::F16, Type::F16x2),
            _ => (MmaType::Bf16, Type::Bf16x2),
        };
        let (d, c) = (self.fragment::<4>(0, Type::F32)?, self.fragment::<4>(3, Type::F32)?);
        let pad = |[a, b]: [W; 2]| [a, b, a, b];
        let (a, b) = match (ty, k) {
            (MmaType::Tf32, 8) | (MmaType::F16 | MmaType::Bf16, 16) => {
                (self.fragment::<4>(1, register)?, self.fragment::<2>(2, register)?)
            }
            (MmaType::Tf32, 4) | (MmaType::F16 | MmaType::Bf16, 8) => {
                let [b] = self.fragment::<1>(2, register)?;
                (pad(self.fragment::<2>(1, register)?), [b, b])
            }
            _ => return self.error("there is no such shape of this type"),
        };
        Ok(Op::Mma(Box::new(Mma { ty, k, d, a, b, c })))
    }

    pub(super) fn shfl(&mut self) -> Decoded<Op> {
        self.need(&["sync"])?;
        let Some(mode) = self.choose(&MODES) else { return self.unsupported() };
        self.ty(&[Type::B32])?;
        self.end(5)?;
        let (name, p) = self.pair(0)?;
        let d = self.typed(name, Type::B32, false)?;
        let d = self.word(d)?;
        let (a, b) = (self.source_w(1, Type::B32)?, self.source_w(2, Type::U32)?);
        Ok(Op::Shuffle {
            mode,
            d,
            p,
            a,
            b,
            c: self.source_w(3, Type::U32)?,
            members: self.source_w(4, Type::U32)?,
        })
    }

    pub(super) fn vote(&mut self) -> Decoded<Op> {
        self.need(&["sync"])?;
        let Some(mode) = self.choose(&[("all", 0), ("any", 1), ("uni", 2), ("ballot", 3)]) else {
            return self.unsupported();
        };
        self.ty(&[if mode == 3 { Type::B32 } else { Type::Pred }])?;
        self.end(3)?;
        let (p, negate) = self.predicate(1, true)?;
        let members = self.source_w(2, Type::U32)?;
        // The vote holds its source, `d` the destination.
        let d = if mode == 3 {
            Slot::W(self.destination_w(0, Type::B32)?)
        } else {
            Slot::P(self.predicate(0, false)?.0)
        };
        let f = match mode {
            0 => Vote::All,
            1 => Vote::Any,
            2 => Vote::Uni,
            _ => Vote::Ballot,
        };
        Ok(Op::Vote { f, a: p, d, negate, members })
    }

    pub(super) fn activemask(&mut self) -> Decoded<Op> {
        self.ty(&[Type::B32])?;
        self.end(1)?;
        Ok(Op::ActiveMask(self.destination_w(0, Type::B32)?))
    }

    pub(super) fn bar(&mut self) -> Decoded<Op> {
        if self.has("warp") {
            self.need(&["sync"])?;
            self.end(1)?;
            return Ok(Op::WarpBarrier(self.source_w(0, Type::U32)?));
        }
        let _cta = self.has("cta");
        self.need(&["sync"])?;
        if self.statement.operands.len() == 2 {
            return self.error("a barrier of a part of the block is not supported");
        }
        self.end(1)?;
        Ok(Op::Barrier(self.immediate(0, 15)? as u8))
    }

    pub(super) fn bra(&mut self) -> Decoded<Op> {
        let uniform = self.has("uni");
        self.end(1)?;
        let Operand::Name(label) = *self.operand(0)? else { return self.error("expected a label") };
        self.builder.branch(label);
        Ok(Op::Branch { target: 0, uniform })
    }

    pub(super) fn exit(&mut self, head: &str) -> Decoded<Op> {
        let _uniform = head == "ret" && self.has("uni");
        self.end(0)?;
        Ok(Op::Exit)
    }
}
