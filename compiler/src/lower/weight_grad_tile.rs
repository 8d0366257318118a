//! The loops of a weight gradient's task: chunks of pixels, and tiles of sums in registers.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::builder::Builder;
use super::conv_split::tiles;
use super::elementwise::{f32, fma};
use super::weight_grad::{Form, Pieces, WeightGrad};
use crate::kernel::{BufferId, Expr, Guard, Index, LoopKind, Memory};

/// Rows of so many pixels are written out.
const UNROLLED_COLUMNS: usize = 4;

/// The task that is being computed.
pub(super) struct Task {
    /// Which part of the images.
    pub part: Index,
    /// First block of output channels, of input channels.
    pub first_blocks: [Index; 2],
}

/// A chunk of its pixels.
struct Chunk<'c> {
    pieces: &'c Pieces,
    task: &'c Task,
    first_image: Index,
    first_row: Index,
    x: BufferId,
    dy: BufferId,
    /// `[out block, in block, position, input, channel]`
    sums: BufferId,
}

/// Sums in registers: some inputs by some blocks of output channels.
struct Tile {
    inputs: usize,
    blocks: usize,
    /// `[input, block, vector, lane]`
    sums: BufferId,
    /// `[block, vector, lane]`
    dy: BufferId,
    /// `[lane]`
    x: BufferId,
}

/// Where the sum of a block, an input and a channel in the block is in scratch.
type Cell<'c> = dyn Fn(Index, Index, Index) -> Vec<Index> + 'c;

/// The input for a tap at a pixel.
type Input<'f> = dyn Fn(&Builder, &Index, [&Index; 2], Index) -> Expr + 'f;

impl WeightGrad<'_> {
    /// The whole body of the kernel; `store` takes the finished sums.
    pub fn task(&self, b: &mut Builder, p: &Pieces, store: &mut dyn FnMut(&mut Builder, &Task, BufferId)) {
        let part = b.task("part", p.parts);
        let groups = [0, 1].map(|i| p.blocks[i] / p.task_blocks[i]);
        let (out_group, in_group) = (b.task("og", groups[0]), b.task("ig", groups[1]));
        let first_blocks = [out_group * p.task_blocks[0] as i64, in_group * p.task_blocks[1] as i64];
        let task = Task { part, first_blocks };
        let x = b.bind(&self.x, Access::Read, "x");
        let dy = b.bind(&self.dy, Access::Read, "dy");
        let shape = [p.task_blocks.as_slice(), p.sums.as_slice(), &[self.block]].concat();
        let sums = b.kernel.buffer("sums", DType::F32, &shape, Memory::Scratch);
        self.every_sum(b, p, &mut |b, at| b.store(sums, at, f32(0.0)));
        b.serial("nc", p.part_images.div_ceil(p.chunk_images), |b, nc| {
            let first_image = task.part.clone() * p.part_images as i64 + nc * p.chunk_images as i64;
            b.serial("rc", self.dy.shape[2].div_ceil(p.chunk_rows), |b, rc| {
                let first_row = rc * p.chunk_rows as i64;
                let chunk = Chunk { pieces: p, task: &task, first_image, first_row, x, dy, sums };
                match self.form {
                    Form::Blocks => self.chunk_of_blocks(b, &chunk),
                    Form::Taps => self.chunk_of_taps(b, &chunk),
                    Form::Depthwise => self.depthwise_chunk(b, &chunk),
                }
            });
        });
        store(b, &task, sums);
    }

    /// Calls the function for every vector of sums of a task.
    pub fn every_sum(&self, b: &mut Builder, p: &Pieces, body: &mut dyn FnMut(&mut Builder, Vec<Index>)) {
        let lanes = self.lanes;
        b.serial("ot", p.task_blocks[0], |b, ot| {
            b.serial("it", p.task_blocks[1], |b, it| {
                b.serial("k", p.sums[0], |b, k| {
                    b.serial("i", p.sums[1], |b, i| {
                        b.unroll("v", self.vectors(), |b, v| {
                            b.vector(lanes, |b, lane| body(b, vec![ot, it, k, i, v * lanes as i64 + lane]));
                        });
                    });
                });
            });
        });
    }

    /// Calls the function for every tile of the task's output channels, with its first block and its blocks.
    fn output_tiles(&self, b: &mut Builder, p: &Pieces, body: &mut dyn FnMut(&mut Builder, Index, usize)) {
        let mut first = 0;
        for (count, blocks) in tiles(p.task_blocks[0], self.tile_blocks()) {
            b.serial("ot", count, |b, ot| body(b, ot * blocks as i64 + first, blocks));
            first += count * blocks;
        }
    }

    fn chunk_of_blocks(&self, b: &mut Builder, chunk: &Chunk) {
        b.serial("it", chunk.pieces.task_blocks[1], |b, it| {
            self.output_tiles(b, chunk.pieces, &mut |b, ot, blocks| {
                for kh in 0..self.kernel[0] {
                    for kw in 0..self.kernel[1] {
                        self.position(b, chunk, [&ot, &it], blocks, [kh, kw]);
                    }
                }
            });
        });
    }

    /// All pixels of the chunk at one position of the kernel, for some output blocks and an input block.
    fn position(
        &self,
        b: &mut Builder,
        chunk: &Chunk,
        [ot, it]: [&Index; 2],
        blocks: usize,
        [kh, kw]: [usize; 2],
    ) {
        let ((_, rows), (first_column, columns)) = (self.met(0, kh), self.met(1, kw));
        if rows == 0 || columns == 0 {
            return;
        }
        let position = Index::from(kh * self.kernel[1] + kw);
        let [out_block, in_block] = [0, 1].map(|i| chunk.task.first_blocks[i].clone() + [ot, it][i].clone());
        let mut first = 0;
        for (count, inputs) in tiles(chunk.pieces.sums[1], self.tile_inputs(blocks)) {
            b.serial("ic", count, |b, ic| {
                let input = ic * inputs as i64 + first;
                let tile = Tile::new(b, self, inputs, blocks);
                let cell = |t: Index, i: Index, c: Index| {
                    vec![ot.clone() + t, it.clone(), position.clone(), input.clone() + i, c]
                };
                tile.add_to(b, self, (chunk.sums, &cell), &mut |b| {
                    self.images(b, chunk, &mut |b, n| {
                        self.rows(b, chunk, kh, &mut |b, row| {
                            let x_row = self.partner(0, row.clone(), kh);
                            self.columns(b, columns, &mut |b, column| {
                                let column = column + first_column;
                                let dy = |t: Index, c: Index| {
                                    let at = vec![
                                        n.clone(),
                                        out_block.clone() + t,
                                        row.clone(),
                                        column.clone(),
                                        c,
                                    ];
                                    Expr::Load(chunk.dy, at)
                                };
                                let x = |_: &Builder, i: Index, _: Index| {
                                    let x_column = self.partner(1, column.clone(), kw);
                                    let at = [&n, &in_block, &x_row, &x_column, &(input.clone() + i)];
                                    Expr::Load(chunk.x, at.map(Index::clone).to_vec())
                                };
                                tile.multiply(b, self, &dy, &x);
                            });
                        });
                    });
                });
            });
            first += count * inputs;
        }
    }

    /// The row (column) of `x` that a row (column) of `dy` meets at a position of the kernel.
    fn partner(&self, axis: usize, at: Index, k: usize) -> Index {
        at * self.conv.stride[axis] as i64 + k * self.conv.dilation[axis] - self.conv.padding[2 * axis]
    }

    /// The rows (columns) of `dy` whose partner is not padding: the first and how many.
    fn met(&self, axis: usize, k: usize) -> (usize, usize) {
        let stride = self.conv.stride[axis];
        let (k, before) = (k * self.conv.dilation[axis], self.conv.padding[2 * axis]);
        let first = before.saturating_sub(k).div_ceil(stride);
        let end = (self.x.shape[2 + axis] + before).saturating_sub(k).div_ceil(stride);
        (first, end.min(self.dy.shape[2 + axis]).saturating_sub(first))
    }

    fn images(&self, b: &mut Builder, chunk: &Chunk, body: &mut dyn FnMut(&mut Builder, Index)) {
        b.serial("n", chunk.pieces.chunk_images, |b, n| {
            let n = chunk.first_image.clone() + n;
            let inside = Guard::between(&n, 0, self.dy.shape[0] as i64, b.extents());
            b.when(inside, |b| body(b, n));
        });
    }

    /// The chunk's rows of `dy` that have a partner at a position of the kernel.
    fn rows(&self, b: &mut Builder, chunk: &Chunk, kh: usize, body: &mut dyn FnMut(&mut Builder, Index)) {
        let rows = self.dy.shape[2];
        if chunk.pieces.chunk_rows == rows {
            let (first, count) = self.met(0, kh);
            return b.serial("r", count, |b, r| body(b, r + first));
        }
        b.serial("r", chunk.pieces.chunk_rows, |b, r| {
            let row = chunk.first_row.clone() + r;
            let mut inside = Guard::between(&row, 0, rows as i64, b.extents());
            let partner = self.partner(0, row.clone(), kh);
            inside.extend(Guard::between(&partner, 0, self.x.shape[2] as i64, b.extents()));
            b.when(inside, |b| body(b, row));
        });
    }

    fn columns(&self, b: &mut Builder, count: usize, body: &mut dyn FnMut(&mut Builder, Index)) {
        let how = if count <= UNROLLED_COLUMNS { LoopKind::Unroll } else { LoopKind::Serial };
        b.repeat(how, "c", count, |b, c| body(b, c));
    }

    fn chunk_of_taps(&self, b: &mut Builder, chunk: &Chunk) {
        let p = chunk.pieces;
        let [rows, columns] = self.staged(p);
        let channels = self.x.shape[1];
        self.images(b, chunk, &mut |b, n| {
            let staged = b.scratch("rows", &[channels, rows, columns]);
            b.serial("ic", channels, |b, ic| {
                let to = |row: Index, column: Index, _: Index| vec![ic.clone(), row, column];
                self.stage(b, (chunk.x, [&n, &ic], &chunk.first_row), [rows, columns], (staged, &to));
            });
            self.output_tiles(b, p, &mut |b, ot, blocks| {
                let taps = [Index::default(), ot];
                self.taps(b, chunk, &n, taps, blocks, &|b, tap, [row, column], _| {
                    let [kh, kw] = self.kernel;
                    let [channel, rest] = split(b, tap, kh * kw);
                    let [k, l] = split(b, &rest, kw);
                    Expr::Load(staged, vec![channel, self.in_stage(0, row, k), self.in_stage(1, column, l)])
                });
            });
        });
    }

    fn depthwise_chunk(&self, b: &mut Builder, chunk: &Chunk) {
        let p = chunk.pieces;
        let [rows, columns] = self.staged(p);
        self.images(b, chunk, &mut |b, n| {
            let staged = b.scratch("rows", &[rows, columns, self.block]);
            b.serial("ot", p.task_blocks[0], |b, ot| {
                let block = chunk.task.first_blocks[0].clone() + ot.clone();
                let to = |row: Index, column: Index, c: Index| vec![row, column, c];
                self.stage(b, (chunk.x, [&n, &block], &chunk.first_row), [rows, columns], (staged, &to));
                let taps = [Index::default(), ot];
                self.taps(b, chunk, &n, taps, 1, &|b, tap, [row, column], c| {
                    let [k, l] = split(b, tap, self.kernel[1]);
                    Expr::Load(staged, vec![self.in_stage(0, row, k), self.in_stage(1, column, l), c])
                });
            });
        });
    }

    /// All pixels of the chunk for all kernel positions, where `x` is in scratch.
    fn taps(
        &self,
        b: &mut Builder,
        chunk: &Chunk,
        n: &Index,
        [zero, ot]: [Index; 2],
        blocks: usize,
        x: &Input,
    ) {
        let out_block = chunk.task.first_blocks[0].clone() + ot.clone();
        let [_, _, rows, columns] = [0, 1, 2, 3].map(|i| self.dy.shape[i]);
        let mut first = 0;
        for (count, inputs) in tiles(chunk.pieces.sums[0], self.tile_inputs(blocks)) {
            for _ in 0..count {
                let tile = Tile::new(b, self, inputs, blocks);
                let cell = |t: Index, i: Index, c: Index| {
                    vec![ot.clone() + t, zero.clone(), i + first, zero.clone(), c]
                };
                tile.add_to(b, self, (chunk.sums, &cell), &mut |b| {
                    b.serial("r", chunk.pieces.chunk_rows, |b, r| {
                        let row = chunk.first_row.clone() + r.clone();
                        let inside = Guard::between(&row, 0, rows as i64, b.extents());
                        b.when(inside, |b| {
                            self.columns(b, columns, &mut |b, column| {
                                let dy = |t: Index, c: Index| {
                                    let at = vec![
                                        n.clone(),
                                        out_block.clone() + t,
                                        row.clone(),
                                        column.clone(),
                                        c,
                                    ];
                                    Expr::Load(chunk.dy, at)
                                };
                                tile.multiply(b, self, &dy, &|b, i, c| x(b, &(i + first), [&r, &column], c));
                            });
                        });
                    });
                });
                first += inputs;
            }
        }
    }

    /// Rows and columns of `x` that a chunk reads, padding included.
    fn staged(&self, p: &Pieces) -> [usize; 2] {
        [self.reach(0, p.chunk_rows), self.reach(1, self.dy.shape[3])]
    }

    fn in_stage(&self, axis: usize, at: &Index, k: Index) -> Index {
        at.clone() * self.conv.stride[axis] as i64 + k * self.conv.dilation[axis] as i64
    }
}

impl Tile {
    fn new(b: &mut Builder, grad: &WeightGrad, inputs: usize, blocks: usize) -> Tile {
        let (vectors, lanes) = (grad.vectors(), grad.lanes);
        let mut register = |name: String, shape: &[usize]| b.buffer(&name, shape, Memory::Register);
        let sums = register(format!("sum{inputs}x{blocks}"), &[inputs, blocks, vectors, lanes]);
        let dy = register(format!("d{blocks}"), &[blocks, vectors, lanes]);
        let x = register("xs".into(), &[lanes]);
        Tile { inputs, blocks, sums, dy, x }
    }

    /// Adds what `body` adds to the sums that are in scratch.
    fn add_to(
        &self,
        b: &mut Builder,
        grad: &WeightGrad,
        (scratch, cell): (BufferId, &Cell),
        body: &mut dyn FnMut(&mut Builder),
    ) {
        self.each(b, grad, &mut |b, at, c| {
            let [i, t, _, _] = &at;
            let before = Expr::Load(scratch, cell(t.clone(), i.clone(), c));
            b.store(self.sums, at.to_vec(), before);
        });
        body(b);
        self.each(b, grad, &mut |b, at, c| {
            let [i, t, _, _] = &at;
            b.store(scratch, cell(t.clone(), i.clone(), c), Expr::Load(self.sums, at.to_vec()));
        });
    }

    /// Calls the function for every vector of sums: its place and the channel in its block.
    fn each(
        &self,
        b: &mut Builder,
        grad: &WeightGrad,
        body: &mut dyn FnMut(&mut Builder, [Index; 4], Index),
    ) {
        b.unroll("i", self.inputs, |b, i| {
            b.unroll("t", self.blocks, |b, t| {
                b.unroll("v", grad.vectors(), |b, v| {
                    b.vector(grad.lanes, |b, lane| {
                        let channel = v.clone() * grad.lanes as i64 + lane.clone();
                        body(b, [i, t, v, lane], channel);
                    });
                });
            });
        });
    }

    /// Adds the products of a pixel: `dy` by block and channel, `x` by input and channel.
    fn multiply(
        &self,
        b: &mut Builder,
        grad: &WeightGrad,
        dy: &dyn Fn(Index, Index) -> Expr,
        x: &dyn Fn(&Builder, Index, Index) -> Expr,
    ) {
        let (vectors, lanes) = (grad.vectors(), grad.lanes);
        b.unroll("t", self.blocks, |b, t| {
            b.unroll("v", vectors, |b, v| {
                b.vector(lanes, |b, lane| {
                    let value = dy(t.clone(), v.clone() * lanes as i64 + lane.clone());
                    b.store(self.dy, vec![t, v, lane], value);
                });
            });
        });
        // An element that several multiply-adds take is spread over the lanes once.
        let spread = grad.form != Form::Depthwise && self.blocks * vectors > 1;
        b.unroll("i", self.inputs, |b, i| {
            if spread {
                b.vector(lanes, |b, lane| {
                    let value = x(b, i.clone(), Index::default());
                    b.store(self.x, vec![lane], value);
                });
            }
            b.unroll("t", self.blocks, |b, t| {
                b.unroll("v", vectors, |b, v| {
                    b.vector(lanes, |b, lane| {
                        let value = match spread {
                            true => Expr::Load(self.x, vec![lane.clone()]),
                            false => x(b, i.clone(), v.clone() * lanes as i64 + lane.clone()),
                        };
                        let d = Expr::Load(self.dy, vec![t.clone(), v.clone(), lane.clone()]);
                        let at = vec![i, t, v, lane];
                        b.store(self.sums, at.clone(), fma(value, d, Expr::Load(self.sums, at)));
                    });
                });
            });
        });
    }
}

/// Quotient and remainder.
fn split(b: &Builder, i: &Index, by: usize) -> [Index; 2] {
    [i.div(by, b.extents()), i.rem(by, b.extents())]
}
