//! Reductions by blocks: the threads of a block take the elements of a row in turns and put their sums together.
//! A row that has several blocks is added up from their parts by the kernels that join parts of threads.

use super::{Pass, Reduction, joined, start};
use crate::graph::op::ReduceKind;
use crate::kernel::{BinOp, Expr, Guard, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Cell, Scope};
use crate::lower::elementwise::{div, f32, fma, sub};
use crate::lower::gpu::Made;
use crate::lower::gpu::elements::finished;
use nnc_runtime::DType;
use nnc_runtime::program::Access;

impl Reduction<'_> {
    /// The kernel that does all, a block a row.
    pub(super) fn whole(&self, scope: &Scope, threads: usize) -> Option<Made> {
        let mut b = Builder::new(self.name, scope);
        b.provided = self.anchors.iter().map(|a| a.0).collect();
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        b.kernel.threads = Some(threads);
        let kept: Vec<Index> = self.kept_shape().iter().map(|&n| b.task("i", n)).collect();
        let count = f32(self.count as f64);
        let totals = self.cells(&mut b);
        b.threads(|b, thread| {
            self.clear(b, &totals);
            b.strided(&thread, self.count, |b, number| {
                let at = self.element(b, &kept, number);
                for (cell, &(_, kind, x)) in totals.iter().zip(&self.anchors) {
                    let value = joined(kind, cell.get(), b.value(x, &at));
                    b.assign(cell, value);
                }
            });
        });
        b.across_block(&self.combined(&totals, |_| true));
        let squares = self.squares(&mut b, &kept, &totals, &count);
        b.one_thread(|b| {
            let values = totals.iter().zip(&squares).zip(&self.anchors);
            let values = values.map(|((total, squares), (_, kind, _))| match kind {
                ReduceKind::Variance => div(squares.get(), count.clone()),
                ReduceKind::Mean => div(total.get(), count.clone()),
                _ => total.get(),
            });
            let values = values.collect();
            self.complete(b, &kept, values);
        });
        finished(b)
    }

    /// The squared distances from the mean of variances, by all threads.
    fn squares(&self, b: &mut Builder, kept: &[Index], totals: &[Cell], count: &Expr) -> Vec<Cell> {
        let squares = self.cells(b);
        if !self.varies() {
            return squares;
        }
        b.threads(|b, thread| {
            self.clear(b, &squares);
            let means: Vec<Expr> =
                totals.iter().map(|t| b.named("mean", DType::F32, div(t.get(), count.clone()))).collect();
            b.strided(&thread, self.count, |b, number| {
                let at = self.element(b, kept, number);
                for ((cell, mean), &(_, kind, x)) in squares.iter().zip(&means).zip(&self.anchors) {
                    if kind == ReduceKind::Variance {
                        self.add_square(b, cell, mean, x, &at);
                    }
                }
            });
        });
        b.across_block(&self.combined(&squares, |kind| kind == ReduceKind::Variance));
        squares
    }

    /// The kernel that puts the elements of each part together, a block a part. `[anchors, parts, …]`
    pub(super) fn of_parts_by_blocks(
        &self,
        scope: &Scope,
        pass: Pass,
        to: &Place,
        (threads, sums): (usize, Option<&Place>),
    ) -> Option<Made> {
        let mut b = Builder::new(&format!("{}_parts", self.name), scope);
        let out = b.bind(to, Access::Write, "parts");
        b.kernel.threads = Some(threads);
        let kept: Vec<Index> = self.kept_shape().iter().map(|&n| b.task("i", n)).collect();
        let part = b.task("p", self.parts);
        let wanted = |kind: ReduceKind| pass == Pass::First || kind == ReduceKind::Variance;
        let cells = self.cells(&mut b);
        b.threads(|b, thread| {
            self.clear(b, &cells);
            let means = self.means(b, &kept, sums);
            let together = threads * self.parts;
            b.serial("k", self.count.div_ceil(together), |b, k| {
                let number = k * together as i64 + part.clone() * threads as i64 + thread;
                let inside = Guard::between(&number, 0, self.count as i64, b.extents());
                b.when(inside, |b| {
                    let at = self.element(b, &kept, number);
                    self.add_element(b, pass, &cells, &means, &at);
                });
            });
        });
        b.across_block(&self.combined(&cells, wanted));
        b.one_thread(|b| {
            for (i, cell) in cells.iter().enumerate() {
                b.store(out, [&[Index::from(i), part.clone()], kept.as_slice()].concat(), cell.get());
            }
        });
        finished(b)
    }

    fn cells(&self, b: &mut Builder) -> Vec<Cell> {
        self.anchors.iter().map(|_| b.cell("total", DType::F32)).collect()
    }

    fn clear(&self, b: &mut Builder, cells: &[Cell]) {
        for (cell, &(_, kind, _)) in cells.iter().zip(&self.anchors) {
            b.assign(cell, start(kind));
        }
    }

    /// Cells with the operation that joins them, of the wanted anchors.
    fn combined<'c>(&self, cells: &'c [Cell], wanted: impl Fn(ReduceKind) -> bool) -> Vec<(&'c Cell, BinOp)> {
        let all = cells.iter().zip(&self.anchors).filter(|(_, (_, kind, _))| wanted(*kind));
        all.map(|(cell, (_, kind, _))| (cell, operation(*kind))).collect()
    }

    /// Adds the square of an element's distance from the mean.
    pub(super) fn add_square(
        &self,
        b: &mut Builder,
        cell: &Cell,
        mean: &Expr,
        x: crate::graph::NodeId,
        at: &[Index],
    ) {
        let v = b.value(x, at);
        let d = b.named("distance", DType::F32, sub(v, mean.clone()));
        b.assign(cell, fma(d.clone(), d, cell.get()));
    }
}

/// What joins totals.
fn operation(kind: ReduceKind) -> BinOp {
    match kind {
        ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Variance => BinOp::Add,
        ReduceKind::Prod => BinOp::Mul,
        ReduceKind::Max => BinOp::Max,
        ReduceKind::Min => BinOp::Min,
    }
}
