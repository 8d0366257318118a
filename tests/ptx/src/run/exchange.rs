//! Shuffles and votes: what lanes of a warp tell each other.

use super::warp::{Outcome, Warp, fault, lanes};
use crate::error::Fault;
use crate::op::{P, ShuffleMode, Slot, Vote, W};

/// A shuffle's parts.
pub(super) struct Shuffle {
    pub mode: ShuffleMode,
    pub d: W,
    pub p: Option<P>,
    pub a: W,
    pub b: W,
    pub c: W,
    pub members: W,
}

impl Warp {
    pub(super) fn shuffle(&mut self, s: &Shuffle, mask: u32) -> Outcome<()> {
        let members = self.need_members(s.members, mask)?;
        let (a, b, c) = (self.w(s.a, mask)?, self.w(s.b, mask)?, self.w(s.c, mask)?);
        let (mut out, mut in_range) = ([0; 32], 0u32);
        for lane in lanes(mask) {
            let (me, by) = (lane as u32, b[lane] & 31);
            // The upper field of `c` says which bits of the lane's number its segment fixes.
            let (clamp, segment) = (c[lane] & 31, c[lane] >> 8 & 31);
            let first = me & segment;
            let last = first | clamp & !segment;
            let (from, inside) = match s.mode {
                ShuffleMode::Up => (me.wrapping_sub(by), me as i32 - by as i32 >= last as i32),
                ShuffleMode::Down => (me + by, me + by <= last),
                ShuffleMode::Bfly => (me ^ by, me ^ by <= last),
                ShuffleMode::Idx => (first | by & !segment, first | by & !segment <= last),
            };
            let from = if inside { from } else { me };
            if members[lane] >> from & 1 == 0 {
                return fault(1 << lane, Fault::InactiveLane(from));
            }
            out[lane] = a[from as usize];
            in_range |= u32::from(inside) << lane;
        }
        self.put_w(s.d, mask, &out);
        if let Some(p) = s.p {
            self.put_p(p, mask, in_range);
        }
        Ok(())
    }

    pub(super) fn vote(
        &mut self,
        f: Vote,
        d: Slot,
        a: P,
        negate: bool,
        members: W,
        mask: u32,
    ) -> Outcome<()> {
        let members = self.need_members(members, mask)?;
        let votes = self.p(a, mask)? ^ if negate { u32::MAX } else { 0 };
        // A lane's result is that of its group.
        let result = |group: u32| match f {
            Vote::All => u32::from(votes & group == group),
            Vote::Any => u32::from(votes & group != 0),
            Vote::Uni => u32::from(votes & group == group || votes & group == 0),
            Vote::Ballot => votes & group,
        };
        self.put_bits(d, mask, &members.map(|group| result(group).into()));
        Ok(())
    }
}
