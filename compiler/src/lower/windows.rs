//! Windows of blocked channels without guards: rows and columns of a result, sorted by which part of their
//! windows is inside the input. Loops run over those that are [alike](Alike), mostly three of them: the
//! first, the last, and all between.

use std::ops::Range;

use super::builder::Builder;
use crate::kernel::{Guard, Index};

/// With fewer tasks than that the rows are tasks, too: enough to balance eight threads.
const TASKS: usize = 16;

/// Windows along an axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Positions of a window.
    pub kernel: usize,
    pub stride: usize,
    /// Padding before the input.
    pub before: usize,
    /// Elements of the input.
    pub size: usize,
    /// Windows.
    pub out: usize,
}

/// Neighbouring windows along an axis of which the same part is inside.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alike {
    pub first: usize,
    pub count: usize,
    /// The positions in the window.
    pub inside: Range<usize>,
    /// Positions that a mean counts.
    pub counted: usize,
}

impl Axis {
    /// The windows, sorted; `counted` says how many positions of a window count in a mean.
    pub fn alike(&self, counted: &dyn Fn(usize) -> usize) -> Vec<Alike> {
        let mut all: Vec<Alike> = vec![];
        for i in 0..self.out {
            let start = (i * self.stride) as i64 - self.before as i64;
            let within = |k: i64| (k - start).clamp(0, self.kernel as i64) as usize;
            let inside = within(0)..within(self.size as i64);
            let counted = counted(i);
            match all.last_mut() {
                Some(last) if last.inside == inside && last.counted == counted => last.count += 1,
                _ => all.push(Alike { first: i, count: 1, inside, counted }),
            }
        }
        all
    }

    /// Where position `k` of the window is that begins at `at`.
    pub fn position(&self, at: &Index, k: usize) -> Index {
        at.clone() * self.stride as i64 + k - self.before
    }

    /// The rows as tasks, if there are few tasks without them.
    pub fn task(&self, b: &mut Builder, tasks: usize) -> Option<Index> {
        (tasks < TASKS).then(|| b.task("h", self.out))
    }

    /// Runs over rows that are alike: the task's row if it is one of them, or all.
    pub fn each(
        &self,
        b: &mut Builder,
        task: &Option<Index>,
        rows: &Alike,
        body: &mut dyn FnMut(&mut Builder, Index),
    ) {
        let Some(row) = task else {
            return b.serial("h", rows.count, |b, h| body(b, h + rows.first));
        };
        // In elements of the input, which is what has to be proved of them.
        let scale = self.stride as i64;
        let after = (row.clone() - rows.first) * scale;
        let before = (Index::from(rows.first + rows.count - 1) - row.clone()) * scale;
        let sometimes = |g: &Index| g.range(b.extents()).0 < 0;
        let here = [after, before].into_iter().filter(sometimes).map(Guard).collect();
        b.when(here, |b| body(b, row.clone()));
    }
}
