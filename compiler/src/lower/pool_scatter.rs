//! Gradients of poolings window by window, all channels of a block at once: a window is read once,
//! and what comes back to it goes to its positions. (The general way, position by position, is in
//! [`super::pool_grad`]; it looks at every window that covers a position, again for each.)
//!
//! Windows that tile the picture write straight to the result. Where they overlap, a task takes a
//! *band* of rows: it adds up what all windows that reach the band send back, in scratch memory with
//! room for what goes past the band, and stores the band. Windows at an edge between bands are looked
//! at by both tasks. Elementwise work (the mask of a ReLU) follows where an element is stored.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::Place;
use super::builder::{Builder, Cell, Scope, is_vectorisable};
use super::elementwise::{add, div, f32, max, sizes};
use super::generic::lowest;
use super::pool::{count, out_size};
use crate::graph::op::Window;
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::Arg;
use crate::kernel::{BinOp, BufferId, Expr, Guard, Index, Kernel};

/// Bytes of a band's sums, which stay in the cache nearest to a core or the one behind it.
const BAND_BYTES: usize = 64 << 10;

/// Windows of more elements are left to the general way: here they are written out.
const MAX_WINDOW: usize = 16;

/// With fewer tasks, rows of windows are tasks too.
const ENOUGH_TASKS: usize = 16;

/// A group with a pooling's gradient: `result` is it, or elementwise work after it.
pub(super) struct PoolScatter<'a> {
    pub name: &'a str,
    pub anchor: NodeId,
    pub result: NodeId,
    pub out: &'a Place,
    pub lanes: usize,
}

/// What is known of the pooling; pairs are vertical and horizontal.
struct Pooling {
    kernel: [usize; 2],
    stride: [usize; 2],
    /// Padding above and to the left.
    before: [usize; 2],
    /// Size of the input, number of windows.
    size: [usize; 2],
    windows: [usize; 2],
    /// The input, if the largest element gets all; a mean needs none.
    x: Option<NodeId>,
    dy: NodeId,
    /// What a mean divides by.
    count: f64,
}

/// What is done at a position of a window, given its row and column in the picture.
type AtPosition<'f> = dyn FnMut(&mut Builder, [usize; 2], [&Index; 2]) + 'f;

impl Pooling {
    /// True if every position belongs to one window at most, and every window lies inside.
    fn tiles(&self) -> bool {
        (0..2).all(|i| {
            let reach = (self.windows[i] - 1) * self.stride[i] + self.kernel[i];
            self.kernel[i] <= self.stride[i] && self.before[i] == 0 && reach <= self.size[i]
        })
    }

    /// The m-th position of a window along an axis, and the guards under which it lies inside.
    fn position(&self, b: &Builder, axis: usize, window: &Index, m: usize) -> (Index, Vec<Guard>) {
        let at = window.clone() * self.stride[axis] as i64 + m - self.before[axis];
        let inside = Guard::between(&at, 0, self.size[axis] as i64, b.extents());
        (at, inside)
    }
}

/// A picture and a block of its channels.
struct Picture {
    batch: Index,
    block: Index,
    /// The position of each vector's lanes in the block.
    lanes: Vec<Index>,
    /// Channels in the block.
    size: usize,
}

impl Picture {
    /// The index of an element, or a vector of them.
    fn at(&self, v: usize, row: &Index, column: &Index) -> Vec<Index> {
        let channel = self.block.clone() * self.size as i64 + self.lanes[v].clone();
        vec![self.batch.clone(), channel, row.clone(), column.clone()]
    }

    fn vectors(&self) -> std::ops::Range<usize> {
        0..self.lanes.len()
    }
}

impl PoolScatter<'_> {
    /// The kernel; `None` if the pooling is none for this way.
    pub fn kernel(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        let p = self.pooling(scope)?;
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        b.bind(self.out, Access::Write, "out");
        let shape = self.out.physical();
        let batch = b.task("n", shape[0]);
        let (name, size) = match self.out.layout {
            Layout::Blocked(block) => ("cb", usize::from(block)),
            Layout::Plain | Layout::ChannelsLast => ("c", 1),
        };
        let block = b.task(name, shape[1]);
        let few = shape[0] * shape[1] < ENOUGH_TASKS;
        let body = |b: &mut Builder, lanes: Vec<Index>| {
            let picture = Picture { batch, block, lanes, size };
            match p.tiles() {
                true => self.tiled(b, &p, &picture, few),
                false => self.banded(b, &p, &picture),
            }
        };
        match size {
            1 => body(&mut b, vec![Index::default()]),
            _ => b.with_lanes(self.lanes, |b, lane| {
                let vectors = 0..size / self.lanes;
                body(b, vectors.map(|v| lane.clone() + v * self.lanes).collect());
            }),
        }
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    fn pooling(&self, scope: &Scope) -> Option<Pooling> {
        let graph = scope.graph;
        let node = graph.node(self.anchor);
        let operands = graph.operands(self.anchor);
        let (window, x, include_pad): (&Window, _, _) = match &node.op {
            Op::MaxPool2dGrad(p) => (&p.window, Some(operands[0]), true),
            Op::AvgPool2dGrad(g) => (&g.pool.window, None, g.pool.count_include_pad),
            _ => return None,
        };
        let to = sizes(node);
        let size = [to[2], to[3]];
        let windows = [0, 1].map(|i| out_size(window, size[i], i));
        let counted = |i: usize, o: usize| count(window, include_pad, size[i], i, o);
        let even = |i: usize| (1..windows[i]).all(|o| counted(i, o) == counted(i, 0));
        let blocks = match self.out.layout {
            Layout::Plain => true,
            Layout::Blocked(block) => usize::from(block).is_multiple_of(self.lanes),
            Layout::ChannelsLast => false,
        };
        let fits = window.dilation == [1, 1]
            && window.kernel[0] * window.kernel[1] <= MAX_WINDOW
            && windows.iter().all(|&n| n > 0)
            && to == self.out.shape
            && node.layout == self.out.layout
            && blocks
            && (x.is_some() || even(0) && even(1));
        fits.then(|| Pooling {
            kernel: window.kernel,
            stride: window.stride,
            before: [window.padding[0], window.padding[2]],
            size,
            windows,
            x,
            dy: operands[operands.len() - 1],
            count: (counted(0, 0) * counted(1, 0)).max(1) as f64,
        })
    }

    /// Windows that tile the picture: each position is stored with its window.
    fn tiled(&self, b: &mut Builder, p: &Pooling, picture: &Picture, few: bool) {
        let ([rows, columns], [high, wide]) = (p.windows, p.stride);
        let right = columns * wide..p.size[1];
        let below = rows * high..p.size[0];
        let zero = |b: &mut Builder, row: &Index, column: &Index| {
            picture.vectors().for_each(|v| self.finish(b, picture.at(v, row, column), f32(0.0)));
        };
        let row_of_windows = |b: &mut Builder, oh: Index| {
            b.serial("ow", columns, |b, ow| {
                picture.vectors().for_each(|v| self.tile(b, p, picture, v, [&oh, &ow]));
            });
            b.serial("w", right.len(), |b, w| {
                for m in 0..high {
                    let (row, inside) = p.position(b, 0, &oh, m);
                    b.when(inside, |b| zero(b, &row, &(w.clone() + right.start)));
                }
            });
        };
        let mut last = vec![];
        if few {
            let oh = b.task("oh", rows);
            last = Guard::between(&oh, rows as i64 - 1, rows as i64, b.extents());
            row_of_windows(b, oh);
        } else {
            b.serial("oh", rows, row_of_windows);
        }
        if !below.is_empty() {
            b.when(last, |b| {
                b.serial("h", below.len(), |b, h| {
                    b.serial("w", p.size[1], |b, w| zero(b, &(h + below.start), &w));
                });
            });
        }
    }

    /// One window of a tiling, and the gap behind it.
    fn tile(&self, b: &mut Builder, p: &Pooling, picture: &Picture, v: usize, window: [&Index; 2]) {
        let (mut inside, mut gap) = (vec![], vec![]);
        for mh in 0..p.stride[0] {
            for mw in 0..p.stride[1] {
                let ((row, rows), (column, columns)) =
                    (p.position(b, 0, window[0], mh), p.position(b, 1, window[1], mw));
                let place = picture.at(v, &row, &column);
                match mh < p.kernel[0] && mw < p.kernel[1] {
                    true => inside.push(place),
                    false => gap.push((place, [rows, columns].concat())),
                }
            }
        }
        let dy = b.value(p.dy, &picture.at(v, window[0], window[1]));
        let shares: Vec<Expr> = match p.x {
            None => {
                let share = b.named("share", DType::F32, div(dy, f32(p.count)));
                inside.iter().map(|_| share.clone()).collect()
            }
            Some(x) => {
                // The mask after it is likely to look at the same value.
                inside.iter().for_each(|place| b.keep(x, place));
                let values: Vec<Expr> = inside.iter().map(|place| b.value(x, place)).collect();
                let best = values.iter().cloned().reduce(max).unwrap_or(f32(0.0));
                let best = b.named("best", DType::F32, best);
                let rest = b.cell("rest", DType::F32);
                b.assign(&rest, dy);
                values.iter().map(|value| taken(b, value, &best, &rest)).collect()
            }
        };
        for (place, share) in inside.into_iter().zip(shares) {
            self.finish(b, place, share);
        }
        for (place, guards) in gap {
            b.when(guards, |b| self.finish(b, place, f32(0.0)));
        }
    }

    /// Windows that overlap or reach outside, a band of rows a task.
    fn banded(&self, b: &mut Builder, p: &Pooling, picture: &Picture) {
        let ([kh, kw], high) = (p.kernel, p.stride[0]);
        let width = (p.size[1] + p.before[1]).max((p.windows[1] - 1) * p.stride[1] + kw);
        let room = BAND_BYTES / (width * picture.size * 4);
        let rows = (room / high * high).clamp(high, p.size[0].next_multiple_of(high));
        let task = b.task("band", p.size[0].div_ceil(rows));
        // From `kh - 1` rows above the band on, and from the left padding on.
        let sums = b.scratch("sums", &[rows + 2 * (kh - 1), width, picture.size]);
        b.serial("h", rows + 2 * (kh - 1), |b, h| {
            b.serial("w", width, |b, w| {
                for lane in &picture.lanes {
                    b.store(sums, vec![h.clone(), w.clone(), lane.clone()], f32(0.0));
                }
            });
        });
        // The windows that reach the band.
        let first = -((kh as i64 - 1 - p.before[0] as i64).div_euclid(high as i64));
        let last = ((rows - 1 + p.before[0]) / high) as i64;
        b.serial("oh", (last - first + 1) as usize, |b, i| {
            let oh = task.clone() * (rows / high) as i64 + i.clone() + Index::from(first);
            let exists = Guard::between(&oh, 0, p.windows[0] as i64, b.extents());
            let top = (i + Index::from(first)) * high as i64 + (kh - 1) - p.before[0];
            b.when(exists, |b| self.row_of_windows(b, p, picture, &oh, (sums, &top)));
        });
        b.serial("h", rows, |b, h| {
            let row = task * rows as i64 + h.clone();
            let inside = Guard::between(&row, 0, p.size[0] as i64, b.extents());
            b.when(inside, |b| {
                b.serial("w", p.size[1], |b, w| {
                    for v in picture.vectors() {
                        let at = [h.clone() + (kh - 1), w.clone() + p.before[1], picture.lanes[v].clone()];
                        self.finish(b, picture.at(v, &row, &w), Expr::Load(sums, at.to_vec()));
                    }
                });
            });
        });
    }

    /// Adds up what a row of windows sends back; `top` is the first one's row of the sums. Windows that
    /// lie inside need no guards for their columns.
    fn row_of_windows(
        &self,
        b: &mut Builder,
        p: &Pooling,
        picture: &Picture,
        oh: &Index,
        sums: (BufferId, &Index),
    ) {
        let (windows, stride, before) = (p.windows[1], p.stride[1], p.before[1]);
        let inner = before.div_ceil(stride).min(windows);
        let fit = (p.size[1] + before).checked_sub(p.kernel[1]).map_or(0, |room| room / stride + 1);
        let outer = fit.clamp(inner, windows);
        for range in [0..inner, inner..outer, outer..windows] {
            b.serial("ow", range.len(), |b, ow| {
                let ow = ow + range.start;
                picture.vectors().for_each(|v| self.scatter(b, p, picture, v, [oh, &ow], sums));
            });
        }
    }

    /// Adds up what one window sends back.
    fn scatter(
        &self,
        b: &mut Builder,
        p: &Pooling,
        picture: &Picture,
        v: usize,
        window: [&Index; 2],
        (sums, top): (BufferId, &Index),
    ) {
        let dy = b.value(p.dy, &picture.at(v, window[0], window[1]));
        let rest = b.cell("rest", DType::F32);
        b.assign(&rest, if p.x.is_some() { dy } else { div(dy, f32(p.count)) });
        let mut values = vec![];
        let best = b.cell("best", DType::F32);
        if let Some(x) = p.x {
            b.assign(&best, lowest(DType::F32));
            values = (0..p.kernel[0] * p.kernel[1]).map(|_| b.cell("x", DType::F32)).collect();
            self.over_window(b, p, window, &mut |b, m, [row, column]| {
                let value = b.value(x, &picture.at(v, row, column));
                b.assign(&values[m[0] * p.kernel[1] + m[1]], value);
                b.assign(&best, max(best.get(), values[m[0] * p.kernel[1] + m[1]].get()));
            });
        }
        let column = window[1].clone() * p.stride[1] as i64;
        self.over_window(b, p, window, &mut |b, m, _| {
            let share = match values.get(m[0] * p.kernel[1] + m[1]) {
                Some(value) => taken(b, &value.get(), &best.get(), &rest),
                None => rest.get(),
            };
            let at = vec![top.clone() + m[0], column.clone() + m[1], picture.lanes[v].clone()];
            b.store(sums, at.clone(), add(Expr::Load(sums, at), share));
        });
    }

    /// Runs `body` for all positions of a window that lie inside.
    fn over_window(&self, b: &mut Builder, p: &Pooling, window: [&Index; 2], body: &mut AtPosition) {
        for mh in 0..p.kernel[0] {
            let (row, inside) = p.position(b, 0, window[0], mh);
            b.when(inside, |b| {
                for mw in 0..p.kernel[1] {
                    let (column, inside) = p.position(b, 1, window[1], mw);
                    b.when(inside, |b| body(b, [mh, mw], [&row, &column]));
                }
            });
        }
    }

    /// Stores what the group makes of an element of the gradient.
    fn finish(&self, b: &mut Builder, at: Vec<Index>, gradient: Expr) {
        let gradient = b.shared(DType::F32, gradient);
        b.memo.push((self.anchor, at.clone(), gradient));
        let value = b.value(self.result, &at);
        b.store_at(self.out, &at, value);
    }
}

/// What an element gets: the rest of what comes back, if it is the largest, or not a number; there is
/// none left for others then.
fn taken(b: &mut Builder, value: &Expr, best: &Expr, rest: &Cell) -> Expr {
    let compare = |op, a: &Expr, c: &Expr| Expr::Binary(op, Box::new(a.clone()), Box::new(c.clone()));
    let is_nan = compare(BinOp::Ne, value, value);
    let hit = Expr::Binary(BinOp::Or, Box::new(compare(BinOp::Eq, value, best)), Box::new(is_nan));
    let select = |a: Expr, c: Expr| Expr::Select(Box::new(hit.clone()), Box::new(a), Box::new(c));
    let share = b.named("share", DType::F32, select(rest.get(), f32(0.0)));
    b.assign(rest, select(f32(0.0), rest.get()));
    share
}
