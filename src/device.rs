//! Where networks run: one switch ([`Device`]), one narrow interface per back end.
//!
//! A back end is a [`Backend`]: it turns a graph with known sizes and its parameters into a
//! [`Loaded`], which runs. Nothing above this file knows how. A further device is a further
//! variant of [`Device`], a further implementation here, and a line in [`backend`]. The GPU's is in [`cuda`].

pub mod cuda;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nnc_compiler::graph::{Graph, Op, interpret};
use nnc_compiler::lower::algorithm::LowerOptions;
use nnc_compiler::target::CpuTarget;
use nnc_dsl::SourceMap;
use nnc_runtime::program::{Port, Program};
use nnc_runtime::session::{LaunchTimes, check_parameters};
use nnc_runtime::{Executable, Parameters, Pool, Session};

use crate::error::Result;
use crate::{Error, Options, Tensor, TensorView, Weights, pipeline};

/// A kind of back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// Machine code on this computer's cores.
    #[default]
    Cpu,
    /// PTX on an NVIDIA GPU: the first that can be used.
    Cuda,
    /// The graph interpreter: plain loops, slow, obviously right.
    Reference,
}

impl Device {
    /// All devices.
    pub const ALL: [Device; 3] = [Device::Cpu, Device::Cuda, Device::Reference];

    /// A GPU if one can be used, else the CPU.
    pub fn auto() -> Device {
        if cuda::is_usable() { Device::Cuda } else { Device::Cpu }
    }

    /// `cpu`, `cuda`, `reference`.
    pub fn name(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
            Device::Reference => "reference",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(s: &str) -> Result<Device, String> {
        Device::ALL
            .into_iter()
            .find(|d| d.name() == s)
            .ok_or_else(|| format!("expected a device (cpu, cuda or reference), found `{s}`"))
    }
}

/// Time of one launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchTime {
    /// The kernel: `conv2d_relu_max_pool.3`.
    pub kernel: String,
    /// The layers it computes.
    pub layer: String,
    /// Where they are written: `vgg.nn:9`.
    pub location: String,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of what it reads and of what it writes, each once.
    pub bytes: u64,
    /// How long it took.
    pub time: Duration,
}

/// What a back end is given.
pub struct Job<'a> {
    /// The graph as built, every size known.
    pub graph: &'a Graph,
    /// The texts that its spans point into.
    pub sources: &'a SourceMap,
    /// Names of parameters that only the training variant has.
    pub training_only: &'a [String],
    /// The parameters.
    pub weights: &'a Weights,
}

/// A back end.
pub trait Backend: Send + Sync {
    /// Makes a network ready to run.
    fn load(&self, job: &Job<'_>) -> Result<Box<dyn Loaded>>;
}

/// A network with its parameters on a device.
pub trait Loaded: Send + Sync {
    /// Runs it; inputs and outputs are in the graph's order.
    fn run(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>>;

    /// Runs it and tells how long every launch took, where the device has launches.
    fn run_profiled(&self, inputs: &[TensorView<'_>]) -> Result<(Vec<Tensor>, Vec<LaunchTime>)>;

    /// How long a run takes on a device that has a clock of its own, with its inputs there.
    fn time_on_device(&self, _inputs: &[TensorView<'_>]) -> Result<Option<Duration>> {
        Ok(None)
    }
}

/// The back end that the options choose.
///
/// # Errors
/// There is no GPU where one is asked for.
pub fn backend(options: &Options) -> Result<Arc<dyn Backend>> {
    Ok(match options.chosen_device() {
        Device::Cpu => {
            let pool = Arc::new(Pool::new(options.thread_count()));
            Arc::new(Cpu { target: options.chosen_target(), how: options.lowering(), pool })
        }
        Device::Cuda => Arc::new(cuda::Cuda::open(options.lowering_for_gpu())?),
        Device::Reference => Arc::new(Reference),
    })
}

/// Compiled code on a thread pool.
struct Cpu {
    target: CpuTarget,
    how: LowerOptions,
    pool: Arc<Pool>,
}

impl Backend for Cpu {
    fn load(&self, job: &Job<'_>) -> Result<Box<dyn Loaded>> {
        let program = compile(job.graph, &self.target, &self.how, job.sources, job.training_only)?;
        Ok(Box::new(load_program(program, job.weights, self.pool.clone())?))
    }
}

/// Compiles a graph with known sizes.
pub fn compile(
    graph: &Graph,
    target: &CpuTarget,
    how: &LowerOptions,
    sources: &SourceMap,
    training_only: &[String],
) -> Result<Program> {
    let (graph, _) = pipeline::optimize(graph, target);
    let module = pipeline::lower(&graph, target, how, sources)?;
    let mut program = pipeline::emit(&module, &pipeline::plan(&module, None), target, false)?.program;
    program.training_only = training_only.to_vec();
    Ok(program)
}

/// A compiled program with its parameters.
pub fn load_program(program: Program, parameters: &dyn Parameters, pool: Arc<Pool>) -> Result<Session> {
    let executable = Executable::load(program).map_err(|e| Error::Program(e.to_string()))?;
    Ok(Session::new(executable, parameters, pool)?)
}

impl Loaded for Session {
    fn run(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>> {
        Ok(Session::run(self, inputs)?)
    }

    fn run_profiled(&self, inputs: &[TensorView<'_>]) -> Result<(Vec<Tensor>, Vec<LaunchTime>)> {
        let (outputs, times) = Session::run_profiled(self, inputs)?;
        Ok((outputs, launch_times(self.program(), times)))
    }
}

/// Says of each launch what it is.
pub(crate) fn launch_times(program: &Program, times: LaunchTimes) -> Vec<LaunchTime> {
    let named = |(i, time): (usize, Duration)| {
        let launch = &program.launches[i];
        let kernel = &program.kernels[launch.kernel];
        LaunchTime {
            kernel: kernel.name.clone(),
            layer: launch.layer.clone(),
            location: launch.location.clone(),
            flops: kernel.flops,
            bytes: program.bytes_of(launch),
            time,
        }
    };
    times.into_iter().map(named).collect()
}

/// The graph interpreter.
struct Reference;

/// A graph and what is fed to it, for the interpreter.
struct Interpreted {
    graph: Graph,
    /// Inputs and parameters by name; runs take turns, so that no parameter is copied for each.
    feeds: Mutex<BTreeMap<String, Tensor>>,
}

impl Backend for Reference {
    fn load(&self, job: &Job<'_>) -> Result<Box<dyn Loaded>> {
        let ports = parameter_ports(job.graph);
        check_parameters(ports.iter(), job.training_only, job.weights)?;
        let feeds = Mutex::new(job.weights.tensors()?.clone());
        Ok(Box::new(Interpreted { graph: job.graph.clone(), feeds }))
    }
}

/// The parameters of a graph whose shapes are known.
pub fn parameter_ports(graph: &Graph) -> Vec<Port> {
    let port = |n| {
        let node = graph.node(n);
        Some(Port { name: node.name.clone(), dtype: node.ty.dtype, shape: node.ty.sizes()? })
    };
    graph.ids().filter(|&n| matches!(graph.node(n).op, Op::Parameter(_))).filter_map(port).collect()
}

impl Loaded for Interpreted {
    fn run(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        for (n, view) in self.graph.inputs().into_iter().zip(inputs) {
            feeds.insert(self.graph.node(n).name.clone(), view.to_tensor());
        }
        let mut outputs = interpret::run(&self.graph, &feeds).map_err(|e| Error::Input(e.to_string()))?;
        let take = |o: &nnc_compiler::graph::Output| {
            outputs
                .remove(&o.name)
                .ok_or_else(|| Error::Internal(format!("no value for output `{}`", o.name)))
        };
        self.graph.outputs.iter().map(take).collect()
    }

    fn run_profiled(&self, inputs: &[TensorView<'_>]) -> Result<(Vec<Tensor>, Vec<LaunchTime>)> {
        Ok((self.run(inputs)?, vec![]))
    }
}
