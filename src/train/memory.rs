//! The memory of a training step, known before the first one: read off the plan that the step runs by.

use std::fmt;

use nnc_compiler::kernel::module::Module;
use nnc_compiler::pass::Remark;
use nnc_compiler::plan::Plan;
use nnc_compiler::plan::activations::{Activation, activations};
use nnc_compiler::plan::limit::fit;
use nnc_compiler::plan::usage::{Around, Kind, Usage, usage};
use nnc_compiler::training::StepGraph;
use nnc_dsl::SourceMap;

use super::step::{Net, Step};
use super::trainer::TrainerOptions;
use crate::error::Result;
use crate::report::memory::{Machine, kinds};
use crate::{ByteSize, Error, Options, Source, pipeline};

/// What a training step takes, and which activations it keeps. `Display` draws the table of
/// `nnc summary --train`.
///
/// ```
/// use nnc::train::{StepMemory, TrainerOptions};
/// use nnc::{Options, Source};
///
/// let source = Source::open("examples/lenet.nn")?;
/// let how = TrainerOptions { batch: Some(32), ..TrainerOptions::default() };
/// let memory = StepMemory::of(&source, &Options::new(), &how)?;
/// assert!(memory.total() > nnc::ByteSize(memory.usage.of(nnc::train::Kind::Activations) as u64));
/// # Ok::<(), nnc::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StepMemory {
    /// The net's name.
    pub net: String,
    /// Examples in the step.
    pub batch: usize,
    /// What takes it.
    pub machine: Machine,
    /// Bytes by kind, at the moment at which most is in use.
    pub usage: Usage,
    /// Values of the forward part that the backward part needs, in the order in which they are made.
    pub activations: Vec<Activation>,
    /// Values of the forward part that are computed anew by every kernel of the backward part that needs
    /// them, in words, and where they are written.
    pub never_stored: Vec<(String, String)>,
    /// What it was to stay within.
    pub limit: Option<ByteSize>,
}

impl StepMemory {
    /// Plans the training step of a net that has a `train` section, for the CPU (or GPU) that the options choose.
    /// No machine code is made.
    ///
    /// # Errors
    /// Those of [`Trainer::new`](super::Trainer::new).
    pub fn of(source: &Source, options: &Options, how: &TrainerOptions) -> Result<StepMemory> {
        let net = Net::open(source, options, how)?;
        let step = Step::new(&net.built, &net.batch_symbols, net.batch).map_err(|e| net.wrong(&e))?;
        Ok(plan(&step.graph, net.batch, options, &net.sources)?.memory)
    }

    /// All of it.
    pub fn total(&self) -> ByteSize {
        ByteSize(self.usage.total() as u64)
    }
}

/// Kinds that people ask for, even if nothing of them is there at the peak.
const ALWAYS_SHOWN: [Kind; 4] = [Kind::Parameters, Kind::Gradients, Kind::OptimizerState, Kind::Activations];

/// A training step's kernels with their plan.
pub(super) struct Planned {
    pub module: Module,
    pub plan: Plan,
    pub memory: StepMemory,
}

/// Plans a step on a batch.
pub(super) fn plan(
    step: &StepGraph,
    batch: usize,
    options: &Options,
    sources: &SourceMap,
) -> Result<Planned> {
    let (graph, reports) = pipeline::optimize(&step.graph, &options.machine());
    let machine = Machine::of(options);
    // On a GPU, the next batch is copied while a step runs.
    let input_sets = if options.chosen_gpu().is_some() { 2 } else { 1 };
    let around = Around { threads: machine.scratches(), input_sets, optimizer_state: &step.optimizer_state };
    let mut module = match options.chosen_gpu() {
        Some(gpu) => pipeline::lower_for_gpu(&graph, gpu, options.lowering_for_gpu(), sources)?,
        None => pipeline::lower(&graph, &options.chosen_target(), &options.lowering(), sources)?,
    };
    let mut plan = pipeline::plan(&module, options.chosen_gpu());
    if let Some(limit) = options.chosen_memory_limit() {
        let beside = usage(&module, &plan, around).total() - plan.arena_bytes;
        let arena = usize::try_from(limit.0).unwrap_or(usize::MAX).saturating_sub(beside);
        module = fit(&module, arena).map_err(|e| too_small(limit, e.least + beside))?;
        plan = pipeline::plan_within(&module, options.chosen_gpu(), arena);
    }
    let remarks = reports.iter().filter(|r| r.pass == "recompute").flat_map(|r| &r.remarks);
    let place = |r: &Remark| r.span.map_or(String::new(), |span| sources.location(span));
    let memory = StepMemory {
        net: graph.name,
        batch,
        machine,
        usage: usage(&module, &plan, around),
        activations: activations(&module, &plan),
        never_stored: remarks.map(|r| (r.text.clone(), place(r))).collect(),
        limit: options.chosen_memory_limit(),
    };
    Ok(Planned { module, plan, memory })
}

/// A limit that no plan keeps.
fn too_small(limit: ByteSize, least: usize) -> Error {
    let (limit, least) = (limit.rounded_up(), ByteSize(least as u64).rounded_up());
    Error::Options(format!(
        "a training step does not fit into {limit} of memory: the smallest plan that was found takes \
         {least} (--memory-limit {least}); a smaller batch takes less"
    ))
}

impl fmt::Display for StepMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "memory of a training step, batch {}, {}", self.batch, self.machine)?;
        write!(f, "{}", kinds(&self.usage, &ALWAYS_SHOWN))?;
        let limit =
            self.limit.map_or(String::new(), |limit| format!(", within the limit of {}", limit.rounded_up()));
        writeln!(f, "total  {}{limit}", self.total())
    }
}
