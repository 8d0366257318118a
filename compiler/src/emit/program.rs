//! From kernels, a plan and code to the program that the runtime loads.

use nnc_runtime::program::{
    Argument, GPU_ARCHITECTURE, Grid, Kernel, Launch, ParamSpec, Program, Rows, Storage,
};

use super::cpu::{EmitError, EmitOptions, compile};
use super::cuda::{self, Ptx};
use crate::kernel::module::{Module, Role};
use crate::kernel::verify::verify;
use crate::kernel::{self, Buffer, Memory};
use crate::plan::Plan;
use crate::target::{CpuTarget, GpuTarget};

/// A program, and the text forms that were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// The program.
    pub program: Program,
    /// Cranelift IR.
    pub clif: Option<String>,
    /// Assembly.
    pub asm: Option<String>,
}

/// Verifies and compiles the kernels of a module and puts the program together.
///
/// # Errors
/// A kernel that the verifier refuses; a target without code generator or without the features
/// that kernels need.
pub fn emit(
    module: &Module,
    plan: &Plan,
    target: &CpuTarget,
    options: &EmitOptions,
) -> Result<Emitted, EmitError> {
    let mut verified = vec![];
    for k in &module.kernels {
        verified.push(verify(k).map_err(|errors| EmitError::Kernel {
            kernel: k.name.clone(),
            problem: errors.first().map_or(String::new(), |e| e.problem.to_string()),
        })?);
    }
    let code = compile(&verified, target, options)?;
    let described = |(i, k): (usize, &kernel::Kernel)| Kernel {
        scratch_bytes: code.scratch_bytes[i],
        code_offset: code.offsets[i],
        ..describe(k, i)
    };
    let kernels = module.kernels.iter().enumerate().map(described).collect();
    let (architecture, features) = (target.architecture.clone(), target.features.clone());
    let program = Program { architecture, features, ..assemble(module, plan, kernels, code.bytes) };
    Ok(Emitted { program, clif: code.clif, asm: code.asm })
}

/// Verifies the kernels of a module, writes them as PTX and puts the program together.
///
/// # Errors
/// Those of [`cuda::emit`].
pub fn emit_gpu(module: &Module, plan: &Plan, target: GpuTarget) -> Result<Program, cuda::EmitError> {
    let Ptx { text, entries } = cuda::emit(module, target)?;
    let described = |(i, (k, entry)): (usize, (&kernel::Kernel, cuda::Entry))| {
        let cuda::Launch { grid, block, shared_bytes, .. } = entry.launch;
        let grid = Grid { entry: entry.name, blocks: grid, threads: block, shared_bytes };
        Kernel { grid: Some(grid), ..describe(k, i) }
    };
    let kernels = module.kernels.iter().zip(entries).enumerate().map(described).collect();
    let (architecture, features) = (GPU_ARCHITECTURE.to_string(), vec![target.name().to_string()]);
    Ok(Program { architecture, features, ..assemble(module, plan, kernels, text.into_bytes()) })
}

/// A program for no machine yet.
fn assemble(module: &Module, plan: &Plan, kernels: Vec<Kernel>, code: Vec<u8>) -> Program {
    Program {
        name: module.name.clone(),
        architecture: String::new(),
        features: vec![],
        inputs: module.inputs.clone(),
        outputs: module.outputs.clone(),
        parameters: module.parameters.clone(),
        training_only: vec![],
        storages: storages(module, plan),
        kernels,
        launches: launches(module),
        prepared_bytes: plan.prepared_bytes,
        preparing_bytes: plan.preparing_bytes,
        arena_bytes: plan.arena_bytes,
        code,
        constants: constants(module, plan),
        weights: None,
    }
}

/// What does not depend on the code.
fn describe(k: &kernel::Kernel, i: usize) -> Kernel {
    let spec = |b: &kernel::Buffer| match b.memory {
        Memory::Global(access) => {
            let elements: usize = b.shape.iter().product();
            let [extent_bytes, bytes] = [b.extent(), elements].map(|n| n * b.dtype.size());
            Some(ParamSpec { access, extent_bytes, bytes, rows: rows(b) })
        }
        _ => None,
    };
    Kernel {
        name: format!("{}.{i}", k.name),
        params: k.params().filter_map(spec).collect(),
        tasks: k.task_count(),
        scratch_bytes: 0,
        code_offset: 0,
        flops: k.flops,
        grid: None,
    }
}

fn storages(module: &Module, plan: &Plan) -> Vec<Storage> {
    let planned = plan.classes.iter().zip(&plan.bytes);
    let storage =
        |(v, (&class, &bytes)): (&kernel::module::Value, _)| Storage { name: v.name.clone(), bytes, class };
    module.values.iter().zip(planned).map(storage).collect()
}

fn launches(module: &Module) -> Vec<Launch> {
    let argument = |a: &kernel::module::Arg| {
        let value = a.value.0 as usize;
        Argument { storage: value, offset: a.offset * module.values[value].dtype.size() }
    };
    let launch = |l: &kernel::module::Launch| Launch {
        kernel: l.kernel,
        args: l.args.iter().map(argument).collect(),
        phase: l.phase,
        layer: l.layer.clone(),
        location: l.location.clone(),
    };
    module.launches.iter().map(launch).collect()
}

/// The constants' data, where the plan says.
fn constants(module: &Module, plan: &Plan) -> Vec<u8> {
    let mut out = vec![0; plan.constant_bytes];
    for (value, class) in module.values.iter().zip(&plan.classes) {
        if let (Role::Constant(data), &nnc_runtime::program::Class::Constant(at)) = (&value.role, class) {
            out[at..at + data.len()].copy_from_slice(data);
        }
    }
    out
}

/// The rows that a buffer's elements lie in, if there are gaps between them.
fn rows(buffer: &Buffer) -> Option<Rows> {
    let mut dimensions: Vec<(usize, usize)> =
        buffer.strides.iter().copied().zip(buffer.shape.iter().copied()).filter(|d| d.1 > 1).collect();
    dimensions.sort_unstable();
    let mut elements = 1;
    for (i, &(stride, size)) in dimensions.iter().enumerate() {
        if stride == elements {
            elements *= size;
            continue;
        }
        let even = stride > elements && dimensions[i..].iter().all(|d| d.0.is_multiple_of(stride));
        let [pitch, bytes] = [stride, elements].map(|n| n * buffer.dtype.size());
        return even.then_some(Rows { pitch, bytes });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;
    use nnc_runtime::DType;
    use nnc_runtime::program::Access;

    #[test]
    fn rows_of_buffers_with_gaps() {
        let rows_of = |shape: &[usize], strides: &[usize]| {
            let mut k = Kernel::new("k");
            k.strided("x", DType::F32, shape, strides, Memory::Global(Access::Write));
            rows(&k.buffers[0])
        };
        assert_eq!(rows_of(&[2, 8, 3, 5], &[120, 15, 5, 1]), None);
        // Eight channels of 20, which lie last.
        let part = Some(Rows { pitch: 80, bytes: 32 });
        assert_eq!(rows_of(&[2, 8, 3, 5], &[300, 1, 100, 20]), part);
        assert_eq!(rows_of(&[1, 8, 3, 1], &[7, 1, 100, 3]), Some(Rows { pitch: 400, bytes: 32 }));
        // Pictures one channel apart, and rows that lie in each other.
        assert_eq!(rows_of(&[2, 8, 5], &[110, 1, 20]), None);
        assert_eq!(rows_of(&[4, 4], &[2, 1]), None);
        assert_eq!(rows_of(&[4, 4], &[0, 1]), None);
    }
}
