//! Convolutions as contractions, without a matrix of windows in memory: output channels are rows, pixels are
//! columns, and what is summed over are input channels and places of the kernel. Copies fetch a pixel's window
//! from where it lies.
//!
//! Transposed convolutions and the gradient of a convolution's input are the same over the pixels that they
//! write: what they read is `(pixel + padding - place) / stride`, where that is a whole number. The gradient of
//! the weights sums over pixels: rows are output channels, columns are input channels and places of the kernel.
//!
//! Where there are whole steps of input channels, places of the kernel count slower than channels: a step is
//! then of one place, its rows and columns are computed once, and channels are a constant distance apart.
//! Weights are brought into that order before ([`Lowering::repacked`]: once, where they are known).

use super::factor::{At, Element, Factor, wide};
use super::result::digits;
use super::{Product, Result2d, Side};
use crate::graph::op::{Conv2d, Conv2dWeightGrad};
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::{Extents, Guard, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Operand, Scope};
use crate::lower::conv_taps::Slide;
use crate::lower::elementwise::sizes;
use crate::lower::gpu::Made;
use crate::lower::gpu::schedule::{DEPTH, Schedule};
use crate::lower::{LowerError, Lowering};
use nnc_runtime::DType;

impl<'a> Lowering<'a> {
    /// A convolution, transposed or not, or a gradient of one, with the elementwise work after it, by blocks;
    /// `None` where they do not pay, for grouped ones, or if an operand is computed in the same group.
    pub(in crate::lower::gpu) fn gpu_conv(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        anchor: NodeId,
        results: &[(NodeId, Place)],
    ) -> Result<Option<Vec<Made>>, LowerError> {
        let graph = self.graph;
        let shape = sizes(graph.node(anchor));
        if results[0].1.shape != shape || shape.len() != 4 {
            return Ok(None);
        }
        let operands = graph.operands(anchor);
        let memory = |id: NodeId| match scope.operands.get(&id) {
            Some(Operand::Memory(p)) if p.dtype == DType::F32 && p.layout == Layout::Plain => Some(p.clone()),
            _ => None,
        };
        let (Some(x), Some(w)) = (memory(operands[0]), memory(operands[1])) else { return Ok(None) };
        let parts = match &graph.node(anchor).op {
            Op::Conv2dWeightGrad(Conv2dWeightGrad { conv, .. }) if conv.groups == 1 => {
                self.weight_grad_parts(&shape, conv, x, w)
            }
            op => match Slide::of(op) {
                Some(slide) if slide.conv.groups == 1 => {
                    self.conv_parts(&shape, &slide, x, w, operands[1])?
                }
                _ => None,
            },
        };
        let Some((result, first, second, schedule)) = parts else { return Ok(None) };
        let bias = operands.get(2).map(|&b| (b, Side::Rows));
        let product = Product { name, anchor, results, result, first, second, bias, schedule };
        Ok(product.kernels(self, scope))
    }

    fn conv_parts(
        &mut self,
        shape: &[usize],
        slide: &Slide,
        x: Place,
        w: Place,
        weight: NodeId,
    ) -> Result<Option<Parts>, LowerError> {
        let result = Result2d::new(shape, &[1], &[0, 2, 3]);
        let kernel = [w.shape[2], w.shape[3]];
        let inputs = x.shape[1];
        let [rows, columns] = result.sides();
        let depth = inputs * kernel[0] * kernel[1];
        let Some(target) = self.gpu else { return Ok(None) };
        let Some(schedule) = Schedule::of([rows, columns, depth], 1, target, self.gpu_options) else {
            return Ok(None);
        };
        let by_place = inputs.is_multiple_of(DEPTH);
        let first = match (by_place, slide.transposed) {
            (false, false) if w.is_dense() => flat_weights(w),
            (false, _) => scattered_weights(w, slide.clone()),
            (true, _) => ordered_weights(self.weights_by_place(weight, slide, &w.shape)?),
        };
        let second = match pixels_of_columns(&x, shape, slide, kernel) {
            Some(pixels) => pixels,
            None => windows(x, shape, slide.clone(), kernel, by_place),
        };
        Ok(Some((result, first, second, schedule)))
    }

    /// Weights as `[outputs, kernel rows, kernel columns, inputs]`.
    fn weights_by_place(
        &mut self,
        weight: NodeId,
        slide: &Slide,
        shape: &[usize],
    ) -> Result<Place, LowerError> {
        let [outputs, inputs] = slide.channels(shape);
        let name = if slide.transposed { "pack_transposed_conv2d" } else { "pack_conv2d" };
        self.repacked(weight, name, &[outputs, shape[2], shape[3], inputs], &|b, from, at| {
            let [o, kh, kw, i] = [0, 1, 2, 3].map(|d| at[d].clone());
            let at = slide.weight(shape, [o, i, kh, kw], b.extents());
            from(b, &at)
        })
    }

    fn weight_grad_parts(&self, shape: &[usize], conv: &Conv2d, x: Place, dy: Place) -> Option<Parts> {
        let result = Result2d::new(shape, &[0], &[1, 2, 3]);
        let [rows, columns] = result.sides();
        let pixels = [dy.shape[2], dy.shape[3]];
        let depth = dy.shape[0] * pixels[0] * pixels[1];
        let schedule = Schedule::of([rows, columns, depth], 1, self.gpu?, self.gpu_options)?;
        let (conv, kernel) = (conv.clone(), [shape[2], shape[3]]);
        let second = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
            let [channel, kh, kw] = split(&at.line(line), kernel, e);
            let [n, oh, ow] = split(&at.k(k), pixels, e);
            let h = reach(&conv, 0, &oh, &kh);
            let w = reach(&conv, 1, &ow, &kw);
            (vec![n, channel, h, w], vec![])
        };
        let second = Factor { place: x, map: Box::new(second), along_depth: true, wide: 1 };
        Some((result, pixels_of_lines(dy)?, second, schedule))
    }
}

/// Result, factors and schedule.
type Parts = (Result2d, Factor<'static>, Factor<'static>, Schedule);

/// `[rest, i / columns, i mod columns]` of a number that counts pictures of these sizes.
fn split(i: &Index, [rows, columns]: [usize; 2], e: &Extents) -> [Index; 3] {
    let pixel = i.rem(rows * columns, e);
    [i.div(rows * columns, e), pixel.div(columns, e), pixel.rem(columns, e)]
}

/// The image, row and column of a pixel. Past the last image, it may be any.
fn pixel(i: &Index, images: usize, [rows, columns]: [usize; 2], e: &Extents) -> [Index; 3] {
    let at = digits(i, &[images, rows, columns], e);
    [0, 1, 2].map(|d| at[d].clone())
}

/// The row (or column) of the input that an output's meets at a place of the kernel.
fn reach(conv: &Conv2d, axis: usize, out: &Index, place: &Index) -> Index {
    let step = place.clone() * conv.dilation[axis] as i64;
    out.clone() * conv.stride[axis] as i64 + step - conv.padding[2 * axis]
}

/// A picture's pixels, to be summed over: one line a channel. `None` if they do not lie side by side.
fn pixels_of_lines(dy: Place) -> Option<Factor<'static>> {
    let pixels = dy.shape[2] * dy.shape[3];
    let rows = dy.shape[2] == 1 || dy.strides[2] == dy.shape[3];
    if !rows || dy.strides[3] != 1 {
        return None;
    }
    let place = Place {
        shape: vec![dy.shape[0], dy.shape[1], pixels],
        strides: vec![dy.strides[0], dy.strides[1], 1],
        ..dy
    };
    let wide = wide(&[place.strides[0], place.strides[1], pixels, place.offset]);
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let k = at.k(k);
        (vec![k.div(pixels, e), at.line(line), k.rem(pixels, e)], vec![])
    };
    Some(Factor { place, map: Box::new(map), along_depth: true, wide })
}

/// The pixels that a convolution without borders and with one place in its kernel meets: as they lie, a line a
/// pixel. `None` if it is no such, or if they do not lie side by side.
fn pixels_of_columns(
    x: &Place,
    shape: &[usize],
    slide: &Slide,
    kernel: [usize; 2],
) -> Option<Factor<'static>> {
    let pixels = x.shape[2] * x.shape[3];
    let rows = x.shape[2] == 1 || x.strides[2] == x.shape[3];
    let plain = kernel == [1, 1] && slide.conv.stride == [1, 1] && slide.conv.padding == [0; 4];
    if !plain || !rows || x.strides[3] != 1 || x.shape[2..] != shape[2..] {
        return None;
    }
    let place = Place {
        shape: vec![x.shape[0], x.shape[1], pixels],
        strides: vec![x.strides[0], x.strides[1], 1],
        ..x.clone()
    };
    let wide = wide(&[place.strides[0], place.strides[1], pixels, place.offset]);
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let line = at.line(line);
        (vec![line.div(pixels, e), at.k(k), line.rem(pixels, e)], vec![])
    };
    Some(Factor { place, map: Box::new(map), along_depth: false, wide })
}

/// Weights as they are: all of a channel's side by side.
fn flat_weights(w: Place) -> Factor<'static> {
    let depth = w.shape[1..].iter().product::<usize>();
    let place = Place { shape: vec![w.shape[0], depth], strides: vec![depth, 1], ..w };
    let wide = wide(&[depth, place.offset]);
    let map =
        |at: &At, line: &Index, k: &Index, _: &Extents| -> Element { (vec![at.line(line), at.k(k)], vec![]) };
    Factor { place, map: Box::new(map), along_depth: true, wide }
}

/// Weights in another order, where they are.
fn scattered_weights(w: Place, slide: Slide) -> Factor<'static> {
    let shape = w.shape.clone();
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let [channel, kh, kw] = split(&at.k(k), [shape[2], shape[3]], e);
        (slide.weight(&shape, [at.line(line), channel, kh, kw], e).to_vec(), vec![])
    };
    Factor { place: w, map: Box::new(map), along_depth: true, wide: 1 }
}

/// Weights by places of the kernel.
fn ordered_weights(w: Place) -> Factor<'static> {
    let (columns, inputs) = (w.shape[2], w.shape[3]);
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let (kh, kw, channel) = place_of_step(at.step, columns, inputs, e);
        (vec![at.line(line), kh, kw, channel + k.clone()], vec![])
    };
    Factor { place: w, map: Box::new(map), along_depth: true, wide: wide(&[inputs]) }
}

/// The place of the kernel and the first channel of a step.
fn place_of_step(step: &Index, columns: usize, inputs: usize, e: &Extents) -> (Index, Index, Index) {
    let steps = inputs / DEPTH;
    let place = step.div(steps, e);
    (place.div(columns, e), place.rem(columns, e), step.rem(steps, e) * DEPTH as i64)
}

/// What outputs of that shape meet of the input, a line a pixel.
fn windows(x: Place, shape: &[usize], slide: Slide, kernel: [usize; 2], by_place: bool) -> Factor<'static> {
    let (images, pixels, inputs) = (shape[0], [shape[2], shape[3]], x.shape[1]);
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let [n, oh, ow] = pixel(&at.line(line), images, pixels, e);
        let (kh, kw, channel) = match by_place {
            true => {
                let (kh, kw, channel) = place_of_step(at.step, kernel[1], inputs, e);
                (kh, kw, channel + k.clone())
            }
            false => {
                let [channel, kh, kw] = split(&at.k(k), kernel, e);
                (kh, kw, channel)
            }
        };
        let mut guards = vec![];
        let mut index = vec![n, channel];
        for (axis, (out, place)) in [(oh, kh), (ow, kw)].into_iter().enumerate() {
            if !slide.transposed {
                index.push(reach(&slide.conv, axis, &out, &place));
                continue;
            }
            let (stride, padding) = (slide.conv.stride[axis], slide.conv.padding[2 * axis]);
            let spread = out - place * slide.conv.dilation[axis] as i64 + padding;
            guards.extend(Guard::between(&spread.rem(stride, e), 0, 1, e));
            index.push(spread.div(stride, e));
        }
        (index, guards)
    };
    Factor { place: x, map: Box::new(map), along_depth: false, wide: 1 }
}
