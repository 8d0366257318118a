//! The code of every example program, inference and a training step, passes `ptxas` and the linker for every GPU
//! target; a golden table has the registers that it takes. `INSTA_UPDATE=always` blesses it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use nnc_compiler::build::{BuildOptions, Built, NoFiles, build};
use nnc_compiler::emit::cuda;
use nnc_compiler::graph::{Bindings, Graph};
use nnc_compiler::lower::lower_for_gpu;
use nnc_compiler::pass;
use nnc_compiler::target::GpuTarget;
use nnc_compiler::training::{StepOptions, build_step};
use nnc_dsl::SourceMap;

use crate::ptxas::{assemble, ptxas};

pub fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|p| p.extension().is_some_and(|e| e == "nn")).collect();
    files.sort();
    files
}

pub fn built(path: &Path, training: bool) -> Built {
    let mut map = SourceMap::new();
    let root = map.add(path.display().to_string(), std::fs::read_to_string(path).unwrap());
    let options = BuildOptions { training, ..BuildOptions::default() };
    build(&mut map, root, &NoFiles, &options)
        .unwrap_or_else(|d| panic!("{}", nnc_dsl::render(&map, &d, false)))
}

/// Batches of that many; small pictures where their size is open.
pub fn sizes(n: usize) -> Bindings {
    BTreeMap::from([("N", n), ("C", 3), ("H", 9), ("W", 8)].map(|(name, size)| (name.to_string(), size)))
}

/// Does something with the name and the graph of every example, at batch 1, and with those of its training step, at 2.
pub fn each_program(f: &mut dyn FnMut(&str, &Graph)) {
    for path in examples() {
        let name = path.file_stem().unwrap().to_string_lossy().to_string();
        let graph = built(&path, false).graph;
        f(&name, &graph.specialise(&sizes(1)).unwrap_or_else(|e| panic!("{name}: {e:?}")));
        let trained = built(&path, true);
        if trained.train.is_some() {
            let options = StepOptions { sizes: sizes(2), gradients: false };
            let step = build_step(&trained, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
            f(&format!("{name}, a step"), &step.graph);
        }
    }
}

/// A line about a graph's code.
fn line(ptxas: &str, name: &str, graph: &Graph, target: GpuTarget) -> String {
    let mut graph = graph.clone();
    pass::run_all(&mut graph, &target.thread(), &mut |_, _| {});
    let module = lower_for_gpu(&graph, target, None).unwrap_or_else(|e| panic!("{name}: {e}"));
    let ptx = cuda::emit(&module, target).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut usage = assemble(ptxas, &ptx.text, target);
    assert_eq!(usage.len(), ptx.entries.len(), "{name}");
    if let Some(u) = usage.iter().find(|u| u.spilled > 0) {
        panic!("{name}, {target}: registers of {u:?} do not fit:\n{}", entry(&ptx.text, &u.kernel));
    }
    usage.sort_by_key(|u| std::cmp::Reverse(u.registers));
    let (most, spilled) = (&usage[0], usage.iter().map(|u| u.spilled).sum::<u32>());
    let stack = usage.iter().map(|u| u.stack).max().unwrap_or_default();
    format!(
        "{name:<24} {target}  {:>7}  {:>9}  {spilled:>7}  {stack:>5}  {}\n",
        usage.len(),
        most.registers,
        most.kernel
    )
}

/// The text of an entry.
fn entry<'t>(text: &'t str, name: &str) -> &'t str {
    let found = text.split_once(&format!(".entry {name}(")).map_or("", |(_, rest)| rest);
    found.split_once("\n}\n").map_or(found, |(body, _)| body)
}

#[test]
fn every_example_assembles() {
    let Some(ptxas) = ptxas() else { return };
    let mut table =
        String::from("program                  target  kernels  registers  spilled  stack  most registers\n");
    each_program(&mut |name, graph| {
        for target in [GpuTarget::Sm80, GpuTarget::Sm90] {
            let _ = write!(table, "{}", line(&ptxas, name, graph, target));
        }
    });
    insta::assert_snapshot!(table);
}
