//! Plans of small modules: one as text, random ones for what must always hold.

mod order;
mod recompute;

use nnc_runtime::DType;
use nnc_runtime::program::{Access, Class, Initializer, Parameter, Phase, Port};
use proptest::prelude::*;

use super::{ALIGNMENT, Plan, plan, plan_apart};
use crate::kernel::module::{Arg, Launch, Module, Role, Value, ValueId};
use crate::kernel::{Kernel, Memory};

/// A module whose kernels read some values and write one.
#[derive(Default)]
struct Maker {
    module: Module,
}

impl Maker {
    fn value(&mut self, name: &str, elements: usize, role: Role) -> usize {
        let value = Value { name: name.into(), dtype: DType::F32, elements, shape: vec![elements], role };
        self.module.values.push(value);
        self.module.values.len() - 1
    }

    fn launch(&mut self, name: &str, phase: Phase, reads: &[usize], write: usize) {
        let mut kernel = Kernel::new(name);
        let mut args = vec![];
        let accesses = reads.iter().map(|&v| (v, Access::Read)).chain([(write, Access::Write)]);
        for (v, access) in accesses {
            let value = &self.module.values[v];
            kernel.buffer(&value.name, value.dtype, &value.shape, Memory::Global(access));
            args.push(Arg { value: ValueId(v as u32), offset: 0 });
        }
        let kernel_index = self.module.kernels.len();
        self.module.kernels.push(kernel);
        let layer = format!("{name}1");
        self.module.launches.push(Launch {
            kernel: kernel_index,
            args,
            phase,
            layer,
            location: String::new(),
        });
    }
}

/// A chain of values, of which two are alive at a time.
#[test]
fn plans_for_launches_side_by_side() {
    let mut m = Maker::default();
    let mut last = m.value("x", 16, Role::Input(0));
    for i in 0..40 {
        let next = m.value(&format!("v{i}"), 16, Role::Temporary);
        m.launch("step", Phase::Run, &[last], next);
        last = next;
    }
    let end = m.value("y", 16, Role::Output(0));
    m.launch("end", Phase::Run, &[last], end);
    assert_eq!(plan(&m.module).arena_bytes, 2 * ALIGNMENT);
    let values = |bytes| plan_apart(&m.module, bytes).arena_bytes / ALIGNMENT;
    // Nothing shared; memory that rests for 16 launches, for 4, not at all.
    assert_eq!([1 << 20, 39 * ALIGNMENT, 17 * ALIGNMENT, 0].map(values), [40, 18, 6, 2]);
}

#[test]
fn state_is_the_sessions() {
    let mut m = Maker::default();
    let x = m.value("x", 8, Role::Input(0));
    let w = m.value("w", 8, Role::State(0));
    let gradient = m.value("gradient", 8, Role::Temporary);
    m.launch("backward", Phase::Run, &[x, w], gradient);
    m.launch("update", Phase::Run, &[w, gradient], w);
    let plan = plan(&m.module);
    assert_eq!(plan.classes, [Class::Input(0), Class::State(0), Class::Arena(0)]);
    assert_eq!((plan.prepared_bytes, plan.arena_bytes), (0, ALIGNMENT));
    assert!(plan.to_string().contains("state 0 "), "{plan}");
}

#[test]
fn a_chain_shares_memory() {
    let mut m = Maker::default();
    let x = m.value("x", 100, Role::Input(0));
    let w = m.value("w", 30, Role::Parameter(0));
    let k = m.value("k", 2, Role::Constant(vec![0; 8]));
    let packed = m.value("packed", 32, Role::Temporary);
    let a = m.value("a", 400, Role::Temporary);
    let b = m.value("b", 100, Role::Temporary);
    let c = m.value("c", 300, Role::Temporary);
    let y = m.value("y", 10, Role::Output(0));
    m.launch("pack", Phase::Prepare, &[w], packed);
    m.launch("conv", Phase::Run, &[x, packed], a);
    m.launch("pool", Phase::Run, &[a, k], b);
    m.launch("conv", Phase::Run, &[b, packed], c);
    m.launch("mean", Phase::Run, &[c], y);
    insta::assert_snapshot!(plan(&m.module).to_string());
}

#[test]
fn what_a_run_reads_is_kept_and_nothing_else_of_the_prepare_phase() {
    let mut m = Maker::default();
    let w = m.value("w", 64, Role::Parameter(0));
    let scale = m.value("scale", 64, Role::Temporary);
    let first = m.value("first", 64, Role::Temporary);
    let second = m.value("second", 64, Role::Temporary);
    let y = m.value("y", 64, Role::Output(0));
    m.launch("scale", Phase::Prepare, &[w], scale);
    m.launch("fold", Phase::Prepare, &[scale], first);
    m.launch("pack", Phase::Prepare, &[first], second);
    m.launch("run", Phase::Run, &[first, second], y);
    let plan = plan(&m.module);
    assert_eq!((plan.prepared_bytes, plan.preparing_bytes, plan.arena_bytes), (2 * 256, 256, 0));
    assert_eq!(plan.classes[scale], Class::Preparing(0));
    assert_ne!(plan.classes[first], plan.classes[second]);
}

#[test]
fn a_module_without_launches_needs_nothing() {
    assert_eq!(plan(&Module::default()), Plan::default());
}

/// A random program: every launch reads some earlier values and writes a new one; the first few
/// launches are of the prepare phase.
fn modules() -> impl Strategy<Value = Module> {
    let launch = (0usize..5000, prop::collection::vec(any::<prop::sample::Index>(), 0..4));
    (prop::collection::vec(launch, 1..40), 0usize..10).prop_map(|(launches, prepare)| {
        let mut m = Maker::default();
        m.value("x", 10, Role::Input(0));
        let mut prepared = vec![m.value("w", 10, Role::Parameter(0))];
        for (i, (elements, picks)) in launches.into_iter().enumerate() {
            let phase = if i < prepare { Phase::Prepare } else { Phase::Run };
            let all: Vec<usize> = (0..m.module.values.len()).collect();
            let from = if phase == Phase::Prepare { &prepared } else { &all };
            let reads: Vec<usize> = picks.iter().map(|p| *p.get(from)).collect();
            let write = m.value(&format!("v{i}"), elements, Role::Temporary);
            if phase == Phase::Prepare {
                prepared.push(write);
            }
            m.launch("k", phase, &reads, write);
        }
        m.module
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_alive_together_never_overlap(module in modules()) {
        let plan = plan(&module);
        let extent = |i: usize| match plan.classes[i] {
            Class::Arena(at) => Some((plan.arena_bytes, at, at + plan.bytes[i])),
            Class::Prepared(at) => Some((plan.prepared_bytes, at, at + plan.bytes[i])),
            Class::Preparing(at) => Some((plan.preparing_bytes, at, at + plan.bytes[i])),
            _ => None,
        };
        let same = |i: usize, j: usize| {
            std::mem::discriminant(&plan.classes[i]) == std::mem::discriminant(&plan.classes[j])
        };
        for i in 0..module.values.len() {
            let Some((area, start, end)) = extent(i) else { continue };
            prop_assert_eq!(start % ALIGNMENT, 0);
            prop_assert!(end <= area);
            for j in 0..i {
                let (Some((_, s, e)), Some(a), Some(b)) = (extent(j), plan.lives[i], plan.lives[j]) else {
                    continue;
                };
                // What a run reads must outlast the prepare phase and all runs.
                let (first, second) = if a.first <= b.first { (i, b.first) } else { (j, a.first) };
                let last = plan.lives[first].map_or(0, |l| l.last);
                let together = second <= last || matches!(plan.classes[i], Class::Prepared(_));
                if same(i, j) && together && start < end && s < e {
                    prop_assert!(end <= s || e <= start, "%{} and %{} overlap:\n{}", j, i, plan);
                }
            }
        }
        prop_assert!(plan.live_bytes <= plan.arena_bytes);
        prop_assert!(plan.arena_bytes <= plan.unshared_bytes);
    }

    #[test]
    fn prepared_values_are_what_the_prepare_phase_writes(module in modules()) {
        let plan = plan(&module);
        for launch in &module.launches {
            let written = launch.args.last().expect("a launch writes").value.0 as usize;
            let prepared = launch.phase == Phase::Prepare;
            let read = module.launches.iter().any(|l| {
                l.phase == Phase::Run && l.args.iter().any(|a| a.value.0 as usize == written)
            });
            match plan.classes[written] {
                Class::Prepared(_) => prop_assert!(prepared && read),
                Class::Preparing(_) => prop_assert!(prepared && !read),
                _ => prop_assert!(!prepared),
            }
        }
    }
}
