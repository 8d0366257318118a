//! The inner loops of a convolution: a tile of pixels by vectors of output channels in registers
//! ([how many](super::conv_split)).

use std::ops::Range;

use nnc_runtime::DType;

use super::access::position;
use super::builder::Builder;
use super::conv::{Chunk, ConvGroup, Form, Outputs, Source, Task};
use super::conv_ahead::{Ahead, Part};
use super::conv_border::{Span, Tiles};
use super::elementwise::{f32, fma};
use crate::graph::{Layout, NodeId};
use crate::kernel::{BufferId, Expr, Guard, Index, LoopKind, Memory};

/// Steps of a plain input's row, and of a depthwise kernel, that are written out.
const UNROLLED_STEPS: usize = 16;

/// Multiply-adds that an innermost loop has at most, about: some kilobytes of code. A whole block of input
/// channels for the largest tiles: 3 % faster than half of it (Xeon with AVX-512).
const UNROLLED_SUMS: usize = 448;

/// The sums of one pixel, in registers or in memory.
pub(super) struct Sums {
    buffer: BufferId,
    /// What comes before `[vector, lane]` in its index.
    pixel: Vec<Index>,
}

impl Sums {
    /// Sums in a buffer `[.., vectors, lanes]`.
    pub fn new(buffer: BufferId, pixel: Vec<Index>) -> Sums {
        Sums { buffer, pixel }
    }

    fn at(&self, vector: Index, lane: Index) -> Vec<Index> {
        [self.pixel.as_slice(), &[vector, lane]].concat()
    }

    /// A lane of a vector.
    pub fn get(&self, vector: Index, lane: Index) -> Expr {
        Expr::Load(self.buffer, self.at(vector, lane))
    }

    /// Changes a lane of a vector.
    pub fn set(&self, b: &mut Builder, vector: Index, lane: Index, value: Expr) {
        b.store(self.buffer, self.at(vector, lane), value);
    }
}

/// What is done with a finished pixel: its sums, its row (counted from the tile's first) and its column.
pub(super) type Finish<'f> = dyn FnMut(&mut Builder, &Sums, [Index; 2]) + 'f;

/// A vector of output channels: its number in the group, its block there, and its place in the block.
pub(super) struct Vector {
    pub number: Index,
    pub block: Index,
    pub lane: Index,
    pub in_block: Index,
}

impl ConvGroup<'_> {
    /// Runs over the vectors of a group of output channels, in lane mode.
    pub fn each_vector(&self, b: &mut Builder, body: &mut dyn FnMut(&mut Builder, &Vector)) {
        let (lanes, vectors) = (self.lanes, self.vectors_of_block());
        b.unroll("ob", self.geometry.tile.blocks, |b, block| {
            b.unroll("v", vectors, |b, v| {
                b.with_lanes(lanes, |b, lane| {
                    let number = block.clone() * vectors as i64 + v.clone();
                    let in_block = v * lanes as i64 + lane.clone();
                    body(b, &Vector { number, block, lane, in_block });
                });
            });
        });
    }

    /// The output channel of a lane.
    pub fn channel(&self, group: &Index, vector: &Vector) -> Index {
        let block = group.clone() * self.geometry.tile.blocks as i64 + vector.block.clone();
        block * self.block as i64 + vector.in_block.clone()
    }

    /// Computes some rows of a group of output channels: `r` counts from the task's first one.
    pub fn tiles_of_rows(
        &self,
        b: &mut Builder,
        task: &Task,
        outputs: &Outputs,
        (r, rows): (&Index, usize),
        finish: &mut Finish,
    ) {
        if let Some(partial) = task.partial {
            b.serial("down", rows, |b, down| {
                b.serial("w", task.comb.columns.size, |b, w| {
                    let pixel = vec![outputs.in_task.clone(), r.clone() + down.clone(), w.clone()];
                    finish(b, &Sums::new(partial, pixel), [down, w]);
                });
            });
            return;
        }
        let chunk = self.all_channels();
        self.each_tile(b, task, (outputs, &chunk), (r, rows), &mut |b, tile| {
            tile.start(b);
            tile.steps(b);
            tile.each_pixel(b, &mut |b, sums, place| finish(b, sums, place));
        });
    }

    /// Lets the sums that wait in memory start from the bias.
    pub fn start_from_bias(&self, b: &mut Builder, task: &Task, outputs: &Outputs, partial: BufferId) {
        self.each_rows(b, task, &mut |b, r, rows| {
            b.serial("down", rows, |b, down| {
                b.serial("w", task.comb.columns.size, |b, w| {
                    let sums = Sums::new(partial, vec![outputs.in_task.clone(), r.clone() + down, w]);
                    self.each_vector(b, &mut |b, vector| {
                        let start = self.bias(b, &outputs.group, vector);
                        sums.set(b, vector.number.clone(), vector.lane.clone(), start);
                    });
                });
            });
        });
    }

    /// Adds a part of the input channels to the sums that wait in memory.
    pub fn add_tiles(
        &self,
        b: &mut Builder,
        task: &Task,
        outputs: &Outputs,
        chunk: &Chunk,
        (r, rows): (&Index, usize),
        partial: BufferId,
    ) {
        self.each_tile(b, task, (outputs, chunk), (r, rows), &mut |b, tile| {
            let waiting = |[down, column]: [Index; 2]| {
                Sums::new(partial, vec![outputs.in_task.clone(), r.clone() + down, column])
            };
            tile.each_pixel(b, &mut |b, sums, place| {
                let from = waiting(place);
                tile.each_lane(b, &mut |b, v, lane| sums.set(b, v.clone(), lane.clone(), from.get(v, lane)));
            });
            tile.steps(b);
            tile.each_pixel(b, &mut |b, sums, place| {
                let to = waiting(place);
                tile.each_lane(b, &mut |b, v, lane| to.set(b, v.clone(), lane.clone(), sums.get(v, lane)));
            });
        });
    }

    /// Runs over the tiles of some rows.
    fn each_tile(
        &self,
        b: &mut Builder,
        task: &Task,
        (outputs, chunk): (&Outputs, &Chunk),
        (row, rows): (&Index, usize),
        body: &mut dyn FnMut(&mut Builder, &Tile),
    ) {
        let g = &self.geometry;
        let width = task.comb.columns.size;
        let cut = g.row_of_tiles(&task.comb);
        let in_row: usize = cut.iter().map(|tiles| tiles.count).sum();
        let of = g.conv_rows.div_ceil(g.tile.rows) * in_row;
        let mut tile = |b: &mut Builder, number: Index, column: Index, pixels: usize| {
            let registers = self.registers(b, pixels);
            let number = row.div(g.tile.rows, b.extents()) * in_row as i64 + number;
            let ahead = self.ahead(b, task, (outputs, chunk), &Part { number, of });
            body(b, &Tile { group: self, task, outputs, chunk, row, rows, column, pixels, registers, ahead });
        };
        if rows > 1 {
            return tile(b, Index::default(), Index::default(), width * rows);
        }
        for Tiles { column, number, count, pixels } in cut {
            b.serial("t", count, |b, t| tile(b, t.clone() + number, t * pixels as i64 + column, pixels));
        }
    }

    fn registers(&self, b: &mut Builder, pixels: usize) -> Registers {
        let (lanes, vectors) = (self.lanes, self.geometry.tile.vectors);
        let mut buffer =
            |name: &str, shape: &[usize]| b.kernel.buffer(name, DType::F32, shape, Memory::Register);
        Registers {
            sums: buffer("sum", &[pixels, vectors, lanes]),
            weights: buffer("w", &[vectors, lanes]),
            x: (vectors > 1).then(|| buffer("xs", &[lanes])),
        }
    }

    /// What a sum starts from.
    pub fn bias(&self, b: &mut Builder, group: &Index, vector: &Vector) -> Expr {
        let channel = self.channel(group, vector);
        match b.scope.graph.operands(self.anchor).get(2) {
            Some(&bias) => {
                let value = b.value(bias, &[channel]);
                b.shared(DType::F32, value)
            }
            None => f32(0.0),
        }
    }

    /// The elementwise work on a pixel, from the value of `from` to the result.
    pub fn finish_pixel(
        &self,
        b: &mut Builder,
        out: BufferId,
        from: NodeId,
        sums: &Sums,
        [n, group, row, column]: [&Index; 4],
    ) {
        let channels = self.geometry.tile.blocks * self.block;
        // A plain result takes the lanes one by one.
        let spread = match self.out.layout {
            Layout::Blocked(_) => None,
            Layout::Plain | Layout::ChannelsLast => Some(b.scratch("pixel", &[channels])),
        };
        self.each_value(b, from, sums, [n, group, row, column], &mut |b, vector, value| match spread {
            Some(pixel) => {
                let at = vector.block.clone() * self.block as i64 + vector.in_block.clone();
                b.store(pixel, vec![at], value);
            }
            None => {
                let index = [n.clone(), self.channel(group, vector), row.clone(), column.clone()];
                let at = position(&index, self.out.layout, b.extents());
                b.store(out, at, value);
            }
        });
        if let Some(pixel) = spread {
            b.serial("l", channels, |b, l| {
                let channel = group.clone() * channels as i64 + l.clone();
                let inside = Guard::between(&channel, 0, self.out.shape[1] as i64, b.extents());
                let value = Expr::Load(pixel, vec![l]);
                b.when(inside, |b| {
                    b.store(out, vec![n.clone(), channel, row.clone(), column.clone()], value);
                });
            });
        }
    }

    /// Runs over the vectors of a pixel, with the values of the result.
    pub fn each_value(
        &self,
        b: &mut Builder,
        from: NodeId,
        sums: &Sums,
        [n, group, row, column]: [&Index; 4],
        body: &mut dyn FnMut(&mut Builder, &Vector, Expr),
    ) {
        self.each_vector(b, &mut |b, vector| {
            let index = [n.clone(), self.channel(group, vector), row.clone(), column.clone()];
            let value = sums.get(vector.number.clone(), vector.lane.clone());
            b.memo.push((from, index.to_vec(), value));
            let value = b.value(self.result, &index);
            body(b, vector, value);
        });
    }
}

/// Registers of a tile.
#[derive(Clone, Copy)]
struct Registers {
    sums: BufferId,
    weights: BufferId,
    /// An input in all lanes; with a single vector it is spread where it is used.
    x: Option<BufferId>,
}

/// A tile of pixels of one row, or of some whole rows.
struct Tile<'t> {
    group: &'t ConvGroup<'t>,
    task: &'t Task,
    outputs: &'t Outputs,
    chunk: &'t Chunk,
    /// Its first row, counted from the task's first.
    row: &'t Index,
    rows: usize,
    column: Index,
    pixels: usize,
    registers: Registers,
    ahead: Option<Ahead>,
}

impl Tile<'_> {
    /// Row in the tile and column of pixel `p`.
    fn place(&self, b: &Builder, p: &Index) -> [Index; 2] {
        match self.rows {
            1 => [Index::default(), self.column.clone() + p.clone()],
            _ => {
                let width = self.task.comb.columns.size;
                [p.div(width, b.extents()), p.rem(width, b.extents())]
            }
        }
    }

    fn each_pixel(&self, b: &mut Builder, body: &mut dyn FnMut(&mut Builder, &Sums, [Index; 2])) {
        b.unroll("p", self.pixels, |b, p| {
            let place = self.place(b, &p);
            body(b, &Sums::new(self.registers.sums, vec![p]), place);
        });
    }

    fn each_lane(&self, b: &mut Builder, body: &mut dyn FnMut(&mut Builder, Index, Index)) {
        b.unroll("v", self.group.geometry.tile.vectors, |b, v| {
            b.vector(self.group.lanes, |b, lane| body(b, v, lane));
        });
    }

    /// Sums start from the bias.
    fn start(&self, b: &mut Builder) {
        self.group.each_vector(b, &mut |b, vector| {
            let start = self.group.bias(b, &self.outputs.group, vector);
            for p in 0..self.pixels {
                let sums = Sums::new(self.registers.sums, vec![Index::from(p)]);
                sums.set(b, vector.number.clone(), vector.lane.clone(), start.clone());
            }
        });
    }

    /// All multiply-adds.
    fn steps(&self, b: &mut Builder) {
        if self.group.form == Form::Depthwise {
            return self.depthwise_steps(b);
        }
        b.serial("ic", self.chunk.blocks, |b, ic| self.dense_steps(b, &ic, self.group.geometry.in_block));
        if self.chunk.rest > 0 {
            self.dense_steps(b, &Index::from(self.chunk.blocks), self.chunk.rest);
        }
    }

    /// The multiply-adds of a depthwise convolution: the input comes in vectors, too.
    fn depthwise_steps(&self, b: &mut Builder) {
        let lanes = self.group.lanes;
        let [kernel_h, kernel_w] = [self.task.comb.rows.taps, self.task.comb.columns.taps];
        let small = kernel_h * kernel_w <= UNROLLED_STEPS;
        let how = if small { LoopKind::Unroll } else { LoopKind::Serial };
        let zero = Index::default();
        let channel = match self.task.source {
            Source::Staged(_) => &zero,
            Source::Direct(_) => &self.outputs.group,
        };
        b.repeat(how, "kh", kernel_h, |b, kh| {
            b.repeat(how, "kw", kernel_w, |b, kw| {
                self.load_weights(b, [&zero, &kh, &kw, &zero]);
                b.unroll("p", self.pixels, |b, p| {
                    self.each_lane(b, &mut |b, v, lane| {
                        let in_block = v.clone() * lanes as i64 + lane.clone();
                        let x = self.input(b, &p, [channel, &kh, &kw, &in_block]);
                        self.multiply(b, &p, x, v, lane);
                    });
                });
            });
        });
    }

    /// All multiply-adds of one block of input channels.
    fn dense_steps(&self, b: &mut Builder, ic: &Index, channels: usize) {
        let g = &self.group.geometry;
        let [kernel_h, kernel_w] = [self.task.comb.rows.taps, self.task.comb.columns.taps];
        let plain = g.in_block == 1 && kernel_w <= UNROLLED_STEPS;
        let columns = if plain { LoopKind::Unroll } else { LoopKind::Serial };
        let most = (UNROLLED_SUMS / (self.pixels * g.tile.vectors)).max(1);
        let unrolled = (1..=channels).rev().find(|d| channels.is_multiple_of(*d) && *d <= most).unwrap_or(1);
        // What is fetched ahead lies among the steps: many lines at a time would wait for each other.
        let parts = channels / unrolled;
        let ahead = self.ahead.as_ref().filter(|a| channels == g.in_block && a.lines.is_multiple_of(parts));
        let lines = ahead.map_or(0, |a| a.lines / parts);
        let pieces = lines.clamp(1, unrolled);
        let steps = unrolled / pieces;
        let spans = self.group.spans(b, &self.task.comb, &self.column, self.pixels);
        b.serial("kh", kernel_h, |b, kh| {
            let inside = self.group.rows_inside(b, &self.input_row(&Index::default(), &kh));
            b.when(inside, |b| {
                for Span { taps, pixels: reached } in &spans {
                    b.repeat(columns, "kw", taps.len(), |b, kw| {
                        let kw = kw + taps.start;
                        b.serial("ib", parts, |b, part| {
                            b.unroll("f", pieces, |b, piece| {
                                let piece = part * pieces as i64 + piece;
                                if let Some(ahead) = ahead {
                                    let some = (piece.clone() * (lines / pieces) as i64, lines / pieces);
                                    self.group.fetch(b, ahead, [ic, &kh, &kw], some);
                                }
                                b.unroll("i", steps, |b, i| {
                                    let i = piece * steps as i64 + i;
                                    self.step(b, reached, [ic, &kh, &kw, &i]);
                                });
                            });
                        });
                    });
                }
            });
        });
    }

    /// The weights of the output channels for one input channel at one place of the kernel.
    fn load_weights(&self, b: &mut Builder, [ic, kh, kw, i]: [&Index; 4]) {
        let ic = self.chunk.first.clone() + ic.clone();
        self.each_lane(b, &mut |b, v, lane| {
            let channel = v.clone() * self.group.lanes as i64 + lane.clone();
            let [kh, kw] = [self.task.comb.rows.tap(kh), self.task.comb.columns.tap(kw)];
            let at = vec![self.outputs.group.clone(), ic.clone(), kh, kw, i.clone(), channel];
            b.store(self.registers.weights, vec![v, lane], Expr::Load(self.task.weights, at));
        });
    }

    /// The multiply-adds of one input channel at one place of the kernel.
    fn step(&self, b: &mut Builder, pixels: &Range<usize>, [ic, kh, kw, i]: [&Index; 4]) {
        self.load_weights(b, [ic, kh, kw, i]);
        let channel = match self.task.source {
            Source::Staged(_) => ic.clone(),
            Source::Direct(_) => self.task.first_in.clone() + self.chunk.first.clone() + ic.clone(),
        };
        b.unroll("p", pixels.len(), |b, p| {
            let p = p + pixels.start;
            let x = self.input(b, &p, [&channel, kh, kw, i]);
            if let Some(xs) = self.registers.x {
                b.vector(self.group.lanes, |b, lane| b.store(xs, vec![lane], x.clone()));
            }
            self.each_lane(b, &mut |b, v, lane| {
                let x = match self.registers.x {
                    Some(xs) => Expr::Load(xs, vec![lane.clone()]),
                    None => x.clone(),
                };
                self.multiply(b, &p, x, v, lane);
            });
        });
    }

    fn multiply(&self, b: &mut Builder, p: &Index, x: Expr, v: Index, lane: Index) {
        let w = Expr::Load(self.registers.weights, vec![v.clone(), lane.clone()]);
        let sums = Sums::new(self.registers.sums, vec![p.clone()]);
        let sum = sums.get(v.clone(), lane.clone());
        sums.set(b, v, lane, fma(x, w, sum));
    }

    /// The row of the input for a row of the tile, counted from the first one that is staged, or in the image.
    fn input_row(&self, row_in_tile: &Index, kh: &Index) -> Index {
        let rows = self.task.comb.rows;
        let row = self.row.clone() + row_in_tile.clone();
        match self.task.source {
            Source::Staged(_) => rows.input(row, kh),
            Source::Direct(_) => {
                let row = self.task.first_conv_row.clone() + row;
                rows.input(row, kh) - self.group.geometry.taps.before[0]
            }
        }
    }

    /// The input of pixel `p` of the tile.
    fn input(&self, b: &Builder, p: &Index, [ic, kh, kw, i]: [&Index; 4]) -> Expr {
        let [row_in_tile, column] = self.place(b, p);
        let column = self.task.comb.columns.input(column, kw);
        let row = self.input_row(&row_in_tile, kh);
        match self.task.source {
            Source::Staged(x) => Expr::Load(x, vec![ic.clone(), row, column, i.clone()]),
            Source::Direct(x) => {
                let column = column - self.group.geometry.taps.before[1];
                let mut at = vec![self.task.n.clone(), ic.clone(), row, column];
                if matches!(self.group.x.layout, Layout::Blocked(_)) {
                    at.push(i.clone());
                }
                Expr::Load(x, at)
            }
        }
    }
}
