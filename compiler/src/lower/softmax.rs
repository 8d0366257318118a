//! Softmax and its logarithm: a row a time, largest value first, so that nothing overflows.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::{Place, position};
use super::builder::{Builder, Scope};
use super::elementwise::{add, div, f32, max, sub, unary};
use super::generic::lowest;
use crate::graph::{NodeId, Op};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Index, Kernel, Memory, UnOp};

/// A group with a softmax: `result` is it, or elementwise work after it.
pub(super) struct Softmax<'a> {
    pub name: &'a str,
    pub anchor: NodeId,
    pub result: NodeId,
    pub out: &'a Place,
    pub lanes: usize,
}

impl Softmax<'_> {
    /// The kernel; `None` if the work after it is not in step with the rows.
    pub fn kernel(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        let graph = scope.graph;
        let (axis, log) = match graph.node(self.anchor).op {
            Op::Softmax(axis) => (axis, false),
            Op::LogSoftmax(axis) => (axis, true),
            _ => return None,
        };
        let shape = graph.node(self.anchor).ty.sizes()?;
        if shape != self.out.shape {
            return None;
        }
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        let out = b.bind(self.out, Access::Write, "out");
        let mut row = vec![];
        for (d, &n) in shape.iter().enumerate() {
            row.push(if d == axis { Index::default() } else { b.task("i", n) });
        }
        let x = graph.operands(self.anchor)[0];
        let values = b.kernel.buffer("values", DType::F32, &[shape[axis]], Memory::Scratch);
        let largest = self.stage(&mut b, values, x, &row, axis, shape[axis]);
        let total = self.exponentials(&mut b, values, largest.clone(), shape[axis], log);
        let scale = match log {
            true => {
                let log = add(largest, unary(UnOp::Log, total));
                b.named("shift", DType::F32, log)
            }
            false => total,
        };
        b.serial("k", shape[axis], |b, k| {
            let v = Expr::Load(values, vec![k.clone()]);
            let v = if log { sub(v, scale) } else { div(v, scale) };
            let mut at = row;
            at[axis] = k;
            let v = b.shared(DType::F32, v);
            b.memo.push((self.anchor, at.clone(), v));
            let v = b.value(self.result, &at);
            let at = position(&at, self.out.layout, b.extents());
            b.store(out, at, v);
        });
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed).then_some((kernel, args))
    }

    /// Copies the row to `values`; its largest element.
    fn stage(
        &self,
        b: &mut Builder,
        values: BufferId,
        x: NodeId,
        row: &[Index],
        axis: usize,
        n: usize,
    ) -> Expr {
        let largest = b.cell("largest", DType::F32);
        b.assign(&largest, lowest(DType::F32));
        b.serial("k", n, |b, k| {
            let mut at = row.to_vec();
            at[axis] = k.clone();
            let v = b.value(x, &at);
            let v = b.shared(DType::F32, v);
            b.store(values, vec![k], v.clone());
            b.assign(&largest, max(largest.get(), v));
        });
        largest.get()
    }

    /// The sum of `exp(v - largest)`; unless `log`, these take the place of the values.
    fn exponentials(&self, b: &mut Builder, values: BufferId, largest: Expr, n: usize, log: bool) -> Expr {
        let exps = match log {
            true => b.kernel.buffer("exponentials", DType::F32, &[n], Memory::Scratch),
            false => values,
        };
        let power = |at: Index| unary(UnOp::Exp, sub(Expr::Load(values, vec![at]), largest.clone()));
        let lanes = self.lanes;
        b.serial("v", n / lanes, |b, v| {
            b.vector(lanes, |b, lane| {
                let at = v * lanes as i64 + lane;
                b.store(exps, vec![at.clone()], power(at));
            });
        });
        b.serial("r", n % lanes, |b, r| {
            let at = r + n / lanes * lanes;
            b.store(exps, vec![at.clone()], power(at));
        });
        let total = b.cell("total", DType::F32);
        b.assign(&total, f32(0.0));
        b.serial("k", n, |b, k| {
            let v = Expr::Load(exps, vec![k]);
            b.assign(&total, add(total.get(), v));
        });
        total.get()
    }
}
