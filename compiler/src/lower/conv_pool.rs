//! Convolution and pooling in one task: rows of the convolution in scratch, pooled from there.
//!
//! A task computes the rows that its windows need, also those that a neighbour's windows share.
//! Around the image the rows hold what never wins (minus infinity) or adds nothing (zero), so that
//! padded and partial windows are like all others.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::builder::Builder;
use super::conv::{BLOCK, ConvGroup, Geometry, Task};
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

/// The rows of one block of channels.
struct Rows {
    buffer: BufferId,
    columns: usize,
}

impl ConvGroup<'_> {
    /// The loops with a pooling.
    pub fn pooled_rows(&self, b: &mut Builder, geometry: &Geometry, task: &Task, pool: NodeId, w: &Window) {
        let Some(kind) = kind(b, pool, w) else {
            b.failed = true;
            return;
        };
        let out = b.bind(&self.out, Access::Write, "out");
        let [_, _, left, _] = w.padding;
        let width = (self.out.shape[3] - 1) * w.stride[1] + (w.kernel[1] - 1) * w.dilation[1] + 1;
        let columns = width.max(left + geometry.conv[1]);
        let shape = [geometry.conv_rows, columns, BLOCK];
        let buffer = b.kernel.buffer("conv_rows", DType::F32, &shape, Memory::Scratch);
        let rows = Rows { buffer, columns };
        self.borders(b, geometry, &rows, left, kind);
        b.serial("ob", geometry.task_blocks, |b, ob| {
            let block = task.first_block.clone() + ob;
            self.stage_block(b, geometry, task, &block);
            self.conv_rows_of_block(b, geometry, task, &rows, &block, (pool, left, kind));
            b.serial("r", geometry.task_rows, |b, r| {
                let row = task.first_row.clone() + r.clone();
                let inside = Guard::between(&row, 0, geometry.rows as i64, b.extents());
                b.when(inside, |b| {
                    b.serial("w", self.out.shape[3], |b, column| {
                        let pooled = self.pool_window(b, &rows, w, kind, [&r, &column]);
                        self.finish_pixel(b, out, pool, &pooled, [&task.n, &block, &row, &column]);
                    });
                });
            });
        });
    }

    /// Fills the columns left and right of the image, once a task.
    fn borders(&self, b: &mut Builder, geometry: &Geometry, rows: &Rows, left: usize, kind: Kind) {
        let right = left + geometry.conv[1];
        b.serial("r", geometry.conv_rows, |b, r| {
            b.serial("c", left, |b, c| self.fill(b, rows, &r, c, kind));
            b.serial("c", rows.columns - right, |b, c| self.fill(b, rows, &r, c + right, kind));
        });
    }

    fn fill(&self, b: &mut Builder, rows: &Rows, row: &Index, column: Index, kind: Kind) {
        let lanes = self.lanes;
        b.unroll("v", BLOCK / lanes, |b, v| {
            b.vector(lanes, |b, lane| {
                let at = vec![row.clone(), column, v * lanes as i64 + lane];
                b.store(rows.buffer, at, kind.neutral());
            });
        });
    }

    /// The convolution and the elementwise work before the pooling, to scratch.
    fn conv_rows_of_block(
        &self,
        b: &mut Builder,
        geometry: &Geometry,
        task: &Task,
        rows: &Rows,
        block: &Index,
        (pool, left, kind): (NodeId, usize, Kind),
    ) {
        let pooled = b.scope.graph.operands(pool)[0];
        let height = geometry.conv[0] as i64;
        let lanes = self.lanes as i64;
        let tile_rows = geometry.tile_rows;
        b.serial("cr", geometry.conv_rows / tile_rows, |b, r| {
            let r = r * tile_rows as i64;
            let row = task.first_conv_row.clone() + r.clone();
            let (low, high) = row.range(b.extents());
            let mut inside = Guard::between(&row, 0, height, b.extents());
            if tile_rows > 1 {
                // Tiles of several rows are made where no row is outside.
                let last = row.clone() + (tile_rows - 1);
                inside = Guard::between(&last, 0, height, b.extents());
            }
            b.when(inside, |b| {
                self.row_of_tiles(b, geometry, task, block, &r, &mut |b, sums, [down, column]| {
                    b.unroll("v", BLOCK / self.lanes, |b, v| {
                        b.with_lanes(self.lanes, |b, lane| {
                            let in_block = v.clone() * lanes + lane.clone();
                            let channel = block.clone() * BLOCK as i64 + in_block.clone();
                            let index =
                                vec![task.n.clone(), channel, row.clone() + down.clone(), column.clone()];
                            b.memo.push((self.anchor, index.clone(), sums.get(v, lane)));
                            let value = b.value(pooled, &index);
                            let at = vec![r.clone() + down, column + left, in_block];
                            b.store(rows.buffer, at, value);
                        });
                    });
                });
            });
            let mut outside = vec![];
            if low < 0 {
                outside.push(Guard(Index::from(-1i64) - row.clone()));
            }
            if high >= height {
                outside.push(Guard(row.clone() - Index::from(height)));
            }
            for guard in outside {
                b.when(vec![guard], |b| {
                    b.serial("c", geometry.conv[1], |b, c| self.fill(b, rows, &r, c + left, kind));
                });
            }
        });
    }

    /// Reduces a window; `row` and `column` count from the task's first.
    fn pool_window(&self, b: &mut Builder, rows: &Rows, w: &Window, kind: Kind, at: [&Index; 2]) -> Sums {
        let (lanes, vectors) = (self.lanes, BLOCK / self.lanes);
        let shape = [1, vectors, lanes];
        let pooled = b.kernel.buffer("pooled", DType::F32, &shape, Memory::Register);
        let each = |b: &mut Builder, value: &dyn Fn(Expr, Index) -> Expr| {
            b.unroll("v", vectors, |b, v| {
                b.vector(lanes, |b, lane| {
                    let cell = vec![Index::default(), v.clone(), lane.clone()];
                    let so_far = Expr::Load(pooled, cell.clone());
                    b.store(pooled, cell, value(so_far, v * lanes as i64 + lane));
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
                each(b, &|so_far, in_block| {
                    let x = Expr::Load(rows.buffer, vec![row.clone(), column.clone(), in_block]);
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
        Sums::new(pooled, Index::default())
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
