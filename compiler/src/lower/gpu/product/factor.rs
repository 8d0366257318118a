//! A factor of a contraction: where the elements of its lines are, and how its tiles are copied.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::{DEPTH, DEPTH_PADDING, LINE_PADDING, Tiles};
use crate::kernel::{BufferId, Extents, Guard, Index, Joint, Memory};
use crate::lower::access::Place;
use crate::lower::builder::Builder;

/// Where a tile of a factor begins.
pub(in crate::lower::gpu) struct At<'i> {
    /// Which matrix.
    pub batch: &'i [Index],
    /// The first line: a row of the first factor, a column of the second.
    pub line: &'i Index,
    /// What is summed over, in steps of [`DEPTH`].
    pub step: &'i Index,
}

/// An element's index in the place, and what must hold beside being inside it.
pub(in crate::lower::gpu) type Element = (Vec<Index>, Vec<Guard>);

/// The element of a line, at so many past a step's first.
pub(in crate::lower::gpu) type Map<'p> = dyn Fn(&At, &Index, &Index, &Extents) -> Element + 'p;

/// A factor. Elements that are outside of the place are zeros.
pub(in crate::lower::gpu) struct Factor<'p> {
    pub place: Place,
    pub map: Box<Map<'p>>,
    /// Whether neighbours in memory follow each other along what is summed over, or from line to line.
    pub along_depth: bool,
    /// Elements that can be copied at once along that.
    pub wide: usize,
}

/// Elements of the largest copy.
pub(super) const WIDEST: usize = 4;

/// What can be copied at once: the largest of four, two and one that divides all of these.
pub(super) fn wide(sizes: &[usize]) -> usize {
    let fits = |n: &usize| sizes.iter().all(|s| s.is_multiple_of(*n));
    [WIDEST, 2].into_iter().find(fits).unwrap_or(1)
}

impl Factor<'_> {
    /// Tiles of so many lines in shared memory, with padding.
    pub(super) fn tiles(&self, b: &mut Builder, name: &str, lines: usize, stages: usize) -> Tiles {
        let [outer, inner, pitch] = self.tile_shape(lines);
        let (shape, strides) = ([stages, outer, inner], [outer * pitch, pitch, 1]);
        let buffer = b.kernel.strided(name, DType::F32, &shape, &strides, Memory::Shared);
        b.kernel.buffers[buffer.0 as usize].tf32 = self.place.tf32;
        Tiles { buffer, along_depth: self.along_depth }
    }

    /// Rows of a tile as it lies, their elements, and how far they are apart.
    fn tile_shape(&self, lines: usize) -> [usize; 3] {
        match self.along_depth {
            true => [lines, DEPTH, DEPTH + DEPTH_PADDING],
            false => [DEPTH, lines, lines + LINE_PADDING],
        }
    }

    /// Bytes of a tile.
    pub(super) fn tile_bytes(&self, lines: usize) -> usize {
        let [outer, _, pitch] = self.tile_shape(lines);
        outer * pitch * DType::F32.size()
    }

    /// The row of a tile that the threads of a group begin with. Where four threads copy a line of 80 bytes, 16 each,
    /// the eight threads that copy at a time take lines that are four apart: they meet in no bank.
    fn copied_row(&self, group: Index, extents: &Extents) -> Index {
        if !self.along_depth || self.wide != WIDEST {
            return group;
        }
        let (eights, within) = (group.div(8, extents), group.rem(8, extents));
        eights * 8 + within.rem(2, extents) * 4 + within.div(2, extents)
    }

    /// Starts a thread's copies of a tile of so many lines; `to` says where an element of it lies.
    pub(super) fn copy(
        &self,
        b: &mut Builder,
        at: &At,
        lines: usize,
        thread: &Index,
        to: &dyn Fn(Index, Index) -> (BufferId, Vec<Index>),
    ) {
        let threads = b.kernel.threads.unwrap_or(1);
        let [outer, inner, _] = self.tile_shape(lines);
        // Neighbouring threads copy neighbours; a thread has some rows of them, as far apart as all of
        // the threads reach, or some parts of every row.
        let across = (inner / self.wide).min(threads);
        let turns = inner / self.wide / across;
        let together = (threads / across).min(outer);
        let x = thread.rem(across, b.extents()) * self.wide as i64;
        let y = self.copied_row(thread.div(across, b.extents()), b.extents());
        let busy = Guard::between(thread, 0, (across * together) as i64, b.extents());
        let from = b.bind(&self.place, Access::Read, "x");
        b.when(busy, |b| {
            b.unroll("i", outer / together * turns, |b, i| {
                let (row, turn) = (i.div(turns, b.extents()), i.rem(turns, b.extents()));
                let y = y + row * together as i64;
                let x = x + turn * (across * self.wide) as i64;
                let (line, k) = if self.along_depth { (y, x) } else { (x, y) };
                let (element, mut guards) = (self.map)(at, &line, &k, b.extents());
                let last = element.len().saturating_sub(1);
                for (d, (i, &n)) in element.iter().zip(&self.place.shape).enumerate() {
                    let past = if d == last { self.wide - 1 } else { 0 };
                    guards.extend(Guard::between(i, 0, n as i64 - past as i64, b.extents()));
                }
                let (buffer, index) = to(line, k);
                let elements = self.wide;
                b.joint(Joint::Copy { to: buffer, index, from, at: element, elements, guards });
            });
        });
    }
}

impl At<'_> {
    /// The position in what is summed over, so many past the step's first.
    pub fn k(&self, past: &Index) -> Index {
        self.step.clone() * DEPTH as i64 + past.clone()
    }

    /// A line of the factor, so many past the first.
    pub fn line(&self, past: &Index) -> Index {
        self.line.clone() + past.clone()
    }
}
