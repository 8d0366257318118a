//! Rows of `x` in scratch, with zeros around, for weight gradients whose tiles go over kernel positions.

use super::builder::Builder;
use super::elementwise::f32;
use super::weight_grad::{Form, WeightGrad};
use crate::kernel::{BufferId, Expr, Guard, Index};

/// Where a row, a column and a channel of a block are in scratch.
type Cell<'c> = dyn Fn(Index, Index, Index) -> Vec<Index> + 'c;

/// A value by column of the scratch buffer and channel of a block.
type Value<'v> = dyn Fn(Index, Index) -> Expr + 'v;

impl WeightGrad<'_> {
    /// Copies the rows and columns under the rows of `dy` from `first_row` on, of an image and a channel (or
    /// block of channels), to scratch.
    pub fn stage(
        &self,
        b: &mut Builder,
        (x, [n, channel], first_row): (BufferId, [&Index; 2], &Index),
        [rows, columns]: [usize; 2],
        (staged, cell): (BufferId, &Cell),
    ) {
        let [height, width] = [self.x.shape[2], self.x.shape[3]];
        let [top, _, left, _] = self.conv.padding;
        let first = first_row.clone() * self.conv.stride[0] as i64 - top;
        let copied = width.min(columns.saturating_sub(left));
        let after = (left + copied).min(columns);
        b.serial("r", rows, |b, r| {
            let row = first + r.clone();
            let cell = |column: Index, c: Index| cell(r.clone(), column, c);
            let zero = |b: &mut Builder, first: usize, count: usize| {
                self.pixels(b, [first, count], (staged, &cell), &|_, _| f32(0.0));
            };
            let inside = Guard::between(&row, 0, height as i64, b.extents());
            let (low, high) = row.range(b.extents());
            b.when(inside, |b| {
                zero(b, 0, left.min(columns));
                self.pixels(b, [left, copied], (staged, &cell), &|column, c| {
                    let mut at = vec![n.clone(), channel.clone(), row.clone(), column - left];
                    if self.form == Form::Depthwise {
                        at.push(c);
                    }
                    Expr::Load(x, at)
                });
                zero(b, after, columns - after);
            });
            if low < 0 {
                b.when(vec![Guard(Index::from(-1i64) - row.clone())], |b| zero(b, 0, columns));
            }
            if high >= height as i64 {
                b.when(vec![Guard(row.clone() - height)], |b| zero(b, 0, columns));
            }
        });
    }

    /// Stores a value for some columns of a row.
    fn pixels(
        &self,
        b: &mut Builder,
        [first, count]: [usize; 2],
        (staged, cell): (BufferId, &dyn Fn(Index, Index) -> Vec<Index>),
        value: &Value,
    ) {
        let lanes = self.lanes;
        let store = |b: &mut Builder, column: Index, c: Index| {
            b.store(staged, cell(column.clone(), c.clone()), value(column, c));
        };
        if self.form == Form::Depthwise {
            return b.serial("c", count, |b, c| {
                b.unroll("v", self.vectors(), |b, v| {
                    b.vector(lanes, |b, lane| store(b, c + first, v * lanes as i64 + lane));
                });
            });
        }
        b.serial("c", count / lanes, |b, c| {
            b.vector(lanes, |b, lane| store(b, c * lanes as i64 + lane + first, Index::default()));
        });
        let whole = count / lanes * lanes;
        b.serial("c", count - whole, |b, c| store(b, c + whole + first, Index::default()));
    }
}
