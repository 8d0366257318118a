//! Local response normalisation over blocked channels, a vector of channels at a time: a pixel's channels are copied
//! to scratch in one piece, with zeros around, so that a window is that many loads of a whole vector each.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::{Place, position};
use super::builder::{Builder, Scope, is_vectorisable};
use super::elementwise::{f32, fma};
use crate::graph::op::LocalResponseNorm;
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Index, Kernel, Memory};

/// The widest window: its sum is one expression.
const WIDEST: usize = 16;

/// A group with a local response normalisation: `result` is it, or elementwise work after it.
pub(super) struct LocalNorm<'a> {
    pub name: &'a str,
    pub anchor: NodeId,
    pub result: NodeId,
    pub out: &'a Place,
    pub lanes: usize,
}

impl LocalNorm<'_> {
    /// The kernel; `None` where values are not blocked, or the work around is not in step with the pixels.
    pub fn kernel(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        let graph = scope.graph;
        let (Op::LocalResponseNorm(norm), x) = (&graph.node(self.anchor).op, graph.operands(self.anchor)[0])
        else {
            return None;
        };
        let Layout::Blocked(block) = self.out.layout else { return None };
        let block = usize::from(block);
        let shape = graph.node(self.anchor).ty.sizes()?;
        let fits = graph.node(x).layout == self.out.layout && shape == self.out.shape;
        if !fits || norm.size > WIDEST || !block.is_multiple_of(self.lanes) {
            return None;
        }
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        let out = b.bind(self.out, Access::Write, "out");
        let (channels, full) = (shape[1], shape[1].next_multiple_of(block));
        let before = norm.size / 2;
        let length = full + norm.size - 1;
        let values = b.kernel.buffer("values", DType::F32, &[length], Memory::Scratch);
        let (n, h) = (b.task("n", shape[0]), b.task("h", shape[2]));
        zeros(&mut b, values, 0, before);
        zeros(&mut b, values, before + full, length - before - full);
        b.serial("w", shape[3], |b, w| {
            let at = |channel: Index| [n.clone(), channel, h.clone(), w.clone()];
            self.each_vector(b, full, block, &mut |b, channel| {
                let value = b.value(x, &at(channel.clone()));
                b.store(values, vec![channel + before], value);
            });
            // Lanes past the last channel hold anything.
            zeros(b, values, before + channels, full - channels);
            self.each_vector(b, full, block, &mut |b, channel| {
                let value = window(b, norm, values, &channel);
                let value = b.shared(DType::F32, value);
                b.memo.push((self.anchor, at(channel.clone()).to_vec(), value));
                let value = b.value(self.result, &at(channel.clone()));
                let to = position(&at(channel), self.out.layout, b.extents());
                b.store(out, to, value);
            });
        });
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// Runs over the channels, in lane mode.
    fn each_vector(
        &self,
        b: &mut Builder,
        channels: usize,
        block: usize,
        body: &mut dyn FnMut(&mut Builder, Index),
    ) {
        b.serial("cb", channels / block, |b, cb| {
            b.unroll("v", block / self.lanes, |b, v| {
                b.with_lanes(self.lanes, |b, lane| {
                    body(b, cb * block as i64 + v * self.lanes as i64 + lane);
                });
            });
        });
    }
}

/// A channel normalised by its window.
fn window(b: &mut Builder, norm: &LocalResponseNorm, values: BufferId, channel: &Index) -> Expr {
    let value = |k: usize| Expr::Load(values, vec![channel.clone() + k]);
    let sum = (0..norm.size).fold(f32(0.0), |sum, k| fma(value(k), value(k), sum));
    b.normalised(norm, value(norm.size / 2), sum)
}

/// Stores zeros.
fn zeros(b: &mut Builder, values: BufferId, first: usize, count: usize) {
    b.serial("z", count, |b, z| b.store(values, vec![z + first], f32(0.0)));
}
