//! Batches, made ahead on a thread of their own while the network works on the one before.
//!
//! One thread makes them in order, so they are the same for any number of cores.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use ndarray::{Array1, ArrayD, IxDyn};

use crate::data::augment::Transform;
use crate::data::dataset::Dataset;
use crate::error::Result;
use crate::{Error, Tensor};

/// So many batches are made ahead.
const AHEAD: usize = 2;

/// Examples and their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `f32[batch, …]`.
    pub examples: Tensor,
    /// `i32[batch]`.
    pub labels: Tensor,
    /// So many of them count; the others, at the end of the last batch, repeat these.
    pub count: usize,
}

/// What becomes of the examples at the end that are too few for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They are left out (of this epoch; the next has another order): every batch has its full weight.
    Drop,
    /// They come in a smaller batch.
    Keep,
    /// They come in a batch that is filled up with repetitions.
    Fill,
}

/// The batches of some examples. An iterator; dropping it ends the thread.
pub struct Batches {
    receiver: Receiver<Batch>,
    worker: Option<JoinHandle<()>>,
    left: usize,
}

impl Batches {
    /// Starts making batches of `size` from the examples `order` of a set.
    pub fn new(
        set: Arc<dyn Dataset>,
        order: Vec<usize>,
        size: usize,
        rest: Rest,
        transform: Transform,
    ) -> Result<Batches> {
        if let Some(normalize) = &transform.normalize {
            normalize.check(set.shape())?;
        }
        let size = size.max(1);
        let left = match rest {
            Rest::Drop => order.len() / size,
            Rest::Keep | Rest::Fill => order.len().div_ceil(size),
        };
        let (sender, receiver) = sync_channel(AHEAD);
        let work = move || {
            for examples in order.chunks(size).take(left) {
                let size = if rest == Rest::Keep { examples.len() } else { size };
                if sender.send(batch(&*set, examples, size, &transform)).is_err() {
                    return;
                }
            }
        };
        let worker = std::thread::Builder::new().name("nnc-batches".into()).spawn(work);
        let worker = worker.map_err(|e| Error::Program(format!("cannot start a thread for batches: {e}")))?;
        Ok(Batches { receiver, worker: Some(worker), left })
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        if let Ok(batch) = self.receiver.recv() {
            self.left = self.left.saturating_sub(1);
            return Some(batch);
        }
        self.left = 0;
        // A data set that panics must not look like the end of the data.
        match self.worker.take().map(JoinHandle::join) {
            Some(Err(panic)) => resume_unwind(panic),
            _ => None,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Batches {}

fn batch(set: &dyn Dataset, examples: &[usize], size: usize, transform: &Transform) -> Batch {
    let each: usize = set.shape().iter().product();
    let filled = || examples.iter().cycle().take(size);
    let mut x = vec![0f32; size * each];
    if each > 0 {
        for (to, &i) in x.chunks_exact_mut(each).zip(filled()) {
            transform.read(set, i, to);
        }
    }
    let shape: Vec<usize> = [size].iter().chain(set.shape()).copied().collect();
    let examples_array = ArrayD::from_shape_vec(IxDyn(&shape), x).unwrap_or_else(|_| ArrayD::zeros(shape));
    let labels: Array1<i32> = filled().map(|&i| set.label(i)).collect();
    Batch { examples: Tensor::F32(examples_array), labels: labels.into(), count: examples.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pictures::Pictures;

    fn set(n: u8) -> Arc<dyn Dataset> {
        Arc::new(Pictures::new([1, 1, 1], (0..n).collect(), (0..i32::from(n)).collect(), vec![]).unwrap())
    }

    fn labels(b: &Batch) -> Vec<i32> {
        let Tensor::I32(a) = &b.labels else { panic!("labels are integers") };
        a.iter().copied().collect()
    }

    fn batches(order: Vec<usize>, rest: Rest) -> Batches {
        Batches::new(set(10), order, 4, rest, Transform::default()).unwrap()
    }

    #[test]
    fn batches_follow_the_order() {
        let all = batches((0..10).rev().collect(), Rest::Drop);
        assert_eq!(all.len(), 2);
        let all: Vec<Batch> = all.collect();
        assert_eq!(labels(&all[0]), [9, 8, 7, 6]);
        assert_eq!(labels(&all[1]), [5, 4, 3, 2]);
        assert_eq!(all[0].examples.shape(), [4, 1, 1, 1]);
        assert_eq!(all[0].examples.as_f32().unwrap()[[1, 0, 0, 0]], 8.0 / 255.0);
    }

    #[test]
    fn the_rest_is_filled_up() {
        let all: Vec<Batch> = batches((0..10).collect(), Rest::Fill).collect();
        assert_eq!((all.len(), all[1].count, all[2].count), (3, 4, 2));
        assert_eq!(labels(&all[2]), [8, 9, 8, 9]);
    }

    #[test]
    fn the_rest_is_a_batch_of_its_own() {
        let all: Vec<Batch> = batches((0..10).collect(), Rest::Keep).collect();
        assert_eq!((all.len(), all[1].count, all[2].count), (3, 4, 2));
        assert_eq!((labels(&all[2]), all[2].examples.shape()), (vec![8, 9], &[2, 1, 1, 1][..]));
    }

    #[test]
    fn leaving_early_ends_the_thread() {
        let mut some =
            Batches::new(set(200), (0..200).collect(), 1, Rest::Drop, Transform::default()).unwrap();
        some.next();
        let worker = some.worker.take().unwrap();
        drop(some);
        worker.join().unwrap();
    }

    #[test]
    #[should_panic(expected = "no such example")]
    fn a_panic_is_not_the_end() {
        struct Broken;
        impl Dataset for Broken {
            fn len(&self) -> usize {
                1
            }
            fn shape(&self) -> &[usize] {
                &[1]
            }
            fn label(&self, _: usize) -> i32 {
                0
            }
            fn read(&self, _: usize, _: &mut [f32]) {
                panic!("no such example");
            }
        }
        let all = Batches::new(Arc::new(Broken), vec![0], 1, Rest::Drop, Transform::default()).unwrap();
        assert_eq!(all.count(), 0);
    }
}
