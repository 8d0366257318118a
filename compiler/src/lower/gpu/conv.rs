//! Convolutions: a thread computes some output channels of some rows at one column, so that an input
//! element serves several channels and a weight several rows. Threads side by side are columns side by
//! side: what they read of the input is, too, and they share the weights.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::Made;
use super::elements::finished;
use crate::graph::op::Conv2d;
use crate::graph::{NodeId, Op};
use crate::kernel::{BufferId, Expr, Guard, Index, Memory};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Scope};
use crate::lower::elementwise::{f32, fma, sizes};

/// Channels and rows of a tile, the largest first: with both, a step of 32 products loads 12 elements.
const CHANNELS: [usize; 4] = [8, 4, 2, 1];
const ROWS: [usize; 3] = [4, 2, 1];

/// Threads that a launch should have at least, before tiles become smaller: two blocks of 256 for every
/// multiprocessor.
const THREADS: usize = 2 * 256 * 132;

/// A group with a convolution: results are it, or elementwise work after it.
pub(super) struct Conv<'a> {
    pub name: &'a str,
    pub anchor: NodeId,
    pub conv: &'a Conv2d,
    pub results: &'a [(NodeId, Place)],
}

/// Channels and rows of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    channels: usize,
    rows: usize,
}

impl Tile {
    /// The largest tile that divides a result of that shape, the channels of a group among them, and
    /// leaves enough threads.
    fn of(shape: &[usize], group: usize) -> Tile {
        let elements: usize = shape.iter().product();
        let fits = |channels: usize, rows: usize| {
            let divides = group.is_multiple_of(channels) && shape[2].is_multiple_of(rows);
            divides && elements / (channels * rows) >= THREADS
        };
        let all = CHANNELS.into_iter().flat_map(|c| ROWS.map(|r| (c, r)));
        let best = all.filter(|&(c, r)| fits(c, r)).max_by_key(|&(c, r)| (c * r, c));
        let (channels, rows) = best.unwrap_or((1, 1));
        Tile { channels, rows }
    }
}

impl Conv<'_> {
    /// The kernel; `None` if the work after the convolution is not in step with it.
    pub fn kernel(&self, scope: &Scope) -> Option<Made> {
        let graph = scope.graph;
        let shape = sizes(graph.node(self.anchor));
        if self.results[0].1.shape != shape || shape.len() != 4 {
            return None;
        }
        let operands = graph.operands(self.anchor);
        let groups = self.conv.groups;
        let tile = Tile::of(&shape, shape[1] / groups);
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        let n = b.task("n", shape[0]);
        let channel = b.task("c", shape[1] / tile.channels) * tile.channels as i64;
        let row = b.task("h", shape[2] / tile.rows) * tile.rows as i64;
        let column = b.task("w", shape[3]);
        let sums = b.kernel.buffer("sum", DType::F32, &[tile.channels, tile.rows], Memory::Register);
        for c in 0..tile.channels {
            for r in 0..tile.rows {
                let start = match operands.get(2) {
                    Some(&bias) => b.value(bias, &[channel.clone() + c]),
                    None => f32(0.0),
                };
                b.store(sums, at(c, r), start);
            }
        }
        self.add_up(&mut b, tile, sums, [&n, &channel, &row, &column]);
        for c in 0..tile.channels {
            for r in 0..tile.rows {
                let index = [n.clone(), channel.clone() + c, row.clone() + r, column.clone()];
                b.memo.push((self.anchor, index.to_vec(), Expr::Load(sums, at(c, r))));
                b.store_all(self.results, &index);
            }
        }
        finished(b)
    }

    /// Adds all products.
    fn add_up(&self, b: &mut Builder, tile: Tile, sums: BufferId, [n, channel, row, column]: [&Index; 4]) {
        let operands = b.scope.graph.operands(self.anchor);
        let (x_shape, w_shape) = (b.shape_of(operands[0]), b.shape_of(operands[1]));
        let c = self.conv;
        let group = match c.groups {
            1 => Index::default(),
            // A tile is inside one group.
            groups => channel.div((w_shape[0] / groups).max(1), b.extents()),
        };
        let inputs = b.kernel.buffer("v", DType::F32, &[1, tile.rows], Memory::Register);
        let weight = b.kernel.buffer("k", DType::F32, &[1], Memory::Register);
        b.serial("ic", w_shape[1], |b, ic| {
            b.serial("kh", w_shape[2], |b, kh| {
                b.serial("kw", w_shape[3], |b, kw| {
                    let iw = column.clone() * c.stride[1] as i64 + kw.clone() * c.dilation[1] as i64
                        - c.padding[2];
                    for r in 0..tile.rows {
                        let ih = (row.clone() + r) * c.stride[0] as i64 + kh.clone() * c.dilation[0] as i64
                            - c.padding[0];
                        let mut inside = Guard::between(&ih, 0, x_shape[2] as i64, b.extents());
                        inside.extend(Guard::between(&iw, 0, x_shape[3] as i64, b.extents()));
                        let from = group.clone() * w_shape[1] as i64 + ic.clone();
                        let at_x = [n.clone(), from, ih, iw.clone()];
                        let x = b.guarded(inside, f32(0.0), |b| b.value(operands[0], &at_x));
                        b.store(inputs, at(0, r), x);
                    }
                    for t in 0..tile.channels {
                        let w =
                            b.value(operands[1], &[channel.clone() + t, ic.clone(), kh.clone(), kw.clone()]);
                        b.store(weight, vec![Index::default()], w);
                        for r in 0..tile.rows {
                            let (x, w) =
                                (Expr::Load(inputs, at(0, r)), Expr::Load(weight, vec![Index::default()]));
                            b.store(sums, at(t, r), fma(x, w, Expr::Load(sums, at(t, r))));
                        }
                    }
                });
            });
        });
    }
}

/// The place of an element of a tile.
fn at(channel: usize, row: usize) -> Vec<Index> {
    vec![Index::from(channel), Index::from(row)]
}

/// The convolution among the anchors, if it is the only one.
pub(super) fn conv_of<'s>(scope: &Scope<'s>, anchors: &[NodeId]) -> Option<(NodeId, &'s Conv2d)> {
    let &[anchor] = anchors else { return None };
    match &scope.graph.node(anchor).op {
        Op::Conv2d(conv) => Some((anchor, conv)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_leave_enough_threads() {
        assert_eq!(Tile::of(&[64, 64, 56, 56], 64), Tile { channels: 8, rows: 4 });
        assert_eq!(Tile::of(&[1, 16, 10, 10], 16), Tile { channels: 1, rows: 1 });
        // Three channels a group, seven rows: neither divides.
        assert_eq!(Tile::of(&[512, 96, 7, 7], 3), Tile { channels: 1, rows: 1 });
    }
}
