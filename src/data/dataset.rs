//! Labelled examples, wherever they come from: [`Dataset`] is what training and evaluation see.
//!
//! Random order and random splits are pure functions of a seed (and an epoch), by the same
//! counter-based generator that initialises weights.

use std::sync::Arc;

use nnc_runtime::init::Stream;

use crate::Error;
use crate::error::Result;

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the network learns from.
    Train,
    /// What it is tested on.
    Test,
}

/// Examples of one shape with a class each. Reading one is a pure function of its number, from any
/// thread.
pub trait Dataset: Send + Sync {
    /// The number of examples.
    fn len(&self) -> usize;

    /// True without examples; what is opened from files never is.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of an example, without the batch: `[channels, height, width]` for pictures.
    fn shape(&self) -> &[usize];

    /// The class of an example; not necessarily one that a network has (see [`check_labels`]).
    fn label(&self, index: usize) -> i32;

    /// Writes an example, row-major, into as many elements as [`shape`](Dataset::shape) has.
    fn read(&self, index: usize, to: &mut [f32]);

    /// The names of the classes, where the data has them.
    fn class_names(&self) -> &[String] {
        &[]
    }
}

/// Complains of labels that are not one of `0..classes`, naming the first.
pub fn check_labels(set: &dyn Dataset, classes: usize) -> Result<()> {
    let outside = |&i: &usize| usize::try_from(set.label(i)).map_or(true, |l| l >= classes);
    let mut wrong = (0..set.len()).filter(outside);
    let Some(first) = wrong.next() else { return Ok(()) };
    let others = match wrong.count() {
        0 => String::new(),
        n => format!(" (and those of {n} more)"),
    };
    let label = set.label(first);
    Err(Error::Input(format!(
        "the label {label} of example {first}{others} is out of range: the net has {classes} classes, 0 to {}",
        classes.saturating_sub(1)
    )))
}

/// Some examples of a set, in an order of its own.
pub struct Subset {
    set: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl Subset {
    /// The examples of those numbers.
    pub fn new(set: Arc<dyn Dataset>, indices: Vec<usize>) -> Result<Subset> {
        if let Some(i) = indices.iter().find(|&&i| i >= set.len()) {
            return Err(Error::Input(format!("there is no example {i} among {}", set.len())));
        }
        Ok(Subset { set, indices })
    }

    /// The numbers of its examples in the whole set.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn shape(&self) -> &[usize] {
        self.set.shape()
    }

    fn label(&self, index: usize) -> i32 {
        self.set.label(self.indices[index])
    }

    fn read(&self, index: usize, to: &mut [f32]) {
        self.set.read(self.indices[index], to);
    }

    fn class_names(&self) -> &[String] {
        self.set.class_names()
    }
}

/// Splits a set at random: the larger part, and `share` of it (0 to 1, rounded to whole examples)
/// to be held out. Each part keeps the order of the set.
pub fn split(set: &Arc<dyn Dataset>, share: f64, seed: u64) -> Result<(Subset, Subset)> {
    let held_out = (set.len() as f64 * share).round() as usize;
    if !(share > 0.0 && share < 1.0) || held_out == 0 || held_out >= set.len() {
        let n = set.len();
        return Err(Error::Input(format!(
            "cannot hold out {share} of {n} examples: one part would be empty"
        )));
    }
    let order = permutation(set.len(), Stream::new(seed, "split"));
    let (test, train) = order.split_at(held_out);
    let part = |indices: &[usize]| {
        let mut indices = indices.to_vec();
        indices.sort_unstable();
        Subset { set: set.clone(), indices }
    };
    Ok((part(train), part(test)))
}

/// The order in which an epoch (from 0) goes through `len` examples.
pub fn shuffled(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    permutation(len, Stream::new(seed, &format!("order of epoch {epoch}")))
}

/// Fisher and Yates's shuffle; step `i` takes block `i` of the stream. (A choice among `n` by the
/// high half of a product with 64 random bits is off by less than n / 2^64.)
fn permutation(len: usize, stream: Stream) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    for i in (1..len).rev() {
        order.swap(i, below(i + 1, stream.block(i as u64)));
    }
    order
}

/// A number below `n` from random bits.
pub(crate) fn below(n: usize, [a, b, ..]: [u32; 4]) -> usize {
    let bits = u64::from(a) << 32 | u64::from(b);
    ((u128::from(bits) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pictures::Pictures;

    fn digits(n: usize) -> Arc<dyn Dataset> {
        let labels = (0..n as i32).collect();
        Arc::new(Pictures::new([1, 1, 1], (0..n as u8).collect(), labels, vec![]).unwrap())
    }

    #[test]
    fn an_epochs_order_is_its_own_and_always_the_same() {
        let first = shuffled(100, 1, 0);
        assert_eq!(first, shuffled(100, 1, 0));
        assert_ne!(first, shuffled(100, 1, 1));
        assert_ne!(first, shuffled(100, 2, 0));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(shuffled(0, 1, 0), [0; 0]);
    }

    /// Checkpoints rely on this order: it must never change.
    #[test]
    fn the_order_is_pinned() {
        assert_eq!(shuffled(8, 42, 3), [3, 5, 6, 7, 1, 2, 4, 0]);
    }

    #[test]
    fn every_place_is_as_likely() {
        let mut counts = [[0u32; 5]; 5];
        for epoch in 0..4000 {
            shuffled(5, 9, epoch).into_iter().enumerate().for_each(|(i, v)| counts[i][v] += 1);
        }
        // 800 each; four standard deviations are 101.
        assert!(counts.iter().flatten().all(|c| c.abs_diff(800) < 101), "{counts:?}");
    }

    #[test]
    fn a_split_shares_out_everything_once() {
        let set = digits(50);
        let (train, test) = split(&set, 0.2, 7).unwrap();
        assert_eq!((train.len(), test.len()), (40, 10));
        let mut all: Vec<usize> = train.indices().iter().chain(test.indices()).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        let mut value = [0.0];
        test.read(3, &mut value);
        assert_eq!((value[0] * 255.0).round() as i32, test.label(3));
        for share in [0.0, 1.0, 0.001, f64::NAN, -1.0] {
            assert!(split(&set, share, 7).is_err(), "{share}");
        }
    }

    #[test]
    fn labels_out_of_range_are_named() {
        let set = digits(13);
        assert!(check_labels(&*set, 13).is_ok());
        assert_eq!(
            check_labels(&*set, 10).unwrap_err().to_string(),
            "the label 10 of example 10 (and those of 2 more) is out of range: the net has 10 classes, 0 to 9"
        );
        let negative = Pictures::new([1, 1, 1], vec![0], vec![-1], vec![]).unwrap();
        assert!(check_labels(&negative, 10).is_err());
    }
}
