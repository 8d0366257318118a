//! The road from source to program, one function a stretch; [`stages`](crate::stages) prints what
//! lies between.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nnc_compiler::build::{self, BuildOptions, Built, Loader};
use nnc_compiler::emit::cpu::EmitOptions;
use nnc_compiler::emit::cuda::{self, Ptx};
use nnc_compiler::emit::{self, Emitted};
use nnc_compiler::graph::Graph;
use nnc_compiler::kernel::module::Module;
use nnc_compiler::lower::algorithm::LowerOptions;
use nnc_compiler::lower::gpu::GpuOptions;
use nnc_compiler::lower::{self, LowerError};
use nnc_compiler::pass::{self, Report};
use nnc_compiler::plan::{self, Plan};
use nnc_compiler::target::{CpuTarget, GpuTarget};
use nnc_dsl::SourceMap;
use nnc_runtime::Program;

use crate::error::{Result, SourceError};
use crate::source::read_text;
use crate::{Error, Options, Source};

/// Builds a net of a source. The map that comes back has the texts of all files it uses.
pub fn build(source: &Source, options: &Options) -> Result<(Built, Arc<SourceMap>)> {
    let mut map = source.map.clone();
    let loader = Files { folder: source.folder.clone() };
    let how = BuildOptions {
        net: options.chosen_net().map(str::to_string),
        sets: options.sets().clone(),
        training: options.is_training(),
    };
    match build::build(&mut map, source.root, &loader, &how) {
        Ok(built) => Ok((built, Arc::new(map))),
        Err(diagnostics) => Err(Error::Source(SourceError { sources: Arc::new(map), diagnostics })),
    }
}

/// Runs all passes on a copy of the graph.
pub fn optimize(graph: &Graph, target: &CpuTarget) -> (Graph, Vec<Report>) {
    let mut graph = graph.clone();
    let reports = pass::run_all(&mut graph, target, &mut |_, _| {});
    (graph, reports)
}

/// Lowers a graph that was optimised for the same target to kernels, in an order that needs little memory.
pub fn lower(graph: &Graph, target: &CpuTarget, how: &LowerOptions, sources: &SourceMap) -> Result<Module> {
    ordered(lower::lower_with(graph, target, how, Some(sources)))
}

/// Lowers a graph that was optimised for a GPU's threads to kernels for it, in an order that needs little memory.
pub fn lower_for_gpu(
    graph: &Graph,
    target: GpuTarget,
    how: GpuOptions,
    sources: &SourceMap,
) -> Result<Module> {
    ordered(lower::lower_for_gpu_with(graph, target, how, Some(sources)))
}

fn ordered(lowered: std::result::Result<Module, LowerError>) -> Result<Module> {
    let mut module = lowered.map_err(|e| match e {
        LowerError::Invalid { .. } => Error::Internal(e.to_string()),
        e => Error::Options(e.to_string()),
    })?;
    plan::order::run(&mut module);
    Ok(module)
}

/// Makes code of kernels. `text` asks for its text forms too.
pub fn emit(module: &Module, plan: &Plan, target: &CpuTarget, text: bool) -> Result<Emitted> {
    let options = EmitOptions { clif: text, asm: text };
    emit::emit(module, plan, target, &options).map_err(|e| Error::Internal(e.to_string()))
}

/// Writes kernels as PTX. What can fail is the size of the net.
pub fn emit_ptx(module: &Module, target: GpuTarget) -> Result<Ptx> {
    cuda::emit(module, target).map_err(|e| Error::Options(e.to_string()))
}

/// Writes kernels as PTX and makes a program of them. What can fail is the size of the net.
pub fn emit_gpu(module: &Module, plan: &Plan, target: GpuTarget) -> Result<Program> {
    emit::emit_gpu(module, plan, target).map_err(|e| Error::Options(e.to_string()))
}

/// Bytes of the arena up to which kernels on a GPU are kept from waiting for memory that others use. What is larger
/// has kernels that fill the GPU one by one.
const ARENA_APART: usize = 256 << 20;

/// From an optimised graph's kernels to their plan, for a CPU or a GPU.
pub fn plan(module: &Module, gpu: Option<GpuTarget>) -> Plan {
    plan_within(module, gpu, usize::MAX)
}

/// Likewise, where the arena may take so many bytes and some plan does not take more.
pub fn plan_within(module: &Module, gpu: Option<GpuTarget>, arena_bytes: usize) -> Plan {
    match gpu {
        Some(_) => plan::plan_apart(module, arena_bytes.min(ARENA_APART)),
        None => plan::plan(module),
    }
}

/// Finds the files of `use "other.nn"` beside the file that uses them.
struct Files {
    /// The folder of the root file; none for a program in memory.
    folder: Option<PathBuf>,
}

impl Loader for Files {
    fn load(&self, path: &str, from: &str) -> Result<(String, String), String> {
        let Some(root) = &self.folder else {
            return Err("a program that is not a file cannot use files".to_string());
        };
        let folder = Path::new(from).parent().unwrap_or(root);
        let file = folder.join(path);
        let text = read_text(&file).map_err(|e| e.to_string())?;
        Ok((file.display().to_string(), text))
    }
}
