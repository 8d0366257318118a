//! Which inputs and which weights an output of a convolution adds up, along each axis: all that
//! tells a transposed convolution from an ordinary one.
//!
//! Output `o` of a convolution takes the inputs `o·s - p + k·d`. Output `o` of a transposed one (and
//! of the gradient of a convolution's input) takes the inputs `(o + p - k·d) / s` where that is a
//! whole number. So the outputs with the same remainder modulo `s` take the same places of the
//! kernel: they are a [`Comb`], an ordinary convolution of stride 1 with a part of the kernel,
//! whose results lie `s` apart. All combs read the same inputs, and nothing is multiplied by the
//! zeros that a convolution of the spread input would meet.

use crate::graph::Op;
use crate::graph::op::{Conv2d, Conv2dInputGrad, ConvTranspose2d};
use crate::kernel::{Extents, Index};

/// A convolution, forward or transposed.
#[derive(Clone, Debug)]
pub(super) struct Slide {
    /// The convolution, or the one whose input a transposed one computes.
    pub conv: Conv2d,
    pub transposed: bool,
}

/// The outputs along one axis that take the same places of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// How many.
    pub size: usize,
    /// Where the first one lies in the result, and how far they are apart.
    pub origin: usize,
    pub spacing: usize,
    /// Places of the kernel, the first one, and how far they are apart.
    pub taps: usize,
    pub first_tap: usize,
    pub tap_step: usize,
    /// The input of the first output at the first tap, counted from the first one that is staged, and
    /// how far the inputs of neighbouring outputs and of neighbouring taps are apart.
    pub input: usize,
    pub stride: usize,
    pub input_step: i64,
}

/// Rows and columns of outputs that take the same places of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comb {
    pub rows: Axis,
    pub columns: Axis,
}

/// Inputs and weights of all outputs.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    /// What differs along rows and along columns: every pair is a comb.
    axes: [Vec<Axis>; 2],
    /// Outputs of the largest comb.
    pub grid: [usize; 2],
    /// Rows and columns of zeros that are staged before the input.
    pub before: [usize; 2],
    /// Rows and columns of the input under one of the grid.
    window: [usize; 2],
    /// Whether inputs are read that are not there.
    pub padded: bool,
}

impl Slide {
    /// The convolution of an operation.
    pub fn of(op: &Op) -> Option<Slide> {
        match op {
            Op::Conv2d(conv) => Some(Slide { conv: conv.clone(), transposed: false }),
            Op::Conv2dInputGrad(Conv2dInputGrad { conv, .. }) => {
                Some(Slide { conv: conv.clone(), transposed: true })
            }
            Op::ConvTranspose2d(c) => {
                let ConvTranspose2d { stride, padding, dilation, groups, .. } = c.clone();
                Some(Slide { conv: Conv2d { stride, padding, dilation, groups }, transposed: true })
            }
            _ => None,
        }
    }

    /// Output channels, and input channels that one of them sums over, of weights of that shape.
    pub fn channels(&self, weight: &[usize]) -> [usize; 2] {
        match self.transposed {
            false => [weight[0], weight[1]],
            true => [weight[1] * self.conv.groups, weight[0] / self.conv.groups],
        }
    }

    /// Where the weight of an output channel and an input channel (counted from the first one that the
    /// output sums over) at a place of the kernel lies in weights of that shape.
    pub fn weight(&self, weight: &[usize], [o, i, kh, kw]: [Index; 4], extents: &Extents) -> [Index; 4] {
        if !self.transposed {
            return [o, i, kh, kw];
        }
        if self.conv.groups == 1 {
            return [i, o, kh, kw];
        }
        let [_, inputs] = self.channels(weight);
        [o.div(weight[1], extents) * inputs as i64 + i, o.rem(weight[1], extents), kh, kw]
    }

    /// Inputs and weights of outputs, by the heights and widths of kernel, input and output.
    pub fn taps(&self, kernel: [usize; 2], input: [usize; 2], output: [usize; 2]) -> Taps {
        match self.transposed {
            false => self.forward(kernel, output),
            true => self.backward(kernel, input, output),
        }
    }

    fn forward(&self, kernel: [usize; 2], output: [usize; 2]) -> Taps {
        let Conv2d { stride, padding, dilation, .. } = self.conv;
        let axis = |i: usize| Axis {
            size: output[i],
            origin: 0,
            spacing: 1,
            taps: kernel[i],
            first_tap: 0,
            tap_step: 1,
            input: 0,
            stride: stride[i],
            input_step: dilation[i] as i64,
        };
        Taps {
            axes: [vec![axis(0)], vec![axis(1)]],
            grid: output,
            before: [padding[0], padding[2]],
            window: [0, 1].map(|i| (kernel[i] - 1) * dilation[i] + 1),
            padded: padding != [0; 4],
        }
    }

    fn backward(&self, kernel: [usize; 2], input: [usize; 2], output: [usize; 2]) -> Taps {
        let mut taps = Taps {
            axes: [vec![], vec![]],
            grid: [0, 1].map(|i| output[i].div_ceil(self.conv.stride[i])),
            before: [0; 2],
            window: [1; 2],
            padded: false,
        };
        for i in 0..2 {
            let combs: Vec<(Axis, i64)> =
                (0..self.conv.stride[i].min(output[i])).map(|r| self.comb(i, r, kernel, output)).collect();
            // From the first to the last input that is read, counted from the output's own place.
            let (mut first, mut last) = (0, 0);
            for (axis, at) in combs.iter().filter(|(axis, _)| axis.taps > 0) {
                first = first.min(at + (axis.taps as i64 - 1) * axis.input_step);
                last = last.max(*at);
            }
            taps.before[i] = -first as usize;
            taps.window[i] = (last - first + 1) as usize;
            taps.padded |= first < 0 || taps.grid[i] as i64 + last > input[i] as i64;
            taps.axes[i] = combs
                .into_iter()
                .map(|(axis, at)| Axis { input: (at - first).max(0) as usize, ..axis })
                .collect();
        }
        taps
    }

    /// The outputs with a remainder modulo the stride, and the input of the first one at the first tap.
    fn comb(&self, i: usize, remainder: usize, kernel: [usize; 2], output: [usize; 2]) -> (Axis, i64) {
        let (stride, dilation) = (self.conv.stride[i], self.conv.dilation[i]);
        let shift = |k: usize| (remainder + self.conv.padding[2 * i]) as i64 - (k * dilation) as i64;
        let common = gcd(stride, dilation);
        let tap_step = stride / common;
        let first_tap = (0..kernel[i].min(tap_step)).find(|&k| shift(k) % stride as i64 == 0);
        let axis = Axis {
            size: (output[i] - remainder).div_ceil(stride),
            origin: remainder,
            spacing: stride,
            taps: first_tap.map_or(0, |k| (kernel[i] - k).div_ceil(tap_step)),
            first_tap: first_tap.unwrap_or(0),
            tap_step,
            input: 0,
            stride: 1,
            input_step: -((dilation / common) as i64),
        };
        (axis, shift(axis.first_tap).div_euclid(stride as i64))
    }
}

impl Taps {
    /// All combs.
    pub fn combs(&self) -> Vec<Comb> {
        let [rows, columns] = &self.axes;
        rows.iter().flat_map(|&rows| columns.iter().map(move |&columns| Comb { rows, columns })).collect()
    }

    /// Inputs from one output of the grid to the next.
    pub fn stride(&self, axis: usize) -> usize {
        self.axes[axis].first().map_or(1, |a| a.stride)
    }

    /// Input rows (columns), padding included, under that many rows (columns) of the grid.
    pub fn reach(&self, axis: usize, size: usize) -> usize {
        (size - 1) * self.stride(axis) + self.window[axis]
    }

    /// True if all combs have as many rows.
    pub fn rows_are_even(&self) -> bool {
        self.axes[0].iter().all(|a| a.size == self.grid[0])
    }

    /// True if every output takes the input at its own place and no other.
    pub fn is_point(&self) -> bool {
        let own = |a: &Vec<Axis>| matches!(a[..], [Axis { taps: 1, spacing: 1, stride: 1, .. }]);
        !self.padded && self.window == [1; 2] && self.axes.iter().all(own)
    }

    /// Another number of rows and columns, where every output takes the input at its own place.
    pub fn set_grid(&mut self, grid: [usize; 2]) {
        for (axis, size) in self.axes.iter_mut().zip(grid) {
            axis.iter_mut().for_each(|a| a.size = size);
        }
        self.grid = grid;
    }
}

impl Comb {
    /// Places of the kernel.
    pub fn taps(&self) -> usize {
        self.rows.taps * self.columns.taps
    }
}

impl Axis {
    /// The place in the kernel of a tap.
    pub fn tap(&self, t: &Index) -> Index {
        t.clone() * self.tap_step as i64 + self.first_tap
    }

    /// The input (counted from the first one that is staged) of an output at a tap.
    pub fn input(&self, output: Index, t: &Index) -> Index {
        output * self.stride as i64 + t.clone() * self.input_step + self.input
    }

    /// Whether the input of an output at a tap is one of `size`, of which so many rows (columns) of zeros come before.
    pub fn is_inside(&self, [output, tap]: [usize; 2], size: usize, before: usize) -> bool {
        let at = (output * self.stride + self.input) as i64 + tap as i64 * self.input_step;
        (before as i64..(before + size) as i64).contains(&at)
    }

    /// The share of all outputs' taps that are.
    pub fn share_inside(&self, size: usize, before: usize) -> f64 {
        let inside = |o: usize| (0..self.taps).filter(|&t| self.is_inside([o, t], size, before)).count();
        (0..self.size).map(inside).sum::<usize>() as f64 / (self.size * self.taps).max(1) as f64
    }

    /// Where an output lies in the result.
    pub fn output(&self, output: Index) -> Index {
        output * self.spacing as i64 + self.origin
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
