//! Factors that lie row-major: pictures, of few channels, and their weights as they are. Windows are copied an
//! element at a time.

use super::{Element, Pixels, reach};
use crate::graph::op::Conv2d;
use crate::kernel::{Extents, Index};
use crate::lower::access::Place;
use crate::lower::conv_taps::Slide;
use crate::lower::gpu::product::factor::{At, Factor, wide};

/// `[rest, i / columns, i mod columns]` of a number that counts pictures of these sizes.
fn split(i: &Index, [rows, columns]: [usize; 2], e: &Extents) -> [Index; 3] {
    let pixel = i.rem(rows * columns, e);
    [i.div(rows * columns, e), pixel.div(columns, e), pixel.rem(columns, e)]
}

/// What output pixels meet of the input, a line a pixel.
pub(super) fn windows(x: Place, pixels: Pixels, slide: Slide, kernel: [usize; 2]) -> Factor<'static> {
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let [n, oh, ow] = pixels.at(&at.line(line), e);
        let [channel, kh, kw] = split(&at.k(k), kernel, e);
        let ([h, w], guards) = super::met(&slide, [oh, ow], [kh, kw], e);
        (vec![n, channel, h, w], guards)
    };
    Factor { place: x, map: Box::new(map), along_depth: false, wide: 1 }
}

/// Weights as they are: all of a channel's side by side, or, of a transposed convolution, in another order.
pub(super) fn weights(w: Place, slide: Slide) -> Factor<'static> {
    if !slide.transposed && w.is_dense() {
        let depth = w.shape[1..].iter().product::<usize>();
        let place = Place { shape: vec![w.shape[0], depth], strides: vec![depth, 1], ..w };
        let wide = wide(&[depth, place.offset]);
        let map = |at: &At, line: &Index, k: &Index, _: &Extents| -> Element {
            (vec![at.line(line), at.k(k)], vec![])
        };
        return Factor { place, map: Box::new(map), along_depth: true, wide };
    }
    let shape = w.shape.clone();
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let [channel, kh, kw] = split(&at.k(k), [shape[2], shape[3]], e);
        (slide.weight(&shape, [at.line(line), channel, kh, kw], e).to_vec(), vec![])
    };
    Factor { place: w, map: Box::new(map), along_depth: true, wide: 1 }
}

/// A picture's pixels, to be summed over: one line a channel. `None` if they do not lie side by side.
pub(super) fn pixels_of_lines(dy: Place) -> Option<Factor<'static>> {
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

/// The inputs that pixels of a gradient meet, to be summed over: a line a channel and a place of the kernel.
pub(super) fn shifted(x: Place, conv: Conv2d, kernel: [usize; 2], pixels: [usize; 2]) -> Factor<'static> {
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let [channel, kh, kw] = split(&at.line(line), kernel, e);
        let [n, oh, ow] = split(&at.k(k), pixels, e);
        (vec![n, channel, reach(&conv, 0, &oh, &kh), reach(&conv, 1, &ow, &kw)], vec![])
    };
    Factor { place: x, map: Box::new(map), along_depth: true, wide: 1 }
}
