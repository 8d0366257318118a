//! What is measured: in a step, and over held-out examples.

use nnc_compiler::graph::Graph;

use super::confusion::Confusion;
use crate::data::batches::Batch;
use crate::data::labels;
use crate::error::Result;
use crate::{DType, Error, Tensor};

/// What was measured on a batch, or over many.
#[derive(Clone, Debug, PartialEq)]
pub struct Measures {
    /// The loss.
    pub loss: f64,
    /// The metrics of the `train` section, in source order.
    pub metrics: Vec<(String, f64)>,
}

/// What was measured on held-out examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Means over all examples.
    pub measures: Measures,
    /// Which class was taken for which; `None` if the net has no output `f32[N, classes]`.
    pub confusion: Option<Confusion>,
}

/// From the outputs: the loss, then the metrics.
pub(super) fn measures(names: &[String], outputs: &[Tensor]) -> Result<Measures> {
    let values: Vec<f64> = outputs.iter().take(names.len() + 1).map(scalar).collect::<Result<_>>()?;
    let (loss, rest) = values.split_first().ok_or_else(|| Error::Internal("a step without a loss".into()))?;
    Ok(Measures { loss: *loss, metrics: names.iter().cloned().zip(rest.iter().copied()).collect() })
}

fn scalar(t: &Tensor) -> Result<f64> {
    match t {
        Tensor::F32(a) => a.first().map(|&v| f64::from(v)),
        Tensor::F64(a) => a.first().copied(),
        Tensor::I32(a) => a.first().map(|&v| f64::from(v)),
        Tensor::Bool(a) => a.first().map(|&v| f64::from(u8::from(v))),
    }
    .ok_or_else(|| Error::Internal("a measure without a value".into()))
}

/// The output to classify by, as its number: `logits`, `probabilities`, or the first `f32[N, classes]`.
pub(super) fn scores_output(graph: &Graph) -> Option<usize> {
    let scores = |i: &usize| {
        let ty = &graph.node(graph.outputs[*i].node).ty;
        ty.dtype == DType::F32 && ty.rank() == 2
    };
    let all: Vec<usize> = (0..graph.outputs.len()).filter(scores).collect();
    let named = |name: &str| all.iter().copied().find(|&i| graph.outputs[i].name == name);
    named("logits").or_else(|| named("probabilities")).or_else(|| all.first().copied())
}

/// Sums over batches.
#[derive(Default)]
pub(super) struct Total {
    /// Loss and metrics, times examples.
    sums: Vec<f64>,
    count: usize,
    confusion: Option<Confusion>,
}

impl Total {
    /// Adds what a batch gave; `scores` is the number of the output to classify by, `names` are those of
    /// the classes. A batch that is filled up with repetitions weighs as much as the examples that count.
    pub(super) fn add(
        &mut self,
        outputs: &[Tensor],
        batch: &Batch,
        scores: Option<usize>,
        names: &[String],
    ) -> Result<()> {
        let n = batch.count;
        for (i, t) in outputs.iter().enumerate().take_while(|(_, t)| t.shape().is_empty()) {
            if self.sums.len() <= i {
                self.sums.push(0.0);
            }
            self.sums[i] += scalar(t)? * n as f64;
        }
        self.count += n;
        let (Some(Tensor::F32(scores)), Tensor::I32(classes)) =
            (scores.and_then(|i| outputs.get(i)), &batch.labels)
        else {
            return Ok(());
        };
        let confusion = self.confusion.get_or_insert_with(|| Confusion::new(scores.shape()[1], names));
        for (row, &label) in scores.outer_iter().zip(classes).take(n) {
            let best = labels::top(row.iter().copied(), 1);
            if let (Some(&(predicted, _)), Ok(label)) = (best.first(), usize::try_from(label)) {
                confusion.add(label, predicted);
            }
        }
        Ok(())
    }

    /// The means, under the names of the metrics.
    pub(super) fn finish(self, names: &[String]) -> Evaluation {
        let mean = |i: usize| self.sums.get(i).map_or(f64::NAN, |s| s / self.count.max(1) as f64);
        let metrics = names.iter().enumerate().map(|(i, n)| (n.clone(), mean(i + 1))).collect();
        Evaluation { measures: Measures { loss: mean(0), metrics }, confusion: self.confusion }
    }
}
