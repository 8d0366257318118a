//! Borders that are left out: a padded input is read where it lies, and products with what is outside of it are not
//! made. That saves the copy with zeros around it, and the multiplications by them (a fifth at 7x7).
//!
//! A tile has pixels of one row. A row of the kernel that is outside for it is a guard around its columns. A column of the
//! kernel that is outside for some of its pixels is written out with the others alone: so the first and the last tile of a row
//! are apart from those between, which meet no border.

use std::ops::Range;

use super::builder::Builder;
use super::conv::ConvGroup;
use super::conv_split::{Geometry, tiles};
use super::conv_taps::{Axis, Comb};
use crate::kernel::{Guard, Index};

/// Columns of the kernel, and the pixels of a tile that they reach inside of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub taps: Range<usize>,
    pub pixels: Range<usize>,
}

/// Tiles beside each other that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    /// The first column, and the number of the first one in its row.
    pub column: usize,
    pub number: usize,
    pub count: usize,
    /// Of each.
    pub pixels: usize,
}

impl Geometry {
    /// True if no tiles but the first and the last of a row meet a border.
    pub fn leaves_borders_out(&self) -> bool {
        let inside = |columns: &Axis, tiles: &Tiles| {
            let all = tiles.column..tiles.column + tiles.count * tiles.pixels;
            tiles.count == 1 || (0..columns.taps).all(|t| all.clone().all(|o| self.is_inside(columns, o, t)))
        };
        let comb = |comb: &Comb| self.row_of_tiles(comb).iter().all(|tiles| inside(&comb.columns, tiles));
        self.taps.combs().iter().all(comb)
    }

    /// The tiles of a row.
    pub fn row_of_tiles(&self, comb: &Comb) -> Vec<Tiles> {
        let mut out: Vec<Tiles> = vec![];
        let (mut column, mut number) = (0, 0);
        for (count, pixels) in tiles(comb.columns.size, self.tile.pixels) {
            out.push(Tiles { column, number, count, pixels });
            (column, number) = (column + count * pixels, number + count);
        }
        if !self.has_borders {
            return out;
        }
        let apart = |t: Tiles, first: usize| {
            let rest = Tiles {
                column: t.column + first * t.pixels,
                number: t.number + first,
                count: t.count - first,
                ..t
            };
            [Tiles { count: first, ..t }, rest]
        };
        if let Some(&first) = out.first() {
            out.splice(0..1, apart(first, 1));
        }
        if let Some(&last) = out.last() {
            let at = out.len() - 1;
            out.splice(at.., apart(last, last.count.saturating_sub(1)));
        }
        out.retain(|t| t.count > 0);
        out
    }

    fn is_inside(&self, columns: &Axis, output: usize, tap: usize) -> bool {
        columns.is_inside([output, tap], self.input[2], self.taps.before[1])
    }
}

impl ConvGroup<'_> {
    /// Guards that keep a row of the input inside of the image, counted from its first one.
    pub fn rows_inside(&self, b: &Builder, row: &Index) -> Vec<Guard> {
        if !self.geometry.has_borders {
            return vec![];
        }
        Guard::between(row, 0, self.geometry.input[1] as i64, b.extents())
    }

    /// The columns of the kernel for a tile of so many pixels at a column.
    pub fn spans(&self, b: &mut Builder, comb: &Comb, column: &Index, pixels: usize) -> Vec<Span> {
        let g = &self.geometry;
        if !g.has_borders {
            return vec![Span { taps: 0..comb.columns.taps, pixels: 0..pixels }];
        }
        let (first, last) = column.range(b.extents());
        let mut spans: Vec<Span> = vec![];
        for tap in 0..comb.columns.taps {
            let inside = |p: &usize| {
                let at = |first: i64| g.is_inside(&comb.columns, first as usize + p, tap);
                (at(first), at(last))
            };
            // `leaves_borders_out` has seen that tiles in a loop are inside as a whole.
            b.failed |= (0..pixels).any(|p| inside(&p).0 != inside(&p).1);
            let reached: Vec<usize> = (0..pixels).filter(|p| inside(p).0).collect();
            let (Some(&low), Some(&high)) = (reached.first(), reached.last()) else { continue };
            match spans.last_mut() {
                Some(span) if span.pixels == (low..high + 1) && span.taps.end == tap => span.taps.end += 1,
                _ => spans.push(Span { taps: tap..tap + 1, pixels: low..high + 1 }),
            }
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::super::conv_split::{Form, Problem};
    use super::super::conv_taps::Slide;
    use super::*;
    use crate::graph::op::Conv2d;

    /// Of a convolution of 64 by 32 channels with vectors of 16 lanes.
    fn geometry(size: usize, kernel: usize, padding: usize, stride: usize) -> Geometry {
        let conv = Conv2d { stride: [stride; 2], padding: [padding; 4], dilation: [1; 2], groups: 1 };
        let out = (size + 2 * padding - kernel) / stride + 1;
        let taps = Slide { conv, transposed: false }.taps([kernel; 2], [size; 2], [out; 2]);
        let problem = Problem {
            conv_groups: 1,
            form: Form::Dense,
            pool: None,
            made: None,
            images: 1,
            input: [64, size, size],
            output: [32, out, out],
            rows: out,
            stages: taps.padded,
            taps,
            in_block: 16,
            block: 16,
            lanes: 16,
            registers: 32,
        };
        problem.geometry()
    }

    #[test]
    fn the_first_and_the_last_tile_of_a_row_are_apart() {
        let g = geometry(56, 3, 1, 1);
        let tiles = g.row_of_tiles(&g.taps.combs()[0]);
        let [first, between, last] = tiles[..] else { panic!("{tiles:?}") };
        assert_eq!((first.count, between.count, last.count), (1, 2, 1), "{tiles:?}");
        assert_eq!((between.column, between.number), (first.pixels, 1));
        assert_eq!((last.column, last.number), (3 * first.pixels, 3));
        let g = geometry(58, 3, 0, 1);
        assert_eq!(g.row_of_tiles(&g.taps.combs()[0]).iter().map(|t| t.count).max(), Some(4), "no border");
    }

    #[test]
    fn borders_are_left_out_where_only_the_outer_tiles_meet_them() {
        for (size, kernel, padding, stride) in [(56, 3, 1, 1), (14, 5, 2, 1), (7, 3, 1, 1), (57, 3, 1, 2)] {
            let g = geometry(size, kernel, padding, stride);
            assert!(g.has_borders && !g.stages, "{size} {kernel}");
        }
        // Forty columns of zeros are more than a tile.
        assert!(geometry(128, 81, 40, 1).stages);
        assert!(!geometry(56, 1, 0, 1).has_borders);
    }
}
