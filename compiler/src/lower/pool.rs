//! Pooling: maximum and mean over windows, and to a fixed grid. On blocked layouts a window is
//! reduced for all lanes at once.

use nnc_runtime::DType;

use super::builder::Builder;
use super::elementwise::{add, div, f32, max, mul, sizes};
use super::generic::lowest;
use crate::graph::op::{AvgPool2d, Window};
use crate::graph::{Node, NodeId};
use crate::kernel::{Expr, Guard, Index, LoopKind};

/// Windows of at most that many elements are written out.
pub(super) const UNROLLED_WINDOW: usize = 9;

impl Builder<'_> {
    /// The largest value of a window; padding never wins, NaN does.
    pub fn max_pool_element(&mut self, w: &Window, x: NodeId, index: &[Index]) -> Expr {
        let dtype = self.scope.graph.node(x).ty.dtype;
        let best = self.cell("best", dtype);
        self.assign(&best, lowest(dtype));
        self.over_window(w, x, index, |b, at, inside| {
            let v = b.guarded(inside, lowest(dtype), |b| b.value(x, at));
            b.assign(&best, max(best.get(), v));
        });
        best.get()
    }

    /// The mean of a window.
    pub fn avg_pool_element(&mut self, p: &AvgPool2d, x: NodeId, index: &[Index]) -> Expr {
        let shape = self.shape_of(x);
        let w = &p.window;
        let counted = |axis: usize, i: usize| count(w, p.count_include_pad, shape[2 + axis], axis, i);
        let out: Vec<usize> = (0..2).map(|axis| out_size(w, shape[2 + axis], axis)).collect();
        let constant = |axis: usize| (1..out[axis]).all(|i| counted(axis, i) == counted(axis, 0));
        let sum = self.cell("sum", DType::F32);
        self.assign(&sum, f32(0.0));
        if constant(0) && constant(1) {
            self.over_window(w, x, index, |b, at, inside| {
                let v = b.guarded(inside, f32(0.0), |b| b.value(x, at));
                b.assign(&sum, add(sum.get(), v));
            });
            let count = counted(0, 0) * counted(1, 0);
            return div(sum.get(), f32(count.max(1) as f64));
        }
        let number = self.cell("count", DType::F32);
        self.assign(&number, f32(0.0));
        let [top, bottom, left, right] = w.padding;
        let reach: [(i64, i64); 2] = match p.count_include_pad {
            true => [(top, bottom), (left, right)].map(|(a, b)| (-(a as i64), b as i64)),
            false => [(0, 0); 2],
        };
        self.over_window(w, x, index, |b, at, inside| {
            let v = b.guarded(inside, f32(0.0), |b| b.value(x, at));
            b.assign(&sum, add(sum.get(), v));
            let mut counts = vec![];
            for axis in 0..2 {
                let (low, high) = (reach[axis].0, shape[2 + axis] as i64 + reach[axis].1);
                counts.extend(Guard::between(&at[2 + axis], low, high, b.extents()));
            }
            let one = b.guarded(counts, f32(0.0), |_| f32(1.0));
            b.assign(&number, add(number.get(), one));
        });
        // A dilated window may miss the input: its mean is zero.
        div(sum.get(), max(number.get(), f32(1.0)))
    }

    /// Runs `body` for every position of the window with the index into `x` and the guards under
    /// which it lies inside.
    fn over_window(
        &mut self,
        w: &Window,
        x: NodeId,
        index: &[Index],
        mut body: impl FnMut(&mut Self, &[Index], Vec<Guard>),
    ) {
        let shape = self.shape_of(x);
        let small = w.kernel[0] * w.kernel[1] <= UNROLLED_WINDOW;
        let how = if small { LoopKind::Unroll } else { LoopKind::Serial };
        self.repeat(how, "kh", w.kernel[0], |b, kh| {
            b.repeat(how, "kw", w.kernel[1], |b, kw| {
                let mut at = index.to_vec();
                at[2] = at[2].clone() * w.stride[0] as i64 + kh * w.dilation[0] as i64 - w.padding[0];
                at[3] = at[3].clone() * w.stride[1] as i64 + kw * w.dilation[1] as i64 - w.padding[2];
                let mut inside = Guard::between(&at[2], 0, shape[2] as i64, b.extents());
                inside.extend(Guard::between(&at[3], 0, shape[3] as i64, b.extents()));
                body(b, &at, inside);
            });
        });
    }

    /// Pooling to a grid: row `i` takes `floor(i·H/out) .. ceil((i+1)·H/out)`.
    pub fn adaptive_pool_element(&mut self, node: &Node, x: NodeId, index: &[Index], is_max: bool) -> Expr {
        let (shape, out) = (self.shape_of(x), sizes(node));
        let dtype = node.ty.dtype;
        let total = self.cell("total", dtype);
        self.assign(&total, if is_max { lowest(dtype) } else { f32(0.0) });
        let (mut starts, mut ends, mut longest) = (vec![], vec![], vec![]);
        for axis in [2, 3] {
            let (size, grid) = (shape[axis], out[axis]);
            let scaled = index[axis].clone() * size as i64;
            starts.push(scaled.div(grid, self.extents()));
            ends.push((scaled + Index::from(size + grid - 1)).div(grid, self.extents()));
            let length = |i: usize| ((i + 1) * size).div_ceil(grid) - i * size / grid;
            longest.push((0..grid).map(length).max().unwrap_or(0));
        }
        self.serial("kh", longest[0], |b, kh| {
            b.serial("kw", longest[1], |b, kw| {
                let mut at = index.to_vec();
                let mut inside = vec![];
                for (axis, k) in [kh, kw].into_iter().enumerate() {
                    let i = starts[axis].clone() + k;
                    let last = ends[axis].clone() - 1usize;
                    if (last.clone() - i.clone()).range(b.extents()).0 < 0 {
                        inside.push(Guard(last - i.clone()));
                    }
                    inside.extend(Guard::between(&i, 0, shape[2 + axis] as i64, b.extents()));
                    at[2 + axis] = i;
                }
                let none = if is_max { lowest(dtype) } else { f32(0.0) };
                let v = b.guarded(inside, none, |b| b.value(x, &at));
                let value = if is_max { max(total.get(), v) } else { add(total.get(), v) };
                b.assign(&total, value);
            });
        });
        if is_max {
            return total.get();
        }
        let length = |axis: usize| {
            let length = ends[axis].clone() - starts[axis].clone();
            match length.known() {
                Some(n) => f32(n as f64),
                None => Expr::Cast(DType::F32, Box::new(Expr::Index(length))),
            }
        };
        div(total.get(), mul(length(0), length(1)))
    }
}

/// The number of windows along an axis (0 vertical, 1 horizontal).
pub(super) fn out_size(w: &Window, size: usize, axis: usize) -> usize {
    let padded = size + w.padding[2 * axis] + w.padding[2 * axis + 1];
    let reach = w.dilation[axis] * (w.kernel[axis] - 1) + 1;
    let Some(room) = padded.checked_sub(reach) else { return 0 };
    if !w.ceil {
        return room / w.stride[axis] + 1;
    }
    let out = room.div_ceil(w.stride[axis]) + 1;
    let starts_outside = (out - 1) * w.stride[axis] >= size + w.padding[2 * axis];
    if starts_outside { out - 1 } else { out }
}

/// The positions of window `i` that count in the divisor, along an axis.
pub(super) fn count(w: &Window, include_pad: bool, size: usize, axis: usize, i: usize) -> usize {
    let (before, after) = (w.padding[2 * axis] as i64, w.padding[2 * axis + 1] as i64);
    let (low, high) = match include_pad {
        true => (-before, size as i64 + after),
        false => (0, size as i64),
    };
    let start = (i * w.stride[axis]) as i64 - before;
    let at = |k: usize| start + (k * w.dilation[axis]) as i64;
    (0..w.kernel[axis]).filter(|&k| (low..high).contains(&at(k))).count()
}
