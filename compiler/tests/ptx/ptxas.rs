//! NVIDIA's assembler, `ptxas`, where there is one: the environment variable `PTXAS` says where.
//! (The wheel `nvidia-cuda-nvcc` on PyPI has it in `nvidia/cu13/bin`; `.ci/run` installs it.)

use std::io::Write;
use std::process::{Command, Stdio};

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

/// Assembles a module.
///
/// # Panics
/// If the assembler does not take it.
pub fn assemble(ptxas: &str, text: &str, target: GpuTarget) -> Vec<Usage> {
    let mut child = Command::new(ptxas)
        .args(["--verbose", "--gpu-name", target.name(), "--output-file", "/dev/null", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{ptxas}: {e}"));
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{text}");
    usage(&said)
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
