//! Convolutions as contractions, without a matrix of windows in memory: pixels are rows, output channels are
//! columns, and what is summed over are places of the kernel and input channels. Copies fetch a pixel's window
//! from where it lies.
//!
//! Transposed convolutions and the gradient of a convolution's input are the same over the pixels that they
//! write: what they read is `(pixel + padding - place) / stride`, where that is a whole number ([`remainders`] has
//! a product for each remainder where it pays). The gradient of the weights sums over pixels: rows are output channels, columns are places of the kernel and input channels.
//!
//! With channels last, both factors lie along what is summed over: a pixel's channels, and weights that are
//! brought into that order before ([`Lowering::repacked`]: once, where they are known). Where channels are whole steps,
//! a step is of one place of the kernel, whose row and column are computed once. The gradient's factors lie by
//! lines: channels of both, at a pixel.
//!
//! Row-major is what has few channels, a picture: with two or three it is brought into that order by a kernel of its own,
//! filled up to four channels, a pixel a copy; else it is read as it lies.

mod picture;
mod remainders;

use super::factor::{At, Element, Factor, wide};
use super::pooled::Windows;
use super::result::digits;
use super::which::filled_columns;
use super::{Product, Result2d};
use crate::graph::op::{Conv2d, Conv2dWeightGrad};
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::{Extents, Guard, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Operand, Scope};
use crate::lower::conv_taps::Slide;
use crate::lower::elementwise::{f32, sizes};
use crate::lower::gpu::Made;
use crate::lower::gpu::schedule::DEPTH;
use crate::lower::gpu::turned::{self, Turned};
use crate::lower::{LowerError, Lowering, Numbers};
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
        let memory = |id: NodeId| scope.operands.get(&id).and_then(in_memory);
        let (Some(x), Some(w)) = (memory(operands[0]), memory(operands[1])) else { return Ok(None) };
        let Some(schedule) = self.schedule(anchor) else { return Ok(None) };
        let factors = match &graph.node(anchor).op {
            Op::Conv2dWeightGrad(Conv2dWeightGrad { conv, .. }) if conv.groups == 1 => {
                self.weight_grad_factors(&shape, conv, (operands[0], x), w, schedule.products.factors())?
            }
            op => match Slide::of(op) {
                Some(slide) if slide.conv.groups == 1 => {
                    let bias = operands.get(2).copied();
                    let wanted = remainders::Wanted { name, anchor, results, shape: &shape, bias };
                    let weight = (&x, operands[1], w.shape.as_slice());
                    if x.layout == Layout::ChannelsLast
                        && let Some(kernels) = self.by_remainders(scope, &wanted, &slide, weight)?
                    {
                        return Ok(Some(kernels));
                    }
                    let pixels = Pixels::in_order(&shape);
                    let numbers = schedule.products.factors();
                    let factors =
                        self.conv_factors(&pixels, &slide, (operands[0], x), (operands[1], w), numbers)?;
                    factors.map(|[first, second]| (Result2d::new(&shape, &[0, 2, 3], &[1]), first, second))
                }
                _ => None,
            },
        };
        let Some((result, first, second)) = factors else { return Ok(None) };
        let bias = operands.get(2).copied();
        let product = Product { name, anchor, results, result, first, second, bias, pool: None, schedule };
        Ok(product.kernels(self, scope))
    }

    /// What these pixels meet, and the weights.
    pub(super) fn conv_factors(
        &mut self,
        pixels: &Pixels,
        slide: &Slide,
        (picture, x): (NodeId, Place),
        (weight, w): (NodeId, Place),
        numbers: Numbers,
    ) -> Result<Option<[Factor<'static>; 2]>, LowerError> {
        let kernel = [w.shape[2], w.shape[3]];
        let filled = self.filled_channels(picture);
        Ok(match (x.layout, filled) {
            (Layout::Plain, Some(channels)) => {
                let across = filled_columns(kernel[1]);
                let x = self.filled_picture((picture, numbers), &x, channels)?;
                let weights =
                    self.weights_by_place((weight, numbers), slide, &w.shape, [across, channels])?;
                let places = [kernel[0], kernel[1], across];
                Some([windows(&x, pixels.clone(), slide.clone(), places), ordered_weights(weights)])
            }
            (Layout::Plain, None) if w.layout == Layout::Plain => {
                let w = self.rounded_once(weight, w)?;
                Some([
                    picture::windows(x, pixels.clone(), slide.clone(), kernel),
                    picture::weights(w, slide.clone()),
                ])
            }
            (Layout::ChannelsLast, None) => {
                let weights =
                    self.weights_by_place((weight, numbers), slide, &w.shape, [kernel[1], x.shape[1]])?;
                let places = [kernel[0], kernel[1], kernel[1]];
                Some([windows(&x, pixels.clone(), slide.clone(), places), ordered_weights(weights)])
            }
            _ => None,
        })
    }

    /// A picture with its channels last, and so many of them: those past its own are zeros.
    fn filled_picture(
        &mut self,
        (id, numbers): (NodeId, Numbers),
        x: &Place,
        channels: usize,
    ) -> Result<Place, LowerError> {
        let [n, own, h, w] = [0, 1, 2, 3].map(|d| x.shape[d]);
        let shape = [n, h, w, channels];
        let packed = self.repacked_as(id, "pack_picture", &shape, numbers, &|b, from, at| {
            let inside = Guard::between(&at[3], 0, own as i64, b.extents());
            b.guarded(inside, f32(0.0), |b| from(b, &[0, 3, 1, 2].map(|d: usize| at[d].clone())))
        })?;
        let (shape, layout) = ([n, channels, h, w], Layout::ChannelsLast);
        Ok(Place { tf32: packed.tf32, ..Place::dense(packed.value, x.dtype, &shape, layout) })
    }

    /// Weights as `[outputs, kernel rows, kernel columns, inputs]`, of so many columns and inputs: those past their own are
    /// zeros.
    fn weights_by_place(
        &mut self,
        (weight, numbers): (NodeId, Numbers),
        slide: &Slide,
        shape: &[usize],
        filled: [usize; 2],
    ) -> Result<Place, LowerError> {
        let [outputs, inputs] = slide.channels(shape);
        let name = if slide.transposed { "pack_transposed_conv2d" } else { "pack_conv2d" };
        let packed = [outputs, shape[2], filled[0], filled[1]];
        let turned = self.turned_weights(weight, slide, shape).filter(|_| filled == [shape[3], inputs]);
        if let Some((turned, from)) = turned {
            return self.repacked_by(weight, name, &packed, numbers, &|scope, _, to| {
                let to = to.reshaped(&turned.written())?;
                turned::turned(scope, name, turned, &from, &to)
            });
        }
        self.repacked_as(weight, name, &packed, numbers, &|b, from, at| {
            let [o, kh, kw, i] = [0, 1, 2, 3].map(|d| at[d].clone());
            let mut inside = Guard::between(&kw, 0, shape[3] as i64, b.extents());
            inside.extend(Guard::between(&i, 0, inputs as i64, b.extents()));
            b.guarded(inside, f32(0.0), |b| {
                let at = slide.weight(shape, [o, i, kh, kw], b.extents());
                from(b, &at)
            })
        })
    }

    /// Weights as matrices that lie the other way round when they are packed: `None` where they lie in that order, or few
    /// are neighbours.
    fn turned_weights(&mut self, weight: NodeId, slide: &Slide, shape: &[usize]) -> Option<(Turned, Place)> {
        let places = shape[2] * shape[3];
        let matrices = match slide.transposed {
            false => [shape[0], shape[1], places],
            true => [1, shape[0], shape[1] * places],
        };
        let turned = Turned::of(matrices).filter(|_| slide.conv.groups == 1)?;
        let Ok(Operand::Memory(from)) = self.operand(weight) else { return None };
        Some((turned, from.reshaped(&matrices)?))
    }

    /// Result and factors of a gradient of weights; `None` for blocks of channels.
    fn weight_grad_factors(
        &mut self,
        shape: &[usize],
        conv: &Conv2d,
        (picture, x): (NodeId, Place),
        dy: Place,
        numbers: Numbers,
    ) -> Result<Option<Factors>, LowerError> {
        let filled = self.filled_channels(picture);
        // Columns in the order of what is read.
        let columns = match (x.layout, filled) {
            (Layout::Plain, None) => [1, 2, 3],
            (Layout::Plain, Some(_)) | (Layout::ChannelsLast, None) => [2, 3, 1],
            _ => return Ok(None),
        };
        let mut result = Result2d::new(shape, &[0], &columns);
        result.counted[1] = filled.unwrap_or(shape[1]);
        let (pixels, kernel) = ([dy.shape[2], dy.shape[3]], [shape[2], shape[3]]);
        let Some(first) = channels_of_pixels(&dy, pixels) else { return Ok(None) };
        let second = match (x.layout, filled) {
            (_, Some(channels)) => {
                shifted(&self.filled_picture((picture, numbers), &x, channels)?, conv.clone(), kernel, pixels)
            }
            (Layout::ChannelsLast, None) => shifted(&x, conv.clone(), kernel, pixels),
            _ => picture::shifted(x, conv.clone(), kernel, pixels),
        };
        Ok(Some((result, first, second)))
    }
}

/// Result and factors.
type Factors = (Result2d, Factor<'static>, Factor<'static>);

/// A tensor of f32 in memory.
pub(super) fn in_memory(operand: &Operand) -> Option<Place> {
    match operand {
        Operand::Memory(p) if p.dtype == DType::F32 => Some(p.clone()),
        _ => None,
    }
}

/// Which pixels a convolution's rows are.
#[derive(Clone, Debug)]
pub(super) struct Pixels {
    images: usize,
    /// Rows and columns, of pixels or of windows.
    size: [usize; 2],
    windows: Option<Windows>,
}

impl Pixels {
    /// All of a result of that shape, one after the other.
    fn in_order(shape: &[usize]) -> Pixels {
        Pixels { images: shape[0], size: [shape[2], shape[3]], windows: None }
    }

    /// Those of the windows of a pooled result of that shape.
    pub(super) fn by_windows(shape: &[usize], windows: Windows) -> Pixels {
        Pixels { windows: Some(windows), ..Pixels::in_order(shape) }
    }

    /// The image, row and column of a row. Past the last image, it may be any.
    fn at(&self, row: &Index, e: &Extents) -> [Index; 3] {
        let Some(windows) = self.windows else { return pixel(row, self.images, self.size, e) };
        let (window, [below, beside]) = windows.split(row, e);
        let [n, h, w] = pixel(&window, self.images, self.size, e);
        [n, h * 2 + below, w * 2 + beside]
    }
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

/// The row and column of the input that an output's meet at a place of the kernel, and where there are any.
fn met(slide: &Slide, out: [Index; 2], place: [Index; 2], e: &Extents) -> ([Index; 2], Vec<Guard>) {
    let (conv, mut guards) = (&slide.conv, vec![]);
    let mut along = |axis: usize| {
        let (out, place) = (&out[axis], &place[axis]);
        if !slide.transposed {
            return reach(conv, axis, out, place);
        }
        let (stride, padding) = (conv.stride[axis], conv.padding[2 * axis]);
        let spread = out.clone() - place.clone() * conv.dilation[axis] as i64 + padding;
        guards.extend(Guard::between(&spread.rem(stride, e), 0, 1, e));
        spread.div(stride, e)
    };
    ([along(0), along(1)], guards)
}

/// Pixels `[images, rows, columns, channels]` as a matrix with a row each; `None` if there are gaps between rows of
/// a picture.
fn matrix(x: &Place) -> Option<Place> {
    let (shape, strides) = (&x.shape, &x.strides);
    let even = |d: usize| shape[d] == 1 || strides[d] == strides[d + 1] * shape[d + 1];
    let pixels = shape[..3].iter().product();
    (even(0) && even(1)).then(|| Place {
        shape: vec![pixels, shape[3]],
        strides: vec![strides[2], strides[3]],
        ..x.clone()
    })
}

/// What can be copied at once of a pixel's channels.
fn wide_channels(x: &Place) -> usize {
    let last = x.shape.len() - 1;
    wide(&[&x.strides[..last], &[x.shape[last], x.offset]].concat())
}

/// What output pixels meet of pixels with their channels last, a line each. The kernel has so many rows and columns;
/// what is summed over counts its columns by the third number.
fn windows(
    x: &Place,
    pixels: Pixels,
    slide: Slide,
    [kernel_rows, kernel_columns, across]: [usize; 3],
) -> Factor<'static> {
    let x = x.as_it_lies();
    let inputs = x.shape[3];
    let conv = &slide.conv;
    let plain = [kernel_rows, across] == [1, 1] && conv.stride == [1, 1] && conv.padding == [0; 4];
    if plain
        && pixels.windows.is_none()
        && x.shape[1..3] == pixels.size
        && let Some(x) = matrix(&x)
    {
        let map = |at: &At, line: &Index, k: &Index, _: &Extents| -> Element {
            (vec![at.line(line), at.k(k)], vec![])
        };
        return Factor { wide: wide_channels(&x), place: x, map: Box::new(map), along_depth: true };
    }
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let [n, oh, ow] = pixels.at(&at.line(line), e);
        let [kh, kw, channel] = place_and_channel(at, k, across, inputs, e);
        // Past the last place, the picture may go on.
        let mut past = Guard::between(&kh, 0, kernel_rows as i64, e);
        past.extend(Guard::between(&kw, 0, kernel_columns as i64, e));
        let ([h, w], mut guards) = met(&slide, [oh, ow], [kh, kw], e);
        guards.extend(past);
        (vec![n, h, w, channel], guards)
    };
    Factor { wide: wide_channels(&x), place: x, map: Box::new(map), along_depth: true }
}

/// Weights by places of the kernel.
fn ordered_weights(w: Place) -> Factor<'static> {
    let (outputs, inputs, columns) = (w.shape[0], w.shape[3], w.shape[2]);
    if inputs.is_multiple_of(DEPTH) {
        let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
            let [kh, kw, channel] = place_and_channel(at, k, columns, inputs, e);
            (vec![at.line(line), kh, kw, channel], vec![])
        };
        return Factor { wide: wide_channels(&w), place: w, map: Box::new(map), along_depth: true };
    }
    let depth = w.shape[1..].iter().product::<usize>();
    let w = Place { shape: vec![outputs, depth], strides: vec![depth, 1], ..w };
    let map =
        |at: &At, line: &Index, k: &Index, _: &Extents| -> Element { (vec![at.line(line), at.k(k)], vec![]) };
    Factor { wide: wide_channels(&w), place: w, map: Box::new(map), along_depth: true }
}

/// Row and column of the kernel, and the channel, of a position in what is summed over.
fn place_and_channel(at: &At, k: &Index, columns: usize, inputs: usize, e: &Extents) -> [Index; 3] {
    let (place, channel) = match inputs.is_multiple_of(DEPTH) {
        true => {
            let steps = inputs / DEPTH;
            (at.step.div(steps, e), at.step.rem(steps, e) * DEPTH as i64 + k.clone())
        }
        false => (at.k(k).div(inputs, e), at.k(k).rem(inputs, e)),
    };
    [place.div(columns, e), place.rem(columns, e), channel]
}

/// A gradient's pixels, to be summed over: a line a channel, whichever way they lie. `None` for blocks.
fn channels_of_pixels(dy: &Place, pixels: [usize; 2]) -> Option<Factor<'static>> {
    if dy.layout == Layout::Plain {
        return picture::pixels_of_lines(dy.clone());
    }
    let x = dy.as_it_lies();
    if let Some(x) = matrix(&x) {
        let map = |at: &At, line: &Index, k: &Index, _: &Extents| -> Element {
            (vec![at.k(k), at.line(line)], vec![])
        };
        return Some(Factor { wide: wide_channels(&x), place: x, map: Box::new(map), along_depth: false });
    }
    let images = x.shape[0];
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let [n, h, w] = pixel(&at.k(k), images, pixels, e);
        (vec![n, h, w, at.line(line)], vec![])
    };
    Some(Factor { wide: wide_channels(&x), place: x, map: Box::new(map), along_depth: false })
}

/// The inputs that pixels of a gradient meet, to be summed over: a line a place of the kernel and a channel.
fn shifted(x: &Place, conv: Conv2d, kernel: [usize; 2], pixels: [usize; 2]) -> Factor<'static> {
    let x = x.as_it_lies();
    let (images, inputs) = (x.shape[0], x.shape[3]);
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let line = at.line(line);
        let (place, channel) = (line.div(inputs, e), line.rem(inputs, e));
        let [n, oh, ow] = pixel(&at.k(k), images, pixels, e);
        let h = reach(&conv, 0, &oh, &place.div(kernel[1], e));
        let w = reach(&conv, 1, &ow, &place.rem(kernel[1], e));
        (vec![n, h, w, channel], vec![])
    };
    Factor { wide: wide_channels(&x), place: x, map: Box::new(map), along_depth: false }
}
