//! A program whose code is on the GPU.

use std::sync::Arc;

use super::driver::{self, Function, Module};
use super::error::{CudaError, Place};
use super::{Gpu, Key};
use crate::program::{Grid, Program, ProgramError};

/// A validated program with its code loaded on a GPU. Shared by sessions.
#[derive(Debug)]
pub struct CudaExecutable {
    gpu: Arc<Gpu>,
    program: Program,
    /// Of each kernel; they belong to the module.
    functions: Vec<Function>,
    _module: Option<Module>,
}

impl CudaExecutable {
    /// Validates a program, checks that it is made for this GPU or an older one, and translates and loads
    /// its code; the driver does not translate what is in the cache.
    pub fn load(gpu: &Arc<Gpu>, program: Program) -> Result<Arc<CudaExecutable>, CudaError> {
        program.validate()?;
        check(gpu, &program)?;
        let mut functions = vec![];
        let module = match program.kernels.is_empty() {
            true => None,
            false => Some(module(gpu, program.ptx().unwrap_or_default())?),
        };
        for (i, kernel) in program.kernels.iter().enumerate() {
            if let (Some(module), Some(grid)) = (&module, &kernel.grid) {
                let found = module.function(&grid.entry, grid.shared_bytes);
                functions.push(found.map_err(|error| {
                    let launch = program.launches.iter().find(|l| l.kernel == i);
                    CudaError::Kernel { place: Place::of(&kernel.name, launch), error }
                })?);
            }
        }
        Ok(Arc::new(CudaExecutable { gpu: gpu.clone(), program, functions, _module: module }))
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Where its code is.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The entry of a kernel, and how it is launched.
    pub(super) fn entry(&self, kernel: usize) -> Option<(Function, &Grid)> {
        Some((*self.functions.get(kernel)?, self.program.kernels[kernel].grid.as_ref()?))
    }

    /// Which launch of the program that is, for messages.
    pub(super) fn place(&self, launch: usize) -> Box<Place> {
        let launch = &self.program.launches[launch];
        Place::of(&self.program.kernels[launch.kernel].name, Some(launch))
    }
}

/// A module of PTX, from the cache if it is there.
fn module(gpu: &Gpu, ptx: &str) -> Result<Module, CudaError> {
    let key = Key::of(ptx, gpu.info.driver, gpu.info.capability);
    if let Some(code) = gpu.cache.get(key) {
        match Module::load(&gpu.context, &code) {
            Ok(module) => return Ok(module),
            // Whatever it is, the driver does not take it.
            Err(_) => gpu.cache.remove(key),
        }
    }
    let code = driver::link(&gpu.context, ptx)?;
    let module = Module::load(&gpu.context, &code)?;
    gpu.cache.put(key, &code);
    Ok(module)
}

/// Complains about a program that is not for this GPU.
fn check(gpu: &Gpu, program: &Program) -> Result<(), CudaError> {
    let refused = |text: String| Err(CudaError::Program(ProgramError::Unsupported(text)));
    if !program.is_for_gpu() {
        return refused(format!("the program is made for {}, not for a GPU", program.architecture));
    }
    if program.weights.is_some() {
        return refused("the program's weights are packed for another device".into());
    }
    let needed = program.features.iter().filter_map(|f| f.strip_prefix("sm_")?.parse::<u32>().ok()).max();
    let (major, minor) = gpu.info.capability;
    match needed {
        Some(n) if n > major * 10 + minor => refused(format!(
            "the program is made for compute capability {}.{}, `{}` has {major}.{minor}",
            n / 10,
            n % 10,
            gpu.info.name
        )),
        _ => Ok(()),
    }
}
