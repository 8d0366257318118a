//! Random graphs, optimised and lowered for a GPU: kernels compute what the graph means, by threads and by blocks.

use nnc_runtime::Tensor;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::{Blocks, GpuOptions, Products};
use crate::graph::Graph;
use crate::graph::interpret::{Precision, trace};
use crate::kernel::interpret::run_module;
use crate::lower::lower_for_gpu_with;
use crate::pass::run_all;
use crate::pass::tests::random;
use crate::plan::order;
use crate::target::GpuTarget;

/// Share of the largest value: folded weights and sums are rounded to f32, in another order.
const TOLERANCE: f64 = 1e-3;

fn check(graph: &Graph, blocks: Blocks) -> Result<(), TestCaseError> {
    let (feeds, target) = (random::feeds(graph), GpuTarget::Sm90);
    let expected =
        trace(graph, &feeds, Precision::Double, &mut |_, _| {}).expect("the graph can be evaluated");
    let mut optimised = graph.clone();
    run_all(&mut optimised, &target.thread(), &mut |_, _| {});
    let options = GpuOptions { products: Products::F32, blocks };
    let mut module = match lower_for_gpu_with(&optimised, target, options, None) {
        Ok(module) => module,
        Err(e) => return Err(TestCaseError::fail(format!("{e}\n{optimised}"))),
    };
    order::run(&mut module);
    let found = match run_module(&module, &feeds, &feeds) {
        Ok(found) => found,
        Err(e) => return Err(TestCaseError::fail(format!("{e}\n{optimised}\n{module}"))),
    };
    for (name, want) in &expected {
        let (Tensor::F64(want), Tensor::F32(found)) = (want, &found[name]) else { continue };
        let largest = want.iter().filter(|v| v.is_finite()).fold(1.0, |m: f64, v| m.max(v.abs()));
        for (i, (&w, &f)) in want.iter().zip(found).enumerate() {
            let f = f64::from(f);
            let near = w == f || w.is_nan() && f.is_nan() || (w - f).abs() <= TOLERANCE * largest;
            prop_assert!(near, "element {i} of `{name}` should be {w}, is {f}\n{optimised}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, rng_seed: RngSeed::Fixed(11), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernels_compute_what_random_graphs_mean(random::Case(graph) in random::graphs(24)) {
        check(&graph, Blocks::WherePaid)?;
        check(&graph, Blocks::Always)?;
    }
}
