//! Which contractions are products by blocks: the one rule, for the kernels and for those who have to know before
//! there are any.

use crate::graph::{NodeId, Op};
use crate::lower::Lowering;
use crate::lower::conv_taps::Slide;
use crate::lower::elementwise::sizes;
use crate::lower::gpu::schedule::{Dots, Schedule};

/// A contraction's rows, columns and what it sums over, and how many there are at once.
struct Sides {
    sizes: [usize; 3],
    batch: usize,
}

impl Lowering<'_> {
    /// How a node is computed by blocks, if it is: a contraction that is large enough. (Only where its operands lie in
    /// memory as blocks read them.)
    pub(in crate::lower::gpu) fn schedule(&self, id: NodeId) -> Option<Schedule> {
        let Sides { sizes, batch } = self.sides(id)?;
        let is_linear = self.graph.node(id).op == Op::Linear;
        if is_linear && Dots::of(sizes, self.gpu_options).is_some() {
            return None;
        }
        Schedule::of(sizes, batch, self.gpu?, self.gpu_options)
    }

    fn sides(&self, id: NodeId) -> Option<Sides> {
        let graph = self.graph;
        let shape = sizes(graph.node(id));
        let operand = |i: usize| graph.operands(id).get(i).map(|&n| sizes(graph.node(n)));
        let product = |sizes: &[usize]| sizes.iter().product::<usize>();
        match (&graph.node(id).op, shape.as_slice()) {
            (Op::Linear, [rows @ .., columns]) => {
                Some(Sides { sizes: [product(rows), *columns, *operand(0)?.last()?], batch: 1 })
            }
            (Op::MatMul, [batch @ .., rows, columns]) => {
                Some(Sides { sizes: [*rows, *columns, *operand(0)?.last()?], batch: product(batch) })
            }
            (Op::Conv2dWeightGrad(grad), [outputs, rest @ ..]) if grad.conv.groups == 1 => {
                let &[images, _, rows, columns] = operand(1)?.as_slice() else { return None };
                Some(Sides { sizes: [*outputs, product(rest), images * rows * columns], batch: 1 })
            }
            (op, &[images, channels, rows, columns]) if Slide::of(op).is_some_and(|s| s.conv.groups == 1) => {
                let (x, w) = (operand(0)?, operand(1)?);
                let depth = x.get(1)? * product(w.get(2..)?);
                Some(Sides { sizes: [images * rows * columns, channels, depth], batch: 1 })
            }
            _ => None,
        }
    }
}
