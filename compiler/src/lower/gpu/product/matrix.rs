//! Products of matrices and linear layers: factors are matrices in memory, perhaps turned.

use super::factor::{At, Factor, wide};
use super::{Product, Result2d};
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::{Extents, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Operand, Scope};
use crate::lower::elementwise::{broadcast_index, sizes};
use crate::lower::gpu::Made;
use crate::lower::{LowerError, Lowering};
use nnc_runtime::DType;

impl<'a> Lowering<'a> {
    /// A matrix product or linear layer, with the elementwise work after it, by blocks; `None` where they
    /// do not pay, or if its factors are computed in the same group.
    pub(in crate::lower::gpu) fn gpu_matrix(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        anchor: NodeId,
        results: &[(NodeId, Place)],
    ) -> Result<Option<Vec<Made>>, LowerError> {
        let graph = self.graph;
        let shape = sizes(graph.node(anchor));
        let operands = graph.operands(anchor);
        if results[0].1.shape != shape || shape.len() < 2 {
            return Ok(None);
        }
        let matrices = (matrix(scope, operands[0]), matrix(scope, operands[1]), self.schedule(anchor));
        let (Some(first), Some(second), Some(schedule)) = matrices else { return Ok(None) };
        let first = self.rounded_once(operands[0], first)?;
        let second = self.rounded_once(operands[1], second)?;
        let Some((result, first, second)) = factors(&graph.node(anchor).op, &shape, first, second) else {
            return Ok(None);
        };
        let bias = operands.get(2).copied();
        let product = Product { name, anchor, results, result, first, second, bias, pool: None, schedule };
        Ok(product.kernels(self, scope))
    }
}

/// The result as a matrix, and its factors.
fn factors(
    op: &Op,
    shape: &[usize],
    first: Place,
    second: Place,
) -> Option<(Result2d, Factor<'static>, Factor<'static>)> {
    let rank = shape.len();
    if *op == Op::Linear {
        let rows: Vec<usize> = (0..rank - 1).collect();
        let depth = *first.shape.last()?;
        let lines = first.shape.iter().product::<usize>() / depth.max(1);
        let first = if rank == 2 { first } else { first.reshaped(&[lines, depth])? };
        let result = Result2d::new(shape, &rows, &[rank - 1]);
        return Some((result, factor(first, rank, false)?, factor(second, rank, false)?));
    }
    let result = Result2d::new(shape, &[rank - 2], &[rank - 1]);
    Some((result, factor(first, rank, false)?, factor(second, rank, true)?))
}

/// An operand as a matrix in memory: itself, or with its last dimensions turned.
fn matrix(scope: &Scope, id: NodeId) -> Option<Place> {
    let place = match scope.operands.get(&id) {
        Some(Operand::Memory(place)) => place.clone(),
        Some(Operand::Splat(..)) => return None,
        None => {
            let Op::Transpose(order) = &scope.graph.node(id).op else { return None };
            let Some(Operand::Memory(place)) = scope.operands.get(&scope.graph.operands(id)[0]) else {
                return None;
            };
            let turned = |v: &[usize]| order.iter().map(|&a| v[a]).collect::<Vec<_>>();
            if place.layout != Layout::Plain {
                return None;
            }
            Place { shape: turned(&place.shape), strides: turned(&place.strides), ..place.clone() }
        }
    };
    (place.dtype == DType::F32 && place.layout == Layout::Plain && place.shape.len() >= 2).then_some(place)
}

/// Lines are the rows of the matrix, or its columns.
fn factor(place: Place, rank: usize, lines_are_columns: bool) -> Option<Factor<'static>> {
    let own = place.shape.len();
    let (rows, columns) = (place.strides[own - 2], place.strides[own - 1]);
    // The copies' direction is that of the innermost dimension in memory: it must be the last one.
    let (place, lines_are_columns) = match (rows, columns) {
        (_, 1) => (place, lines_are_columns),
        (1, _) => (turned(place), !lines_are_columns),
        _ => return None,
    };
    let mut even: Vec<usize> = place.strides[..own - 1].to_vec();
    even.extend([place.offset, place.shape[own - 1]]);
    let batch: Vec<usize> = place.shape[..own - 2].to_vec();
    let map = move |at: &At, line: &Index, k: &Index, _: &Extents| {
        let (line, k) = (at.line(line), at.k(k));
        let batch_rank = (rank - 2).max(batch.len());
        let mut index = match at.batch.len() == batch_rank {
            true => broadcast_index(&batch, batch_rank, at.batch),
            false => vec![],
        };
        index.extend(if lines_are_columns { [k, line] } else { [line, k] });
        (index, vec![])
    };
    let wide = wide(&even);
    Some(Factor { place, map: Box::new(map), along_depth: !lines_are_columns, wide })
}

/// The matrix with rows and columns exchanged.
fn turned(place: Place) -> Place {
    let (mut shape, mut strides) = (place.shape.clone(), place.strides.clone());
    let n = shape.len();
    shape.swap(n - 2, n - 1);
    strides.swap(n - 2, n - 1);
    Place { shape, strides, ..place }
}
