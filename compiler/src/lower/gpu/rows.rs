//! What the threads of a block put together: each has a part of a row in a register, and all of them need the
//! sum (or the largest).
//!
//! A warp exchanges registers, the first lane of each leaves its own in shared memory, and behind a barrier
//! every thread joins them in their order. So the order in which a row is added up depends on its length alone.

use crate::kernel::block::WARP;
use crate::kernel::{BinOp, Expr, Guard, Index, Joint, Memory};
use crate::lower::builder::{Builder, Cell};
use nnc_runtime::DType;

/// Parts that a thread loads before it adds them up.
const PARTS_AT_ONCE: usize = 16;

impl Builder<'_> {
    /// Makes of every cell what the operation makes of those of all threads of the block.
    pub(super) fn across_block(&mut self, cells: &[(&Cell, BinOp)]) {
        for (cell, op) in cells {
            let (buffer, index) = cell.place();
            self.joint(Joint::Combine { op: *op, buffer, index });
        }
        let warps = self.kernel.threads.unwrap_or(WARP) / WARP;
        if warps == 1 {
            return;
        }
        let shares = self.kernel.buffer("shares", DType::F32, &[cells.len(), warps], Memory::Shared);
        self.threads(|b, thread| {
            let (warp, lane) = (thread.div(WARP, b.extents()), thread.rem(WARP, b.extents()));
            b.when(vec![Guard(lane * -1)], |b| {
                for (i, (cell, _)) in cells.iter().enumerate() {
                    b.store(shares, vec![Index::from(i), warp.clone()], cell.get());
                }
            });
        });
        self.joint(Joint::Barrier);
        self.threads(|b, _| {
            for (i, (cell, op)) in cells.iter().enumerate() {
                let share = |w: Index| Expr::Load(shares, vec![Index::from(i), w]);
                b.assign(cell, share(Index::default()));
                b.unroll("w", warps - 1, |b, w| {
                    let joined = Expr::Binary(*op, Box::new(cell.get()), Box::new(share(w + 1usize)));
                    b.assign(cell, joined);
                });
            }
        });
    }

    /// Runs over parts that blocks have left, in their order, some at a time so that their loads are under way together.
    pub(super) fn each_part(&mut self, parts: usize, body: &mut dyn FnMut(&mut Self, Index)) {
        let done = parts / PARTS_AT_ONCE * PARTS_AT_ONCE;
        self.serial("p", parts / PARTS_AT_ONCE, |b, p| {
            b.unroll("u", PARTS_AT_ONCE, |b, u| body(b, p * PARTS_AT_ONCE as i64 + u));
        });
        self.unroll("u", parts - done, |b, u| body(b, u + done));
    }

    /// Numbers of `0..count` for a thread: its own, and those as many further on as there are threads.
    pub(super) fn strided(&mut self, thread: &Index, count: usize, body: impl FnOnce(&mut Self, Index)) {
        let threads = self.kernel.threads.unwrap_or(1);
        let thread = thread.clone();
        self.serial("k", count.div_ceil(threads), |b, k| {
            let number = k * threads as i64 + thread;
            let inside = Guard::between(&number, 0, count as i64, b.extents());
            b.when(inside, |b| body(b, number));
        });
    }
}
