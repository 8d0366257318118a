//! NVIDIA's assembler, `ptxas`, where there is one: the environment variable `PTXAS` says where.
//! (The wheel `nvidia-cuda-nvcc` on PyPI has it in `nvidia/cu13/bin`; `.ci/run` installs it.)
//!
//! It is used as the driver's linker does, with which the runtime has code translated: code is compiled so that it can be
//! linked (`--compile-only`; divisions and roots call functions then, in rare cases), and linked by `nvlink`, which lies
//! beside it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use nnc_compiler::target::GpuTarget;

/// The assembler, or a line that says that there is none.
pub fn ptxas() -> Option<String> {
    let path = std::env::var("PTXAS").ok().filter(|p| !p.is_empty());
    if path.is_none() {
        println!("skipped: PTXAS does not say where NVIDIA's ptxas is");
    }
    path
}

/// What the assembler says of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub kernel: String,
    pub registers: u32,
    /// Bytes of local memory, those of registers that did not fit among them.
    pub stack: u32,
    pub spilled: u32,
}

/// Assembles a module, and links it.
///
/// # Panics
/// If the assembler or the linker does not take it.
pub fn assemble(ptxas: &str, text: &str, target: GpuTarget) -> Vec<Usage> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("nnc-{}-{}.o", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let object = std::env::temp_dir().join(name);
    let mut assembler = Command::new(ptxas);
    assembler.args(["--verbose", "--compile-only", "--gpu-name", target.name(), "-", "--output-file"]);
    let said = run(assembler.arg(&object), text);
    let mut linker = Command::new(Path::new(ptxas).with_file_name("nvlink"));
    linker.args(["--arch", target.name(), "--output-file", "/dev/null"]);
    let linked = run(linker.arg(&object), "");
    std::fs::remove_file(&object).unwrap();
    assert_eq!(linked, "", "the linker warns");
    usage(&said)
}

/// Runs a command on a text; what it says.
fn run(command: &mut Command, text: &str) -> String {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}\n{text}");
    said
}

/// Reads lines like these:
///
/// ```text
/// ptxas info    : Compiling entry function 'k0_copy' for 'sm_80'
/// ptxas info    : Function properties for k0_copy
///     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 10 registers, used 0 barriers, 368 bytes cmem[0]
/// ```
fn usage(said: &str) -> Vec<Usage> {
    let mut all: Vec<Usage> = vec![];
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let before = |unit: &[&str]| {
            let at = words.windows(unit.len()).position(|w| w == unit)?;
            words.get(at.checked_sub(1)?)?.parse::<u32>().ok()
        };
        if let Some(name) = line.split("Compiling entry function '").nth(1) {
            let kernel = name.split('\'').next().unwrap_or_default().to_string();
            all.push(Usage { kernel, ..Usage::default() });
        }
        let Some(last) = all.last_mut() else { continue };
        if let Some(bytes) = before(&["bytes", "stack", "frame,"]) {
            last.stack = bytes;
        }
        for unit in [["bytes", "spill", "stores,"], ["bytes", "spill", "loads"]] {
            last.spilled += before(&unit).unwrap_or_default();
        }
        if let Some(n) = before(&["registers,"]) {
            last.registers = n;
        }
    }
    all
}
