//! Cranelift's settings for a target.

use cranelift_codegen::isa::{OwnedTargetIsa, lookup_by_name};
use cranelift_codegen::settings::{self, Configurable};

use super::super::EmitError;
use crate::target::CpuTarget;

const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// What x86-64 code cannot do without: fused multiply-adds, rounding, unaligned vector operands.
/// Without them Cranelift would call library functions.
const NEEDED_ON_X86: [&str; 3] = ["avx", "fma", "sse4.1"];

/// The code generator for a target.
pub fn isa(target: &CpuTarget) -> Result<OwnedTargetIsa, EmitError> {
    let architecture = target.architecture.clone();
    let failed = |problem: String| EmitError::Architecture { architecture: architecture.clone(), problem };
    let mut flags = settings::builder();
    let verify = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [
        // Cranelift's mid-end sinks every multiply-add to the end of its block, behind all loads,
        // which spills a register tile. The emitter shares and hoists values itself, and the code
        // stays in the order in which kernels are written.
        ("opt_level", "none"),
        ("enable_verifier", verify),
        ("unwind_info", "false"),
        ("enable_probestack", "false"),
    ] {
        flags.set(name, value).map_err(|e| failed(e.to_string()))?;
    }
    if !ARCHITECTURES.contains(&architecture.as_str()) {
        return Err(failed("only x86_64 and aarch64 are known".into()));
    }
    let mut builder = lookup_by_name(&architecture).map_err(|e| failed(e.to_string()))?;
    if architecture == "x86_64" {
        if let Some(feature) = NEEDED_ON_X86.iter().find(|f| !target.features.iter().any(|x| x == *f)) {
            return Err(EmitError::Feature { architecture, feature: feature.to_string() });
        }
        // Of 512-bit instructions it knows only some, on 128 bits.
        for feature in target.features.iter().filter(|f| !f.starts_with("avx512")) {
            let name = format!("has_{}", feature.replace('.', ""));
            builder.enable(&name).map_err(|e| failed(format!("`{feature}`: {e}")))?;
        }
    }
    builder.finish(settings::Flags::new(flags)).map_err(|e| failed(e.to_string()))
}
