//! Which inputs the outputs of a thread take, along one axis: what a thread reads once for all of its outputs.

use crate::lower::conv_taps::Slide;

/// An output takes an input at a place of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Meeting {
    /// Counted from the thread's first input; before it, if padding is.
    pub input: i64,
    /// Counted from the thread's first output.
    pub out: usize,
    pub place: usize,
}

/// What a thread's outputs take along an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meetings {
    /// Outputs of a thread.
    pub outs: usize,
    /// How far the first inputs of neighbouring threads are apart.
    pub step: usize,
    /// By inputs.
    all: Vec<Meeting>,
}

impl Meetings {
    /// Those of so many outputs, with so many places of the kernel. Outputs of a transposed convolution are a multiple of
    /// its stride: then the first ones of all threads have the same remainder.
    pub fn of(slide: &Slide, axis: usize, places: usize, outs: usize) -> Meetings {
        let (stride, dilation) = (slide.conv.stride[axis], slide.conv.dilation[axis] as i64);
        let (whole, padding) = (stride as i64, slide.conv.padding[2 * axis] as i64);
        let pairs = (0..outs).flat_map(|out| (0..places).map(move |place| (out, place)));
        let met = |(out, place): (usize, usize)| {
            let (from, step) = (out as i64, place as i64 * dilation);
            match slide.transposed {
                false => Some(Meeting { input: from * whole + step - padding, out, place }),
                true => {
                    let reach = from + padding - step;
                    let input = reach.div_euclid(whole);
                    (reach == input * whole).then_some(Meeting { input, out, place })
                }
            }
        };
        let mut all: Vec<Meeting> = pairs.filter_map(met).collect();
        all.sort();
        let step = if slide.transposed { outs / stride } else { outs * stride };
        Meetings { outs, step, all }
    }

    /// The inputs, each with its meetings.
    pub fn inputs(&self) -> impl Iterator<Item = &[Meeting]> {
        self.all.chunk_by(|a, b| a.input == b.input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::Conv2d;

    fn slide(stride: usize, padding: usize, dilation: usize, transposed: bool) -> Slide {
        let conv = Conv2d { stride: [stride; 2], padding: [padding; 4], dilation: [dilation; 2], groups: 1 };
        Slide { conv, transposed }
    }

    /// A transposed convolution meets what the convolution does, the other way round.
    #[test]
    fn gradients_meet_what_convolutions_do() {
        for (stride, padding, dilation, places) in [(1, 1, 1, 3), (2, 1, 1, 3), (2, 2, 2, 3), (3, 0, 1, 5)] {
            let size = 6 * stride;
            let forward = Meetings::of(&slide(stride, padding, dilation, false), 0, places, 1);
            let back = Meetings::of(&slide(stride, padding, dilation, true), 0, places, stride);
            let mut pairs = vec![];
            for task in 0..20 {
                let of_task = |m: &Meeting| (task * forward.step as i64 + m.input, task, m.place);
                pairs.extend(forward.all.iter().map(of_task));
            }
            pairs.retain(|&(x, _, _)| (0..size).contains(&(x as usize)));
            let mut found = vec![];
            for task in 0..6 {
                let of_task = |m: &Meeting| {
                    let x = task * back.outs as i64 + m.out as i64;
                    (x, task * back.step as i64 + m.input, m.place)
                };
                found.extend(back.all.iter().map(of_task));
            }
            found.retain(|&(_, y, _)| y >= 0);
            pairs.sort();
            found.sort();
            assert_eq!(pairs, found, "stride {stride}, padding {padding}, dilation {dilation}");
        }
    }

    #[test]
    fn rows_share_what_they_read() {
        let rows = Meetings::of(&slide(1, 1, 1, false), 0, 3, 4);
        assert_eq!(rows.inputs().count(), 6);
        assert_eq!(rows.inputs().map(<[Meeting]>::len).collect::<Vec<_>>(), [1, 2, 3, 3, 2, 1]);
        // Of two places of a kernel of three, every other output of a gradient takes both.
        let columns = Meetings::of(&slide(2, 1, 1, true), 1, 3, 2);
        assert_eq!((columns.step, columns.inputs().count()), (1, 2));
    }
}
