//! A tensor seen as matrices: some dimensions count batches, some rows, some columns.

use std::ops::Range;

use crate::kernel::{Extents, Guard, Index};

/// Which dimensions of a result are rows, which columns; the rest, in front, counts matrices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lower::gpu) struct Result2d {
    pub shape: Vec<usize>,
    /// Each from the slowest on.
    pub rows: Vec<usize>,
    pub columns: Vec<usize>,
    /// Sizes by which rows and columns are numbered: those of the shape, or more, where what is past the shape is nothing.
    pub counted: Vec<usize>,
    /// Where it lies in what the kernel writes: along every dimension the first one, and how far they are apart.
    pub spread: Vec<(usize, usize)>,
    batch: Range<usize>,
}

impl Result2d {
    /// The dimensions before the first row and column are those of the batch.
    pub fn new(shape: &[usize], rows: &[usize], columns: &[usize]) -> Result2d {
        let batch = rows.iter().chain(columns).min().copied().unwrap_or_default();
        let (rows, columns, spread) = (rows.to_vec(), columns.to_vec(), vec![(0, 1); shape.len()]);
        Result2d { shape: shape.to_vec(), counted: shape.to_vec(), rows, columns, spread, batch: 0..batch }
    }

    /// The guards that keep an index from what is nothing.
    pub fn inside(&self, index: &[Index], extents: &Extents) -> Vec<Guard> {
        let filled = (0..index.len()).filter(|&d| self.counted[d] > self.shape[d]);
        filled.flat_map(|d| Guard::between(&index[d], 0, self.shape[d] as i64, extents)).collect()
    }

    /// The place of an element in what the kernel writes.
    pub fn spread(&self, index: &[Index]) -> Vec<Index> {
        let along = |(i, &(first, step)): (&Index, &(usize, usize))| i.clone() * step as i64 + first;
        index.iter().zip(&self.spread).map(along).collect()
    }

    /// Sizes of the dimensions that count matrices.
    pub fn batch(&self) -> &[usize] {
        &self.shape[self.batch.clone()]
    }

    /// Matrices.
    pub fn batches(&self) -> usize {
        self.batch().iter().product()
    }

    /// All dimensions: those of the batch, of rows, of columns.
    pub fn order(&self) -> Vec<usize> {
        self.batch.clone().chain(self.rows.iter().copied()).chain(self.columns.iter().copied()).collect()
    }

    /// Sizes of the dimensions of rows, and of columns.
    pub fn side_sizes(&self) -> [Vec<usize>; 2] {
        [&self.rows, &self.columns].map(|axes| axes.iter().map(|&a| self.counted[a]).collect())
    }

    /// Rows and columns.
    pub fn sides(&self) -> [usize; 2] {
        self.side_sizes().map(|sizes| sizes.iter().product())
    }

    /// `[matrices, rows, columns]`
    pub fn flat_shape(&self) -> Vec<usize> {
        let [rows, columns] = self.sides();
        vec![self.batches(), rows, columns]
    }

    /// The number of a matrix.
    pub fn batch_number(&self, batch: &[Index]) -> Index {
        number(batch, self.batch())
    }

    /// The element in a row and a column.
    pub fn index(&self, batch: &[Index], row: &Index, column: &Index, extents: &Extents) -> Vec<Index> {
        let mut out = batch.to_vec();
        out.resize(self.shape.len(), Index::default());
        for (axes, i) in [(&self.rows, row), (&self.columns, column)] {
            let sizes: Vec<usize> = axes.iter().map(|&a| self.counted[a]).collect();
            for (&axis, i) in axes.iter().zip(digits(i, &sizes, extents)) {
                out[axis] = i;
            }
        }
        out
    }

    /// The matrix, row and column of an element.
    pub fn flat(&self, index: &[Index]) -> [Index; 3] {
        let side = |axes: &[usize]| {
            let pick = |of: &dyn Fn(usize) -> Index| axes.iter().map(|&a| of(a)).collect::<Vec<_>>();
            let sizes: Vec<usize> = axes.iter().map(|&a| self.counted[a]).collect();
            number(&pick(&|a| index[a].clone()), &sizes)
        };
        [number(&index[self.batch.clone()], self.batch()), side(&self.rows), side(&self.columns)]
    }
}

/// The index of a number in a shape, which may be past its end along the first dimension that has one.
///
/// A remainder is taken apart further, so that the place in memory is the remainder itself where
/// dimensions lie one after the other.
pub(in crate::lower::gpu) fn digits(i: &Index, shape: &[usize], extents: &Extents) -> Vec<Index> {
    let (mut rest, mut out) = (i.clone(), vec![]);
    for (axis, &n) in shape.iter().enumerate() {
        let inner: usize = shape[axis + 1..].iter().product();
        let leads = shape[..axis].iter().all(|&n| n == 1);
        if leads && n == 1 && inner > 1 {
            out.push(Index::default());
            continue;
        }
        out.push(rest.div(inner.max(1), extents));
        rest = rest.rem(inner.max(1), extents);
    }
    out
}

/// The number of an index in a shape.
fn number(index: &[Index], shape: &[usize]) -> Index {
    index.iter().zip(shape).fold(Index::default(), |sum, (i, &n)| sum * n as i64 + i.clone())
}
