//! How a convolution is cut: the tile of sums in registers, the input channels summed at a time, the
//! tasks. Whatever the number of threads; all of it by a model of the machine that counts cycles.
//!
//! **Tiles.** A tile is some pixels by some vectors of output channels, which may span several
//! blocks. A step (one input channel at one place of the kernel) loads its vectors of weights and
//! spreads one input a pixel; it takes as long as its multiply-adds (two a cycle), its loads (two a
//! cycle), a multiply-add's latency, or weights that come from the second cache. With 32 registers that gives 14 pixels by 2 vectors where rows
//! are as long, 28 by 1 or 9 by 3 where the blocks do not divide; with 16 it gives 6 by 2.
//!
//! **Channels.** The weights of a tile are read for every tile anew. If those for all input channels
//! are more than [`WEIGHT_BYTES`], the sums go through memory: a part of the input channels is
//! summed for all pixels of the task, then the next.
//!
//! **Tasks** are some rows of the result and some groups of blocks. More rows a task: weights come
//! from memory less often. More blocks: the input does, and is staged less often. The cheapest cut
//! that keeps the staged rows within [`STAGE_BYTES`] is taken, by the core that has the most to do. Each
//! core gets neighbouring tasks: of the same rows, or of the same output channels, so that what is larger (input
//! and result, or weights) is in its own cache from layer to layer. Two cores that read each other's results
//! lose 10 to 20 µs a layer of MobileNetV2, which takes 30 to 100.
//!
//! Of a transposed convolution, rows and columns are those of the [grid](super::conv_taps) that its combs share.

use super::conv_taps::{Axis, Comb, Taps};
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
    /// What it costs a task to make its rows of the input in scratch. Then it has all output channels.
    pub made: Option<Made>,
    pub images: usize,
    /// Channels, height, width of the input.
    pub input: [usize; 3],
    /// Channels of the convolution's result, and height and width of the grid of its outputs.
    pub output: [usize; 3],
    /// Rows of the result: those of the grid, or of the pooling.
    pub rows: usize,
    /// Whether the input is copied to scratch, with zeros where it is padded. If it is padded and not copied,
    /// [borders are left out](super::conv_border).
    pub stages: bool,
    /// Input channels in a block, or 1 of a plain input.
    pub in_block: usize,
    /// Output channels in a block.
    pub block: usize,
    pub lanes: usize,
    /// Vector registers.
    pub registers: usize,
}

/// Rows of an input that a task makes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Made {
    /// Bytes of scratch for a row.
    pub row_bytes: usize,
    /// Cycles for what neighbouring tasks make, too.
    pub again: f64,
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

/// A tile where nothing is known to be better.
const ONE_SUM: TileShape = TileShape { blocks: 1, vectors: 1, pixels: 1, rows: 1 };

/// Tasks in their order: the images, and of each its groups of output channels and blocks of rows.
struct Tasks {
    images: usize,
    groups: usize,
    rows: usize,
    task_rows: usize,
    by_rows: bool,
}

impl Tasks {
    /// How many times longer than its share the core works that has the most to do. Each of them gets as many
    /// neighbouring tasks as the others; the last rows are often fewer.
    fn uneven(&self, cores: usize) -> f64 {
        let in_image = self.groups * self.rows.div_ceil(self.task_rows);
        let tasks = self.images * in_image;
        let part = tasks.div_ceil(cores).max(1);
        let most = (0..cores).map(|core| {
            let [start, end] = [core, core + 1].map(|core| self.rows_before((core * part).min(tasks)));
            end - start
        });
        let all = (self.images * self.groups * self.rows).max(1);
        (most.max().unwrap_or(all) * cores) as f64 / all as f64
    }

    /// Rows of groups that the first tasks compute.
    fn rows_before(&self, tasks: usize) -> usize {
        let row_tasks = self.rows.div_ceil(self.task_rows);
        let (images, rest) = (tasks / (self.groups * row_tasks), tasks % (self.groups * row_tasks));
        let up_to = |row_tasks: usize| (row_tasks * self.task_rows).min(self.rows);
        let within = match self.by_rows {
            true => {
                let (row, group) = (rest / self.groups, rest % self.groups);
                up_to(row) * self.groups + group * (up_to(row + 1) - up_to(row))
            }
            false => rest / row_tasks * self.rows + up_to(rest % row_tasks),
        };
        images * self.groups * self.rows + within
    }
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
    /// Whether neighbouring tasks have the same rows, not the same output channels.
    pub by_rows: bool,
    /// Rows of the convolution that a task computes.
    pub conv_rows: usize,
    /// Rows and columns of the input that a task reads, padding included.
    pub staged: [usize; 2],
    /// Whether they are copied to scratch.
    pub stages: bool,
    /// Whether the input is padded and read where it lies.
    pub has_borders: bool,
    /// What it takes, by the model.
    pub cycles: f64,
}

/// Scratch for staged rows: a quarter of a core's L2 (1 MiB), which the weights pass through, too.
const STAGE_BYTES: usize = 256 << 10;

/// Scratch for rows that a task makes.
const MADE_BYTES: usize = 448 << 10;

/// Scratch for the staged rows of one depthwise block: half of L1d (48 KiB).
const DEPTHWISE_STAGE_BYTES: usize = 24 << 10;

/// Weights that pass through L2 tile by tile: three eighths of it.
const WEIGHT_BYTES: usize = 384 << 10;

/// Sums that wait in scratch for further input channels.
const PARTIAL_BYTES: usize = 128 << 10;

/// Bytes a cycle that a core copies to its scratch, and those that it gets from the last cache.
const STAGE_RATE: f64 = 16.0;
const CACHE_RATE: f64 = 8.0;

/// Weights of a group that stay in the first cache from tile to tile, and bytes a cycle of those that come from
/// the second one (measured: 15 with tiles of 7 pixels by 2 vectors, which want 18).
const FIRST_BYTES: usize = 32 << 10;
const SECOND_RATE: f64 = 16.0;

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

/// Whether a core had better keep to some rows of a convolution than to some output channels: it reads what is larger,
/// an image and its result or the weights, for itself.
pub(super) fn keeps_to_rows(weights: usize, values: usize) -> bool {
    weights <= values
}

/// Cycles in which some bytes come from the last cache that so many tasks read. They stay in a core's own cache if
/// they fit: then they come once, or once for each of two cores where `one_core` does not have all these tasks.
fn passed(bytes: usize, tasks: usize, one_core: bool) -> f64 {
    let times = match (bytes <= WEIGHT_BYTES, one_core) {
        (true, true) => 1,
        (true, false) => tasks.min(CORES[0]),
        (false, _) => tasks,
    };
    (bytes * times) as f64 / CACHE_RATE
}

impl Problem<'_> {
    /// The cheapest cut.
    pub fn geometry(&self) -> Geometry {
        let groups = match self.form {
            Form::Dense => self.conv_groups,
            Form::Depthwise => 1,
        };
        let blocks = (self.output[0] / groups).div_ceil(self.block);
        let cuts = self.tiles(blocks).into_iter().map(|tile| {
            let apart = self.without_copies().map(|problem| problem.cut(tile, [groups, blocks]));
            let apart = apart.filter(Geometry::leaves_borders_out);
            apart.unwrap_or_else(|| self.cut(tile, [groups, blocks]))
        });
        let best = cuts.reduce(|a, b| if b.cycles < a.cycles { b } else { a });
        best.unwrap_or_else(|| self.cut(ONE_SUM, [groups, blocks]))
    }

    /// The same with the input read where it lies, if it is padded and its channels are in blocks.
    fn without_copies(&self) -> Option<Problem<'_>> {
        let fits = self.stages && self.form == Form::Dense && self.in_block > 1;
        fits.then(|| Problem { stages: false, ..self.clone() })
    }

    /// The cheapest cut with a tile; `groups` of the convolution's, of so many `blocks` of output channels.
    fn cut(&self, tile: TileShape, [groups, blocks]: [usize; 2]) -> Geometry {
        let in_channels = match self.form {
            Form::Dense => self.input[0] / groups,
            Form::Depthwise => 1,
        };
        let in_block = if self.form == Form::Dense { self.in_block } else { 1 };
        let mut g = Geometry {
            input: self.input,
            conv: [self.output[1], self.output[2]],
            taps: self.taps.clone(),
            in_block,
            in_blocks: in_channels / in_block,
            in_rest: in_channels % in_block,
            chunk: in_channels / in_block,
            tile,
            groups: groups * blocks / tile.blocks,
            task_groups: 1,
            tasks_in_group: 1,
            rows: self.rows,
            task_rows: self.rows,
            by_rows: self.is_by_rows(),
            conv_rows: 0,
            staged: [0; 2],
            stages: self.stages,
            has_borders: self.has_borders(),
            cycles: 0.0,
        };
        self.choose_chunk(&mut g);
        self.split(&mut g, blocks / tile.blocks);
        g.conv_rows = self.conv_rows(g.task_rows);
        g.tile.rows = self.tile_rows(&g);
        g.staged = [self.taps.reach(0, g.conv_rows), self.taps.reach(1, g.conv[1])];
        g
    }

    /// The cut for somebody else's tasks: those make so many rows, one group of output channels after the other.
    pub fn geometry_of_rows(&self, rows: usize) -> Geometry {
        let blocks = self.output[0].div_ceil(self.block);
        let cycles = |t: &TileShape| self.rows_cycles(t, rows) / t.blocks as f64;
        let tile = self.tiles(blocks).into_iter().min_by(|a, b| cycles(a).total_cmp(&cycles(b)));
        let mut g = self.cut(tile.unwrap_or(ONE_SUM), [1, blocks]);
        (g.task_groups, g.tile.rows) = (1, 1);
        (g.task_rows, g.conv_rows) = (rows, rows);
        g.staged = [self.taps.reach(0, rows), self.taps.reach(1, g.conv[1])];
        g
    }

    fn is_by_rows(&self) -> bool {
        let size = |shape: &[usize; 3]| shape.iter().product::<usize>();
        keeps_to_rows(self.steps() * self.output[0], size(&self.input) + size(&self.output))
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

    /// The tiles that so many blocks of output channels can be cut into.
    fn tiles(&self, blocks: usize) -> Vec<TileShape> {
        let most_blocks = if self.form == Form::Dense { MOST_BLOCKS } else { 1 };
        let shape = |n: usize| {
            let vectors = n * self.block / self.lanes;
            let pixels = most_pixels(self.registers, self.lanes, vectors);
            let some = pixels > 0 || n == 1;
            some.then(|| TileShape { blocks: n, vectors, pixels: pixels.max(1), rows: 1 })
        };
        (1..=most_blocks).filter(|n| blocks.is_multiple_of(*n)).filter_map(shape).collect()
    }

    /// Cycles of some rows for one group of blocks.
    fn rows_cycles(&self, tile: &TileShape, height: usize) -> f64 {
        self.taps.combs().iter().map(|comb| self.comb_cycles(comb, tile, height)).sum()
    }

    /// Those of the outputs of one comb.
    fn comb_cycles(&self, comb: &Comb, tile: &TileShape, height: usize) -> f64 {
        let width = comb.columns.size;
        let steps = self.comb_steps(comb);
        let vectors = 4 * tile.vectors * self.lanes;
        let near = if steps * vectors > FIRST_BYTES { vectors as f64 / SECOND_RATE } else { 0.0 };
        let steps = steps as f64 * self.share_inside(comb);
        let one = |pixels: usize| {
            let (sums, loads) = (pixels * tile.vectors, pixels + tile.vectors);
            let step = (sums.max(loads).max(8) as f64 / 2.0).max(near);
            // Start and store.
            steps * step + 2.0 * sums as f64 + 20.0
        };
        if width <= tile.pixels / 2 && self.rows_align() && !self.has_borders() {
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
        let least = if self.made.is_some() { groups } else { 1 };
        let mut best: Option<(f64, [usize; 2])> = None;
        // Of the sizes that give as many tasks the most even one.
        let even = |rows: &usize| g.rows.div_ceil(g.rows.div_ceil(*rows)) == *rows;
        for rows in (1..=most_rows).filter(even) {
            for task_groups in (least..=groups).filter(|d| groups.is_multiple_of(*d)) {
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
        let made_fits = self.made.is_none_or(|made| made.row_bytes * rows <= MADE_BYTES);
        let staged_fits = !self.stages || 4 * channels * staged <= most;
        made_fits && staged_fits && (g.chunk == g.in_blocks || 4 * partial <= PARTIAL_BYTES)
    }

    /// Cycles of one core for all of the work, in tasks of so many rows and groups, and what is lost
    /// where they do not come out evenly.
    fn cycles(&self, g: &Geometry, rows: usize, task_groups: usize) -> f64 {
        let row_tasks = g.rows.div_ceil(rows);
        let group_tasks = g.groups / task_groups;
        let tasks = self.images.max(1) * row_tasks * group_tasks;
        let conv_rows = self.conv_rows(rows);
        let passes = self.images.max(1) * row_tasks * g.groups;
        let compute = passes as f64 * self.rows_cycles(&g.tile, conv_rows);
        let read = self.taps.reach(0, conv_rows) * self.taps.reach(1, g.conv[1]);
        let channels = match self.form {
            Form::Dense => self.input[0] / self.conv_groups,
            Form::Depthwise => task_groups * self.block,
        };
        let (input, weights) = (4 * read * channels, 4 * self.steps() * self.output[0]);
        let stage = if self.stages { (input * group_tasks) as f64 / STAGE_RATE } else { 0.0 };
        let input = row_tasks as f64 * (stage + passed(input, group_tasks, g.by_rows));
        let weights = passed(weights, row_tasks, !g.by_rows && group_tasks > 1);
        let moved = self.images.max(1) as f64 * (input + weights);
        let made = self.made.unwrap_or_default().again;
        let all = compute + moved + (TASK_CYCLES + made) * tasks as f64;
        let multiplied = self.images * self.output.iter().product::<usize>() * self.steps();
        if 2 * multiplied < LEAST_SHARED {
            return all;
        }
        let tasks = Tasks {
            images: self.images,
            groups: group_tasks,
            rows: g.rows,
            task_rows: rows,
            by_rows: g.by_rows,
        };
        all * CORES.map(|cores| tasks.uneven(cores)).iter().sum::<f64>() / CORES.len() as f64
    }

    /// True if no task's rows of the convolution are partly outside.
    fn rows_align(&self) -> bool {
        self.pool.is_none_or(|w| w.padding == [0; 4] && !w.ceil)
    }

    /// Rows of a tile: several where a row is too short for one, and all tasks have whole rows.
    fn tile_rows(&self, g: &Geometry) -> usize {
        let even = self.rows_align()
            && !self.has_borders()
            && self.taps.rows_are_even()
            && g.rows.is_multiple_of(g.task_rows);
        if even { (g.tile.pixels / g.conv[1]).clamp(1, g.conv_rows) } else { 1 }
    }

    /// True if the input is padded and read where it lies.
    fn has_borders(&self) -> bool {
        self.taps.padded && !self.stages
    }

    /// The share of the multiply-adds of a comb that is left where those outside of the image are left out.
    fn share_inside(&self, comb: &Comb) -> f64 {
        if !self.has_borders() {
            return 1.0;
        }
        let along = |axis: &Axis, d: usize| axis.share_inside(self.input[1 + d], self.taps.before[d]);
        along(&comb.rows, 0) * along(&comb.columns, 1)
    }

    /// Rows of the convolution under that many rows of the result.
    fn conv_rows(&self, rows: usize) -> usize {
        match self.pool {
            None => rows,
            Some(w) => (rows - 1) * w.stride[0] + (w.kernel[0] - 1) * w.dilation[0] + 1,
        }
    }
}
