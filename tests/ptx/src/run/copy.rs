//! Asynchronous copies from global to shared memory.
//!
//! The bytes are in place at once, but nobody may touch them until the copying thread has waited:
//! a program that passes this cannot tell when the copy happens.

use super::Env;
use super::access::at;
use super::warp::{Outcome, Pending, Warp, fault, lanes};
use crate::error::Fault;
use crate::op::{Address, P, Space, W};

/// A copy's parts.
pub(super) struct CopyOp<'a> {
    pub bytes: u8,
    pub to: &'a Address,
    pub from: &'a Address,
    pub size: Option<W>,
    pub ignore: Option<P>,
}

impl Warp {
    pub(super) fn cp_async(&mut self, env: &mut Env, copy: &CopyOp, mask: u32) -> Outcome<()> {
        let (to, from) = (self.addresses(copy.to, mask)?, self.addresses(copy.from, mask)?);
        let sizes = match copy.size {
            None => [copy.bytes.into(); 32],
            Some(w) => *self.w(w, mask)?,
        };
        let ignored = match copy.ignore {
            None => 0,
            Some(p) => self.p(p, mask)?,
        };
        env.count(Space::Shared, &to, mask, copy.bytes.into());
        let reading =
            lanes(mask).filter(|&l| ignored >> l & 1 == 0 && sizes[l] > 0).fold(0, |m, l| m | 1 << l);
        env.count(Space::Global, &from, reading, copy.bytes.into());
        for lane in lanes(mask) {
            let who = self.who(env, lane);
            let size = if ignored >> lane & 1 != 0 { 0 } else { sizes[lane] };
            if size > copy.bytes.into() {
                let (value, limit) = (size.into(), copy.bytes.into());
                return fault(1 << lane, Fault::Operand { what: "the source's size", value, limit });
            }
            let mut bytes = [0; 16];
            // What is read are the bytes up to the size, but the address must be aligned for the whole copy, even where
            // nothing is read.
            env.memory.check_aligned(from[lane], copy.bytes.into()).map_err(at(lane))?;
            let mut done = 0;
            while done < size {
                let piece = largest_piece(size - done);
                let source = (from[lane] + u64::from(done), None);
                let found = env.memory.load(source, piece, false, &who).map_err(at(lane))?;
                bytes[done as usize..(done + piece) as usize].copy_from_slice(found);
                done += piece;
            }
            let copied = &bytes[..usize::from(copy.bytes)];
            let target = env.shared.begin_copy(to[lane], copied, &who).map_err(at(lane))?;
            self.pending.push(Pending { lane: lane as u8, group: self.commits[lane], target });
        }
        Ok(())
    }

    pub(super) fn commit(&mut self, mask: u32) {
        lanes(mask).for_each(|lane| self.commits[lane] += 1);
    }

    /// Waits until only this many of the youngest committed groups may be open; `None` waits for all,
    /// committed or not.
    pub(super) fn wait(&mut self, env: &mut Env, open: Option<u32>, mask: u32) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|copy| {
            let lane = usize::from(copy.lane);
            let limit = open.map_or(u32::MAX, |n| self.commits[lane].saturating_sub(n));
            let done = mask >> lane & 1 != 0 && copy.group < limit;
            if done {
                let who = self.who(env, lane);
                env.shared.end_copy(copy.target, &who);
            }
            !done
        });
        self.pending = pending;
    }
}

/// The largest power of two that is not above the size: pieces after it stay aligned.
fn largest_piece(size: u32) -> u32 {
    1 << (31 - size.leading_zeros())
}
