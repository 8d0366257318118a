//! Every golden program of this repository as PTX: those of all stages (`tests/stages.rs`), and the graphs that the
//! golden tests of passes begin with. (The golden nets of lowering run in `tests/lower`, as all nets there.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nnc_compiler::graph::{Op, parse};
use nnc_compiler::lower::gpu::{Blocks, GpuOptions, Products};

use crate::nets::{check, check_net_with, fill};

const TF32: GpuOptions = GpuOptions { products: Products::Tf32, blocks: Blocks::Always };
const BF16: GpuOptions = GpuOptions { products: Products::Bf16, blocks: Blocks::Always };
const STRICT: GpuOptions = GpuOptions { products: Products::F32, blocks: Blocks::Always };
/// What is made of them unless somebody asks for something else.
const DEFAULT: GpuOptions = GpuOptions { products: Products::Tf32, blocks: Blocks::WherePaid };

/// The files of a folder of the repository that end so, in order.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|p| p.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

/// (LeNet-5 is in `nets.rs` and `products.rs`.)
#[test]
fn programs_of_all_stages() {
    let programs = files("tests/stages", ".nn");
    assert!(programs.len() >= 3, "{programs:?}");
    for path in programs {
        let text = std::fs::read_to_string(&path).unwrap();
        for options in [TF32, BF16, STRICT, DEFAULT] {
            check_net_with(&text, options);
        }
    }
}

/// The graph before the passes, as a snapshot has it.
fn before(snapshot: &str) -> &str {
    let (_, rest) = snapshot.split_once("// before\n").unwrap();
    rest.split_once("// after ").unwrap().0
}

/// What is written out in other operations before there are kernels, on every device.
fn has_no_kernel(op: &Op) -> bool {
    matches!(op, Op::Random(_)) || matches!(op, Op::BatchNorm(norm) if norm.training)
}

#[test]
fn graphs_of_passes() {
    let snapshots = files("compiler/src/pass/tests/snapshots", ".snap");
    assert!(snapshots.len() >= 25, "{snapshots:?}");
    for path in snapshots {
        let text = std::fs::read_to_string(&path).unwrap();
        let graph = parse::parse(before(&text)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if graph.ids().any(|id| has_no_kernel(&graph.node(id).op)) {
            continue;
        }
        let mut feeds = BTreeMap::new();
        fill(&graph, &mut feeds);
        for options in [STRICT, DEFAULT] {
            check(&graph, &feeds, options);
        }
    }
}
