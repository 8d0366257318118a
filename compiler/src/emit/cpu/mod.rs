//! The CPU back end: kernels become machine code.
//!
//! The emitter ([`function`] and the files beside it) walks a kernel and asks an [`assembler`] for
//! instructions. There are two: [`cranelift`], for every CPU, with 128-bit vectors, and [`x86`], our
//! own, with AVX2 or AVX-512.
//!
//! Every kernel is one function `extern "C" fn(args, first, end, scratch)` that runs a range of
//! tasks (see [`nnc_runtime::program::Kernel`]). It calls nothing and has no relocations, so the
//! bytes can be mapped anywhere. The same kernels give the same bytes, whatever the threads.

mod address;
mod assembler;
mod cranelift;
mod expr;
mod function;
mod registers;
mod vector;
mod x86;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;

use self::cranelift::Cranelift;
use crate::kernel::verify::Verified;
use crate::kernel::{Expr, Kernel, Memory, Stmt, UnOp, math};
use crate::target::CpuTarget;

/// Every function starts at a multiple of this (a cache line; larger than any constant in it needs).
const ALIGNMENT: usize = 64;

/// What [`compile`] makes beside the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmitOptions {
    /// The Cranelift IR as text; only of what Cranelift compiles.
    pub clif: bool,
    /// The machine code as text.
    pub asm: bool,
}

/// Why there is no code.
#[derive(Clone, Debug, PartialEq, Error)]
#[allow(missing_docs)] // the messages say what the fields are
pub enum EmitError {
    #[error("no code generator for `{architecture}`: {problem}")]
    Architecture { architecture: String, problem: String },
    #[error("code for `{architecture}` needs the feature `{feature}`")]
    Feature { architecture: String, feature: String },
    #[error("kernel `{kernel}`: {problem}")]
    Kernel { kernel: String, problem: String },
}

/// Machine code of kernels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Code {
    /// The code of all functions.
    pub bytes: Vec<u8>,
    /// Where each kernel's function starts.
    pub offsets: Vec<usize>,
    /// Bytes of scratch memory that each needs.
    pub scratch_bytes: Vec<usize>,
    /// Cranelift IR, if asked for.
    pub clif: Option<String>,
    /// Assembly, if asked for.
    pub asm: Option<String>,
}

/// Compiles the kernels, in parallel.
///
/// # Errors
/// For a target without code generator or without the features that kernels need, and kernels for GPUs: those whose
/// tasks are blocks of threads, or which round to TF32.
pub fn compile(
    kernels: &[Verified<'_>],
    target: &CpuTarget,
    options: &EmitOptions,
) -> Result<Code, EmitError> {
    let generator = Generator::new(target)?;
    if let Some(k) = kernels.iter().find(|k| k.threads.is_some()) {
        let problem = "its tasks are blocks of threads, which only GPUs have".to_string();
        return Err(EmitError::Kernel { kernel: k.name.clone(), problem });
    }
    if let Some(k) = kernels.iter().find(|k| rounds(&k.body)) {
        let problem = "it rounds numbers to TF32, which only GPUs do".to_string();
        return Err(EmitError::Kernel { kernel: k.name.clone(), problem });
    }
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Result<Function, EmitError>>>> =
        kernels.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(kernel) = kernels.get(i) else { break };
            let title = format!("; #{i} {}\n", kernel.name);
            let function = generator.compile(&math::expand(kernel), &title, options);
            let failed = |problem| EmitError::Kernel { kernel: kernel.name.clone(), problem };
            *done[i].lock().expect("no compiling thread panics") = Some(function.map_err(failed));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(kernels.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut code = Code {
        clif: options.clif.then(String::new).filter(|_| generator.has_clif()),
        asm: options.asm.then(String::new),
        ..Code::default()
    };
    for slot in done {
        let function = slot.into_inner().expect("no compiling thread panics");
        code.append(function.expect("every kernel was compiled")?);
    }
    Ok(code)
}

/// Who makes the code for a target.
enum Generator {
    Cranelift(Cranelift),
    X86(x86::Level),
}

impl Generator {
    fn new(target: &CpuTarget) -> Result<Generator, EmitError> {
        match (target.architecture.as_str(), target.lanes) {
            ("x86_64", 16) => Ok(Generator::X86(x86::Level::Avx512)),
            ("x86_64", 8) => Ok(Generator::X86(x86::Level::Avx2)),
            _ => Cranelift::new(target).map(Generator::Cranelift),
        }
    }

    fn has_clif(&self) -> bool {
        matches!(self, Generator::Cranelift(_))
    }

    /// Compiles a kernel whose functions are expanded; the title heads the texts.
    fn compile(&self, kernel: &Kernel, title: &str, options: &EmitOptions) -> Result<Function, String> {
        match self {
            Generator::Cranelift(c) => c.compile(kernel, title, options),
            Generator::X86(level) => x86::compile(kernel, *level, title, options),
        }
    }
}

impl Code {
    fn append(&mut self, function: Function) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.offsets.push(self.bytes.len());
        self.scratch_bytes.push(function.scratch_bytes);
        self.bytes.extend(function.bytes);
        for (all, text) in [(&mut self.clif, function.clif), (&mut self.asm, function.asm)] {
            if let (Some(all), Some(text)) = (all, text) {
                if !all.is_empty() {
                    all.push('\n');
                }
                all.push_str(&text);
            }
        }
    }
}

/// One compiled kernel.
struct Function {
    bytes: Vec<u8>,
    scratch_bytes: usize,
    clif: Option<String>,
    asm: Option<String>,
}

/// True if numbers are rounded to TF32.
fn rounds(body: &[Stmt]) -> bool {
    body.iter().any(|s| match s {
        Stmt::Loop { body, .. } | Stmt::If { body, .. } => rounds(body),
        Stmt::Store { value, .. } => {
            let mut found = false;
            value.walk(&mut |e| found |= matches!(e, Expr::Unary(UnOp::Tf32, _)));
            found
        }
        Stmt::Prefetch { .. } | Stmt::Joint(_) => false,
    })
}

/// The scratch memory of a task of a kernel, in bytes.
pub fn scratch_bytes(kernel: &Kernel) -> usize {
    scratch_layout(kernel).1
}

/// Byte offsets of the scratch buffers in a task's scratch memory, and its size.
fn scratch_layout(kernel: &Kernel) -> (Vec<usize>, usize) {
    let mut end = 0usize;
    let offsets = kernel.buffers.iter().map(|b| {
        let offset = end;
        if b.memory == Memory::Scratch {
            end += (b.extent() * b.dtype.size()).next_multiple_of(ALIGNMENT);
        }
        offset
    });
    (offsets.collect(), end)
}

#[cfg(test)]
mod tests;
