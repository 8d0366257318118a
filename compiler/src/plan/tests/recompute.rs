//! Steps in less memory: they compute the same, change parameters once, and keep the limit or say what
//! they need.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::super::activations::{Fate, activations};
use super::super::limit::fit;
use super::super::recompute::Base;
use super::super::usage::{Around, Kind, usage};
use super::super::{Obstacle, accesses};
use super::*;

impl Maker {
    /// The last launch writes this, too.
    fn also_writes(&mut self, v: usize) {
        let (value, kernel) = (&self.module.values[v], self.module.kernels.last_mut().unwrap());
        kernel.buffer(&value.name, value.dtype, &value.shape, Memory::Global(Access::Write));
        let launch = self.module.launches.last_mut().unwrap();
        launch.args.push(Arg { value: ValueId(v as u32), offset: 0 });
    }
}

/// A step of a chain of layers. The i-th has `sizes[i]` elements and normalises, if i is even: a second
/// result is the statistics, and running ones change with it. The backward part reads every value.
fn step(sizes: &[usize]) -> Module {
    let mut m = Maker::default();
    let mut before = m.value("x", 100, Role::Input(0));
    let (mut layers, mut number) = (vec![], 0);
    for (i, &elements) in sizes.iter().enumerate() {
        let w = m.value(&format!("w{i}"), 64, Role::State(number));
        let a = m.value(&format!("a{i}"), elements, Role::Temporary);
        m.launch("forward", Phase::Run, &[before, w], a);
        number += 1;
        let mut statistics = None;
        if i % 2 == 0 {
            let running = m.value(&format!("running{i}"), 64, Role::State(number));
            let mean = m.value(&format!("mean{i}"), 5000, Role::Temporary);
            m.launch("statistics", Phase::Run, &[a, running], mean);
            m.also_writes(running);
            number += 1;
            statistics = Some(mean);
        }
        layers.push((before, w, a, statistics));
        before = a;
    }
    let loss = m.value("loss", 1, Role::Output(0));
    m.launch("loss", Phase::Run, &[before], loss);
    let mut dy = m.value("d", 100, Role::Temporary);
    m.launch("loss_grad", Phase::Run, &[before], dy);
    for (i, &(x, w, a, statistics)) in layers.iter().enumerate().rev() {
        let reads: Vec<usize> = [dy, x, a].into_iter().chain(statistics).collect();
        let dw = m.value(&format!("dw{i}"), 64, Role::Temporary);
        m.launch("weight_grad", Phase::Run, &reads, dw);
        let dx = m.value(&format!("dx{i}"), 100, Role::Temporary);
        m.launch("input_grad", Phase::Run, &[dy, w], dx);
        m.launch("update", Phase::Run, &[w, dw], w);
        dy = dx;
    }
    let mut module = m.module;
    for i in 0..number {
        let value = module.values.iter().find(|v| v.role == Role::State(i)).unwrap();
        let port = Port { name: value.name.clone(), dtype: DType::F32, shape: vec![64] };
        let trainable = value.name.starts_with('w');
        module.parameters.push(Parameter { port, init: Initializer::Constant(0.0), trainable });
    }
    module
}

/// What every value that outlives a run holds at its end, as a hash of all that went into it.
fn meaning(module: &Module) -> Vec<u64> {
    let hash = |of: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        of(&mut hasher);
        hasher.finish()
    };
    let mut holds: Vec<u64> = module.values.iter().map(|v| hash(&|h| v.name.hash(h))).collect();
    for launch in &module.launches {
        let of: Vec<(usize, Access)> = accesses(module, launch).collect();
        let read: Vec<u64> = of.iter().filter(|a| a.1 == Access::Read).map(|a| holds[a.0]).collect();
        for (i, &(v, _)) in of.iter().enumerate().filter(|(_, a)| a.1 != Access::Read) {
            holds[v] = hash(&|h| (launch.kernel, i, &read).hash(h));
        }
    }
    let lasting = module.values.iter().zip(holds).filter(|(v, _)| v.role != Role::Temporary);
    lasting.map(|(_, hash)| hash).collect()
}

fn launches(module: &Module, name: &str) -> usize {
    module.launches.iter().filter(|l| module.kernels[l.kernel].name == name).count()
}

fn around(threads: usize, optimizer_state: &std::collections::BTreeSet<String>) -> Around<'_> {
    Around { threads, input_sets: 1, optimizer_state }
}

#[test]
fn dropped_values_are_computed_just_before_they_are_needed() {
    let module = step(&[5000, 5001, 5002]);
    let whole = plan(&module).arena_bytes;
    let less = fit(&module, whole - 4 * 5000).unwrap();
    insta::assert_snapshot!(plan(&less).to_string());
    assert!(plan(&less).arena_bytes <= whole - 4 * 5000);
    let fates: Vec<(String, Fate)> = activations(&less, &plan(&less))
        .into_iter()
        .filter(|a| a.fate == Fate::Recomputed)
        .map(|a| (a.kernel, a.fate))
        .collect();
    assert!(!fates.is_empty() && fates.iter().all(|(kernel, _)| kernel == "forward"), "{fates:?}");
}

#[test]
fn what_changes_parameters_is_not_done_twice() {
    let module = step(&[6000; 9]);
    let least = fit(&module, 0).unwrap_err().least;
    let least = fit(&module, least).unwrap();
    assert_eq!(launches(&least, "statistics"), launches(&module, "statistics"));
    assert!(launches(&least, "forward") > launches(&module, "forward"));
    let mean = module.values.iter().position(|v| v.name == "mean0").unwrap();
    let obstacle = Base::new(&module).obstacle(mean);
    assert_eq!(obstacle, Some(Obstacle::ChangesState));
}

/// Chen et al.: twice the root of n instead of n, or less.
#[test]
fn long_chains_take_sublinear_memory() {
    let module = step(&[10_000; 64]);
    // Statistics stay.
    let beside = 32 * 5000 * 4;
    let whole = plan(&module).arena_bytes - beside;
    let least = fit(&module, 0).unwrap_err().least - beside;
    assert!(least * 3 <= whole, "{least} of {whole}");
}

#[test]
fn kinds_of_memory() {
    let module = step(&[5000, 6000]);
    let plan = plan(&module);
    let state = ["w1".to_string()].into();
    let usage = usage(&module, &plan, around(2, &state));
    let kinds: Vec<(Kind, usize)> = Kind::ALL.map(|k| (k, usage.of(k))).into();
    insta::assert_debug_snapshot!(kinds);
    assert_eq!(usage.total(), kinds.iter().map(|k| k.1).sum::<usize>());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn limits_are_kept_and_change_nothing(
        sizes in prop::collection::vec(4000usize..20_000, 1..12),
        share in 0.2f64..1.0,
    ) {
        let module = step(&sizes);
        let whole = plan(&module).arena_bytes;
        let limit = (whole as f64 * share) as usize;
        let fitted = match fit(&module, limit) {
            Ok(fitted) => fitted,
            Err(too_small) => {
                prop_assert!(too_small.least > limit);
                fit(&module, too_small.least).unwrap()
            }
        };
        let least = fit(&module, limit).map_or_else(|e| e.least, |_| limit);
        prop_assert!(plan(&fitted).arena_bytes <= least);
        prop_assert_eq!(meaning(&module), meaning(&fitted));
        prop_assert_eq!(launches(&fitted, "statistics"), launches(&module, "statistics"));
    }

    #[test]
    fn kinds_sum_to_the_plan(module in modules(), threads in 1usize..4) {
        let plan = plan(&module);
        let none = Default::default();
        let usage = usage(&module, &plan, around(threads, &none));
        let kinds = [Kind::Gradients, Kind::Activations, Kind::Recomputed, Kind::Temporaries, Kind::Idle];
        prop_assert_eq!(kinds.map(|k| usage.of(k)).iter().sum::<usize>(), plan.arena_bytes);
        prop_assert_eq!(usage.of(Kind::Prepared), plan.prepared_bytes);
    }
}
