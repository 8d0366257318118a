//! Matrices that are read by rows and written by columns: a block takes a tile of one through shared memory, so that
//! neighbouring threads have neighbours in memory both times. Weights that are packed, gradients that are not, layouts that
//! change.
//!
//! ```text
//! shared[r, c] = element(row + r, column + c); barrier; store(row + r, column + c, shared[r, c]), the other way round
//! ```
//!
//! Where rows or columns are few (the places of a kernel), a tile has all of them.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::Made;
use super::elements::finished;
use crate::graph::Layout;
use crate::kernel::block::WARP;
use crate::kernel::{Expr, Guard, Index, Joint, LoopKind, Memory};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Scope};

/// Rows and columns of a tile, where there are many of both, and its threads.
const TILE: usize = 32;
const THREADS: usize = 256;

/// Rows or columns from which on that pays.
const LEAST: usize = 16;

/// Rows that a tile has all of, at most.
pub(super) const FEW: usize = TILE;

/// So many matrices of that many rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turned {
    matrices: usize,
    rows: usize,
    columns: usize,
}

/// A tile: its rows and columns, and the threads of its block. Their number divides that of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    rows: usize,
    columns: usize,
    threads: usize,
}

/// What is done with an element: its matrix, row and column, and its place in the tile.
type EachElement<'e> = dyn Fn(&mut Builder, [Index; 3], Vec<Index>) + 'e;

impl Turned {
    /// `None` where threads would have no neighbours either way.
    pub fn of([matrices, rows, columns]: [usize; 3]) -> Option<Turned> {
        (matrices > 0 && rows.min(columns) > 1 && rows.max(columns) >= LEAST).then_some(Turned {
            matrices,
            rows,
            columns,
        })
    }

    /// The shape of what is written: matrices, columns, rows.
    pub fn written(self) -> [usize; 3] {
        [self.matrices, self.columns, self.rows]
    }

    fn tile(self) -> Tile {
        let along = |n: usize| n.next_power_of_two().clamp(WARP, THREADS);
        match (self.rows, self.columns) {
            (rows, columns) if columns <= rows.min(TILE) => {
                Tile { rows: along(rows), columns, threads: along(rows) }
            }
            (rows, columns) if rows <= TILE => {
                Tile { rows, columns: along(columns), threads: along(columns) }
            }
            _ => Tile { rows: TILE, columns: TILE, threads: THREADS },
        }
    }

    /// The kernel's body: what `element` says of a matrix, row and column is what `store` gets. A thread makes its elements
    /// in such a loop: written out, they take registers side by side.
    pub fn body(
        self,
        b: &mut Builder,
        how: LoopKind,
        element: &dyn Fn(&mut Builder, [Index; 3]) -> Expr,
        store: &dyn Fn(&mut Builder, [Index; 3], Expr),
    ) {
        let Tile { rows, columns, threads } = self.tile();
        b.kernel.threads = Some(threads);
        let matrix = b.task("n", self.matrices);
        let row = b.task("r", self.rows.div_ceil(rows)) * rows as i64;
        let column = b.task("c", self.columns.div_ceil(columns)) * columns as i64;
        // The shorter side lies side by side, an odd number of elements: neighbours along either are in other banks.
        let is_wide = columns > rows;
        let (long, short) = if is_wide { (columns, rows) } else { (rows, columns) };
        let tile = b.kernel.strided("tile", DType::F32, &[long, short], &[short | 1, 1], Memory::Shared);
        let each = |b: &mut Builder, how, by_rows: bool, body: &EachElement| {
            b.threads(|b, thread| {
                b.repeat(how, "i", rows * columns / threads, |b, i| {
                    let number = i * threads as i64 + thread;
                    let across = if by_rows { columns } else { rows };
                    let (outer, inner) = (number.div(across, b.extents()), number.rem(across, b.extents()));
                    let (r, c) = if by_rows { (outer, inner) } else { (inner, outer) };
                    let in_tile =
                        if is_wide { vec![c.clone(), r.clone()] } else { vec![r.clone(), c.clone()] };
                    let at = [matrix.clone(), row.clone() + r, column.clone() + c];
                    let mut inside = Guard::between(&at[1], 0, self.rows as i64, b.extents());
                    inside.extend(Guard::between(&at[2], 0, self.columns as i64, b.extents()));
                    b.when(inside, |b| body(b, at, in_tile));
                });
            });
        };
        each(b, how, true, &|b, at, in_tile| {
            let value = element(b, at);
            b.store(tile, in_tile, value);
        });
        b.joint(Joint::Barrier);
        each(b, LoopKind::Unroll, false, &|b, at, in_tile| store(b, at, Expr::Load(tile, in_tile)));
    }
}

/// The kernel that writes the matrices of a place as columns; of f32, rounded where they are to be.
pub(super) fn turned(scope: &Scope, name: &str, turned: Turned, from: &Place, to: &Place) -> Option<Made> {
    let mut b = Builder::new(name, scope);
    b.bind(to, Access::Write, "out");
    turned.body(&mut b, LoopKind::Unroll, &|b, at| b.load(from, "x", &at), &|b, [n, row, column], value| {
        b.store_at(to, &[n, column, row], value);
    });
    finished(b)
}

/// The kernel that copies pictures from channels first to channels last, or the other way; `None` for other layouts, types,
/// and few channels or pixels.
pub(super) fn relayout(scope: &Scope, name: &str, from: &Place, to: &Place) -> Option<Made> {
    if from.layout == to.layout || [from.dtype, to.dtype] != [DType::F32; 2] {
        return None;
    }
    let (from, to) = (matrices(from)?, matrices(to)?);
    let turns = Turned::of([from.shape[0], from.shape[1], from.shape[2]])?;
    turned(scope, name, turns, &from, &to)
}

/// Pictures as matrices of channels and pixels, in the order in which they lie; `None` if there are gaps between rows of
/// pixels, or for another layout.
fn matrices(x: &Place) -> Option<Place> {
    let &[n, c, h, w] = x.shape.as_slice() else { return None };
    let [outer, first, second, third] = x.strides.as_slice() else { return None };
    let even = |rows: usize, columns: usize| h == 1 || rows == columns * w;
    let (shape, strides) = match x.layout {
        Layout::Plain if even(*second, *third) => ([n, c, h * w], [*outer, *first, *third]),
        Layout::ChannelsLast if even(*first, *second) => ([n, h * w, c], [*outer, *second, *third]),
        _ => return None,
    };
    Some(Place { shape: shape.to_vec(), strides: strides.to_vec(), layout: Layout::Plain, ..x.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_have_whole_numbers_of_elements_for_a_thread() {
        for sizes in [[64, 64, 9], [1, 512, 4608], [256, 9, 64], [1, 17, 16], [3, 49, 1024], [2, 2, 16]] {
            let turned = Turned::of(sizes).unwrap();
            let tile = turned.tile();
            assert!((tile.rows * tile.columns).is_multiple_of(tile.threads), "{tile:?}");
            assert!(tile.threads.is_multiple_of(WARP), "{tile:?}");
        }
        let tile = |sizes| Turned::of(sizes).map(|t| t.tile());
        assert_eq!(tile([64, 64, 9]), Some(Tile { rows: 64, columns: 9, threads: 64 }));
        assert_eq!(tile([256, 9, 512]), Some(Tile { rows: 9, columns: 256, threads: 256 }));
        assert_eq!(tile([1, 512, 4608]), Some(Tile { rows: 32, columns: 32, threads: 256 }));
        assert_eq!([[64, 64, 1], [1, 3, 9]].map(tile), [None; 2]);
    }
}
