//! From sums in blocks to the weights' own order, `[O, C, KH, KW]`.
//!
//! Element by element: for sixteen neighbours among the sums, which belong to as many output channels,
//! one load and one store each. Both sides stay in L1, so that takes about a cycle an element.

use nnc_runtime::program::Access;

use super::access::Place;
use super::builder::{Builder, Scope};
use super::elementwise::add;
use super::weight_grad::{Form, Pieces, WeightGrad};
use super::weight_grad_tile::Task;
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Guard, Index, Kernel};

/// Stores a sum, given the output channel in its block.
type Store<'f> = dyn Fn(&mut Builder, Index, Expr) + 'f;

/// Hands the sums of a kernel position and an input over to be stored.
type HandOver<'f> = dyn FnMut(&mut Builder, &Index, &Index, &Store) + 'f;

impl WeightGrad<'_> {
    /// Stores the sums of a task to `out`, `[O, C·KH·KW]`.
    pub fn store_task(&self, b: &mut Builder, p: &Pieces, task: &Task, sums: BufferId, out: BufferId) {
        b.serial("ot", p.task_blocks[0], |b, ot| {
            b.serial("it", p.task_blocks[1], |b, it| {
                let [ob, ib] = [0, 1].map(|i| task.first_blocks[i].clone() + [&ot, &it][i].clone());
                let sum = |k: &Index, i: &Index, c: Index| {
                    Expr::Load(sums, vec![ot.clone(), it.clone(), k.clone(), i.clone(), c])
                };
                self.store_pair(b, p, [&ob, &ib], out, &mut |b, k, i, store| {
                    b.unroll("o", self.block, |b, c| store(b, c.clone(), sum(k, i, c)));
                });
            });
        });
    }

    /// Stores the sums of a pair of blocks; `each` hands over those of a kernel position and an input.
    fn store_pair(
        &self,
        b: &mut Builder,
        p: &Pieces,
        [ob, ib]: [&Index; 2],
        out: BufferId,
        each: &mut HandOver,
    ) {
        let [positions, inputs] = p.sums;
        b.serial("i", inputs, |b, i| {
            let input = ib.clone() * self.block as i64 + i.clone();
            let channels = match self.form {
                Form::Blocks => Guard::between(&input, 0, self.x.shape[1] as i64, b.extents()),
                Form::Taps | Form::Depthwise => vec![],
            };
            b.when(channels, |b| {
                b.serial("k", positions, |b, k| {
                    let column = input * positions as i64 + k.clone();
                    each(b, &k, &i, &|b, c, value| {
                        let row = ob.clone() * self.block as i64 + c;
                        let inside = Guard::between(&row, 0, self.dy.shape[1] as i64, b.extents());
                        b.when(inside, |b| b.store(out, vec![row, column.clone()], value));
                    });
                });
            });
        });
    }

    /// Stores the sums of a task to its place in `parts`.
    pub fn store_part(&self, b: &mut Builder, p: &Pieces, task: &Task, sums: BufferId, parts: BufferId) {
        self.every_sum(b, p, &mut |b, at| {
            let mut to = vec![task.part.clone()];
            to.extend([0, 1].map(|i| task.first_blocks[i].clone() + at[i].clone()));
            to.extend_from_slice(&at[2..]);
            b.store(parts, to, Expr::Load(sums, at));
        });
    }

    /// The kernel that adds up the parts, the first one first, a task for every pair of blocks.
    pub fn sum_of_parts(&self, p: &Pieces, scope: &Scope, parts: &Place, out: &Place) -> (Kernel, Vec<Arg>) {
        let mut b = Builder::new("conv2d_weight_grad_sum", scope);
        let (ob, ib) = (b.task("ob", p.blocks[0]), b.task("ib", p.blocks[1]));
        let parts = b.bind(parts, Access::Read, "parts");
        let out = b.bind(out, Access::Write, "out");
        let total = b.scratch("total", &[self.block]);
        let lanes = self.lanes;
        self.store_pair(&mut b, p, [&ob, &ib], out, &mut |b, k, i, store| {
            b.unroll("v", self.vectors(), |b, v| {
                b.vector(lanes, |b, lane| {
                    let c = v * lanes as i64 + lane;
                    let part = |n: usize| {
                        Expr::Load(parts, [&Index::from(n), &ob, &ib, k, i, &c].map(Index::clone).to_vec())
                    };
                    let sum = (1..p.parts).fold(part(0), |sum, n| add(sum, part(n)));
                    b.store(total, vec![c.clone()], sum);
                });
            });
            b.unroll("o", self.block, |b, c| store(b, c.clone(), Expr::Load(total, vec![c])));
        });
        b.finish()
    }
}
