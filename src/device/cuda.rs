//! NVIDIA GPUs: which there are, and the back end for them.

use std::sync::Arc;
use std::time::Duration;

use nnc_compiler::graph::Graph;
use nnc_compiler::lower::gpu::GpuOptions;
use nnc_compiler::target::GpuTarget;
use nnc_dsl::SourceMap;
use nnc_runtime::Program;
use nnc_runtime::cuda::{self, Cache, CudaExecutable, CudaSession, Gpu};
use nnc_runtime::parameters::Parameters;

use super::{Backend, Job, LaunchTime, Loaded, launch_times};
use crate::error::Result;
use crate::{Error, Tensor, TensorView, pipeline};

pub use nnc_runtime::cuda::{CudaError, DeviceInfo};

/// The GPUs that the driver finds; an error says why there are none.
pub fn gpus() -> Result<Vec<DeviceInfo>, CudaError> {
    cuda::devices()
}

/// True if there is a GPU that kernels run on.
pub fn is_usable() -> bool {
    gpus().is_ok_and(|all| all.iter().any(|gpu| gpu.check().is_ok()))
}

/// The GPU that programs run on, and the target that code is made for.
pub(crate) fn open() -> Result<(Arc<Gpu>, GpuTarget)> {
    let missing = |e: CudaError| Error::Options(format!("there is no GPU to run on: {e}"));
    let gpu = Gpu::open(Cache::from_environment()).map_err(missing)?;
    let target = GpuTarget::for_capability(gpu.info().capability);
    let target = target.ok_or_else(|| Error::Internal("a GPU without a target was opened".into()))?;
    Ok((gpu, target))
}

/// Compiles a graph with known sizes for a GPU.
pub(crate) fn compile(
    graph: &Graph,
    target: GpuTarget,
    how: GpuOptions,
    sources: &SourceMap,
    training_only: &[String],
) -> Result<Program> {
    let (graph, _) = pipeline::optimize(graph, &target.thread());
    let module = pipeline::lower_for_gpu(&graph, target, how, sources)?;
    let mut program = pipeline::emit_gpu(&module, &pipeline::plan(&module, Some(target)), target)?;
    program.training_only = training_only.to_vec();
    Ok(program)
}

/// Puts a compiled program with its parameters on the first GPU.
pub(crate) fn load_program(program: Program, parameters: &dyn Parameters) -> Result<CudaSession> {
    place(&open()?.0, program, parameters)
}

fn place(gpu: &Arc<Gpu>, program: Program, parameters: &dyn Parameters) -> Result<CudaSession> {
    Ok(CudaSession::new(CudaExecutable::load(gpu, program)?, parameters)?)
}

/// Code on a GPU.
pub(super) struct Cuda {
    gpu: Arc<Gpu>,
    target: GpuTarget,
    how: GpuOptions,
}

impl Cuda {
    pub fn open(how: GpuOptions) -> Result<Cuda> {
        let (gpu, target) = open()?;
        Ok(Cuda { gpu, target, how })
    }
}

impl Backend for Cuda {
    fn load(&self, job: &Job<'_>) -> Result<Box<dyn Loaded>> {
        let program = compile(job.graph, self.target, self.how, job.sources, job.training_only)?;
        Ok(Box::new(place(&self.gpu, program, job.weights)?))
    }
}

impl Loaded for CudaSession {
    fn run(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>> {
        Ok(CudaSession::run(self, inputs)?)
    }

    fn run_profiled(&self, inputs: &[TensorView<'_>]) -> Result<(Vec<Tensor>, Vec<LaunchTime>)> {
        let (outputs, times) = CudaSession::run_profiled(self, inputs)?;
        Ok((outputs, launch_times(self.program(), times)))
    }

    fn time_on_device(&self, inputs: &[TensorView<'_>]) -> Result<Option<Duration>> {
        Ok(Some(self.time(inputs)?))
    }
}
