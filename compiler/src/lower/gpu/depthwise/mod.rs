//! Depthwise convolutions with channels last, and the gradients of their inputs: a thread computes four channels (one
//! where there are few elements, or no multiple of four), side by side, of some rows at one column. What it reads serves
//! all its outputs that [meet](meetings) it; small kernels' weights stay in registers. With strides, a thread of a gradient
//! has as many rows and columns as they say, or a multiple: of every remainder one, so that each knows its places of the
//! kernel.
//!
//! [`weights`] has the gradients of the weights.

mod meetings;
mod weights;

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use self::meetings::{Meeting, Meetings};
use super::Made;
use super::elements::{finished, tasks, with_lanes};
use super::schedule::{Blocks, lanes_of};
use super::wide::is_wide;
use crate::graph::op::Conv2dWeightGrad;
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::ValueId;
use crate::kernel::{Guard, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Cell, Scope};
use crate::lower::conv_taps::Slide;
use crate::lower::elementwise::{f32, fma, sizes};
use crate::lower::{LowerError, Lowering};

/// Rows of a thread, the most first.
const ROWS: [usize; 3] = [4, 2, 1];

/// Threads that a launch should have at least, before threads get fewer rows: a block of 256 for every multiprocessor.
const THREADS: usize = 256 * 132;

/// Places of a kernel up to which its weights are kept in registers, and up to which it is written out.
const KEPT: usize = 9;
const WRITTEN_OUT: usize = 25;

/// Pixels that the strides of a gradient make a thread compute at most.
const MOST_OUTS: usize = 9;

/// A convolution, and what its group gives.
struct Depthwise<'a> {
    name: &'a str,
    anchor: NodeId,
    slide: &'a Slide,
    results: &'a [(NodeId, Place)],
    /// `[kernel rows, kernel columns, channels]`
    weights: Place,
    lanes: usize,
    /// Threads that there should be, before they get fewer rows.
    threads: usize,
}

impl<'a> Lowering<'a> {
    /// A depthwise convolution or a gradient of one, with the elementwise work after it; `None` if it is another one, lies
    /// otherwise, has a large kernel, or is not in step with that work.
    pub(super) fn gpu_depthwise(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        anchor: NodeId,
        results: &[(NodeId, Place)],
    ) -> Result<Option<Vec<Made>>, LowerError> {
        let node = self.graph.node(anchor);
        if results[0].1.shape != sizes(node) {
            return Ok(None);
        }
        if let Op::Conv2dWeightGrad(Conv2dWeightGrad { conv, .. }) = &node.op {
            return Ok(self.depthwise_weight_grad(scope, name, (anchor, conv), results));
        }
        match Slide::of(&node.op) {
            Some(slide) if node.layout == Layout::ChannelsLast => {
                self.depthwise_conv(scope, name, (anchor, &slide), results)
            }
            _ => Ok(None),
        }
    }

    fn depthwise_conv(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        (anchor, slide): (NodeId, &Slide),
        results: &[(NodeId, Place)],
    ) -> Result<Option<Vec<Made>>, LowerError> {
        let shape = sizes(self.graph.node(anchor));
        let weight = self.graph.operands(anchor)[1];
        let kernel = sizes(self.graph.node(weight));
        let is_depthwise = slide.conv.groups == shape[1] && kernel[..2] == [shape[1], 1];
        let few_outs = !slide.transposed || slide.conv.stride.iter().product::<usize>() <= MOST_OUTS;
        let small = kernel[2] * kernel[3] <= WRITTEN_OUT && few_outs;
        if !is_depthwise || !small || scope.members.contains(&weight) {
            return Ok(None);
        }
        let order = [kernel[2], kernel[3], kernel[0]];
        let wide = lanes_of(shape.iter().product(), self.gpu_options).filter(|&l| shape[1].is_multiple_of(l));
        // Weights are packed if there is something that uses them.
        let none = ValueId(self.module.values.len() as u32);
        let weights = Place::dense(none, DType::F32, &order, Layout::Plain);
        let threads = if self.gpu_options.blocks == Blocks::Always { 0 } else { THREADS };
        let mut depthwise = Depthwise { name, anchor, slide, results, weights, lanes: 1, threads };
        let fits = |&lanes: &usize| {
            depthwise.lanes = lanes;
            depthwise.kernel(scope).is_some_and(|made| lanes == 1 || is_wide(&made, lanes))
        };
        let Some(lanes) = wide.into_iter().chain([1]).find(fits) else { return Ok(None) };
        depthwise.lanes = lanes;
        depthwise.weights = self.repacked(weight, "pack_depthwise", &order, &|b, from, at| {
            from(b, &[at[2].clone(), Index::default(), at[0].clone(), at[1].clone()])
        })?;
        Ok(depthwise.kernel(scope).map(|made| vec![made]))
    }
}

impl Depthwise<'_> {
    /// What the outputs of a thread take along rows and along columns.
    fn meetings(&self, shape: &[usize]) -> [Meetings; 2] {
        let [least, columns] = if self.slide.transposed { self.slide.conv.stride } else { [1, 1] };
        let elements: usize = shape.iter().product();
        let enough = |&rows: &usize| {
            let fits = rows.is_multiple_of(least) && shape[2].is_multiple_of(rows);
            fits && elements / (self.lanes * rows * columns) >= self.threads
        };
        let rows = ROWS.into_iter().find(enough).unwrap_or(least);
        [(0, rows), (1, columns)]
            .map(|(axis, outs)| Meetings::of(self.slide, axis, self.weights.shape[axis], outs))
    }

    fn kernel(&self, scope: &Scope) -> Option<Made> {
        let shape = sizes(scope.graph.node(self.anchor));
        let operands = scope.graph.operands(self.anchor);
        let mut b = Builder::new(self.name, scope);
        b.provided = vec![self.anchor];
        for (_, place) in self.results {
            b.bind(place, Access::Write, "out");
        }
        let meetings = self.meetings(&shape);
        let [rows, columns] = [0, 1].map(|axis| meetings[axis].outs);
        let counts = [shape[0], shape[1] / self.lanes, shape[2].div_ceil(rows), shape[3].div_ceil(columns)];
        let [n, channel, row, column] =
            tasks(&mut b, &counts, &Layout::ChannelsLast.order(4)).try_into().ok()?;
        with_lanes(&mut b, self.lanes, |b, lane| {
            let channel = channel * self.lanes as i64 + lane;
            let sums: Vec<Cell> = (0..rows * columns).map(|_| b.cell("sum", DType::F32)).collect();
            for sum in &sums {
                let start = match operands.get(2) {
                    Some(&bias) => b.value(bias, std::slice::from_ref(&channel)),
                    None => f32(0.0),
                };
                b.assign(sum, start);
            }
            self.add_up(b, &sums, &meetings, [&n, &channel, &row, &column]);
            for (i, sum) in sums.iter().enumerate() {
                let out_row = row.clone() * rows as i64 + i / columns;
                let out_column = column.clone() * columns as i64 + i % columns;
                let mut inside = Guard::between(&out_row, 0, shape[2] as i64, b.extents());
                inside.extend(Guard::between(&out_column, 0, shape[3] as i64, b.extents()));
                b.when(inside, |b| {
                    let index = [n.clone(), channel.clone(), out_row, out_column];
                    b.memo.push((self.anchor, index.to_vec(), sum.get()));
                    b.store_all(self.results, &index);
                });
            }
        });
        finished(b)
    }

    /// Adds the products, an input after the other, row by row.
    fn add_up(
        &self,
        b: &mut Builder,
        sums: &[Cell],
        meetings: &[Meetings; 2],
        [n, channel, row, column]: [&Index; 4],
    ) {
        let x = b.scope.graph.operands(self.anchor)[0];
        let size = b.shape_of(x);
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
        let met = |rows: &[Meeting], columns: &[Meeting]| -> Vec<(Meeting, Meeting)> {
            rows.iter().flat_map(|&r| columns.iter().map(move |&c| (r, c))).collect()
        };
        for of_row in meetings[0].inputs() {
            let ih = row.clone() * meetings[0].step as i64 + Index::from(of_row[0].input);
            for of_column in meetings[1].inputs() {
                let iw = column.clone() * meetings[1].step as i64 + Index::from(of_column[0].input);
                let mut inside = Guard::between(&ih, 0, size[2] as i64, b.extents());
                inside.extend(Guard::between(&iw, 0, size[3] as i64, b.extents()));
                let at = [n.clone(), channel.clone(), ih.clone(), iw];
                let v = b.guarded(inside, f32(0.0), |b| b.value(x, &at));
                let v = b.named("v", DType::F32, v);
                for (r, c) in met(of_row, of_column) {
                    let w = match kept.get(r.place * columns + c.place) {
                        Some(w) => w.clone(),
                        None => weight(b, r.place, c.place),
                    };
                    let sum = &sums[r.out * meetings[1].outs + c.out];
                    b.assign(sum, fma(v.clone(), w, sum.get()));
                }
            }
        }
    }
}
