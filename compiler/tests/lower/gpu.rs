//! The same nets on a GPU: their kernels as PTX, in the interpreter that checks every access.

use std::cell::Cell;
use std::collections::BTreeMap;

use nnc_compiler::kernel::interpret::run_module;
use nnc_compiler::kernel::{Kernel, Module};
use nnc_compiler::lower::gpu::{Blocks, GpuOptions, Products};
use nnc_compiler::lower::lower_for_gpu_with;
use nnc_compiler::pass;
use nnc_compiler::target::GpuTarget;
use nnc_runtime::Tensor;

use crate::run::run_ptx;
use crate::support::{Net, compare_values, numbers, text};

/// Blocks wherever there are kernels of them, and a thread an element; both sum as `f32`, so that a wrong
/// element does not hide in what TF32 leaves of factors.
const OPTIONS: [(GpuTarget, GpuOptions); 2] = [
    (GpuTarget::Sm80, GpuOptions { products: Products::F32, blocks: Blocks::Always }),
    (GpuTarget::Sm90, GpuOptions { products: Products::F32, blocks: Blocks::WherePaid }),
];

/// Nets of a test that are run so, its first ones: random shapes have many. And what all kernels of a net may
/// do at most (operations, elements of its values, threads). Interpreters are slow: with these numbers all
/// tests take twenty seconds longer.
const MOST_NETS: u32 = 40;
const MOST_WORK: u64 = 1 << 16;

thread_local! {
    /// Nets that this test has run. (Every test has a thread of its own.)
    static NETS: Cell<u32> = const { Cell::new(0) };
}

/// Compares the PTX of a net with the kernel interpreter, bit for bit, and with the expected values.
pub fn check(net: &Net, expected: &BTreeMap<String, Tensor>) {
    if NETS.replace(NETS.get() + 1) >= MOST_NETS {
        return;
    }
    for (target, options) in OPTIONS {
        let mut graph = net.graph.clone();
        pass::run_all(&mut graph, &target.thread(), &mut |_, _| {});
        let module = lower_for_gpu_with(&graph, target, options, None).unwrap_or_else(|e| panic!("{e}"));
        if work(&module) <= MOST_WORK {
            compare_ptx(&module, target, &net.feeds, expected);
        }
    }
}

fn work(module: &Module) -> u64 {
    let elements: usize = module.values.iter().map(|v| v.elements).sum();
    let launch = |k: &Kernel| k.flops + k.task_count() * k.threads.unwrap_or(1) as u64;
    elements as u64 + module.launches.iter().map(|l| launch(&module.kernels[l.kernel])).sum::<u64>()
}

fn compare_ptx(
    module: &Module,
    target: GpuTarget,
    feeds: &BTreeMap<String, Tensor>,
    expected: &BTreeMap<String, Tensor>,
) {
    let bits = run_module(module, feeds, feeds).unwrap_or_else(|e| panic!("{e}\n{}", text(module)));
    compare_values(module, &bits, expected);
    let found = run_ptx(module, target, feeds);
    for (name, want) in &bits {
        let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        let (want, found) = (numbers(want), numbers(&found[name]));
        assert!(want.iter().zip(&found).all(same), "{name}, {target}\n{}", text(module));
    }
}
