//! The assembler for every CPU: Cranelift's IR, vectors of 128 bits.
//!
//! The choice of instructions follows what Cranelift matches on x86-64: `0 > x ? 0 : x` is one
//! `maxps`, a splat of a load one `vbroadcastss` from memory. Its variables become block
//! parameters; its mid-end is off (see [`isa`]), so code stays in the order in which it is written.

mod assemble;
mod elements;
mod isa;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, InstBuilder, Signature, Type, Value, types};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use nnc_runtime::DType;

use super::assembler::Kind;
use super::{EmitError, EmitOptions, Function, function};
use crate::kernel::Kernel;
use crate::target::CpuTarget;

/// Lanes of the vectors that Cranelift knows on every target.
const LANES: usize = 4;

/// The code generator for a target.
pub struct Cranelift {
    isa: OwnedTargetIsa,
    vector_registers: usize,
}

impl Cranelift {
    /// # Errors
    /// For a target that Cranelift does not know, or without the features that kernels need.
    pub fn new(target: &CpuTarget) -> Result<Cranelift, EmitError> {
        Ok(Cranelift { isa: isa::isa(target)?, vector_registers: target.vector_registers })
    }

    /// Compiles a kernel whose functions are expanded; the title heads the texts.
    ///
    /// # Errors
    /// What Cranelift has against the code.
    pub fn compile(&self, kernel: &Kernel, title: &str, options: &EmitOptions) -> Result<Function, String> {
        let isa: &dyn TargetIsa = &*self.isa;
        let mut context = Context::new();
        let mut signature = Signature::new(CallConv::triple_default(isa.triple()));
        signature.params.extend([AbiParam::new(types::I64); 4]);
        context.func.signature = signature;
        let mut frontend = FunctionBuilderContext::new();
        let b = FunctionBuilder::new(&mut context.func, &mut frontend);
        let (assembler, scratch_bytes) = function::build(kernel, Builder::new(b, self.vector_registers));
        assembler.finish(isa);
        let clif = options.clif.then(|| format!("{title}{}", context.func.display()));
        context.set_disasm(options.asm);
        let compiled =
            context.compile(isa, &mut ControlPlane::default()).map_err(|e| format!("{:?}", e.inner))?;
        if !compiled.buffer.relocs().is_empty() {
            return Err("its code refers to a function outside".into());
        }
        let asm = options.asm.then(|| format!("{title}{}", compiled.vcode.as_deref().unwrap_or_default()));
        Ok(Function { bytes: compiled.code_buffer().to_vec(), scratch_bytes, clif, asm })
    }
}

/// Builds one function.
struct Builder<'f> {
    b: FunctionBuilder<'f>,
    arguments: [Value; 4],
    vector_registers: usize,
}

impl<'f> Builder<'f> {
    fn new(mut b: FunctionBuilder<'f>, vector_registers: usize) -> Builder<'f> {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        b.seal_block(entry);
        let arguments = b.block_params(entry).try_into().expect("the signature has four parameters");
        Builder { b, arguments, vector_registers }
    }

    fn finish(mut self, isa: &dyn TargetIsa) {
        self.b.ins().return_(&[]);
        self.b.finalize(isa.frontend_config());
    }
}

/// The Cranelift type of values of a kind.
fn type_of(kind: Kind) -> Type {
    match kind {
        Kind::Index => types::I64,
        Kind::Scalar(DType::F32 | DType::F64) => types::F32,
        Kind::Scalar(DType::I32) => types::I32,
        Kind::Scalar(DType::Bool) => types::I8,
        Kind::Lanes(DType::F32 | DType::F64, _) => types::F32X4,
        Kind::Lanes(DType::I32 | DType::Bool, _) => types::I32X4,
    }
}

/// True for floats, one or more.
fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Scalar(DType::F32) | Kind::Lanes(DType::F32, _))
}
