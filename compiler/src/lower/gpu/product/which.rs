//! Which contractions are products by blocks: the one rule, for the kernels and for those who have to know before
//! there are any.

use super::factor::WIDEST;
use crate::graph::{Layout, NodeId, Op};
use crate::lower::Lowering;
use crate::lower::conv_taps::Slide;
use crate::lower::elementwise::sizes;
use crate::lower::gpu::schedule::{Blocks, DEPTH, Dots, GpuOptions, Products, Schedule};

/// Multiply-adds of f32 in the time in which memory gives or takes an element, by data sheets: 25 on an H200, 35 on an
/// H100, 19 on an A100 of 80 GB. The thin layers of MobileNetV2 have so few; rounded, they make most of its error (of random
/// weights: 9e-3 of the largest logit, and 3e-3 if they are exact).
const FREE_PRODUCTS: usize = 28;

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
        Schedule::of(sizes, batch, self.gpu?, self.options_of(id))
    }

    /// The options for a contraction: where memory is what it waits for, its factors are not just rounded.
    pub(super) fn options_of(&self, id: NodeId) -> GpuOptions {
        let options = self.gpu_options;
        let free = options.blocks == Blocks::WherePaid && options.products == Products::Tf32;
        match free && self.waits_for_memory(id) {
            true => GpuOptions { products: Products::SplitTf32, ..options },
            false => options,
        }
    }

    /// True if the products of a contraction, in f32, would take no longer than reading its factors and writing its result.
    fn waits_for_memory(&self, id: NodeId) -> bool {
        let Some(Sides { sizes: all, batch }) = self.sides(id) else { return false };
        let factors = self.graph.operands(id).into_iter().take(2);
        let values = factors.chain([id]).map(|n| sizes(self.graph.node(n)).iter().product::<usize>());
        let products = all.into_iter().fold(batch, usize::saturating_mul);
        products <= FREE_PRODUCTS.saturating_mul(values.fold(0, usize::saturating_add))
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
                let inputs = match self.filled_channels(graph.operands(id)[0]) {
                    Some(channels) => channels * product(&rest[1..]),
                    None => product(rest),
                };
                Some(Sides { sizes: [*outputs, inputs, images * rows * columns], batch: 1 })
            }
            (op, &[images, channels, rows, columns]) if Slide::of(op).is_some_and(|s| s.conv.groups == 1) => {
                let w = operand(1)?;
                let depth = self.window_depth(graph.operands(id)[0], &w)?;
                Some(Sides { sizes: [images * rows * columns, channels, depth], batch: 1 })
            }
            _ => None,
        }
    }

    /// What a convolution sums over, of an input and weights of that shape.
    pub(super) fn window_depth(&self, x: NodeId, weights: &[usize]) -> Option<usize> {
        let &[_, _, rows, columns] = weights else { return None };
        Some(match self.filled_channels(x) {
            Some(channels) => channels * rows * filled_columns(columns),
            None => sizes(self.graph.node(x)).get(1)? * rows * columns,
        })
    }

    /// How many channels a picture is given, so that a copy takes a pixel: two and three become four. (Of one channel,
    /// there are as many copies as it lies.)
    pub(super) fn filled_channels(&self, x: NodeId) -> Option<usize> {
        let node = self.graph.node(x);
        let is_picture = node.ty.rank() == 4 && node.layout == Layout::Plain;
        (is_picture && (2..WIDEST).contains(&sizes(node)[1])).then_some(WIDEST)
    }
}

/// How many columns its kernel has then: those of a step are in one row.
pub(super) fn filled_columns(columns: usize) -> usize {
    columns.next_multiple_of(DEPTH / WIDEST)
}
