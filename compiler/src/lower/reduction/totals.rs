//! Adding up the elements of a part, in registers.

use nnc_runtime::DType;

use super::{Apart, Cut, Total};
use crate::graph::NodeId;
use crate::kernel::{BinOp, Expr, Index};
use crate::lower::builder::{Builder, Cell};
use crate::lower::elementwise::{add, div, f32, fma, sub};

/// Registers that one sum is spread over at most: an addition takes so long that twice as many
/// could begin meanwhile, but loading is slower than that.
const CHAINS: usize = 4;

/// Where a task is: the index of its first element, and the position of each of its vectors along
/// the axis of lanes.
pub(super) struct Task {
    pub at: Vec<Index>,
    pub channels: Vec<Index>,
}

/// A term: the total's number, the vector's number, the index of the element.
type Term<'t> = dyn Fn(&mut Builder, usize, usize, &[Index]) -> Expr + 't;

impl Apart<'_> {
    /// Adds up all totals of a part: a register for each vector and total.
    pub(super) fn totals(&self, b: &mut Builder, task: &Task) -> Vec<Vec<Cell>> {
        let sums: Vec<NodeId> = self.of.totals.iter().filter_map(|t| t.summed()).collect();
        let squares: Vec<NodeId> = self.of.totals.iter().filter_map(|t| t.squared()).collect();
        self.hoist(b, task);
        let term = |b: &mut Builder, t: usize, _: usize, at: &[Index]| b.value(sums[t], at);
        let sums_of = self.add_up(b, task, sums.len(), &term);
        let count = f32(self.space.part_elements() as f64);
        let mut means: Vec<Vec<Expr>> = vec![];
        for cells in &sums_of {
            let mean = |x: &NodeId| {
                let sum = cells[sums.iter().position(|s| s == x).unwrap_or_default()].get();
                div(sum, count.clone())
            };
            let values: Vec<Expr> = squares.iter().map(mean).collect();
            means.push(values.into_iter().map(|v| b.named("mean", DType::F32, v)).collect());
        }
        let term = |b: &mut Builder, t: usize, v: usize, at: &[Index]| {
            let x = b.value(squares[t], at);
            let d = b.named("distance", DType::F32, sub(x, means[v][t].clone()));
            Expr::Binary(BinOp::Mul, Box::new(d.clone()), Box::new(d))
        };
        let squares_of = match squares.is_empty() {
            true => vec![vec![]; task.channels.len()],
            false => self.add_up(b, task, squares.len(), &term),
        };
        let of = |t: &Total, v: usize| match *t {
            Total::Sum(x) => sums_of[v][sums.iter().position(|s| *s == x).unwrap_or_default()].clone(),
            Total::Squares(x) => {
                squares_of[v][squares.iter().position(|s| *s == x).unwrap_or_default()].clone()
            }
        };
        (0..task.channels.len()).map(|v| self.of.totals.iter().map(|t| of(t, v)).collect()).collect()
    }

    /// Computes what is the same for all elements of the part first.
    fn hoist(&self, b: &mut Builder, task: &Task) {
        let (x, channel) = (self.of.anchors[0].2, self.space.channel.0);
        for position in &task.channels {
            let mut at = task.at.clone();
            at[channel] = position.clone();
            b.hoist(&b.shape_of(x), &at, channel);
        }
    }

    /// The sums of `count` terms over the elements of the part.
    fn add_up(&self, b: &mut Builder, task: &Task, count: usize, term: &Term) -> Vec<Vec<Cell>> {
        let vectors = task.channels.len();
        let inner = self.space.reduced.last().map_or(1, |c| c.each);
        let chains = (self.of.registers / 2 / (count * vectors).max(1)).clamp(1, CHAINS.min(inner));
        let mut cells: Vec<Vec<Vec<Cell>>> = vec![];
        for _ in 0..vectors {
            let mut of_vector = vec![];
            for _ in 0..count {
                of_vector.push((0..chains).map(|_| b.cell("sum", DType::F32)).collect());
            }
            cells.push(of_vector);
        }
        for cell in cells.iter().flatten().flatten() {
            b.assign(cell, f32(0.0));
        }
        self.nest(b, &self.space.reduced, task.at.clone(), chains, &mut |b, at, chain| {
            for (v, position) in task.channels.iter().enumerate() {
                let mut at = at.to_vec();
                at[self.space.channel.0] = position.clone();
                self.keep_shared(b, &at);
                for (t, chains) in cells[v].iter().enumerate() {
                    let cell = &chains[chain];
                    let value = match term(b, t, v, &at) {
                        Expr::Binary(BinOp::Mul, x, y) => fma(*x, *y, cell.get()),
                        x => add(cell.get(), x),
                    };
                    b.assign(cell, value);
                }
            }
        });
        let joined = |b: &mut Builder, cells: Vec<Cell>| {
            let mut step = 1;
            while step < cells.len() {
                for i in (0..cells.len() - step).step_by(2 * step) {
                    b.assign(&cells[i], add(cells[i].get(), cells[i + step].get()));
                }
                step *= 2;
            }
            cells[0].clone()
        };
        cells.into_iter().map(|v| v.into_iter().map(|chains| joined(b, chains)).collect()).collect()
    }

    /// Loads what several of the sums need once.
    fn keep_shared(&self, b: &mut Builder, at: &[Index]) {
        let x = self.of.anchors[0].2;
        let (graph, shape) = (b.scope.graph, b.shape_of(x));
        for &n in self.of.nodes {
            for operand in graph.operands(n) {
                let outside = !self.of.nodes.contains(&operand) && b.shape_of(operand) == shape;
                let users = graph.users(operand).iter().filter(|u| self.of.nodes.contains(u)).count();
                if outside && users > 1 {
                    b.keep(operand, at);
                }
            }
        }
    }

    /// Loops over the elements of a part; the innermost one does `chains` of them a time.
    fn nest(
        &self,
        b: &mut Builder,
        cuts: &[Cut],
        at: Vec<Index>,
        chains: usize,
        body: &mut dyn FnMut(&mut Builder, &[Index], usize),
    ) {
        let Some((cut, rest)) = cuts.split_first() else { return body(b, &at, 0) };
        let first = at[cut.axis].clone();
        if !rest.is_empty() {
            return b.serial("k", cut.each, |b, k| {
                let mut at = at;
                at[cut.axis] = first + k;
                self.nest(b, rest, at, chains, body);
            });
        }
        let mut step = |b: &mut Builder, from: Index, n: usize| {
            for chain in 0..n {
                let mut at = at.clone();
                at[cut.axis] = first.clone() + from.clone() + chain;
                body(b, &at, chain);
            }
        };
        let whole = cut.each / chains * chains;
        b.serial("k", cut.each / chains, |b, k| step(b, k * chains as i64, chains));
        step(b, Index::from(whole), cut.each - whole);
    }
}

impl Total {
    /// The value that is added up.
    pub(super) fn of(&self) -> NodeId {
        match self {
            Total::Sum(x) | Total::Squares(x) => *x,
        }
    }

    fn summed(&self) -> Option<NodeId> {
        if let Total::Sum(x) = self { Some(*x) } else { None }
    }

    fn squared(&self) -> Option<NodeId> {
        if let Total::Squares(x) = self { Some(*x) } else { None }
    }
}
