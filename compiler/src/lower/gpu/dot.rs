//! Linear layers of few rows: a warp for an output, whose lanes read the output's weights side by side and
//! exchange their sums. The weights are read once, as fast as memory gives them; the rows come from caches.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::Made;
use super::elements::finished;
use super::schedule::Dots;
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::block::WARP;
use crate::kernel::{BinOp, Expr, Guard, Index, Joint, Memory};
use crate::lower::Lowering;
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Operand, Scope};
use crate::lower::elementwise::{add, f32, fma, reshape_index, sizes};

/// Steps of a sum that are written out, so that their loads are under way together.
const UNROLL: usize = 8;

impl<'a> Lowering<'a> {
    /// A linear layer with the elementwise work after it; `None` for many rows, few products, or if an operand
    /// is computed in the same group.
    pub(super) fn gpu_dots(
        &self,
        scope: &Scope<'a>,
        name: &str,
        anchor: NodeId,
        results: &[(NodeId, Place)],
    ) -> Option<Made> {
        let graph = self.graph;
        let shape = sizes(graph.node(anchor));
        if graph.node(anchor).op != Op::Linear || results[0].1.shape != shape {
            return None;
        }
        let operands = graph.operands(anchor);
        let matrix = |id: NodeId| match scope.operands.get(&id) {
            Some(Operand::Memory(p)) if p.dtype == DType::F32 && p.layout == Layout::Plain => {
                let depth = *p.shape.last()?;
                p.reshaped(&[p.shape.iter().product::<usize>() / depth.max(1), depth])
            }
            _ => None,
        };
        let (x, weight) = (matrix(operands[0])?, matrix(operands[1])?);
        let [rows, outputs, depth] = [x.shape[0], weight.shape[0], x.shape[1]];
        let dots = Dots::of([rows, outputs, depth], self.gpu_options)?;
        let mut b = Builder::new(name, scope);
        b.provided = vec![anchor];
        for (_, place) in results {
            b.bind(place, Access::Write, "out");
        }
        let (x, weight) = (b.bind(&x, Access::Read, "x"), b.bind(&weight, Access::Read, "weight"));
        b.kernel.threads = Some(dots.warps * WARP);
        let block = b.task("o", outputs.div_ceil(dots.warps)) * dots.warps as i64;
        let sums = b.kernel.buffer("sum", DType::F32, &[rows], Memory::Register);
        let of_thread = |b: &Builder, thread: &Index| {
            let output = block.clone() + thread.div(WARP, b.extents());
            let inside = Guard::between(&output, 0, outputs as i64, b.extents());
            (output, thread.rem(WARP, b.extents()), inside)
        };
        b.threads(|b, thread| {
            let (output, lane, inside) = of_thread(b, &thread);
            b.unroll("r", rows, |b, r| b.store(sums, vec![r], f32(0.0)));
            let add_up = |b: &mut Builder, k: Index| {
                let guards = Guard::between(&k, 0, depth as i64, b.extents());
                b.when(guards, |b| {
                    let w = b.named("w", DType::F32, Expr::Load(weight, vec![output.clone(), k.clone()]));
                    b.unroll("r", rows, |b, r| {
                        let x = Expr::Load(x, vec![r.clone(), k]);
                        b.store(sums, vec![r.clone()], fma(x, w, Expr::Load(sums, vec![r])));
                    });
                });
            };
            b.when(inside, |b| {
                let step = WARP * UNROLL;
                b.serial("k", depth / step, |b, k| {
                    b.unroll("u", UNROLL, |b, u| {
                        add_up(b, k * step as i64 + u * WARP as i64 + lane.clone());
                    });
                });
                let done = depth / step * step;
                b.serial("k", (depth - done).div_ceil(WARP), |b, k| {
                    add_up(b, k * WARP as i64 + lane.clone() + done);
                });
            });
        });
        for r in 0..rows {
            b.joint(Joint::Combine { op: BinOp::Add, buffer: sums, index: vec![Index::from(r)] });
        }
        b.threads(|b, thread| {
            let (output, lane, mut inside) = of_thread(b, &thread);
            inside.push(Guard(lane * -1));
            b.when(inside, |b| {
                for r in 0..rows {
                    let leading = &shape[..shape.len() - 1];
                    let mut index = reshape_index(&[rows], leading, &[Index::from(r)], b.extents());
                    index.push(output.clone());
                    let mut sum = Expr::Load(sums, vec![Index::from(r)]);
                    if let Some(&bias) = operands.get(2) {
                        sum = add(sum, b.value(bias, std::slice::from_ref(&output)));
                    }
                    let sum = b.shared(DType::F32, sum);
                    b.memo.push((anchor, index.clone(), sum));
                    b.store_all(results, &index);
                }
            });
        });
        finished(b)
    }
}
