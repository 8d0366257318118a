//! Convolutions with the pooling of 2x2 windows that follows them, in one kernel: what is pooled never reaches memory.
//!
//! Rows of the product are the pixels of windows, [`Windows`] says in which order: so that a thread holds all four
//! sums of a window. Pixels that are in no window (the last ones of an odd size) are not computed. Windows that
//! overlap, and products whose sums are cut into parts, have a kernel for the pooling.

use nnc_runtime::DType;

use super::conv::Pixels;
use super::{Product, Result2d};
use crate::graph::op::{AvgPool2d, MaxPool2d};
use crate::graph::{NodeId, Op};
use crate::kernel::{Expr, Extents, Fragment, Index};
use crate::lower::builder::Builder;
use crate::lower::conv_taps::Slide;
use crate::lower::elementwise::{add, div, f32, max, sizes};
use crate::lower::gpu::schedule::{Products, Schedule};
use crate::lower::gpu::{Made, anchors};
use crate::lower::{LowerError, Lowering};

/// Pixels of a window.
pub(super) const PIXELS: usize = 4;

/// The order of pixels by windows: the first pixels of so many windows, their second ones, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lower::gpu) struct Windows {
    together: usize,
}

impl Windows {
    /// That in which the pixels of a window are a thread's: the same place of neighbouring fragments, or
    /// neighbouring rows.
    fn of(products: Products) -> Windows {
        Windows { together: if products.rounding().is_some() { Fragment::Sum.shape()[0] } else { 1 } }
    }

    /// Rows of a warp (or, of exact products, of a thread) are a multiple of this.
    pub fn rows(self) -> usize {
        PIXELS * self.together
    }

    /// Rows of so many windows.
    pub fn rows_of(self, windows: usize) -> usize {
        windows.next_multiple_of(self.together) * PIXELS
    }

    /// The window of a row, and the row and column of its pixel in it.
    pub(super) fn split(self, row: &Index, e: &Extents) -> (Index, [Index; 2]) {
        let group = row.div(self.rows(), e) * self.together as i64;
        let pixel = row.div(self.together, e).rem(PIXELS, e);
        (group + row.rem(self.together, e), [pixel.div(2, e), pixel.rem(2, e)])
    }
}

/// A pooling after a product.
#[derive(Clone, Copy, Debug)]
pub(in crate::lower::gpu) struct Pool {
    node: NodeId,
    pub windows: Windows,
    is_max: bool,
}

/// The pooling, if its windows are 2x2 and beside each other, all inside.
fn pool_of(op: &Op) -> Option<bool> {
    let (window, is_max) = match op {
        Op::MaxPool2d(MaxPool2d { window }) => (window, true),
        Op::AvgPool2d(AvgPool2d { window, .. }) => (window, false),
        _ => return None,
    };
    let fits = window.kernel == [2, 2]
        && window.stride == [2, 2]
        && window.padding == [0; 4]
        && window.dilation == [1, 1];
    fits.then_some(is_max)
}

impl<'a> Lowering<'a> {
    /// A convolution with what follows it, a pooling among that; `None` where that is not what the nodes are, or
    /// where it does not pay.
    pub(in crate::lower::gpu) fn gpu_pooled_conv(
        &mut self,
        nodes: &[NodeId],
    ) -> Result<Option<Vec<Made>>, LowerError> {
        let graph = self.graph;
        let &[conv, pool] = anchors(graph, nodes).as_slice() else { return Ok(None) };
        let (Op::Conv2d(of), Some(is_max)) = (&graph.node(conv).op, pool_of(&graph.node(pool).op)) else {
            return Ok(None);
        };
        let (shape, all) = (sizes(graph.node(pool)), sizes(graph.node(conv)));
        let halved = (0..2).all(|d| shape[2 + d] == all[2 + d] / 2);
        let pooled = graph.operands(pool)[0];
        if of.groups != 1 || !halved || sizes(graph.node(pooled)) != all {
            return Ok(None);
        }
        let mut results = vec![];
        for id in graph.results_of(nodes) {
            results.push((id, self.place(id)?));
        }
        if results.iter().any(|(_, p)| p.shape != shape || p.layout != results[0].1.layout) {
            return Ok(None);
        }
        let scope = self.scope(nodes)?;
        let slide = Slide { conv: of.clone(), transposed: false };
        let options = self.options_of(conv);
        let windows = Windows::of(options.products);
        let operand = |id| scope.operands.get(&id).and_then(super::conv::in_memory);
        let operands = graph.operands(conv);
        let (Some(x), Some(w), Some(target)) = (operand(operands[0]), operand(operands[1]), self.gpu) else {
            return Ok(None);
        };
        let Some(depth) = self.window_depth(operands[0], &w.shape) else { return Ok(None) };
        let rows = windows.rows_of(shape[0] * shape[2] * shape[3]);
        let sizes = [rows, shape[1], depth];
        let Some(schedule) = Schedule::of_windows(sizes, windows.rows(), target, options) else {
            return Ok(None);
        };
        let pixels = Pixels::by_windows(&shape, windows);
        let (x, w, numbers) = ((operands[0], x), (operands[1], w), options.products.factors());
        let Some([first, second]) = self.conv_factors(&pixels, &slide, x, w, numbers)? else {
            return Ok(None);
        };
        let result = Result2d::new(&shape, &[0, 2, 3], &[1]);
        let name = self.kernel_name(nodes);
        let bias = operands.get(2).copied();
        let pool = Some(Pool { node: pool, windows, is_max });
        let product = Product {
            name: &name,
            anchor: conv,
            results: &results,
            result,
            first,
            second,
            bias,
            pool,
            schedule,
        };
        Ok(product.kernels(self, &scope))
    }
}

impl Product<'_> {
    /// What is pooled, the pooling, and what follows it, of one window.
    pub(super) fn finish_window(&self, b: &mut Builder, pool: &Pool, index: &[Index], sums: Vec<Expr>) {
        let pooled = b.scope.graph.operands(pool.node)[0];
        let mut total: Option<Expr> = None;
        for (p, sum) in sums.into_iter().enumerate() {
            let mut at = index.to_vec();
            at[2] = at[2].clone() * 2 + p / 2;
            at[3] = at[3].clone() * 2 + p % 2;
            let sum = b.shared(DType::F32, sum);
            b.memo.push((self.anchor, at.clone(), sum));
            let value = b.value(pooled, &at);
            total = Some(match total {
                Some(total) if pool.is_max => max(total, value),
                Some(total) => add(total, value),
                None => value,
            });
        }
        let total = total.unwrap_or(f32(0.0));
        let value = if pool.is_max { total } else { div(total, f32(PIXELS as f64)) };
        let value = b.shared(DType::F32, value);
        b.memo.push((pool.node, index.to_vec(), value));
        b.store_all(self.results, index);
    }
}
