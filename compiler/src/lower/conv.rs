//! Dense and depthwise convolutions, eight output channels at a time: the fast path, with whatever
//! follows in the group computed while the sums are in registers.
//!
//! A task is an image, some rows of the result and some blocks of eight output channels:
//! 1. The input rows it needs are [staged](super::conv_stage) in scratch with their padding, so
//!    that borders cost the inner loops nothing. Without padding the input is read where it is; a
//!    1x1 convolution even takes all pixels as one row.
//! 2. For every block and every [tile](super::conv_tile) of pixels the sums are held in registers.
//! 3. Elementwise work follows in registers, then the store. With a pooling in the group the rows
//!    go to a small buffer and are [pooled](super::conv_pool) from there: the convolution's
//!    result never reaches memory as a whole.

use nnc_runtime::program::Access;

use super::access::Place;
use super::builder::{Builder, Operand, Scope, is_vectorisable};
use super::elements::divisor_near;
use super::elementwise::sizes;
use crate::graph::NodeId;
use crate::graph::op::{Conv2d, Window};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Guard, Index, Kernel};

/// Output channels in a block.
pub(super) const BLOCK: usize = 8;

/// Scratch for staged rows: a quarter of a core's L2 (1 MiB), which the weights pass through, too.
const STAGE_BYTES: usize = 256 << 10;

/// A task should do that much at least (about 20 µs), as long as there are tasks for everybody.
const TASK_FLOPS: u64 = 1 << 20;

/// Tasks wanted of a large convolution: enough to balance eight threads.
const TASKS: u64 = 32;

/// Rows below which splitting the output channels is better: staged rows overlap.
const LEAST_ROWS: usize = 4;

/// Scratch for the staged rows of one depthwise block: half of L1d (48 KiB).
const DEPTHWISE_STAGE_BYTES: usize = 24 << 10;

/// Which input channels an output channel sums over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// All of them.
    Dense,
    /// Its own.
    Depthwise,
}

/// A group with a convolution, and where its operands are.
pub(super) struct ConvGroup<'a> {
    pub name: &'a str,
    pub conv: &'a Conv2d,
    pub form: Form,
    pub anchor: NodeId,
    /// The pooling and its windows.
    pub pool: Option<(NodeId, &'a Window)>,
    pub result: NodeId,
    pub x: Place,
    /// `[O/8, C/b, KH, KW, b, 8]`, zeros where there is no channel.
    pub weights: Place,
    pub out: Place,
    pub lanes: usize,
    pub registers: usize,
}

/// Sizes of the loops.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    /// Channels, height, width of the input.
    pub input: [usize; 3],
    /// Height, width of the convolution's result.
    pub conv: [usize; 2],
    pub kernel: [usize; 2],
    /// Input channels in a block: 8, or 1 of a plain input.
    pub in_block: usize,
    /// Blocks of output channels: all, and of a task.
    pub blocks: usize,
    pub task_blocks: usize,
    /// Rows of the result: all, and of a task.
    pub rows: usize,
    pub task_rows: usize,
    /// Rows of the convolution that a task computes.
    pub conv_rows: usize,
    /// Rows of a tile: more than one where a row is too short for a tile.
    pub tile_rows: usize,
    /// Rows and columns of the input that a task reads, padding included.
    pub staged: [usize; 2],
}

/// How the inner loops reach the input.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// A scratch buffer `[C/b, rows, columns, b]`.
    Staged(BufferId),
    /// The input itself: nothing is padded.
    Direct(BufferId),
}

/// The task that is being computed.
pub(super) struct Task {
    pub n: Index,
    /// First block of output channels.
    pub first_block: Index,
    /// First row of the result.
    pub first_row: Index,
    /// First row of the convolution; may be above the image where a pooling is padded.
    pub first_conv_row: Index,
    pub source: Source,
    pub weights: BufferId,
    pub x: BufferId,
}

impl ConvGroup<'_> {
    /// The kernel; `None` if the work around the convolution does not fit this form.
    pub fn kernel(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        let geometry = self.geometry(scope);
        let mut b = Builder::new(self.name, scope);
        b.provided = [Some(self.anchor), self.pool.map(|p| p.0)].into_iter().flatten().collect();
        let n = b.task("n", self.x.shape[0]);
        let group = b.task("g", geometry.blocks / geometry.task_blocks);
        let row_block = b.task("rb", geometry.rows.div_ceil(geometry.task_rows));
        let first_row = row_block * geometry.task_rows as i64;
        let first_conv_row = match self.pool {
            None => first_row.clone(),
            Some((_, w)) => first_row.clone() * w.stride[0] as i64 - w.padding[0],
        };
        let x = b.bind(&self.x, Access::Read, "x");
        let weights = b.bind(&self.weights, Access::Read, "weight");
        let mut task = Task {
            n,
            first_block: group * geometry.task_blocks as i64,
            first_row,
            first_conv_row,
            source: Source::Direct(x),
            weights,
            x,
        };
        if self.needs_stage() {
            let staged = self.stage_buffer(&mut b, &geometry);
            task.source = Source::Staged(staged);
            if self.form == Form::Dense {
                self.stage(&mut b, &geometry, &task, staged);
            }
        }
        match self.pool {
            None => self.rows(&mut b, &geometry, &task),
            Some((pool, window)) => self.pooled_rows(&mut b, &geometry, &task, pool, window),
        }
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// Stages the rows of one depthwise block.
    pub fn stage_block(&self, b: &mut Builder, geometry: &Geometry, task: &Task, block: &Index) {
        if self.form == Form::Depthwise
            && let Source::Staged(staged) = task.source
        {
            self.stage_channels(b, geometry, task, staged, [block, &Index::default()]);
        }
    }

    fn needs_stage(&self) -> bool {
        self.conv.padding != [0; 4]
    }

    /// The loops without a pooling.
    fn rows(&self, b: &mut Builder, geometry: &Geometry, task: &Task) {
        let out = b.bind(&self.out, Access::Write, "out");
        b.serial("ob", geometry.task_blocks, |b, ob| {
            let block = task.first_block.clone() + ob;
            self.stage_block(b, geometry, task, &block);
            let tile_rows = geometry.tile_rows;
            b.serial("r", geometry.task_rows / tile_rows, |b, r| {
                let r = r * tile_rows as i64;
                let row = task.first_row.clone() + r.clone();
                let last = row.clone() + (tile_rows - 1);
                let inside = Guard::between(&last, 0, geometry.rows as i64, b.extents());
                b.when(inside, |b| {
                    self.row_of_tiles(b, geometry, task, &block, &r, &mut |b, sums, [down, column]| {
                        let row = row.clone() + down;
                        self.finish_pixel(b, out, self.anchor, sums, [&task.n, &block, &row, &column]);
                    });
                });
            });
        });
    }

    fn geometry(&self, scope: &Scope) -> Geometry {
        let conv_shape = sizes(scope.graph.node(self.anchor));
        let kernel = [self.weights.shape[2], self.weights.shape[3]];
        // The pixels of a 1x1 convolution may have been taken as one row.
        let conv = match self.x.shape[2..] == self.out.shape[2..] && self.pool.is_none() {
            true => [self.x.shape[2], self.x.shape[3]],
            false => [conv_shape[2], conv_shape[3]],
        };
        let rows = self.out.shape[2];
        let blocks = conv_shape[1].div_ceil(BLOCK);
        let mut g = Geometry {
            input: [self.x.shape[1], self.x.shape[2], self.x.shape[3]],
            conv,
            kernel,
            in_block: match self.form {
                Form::Dense => self.weights.shape[4],
                Form::Depthwise => BLOCK,
            },
            blocks,
            task_blocks: blocks,
            rows,
            task_rows: rows,
            conv_rows: 0,
            tile_rows: 1,
            staged: [0; 2],
        };
        let flops =
            2 * conv_shape.iter().product::<usize>() * self.weights.shape[1..5].iter().product::<usize>();
        self.split(&mut g, flops as u64);
        g.conv_rows = self.conv_rows(g.task_rows);
        g.tile_rows = self.tile_rows(&g);
        g.staged = [self.reach(0, g.conv_rows, &g), self.reach(1, g.conv[1], &g)];
        g
    }

    /// Chooses how the work is cut into tasks (whatever the number of threads).
    fn split(&self, g: &mut Geometry, flops: u64) {
        let images = self.x.shape[0].max(1);
        let wanted = (flops / TASK_FLOPS).clamp(1, TASKS) as usize;
        let (channels, bytes) = match self.form {
            Form::Dense => (g.input[0].next_multiple_of(g.in_block), STAGE_BYTES),
            Form::Depthwise => (BLOCK, DEPTHWISE_STAGE_BYTES),
        };
        let row_bytes = 4 * channels * self.reach(1, g.conv[1], g);
        let fits = |rows: usize| self.reach(0, self.conv_rows(rows), g) * row_bytes <= bytes;
        let mut most = g.rows;
        if self.needs_stage() {
            most = (1..=g.rows).take_while(|&r| fits(r)).last().unwrap_or(1);
        }
        if self.pool.is_some() {
            // However small the net: the rows in scratch are never the whole result.
            most = most.min(g.rows.div_ceil(2));
        }
        let least = LEAST_ROWS.min(g.rows).min(most);
        let row_blocks = wanted.div_ceil(images);
        g.task_rows = divisor_near(g.rows, g.rows.div_ceil(row_blocks)).clamp(least, most);
        let tasks = images * g.rows.div_ceil(g.task_rows);
        let groups = wanted.div_ceil(tasks).min(g.blocks);
        g.task_blocks = (1..=g.blocks / groups).rev().find(|&d| g.blocks.is_multiple_of(d)).unwrap_or(1);
    }

    /// Rows of a tile: several where a row is too short for one, and all tasks have whole tiles.
    fn tile_rows(&self, g: &Geometry) -> usize {
        let most = (self.most_pixels() / g.conv[1]).max(1);
        let even = match self.pool {
            None => true,
            Some((_, w)) => w.padding == [0; 4] && !w.ceil && g.rows.is_multiple_of(g.task_rows),
        };
        let rows = |d: usize| match self.pool {
            None => g.rows.is_multiple_of(d) && g.task_rows.is_multiple_of(d),
            Some(_) => g.conv_rows.is_multiple_of(d),
        };
        (1..=most).rev().find(|&d| even && rows(d)).unwrap_or(1)
    }

    /// Rows of the convolution under that many rows of the result.
    fn conv_rows(&self, rows: usize) -> usize {
        match self.pool {
            None => rows,
            Some((_, w)) => (rows - 1) * w.stride[0] + (w.kernel[0] - 1) * w.dilation[0] + 1,
        }
    }

    /// Input rows (columns) under that many rows (columns) of the convolution.
    fn reach(&self, axis: usize, size: usize, g: &Geometry) -> usize {
        let c = self.conv;
        (size - 1) * c.stride[axis] + (g.kernel[axis] - 1) * c.dilation[axis] + 1
    }
}

/// The places of a 1x1 convolution (without stride, padding or pooling) with all pixels as one
/// row. `None` where an operand has gaps between its rows or is spread along one axis alone.
pub(super) fn one_row<'a>(scope: &Scope<'a>, x: &Place, out: &Place) -> Option<(Scope<'a>, Place, Place)> {
    let (h, w) = (out.shape[2], out.shape[3]);
    if h < 2 || w < 2 {
        return None;
    }
    let flat = |p: &Place| -> Option<Place> {
        let rank = p.shape.len();
        let spread = p.shape.iter().rev().take(2).any(|&n| n != 1);
        if !spread {
            return Some(p.clone());
        }
        if rank != 4 || p.shape[2..] != [h, w] || p.strides[2] != w * p.strides[3] {
            return None;
        }
        let mut p = p.clone();
        (p.shape[2], p.shape[3]) = (1, h * w);
        p.strides[2] = h * w * p.strides[3];
        Some(p)
    };
    let mut operands = std::collections::HashMap::new();
    for (&id, operand) in &scope.operands {
        let weights = sizes(scope.graph.node(id));
        let operand = match operand {
            // Parameters of the convolution itself: not indexed by pixels.
            Operand::Memory(p) if weights.len() < 2 => Operand::Memory(p.clone()),
            Operand::Memory(p) => Operand::Memory(flat(p)?),
            splat => splat.clone(),
        };
        operands.insert(id, operand);
    }
    let scope = Scope { graph: scope.graph, members: scope.members.clone(), operands };
    Some((scope, flat(x)?, flat(out)?))
}
