//! The weights' transform: filters of nine become `G g Gᵀ`, in the order in which the products read
//! them: `[group, product, input channel, output channel]`, zeros where there is no channel.
//!
//! A vector is a filter of as many output channels, whose filters lie far apart in a row-major
//! tensor: they are collected in scratch first.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Guard, Index, Kernel};

use super::super::access::Place;
use super::super::builder::{Builder, Operand, Scope};
use super::super::elementwise::f32;
use super::transform::Transform;

/// Input channels of a task.
const CHANNELS: usize = 16;

/// Weights `[O, C, 3, 3]`, or those of a transposed convolution, and where they go.
pub(super) struct Weights<'w> {
    pub name: &'w str,
    pub from: Operand,
    /// Output and input channels.
    pub shape: [usize; 2],
    /// Whether they are `[C, O, 3, 3]`, their kernels to be turned round.
    pub transposed: bool,
    pub to: Place,
    pub transform: Transform,
    pub lanes: usize,
}

impl Weights<'_> {
    /// The kernel and its arguments.
    pub fn kernel(&self, scope: &Scope) -> (Kernel, Vec<Arg>) {
        let [_, channels] = self.shape;
        let mut b = Builder::new(self.name, scope);
        let to = b.bind(&self.to, Access::Write, "out");
        let group = b.task("g", self.to.shape[0]);
        let first = b.task("cb", channels.div_ceil(CHANNELS)) * CHANNELS as i64;
        b.serial("v", self.to.shape[3] / self.lanes, |b, v| {
            b.serial("c", CHANNELS.min(channels), |b, c| {
                let channel = first.clone() + c;
                let inside = Guard::between(&channel, 0, channels as i64, b.extents());
                b.when(inside, |b| self.vector(b, to, [&group, &channel, &v]));
            });
        });
        b.finish()
    }

    fn vector(&self, b: &mut Builder, to: BufferId, [group, channel, v]: [&Index; 3]) {
        let (lanes, size) = (self.lanes, self.transform.inputs());
        let filters = b.scratch("filters", &[3, 3, lanes]);
        self.collect(b, filters, [group, channel, v]);
        let rows = b.scratch("tile_rows", &[size, 3, lanes]);
        let registers = self.transform.registers(b, lanes);
        b.unroll("kw", 3, |b, kw| {
            self.transform.weights(
                b,
                lanes,
                registers,
                &|kh, lane| Expr::Load(filters, vec![Index::from(kh), kw.clone(), lane.clone()]),
                &mut |b, i, lane, value| {
                    b.store(rows, vec![Index::from(i), kw.clone(), lane.clone()], value);
                },
            );
        });
        b.unroll("i", size, |b, i| {
            self.transform.weights(
                b,
                lanes,
                registers,
                &|kw, lane| Expr::Load(rows, vec![i.clone(), Index::from(kw), lane.clone()]),
                &mut |b, j, lane, value| {
                    let product = i.clone() * size as i64 + j;
                    let out = v.clone() * lanes as i64 + lane.clone();
                    b.store(to, vec![group.clone(), product, channel.clone(), out], value);
                },
            );
        });
    }

    /// The filters of a vector of output channels for one input channel.
    fn collect(&self, b: &mut Builder, filters: BufferId, [group, channel, v]: [&Index; 3]) {
        let width = self.to.shape[3];
        b.serial("l", self.lanes, |b, l| {
            let out = group.clone() * width as i64 + v.clone() * self.lanes as i64 + l.clone();
            let (_, high) = out.range(b.extents());
            let outs = self.shape[0] as i64;
            let inside = Guard::between(&out, 0, outs, b.extents());
            let each = |b: &mut Builder, value: &mut dyn FnMut(&mut Builder, &Index, &Index) -> Expr| {
                b.unroll("kh", 3, |b, kh| {
                    b.unroll("kw", 3, |b, kw| {
                        let value = value(b, &kh, &kw);
                        b.store(filters, vec![kh, kw, l.clone()], value);
                    });
                });
            };
            b.when(inside, |b| {
                each(b, &mut |b, kh, kw| match &self.from {
                    Operand::Splat(dtype, x) => Expr::Const(*dtype, *x),
                    Operand::Memory(place) => {
                        let turned = |k: &Index| Index::from(2i64) - k.clone();
                        let at = match self.transposed {
                            false => [out.clone(), channel.clone(), kh.clone(), kw.clone()],
                            true => [channel.clone(), out.clone(), turned(kh), turned(kw)],
                        };
                        b.load(place, "w", &at)
                    }
                });
            });
            if high >= outs {
                let absent = vec![Guard(out.clone() - self.shape[0])];
                b.when(absent, |b| each(b, &mut |_, _, _| f32(0.0)));
            }
        });
    }
}

/// The transformed weights' shape.
pub(super) fn shape(transform: Transform, [outs, channels]: [usize; 2], group: usize) -> [usize; 4] {
    [outs.div_ceil(group), transform.products(), channels, group]
}

/// Only `f32` has a transform.
pub(super) const DTYPE: DType = DType::F32;
