//! Dense, grouped and depthwise convolutions, some blocks of output channels at a time: the fast
//! path, with whatever follows in the group computed while the sums are in registers.
//!
//! Small depthwise convolutions have [loops of their own](super::conv_depthwise), which the 1x1 convolution after
//! them may [take into its tasks](super::separable). A task of all others is an
//! image, some rows of the result and some groups of blocks ([how much](super::conv_split)):
//! 1. Input in blocks of channels is read where it is, and what would be outside of it is [left
//!    out](super::conv_border); a 1x1 convolution even takes all pixels as one row. Of a padded input in rows (a
//!    picture) the rows that are needed are [staged](super::conv_stage) in scratch with their padding, so that borders
//!    cost the inner loops nothing.
//! 2. For every group and every [tile](super::conv_tile) of pixels the sums are held in registers;
//!    between parts of the input channels they wait in scratch.
//! 3. Elementwise work follows in registers, then the store. With a pooling in the group the rows
//!    go to a small buffer and are [pooled](super::conv_pool) from there: the convolution's
//!    result never reaches memory as a whole.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::Place;
use super::builder::{Builder, Operand, Scope, is_vectorisable};
pub(super) use super::conv_split::{Form, Geometry, Problem};
use super::conv_taps::{Comb, Slide};
use super::elementwise::sizes;
use crate::graph::op::Window;
use crate::graph::{NodeId, Op};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Guard, Index, Kernel, Memory};

/// A group with a convolution, and where its operands are.
pub(super) struct ConvGroup<'a> {
    pub name: &'a str,
    pub slide: Slide,
    pub form: Form,
    pub anchor: NodeId,
    /// The pooling and its windows.
    pub pool: Option<(NodeId, &'a Window)>,
    pub result: NodeId,
    /// Of what a task makes itself ([`separable`](super::separable)), shape and layout alone have a meaning; so
    /// of `out`, where it is made for another convolution.
    pub x: Place,
    /// `[groups, C/b, KH, KW, b, channels of a group]`, zeros where there is no channel.
    pub weights: Place,
    pub out: Place,
    pub geometry: Geometry,
    /// Output channels in a block.
    pub block: usize,
    pub lanes: usize,
}

/// How the inner loops reach the input.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// A scratch buffer `[C/b, rows, columns, b]`.
    Staged(BufferId),
    /// The input itself.
    Direct(BufferId),
}

/// The task that is being computed.
#[derive(Clone)]
pub(super) struct Task {
    pub n: Index,
    /// First group of output channels.
    pub first_group: Index,
    /// First block of the input channels that they sum over.
    pub first_in: Index,
    /// First row of the result.
    pub first_row: Index,
    /// First row of the convolution; may be above the image where a pooling is padded.
    pub first_conv_row: Index,
    pub source: Source,
    pub weights: BufferId,
    /// The weights as rows, to be fetched ahead.
    pub weights_in_rows: Option<BufferId>,
    pub x: BufferId,
    /// Sums `[groups, rows, columns, vectors, lanes]`, where they go through memory.
    pub partial: Option<BufferId>,
    /// The outputs that are being computed: a transposed convolution's come in several combs.
    pub comb: Comb,
}

/// Input channels that are summed at a time: from `first` on, counted from those that the outputs sum
/// over, so many blocks and `rest` channels.
pub(super) struct Chunk {
    pub first: Index,
    pub blocks: usize,
    pub rest: usize,
}

/// A group of output channels: its number, and that in its task.
pub(super) struct Outputs {
    pub group: Index,
    pub in_task: Index,
}

impl ConvGroup<'_> {
    /// Height, width of the convolution's kernel.
    pub fn kernel_size(&self) -> [usize; 2] {
        [self.weights.shape[2], self.weights.shape[3]]
    }

    /// The kernel; `None` if the work around the convolution does not fit this form.
    pub fn kernel(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        if self.is_small_depthwise() {
            return self.depthwise(scope);
        }
        let g = &self.geometry;
        let mut b = Builder::new(self.name, scope);
        b.provided = [Some(self.anchor), self.pool.map(|p| p.0)].into_iter().flatten().collect();
        let n = b.task("n", self.x.shape[0]);
        let (groups, row_blocks) = (g.groups / g.task_groups, g.rows.div_ceil(g.task_rows));
        let (group, row_block);
        if g.by_rows {
            row_block = b.task("rb", row_blocks);
            group = b.task("g", groups);
        } else {
            group = b.task("g", groups);
            row_block = b.task("rb", row_blocks);
        }
        let first_row = row_block * g.task_rows as i64;
        let first_conv_row = match self.pool {
            None => first_row.clone(),
            Some((_, w)) => first_row.clone() * w.stride[0] as i64 - w.padding[0],
        };
        let &comb = g.taps.combs().first()?;
        let first_in = match (self.form, self.slide.conv.groups) {
            (Form::Dense, 2..) => group.div(g.tasks_in_group, b.extents()) * g.in_blocks as i64,
            _ => Index::default(),
        };
        let x = b.bind(&self.x, Access::Read, "x");
        let weights = b.bind(&self.weights, Access::Read, "weight");
        let mut task = Task {
            n,
            first_group: group * g.task_groups as i64,
            first_in,
            first_row,
            first_conv_row,
            source: Source::Direct(x),
            weights,
            weights_in_rows: self.weights_in_rows(&mut b),
            x,
            partial: None,
            comb,
        };
        if g.stages {
            task.source = Source::Staged(self.stage_buffer(&mut b));
        }
        if g.chunk < g.in_blocks {
            task.partial = Some(self.partial_buffer(&mut b));
        } else if self.form == Form::Dense {
            self.stage(&mut b, &task, &self.all_channels());
        }
        match self.pool {
            None => self.rows(&mut b, &task),
            Some((pool, window)) => {
                self.accumulate(&mut b, &task);
                self.pooled_rows(&mut b, &task, pool, window);
            }
        }
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// All input channels.
    pub fn all_channels(&self) -> Chunk {
        Chunk { first: Index::default(), blocks: self.geometry.in_blocks, rest: self.geometry.in_rest }
    }

    /// Vectors of one block.
    pub fn vectors_of_block(&self) -> usize {
        self.block / self.lanes
    }

    /// Runs over the groups of a task.
    pub fn each_group(&self, b: &mut Builder, task: &Task, body: &mut dyn FnMut(&mut Builder, &Outputs)) {
        b.serial("og", self.geometry.task_groups, |b, in_task| {
            body(b, &Outputs { group: task.first_group.clone() + in_task.clone(), in_task });
        });
    }

    /// Runs over the rows of the convolution of a task, as many at a time as a tile has; the body gets
    /// the first, counted from the task's first, and how many. Rows outside the image are left out.
    pub fn each_rows(&self, b: &mut Builder, task: &Task, body: &mut dyn FnMut(&mut Builder, &Index, usize)) {
        let g = &self.geometry;
        let whole = g.conv_rows / g.tile.rows;
        let rest = g.conv_rows % g.tile.rows;
        for (first, count, rows) in [(0, whole, g.tile.rows), (whole * g.tile.rows, rest.min(1), rest)] {
            b.serial("r", count, |b, r| {
                let r = r * rows as i64 + first;
                let row = task.first_conv_row.clone() + r.clone();
                // Tiles of several rows are made where they are inside or outside as a whole.
                let mut inside = Guard::between(&row, 0, task.comb.rows.size as i64, b.extents());
                if rows > 1 {
                    inside = Guard::between(&(row + (rows - 1)), 0, task.comb.rows.size as i64, b.extents());
                }
                b.when(inside, |b| body(b, &r, rows));
            });
        }
    }

    /// The sums of one comb that wait in memory.
    fn partial_buffer(&self, b: &mut Builder) -> BufferId {
        let g = &self.geometry;
        let shape = [g.task_groups, g.conv_rows, g.conv[1], g.tile.vectors, self.lanes];
        b.kernel.buffer("partial", DType::F32, &shape, Memory::Scratch)
    }

    /// Sums all pixels of the task over a part of the input channels after the other, if the sums wait
    /// in memory.
    fn accumulate(&self, b: &mut Builder, task: &Task) {
        let g = &self.geometry;
        let Some(partial) = task.partial else { return };
        self.each_group(b, task, &mut |b, outputs| {
            self.start_from_bias(b, task, outputs, partial);
        });
        b.serial("ch", g.in_blocks / g.chunk, |b, chunk| {
            let chunk = Chunk { first: chunk * g.chunk as i64, blocks: g.chunk, rest: 0 };
            self.stage(b, task, &chunk);
            self.each_group(b, task, &mut |b, outputs| {
                self.each_rows(b, task, &mut |b, r, rows| {
                    self.add_tiles(b, task, outputs, &chunk, (r, rows), partial);
                });
            });
        });
    }

    /// The loops without a pooling.
    pub fn rows(&self, b: &mut Builder, task: &Task) {
        let out = b.bind(&self.out, Access::Write, "out");
        let combs = self.geometry.taps.combs().into_iter().map(|comb| Task { comb, ..task.clone() });
        if task.partial.is_some() {
            for task in combs {
                self.accumulate(b, &task);
                self.each_group(b, &task, &mut |b, outputs| self.comb_rows(b, &task, outputs, out));
            }
            return;
        }
        let combs: Vec<Task> = combs.collect();
        self.each_group(b, task, &mut |b, outputs| {
            self.stage_block(b, task, &outputs.group);
            combs.iter().for_each(|task| self.comb_rows(b, task, outputs, out));
        });
    }

    /// The outputs of one comb for a group of output channels.
    fn comb_rows(&self, b: &mut Builder, task: &Task, outputs: &Outputs, out: BufferId) {
        let Comb { rows: along_rows, columns } = task.comb;
        self.each_rows(b, task, &mut |b, r, rows| {
            let row = task.first_row.clone() + r.clone();
            self.tiles_of_rows(b, task, outputs, (r, rows), &mut |b, sums, [down, column]| {
                let [row, column] = [along_rows.output(row.clone() + down), columns.output(column)];
                self.finish_pixel(b, out, self.anchor, sums, [&task.n, &outputs.group, &row, &column]);
            });
        });
    }
}

/// The places of a 1x1 convolution (without stride, padding or pooling) with all pixels in rows of
/// another width. `None` where an operand has gaps between its rows or is spread along one axis alone.
pub(super) fn rows_of_width<'a>(
    scope: &Scope<'a>,
    x: &Place,
    out: &Place,
    width: usize,
) -> Option<(Scope<'a>, Place, Place)> {
    let (h, w) = (out.shape[2], out.shape[3]);
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
        (p.shape[2], p.shape[3]) = (h * w / width, width);
        p.strides[2] = width * p.strides[3];
        Some(p)
    };
    // Indexed by channels, not by pixels: a bias, what normalises. (A vector that elementwise work
    // takes lies along the columns.)
    let by_channel = |id: NodeId| {
        let mut users = scope.members.iter().filter(|m| scope.graph.operands(**m).contains(&id));
        users.all(|m| {
            matches!(scope.graph.node(*m).op, Op::BatchNorm(_))
                || Slide::of(&scope.graph.node(*m).op).is_some()
        })
    };
    let mut operands = std::collections::HashMap::new();
    for (&id, operand) in &scope.operands {
        let rank = sizes(scope.graph.node(id)).len();
        let operand = match operand {
            Operand::Memory(p) if rank < 2 && by_channel(id) => Operand::Memory(p.clone()),
            Operand::Memory(p) => Operand::Memory(flat(p)?),
            splat => splat.clone(),
        };
        operands.insert(id, operand);
    }
    let scope = Scope { graph: scope.graph, members: scope.members.clone(), operands };
    Some((scope, flat(x)?, flat(out)?))
}
