//! Where a training step runs: one narrow interface, one implementation a device. The GPU's is in [`cuda`].

mod cuda;

use std::collections::BTreeMap;
use std::sync::Arc;

use nnc_compiler::graph::interpret::{self, Precision};
use nnc_compiler::graph::{Graph, Op};
use nnc_compiler::training::StepGraph;
use nnc_dsl::SourceMap;
use nnc_runtime::cuda::{CudaExecutable, CudaSession, Gpu, Staged};
use nnc_runtime::{Executable, Pool, Session, Trainable};

use super::memory::{self, Planned, StepMemory};
use crate::device::{self, Device, LaunchTime};
use crate::error::Result;
use crate::{Error, Options, Tensor, TensorView, pipeline};

/// A training step with the parameters that it changes.
pub(super) trait Engine: Send {
    /// Takes a step; inputs and outputs are in the graph's order.
    fn step(&mut self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>>;

    /// Starts a step: what has been [staged](Engine::stage) for it is not copied again. `None` if it is under
    /// way, to be [finished](Engine::finish); the outputs, where the device takes steps at once.
    fn begin(&mut self, inputs: &[TensorView<'_>], _staged: Option<Staged>) -> Result<Option<Vec<Tensor>>> {
        self.step(inputs).map(Some)
    }

    /// While a step is under way, copies those of the next one's inputs that are known to the device; to be
    /// given to [`begin`](Engine::begin).
    fn stage(&mut self, _inputs: &[Option<TensorView<'_>>]) -> Result<Option<Staged>> {
        Ok(None)
    }

    /// Waits for the step that is under way.
    fn finish(&mut self) -> Result<Vec<Tensor>> {
        Err(Error::Internal("no step is under way".into()))
    }

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
    place: Place,
    sources: Arc<SourceMap>,
}

/// Where code runs.
enum Place {
    Cpu(Arc<Pool>),
    Cuda(Arc<Gpu>),
    Reference,
}

impl Bench {
    pub(super) fn new(options: &Options, sources: Arc<SourceMap>) -> Result<Bench> {
        let mut options = options.clone();
        let place = match options.chosen_device() {
            Device::Cpu => Place::Cpu(Arc::new(Pool::new(options.thread_count()))),
            Device::Cuda => {
                let (gpu, target) = device::cuda::open()?;
                options = options.gpu(target);
                Place::Cuda(gpu)
            }
            Device::Reference => Place::Reference,
        };
        Ok(Bench { options, place, sources })
    }

    /// Makes of a training step what the device runs.
    pub(super) fn step(&self, step: &StepGraph, batch: usize) -> Result<Program> {
        if let Place::Reference = self.place {
            if self.options.chosen_memory_limit().is_some() {
                let message = "the reference device plans no memory, so it can keep no limit";
                return Err(Error::Options(message.into()));
            }
            return Ok(Program { graph: step.graph.clone(), code: Code::Interpreted, memory: None });
        }
        let Planned { module, plan, memory } = memory::plan(step, batch, &self.options, &self.sources)?;
        let program = match self.options.chosen_gpu() {
            Some(gpu) => pipeline::emit_gpu(&module, &plan, gpu)?,
            None => pipeline::emit(&module, &plan, &self.options.chosen_target(), false)?.program,
        };
        Ok(Program { graph: step.graph.clone(), code: self.load(program)?, memory: Some(memory) })
    }

    /// Makes of a graph without updates what the device runs.
    pub(super) fn program(&self, graph: &Graph) -> Result<Program> {
        let (options, sources) = (&self.options, &self.sources);
        let code = match (&self.place, options.chosen_gpu()) {
            (Place::Reference, _) => Code::Interpreted,
            (_, Some(gpu)) => {
                let how = options.lowering_for_gpu();
                self.load(device::cuda::compile(graph, gpu, how, sources, &[])?)?
            }
            (_, None) => {
                let (target, how) = (options.chosen_target(), options.lowering());
                self.load(device::compile(graph, &target, &how, sources, &[])?)?
            }
        };
        Ok(Program { graph: graph.clone(), code, memory: None })
    }

    fn load(&self, program: nnc_runtime::Program) -> Result<Code> {
        Ok(match &self.place {
            Place::Cpu(pool) => {
                let executable = Executable::load(program).map_err(|e| Error::Program(e.to_string()))?;
                Code::Cpu(executable, pool.clone())
            }
            Place::Cuda(gpu) => Code::Cuda(CudaExecutable::load(gpu, program)?),
            Place::Reference => Code::Interpreted,
        })
    }
}

/// What a device runs.
enum Code {
    Cpu(Arc<Executable>, Arc<Pool>),
    Cuda(Arc<CudaExecutable>),
    Interpreted,
}

/// A graph on a device.
pub(super) struct Program {
    graph: Graph,
    code: Code,
    /// What a training step takes.
    memory: Option<StepMemory>,
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
        Ok(match &self.code {
            Code::Cpu(e, pool) => Box::new(Trainable::new(e.clone(), parameters, pool.clone())?),
            Code::Cuda(e) => Box::new(cuda::Cuda::new(e.clone(), &parameters)?),
            Code::Interpreted => Box::new(Reference { graph: self.graph.clone(), feeds: parameters }),
        })
    }

    /// A graph without updates, to be run with those of the parameters that it has.
    pub(super) fn with(&self, parameters: &BTreeMap<String, Tensor>) -> Result<Measuring<'_>> {
        let own = parameters_of(&self.graph, parameters);
        Ok(match &self.code {
            Code::Cpu(e, pool) => Measuring::Cpu(Box::new(Session::new(e.clone(), &own, pool.clone())?)),
            Code::Cuda(e) => Measuring::Cuda(Box::new(CudaSession::new(e.clone(), &own)?)),
            Code::Interpreted => Measuring::Reference(&self.graph, own),
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
        match &to.code {
            Code::Cpu(executable, _) => Ok(Trainable::switch(self, executable.clone())?),
            _ => Err(Error::Internal("a step without code for the CPU".into())),
        }
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
    Cuda(Box<CudaSession>),
    Reference(&'a Graph, BTreeMap<String, Tensor>),
}

impl Measuring<'_> {
    /// Runs it; inputs and outputs are in the graph's order.
    pub(super) fn run(&mut self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>> {
        match self {
            Measuring::Cpu(session) => Ok(session.run(inputs)?),
            Measuring::Cuda(session) => Ok(session.run(inputs)?),
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
