//! What the memory of a run is for, by kind: the plan as people ask for it.
//!
//! Takes a module with its plan; gives the bytes of each [`Kind`], which sum to all that a session
//! takes. Of the arena, that is what is alive during the launch at which most is ([`Plan::peak_launch`]),
//! and what lies idle between values. In a training step there are values of the forward part that wait for
//! the backward part, the *activations*; what is forward is read off the launches: those that outputs
//! (loss and metrics) depend on.

use std::collections::{BTreeMap, BTreeSet};

use nnc_runtime::memory::scratch_stride;
use nnc_runtime::program::{Access, Class, Phase, Port, Program};

use super::{ALIGNMENT, Plan, accesses, used_by_runs};
use crate::emit::cpu::scratch_bytes;
use crate::kernel::module::{Module, Role};

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Parameters that follow gradients.
    Parameters,
    /// Gradients of parameters that are complete and wait for their update.
    Gradients,
    /// What the optimizer remembers.
    OptimizerState,
    /// Running statistics, and other parameters that no gradient changes.
    OtherParameters,
    /// Values of the forward part that the backward part needs.
    Activations,
    /// Such values that were dropped and have been computed again.
    Recomputed,
    /// All other values of the arena: what kernels hand on to the next ones.
    Temporaries,
    /// Room in the arena that is idle at the peak: between values, and at its end.
    Idle,
    /// Weights that were packed once, when they were loaded.
    Prepared,
    /// Constants of the program.
    Constants,
    /// Memory of the kernels themselves, each thread's own.
    Scratch,
    /// Inputs and outputs of a run.
    Batch,
}

impl Kind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Kind; 12] = [
        Kind::Parameters,
        Kind::Gradients,
        Kind::OptimizerState,
        Kind::OtherParameters,
        Kind::Activations,
        Kind::Recomputed,
        Kind::Temporaries,
        Kind::Idle,
        Kind::Prepared,
        Kind::Constants,
        Kind::Scratch,
        Kind::Batch,
    ];

    /// In words.
    pub fn about(self) -> &'static str {
        match self {
            Kind::Parameters => "parameters",
            Kind::Gradients => "gradients of parameters",
            Kind::OptimizerState => "optimizer state",
            Kind::OtherParameters => "running statistics and fixed parameters",
            Kind::Activations => "activations kept for the backward part",
            Kind::Recomputed => "activations computed again",
            Kind::Temporaries => "other intermediate values",
            Kind::Idle => "idle room between values",
            Kind::Prepared => "weights packed once",
            Kind::Constants => "constants",
            Kind::Scratch => "scratch memory of the threads",
            Kind::Batch => "inputs and outputs",
        }
    }
}

/// Bytes by kind. See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    bytes: BTreeMap<Kind, usize>,
}

impl Usage {
    /// The bytes of a kind.
    pub fn of(&self, kind: Kind) -> usize {
        self.bytes.get(&kind).copied().unwrap_or(0)
    }

    /// All bytes.
    pub fn total(&self) -> usize {
        self.bytes.values().sum()
    }

    fn add(&mut self, kind: Kind, bytes: usize) {
        *self.bytes.entry(kind).or_default() += bytes;
    }

    fn take(&mut self, kind: Kind, bytes: usize) {
        let all = self.bytes.entry(kind).or_default();
        *all = all.saturating_sub(bytes);
    }
}

/// What is around a module in a run.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// Threads that run it.
    pub threads: usize,
    /// Inputs there is room for: two sets where one is filled while the other one is in use.
    pub input_sets: usize,
    /// Names of the parameters that are the optimizer's state.
    pub optimizer_state: &'a BTreeSet<String>,
}

/// The memory of a session that changes nothing, by kind. It has the parameters that runs read as they are;
/// of the others, only what was prepared of them.
pub fn session(module: &Module, plan: &Plan, threads: usize) -> Usage {
    let mut usage = usage(module, plan, Around { threads, input_sets: 1, optimizer_state: &BTreeSet::new() });
    let mut read = vec![false; module.parameters.len()];
    for (value, used) in module.values.iter().zip(used_by_runs(module)) {
        if let Role::Parameter(i) | Role::State(i) = value.role {
            read[i] |= used;
        }
    }
    for (p, _) in module.parameters.iter().zip(read).filter(|(_, read)| !read) {
        let kind = if p.trainable { Kind::Parameters } else { Kind::OtherParameters };
        usage.take(kind, Program::port_bytes(&p.port).unwrap_or(0));
    }
    usage
}

/// The memory of a training step, by kind.
pub fn usage(module: &Module, plan: &Plan, around: Around<'_>) -> Usage {
    let mut usage = beside_arena(module, around);
    usage.add(Kind::Prepared, plan.prepared_bytes);
    let roles = Roles::of(module);
    let mut alive = 0;
    if let Some(peak) = plan.peak_launch() {
        for v in (0..module.values.len()).filter(|&v| plan.is_alive(v, peak)) {
            let bytes = plan.bytes[v].next_multiple_of(ALIGNMENT);
            usage.add(roles.kinds[v], bytes);
            alive += bytes;
        }
    }
    usage.add(Kind::Idle, plan.arena_bytes - alive);
    usage
}

/// The memory that no plan changes: all but the arena and what is prepared.
fn beside_arena(module: &Module, around: Around<'_>) -> Usage {
    let mut usage = Usage::default();
    let bytes = |port: &Port| Program::port_bytes(port).unwrap_or(0);
    for p in &module.parameters {
        let kind = match &p.port.name {
            _ if p.trainable => Kind::Parameters,
            name if around.optimizer_state.contains(name) => Kind::OptimizerState,
            _ => Kind::OtherParameters,
        };
        usage.add(kind, bytes(&p.port));
    }
    let inputs: usize = module.inputs.iter().map(bytes).sum();
    usage.add(Kind::Batch, around.input_sets * inputs + module.outputs.iter().map(bytes).sum::<usize>());
    for value in &module.values {
        if let Role::Constant(data) = &value.role {
            usage.add(Kind::Constants, data.len().next_multiple_of(ALIGNMENT));
        }
    }
    let largest = module.kernels.iter().map(scratch_bytes).max().unwrap_or(0);
    usage.add(Kind::Scratch, scratch_stride(largest) * around.threads);
    usage
}

/// What launches and values are to a training step.
pub(crate) struct Roles {
    /// Whether the loss or a metric depends on what a launch computes.
    pub forward: Vec<bool>,
    /// What each value is, if it is in the arena.
    pub kinds: Vec<Kind>,
}

impl Roles {
    pub fn of(module: &Module) -> Roles {
        let forward = forward(module);
        let data = depends_on_inputs(module);
        let mut kinds = vec![Kind::Temporaries; module.values.len()];
        let mut made_forward = vec![false; module.values.len()];
        for (launch, _) in module.launches.iter().zip(&forward).filter(|&(_, &forward)| forward) {
            let written = accesses(module, launch).filter(|&(_, access)| access != Access::Read);
            written.for_each(|(v, _)| made_forward[v] = true);
        }
        for (launch, _) in module.launches.iter().zip(&forward).filter(|&(_, &forward)| !forward) {
            let trained: Vec<usize> =
                accesses(module, launch).filter_map(|(v, access)| trained(module, v, access)).collect();
            for (v, _) in accesses(module, launch).filter(|&(_, access)| access == Access::Read) {
                if made_forward[v] && data[v] {
                    kinds[v] = Kind::Activations;
                } else if !made_forward[v] && trained.contains(&module.values[v].elements) {
                    kinds[v] = Kind::Gradients;
                }
            }
        }
        for &(copy, _) in &module.recomputed {
            kinds[copy.0 as usize] = Kind::Recomputed;
        }
        Roles { forward, kinds }
    }
}

/// The elements of the trained parameter that is written so.
fn trained(module: &Module, v: usize, access: Access) -> Option<usize> {
    match module.values[v].role {
        Role::State(i) if access != Access::Read && module.parameters[i].trainable => {
            Some(module.values[v].elements)
        }
        _ => None,
    }
}

/// Whether outputs depend on what each launch computes.
fn forward(module: &Module) -> Vec<bool> {
    let mut needed: Vec<bool> = module.values.iter().map(|v| matches!(v.role, Role::Output(_))).collect();
    let mut forward = vec![false; module.launches.len()];
    for (l, launch) in module.launches.iter().enumerate().rev() {
        let of: Vec<(usize, Access)> = accesses(module, launch).collect();
        forward[l] = of.iter().any(|&(v, access)| access != Access::Read && needed[v]);
        if forward[l] {
            let temporary = |v: &usize| module.values[*v].role == Role::Temporary;
            of.iter().map(|&(v, _)| v).filter(temporary).for_each(|v| needed[v] = true);
        }
    }
    forward
}

/// Whether each value depends on inputs: packed weights do not.
fn depends_on_inputs(module: &Module) -> Vec<bool> {
    let mut depends: Vec<bool> = module.values.iter().map(|v| matches!(v.role, Role::Input(_))).collect();
    for launch in module.launches.iter().filter(|l| l.phase == Phase::Run) {
        let of: Vec<(usize, Access)> = accesses(module, launch).collect();
        if of.iter().any(|&(v, _)| depends[v]) {
            of.iter().filter(|(_, access)| *access != Access::Read).for_each(|&(v, _)| depends[v] = true);
        }
    }
    depends
}

impl Plan {
    /// The first launch during which most of the arena is alive; `None` where nothing ever is.
    pub fn peak_launch(&self) -> Option<usize> {
        let alive = |l: usize| -> usize {
            let here = (0..self.bytes.len()).filter(|&v| self.is_alive(v, l));
            here.map(|v| self.bytes[v].next_multiple_of(ALIGNMENT)).sum()
        };
        let launches = self.launches.len();
        (0..launches).max_by_key(|&l| (alive(l), std::cmp::Reverse(l))).filter(|&l| alive(l) > 0)
    }

    /// True for a value of the arena that is in use during a launch.
    fn is_alive(&self, v: usize, launch: usize) -> bool {
        let in_arena = matches!(self.classes[v], Class::Arena(_));
        in_arena && self.lives[v].is_some_and(|life| life.first <= launch && launch <= life.last)
    }
}
