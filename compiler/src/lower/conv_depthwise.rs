//! Depthwise convolutions with small kernels, without copies of their input: the rows and columns whose
//! [windows](super::windows) are partly outside have code of their own, which leaves the rest out.
//!
//! A depthwise convolution reads and writes as much as it computes: copies for the padding, of three rows for
//! every row of a wide picture, cost as much as the sums.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::builder::{Builder, Scope, is_vectorisable};
use super::conv::{ConvGroup, Form};
use super::conv_split::tiles;
use super::conv_tile::Sums;
use super::elementwise::fma;
use super::windows::{Alike, Axis};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Index, Kernel, Memory};

/// The largest kernel that is written out.
const TAPS: usize = 16;

/// The most pixels of a tile: enough sums to hide the latency of a multiply-add, and registers left for inputs
/// that neighbours share.
const PIXELS: usize = 14;

/// The buffers, the image and the block of channels of a task.
struct Block {
    x: BufferId,
    weights: BufferId,
    out: BufferId,
    n: Index,
    block: Index,
    axes: [Axis; 2],
}

/// Pixels of one row.
struct Tile<'t> {
    rows: &'t Alike,
    columns: &'t Alike,
    row: &'t Index,
    first: Index,
    pixels: usize,
}

impl ConvGroup<'_> {
    /// True for what [`depthwise`](Self::depthwise) computes.
    pub fn is_small_depthwise(&self) -> bool {
        let small = self.kernel_size().iter().product::<usize>() <= TAPS;
        let plain = !self.slide.transposed && self.slide.conv.dilation == [1; 2];
        self.form == Form::Depthwise && self.pool.is_none() && plain && small
    }

    /// The kernel; `None` if the work around the convolution does not fit this form.
    pub fn depthwise(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        let g = &self.geometry;
        let (kernel, conv) = (self.kernel_size(), &self.slide.conv);
        let axes = [0, 1].map(|axis| Axis {
            kernel: kernel[axis],
            stride: conv.stride[axis],
            before: conv.padding[2 * axis],
            size: g.input[1 + axis],
            out: g.conv[axis],
        });
        let [rows, columns] = axes.map(|a| a.alike(&|_| 0));
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        let images = self.x.shape[0];
        let (n, block) = (b.task("n", images), b.task("g", g.groups));
        let x = b.bind(&self.x, Access::Read, "x");
        let weights = b.bind(&self.weights, Access::Read, "weight");
        let out = b.bind(&self.out, Access::Write, "out");
        let block = Block { x, weights, out, n, block, axes };
        let task = axes[0].task(&mut b, images * g.groups);
        for rows in &rows {
            axes[0].each(&mut b, &task, rows, &mut |b, row| {
                for columns in &columns {
                    self.depthwise_row(b, &block, &row, [rows, columns]);
                }
            });
        }
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// The pixels of a row that are alike.
    fn depthwise_row(&self, b: &mut Builder, block: &Block, row: &Index, [rows, columns]: [&Alike; 2]) {
        let mut start = columns.first;
        for (count, pixels) in tiles(columns.count, self.geometry.tile.pixels.min(PIXELS)) {
            b.serial("t", count, |b, t| {
                let first = t * pixels as i64 + start;
                self.depthwise_tile(b, block, &Tile { rows, columns, row, first, pixels });
            });
            start += count * pixels;
        }
    }

    fn depthwise_tile(&self, b: &mut Builder, block: &Block, tile: &Tile) {
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
            let column = tile.first.clone() + p;
            let at = [&block.n, &block.block, tile.row, &column];
            self.finish_pixel(b, block.out, self.anchor, &sums(p), at);
        }
    }
}

impl Block {
    /// What pixel `p` of a tile reads at a place of the kernel.
    fn input(&self, tile: &Tile, [kh, kw]: [usize; 2], p: usize, in_block: &Index) -> Expr {
        let row = self.axes[0].position(tile.row, kh);
        let column = self.axes[1].position(&(tile.first.clone() + p), kw);
        Expr::Load(self.x, vec![self.n.clone(), self.block.clone(), row, column, in_block.clone()])
    }
}
