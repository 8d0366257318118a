//! Transposed convolutions with strides, and the gradients of inputs of convolutions with strides, without zeros:
//! the pixels with the same remainders modulo the strides take the same places of the kernel, and all of them. They
//! are a product of their own, over a part of the kernel: with strides of two a quarter of the work, in four kernels.

use super::{Factor, Product, Result2d, Slide, pixel, place_and_channel, wide_channels};
use crate::graph::NodeId;
use crate::kernel::{Expr, Extents, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Scope};
use crate::lower::elementwise::f32;
use crate::lower::gpu::Made;
use crate::lower::gpu::elements::{finished, tasks};
use crate::lower::gpu::product::factor::{At, Element};
use crate::lower::gpu::schedule::Schedule;
use crate::lower::{LowerError, Lowering};
use nnc_runtime::program::Access;

/// The pixels along an axis with the same remainder, and what they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Comb {
    /// How many there are, the first one, and how far they are apart.
    size: usize,
    origin: usize,
    spacing: usize,
    /// Places of the kernel, the first one, and how far they are apart.
    taps: usize,
    first_tap: usize,
    tap_step: usize,
    /// The input that the first pixel takes at the first of these places, and how far it goes back at the next one.
    input: i64,
    back: i64,
}

impl Comb {
    /// Those along an axis of `size` pixels that are not empty.
    fn all(slide: &Slide, axis: usize, kernel: usize, size: usize) -> Vec<Comb> {
        let (stride, dilation) = (slide.conv.stride[axis], slide.conv.dilation[axis]);
        let padding = slide.conv.padding[2 * axis] as i64;
        let comb = |origin: usize| {
            let reach = |tap: usize| origin as i64 + padding - (tap * dilation) as i64;
            let taps: Vec<usize> = (0..kernel).filter(|&k| reach(k) % stride as i64 == 0).collect();
            let first_tap = taps.first().copied().unwrap_or_default();
            let tap_step = taps.get(1).map_or(1, |second| second - first_tap);
            Comb {
                size: (size - origin).div_ceil(stride),
                origin,
                spacing: stride,
                taps: taps.len(),
                first_tap,
                tap_step,
                input: reach(first_tap).div_euclid(stride as i64),
                back: (tap_step * dilation) as i64 / stride as i64,
            }
        };
        (0..stride.min(size)).map(comb).collect()
    }
}

/// What is computed: the convolution's node, what its group gives, its shape.
pub(super) struct Wanted<'w> {
    pub name: &'w str,
    pub anchor: NodeId,
    pub results: &'w [(NodeId, Place)],
    pub shape: &'w [usize],
    pub bias: Option<NodeId>,
}

impl<'a> Lowering<'a> {
    /// The kernels; `None` where one product is as good. `x` has its channels last, weights are
    /// `[outputs, kernel rows, kernel columns, inputs]`.
    pub(super) fn by_remainders(
        &mut self,
        scope: &Scope<'a>,
        wanted: &Wanted,
        slide: &Slide,
        (x, weight, weight_shape): (&Place, NodeId, &[usize]),
    ) -> Result<Option<Vec<Made>>, LowerError> {
        if !slide.transposed || slide.conv.stride == [1, 1] {
            return Ok(None);
        }
        let axis = |i: usize| Comb::all(slide, i, weight_shape[2 + i], wanted.shape[2 + i]);
        let (rows, columns) = (axis(0), axis(1));
        let pairs = rows.iter().flat_map(|&r| columns.iter().map(move |&c| [r, c]));
        let options = self.options_of(wanted.anchor);
        let mut combs = vec![];
        for comb in pairs {
            let result = result(wanted.shape, comb);
            let depth = comb[0].taps * comb[1].taps * x.shape[1];
            let [rows, columns] = result.sides();
            let Some(target) = self.gpu else { return Ok(None) };
            let schedule = Schedule::of([rows, columns, depth], 1, target, options);
            if depth > 0 && schedule.is_none() {
                return Ok(None);
            }
            combs.push((comb, result, schedule));
        }
        let (weight, filled) = ((weight, options.products.factors()), [weight_shape[3], x.shape[1]]);
        let weights = self.weights_by_place(weight, slide, weight_shape, filled)?;
        let mut kernels = vec![];
        for (comb, result, schedule) in combs {
            let made = match schedule {
                None => nothing_met(scope, wanted, &result).map(|kernel| vec![kernel]),
                Some(schedule) => {
                    let Wanted { name, anchor, results, bias, .. } = *wanted;
                    let (first, second) = (inputs(x, wanted.shape[0], comb), places(weights.clone(), comb));
                    Product { name, anchor, results, result, first, second, bias, pool: None, schedule }
                        .kernels(self, scope)
                }
            };
            match made {
                Some(made) => kernels.extend(made),
                None => return Ok(None),
            }
        }
        Ok(Some(kernels))
    }
}

/// The pixels of a comb as rows, all channels as columns.
fn result(shape: &[usize], [rows, columns]: [Comb; 2]) -> Result2d {
    let part = [shape[0], shape[1], rows.size, columns.size];
    let mut result = Result2d::new(&part, &[0, 2, 3], &[1]);
    result.spread = vec![(0, 1), (0, 1), (rows.origin, rows.spacing), (columns.origin, columns.spacing)];
    result
}

/// What the pixels of a comb take of the input, a line each.
fn inputs(x: &Place, images: usize, comb: [Comb; 2]) -> Factor<'static> {
    let x = x.as_it_lies();
    let inputs = x.shape[3];
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let [n, row, column] = pixel(&at.line(line), images, comb.map(|c| c.size), e);
        let [i, j, channel] = place_and_channel(at, k, comb[1].taps, inputs, e);
        // Past the last place, the picture may go on.
        let guards = crate::kernel::Guard::between(&i, 0, comb[0].taps as i64, e);
        let met = |c: Comb, out: Index, tap: Index| out - tap * c.back + Index::from(c.input);
        (vec![n, met(comb[0], row, i), met(comb[1], column, j), channel], guards)
    };
    Factor { wide: wide_channels(&x), place: x, map: Box::new(map), along_depth: true }
}

/// The weights at the places that a comb takes.
fn places(w: Place, comb: [Comb; 2]) -> Factor<'static> {
    let inputs = w.shape[3];
    let map = move |at: &At, line: &Index, k: &Index, e: &Extents| -> Element {
        let [i, j, channel] = place_and_channel(at, k, comb[1].taps, inputs, e);
        let place = |c: Comb, tap: Index| tap * c.tap_step as i64 + c.first_tap;
        (vec![at.line(line), place(comb[0], i), place(comb[1], j), channel], vec![])
    };
    Factor { wide: wide_channels(&w), place: w, map: Box::new(map), along_depth: true }
}

/// The kernel of pixels that no place of the kernel meets: what follows makes something of the bias, or of zero.
fn nothing_met(scope: &Scope, wanted: &Wanted, result: &Result2d) -> Option<Made> {
    let mut b = Builder::new(wanted.name, scope);
    b.provided = vec![wanted.anchor];
    for (_, place) in wanted.results {
        b.bind(place, Access::Write, "out");
    }
    let at = tasks(&mut b, &result.shape, &result.order());
    let index = result.spread(&at);
    let value: Expr = match wanted.bias {
        Some(bias) => b.value(bias, &[index[1].clone()]),
        None => f32(0.0),
    };
    b.memo.push((wanted.anchor, index.clone(), value));
    b.store_all(wanted.results, &index);
    finished(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::Conv2d;

    fn combs(stride: usize, padding: usize, dilation: usize, kernel: usize, size: usize) -> Vec<Comb> {
        let conv = Conv2d { stride: [stride; 2], padding: [padding; 4], dilation: [dilation; 2], groups: 1 };
        Comb::all(&Slide { conv, transposed: true }, 0, kernel, size)
    }

    /// Every pixel meets what the definition says: inputs `(pixel + padding - place·dilation) / stride`.
    #[test]
    fn combs_take_all_places_and_nothing_else() {
        for (stride, padding, dilation, kernel, size) in [
            (2, 1, 1, 3, 9),
            (2, 0, 1, 1, 4),
            (3, 2, 1, 5, 7),
            (2, 1, 2, 3, 8),
            (4, 0, 2, 4, 3),
            (3, 1, 2, 4, 10),
        ] {
            let mut seen = 0;
            for c in combs(stride, padding, dilation, kernel, size) {
                for i in 0..c.size {
                    let pixel = c.origin + i * c.spacing;
                    seen += 1;
                    let met: Vec<(usize, i64)> = (0..kernel)
                        .map(|k| (k, (pixel + padding) as i64 - (k * dilation) as i64))
                        .filter(|(_, reach)| reach % stride as i64 == 0)
                        .map(|(k, reach)| (k, reach / stride as i64))
                        .collect();
                    let taken =
                        |j: usize| (c.first_tap + j * c.tap_step, i as i64 + c.input - j as i64 * c.back);
                    assert_eq!((0..c.taps).map(taken).collect::<Vec<_>>(), met, "pixel {pixel}");
                }
            }
            assert_eq!(seen, size);
        }
    }
}
