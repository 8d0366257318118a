//! Depthwise convolutions with channels last: a thread computes four channels, side by side, of some rows at one column.
//! What it reads of a row of the input serves all its rows that meet it; small kernels' weights stay in registers.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::Made;
use super::elements::{finished, tasks};
use super::schedule::lanes_of;
use super::wide::is_wide;
use crate::graph::op::Conv2d;
use crate::graph::{Layout, NodeId};
use crate::kernel::{Guard, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Cell, Scope};
use crate::lower::elementwise::{f32, fma, sizes};
use crate::lower::{LowerError, Lowering};

/// Rows of a thread, the most first.
const ROWS: [usize; 3] = [4, 2, 1];

/// Threads that a launch should have at least, before threads get fewer rows: a block of 256 for every multiprocessor.
const THREADS: usize = 256 * 132;

/// Places of a kernel up to which its weights are kept in registers, and up to which it is written out.
const KEPT: usize = 9;
const WRITTEN_OUT: usize = 25;

/// A convolution, and what its group gives.
struct Depthwise<'a> {
    name: &'a str,
    anchor: NodeId,
    conv: &'a Conv2d,
    results: &'a [(NodeId, Place)],
    /// `[kernel rows, kernel columns, channels]`
    weights: Place,
    rows: usize,
    lanes: usize,
}

impl<'a> Lowering<'a> {
    /// A depthwise convolution with the elementwise work after it; `None` if it is another one, has few elements, or is
    /// not in step with that work.
    pub(super) fn gpu_depthwise(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        (anchor, conv): (NodeId, &Conv2d),
        results: &[(NodeId, Place)],
    ) -> Result<Option<Made>, LowerError> {
        let node = self.graph.node(anchor);
        let shape = sizes(node);
        let weight = self.graph.operands(anchor)[1];
        let kernel = sizes(self.graph.node(weight));
        let is_depthwise = conv.groups == shape[1] && kernel[..2] == [shape[1], 1];
        let small = kernel[2] * kernel[3] <= WRITTEN_OUT;
        let fits = is_depthwise && small && results[0].1.shape == shape && !scope.members.contains(&weight);
        let elements: usize = shape.iter().product();
        let Some(lanes) = lanes_of(elements, self.gpu_options).filter(|&l| shape[1].is_multiple_of(l)) else {
            return Ok(None);
        };
        if node.layout != Layout::ChannelsLast || !fits {
            return Ok(None);
        }
        let enough = |&rows: &usize| shape[2].is_multiple_of(rows) && elements / (lanes * rows) >= THREADS;
        let rows = ROWS.into_iter().find(enough).unwrap_or(1);
        let order = [kernel[2], kernel[3], kernel[0]];
        let weights = self.repacked(weight, "pack_depthwise", &order, &|b, from, at| {
            from(b, &[at[2].clone(), Index::default(), at[0].clone(), at[1].clone()])
        })?;
        let depthwise = Depthwise { name, anchor, conv, results, weights, rows, lanes };
        Ok(depthwise.kernel(scope).filter(|made| is_wide(made, lanes)))
    }
}

impl Depthwise<'_> {
    fn kernel(&self, scope: &Scope) -> Option<Made> {
        let shape = sizes(scope.graph.node(self.anchor));
        let operands = scope.graph.operands(self.anchor);
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        let counts = [shape[0], shape[1] / self.lanes, shape[2] / self.rows, shape[3]];
        let [n, channel, row, column] =
            tasks(&mut b, &counts, &Layout::ChannelsLast.order(4)).try_into().ok()?;
        let row = row * self.rows as i64;
        b.with_lanes(self.lanes, |b, lane| {
            let channel = channel * self.lanes as i64 + lane;
            let sums: Vec<Cell> = (0..self.rows).map(|_| b.cell("sum", DType::F32)).collect();
            for sum in &sums {
                let start = match operands.get(2) {
                    Some(&bias) => b.value(bias, std::slice::from_ref(&channel)),
                    None => f32(0.0),
                };
                b.assign(sum, start);
            }
            self.add_up(b, &sums, [&n, &channel, &row, &column]);
            for (r, sum) in sums.iter().enumerate() {
                let index = [n.clone(), channel.clone(), row.clone() + r, column.clone()];
                b.memo.push((self.anchor, index.to_vec(), sum.get()));
                b.store_all(self.results, &index);
            }
        });
        finished(b)
    }

    /// Adds the products, a row of the input after the other: for each sum row by row of the kernel.
    fn add_up(&self, b: &mut Builder, sums: &[Cell], [n, channel, row, column]: [&Index; 4]) {
        let x = b.scope.graph.operands(self.anchor)[0];
        let (size, conv) = (b.shape_of(x), self.conv);
        let [rows, columns] = [self.weights.shape[0], self.weights.shape[1]];
        let weight = |b: &mut Builder, kh: usize, kw: usize| {
            b.load(&self.weights, "weight", &[kh.into(), kw.into(), channel.clone()])
        };
        let mut kept = vec![];
        if rows * columns <= KEPT {
            for place in 0..rows * columns {
                let w = weight(b, place / columns, place % columns);
                kept.push(b.named("weight", DType::F32, w));
            }
        }
        let [stride, dilation] = [conv.stride[0], conv.dilation[0]];
        for i in 0..(sums.len() - 1) * stride + (rows - 1) * dilation + 1 {
            // The sums that meet this row, and at which row of the kernel.
            let meets = |r: usize| Some(i.checked_sub(r * stride)?).filter(|k| k.is_multiple_of(dilation));
            let met: Vec<(usize, usize)> = (0..sums.len())
                .filter_map(|r| Some((r, meets(r)? / dilation)))
                .filter(|&(_, kh)| kh < rows)
                .collect();
            if met.is_empty() {
                continue;
            }
            let ih = row.clone() * stride as i64 + i - conv.padding[0];
            for kw in 0..columns {
                let iw = column.clone() * conv.stride[1] as i64 + kw * conv.dilation[1] - conv.padding[2];
                let mut inside = Guard::between(&ih, 0, size[2] as i64, b.extents());
                inside.extend(Guard::between(&iw, 0, size[3] as i64, b.extents()));
                let at = [n.clone(), channel.clone(), ih.clone(), iw];
                let v = b.guarded(inside, f32(0.0), |b| b.value(x, &at));
                let v = b.named("v", DType::F32, v);
                for &(r, kh) in &met {
                    let w = match kept.get(kh * columns + kw) {
                        Some(w) => w.clone(),
                        None => weight(b, kh, kw),
                    };
                    b.assign(&sums[r], fma(v.clone(), w, sums[r].get()));
                }
            }
        }
    }
}
