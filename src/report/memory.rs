//! The memory of a run, known before there is any code: read off the plan.

use std::fmt;

use nnc_compiler::plan::usage::{self, Kind, Usage};
use nnc_compiler::target::GpuTarget;

use super::table::{Align, Table, bytes};
use crate::error::Result;
use crate::{ByteSize, Network, Options, pipeline};

/// What a model takes in memory when it runs. `Display` draws the table of `nnc summary`. Beside it, a process has
/// its own code and what compiling took.
///
/// ```
/// use nnc::report::memory::RunMemory;
/// use nnc::{Options, Source};
///
/// let network = Source::open("examples/lenet.nn")?.network(&Options::new().set("N", 1))?;
/// let memory = RunMemory::of(&network)?;
/// assert!(memory.weights() < memory.total() && memory.weights() <= memory.loading);
/// # Ok::<(), nnc::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RunMemory {
    /// What runs it.
    pub machine: Machine,
    /// Bytes by kind: packed weights, the arena where most of it is in use, and what is beside them.
    pub usage: Usage,
    /// What a weights file or the initialisation gives: all parameters.
    pub read: ByteSize,
    /// The most that is in use for weights at one time while they are loaded.
    pub loading: ByteSize,
}

impl RunMemory {
    /// Plans the runs of a net whose sizes are known, for the CPU (or GPU) that the options choose.
    ///
    /// # Errors
    /// If sizes are not known, or there is no code for one of its operations or types.
    pub fn of(network: &Network) -> Result<RunMemory> {
        network.require_sizes()?;
        let options = network.options();
        let (graph, _) = pipeline::optimize(network.graph(), &options.machine());
        let module = match options.chosen_gpu() {
            Some(gpu) => pipeline::lower_for_gpu(&graph, gpu, options.lowering_for_gpu(), network.sources())?,
            None => {
                pipeline::lower(&graph, &options.chosen_target(), &options.lowering(), network.sources())?
            }
        };
        let plan = pipeline::plan(&module, options.chosen_gpu());
        let size =
            |p: &nnc_runtime::program::Parameter| nnc_runtime::Program::port_bytes(&p.port).unwrap_or(0);
        let machine = Machine::of(options);
        let loading = match machine {
            Machine::Threads(_) => plan.loading_bytes,
            // What is not written yet takes memory there, too.
            Machine::Gpu(_) => plan.prepared_bytes + plan.kept_bytes + plan.preparing_bytes + plan.lent_bytes,
        };
        Ok(RunMemory {
            machine,
            usage: usage::session(&module, &plan, machine.scratches()),
            read: ByteSize(module.parameters.iter().map(size).sum::<usize>() as u64),
            loading: ByteSize(loading as u64),
        })
    }

    /// The weights as runs read them: packed ones, and parameters as they are.
    pub fn weights(&self) -> ByteSize {
        let kinds = [Kind::Prepared, Kind::Parameters, Kind::OtherParameters];
        ByteSize(kinds.iter().map(|&k| self.usage.of(k) as u64).sum())
    }

    /// All that a run takes.
    pub fn total(&self) -> ByteSize {
        ByteSize(self.usage.total() as u64)
    }

    /// The most that is in use at one time, loading and running.
    pub fn peak(&self) -> ByteSize {
        self.total().max(self.loading)
    }
}

impl fmt::Display for RunMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "memory of a run, {}", self.machine)?;
        write!(f, "{}", kinds(&self.usage, &[]))?;
        writeln!(f, "total  {}", self.total())?;
        let (read, loading) = (self.read, self.loading);
        writeln!(f, "loading reads {read} of parameters; weights take {loading} at most meanwhile")
    }
}

/// What runs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// So many threads of a CPU.
    Threads(usize),
    /// A GPU of that kind.
    Gpu(GpuTarget),
}

impl Machine {
    /// The one that options choose.
    pub fn of(options: &Options) -> Machine {
        options.chosen_gpu().map_or_else(|| Machine::Threads(options.thread_count()), Machine::Gpu)
    }

    /// Scratch memories of kernels beside the plan. What a GPU's threads have is in registers, or the driver's.
    pub(crate) fn scratches(self) -> usize {
        match self {
            Machine::Threads(n) => n,
            Machine::Gpu(_) => 0,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Machine::Threads(n) => write!(f, "{n} thread{}", if *n == 1 { "" } else { "s" }),
            Machine::Gpu(target) => write!(f, "on a GPU ({target})"),
        }
    }
}

/// The kinds that take something, and others that are always shown.
pub(crate) fn kinds(usage: &Usage, always: &[Kind]) -> Table {
    let mut table = Table::new(&[("kind", Align::Left), ("memory", Align::Right)]);
    for kind in Kind::ALL.into_iter().filter(|&k| usage.of(k) > 0 || always.contains(&k)) {
        table.row(vec![kind.about().to_string(), bytes(usage.of(kind) as u64)]);
    }
    table
}
