//! The memory plan: where every value of a module lives, and how much memory a run takes.
//!
//! Takes a [`Module`]; gives a [`Class`] for each of its values. Temporaries that the prepare
//! phase writes go to the prepared area if a run reads them, else to memory that is given back when everything
//! is prepared; all others go to the arena of one run. Within each, values
//! that are never alive together share bytes. A value is alive from the first launch that has it
//! as an argument to the last one; a launch's own arguments never share (its tasks run in any order).
//!
//! Before that, [`order`] may change the order of launches so that less is alive at once, and [`limit`] lets
//! values be computed again instead of being kept. [`usage`] and [`activations`] say what came of it.

pub mod activations;
mod jobs;
pub mod limit;
pub mod order;
mod pack;
mod recompute;
#[cfg(test)]
mod tests;
pub mod usage;

use std::fmt::{self, Display, Formatter};

use nnc_runtime::program::{Access, Class, Phase};

use self::jobs::Touches;
use self::pack::{Block, largest_live_set, pack};
pub use self::recompute::Obstacle;
use crate::kernel::Memory;
use crate::kernel::module::{Launch, Module, Role, Value};

/// Offsets are multiples of a cache line, which is also the widest vector.
pub const ALIGNMENT: usize = 64;

/// When a value is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The first launch that has it as an argument.
    pub first: usize,
    /// The last one.
    pub last: usize,
}

impl Life {
    /// True if there is a launch during which both are alive.
    pub fn overlaps(self, other: Life) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The number of launches from the first one to the last one.
    fn span(self) -> u128 {
        (self.last - self.first) as u128 + 1
    }
}

/// Where the values of a module live. See the module's head.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Where each value lives, and from which byte of that area on.
    pub classes: Vec<Class>,
    /// When each value is in use; `None` if no launch has it as an argument.
    pub lives: Vec<Option<Life>>,
    /// The size of each value in bytes.
    pub bytes: Vec<usize>,
    /// Size of the area that the prepare phase fills for runs.
    pub prepared_bytes: usize,
    /// Size of the memory that only the prepare phase has.
    pub preparing_bytes: usize,
    /// Size of the arena of one run: the peak.
    pub arena_bytes: usize,
    /// Bytes of the parameters that runs read as they are.
    pub kept_bytes: usize,
    /// The most bytes that are in use for weights at one time while they are loaded: what has been prepared so
    /// far, and the parameters that it is made of, each from the first launch that reads it to the last one.
    pub loading_bytes: usize,
    /// The most bytes of parameters that only the prepare phase reads, at one time likewise.
    pub lent_bytes: usize,
    /// Size of the constants.
    pub constant_bytes: usize,
    /// What the arena would take if no two values shared memory.
    pub unshared_bytes: usize,
    /// The most bytes of the arena that are alive during one launch: no plan can take less.
    pub live_bytes: usize,
    /// For the text form: a value's name, each; a launch's line, each.
    names: Vec<String>,
    launches: Vec<String>,
}

/// Plans the memory of a module.
pub fn plan(module: &Module) -> Plan {
    planned(module, 0)
}

/// Launches for which memory is kept from other values after its own value's last use, the most first.
const REST: [usize; 3] = [64, 16, 4];

/// A plan for a machine that may run launches side by side: other values get memory only some launches after its
/// value's last use, so that it is no reason to wait; as many as an arena of that size allows. If it allows none, the
/// plan is that of [`plan`].
pub fn plan_apart(module: &Module, arena_bytes: usize) -> Plan {
    let plans = REST.iter().map(|&rest| planned(module, rest));
    plans.into_iter().find(|p| p.arena_bytes <= arena_bytes).unwrap_or_else(|| plan(module))
}

/// The plan whose arena keeps memory from other values for so many launches.
fn planned(module: &Module, rest: usize) -> Plan {
    let lives = lives(module);
    let bytes: Vec<usize> = module.values.iter().map(|v| v.elements * v.dtype.size()).collect();
    let prepared = written_in_prepare(module);
    let read_by_runs = used_by_runs(module);
    let mut plan = Plan {
        names: module.values.iter().map(|v| v.name.clone()).collect(),
        launches: module.launches.iter().map(|l| describe(module, l)).collect(),
        ..Plan::default()
    };
    let (mut in_prepared, mut in_preparing, mut in_arena) = (vec![], vec![], vec![]);
    // What no launch uses lies anywhere.
    let mut largest_unused = 0;
    for (i, value) in module.values.iter().enumerate() {
        let block = |life| Block { value: i, bytes: bytes[i], life };
        let class = match &value.role {
            Role::Input(n) => Class::Input(*n),
            Role::Output(n) => Class::Output(*n),
            Role::Parameter(n) => Class::Parameter(*n),
            Role::State(n) => Class::State(*n),
            Role::Constant(data) => {
                let at = plan.constant_bytes.next_multiple_of(ALIGNMENT);
                plan.constant_bytes = at + data.len();
                Class::Constant(at)
            }
            Role::Temporary if prepared[i] && read_by_runs[i] => {
                // All of them stay for good.
                in_prepared.extend(lives[i].map(|l| Life { first: l.first, last: usize::MAX }).map(block));
                Class::Prepared(0)
            }
            Role::Temporary if prepared[i] => {
                in_preparing.extend(lives[i].map(block));
                Class::Preparing(0)
            }
            Role::Temporary => {
                match lives[i] {
                    Some(Life { first, last }) => {
                        in_arena.push(block(Life { first, last: last.saturating_add(rest) }));
                    }
                    None => largest_unused = largest_unused.max(bytes[i].next_multiple_of(ALIGNMENT)),
                }
                Class::Arena(0)
            }
        };
        plan.classes.push(class);
    }
    plan.prepared_bytes = place(&in_prepared, &mut plan.classes, Class::Prepared);
    plan.preparing_bytes = place(&in_preparing, &mut plan.classes, Class::Preparing);
    plan.arena_bytes = place(&in_arena, &mut plan.classes, Class::Arena).max(largest_unused);
    plan.unshared_bytes = in_arena.iter().map(|b| b.bytes.next_multiple_of(ALIGNMENT)).sum();
    plan.live_bytes = largest_live_set(&in_arena);
    let parameters = module.values.iter().enumerate().filter(|(_, v)| matches!(v.role, Role::Parameter(_)));
    plan.kept_bytes = parameters.filter(|&(i, _)| read_by_runs[i]).map(|(i, _)| bytes[i]).sum();
    plan.loading_bytes = loading(module, &bytes, &lives).max(plan.prepared_bytes + plan.kept_bytes);
    let lent = |&(i, v): &(usize, &Value)| matches!(v.role, Role::Parameter(_)) && !read_by_runs[i];
    let lent = module.values.iter().enumerate().filter(lent);
    let lent = lent.filter_map(|(value, _)| Some(Block { value, bytes: bytes[value], life: lives[value]? }));
    plan.lent_bytes = largest_live_set(&lent.collect::<Vec<_>>());
    (plan.lives, plan.bytes) = (lives, bytes);
    plan
}

/// Finds places in an area for blocks; gives its size.
fn place(blocks: &[Block], classes: &mut [Class], area: fn(usize) -> Class) -> usize {
    let (offsets, total) = pack(blocks);
    for (block, at) in blocks.iter().zip(offsets) {
        classes[block.value] = area(at);
    }
    total
}

fn lives(module: &Module) -> Vec<Option<Life>> {
    let mut lives: Vec<Option<Life>> = vec![None; module.values.len()];
    for (at, launch) in module.launches.iter().enumerate() {
        for arg in &launch.args {
            let life = &mut lives[arg.value.0 as usize];
            *life = Some(Life { first: life.map_or(at, |l| l.first), last: at });
        }
    }
    lives
}

/// Whether each value is written by a launch of the prepare phase.
fn written_in_prepare(module: &Module) -> Vec<bool> {
    let mut out = vec![false; module.values.len()];
    for launch in module.launches.iter().filter(|l| l.phase == Phase::Prepare) {
        for (value, access) in accesses(module, launch) {
            out[value] |= access != Access::Read;
        }
    }
    out
}

/// Whether each value is an argument of a launch of the run phase.
fn used_by_runs(module: &Module) -> Vec<bool> {
    let mut out = vec![false; module.values.len()];
    for launch in module.launches.iter().filter(|l| l.phase == Phase::Run) {
        launch.args.iter().for_each(|a| out[a.value.0 as usize] = true);
    }
    out
}

/// The values of a launch's arguments and what it does with them.
fn accesses<'a>(module: &'a Module, launch: &'a Launch) -> impl Iterator<Item = (usize, Access)> + 'a {
    let params = module.kernels[launch.kernel].params().map(|b| match b.memory {
        Memory::Global(access) => access,
        _ => Access::Read,
    });
    launch.args.iter().map(|a| a.value.0 as usize).zip(params)
}

/// What each of some launches of the module reads and writes.
fn touches(module: &Module, launches: &[Launch]) -> Vec<Touches> {
    launches.iter().map(|l| accesses(module, l).collect()).collect()
}

/// The bytes that each value takes in the arena; 0 for those that are elsewhere.
fn arena_bytes(module: &Module) -> Vec<usize> {
    let prepared = written_in_prepare(module);
    let size = |(v, &prepared): (&Value, &bool)| match v.role {
        Role::Temporary if !prepared => (v.elements * v.dtype.size()).next_multiple_of(ALIGNMENT),
        _ => 0,
    };
    module.values.iter().zip(&prepared).map(size).collect()
}

/// The most bytes of weights that are in use during one launch of the prepare phase.
fn loading(module: &Module, bytes: &[usize], lives: &[Option<Life>]) -> usize {
    let prepares = module.launches.iter().take_while(|l| l.phase == Phase::Prepare).count();
    let (prepared, read_by_runs) = (written_in_prepare(module), used_by_runs(module));
    let mut blocks = vec![];
    for (value, v) in module.values.iter().enumerate() {
        let weight = prepared[value] || matches!(v.role, Role::Parameter(_));
        if let Some(life) = lives[value].filter(|l| weight && l.first < prepares) {
            let last = if read_by_runs[value] { usize::MAX } else { life.last };
            blocks.push(Block { value, bytes: bytes[value], life: Life { first: life.first, last } });
        }
    }
    largest_live_set(&blocks)
}

/// The bytes that each value takes while weights are prepared, and not after: parameters that runs do not
/// read, what is made on the way; 0 for all others.
fn loading_bytes(module: &Module) -> Vec<usize> {
    let (prepared, read_by_runs) = (written_in_prepare(module), used_by_runs(module));
    let size = |(i, v): (usize, &Value)| match v.role {
        _ if read_by_runs[i] => 0,
        Role::Parameter(_) => v.elements * v.dtype.size(),
        Role::Temporary if prepared[i] => v.elements * v.dtype.size(),
        _ => 0,
    };
    module.values.iter().enumerate().map(size).collect()
}

/// A launch's line in the text form: `run conv2d_relu(%0, %3 → %5)  // conv1`.
fn describe(module: &Module, launch: &Launch) -> String {
    let list = |wanted: &dyn Fn(Access) -> bool| {
        let names: Vec<String> =
            accesses(module, launch).filter(|&(_, a)| wanted(a)).map(|(v, _)| format!("%{v}")).collect();
        names.join(", ")
    };
    let phase = match launch.phase {
        Phase::Prepare => "prepare",
        Phase::Run => "run",
    };
    let (reads, writes) = (list(&|a| a == Access::Read), list(&|a| a != Access::Read));
    let mut line = format!("{phase} {}({reads} → {writes})", module.kernels[launch.kernel].name);
    if !launch.layer.is_empty() {
        line += &format!("  // {}", launch.layer);
    }
    line
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "launches")?;
        for (i, line) in self.launches.iter().enumerate() {
            writeln!(f, "{i:>5}  {line}")?;
        }
        writeln!(f, "\nvalues")?;
        let names: Vec<String> = self.names.iter().enumerate().map(|(i, n)| format!("%{i} {n}")).collect();
        let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        for (i, name) in names.iter().enumerate() {
            let place = match self.classes[i] {
                Class::Input(n) => format!("input {n}"),
                Class::Output(n) => format!("output {n}"),
                Class::Parameter(n) => format!("parameter {n}"),
                Class::State(n) => format!("state {n}"),
                Class::Constant(at) => format!("constant @{at}"),
                Class::Prepared(at) => format!("prepared @{at}"),
                Class::Preparing(at) => format!("preparing @{at}"),
                Class::Arena(at) => format!("arena @{at}"),
            };
            let life = match self.lives[i] {
                Some(life) => format!("{}..{}", life.first, life.last),
                None => "unused".into(),
            };
            writeln!(f, "  {name:<width$}  {:>12} bytes  {place:<20}  {life}", self.bytes[i])?;
        }
        writeln!(f, "\narena     {:>12} bytes", self.arena_bytes)?;
        writeln!(f, "  alive   {:>12} bytes at most during one launch", self.live_bytes)?;
        writeln!(f, "  unshared{:>12} bytes if no two values shared memory", self.unshared_bytes)?;
        writeln!(f, "prepared  {:>12} bytes", self.prepared_bytes)?;
        writeln!(f, "  on the way{:>9} bytes, given back when all is prepared", self.preparing_bytes)?;
        writeln!(f, "kept      {:>12} bytes of parameters that are read as they are", self.kept_bytes)?;
        writeln!(f, "loading   {:>12} bytes of weights at most at one time", self.loading_bytes)?;
        writeln!(f, "constants {:>12} bytes", self.constant_bytes)
    }
}
