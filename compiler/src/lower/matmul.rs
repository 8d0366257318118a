//! Products of matrices whose second factor has its columns side by side: the gradients of dense layers.
//!
//! The lanes are columns. A tile is some rows by two vectors of columns in registers; a step loads
//! the two vectors of a row of the second factor and spreads an element of the first one for each
//! row. The first factor may lie transposed: nothing is copied for that. A panel (two vectors of
//! columns, all rows) of the second factor that several tiles read is copied to scratch first, and
//! so are the last columns, with zeros to fill up their vectors.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::Place;
use super::builder::{Builder, Operand, Scope, is_vectorisable};
use super::conv_split::tiles;
use super::elementwise::{f32, fma, reshape_index, sizes};
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Guard, Index, Kernel, Memory};

/// Vectors of columns in a tile; of a single row, where all are loaded for one element.
const VECTORS: usize = 2;
const VECTORS_ALONE: usize = 4;

/// Registers that a tile leaves for an element of the first factor and its copies.
const SPARE_REGISTERS: usize = 3;

/// A task should do that much at least, as long as there are tasks for everybody.
const TASK_FLOPS: usize = 1 << 18;

/// Tasks wanted of a large product.
const TASKS: usize = 32;

/// A group with a product of matrices: `result` is it, or elementwise work after it.
pub(super) struct MatMul<'a> {
    pub name: &'a str,
    pub anchor: NodeId,
    pub result: NodeId,
    pub out: &'a Place,
    pub lanes: usize,
    pub registers: usize,
}

/// Buffers and sizes.
struct Parts {
    a: BufferId,
    b: BufferId,
    out: BufferId,
    rows: usize,
    depth: usize,
    columns: usize,
    /// Vectors of columns in a panel, rows in a tile.
    vectors: usize,
    tile_rows: usize,
}

/// Columns of the second factor.
struct Panel {
    first: Index,
    columns: usize,
    /// Where they are, if they were copied: `[depth, columns]`.
    staged: Option<BufferId>,
}

impl MatMul<'_> {
    /// The kernel; `None` if the factors are no matrices that lie so.
    pub fn kernel(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        let graph = scope.graph;
        let operands = graph.operands(self.anchor);
        let Some(Operand::Memory(b_place)) = scope.operands.get(&operands[1]) else { return None };
        let a_place = first_factor(scope, operands[0])?;
        let flat = b_place.shape.len() == 2 && b_place.layout == Layout::Plain && b_place.strides[1] == 1;
        let f32s = a_place.dtype == DType::F32 && b_place.dtype == DType::F32;
        let same = sizes(graph.node(self.anchor)) == self.out.shape && self.out.layout == Layout::Plain;
        if !flat || !f32s || !same || a_place.elements() == 0 || b_place.elements() == 0 {
            return None;
        }
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        let [rows, depth] = [a_place.shape[0], a_place.shape[1]];
        let vectors = if rows == 1 { VECTORS_ALONE } else { VECTORS };
        let parts = Parts {
            a: b.bind(&a_place, Access::Read, "a"),
            b: b.bind(b_place, Access::Read, "b"),
            out: b.bind(self.out, Access::Write, "out"),
            rows,
            depth,
            columns: b_place.shape[1],
            vectors,
            tile_rows: (self.registers.saturating_sub(vectors + SPARE_REGISTERS) / vectors).clamp(1, rows),
        };
        self.tasks(&mut b, &parts);
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// Tasks are panels by groups of rows.
    fn tasks(&self, b: &mut Builder, parts: &Parts) {
        let width = parts.vectors * self.lanes;
        let (full, rest) = (parts.columns / width, parts.columns % width);
        let panels = full + usize::from(rest > 0);
        let wanted = (2 * parts.rows * parts.depth * parts.columns / TASK_FLOPS).clamp(1, TASKS);
        // Groups of equal size, each of at least a tile.
        let even = |&g: &usize| parts.rows.is_multiple_of(g) && parts.rows / g >= parts.tile_rows;
        let groups = (1..=wanted.div_ceil(panels)).rev().find(even).unwrap_or(1);
        let group = parts.rows / groups;
        let first_row = b.task("m", groups) * group as i64;
        let panel = b.task("n", panels);
        let rows = (first_row, group);
        let among = |b: &Builder, low: usize, high: usize| {
            Guard::between(&panel, low as i64, high as i64, b.extents())
        };
        if full > 0 {
            let guards = among(b, 0, full);
            b.when(guards, |b| self.panel(b, parts, &rows, panel.clone() * width as i64, width));
        }
        if rest > 0 {
            let guards = among(b, full, panels);
            b.when(guards, |b| self.panel(b, parts, &rows, Index::from(full * width), rest));
        }
    }

    /// Some rows (the first, how many) of a panel.
    fn panel(
        &self,
        b: &mut Builder,
        parts: &Parts,
        (first_row, rows): &(Index, usize),
        first: Index,
        columns: usize,
    ) {
        let mut panel = Panel { first, columns, staged: None };
        if *rows > parts.tile_rows || !columns.is_multiple_of(self.lanes) {
            panel.staged = Some(self.stage(b, parts, &panel));
        }
        let mut done = 0;
        for (count, tile_rows) in tiles(*rows, parts.tile_rows) {
            b.serial("mt", count, |b, mt| {
                let row = first_row.clone() + mt * tile_rows as i64 + done;
                self.tile(b, parts, &panel, &row, tile_rows);
            });
            done += count * tile_rows;
        }
    }

    /// Copies a panel, with zeros up to whole vectors.
    fn stage(&self, b: &mut Builder, parts: &Parts, panel: &Panel) -> BufferId {
        let lanes = self.lanes;
        let staged = b.scratch("panel", &[parts.depth, panel.columns.next_multiple_of(lanes)]);
        let (vectors, rest) = (panel.columns / lanes, panel.columns % lanes);
        b.serial("k", parts.depth, |b, k| {
            let from = |column: Index| Expr::Load(parts.b, vec![k.clone(), panel.first.clone() + column]);
            b.unroll("v", vectors, |b, v| {
                b.vector(lanes, |b, lane| {
                    let column = v * lanes as i64 + lane;
                    b.store(staged, vec![k.clone(), column.clone()], from(column));
                });
            });
            if rest > 0 {
                b.vector(lanes, |b, lane| b.store(staged, vec![k.clone(), lane + vectors * lanes], f32(0.0)));
                b.serial("c", rest, |b, c| {
                    let column = c + vectors * lanes;
                    b.store(staged, vec![k.clone(), column.clone()], from(column));
                });
            }
        });
        staged
    }

    /// A tile of rows from `row` on and a panel's columns.
    fn tile(&self, b: &mut Builder, parts: &Parts, panel: &Panel, row: &Index, rows: usize) {
        let (lanes, vectors) = (self.lanes, panel.columns.div_ceil(self.lanes));
        let register =
            |b: &mut Builder, name: String, shape: &[usize]| b.buffer(&name, shape, Memory::Register);
        let sums = register(b, format!("sum{rows}x{vectors}"), &[rows, vectors, lanes]);
        let bs = register(b, format!("b{vectors}"), &[vectors, lanes]);
        let a = register(b, "as".into(), &[lanes]);
        b.unroll("r", rows, |b, r| {
            b.unroll("v", vectors, |b, v| {
                b.vector(lanes, |b, lane| b.store(sums, vec![r, v, lane], f32(0.0)));
            });
        });
        b.serial("k", parts.depth, |b, k| {
            b.unroll("v", vectors, |b, v| {
                b.vector(lanes, |b, lane| {
                    let column = v.clone() * lanes as i64 + lane.clone();
                    let value = match panel.staged {
                        Some(staged) => Expr::Load(staged, vec![k.clone(), column]),
                        None => Expr::Load(parts.b, vec![k.clone(), panel.first.clone() + column]),
                    };
                    b.store(bs, vec![v, lane], value);
                });
            });
            b.unroll("r", rows, |b, r| {
                let at = vec![row.clone() + r.clone(), k.clone()];
                b.vector(lanes, |b, lane| b.store(a, vec![lane], Expr::Load(parts.a, at)));
                b.unroll("v", vectors, |b, v| {
                    b.vector(lanes, |b, lane| {
                        let at = vec![r, v.clone(), lane.clone()];
                        let (x, y) = (Expr::Load(a, vec![lane.clone()]), Expr::Load(bs, vec![v, lane]));
                        b.store(sums, at.clone(), fma(x, y, Expr::Load(sums, at)));
                    });
                });
            });
        });
        self.finish(b, parts, panel, (sums, row), rows);
    }

    /// Elementwise work and store of a tile; what does not fill a vector goes column by column.
    fn finish(
        &self,
        b: &mut Builder,
        parts: &Parts,
        panel: &Panel,
        (sums, row): (BufferId, &Index),
        rows: usize,
    ) {
        let lanes = self.lanes;
        let (vectors, rest) = (panel.columns / lanes, panel.columns % lanes);
        let tail = (rest > 0).then(|| b.scratch("tail", &[rows, lanes]));
        b.unroll("r", rows, |b, r| {
            let at = row.clone() + r.clone();
            b.unroll("v", vectors, |b, v| {
                b.with_lanes(lanes, |b, lane| {
                    let sum = Expr::Load(sums, vec![r.clone(), v.clone(), lane.clone()]);
                    self.element(b, parts, [&at, &(panel.first.clone() + v * lanes as i64 + lane)], sum);
                });
            });
            if let Some(tail) = tail {
                b.vector(lanes, |b, lane| {
                    let sum = Expr::Load(sums, vec![r.clone(), Index::from(vectors), lane.clone()]);
                    b.store(tail, vec![r, lane], sum);
                });
            }
        });
        if let Some(tail) = tail {
            b.serial("r", rows, |b, r| {
                b.serial("c", rest, |b, c| {
                    let column = panel.first.clone() + c.clone() + vectors * lanes;
                    let sum = Expr::Load(tail, vec![r.clone(), c]);
                    self.element(b, parts, [&(row.clone() + r), &column], sum);
                });
            });
        }
    }

    /// Elementwise work and store of one element (or a vector of them).
    fn element(&self, b: &mut Builder, parts: &Parts, [row, column]: [&Index; 2], sum: Expr) {
        let leading = &self.out.shape[..self.out.shape.len() - 1];
        let mut index = reshape_index(&[parts.rows], leading, std::slice::from_ref(row), b.extents());
        index.push(column.clone());
        b.memo.push((self.anchor, index.clone(), sum));
        let value = b.value(self.result, &index);
        b.store(parts.out, index, value);
    }
}

/// The first factor as a matrix; a transposition in the group is another way to look at it.
fn first_factor(scope: &Scope, id: NodeId) -> Option<Place> {
    if let Some(Operand::Memory(place)) = scope.operands.get(&id) {
        let depth = *place.shape.last()?;
        let rows = place.shape.iter().product::<usize>() / depth.max(1);
        return place.reshaped(&[rows, depth]);
    }
    let Op::Transpose(order) = &scope.graph.node(id).op else { return None };
    let Some(Operand::Memory(place)) = scope.operands.get(&scope.graph.operands(id)[0]) else { return None };
    if order[..] != [1, 0] || place.layout != Layout::Plain {
        return None;
    }
    let turned = |v: &[usize]| vec![v[1], v[0]];
    Some(Place { shape: turned(&place.shape), strides: turned(&place.strides), ..place.clone() })
}
