//! One instruction of a warp.

use super::access::{Load, Store};
use super::copy::CopyOp;
use super::exchange::Shuffle;
use super::warp::{Outcome, State, Warp, fault, lanes};
use super::{Env, convert, field, float, int};
use crate::error::Fault;
use crate::op::{BoolFn, Combine, Lanes, Narrow, Op, SetTo, Slot};

fn bool_fn(f: BoolFn, a: u32, b: u32) -> u32 {
    match f {
        BoolFn::And => a & b,
        BoolFn::Or => a | b,
        BoolFn::Xor => a ^ b,
    }
}

impl Warp {
    /// Executes an instruction in the lanes of the mask and goes on to the next.
    pub(super) fn step(&mut self, env: &mut Env, op: &Op, mask: u32) -> Outcome<()> {
        if mask != 0 && self.is_parted() {
            let needed = self.needed(op, mask)?;
            if self.waits(needed, mask) {
                return Ok(());
            }
        }
        match *op {
            Op::Branch { target, uniform } => return self.branch(mask, target as usize, uniform),
            _ if mask == 0 => {}
            Op::Exit => return self.exit(mask),
            Op::Barrier(id) => self.barrier(id, mask)?,
            Op::Ld { space, bytes, signed, read_only, ref d, ref address } => {
                self.ld(env, &Load { space, bytes, signed, read_only, d, address }, mask)?;
            }
            Op::St { space, bytes, ref a, ref address } => {
                self.st(env, &Store { space, bytes, a, address }, mask)?
            }
            Op::LdParam { bytes, signed, ref d, offset } => {
                self.ld_param(env, bytes, signed, d, offset, mask)
            }
            Op::CpAsync { bytes, ref to, ref from, size, ignore } => {
                self.cp_async(env, &CopyOp { bytes, to, from, size, ignore }, mask)?;
            }
            Op::CpCommit => self.commit(mask),
            Op::CpWait(open) => self.wait(env, Some(open), mask),
            Op::CpWaitAll => self.wait(env, None, mask),
            Op::Mma(ref m) => self.mma(env, m, mask)?,
            Op::LdMatrix { count, transpose, ref d, ref address } => {
                self.ldmatrix(env, (count, transpose), d, address, mask)?;
            }
            Op::Shuffle { mode, d, p, a, b, c, members } => {
                self.shuffle(&Shuffle { mode, d, p, a, b, c, members }, mask)?;
            }
            Op::Vote { f, d, a, negate, members } => self.vote(f, d, a, negate, members, mask)?,
            Op::ActiveMask(d) => self.put_w(d, mask, &[mask; 32]),
            Op::WarpBarrier(members) => {
                // Marks of who accessed memory know barriers of whole warps only.
                let named = self.need_members(members, mask)?;
                if let Some(lane) = lanes(mask).find(|&l| named[l] != self.lanes) {
                    return fault(1 << lane, Fault::MissingLanes { missing: self.lanes & !named[lane] });
                }
                self.sync = self.sync.saturating_add(1);
            }
            Op::Nothing => {}
            _ => self.compute(op, mask)?,
        }
        self.advance();
        Ok(())
    }

    /// The lanes that an instruction needs.
    fn needed(&self, op: &Op, mask: u32) -> Outcome<u32> {
        match *op {
            Op::Barrier(_) => Ok(self.lanes),
            Op::Mma(_) | Op::LdMatrix { .. } => Ok(u32::MAX),
            Op::Shuffle { members, .. } | Op::Vote { members, .. } | Op::WarpBarrier(members) => {
                let named = self.w(members, mask)?;
                Ok(lanes(mask).fold(0, |all, lane| all | named[lane]))
            }
            _ => Ok(mask),
        }
    }

    /// All threads of the warp wait; threads that have ended never arrive.
    fn barrier(&mut self, id: u8, mask: u32) -> Outcome<()> {
        if mask != self.lanes {
            return fault(mask, Fault::DivergentBarrier { missing: self.lanes & !mask });
        }
        self.state = State::AtBarrier(id);
        Ok(())
    }

    /// Instructions from registers to registers.
    fn compute(&mut self, op: &Op, mask: u32) -> Outcome<()> {
        match *op {
            Op::MovW(d, a) => {
                let a = *self.w(a, mask)?;
                self.put_w(d, mask, &a);
            }
            Op::MovL(d, a) => {
                let a = *self.l(a, mask)?;
                self.put_l(d, mask, &a);
            }
            Op::Float { f, flush, d, a, b } => {
                let (a, b) =
                    (float::operand(flush, self.w(a, mask)?), float::operand(flush, self.w(b, mask)?));
                let out = float::result(flush, float::binary(f, &a, &b));
                self.put_w(d, mask, &out);
            }
            Op::FloatUnary { f, flush, d, a } => {
                let a = float::operand(flush, self.w(a, mask)?);
                let out = float::result(flush, float::unary(f, &a));
                self.put_w(d, mask, &out);
            }
            Op::Fma { rounding, flush, d, a, b, c } => {
                let (a, b) =
                    (float::operand(flush, self.w(a, mask)?), float::operand(flush, self.w(b, mask)?));
                let c = float::operand(flush, self.w(c, mask)?);
                let out = float::result(flush, float::fma(rounding, &a, &b, &c));
                self.put_w(d, mask, &out);
            }
            Op::Selp32 { d, a, b, c } => {
                let (a, b, c) = (self.w(a, mask)?, self.w(b, mask)?, self.p(c, mask)?);
                self.put_w(d, mask, &std::array::from_fn(|l| if c >> l & 1 != 0 { a[l] } else { b[l] }));
            }
            Op::Selp64 { d, a, b, c } => {
                let (a, b, c) = (self.l(a, mask)?, self.l(b, mask)?, self.p(c, mask)?);
                self.put_l(d, mask, &std::array::from_fn(|l| if c >> l & 1 != 0 { a[l] } else { b[l] }));
            }
            Op::Cvt { f, flush, d, a } => {
                let narrowed = |v: [u64; 32]| v.map(|x| x as u32);
                let mut a = self.bits(a, mask)?;
                if flush {
                    a = float::flushed(&narrowed(a)).map(u64::from);
                }
                let mut out = convert::convert(f, &a);
                if flush && matches!(f, crate::op::Cvt::Float { .. } | crate::op::Cvt::HalfToFloat) {
                    out = float::flushed(&narrowed(out)).map(u64::from);
                }
                self.put_bits(d, mask, &out);
            }
            Op::CvtPair { bf16, d, high, low } => {
                let f = if bf16 { convert::brain } else { convert::half };
                let half = |x: u32| u32::from(f(f32::from_bits(x)));
                let (high, low) = (self.w(high, mask)?, self.w(low, mask)?);
                self.put_w(d, mask, &std::array::from_fn(|l| half(high[l]) << 16 | half(low[l])));
            }
            Op::Pack { d, ref parts } => self.pack(d, parts, mask)?,
            Op::Unpack { ref parts, a } => self.unpack(parts, a, mask)?,
            _ => return self.compute_predicates(op, mask),
        }
        Ok(())
    }

    fn compute_predicates(&mut self, op: &Op, mask: u32) -> Outcome<()> {
        match *op {
            Op::MovP(d, a) => self.put_p(d, mask, self.p(a, mask)?),
            Op::NotP(d, a) => self.put_p(d, mask, !self.p(a, mask)?),
            Op::BoolP(f, d, a, b) => self.put_p(d, mask, bool_fn(f, self.p(a, mask)?, self.p(b, mask)?)),
            Op::SetP32 { test, narrow, flush, ref to, a, b } => {
                let (a, b) = (int::widen(narrow, self.w(a, mask)?), int::widen(narrow, self.w(b, mask)?));
                let holds = float::compare32(test, &float::operand(flush, &a), &float::operand(flush, &b));
                self.set(to, holds, mask)?;
            }
            Op::SetP64 { test, ref to, a, b } => {
                let holds = float::compare64(test, self.l(a, mask)?, self.l(b, mask)?);
                self.set(to, holds, mask)?;
            }
            _ => return self.compute_ints(op, mask),
        }
        Ok(())
    }

    fn compute_ints(&mut self, op: &Op, mask: u32) -> Outcome<()> {
        match *op {
            Op::Int32 { f, narrow, d, a, b } => {
                self.put_w(d, mask, &int::binary(f, narrow, self.w(a, mask)?, self.w(b, mask)?));
            }
            Op::Int64 { f, d, a, b } => {
                self.put_l(d, mask, &int::binary64(f, self.l(a, mask)?, self.l(b, mask)?));
            }
            Op::Shift32 { f, narrow, d, a, b } => {
                let a = int::widen(narrow, self.w(a, mask)?);
                self.put_w(d, mask, &int::shift32(f, &a, self.w(b, mask)?));
            }
            Op::Shift64 { f, d, a, b } => {
                self.put_l(d, mask, &int::shift64(f, self.l(a, mask)?, self.w(b, mask)?));
            }
            Op::Unary32 { f, narrow, d, a } => {
                let a = int::widen(narrow, self.w(a, mask)?);
                self.put_w(d, mask, &int::unary32(f, &a));
            }
            Op::Unary64 { f, d, a } => self.put_l(d, mask, &int::unary64(f, self.l(a, mask)?)),
            Op::Count64 { f, d, a } => {
                self.put_w(d, mask, &int::unary64(f, self.l(a, mask)?).map(|n| n as u32));
            }
            Op::Mad32 { f, narrow, d, a, b, c } => {
                let product = int::binary(f, narrow, self.w(a, mask)?, self.w(b, mask)?);
                let sum = int::binary(crate::op::IntFn::Add, narrow, &product, self.w(c, mask)?);
                self.put_w(d, mask, &sum);
            }
            Op::Mad64 { f, d, a, b, c } => {
                let product = int::binary64(f, self.l(a, mask)?, self.l(b, mask)?);
                self.put_l(d, mask, &int::binary64(crate::op::IntFn::Add, &product, self.l(c, mask)?));
            }
            Op::Wide64 { signed, d, a, b, c } => {
                let mut out = int::wide64(signed, self.w(a, mask)?, self.w(b, mask)?);
                if let Some(c) = c {
                    out = int::binary64(crate::op::IntFn::Add, &out, self.l(c, mask)?);
                }
                self.put_l(d, mask, &out);
            }
            Op::Wide32 { signed, d, a, b, c } => {
                let narrow = if signed { Narrow::Signed } else { Narrow::Unsigned };
                let (a, b) = (int::widen(narrow, self.w(a, mask)?), int::widen(narrow, self.w(b, mask)?));
                let mut out = int::binary32(crate::op::IntFn::MulLo, &a, &b);
                if let Some(c) = c {
                    out = int::binary32(crate::op::IntFn::Add, &out, self.w(c, mask)?);
                }
                self.put_w(d, mask, &out);
            }
            _ => return self.compute_fields(op, mask),
        }
        Ok(())
    }

    fn compute_fields(&mut self, op: &Op, mask: u32) -> Outcome<()> {
        match *op {
            Op::Field { f, d, a, b, c } => {
                let out = field::words(f, self.w(a, mask)?, self.w(b, mask)?, self.w(c, mask)?);
                self.put_w(d, mask, &out);
            }
            Op::Extract64 { signed, d, a, b, c } => {
                let out = field::extract64(signed, self.l(a, mask)?, self.w(b, mask)?, self.w(c, mask)?);
                self.put_l(d, mask, &out);
            }
            Op::Insert32 { d, a, b, position, length } => {
                let (position, length) = (self.w(position, mask)?, self.w(length, mask)?);
                self.put_w(d, mask, &field::insert32(self.w(a, mask)?, self.w(b, mask)?, position, length));
            }
            Op::Insert64 { d, a, b, position, length } => {
                let (position, length) = (self.w(position, mask)?, self.w(length, mask)?);
                self.put_l(d, mask, &field::insert64(self.l(a, mask)?, self.l(b, mask)?, position, length));
            }
            // All others are handled before: `step` and `compute` list them.
            _ => {}
        }
        Ok(())
    }

    /// `setp`: p = f(holds, c), q = f(!holds, c).
    fn set(&mut self, to: &SetTo, holds: u32, mask: u32) -> Outcome<()> {
        let (mut yes, mut no) = (holds, !holds);
        if let Some(Combine { f, c, negate }) = to.combine {
            let c = self.p(c, mask)? ^ if negate { u32::MAX } else { 0 };
            (yes, no) = (bool_fn(f, yes, c), bool_fn(f, no, c));
        }
        self.put_p(to.p, mask, yes);
        if let Some(q) = to.q {
            self.put_p(q, mask, no);
        }
        Ok(())
    }

    fn pack(&mut self, d: Slot, parts: &Lanes, mask: u32) -> Outcome<()> {
        let size = part_bits(d, parts);
        let mut out = [0; 32];
        for (i, part) in parts.iter().enumerate() {
            let part = self.bits(part, mask)?;
            for lane in 0..32 {
                out[lane] |= (part[lane] & (u64::MAX >> (64 - size))) << (size * i as u32);
            }
        }
        self.put_bits(d, mask, &out);
        Ok(())
    }

    fn unpack(&mut self, parts: &Lanes, a: Slot, mask: u32) -> Outcome<()> {
        let size = part_bits(a, parts);
        let a = self.bits(a, mask)?;
        for (i, part) in parts.iter().enumerate() {
            self.put_bits(part, mask, &a.map(|a| a >> (size * i as u32) & (u64::MAX >> (64 - size))));
        }
        Ok(())
    }
}

/// Bits of a part of a register.
fn part_bits(whole: Slot, parts: &Lanes) -> u32 {
    let bits = if matches!(whole, Slot::L(_)) { 64 } else { 32 };
    bits / u32::from(parts.count)
}
