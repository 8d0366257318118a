//! A depthwise convolution and the 1x1 convolution after it as one kernel: a task makes some rows of all channels
//! of the first in scratch, as other tasks [stage](super::conv_stage) their input, and the second reads them from
//! there. [Where](crate::pass::separable) that is done, the fusion pass decides.

use nnc_runtime::program::Access;

use super::access::Place;
use super::builder::{Builder, Scope, is_vectorisable};
use super::conv::{ConvGroup, Form, Source, Task};
use super::conv_depthwise::Block;
use super::conv_pack::ConvParts;
use super::conv_taps::Slide;
use super::elementwise::sizes;
use super::{LowerError, Lowering};
use crate::graph::{Layout, NodeId};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Index, Kernel};

/// A group with two convolutions.
pub(super) struct Parts {
    /// The depthwise one with what follows it, and the rest.
    pub before: Vec<NodeId>,
    pub after: Vec<NodeId>,
    /// The 1x1 convolution.
    point: NodeId,
}

/// Both convolutions.
struct Separable<'s> {
    depthwise: ConvGroup<'s>,
    point: ConvGroup<'s>,
}

impl<'a> Lowering<'a> {
    /// The parts of a group with two convolutions; `None` if it has fewer.
    pub(super) fn separable_parts(&self, nodes: &[NodeId]) -> Option<Parts> {
        let is_conv = |n: &&NodeId| Slide::of(&self.graph.node(**n).op).is_some();
        let point = *nodes.iter().filter(is_conv).nth(1)?;
        let (before, after) = self.cut_after(nodes, self.graph.operands(point)[0])?;
        Some(Parts { before, after, point })
    }

    /// Both convolutions as one kernel; `None` where they have to be two.
    pub(super) fn separable(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        parts: &Parts,
        out: &Place,
    ) -> Result<Option<(Kernel, Vec<Arg>)>, LowerError> {
        let (Some(first), Some(slide)) =
            (self.dense_conv_parts(scope, &parts.before), Slide::of(&self.graph.node(parts.point).op))
        else {
            return Ok(None);
        };
        let (Some(&tail), Some(&result)) = (parts.before.last(), parts.after.last()) else { return Ok(None) };
        let block = Layout::Blocked(self.target.block() as u8);
        let layouts = [Layout::Plain, block].contains(&out.layout) && first.x.layout == block;
        if first.form != Form::Depthwise || !layouts || sizes(self.graph.node(parts.point)) != out.shape {
            return Ok(None);
        }
        // Nowhere in memory.
        let between = Place::dense(first.x.value, first.x.dtype, &sizes(self.graph.node(tail)), block);
        let then =
            ConvParts { anchor: parts.point, slide, form: Form::Dense, pool: None, x: between.clone() };
        let (depthwise, scope) = self.conv_group(scope, name, first, tail, (&between, false))?;
        let (point, scope) = self.conv_group(&scope, name, then, result, (out, true))?;
        let g = &point.geometry;
        let fits = depthwise.is_small_depthwise()
            && g.taps.is_point()
            && g.task_groups == g.groups
            && g.chunk == g.in_blocks
            && g.input[2] == between.shape[3];
        Ok(if fits { Separable { depthwise, point }.kernel(&scope) } else { None })
    }
}

impl Separable<'_> {
    fn kernel(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        let g = &self.point.geometry;
        let mut b = Builder::new(self.point.name, scope);
        b.provided = vec![self.depthwise.anchor, self.point.anchor];
        let n = b.task("n", self.depthwise.x.shape[0]);
        let first_row = b.task("rb", g.rows.div_ceil(g.task_rows)) * g.task_rows as i64;
        let x = b.bind(&self.depthwise.x, Access::Read, "x");
        let filters = b.bind(&self.depthwise.weights, Access::Read, "depthwise");
        let rows = self.point.stage_buffer(&mut b);
        b.serial("ic", self.depthwise.geometry.groups, |b, block| {
            let axes = self.depthwise.depthwise_axes();
            let block = Block { x, weights: filters, n: n.clone(), block, axes };
            self.make(b, &block, &first_row, rows);
        });
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
            x,
            partial: None,
            comb: *g.taps.combs().first()?,
        };
        self.point.rows(&mut b, &task);
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// Makes the task's rows of a block of channels.
    fn make(&self, b: &mut Builder, block: &Block, first_row: &Index, made: BufferId) {
        let task_rows = self.point.geometry.task_rows;
        self.depthwise.depthwise_rows(b, block, (first_row, task_rows), &mut |b, sums, [row, r, column]| {
            let at = [&block.n, &block.block, row, column];
            self.depthwise.each_value(b, self.depthwise.anchor, sums, at, &mut |b, vector, value| {
                let at = [&block.block, r, column, &vector.in_block];
                b.store(made, at.map(Index::clone).to_vec(), value);
            });
        });
    }
}
