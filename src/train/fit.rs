//! The loop around the step: epochs of a labelled data set, evaluation, checkpoints, logs, curves.
//!
//! Order, augmentation and dropout depend on seed, epoch and step alone, and a checkpoint holds all the
//! rest: a run that is stopped (or killed) and resumed from its last checkpoint ends with the same bits
//! as one that never was.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::Folder;
use super::curves;
use super::evaluation::{Evaluation, Measures};
use super::log::{self, Log};
use super::logged::{self, Logged, Over};
use super::trainer::{Prepared, Trainer};
use crate::Error;
use crate::data::augment::{Augment, Normalize, Transform};
use crate::data::batches::{Batches, Rest};
use crate::data::dataset::{Dataset, check_labels, shuffled};
use crate::data::file;
use crate::error::Result;

/// Where in [`FitOptions::out`] the checkpoints are.
pub const CHECKPOINTS: &str = "checkpoints";
/// The learning curves in [`FitOptions::out`].
pub const CURVES: &str = "curves.svg";

/// Points of a training curve in an epoch.
const POINTS: u64 = 10;
/// The confusion matrix in [`FitOptions::out`].
pub const CONFUSION: &str = "confusion.txt";
/// The parameters alone in [`FitOptions::out`].
pub const WEIGHTS: &str = "weights.safetensors";

/// How a network is fitted.
#[derive(Clone, Debug)]
pub struct FitOptions {
    /// Passes over the data, those of the checkpoint that was restored included.
    pub epochs: u64,
    /// Random changes of the examples.
    pub augment: Augment,
    /// What is done to examples, in training and evaluation.
    pub normalize: Option<Normalize>,
    /// A folder for checkpoints, logs and drawings; none: nothing is written.
    pub out: Option<PathBuf>,
    /// So many checkpoints are kept.
    pub kept: usize,
    /// A checkpoint after so many steps, besides those after every epoch.
    pub save_every: Option<u64>,
}

impl Default for FitOptions {
    fn default() -> FitOptions {
        let (augment, normalize) = (Augment::default(), None);
        FitOptions { epochs: 1, augment, normalize, out: None, kept: 3, save_every: None }
    }
}

/// Whether to go on after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Take the next step.
    Continue,
    /// Save a checkpoint and return.
    Stop,
}

/// Somebody who watches.
pub trait Watch {
    /// After every step: where it is, what it measured, and the means of the epoch so far.
    fn step(&mut self, _at: &Position, _mean: &Measures) -> Flow {
        Flow::Continue
    }

    /// After every epoch.
    fn epoch(&mut self, _report: &EpochReport) {}

    /// The loss is not finite; the steps since the last checkpoint will be repeated to find out why.
    fn diverged(&mut self, _message: &str) {}
}

/// Nobody watches.
impl Watch for () {}

/// Where in a run a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Epochs of the run.
    pub epochs: u64,
    /// Steps done in this epoch.
    pub step: u64,
    /// Steps in an epoch.
    pub steps: u64,
    /// Examples in a step.
    pub batch: usize,
}

/// What an epoch came to.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochReport {
    /// From 0.
    pub epoch: u64,
    /// Epochs of the run.
    pub epochs: u64,
    /// Means over the steps of the epoch (those of this run, where it was resumed).
    pub training: Measures,
    /// On held-out examples, if there are such.
    pub evaluation: Option<Evaluation>,
    /// Of the steps alone.
    pub examples_per_second: f64,
    /// Of steps and evaluation.
    pub time: Duration,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// False if the watcher stopped it.
    pub finished: bool,
    /// The last evaluation.
    pub evaluation: Option<Evaluation>,
    /// The last checkpoint.
    pub checkpoint: Option<PathBuf>,
}

/// Trains until the trainer has done all epochs, from the step where it is. The trainer must have been
/// made for as many examples as `training` has.
pub fn fit(
    trainer: &mut Trainer,
    training: &Arc<dyn Dataset>,
    test: Option<&Arc<dyn Dataset>>,
    options: &FitOptions,
    watch: &mut dyn Watch,
) -> Result<Fitted> {
    let (expected, found) = (trainer.settings().examples, training.len());
    if expected != found {
        return Err(Error::Input(format!("the trainer is made for {expected} examples, found {found}")));
    }
    if let Some(classes) = trainer.classes() {
        for set in [Some(training), test].into_iter().flatten() {
            check_labels(&**set, classes)?;
        }
    }
    let mut run = Run::new(trainer, test, options)?;
    let end = options.epochs.saturating_mul(run.trainer.steps_an_epoch());
    while run.trainer.steps() < end {
        match run.epoch(training, watch) {
            Ok(Flow::Continue) => {}
            Ok(Flow::Stop) => {
                run.save()?;
                return Ok(run.finish(false));
            }
            Err(Error::Training(message)) => {
                watch.diverged(&message);
                return Err(run.explain(&message, training));
            }
            Err(e) => return Err(e),
        }
    }
    if run.evaluation.is_none() {
        run.evaluate()?;
    }
    run.write_results()?;
    Ok(run.finish(true))
}

struct Run<'a> {
    trainer: &'a mut Trainer,
    test: Option<&'a Arc<dyn Dataset>>,
    options: &'a FitOptions,
    folder: Option<Folder>,
    log: Option<Log>,
    evaluation: Option<Evaluation>,
    checkpoint: Option<PathBuf>,
}

impl<'a> Run<'a> {
    fn new(
        trainer: &'a mut Trainer,
        test: Option<&'a Arc<dyn Dataset>>,
        options: &'a FitOptions,
    ) -> Result<Run<'a>> {
        let (mut folder, mut log, mut checkpoint) = (None, None, None);
        if let Some(out) = &options.out {
            std::fs::create_dir_all(out).map_err(|e| Error::io("create", out, e))?;
            let checkpoints = Folder::new(out.join(CHECKPOINTS), options.kept);
            checkpoint = checkpoints.last_path()?;
            folder = Some(checkpoints);
            log = Some(Log::open(out, trainer.steps())?);
        }
        Ok(Run { trainer, test, options, folder, log, evaluation: None, checkpoint })
    }

    /// The rest of the epoch in which the trainer is.
    fn epoch(&mut self, training: &Arc<dyn Dataset>, watch: &mut dyn Watch) -> Result<Flow> {
        let start = Instant::now();
        let (batch, steps) = (self.trainer.settings().batch, self.trainer.steps_an_epoch());
        let (epoch, done) = (self.trainer.steps() / steps, self.trainer.steps() % steps);
        let mut mean = Mean::default();
        let mut batches = self.batches(training)?;
        let mut next = batches.next().map(Prepared::new);
        while let Some(b) = next {
            let rate = self.trainer.learning_rate();
            let (measures, following) = self.trainer.step_ahead(&b, &mut || batches.next())?;
            next = following;
            self.log_step(epoch, rate, &measures)?;
            mean.add(&measures, b.batch.count);
            let position =
                Position { epoch, epochs: self.options.epochs, step: done + mean.steps, steps, batch };
            let flow = watch.step(&position, &mean.value());
            if flow == Flow::Stop && position.step < steps {
                return Ok(Flow::Stop);
            }
            if self.options.save_every.is_some_and(|n| n > 0 && self.trainer.steps().is_multiple_of(n)) {
                self.save()?;
            }
            if flow == Flow::Stop {
                self.end_of_epoch(epoch, start, &mean, watch)?;
                return Ok(Flow::Stop);
            }
        }
        self.end_of_epoch(epoch, start, &mean, watch)?;
        Ok(Flow::Continue)
    }

    /// The batches that are left of the epoch in which the trainer is.
    fn batches(&self, training: &Arc<dyn Dataset>) -> Result<Batches> {
        let (batch, seed) = (self.trainer.settings().batch, self.trainer.settings().seed);
        let steps = self.trainer.steps_an_epoch();
        let (epoch, done) = (self.trainer.steps() / steps, self.trainer.steps() % steps);
        let order = shuffled(training.len(), seed, epoch).split_off(done as usize * batch);
        let (augment, normalize) = (self.options.augment, self.options.normalize.clone());
        let transform = Transform { augment, seed, epoch, normalize };
        let rest = if self.trainer.settings().rest > 0 { Rest::Keep } else { Rest::Drop };
        Batches::new(training.clone(), order, batch, rest, transform)
    }

    fn end_of_epoch(&mut self, epoch: u64, start: Instant, mean: &Mean, watch: &mut dyn Watch) -> Result<()> {
        let seconds = start.elapsed().as_secs_f64().max(1e-9);
        self.evaluate()?;
        self.save()?;
        watch.epoch(&EpochReport {
            epoch,
            epochs: self.options.epochs,
            training: mean.value(),
            evaluation: self.evaluation.clone(),
            examples_per_second: mean.examples as f64 / seconds,
            time: start.elapsed(),
        });
        Ok(())
    }

    fn log_step(&mut self, epoch: u64, rate: f64, measures: &Measures) -> Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let mut values = vec![("learning_rate", rate)];
        values.extend(scalars(measures));
        log.step(self.trainer.steps(), epoch, &values)
    }

    fn evaluate(&mut self) -> Result<()> {
        let Some(test) = self.test else { return Ok(()) };
        let evaluation = self.trainer.evaluate(test, self.options.normalize.as_ref())?;
        if let Some(log) = &mut self.log {
            let epoch = self.trainer.steps().div_ceil(self.trainer.steps_an_epoch()).saturating_sub(1);
            let mut values = scalars(&evaluation.measures);
            if let Some(confusion) = &evaluation.confusion {
                values.push(("accuracy", confusion.accuracy()));
            }
            log.evaluation(self.trainer.steps(), epoch, &values)?;
        }
        self.evaluation = Some(evaluation);
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        if let Some(log) = &mut self.log {
            log.flush()?;
        }
        if let Some(folder) = &self.folder {
            self.checkpoint = Some(folder.save(&self.trainer.checkpoint()?)?);
        }
        Ok(())
    }

    /// Says of a loss that is not finite where that began, and where the last good checkpoint is.
    fn explain(&mut self, message: &str, training: &Arc<dyn Dataset>) -> Error {
        let mut text = message.to_string();
        // What goes wrong on the way must not hide the error that is to be explained.
        if let Ok(Some(origin)) = self.origin(training) {
            text += &format!("; the first value that is not finite is {origin}");
        }
        text += &match &self.checkpoint {
            Some(path) => format!("; the last good checkpoint is `{}`", path.display()),
            None => "; there is no checkpoint yet".to_string(),
        };
        Error::Training(text)
    }

    /// Repeats the steps since the last checkpoint, and the one that failed in the interpreter. The trainer
    /// then stands before that step.
    fn origin(&mut self, training: &Arc<dyn Dataset>) -> Result<Option<String>> {
        let failed = self.trainer.steps();
        match &self.checkpoint {
            Some(path) => self.trainer.load(path)?,
            None => self.trainer.restart()?,
        }
        while self.trainer.steps() < failed {
            for b in self.batches(training)? {
                if self.trainer.steps() + 1 == failed {
                    return self.trainer.not_finite(&b);
                }
                self.trainer.step_on(&b)?;
            }
        }
        Ok(None)
    }

    /// Curves, confusion matrix, weights.
    fn write_results(&mut self) -> Result<()> {
        let Some(out) = &self.options.out else { return Ok(()) };
        if let Some(log) = &mut self.log {
            log.flush()?;
        }
        let (logged, steps) = (Logged::read(&out.join(log::FILE))?, self.trainer.steps_an_epoch());
        let run = logged::Run { log: &logged, training: "training".into(), test: "test".into() };
        let panels = logged::panels(&[run], steps.div_ceil(POINTS), Over::Epochs(steps));
        let drawing = curves::svg(&self.trainer.settings().net, &panels)?;
        file::write(out.join(CURVES), drawing.as_bytes())?;
        if let Some(confusion) = self.evaluation.as_ref().and_then(|e| e.confusion.as_ref()) {
            file::write(out.join(CONFUSION), confusion.to_string().as_bytes())?;
        }
        self.trainer.weights()?.save(out.join(WEIGHTS))
    }

    fn finish(self, finished: bool) -> Fitted {
        Fitted { finished, evaluation: self.evaluation, checkpoint: self.checkpoint }
    }
}

fn scalars(measures: &Measures) -> Vec<(&str, f64)> {
    let metrics = measures.metrics.iter().map(|(name, v)| (name.as_str(), *v));
    [("loss", measures.loss)].into_iter().chain(metrics).collect()
}

/// Means over the examples of steps.
#[derive(Default)]
struct Mean {
    /// Of measures times examples: the loss, then the metrics.
    sum: Option<Measures>,
    steps: u64,
    examples: u64,
}

impl Mean {
    fn add(&mut self, m: &Measures, examples: usize) {
        self.steps += 1;
        self.examples += examples as u64;
        let zeros =
            || Measures { loss: 0.0, metrics: m.metrics.iter().map(|(n, _)| (n.clone(), 0.0)).collect() };
        let (sum, n) = (self.sum.get_or_insert_with(zeros), examples as f64);
        sum.loss += n * m.loss;
        sum.metrics.iter_mut().zip(&m.metrics).for_each(|(s, (_, v))| s.1 += n * v);
    }

    fn value(&self) -> Measures {
        let n = self.examples.max(1) as f64;
        match &self.sum {
            None => Measures { loss: f64::NAN, metrics: vec![] },
            Some(s) => Measures {
                loss: s.loss / n,
                metrics: s.metrics.iter().map(|(name, v)| (name.clone(), v / n)).collect(),
            },
        }
    }
}
