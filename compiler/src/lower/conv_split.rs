//! How a convolution is cut: the tile of sums in registers, the input channels summed at a time, the
//! tasks. Whatever the number of threads; all of it by a model of the machine that counts cycles.
//!
//! **Tiles.** A tile is some pixels by some vectors of output channels, which may span several
//! blocks. A step (one input channel at one place of the kernel) loads its vectors of weights and
//! spreads one input a pixel; it takes as long as its multiply-adds (two a cycle), its loads (two a
//! cycle), or a multiply-add's latency. With 32 registers that gives 14 pixels by 2 vectors where rows
//! are as long, 28 by 1 or 9 by 3 where the blocks do not divide; with 16 it gives 6 by 2.
//!
//! **Channels.** The weights of a tile are read for every tile anew. If those for all input channels
//! are more than [`WEIGHT_BYTES`], the sums go through memory: a part of the input channels is
//! summed for all pixels of the task, then the next.
//!
//! **Tasks** are some rows of the result and some groups of blocks. More rows a task: weights come
//! from memory less often. More blocks: the input does, and is staged less often. The cheapest cut
//! that keeps the staged rows within [`STAGE_BYTES`] is taken.
//!
//! Of a transposed convolution, rows and columns are those of the [grid](super::conv_taps) that its combs share.

use super::conv_taps::{Comb, Taps};
use crate::graph::op::Window;

/// Which input channels an output channel sums over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// All of its group.
    Dense,
    /// Its own.
    Depthwise,
}

/// What is computed, in numbers, and what the machine has.
#[derive(Clone, Debug)]
pub(super) struct Problem<'a> {
    /// Which inputs and weights an output takes.
    pub taps: Taps,
    /// Independent groups of channels.
    pub conv_groups: usize,
    pub form: Form,
    /// The windows of a pooling that follows.
    pub pool: Option<&'a Window>,
    pub images: usize,
    /// Channels, height, width of the input.
    pub input: [usize; 3],
    /// Channels of the convolution's result, and height and width of the grid of its outputs.
    pub output: [usize; 3],
    /// Rows of the result: those of the grid, or of the pooling.
    pub rows: usize,
    /// Input channels in a block, or 1 of a plain input.
    pub in_block: usize,
    /// Output channels in a block.
    pub block: usize,
    pub lanes: usize,
    /// Vector registers.
    pub registers: usize,
}

/// Sums in registers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TileShape {
    /// Blocks of output channels.
    pub blocks: usize,
    /// Vectors: of all its blocks.
    pub vectors: usize,
    /// The most pixels.
    pub pixels: usize,
    /// Rows: more than one where a row is too short for a tile.
    pub rows: usize,
}

/// Sizes of the loops.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    /// Channels, height, width of the input.
    pub input: [usize; 3],
    /// Which inputs and weights an output takes.
    pub taps: Taps,
    /// Height, width of the grid of outputs: the convolution's result, or the largest of the combs that a
    /// transposed one's consists of.
    pub conv: [usize; 2],
    /// Input channels in a block: 1 of a plain input.
    pub in_block: usize,
    /// Full blocks of input channels that an output channel sums over, and channels beside them.
    pub in_blocks: usize,
    pub in_rest: usize,
    /// Blocks of input channels that are summed at a time; fewer than all of them: sums go
    /// through memory.
    pub chunk: usize,
    pub tile: TileShape,
    /// Groups of output channels, as many blocks as a tile has: all, and of a task.
    pub groups: usize,
    pub task_groups: usize,
    /// Tasks along the output channels before the next group of the convolution's.
    pub tasks_in_group: usize,
    /// Rows of the result: all, and of a task.
    pub rows: usize,
    pub task_rows: usize,
    /// Rows of the convolution that a task computes.
    pub conv_rows: usize,
    /// Rows and columns of the input that a task reads, padding included.
    pub staged: [usize; 2],
    /// What it takes, by the model.
    pub cycles: f64,
}

/// Scratch for staged rows: a quarter of a core's L2 (1 MiB), which the weights pass through, too.
const STAGE_BYTES: usize = 256 << 10;

/// Scratch for the staged rows of one depthwise block: half of L1d (48 KiB).
const DEPTHWISE_STAGE_BYTES: usize = 24 << 10;

/// Weights that pass through L2 tile by tile: three eighths of it.
const WEIGHT_BYTES: usize = 384 << 10;

/// Sums that wait in scratch for further input channels.
const PARTIAL_BYTES: usize = 128 << 10;

/// Bytes a cycle that a core copies to its scratch, and those that it gets from the last cache.
const STAGE_RATE: f64 = 16.0;
const CACHE_RATE: f64 = 8.0;

/// Cycles that a task costs by itself.
const TASK_CYCLES: f64 = 500.0;

/// A launch of fewer operations than that is left to one core.
const LEAST_SHARED: usize = 60_000;

/// Cores that the work should come out evenly on.
const CORES: [usize; 3] = [2, 4, 8];

/// The most blocks of a tile.
const MOST_BLOCKS: usize = 4;

/// The most pixels of a tile: more do not make it faster, only longer.
const MOST_PIXELS: usize = 28;

/// Widths that pixels may be taken in, and the longest row that all of them may be.
const WIDTHS: std::ops::RangeInclusive<usize> = 8..=64;
const LONGEST_ROW: usize = 256;

/// Other widths must be faster by that factor at least.
const GAIN: f64 = 0.98;

/// Cuts a row into tiles of at most `most` pixels of nearly equal size: `(tiles, pixels)`, the
/// larger ones first.
pub(super) fn tiles(width: usize, most: usize) -> Vec<(usize, usize)> {
    let count = width.div_ceil(most);
    let large = width.div_ceil(count.max(1));
    let small = count * large - width;
    let mut out = vec![(count - small, large), (small, large - 1)];
    out.retain(|&(n, p)| n > 0 && p > 0);
    out
}

/// Pixels of a tile with so many vectors of output channels: as many as leave registers for the weights and an input.
pub(super) fn most_pixels(registers: usize, lanes: usize, vectors: usize) -> usize {
    // Cranelift's x86-64 multiply-add overwrites a factor, so each input is copied twice more: with a
    // register less, that copy spills (measured: 58 % of the peak; 97 % with it). Our own assembler
    // overwrites the sum; for a single vector it spreads the input within the multiply-add.
    let inputs = match lanes {
        4 => 3,
        _ => 1,
    };
    (registers.saturating_sub(vectors + inputs) / vectors).min(MOST_PIXELS)
}

impl Problem<'_> {
    /// The cheapest cut.
    pub fn geometry(&self) -> Geometry {
        let groups = match self.form {
            Form::Dense => self.conv_groups,
            Form::Depthwise => 1,
        };
        let in_channels = match self.form {
            Form::Dense => self.input[0] / groups,
            Form::Depthwise => 1,
        };
        let in_block = if self.form == Form::Dense { self.in_block } else { 1 };
        let blocks = (self.output[0] / groups).div_ceil(self.block);
        let mut g = Geometry {
            input: self.input,
            conv: [self.output[1], self.output[2]],
            taps: self.taps.clone(),
            in_block,
            in_blocks: in_channels / in_block,
            in_rest: in_channels % in_block,
            chunk: in_channels / in_block,
            tile: self.tile(blocks),
            groups: 0,
            task_groups: 1,
            tasks_in_group: 1,
            rows: self.rows,
            task_rows: self.rows,
            conv_rows: 0,
            staged: [0; 2],
            cycles: 0.0,
        };
        g.groups = groups * blocks / g.tile.blocks;
        self.choose_chunk(&mut g);
        let groups_in_group = blocks / g.tile.blocks;
        self.split(&mut g, groups_in_group);
        g.conv_rows = self.conv_rows(g.task_rows);
        g.tile.rows = self.tile_rows(&g);
        g.staged = [self.taps.reach(0, g.conv_rows), self.taps.reach(1, g.conv[1])];
        g
    }

    /// The width of rows that a 1x1 convolution's pixels are best taken in; that of the image for all others.
    pub fn best_width(&self) -> usize {
        let [_, height, width] = self.input;
        if !self.taps.is_point() || self.pool.is_some() {
            return width;
        }
        let pixels = height * width;
        let cycles = |width: usize| {
            let mut problem = self.clone();
            problem.set_width(width);
            problem.geometry().cycles
        };
        let mut best = (cycles(width), width);
        let mut see = |width: usize| {
            let cycles = cycles(width);
            if cycles < best.0 * GAIN {
                best = (cycles, width);
            }
        };
        WIDTHS.filter(|w| pixels.is_multiple_of(*w)).for_each(&mut see);
        if pixels <= LONGEST_ROW {
            see(pixels);
        }
        best.1
    }

    /// Takes the pixels of the input and of the result in rows of another width.
    pub fn set_width(&mut self, width: usize) {
        let rows = self.input[1] * self.input[2] / width;
        (self.input[1], self.input[2]) = (rows, width);
        (self.output[1], self.output[2]) = (rows, width);
        self.taps.set_grid([rows, width]);
        self.rows = rows;
    }

    /// The tile that takes the fewest cycles for that many blocks of output channels.
    fn tile(&self, blocks: usize) -> TileShape {
        let most_blocks = if self.form == Form::Dense { MOST_BLOCKS } else { 1 };
        let mut best: Option<(f64, TileShape)> = None;
        for n in (1..=most_blocks).filter(|n| blocks.is_multiple_of(*n)) {
            let vectors = n * self.block / self.lanes;
            let pixels = most_pixels(self.registers, self.lanes, vectors);
            if pixels == 0 && n > 1 {
                continue;
            }
            let shape = TileShape { blocks: n, vectors, pixels: pixels.max(1), rows: 1 };
            let cycles = self.rows_cycles(&shape, self.output[1]) / n as f64;
            if best.is_none_or(|(least, _)| cycles < least) {
                best = Some((cycles, shape));
            }
        }
        best.map_or(TileShape { blocks: 1, vectors: 1, pixels: 1, rows: 1 }, |(_, shape)| shape)
    }

    /// Cycles of some rows for one group of blocks.
    fn rows_cycles(&self, tile: &TileShape, height: usize) -> f64 {
        self.taps.combs().iter().map(|comb| self.comb_cycles(comb, tile, height)).sum()
    }

    /// Those of the outputs of one comb.
    fn comb_cycles(&self, comb: &Comb, tile: &TileShape, height: usize) -> f64 {
        let width = comb.columns.size;
        let steps = self.comb_steps(comb) as f64;
        let one = |pixels: usize| {
            let (sums, loads) = (pixels * tile.vectors, pixels + tile.vectors);
            let step = sums.max(loads).max(8) as f64 / 2.0;
            // Start and store.
            steps * step + 2.0 * sums as f64 + 20.0
        };
        if width <= tile.pixels / 2 && self.rows_align() {
            let rows = (tile.pixels / width).min(height);
            let rest = match height % rows {
                0 => 0.0,
                left => one(left * width),
            };
            return (height / rows) as f64 * one(rows * width) + rest;
        }
        let row: f64 = tiles(width, tile.pixels).iter().map(|&(n, p)| n as f64 * one(p)).sum();
        row * height as f64
    }

    /// Multiply-adds of an output of a comb.
    fn comb_steps(&self, comb: &Comb) -> usize {
        let channels = if self.form == Form::Dense { self.input[0] / self.conv_groups } else { 1 };
        channels * comb.taps()
    }

    /// Multiply-adds of the outputs at one place of the grid.
    fn steps(&self) -> usize {
        self.taps.combs().iter().map(|comb| self.comb_steps(comb)).sum()
    }

    /// Sums some input channels at a time if the weights for all of them are too many.
    fn choose_chunk(&self, g: &mut Geometry) {
        let most_taps = self.taps.combs().iter().map(Comb::taps).max().unwrap_or(0);
        let bytes = 4 * most_taps * g.in_block * g.tile.blocks * self.block;
        if self.form == Form::Depthwise || g.in_rest > 0 || bytes * g.in_blocks <= WEIGHT_BYTES {
            return;
        }
        let fits = |d: &usize| g.in_blocks.is_multiple_of(*d) && (bytes * d <= WEIGHT_BYTES || *d == 1);
        g.chunk = (1..=g.in_blocks).rev().find(fits).unwrap_or(g.in_blocks);
    }

    /// Chooses the rows and groups of a task; `groups` are those of one group of the convolution's.
    fn split(&self, g: &mut Geometry, groups: usize) {
        let most_rows = match self.pool {
            // However small the net: the rows in scratch are never the whole result.
            Some(_) => g.rows.div_ceil(2),
            None => g.rows,
        };
        let mut best: Option<(f64, [usize; 2])> = None;
        // Of the sizes that give as many tasks the most even one.
        let even = |rows: &usize| g.rows.div_ceil(g.rows.div_ceil(*rows)) == *rows;
        for rows in (1..=most_rows).filter(even) {
            for task_groups in (1..=groups).filter(|d| groups.is_multiple_of(*d)) {
                let cycles = self.cycles(g, rows, task_groups);
                let fits = rows == 1 || self.scratch_fits(g, rows, task_groups);
                if fits && best.is_none_or(|(least, _)| cycles < least) {
                    best = Some((cycles, [rows, task_groups]));
                }
            }
        }
        if let Some((cycles, [rows, task_groups])) = best {
            (g.cycles, g.task_rows, g.task_groups) = (cycles, rows, task_groups);
        }
        g.tasks_in_group = groups / g.task_groups;
    }

    /// True if what a task keeps in scratch stays in the caches that it is meant for.
    fn scratch_fits(&self, g: &Geometry, rows: usize, task_groups: usize) -> bool {
        let conv_rows = self.conv_rows(rows);
        let staged = self.taps.reach(0, conv_rows) * self.taps.reach(1, g.conv[1]);
        let (channels, most) = match self.form {
            Form::Dense if g.chunk < g.in_blocks => (g.chunk * g.in_block, STAGE_BYTES),
            Form::Dense => (g.in_blocks * g.in_block + g.in_rest, STAGE_BYTES),
            Form::Depthwise => (self.block, DEPTHWISE_STAGE_BYTES),
        };
        let partial = conv_rows * g.conv[1] * task_groups * g.tile.blocks * self.block;
        let staged_fits = !self.taps.padded || 4 * channels * staged <= most;
        staged_fits && (g.chunk == g.in_blocks || 4 * partial <= PARTIAL_BYTES)
    }

    /// Cycles of one core for all of the work, in tasks of so many rows and groups, and what is lost
    /// where they do not come out evenly.
    fn cycles(&self, g: &Geometry, rows: usize, task_groups: usize) -> f64 {
        let row_tasks = g.rows.div_ceil(rows);
        let group_tasks = g.groups / task_groups;
        let tasks = self.images.max(1) * row_tasks * group_tasks;
        let conv_rows = self.conv_rows(rows);
        let bytes = |elements: usize| 4.0 * elements as f64;
        let passes = self.images.max(1) * row_tasks * g.groups;
        let compute = passes as f64 * self.rows_cycles(&g.tile, conv_rows);
        let read = self.taps.reach(0, conv_rows) * self.taps.reach(1, g.conv[1]);
        let channels = match self.form {
            Form::Dense => self.input[0] / self.conv_groups,
            Form::Depthwise => task_groups * self.block,
        };
        let rate = if self.taps.padded { 1.0 / STAGE_RATE } else { 0.0 } + 1.0 / CACHE_RATE;
        let input = tasks as f64 * bytes(read * channels) * rate;
        let weights = self.images.max(1) * row_tasks * self.steps() * self.output[0];
        let all = compute + input + bytes(weights) / CACHE_RATE + TASK_CYCLES * tasks as f64;
        let multiplied = self.images * self.output.iter().product::<usize>() * self.steps();
        if 2 * multiplied < LEAST_SHARED {
            return all;
        }
        let uneven = |&n: &usize| (tasks.div_ceil(n) * n) as f64 / tasks as f64;
        all * CORES.iter().map(uneven).sum::<f64>() / CORES.len() as f64
    }

    /// True if no task's rows of the convolution are partly outside.
    fn rows_align(&self) -> bool {
        self.pool.is_none_or(|w| w.padding == [0; 4] && !w.ceil)
    }

    /// Rows of a tile: several where a row is too short for one, and all tasks have whole rows.
    fn tile_rows(&self, g: &Geometry) -> usize {
        let even = self.rows_align() && self.taps.rows_are_even() && g.rows.is_multiple_of(g.task_rows);
        if even { (g.tile.pixels / g.conv[1]).clamp(1, g.conv_rows) } else { 1 }
    }

    /// Rows of the convolution under that many rows of the result.
    fn conv_rows(&self, rows: usize) -> usize {
        match self.pool {
            None => rows,
            Some(w) => (rows - 1) * w.stride[0] + (w.kernel[0] - 1) * w.dilation[0] + 1,
        }
    }
}
