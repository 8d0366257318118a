//! Gradients of maximum poolings in two kernels: a thread a window finds the place of its first maximum; then a thread an
//! element (or four neighbours) adds up what comes back from the windows whose maximum it is. So a window's elements are
//! compared once, not again for each of them ([`crate::lower::pool_grad`] does that, where windows are dilated).

use nnc_runtime::DType;

use super::Made;
use super::elements::Elements;
use crate::graph::op::Window;
use crate::graph::{NodeId, Op};
use crate::kernel::module::{Role, ValueId};
use crate::kernel::{BinOp, Expr, Guard, Index, LoopKind, UnOp};
use crate::lower::Lowering;
use crate::lower::access::{Place, physical};
use crate::lower::builder::{Builder, Operand, Scope};
use crate::lower::elementwise::{add, f32, sizes};
use crate::lower::generic::lowest;
use crate::lower::pool::UNROLLED_WINDOW;

/// The gradient: `x` is the pooling's input, `windows` the shape of `dy`.
struct Pooling<'a> {
    window: &'a Window,
    x: NodeId,
    dy: NodeId,
    size: [usize; 2],
    windows: Vec<usize>,
}

impl Lowering<'_> {
    /// The kernels; `None` if windows are dilated, or if what follows is not in step with the elements.
    pub(super) fn gpu_max_pool_grad(
        &mut self,
        scope: &Scope,
        name: &str,
        anchor: NodeId,
        results: &[(NodeId, Place)],
    ) -> Option<Vec<Made>> {
        let node = self.graph.node(anchor);
        let Op::MaxPool2dGrad(pool) = &node.op else { return None };
        let shape = sizes(node);
        let operands = self.graph.operands(anchor);
        let (x, dy) = (operands[0], operands[operands.len() - 1]);
        let in_memory = matches!(scope.operands.get(&dy), Some(Operand::Memory(_)));
        if pool.window.dilation != [1, 1] || results[0].1.shape != shape || !in_memory {
            return None;
        }
        let windows = sizes(self.graph.node(dy));
        let pooling = Pooling { window: &pool.window, x, dy, size: [shape[2], shape[3]], windows };
        // The value is added if there is something that uses it.
        let value = ValueId(self.module.values.len() as u32);
        let layout = self.graph.node(dy).layout;
        let places = Place::dense(value, DType::I32, &pooling.windows, layout);
        let first = Elements { scope, name: &format!("{name}_places"), places: &[&places], is_flat: false };
        let first = first.kernel(self.gpu_options, &|b, index| {
            let place = pooling.first_maximum(b, index);
            b.store_at(&places, index, place);
        })?;
        let out: Vec<&Place> = results.iter().map(|(_, p)| p).collect();
        let second = Elements { scope, name, places: &out, is_flat: false };
        let second = second.kernel(self.gpu_options, &|b, index| {
            b.provided = vec![anchor];
            let total = pooling.returned(b, &places, index);
            b.memo.push((anchor, index.to_vec(), total));
            b.store_all(results, index);
        })?;
        self.new_value("", DType::I32, &physical(&pooling.windows, layout), Role::Temporary);
        Some(vec![first, second])
    }
}

impl Pooling<'_> {
    /// Padding above, or to the left.
    fn before(&self, axis: usize) -> usize {
        self.window.padding[2 * axis]
    }

    /// The number of the first largest element of a window, row by row; NaN is the largest.
    fn first_maximum(&self, b: &mut Builder, index: &[Index]) -> Expr {
        let [rows, columns] = self.window.kernel;
        let best = b.cell("best", DType::F32);
        let place = b.cell("place", DType::I32);
        let is_padded = self.before(0) + self.before(1) > 0;
        b.assign(&best, lowest(DType::F32));
        // Without padding the first element is inside, and none is below the lowest.
        b.assign(&place, Expr::Const(DType::I32, if is_padded { -1.0 } else { 0.0 }));
        let how = if rows * columns <= UNROLLED_WINDOW { LoopKind::Unroll } else { LoopKind::Serial };
        b.repeat(how, "kh", rows, |b, kh| {
            b.repeat(how, "kw", columns, |b, kw| {
                let (mut at, mut inside) = (index.to_vec(), vec![]);
                for (axis, k) in [&kh, &kw].into_iter().enumerate() {
                    let first = at[2 + axis].clone() * self.window.stride[axis] as i64;
                    at[2 + axis] = first + k.clone() - self.before(axis);
                    inside.extend(Guard::between(&at[2 + axis], 0, self.size[axis] as i64, b.extents()));
                }
                if b.tells_lanes_apart(&inside) {
                    b.failed = true;
                    return;
                }
                b.when(inside, |b| {
                    let v = b.value(self.x, &at);
                    let v = b.shared(DType::F32, v);
                    let mut wins = exceeds(&v, &best.get());
                    if is_padded {
                        let none = binary(BinOp::Lt, place.get(), Expr::Const(DType::I32, 0.0));
                        wins = binary(BinOp::Or, none, wins);
                    }
                    let wins = b.named("wins", DType::Bool, wins);
                    let pick =
                        |a: Expr, b: Expr| Expr::Select(Box::new(wins.clone()), Box::new(a), Box::new(b));
                    let number = Expr::Index(kh.clone() * columns as i64 + kw);
                    b.assign(&best, pick(v, best.get()));
                    b.assign(&place, pick(number, place.get()));
                });
            });
        });
        place.get()
    }

    /// The sum of what comes back to an element from the windows that it is the maximum of. Those that have it are
    /// taken from the last one back, so that its number in them grows.
    fn returned(&self, b: &mut Builder, places: &Place, index: &[Index]) -> Expr {
        let total = b.cell("total", DType::F32);
        b.assign(&total, f32(0.0));
        let covers = [0, 1].map(|axis| self.window.kernel[axis].div_ceil(self.window.stride[axis]));
        let how = if covers[0] * covers[1] <= UNROLLED_WINDOW { LoopKind::Unroll } else { LoopKind::Serial };
        b.repeat(how, "i", covers[0], |b, i| {
            b.repeat(how, "j", covers[1], |b, j| {
                let (mut at, mut guards, mut number) = (index.to_vec(), vec![], Index::default());
                for (axis, back) in [i, j].into_iter().enumerate() {
                    let stride = self.window.stride[axis];
                    let reach = index[2 + axis].clone() + self.before(axis);
                    let window = reach.div(stride, b.extents()) - back.clone();
                    let k = reach.rem(stride, b.extents()) + back * stride as i64;
                    guards.extend(Guard::between(&k, 0, self.window.kernel[axis] as i64, b.extents()));
                    guards.extend(Guard::between(&window, 0, self.windows[2 + axis] as i64, b.extents()));
                    number = number * self.window.kernel[axis] as i64 + k;
                    at[2 + axis] = window;
                }
                if b.tells_lanes_apart(&guards) {
                    b.failed = true;
                    return;
                }
                b.when(guards, |b| {
                    let place = b.load(places, "places", &at);
                    let is_it = binary(BinOp::Eq, place, Expr::Index(number));
                    let share = b.value(self.dy, &at);
                    let share = Expr::Select(Box::new(is_it), Box::new(share), Box::new(f32(0.0)));
                    b.assign(&total, add(total.get(), share));
                });
            });
        });
        total.get()
    }
}

fn binary(op: BinOp, a: Expr, b: Expr) -> Expr {
    Expr::Binary(op, Box::new(a), Box::new(b))
}

/// `v > best`, where NaN is above all numbers.
fn exceeds(v: &Expr, best: &Expr) -> Expr {
    let is_nan = |x: &Expr| binary(BinOp::Ne, x.clone(), x.clone());
    let first_nan = binary(BinOp::And, is_nan(v), Expr::Unary(UnOp::Not, Box::new(is_nan(best))));
    binary(BinOp::Or, binary(BinOp::Lt, best.clone(), v.clone()), first_nan)
}
