//! Poolings of blocked channels with small windows: no guards where a window is
//! [inside](super::windows), and the maxima of columns shared by the windows that overlap.
//!
//! Maxima come out the same in any order: first down the columns of some neighbouring windows, then
//! across. Means are summed row by row, as everywhere.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::{Place, position};
use super::builder::{Builder, Operand, Scope, is_vectorisable};
use super::elementwise::{add, div, f32, max, sizes};
use super::generic::lowest;
use super::pool::{UNROLLED_WINDOW, count};
use super::windows::{Alike, Axis};
use crate::graph::op::{AvgPool2d, MaxPool2d};
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Index, Kernel};

/// Neighbouring windows that are reduced together.
const STEP: usize = 4;

/// A group with a pooling: `result` is it, or elementwise work after it.
pub(super) struct Pooling<'a> {
    pub name: &'a str,
    pub anchor: NodeId,
    pub result: NodeId,
    pub out: &'a Place,
    pub lanes: usize,
}

/// What is read.
struct Source {
    axes: [Axis; 2],
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
        let axes = [0, 1].map(|axis| Axis {
            kernel: window.kernel[axis],
            stride: window.stride[axis],
            before: window.padding[2 * axis],
            size: x.shape[2 + axis],
            out: self.out.shape[2 + axis],
        });
        let include = include_pad.unwrap_or_default();
        let [rows, columns] =
            [0, 1].map(|axis| axes[axis].alike(&|i| count(window, include, axes[axis].size, axis, i)));
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        b.bind(self.out, Access::Write, "out");
        let shape = self.out.physical();
        let outer = [b.task("n", shape[0]), b.task("cb", shape[1])];
        let buffer = b.bind(x, Access::Read, "x");
        let source = Source { axes, mean: include_pad.is_some(), buffer, outer };
        let task = axes[0].task(&mut b, shape[0] * shape[1]);
        for rows in &rows {
            axes[0].each(&mut b, &task, rows, &mut |b, row| {
                for columns in &columns {
                    self.row(b, &source, &row, rows, columns);
                }
            });
        }
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// The windows of a row that are alike.
    fn row(&self, b: &mut Builder, source: &Source, row: &Index, rows: &Alike, columns: &Alike) {
        let mut start = columns.first;
        for (steps, count) in [(columns.count / STEP, STEP), (1, columns.count % STEP)] {
            if count == 0 {
                continue;
            }
            b.serial("w", steps, |b, w| {
                let first = w * count as i64 + start;
                let step = Step { rows, columns, row: row.clone(), first, count };
                self.step(b, source, &step);
            });
            start += steps * count;
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

impl Source {
    /// An element of the first window of a step, or of those after it.
    fn element(&self, step: &Step, [kh, kw]: [usize; 2], in_block: &Index) -> Expr {
        let [n, block] = self.outer.clone();
        let (row, column) = (self.axes[0].position(&step.row, kh), self.axes[1].position(&step.first, kw));
        Expr::Load(self.buffer, vec![n, block, row, column, in_block.clone()])
    }

    /// The largest elements of the windows.
    fn maxima(&self, b: &mut Builder, step: &Step, in_block: &Index) -> Vec<Expr> {
        let stride = self.axes[1].stride;
        let (rows, columns) = (&step.rows.inside, &step.columns.inside);
        let mut down = vec![None; (step.count - 1) * stride + columns.end];
        let mut pooled = vec![];
        for i in 0..step.count {
            let reach = i * stride + columns.start..i * stride + columns.end;
            for kw in reach.clone() {
                if down[kw].is_none() {
                    let column = rows.clone().map(|kh| self.element(step, [kh, kw], in_block)).reduce(max);
                    down[kw] = column.map(|c| b.named("column", DType::F32, c));
                }
            }
            let value = reach.filter_map(|kw| down[kw].clone()).reduce(max);
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
                    sum = add(sum, self.element(step, [kh, i * self.axes[1].stride + kw], in_block));
                }
            }
            pooled.push(b.named("mean", DType::F32, div(sum, f32(counted as f64))));
        }
        pooled
    }
}
