//! Gradients of poolings, gathered: an element of the input adds up what comes back to it from the
//! windows that cover it. Whether it is a window's first maximum is found by comparing it with the
//! rest of the window, so that nothing but the input needs to be kept.

use nnc_runtime::DType;

use super::builder::Builder;
use super::elementwise::{add, div, f32, mul, sizes};
use super::pool::UNROLLED_WINDOW;
use crate::graph::op::Window;
use crate::graph::{Node, NodeId, Op};
use crate::kernel::{BinOp, Expr, Guard, Index, LoopKind};

/// Which windows cover a position and which positions a window has, along one axis.
#[derive(Clone, Copy, Debug)]
enum Axis {
    /// `at = window·stride - before + k·dilation`, of `kernel` values of `k`.
    Strided {
        kernel: usize,
        stride: usize,
        dilation: usize,
        before: usize,
        after: usize,
        size: usize,
        windows: usize,
    },
    /// `floor(window·size / windows) <= at < ceil((window + 1)·size / windows)`
    Adaptive { size: usize, windows: usize },
}

/// A window, or a position of one, along an axis, and the guards under which there is one.
type Candidate = (Index, Vec<Guard>);

impl Axis {
    /// Of a window's attributes: axis 0 is vertical, 1 horizontal.
    fn strided(w: &Window, axis: usize, size: usize, windows: usize) -> Axis {
        Axis::Strided {
            kernel: w.kernel[axis],
            stride: w.stride[axis],
            dilation: w.dilation[axis],
            before: w.padding[2 * axis],
            after: w.padding[2 * axis + 1],
            size,
            windows,
        }
    }

    /// The most windows that cover a position.
    fn covers(self) -> usize {
        match self {
            Axis::Strided { kernel, .. } => kernel,
            Axis::Adaptive { size, windows } => longest(windows, size),
        }
    }

    /// The most positions that a window has.
    fn members(self) -> usize {
        match self {
            Axis::Strided { kernel, .. } => kernel,
            Axis::Adaptive { size, windows } => longest(size, windows),
        }
    }

    /// The k-th window that may cover a position.
    fn cover(self, b: &Builder, at: &Index, k: &Index) -> Candidate {
        match self {
            Axis::Strided { stride, dilation, before, windows, .. } => {
                let scaled = at.clone() - k.clone() * dilation as i64 + before;
                let (window, rest) = (scaled.div(stride, b.extents()), scaled.rem(stride, b.extents()));
                let mut guards = Guard::between(&rest, 0, 1, b.extents());
                guards.extend(Guard::between(&window, 0, windows as i64, b.extents()));
                (window, guards)
            }
            // The roles of positions and windows can be exchanged.
            Axis::Adaptive { size, windows } => bin(b, at, k, size, windows),
        }
    }

    /// The m-th position of the k-th window that covers `at`.
    fn member(self, b: &Builder, at: &Index, (k, window): (&Index, &Index), m: &Index) -> Candidate {
        match self {
            Axis::Strided { dilation, size, .. } => {
                let other = at.clone() + (m.clone() - k.clone()) * dilation as i64;
                let guards = Guard::between(&other, 0, size as i64, b.extents());
                (other, guards)
            }
            Axis::Adaptive { size, windows } => bin(b, window, m, windows, size),
        }
    }

    /// By how many positions the mean of the k-th window that covers `at` is divided.
    fn count(self, b: &mut Builder, at: &Index, (k, window): (&Index, &Index), include_pad: bool) -> Expr {
        match self {
            Axis::Strided { kernel, dilation, before, after, size, .. } => {
                let (low, high) = if include_pad { (-(before as i64), size + after) } else { (0, size) };
                let count = b.cell("count", DType::F32);
                b.assign(&count, f32(0.0));
                b.unroll("m", kernel, |b, m| {
                    let other = at.clone() + (m - k.clone()) * dilation as i64;
                    let inside = Guard::between(&other, low, high as i64, b.extents());
                    let one = b.guarded(inside, f32(0.0), |_| f32(1.0));
                    b.assign(&count, add(count.get(), one));
                });
                count.get()
            }
            Axis::Adaptive { size, windows } => {
                let length = end(b, window, windows, size) - start(b, window, windows, size);
                match length.known() {
                    Some(n) => f32(n as f64),
                    None => Expr::Cast(DType::F32, Box::new(Expr::Index(length))),
                }
            }
        }
    }
}

/// The windows of a pooling, and the operands of its gradient.
struct Pooling {
    axes: [Axis; 2],
    dy: NodeId,
}

impl Builder<'_> {
    /// The gradient of a pooling with respect to the input's element at an index.
    pub fn pool_grad_element(&mut self, node: &Node, operands: &[NodeId], index: &[Index]) -> Expr {
        let dy = operands[operands.len() - 1];
        let (to, from) = (sizes(node), self.shape_of(dy));
        let strided = |w: &Window| [0, 1].map(|i| Axis::strided(w, i, to[2 + i], from[2 + i]));
        let adaptive = [2, 3].map(|i| Axis::Adaptive { size: to[i], windows: from[i] });
        let pooling = |axes| Pooling { axes, dy };
        match &node.op {
            Op::MaxPool2dGrad(p) => self.gradient_of_max(&pooling(strided(&p.window)), operands[0], index),
            Op::AvgPool2dGrad(g) => {
                let (window, include_pad) = (&g.pool.window, g.pool.count_include_pad);
                self.gradient_of_mean(&pooling(strided(window)), include_pad, index)
            }
            Op::AdaptiveMaxPool2dGrad => self.gradient_of_max(&pooling(adaptive), operands[0], index),
            _ => self.gradient_of_mean(&pooling(adaptive), false, index),
        }
    }

    /// Sums what comes back from the windows whose first maximum the element is.
    fn gradient_of_max(&mut self, p: &Pooling, x: NodeId, index: &[Index]) -> Expr {
        let width = self.shape_of(x)[3] as i64;
        let here = self.value(x, index);
        let here = self.shared(DType::F32, here);
        let place = |at: &[Index]| at[2].clone() * width + at[3].clone();
        self.over_windows(p, index, |b, ks, window| {
            let share = b.value(p.dy, window);
            let cell = b.cell("share", DType::F32);
            b.assign(&cell, share);
            let [rows, columns] = p.axes.map(Axis::members);
            let how = if rows * columns <= UNROLLED_WINDOW { LoopKind::Unroll } else { LoopKind::Serial };
            b.repeat(how, "mh", rows, |b, mh| {
                b.repeat(how, "mw", columns, |b, mw| {
                    let mut at = index.to_vec();
                    let mut inside = vec![];
                    for (i, m) in [mh, mw].iter().enumerate() {
                        let (axis, d) = (p.axes[i], 2 + i);
                        let (other, guards) = axis.member(b, &index[d], (&ks[i], &window[d]), m);
                        at[d] = other;
                        inside.extend(guards);
                    }
                    let before = Guard(place(index) - place(&at) - 1usize);
                    let share = b.guarded(inside, cell.get(), |b| {
                        let there = b.value(x, &at);
                        let there = b.shared(DType::F32, there);
                        let loses = Expr::Guarded {
                            guards: vec![before],
                            value: Box::new(reaches(&there, &here)),
                            otherwise: Box::new(exceeds(&there, &here)),
                        };
                        Expr::Select(Box::new(loses), Box::new(f32(0.0)), Box::new(cell.get()))
                    });
                    b.assign(&cell, share);
                });
            });
            cell.get()
        })
    }

    /// Sums the shares of the windows that cover the element.
    fn gradient_of_mean(&mut self, p: &Pooling, include_pad: bool, index: &[Index]) -> Expr {
        self.over_windows(p, index, |b, ks, window| {
            let [rows, columns] =
                [0, 1].map(|i| p.axes[i].count(b, &index[2 + i], (&ks[i], &window[2 + i]), include_pad));
            div(b.value(p.dy, window), mul(rows, columns))
        })
    }

    /// The sum over the windows that cover the element: `share` is given the numbers of the window
    /// among those of the element and the index of its result.
    fn over_windows(
        &mut self,
        p: &Pooling,
        index: &[Index],
        mut share: impl FnMut(&mut Self, [Index; 2], &[Index]) -> Expr,
    ) -> Expr {
        let total = self.cell("total", DType::F32);
        self.assign(&total, f32(0.0));
        let [rows, columns] = p.axes.map(Axis::covers);
        self.serial("kh", rows, |b, kh| {
            b.serial("kw", columns, |b, kw| {
                let ks = [kh, kw];
                let mut window = index.to_vec();
                let mut covers = vec![];
                for (i, k) in ks.iter().enumerate() {
                    let (at, guards) = p.axes[i].cover(b, &index[2 + i], k);
                    window[2 + i] = at;
                    covers.extend(guards);
                }
                if b.tells_lanes_apart(&covers) {
                    b.failed = true;
                    return;
                }
                b.when(covers, |b| {
                    let share = share(b, ks, &window);
                    b.assign(&total, add(total.get(), share));
                });
            });
        });
        total.get()
    }
}

/// The most elements of a bin when `size` elements are dealt to `bins`.
fn longest(size: usize, bins: usize) -> usize {
    let length = |i: usize| ((i + 1) * size).div_ceil(bins) - i * size / bins;
    (0..bins).map(length).max().unwrap_or(0)
}

/// `floor(i·size / bins)`
fn start(b: &Builder, i: &Index, bins: usize, size: usize) -> Index {
    (i.clone() * size as i64).div(bins, b.extents())
}

/// `ceil((i + 1)·size / bins)`
fn end(b: &Builder, i: &Index, bins: usize, size: usize) -> Index {
    (i.clone() * size as i64 + (size + bins - 1)).div(bins, b.extents())
}

/// The k-th element of the i-th bin, when `size` elements are dealt to `bins`.
fn bin(b: &Builder, i: &Index, k: &Index, bins: usize, size: usize) -> Candidate {
    let at = start(b, i, bins, size) + k.clone();
    let room = end(b, i, bins, size) - 1usize - at.clone();
    let mut guards = Guard::between(&at, 0, size as i64, b.extents());
    if room.range(b.extents()).0 < 0 {
        guards.push(Guard(room));
    }
    (at, guards)
}

/// `there` is the larger one, or as large: of two NaN, or equal numbers, the first one is taken.
fn reaches(there: &Expr, here: &Expr) -> Expr {
    or(compare(BinOp::Le, here, there), is_nan(there))
}

/// `there` is larger; NaN is the largest.
fn exceeds(there: &Expr, here: &Expr) -> Expr {
    let first_nan =
        Expr::Binary(BinOp::And, Box::new(is_nan(there)), Box::new(compare(BinOp::Eq, here, here)));
    or(compare(BinOp::Lt, here, there), first_nan)
}

fn compare(op: BinOp, a: &Expr, b: &Expr) -> Expr {
    Expr::Binary(op, Box::new(a.clone()), Box::new(b.clone()))
}

fn is_nan(x: &Expr) -> Expr {
    compare(BinOp::Ne, x, x)
}

fn or(a: Expr, b: Expr) -> Expr {
    Expr::Binary(BinOp::Or, Box::new(a), Box::new(b))
}
