//! Weights fetched ahead: while a group of output channels is computed, its tiles fetch the weights of the next
//! one from memory, each tile its share.
//!
//! Small pictures have more weights than pixels: without this a core waits for memory while it sums the
//! first tile of a group, and memory for the core during all others.

use nnc_runtime::program::Access;

use super::access::Place;
use super::builder::Builder;
use super::conv::{Chunk, ConvGroup, Form, Outputs, Task};
use crate::graph::Layout;
use crate::kernel::{BufferId, Cache, Index};

/// Elements of a cache line.
const LINE: usize = 16;

/// One of the tiles that share the work on a group of output channels.
pub(super) struct Part {
    pub number: Index,
    /// How many there are.
    pub of: usize,
}

/// What a tile fetches.
pub(super) struct Ahead {
    /// `[group of output channels, element]`
    weights: BufferId,
    group: Index,
    /// The first cache line.
    line: Index,
    /// Lines for each place of the kernel and block of input channels: a power of two.
    pub lines: usize,
}

impl ConvGroup<'_> {
    /// The weights as rows, one a group of output channels; `None` where nothing is fetched ahead.
    pub fn weights_in_rows(&self, b: &mut Builder) -> Option<BufferId> {
        let g = &self.geometry;
        let whole = (g.in_block * g.tile.vectors * self.lanes).is_multiple_of(LINE);
        let other = g.groups > 1 && (g.task_groups > 1 || self.has_all_rows()) || g.chunk < g.in_blocks;
        if self.form == Form::Depthwise || g.in_block == 1 || g.in_blocks == 0 || !whole || !other {
            return None;
        }
        let elements = self.weights.elements() / g.groups;
        let rows = Place {
            shape: vec![g.groups, elements],
            strides: vec![elements, 1],
            layout: Layout::Plain,
            ..self.weights.clone()
        };
        Some(b.bind(&rows, Access::Read, "ahead"))
    }

    /// True if a task has all rows, so that the next one has other output channels.
    fn has_all_rows(&self) -> bool {
        self.geometry.task_rows >= self.geometry.rows
    }

    /// What a tile fetches; nothing if the task goes on with the same weights.
    pub fn ahead(
        &self,
        b: &Builder,
        task: &Task,
        (outputs, chunk): (&Outputs, &Chunk),
        part: &Part,
    ) -> Option<Ahead> {
        let weights = task.weights_in_rows?;
        let (g, extents) = (&self.geometry, b.extents());
        let next = |i: &Index, n: usize| (i.clone() + 1usize).rem(n, extents);
        let (group, from) = match g.task_groups {
            2.. if !self.has_all_rows() => {
                (task.first_group.clone() + next(&outputs.in_task, g.task_groups), chunk.first.clone())
            }
            1 if chunk.blocks < g.in_blocks => {
                let after = next(&chunk.first.div(chunk.blocks, extents), g.in_blocks / chunk.blocks);
                (outputs.group.clone(), after * chunk.blocks as i64)
            }
            // The next task's first group, after the last one of this.
            _ if self.has_all_rows() && g.groups > 1 => (next(&outputs.group, g.groups), chunk.first.clone()),
            _ => return None,
        };
        let places = self.kernel_size().iter().product::<usize>();
        let all = g.in_block * g.tile.vectors * self.lanes / LINE;
        let lines = all.div_ceil(part.of).next_power_of_two().min(all);
        // Shares overlap where they do not come out evenly; the last one ends with the last line.
        let rest = chunk.blocks * places * (all - lines);
        let share = (part.number.clone() * rest as i64).div((part.of - 1).max(1), extents);
        Some(Ahead { weights, group, line: from * (places * all) as i64 + share, lines })
    }

    /// Fetches some lines of those that belong to a block of input channels and a place of the kernel.
    pub fn fetch(
        &self,
        b: &mut Builder,
        ahead: &Ahead,
        [ic, kh, kw]: [&Index; 3],
        (first, count): (Index, usize),
    ) {
        let [height, width] = self.kernel_size().map(|n| n as i64);
        let place = (ic.clone() * height + kh.clone()) * width + kw.clone();
        let line = ahead.line.clone() + place * ahead.lines as i64 + first;
        for i in 0..count {
            let at = vec![ahead.group.clone(), (line.clone() + i) * LINE as i64];
            b.prefetch(ahead.weights, at, Cache::Second);
        }
    }
}
