//! Gradients of depthwise convolutions' weights with channels last: a block has some channels and a part of the pixels. Each
//! of its threads adds up the products of four channels (or of one) at its pixels, for all places of the kernel at once, in
//! registers; large kernels have blocks for each of their rows. Then the threads' sums are added in their order in
//! shared memory, and those of the parts, in theirs, by a thread an element.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::super::elements::{finished, tasks, with_lanes};
use super::super::product::digits;
use super::super::schedule::Columns;
use super::super::wide::is_wide;
use super::meetings::Meetings;
use super::{KEPT, Made, ROWS};
use crate::graph::op::Conv2d;
use crate::graph::{Layout, NodeId};
use crate::kernel::module::{Role, ValueId};
use crate::kernel::{Expr, Guard, Index, Joint, Memory};
use crate::lower::Lowering;
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Cell, Scope};
use crate::lower::conv_taps::Slide;
use crate::lower::elementwise::{add, f32, fma, sizes};

/// Inputs that a thread reads at most for some rows of a column: with more, only one block of them has registers on a
/// multiprocessor (by `ptxas`).
const MOST_READ: usize = 12;

/// A gradient, and how it is computed.
struct WeightGrad<'a> {
    name: &'a str,
    anchor: NodeId,
    conv: &'a Conv2d,
    results: &'a [(NodeId, Place)],
    /// Rows and columns of the kernel, and how many of the rows a block has.
    kernel: [usize; 2],
    block_rows: usize,
    /// Sizes of the gradient that is given: images, channels, rows, columns.
    dy: Vec<usize>,
    /// Rows that a thread has at a time.
    rows: usize,
    team: Columns,
}

/// What a block has.
struct Task {
    /// Its channels' number, the first row of the kernel, its part of the pixels.
    channels: Index,
    kernel_row: Index,
    part: Index,
}

impl Lowering<'_> {
    /// The kernels; `None` if the convolution is another one, or where there are few pixels.
    pub(super) fn depthwise_weight_grad(
        &mut self,
        scope: &Scope,
        name: &str,
        (anchor, conv): (NodeId, &Conv2d),
        results: &[(NodeId, Place)],
    ) -> Option<Vec<Made>> {
        let graph = self.graph;
        let operands = graph.operands(anchor);
        let (shape, dy) = (sizes(graph.node(anchor)), sizes(graph.node(operands[1])));
        let kernel = [shape[2], shape[3]];
        let last = |id: &NodeId| graph.node(*id).layout == Layout::ChannelsLast;
        let is_depthwise = conv.groups == dy[1] && shape[..2] == [dy[1], 1];
        if !is_depthwise || kernel[1] > KEPT || !operands[..2].iter().all(last) {
            return None;
        }
        let block_rows = if kernel[0] * kernel[1] <= KEPT { kernel[0] } else { 1 };
        let slide = Slide { conv: conv.clone(), transposed: false };
        let read = |rows: usize| Meetings::of(&slide, 0, block_rows, rows).inputs().count() * kernel[1];
        let fits = |&rows: &usize| rows == 1 || dy[2].is_multiple_of(rows) && read(rows) <= MOST_READ;
        let rows = ROWS.into_iter().find(fits)?;
        let teams = Columns::of([1, dy[1], dy[0] * dy[2] * dy[3]], self.gpu?, self.gpu_options);
        // The value is added if there is something that uses it.
        let value = ValueId(self.module.values.len() as u32);
        teams.into_iter().find_map(|team| {
            let shape = [team.parts, kernel[0] * kernel[1], dy[1]];
            let parts = Place::dense(value, DType::F32, &shape, Layout::Plain);
            let dy = dy.clone();
            let grad = WeightGrad { name, anchor, conv, results, kernel, block_rows, dy, rows, team };
            let made = grad.of_parts(scope, &parts).filter(|made| is_wide(made, team.lanes))?;
            let kernels = vec![made, grad.join(scope, &parts)?];
            self.new_value("", DType::F32, &shape, Role::Temporary);
            Some(kernels)
        })
    }
}

impl WeightGrad<'_> {
    /// Places of the kernel that a block has.
    fn places(&self) -> usize {
        self.block_rows * self.kernel[1]
    }

    /// The kernel of the parts. `[parts, places of the kernel, channels]`
    fn of_parts(&self, scope: &Scope, to: &Place) -> Option<Made> {
        let Columns { across, lanes, down, parts } = self.team;
        let mut b = Builder::new(&format!("{}_parts", self.name), scope);
        let out = b.bind(to, Access::Write, "parts");
        b.kernel.threads = Some(across * down);
        let kernel_row = b.task("kh", self.kernel[0] / self.block_rows) * self.block_rows as i64;
        let channels = b.task("c", self.dy[1].div_ceil(across * lanes));
        let task = Task { channels, kernel_row, part: b.task("p", parts) };
        let shape = [self.places(), down, across * lanes];
        let shares = b.kernel.buffer("shares", DType::F32, &shape, Memory::Shared);
        with_lanes(&mut b, lanes, |b, lane| {
            let column =
                |b: &Builder, thread: &Index| thread.rem(across, b.extents()) * lanes as i64 + lane.clone();
            b.threads(|b, thread| {
                let sums: Vec<Cell> = (0..self.places()).map(|_| b.cell("sum", DType::F32)).collect();
                sums.iter().for_each(|sum| b.assign(sum, f32(0.0)));
                self.add_up(b, &task, &thread, &sums);
                let (x, y) = (column(b, &thread), thread.div(across, b.extents()));
                for (place, sum) in sums.iter().enumerate() {
                    b.store(shares, vec![place.into(), y.clone(), x.clone()], sum.get());
                }
            });
            b.joint(Joint::Barrier);
            // A thread has a place of the kernel now, or several.
            b.threads(|b, thread| {
                let (x, y) = (column(b, &thread), thread.div(across, b.extents()));
                let (channel, columns) = self.channel(b, &task, &thread);
                for turn in 0..self.places().div_ceil(down) {
                    let place = y.clone() + turn * down;
                    let mut inside = Guard::between(&place, 0, self.places() as i64, b.extents());
                    inside.extend(columns.iter().cloned());
                    b.when(inside, |b| {
                        let total = b.cell("total", DType::F32);
                        b.assign(&total, f32(0.0));
                        b.unroll("y", down, |b, y| {
                            let share = Expr::Load(shares, vec![place.clone(), y, x.clone()]);
                            b.assign(&total, add(total.get(), share));
                        });
                        let number = task.kernel_row.clone() * self.kernel[1] as i64 + place.clone();
                        b.store(out, vec![task.part.clone(), number, channel.clone()], total.get());
                    });
                }
            });
        });
        finished(b)
    }

    /// The channel of a thread (and lane), and what must hold for there to be one.
    fn channel(&self, b: &Builder, task: &Task, thread: &Index) -> (Index, Vec<Guard>) {
        let Columns { across, lanes, .. } = self.team;
        let first = (task.channels.clone() * across as i64 + thread.rem(across, b.extents())) * lanes as i64;
        // Channels are a multiple of the lanes.
        let inside = Guard::between(&first, 0, (self.dy[1] + 1 - lanes) as i64, b.extents());
        (first + b.lane(), inside)
    }

    /// Adds the products at a thread's pixels: some rows of a column at a time.
    fn add_up(&self, b: &mut Builder, task: &Task, thread: &Index, sums: &[Cell]) {
        let Columns { across, down, parts, .. } = self.team;
        let (channel, inside) = self.channel(b, task, thread);
        let counts = [self.dy[0], self.dy[2] / self.rows, self.dy[3]];
        let (count, together) = (counts.iter().product::<usize>(), down * parts);
        let own = task.part.clone() * down as i64 + thread.div(across, b.extents());
        let channels = Guard::between(&channel, 0, self.dy[1] as i64, b.extents());
        b.when_implied(inside, channels, |b| {
            b.serial("k", count.div_ceil(together), |b, k| {
                let number = k * together as i64 + own;
                let inside = Guard::between(&number, 0, count as i64, b.extents());
                b.when(inside, |b| {
                    let at = digits(&number, &counts, b.extents());
                    self.add_products(b, &task.kernel_row, [&at[0], &channel, &at[1], &at[2]], sums);
                });
            });
        });
    }

    /// Adds those of some rows at a column. What is read of the input serves all rows that meet it.
    fn add_products(
        &self,
        b: &mut Builder,
        kernel_row: &Index,
        [n, channel, row, column]: [&Index; 4],
        sums: &[Cell],
    ) {
        let operands = b.scope.graph.operands(self.anchor);
        let size = b.shape_of(operands[0]);
        let mut dy = vec![];
        for r in 0..self.rows {
            let at = [n.clone(), channel.clone(), row.clone() * self.rows as i64 + r, column.clone()];
            let v = b.value(operands[1], &at);
            dy.push(b.named("dy", DType::F32, v));
        }
        let slide = Slide { conv: self.conv.clone(), transposed: false };
        let meetings =
            [Meetings::of(&slide, 0, self.block_rows, self.rows), Meetings::of(&slide, 1, self.kernel[1], 1)];
        for of_row in meetings[0].inputs() {
            let below = kernel_row.clone() * self.conv.dilation[0] as i64 + Index::from(of_row[0].input);
            let ih = row.clone() * meetings[0].step as i64 + below;
            for of_column in meetings[1].inputs() {
                let iw = column.clone() * meetings[1].step as i64 + Index::from(of_column[0].input);
                let mut inside = Guard::between(&ih, 0, size[2] as i64, b.extents());
                inside.extend(Guard::between(&iw, 0, size[3] as i64, b.extents()));
                let at = [n.clone(), channel.clone(), ih.clone(), iw];
                let v = b.guarded(inside, f32(0.0), |b| b.value(operands[0], &at));
                let v = b.named("v", DType::F32, v);
                for r in of_row {
                    for c in of_column {
                        let sum = &sums[r.place * self.kernel[1] + c.place];
                        b.assign(sum, fma(v.clone(), dy[r.out].clone(), sum.get()));
                    }
                }
            }
        }
    }

    /// The kernel that adds up the parts, a thread an element, with the elementwise work after it.
    fn join(&self, scope: &Scope, parts: &Place) -> Option<Made> {
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        // In the order of the parts: there are more of them to read than results to write.
        let shape = [self.dy[1], 1, self.kernel[0], self.kernel[1]];
        let index = tasks(&mut b, &shape, &[1, 2, 3, 0]);
        let total = b.cell("total", DType::F32);
        b.assign(&total, f32(0.0));
        b.each_part(self.team.parts, &mut |b, p| {
            let place = index[2].clone() * self.kernel[1] as i64 + index[3].clone();
            let part = b.load(parts, "parts", &[p, place, index[0].clone()]);
            b.assign(&total, add(total.get(), part));
        });
        b.memo.push((self.anchor, index.clone(), total.get()));
        b.store_all(self.results, &index);
        finished(b)
    }
}
