//! Large reductions, by blocks ([`blocks`]): of rows, whose elements lie side by side, or of columns, that lie side
//! by side themselves (channels, where they are last). One kernel, or several blocks a row, each a part of it, and a
//! thread an element that joins the parts in their order; with parts, variances take two kernels more, for the mean
//! comes first.
//!
//! Neighbouring threads ([`team`]) take neighbouring elements: parts are interleaved. Small reductions, and those of very
//! many columns, are left to a thread an element.

mod blocks;
mod team;

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use self::team::Team;
use super::Made;
use super::ahead::load_ahead;
use super::elements::finished;
use super::schedule::{Columns, Rows};
use super::wide::is_wide;
use crate::graph::op::ReduceKind;
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::{Role, ValueId};
use crate::kernel::{Expr, Index};
use crate::lower::Lowering;
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Cell, Scope};
use crate::lower::elementwise::{add, div, f32, is_elementwise, max, min, mul, sizes};
use crate::lower::generic::lowest;

/// The axes of a picture.
const PIXELS: [usize; 2] = [2, 3];

/// A group of reductions over the same elements, and the elementwise work around them.
struct Reduction<'a> {
    name: &'a str,
    anchors: Vec<(NodeId, ReduceKind, NodeId)>,
    axes: &'a [usize],
    keep: bool,
    results: &'a [(NodeId, Place)],
    /// Of the operands, and their dimensions, the one that changes most slowly in memory first.
    shape: Vec<usize>,
    order: Vec<usize>,
    /// Elements that become one.
    count: usize,
    /// Blocks that share them, and how their threads do.
    parts: usize,
    team: Team,
}

/// What is put together of each anchor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// The sum (of a variance, too), product or extreme.
    First,
    /// The squared distances from the mean, of variances.
    Squares,
}

impl<'a> Lowering<'a> {
    /// The kernels; `None` if the nodes are something else, or few elements.
    pub(super) fn gpu_reduction(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        nodes: &[NodeId],
        results: &[(NodeId, Place)],
    ) -> Option<Vec<Made>> {
        let graph = self.graph;
        let mut anchors = vec![];
        let mut how: Option<(&[usize], bool)> = None;
        for &n in nodes {
            let Some((kind, axes, keep)) = reduction_of(&graph.node(n).op) else {
                if is_elementwise(&graph.node(n).op) {
                    continue;
                }
                return None;
            };
            let x = graph.operands(n)[0];
            anchors.push((n, kind, x));
            let first = anchors[0].2;
            let (all, kept) = *how.get_or_insert((axes, keep));
            let (like, node) = (graph.node(first), graph.node(x));
            if all != axes || kept != keep || like.ty != node.ty || like.layout != node.layout {
                return None;
            }
        }
        let (axes, keep) = how?;
        let x = graph.node(anchors[0].2);
        let shape = sizes(x);
        let count: usize = axes.iter().map(|&a| shape[a]).product();
        let outputs = shape.iter().product::<usize>() / count.max(1);
        let alike = results.iter().all(|(_, p)| p.shape == sizes(graph.node(anchors[0].0)));
        if x.ty.dtype != DType::F32 || !alike {
            return None;
        }
        let order = x.layout.order(shape.len());
        let (target, options, last) = (self.gpu?, self.gpu_options, *order.last()?);
        let teams: Vec<(Team, usize)> = match axes.contains(&last) {
            true => {
                let rows = Rows::of(outputs, count, target, options);
                rows.into_iter().map(|r| (Team::Row { threads: r.threads }, r.parts)).collect()
            }
            false => {
                let columns = shape[last];
                let sizes = [outputs / columns.max(1), columns, count];
                let all = Columns::of(sizes, target, options);
                all.into_iter().map(|c| (Team::of(c, columns), c.parts)).collect()
            }
        };
        // The first whose threads access what is side by side.
        teams.into_iter().find_map(|(team, parts)| {
            let (shape, order) = (shape.clone(), order.clone());
            let r = Reduction {
                name,
                anchors: anchors.clone(),
                axes,
                keep,
                results,
                shape,
                order,
                count,
                parts,
                team,
            };
            let (mut kernels, values) = match r.parts {
                1 => (vec![r.whole(scope)?], vec![]),
                _ => self.in_parts(scope, &r)?,
            };
            if !kernels.iter().all(|made| is_wide(made, team.lanes())) {
                return None;
            }
            kernels.iter_mut().for_each(|(kernel, _)| load_ahead(kernel));
            for shape in values {
                self.new_value("", DType::F32, &shape, Role::Temporary);
            }
            Some(kernels)
        })
    }

    /// The kernels, and the shapes of the values between them.
    fn in_parts(&self, scope: &Scope<'a>, r: &Reduction) -> Option<(Vec<Made>, Vec<Vec<usize>>)> {
        // Values are added if there is something that uses them.
        let first = self.module.values.len();
        let place = |i: usize, shape: &[usize]| {
            Place::dense(ValueId((first + i) as u32), DType::F32, shape, Layout::Plain)
        };
        let sums = [vec![r.anchors.len()], r.kept_shape()].concat();
        let parts = [vec![r.anchors.len(), r.parts], r.kept_shape()].concat();
        match r.varies() {
            false => {
                let of = place(0, &parts);
                let kernels = vec![r.of_parts(scope, Pass::First, &of, None)?, r.finish(scope, &of, None)?];
                Some((kernels, vec![parts]))
            }
            true => {
                let (of, all, squares) = (place(0, &parts), place(1, &sums), place(2, &parts));
                let kernels = vec![
                    r.of_parts(scope, Pass::First, &of, None)?,
                    r.join(scope, &of, &all)?,
                    r.of_parts(scope, Pass::Squares, &squares, Some(&all))?,
                    r.finish(scope, &squares, Some(&all))?,
                ];
                Some((kernels, vec![parts.clone(), sums, parts]))
            }
        }
    }
}

impl Reduction<'_> {
    /// The dimensions that stay, in the order of the operands' memory.
    fn kept(&self) -> Vec<usize> {
        self.order.iter().copied().filter(|a| !self.axes.contains(a)).collect()
    }

    fn kept_shape(&self) -> Vec<usize> {
        self.kept().iter().map(|&a| self.shape[a]).collect()
    }

    fn varies(&self) -> bool {
        self.anchors.iter().any(|a| a.1 == ReduceKind::Variance)
    }

    /// The means of variances, whose sums are known.
    fn means(&self, b: &mut Builder, kept: &[Index], sums: Option<&Place>) -> Vec<Option<Expr>> {
        let mut means = vec![];
        for (i, &(_, kind, _)) in self.anchors.iter().enumerate() {
            means.push(sums.filter(|_| kind == ReduceKind::Variance).map(|sums| {
                let sum = b.load(sums, "sums", &[&[Index::from(i)], kept].concat());
                b.named("mean", DType::F32, div(sum, f32(self.count as f64)))
            }));
        }
        means
    }

    /// Adds an element to the totals of a pass.
    fn add_element(&self, b: &mut Builder, pass: Pass, cells: &[Cell], means: &[Option<Expr>], at: &[Index]) {
        for ((cell, mean), &(_, kind, x)) in cells.iter().zip(means).zip(&self.anchors) {
            match (pass, mean) {
                (Pass::Squares, None) => {}
                (Pass::Squares, Some(mean)) => self.add_square(b, cell, mean, x, at),
                (Pass::First, _) => {
                    let value = joined(kind, cell.get(), b.value(x, at));
                    b.assign(cell, value);
                }
            }
        }
    }

    /// The kernel that joins the parts, without what follows.
    fn join(&self, scope: &Scope, parts: &Place, to: &Place) -> Option<Made> {
        let mut b = Builder::new(&format!("{}_join", self.name), scope);
        let out = b.bind(to, Access::Write, "sums");
        let kept: Vec<Index> = self.kept_shape().iter().map(|&n| b.task("i", n)).collect();
        for (i, cell) in self.totals(&mut b, parts, &kept, |_| true).into_iter().enumerate() {
            b.store(out, [&[Index::from(i)], kept.as_slice()].concat(), cell.get());
        }
        finished(b)
    }

    /// The kernel that joins the parts and makes the results. With `sums`, the parts are those of the squares.
    fn finish(&self, scope: &Scope, parts: &Place, sums: Option<&Place>) -> Option<Made> {
        let mut b = Builder::new(self.name, scope);
        b.provided = self.anchors.iter().map(|a| a.0).collect();
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        let kept: Vec<Index> = self.kept_shape().iter().map(|&n| b.task("i", n)).collect();
        let from_parts = |kind: ReduceKind| sums.is_none() || kind == ReduceKind::Variance;
        let totals = self.totals(&mut b, parts, &kept, from_parts);
        let mut values = vec![];
        for (i, (cell, &(_, kind, _))) in totals.iter().zip(&self.anchors).enumerate() {
            let total = match sums.filter(|_| !from_parts(kind)) {
                Some(sums) => b.load(sums, "sums", &[&[Index::from(i)], kept.as_slice()].concat()),
                None => cell.get(),
            };
            let is_mean = matches!(kind, ReduceKind::Mean | ReduceKind::Variance);
            values.push(if is_mean { div(total, f32(self.count as f64)) } else { total });
        }
        self.complete(&mut b, &kept, values);
        finished(b)
    }

    /// Elementwise work and store, where the anchors have these values.
    fn complete(&self, b: &mut Builder, kept: &[Index], values: Vec<Expr>) {
        let at_kept = self.kept();
        let mut index = vec![];
        for axis in 0..self.shape.len() {
            match at_kept.iter().position(|&a| a == axis) {
                Some(i) => index.push(kept[i].clone()),
                None if self.keep => index.push(Index::default()),
                None => {}
            }
        }
        for (value, &(anchor, ..)) in values.into_iter().zip(&self.anchors) {
            let value = b.shared(DType::F32, value);
            b.memo.push((anchor, index.clone(), value));
        }
        b.store_all(self.results, &index);
    }

    /// The joined parts of the wanted anchors, in registers.
    fn totals(
        &self,
        b: &mut Builder,
        parts: &Place,
        kept: &[Index],
        wanted: impl Fn(ReduceKind) -> bool,
    ) -> Vec<Cell> {
        let cells: Vec<Cell> = self.anchors.iter().map(|_| b.cell("total", DType::F32)).collect();
        for (cell, &(_, kind, _)) in cells.iter().zip(&self.anchors) {
            b.assign(cell, start(kind));
        }
        b.each_part(self.parts, &mut |b, p| {
            for (i, (cell, &(_, kind, _))) in cells.iter().zip(&self.anchors).enumerate() {
                if wanted(kind) {
                    let part = b.load(parts, "parts", &[&[Index::from(i), p.clone()], kept].concat());
                    b.assign(cell, joined(kind, cell.get(), part));
                }
            }
        });
        cells
    }

    /// The index of a number among the elements that become one.
    fn element(&self, b: &mut Builder, kept: &[Index], number: Index) -> Vec<Index> {
        let mut at = vec![Index::default(); self.shape.len()];
        for (axis, i) in self.kept().into_iter().zip(kept) {
            at[axis] = i.clone();
        }
        let reduced: Vec<usize> = self.order.iter().copied().filter(|a| self.axes.contains(a)).collect();
        let mut rest = number;
        for (n, &axis) in reduced.iter().enumerate().rev() {
            let size = self.shape[axis];
            at[axis] = if n == 0 { rest.clone() } else { rest.rem(size, b.extents()) };
            rest = rest.div(size, b.extents());
        }
        at
    }
}

/// What a reduction puts together, over which axes, and whether it keeps them; pooling to one pixel is one.
fn reduction_of(op: &Op) -> Option<(ReduceKind, &[usize], bool)> {
    match op {
        Op::Reduce { kind, axes, keep } => Some((*kind, axes, *keep)),
        Op::AdaptiveAvgPool2d([1, 1]) => Some((ReduceKind::Mean, &PIXELS, true)),
        Op::AdaptiveMaxPool2d([1, 1]) => Some((ReduceKind::Max, &PIXELS, true)),
        _ => None,
    }
}

/// What a total starts from.
fn start(kind: ReduceKind) -> Expr {
    match kind {
        ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Variance => f32(0.0),
        ReduceKind::Prod => f32(1.0),
        ReduceKind::Max => lowest(DType::F32),
        ReduceKind::Min => f32(f64::INFINITY),
    }
}

/// A total with one more element, or part.
fn joined(kind: ReduceKind, total: Expr, x: Expr) -> Expr {
    match kind {
        ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Variance => add(total, x),
        ReduceKind::Prod => mul(total, x),
        ReduceKind::Max => max(total, x),
        ReduceKind::Min => min(total, x),
    }
}
