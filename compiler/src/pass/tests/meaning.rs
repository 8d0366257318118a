//! Passes keep what a graph computes: random graphs before and after, in the interpreter.

use std::collections::BTreeMap;

use nnc_runtime::Tensor;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::{PASSES, run_all};
use super::{invariants, random};
use crate::graph::interpret::{Precision, trace};
use crate::graph::{Graph, verify};
use crate::target::{CpuTarget, GpuTarget};

/// Blocks of eight and of sixteen channels, and channels last.
fn targets() -> [CpuTarget; 3] {
    let named = |name| CpuTarget::named(name).expect("a target of that name");
    [named("fma"), named("avx512"), GpuTarget::Sm90.thread()]
}

/// Share of an output's largest value by which it may differ: folding constants and weights rounds
/// to f32, all else is computed in f64 here.
const TOLERANCE: f64 = 1e-4;

fn outputs(graph: &Graph, feeds: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    trace(graph, feeds, Precision::Double, &mut |_, _| {}).expect("the graph can be evaluated")
}

fn same(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> Result<(), String> {
    if a.keys().ne(b.keys()) {
        return Err(format!("outputs {:?} became {:?}", a.keys(), b.keys()));
    }
    for (name, x) in a {
        let (Tensor::F64(x), Tensor::F64(y)) = (x, &b[name]) else {
            return Err(format!("`{name}` is not of floats"));
        };
        if x.shape() != y.shape() {
            return Err(format!("`{name}` of shape {:?} became {:?}", x.shape(), y.shape()));
        }
        let largest = x.iter().filter(|v| v.is_finite()).fold(1e-3, |m: f64, v| m.max(v.abs()));
        for (i, (&x, &y)) in x.iter().zip(y).enumerate() {
            let equal = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= TOLERANCE * largest;
            if !equal {
                return Err(format!("element {i} of `{name}` was {x}, is {y}"));
            }
        }
    }
    Ok(())
}

fn check_whole(graph: Graph, target: &CpuTarget) -> Result<(), TestCaseError> {
    let feeds = random::feeds(&graph);
    let expected = outputs(&graph, &feeds);
    let mut optimised = graph.clone();
    let mut error = None;
    run_all(&mut optimised, target, &mut |pass, g| {
        let result = same(&expected, &outputs(g, &feeds));
        error = error.take().or(result.err().map(|e| format!("after `{pass}`: {e}")));
    });
    if let Some(e) = error {
        return Err(TestCaseError::fail(e));
    }
    invariants::check(&optimised);
    let mut again = graph.clone();
    run_all(&mut again, target, &mut |_, _| {});
    prop_assert_eq!(again.to_string(), optimised.to_string());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_pass_alone_keeps_the_meaning(random::Case(graph) in random::graphs(12)) {
        let feeds = random::feeds(&graph);
        let expected = outputs(&graph, &feeds);
        for pass in PASSES {
            let mut g = graph.clone();
            (pass.run)(&mut g, &targets()[0]);
            if let Err(errors) = verify::verify(&g) {
                prop_assert!(false, "`{}` left a wrong graph: {errors:?}\n{g}", pass.name);
            }
            if let Err(e) = same(&expected, &outputs(&g, &feeds)) {
                prop_assert!(false, "`{}`: {e}", pass.name);
            }
        }
    }

    #[test]
    fn all_passes_keep_the_meaning_and_their_promises(random::Case(graph) in random::graphs(40)) {
        for target in targets() {
            check_whole(graph.clone(), &target)?;
        }
    }
}
