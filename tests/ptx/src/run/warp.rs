//! A warp: registers of its lanes, and which of them are where.
//!
//! Lanes that are at one place form a group and run together; where a branch parts them, the group
//! that is further back in the code runs first, so that parted lanes meet again behind the branch.
//! A group that comes to an instruction which needs lanes of other groups waits there for them.

use super::Env;
use crate::error::Fault;
use crate::kernel::Kernel;
use crate::op::{L, P, Slot, W};
use crate::shadow::Who;
use crate::shared::{CopyTarget, Local};

/// A value for each lane.
pub(super) type Words = [u32; 32];
/// A value for each lane.
pub(super) type Longs = [u64; 32];

/// Whether a warp can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    /// All its lanes wait at the barrier of this number.
    AtBarrier(u8),
    Done,
}

/// A fault of a lane.
#[derive(Debug)]
pub(super) struct Trouble {
    pub lane: u32,
    pub cause: Cause,
}

#[derive(Debug)]
pub(super) enum Cause {
    /// The register in this slot was not written.
    Register(Slot),
    Fault(Fault),
}

pub(super) type Outcome<T> = Result<T, Trouble>;

/// A fault of the first of these lanes.
pub(super) fn fault<T>(lanes: u32, fault: Fault) -> Outcome<T> {
    Err(Trouble { lane: lanes.trailing_zeros() % 32, cause: Cause::Fault(fault) })
}

/// The numbers of the lanes in a mask.
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |lane| mask >> lane & 1 != 0)
}

/// Lanes that run together.
#[derive(Clone, Copy, Debug)]
struct Group {
    at: usize,
    mask: u32,
    /// It waits for other lanes to come to where it is.
    parked: bool,
}

/// An asynchronous copy that a lane has not waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub lane: u8,
    /// The lane's group of copies, counted from its start.
    pub group: u32,
    pub target: CopyTarget,
}

/// 32 threads of a block (fewer in the last warp).
pub(super) struct Warp {
    words: Vec<Words>,
    longs: Vec<Longs>,
    preds: Vec<u32>,
    /// For each register the lanes that have written it.
    words_set: Vec<u32>,
    longs_set: Vec<u32>,
    preds_set: Vec<u32>,
    /// Slots that hold a value from the start.
    constants: Vec<Slot>,
    pub local: Local,
    pub first_thread: u32,
    /// The lanes that exist, and those that have ended.
    pub lanes: u32,
    pub exited: u32,
    current: Group,
    waiting: Vec<Group>,
    pub state: State,
    /// How often `bar.warp.sync` was passed.
    pub sync: u16,
    pub pending: Vec<Pending>,
    /// Groups that each lane has committed.
    pub commits: [u32; 32],
    steps: u64,
}

impl Warp {
    pub fn new(kernel: &Kernel, first_thread: u32, count: u32) -> Warp {
        let mut warp = Warp {
            words: vec![[0; 32]; kernel.words.len()],
            longs: vec![[0; 32]; kernel.longs.len()],
            preds: vec![0; kernel.preds.len()],
            words_set: vec![0; kernel.words.len()],
            longs_set: vec![0; kernel.longs.len()],
            preds_set: vec![0; kernel.preds.len()],
            constants: Vec::new(),
            local: Local::new(&kernel.local),
            first_thread,
            lanes: u32::MAX >> (32 - count),
            exited: 0,
            current: Group { at: 0, mask: 0, parked: false },
            waiting: Vec::new(),
            state: State::Done,
            sync: 0,
            pending: Vec::new(),
            commits: [0; 32],
            steps: 0,
        };
        for (&value, &slot) in &kernel.constant_words {
            warp.set_constant(slot, [value; 32]);
        }
        for (&value, &L(slot)) in &kernel.constant_longs {
            warp.longs[usize::from(slot)] = [value; 32];
            warp.constants.push(Slot::L(L(slot)));
        }
        warp
    }

    /// Gives a slot that no instruction writes its values.
    pub fn set_constant(&mut self, slot: W, values: Words) {
        self.words[usize::from(slot.0)] = values;
        if !self.constants.contains(&Slot::W(slot)) {
            self.constants.push(Slot::W(slot));
        }
    }

    /// As at the start of a block.
    pub fn reset(&mut self) {
        self.words_set.fill(0);
        self.longs_set.fill(0);
        self.preds_set.fill(0);
        for &slot in &self.constants {
            match slot {
                Slot::W(W(i)) => self.words_set[usize::from(i)] = u32::MAX,
                Slot::L(L(i)) => self.longs_set[usize::from(i)] = u32::MAX,
                Slot::P(P(i)) => self.preds_set[usize::from(i)] = u32::MAX,
            }
        }
        self.local.reset();
        self.exited = 0;
        self.current = Group { at: 0, mask: self.lanes, parked: false };
        self.waiting.clear();
        self.state = State::Running;
        self.sync = 0;
        self.pending.clear();
        self.commits = [0; 32];
        self.steps = 0;
    }

    /// Index of the present instruction.
    pub fn at(&self) -> usize {
        self.current.at
    }

    /// To the instruction before, for messages.
    pub fn step_back(&mut self) {
        self.current.at = self.current.at.saturating_sub(1);
    }

    /// Runs until all lanes have ended or wait.
    pub fn run(&mut self, env: &mut Env) -> Outcome<()> {
        let kernel = env.kernel;
        while self.state == State::Running {
            if !self.waiting.is_empty() {
                self.regroup();
            }
            let inst = &kernel.code[self.current.at];
            self.steps += 1;
            if self.steps > env.step_limit {
                return fault(self.current.mask, Fault::StepLimit(env.step_limit));
            }
            let mask = match inst.guard {
                None => self.current.mask,
                Some((p, negate)) => {
                    let bits = self.p(p, self.current.mask)?;
                    self.current.mask & if negate { !bits } else { bits }
                }
            };
            env.stats.instructions += 1;
            env.stats.thread_instructions += u64::from(mask.count_ones());
            self.step(env, &inst.op, mask)?;
        }
        Ok(())
    }

    /// Who a lane is to the race detector.
    pub fn who(&self, env: &Env, lane: usize) -> Who {
        Who { thread: (self.first_thread + lane as u32) as u16, sync: self.sync, ..env.who }
    }

    // Control.

    pub fn advance(&mut self) {
        self.current.at += 1;
    }

    /// Lanes of the mask go to the target, the others on.
    pub fn branch(&mut self, taken: u32, target: usize, uniform: bool) -> Outcome<()> {
        let on = self.current.mask & !taken;
        if taken == 0 {
            self.advance();
        } else if on == 0 {
            self.current.at = target;
        } else if uniform {
            return fault(on, Fault::NotUniform("bra.uni, but the lanes of the warp go two ways"));
        } else {
            self.waiting.push(Group { at: target, mask: taken, parked: false });
            self.current = Group { at: self.current.at + 1, mask: on, parked: false };
        }
        Ok(())
    }

    /// These lanes end.
    pub fn exit(&mut self, mask: u32) -> Outcome<()> {
        let open: Vec<u32> =
            self.pending.iter().map(|p| u32::from(p.lane)).filter(|&l| mask >> l & 1 != 0).collect();
        if let Some(&lane) = open.first() {
            let count = open.iter().filter(|&&l| l == lane).count();
            return fault(1 << lane, Fault::CopyAtExit(count));
        }
        self.exited |= mask;
        self.current.mask &= !mask;
        self.advance();
        if self.current.mask == 0 {
            match self.waiting.pop() {
                Some(group) => self.current = Group { parked: false, ..group },
                None => self.state = State::Done,
            }
        }
        Ok(())
    }

    /// Makes the group that is furthest back the current one, and joins those that are where it is.
    fn regroup(&mut self) {
        let free = self.waiting.iter().enumerate().filter(|(_, g)| !g.parked);
        if let Some((i, _)) = free.min_by_key(|(_, g)| g.at).filter(|(_, g)| g.at < self.current.at) {
            std::mem::swap(&mut self.waiting[i], &mut self.current);
        }
        let Group { at, mut mask, .. } = self.current;
        self.waiting.retain(|g| {
            if g.at == at {
                mask |= g.mask;
            }
            g.at != at
        });
        self.current.mask = mask;
    }

    /// Where the instruction needs lanes that are elsewhere and may still come here, the group waits
    /// for them, and another one runs.
    pub fn waits(&mut self, needed: u32, mask: u32) -> bool {
        if needed & !mask == 0 || mask != self.current.mask {
            return false;
        }
        let Some(i) = self.waiting.iter().position(|g| !g.parked) else { return false };
        self.current.parked = true;
        std::mem::swap(&mut self.waiting[i], &mut self.current);
        true
    }

    /// Whether lanes of the warp are in different places.
    pub fn is_parted(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// All lanes of the warp must be here.
    pub fn need_all(&self, mask: u32) -> Outcome<()> {
        if mask == u32::MAX { Ok(()) } else { fault(mask, Fault::MissingLanes { missing: !mask }) }
    }

    /// The member mask of each lane. Every lane names itself, and the lanes that it names are here and name the same:
    /// so the warp may fall into groups.
    pub fn need_members(&self, members: W, mask: u32) -> Outcome<Words> {
        let values = self.w(members, mask)?;
        let mut seen = 0;
        for lane in lanes(mask) {
            let named = values[lane];
            if named >> lane & 1 == 0 {
                return fault(
                    1 << lane,
                    Fault::NotUniform("the lane is not in the member mask that it names"),
                );
            }
            if named & !mask != 0 {
                return fault(1 << lane, Fault::MissingLanes { missing: named & !mask });
            }
            if seen >> lane & 1 == 0 {
                if let Some(other) = lanes(named).find(|&l| values[l] != named) {
                    return fault(
                        1 << other,
                        Fault::NotUniform("lanes of a group name different member masks"),
                    );
                }
                seen |= named;
            }
        }
        Ok(*values)
    }

    // Registers.

    #[inline]
    pub fn w(&self, W(i): W, mask: u32) -> Outcome<&Words> {
        let missing = mask & !self.words_set[usize::from(i)];
        if missing != 0 {
            return Err(Trouble { lane: missing.trailing_zeros(), cause: Cause::Register(Slot::W(W(i))) });
        }
        Ok(&self.words[usize::from(i)])
    }

    #[inline]
    pub fn l(&self, L(i): L, mask: u32) -> Outcome<&Longs> {
        let missing = mask & !self.longs_set[usize::from(i)];
        if missing != 0 {
            return Err(Trouble { lane: missing.trailing_zeros(), cause: Cause::Register(Slot::L(L(i))) });
        }
        Ok(&self.longs[usize::from(i)])
    }

    /// A bit a lane.
    pub fn p(&self, P(i): P, mask: u32) -> Outcome<u32> {
        let missing = mask & !self.preds_set[usize::from(i)];
        if missing != 0 {
            return Err(Trouble { lane: missing.trailing_zeros(), cause: Cause::Register(Slot::P(P(i))) });
        }
        Ok(self.preds[usize::from(i)])
    }

    #[inline]
    pub fn put_w(&mut self, W(i): W, mask: u32, values: &Words) {
        let i = usize::from(i);
        self.words_set[i] |= mask;
        let to = &mut self.words[i];
        if mask == u32::MAX {
            *to = *values;
        } else {
            for lane in 0..32 {
                to[lane] = if mask >> lane & 1 != 0 { values[lane] } else { to[lane] };
            }
        }
    }

    #[inline]
    pub fn put_l(&mut self, L(i): L, mask: u32, values: &Longs) {
        let i = usize::from(i);
        self.longs_set[i] |= mask;
        let to = &mut self.longs[i];
        if mask == u32::MAX {
            *to = *values;
        } else {
            for lane in 0..32 {
                to[lane] = if mask >> lane & 1 != 0 { values[lane] } else { to[lane] };
            }
        }
    }

    pub fn put_p(&mut self, P(i): P, mask: u32, bits: u32) {
        let i = usize::from(i);
        self.preds_set[i] |= mask;
        self.preds[i] = self.preds[i] & !mask | bits & mask;
    }

    /// The bits of a register of words or longs.
    pub fn bits(&self, slot: Slot, mask: u32) -> Outcome<Longs> {
        match slot {
            Slot::W(w) => Ok(self.w(w, mask)?.map(u64::from)),
            Slot::L(l) => self.l(l, mask).copied(),
            Slot::P(p) => {
                let bits = self.p(p, mask)?;
                Ok(std::array::from_fn(|lane| u64::from(bits >> lane & 1)))
            }
        }
    }

    pub fn put_bits(&mut self, slot: Slot, mask: u32, values: &Longs) {
        match slot {
            Slot::W(w) => self.put_w(w, mask, &values.map(|v| v as u32)),
            Slot::L(l) => self.put_l(l, mask, values),
            Slot::P(p) => {
                let bits =
                    values.iter().enumerate().fold(0, |bits, (lane, v)| bits | ((*v as u32 & 1) << lane));
                self.put_p(p, mask, bits);
            }
        }
    }

    /// One lane of a register that is known to be written.
    pub fn peek(&self, slot: Slot, lane: usize) -> u64 {
        match slot {
            Slot::W(W(i)) => self.words[usize::from(i)][lane].into(),
            Slot::L(L(i)) => self.longs[usize::from(i)][lane],
            Slot::P(P(i)) => (self.preds[usize::from(i)] >> lane & 1).into(),
        }
    }

    /// The register must be written in these lanes.
    pub fn need(&self, slot: Slot, mask: u32) -> Outcome<()> {
        let set = match slot {
            Slot::W(W(i)) => self.words_set[usize::from(i)],
            Slot::L(L(i)) => self.longs_set[usize::from(i)],
            Slot::P(P(i)) => self.preds_set[usize::from(i)],
        };
        match mask & !set {
            0 => Ok(()),
            missing => Err(Trouble { lane: missing.trailing_zeros(), cause: Cause::Register(slot) }),
        }
    }
}
