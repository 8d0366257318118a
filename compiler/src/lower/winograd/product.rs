//! The products: for each of the 36 (or 16) places of a tile a small matrix product, tiles by input
//! channels times input channels by a group of output channels.
//!
//! A tile of registers holds the sums of a few tiles for two vectors of output channels. For every
//! input channel the weights are read as vectors, the transformed input by broadcast.
//!
//! Weights are too many for a core's caches: while those of a place and a group are multiplied, the
//! next ones are fetched from the last cache or memory, each tile of registers fetching its share.

use nnc_runtime::DType;

use crate::kernel::{BufferId, Cache, Expr, Index, Memory};

use super::super::builder::Builder;
use super::super::conv_split::most_pixels;
use super::super::elementwise::{f32, fma};
use super::{LINE, Winograd, spread};

/// Vectors of output channels in a tile of registers.
pub const VECTORS: usize = 2;

/// The operands of the products of a group of output channels.
pub(super) struct Operands<'o> {
    /// `[…, product, part of the strip, block, tile of the part, channel]`
    pub input: BufferId,
    pub prefix: &'o [Index],
    /// `[group, product, input channel · output channel]`
    pub weights: BufferId,
    /// `[product, tile, output channel]`
    pub products: BufferId,
}

struct Registers {
    sums: BufferId,
    weights: BufferId,
    x: BufferId,
}

/// What a tile of registers computes, and what it fetches meanwhile.
struct RegisterTile<'t> {
    group: &'t Index,
    product: &'t Index,
    /// Which part of the strip.
    part: Index,
    /// How many tiles that has.
    size: usize,
    next: Next,
}

/// Weights that are needed next.
struct Next {
    group: Index,
    product: Index,
    /// The first cache line.
    line: Index,
    /// How many lines with each block of input channels.
    lines: usize,
}

impl Winograd<'_> {
    /// All products of a strip and a group.
    pub(super) fn multiply(&self, b: &mut Builder, group: &Index, operands: &Operands) {
        let (tiles, most) = (self.geometry.strip_tiles(), self.part_tiles());
        let parts = tiles.div_ceil(most);
        b.serial("p", self.transform.products(), |b, product| {
            let some = |b: &mut Builder, part: Index, size: usize| {
                let next = self.next(b, [group, &product], part.clone(), parts);
                let tile = RegisterTile { group, product: &product, part, size, next };
                self.register_tile(b, &tile, operands);
            };
            b.serial("t", tiles / most, |b, part| some(b, part, most));
            if tiles % most > 0 {
                some(b, Index::from(parts - 1), tiles % most);
            }
        });
    }

    /// Tiles of a part of a strip: those that a tile of registers holds the sums of. The last part may have less.
    pub(super) fn part_tiles(&self) -> usize {
        let tiles = self.geometry.strip_tiles();
        let most = most_pixels(self.registers, self.lanes, VECTORS).max(1);
        tiles.div_ceil(tiles.div_ceil(most))
    }

    /// A strip's transformed input: what a tile of registers reads is in one piece, as the processor fetches best.
    pub(super) fn input_shape(&self) -> [usize; 5] {
        let (g, part) = (&self.geometry, self.part_tiles());
        [self.transform.products(), g.strip_tiles().div_ceil(part), g.in_blocks, part, g.block]
    }

    /// The share of the next weights that a part of the work on these fetches.
    fn next(&self, b: &Builder, [group, product]: [&Index; 2], part: Index, parts: usize) -> Next {
        let (groups, products) = (self.geometry.groups, self.transform.products());
        let after = product.clone() + 1usize;
        let carry = after.div(products, b.extents());
        let g = &self.geometry;
        let (blocks, block_lines) = (self.problem.input[0] / g.block, g.block * g.group / LINE);
        let lines = block_lines.div_ceil(parts).next_power_of_two();
        // The last part ends with the last line. All go through memory in order: the processor helps
        // with that, which is 1.2 times as fast as a share of each block's lines.
        let all = (blocks * (block_lines - lines)) as i64;
        let line = (part * all).div((parts - 1).max(1), b.extents());
        Next {
            group: (group.clone() + carry).rem(groups, b.extents()),
            product: after.rem(products, b.extents()),
            line,
            lines,
        }
    }

    fn register_tile(&self, b: &mut Builder, tile: &RegisterTile, operands: &Operands) {
        let (lanes, size) = (self.lanes, tile.size);
        let registers = Registers {
            sums: b.kernel.buffer("sum", DType::F32, &[size, VECTORS, lanes], Memory::Register),
            weights: b.kernel.buffer("w", DType::F32, &[VECTORS, lanes], Memory::Register),
            x: b.kernel.buffer("xs", DType::F32, &[lanes], Memory::Register),
        };
        self.each_sum(b, size, &mut |b, sum| b.store(registers.sums, sum, f32(0.0)));
        let (channels, block) = (self.problem.input[0], self.geometry.block);
        // Fetches lie among the steps: many at a time would wait for each other.
        let pieces = tile.next.lines.min(block);
        b.serial("ic", channels / block, |b, ic| {
            b.unroll("f", pieces, |b, f| {
                self.fetch(b, tile, [&ic, &f], tile.next.lines / pieces, operands);
                let first = f * (block / pieces) as i64;
                self.steps(b, &registers, tile, [&ic, &first], block / pieces, operands);
            });
        });
        if channels % block > 0 {
            let last = Index::from(channels / block);
            self.steps(b, &registers, tile, [&last, &Index::default()], channels % block, operands);
        }
        self.each_sum(b, size, &mut |b, sum| {
            let number = tile.part.clone() * self.part_tiles() as i64 + sum[0].clone();
            let channel = sum[1].clone() * lanes as i64 + sum[2].clone();
            let value = Expr::Load(registers.sums, sum);
            b.store(operands.products, vec![tile.product.clone(), number, channel], value);
        });
    }

    /// Calls the function for every vector of sums.
    fn each_sum(&self, b: &mut Builder, size: usize, f: &mut dyn FnMut(&mut Builder, Vec<Index>)) {
        b.unroll("i", size, |b, i| {
            b.unroll("v", VECTORS, |b, v| {
                b.vector(self.lanes, |b, lane| f(b, vec![i, v, lane]));
            });
        });
    }

    /// Fetches one of the pieces, of so many lines, of what is fetched with a block of input channels.
    fn fetch(
        &self,
        b: &mut Builder,
        tile: &RegisterTile,
        [block, piece]: [&Index; 2],
        count: usize,
        operands: &Operands,
    ) {
        let Next { group, product, line, lines } = &tile.next;
        let first = line.clone() + block.clone() * *lines as i64 + piece.clone() * count as i64;
        for l in 0..count {
            let at = vec![group.clone(), product.clone(), (first.clone() + l) * LINE as i64];
            b.prefetch(operands.weights, at, Cache::Second);
        }
    }

    /// The multiply-adds of some input channels of a block.
    fn steps(
        &self,
        b: &mut Builder,
        registers: &Registers,
        tile: &RegisterTile,
        [block, first]: [&Index; 2],
        channels: usize,
        operands: &Operands,
    ) {
        let (lanes, g) = (self.lanes, &self.geometry);
        b.unroll("c", channels, |b, c| {
            let c = first.clone() + c;
            let channel = block.clone() * g.block as i64 + c.clone();
            b.unroll("v", VECTORS, |b, v| {
                b.vector(lanes, |b, lane| {
                    let out = v.clone() * lanes as i64 + lane.clone();
                    let at = channel * g.group as i64 + out;
                    let w = Expr::Load(operands.weights, vec![tile.group.clone(), tile.product.clone(), at]);
                    b.store(registers.weights, vec![v, lane], w);
                });
            });
            b.unroll("i", tile.size, |b, i| {
                let at = [tile.product.clone(), tile.part.clone(), block.clone(), i.clone(), c];
                let x = Expr::Load(operands.input, [operands.prefix, &at].concat());
                b.vector(lanes, |b, lane| b.store(registers.x, vec![lane], x));
                b.unroll("v", VECTORS, |b, v| {
                    b.vector(lanes, |b, lane| {
                        let sum = vec![i, v.clone(), lane.clone()];
                        let x = Expr::Load(registers.x, vec![lane.clone()]);
                        let w = Expr::Load(registers.weights, vec![v, lane]);
                        b.store(registers.sums, sum.clone(), fma(x, w, Expr::Load(registers.sums, sum)));
                    });
                });
            });
        });
    }

    /// The scratch buffer of a strip's products with a group of output channels.
    pub(super) fn product_buffer(&self, b: &mut Builder) -> BufferId {
        let shape = [self.transform.products(), self.geometry.strip_tiles(), self.geometry.group];
        let strides = spread(&shape, 0);
        b.kernel.strided("products", DType::F32, &shape, &strides, Memory::Scratch)
    }
}
