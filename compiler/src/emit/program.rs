//! From kernels, a plan and code to the program that the runtime loads.

use nnc_runtime::program::{Argument, Kernel, Launch, ParamSpec, Program, Storage};

use super::cpu::{Code, EmitError, EmitOptions, compile};
use crate::kernel::module::{Module, Role};
use crate::kernel::verify::verify;
use crate::kernel::{self, Memory};
use crate::plan::Plan;
use crate::target::CpuTarget;

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
    let kernels = module.kernels.iter().enumerate().map(|(i, k)| describe(k, &code, i)).collect();
    let program = Program {
        name: module.name.clone(),
        architecture: target.architecture.clone(),
        features: target.features.clone(),
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
        code: code.bytes,
        constants: constants(module, plan),
        weights: None,
    };
    Ok(Emitted { program, clif: code.clif, asm: code.asm })
}

fn describe(k: &kernel::Kernel, code: &Code, i: usize) -> Kernel {
    let spec = |b: &kernel::Buffer| match b.memory {
        Memory::Global(access) => Some(ParamSpec { access, extent_bytes: b.extent() * b.dtype.size() }),
        _ => None,
    };
    Kernel {
        name: format!("{}.{i}", k.name),
        params: k.params().filter_map(spec).collect(),
        tasks: k.task_count(),
        scratch_bytes: code.scratch_bytes[i],
        code_offset: code.offsets[i],
        flops: k.flops,
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
