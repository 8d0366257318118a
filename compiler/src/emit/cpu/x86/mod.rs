//! Our own assembler for x86-64, as wide as AVX2 or AVX-512 allow.
//!
//! [`select`] (with [`elements`] and [`arithmetic`]) turns the emitter's requests into [`lir`];
//! [`fold`] makes it smaller; [`allocate`] gives it registers; [`encode`] makes bytes.

mod allocate;
mod arithmetic;
mod constants;
mod elements;
mod encode;
mod encode_inst;
mod fold;
mod lir;
mod listing;
mod live_ranges;
mod liveness;
mod remake;
mod select;
mod spill;
mod table;

pub use lir::Level;

use self::select::X86;
use super::{EmitOptions, Function, function};
use crate::kernel::Kernel;

/// Compiles a kernel whose functions are expanded; the title heads the text.
///
/// # Errors
/// If registers cannot be allocated or an instruction cannot be encoded, which no kernel should cause.
pub fn compile(
    kernel: &Kernel,
    level: Level,
    title: &str,
    options: &EmitOptions,
) -> Result<Function, String> {
    let (assembler, scratch_bytes) = function::build(kernel, X86::new(level));
    let mut f = assembler.f;
    fold::run(&mut f);
    let allocation = allocate::allocate(&mut f)?;
    let encoded = encode::encode(&f, &allocation)?;
    let asm = options.asm.then(|| format!("{title}{}", listing::listing(&encoded)));
    Ok(Function { bytes: encoded.bytes, scratch_bytes, clif: None, asm })
}

#[cfg(test)]
mod tests;
