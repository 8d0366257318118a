//! [`Trainer`]: a network that learns, one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use nnc_compiler::build::{Built, TrainSection};
use nnc_compiler::graph::interpret::{self, Precision};
use nnc_compiler::graph::{Graph, NodeId};
use nnc_compiler::training::{self, Moment, StepOptions, TrainError};
use nnc_dsl::SourceMap;
use nnc_runtime::cuda::Staged;
use nnc_runtime::program::Port;
use nnc_runtime::session::check_parameters;

use super::checkpoint::{Checkpoint, Settings};
use super::engine::{Bench, Engine, Program};
use super::evaluation::{Evaluation, Measures, Total, measures, scores_output};
use super::inputs::{in_order, inputs_ahead, inputs_of_batch, parameters_of, specs_of};
use super::memory::StepMemory;
use super::schedule::Schedule;
use super::step::{Net, Step, section, sizes, wrong};
use crate::data::augment::{Normalize, Transform};
use crate::data::batches::{Batch, Batches, Rest};
use crate::data::dataset::Dataset;
use crate::error::Result;
use crate::model::initial_parameters;
use crate::{Error, LaunchTime, Options, Source, Tensor, TensorSpec, TensorView, Weights};

/// What a [`Trainer`] needs to know beside the program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainerOptions {
    /// Of initial weights and dropout (and, in [`fit`](super::fit::fit), of order and augmentation).
    pub seed: u64,
    /// Examples in a step; by default what the program says, or 64.
    pub batch: Option<usize>,
    /// Examples in an epoch, for schedules; 0: one endless epoch.
    pub examples: usize,
    /// What else the run depends on, as text, so that a checkpoint of another run is refused.
    pub data: String,
    /// Leave out the examples at the end of an epoch that are too few for a batch, instead of taking a
    /// smaller step on them.
    pub drop_rest: bool,
}

/// A network that learns: the compiled training step, its parameters and the optimizer's state.
///
/// ```
/// use nnc::train::{Trainer, TrainerOptions};
/// use nnc::{Options, Source};
///
/// let source = Source::from_text(
///     "line.nn",
///     "net line {
///          input x: f32[N, 1]
///          output y = x -> dense(1)
///          train { input target: f32[N, 1]; loss = mse(y, target); optimizer = sgd(lr = 0.1) }
///      }",
/// )?;
/// let options = TrainerOptions { batch: Some(4), ..TrainerOptions::default() };
/// # let how = Options::new().device(nnc::Device::Reference);
/// # let _ = stringify!(
/// let how = Options::new();
/// # );
/// let mut trainer = Trainer::new(&source, &how, &options)?;
/// let x = ndarray::arr2(&[[-1f32], [0.0], [1.0], [2.0]]);
/// let target = x.mapv(|x| 3.0 * x - 1.0);
/// let batches = std::iter::repeat_n((x, target), 100); // any source of batches will do
/// for (x, target) in batches {
///     trainer.step(&[("x", (&x).into()), ("target", (&target).into())])?;
/// }
/// let weights = trainer.weights()?;
/// let slope = weights.tensors()?["dense1.weight"].as_f32().unwrap();
/// assert!((slope[[0, 0]] - 3.0).abs() < 0.05);
/// # Ok::<(), nnc::Error>(())
/// ```
pub struct Trainer {
    built: Built,
    sources: Arc<SourceMap>,
    bench: Bench,
    /// The step on a whole batch.
    whole: Step,
    /// The step on the examples that are left at the end of an epoch.
    rest: Option<Step>,
    engine: Box<dyn Engine>,
    /// The engine is that of `rest`.
    at_rest: bool,
    schedule: Schedule,
    settings: Settings,
    /// Symbols that are the batch.
    batch_symbols: Vec<String>,
    /// Evaluation programs by batch.
    evaluations: BTreeMap<usize, Program>,
    /// The parameters that it started from, where they were given.
    start: Option<BTreeMap<String, Tensor>>,
    step: u64,
    /// The loss was not finite: the parameters are of no use any more.
    diverged: bool,
}

impl fmt::Debug for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer").field("settings", &self.settings).field("step", &self.step).finish()
    }
}

impl Trainer {
    /// Builds and compiles the training step of a net that has a `train` section; its parameters are
    /// initialised from the seed.
    pub fn new(source: &Source, options: &Options, how: &TrainerOptions) -> Result<Trainer> {
        let Net { built, sources, batch_symbols, batch } = Net::open(source, options, how)?;
        let section = section(&built).map_err(|e| wrong(&sources, &e))?;
        if how.examples > 0 && how.examples < batch {
            let n = how.examples;
            return Err(Error::Input(format!("{n} examples are too few for a batch of {batch}")));
        }
        let refused = |e: TrainError| wrong(&sources, &e);
        let mut whole = Step::new(&built, &batch_symbols, batch).map_err(refused)?;
        let rest = match how.examples % batch {
            0 => None,
            _ if how.drop_rest || batch_symbols.is_empty() => None,
            // A rest that cannot be learnt from (one example for a batch normalisation) is left out.
            n => Step::new(&built, &batch_symbols, n).ok().map(|step| (n, step)),
        };
        let (rest_size, rest) = rest.map_or((0, None), |(n, step)| (n, Some(step)));
        let schedule = Schedule::new(section.optimizer.number("lr"), section.schedule.as_ref())?;
        let bench = Bench::new(options, sources.clone())?;
        let program = whole.program(&bench)?;
        let parameters = initial_parameters(&parameters_of(program.graph()), how.seed)?;
        let engine = program.engine(parameters)?;
        let settings = Settings {
            net: built.graph.name.clone(),
            seed: how.seed,
            batch,
            examples: how.examples,
            rest: rest_size,
            data: how.data.clone(),
        };
        Ok(Trainer {
            built,
            sources,
            bench,
            whole,
            rest,
            engine,
            at_rest: false,
            schedule,
            settings,
            batch_symbols,
            evaluations: BTreeMap::new(),
            start: None,
            step: 0,
            diverged: false,
        })
    }

    /// What the run depends on.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The inputs of a step, with the batch: those of the net, then those of its `train` section.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.whole.inputs
    }

    /// The graph of the step.
    pub fn graph(&self) -> &Graph {
        &self.whole.graph.graph
    }

    /// The memory that a step takes; `None` on the reference device, which has no plan.
    pub fn memory(&self) -> Option<&StepMemory> {
        self.whole.compiled().and_then(Program::memory)
    }

    /// Trainable parameters that the loss does not depend on: they keep their values.
    pub fn untrained(&self) -> &[String] {
        &self.whole.graph.untrained
    }

    /// The names of the metrics.
    pub fn metrics(&self) -> &[String] {
        &self.whole.graph.metrics
    }

    /// The epochs that the program asks for.
    pub fn epochs(&self) -> Option<usize> {
        self.built.train.as_ref().and_then(|t| t.epochs)
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Steps in an epoch: whole batches, and a smaller one for what is left over, if there is such.
    pub fn steps_an_epoch(&self) -> u64 {
        match self.settings.examples {
            0 => u64::MAX,
            n => (n / self.settings.batch) as u64 + u64::from(self.rest.is_some()),
        }
    }

    /// The learning rate of the next step.
    pub fn learning_rate(&self) -> f64 {
        self.schedule.rate(self.step, self.steps_an_epoch())
    }

    /// Takes a step on a batch (or on the rest of an epoch), inputs by name. A loss that is not finite
    /// is an error, after which only [`restore`](Trainer::restore) helps.
    pub fn step(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<Measures> {
        self.step_by(inputs, |engine, _, inputs| Ok((engine.step(inputs)?, ())))
            .map(|(measures, ())| measures)
    }

    /// Takes a step and tells how long every launch took (nothing on the reference device).
    pub fn step_profiled(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
    ) -> Result<(Measures, Vec<LaunchTime>)> {
        self.step_by(inputs, |engine, _, inputs| engine.step_profiled(inputs))
    }

    fn step_by<T>(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        run: impl FnOnce(&mut dyn Engine, &Step, &[TensorView<'_>]) -> Result<(Vec<Tensor>, T)>,
    ) -> Result<(Measures, T)> {
        if self.diverged {
            return Err(Error::Training("the loss was not finite; restore a checkpoint first".into()));
        }
        self.switch(self.rest.as_ref().is_some_and(|rest| rest.takes(inputs)))?;
        let scalars = self.current().graph.scalars(self.moment());
        let given = self.given(&scalars, inputs)?;
        let step = self.rest.as_ref().filter(|_| self.at_rest).unwrap_or(&self.whole);
        let ordered = in_order(&step.graph.graph, &given)?;
        let (outputs, more) = run(&mut *self.engine, step, &ordered)?;
        self.step += 1;
        let measures = measures(&self.whole.graph.metrics, &outputs)?;
        if !measures.loss.is_finite() {
            self.diverged = true;
            return Err(Error::Training(format!("the loss became {} in step {}", measures.loss, self.step)));
        }
        Ok((measures, more))
    }

    /// The step that the engine takes.
    fn current(&self) -> &Step {
        self.rest.as_ref().filter(|_| self.at_rest).unwrap_or(&self.whole)
    }

    /// The step for a batch of that size.
    fn step_for(&self, batch: &Batch) -> &Step {
        self.rest.as_ref().filter(|_| batch.labels.len() == self.settings.rest).unwrap_or(&self.whole)
    }

    /// Makes the engine that of the rest, or of a whole batch.
    fn switch(&mut self, to_rest: bool) -> Result<()> {
        if self.at_rest == to_rest {
            return Ok(());
        }
        let to = match &mut self.rest {
            Some(rest) if to_rest => rest,
            _ => &mut self.whole,
        };
        self.engine.switch(to.program(&self.bench)?)?;
        self.at_rest = to_rest;
        Ok(())
    }

    /// The inputs of a step by name.
    fn given<'a>(
        &self,
        scalars: &'a BTreeMap<String, Tensor>,
        inputs: &'a [(&str, TensorView<'_>)],
    ) -> Result<BTreeMap<&'a str, TensorView<'a>>> {
        let mut given: BTreeMap<&str, TensorView<'_>> =
            scalars.iter().map(|(name, t)| (name.as_str(), t.view())).collect();
        for (name, view) in inputs {
            if !self.inputs().iter().any(|i| i.name == *name) {
                return Err(self.unknown_input(name));
            }
            given.insert(name, view.reborrow());
        }
        Ok(given)
    }

    /// Takes a step on a batch of a labelled data set.
    pub fn step_on(&mut self, batch: &Batch) -> Result<Measures> {
        let specs = self.step_for(batch).inputs.clone();
        let given = inputs_of_batch(&specs, batch)?;
        let given: Vec<(&str, TensorView<'_>)> = specs.iter().map(|i| i.name.as_str()).zip(given).collect();
        self.step(&given)
    }

    /// Takes a step on a batch, and asks for the next one meanwhile, which is copied to the device if that can
    /// do both at once.
    pub(super) fn step_ahead(
        &mut self,
        batch: &Prepared,
        next: &mut dyn FnMut() -> Option<Batch>,
    ) -> Result<(Measures, Option<Prepared>)> {
        let specs = self.step_for(&batch.batch).inputs.clone();
        let given = inputs_of_batch(&specs, &batch.batch)?;
        let given: Vec<(&str, TensorView<'_>)> = specs.iter().map(|i| i.name.as_str()).zip(given).collect();
        let staged = batch.staged;
        self.step_by(&given, |engine, step, inputs| {
            let done = engine.begin(inputs, staged)?;
            let following = next();
            let mut staged = None;
            if let (None, Some(batch)) = (&done, &following)
                && let Some(known) = inputs_ahead(&step.graph.graph, &step.inputs, batch)
            {
                staged = engine.stage(&known)?;
            }
            let outputs = done.map_or_else(|| engine.finish(), Ok)?;
            Ok((outputs, following.map(|batch| Prepared { batch, staged })))
        })
    }

    /// The gradients of the loss on a batch with respect to the trainable parameters, by name, as they are
    /// before clipping. Nothing changes by it.
    pub fn gradients(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<BTreeMap<String, Tensor>> {
        let sizes = sizes(&self.batch_symbols, self.settings.batch);
        let options = StepOptions { sizes, gradients: true };
        let step = training::build_step(&self.built, &options).map_err(|e| wrong(&self.sources, &e))?;
        let scalars = step.scalars(self.moment());
        let mut graph = step.graph;
        graph.updates.clear();
        nnc_compiler::pass::sweep(&mut graph);
        let given = self.given(&scalars, inputs)?;
        let program = self.bench.program(&graph)?;
        let outputs = program.with(&self.engine.parameters()?)?.run(&in_order(&graph, &given)?)?;
        let named = graph.outputs.iter().map(|o| o.name.strip_suffix(".grad")).zip(outputs);
        let after = step.metrics.len() + 1;
        Ok(named.skip(after).filter_map(|(name, t)| Some((name?.to_string(), t))).collect())
    }

    /// The classes that the net tells apart, if it has an output `f32[N, classes]`.
    pub fn classes(&self) -> Option<usize> {
        let graph = &self.built.graph;
        graph.node(graph.outputs[scores_output(graph)?].node).ty.shape[1].size()
    }

    fn moment(&self) -> Moment {
        Moment { learning_rate: self.learning_rate(), step: self.step, seed: self.settings.seed }
    }

    /// The first value that would not be finite in a step on this batch, in the author's terms; the
    /// interpreter computes it, slowly.
    pub fn not_finite(&self, batch: &Batch) -> Result<Option<String>> {
        let step = self.step_for(batch);
        let mut feeds = self.engine.parameters()?;
        feeds.extend(step.graph.scalars(self.moment()));
        for (input, value) in step.inputs.iter().zip(inputs_of_batch(&step.inputs, batch)?) {
            feeds.insert(input.name.clone(), value.to_tensor());
        }
        let (graph, mut first) = (&step.graph.graph, None);
        let traced = interpret::trace(graph, &feeds, Precision::AsWritten, &mut |id, value| {
            let bad = |t: &Tensor| t.as_f32().is_some_and(|a| a.iter().any(|v| !v.is_finite()));
            if first.is_none() && bad(value) {
                first = Some(id);
            }
        });
        traced.map_err(|e| Error::Input(e.to_string()))?;
        Ok(first.map(|id| {
            let node = graph.node(id);
            let place = node.spans.first().map(|&span| format!(" ({})", self.sources.location(span)));
            let name = if node.name.is_empty() { String::new() } else { format!(" of `{}`", node.name) };
            format!("that of `{}`{name}{}", node.op.name(), place.unwrap_or_default())
        }))
    }

    /// Goes back to the beginning: the parameters that it started from, step 0.
    pub fn restart(&mut self) -> Result<()> {
        let start = match &self.start {
            Some(start) => start.clone(),
            None => self.initial()?,
        };
        self.engine.set_parameters(start)?;
        (self.step, self.diverged) = (0, false);
        Ok(())
    }

    /// What the seed makes of all parameters, the optimizer's state among them.
    fn initial(&self) -> Result<BTreeMap<String, Tensor>> {
        initial_parameters(&parameters_of(self.graph()), self.settings.seed)
    }

    /// Starts from given weights, at step 0 and with nothing in the optimizer's memory: fine-tuning.
    ///
    /// Every parameter must be there, and no other. But the layers named in `fresh` (`fc`: `fc.weight`,
    /// `fc.bias` and what else is below it) begin anew, whatever the weights have of them, and so does what
    /// only training has (heads under `if training`), where the weights do not have it. Returns the names
    /// of these parameters.
    pub fn start_from(&mut self, weights: &Weights, fresh: &[String]) -> Result<Vec<String>> {
        let below = |name: &str, layer: &str| {
            name.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let of_net = names(&self.built.graph, self.built.graph.parameters());
        if let Some(layer) = fresh.iter().find(|layer| !of_net.iter().any(|name| below(name, layer))) {
            let names: Vec<String> = of_net.iter().map(|name| format!("`{name}`")).collect();
            let message =
                format!("no parameter belongs to a layer `{layer}`; there are {}", names.join(", "));
            return Err(Error::Options(message));
        }
        let tensors = weights.tensors()?;
        let begins_anew = |name: &str| {
            let extra = self.built.training_only.iter().any(|(n, _)| n == name);
            fresh.iter().any(|layer| below(name, layer)) || extra && !tensors.contains_key(name)
        };
        let mut given = tensors.clone();
        given.retain(|name, _| !begins_anew(name));
        let ports = parameters_of(&self.built.graph).into_iter().map(|p| p.port);
        let ports: Vec<Port> = ports.filter(|p| !begins_anew(&p.name)).collect();
        check_parameters(ports.iter(), &[], &given)?;
        let anew = of_net.iter().filter(|name| begins_anew(name)).map(|name| name.to_string()).collect();
        let mut start = self.initial()?;
        for port in ports {
            start.extend(given.remove_entry(&port.name));
        }
        self.start = Some(start);
        self.restart()?;
        Ok(anew)
    }

    /// Measures the net, as it is in inference, on every example of a set.
    pub fn evaluate(&mut self, set: &Arc<dyn Dataset>, normalize: Option<&Normalize>) -> Result<Evaluation> {
        let parameters = self.engine.parameters()?;
        let (batch, n) = (self.settings.batch, set.len());
        let whole = n - n % batch;
        // The rest is a batch of its own size, so that means are those of the set; where the program has
        // one size, repetitions fill it.
        let (last, filling) = match self.batch_symbols.is_empty() {
            true => (batch, Rest::Fill),
            false => (n - whole, Rest::Keep),
        };
        let transform = Transform { normalize: normalize.cloned(), ..Transform::default() };
        let mut total = Total::default();
        for (first, end, size) in [(0, whole, batch), (whole, n, last)] {
            if first == end {
                continue;
            }
            let program = self.evaluation(size)?;
            let (scores, specs) = (scores_output(program.graph()), specs_of(program.graph()));
            let mut running = program.with(&parameters)?;
            let batches =
                Batches::new(set.clone(), (first..end).collect(), size, filling, transform.clone())?;
            for b in batches {
                total.add(&running.run(&inputs_of_batch(&specs, &b)?)?, &b, scores, set.class_names())?;
            }
        }
        Ok(total.finish(self.metrics()))
    }

    /// The parameters under the names that they have in inference.
    pub fn weights(&self) -> Result<Weights> {
        let mut all = self.engine.parameters()?;
        for name in &self.whole.graph.optimizer_state {
            all.remove(name);
        }
        Ok(Weights::from_map(all))
    }

    /// This moment. Restoring it continues bit for bit as if nothing had happened.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        if self.diverged {
            return Err(Error::Training("the parameters are not finite: they are not worth keeping".into()));
        }
        Ok(Checkpoint {
            settings: self.settings.clone(),
            step: self.step,
            tensors: self.engine.parameters()?,
            optimizer_state: self.whole.graph.optimizer_state.iter().cloned().collect(),
            recipe: self.recipe(),
        })
    }

    /// Goes back (or on) to a moment of the same run; a checkpoint of another is refused.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let name = |recipe: &BTreeMap<String, String>| -> Option<String> {
            Some(recipe.get("optimizer")?.split('(').next()?.to_string())
        };
        let (then, now) = (name(&checkpoint.recipe), name(&self.recipe()));
        if let (Some(then), Some(now)) = (&then, &now)
            && then != now
        {
            return Err(Error::Options(format!(
                "the checkpoint is of another run:\n  the optimizer is `{now}`, not `{then}`, and remembers other things"
            )));
        }
        let ports: Vec<Port> = parameters_of(self.graph()).into_iter().map(|p| p.port).collect();
        checkpoint.check(&self.settings, ports.iter())?;
        self.engine.set_parameters(checkpoint.tensors.clone())?;
        (self.step, self.diverged) = (checkpoint.step, false);
        Ok(())
    }

    /// In what the program's optimizer, schedule, regularizer and clipping differ from those that the run
    /// of a checkpoint had, in words. What the program says now is what counts.
    pub fn changes_since(&self, checkpoint: &Checkpoint) -> Vec<String> {
        let (then, now) = (&checkpoint.recipe, self.recipe());
        if then.is_empty() {
            return vec![];
        }
        let keys: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
        let say = |key: &&String| match (then.get(*key), now.get(*key)) {
            (a, b) if a == b => None,
            (Some(a), Some(b)) => Some(format!("the {key} was `{a}`, it is `{b}`")),
            (Some(a), None) => Some(format!("the {key} was `{a}`, there is none any more")),
            (None, Some(b)) => Some(format!("there was no {key}, it is `{b}`")),
            (None, None) => None,
        };
        keys.iter().filter_map(say).collect()
    }

    fn recipe(&self) -> BTreeMap<String, String> {
        let recipe = self.built.train.as_ref().map(TrainSection::recipe).unwrap_or_default();
        recipe.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
    }

    /// Writes a checkpoint, beside and then renamed.
    pub fn save(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.checkpoint()?.to_bytes().map_err(|e| Error::format(path, e))?;
        crate::data::file::write(path, &bytes)
    }

    /// Goes on from a checkpoint of the same run.
    pub fn load(&mut self, path: impl AsRef<std::path::Path>) -> Result<()> {
        self.restore(&Checkpoint::open(path.as_ref())?)
    }

    fn evaluation(&mut self, batch: usize) -> Result<&Program> {
        if !self.evaluations.contains_key(&batch) {
            let sizes = sizes(&self.batch_symbols, batch);
            let graph =
                training::build_evaluation(&self.built, &sizes).map_err(|e| wrong(&self.sources, &e))?;
            self.evaluations.insert(batch, self.bench.program(&graph)?);
        }
        Ok(&self.evaluations[&batch])
    }

    fn unknown_input(&self, name: &str) -> Error {
        let names: Vec<String> = self.inputs().iter().map(|i| format!("`{}`", i.name)).collect();
        Error::Input(format!("a training step has no input `{name}`; its inputs: {}", names.join(", ")))
    }
}

/// A batch that is the next, and what is on the device of it already.
pub(super) struct Prepared {
    pub batch: Batch,
    staged: Option<Staged>,
}

impl Prepared {
    /// Nothing is there yet.
    pub fn new(batch: Batch) -> Prepared {
        Prepared { batch, staged: None }
    }
}

fn names(graph: &Graph, ids: Vec<NodeId>) -> Vec<&str> {
    ids.into_iter().map(|n| graph.node(n).name.as_str()).collect()
}
