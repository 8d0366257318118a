//! Contractions by blocks of threads: a block adds up a tile of the result from tiles of both factors, which
//! asynchronous copies bring into shared memory some steps ahead.
//!
//! ```text
//! copy tiles 0 .. stages-2
//! for s: wait for tile s; barrier; copy tile s + stages-1 over tile s-1; sums += tile s
//! for the last stages-1 tiles: wait, barrier, sums += tile
//! ```
//!
//! One barrier a step is enough: behind it, everybody has done with tile s-1. In shared memory, lines lie so
//! far apart that neither fragments nor copies of 16 bytes meet in a bank more than twice
//! ([`DEPTH_PADDING`], [`LINE_PADDING`]). What is past the edges are zeros.
//!
//! [`conv`] and [`matrix`] say what the factors are; elementwise work, a pooling ([`pooled`]) and the store follow in registers.

mod conv;
mod factor;
mod matrix;
mod pooled;
mod result;
mod which;

use nnc_runtime::DType;
use nnc_runtime::program::Access;

pub(super) use self::factor::{At, Factor};
use self::pooled::Pool;
pub(super) use self::result::{Result2d, digits};
use super::Made;
use super::elements::finished;
use super::schedule::{DEPTH, Schedule};
use super::turned::{self, Turned};
use crate::graph::NodeId;
use crate::kernel::block::Part;
use crate::kernel::module::{Role, ValueId};
use crate::kernel::{BufferId, Expr, Fragment, Guard, Index, Joint, LoopKind, Memory, Rounding, UnOp};
use crate::lower::Lowering;
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Scope};
use crate::lower::elementwise::{add, f32, fma, sub, unary};

/// Elements between the lines of a tile that lies line by line: the eight lines and four elements of a
/// fragment's load are then in 32 different banks, for 20·line + element counts them all.
const DEPTH_PADDING: usize = 4;

/// Elements between the rows of a tile that lies by what is summed over: 8·k + line likewise, as tiles have
/// a multiple of 32 lines.
const LINE_PADDING: usize = 8;

/// Columns of a thread's tile where products are f32.
pub(super) const THREAD_COLUMNS: usize = 8;

/// A contraction, with what follows it.
pub(super) struct Product<'p> {
    pub name: &'p str,
    pub anchor: NodeId,
    /// Results are the contraction, or elementwise work after it.
    pub results: &'p [(NodeId, Place)],
    /// Which dimensions of the result are rows, which columns.
    pub result: Result2d,
    pub first: Factor<'p>,
    pub second: Factor<'p>,
    /// Added to every row.
    pub bias: Option<NodeId>,
    /// The pooling of its results, if it is in the kernel: rows are pixels by windows then, and the result is what is
    /// pooled.
    pub pool: Option<Pool>,
    pub schedule: Schedule,
}

/// What is done with a result: its row and column, and the places of its sums.
type EachResult<'f> = dyn FnMut(&mut Builder, [&Index; 2], Vec<Vec<Index>>) + 'f;

/// Sizes of the dimensions that rows count, and of those that columns do.
type Sizes = [Vec<usize>; 2];

/// A factor's tiles in shared memory.
#[derive(Clone, Copy)]
struct Tiles {
    buffer: BufferId,
    along_depth: bool,
}

impl Tiles {
    /// Loads so many matrices of a warp into fragments, from that stage, line and position on.
    fn load(
        self,
        b: &mut Builder,
        [stage, line, position]: &[Index; 3],
        (to, matrices): (BufferId, usize),
        value: &dyn Fn(Expr) -> Expr,
    ) {
        let Memory::Fragment(fragment) = b.kernel.buffer_of(to).memory else { return };
        let [height, width] = fragment.shape();
        let is_first = matches!(fragment, Fragment::First(_));
        b.unroll(if is_first { "i" } else { "j" }, matrices, |b, i| {
            b.matrix(fragment, |b, row, column| {
                let lines = if is_first { height } else { width };
                let (own, past) = if is_first { (&row, &column) } else { (&column, &row) };
                let line = line.clone() + i.clone() * lines as i64 + own.clone();
                let from = self.place(stage, line, position.clone() + past.clone());
                b.store(to, vec![i, row, column], value(Expr::Load(self.buffer, from)));
            });
        });
    }

    fn place(self, stage: &Index, line: Index, k: Index) -> Vec<Index> {
        match self.along_depth {
            true => vec![stage.clone(), line, k],
            false => vec![stage.clone(), k, line],
        }
    }
}

/// What a block works with: where its tile begins, shared memory, sums.
struct Work {
    batch: Vec<Index>,
    /// Which part of what is summed over.
    part: Index,
    /// First row, first column.
    origin: [Index; 2],
    /// The first step of its part.
    first_step: Index,
    tiles: [Tiles; 2],
    sums: BufferId,
}

impl Product<'_> {
    /// The kernels: one, or two where what is summed over is cut into parts.
    pub fn kernels(&self, lowering: &mut Lowering, scope: &Scope) -> Option<Vec<Made>> {
        if self.schedule.parts == 1 {
            return Some(vec![self.whole(scope)?]);
        }
        // The value is added if there is something that uses it.
        let value = ValueId(lowering.module.values.len() as u32);
        let shape = [vec![self.schedule.parts], self.result.flat_shape()].concat();
        let parts = Place::dense(value, DType::F32, &shape, crate::graph::Layout::Plain);
        let made = vec![self.parts(scope, &parts)?, self.join(scope, &parts)?];
        lowering.new_value("", DType::F32, &shape, Role::Temporary);
        Some(made)
    }

    fn whole(&self, scope: &Scope) -> Option<Made> {
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        let work = self.sums(&mut b, |b, column| self.early_bias(b, column));
        self.each_result(&mut b, &work, Some(&self.result.side_sizes()), &mut |b, [row, column], at| {
            let index = self.result.index(&work.batch, row, column, b.extents());
            let sums: Vec<Expr> =
                at.into_iter().map(|at| self.late_bias(b, column, Expr::Load(work.sums, at))).collect();
            match &self.pool {
                None => b.when(self.result.inside(&index, b.extents()), |b| {
                    sums.into_iter().for_each(|sum| self.finish(b, &self.result.spread(&index), sum));
                }),
                Some(pool) => self.finish_window(b, pool, &index, sums),
            }
        });
        finished(b)
    }

    /// The kernel of the parts. `[parts, batch, rows, columns]`
    fn parts(&self, scope: &Scope, to: &Place) -> Option<Made> {
        let mut b = Builder::new(&format!("{}_parts", self.name), scope);
        let out = b.bind(to, Access::Write, "parts");
        let work = self.sums(&mut b, |_, _| None);
        let sizes = self.result.sides().map(|n| vec![n]);
        self.each_result(&mut b, &work, Some(&sizes), &mut |b, [row, column], at| {
            let to = [self.result.batch_number(&work.batch), row.clone(), column.clone()];
            let to = [std::slice::from_ref(&work.part), &to].concat();
            at.into_iter().for_each(|at| b.store(out, to.clone(), Expr::Load(work.sums, at)));
        });
        finished(b)
    }

    /// The kernel that adds up the parts, a thread an element.
    fn join(&self, scope: &Scope, parts: &Place) -> Option<Made> {
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        if let Some(turned) = self.turned_join() {
            self.join_turned(&mut b, turned, parts);
            return finished(b);
        }
        // In the order of the parts: there are more of them to read than results to write.
        let index = super::elements::tasks(&mut b, &self.result.shape, &self.result.order());
        let [batch, row, column] = self.result.flat(&index);
        let total = b.cell("total", DType::F32);
        b.assign(&total, f32(0.0));
        b.each_part(self.schedule.parts, &mut |b, p| {
            let part = b.load(parts, "parts", &[p, batch.clone(), row.clone(), column.clone()]);
            b.assign(&total, add(total.get(), part));
        });
        let sum = self.with_bias(&mut b, &column, total.get());
        self.finish(&mut b, &self.result.spread(&index), sum);
        finished(b)
    }

    /// The gradient of weights whose columns are counted by places of the kernel, then by channels, lies the other way
    /// round: as matrices of places and channels. `None` of another result, and where that makes no neighbours.
    fn turned_join(&self) -> Option<Turned> {
        let r = &self.result;
        let whole = r.counted == r.shape && r.spread.iter().all(|&s| s == (0, 1)) && self.bias.is_none();
        let is_weights = r.rows == [0] && r.columns == [2, 3, 1] && r.batch().is_empty();
        let &[outputs, channels, rows, columns] = r.shape.as_slice() else { return None };
        let few = rows * columns <= turned::FEW && rows * columns < channels;
        Turned::of([outputs, rows * columns, channels]).filter(|_| whole && is_weights && few)
    }

    /// Adds up the parts by places and channels, and stores by channels and places.
    fn join_turned(&self, b: &mut Builder, turned: Turned, parts: &Place) {
        let columns = self.result.shape[3];
        let sum = |b: &mut Builder, [output, place, channel]: [Index; 3]| {
            let total = b.cell("total", DType::F32);
            b.assign(&total, f32(0.0));
            let column = place * self.result.shape[1] as i64 + channel;
            b.each_part(self.schedule.parts, &mut |b, p| {
                let part = b.load(parts, "parts", &[p, Index::default(), output.clone(), column.clone()]);
                b.assign(&total, add(total.get(), part));
            });
            total.get()
        };
        turned.body(b, LoopKind::Serial, &sum, &|b, [output, place, channel], value| {
            let at = [place.div(columns, b.extents()), place.rem(columns, b.extents())];
            let [row, column] = at;
            self.finish(b, &[output, channel, row, column], value);
        });
    }

    /// The bias of a column.
    fn bias(&self, b: &mut Builder, column: &Index) -> Option<Expr> {
        self.bias.map(|bias| b.value(bias, std::slice::from_ref(column)))
    }

    fn with_bias(&self, b: &mut Builder, column: &Index, sum: Expr) -> Expr {
        match self.bias(b, column) {
            Some(bias) => add(sum, bias),
            None => sum,
        }
    }

    /// What the sums of a column start from, if not zero: the bias, which is loaded while the first tiles are on their
    /// way. Where the last tile is not full it is added late: its guards would take registers that the sums need.
    fn early_bias(&self, b: &mut Builder, column: &Index) -> Option<Expr> {
        if self.is_bias_early() { self.bias(b, column) } else { None }
    }

    fn late_bias(&self, b: &mut Builder, column: &Index, sum: Expr) -> Expr {
        if self.is_bias_early() { sum } else { self.with_bias(b, column, sum) }
    }

    fn is_bias_early(&self) -> bool {
        self.result.sides()[1].is_multiple_of(self.schedule.tile.size[1])
    }

    /// Elementwise work and store of one element.
    fn finish(&self, b: &mut Builder, index: &[Index], sum: Expr) {
        let sum = b.shared(DType::F32, sum);
        b.memo.push((self.anchor, index.to_vec(), sum));
        b.store_all(self.results, index);
    }

    /// The block's sums, complete: `start` says what those of a column start from, if not zero.
    fn sums(&self, b: &mut Builder, start: impl Fn(&mut Builder, &Index) -> Option<Expr>) -> Work {
        let Schedule { tile, parts, steps, products } = self.schedule;
        b.kernel.threads = Some(tile.threads());
        let batch: Vec<Index> = self.result.batch().iter().map(|&n| b.task("b", n)).collect();
        let part = b.task("p", parts);
        let [_, columns] = self.result.sides();
        let row = b.task("m", self.rows().div_ceil(tile.size[0])) * tile.size[0] as i64;
        let column = b.task("n", columns.div_ceil(tile.size[1])) * tile.size[1] as i64;
        let bytes = self.first.tile_bytes(tile.size[0]) + self.second.tile_bytes(tile.size[1]);
        let stages = self.schedule.stages(bytes);
        let tiles = [
            self.first.tiles(b, "first_tile", tile.size[0], stages),
            self.second.tiles(b, "second_tile", tile.size[1], stages),
        ];
        let sums = match products.rounding() {
            Some(_) => self.fragments(b),
            None => self.registers(b),
        };
        let first_step = part.clone() * steps as i64;
        let work = Work { batch, part, origin: [row, column], first_step, tiles, sums };
        self.each_result(b, &work, None, &mut |b, [_, column], at| {
            let start = start(b, column).unwrap_or(f32(0.0));
            at.into_iter().for_each(|at| b.store(work.sums, at, start.clone()));
        });
        b.serial("s", stages - 1, |b, s| self.copy(b, &work, &s, &s));
        b.serial("s", steps - (stages - 1), |b, s| {
            b.joint(Joint::Wait { open: stages - 2 });
            b.joint(Joint::Barrier);
            let next = s.clone() + (stages - 1);
            let to = next.rem(stages, b.extents());
            self.copy(b, &work, &next, &to);
            let stage = s.rem(stages, b.extents());
            self.add_up(b, &work, &stage);
        });
        b.serial("s", stages - 1, |b, s| {
            b.joint(Joint::Wait { open: 0 });
            b.joint(Joint::Barrier);
            let stage = (s + (steps - (stages - 1))).rem(stages, b.extents());
            self.add_up(b, &work, &stage);
        });
        work
    }

    /// Rows of sums.
    fn rows(&self) -> usize {
        let [rows, _] = self.result.sides();
        self.pool.as_ref().map_or(rows, |pool| pool.windows.rows_of(rows))
    }

    /// Starts to copy the tiles of a step.
    fn copy(&self, b: &mut Builder, work: &Work, step: &Index, stage: &Index) {
        let step = work.first_step.clone() + step.clone();
        b.threads(|b, thread| {
            let factors = [&self.first, &self.second];
            for (side, (factor, tiles)) in factors.into_iter().zip(work.tiles).enumerate() {
                let from = At { batch: &work.batch, line: &work.origin[side], step: &step };
                let lines = self.schedule.tile.size[side];
                factor.copy(b, &from, lines, &thread, &|line, k| (tiles.buffer, tiles.place(stage, line, k)));
            }
        });
        b.joint(Joint::Commit);
    }

    /// Warps' tiles in matrices of 16x8: how many along rows and columns.
    fn matrices(&self) -> [usize; 2] {
        let tile = self.schedule.tile;
        [tile.size[0] / tile.warps[0] / 16, tile.size[1] / tile.warps[1] / 8]
    }

    /// A thread's tile where products are f32.
    fn thread_tile(&self) -> [usize; 2] {
        let tile = self.schedule.tile;
        [tile.size[0] * tile.size[1] / tile.threads() / THREAD_COLUMNS, THREAD_COLUMNS]
    }

    fn fragments(&self, b: &mut Builder) -> BufferId {
        let [rows, columns] = self.matrices();
        let sum = Memory::Fragment(Fragment::Sum);
        b.kernel.buffer("sum", DType::F32, &[rows, columns, 16, 8], sum)
    }

    fn registers(&self, b: &mut Builder) -> BufferId {
        b.kernel.buffer("sum", DType::F32, &self.thread_tile(), Memory::Register)
    }

    /// Every result, or every one that is inside of these sizes: its row and column, and the places of its sums: one, or
    /// those of a window. Rows are outside, so that what follows from a row (a pixel's place) is computed once.
    fn each_result(&self, b: &mut Builder, work: &Work, sizes: Option<&Sizes>, f: &mut EachResult<'_>) {
        let within = |b: &mut Builder, side: usize, i: &Index, body: &mut dyn FnMut(&mut Builder)| {
            let guards = sizes.map_or(vec![], |sizes| {
                inside(&result::digits(i, &sizes[side], b.extents()), &sizes[side], b)
            });
            b.when(guards, body);
        };
        let sums = if self.pool.is_some() { pooled::PIXELS } else { 1 };
        let numbers = |i: &Index| (0..sums).map(|s| i.clone() * sums as i64 + s).collect::<Vec<_>>();
        let (top, left) = (work.origin[0].div(sums, b.extents()), &work.origin[1]);
        match self.schedule.products.rounding() {
            Some(_) => b.warps(|b, warp| {
                let [y, x] = self.warp_origin(&warp, b);
                let ([rows, columns], [height, width]) = (self.matrices(), Fragment::Sum.shape());
                let top = top + y.div(sums, b.extents());
                b.unroll("i", rows / sums, |b, i| {
                    b.members(LoopKind::Rows(Fragment::Sum), "r", height, |b, row| {
                        let r = top.clone() + i.clone() * height as i64 + row.clone();
                        within(b, 0, &r, &mut |b| {
                            b.unroll("j", columns, |b, j| {
                                b.members(LoopKind::Columns(Fragment::Sum), "c", width, |b, column| {
                                    let c =
                                        left.clone() + x.clone() + j.clone() * width as i64 + column.clone();
                                    let at = |i| vec![i, j.clone(), row.clone(), column.clone()];
                                    let at = || numbers(&i).into_iter().map(at).collect();
                                    within(b, 1, &c, &mut |b| f(b, [&r, &c], at()));
                                });
                            });
                        });
                    });
                });
            }),
            None => b.threads(|b, thread| {
                let [rows, columns] = self.thread_tile();
                let across = self.schedule.tile.size[1] / columns;
                let (y, x) = (thread.div(across, b.extents()), thread.rem(across, b.extents()));
                let (top, left) = (top + y * (rows / sums) as i64, left.clone() + x);
                b.unroll("i", rows / sums, |b, i| {
                    let r = top.clone() + i.clone();
                    within(b, 0, &r, &mut |b| {
                        b.unroll("j", columns, |b, j| {
                            let c = left.clone() + j.clone() * across as i64;
                            let at = |i| vec![i, j.clone()];
                            let at = || numbers(&i).into_iter().map(at).collect();
                            within(b, 1, &c, &mut |b| f(b, [&r, &c], at()));
                        });
                    });
                });
            }),
        }
    }

    /// Where a warp's part of the tile begins.
    fn warp_origin(&self, warp: &Index, b: &Builder) -> [Index; 2] {
        let tile = self.schedule.tile;
        let (y, x) = (warp.div(tile.warps[1], b.extents()), warp.rem(tile.warps[1], b.extents()));
        [y * (tile.size[0] / tile.warps[0]) as i64, x * (tile.size[1] / tile.warps[1]) as i64]
    }

    /// Adds the products of the tiles of a stage.
    fn add_up(&self, b: &mut Builder, work: &Work, stage: &Index) {
        match self.schedule.products.rounding() {
            Some(rounding) => self.multiply(b, work, stage, rounding),
            None => self.multiply_add(b, work, stage),
        }
    }

    fn multiply(&self, b: &mut Builder, work: &Work, stage: &Index, rounding: Rounding) {
        let ([rows, columns], depth) = (self.matrices(), rounding.depth());
        let fragment =
            |b: &mut Builder, name: &str, shape: &[usize], f| b.buffer(name, shape, Memory::Fragment(f));
        let first = fragment(b, "first", &[rows, 16, depth], Fragment::First(rounding));
        let second = fragment(b, "second", &[columns, depth, 8], Fragment::Second(rounding));
        let rest = (self.schedule.products.for_one() > 1).then(|| {
            [
                fragment(b, "first_rest", &[rows, 16, depth], Fragment::First(rounding)),
                fragment(b, "second_rest", &[columns, depth, 8], Fragment::Second(rounding)),
            ]
        });
        let [x, y] = work.tiles;
        b.warps(|b, warp| {
            let [top, left] = self.warp_origin(&warp, b);
            b.unroll("k", DEPTH / depth, |b, k| {
                let k_origin = k * depth as i64;
                let (first_from, second_from) =
                    ([stage.clone(), top, k_origin.clone()], [stage.clone(), left, k_origin]);
                x.load(b, &first_from, (first, rows), &|x| x);
                y.load(b, &second_from, (second, columns), &|x| x);
                if let Some([first_rest, second_rest]) = rest {
                    x.load(b, &first_from, (first_rest, rows), &beyond_tf32);
                    y.load(b, &second_from, (second_rest, columns), &beyond_tf32);
                }
                b.unroll("i", rows, |b, i| {
                    b.unroll("j", columns, |b, j| {
                        let part = |buffer, index: &[&Index]| Part {
                            buffer,
                            index: index.iter().map(|&i| i.clone()).collect(),
                        };
                        // The small ones first.
                        let [small, large] = match rest {
                            Some([x, y]) => [vec![(x, second), (first, y)], vec![(first, second)]],
                            None => [vec![], vec![(first, second)]],
                        };
                        for (first, second) in small.into_iter().chain(large) {
                            b.joint(Joint::Multiply {
                                sum: part(work.sums, &[&i, &j]),
                                first: part(first, &[&i]),
                                second: part(second, &[&j]),
                            });
                        }
                    });
                });
            });
        });
    }

    fn multiply_add(&self, b: &mut Builder, work: &Work, stage: &Index) {
        let [rows, columns] = self.thread_tile();
        let first = b.buffer("first", &[rows], Memory::Register);
        let second = b.buffer("second", &[columns], Memory::Register);
        let across = self.schedule.tile.size[1] / columns;
        let [from_x, from_y] = work.tiles;
        b.threads(|b, thread| {
            let (y, x) = (thread.div(across, b.extents()), thread.rem(across, b.extents()));
            b.serial("k", DEPTH, |b, k| {
                b.unroll("i", rows, |b, i| {
                    let from = from_x.place(stage, y * rows as i64 + i.clone(), k.clone());
                    b.store(first, vec![i], Expr::Load(from_x.buffer, from));
                });
                b.unroll("j", columns, |b, j| {
                    let from = from_y.place(stage, x + j.clone() * across as i64, k);
                    b.store(second, vec![j], Expr::Load(from_y.buffer, from));
                });
                b.unroll("i", rows, |b, i| {
                    b.unroll("j", columns, |b, j| {
                        let (x, y) =
                            (Expr::Load(first, vec![i.clone()]), Expr::Load(second, vec![j.clone()]));
                        let at = vec![i, j];
                        b.store(work.sums, at.clone(), fma(x, y, Expr::Load(work.sums, at)));
                    });
                });
            });
        });
    }
}

/// What rounding to TF32 takes from a number.
fn beyond_tf32(x: Expr) -> Expr {
    sub(x.clone(), unary(UnOp::Tf32, x))
}

/// Guards that keep an index inside a shape.
pub(super) fn inside(index: &[Index], shape: &[usize], b: &Builder) -> Vec<Guard> {
    index.iter().zip(shape).flat_map(|(i, &n)| Guard::between(i, 0, n as i64, b.extents())).collect()
}

impl Builder<'_> {
    /// A phase of all threads.
    pub fn threads(&mut self, body: impl FnOnce(&mut Self, Index)) {
        let threads = self.kernel.threads.unwrap_or(1);
        self.members(LoopKind::Threads, "t", threads, body);
    }

    /// Work of every warp.
    pub fn warps(&mut self, body: impl FnOnce(&mut Self, Index)) {
        let warps = self.kernel.threads.unwrap_or(1) / crate::kernel::block::WARP;
        self.members(LoopKind::Warps, "w", warps, body);
    }

    /// The elements of a matrix of a warp.
    pub fn matrix(&mut self, fragment: Fragment, body: impl FnOnce(&mut Self, Index, Index)) {
        let [rows, columns] = fragment.shape();
        self.members(LoopKind::Rows(fragment), "r", rows, |b, row| {
            b.members(LoopKind::Columns(fragment), "c", columns, |b, column| body(b, row, column));
        });
    }
}
