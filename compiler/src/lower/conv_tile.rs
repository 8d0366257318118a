//! The inner loops of a convolution: a tile of pixels by eight channels in registers.
//!
//! With 16 vector registers of 4 lanes: 5 pixels × 2 vectors of sums, the 2 vectors of weights and
//! one broadcast input. 10 independent chains keep two multiply-add units of latency 4 busy, and a
//! step loads 7 vectors for its 10 multiply-adds. Cranelift's x86-64 multiply-add overwrites a
//! factor, so each input is copied once more: with 6 pixels that copy spills (measured: 58 % of the
//! peak; 5 pixels 97 %).

use nnc_runtime::DType;

use super::access::position;
use super::builder::Builder;
use super::conv::{BLOCK, ConvGroup, Form, Geometry, Source, Task};
use super::elementwise::{f32, fma};
use crate::graph::{Layout, NodeId};
use crate::kernel::{BufferId, Expr, Guard, Index, LoopKind, Memory};

/// Steps of a plain input's row that are written out.
const UNROLLED_STEPS: usize = 16;

/// Registers for an input and the two copies that its multiply-adds overwrite.
const INPUT_REGISTERS: usize = 3;

/// The sums of one pixel.
pub(super) struct Sums {
    buffer: BufferId,
    /// Which pixel of the tile.
    pixel: [Index; 1],
}

/// Cuts a row into tiles of at most `most` pixels of nearly equal size: `(tiles, pixels)`, the
/// larger ones first.
pub(super) fn tiles(width: usize, most: usize) -> Vec<(usize, usize)> {
    let count = width.div_ceil(most);
    let large = width.div_ceil(count.max(1));
    let small = count * large - width;
    let mut out = vec![(count - small, large), (small, large - 1)];
    out.retain(|&(n, p)| n > 0 && p > 0);
    out
}

/// What is done with a finished pixel: its sums, its row in the tile and its column.
pub(super) type Finish<'f> = dyn FnMut(&mut Builder, &Sums, [Index; 2]) + 'f;

impl ConvGroup<'_> {
    /// Computes a row of one block of channels; `row` counts from the task's first one.
    pub fn row_of_tiles(
        &self,
        b: &mut Builder,
        geometry: &Geometry,
        task: &Task,
        block: &Index,
        row: &Index,
        finish: &mut Finish,
    ) {
        let width = geometry.conv[1];
        if geometry.tile_rows > 1 {
            let pixels = width * geometry.tile_rows;
            let column = Index::default();
            return Tile { group: self, geometry, task, block, row, column, pixels }.compute(b, finish);
        }
        let mut first = 0;
        for (count, pixels) in tiles(width, self.most_pixels()) {
            b.serial("t", count, |b, t| {
                let column = t * pixels as i64 + first;
                let tile = Tile { group: self, geometry, task, block, row, column, pixels };
                tile.compute(b, finish);
            });
            first += count * pixels;
        }
    }

    /// Pixels of a tile: as many as leave registers for the weights, one input and its copies.
    pub fn most_pixels(&self) -> usize {
        let vectors = BLOCK / self.lanes;
        (self.registers.saturating_sub(vectors + INPUT_REGISTERS) / vectors).max(1)
    }

    /// The elementwise work on a pixel, from the value of `from` (in registers) to the result.
    pub fn finish_pixel(
        &self,
        b: &mut Builder,
        out: BufferId,
        from: NodeId,
        sums: &Sums,
        [n, block, row, column]: [&Index; 4],
    ) {
        let lanes = self.lanes as i64;
        // A plain result takes the lanes one by one.
        let spread = match self.out.layout {
            Layout::Plain => Some(b.scratch("pixel", &[BLOCK])),
            Layout::Blocked(_) => None,
        };
        b.unroll("v", BLOCK / self.lanes, |b, v| {
            b.with_lanes(self.lanes, |b, lane| {
                let in_block = v.clone() * lanes + lane.clone();
                let channel = block.clone() * BLOCK as i64 + in_block.clone();
                let index = [n.clone(), channel, row.clone(), column.clone()];
                let value = sums.get(v, lane);
                b.memo.push((from, index.to_vec(), value));
                let value = b.value(self.result, &index);
                match spread {
                    Some(pixel) => b.store(pixel, vec![in_block], value),
                    None => {
                        let at = position(&index, self.out.layout, b.extents());
                        b.store(out, at, value);
                    }
                }
            });
        });
        if let Some(pixel) = spread {
            b.serial("l", BLOCK, |b, l| {
                let channel = block.clone() * BLOCK as i64 + l.clone();
                let inside = Guard::between(&channel, 0, self.out.shape[1] as i64, b.extents());
                let value = Expr::Load(pixel, vec![l]);
                b.when(inside, |b| {
                    b.store(out, vec![n.clone(), channel, row.clone(), column.clone()], value);
                });
            });
        }
    }
}

impl Sums {
    /// Sums in a register buffer `[pixels, vectors, lanes]`.
    pub fn new(buffer: BufferId, pixel: Index) -> Sums {
        Sums { buffer, pixel: [pixel] }
    }

    /// A lane of a vector.
    pub fn get(&self, vector: Index, lane: Index) -> Expr {
        let [pixel] = self.pixel.clone();
        Expr::Load(self.buffer, vec![pixel, vector, lane])
    }
}

struct Tile<'t> {
    group: &'t ConvGroup<'t>,
    geometry: &'t Geometry,
    task: &'t Task,
    block: &'t Index,
    row: &'t Index,
    column: Index,
    pixels: usize,
}

/// Registers of a tile.
struct Registers {
    sums: BufferId,
    weights: BufferId,
    x: BufferId,
}

impl Tile<'_> {
    fn compute(&self, b: &mut Builder, finish: &mut Finish) {
        let (lanes, vectors) = (self.group.lanes, BLOCK / self.group.lanes);
        let registers = Registers {
            sums: b.kernel.buffer("sum", DType::F32, &[self.pixels, vectors, lanes], Memory::Register),
            weights: b.kernel.buffer("w", DType::F32, &[vectors, lanes], Memory::Register),
            x: b.kernel.buffer("xs", DType::F32, &[lanes], Memory::Register),
        };
        self.start(b, &registers);
        if self.group.form == Form::Depthwise {
            self.depthwise_steps(b, &registers);
        } else {
            self.dense_steps(b, &registers);
        }
        b.unroll("p", self.pixels, |b, p| {
            let place = self.place(b, &p);
            finish(b, &Sums::new(registers.sums, p), place);
        });
    }

    /// Row in the tile and column of pixel `p`.
    fn place(&self, b: &Builder, p: &Index) -> [Index; 2] {
        match self.geometry.tile_rows {
            1 => [Index::default(), self.column.clone() + p.clone()],
            _ => {
                let width = self.geometry.conv[1];
                [p.div(width, b.extents()), p.rem(width, b.extents())]
            }
        }
    }

    /// The multiply-adds of a dense convolution.
    fn dense_steps(&self, b: &mut Builder, registers: &Registers) {
        let (full, rest) = {
            let (channels, block) = (self.geometry.input[0], self.geometry.in_block);
            (channels / block, channels % block)
        };
        b.serial("ic", full, |b, ic| self.steps(b, registers, ic, self.geometry.in_block));
        if rest > 0 {
            self.steps(b, registers, Index::from(full), rest);
        }
    }

    /// The multiply-adds of a depthwise convolution: the input comes in vectors, too.
    fn depthwise_steps(&self, b: &mut Builder, registers: &Registers) {
        let lanes = self.group.lanes;
        let [kernel_h, kernel_w] = self.geometry.kernel;
        let small = kernel_h * kernel_w <= UNROLLED_STEPS;
        let how = if small { LoopKind::Unroll } else { LoopKind::Serial };
        let zero = Index::default();
        let channel = match self.task.source {
            Source::Staged(_) => &zero,
            Source::Direct(_) => self.block,
        };
        b.repeat(how, "kh", kernel_h, |b, kh| {
            b.repeat(how, "kw", kernel_w, |b, kw| {
                self.load_weights(b, registers, [&zero, &kh, &kw, &zero]);
                b.unroll("p", self.pixels, |b, p| {
                    b.unroll("v", BLOCK / lanes, |b, v| {
                        b.vector(lanes, |b, lane| {
                            let in_block = v.clone() * lanes as i64 + lane.clone();
                            let x = self.input(b, &p, [channel, &kh, &kw, &in_block]);
                            let sum = vec![p, v.clone(), lane.clone()];
                            let w = Expr::Load(registers.weights, vec![v, lane]);
                            b.store(registers.sums, sum.clone(), fma(x, w, Expr::Load(registers.sums, sum)));
                        });
                    });
                });
            });
        });
    }

    /// Sums start from the bias.
    fn start(&self, b: &mut Builder, registers: &Registers) {
        let graph = b.scope.graph;
        let bias = graph.operands(self.group.anchor).get(2).copied();
        let lanes = self.group.lanes as i64;
        b.unroll("v", BLOCK / self.group.lanes, |b, v| {
            b.with_lanes(self.group.lanes, |b, lane| {
                let channel = self.block.clone() * BLOCK as i64 + v.clone() * lanes + lane.clone();
                let start = match bias {
                    Some(bias) => {
                        let value = b.value(bias, &[channel]);
                        b.shared(DType::F32, value)
                    }
                    None => f32(0.0),
                };
                for p in 0..self.pixels {
                    let at = vec![Index::from(p), v.clone(), lane.clone()];
                    b.store(registers.sums, at, start.clone());
                }
            });
        });
    }

    /// All multiply-adds of one block of input channels.
    fn steps(&self, b: &mut Builder, registers: &Registers, ic: Index, channels: usize) {
        let [kernel_h, kernel_w] = self.geometry.kernel;
        let plain = self.geometry.in_block == 1 && kernel_w <= UNROLLED_STEPS;
        let columns = if plain { LoopKind::Unroll } else { LoopKind::Serial };
        b.serial("kh", kernel_h, |b, kh| {
            b.repeat(columns, "kw", kernel_w, |b, kw| {
                b.unroll("i", channels, |b, i| self.step(b, registers, [&ic, &kh, &kw, &i]));
            });
        });
    }

    /// The weights of eight output channels for one input channel at one place of the kernel.
    fn load_weights(&self, b: &mut Builder, registers: &Registers, [ic, kh, kw, i]: [&Index; 4]) {
        let lanes = self.group.lanes;
        b.unroll("v", BLOCK / lanes, |b, v| {
            b.vector(lanes, |b, lane| {
                let oc = v.clone() * lanes as i64 + lane.clone();
                let at = [self.block, ic, kh, kw, i].map(Index::clone);
                let w = Expr::Load(self.task.weights, [at.as_slice(), &[oc]].concat());
                b.store(registers.weights, vec![v, lane], w);
            });
        });
    }

    /// The multiply-adds of one input channel at one place of the kernel.
    fn step(&self, b: &mut Builder, registers: &Registers, [ic, kh, kw, i]: [&Index; 4]) {
        let (lanes, vectors) = (self.group.lanes, BLOCK / self.group.lanes);
        self.load_weights(b, registers, [ic, kh, kw, i]);
        b.unroll("p", self.pixels, |b, p| {
            let x = self.input(b, &p, [ic, kh, kw, i]);
            b.vector(lanes, |b, lane| b.store(registers.x, vec![lane], x));
            b.unroll("v", vectors, |b, v| {
                b.vector(lanes, |b, lane| {
                    let sum = vec![p, v.clone(), lane.clone()];
                    let x = Expr::Load(registers.x, vec![lane.clone()]);
                    let w = Expr::Load(registers.weights, vec![v, lane]);
                    b.store(registers.sums, sum.clone(), fma(x, w, Expr::Load(registers.sums, sum)));
                });
            });
        });
    }

    /// The input of pixel `p` of the tile.
    fn input(&self, b: &Builder, p: &Index, [ic, kh, kw, i]: [&Index; 4]) -> Expr {
        let conv = self.group.conv;
        let along = |at: Index, k: &Index, axis: usize| {
            at * conv.stride[axis] as i64 + k.clone() * conv.dilation[axis] as i64
        };
        let [row_in_tile, column] = self.place(b, p);
        let column = along(column, kw, 1);
        let row = self.row.clone() + row_in_tile;
        match self.task.source {
            Source::Staged(x) => {
                let row = along(row, kh, 0);
                Expr::Load(x, vec![ic.clone(), row, column, i.clone()])
            }
            Source::Direct(x) => {
                let row = along(self.task.first_conv_row.clone() + row, kh, 0);
                let mut at = vec![self.task.n.clone(), ic.clone(), row, column];
                if matches!(self.group.x.layout, Layout::Blocked(_)) {
                    at.push(i.clone());
                }
                Expr::Load(x, at)
            }
        }
    }
}
