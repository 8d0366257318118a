//! Tiles of contractions that blocks compute, and an estimate of the clocks that a contraction takes with each.
//!
//! A step of a tile multiplies [`DEPTH`](super::schedule::DEPTH) columns of one factor by as many rows of the other.
//! A multiprocessor does three things for it side by side, and the slowest counts: multiply-adds, reading and writing
//! shared memory (128 bytes a clock), and issuing instructions (four a clock). The larger the part of a warp is, the less
//! is read for a product: 64x64 elements of TF32 take two thirds of what 64x32 do. What is not hidden by other blocks
//! on the multiprocessor adds up: the time from barrier to barrier, the first tiles' way from memory.
//!
//! The figures are those of NVIDIA's data sheets and programming guide; that `mma` gets about 5/8 of a H100's peak is
//! from Luo et al., "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture" (2024), on tensor cores. No GPU has
//! timed our kernels: the estimate orders tiles, it predicts nothing.

use super::product::THREAD_COLUMNS;
use super::schedule::{DEPTH, Products};
use crate::kernel::block::WARP;
use crate::target::GpuTarget;

/// A block's part of a result, and how its warps share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Rows and columns of the result.
    pub size: [usize; 2],
    /// Warps along them.
    pub warps: [usize; 2],
}

/// All tiles: blocks of four warps with 64x64, 64x32 (or 32x64) or 32x32 elements each. The last ones are for results
/// with few rows or few columns.
pub(super) const TILES: [Tile; 9] = [
    Tile::new(128, 128, [2, 2]),
    Tile::new(256, 64, [4, 1]),
    Tile::new(64, 256, [1, 4]),
    Tile::new(128, 64, [2, 2]),
    Tile::new(64, 128, [2, 2]),
    Tile::new(64, 64, [2, 2]),
    Tile::new(32, 128, [1, 4]),
    Tile::new(128, 32, [4, 1]),
    Tile::new(32, 64, [2, 2]),
];

/// Bytes of shared memory that a multiprocessor reads or writes in a clock.
const SHARED_BYTES_PER_CLOCK: usize = 128;

/// Instructions that it issues in a clock.
const ISSUED_PER_CLOCK: usize = 4;

/// Instructions of a warp in a step beside products and loads of fragments, and those of a copy of 16 bytes: places, guards.
const STEP_INSTRUCTIONS: usize = 24;
const COPY_INSTRUCTIONS: usize = 8;

/// Instructions for the small part of an element: load, round, subtract, round (two each time).
const SPLIT_INSTRUCTIONS: usize = 6;

/// Clocks of a step of a block that is alone: wait, barrier, loads from shared memory, a chain of products.
const STEP_LATENCY: usize = 140;

/// Clocks from the start of a block to its first products, and from its last ones to its end.
const BLOCK_LATENCY: usize = 2000;

/// Clocks of a kernel that passes over what another one made: its launch, and its bytes on their way through the last
/// cache.
const PASS_LATENCY: usize = 3500;
const PASS_BYTES_PER_CLOCK: usize = 16;

/// Clocks of a product where a thread has an element: two loads that hit the first cache, then a multiply-add that waits
/// for the one before. And instructions for it: loads, places, guards. Before them and after them, memory is waited for.
const THREAD_LATENCY: usize = 1000;
const PRODUCT_LATENCY: usize = 40;
const PRODUCT_INSTRUCTIONS: usize = 8;

/// Blocks of these tiles that a multiprocessor holds at a time: shared memory has room for two of the largest, and registers
/// for two with 64x64 elements a warp.
const RESIDENT: usize = 2;

/// Elements of a block up to which a multiprocessor holds twice as many.
const SMALL: usize = 64 * 64;

/// An estimate of the clocks of a kernel that reads and writes so many elements.
pub(super) fn pass_clocks(elements: usize, target: GpuTarget) -> usize {
    PASS_LATENCY + elements * 4 / (target.multiprocessors() * PASS_BYTES_PER_CLOCK)
}

/// An estimate of the clocks of a contraction's kernel in which a thread adds up an element of the result: one that hides
/// no latency, or all of it.
pub(super) fn thread_clocks(elements: usize, depth: usize, target: GpuTarget) -> usize {
    let instructions = elements.saturating_mul(depth).saturating_mul(PRODUCT_INSTRUCTIONS);
    let issued = target.multiprocessors() * ISSUED_PER_CLOCK * WARP;
    THREAD_LATENCY + depth.saturating_mul(PRODUCT_LATENCY).max(instructions / issued)
}

impl Tile {
    const fn new(rows: usize, columns: usize, warps: [usize; 2]) -> Tile {
        Tile { size: [rows, columns], warps }
    }

    /// Threads of the block.
    pub fn threads(self) -> usize {
        WARP * self.warps[0] * self.warps[1]
    }

    /// Blocks that a result needs.
    pub fn blocks(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.size[0]) * columns.div_ceil(self.size[1])
    }

    /// Rows and columns of a warp.
    fn of_warp(self) -> [usize; 2] {
        [self.size[0] / self.warps[0], self.size[1] / self.warps[1]]
    }

    /// Rows of a warp, or, of exact products, those of a thread: neighbours, whose sums a thread holds.
    pub fn rows_together(self, products: Products) -> usize {
        match products.rounding() {
            Some(_) => self.of_warp()[0],
            None => self.size[0] * self.size[1] / self.threads() / THREAD_COLUMNS,
        }
    }

    /// True if a thread has registers for the sums and the factors of its warp.
    pub fn has_registers(self, products: Products) -> bool {
        let [rows, columns] = self.of_warp();
        products != Products::SplitTf32 || rows * columns <= 64 * 32
    }

    fn resident(self) -> usize {
        if self.size[0] * self.size[1] <= SMALL { 2 * RESIDENT } else { RESIDENT }
    }

    /// Clocks of a multiprocessor for a step, where it always has something to do.
    fn step_clocks(self, products: Products, target: GpuTarget) -> usize {
        let elements = self.size[0] * self.size[1];
        let lines = self.size[0] + self.size[1];
        let warps = self.threads() / WARP;
        let [rows, columns] = self.of_warp();
        let multiplied = elements * DEPTH * products.for_one();
        let multiply = multiplied.div_ceil(target.multiply_adds(products.rounding()));
        let copied = lines * DEPTH * 4 / SHARED_BYTES_PER_CLOCK;
        let (loads, instructions) = match products.rounding() {
            Some(rounding) => {
                let bytes = (rows + columns) * DEPTH * 4;
                let multiplied = rows / 16 * (columns / 8) * (DEPTH / rounding.depth()) * products.for_one();
                // A matrix load fetches 512 bytes. Small parts are made of elements, a word a lane.
                let split = if products.for_one() > 1 { bytes / (4 * WARP) * SPLIT_INSTRUCTIONS } else { 0 };
                (warps * bytes / SHARED_BYTES_PER_CLOCK, multiplied + bytes / 512 + split)
            }
            None => {
                // Loads of a word, of the same place or of neighbours: a clock each.
                let of_thread = elements / self.threads();
                let loads = (of_thread / THREAD_COLUMNS + THREAD_COLUMNS) * DEPTH;
                (warps * loads, of_thread * DEPTH + loads)
            }
        };
        let copies = lines * DEPTH / 4 / self.threads().max(1) * COPY_INSTRUCTIONS;
        let issue = warps * (instructions + copies + STEP_INSTRUCTIONS) / ISSUED_PER_CLOCK;
        multiply.max(copied + loads).max(issue)
    }

    /// An estimate of the clocks of so many steps of so many blocks (of all parts), in `parts` parts of so many
    /// results.
    pub fn clocks(
        self,
        (blocks, steps): (usize, usize),
        (parts, results): (usize, usize),
        products: Products,
        target: GpuTarget,
    ) -> usize {
        let multiprocessors = target.multiprocessors();
        let each = blocks.div_ceil(multiprocessors);
        let rounds = each.div_ceil(self.resident());
        let step = self.step_clocks(products, target);
        let multiplied = steps.saturating_mul((each * step).max(rounds * (STEP_LATENCY + step)));
        let join = match parts {
            1 => 0,
            _ => pass_clocks((parts + 1) * results, target),
        };
        multiplied.saturating_add(rounds * BLOCK_LATENCY).saturating_add(join)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_parts_of_warps_take_less_for_a_product() {
        let of =
            |t: Tile| t.step_clocks(Products::Tf32, GpuTarget::Sm90) as f64 / (t.size[0] * t.size[1]) as f64;
        assert!(of(TILES[0]) < of(TILES[3]) && of(TILES[3]) < of(TILES[5]));
        assert_eq!(of(TILES[1]), of(TILES[2]));
    }

    #[test]
    fn warps_have_whole_matrices() {
        for t in TILES {
            let [rows, columns] = t.of_warp();
            assert!(rows % 16 == 0 && columns % 8 == 0, "{t:?}");
            assert_eq!(t.threads(), 128, "{t:?}");
        }
    }
}
