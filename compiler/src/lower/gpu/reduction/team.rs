//! How the threads of a block share a reduction: all of them have a row, or threads side by side have columns side
//! by side, several threads each.

use super::super::elements::tasks;
use super::super::schedule::Columns;
use super::Reduction;
use crate::kernel::{BinOp, Expr, Guard, Index, Memory};
use crate::kernel::{Joint, block::WARP};
use crate::lower::builder::{Builder, Cell};
use nnc_runtime::DType;

/// The threads of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Team {
    /// A row has all of them.
    Row { threads: usize },
    /// So many threads side by side have so many columns each (the lanes of vector loops), of that many in all, and a
    /// column has `down` of them.
    Columns { across: usize, lanes: usize, down: usize, columns: usize },
}

/// What a thread works on.
pub(super) struct Share {
    /// Where it is in the dimensions that stay.
    pub kept: Vec<Index>,
    /// Its number among those that share that.
    pub number: Index,
    /// What must hold for there to be such a column.
    inside: Vec<Guard>,
    /// What follows from that: this column, too, is inside.
    implied: Vec<Guard>,
}

impl Share {
    /// What is done where there is something to do.
    pub fn when_any<'a>(&self, b: &mut Builder<'a>, body: impl FnOnce(&mut Builder<'a>)) {
        b.when_implied(self.inside.clone(), self.implied.clone(), body);
    }
}

/// Elements of a thread whose loads are under way together.
const UNROLL: usize = 4;

impl Team {
    /// That of a schedule, for so many columns.
    pub fn of(schedule: Columns, columns: usize) -> Team {
        let Columns { across, lanes, down, .. } = schedule;
        Team::Columns { across, lanes, down, columns }
    }

    /// Columns of a thread.
    pub fn lanes(self) -> usize {
        match self {
            Team::Row { .. } => 1,
            Team::Columns { lanes, .. } => lanes,
        }
    }

    /// Threads of a block.
    pub fn threads(self) -> usize {
        match self {
            Team::Row { threads } => threads,
            Team::Columns { across, down, .. } => across * down,
        }
    }

    /// Threads that share what becomes one.
    pub fn size(self) -> usize {
        match self {
            Team::Row { threads } => threads,
            Team::Columns { down, .. } => down,
        }
    }

    /// Makes of every cell what the operation makes of those of all threads that share it, by halves: the first of them
    /// has it then; with `for_all`, each of them.
    pub fn join(self, b: &mut Builder, cells: &[(&Cell, BinOp)], for_all: bool) {
        let Team::Columns { across, lanes, down, .. } = self else { return b.across_block(cells) };
        debug_assert!(down.is_power_of_two());
        let shape = [cells.len(), down, across * lanes];
        let shares = b.kernel.buffer("shares", DType::F32, &shape, Memory::Shared);
        let column = |b: &Builder, thread: &Index| thread.rem(across, b.extents()) * lanes as i64 + b.lane();
        let leave = |b: &mut Builder, from: usize, to: usize| {
            b.threads(|b, thread| {
                let (y, x) = (thread.div(across, b.extents()), column(b, &thread));
                b.when(Guard::between(&y, from as i64, to as i64, b.extents()), |b| {
                    for (i, (cell, _)) in cells.iter().enumerate() {
                        b.store(shares, vec![Index::from(i), y.clone(), x.clone()], cell.get());
                    }
                });
            });
            b.joint(Joint::Barrier);
        };
        let halves = (0..down.ilog2()).rev().map(|n| 1 << n);
        for half in halves {
            leave(b, half, 2 * half);
            b.threads(|b, thread| {
                let (y, x) = (thread.div(across, b.extents()), column(b, &thread));
                b.when(Guard::between(&y, 0, half as i64, b.extents()), |b| {
                    for (i, (cell, op)) in cells.iter().enumerate() {
                        let share = Expr::Load(shares, vec![Index::from(i), y.clone() + half, x.clone()]);
                        b.assign(cell, Expr::Binary(*op, Box::new(cell.get()), Box::new(share)));
                    }
                });
            });
        }
        if for_all {
            leave(b, 0, 1);
            b.threads(|b, thread| {
                let x = column(b, &thread);
                for (i, (cell, _)) in cells.iter().enumerate() {
                    b.assign(cell, Expr::Load(shares, vec![Index::from(i), Index::default(), x.clone()]));
                }
            });
        }
    }
}

impl Reduction<'_> {
    /// A task dimension for every dimension that stays; of columns, for those of a block together.
    pub(super) fn team_tasks(&self, b: &mut Builder) -> Vec<Index> {
        debug_assert_eq!(self.team.threads() % WARP, 0);
        let mut shape = self.kept_shape();
        if let (Team::Columns { across, lanes, columns, .. }, Some(last)) = (self.team, shape.last_mut()) {
            *last = columns.div_ceil(across * lanes);
        }
        let order: Vec<usize> = (0..shape.len()).collect();
        tasks(b, &shape, &order)
    }

    /// A thread's share of a task.
    pub(super) fn share(&self, b: &Builder, task: &[Index], thread: &Index) -> Share {
        let mut kept = task.to_vec();
        let Team::Columns { across, lanes, columns, .. } = self.team else {
            return Share { kept, number: thread.clone(), inside: vec![], implied: vec![] };
        };
        let (mut inside, mut implied) = (vec![], vec![]);
        if let Some(column) = kept.last_mut() {
            let first = (column.clone() * across as i64 + thread.rem(across, b.extents())) * lanes as i64;
            // Columns are a multiple of the lanes.
            inside = Guard::between(&first, 0, (columns + 1 - lanes) as i64, b.extents());
            *column = first + b.lane();
            implied = Guard::between(column, 0, columns as i64, b.extents());
        }
        Share { kept, number: thread.div(across, b.extents()), inside, implied }
    }

    /// What one thread does of those that share something.
    pub(super) fn one_of_team(
        &self,
        b: &mut Builder,
        task: &[Index],
        body: impl FnOnce(&mut Builder, &[Index]),
    ) {
        b.threads(|b, thread| {
            let share = self.share(b, task, &thread);
            let first = Guard(share.number.clone() * -1);
            share.when_any(b, |b| b.when(vec![first], |b| body(b, &share.kept)));
        });
    }

    /// Runs over the elements of a thread of a part, of so many.
    pub(super) fn each_element(
        &self,
        b: &mut Builder,
        share: &Share,
        part: &Index,
        parts: usize,
        body: impl Fn(&mut Builder, &[Index]),
    ) {
        let size = self.team.size();
        let together = size * parts;
        let own = part.clone() * size as i64 + share.number.clone();
        let full = self.count / (together * UNROLL);
        let done = full * UNROLL * together;
        b.serial("k", full, |b, k| {
            b.unroll("u", UNROLL, |b, u| {
                let number = (k * UNROLL as i64 + u) * together as i64 + own.clone();
                let at = self.element(b, &share.kept, number);
                body(b, &at);
            });
        });
        b.serial("k", (self.count - done).div_ceil(together), |b, k| {
            let number = k * together as i64 + own.clone() + done;
            let inside = Guard::between(&number, 0, self.count as i64, b.extents());
            b.when(inside, |b| {
                let at = self.element(b, &share.kept, number);
                body(b, &at);
            });
        });
    }
}
