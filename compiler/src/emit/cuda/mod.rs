//! The GPU back end: kernels become PTX, NVIDIA's text form of GPU code, which its driver (or `ptxas`)
//! translates to machine code.
//!
//! A kernel is one entry, with a parameter for the address of each global buffer; a task is one
//! thread, or a block of them ([`launch`], [`block`]). Scratch is the thread's local memory, register buffers are
//! registers. The instructions compute the kernel interpreter's bits (but for products on tensor cores,
//! whose sums have single precision at least, in an order that is not documented); nothing is called.
//!
//! **No GPU has run this code yet**: it is assembled by `ptxas` and executed by an interpreter of PTX.

mod arithmetic;
mod block;
mod expr;
mod function;
mod index;
mod lanes;
mod launch;
mod matrix;
mod text;

use std::fmt::Write;

use thiserror::Error;

pub use self::launch::Launch;
use crate::kernel::verify::verify;
use crate::kernel::{Kernel, Module, math};
use crate::target::GpuTarget;

/// Layers named above an entry at most.
const LAYERS_SHOWN: usize = 4;

/// Why there is no PTX.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("kernel `{kernel}`: {problem}")]
pub struct EmitError {
    /// The kernel.
    pub kernel: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A kernel's entry in [`Ptx::text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// How it is launched.
    pub launch: Launch,
}

/// A program's kernels as PTX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ptx {
    /// The text of a PTX module.
    pub text: String,
    /// The entries, in the order of [`Module::kernels`].
    pub entries: Vec<Entry>,
}

/// Verifies the kernels of a module and writes them as PTX.
///
/// # Errors
/// A kernel that the verifier refuses, or one that is too large for indices of 32 bits.
pub fn emit(module: &Module, target: GpuTarget) -> Result<Ptx, EmitError> {
    let mut entries = vec![];
    let mut text = format!(
        "// net {}: {} kernels for {target}\n\n.version {}\n.target {target}\n.address_size 64\n",
        module.name,
        module.kernels.len(),
        target.ptx_version()
    );
    let mut is_dynamic = false;
    let mut functions = String::new();
    for (i, kernel) in module.kernels.iter().enumerate() {
        let failed = |problem| EmitError { kernel: kernel.name.clone(), problem };
        let verified = verify(kernel)
            .map_err(|errors| failed(errors.first().map_or(String::new(), |e| e.problem.to_string())))?;
        let launch = Launch::of(kernel, target)
            .ok_or_else(|| failed(format!("{} tasks are too many for a grid", kernel.task_count())))?;
        let expanded = math::expand(&verified);
        if let Some(problem) = index::check(&expanded) {
            return Err(failed(problem));
        }
        let name = format!("k{i}_{}", text::plain(&kernel.name));
        is_dynamic |= launch.shared_bytes > 0;
        let _ = write!(functions, "\n{}", title(module, i, kernel, &launch));
        functions += &function::entry(&expanded, &name, &launch, &alignments(module, i));
        entries.push(Entry { name, launch });
    }
    if is_dynamic {
        text += &block::dynamic_declaration();
    }
    text += &functions;
    Ok(Ptx { text, entries })
}

/// At multiples of how many elements a kernel's arguments begin in all launches, up to the widest access: storages begin
/// at multiples of more.
fn alignments(module: &Module, kernel: usize) -> Vec<usize> {
    let begins = |n: usize, i: usize| {
        let mut launches = module.launches.iter().filter(|l| l.kernel == kernel);
        launches.all(|l| l.args.get(i).is_none_or(|a| a.offset.is_multiple_of(n)))
    };
    let params = 0..module.kernels[kernel].params().count();
    params.map(|i| [lanes::WIDEST, 2].into_iter().find(|&n| begins(n, i)).unwrap_or(1)).collect()
}

/// The comment above an entry: what it computes, from which lines of source, its tasks and launch.
fn title(module: &Module, i: usize, kernel: &Kernel, launch: &Launch) -> String {
    let mut out = format!("// #{i} {}\n", kernel.name);
    let mut layers: Vec<String> = vec![];
    for l in module.launches.iter().filter(|l| l.kernel == i) {
        let at = if l.location.is_empty() { String::new() } else { format!(" ({})", l.location) };
        let layer = format!("{}{at}", l.layer).trim().to_string();
        if !layer.is_empty() && !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    for layer in layers.iter().take(LAYERS_SHOWN) {
        let _ = writeln!(out, "//   {layer}");
    }
    if layers.len() > LAYERS_SHOWN {
        let _ = writeln!(out, "//   and {} more", layers.len() - LAYERS_SHOWN);
    }
    let _ = write!(out, "// {launch}");
    for (n, &v) in kernel.tasks.iter().enumerate() {
        let separator = if n == 0 { ", " } else { " x " };
        let _ = write!(out, "{separator}{} {}", kernel.var_name(v), kernel.vars[v.0 as usize].extent);
    }
    out.push('\n');
    out
}
