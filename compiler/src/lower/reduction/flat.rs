//! Sums over everything: neighbours in memory are the lanes.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::{Made, PART_BYTES, Reduction, Total, finished};
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::{Expr, Guard, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Cell, Operand, Scope};
use crate::lower::elements::divisor_near;
use crate::lower::elementwise::{add, f32, is_elementwise, sizes};

/// Vectors that are added up side by side.
const CHAINS: usize = 4;

/// How the elements are dealt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flat {
    total: usize,
    lanes: usize,
    /// Steps of [`CHAINS`] vectors each in all, and in a task.
    steps: usize,
    each: usize,
}

impl Flat {
    /// For operands of that many elements.
    pub fn new(total: usize, lanes: usize) -> Option<Flat> {
        let steps = total / (CHAINS * lanes);
        if steps == 0 {
            return None;
        }
        let each = divisor_near(steps, (PART_BYTES / (CHAINS * lanes * 4)).min(steps));
        Some(Flat { total, lanes, steps, each })
    }

    pub fn parts(&self) -> usize {
        self.steps.div_ceil(self.each)
    }
}

/// True if what the sums read lies alike, or is one element: then a flat index does for all.
pub(super) fn is_even(scope: &Scope, nodes: &[NodeId], x: NodeId) -> bool {
    let graph = scope.graph;
    let shape = sizes(graph.node(x));
    let one = |s: &[usize]| s.iter().all(|&n| n == 1);
    let pointwise = |n: &NodeId| {
        let node = graph.node(*n);
        let sum = matches!(node.op, Op::Reduce { .. });
        sum || is_elementwise(&node.op)
            && (sizes(node) == shape || one(&sizes(node)))
            && !matches!(node.op, Op::BatchNorm(_))
    };
    let even = |operand: &Operand| match operand {
        Operand::Splat(..) => true,
        Operand::Memory(p) => {
            p.layout == Layout::Plain && p.is_dense() && (p.shape == shape || p.elements() == 1)
        }
    };
    nodes.iter().all(pointwise) && scope.operands.values().all(even)
}

impl Reduction<'_> {
    /// The kernel that sums the parts, or all if there is one; `parts` is where to.
    pub(super) fn flat_parts(&self, scope: &Scope, flat: Flat, parts: Option<&Place>) -> Option<Made> {
        let mut b = Builder::new(self.name, scope);
        let task = b.task("t", flat.parts());
        let totals = self.flat_totals(&mut b, flat, &task);
        match parts {
            Some(parts) => {
                let out = b.bind(parts, Access::Write, "parts");
                for (t, total) in totals.iter().enumerate() {
                    b.store(out, vec![Index::from(t), task.clone()], total.get());
                }
            }
            None => self.flat_finish(&mut b, &totals),
        }
        finished(b)
    }

    /// The kernel that adds the parts, in their order.
    pub(super) fn flat_joined(&self, scope: &Scope, flat: Flat, parts: &Place) -> Option<Made> {
        let mut b = Builder::new(&format!("{}_of_parts", self.name), scope);
        let from = b.bind(parts, Access::Read, "parts");
        let totals: Vec<Cell> = self.totals.iter().map(|_| b.cell("total", DType::F32)).collect();
        totals.iter().for_each(|cell| b.assign(cell, f32(0.0)));
        b.serial("p", flat.parts(), |b, part| {
            for (t, cell) in totals.iter().enumerate() {
                let value = Expr::Load(from, vec![Index::from(t), part.clone()]);
                b.assign(cell, add(cell.get(), value));
            }
        });
        self.flat_finish(&mut b, &totals);
        finished(b)
    }

    /// The sums of a task: its vectors, then across lanes; the last task has the rest.
    fn flat_totals(&self, b: &mut Builder, flat: Flat, task: &Index) -> Vec<Cell> {
        let operands: Vec<NodeId> = self.totals.iter().map(|t| t.of()).collect();
        let width = flat.lanes;
        let mut cells: Vec<Vec<Cell>> = vec![];
        b.with_lanes(width, |b, lane| {
            for _ in &operands {
                cells.push((0..CHAINS).map(|_| b.cell("sum", DType::F32)).collect());
            }
            cells.iter().flatten().for_each(|cell| b.assign(cell, f32(0.0)));
            b.serial("i", flat.each, |b, i| {
                let step = task.clone() * flat.each as i64 + i;
                let inside = Guard::between(&step, 0, flat.steps as i64, b.extents());
                b.when(inside, |b| {
                    for chain in 0..CHAINS {
                        let vector = step.clone() * CHAINS as i64 + chain;
                        b.flat = Some(vector * width as i64 + lane.clone());
                        let known = b.memo.len();
                        for (cells, &x) in cells.iter().zip(&operands) {
                            let value = b.value(x, &[]);
                            b.assign(&cells[chain], add(cells[chain].get(), value));
                        }
                        // The next vector has other values at the same, empty index.
                        b.memo.truncate(known);
                    }
                });
            });
            for chains in &cells {
                let sum = |a: usize, c: usize| add(chains[a].get(), chains[c].get());
                b.assign(&chains[0], add(sum(0, 1), sum(2, 3)));
            }
        });
        let totals: Vec<Cell> = operands.iter().map(|_| b.cell("total", DType::F32)).collect();
        for (total, chains) in totals.iter().zip(&cells) {
            let across = (1..width).fold(chains[0].lane(0), |sum, lane| add(sum, chains[0].lane(lane)));
            b.assign(total, across);
        }
        let done = flat.steps * CHAINS * width;
        let last = Guard::between(task, flat.parts() as i64 - 1, flat.parts() as i64, b.extents());
        b.when(last, |b| {
            b.serial("r", flat.total - done, |b, r| {
                b.flat = Some(r + done);
                for (total, &x) in totals.iter().zip(&operands) {
                    let value = b.value(x, &[]);
                    b.assign(total, add(total.get(), value));
                }
            });
        });
        b.flat = None;
        totals
    }

    /// Stores what the group makes of the totals.
    fn flat_finish(&self, b: &mut Builder, totals: &[Cell]) {
        let rank = if self.keep { self.axes.len() } else { 0 };
        let of = |t: Total| totals[self.number(t)].get();
        self.finish(b, &vec![Index::default(); rank], &of, &|_, _| f32(0.0));
    }
}
