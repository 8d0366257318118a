//! The products: for each of the 36 (or 16) places of a tile a small matrix product, tiles by input
//! channels times input channels by a group of output channels.
//!
//! A tile of registers holds the sums of a few tiles for two vectors of output channels. For every
//! input channel the weights are read as vectors, the transformed input by broadcast.

use nnc_runtime::DType;

use crate::kernel::{BufferId, Expr, Index, LoopKind, Memory};

use super::super::builder::Builder;
use super::super::conv_split::tiles;
use super::super::elementwise::{f32, fma};
use super::{Winograd, spread};

/// Registers beside sums and weights: an input, and the two copies that Cranelift's multiply-add
/// overwrites.
const INPUT_REGISTERS: usize = 3;

/// Vectors of output channels in a tile of registers.
pub const VECTORS: usize = 2;

/// The operands of the products of a group of output channels.
pub(super) struct Operands<'o> {
    /// `[…, product, block, tile, channel]`
    pub input: BufferId,
    pub prefix: &'o [Index],
    /// `[group, product, channel, output channel]`
    pub weights: BufferId,
    /// `[product, tile, output channel]`
    pub products: BufferId,
}

struct Registers {
    sums: BufferId,
    weights: BufferId,
    x: BufferId,
}

/// Tiles whose sums fit in registers.
pub(super) fn register_tiles(registers: usize) -> usize {
    (registers.saturating_sub(VECTORS + INPUT_REGISTERS) / VECTORS).max(1)
}

impl Winograd<'_> {
    /// All products of a strip and a group.
    pub(super) fn multiply(&self, b: &mut Builder, group: &Index, operands: &Operands) {
        b.serial("p", self.transform.products(), |b, p| {
            let mut first = 0;
            for (count, size) in tiles(self.geometry.strip_tiles(), register_tiles(self.registers)) {
                b.serial("t", count, |b, t| {
                    let tile = t * size as i64 + first;
                    self.register_tile(b, [group, &p, &tile], size, operands);
                });
                first += count * size;
            }
        });
    }

    fn register_tile(&self, b: &mut Builder, at: [&Index; 3], size: usize, operands: &Operands) {
        let lanes = self.lanes;
        let registers = Registers {
            sums: b.kernel.buffer("sum", DType::F32, &[size, VECTORS, lanes], Memory::Register),
            weights: b.kernel.buffer("w", DType::F32, &[VECTORS, lanes], Memory::Register),
            x: b.kernel.buffer("xs", DType::F32, &[lanes], Memory::Register),
        };
        self.each_sum(b, size, &mut |b, sum| b.store(registers.sums, sum, f32(0.0)));
        let (channels, block) = (self.problem.input[0], self.geometry.block);
        let [group, product, first] = at;
        b.serial("ic", channels / block, |b, ic| {
            self.steps(b, &registers, [group, product, first, &ic], size, block, operands);
        });
        if channels % block > 0 {
            let last = Index::from(channels / block);
            self.steps(b, &registers, [group, product, first, &last], size, channels % block, operands);
        }
        self.each_sum(b, size, &mut |b, sum| {
            let tile = first.clone() + sum[0].clone();
            let channel = sum[1].clone() * lanes as i64 + sum[2].clone();
            let value = Expr::Load(registers.sums, sum);
            b.store(operands.products, vec![product.clone(), tile, channel], value);
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

    /// The multiply-adds of a block of input channels.
    fn steps(
        &self,
        b: &mut Builder,
        registers: &Registers,
        [group, product, first, block]: [&Index; 4],
        size: usize,
        channels: usize,
        operands: &Operands,
    ) {
        let lanes = self.lanes;
        b.repeat(LoopKind::Unroll, "c", channels, |b, c| {
            let channel = block.clone() * self.geometry.block as i64 + c.clone();
            b.unroll("v", VECTORS, |b, v| {
                b.vector(lanes, |b, lane| {
                    let out = v.clone() * lanes as i64 + lane.clone();
                    let at = vec![group.clone(), product.clone(), channel, out];
                    b.store(registers.weights, vec![v, lane], Expr::Load(operands.weights, at));
                });
            });
            b.unroll("i", size, |b, i| {
                let at = [product.clone(), block.clone(), first.clone() + i.clone(), c];
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
