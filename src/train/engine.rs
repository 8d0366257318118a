//! Where a training step runs: one narrow interface, one implementation a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use nnc_compiler::graph::interpret::{self, Precision};
use nnc_compiler::graph::{Graph, Op};
use nnc_compiler::training::StepGraph;
use nnc_dsl::SourceMap;
use nnc_runtime::{Executable, Pool, Session, Trainable};

use super::memory::{self, Planned, StepMemory};
use crate::device::{self, Device, LaunchTime};
use crate::error::Result;
use crate::{Error, Options, Tensor, TensorView, pipeline};

/// A training step with the parameters that it changes.
pub(super) trait Engine: Send {
    /// Takes a step; inputs and outputs are in the graph's order.
    fn step(&mut self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>>;

    /// Takes a step and tells how long every launch took, where the device has launches.
    fn step_profiled(&mut self, inputs: &[TensorView<'_>]) -> Result<(Vec<Tensor>, Vec<LaunchTime>)>;

    /// Every parameter as it is now, the optimizer's state among them.
    fn parameters(&self) -> Result<BTreeMap<String, Tensor>>;

    /// Replaces every parameter.
    fn set_parameters(&mut self, parameters: BTreeMap<String, Tensor>) -> Result<()>;

    /// Goes on with another step for the same parameters: one for a batch of another size.
    fn switch(&mut self, to: &Program) -> Result<()>;
}

/// Puts training steps and evaluations on the device that the options choose.
pub(super) struct Bench {
    options: Options,
    pool: Arc<Pool>,
    sources: Arc<SourceMap>,
}

impl Bench {
    pub(super) fn new(options: &Options, sources: Arc<SourceMap>) -> Bench {
        // The interpreter has no use for threads.
        let threads = if options.chosen_device() == Device::Cpu { options.thread_count() } else { 1 };
        let pool = Arc::new(Pool::new(threads));
        Bench { options: options.clone(), pool, sources }
    }

    /// Makes of a training step what the device runs.
    pub(super) fn step(&self, step: &StepGraph, batch: usize) -> Result<Program> {
        if self.options.chosen_device() == Device::Reference {
            if self.options.chosen_memory_limit().is_some() {
                let message = "the reference device plans no memory, so it can keep no limit";
                return Err(Error::Options(message.into()));
            }
            return Ok(self.placed(&step.graph, None, None));
        }
        let Planned { module, plan, memory } = memory::plan(step, batch, &self.options, &self.sources)?;
        let emitted = pipeline::emit(&module, &plan, &self.options.chosen_target(), false)?;
        Ok(self.placed(&step.graph, Some(load(emitted.program)?), Some(memory)))
    }

    /// Makes of a graph without updates what the device runs.
    pub(super) fn program(&self, graph: &Graph) -> Result<Program> {
        let (options, sources) = (&self.options, &self.sources);
        let executable = match options.chosen_device() {
            Device::Reference => None,
            Device::Cpu => {
                let (target, how) = (options.chosen_target(), options.lowering());
                Some(load(device::compile(graph, &target, &how, sources, &[])?)?)
            }
        };
        Ok(self.placed(graph, executable, None))
    }

    fn placed(
        &self,
        graph: &Graph,
        executable: Option<Arc<Executable>>,
        memory: Option<StepMemory>,
    ) -> Program {
        Program { graph: graph.clone(), executable, memory, pool: self.pool.clone() }
    }
}

fn load(program: nnc_runtime::Program) -> Result<Arc<Executable>> {
    Executable::load(program).map_err(|e| Error::Program(e.to_string()))
}

/// A graph on a device.
pub(super) struct Program {
    graph: Graph,
    /// None on the reference device.
    executable: Option<Arc<Executable>>,
    /// What a training step takes.
    memory: Option<StepMemory>,
    pool: Arc<Pool>,
}

impl Program {
    /// The memory that a training step takes, on devices that have a plan.
    pub(super) fn memory(&self) -> Option<&StepMemory> {
        self.memory.as_ref()
    }

    /// The graph.
    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// A step of a graph with updates, from these parameters on.
    pub(super) fn engine(&self, parameters: BTreeMap<String, Tensor>) -> Result<Box<dyn Engine>> {
        Ok(match &self.executable {
            None => Box::new(Reference { graph: self.graph.clone(), feeds: parameters }),
            Some(e) => Box::new(Trainable::new(e.clone(), parameters, self.pool.clone())?),
        })
    }

    /// A graph without updates, to be run with those of the parameters that it has.
    pub(super) fn with(&self, parameters: &BTreeMap<String, Tensor>) -> Result<Measuring<'_>> {
        let own = parameters_of(&self.graph, parameters);
        Ok(match &self.executable {
            Some(e) => Measuring::Cpu(Box::new(Session::new(e.clone(), &own, self.pool.clone())?)),
            None => Measuring::Reference(&self.graph, own),
        })
    }
}

/// Compiled code that updates its own memory.
impl Engine for Trainable {
    fn step(&mut self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>> {
        Ok(Trainable::step(self, inputs)?)
    }

    fn step_profiled(&mut self, inputs: &[TensorView<'_>]) -> Result<(Vec<Tensor>, Vec<LaunchTime>)> {
        let (outputs, times) = Trainable::step_profiled(self, inputs)?;
        Ok((outputs, device::launch_times(self.program(), times)))
    }

    fn parameters(&self) -> Result<BTreeMap<String, Tensor>> {
        Trainable::parameters(self).map_err(|e| Error::Program(e.to_string()))
    }

    fn set_parameters(&mut self, parameters: BTreeMap<String, Tensor>) -> Result<()> {
        Ok(Trainable::set_parameters(self, parameters)?)
    }

    fn switch(&mut self, to: &Program) -> Result<()> {
        let executable =
            to.executable.clone().ok_or_else(|| Error::Internal("a step without code".into()))?;
        Ok(Trainable::switch(self, executable)?)
    }
}

/// The graph interpreter.
struct Reference {
    graph: Graph,
    /// Parameters, and inputs of the last step, by name.
    feeds: BTreeMap<String, Tensor>,
}

impl Engine for Reference {
    fn step(&mut self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>> {
        feed(&self.graph, &mut self.feeds, inputs);
        let step = interpret::step(&self.graph, &self.feeds, Precision::AsWritten);
        let mut step = step.map_err(|e| Error::Input(e.to_string()))?;
        self.feeds.append(&mut step.parameters);
        in_order(&self.graph, step.outputs)
    }

    fn step_profiled(&mut self, inputs: &[TensorView<'_>]) -> Result<(Vec<Tensor>, Vec<LaunchTime>)> {
        Ok((self.step(inputs)?, vec![]))
    }

    fn parameters(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(parameters_of(&self.graph, &self.feeds))
    }

    fn set_parameters(&mut self, parameters: BTreeMap<String, Tensor>) -> Result<()> {
        self.feeds = parameters;
        Ok(())
    }

    fn switch(&mut self, to: &Program) -> Result<()> {
        self.graph = to.graph.clone();
        Ok(())
    }
}

/// A [`Program`] without updates, with parameters.
pub(super) enum Measuring<'a> {
    Cpu(Box<Session>),
    Reference(&'a Graph, BTreeMap<String, Tensor>),
}

impl Measuring<'_> {
    /// Runs it; inputs and outputs are in the graph's order.
    pub(super) fn run(&mut self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>> {
        match self {
            Measuring::Cpu(session) => Ok(session.run(inputs)?),
            Measuring::Reference(graph, feeds) => {
                feed(graph, feeds, inputs);
                let outputs = interpret::run(graph, feeds).map_err(|e| Error::Input(e.to_string()))?;
                in_order(graph, outputs)
            }
        }
    }
}

fn feed(graph: &Graph, feeds: &mut BTreeMap<String, Tensor>, inputs: &[TensorView<'_>]) {
    for (n, view) in graph.inputs().into_iter().zip(inputs) {
        feeds.insert(graph.node(n).name.clone(), view.to_tensor());
    }
}

fn in_order(graph: &Graph, mut outputs: BTreeMap<String, Tensor>) -> Result<Vec<Tensor>> {
    let missing = |name: &str| Error::Internal(format!("no value for output `{name}`"));
    graph.outputs.iter().map(|o| outputs.remove(&o.name).ok_or_else(|| missing(&o.name))).collect()
}

/// Those of the tensors that are parameters of the graph.
fn parameters_of(graph: &Graph, tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let named = |n| {
        let name = &graph.node(n).name;
        Some((name.clone(), tensors.get(name)?.clone()))
    };
    graph.ids().filter(|&n| matches!(graph.node(n).op, Op::Parameter(_))).filter_map(named).collect()
}
