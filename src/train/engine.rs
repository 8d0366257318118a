//! Where a training step runs: one narrow interface, one implementation a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use nnc_compiler::graph::interpret::{self, Precision};
use nnc_compiler::graph::{Graph, Op};
use nnc_compiler::lower::algorithm::LowerOptions;
use nnc_compiler::target::CpuTarget;
use nnc_dsl::SourceMap;
use nnc_runtime::{Executable, Pool, Session, Trainable};

use crate::device::{self, Device, LaunchTime};
use crate::error::Result;
use crate::{Error, Options, Tensor, TensorView};

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
    device: Device,
    target: CpuTarget,
    how: LowerOptions,
    pool: Arc<Pool>,
    sources: Arc<SourceMap>,
}

impl Bench {
    pub(super) fn new(options: &Options, sources: Arc<SourceMap>) -> Bench {
        // The interpreter has no use for threads.
        let threads = if options.chosen_device() == Device::Cpu { options.thread_count() } else { 1 };
        let pool = Arc::new(Pool::new(threads));
        let (device, target) = (options.chosen_device(), options.chosen_target());
        Bench { device, target, how: options.lowering(), pool, sources }
    }

    /// Makes of a graph what the device runs.
    pub(super) fn program(&self, graph: &Graph) -> Result<Program> {
        let executable = match self.device {
            Device::Reference => None,
            Device::Cpu => {
                let program = device::compile(graph, &self.target, &self.how, &self.sources, &[])?;
                Some(Executable::load(program).map_err(|e| Error::Program(e.to_string()))?)
            }
        };
        Ok(Program { graph: graph.clone(), executable, pool: self.pool.clone() })
    }
}

/// A graph on a device.
pub(super) struct Program {
    graph: Graph,
    /// None on the reference device.
    executable: Option<Arc<Executable>>,
    pool: Arc<Pool>,
}

impl Program {
    /// The graph.
    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// A step of a graph with updates, from these parameters on.
    pub(super) fn engine(&self, parameters: BTreeMap<String, Tensor>) -> Result<Box<dyn Engine>> {
        Ok(match &self.executable {
            None => Box::new(Reference { graph: self.graph.clone(), feeds: parameters }),
            Some(e) => Box::new(Cpu::new(e.clone(), self.pool.clone(), parameters)?),
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
struct Cpu {
    executable: Arc<Executable>,
    pool: Arc<Pool>,
    trainable: Trainable,
    /// The parameters that do not change.
    fixed: BTreeMap<String, Tensor>,
}

impl Cpu {
    fn new(
        executable: Arc<Executable>,
        pool: Arc<Pool>,
        mut parameters: BTreeMap<String, Tensor>,
    ) -> Result<Cpu> {
        let trainable = Trainable::new(executable.clone(), &parameters, pool.clone())?;
        for name in trainable.state_names() {
            parameters.remove(name);
        }
        Ok(Cpu { executable, pool, trainable, fixed: parameters })
    }
}

impl Engine for Cpu {
    fn step(&mut self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>> {
        Ok(self.trainable.step(inputs)?)
    }

    fn step_profiled(&mut self, inputs: &[TensorView<'_>]) -> Result<(Vec<Tensor>, Vec<LaunchTime>)> {
        let (outputs, times) = self.trainable.step_profiled(inputs)?;
        Ok((outputs, device::launch_times(self.trainable.program(), times)))
    }

    fn parameters(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut out = self.fixed.clone();
        for name in self.trainable.state_names() {
            let now = self.trainable.state(name).map_err(|e| Error::Program(e.to_string()))?;
            out.insert(name.to_string(), now);
        }
        Ok(out)
    }

    fn set_parameters(&mut self, parameters: BTreeMap<String, Tensor>) -> Result<()> {
        *self = Cpu::new(self.executable.clone(), self.pool.clone(), parameters)?;
        Ok(())
    }

    fn switch(&mut self, to: &Program) -> Result<()> {
        let executable =
            to.executable.clone().ok_or_else(|| Error::Internal("a step without code".into()))?;
        *self = Cpu::new(executable, self.pool.clone(), self.parameters()?)?;
        Ok(())
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
