//! A depthwise convolution and the 1x1 convolution after it as one kernel: a task makes some rows of all channels
//! of the first in scratch, as other tasks [stage](super::conv_stage) their input, and the second reads them from
//! there. A third one before them is made in scratch, too, some blocks of channels at a time: the rows under those
//! of the depthwise convolution. [Where](crate::pass::separable) that is done, the fusion pass decides.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::Place;
use super::builder::{Builder, Operand, Scope, is_vectorisable};
use super::conv::{ConvGroup, Form, Outputs, Source, Task};
use super::conv_depthwise::{Block, Input};
use super::conv_pack::{ConvParts, Cut};
use super::conv_split::Made;
use super::conv_taps::Slide;
use super::elementwise::sizes;
use super::{LowerError, Lowering};
use crate::graph::{Layout, NodeId};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Index, Kernel, Memory};

/// Blocks of channels that a tile of the first convolution has, mostly: for the size of scratch.
const BLOCKS: usize = 2;

/// A group with several convolutions.
pub(super) struct Parts {
    /// What comes before the last convolution, and the rest.
    pub before: Vec<NodeId>,
    pub after: Vec<NodeId>,
    /// The convolution before the depthwise one, with what follows it, if it is in the group.
    first: Vec<NodeId>,
    /// The depthwise one with what follows it.
    depthwise: Vec<NodeId>,
    /// The 1x1 convolution.
    point: NodeId,
}

/// The convolutions.
struct Separable<'s> {
    first: Option<ConvGroup<'s>>,
    depthwise: ConvGroup<'s>,
    point: ConvGroup<'s>,
}

impl<'a> Lowering<'a> {
    /// The parts of a group with several convolutions; `None` if it has fewer.
    pub(super) fn separable_parts(&self, nodes: &[NodeId]) -> Option<Parts> {
        let is_conv = |n: &&NodeId| Slide::of(&self.graph.node(**n).op).is_some();
        let convs: Vec<NodeId> = nodes.iter().filter(is_conv).copied().collect();
        let input = |conv: NodeId| self.graph.operands(conv)[0];
        let &[.., middle, point] = convs.as_slice() else { return None };
        let (before, after) = self.cut_after(nodes, input(point))?;
        let (first, depthwise) = match convs.len() {
            2 => (vec![], before.clone()),
            _ => self.cut_after(&before, input(middle))?,
        };
        Some(Parts { before, after, first, depthwise, point })
    }

    /// All convolutions as one kernel; `None` where they have to be several.
    pub(super) fn separable(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        parts: &Parts,
        out: &Place,
    ) -> Result<Option<(Kernel, Vec<Arg>)>, LowerError> {
        let block = Layout::Blocked(self.target.block() as u8);
        let (Some(&tail), Some(&result)) = (parts.before.last(), parts.after.last()) else { return Ok(None) };
        // Of what is in scratch alone: nowhere in memory.
        let place = |id: NodeId| Place::dense(out.value, DType::F32, &sizes(self.graph.node(id)), block);
        let first = match parts.first.last() {
            None => None,
            Some(&result) => {
                let Some(first) = self.dense_conv_parts(scope, &parts.first) else { return Ok(None) };
                Some((first, result, place(result)))
            }
        };
        let mut inner = scope.clone();
        if let Some((_, result, place)) = &first {
            inner.operands.insert(*result, Operand::Memory(place.clone()));
        }
        let point = Slide::of(&self.graph.node(parts.point).op);
        let (Some(depthwise), Some(point)) = (self.dense_conv_parts(&inner, &parts.depthwise), point) else {
            return Ok(None);
        };
        let layouts = [Layout::Plain, block].contains(&out.layout) && depthwise.x.layout == block;
        if depthwise.form != Form::Depthwise || !layouts || sizes(self.graph.node(parts.point)) != out.shape {
            return Ok(None);
        }
        let between = place(tail);
        let then = ConvParts {
            anchor: parts.point,
            slide: point,
            form: Form::Dense,
            pool: None,
            x: between.clone(),
        };
        let (depthwise, scope) = self.conv_group(scope, name, depthwise, tail, (&between, Cut::Rows(1)))?;
        let made = self.made(&depthwise, first.as_ref().map(|f| &f.0));
        let (point, mut scope) = self.conv_group(&scope, name, then, result, (out, Cut::Making(made)))?;
        let mut fits = depthwise.is_small_depthwise()
            && point.geometry.taps.is_point()
            && point.geometry.task_groups == point.geometry.groups
            && point.geometry.chunk == point.geometry.in_blocks;
        let first = match first {
            None => None,
            Some((parts, result, place)) => {
                let rows = depthwise.geometry.taps.reach(0, point.geometry.task_rows);
                let (first, with) =
                    self.conv_group(&scope, name, parts, result, (&place, Cut::Rows(rows)))?;
                let g = &first.geometry;
                fits &= first.form == Form::Dense && first.slide.conv.groups == 1 && !first.slide.transposed;
                fits &= g.chunk == g.in_blocks && first.pool.is_none();
                scope = with;
                Some(first)
            }
        };
        Ok(if fits { Separable { first, depthwise, point }.kernel(&scope) } else { None })
    }

    /// What a task keeps of a row of the depthwise convolution, and of the one before it, of whose rows some are
    /// needed by two tasks.
    fn made(&self, depthwise: &ConvGroup, first: Option<&ConvParts>) -> Made {
        let columns = depthwise.x.shape[3];
        let row_bytes = 4 * depthwise.out.shape[1] * depthwise.out.shape[3];
        let Some(first) = first else { return Made { row_bytes, again: 0.0 } };
        let stride = depthwise.slide.conv.stride[0];
        let steps: usize = sizes(self.graph.node(self.graph.operands(first.anchor)[1])).iter().product();
        let rows = depthwise.kernel_size()[0].saturating_sub(stride);
        let again = (rows * columns * steps / self.target.lanes) as f64 / 2.0;
        Made { row_bytes: row_bytes + 4 * BLOCKS * self.target.block() * stride * columns, again }
    }
}

impl Separable<'_> {
    fn kernel(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        let g = &self.point.geometry;
        let mut b = Builder::new(self.point.name, scope);
        let first = self.first.as_ref().map(|f| f.anchor);
        b.provided =
            [first, Some(self.depthwise.anchor), Some(self.point.anchor)].into_iter().flatten().collect();
        let n = b.task("n", self.depthwise.x.shape[0]);
        let first_row = b.task("rb", g.rows.div_ceil(g.task_rows)) * g.task_rows as i64;
        let rows = self.point.stage_buffer(&mut b);
        match &self.first {
            Some(first) => self.make_from(&mut b, first, [&n, &first_row], rows),
            None => {
                let x = b.bind(&self.depthwise.x, Access::Read, "x");
                b.serial("ic", self.depthwise.geometry.groups, |b, block| {
                    self.make(b, [&n, &block, &first_row], Input::Memory(x), rows);
                });
            }
        }
        let weights = b.bind(&self.point.weights, Access::Read, "weight");
        let task = Task {
            n,
            first_group: Index::default(),
            first_in: Index::default(),
            first_row: first_row.clone(),
            first_conv_row: first_row,
            source: Source::Staged(rows),
            weights,
            weights_in_rows: self.point.weights_in_rows(&mut b),
            x: rows,
            partial: None,
            comb: *g.taps.combs().first()?,
        };
        self.point.rows(&mut b, &task);
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// Makes the task's rows, and before that, some blocks of channels at a time, what they are made of.
    fn make_from(&self, b: &mut Builder, first: &ConvGroup, [n, first_row]: [&Index; 2], made: BufferId) {
        let g = &first.geometry;
        let axis = self.depthwise.depthwise_axes()[0];
        let Some(&comb) = g.taps.combs().first() else { return b.failed = true };
        let x = b.bind(&first.x, Access::Read, "x");
        let top = axis.position(first_row, 0);
        let mut task = Task {
            n: n.clone(),
            first_group: Index::default(),
            first_in: Index::default(),
            first_row: top.clone(),
            first_conv_row: top.clone(),
            source: Source::Direct(x),
            weights: b.bind(&first.weights, Access::Read, "first"),
            weights_in_rows: None,
            x,
            partial: None,
            comb,
        };
        if g.stages {
            task.source =
                Source::Staged(b.kernel.buffer("image", DType::F32, &first.stage_shape(), Memory::Scratch));
        }
        first.stage(b, &task, &first.all_channels());
        let shape = [g.tile.blocks, g.conv_rows, g.conv[1], first.block];
        let wide = b.kernel.buffer("wide", DType::F32, &shape, Memory::Scratch);
        b.serial("og", g.groups, |b, group| {
            let outputs = Outputs { group: group.clone(), in_task: Index::default() };
            first.each_rows(b, &task, &mut |b, r, rows| {
                first.tiles_of_rows(b, &task, &outputs, (r, rows), &mut |b, sums, [_, column]| {
                    let at = [n, &group, &(top.clone() + r.clone()), &column];
                    first.each_value(b, first.anchor, sums, at, &mut |b, vector, value| {
                        let at = [&vector.block, r, &column, &vector.in_block];
                        b.store(wide, at.map(Index::clone).to_vec(), value);
                    });
                });
            });
            b.serial("ob", g.tile.blocks, |b, number| {
                let block = group * g.tile.blocks as i64 + number.clone();
                self.make(b, [n, &block, first_row], Input::Scratch(wide, number), made);
            });
        });
    }

    /// Makes the task's rows of a block of channels.
    fn make(&self, b: &mut Builder, [n, block, first_row]: [&Index; 3], input: Input, made: BufferId) {
        let (task_rows, axes) = (self.point.geometry.task_rows, self.depthwise.depthwise_axes());
        let weights = b.bind(&self.depthwise.weights, Access::Read, "depthwise");
        let block = Block { input, weights, n: n.clone(), block: block.clone(), axes };
        self.depthwise.depthwise_rows(b, &block, (first_row, task_rows), &mut |b, sums, [row, r, column]| {
            let at = [&block.n, &block.block, row, column];
            self.depthwise.each_value(b, self.depthwise.anchor, sums, at, &mut |b, vector, value| {
                let at = [&block.block, r, column, &vector.in_block];
                b.store(made, at.map(Index::clone).to_vec(), value);
            });
        });
    }
}
