//! Which schedule a contraction or a reduction gets on a GPU, by its sizes: the one place where that is decided.
//!
//! * **Blocks** compute tiles of the result, from tiles of the factors in shared memory: on tensor cores (TF32, bf16)
//!   or, where products are to be exact, with f32 multiply-adds. For what is large enough to fill tiles.
//! * **A thread an element** (or a few) for the rest: what is small, and where little is summed for an element, so that a
//!   block would begin and end for it.
//!
//! Linear layers of a few rows are neither: what they cost is reading the weights, a warp an output.
//! Rows that are long are reduced by a block each, or by several, each a part of it; columns side by side by a
//! block together.
//!
//! Tiles are those with the least estimate ([`super::tile`]). Where a result has too few tiles for all multiprocessors,
//! what is summed over is cut into parts (split-K), which a second kernel adds up in their order: the same bits whatever
//! runs when. No GPU has timed these numbers yet: they are rules from sizes, chosen to be changed in this file.

use super::tile::{TILES, Tile, pass_clocks, thread_clocks};
use crate::kernel::Rounding;
use crate::kernel::block::{SHARED_BYTES, WARP};
use crate::lower::conv_pack::Numbers;
use crate::target::GpuTarget;

/// How products are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// On tensor cores: factors rounded to TF32 (ten bits of mantissa), sums in f32.
    #[default]
    Tf32,
    /// On tensor cores, nearly as f32: a factor is the sum of two TF32 numbers, and three products are one, without
    /// that of the small ones. For those that wait for memory anyway. Ootomo and Yokota, "Recovering single precision
    /// accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance" (2022), section 3.
    SplitTf32,
    /// As f32 (`--precision strict`).
    F32,
    /// On tensor cores: factors rounded to bf16 (seven bits of mantissa), sums in f32.
    Bf16,
}

impl Products {
    /// How tensor cores round factors, where they compute them.
    pub(super) fn rounding(self) -> Option<Rounding> {
        match self {
            Products::Tf32 | Products::SplitTf32 => Some(Rounding::Tf32),
            Products::Bf16 => Some(Rounding::Bf16),
            Products::F32 => None,
        }
    }

    /// What factors that are made for products by blocks alone are rounded to where they are made. (Those of bf16
    /// are rounded when they are loaded.)
    pub(super) fn factors(self) -> Numbers {
        match self {
            Products::Tf32 => Numbers::Tf32,
            Products::SplitTf32 | Products::F32 | Products::Bf16 => Numbers::Same,
        }
    }

    /// Products on tensor cores for one.
    pub(super) fn for_one(self) -> usize {
        if self == Products::SplitTf32 { 3 } else { 1 }
    }
}

/// Which contractions blocks of threads compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blocks {
    /// Those that are large enough.
    #[default]
    WherePaid,
    /// All that they can: for tests.
    Always,
    /// All that they can, by the tile of that number, of [`Blocks::TILES`]: for tests.
    ByTile(usize),
}

impl Blocks {
    /// Tiles that there are.
    pub const TILES: usize = TILES.len();
}

/// Options of lowering for a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// How products are computed.
    pub products: Products,
    /// Which contractions are computed by blocks.
    pub blocks: Blocks,
}

/// What a block adds up before it goes on to the next tiles of the factors.
pub(super) const DEPTH: usize = 16;

/// Products from which on blocks may pay: fewer are launch and latency either way.
const LEAST_PRODUCTS: usize = 1 << 17;

/// Steps of a part of what is summed over at least: shorter ones are prologue and joining.
const LEAST_STEPS: usize = 8;

/// The most parts.
const MOST_PARTS: usize = 128;

/// Tiles of each factor in shared memory at a time, where there is room for so many.
const MOST_STAGES: usize = 4;

/// Bytes of shared memory of a block with which a multiprocessor of compute capability 8.0 (164 KB, one of which is
/// the driver's for each block) has two of them at a time; from 9.0 on (228 KB) too.
const TWO_BLOCKS_BYTES: usize = 81 << 10;
const _: () = assert!(TWO_BLOCKS_BYTES <= SHARED_BYTES);

/// How a contraction is computed by blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    pub tile: Tile,
    pub products: Products,
    /// Parts of what is summed over, and steps of [`DEPTH`] of each.
    pub parts: usize,
    pub steps: usize,
}

impl Schedule {
    /// That of a contraction, so many at once; `None` where blocks do not pay.
    pub fn of(
        [rows, columns, depth]: [usize; 3],
        batch: usize,
        target: GpuTarget,
        options: GpuOptions,
    ) -> Option<Schedule> {
        Schedule::best([rows, columns, depth], batch, &TILES, target, options).map(|(schedule, _)| schedule)
    }

    /// That of a convolution with the pooling of its pixels, whose rows are by windows: warps' rows (of exact products,
    /// threads') are a multiple of `together`. `None` where it does not pay, or its sums are better cut into parts.
    pub fn of_windows(
        sizes: [usize; 3],
        together: usize,
        target: GpuTarget,
        options: GpuOptions,
    ) -> Option<Schedule> {
        let (alone, clocks) = Schedule::best(sizes, 1, &TILES, target, options)?;
        let fits = |t: &Tile| t.rows_together(options.products).is_multiple_of(together);
        let tiles: Vec<Tile> = TILES.into_iter().filter(fits).collect();
        let (schedule, clocks_so) = match options.blocks {
            Blocks::WherePaid => Schedule::best(sizes, 1, &tiles, target, options)?,
            _ if fits(&alone.tile) => (alone, 0),
            _ => return None,
        };
        let pooling = pass_clocks(sizes[0] * sizes[1], target);
        (schedule.parts == 1 && clocks_so <= clocks + pooling).then_some(schedule)
    }

    /// The schedule with the least estimate, by some of these tiles, and that estimate.
    fn best(
        [rows, columns, depth]: [usize; 3],
        batch: usize,
        tiles: &[Tile],
        target: GpuTarget,
        options: GpuOptions,
    ) -> Option<(Schedule, usize)> {
        let products = rows.saturating_mul(columns).saturating_mul(depth).saturating_mul(batch);
        if products == 0 || options.blocks == Blocks::WherePaid && products < LEAST_PRODUCTS {
            return None;
        }
        let all = depth.div_ceil(DEPTH);
        let candidates = match options.blocks {
            Blocks::ByTile(number) => &TILES[number..=number],
            _ => tiles,
        };
        let fits = |t: &&Tile| t.has_registers(options.products);
        let estimate = |&(tile, parts): &(Tile, usize)| {
            let blocks = tile.blocks(rows, columns) * batch * parts;
            let results = rows * columns * batch;
            tile.clocks((blocks, all.div_ceil(parts)), (parts, results), options.products, target)
        };
        let most = (all / LEAST_STEPS).clamp(1, MOST_PARTS);
        let ways =
            candidates.iter().filter(fits).flat_map(|&tile| (1..=most).map(move |parts| (tile, parts)));
        // The first of equal ones.
        let (clocks, (tile, parts)) = ways.map(|way| (estimate(&way), way)).min_by_key(|w| w.0)?;
        let by_threads = thread_clocks(rows.saturating_mul(columns).saturating_mul(batch), depth, target);
        if options.blocks == Blocks::WherePaid && by_threads <= clocks {
            return None;
        }
        let steps = all.div_ceil(parts);
        Some((Schedule { tile, products: options.products, parts: all.div_ceil(steps), steps }, clocks))
    }

    /// How many steps' tiles are in shared memory at a time, where those of one have so many bytes.
    pub fn stages(self, bytes: usize) -> usize {
        MOST_STAGES.min(TWO_BLOCKS_BYTES / bytes).min(self.steps + 1)
    }
}

/// Rows of a linear layer up to which a warp computes an output of each, products from which on that pays, and
/// warps of a block.
const MOST_DOT_ROWS: usize = 8;
const LEAST_DOT_PRODUCTS: usize = 1 << 9;
const DOT_WARPS: usize = 4;

/// How a linear layer of few rows is computed: a warp an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dots {
    /// Warps of a block.
    pub warps: usize,
}

impl Dots {
    /// That of a layer; `None` for many rows, or where it does not pay.
    pub fn of([rows, outputs, depth]: [usize; 3], options: GpuOptions) -> Option<Dots> {
        let paid = rows * outputs * depth >= LEAST_DOT_PRODUCTS && depth >= 2 * WARP;
        let fits = (1..=MOST_DOT_ROWS).contains(&rows) && depth > 0 && outputs > 0;
        (fits && (paid || options.blocks != Blocks::WherePaid)).then_some(Dots { warps: DOT_WARPS })
    }
}

/// Elements that a thread computes at once where they are neighbours: 16 bytes are the widest access.
const LANES: usize = 4;

/// Elements from which on there are threads enough for that: a warp for every scheduler of 132 multiprocessors.
const LEAST_OF_LANES: usize = 132 * 4 * 32 * LANES;

/// Lanes of a thread of so many elements; `None` for one.
pub(super) fn lanes_of(elements: usize, options: GpuOptions) -> Option<usize> {
    (elements >= LEAST_OF_LANES || options.blocks == Blocks::Always && elements > 0).then_some(LANES)
}

/// Elements of a row from which on a block reduces it, elements of a thread, and the most threads.
const LEAST_ROW: usize = 32;
const ROW_ELEMENTS: usize = 4;
const MOST_ROW_THREADS: usize = 256;

/// Elements of a thread of a part, and the most parts of a row.
const PART_ELEMENTS: usize = 16;
const MOST_ROW_PARTS: usize = 64;

/// Blocks that reductions should have for each multiprocessor.
const ROW_BLOCKS: usize = 2;

/// How rows are reduced by blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub threads: usize,
    /// Blocks of a row, each with a part of it.
    pub parts: usize,
}

impl Rows {
    /// That of so many rows of so many elements; `None` for short ones.
    pub fn of(rows: usize, elements: usize, target: GpuTarget, options: GpuOptions) -> Option<Rows> {
        if rows == 0 || elements < LEAST_ROW && (elements < 2 || options.blocks == Blocks::WherePaid) {
            return None;
        }
        let threads = (elements / ROW_ELEMENTS).next_power_of_two().clamp(WARP, MOST_ROW_THREADS);
        let wanted = (ROW_BLOCKS * target.multiprocessors() / rows).min(elements / (threads * PART_ELEMENTS));
        Some(Rows { threads, parts: wanted.clamp(1, MOST_ROW_PARTS) })
    }
}

/// Threads of a block that reduces columns, and how many of them lie side by side: for four columns each, or for one
/// (whole warps then).
const COLUMN_BLOCK: usize = 256;
const ACROSS_OF_LANES: [usize; 3] = [16, 8, 4];
const ACROSS: usize = WARP;

/// Of so many threads side by side, one may have no columns.
const IDLE: usize = 8;

/// Columns from which on a thread each is enough.
const ENOUGH_COLUMNS: usize = 1 << 15;

/// The most blocks of a column: a thread adds up what they leave.
const MOST_COLUMN_PARTS: usize = 128;

/// How columns are reduced by blocks: threads side by side have columns side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// Threads that have columns side by side, and columns of each.
    pub across: usize,
    pub lanes: usize,
    /// Threads of a column.
    pub down: usize,
    /// Blocks of a column, each with a part of it.
    pub parts: usize,
}

impl Columns {
    /// Those of so many rows of columns side by side, of so many elements each, the best first; none for short ones, and
    /// for many.
    pub fn of([rows, columns, elements]: [usize; 3], target: GpuTarget, options: GpuOptions) -> Vec<Columns> {
        let paid = elements >= LEAST_ROW && rows * columns < ENOUGH_COLUMNS;
        let fits = rows * columns > 0 && elements >= 2;
        if !fits || !paid && options.blocks == Blocks::WherePaid {
            return vec![];
        }
        let one = |(across, lanes): (usize, usize)| {
            let down = COLUMN_BLOCK / across;
            let blocks = rows * columns.div_ceil(across * lanes);
            let wanted = ROW_BLOCKS * target.multiprocessors() / blocks;
            let parts = wanted.min(elements / (down * PART_ELEMENTS)).clamp(1, MOST_COLUMN_PARTS);
            Columns { across, lanes, down, parts }
        };
        // As many as few leave idle.
        let of_lanes = columns.div_ceil(LANES);
        let all = |across: &usize| of_lanes.next_multiple_of(*across);
        let few_idle = ACROSS_OF_LANES.into_iter().find(|a| (all(a) - of_lanes) * IDLE <= all(a));
        let across = few_idle.or(ACROSS_OF_LANES.into_iter().min_by_key(all));
        let wide = across.filter(|_| columns.is_multiple_of(LANES)).map(|across| (across, LANES));
        wide.into_iter().chain([(ACROSS, 1)]).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(sizes: [usize; 3]) -> Option<([usize; 2], usize)> {
        let s = Schedule::of(sizes, 1, GpuTarget::Sm90, GpuOptions::default())?;
        Some((s.tile.size, s.parts))
    }

    #[test]
    fn sizes_decide() {
        // Convolutions of VGG, 64 pictures: 256 and 64 channels.
        assert_eq!(schedule([64 * 56 * 56, 256, 2304]), Some(([128, 128], 1)));
        assert_eq!(schedule([64 * 224 * 224, 64, 576]), Some(([256, 64], 1)));
        // The gradient of a ResNet's weights: few of them, many pixels.
        assert_eq!(schedule([128, 1152, 256 * 16 * 16]), Some(([128, 128], 29)));
        // Its last convolutions at batch 1: few pixels, much to sum.
        assert_eq!(schedule([49, 512, 4608]), Some(([64, 64], 32)));
        assert_eq!(schedule([49, 2048, 512]), Some(([32, 64], 4)));
        assert_eq!(schedule([16, 1 << 20, 64]), Some(([32, 128], 1)));
        assert_eq!(schedule([1 << 20, 10, 512]), Some(([128, 32], 1)));
        assert_eq!(schedule([6, 1152, 25]), None);
        // LeNet's first layers at batch 64: forward, and the gradients of weights and input.
        assert_eq!(schedule([64 * 28 * 28, 6, 25]), Some(([128, 32], 1)));
        assert_eq!(schedule([6, 25, 64 * 28 * 28]), Some(([32, 64], 126)));
        assert_eq!(schedule([64 * 14 * 14, 6, 400]), Some(([128, 32], 1)));
        assert!(Dots::of([1, 4096, 25088], GpuOptions::default()).is_some());
        assert!(Dots::of([64, 4096, 25088], GpuOptions::default()).is_none());
    }

    #[test]
    fn long_rows_are_shared() {
        let rows = |n, elements| Rows::of(n, elements, GpuTarget::Sm90, GpuOptions::default());
        assert_eq!(rows(64, 10), None);
        assert_eq!(rows(64, 1000), Some(Rows { threads: 256, parts: 1 }));
        assert_eq!(rows(64, 1 << 18), Some(Rows { threads: 256, parts: 4 }));
        assert_eq!(rows(1, 1 << 24), Some(Rows { threads: 256, parts: 64 }));
    }

    #[test]
    fn columns_have_blocks_enough() {
        let columns = |rows, n, elements| {
            let all = Columns::of([rows, n, elements], GpuTarget::Sm90, GpuOptions::default());
            all.first().map(|c| (c.lanes, c.parts))
        };
        // Statistics of a batch normalisation; pooling to one pixel, of one picture and of many.
        assert_eq!(columns(1, 64, 64 * 56 * 56), Some((4, 128)));
        assert_eq!(columns(1, 63, 64 * 56 * 56), Some((1, 128)));
        assert_eq!(columns(1, 512, 49), Some((4, 1)));
        assert_eq!(columns(64, 2048, 49), None);
        assert_eq!(columns(1, 64, 10), None);
    }

    #[test]
    fn few_threads_have_no_columns() {
        let across = |n| {
            Columns::of([1, n, 1 << 16], GpuTarget::Sm90, GpuOptions::default()).first().map(|c| c.across)
        };
        assert_eq!([64, 128, 240, 960].map(across), [Some(16); 4]);
        assert_eq!([32, 96, 144, 160, 24].map(across), [Some(8); 5]);
        assert_eq!([16, 48].map(across), [Some(4); 2]);
        assert_eq!(across(63), Some(32));
    }
}
