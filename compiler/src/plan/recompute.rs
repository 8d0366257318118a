//! Launches in an order in which some values are dropped and computed again.
//!
//! ```text
//! conv(x → a)                 conv(x → a)
//! relu(a → b)                 relu(a → b)
//! …                     →     …                    `b` takes no room here
//! grad(b, dy → dw)            relu(a → b')
//!                             grad(b', dy → dw)
//! ```
//!
//! A value waits longest between its last use in the forward part and its first one in the backward part:
//! there it is dropped. Before that next use, the launches that wrote it run again and write a second value,
//! which later users read instead; where what these launches read was dropped too, its launches run first:
//! a segment between values that were kept is computed again as one. Each value is computed at most twice.
//! They are the same kernels on the same bits, so they give the same bits.
//!
//! What changes a parameter (running statistics) never runs twice, and what reads one does so before
//! the parameter is updated, or the value is not dropped.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

use nnc_runtime::program::{Access, Phase};

use super::jobs::Touches;
use super::{ALIGNMENT, arena_bytes, touches};
use crate::kernel::Memory;
use crate::kernel::module::{Arg, Launch, Module, Role, Value, ValueId};

/// Smaller values are not worth a launch.
const LEAST_BYTES: usize = 16 << 10;

/// Floating-point operations that take as long as moving a byte to or from memory: on two cores with
/// AVX-512, convolutions reach some 100 GFLOP/s, elementwise kernels some 12 GB/s.
const FLOPS_PER_BYTE: u64 = 8;

/// Bytes that could be moved while a launch starts.
const LAUNCH_COST: u64 = 16 << 10;

/// Why a value cannot be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It is not worth a launch.
    Small,
    /// Its kernel changes parameters (running statistics), which must happen once.
    ChangesState,
    /// Its kernel adds to what is there, or makes it together with other parts.
    Shared,
    /// There is no time at which it waits.
    NeverIdle,
}

impl Display for Obstacle {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Obstacle::Small => "too small to be worth a kernel",
            Obstacle::ChangesState => "its kernel changes running statistics, which must happen once",
            Obstacle::Shared => "its kernel does not make it alone",
            Obstacle::NeverIdle => "it never waits",
        })
    }
}

/// The launches of the run phase, as they are.
pub(super) struct Base<'a> {
    pub module: &'a Module,
    /// Launches of the prepare phase.
    first: usize,
    touches: Vec<Touches>,
    /// Bytes of every value in the arena; 0 elsewhere.
    pub bytes: Vec<usize>,
    /// The launches that write a value.
    writers: Vec<Vec<usize>>,
    /// For every value, the last use before it is dropped and the first one after.
    gaps: Vec<Result<(usize, usize), Obstacle>>,
    costs: Vec<u64>,
}

/// A launch in its turn.
struct Turn {
    launch: usize,
    /// The values that it has in place of its own.
    values: Vec<usize>,
}

/// An order of launches, some of them for the second time.
pub(super) struct Schedule {
    turns: Vec<Turn>,
    /// Where each launch has its own turn.
    position: Vec<usize>,
    /// New values, which follow the module's: what each is in place of, and whether anyone reads it.
    added: Vec<(usize, bool)>,
    /// What the repeated launches cost, in bytes that could be moved meanwhile.
    pub cost: u64,
}

impl<'a> Base<'a> {
    /// Of a module whose launches are in order.
    pub fn new(module: &'a Module) -> Base<'a> {
        let first = module.launches.iter().take_while(|l| l.phase == Phase::Prepare).count();
        let touches = touches(module, &module.launches[first..]);
        let mut writers = vec![vec![]; module.values.len()];
        for (l, of) in touches.iter().enumerate() {
            let written: BTreeSet<usize> =
                of.iter().filter(|&&(_, access)| access != Access::Read).map(|&(v, _)| v).collect();
            written.into_iter().for_each(|v: usize| writers[v].push(l));
        }
        let costs = module.launches[first..].iter().map(|l| cost(module, l)).collect();
        let bytes = arena_bytes(module);
        let mut base = Base { module, first, touches, bytes, writers, gaps: vec![], costs };
        base.gaps = (0..module.values.len()).map(|v| base.gap(v)).collect();
        base
    }

    /// Values that may be dropped, in the order in which they are made.
    pub fn candidates(&self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.gaps.len()).filter(|&v| self.gaps[v].is_ok()).collect();
        all.sort_by_key(|&v| (self.writers[v].first().copied(), v));
        all
    }

    /// What is in the way of dropping a value.
    pub fn obstacle(&self, value: usize) -> Option<Obstacle> {
        self.gaps[value].err()
    }

    /// What computing a value again costs, with what it is made of at hand.
    pub fn cost_of(&self, value: usize) -> u64 {
        self.writers[value].iter().map(|&w| self.costs[w]).sum()
    }

    fn gap(&self, v: usize) -> Result<(usize, usize), Obstacle> {
        if self.bytes[v] < LEAST_BYTES {
            return Err(Obstacle::Small);
        }
        let role = |v: usize| &self.module.values[v].role;
        for &w in &self.writers[v] {
            for &(other, access) in self.touches[w].iter().filter(|&&(_, access)| access != Access::Read) {
                if matches!(role(other), Role::State(_)) {
                    return Err(Obstacle::ChangesState);
                }
                let part = self.writers[v].len() > 1 && other != v;
                if access == Access::ReadWrite || *role(other) != Role::Temporary || part {
                    return Err(Obstacle::Shared);
                }
            }
        }
        let Some(&written) = self.writers[v].last() else { return Err(Obstacle::NeverIdle) };
        let uses: Vec<usize> = (0..self.touches.len())
            .filter(|&l| l >= written && self.touches[l].iter().any(|&(other, _)| other == v))
            .collect();
        let longest = uses.windows(2).max_by_key(|w| (w[1] - w[0], std::cmp::Reverse(w[0])));
        match longest {
            Some(w) if w[1] - w[0] > 1 => Ok((w[0], w[1])),
            _ => Err(Obstacle::NeverIdle),
        }
    }

    /// The order in which these values are dropped and computed again; `None` if a parameter would have
    /// changed meanwhile.
    pub fn schedule(&self, dropped: &[bool]) -> Option<Schedule> {
        let mut out = Schedule { turns: vec![], position: vec![], added: vec![], cost: 0 };
        let mut copies: Vec<Option<usize>> = vec![None; self.bytes.len()];
        let mut changed = vec![false; self.bytes.len()];
        for (at, of) in self.touches.iter().enumerate() {
            let gone = |v: usize| dropped[v] && self.gaps[v].is_ok_and(|(last, _)| last < at);
            for launch in self.needed_again(of, &gone, &copies) {
                if self.touches[launch].iter().any(|&(v, _)| changed[v]) {
                    return None;
                }
                let mut values = vec![];
                for &(v, access) in &self.touches[launch] {
                    values.push(match (access, copies[v]) {
                        (Access::Read, copy) => copy.filter(|_| gone(v)).unwrap_or(v),
                        (_, Some(copy)) if gone(v) => copy,
                        _ => {
                            out.added.push((v, gone(v)));
                            let new = self.bytes.len() + out.added.len() - 1;
                            copies[v] = gone(v).then_some(new);
                            new
                        }
                    });
                }
                out.cost += self.costs[launch];
                out.turns.push(Turn { launch, values });
            }
            let values = of.iter().map(|&(v, _)| copies[v].filter(|_| gone(v)).unwrap_or(v)).collect();
            out.position.push(out.turns.len());
            out.turns.push(Turn { launch: at, values });
            for &(v, access) in of {
                changed[v] |= access != Access::Read && matches!(self.module.values[v].role, Role::State(_));
            }
        }
        Some(out)
    }

    /// The launches that must run once more so that one finds what it reads, in order.
    fn needed_again(
        &self,
        of: &Touches,
        gone: &dyn Fn(usize) -> bool,
        copies: &[Option<usize>],
    ) -> BTreeSet<usize> {
        let mut again = BTreeSet::new();
        let missing = |of: &Touches| -> Vec<usize> {
            let reads = of.iter().filter(|&&(_, access)| access == Access::Read).map(|&(v, _)| v);
            reads.filter(|&v| gone(v) && copies[v].is_none()).collect()
        };
        let mut work = missing(of);
        while let Some(v) = work.pop() {
            for &w in &self.writers[v] {
                if again.insert(w) {
                    work.extend(missing(&self.touches[w]));
                }
            }
        }
        again
    }

    /// The bytes that are alive in every turn of a schedule.
    pub fn levels(&self, schedule: &Schedule) -> Vec<usize> {
        let values = self.bytes.len() + schedule.added.len();
        let mut lives: Vec<Option<(usize, usize)>> = vec![None; values];
        for (at, turn) in schedule.turns.iter().enumerate() {
            for &v in &turn.values {
                lives[v] = Some((lives[v].map_or(at, |(first, _)| first), at));
            }
        }
        let mut changes = vec![0isize; schedule.turns.len() + 1];
        for (v, life) in lives.iter().enumerate() {
            let first = if v < self.bytes.len() { v } else { schedule.added[v - self.bytes.len()].0 };
            if let (&Some((begin, end)), bytes) = (life, self.bytes[first]) {
                changes[begin] += bytes as isize;
                changes[end + 1] -= bytes as isize;
            }
        }
        changes.pop();
        let mut level = 0;
        let add = |change: isize| {
            level += change;
            level as usize
        };
        changes.into_iter().map(add).collect()
    }

    /// The turns between which a value of the module waits and is not used.
    pub fn idle(&self, schedule: &Schedule, value: usize) -> std::ops::Range<usize> {
        match self.gaps[value] {
            Ok((last, next)) => schedule.position[last] + 1..schedule.position[next],
            Err(_) => 0..0,
        }
    }

    /// The module with its launches in that order.
    pub fn apply(&self, schedule: &Schedule) -> Module {
        let mut out = self.module.clone();
        for (i, &(of, read)) in schedule.added.iter().enumerate() {
            let first = &self.module.values[of];
            out.values
                .push(Value { name: format!("{} again", first.name).trim().to_string(), ..first.clone() });
            if read {
                let copy = ValueId((self.module.values.len() + i) as u32);
                out.recomputed.push((copy, ValueId(of as u32)));
            }
        }
        out.launches.truncate(self.first);
        for turn in &schedule.turns {
            let launch = &self.module.launches[self.first + turn.launch];
            let arg = |(a, &v): (&Arg, &usize)| Arg { value: ValueId(v as u32), offset: a.offset };
            let args = launch.args.iter().zip(&turn.values).map(arg).collect();
            out.launches.push(Launch { args, ..launch.clone() });
        }
        out
    }
}

/// What a launch costs: the bytes that could be moved while it runs.
fn cost(module: &Module, launch: &Launch) -> u64 {
    let kernel = &module.kernels[launch.kernel];
    let global = kernel.buffers.iter().filter(|b| matches!(b.memory, Memory::Global(_)));
    let moved: usize = global.map(|b| (b.extent() * b.dtype.size()).next_multiple_of(ALIGNMENT)).sum();
    (moved as u64).max(kernel.flops / FLOPS_PER_BYTE) + LAUNCH_COST
}
