//! Reductions by blocks: the threads of a block take the elements of a row (or of some columns) in turns and put
//! their sums together. A row that has several blocks is added up from their parts by another kernel.

use super::{Pass, Reduction, joined, start};
use crate::graph::op::ReduceKind;
use crate::kernel::{BinOp, Expr, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Cell, Scope};
use crate::lower::elementwise::{div, f32, fma, sub};
use crate::lower::gpu::Made;
use crate::lower::gpu::elements::{finished, with_lanes};
use nnc_runtime::DType;
use nnc_runtime::program::Access;

impl Reduction<'_> {
    /// The kernel that does all, a block a row (or some columns).
    pub(super) fn whole(&self, scope: &Scope) -> Option<Made> {
        let mut b = Builder::new(self.name, scope);
        b.provided = self.anchors.iter().map(|a| a.0).collect();
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        b.kernel.threads = Some(self.team.threads());
        let task = self.team_tasks(&mut b);
        with_lanes(&mut b, self.team.lanes(), |b, _| self.reduce(b, &task));
        finished(b)
    }

    /// What a block does.
    fn reduce(&self, b: &mut Builder, task: &[Index]) {
        let count = f32(self.count as f64);
        let totals = self.cells(b);
        b.threads(|b, thread| {
            self.clear(b, &totals);
            let share = self.share(b, task, &thread);
            share.when_any(b, |b| {
                self.each_element(b, &share, &Index::default(), 1, |b, at| {
                    for (cell, &(_, kind, x)) in totals.iter().zip(&self.anchors) {
                        let value = joined(kind, cell.get(), b.value(x, at));
                        b.assign(cell, value);
                    }
                });
            });
        });
        self.team.join(b, &self.combined(&totals, |_| true), self.varies());
        let squares = self.squares(b, task, &totals, &count);
        self.one_of_team(b, task, |b, kept| {
            let values = totals.iter().zip(&squares).zip(&self.anchors);
            let values = values.map(|((total, squares), (_, kind, _))| match kind {
                ReduceKind::Variance => div(squares.get(), count.clone()),
                ReduceKind::Mean => div(total.get(), count.clone()),
                _ => total.get(),
            });
            let values = values.collect();
            self.complete(b, kept, values);
        });
    }

    /// The squared distances from the mean of variances, by all threads.
    fn squares(&self, b: &mut Builder, task: &[Index], totals: &[Cell], count: &Expr) -> Vec<Cell> {
        let squares = self.cells(b);
        if !self.varies() {
            return squares;
        }
        b.threads(|b, thread| {
            self.clear(b, &squares);
            let means: Vec<Expr> =
                totals.iter().map(|t| b.named("mean", DType::F32, div(t.get(), count.clone()))).collect();
            let share = self.share(b, task, &thread);
            share.when_any(b, |b| {
                self.each_element(b, &share, &Index::default(), 1, |b, at| {
                    for ((cell, mean), &(_, kind, x)) in squares.iter().zip(&means).zip(&self.anchors) {
                        if kind == ReduceKind::Variance {
                            self.add_square(b, cell, mean, x, at);
                        }
                    }
                });
            });
        });
        self.team.join(b, &self.combined(&squares, |kind| kind == ReduceKind::Variance), false);
        squares
    }

    /// The kernel that puts the elements of each part together, a block a part. `[anchors, parts, …]`
    pub(super) fn of_parts(
        &self,
        scope: &Scope,
        pass: Pass,
        to: &Place,
        sums: Option<&Place>,
    ) -> Option<Made> {
        let mut b = Builder::new(&format!("{}_parts", self.name), scope);
        let out = b.bind(to, Access::Write, "parts");
        b.kernel.threads = Some(self.team.threads());
        let task = self.team_tasks(&mut b);
        let part = b.task("p", self.parts);
        let wanted = |kind: ReduceKind| pass == Pass::First || kind == ReduceKind::Variance;
        with_lanes(&mut b, self.team.lanes(), |b, _| {
            let cells = self.cells(b);
            b.threads(|b, thread| {
                self.clear(b, &cells);
                let share = self.share(b, &task, &thread);
                share.when_any(b, |b| {
                    let means = self.means(b, &share.kept, sums);
                    self.each_element(b, &share, &part, self.parts, |b, at| {
                        self.add_element(b, pass, &cells, &means, at);
                    });
                });
            });
            self.team.join(b, &self.combined(&cells, wanted), false);
            self.one_of_team(b, &task, |b, kept| {
                for (i, cell) in cells.iter().enumerate() {
                    b.store(out, [&[Index::from(i), part.clone()], kept].concat(), cell.get());
                }
            });
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
