//! Convolutions: a thread computes some output channels of some rows at one column, so that an input
//! element serves several channels and a weight several rows. Row-major, threads side by side are columns side by
//! side: what they read of the input is, too, and they share the weights. With channels last they are channels
//! side by side, which read the weights side by side, and of depthwise convolutions the input, too; a thread's
//! own channels are apart then.

use nnc_runtime::DType;
use nnc_runtime::program::{Access, Phase};

use super::Made;
use super::elements::{finished, tasks};
use crate::graph::op::Conv2d;
use crate::graph::{Layout, NodeId};
use crate::kernel::{BufferId, Expr, Guard, Index, Memory};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Scope};
use crate::lower::elementwise::{f32, fma, sizes};
use crate::lower::{LowerError, Lowering};

/// Channels and rows of a tile, the largest first: with both, a step of 32 products loads 12 elements.
const CHANNELS: [usize; 4] = [8, 4, 2, 1];
const ROWS: [usize; 3] = [4, 2, 1];

/// Threads that a launch should have at least, before tiles become smaller: two blocks of 256 for every
/// multiprocessor.
const THREADS: usize = 2 * 256 * 132;

/// A group with a convolution: results are it, or elementwise work after it.
struct Conv<'a> {
    name: &'a str,
    anchor: NodeId,
    conv: &'a Conv2d,
    results: &'a [(NodeId, Place)],
    /// Weights as `[inputs, kernel rows, kernel columns, outputs]`, if it pays to have them so.
    weights: Option<Place>,
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

/// Which channels a thread computes.
struct Channels {
    first: Index,
    /// How far they are apart.
    step: usize,
    /// The group of the convolution that they are in.
    group: Index,
}

impl Channels {
    fn at(&self, number: usize) -> Index {
        self.first.clone() + number * self.step
    }
}

impl<'a> Lowering<'a> {
    /// A convolution with the elementwise work after it, by tiles of threads; `None` if that work is not in step
    /// with it.
    pub(super) fn gpu_tiled_conv(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        (anchor, conv): (NodeId, &Conv2d),
        results: &[(NodeId, Place)],
    ) -> Result<Option<Made>, LowerError> {
        let node = self.graph.node(anchor);
        if results[0].1.shape != sizes(node) || node.ty.rank() != 4 {
            return Ok(None);
        }
        let weight = self.graph.operands(anchor)[1];
        let channels_last = node.layout == Layout::ChannelsLast;
        let once = channels_last && self.phase(weight) == Phase::Prepare;
        let mut weights = None;
        if once && !scope.members.contains(&weight) {
            let [o, i, h, w] = [0, 1, 2, 3].map(|d| sizes(self.graph.node(weight))[d]);
            weights = Some(self.repacked(weight, "pack_conv2d", &[i, h, w, o], &|b, from, at| {
                from(b, &[3, 0, 1, 2].map(|d: usize| at[d].clone()))
            })?);
        }
        Ok(Conv { name, anchor, conv, results, weights }.kernel(scope))
    }
}

impl Conv<'_> {
    fn kernel(&self, scope: &Scope) -> Option<Made> {
        let graph = scope.graph;
        let shape = sizes(graph.node(self.anchor));
        let operands = graph.operands(self.anchor);
        let groups = self.conv.groups;
        let tile = Tile::of(&shape, shape[1] / groups);
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        let layout = graph.node(self.anchor).layout;
        let sizes = [shape[0], shape[1] / tile.channels, shape[2] / tile.rows, shape[3]];
        let [n, channel, row, column] = tasks(&mut b, &sizes, &layout.order(4)).try_into().ok()?;
        let row = row * tile.rows as i64;
        let channels = self.channels(&b, channel, tile, layout);
        let sums = b.kernel.buffer("sum", DType::F32, &[tile.channels, tile.rows], Memory::Register);
        for c in 0..tile.channels {
            for r in 0..tile.rows {
                let start = match operands.get(2) {
                    Some(&bias) => b.value(bias, &[channels.at(c)]),
                    None => f32(0.0),
                };
                b.store(sums, at(c, r), start);
            }
        }
        self.add_up(&mut b, tile, sums, (&n, &channels, &row, &column));
        for c in 0..tile.channels {
            for r in 0..tile.rows {
                let index = [n.clone(), channels.at(c), row.clone() + r, column.clone()];
                b.memo.push((self.anchor, index.to_vec(), Expr::Load(sums, at(c, r))));
                b.store_all(self.results, &index);
            }
        }
        finished(b)
    }

    /// The channels of a task; a tile is inside one group.
    fn channels(&self, b: &Builder, task: Index, tile: Tile, layout: Layout) -> Channels {
        let of_group = b.shape_of(b.scope.graph.operands(self.anchor)[1])[0] / self.conv.groups;
        let tasks = (of_group / tile.channels).max(1);
        let group = match self.conv.groups {
            1 => Index::default(),
            _ => task.div(tasks, b.extents()),
        };
        match layout {
            Layout::ChannelsLast => {
                let within = if self.conv.groups == 1 { task } else { task.rem(tasks, b.extents()) };
                Channels { first: group.clone() * of_group as i64 + within, step: tasks, group }
            }
            Layout::Plain | Layout::Blocked(_) => {
                Channels { first: task * tile.channels as i64, step: 1, group }
            }
        }
    }

    /// Adds all products.
    fn add_up(
        &self,
        b: &mut Builder,
        tile: Tile,
        sums: BufferId,
        (n, channels, row, column): (&Index, &Channels, &Index, &Index),
    ) {
        let operands = b.scope.graph.operands(self.anchor);
        let (x_shape, w_shape) = (b.shape_of(operands[0]), b.shape_of(operands[1]));
        let c = self.conv;
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
                        let from = channels.group.clone() * w_shape[1] as i64 + ic.clone();
                        let at_x = [n.clone(), from, ih, iw.clone()];
                        let x = b.guarded(inside, f32(0.0), |b| b.value(operands[0], &at_x));
                        b.store(inputs, at(0, r), x);
                    }
                    for t in 0..tile.channels {
                        let (ic, kh, kw) = (ic.clone(), kh.clone(), kw.clone());
                        let w = match &self.weights {
                            Some(ordered) => b.load(ordered, "weight", &[ic, kh, kw, channels.at(t)]),
                            None => b.value(operands[1], &[channels.at(t), ic, kh, kw]),
                        };
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
