//! Fits a training step into an arena of a given size, by dropping activations and computing them again.
//!
//! Which ones is a search over plans, a bounded number of them. It starts once with nothing dropped, and
//! with segments of several sizes in which only the ends are kept (Chen et al., "Training deep nets with
//! sublinear memory cost", 2016). From each start, as long as more is alive in some launch than fits, one more
//! value is dropped: of the few that wait there and give most room for the work of computing them
//! again, the one with which the plan is best. Then those are kept after all that need not be dropped.
//! What costs least of what fits is taken.

use super::plan;
use super::recompute::{Base, Schedule};
use crate::kernel::module::Module;

/// Parts of which each is a segment at first: one start of the search for each.
const SEGMENTS: [usize; 5] = [1, 2, 4, 8, 16];
/// Values whose dropping is tried in each round.
const TRIED: usize = 6;
/// How often a plan is made anew because values did not fit together without holes.
const PACKINGS: usize = 4;
/// Rounds in which the smallest size is closed in.
const CLOSING_IN: usize = 6;

/// Nothing that was found fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// The smallest arena that was found.
    pub least: usize,
}

/// The same module with an arena of no more than that many bytes: as it is if it fits, else with values
/// that are computed again.
///
/// # Errors
/// The smallest arena, if that is larger.
pub fn fit(module: &Module, arena_bytes: usize) -> Result<Module, TooSmall> {
    if plan(module).arena_bytes <= arena_bytes {
        return Ok(module.clone());
    }
    let search = Search::new(module);
    let mut target = arena_bytes;
    for _ in 0..PACKINGS {
        let Some(found) = search.cheapest(target) else { break };
        let module = search.base.apply(&found.schedule);
        let needed = plan(&module).arena_bytes;
        if needed <= arena_bytes {
            return Ok(module);
        }
        target = target.saturating_sub(needed - arena_bytes);
    }
    let module = search.smallest();
    let least = plan(&module).arena_bytes;
    if least <= arena_bytes { Ok(module) } else { Err(TooSmall { least }) }
}

struct Search<'a> {
    base: Base<'a>,
    candidates: Vec<usize>,
}

/// Values to be dropped and what comes of it.
struct State {
    dropped: Vec<bool>,
    schedule: Schedule,
    levels: Vec<usize>,
}

impl State {
    /// Bytes above the target, summed over launches.
    fn excess(&self, target: usize) -> u64 {
        self.levels.iter().map(|&l| l.saturating_sub(target) as u64).sum()
    }

    fn peak(&self) -> usize {
        self.levels.iter().copied().max().unwrap_or(0)
    }
}

impl<'a> Search<'a> {
    fn new(module: &'a Module) -> Search<'a> {
        let base = Base::new(module);
        let candidates = base.candidates();
        Search { base, candidates }
    }

    fn state(&self, dropped: Vec<bool>) -> Option<State> {
        let schedule = self.base.schedule(&dropped)?;
        let levels = self.base.levels(&schedule);
        Some(State { dropped, schedule, levels })
    }

    /// Where the search begins.
    fn starts(&self) -> Vec<State> {
        let total: usize = self.candidates.iter().map(|&v| self.base.bytes[v]).sum();
        let none = vec![false; self.base.bytes.len()];
        let segmented = SEGMENTS.iter().map(|parts| self.segments(total / parts));
        std::iter::once(none).chain(segmented).filter_map(|dropped| self.state(dropped)).collect()
    }

    /// All dropped but the last value of each segment of that many bytes.
    fn segments(&self, size: usize) -> Vec<bool> {
        let mut dropped = vec![false; self.base.bytes.len()];
        let mut filled = 0;
        for &v in &self.candidates {
            filled += self.base.bytes[v];
            if filled <= size {
                dropped[v] = true;
            } else {
                filled = 0;
            }
        }
        dropped
    }

    /// The cheapest of the plans found in which no more is alive than `target`.
    fn cheapest(&self, target: usize) -> Option<State> {
        let ends = self.starts().into_iter().map(|start| self.descend(start, target));
        let fitting = ends.filter(|state| state.excess(target) == 0);
        let pruned = fitting.map(|state| self.prune(state, target));
        pruned.min_by_key(|state| state.schedule.cost)
    }

    /// Drops more and more, until it fits or nothing more helps.
    fn descend(&self, mut state: State, target: usize) -> State {
        loop {
            let excess = state.excess(target);
            if excess == 0 {
                return state;
            }
            let tried = self.promising(&state, target).into_iter().filter_map(|v| {
                let mut dropped = state.dropped.clone();
                dropped[v] = true;
                self.state(dropped)
            });
            let gain = |s: &State| {
                let saved = excess.saturating_sub(s.excess(target));
                saved as f64 / s.schedule.cost.saturating_sub(state.schedule.cost).max(1) as f64
            };
            let best = tried.max_by(|a, b| gain(a).total_cmp(&gain(b)));
            match best {
                Some(next) if next.excess(target) < excess => state = next,
                _ => return state,
            }
        }
    }

    /// The values that wait while too much is alive and give most room for their cost.
    fn promising(&self, state: &State, target: usize) -> Vec<usize> {
        let mut sums = vec![0u64];
        for &level in &state.levels {
            sums.push(sums[sums.len() - 1] + u64::from(level > target));
        }
        let worth = |v: usize| {
            let idle = self.base.idle(&state.schedule, v);
            let crowded = if idle.is_empty() { 0 } else { sums[idle.end] - sums[idle.start] };
            (crowded * self.base.bytes[v] as u64) as f64 / self.base.cost_of(v) as f64
        };
        let waiting = self.candidates.iter().copied().filter(|&v| !state.dropped[v]);
        let mut rated: Vec<(f64, usize)> = waiting.map(|v| (worth(v), v)).filter(|r| r.0 > 0.0).collect();
        rated.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        rated.into_iter().take(TRIED).map(|(_, v)| v).collect()
    }

    /// Keeps what need not be dropped, the costliest first.
    fn prune(&self, mut state: State, target: usize) -> State {
        let mut dropped: Vec<usize> = self.candidates.iter().copied().filter(|&v| state.dropped[v]).collect();
        dropped.sort_by_key(|&v| (std::cmp::Reverse(self.base.cost_of(v)), v));
        for v in dropped {
            let mut fewer = state.dropped.clone();
            fewer[v] = false;
            if let Some(next) = self.state(fewer)
                && next.excess(target) == 0
                && next.schedule.cost <= state.schedule.cost
            {
                state = next;
            }
        }
        state
    }

    /// The plan with the smallest arena that is found by closing in on it.
    fn smallest(&self) -> Module {
        let mut best: Option<State> = None;
        let mut consider = |state: State| {
            if best.as_ref().is_none_or(|b| state.peak() < b.peak()) {
                best = Some(state);
            }
            best.as_ref().map_or(0, State::peak)
        };
        let mut above = self.starts().into_iter().map(&mut consider).min().unwrap_or(0);
        let mut below = 0;
        for _ in 0..CLOSING_IN {
            let middle = below + above.saturating_sub(below) / 2;
            for start in self.starts() {
                above = consider(self.descend(start, middle)).min(above);
            }
            if above > middle {
                below = middle;
            }
        }
        match best {
            Some(state) => self.base.apply(&state.schedule),
            None => self.base.module.clone(),
        }
    }
}
