//! Softmax and its logarithm: a block a row where rows are long and lie side by side. Else two kernels: a thread a row finds the largest element and the sum of
//! exponentials of what is left when it is taken away, so that nothing overflows; then a thread an
//! element divides (or takes the logarithm of the sum away).

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::Made;
use super::elements::{finished, tasks};
use super::schedule::Rows;
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::{Role, ValueId};
use crate::kernel::{BinOp, Expr, Index, UnOp};
use crate::lower::Lowering;
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Scope};
use crate::lower::elementwise::{add, div, f32, max, sizes, sub, unary};
use crate::lower::generic::lowest;

/// The group: results are the softmax, or elementwise work after it.
struct Softmax<'a> {
    name: &'a str,
    anchor: NodeId,
    axis: usize,
    is_log: bool,
    results: &'a [(NodeId, Place)],
    shape: Vec<usize>,
}

impl Lowering<'_> {
    /// The kernels; `None` if the work after it is not in step with the elements.
    pub(super) fn gpu_softmax(
        &mut self,
        scope: &Scope,
        name: &str,
        anchor: NodeId,
        axis: usize,
        results: &[(NodeId, Place)],
    ) -> Option<Vec<Made>> {
        let shape = sizes(self.graph.node(anchor));
        if results[0].1.shape != shape {
            return None;
        }
        let rows = shape.iter().product::<usize>() / shape[axis];
        let is_log = matches!(self.graph.node(anchor).op, Op::LogSoftmax(_));
        if axis + 1 == shape.len()
            && let Some(schedule) = Rows::of(rows, shape[axis], self.gpu?, self.gpu_options)
        {
            let softmax = Softmax { name, anchor, axis, is_log, results, shape };
            return Some(vec![softmax.by_blocks(scope, schedule)?]);
        }
        // The value is added if there is something that uses it.
        let value = ValueId(self.module.values.len() as u32);
        let totals = Place::dense(value, DType::F32, &[2, rows], Layout::Plain);
        let softmax = Softmax { name, anchor, axis, is_log, results, shape };
        let kernels = vec![softmax.of_rows(scope, &totals)?, softmax.of_elements(scope, &totals)?];
        self.new_value("", DType::F32, &[2, rows], Role::Temporary);
        Some(kernels)
    }
}

impl Softmax<'_> {
    /// The kernel that does all, a block a row.
    fn by_blocks(&self, scope: &Scope, schedule: Rows) -> Option<Made> {
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        b.kernel.threads = Some(schedule.threads);
        let mut outer = self.shape.clone();
        outer[self.axis] = 1;
        let row = self.tasks(&mut b, &outer);
        let x = scope.graph.operands(self.anchor)[0];
        let count = self.shape[self.axis];
        let at = |k: Index| {
            let mut at = row.clone();
            at[self.axis] = k;
            at
        };
        let (largest, total) = (b.cell("largest", DType::F32), b.cell("total", DType::F32));
        b.threads(|b, thread| {
            b.assign(&largest, lowest(DType::F32));
            b.strided(&thread, count, |b, k| {
                let v = b.value(x, &at(k));
                b.assign(&largest, max(largest.get(), v));
            });
        });
        b.across_block(&[(&largest, BinOp::Max)]);
        b.threads(|b, thread| {
            b.assign(&total, f32(0.0));
            b.strided(&thread, count, |b, k| {
                let v = b.value(x, &at(k));
                let power = unary(UnOp::Exp, sub(v, largest.get()));
                b.assign(&total, add(total.get(), power));
            });
        });
        b.across_block(&[(&total, BinOp::Add)]);
        b.threads(|b, thread| {
            if self.is_log {
                b.assign(&total, unary(UnOp::Log, total.get()));
            }
            b.strided(&thread, count, |b, k| {
                let at = at(k);
                let v = sub(b.value(x, &at), largest.get());
                let v = if self.is_log { sub(v, total.get()) } else { div(unary(UnOp::Exp, v), total.get()) };
                let v = b.shared(DType::F32, v);
                b.memo.push((self.anchor, at.clone(), v));
                b.store_all(self.results, &at);
            });
        });
        finished(b)
    }

    /// The kernel that sums the rows. `[2, rows]`: of each row the largest element, and the sum or its logarithm.
    fn of_rows(&self, scope: &Scope, totals: &Place) -> Option<Made> {
        let mut b = Builder::new(&format!("{}_rows", self.name), scope);
        let to = b.bind(totals, Access::Write, "totals");
        let mut outer = self.shape.clone();
        outer[self.axis] = 1;
        let row = self.tasks(&mut b, &outer);
        let x = scope.graph.operands(self.anchor)[0];
        let largest = b.cell("largest", DType::F32);
        b.assign(&largest, lowest(DType::F32));
        self.along(&mut b, &row, |b, at| {
            let v = b.value(x, at);
            b.assign(&largest, max(largest.get(), v));
        });
        let total = b.cell("total", DType::F32);
        b.assign(&total, f32(0.0));
        self.along(&mut b, &row, |b, at| {
            let v = b.value(x, at);
            let power = unary(UnOp::Exp, sub(v, largest.get()));
            b.assign(&total, add(total.get(), power));
        });
        let total = if self.is_log { unary(UnOp::Log, total.get()) } else { total.get() };
        let number = self.row_number(&row);
        b.store(to, vec![Index::default(), number.clone()], largest.get());
        b.store(to, vec![Index::from(1usize), number], total);
        finished(b)
    }

    /// The kernel that computes the elements.
    fn of_elements(&self, scope: &Scope, totals: &Place) -> Option<Made> {
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        let totals = b.bind(totals, Access::Read, "totals");
        let at = self.tasks(&mut b, &self.shape);
        let mut row = at.clone();
        row[self.axis] = Index::default();
        let number = self.row_number(&row);
        let largest = Expr::Load(totals, vec![Index::default(), number.clone()]);
        let total = Expr::Load(totals, vec![Index::from(1usize), number]);
        let v = sub(b.value(scope.graph.operands(self.anchor)[0], &at), largest);
        let v = if self.is_log { sub(v, total) } else { div(unary(UnOp::Exp, v), total) };
        let v = b.shared(DType::F32, v);
        b.memo.push((self.anchor, at.clone(), v));
        b.store_all(self.results, &at);
        finished(b)
    }

    /// A task dimension for every dimension of a shape like the softmax's, which is row-major.
    fn tasks(&self, b: &mut Builder, shape: &[usize]) -> Vec<Index> {
        tasks(b, shape, &Layout::Plain.order(shape.len()))
    }

    /// Runs over the elements of a row.
    fn along(&self, b: &mut Builder, row: &[Index], body: impl FnOnce(&mut Builder, &[Index])) {
        b.serial("k", self.shape[self.axis], |b, k| {
            let mut at = row.to_vec();
            at[self.axis] = k;
            body(b, &at);
        });
    }

    /// The number of a row among all.
    fn row_number(&self, row: &[Index]) -> Index {
        let outer = row.iter().zip(&self.shape).enumerate().filter(|(d, _)| *d != self.axis);
        outer.fold(Index::default(), |sum, (_, (i, &n))| sum * n as i64 + i.clone())
    }
}
