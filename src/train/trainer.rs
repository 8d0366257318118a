//! [`Trainer`]: a network that learns, one step at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nnc_compiler::build::Built;
use nnc_compiler::graph::interpret::{self, Precision};
use nnc_compiler::graph::{Bindings, Dim, Graph, NodeId, Op, TensorType};
use nnc_compiler::training::{self, Moment, StepGraph, StepOptions, TrainError};
use nnc_dsl::SourceMap;
use nnc_runtime::program::{Parameter, Port};

use super::checkpoint::{Checkpoint, Settings};
use super::confusion::Confusion;
use super::engine::{Bench, Engine, Measure};
use super::schedule::Schedule;
use crate::data::augment::{Normalize, Transform};
use crate::data::batches::{Batch, Batches, Rest};
use crate::data::dataset::Dataset;
use crate::data::labels;
use crate::error::{Result, SourceError};
use crate::model::initial_weights;
use crate::{DType, Error, LaunchTime, Options, Source, Tensor, TensorSpec, TensorView, Weights, pipeline};

/// Examples in a step, where neither the program nor the caller says.
const DEFAULT_BATCH: usize = 64;

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
}

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
/// let slope = weights.tensors()["dense1.weight"].as_f32().unwrap();
/// assert!((slope[[0, 0]] - 3.0).abs() < 0.05);
/// # Ok::<(), nnc::Error>(())
/// ```
pub struct Trainer {
    built: Built,
    sources: Arc<SourceMap>,
    bench: Bench,
    step_graph: StepGraph,
    engine: Box<dyn Engine>,
    schedule: Schedule,
    settings: Settings,
    /// Symbols that are the batch.
    batch_symbols: Vec<String>,
    /// Inputs of a step that are the caller's.
    inputs: Vec<TensorSpec>,
    /// Evaluation programs by batch.
    evaluations: BTreeMap<usize, Measure>,
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
        let (built, sources) = pipeline::build(source, &options.clone().training(true))?;
        let section = built.train.as_ref().ok_or(TrainError::NoSection).map_err(|e| wrong(&sources, &e))?;
        let (batch_symbols, fixed) = batch_of(&built.graph);
        let batch = choose_batch(fixed, how.batch, section.batch)?;
        if how.examples > 0 && how.examples < batch {
            let n = how.examples;
            return Err(Error::Input(format!("{n} examples are too few for a batch of {batch}")));
        }
        let sizes: Bindings = batch_symbols.iter().map(|s| (s.clone(), batch)).collect();
        let step_options = StepOptions { sizes, ..StepOptions::default() };
        let step_graph = training::build_step(&built, &step_options).map_err(|e| wrong(&sources, &e))?;
        let schedule = Schedule::new(section.optimizer.number("lr"), section.schedule.as_ref())?;
        let parameters = initial_weights(&parameters_of(&step_graph.graph), how.seed)?;
        let bench = Bench::new(options, sources.clone());
        let engine = bench.engine(&step_graph.graph, parameters.tensors().clone())?;
        let settings = Settings {
            net: built.graph.name.clone(),
            seed: how.seed,
            batch,
            examples: how.examples,
            data: how.data.clone(),
        };
        let inputs = data_inputs(&step_graph);
        Ok(Trainer {
            built,
            sources,
            bench,
            step_graph,
            engine,
            schedule,
            settings,
            batch_symbols,
            inputs,
            evaluations: BTreeMap::new(),
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
        &self.inputs
    }

    /// The graph of the step.
    pub fn graph(&self) -> &Graph {
        &self.step_graph.graph
    }

    /// The names of the metrics.
    pub fn metrics(&self) -> &[String] {
        &self.step_graph.metrics
    }

    /// The epochs that the program asks for.
    pub fn epochs(&self) -> Option<usize> {
        self.built.train.as_ref().and_then(|t| t.epochs)
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Steps in an epoch: whole batches; what is left over waits for an epoch of another order.
    pub fn steps_an_epoch(&self) -> u64 {
        match self.settings.examples {
            0 => u64::MAX,
            n => (n / self.settings.batch) as u64,
        }
    }

    /// The learning rate of the next step.
    pub fn learning_rate(&self) -> f64 {
        self.schedule.rate(self.step, self.steps_an_epoch())
    }

    /// Takes a step on a batch, inputs by name. A loss that is not finite is an error, after which
    /// only [`restore`](Trainer::restore) helps.
    pub fn step(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<Measures> {
        self.step_by(inputs, |engine, inputs| Ok((engine.step(inputs)?, ()))).map(|(measures, ())| measures)
    }

    /// Takes a step and tells how long every launch took (nothing on the reference device).
    pub fn step_profiled(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
    ) -> Result<(Measures, Vec<LaunchTime>)> {
        self.step_by(inputs, |engine, inputs| engine.step_profiled(inputs))
    }

    fn step_by<T>(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        run: impl FnOnce(&mut dyn Engine, &[TensorView<'_>]) -> Result<(Vec<Tensor>, T)>,
    ) -> Result<(Measures, T)> {
        if self.diverged {
            return Err(Error::Training("the loss was not finite; restore a checkpoint first".into()));
        }
        let scalars = self.step_graph.scalars(self.moment());
        let mut given: BTreeMap<&str, TensorView<'_>> =
            scalars.iter().map(|(name, t)| (name.as_str(), t.view())).collect();
        for (name, view) in inputs {
            if !self.inputs.iter().any(|i| i.name == *name) {
                return Err(self.unknown_input(name));
            }
            given.insert(name, view.reborrow());
        }
        let ordered = in_order(&self.step_graph.graph, &given)?;
        let (outputs, more) = run(&mut *self.engine, &ordered)?;
        self.step += 1;
        let measures = measures(&self.step_graph.metrics, &outputs)?;
        if !measures.loss.is_finite() {
            self.diverged = true;
            return Err(Error::Training(format!("the loss became {} in step {}", measures.loss, self.step)));
        }
        Ok((measures, more))
    }

    /// Takes a step on a batch of a labelled data set.
    pub fn step_on(&mut self, batch: &Batch) -> Result<Measures> {
        let specs = self.inputs.clone();
        let named = |i: &TensorSpec| Ok((i.name.clone(), input_of_batch(i, batch)?));
        let given: Vec<(String, TensorView<'_>)> = specs.iter().map(named).collect::<Result<_>>()?;
        let given: Vec<(&str, TensorView<'_>)> =
            given.iter().map(|(n, v)| (n.as_str(), v.reborrow())).collect();
        self.step(&given)
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
        let mut feeds = self.engine.parameters()?;
        feeds.extend(self.step_graph.scalars(self.moment()));
        for input in &self.inputs {
            feeds.insert(input.name.clone(), input_of_batch(input, batch)?.to_tensor());
        }
        let (graph, mut first) = (&self.step_graph.graph, None);
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

    /// Goes back to the beginning: fresh parameters, step 0.
    pub fn restart(&mut self) -> Result<()> {
        let fresh = initial_weights(&parameters_of(&self.step_graph.graph), self.settings.seed)?;
        self.engine.set_parameters(fresh.tensors().clone())?;
        (self.step, self.diverged) = (0, false);
        Ok(())
    }

    /// Measures the net, as it is in inference, on every example of a set.
    pub fn evaluate(&mut self, set: &Arc<dyn Dataset>, normalize: Option<&Normalize>) -> Result<Evaluation> {
        let parameters = self.engine.parameters()?;
        let (batch, n) = (self.settings.batch, set.len());
        let whole = n - n % batch;
        let transform = Transform { normalize: normalize.cloned(), ..Transform::default() };
        let mut total = Total::default();
        // The rest is a batch of its own size, so that means are those of the set.
        for (first, end, size) in [(0, whole, batch), (whole, n, n - whole)] {
            if first == end {
                continue;
            }
            let measure = self.evaluation(size)?;
            let scores = scores_output(measure.graph());
            let mut running = measure.with(&parameters)?;
            let batches =
                Batches::new(set.clone(), (first..end).collect(), size, Rest::Drop, transform.clone())?;
            for b in batches {
                let specs = specs_of(measure.graph());
                let inputs: Vec<TensorView<'_>> =
                    specs.iter().map(|i| input_of_batch(i, &b)).collect::<Result<_>>()?;
                total.add(&running.run(&inputs)?, &b.labels, scores, set.class_names())?;
            }
        }
        Ok(total.finish(&self.step_graph.metrics))
    }

    /// The parameters under the names that they have in inference.
    pub fn weights(&self) -> Result<Weights> {
        let mut all = self.engine.parameters()?;
        for name in self.optimizer_state() {
            all.remove(&name);
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
            optimizer_state: self.optimizer_state(),
        })
    }

    /// Goes back (or on) to a moment of the same run; a checkpoint of another is refused.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let ports: Vec<Port> = parameters_of(&self.step_graph.graph).into_iter().map(|p| p.port).collect();
        checkpoint.check(&self.settings, ports.iter())?;
        self.engine.set_parameters(checkpoint.tensors.clone())?;
        (self.step, self.diverged) = (checkpoint.step, false);
        Ok(())
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

    /// Names of parameters that the net does not have: what the optimizer remembers.
    fn optimizer_state(&self) -> Vec<String> {
        let of_net: Vec<&str> = names(&self.built.graph, self.built.graph.parameters());
        let all = names(&self.step_graph.graph, self.step_graph.graph.parameters());
        all.into_iter().filter(|name| !of_net.contains(name)).map(String::from).collect()
    }

    fn evaluation(&mut self, batch: usize) -> Result<&Measure> {
        if !self.evaluations.contains_key(&batch) {
            let sizes: Bindings = self.batch_symbols.iter().map(|s| (s.clone(), batch)).collect();
            let graph =
                training::build_evaluation(&self.built, &sizes).map_err(|e| wrong(&self.sources, &e))?;
            self.evaluations.insert(batch, self.bench.measure(graph)?);
        }
        Ok(&self.evaluations[&batch])
    }

    fn unknown_input(&self, name: &str) -> Error {
        let names: Vec<String> = self.inputs.iter().map(|i| format!("`{}`", i.name)).collect();
        Error::Input(format!("a training step has no input `{name}`; its inputs: {}", names.join(", ")))
    }
}

/// An error of the program, shown in its text.
fn wrong(sources: &Arc<SourceMap>, e: &TrainError) -> Error {
    Error::Source(SourceError { sources: sources.clone(), diagnostics: vec![e.diagnostic()] })
}

fn names(graph: &Graph, ids: Vec<NodeId>) -> Vec<&str> {
    ids.into_iter().map(|n| graph.node(n).name.as_str()).collect()
}

/// The symbols that stand first in an input's shape, or the size that stands there.
fn batch_of(graph: &Graph) -> (Vec<String>, Option<usize>) {
    let first = |n: &NodeId| graph.node(*n).ty.shape.first().cloned();
    let dims: Vec<Dim> = graph.inputs().iter().filter_map(first).collect();
    let mut symbols: Vec<String> = dims.iter().flat_map(Dim::symbols).collect();
    symbols.sort();
    symbols.dedup();
    let fixed = dims.first().and_then(Dim::size);
    (symbols, fixed)
}

fn choose_batch(fixed: Option<usize>, asked: Option<usize>, program: Option<usize>) -> Result<usize> {
    match (fixed, asked) {
        (Some(n), Some(m)) if n != m => {
            Err(Error::Options(format!("the batch is {m}, but the program's input is for {n} examples")))
        }
        (Some(0), _) | (_, Some(0)) => Err(Error::Options("a batch has at least one example".into())),
        (Some(n), _) | (None, Some(n)) => Ok(n),
        (None, None) => Ok(program.unwrap_or(DEFAULT_BATCH)),
    }
}

fn parameters_of(graph: &Graph) -> Vec<Parameter> {
    let parameter = |n: NodeId| {
        let node = graph.node(n);
        let Op::Parameter(p) = &node.op else { return None };
        let port = Port { name: node.name.clone(), dtype: node.ty.dtype, shape: node.ty.sizes()? };
        Some(Parameter { port, init: p.init.clone(), trainable: p.trainable })
    };
    graph.parameters().into_iter().filter_map(parameter).collect()
}

fn data_inputs(step: &StepGraph) -> Vec<TensorSpec> {
    let scalar = |i: &TensorSpec| step.scalars.iter().any(|(name, _)| *name == i.name);
    specs_of(&step.graph).into_iter().filter(|i| !scalar(i)).collect()
}

fn specs_of(graph: &Graph) -> Vec<TensorSpec> {
    let spec = |n: NodeId| TensorSpec { name: graph.node(n).name.clone(), ty: graph.node(n).ty.clone() };
    graph.inputs().into_iter().map(spec).collect()
}

fn in_order<'a>(graph: &Graph, given: &BTreeMap<&str, TensorView<'a>>) -> Result<Vec<TensorView<'a>>> {
    let find = |n: NodeId| {
        let node = graph.node(n);
        let view = given.get(node.name.as_str());
        let view = view.ok_or_else(|| Error::Input(format!("input `{}` is not given", node.name)))?;
        let found = TensorType::new(view.dtype(), view.shape());
        if found != node.ty {
            let (name, ty) = (&node.name, &node.ty);
            return Err(Error::Input(format!("input `{name}`: expected {ty}, found {found}")));
        }
        Ok(view.clone())
    };
    graph.inputs().into_iter().map(find).collect()
}

/// What a batch of a labelled data set gives an input: floats are examples, integers labels.
fn input_of_batch<'a>(input: &TensorSpec, batch: &'a Batch) -> Result<TensorView<'a>> {
    for t in [&batch.examples, &batch.labels] {
        if input.ty == TensorType::new(t.dtype(), t.shape()) {
            return Ok(t.view());
        }
    }
    let (name, ty) = (&input.name, &input.ty);
    let found = [&batch.examples, &batch.labels].map(|t| TensorType::new(t.dtype(), t.shape()).to_string());
    Err(Error::Input(format!("input `{name}: {ty}`: the data set gives {} and {}", found[0], found[1])))
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

/// From the outputs: the loss, then the metrics.
fn measures(names: &[String], outputs: &[Tensor]) -> Result<Measures> {
    let values: Vec<f64> = outputs.iter().take(names.len() + 1).map(scalar).collect::<Result<_>>()?;
    let (loss, rest) = values.split_first().ok_or_else(|| Error::Internal("a step without a loss".into()))?;
    Ok(Measures { loss: *loss, metrics: names.iter().cloned().zip(rest.iter().copied()).collect() })
}

/// The output to classify by, as its number: `logits`, `probabilities`, or the first `f32[N, classes]`.
fn scores_output(graph: &Graph) -> Option<usize> {
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
struct Total {
    /// Loss and metrics, times examples.
    sums: Vec<f64>,
    count: usize,
    confusion: Option<Confusion>,
}

impl Total {
    fn add(
        &mut self,
        outputs: &[Tensor],
        classes: &Tensor,
        scores: Option<usize>,
        names: &[String],
    ) -> Result<()> {
        let n = classes.len();
        for (i, t) in outputs.iter().enumerate().take_while(|(_, t)| t.shape().is_empty()) {
            if self.sums.len() <= i {
                self.sums.push(0.0);
            }
            self.sums[i] += scalar(t)? * n as f64;
        }
        self.count += n;
        let (Some(Tensor::F32(scores)), Tensor::I32(classes)) =
            (scores.and_then(|i| outputs.get(i)), classes)
        else {
            return Ok(());
        };
        let confusion = self.confusion.get_or_insert_with(|| Confusion::new(scores.shape()[1], names));
        for (row, &label) in scores.outer_iter().zip(classes) {
            let best = labels::top(row.iter().copied(), 1);
            if let (Some(&(predicted, _)), Ok(label)) = (best.first(), usize::try_from(label)) {
                confusion.add(label, predicted);
            }
        }
        Ok(())
    }

    fn finish(self, names: &[String]) -> Evaluation {
        let mean = |i: usize| self.sums.get(i).map_or(f64::NAN, |s| s / self.count.max(1) as f64);
        let metrics = names.iter().enumerate().map(|(i, n)| (n.clone(), mean(i + 1))).collect();
        Evaluation { measures: Measures { loss: mean(0), metrics }, confusion: self.confusion }
    }
}
