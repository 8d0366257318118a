//! Convolution and pooling in one task: rows of the convolution in scratch, pooled from there.
//!
//! A task computes the rows that its windows need, also those that a neighbour's windows share.
//! Around the image the rows hold what never wins (minus infinity) or adds nothing (zero), so that
//! padded and partial windows are like all others.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::builder::Builder;
use super::conv::{ConvGroup, Outputs, Task};
use super::conv_tile::Sums;
use super::elementwise::{add, div, f32, max};
use super::generic::lowest;
use super::pool::{UNROLLED_WINDOW, count};
use crate::graph::op::Window;
use crate::graph::{NodeId, Op};
use crate::kernel::{BufferId, Expr, Guard, Index, LoopKind, Memory};

/// What a pooling does with the elements of a window.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Max,
    /// The mean; all windows have that many elements.
    Mean(usize),
}

/// The rows of a group of output channels.
struct Rows {
    buffer: BufferId,
    columns: usize,
}

impl ConvGroup<'_> {
    /// The loops with a pooling.
    pub fn pooled_rows(&self, b: &mut Builder, task: &Task, pool: NodeId, w: &Window) {
        let g = &self.geometry;
        let Some(kind) = kind(b, pool, w) else {
            b.failed = true;
            return;
        };
        let out = b.bind(&self.out, Access::Write, "out");
        let [_, _, left, _] = w.padding;
        let width = (self.out.shape[3] - 1) * w.stride[1] + (w.kernel[1] - 1) * w.dilation[1] + 1;
        let columns = width.max(left + g.conv[1]);
        let shape = [g.conv_rows, columns, g.tile.vectors, self.lanes];
        let buffer = b.kernel.buffer("conv_rows", DType::F32, &shape, Memory::Scratch);
        let rows = Rows { buffer, columns };
        self.borders(b, &rows, left, kind);
        self.each_group(b, task, &mut |b, outputs| {
            self.stage_block(b, task, &outputs.group);
            self.conv_rows_of_group(b, task, &rows, outputs, (pool, left, kind));
            b.serial("r", g.task_rows, |b, r| {
                let row = task.first_row.clone() + r.clone();
                let inside = Guard::between(&row, 0, g.rows as i64, b.extents());
                b.when(inside, |b| {
                    b.serial("w", self.out.shape[3], |b, column| {
                        let pooled = self.pool_window(b, &rows, w, kind, [&r, &column]);
                        self.finish_pixel(b, out, pool, &pooled, [&task.n, &outputs.group, &row, &column]);
                    });
                });
            });
        });
    }

    /// Fills the columns left and right of the image, once a task.
    fn borders(&self, b: &mut Builder, rows: &Rows, left: usize, kind: Kind) {
        let right = left + self.geometry.conv[1];
        b.serial("r", self.geometry.conv_rows, |b, r| {
            b.serial("c", left, |b, c| self.fill(b, rows, &r, c, kind));
            b.serial("c", rows.columns - right, |b, c| self.fill(b, rows, &r, c + right, kind));
        });
    }

    fn fill(&self, b: &mut Builder, rows: &Rows, row: &Index, column: Index, kind: Kind) {
        b.unroll("v", self.geometry.tile.vectors, |b, v| {
            b.vector(self.lanes, |b, lane| {
                b.store(rows.buffer, vec![row.clone(), column, v, lane], kind.neutral());
            });
        });
    }

    /// The convolution and the elementwise work before the pooling, to scratch.
    fn conv_rows_of_group(
        &self,
        b: &mut Builder,
        task: &Task,
        rows: &Rows,
        outputs: &Outputs,
        (pool, left, kind): (NodeId, usize, Kind),
    ) {
        let pooled = b.scope.graph.operands(pool)[0];
        self.each_rows(b, task, &mut |b, r, count| {
            let row = task.first_conv_row.clone() + r.clone();
            self.tiles_of_rows(b, task, outputs, (r, count), &mut |b, sums, [down, column]| {
                self.each_vector(b, &mut |b, vector| {
                    let channel = self.channel(&outputs.group, vector);
                    let index = vec![task.n.clone(), channel, row.clone() + down.clone(), column.clone()];
                    let sum = sums.get(vector.number.clone(), vector.lane.clone());
                    b.memo.push((self.anchor, index.clone(), sum));
                    let value = b.value(pooled, &index);
                    let at = [r.clone() + down.clone(), column.clone() + left];
                    let at = [at.as_slice(), &[vector.number.clone(), vector.lane.clone()]].concat();
                    b.store(rows.buffer, at, value);
                });
            });
        });
        self.rows_outside(b, task, rows, left, kind);
    }

    /// Fills the rows above and below the image.
    fn rows_outside(&self, b: &mut Builder, task: &Task, rows: &Rows, left: usize, kind: Kind) {
        let [height, width] = self.geometry.conv;
        b.serial("r", self.geometry.conv_rows, |b, r| {
            let row = task.first_conv_row.clone() + r.clone();
            for guard in Guard::outside(&row, height as i64, b.extents()) {
                b.when(vec![guard], |b| {
                    b.serial("c", width, |b, c| self.fill(b, rows, &r, c + left, kind));
                });
            }
        });
    }

    /// Reduces a window; `row` and `column` count from the task's first.
    fn pool_window(&self, b: &mut Builder, rows: &Rows, w: &Window, kind: Kind, at: [&Index; 2]) -> Sums {
        let (lanes, vectors) = (self.lanes, self.geometry.tile.vectors);
        let shape = [vectors, lanes];
        let pooled = b.kernel.buffer("pooled", DType::F32, &shape, Memory::Register);
        let each = |b: &mut Builder, value: &dyn Fn(Expr, [Index; 2]) -> Expr| {
            b.unroll("v", vectors, |b, v| {
                b.vector(lanes, |b, lane| {
                    let cell = vec![v.clone(), lane.clone()];
                    let so_far = Expr::Load(pooled, cell.clone());
                    b.store(pooled, cell, value(so_far, [v, lane]));
                });
            });
        };
        each(b, &|_, _| kind.neutral());
        let written_out = w.kernel[0] * w.kernel[1] <= UNROLLED_WINDOW;
        let how = if written_out { LoopKind::Unroll } else { LoopKind::Serial };
        b.repeat(how, "kh", w.kernel[0], |b, kh| {
            b.repeat(how, "kw", w.kernel[1], |b, kw| {
                let place = |axis: usize, k: &Index| {
                    at[axis].clone() * w.stride[axis] as i64 + k.clone() * w.dilation[axis] as i64
                };
                let (row, column) = (place(0, &kh), place(1, &kw));
                each(b, &|so_far, [v, lane]| {
                    let x = Expr::Load(rows.buffer, vec![row.clone(), column.clone(), v, lane]);
                    match kind {
                        Kind::Max => max(so_far, x),
                        Kind::Mean(_) => add(so_far, x),
                    }
                });
            });
        });
        if let Kind::Mean(n) = kind {
            each(b, &|sum, _| div(sum, f32(n as f64)));
        }
        Sums::new(pooled, vec![])
    }
}

impl Kind {
    fn neutral(self) -> Expr {
        match self {
            Kind::Max => lowest(DType::F32),
            Kind::Mean(_) => f32(0.0),
        }
    }
}

/// What the pooling does; `None` for means over windows of unequal numbers of elements.
fn kind(b: &Builder, pool: NodeId, w: &Window) -> Option<Kind> {
    let graph = b.scope.graph;
    let include = match &graph.node(pool).op {
        Op::MaxPool2d(_) => return Some(Kind::Max),
        Op::AvgPool2d(p) => p.count_include_pad,
        _ => return None,
    };
    let (shape, out) = (b.shape_of(graph.operands(pool)[0]), b.shape_of(pool));
    let mut elements = 1;
    for axis in 0..2 {
        let counted = |i: usize| count(w, include, shape[2 + axis], axis, i);
        if (1..out[2 + axis]).any(|i| counted(i) != counted(0)) {
            return None;
        }
        elements *= counted(0);
    }
    Some(Kind::Mean(elements.max(1)))
}
