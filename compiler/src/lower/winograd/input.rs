//! The input transform: tiles of six (or four) pixels square, two apart, become `Bᵀ d B`, a vector of
//! channels at a time.
//!
//! Rows first: a row outside the image is zero without being read. The rows wait in scratch; their
//! columns follow and go to `[product, part, block of channels, tile of the part, channel]`, which the products read
//! by broadcast.

use crate::kernel::{BufferId, Expr, Guard, Index, Memory};
use nnc_runtime::DType;

use super::super::builder::Builder;
use super::super::elementwise::f32;
use super::geometry::{Columns, input_columns};
use super::transform::Registers;
use super::{Strip, Winograd, spread};

/// Where the transformed tiles go.
pub(super) struct Target<'t> {
    pub buffer: BufferId,
    /// What comes before `[product, part, block, tile, channel]` in its index.
    pub prefix: &'t [Index],
}

impl Winograd<'_> {
    /// Transforms a block of channels of all tiles of a strip.
    pub(super) fn transform_block(
        &self,
        b: &mut Builder,
        x: BufferId,
        strip: &Strip,
        block: &Index,
        target: &Target,
    ) {
        let size = self.transform.inputs();
        let rows = b.scratch("tile_rows", &[size, size, self.lanes]);
        let registers = self.transform.registers(b, self.lanes);
        for columns in input_columns(&self.problem, self.transform) {
            self.each_tile(b, strip, &columns, &mut |b, tile| {
                let part = tile.number.div(self.part_tiles(), b.extents());
                let in_part = tile.number.rem(self.part_tiles(), b.extents());
                b.serial("v", self.geometry.block / self.lanes, |b, v| {
                    let from = Patch { x, n: &tile.n, block, vector: &v, columns: &columns };
                    self.transform_rows(b, registers, &from, [&tile.row, &tile.step], rows);
                    b.unroll("j", size, |b, j| {
                        self.transform.input(
                            b,
                            self.lanes,
                            registers,
                            &|i, lane| Expr::Load(rows, vec![Index::from(i), j.clone(), lane.clone()]),
                            &mut |b, i, lane, value| {
                                let product = j.clone() + i * size;
                                let channel = v.clone() * self.lanes as i64 + lane.clone();
                                let at = [product, part.clone(), block.clone(), in_part.clone(), channel];
                                b.store(target.buffer, [target.prefix, &at].concat(), value);
                            },
                        );
                    });
                });
            });
        }
    }

    /// The rows of a tile, transformed along themselves.
    fn transform_rows(
        &self,
        b: &mut Builder,
        registers: Registers,
        from: &Patch,
        [tile_row, step]: [&Index; 2],
        rows: BufferId,
    ) {
        let (size, stride) = (self.transform.inputs(), self.transform.outputs());
        let [_, height, _] = self.problem.input;
        let [above, left] = self.problem.before;
        b.unroll("i", size, |b, i| {
            let row = tile_row.clone() * stride as i64 + i.clone() - above;
            let inside = Guard::between(&row, 0, height as i64, b.extents());
            b.when(inside, |b| {
                self.transform.input(
                    b,
                    self.lanes,
                    registers,
                    &|j, lane| {
                        if !from.columns.inside.contains(&j) {
                            return f32(0.0);
                        }
                        let first = from.columns.first * stride + j;
                        let column = step.clone() * stride as i64 + first - left;
                        let channel = from.vector.clone() * self.lanes as i64 + lane.clone();
                        let at = vec![from.n.clone(), from.block.clone(), row.clone(), column, channel];
                        Expr::Load(from.x, at)
                    },
                    &mut |b, j, lane, value| {
                        b.store(rows, vec![i.clone(), Index::from(j), lane.clone()], value);
                    },
                );
            });
            for guard in Guard::outside(&row, height as i64, b.extents()) {
                b.when(vec![guard], |b| {
                    b.unroll("j", size, |b, j| {
                        b.vector(self.lanes, |b, lane| {
                            b.store(rows, vec![i.clone(), j, lane], f32(0.0));
                        });
                    });
                });
            }
        });
    }

    /// The scratch buffer of a strip's transformed input.
    pub(super) fn strip_buffer(&self, b: &mut Builder) -> BufferId {
        let shape = self.input_shape();
        let strides = spread(&shape, 0);
        b.kernel.strided("transformed", DType::F32, &shape, &strides, Memory::Scratch)
    }
}

/// Where a vector of channels of a tile's pixels is.
struct Patch<'p> {
    x: BufferId,
    n: &'p Index,
    block: &'p Index,
    vector: &'p Index,
    columns: &'p Columns,
}
