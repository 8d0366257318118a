//! Depthwise convolutions with small kernels, without copies of their input: the rows and columns whose
//! [windows](super::windows) are partly outside have code of their own, which leaves the rest out.
//!
//! A depthwise convolution reads and writes as much as it computes: copies for the padding, of three rows for
//! every row of a wide picture, cost as much as the sums.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::builder::{Builder, Scope, is_vectorisable};
use super::conv::{ConvGroup, Form};
use super::conv_split::keeps_to_rows;
use super::conv_split::tiles;
use super::conv_taps::Slide;
use super::conv_tile::Sums;
use super::elementwise::{fma, is_elementwise, sizes};
use super::windows::{Alike, Axis};
use crate::graph::{Graph, NodeId};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Guard, Index, Kernel, Memory};
use crate::pass::separable::DEPTHWISE_PLACES;

/// The most pixels of a tile: enough sums to hide the latency of a multiply-add, and registers left for inputs
/// that neighbours share.
const PIXELS: usize = 14;

/// With fewer tasks than that, blocks of rows are tasks, too, about so many (enough to balance eight threads), of as
/// many pixels at least.
const TASKS: usize = 16;
const ROW_TASKS: usize = 8;
const LEAST_PIXELS: usize = 56;

/// The buffers, the image and the block of channels that is computed.
pub(super) struct Block {
    pub input: Input,
    pub weights: BufferId,
    pub n: Index,
    pub block: Index,
    pub axes: [Axis; 2],
}

/// Where a block of input channels is.
pub(super) enum Input {
    /// In memory, blocked.
    Memory(BufferId),
    /// In a scratch buffer `[blocks, rows, columns, b]`: its number there. Rows are those under the rows that are
    /// computed, those above the image with them.
    Scratch(BufferId, Index),
}

/// What is done with a finished pixel: its sums, its row, that counted from the first one, and its column.
type Finish<'f> = dyn FnMut(&mut Builder, &Sums, [&Index; 3]) + 'f;

/// The same in a row: the sums and the column.
type FinishColumn<'f> = dyn FnMut(&mut Builder, &Sums, &Index) + 'f;

/// Pixels of one row.
struct Tile<'t> {
    rows: &'t Alike,
    columns: &'t Alike,
    /// Its row, and that counted from the first one that is computed.
    row: [&'t Index; 2],
    first: Index,
    pixels: usize,
}

impl ConvGroup<'_> {
    /// True for what [`depthwise`](Self::depthwise) computes.
    pub fn is_small_depthwise(&self) -> bool {
        let small = self.kernel_size().iter().product::<usize>() <= DEPTHWISE_PLACES;
        let plain = !self.slide.transposed && self.slide.conv.dilation == [1; 2];
        self.form == Form::Depthwise && self.pool.is_none() && plain && small
    }

    /// The kernel; `None` if the work around the convolution does not fit this form.
    pub fn depthwise(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        let g = &self.geometry;
        let axes = self.depthwise_axes();
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        let images = self.x.shape[0];
        let n = b.task("n", images);
        // A core finds in its own cache what it wrote before.
        let by_rows = comes_by_rows(scope.graph, self.anchor);
        let task_rows = task_rows(if by_rows { images } else { images * g.groups }, &axes);
        let row_tasks = axes[0].out.div_ceil(task_rows);
        let (rb, block);
        if by_rows {
            rb = b.task("rb", row_tasks);
            block = b.task("g", g.groups);
        } else {
            block = b.task("g", g.groups);
            rb = b.task("rb", row_tasks);
        }
        let first_row = rb * task_rows as i64;
        let x = b.bind(&self.x, Access::Read, "x");
        let weights = b.bind(&self.weights, Access::Read, "weight");
        let out = b.bind(&self.out, Access::Write, "out");
        let block = Block { input: Input::Memory(x), weights, n, block, axes };
        self.depthwise_rows(&mut b, &block, (&first_row, task_rows), &mut |b, sums, [row, _, column]| {
            self.finish_pixel(b, out, self.anchor, sums, [&block.n, &block.block, row, column]);
        });
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// Computes some rows from the first one on, as far as there are any.
    pub fn depthwise_rows(
        &self,
        b: &mut Builder,
        block: &Block,
        (first, count): (&Index, usize),
        finish: &mut Finish,
    ) {
        let [rows, columns] = block.axes.map(|axis| axis.alike(&|_| 0));
        let mut of_row = |b: &mut Builder, rows: &Alike, row: &Index, r: &Index| {
            for columns in &columns {
                self.depthwise_row(b, block, [row, r], [rows, columns], &mut |b, sums, column| {
                    finish(b, sums, [row, r, column]);
                });
            }
        };
        if count == block.axes[0].out {
            for rows in &rows {
                block.axes[0].each(b, &None, rows, &mut |b, row| of_row(b, rows, &row, &row));
            }
            return;
        }
        b.serial("r", count, |b, r| {
            let row = first.clone() + r.clone();
            let inside = Guard::between(&row, 0, block.axes[0].out as i64, b.extents());
            b.when(inside, |b| {
                let row = Some(row);
                for rows in &rows {
                    block.axes[0].each(b, &row, rows, &mut |b, row| of_row(b, rows, &row, &r));
                }
            });
        });
    }

    /// The windows along rows and columns.
    pub fn depthwise_axes(&self) -> [Axis; 2] {
        let (g, kernel, conv) = (&self.geometry, self.kernel_size(), &self.slide.conv);
        [0, 1].map(|axis| Axis {
            kernel: kernel[axis],
            stride: conv.stride[axis],
            before: conv.padding[2 * axis],
            size: g.input[1 + axis],
            out: g.conv[axis],
        })
    }

    /// The pixels of a row that are alike.
    fn depthwise_row(
        &self,
        b: &mut Builder,
        block: &Block,
        row: [&Index; 2],
        [rows, columns]: [&Alike; 2],
        finish: &mut FinishColumn,
    ) {
        let mut start = columns.first;
        for (count, pixels) in tiles(columns.count, self.geometry.tile.pixels.min(PIXELS)) {
            b.serial("t", count, |b, t| {
                let first = t * pixels as i64 + start;
                self.depthwise_tile(b, block, &Tile { rows, columns, row, first, pixels }, finish);
            });
            start += count * pixels;
        }
    }

    fn depthwise_tile(&self, b: &mut Builder, block: &Block, tile: &Tile, finish: &mut FinishColumn) {
        let (lanes, vectors) = (self.lanes, self.vectors_of_block());
        let mut register =
            |name: &str, shape: &[usize]| b.kernel.buffer(name, DType::F32, shape, Memory::Register);
        let buffer = register("sum", &[tile.pixels, vectors, lanes]);
        let w = register("w", &[vectors, lanes]);
        let sums = |p: usize| Sums::new(buffer, vec![Index::from(p)]);
        self.each_vector(b, &mut |b, vector| {
            let start = self.bias(b, &block.block, vector);
            for p in 0..tile.pixels {
                sums(p).set(b, vector.number.clone(), vector.lane.clone(), start.clone());
            }
        });
        for kh in tile.rows.inside.clone() {
            for kw in tile.columns.inside.clone() {
                self.each_vector(b, &mut |b, vector| {
                    let (number, lane) = (vector.number.clone(), vector.lane.clone());
                    let zero = Index::default();
                    let at = [&block.block, &zero, &kh.into(), &kw.into(), &zero, &vector.in_block];
                    let weight = Expr::Load(block.weights, at.map(Index::clone).to_vec());
                    b.store(w, vec![number.clone(), lane.clone()], weight);
                    let weight = Expr::Load(w, vec![number.clone(), lane.clone()]);
                    for p in 0..tile.pixels {
                        let x = block.input(tile, [kh, kw], p, &vector.in_block);
                        let sum = sums(p).get(number.clone(), lane.clone());
                        sums(p).set(b, number.clone(), lane.clone(), fma(x, weight.clone(), sum));
                    }
                });
            }
        }
        for p in 0..tile.pixels {
            finish(b, &sums(p), &(tile.first.clone() + p));
        }
    }
}

/// Rows of a task, where that many tasks have all of them.
fn task_rows(tasks: usize, [rows, columns]: &[Axis; 2]) -> usize {
    let some = rows.out.div_ceil(ROW_TASKS).max(LEAST_PIXELS.div_ceil(columns.out));
    if tasks < TASKS { some.min(rows.out) } else { rows.out }
}

/// Whether the cores that wrote the input of a convolution each wrote some of its rows, with all channels.
fn comes_by_rows(graph: &Graph, anchor: NodeId) -> bool {
    let size = |id: NodeId| sizes(graph.node(id)).iter().product::<usize>();
    let mut id = graph.operands(anchor)[0];
    loop {
        let operands = graph.operands(id);
        let op = &graph.node(id).op;
        if Slide::of(op).is_some() {
            let images = sizes(graph.node(id))[0].max(1);
            return keeps_to_rows(size(operands[1]), (size(operands[0]) + size(id)) / images);
        }
        match operands.first() {
            Some(&first) if is_elementwise(op) => id = first,
            _ => return true,
        }
    }
}

impl Block {
    /// What pixel `p` of a tile reads at a place of the kernel.
    fn input(&self, tile: &Tile, [kh, kw]: [usize; 2], p: usize, in_block: &Index) -> Expr {
        let [rows, columns] = &self.axes;
        let column = columns.position(&(tile.first.clone() + p), kw);
        match &self.input {
            Input::Memory(x) => {
                let row = rows.position(tile.row[0], kh);
                Expr::Load(*x, vec![self.n.clone(), self.block.clone(), row, column, in_block.clone()])
            }
            Input::Scratch(x, number) => {
                let row = tile.row[1].clone() * rows.stride as i64 + kh;
                Expr::Load(*x, vec![number.clone(), row, column, in_block.clone()])
            }
        }
    }
}
