//! The kernels: all at once, or parts and then their sums.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::totals::Task;
use super::{Apart, Made, Reduction, Total, dealt, finished};
use crate::graph::NodeId;
use crate::graph::op::ReduceKind;
use crate::kernel::{BufferId, Expr, Guard, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Cell, Scope};
use crate::lower::elementwise::{add, div, f32, fma, mul, sub};

impl Apart<'_> {
    /// The kernel that does all where there is one part.
    pub(super) fn whole(&self, scope: &Scope) -> Option<Made> {
        let mut b = Builder::new(self.of.name, scope);
        self.tasks(&mut b, &mut |b, task, _| {
            let totals = self.totals(b, task);
            for (channel, cells) in task.channels.iter().zip(&totals) {
                let mut at = task.at.clone();
                at[self.space.channel.0] = channel.clone();
                let of = |t: Total| cells[self.of.number(t)].get();
                let count = f32(self.space.part_elements() as f64);
                self.finish_at(b, &at, &of, &|_, x| div(of(Total::Squares(x)), count.clone()));
            }
        });
        finished(b)
    }

    /// The kernel that adds up the parts.
    pub(super) fn parts(&self, scope: &Scope, parts: &Place) -> Option<Made> {
        let mut b = Builder::new(self.of.name, scope);
        let out = b.bind(parts, Access::Write, "parts");
        self.tasks(&mut b, &mut |b, task, part| {
            let totals = self.totals(b, task);
            for (channel, cells) in task.channels.iter().zip(&totals) {
                for (t, cell) in cells.iter().enumerate() {
                    let mut at = vec![Index::from(t), part.clone()];
                    at.extend(self.space.kept.iter().map(|k| task.at[k.0].clone()));
                    at.push(channel.clone());
                    b.store(out, at, cell.get());
                }
            }
        });
        finished(b)
    }

    /// A task for every part of the result and of what is reduced: the task, and the part's number.
    fn tasks(&self, b: &mut Builder, body: &mut dyn FnMut(&mut Builder, &Task, &Index)) {
        let space = &self.space;
        let mut at = vec![Index::default(); space.rank];
        for &(axis, n) in &space.kept {
            at[axis] = b.task("i", n);
        }
        let column = b.task("cb", space.blocks + usize::from(space.tail > 0));
        let mut part = Index::default();
        for cut in &space.reduced {
            let t = b.task("t", cut.parts);
            at[cut.axis] = t.clone() * cut.each as i64;
            part = part * cut.parts as i64 + t;
        }
        let first = column.clone() * space.block as i64;
        let whole = Guard::between(&column, 0, space.blocks as i64, b.extents());
        b.when(whole, |b| {
            b.with_lanes(self.of.lanes, |b, lane| {
                let vectors = 0..space.block / self.of.lanes;
                let channels = vectors.map(|v| first.clone() + lane.clone() + v * self.of.lanes).collect();
                body(b, &Task { at: at.clone(), channels }, &part);
            });
        });
        if space.tail > 0 {
            let last = Guard::between(&column, space.blocks as i64, space.blocks as i64 + 1, b.extents());
            b.when(last, |b| {
                b.serial("r", space.tail, |b, r| {
                    let channels = vec![r + space.blocks * space.block];
                    body(b, &Task { at, channels }, &part);
                });
            });
        }
    }

    /// The kernel that joins the parts, in their order.
    pub(super) fn joined(&self, scope: &Scope, parts: &Place) -> Option<Made> {
        let space = &self.space;
        let mut b = Builder::new(&format!("{}_of_parts", self.of.name), scope);
        let from = b.bind(parts, Access::Read, "parts");
        let mut at = vec![Index::default(); space.rank];
        for &(axis, n) in &space.kept {
            at[axis] = b.task("i", n);
        }
        let size = space.channel.1;
        let (vectors, rest) = (size / self.of.lanes, size % self.of.lanes);
        let each = dealt(vectors.max(1), space.part_count() * self.of.totals.len());
        let tasks = vectors.div_ceil(each).max(1);
        let task = b.task("t", tasks);
        b.serial("v", each.min(vectors), |b, v| {
            let vector = task.clone() * each as i64 + v;
            let inside = Guard::between(&vector, 0, vectors as i64, b.extents());
            b.when(inside, |b| {
                b.with_lanes(self.of.lanes, |b, lane| {
                    at[space.channel.0] = vector * self.of.lanes as i64 + lane;
                    self.join(b, from, &at);
                });
            });
        });
        if rest > 0 {
            let last = Guard::between(&task, tasks as i64 - 1, tasks as i64, b.extents());
            b.when(last, |b| {
                b.serial("r", rest, |b, r| {
                    at[space.channel.0] = r + vectors * self.of.lanes;
                    self.join(b, from, &at);
                });
            });
        }
        finished(b)
    }

    /// Joins the parts of one result (or a vector of them).
    fn join(&self, b: &mut Builder, from: BufferId, at: &[Index]) {
        let space = &self.space;
        let element = |t: usize, part: &Index| {
            let mut place = vec![Index::from(t), part.clone()];
            place.extend(space.kept.iter().map(|k| at[k.0].clone()));
            place.push(at[space.channel.0].clone());
            Expr::Load(from, place)
        };
        let cells: Vec<Cell> = self.of.totals.iter().map(|_| b.cell("total", DType::F32)).collect();
        cells.iter().for_each(|cell| b.assign(cell, f32(0.0)));
        b.serial("p", space.part_count(), |b, part| {
            for (t, cell) in cells.iter().enumerate() {
                b.assign(cell, add(cell.get(), element(t, &part)));
            }
        });
        let each = space.part_elements() as f64;
        let count = each * space.part_count() as f64;
        let of = |t: Total| cells[self.of.number(t)].get();
        self.finish_at(b, at, &of, &|b, x| {
            let sum = self.of.number(Total::Sum(x));
            let mean = b.named("mean", DType::F32, div(of(Total::Sum(x)), f32(count)));
            let between = b.cell("between", DType::F32);
            b.assign(&between, f32(0.0));
            b.serial("p", space.part_count(), |b, part| {
                let mean_of_part = div(element(sum, &part), f32(each));
                let d = b.named("distance", DType::F32, sub(mean_of_part, mean.clone()));
                b.assign(&between, fma(d.clone(), d, between.get()));
            });
            let within = of(Total::Squares(x));
            div(add(within, mul(between.get(), f32(each))), f32(count))
        });
    }

    /// Stores what the group makes of finished totals at an index of the operands.
    fn finish_at(
        &self,
        b: &mut Builder,
        at: &[Index],
        of: &dyn Fn(Total) -> Expr,
        variance: &dyn Fn(&mut Builder, NodeId) -> Expr,
    ) {
        self.of.finish(b, &self.result_index(at), of, variance);
    }

    /// The index of the result that belongs to an index of the operands.
    fn result_index(&self, at: &[Index]) -> Vec<Index> {
        let reduced = |axis: &usize| self.of.axes.contains(axis);
        let kept = (0..at.len()).filter(|a| self.of.keep || !reduced(a));
        kept.map(|a| if reduced(&a) { Index::default() } else { at[a].clone() }).collect()
    }
}

impl Reduction<'_> {
    /// Stores what the group makes of finished totals at an index of the results.
    pub(super) fn finish(
        &self,
        b: &mut Builder,
        index: &[Index],
        of: &dyn Fn(Total) -> Expr,
        variance: &dyn Fn(&mut Builder, NodeId) -> Expr,
    ) {
        let count = f32(self.count as f64);
        for &(anchor, kind, x) in &self.anchors {
            let value = match kind {
                ReduceKind::Mean => div(of(Total::Sum(x)), count.clone()),
                ReduceKind::Variance => variance(b, x),
                _ => of(Total::Sum(x)),
            };
            let value = b.shared(DType::F32, value);
            b.memo.push((anchor, index.to_vec(), value));
        }
        b.store_all(self.results, index);
    }
}
