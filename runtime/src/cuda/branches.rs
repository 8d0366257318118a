//! Which launches of a run have to wait for which: those that touch the same bytes, one of them writing. The rest may
//! run side by side, the branches of an inception module for one, or the gradients of weights beside that of the input.
//!
//! Launches are dealt to a few [`MOST_LANES`] lanes, each in their order; a launch waits for those of other lanes that
//! it depends on. A program's memory plan shares bytes between values whose lives do not overlap in the program's
//! order: that, too, is kept.

use std::ops::Range;

use crate::program::{Access, Class, Phase, Program, Rows};

/// Launches that run side by side at most.
const MOST_LANES: usize = 4;

/// Bytes that a launch touches.
#[derive(Clone, Debug, PartialEq)]
struct Touched {
    /// An area of memory that shares no bytes with others, and the bytes of it.
    area: (u8, usize),
    bytes: Range<usize>,
    /// Those of them that may be touched, if not all: rows from `bytes.start` on.
    rows: Option<Rows>,
    writes: bool,
}

impl Touched {
    fn meets(&self, other: &Touched) -> bool {
        (self.writes || other.writes)
            && self.area == other.area
            && self.bytes.start < other.bytes.end
            && other.bytes.start < self.bytes.end
            && !self.interleaves(other)
    }

    /// True if the rows of one lie between those of the other.
    fn interleaves(&self, other: &Touched) -> bool {
        let (Some(a), Some(b)) = (self.rows, other.rows) else { return false };
        if a.pitch != b.pitch || a.bytes > a.pitch || b.bytes > b.pitch || a.pitch == 0 {
            return false;
        }
        // Where the other's rows begin, seen from this one's.
        let (first, second) = (self.bytes.start % a.pitch, other.bytes.start % a.pitch);
        let past = (second + a.pitch - first) % a.pitch;
        past >= a.bytes && past + b.bytes <= a.pitch
    }
}

/// When a launch starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    pub lane: usize,
    /// Launches of other lanes that it waits for.
    pub waits: Vec<usize>,
    /// Whether another lane waits for it.
    pub is_awaited: bool,
}

/// The turns of a run's launches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Branches {
    pub turns: Vec<Turn>,
    /// The last launch of each lane.
    pub last: Vec<usize>,
}

impl Branches {
    /// Those of the launches of these numbers, in their order.
    pub fn of(program: &Program, launches: &[usize]) -> Branches {
        let touched: Vec<Vec<Touched>> = launches.iter().map(|&i| touched(program, i)).collect();
        deal(&waits(&touched))
    }

    /// Whether the end of a launch is waited for: by another lane, or where all of them come together.
    pub fn is_moment(&self, i: usize) -> bool {
        let turn = &self.turns[i];
        turn.is_awaited || turn.lane > 0 && self.last[turn.lane] == i
    }

    /// How many moments of a run are waited for: these, and its beginning.
    pub fn moments(&self) -> usize {
        1 + (0..self.turns.len()).filter(|&i| self.is_moment(i)).count()
    }
}

/// What a launch of the run phase touches.
fn touched(program: &Program, launch: usize) -> Vec<Touched> {
    let launch = &program.launches[launch];
    debug_assert_eq!(launch.phase, Phase::Run);
    let params = &program.kernels[launch.kernel].params;
    let one = |(arg, param): (&crate::program::Argument, &crate::program::ParamSpec)| {
        let (kind, number, start) = match program.storages[arg.storage].class {
            Class::Arena(at) => (0, 0, at),
            Class::Input(i) => (1, i, 0),
            Class::Output(i) => (2, i, 0),
            Class::Parameter(i) | Class::State(i) => (3, i, 0),
            Class::Constant(at) => (4, 0, at),
            Class::Prepared(at) => (5, 0, at),
            Class::Preparing(at) => (6, 0, at),
        };
        let start = start + arg.offset;
        Touched {
            area: (kind, number),
            bytes: start..start + param.extent_bytes,
            rows: param.rows,
            writes: param.access != Access::Read,
        }
    };
    launch.args.iter().zip(params).map(one).collect()
}

/// The launches that each has to wait for, latest first, without those that others of them wait for; and all
/// that are before it because of that.
fn waits(touched: &[Vec<Touched>]) -> Vec<(Vec<usize>, Set)> {
    let mut all: Vec<(Vec<usize>, Set)> = vec![];
    for (i, own) in touched.iter().enumerate() {
        let (mut direct, mut before) = (vec![], Set::new(i));
        for j in (0..i).rev() {
            let meet = || touched[j].iter().any(|other| own.iter().any(|t| t.meets(other)));
            if !before.has(j) && meet() {
                direct.push(j);
                before.add_all(&all[j].1);
                before.add(j);
            }
        }
        all.push((direct, before));
    }
    all
}

/// Deals launches to lanes.
fn deal(waits: &[(Vec<usize>, Set)]) -> Branches {
    let mut branches = Branches::default();
    // Of every lane: how far it knows each lane to be, as one more than the launch; likewise at each launch.
    let mut known: Vec<Vec<usize>> = vec![];
    let mut known_at: Vec<Vec<usize>> = vec![];
    for (i, (direct, before)) in waits.iter().enumerate() {
        let lane = lane(&mut branches.last, direct, before);
        if known.len() < branches.last.len() {
            known.push(vec![0; MOST_LANES]);
        }
        branches.last[lane] = i;
        let mut turn = Turn { lane, ..Turn::default() };
        for &j in direct {
            let other = branches.turns[j].lane;
            if other != lane && known[lane][other] <= j {
                turn.waits.push(j);
                branches.turns[j].is_awaited = true;
                for (own, theirs) in known[lane].iter_mut().zip(&known_at[j]) {
                    *own = (*own).max(*theirs);
                }
            }
        }
        known[lane][lane] = i + 1;
        known_at.push(known[lane].clone());
        branches.turns.push(turn);
    }
    branches
}

/// The lane of the next launch: that of the latest one it waits for, if nothing came after that there, or a new
/// one; else one whose last launch is before it anyway, or has been there for longest.
fn lane(last: &mut Vec<usize>, direct: &[usize], before: &Set) -> usize {
    let follows = direct.iter().find_map(|j| last.iter().position(|l| l == j));
    if let Some(lane) = follows {
        return lane;
    }
    if last.len() < MOST_LANES {
        last.push(0);
        return last.len() - 1;
    }
    let latest = (0..last.len()).filter(|&l| before.has(last[l])).max_by_key(|&l| last[l]);
    latest.or_else(|| (0..last.len()).min_by_key(|&l| last[l])).unwrap_or_default()
}

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq)]
struct Set(Vec<u64>);

impl Set {
    fn new(below: usize) -> Set {
        Set(vec![0; below.div_ceil(64)])
    }

    fn has(&self, i: usize) -> bool {
        self.0.get(i / 64).is_some_and(|word| word >> (i % 64) & 1 == 1)
    }

    fn add(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    fn add_all(&mut self, other: &Set) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, theirs)| *own |= theirs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(start: usize, end: usize, writes: bool) -> Touched {
        Touched { area: (0, 0), bytes: start..end, rows: None, writes }
    }

    fn direct(launches: &[Vec<Touched>]) -> Vec<Vec<usize>> {
        waits(launches).into_iter().map(|w| w.0).collect()
    }

    /// A value, two that are made of it, and one that is made of both.
    fn diamond() -> Vec<Vec<Touched>> {
        vec![
            vec![touch(0, 8, true)],
            vec![touch(8, 16, true), touch(0, 8, false)],
            vec![touch(16, 24, true), touch(0, 8, false)],
            vec![touch(24, 32, true), touch(8, 16, false), touch(16, 24, false)],
        ]
    }

    #[test]
    fn readers_wait_for_writers_and_writers_for_readers() {
        assert_eq!(direct(&diamond()), [vec![], vec![0], vec![0], vec![2, 1]]);
        // The memory of the first value, used again.
        let again = [diamond(), vec![vec![touch(4, 6, true), touch(24, 32, false)]]].concat();
        assert_eq!(direct(&again)[4], [3]);
        let early = [&diamond()[..2], &[vec![touch(4, 6, true)]]].concat();
        assert_eq!(direct(&early)[2], [1]);
    }

    #[test]
    fn rows_beside_each_other_do_not_meet() {
        let rows = |start, bytes| Touched {
            rows: Some(Rows { pitch: 16, bytes }),
            ..touch(start, start + 64, true)
        };
        assert!(!rows(0, 8).meets(&rows(8, 8)) && !rows(8, 8).meets(&rows(0, 8)));
        assert!(!rows(100, 4).meets(&rows(104, 12)));
        assert!(rows(0, 9).meets(&rows(8, 8)) && rows(0, 8).meets(&rows(8, 9)));
        assert!(rows(0, 8).meets(&rows(16, 8)) && rows(0, 8).meets(&touch(8, 9, true)));
        let other = Touched { rows: Some(Rows { pitch: 32, bytes: 8 }), ..rows(8, 8) };
        assert!(rows(0, 8).meets(&other));
    }

    #[test]
    fn branches_have_lanes() {
        let branches = deal(&waits(&diamond()));
        let lanes: Vec<usize> = branches.turns.iter().map(|t| t.lane).collect();
        assert_eq!(lanes, [0, 0, 1, 1]);
        let of = |i: usize| (branches.turns[i].waits.as_slice(), branches.turns[i].is_awaited);
        assert_eq!(
            [of(0), of(1), of(2), of(3)],
            [(&[][..], true), (&[], true), (&[0], false), (&[1], false)]
        );
        assert_eq!(branches.last, [1, 3]);
    }

    /// Whatever launches touch, lanes and waits put those that meet in the order of the program.
    #[test]
    fn what_meets_is_in_order() {
        let mut seed = 7u64;
        let mut draw = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..200 {
            let mut launches = vec![];
            for _ in 0..draw(40) {
                let mut own = vec![];
                for k in 0..1 + draw(3) {
                    let start = draw(24) as usize;
                    own.push(touch(start, start + 1 + draw(6) as usize, k == 0));
                }
                launches.push(own);
            }
            let branches = deal(&waits(&launches));
            let mut before: Vec<Set> = vec![];
            let mut last = [None; MOST_LANES];
            for (i, turn) in branches.turns.iter().enumerate() {
                let mut set = Set::new(i);
                for j in turn.waits.iter().copied().chain(last[turn.lane]) {
                    set.add_all(&before[j]);
                    set.add(j);
                }
                last[turn.lane] = Some(i);
                for j in 0..i {
                    let meet = launches[i].iter().any(|a| launches[j].iter().any(|b| a.meets(b)));
                    assert!(!meet || set.has(j), "{j} before {i}: {launches:?} {branches:?}");
                }
                before.push(set);
            }
        }
    }
}
