//! Where a training step runs: one narrow interface, one implementation a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use nnc_compiler::graph::interpret::{self, Precision};
use nnc_compiler::graph::{Graph, Op};
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
}

/// Puts training steps and evaluations on the device that the options choose.
pub(super) struct Bench {
    device: Device,
    target: CpuTarget,
    precision: crate::Precision,
    pool: Arc<Pool>,
    sources: Arc<SourceMap>,
}

impl Bench {
    pub(super) fn new(options: &Options, sources: Arc<SourceMap>) -> Bench {
        // The interpreter has no use for threads.
        let threads = if options.chosen_device() == Device::Cpu { options.thread_count() } else { 1 };
        let pool = Arc::new(Pool::new(threads));
        let (device, target) = (options.chosen_device(), options.chosen_target());
        Bench { device, target, precision: options.chosen_precision(), pool, sources }
    }

    /// A step of a graph with updates.
    pub(super) fn engine(
        &self,
        graph: &Graph,
        parameters: BTreeMap<String, Tensor>,
    ) -> Result<Box<dyn Engine>> {
        Ok(match self.device {
            Device::Reference => Box::new(Reference { graph: graph.clone(), feeds: parameters }),
            Device::Cpu => {
                let executable = self.compile(graph)?;
                let trainable = Trainable::new(executable.clone(), &parameters, self.pool.clone())?;
                Box::new(Cpu { executable, pool: self.pool.clone(), trainable, initial: parameters })
            }
        })
    }

    /// A graph without updates, to be run with parameters of the moment.
    pub(super) fn measure(&self, graph: Graph) -> Result<Measure> {
        let executable = match self.device {
            Device::Reference => None,
            Device::Cpu => Some(self.compile(&graph)?),
        };
        Ok(Measure { graph, executable, pool: self.pool.clone() })
    }

    fn compile(&self, graph: &Graph) -> Result<Arc<Executable>> {
        let program = device::compile(graph, &self.target, self.precision, &self.sources, &[])?;
        Executable::load(program).map_err(|e| Error::Program(e.to_string()))
    }
}

/// Compiled code that updates its own memory.
struct Cpu {
    executable: Arc<Executable>,
    pool: Arc<Pool>,
    trainable: Trainable,
    /// What was loaded: still true of the parameters that do not change.
    initial: BTreeMap<String, Tensor>,
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
        let mut out = self.initial.clone();
        for name in self.trainable.state_names() {
            let now = self.trainable.state(name).map_err(|e| Error::Program(e.to_string()))?;
            out.insert(name.to_string(), now);
        }
        Ok(out)
    }

    fn set_parameters(&mut self, parameters: BTreeMap<String, Tensor>) -> Result<()> {
        self.trainable = Trainable::new(self.executable.clone(), &parameters, self.pool.clone())?;
        self.initial = parameters;
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
}

/// A graph without updates on a device.
pub(super) struct Measure {
    graph: Graph,
    /// None on the reference device.
    executable: Option<Arc<Executable>>,
    pool: Arc<Pool>,
}

/// A [`Measure`] with parameters.
pub(super) enum Measuring<'a> {
    Cpu(Box<Session>),
    Reference(&'a Graph, BTreeMap<String, Tensor>),
}

impl Measure {
    /// The graph.
    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// With those of the parameters that it has.
    pub(super) fn with(&self, parameters: &BTreeMap<String, Tensor>) -> Result<Measuring<'_>> {
        let own = parameters_of(&self.graph, parameters);
        Ok(match &self.executable {
            Some(e) => Measuring::Cpu(Box::new(Session::new(e.clone(), &own, self.pool.clone())?)),
            None => Measuring::Reference(&self.graph, own),
        })
    }
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
