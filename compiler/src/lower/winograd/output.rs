//! The output transform: `Aᵀ m A` of the products, the bias, whatever follows in the group, and
//! 2x2 poolings, which tiles of 4x4 (or 2x2) results hold whole.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use crate::graph::{Layout, NodeId, Op};
use crate::kernel::{BufferId, Expr, Guard, Index, Memory};

use super::super::access::position;
use super::super::builder::Builder;
use super::super::elementwise::{add, f32, max, mul};
use super::geometry::{Columns, output_columns};
use super::transform::Registers;
use super::{Strip, Tile, Winograd};

/// Buffers of the output transform.
struct Parts {
    out: BufferId,
    /// `[product, tile, output channel]`
    products: BufferId,
    /// Columns that are transformed, not yet rows: `[output row, column, lane]`.
    columns: BufferId,
    registers: Registers,
    /// A row of results.
    row: BufferId,
    bias: Option<BufferId>,
    /// Two rows that wait for the pooling.
    waiting: Option<BufferId>,
    /// A vector that is written lane by lane.
    spread: Option<BufferId>,
}

/// A vector of output channels of a tile.
struct Vector<'v> {
    tile: &'v Tile,
    columns: &'v Columns,
    /// Its first channel, of all and of the group.
    channel: Index,
    in_group: Index,
}

impl Winograd<'_> {
    /// Transforms the products of a strip and a group, and finishes the group's work on them.
    pub(super) fn finish_strip(&self, b: &mut Builder, strip: &Strip, group: &Index, products: BufferId) {
        let parts = self.parts(b, products);
        let lanes = self.lanes as i64;
        let channels = self.problem.output[0].next_multiple_of(self.geometry.block);
        for columns in output_columns(&self.problem, self.transform) {
            self.each_tile(b, strip, &columns, &mut |b, tile| {
                b.serial("v", self.geometry.group / self.lanes, |b, v| {
                    let in_group = v * lanes;
                    let channel = group.clone() * self.geometry.group as i64 + in_group.clone();
                    let last = channel.clone() + (self.lanes - 1);
                    let present = Guard::between(&last, 0, channels as i64, b.extents());
                    let vector = Vector { tile, columns: &columns, channel, in_group };
                    b.when(present, |b| self.finish_vector(b, &parts, &vector));
                });
            });
        }
    }

    fn parts(&self, b: &mut Builder, products: BufferId) -> Parts {
        let (lanes, outputs) = (self.lanes, self.transform.outputs());
        let register = |b: &mut Builder, name: &str, shape: &[usize]| {
            b.kernel.buffer(name, DType::F32, shape, Memory::Register)
        };
        let biased = b.scope.graph.operands(self.anchor).len() > 2;
        Parts {
            out: b.bind(&self.out, Access::Write, "out"),
            products,
            columns: b.scratch("tile_columns", &[outputs, self.transform.inputs(), lanes]),
            registers: self.transform.registers(b, lanes),
            row: register(b, "y", &[outputs, lanes]),
            bias: biased.then(|| register(b, "b", &[lanes])),
            waiting: self.pool.map(|_| register(b, "z", &[2, outputs, lanes])),
            spread: (self.out.layout == Layout::Plain).then(|| b.scratch("pixel", &[lanes])),
        }
    }

    fn finish_vector(&self, b: &mut Builder, parts: &Parts, vector: &Vector) {
        let (size, lanes) = (self.transform.inputs(), self.lanes);
        if let (Some(buffer), Some(&bias)) = (parts.bias, b.scope.graph.operands(self.anchor).get(2)) {
            b.with_lanes(lanes, |b, lane| {
                let value = b.value(bias, &[vector.channel.clone() + lane.clone()]);
                b.store(buffer, vec![lane], value);
            });
        }
        b.unroll("j", size, |b, j| {
            self.transform.output(
                b,
                lanes,
                parts.registers,
                &|i, lane| {
                    let at = [
                        j.clone() + i * size,
                        vector.tile.number.clone(),
                        vector.in_group.clone() + lane.clone(),
                    ];
                    Expr::Load(parts.products, at.to_vec())
                },
                &mut |b, i, lane, value| {
                    b.store(parts.columns, vec![Index::from(i), j.clone(), lane.clone()], value);
                },
            );
        });
        let height = self.problem.output[1];
        // In an image of less rows than a tile has, the others are not there at all.
        for i in 0..self.transform.outputs().min(height) {
            let row = vector.tile.row.clone() * self.transform.outputs() as i64 + i;
            let inside = Guard::between(&row, 0, height as i64, b.extents());
            b.when(inside, |b| self.finish_row(b, parts, vector, i, &row));
            if let (Some((pool, _)), Some(waiting), 1) = (self.pool, parts.waiting, i % 2) {
                self.pool_row(b, parts, vector, i, (pool, waiting));
            }
        }
    }

    /// A row of results of a tile.
    fn finish_row(&self, b: &mut Builder, parts: &Parts, vector: &Vector, i: usize, row: &Index) {
        self.transform.output(
            b,
            self.lanes,
            parts.registers,
            &|j, lane| Expr::Load(parts.columns, vec![Index::from(i), Index::from(j), lane.clone()]),
            &mut |b, j, lane, value| {
                let value = match parts.bias {
                    Some(bias) => add(value, Expr::Load(bias, vec![lane.clone()])),
                    None => value,
                };
                b.store(parts.row, vec![Index::from(j), lane.clone()], value);
            },
        );
        for j in vector.columns.inside.clone() {
            let column = self.column(vector, j);
            let sum = |lane: &Index| Expr::Load(parts.row, vec![Index::from(j), lane.clone()]);
            match (self.pool, parts.waiting) {
                (Some((pool, _)), Some(waiting)) => b.with_lanes(self.lanes, |b, lane| {
                    let channel = vector.channel.clone() + lane.clone();
                    let index = [vector.tile.n.clone(), channel, row.clone(), column];
                    b.memo.push((self.anchor, index.to_vec(), sum(&lane)));
                    let pooled = b.scope.graph.operands(pool)[0];
                    let value = b.value(pooled, &index);
                    b.store(waiting, vec![Index::from(i % 2), Index::from(j), lane], value);
                }),
                _ => self.finish_pixel(b, parts, vector, self.anchor, [row, &column], &sum),
            }
        }
    }

    /// The windows of two rows of results, of which `i` is the second in the tile.
    fn pool_row(
        &self,
        b: &mut Builder,
        parts: &Parts,
        vector: &Vector,
        i: usize,
        (pool, waiting): (NodeId, BufferId),
    ) {
        let half = self.transform.outputs() / 2;
        let row = vector.tile.row.clone() * half as i64 + i / 2;
        let inside = Guard::between(&row, 0, self.out.shape[2] as i64, b.extents());
        let largest = matches!(b.scope.graph.node(pool).op, Op::MaxPool2d(_));
        b.when(inside, |b| {
            for j in 0..vector.columns.inside.len() / 2 {
                let columns = &vector.columns;
                let column = vector.tile.step.clone() * half as i64 + (columns.first * half + j);
                let window = |lane: &Index| {
                    let at = |i: usize, j: usize| {
                        Expr::Load(waiting, vec![Index::from(i), Index::from(j), lane.clone()])
                    };
                    let [a, b, c, d] = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, k)| at(i, 2 * j + k));
                    match largest {
                        true => max(max(max(a, b), c), d),
                        false => mul(add(add(add(a, b), c), d), f32(0.25)),
                    }
                };
                self.finish_pixel(b, parts, vector, pool, [&row, &column], &window);
            }
        });
    }

    /// The elementwise work on a vector of a pixel, from the value of `from` to the result.
    fn finish_pixel(
        &self,
        b: &mut Builder,
        parts: &Parts,
        vector: &Vector,
        from: NodeId,
        [row, column]: [&Index; 2],
        value: &dyn Fn(&Index) -> Expr,
    ) {
        let n = &vector.tile.n;
        b.with_lanes(self.lanes, |b, lane| {
            let channel = vector.channel.clone() + lane.clone();
            let index = [n.clone(), channel, row.clone(), column.clone()];
            b.memo.push((from, index.to_vec(), value(&lane)));
            let value = b.value(self.result, &index);
            match parts.spread {
                Some(pixel) => b.store(pixel, vec![lane], value),
                None => {
                    let at = position(&index, self.out.layout, b.extents());
                    b.store(parts.out, at, value);
                }
            }
        });
        if let Some(pixel) = parts.spread {
            b.serial("l", self.lanes, |b, l| {
                let channel = vector.channel.clone() + l.clone();
                let inside = Guard::between(&channel, 0, self.out.shape[1] as i64, b.extents());
                let value = Expr::Load(pixel, vec![l]);
                b.when(inside, |b| {
                    b.store(parts.out, vec![n.clone(), channel, row.clone(), column.clone()], value);
                });
            });
        }
    }

    fn column(&self, vector: &Vector, j: usize) -> Index {
        let step = self.transform.outputs();
        vector.tile.step.clone() * step as i64 + (vector.columns.first * step + j)
    }
}
