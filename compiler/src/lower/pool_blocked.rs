//! Poolings of blocked channels with small windows: no guards where a window is inside, and the maxima
//! of columns shared by the windows that overlap.
//!
//! Rows and columns of the result are sorted by which part of their windows is inside the input; loops
//! run over those that are [alike](Alike), mostly three of them. Maxima come out the same in any order: first
//! down the columns of some neighbouring windows, then across. Means are summed row by row, as everywhere.

use std::ops::Range;

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::{Place, position};
use super::builder::{Builder, Operand, Scope, is_vectorisable};
use super::elementwise::{add, div, f32, max, sizes};
use super::generic::lowest;
use super::pool::{UNROLLED_WINDOW, count};
use crate::graph::op::{AvgPool2d, MaxPool2d, Window};
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Guard, Index, Kernel};

/// Neighbouring windows that are reduced together.
const STEP: usize = 4;

/// With fewer tasks than that the rows are tasks, too: enough to balance eight threads.
const TASKS: usize = 16;

/// A group with a pooling: `result` is it, or elementwise work after it.
pub(super) struct Pooling<'a> {
    pub name: &'a str,
    pub anchor: NodeId,
    pub result: NodeId,
    pub out: &'a Place,
    pub lanes: usize,
}

/// Neighbouring windows along an axis of which the same part is inside.
#[derive(Clone, Debug, PartialEq)]
struct Alike {
    first: usize,
    count: usize,
    /// The positions in the window.
    inside: Range<usize>,
    /// Positions that a mean counts.
    counted: usize,
}

/// What is read.
struct Source<'a> {
    window: &'a Window,
    /// Whether a mean is computed, not a maximum.
    mean: bool,
    buffer: BufferId,
    /// Image, block of channels.
    outer: [Index; 2],
}

/// Windows of one row that are reduced together.
struct Step<'s> {
    rows: &'s Alike,
    columns: &'s Alike,
    row: Index,
    first: Index,
    count: usize,
}

impl Pooling<'_> {
    /// The kernel; `None` for other layouts, large or dilated windows.
    pub fn kernel(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        let graph = scope.graph;
        let (window, include_pad) = match &graph.node(self.anchor).op {
            Op::MaxPool2d(MaxPool2d { window }) => (window, None),
            Op::AvgPool2d(AvgPool2d { window, count_include_pad }) => (window, Some(*count_include_pad)),
            _ => return None,
        };
        let Some(Operand::Memory(x)) = scope.operands.get(&graph.operands(self.anchor)[0]) else {
            return None;
        };
        let Layout::Blocked(block) = self.out.layout else { return None };
        let fits = x.layout == self.out.layout
            && x.dtype == DType::F32
            && self.out.shape == sizes(graph.node(self.anchor))
            && usize::from(block).is_multiple_of(self.lanes)
            && window.dilation == [1; 2]
            && window.kernel.iter().product::<usize>() <= UNROLLED_WINDOW;
        if !fits {
            return None;
        }
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        b.bind(self.out, Access::Write, "out");
        let shape = self.out.physical();
        let outer = [b.task("n", shape[0]), b.task("cb", shape[1])];
        let buffer = b.bind(x, Access::Read, "x");
        let source = Source { window, mean: include_pad.is_some(), buffer, outer };
        let sorted = |axis: usize| {
            alike(window, include_pad.unwrap_or_default(), [x.shape[2 + axis], shape[2 + axis]], axis)
        };
        let [rows, columns] = [sorted(0), sorted(1)];
        let task = (shape[0] * shape[1] < TASKS).then(|| b.task("h", shape[2]));
        for rows in &rows {
            self.each_row(&mut b, &source, (&task, rows), &mut |b, row| {
                for columns in &columns {
                    self.row(b, &source, &row, rows, columns);
                }
            });
        }
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// Runs over rows that are alike: those of the task, or all.
    fn each_row(
        &self,
        b: &mut Builder,
        source: &Source,
        (task, rows): (&Option<Index>, &Alike),
        body: &mut dyn FnMut(&mut Builder, Index),
    ) {
        let Some(row) = task else {
            return b.serial("h", rows.count, |b, h| body(b, h + rows.first));
        };
        // In rows of the input, which is what has to be proved of them.
        let scale = source.window.stride[0] as i64;
        let after = (row.clone() - rows.first) * scale;
        let before = (Index::from(rows.first + rows.count - 1) - row.clone()) * scale;
        let sometimes = |g: &Index| g.range(b.extents()).0 < 0;
        let here = [after, before].into_iter().filter(sometimes).map(Guard).collect();
        b.when(here, |b| body(b, row.clone()));
    }

    /// The windows of a row that are alike.
    fn row(&self, b: &mut Builder, source: &Source, row: &Index, rows: &Alike, columns: &Alike) {
        let mut from = 0;
        for (steps, count) in [(columns.count / STEP, STEP), (1, columns.count % STEP)] {
            if count == 0 {
                continue;
            }
            let start = columns.first + from;
            b.serial("w", steps, |b, w| {
                let first = w * count as i64 + start;
                let step = Step { rows, columns, row: row.clone(), first, count };
                self.step(b, source, &step);
            });
            from += steps * count;
        }
    }

    /// Reduces neighbouring windows, and computes what follows.
    fn step(&self, b: &mut Builder, source: &Source, step: &Step) {
        let block = self.out.physical()[4];
        for v in 0..block / self.lanes {
            b.with_lanes(self.lanes, |b, lane| {
                let in_block = lane + v * self.lanes;
                let pooled = match source.mean {
                    true => source.means(b, step, &in_block),
                    false => source.maxima(b, step, &in_block),
                };
                for (i, value) in pooled.into_iter().enumerate() {
                    let channel = source.outer[1].clone() * block as i64 + in_block.clone();
                    let column = step.first.clone() + i;
                    let index = [source.outer[0].clone(), channel, step.row.clone(), column];
                    b.memo.push((self.anchor, index.to_vec(), value));
                    let value = b.value(self.result, &index);
                    let out = b.bind(self.out, Access::Write, "out");
                    let at = position(&index, self.out.layout, b.extents());
                    b.store(out, at, value);
                }
            });
        }
    }
}

impl Source<'_> {
    /// An element of the first window of a step, or of those after it.
    fn element(&self, step: &Step, [kh, kw]: [usize; 2], in_block: &Index) -> Expr {
        let along = |axis: usize, at: &Index, k: usize| {
            at.clone() * self.window.stride[axis] as i64 + k - self.window.padding[2 * axis]
        };
        let [n, block] = self.outer.clone();
        let (row, column) = (along(0, &step.row, kh), along(1, &step.first, kw));
        Expr::Load(self.buffer, vec![n, block, row, column, in_block.clone()])
    }

    /// The largest elements of the windows.
    fn maxima(&self, b: &mut Builder, step: &Step, in_block: &Index) -> Vec<Expr> {
        let stride = self.window.stride[1];
        let (rows, columns) = (&step.rows.inside, &step.columns.inside);
        let largest = |values: &mut dyn Iterator<Item = Expr>| values.reduce(max);
        let mut down = vec![None; (step.count - 1) * stride + columns.end];
        let mut pooled = vec![];
        for i in 0..step.count {
            let reach = i * stride + columns.start..i * stride + columns.end;
            for kw in reach.clone() {
                if down[kw].is_none() {
                    let column = largest(&mut rows.clone().map(|kh| self.element(step, [kh, kw], in_block)));
                    down[kw] = column.map(|c| b.named("column", DType::F32, c));
                }
            }
            let value = largest(&mut reach.filter_map(|kw| down[kw].clone()));
            pooled.push(b.named("best", DType::F32, value.unwrap_or(lowest(DType::F32))));
        }
        pooled
    }

    /// The means of the windows.
    fn means(&self, b: &mut Builder, step: &Step, in_block: &Index) -> Vec<Expr> {
        let counted = (step.rows.counted * step.columns.counted).max(1);
        let mut pooled = vec![];
        for i in 0..step.count {
            let mut sum = f32(0.0);
            for kh in step.rows.inside.clone() {
                for kw in step.columns.inside.clone() {
                    sum = add(sum, self.element(step, [kh, i * self.window.stride[1] + kw], in_block));
                }
            }
            pooled.push(b.named("mean", DType::F32, div(sum, f32(counted as f64))));
        }
        pooled
    }
}

/// The windows along an axis, sorted.
fn alike(window: &Window, include_pad: bool, [size, out]: [usize; 2], axis: usize) -> Vec<Alike> {
    let mut all: Vec<Alike> = vec![];
    for i in 0..out {
        let start = (i * window.stride[axis]) as i64 - window.padding[2 * axis] as i64;
        let within = |k: i64| (k - start).clamp(0, window.kernel[axis] as i64) as usize;
        let inside = within(0)..within(size as i64);
        let counted = count(window, include_pad, size, axis, i);
        match all.last_mut() {
            Some(last) if last.inside == inside && last.counted == counted => last.count += 1,
            _ => all.push(Alike { first: i, count: 1, inside, counted }),
        }
    }
    all
}
