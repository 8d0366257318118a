//! Orders of launches: that of a small training step as text, random ones for what must always hold.

use std::collections::BTreeMap;

use nnc_runtime::program::{Access, Phase};
use proptest::prelude::*;

use super::Maker;
use crate::kernel::module::{Module, Role};
use crate::plan::{accesses, order, plan};

/// Two layers, forward and backward; lowering has put the copies for the backward part and the updates
/// where they hurt most.
fn step() -> Module {
    let mut m = Maker::default();
    let x = m.value("x", 100, Role::Input(0));
    let [w1, w2] = [0, 1].map(|i| m.value("w", 50, Role::State(i)));
    let [a, b, copy_w, copy_x] = ["a", "b", "copy_w", "copy_x"].map(|n| m.value(n, 1000, Role::Temporary));
    let loss = m.value("loss", 1, Role::Output(0));
    let [db, da] = ["db", "da"].map(|n| m.value(n, 1000, Role::Temporary));
    let [dw1, dw2] = ["dw1", "dw2"].map(|n| m.value(n, 500, Role::Temporary));
    m.launch("copy_x", Phase::Run, &[x], copy_x);
    m.launch("copy_w", Phase::Run, &[w2], copy_w);
    m.launch("layer1", Phase::Run, &[x, w1], a);
    m.launch("layer2", Phase::Run, &[a, w2], b);
    m.launch("loss", Phase::Run, &[b], loss);
    m.launch("loss_grad", Phase::Run, &[b], db);
    m.launch("weight2_grad", Phase::Run, &[a, db], dw2);
    m.launch("layer2_grad", Phase::Run, &[copy_w, db], da);
    m.launch("weight1_grad", Phase::Run, &[copy_x, da], dw1);
    m.launch("update1", Phase::Run, &[dw1], w1);
    m.launch("update2", Phase::Run, &[dw2], w2);
    m.module
}

fn names(module: &Module) -> Vec<&str> {
    module.launches.iter().map(|l| module.kernels[l.kernel].name.as_str()).collect()
}

#[test]
fn copies_wait_for_their_use_and_updates_do_not() {
    let mut module = step();
    let before = plan(&module).live_bytes;
    order::run(&mut module);
    let expected = [
        "layer1",
        "layer2",
        "loss",
        "loss_grad",
        "weight2_grad",
        "copy_w",
        "update2",
        "layer2_grad",
        "copy_x",
        "weight1_grad",
        "update1",
    ];
    assert_eq!(names(&module), expected);
    // 4000 bytes are 63 lines of 64.
    assert_eq!((before, plan(&module).live_bytes), (5 * 4032, 3 * 4032));
}

#[test]
fn an_old_value_is_read_before_it_is_replaced() {
    let mut module = step();
    order::run(&mut module);
    let at = |name: &str| names(&module).iter().position(|n| *n == name).unwrap();
    assert!(at("copy_w") < at("update2"));
    // The other way round it is the new value that is meant, and that stays, too.
    let mut m = Maker::default();
    let w = m.value("w", 8, Role::State(0));
    let [big, y] = [m.value("big", 1 << 20, Role::Temporary), m.value("y", 8, Role::Output(0))];
    m.launch("make", Phase::Run, &[], big);
    m.launch("update", Phase::Run, &[big], w);
    m.launch("read", Phase::Run, &[w], y);
    let mut module = m.module;
    order::run(&mut module);
    assert_eq!(names(&module), ["make", "update", "read"]);
}

#[test]
fn an_order_that_saves_nothing_is_not_taken() {
    let mut m = Maker::default();
    let x = m.value("x", 8, Role::Input(0));
    let [y, z] = [0, 1].map(|i| m.value("y", 8, Role::Output(i)));
    m.launch("deep", Phase::Run, &[x], z);
    let t = m.value("t", 8, Role::Temporary);
    m.launch("deeper", Phase::Run, &[z], t);
    m.launch("shallow", Phase::Run, &[x], y);
    let before = m.module.clone();
    order::run(&mut m.module);
    assert_eq!(m.module, before);
}

/// Three layers whose weights are folded and packed; lowering has put all foldings first.
#[test]
fn weights_are_prepared_one_layer_after_the_other() {
    let mut m = Maker::default();
    let x = m.value("x", 8, Role::Input(0));
    let y = m.value("y", 8, Role::Output(0));
    let layers: Vec<[usize; 3]> = (0..3)
        .map(|i| {
            let w = m.value("w", 1000, Role::Parameter(i));
            let [folded, packed] = ["folded", "packed"].map(|n| m.value(n, 1000, Role::Temporary));
            [w, folded, packed]
        })
        .collect();
    for &[w, folded, _] in &layers {
        m.launch("fold", Phase::Prepare, &[w], folded);
    }
    for &[_, folded, packed] in &layers {
        m.launch("pack", Phase::Prepare, &[folded], packed);
    }
    m.launch("net", Phase::Run, &[x, layers[0][2], layers[1][2], layers[2][2]], y);
    let mut module = m.module;
    assert_eq!(plan(&module).preparing_bytes, 3 * 4032);
    order::run(&mut module);
    assert_eq!(names(&module), ["fold", "pack", "fold", "pack", "fold", "pack", "net"]);
    assert_eq!((plan(&module).preparing_bytes, plan(&module).prepared_bytes), (4032, 3 * 4032));
}

/// Random launches over a few values, each of which any launch may read or write, in any order.
fn modules() -> impl Strategy<Value = Module> {
    let launch = (prop::collection::vec(0usize..12, 0..4), 0usize..12);
    (prop::collection::vec(launch, 1..40), prop::collection::vec(1usize..3000, 12)).prop_map(
        |(launches, sizes)| {
            let mut m = Maker::default();
            for (i, &elements) in sizes.iter().enumerate() {
                let role = match i {
                    0 => Role::Input(0),
                    1..3 => Role::State(i),
                    3..5 => Role::Output(i),
                    _ => Role::Temporary,
                };
                m.value("v", elements, role);
            }
            for (i, (reads, write)) in launches.into_iter().enumerate() {
                m.launch(&format!("k{i}"), Phase::Run, &reads, write.max(1));
            }
            m.module
        },
    )
}

/// For each launch, who wrote what it reads; under an empty name, who wrote each value last.
fn meaning(module: &Module) -> BTreeMap<String, Vec<Option<String>>> {
    let mut writer: Vec<Option<String>> = vec![None; module.values.len()];
    let mut out = BTreeMap::new();
    for launch in &module.launches {
        let name = module.kernels[launch.kernel].name.clone();
        let touched: Vec<(usize, Access)> = accesses(module, launch).collect();
        out.insert(name.clone(), touched.iter().map(|&(v, _)| writer[v].clone()).collect());
        for (v, _) in touched.into_iter().filter(|&(_, a)| a != Access::Read) {
            writer[v] = Some(name.clone());
        }
    }
    out.insert(String::new(), writer);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_launch_reads_what_it_read_before(module in modules()) {
        let mut ordered = module.clone();
        order::run(&mut ordered);
        prop_assert_eq!(meaning(&ordered), meaning(&module));
        prop_assert!(plan(&ordered).live_bytes <= plan(&module).live_bytes);
        let again = { let mut m = module.clone(); order::run(&mut m); m };
        prop_assert_eq!(again, ordered);
    }
}
