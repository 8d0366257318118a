//! Staging: the input rows of a convolution's task, copied to scratch with zeros around.

use nnc_runtime::DType;

use super::builder::Builder;
use super::conv::{Chunk, ConvGroup, Form, Source, Task};
use super::elementwise::f32;
use crate::graph::Layout;
use crate::kernel::{BufferId, Expr, Guard, Index, Memory};

/// Pixels copied in one step.
const STEP: usize = 4;

impl ConvGroup<'_> {
    /// The scratch buffer `[C/b, rows, columns, b]`; of one block for a depthwise convolution.
    pub fn stage_buffer(&self, b: &mut Builder) -> BufferId {
        b.kernel.buffer("rows", DType::F32, &self.stage_shape(), Memory::Scratch)
    }

    /// The shape of that buffer.
    pub fn stage_shape(&self) -> [usize; 4] {
        let g = &self.geometry;
        let [rows, columns] = g.staged;
        let (blocks, block) = match self.form {
            Form::Dense => (g.chunk + g.in_rest.min(1), g.in_block),
            Form::Depthwise => (1, self.block),
        };
        [blocks, rows, columns, block]
    }

    /// Copies the rows of some input channels, if they are staged.
    pub fn stage(&self, b: &mut Builder, task: &Task, chunk: &Chunk) {
        let Source::Staged(staged) = task.source else { return };
        b.serial("ic", chunk.blocks + chunk.rest.min(1), |b, ic| {
            let from = task.first_in.clone() + chunk.first.clone() + ic.clone();
            self.stage_channels(b, task, staged, [&from, &ic]);
        });
    }

    /// Copies the rows of one depthwise block, if they are staged.
    pub fn stage_block(&self, b: &mut Builder, task: &Task, block: &Index) {
        if self.form == Form::Depthwise
            && let Source::Staged(staged) = task.source
        {
            self.stage_channels(b, task, staged, [block, &Index::default()]);
        }
    }

    /// Copies the rows of one block of channels, `from` in the input, `to` in scratch.
    fn stage_channels(&self, b: &mut Builder, task: &Task, staged: BufferId, [from, to]: [&Index; 2]) {
        let [_, height, width] = self.geometry.input;
        let [rows, columns] = self.geometry.staged;
        let [top, left] = self.geometry.taps.before;
        let first = task.first_conv_row.clone() * self.geometry.taps.stride(0) as i64 - top;
        let copied = width.min(columns.saturating_sub(left));
        b.serial("r", rows, |b, r| {
            let row = first + r.clone();
            let inside = Guard::between(&row, 0, height as i64, b.extents());
            let (low, high) = row.range(b.extents());
            let line = Line { group: self, task, staged, from, to, r: &r, row: &row };
            b.when(inside, |b| {
                line.zeros(b, 0, left.min(columns));
                line.copy(b, left, copied);
                line.zeros(b, left + copied, columns.saturating_sub(left + copied));
            });
            if low < 0 {
                let above = Guard(Index::from(-1i64) - row.clone());
                b.when(vec![above], |b| line.zeros(b, 0, columns));
            }
            if high >= height as i64 {
                let below = Guard(row.clone() - height);
                b.when(vec![below], |b| line.zeros(b, 0, columns));
            }
        });
    }
}

/// One row of one block of channels.
struct Line<'l> {
    group: &'l ConvGroup<'l>,
    task: &'l Task,
    staged: BufferId,
    /// Block of channels in the input, and in the scratch buffer.
    from: &'l Index,
    to: &'l Index,
    /// In the scratch buffer.
    r: &'l Index,
    /// In the input.
    row: &'l Index,
}

impl Line<'_> {
    fn lanes_in_pixel(&self) -> usize {
        self.group.x.layout.block()
    }

    fn zeros(&self, b: &mut Builder, first: usize, count: usize) {
        self.elements(b, first, count, &mut |_, _, _| f32(0.0));
    }

    fn copy(&self, b: &mut Builder, first: usize, count: usize) {
        let from = self.task.x;
        let blocked = matches!(self.group.x.layout, Layout::Blocked(_));
        self.elements(b, first, count, &mut |line, column, in_block| {
            let column = column - first;
            let mut at = vec![line.task.n.clone(), line.from.clone(), line.row.clone(), column];
            if blocked {
                at.push(in_block);
            }
            Expr::Load(from, at)
        });
    }

    /// Stores `value` (by column of the scratch buffer and place in the block) for some columns.
    fn elements(
        &self,
        b: &mut Builder,
        first: usize,
        count: usize,
        value: &mut dyn FnMut(&Self, Index, Index) -> Expr,
    ) {
        let (lanes, block) = (self.group.lanes, self.lanes_in_pixel());
        if block == 1 {
            b.serial("s", count / lanes, |b, s| {
                b.vector(lanes, |b, lane| {
                    let column = s * lanes as i64 + lane + first;
                    self.store(b, column.clone(), Index::default(), value(self, column, Index::default()));
                });
            });
            b.serial("s", count % lanes, |b, s| {
                let column = s + first + count / lanes * lanes;
                self.store(b, column.clone(), Index::default(), value(self, column, Index::default()));
            });
            return;
        }
        let mut pixels = |b: &mut Builder, column: Index| {
            b.unroll("v", block / lanes, |b, v| {
                b.vector(lanes, |b, lane| {
                    let in_block = v * lanes as i64 + lane;
                    let x = value(self, column.clone(), in_block.clone());
                    self.store(b, column, in_block, x);
                });
            });
        };
        b.serial("s", count / STEP, |b, s| {
            b.unroll("j", STEP, |b, j| pixels(b, s * STEP as i64 + j + first));
        });
        b.serial("s", count % STEP, |b, s| pixels(b, s + first + count / STEP * STEP));
    }

    fn store(&self, b: &mut Builder, column: Index, in_block: Index, value: Expr) {
        b.store(self.staged, vec![self.to.clone(), self.r.clone(), column, in_block], value);
    }
}
