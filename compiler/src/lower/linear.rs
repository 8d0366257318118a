//! Linear layers: rows of the input times rows of the weights, as both lie in memory.
//!
//! The sums run along the rows in vectors and are added up across lanes at the end, so the weights
//! need no packing: at batch 1 they are read once, as fast as memory gives them. A tile is a few
//! rows of the input by a few rows of weights, enough independent sums to keep the multiply-add
//! units busy; elementwise work follows before the store.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::Place;
use super::builder::{Builder, Operand, Scope, is_vectorisable};
use super::elements::divisor_near;
use super::elementwise::{add, f32, fma, mul, reshape_index, sizes};
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Index, Kernel, Memory};

/// Rows of weights in a tile for one row of input: eight sums, as many as two units of latency 4
/// have in flight.
const OUTPUTS_ALONE: usize = 8;

/// Rows of input and of weights in a tile: 12 sums, 4 vectors of weights, one of input at a time.
const TILE: [usize; 2] = [3, 4];

/// A task should do that much at least, as long as there are tasks for everybody.
const TASK_FLOPS: usize = 1 << 18;

/// Tasks wanted of a large layer.
const TASKS: usize = 32;

/// A group with a linear layer: `result` is it, or elementwise work after it.
pub(super) struct Linear<'a> {
    pub name: &'a str,
    pub anchor: NodeId,
    pub result: NodeId,
    pub out: &'a Place,
    pub lanes: usize,
}

/// Buffers and sizes.
struct Parts {
    x: BufferId,
    weight: BufferId,
    out: BufferId,
    bias: Option<NodeId>,
    rows: usize,
    outputs: usize,
    depth: usize,
}

/// Where a tile begins, and its sizes.
struct Tile {
    row: Index,
    output: Index,
    rows: usize,
    outputs: usize,
}

impl Linear<'_> {
    /// The kernel; `None` if the operands do not lie row-major.
    pub fn kernel(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        let graph = scope.graph;
        if graph.node(self.anchor).op != Op::Linear {
            return None;
        }
        let operands = graph.operands(self.anchor);
        let shape = sizes(graph.node(self.anchor));
        let matrix = |id: NodeId| -> Option<Place> {
            let Some(Operand::Memory(place)) = scope.operands.get(&id) else { return None };
            let depth = *place.shape.last()?;
            let rows = place.shape.iter().product::<usize>() / depth.max(1);
            place.reshaped(&[rows, depth])
        };
        let (x, weight) = (matrix(operands[0])?, matrix(operands[1])?);
        let fits = shape == self.out.shape && self.out.layout == Layout::Plain && x.elements() > 0;
        if !fits || x.dtype != DType::F32 || weight.dtype != DType::F32 {
            return None;
        }
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        let parts = Parts {
            x: b.bind(&x, Access::Read, "x"),
            weight: b.bind(&weight, Access::Read, "weight"),
            out: b.bind(self.out, Access::Write, "out"),
            bias: operands.get(2).copied(),
            rows: x.shape[0],
            outputs: weight.shape[0],
            depth: x.shape[1],
        };
        self.tiles(&mut b, &parts);
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// Tasks are ranges of outputs, the last one has the rest.
    fn tiles(&self, b: &mut Builder, parts: &Parts) {
        let [tile_rows, tile_outputs] = if parts.rows == 1 { [1, OUTPUTS_ALONE] } else { TILE };
        let (full, rest) = (parts.outputs / tile_outputs, parts.outputs % tile_outputs);
        let flops = 2 * parts.rows * parts.outputs * parts.depth;
        let tasks = (flops / TASK_FLOPS).clamp(1, TASKS);
        let chunk = match divisor_near(full.max(1), full.div_ceil(tasks).max(1)) {
            d if full.is_multiple_of(d) => d,
            _ => 1,
        };
        let count = (full / chunk).max(1);
        let task = b.task("t", count);
        b.serial("ot", chunk.min(full), |b, ot| {
            let output = (task.clone() * chunk as i64 + ot) * tile_outputs as i64;
            self.column(b, parts, output, tile_rows, tile_outputs);
        });
        let last = if count == 1 { vec![] } else { vec![crate::kernel::Guard(task - (count - 1))] };
        if rest > 0 {
            b.when(last, |b| self.column(b, parts, Index::from(full * tile_outputs), tile_rows, rest));
        }
    }

    /// All rows of some outputs.
    fn column(&self, b: &mut Builder, parts: &Parts, output: Index, rows: usize, outputs: usize) {
        let (full, rest) = (parts.rows / rows, parts.rows % rows);
        b.serial("m", full, |b, m| {
            let tile = Tile { row: m * rows as i64, output: output.clone(), rows, outputs };
            self.tile(b, parts, &tile);
        });
        if rest > 0 {
            let tile = Tile { row: Index::from(full * rows), output, rows: rest, outputs };
            self.tile(b, parts, &tile);
        }
    }

    fn tile(&self, b: &mut Builder, parts: &Parts, tile: &Tile) {
        let sums = self.dot(b, parts, tile);
        let (vectors, rest) = (tile.outputs / self.lanes, tile.outputs % self.lanes);
        let lanes = self.lanes as i64;
        b.unroll("r", tile.rows, |b, r| {
            let finish = |b: &mut Builder, o: Index| self.finish(b, parts, tile, sums, [&r, &o]);
            b.unroll("v", vectors, |b, v| b.with_lanes(self.lanes, |b, lane| finish(b, v * lanes + lane)));
            b.serial("o", rest, |b, o| finish(b, o + vectors * self.lanes));
        });
    }

    /// The sums of a tile, in a scratch buffer `[rows, outputs]`.
    fn dot(&self, b: &mut Builder, parts: &Parts, tile: &Tile) -> BufferId {
        let (lanes, shape) = (self.lanes, [tile.rows, tile.outputs, self.lanes]);
        let sums = b.kernel.buffer("sum", DType::F32, &shape, Memory::Register);
        let ws = b.kernel.buffer("w", DType::F32, &[tile.outputs, lanes], Memory::Register);
        let xs = b.kernel.buffer("xs", DType::F32, &[lanes], Memory::Register);
        let each = |b: &mut Builder, f: &mut dyn FnMut(&mut Builder, Index, Index)| {
            b.unroll("r", tile.rows, |b, r| b.unroll("o", tile.outputs, |b, o| f(b, r, o)));
        };
        each(b, &mut |b, r, o| {
            b.vector(lanes, |b, lane| b.store(sums, vec![r, o, lane], f32(0.0)));
        });
        let vectors = parts.depth / lanes;
        let step = [4, 2, 1].into_iter().find(|s| vectors.is_multiple_of(*s)).unwrap_or(1);
        b.serial("k", vectors / step, |b, k| {
            b.unroll("j", step, |b, j| {
                let at = (k * step as i64 + j) * lanes as i64;
                b.unroll("o", tile.outputs, |b, o| {
                    b.vector(lanes, |b, lane| {
                        let w = vec![tile.output.clone() + o.clone(), at.clone() + lane.clone()];
                        b.store(ws, vec![o, lane], Expr::Load(parts.weight, w));
                    });
                });
                b.unroll("r", tile.rows, |b, r| {
                    b.vector(lanes, |b, lane| {
                        let x = vec![tile.row.clone() + r.clone(), at + lane.clone()];
                        b.store(xs, vec![lane], Expr::Load(parts.x, x));
                    });
                    b.unroll("o", tile.outputs, |b, o| {
                        b.vector(lanes, |b, lane| {
                            let at = vec![r, o.clone(), lane.clone()];
                            let x = Expr::Load(xs, vec![lane.clone()]);
                            let w = Expr::Load(ws, vec![o, lane]);
                            b.store(sums, at.clone(), fma(x, w, Expr::Load(sums, at)));
                        });
                    });
                });
            });
        });
        self.add_lanes(b, parts, tile, sums)
    }

    /// Adds up the lanes, and what is left of the rows.
    fn add_lanes(&self, b: &mut Builder, parts: &Parts, tile: &Tile, sums: BufferId) -> BufferId {
        let lanes = self.lanes;
        let partial = b.scratch("partial", &[tile.rows, tile.outputs, lanes]);
        let totals = b.scratch("total", &[tile.rows, tile.outputs]);
        b.unroll("r", tile.rows, |b, r| {
            b.unroll("o", tile.outputs, |b, o| {
                b.vector(lanes, |b, lane| {
                    let at = vec![r, o, lane];
                    b.store(partial, at.clone(), Expr::Load(sums, at));
                });
            });
        });
        let whole = parts.depth / lanes * lanes;
        b.serial("r", tile.rows, |b, r| {
            b.serial("o", tile.outputs, |b, o| {
                let lane = |l: usize| Expr::Load(partial, vec![r.clone(), o.clone(), Index::from(l)]);
                let total = pairwise(&(0..lanes).map(lane).collect::<Vec<_>>());
                let cell = b.cell("t", DType::F32);
                b.assign(&cell, total);
                b.serial("k", parts.depth - whole, |b, k| {
                    let k = k + whole;
                    let x = Expr::Load(parts.x, vec![tile.row.clone() + r.clone(), k.clone()]);
                    let w = Expr::Load(parts.weight, vec![tile.output.clone() + o.clone(), k]);
                    b.assign(&cell, add(cell.get(), mul(x, w)));
                });
                b.store(totals, vec![r, o], cell.get());
            });
        });
        totals
    }

    /// Bias, elementwise work and store of one output (or a vector of them).
    fn finish(&self, b: &mut Builder, parts: &Parts, tile: &Tile, totals: BufferId, [r, o]: [&Index; 2]) {
        let output = tile.output.clone() + o.clone();
        let leading = &self.out.shape[..self.out.shape.len() - 1];
        let row = [tile.row.clone() + r.clone()];
        let mut index = reshape_index(&[parts.rows], leading, &row, b.extents());
        index.push(output.clone());
        let mut value = Expr::Load(totals, vec![r.clone(), o.clone()]);
        if let Some(bias) = parts.bias {
            value = add(value, b.value(bias, &[output]));
        }
        let value = b.shared(DType::F32, value);
        b.memo.push((self.anchor, index.clone(), value));
        let value = b.value(self.result, &index);
        b.store(parts.out, index, value);
    }
}

/// Adds neighbours, then the sums of neighbours.
fn pairwise(values: &[Expr]) -> Expr {
    match values {
        [] => f32(0.0),
        [x] => x.clone(),
        _ => {
            let (a, b) = values.split_at(values.len() / 2);
            add(pairwise(a), pairwise(b))
        }
    }
}
