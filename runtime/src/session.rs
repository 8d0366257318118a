//! A program with its parameters, ready to run any number of times, from any thread.
//!
//! [`Session::new`] checks the parameters and runs the prepare phase once; afterwards a session has what
//! runs read, each weight once, and no parameter that only preparing needed. What a run needs of its own
//! (arena, scratch memory, a table of argument addresses) is a *context*; contexts are kept in a free list,
//! so that runs one after the other allocate nothing but their outputs, and runs at the same time do not
//! meet.

pub(crate) mod bind;
mod pack;
mod prepare;
mod trainable;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cuda::CudaError;
use crate::exec::{Entry, Executable, ExecutableError};
use crate::memory::{Buffer, Frozen, OutOfMemory, scratch_stride};
use crate::parameters::Parameters;
use crate::pool::Pool;
use crate::program::{Class, Phase, Port, Program};
use crate::tensor::{Tensor, TensorView};

pub use bind::check_parameters;
use bind::{Bound, OutputSlot};
use prepare::Area;
pub use trainable::{StateError, Trainable};

/// Launches (as indices into the program's) and how long each took.
pub type LaunchTimes = Vec<(usize, Duration)>;

/// Why a session cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LoadError {
    /// The program cannot be loaded here.
    #[error(transparent)]
    Executable(#[from] ExecutableError),
    /// There is not enough memory.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// The parameters do not fit the program; one line each.
    #[error("{}", .0.join("\n"))]
    Parameters(Vec<String>),
    /// A parameter cannot be had.
    #[error("parameter `{name}` cannot be read: {problem}")]
    Unreadable {
        /// Its name.
        name: String,
        /// Why not.
        problem: String,
    },
    /// Runs of the program change this parameter, so it cannot be shared by runs.
    #[error("the program changes parameter `{0}`: it is a training step")]
    Changes(String),
    /// The GPU, or its driver.
    #[error(transparent)]
    Cuda(#[from] CudaError),
}

/// Why a run cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// There is not enough memory.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// The number of inputs or outputs is wrong.
    #[error("expected {expected} {what}, found {found}")]
    Count {
        /// `inputs`, `outputs`.
        what: &'static str,
        /// How many the program has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// An input or output has the wrong type or shape.
    #[error("{what} `{name}`: expected {expected}, found {found}")]
    Mismatch {
        /// `input`, `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Its type in the program.
        expected: String,
        /// The type that was given.
        found: String,
    },
    /// The GPU, or its driver.
    #[error(transparent)]
    Cuda(#[from] CudaError),
}

/// A program with its parameters. See the module's head.
#[derive(Debug)]
pub struct Session {
    executable: Arc<Executable>,
    pool: Arc<Pool>,
    /// What runs read: prepared weights, and parameters as they are.
    weights: Frozen,
    /// Parameters that are not among these, each on its own: those that runs change.
    parameters: Vec<Option<Buffer>>,
    launches: Vec<Step>,
    /// Which entries of a context's argument table are the caller's.
    patches: Vec<Patch>,
    contexts: Mutex<Vec<Context>>,
}

/// A launch, resolved.
#[derive(Clone, Debug)]
struct Step {
    entry: Entry,
    tasks: u64,
    /// First argument in the context's table.
    args: usize,
    /// Whether it is worth sharing among threads.
    shared: bool,
    /// Index into the program's launches.
    launch: usize,
}

/// An argument whose address is known only when a run starts.
#[derive(Clone, Copy, Debug)]
struct Patch {
    arg: usize,
    class: Class,
    offset: usize,
}

/// What one run needs of its own.
#[derive(Debug)]
struct Context {
    /// Keeps alive what `args` points into.
    _arena: Buffer,
    scratch: Buffer,
    /// Bytes of scratch memory a thread.
    stride: usize,
    /// Addresses of the arguments of all launches, one after the other.
    args: Vec<*mut u8>,
}

// SAFETY: the addresses in `args` point into the context's own arena, into buffers of the session
// (which owns the context, or lends it to a run that borrows the session), or, during a run only,
// into tensors that the run borrows. Nothing about them belongs to a thread.
unsafe impl Send for Context {}

/// Where the storages of a phase lie, but for the caller's.
struct Bases<'a> {
    constants: *mut u8,
    prepared: *mut u8,
    /// Of the prepare phase alone.
    preparing: *mut u8,
    parameters: &'a dyn Fn(usize) -> *mut u8,
}

impl Session {
    /// Checks the parameters against the program's and runs the prepare phase, for which they are read one
    /// at a time. Parameters that only the training variant has, and `num_batches_tracked`, may be there too.
    /// A program that has its weights asks for none. One that changes its parameters is refused: see
    /// [`Trainable`].
    pub fn new(
        executable: Arc<Executable>,
        parameters: &dyn Parameters,
        pool: Arc<Pool>,
    ) -> Result<Session, LoadError> {
        let program = executable.program();
        if let Some(i) = program.state().next() {
            return Err(LoadError::Changes(program.parameters[i].port.name.clone()));
        }
        let ports = program.parameters.iter().map(|p| &p.port);
        check_parameters(ports, &program.training_only, parameters)?;
        let area = Area::of(program);
        let weights = match &program.weights {
            Some(weights) => weights.clone(),
            None => area.fill(&executable, parameters, &pool)?.into(),
        };
        let mut session = Session::ready(executable, pool, weights, vec![]);
        for p in &mut session.patches {
            if let Class::Parameter(i) = p.class
                && let Some(at) = area.kept[i]
            {
                p.class = Class::Prepared(at);
            }
        }
        Ok(session)
    }

    /// A session whose prepare phase is done.
    fn ready(
        executable: Arc<Executable>,
        pool: Arc<Pool>,
        weights: Frozen,
        parameters: Vec<Option<Buffer>>,
    ) -> Session {
        let (launches, patches) = resolve(&executable, Phase::Run, pool.least_work());
        let contexts = Mutex::new(vec![]);
        Session { executable, pool, weights, parameters, launches, patches, contexts }
    }

    /// The program.
    pub fn program(&self) -> &Program {
        self.executable.program()
    }

    /// The threads.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Runs it on inputs in the program's order; the outputs are in the program's order.
    pub fn run(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>, RunError> {
        let mut outputs = self.new_outputs()?;
        self.run_into(inputs, &mut outputs)?;
        Ok(outputs)
    }

    /// Runs it and writes the results into tensors of the right types and shapes.
    pub fn run_into(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        self.execute(inputs, outputs, |step, context| {
            // SAFETY: `execute` calls this with a context that it has bound.
            unsafe { step.launch(context, &self.pool) }
        })
    }

    /// Runs it and tells how long each launch of the run phase took.
    pub fn run_profiled(&self, inputs: &[TensorView<'_>]) -> Result<(Vec<Tensor>, LaunchTimes), RunError> {
        let mut outputs = self.new_outputs()?;
        let mut times = Vec::with_capacity(self.launches.len());
        self.execute(inputs, &mut outputs, |step, context| {
            let start = Instant::now();
            // SAFETY: `execute` calls this with a context that it has bound.
            unsafe { step.launch(context, &self.pool) };
            times.push((step.launch, start.elapsed()));
        })?;
        Ok((outputs, times))
    }

    /// Tensors for the outputs.
    pub fn new_outputs(&self) -> Result<Vec<Tensor>, RunError> {
        new_outputs(self.program())
    }

    /// Binds inputs and outputs to a context and calls `launch` for every step, in order.
    fn execute(
        &self,
        inputs: &[TensorView<'_>],
        outputs: &mut [Tensor],
        mut launch: impl FnMut(&Step, &Context),
    ) -> Result<(), RunError> {
        let program = self.program();
        let inputs: Vec<Bound<'_>> = bind::inputs(program, inputs)?;
        let mut slots: Vec<OutputSlot<'_>> = bind::outputs(program, outputs)?;
        let free = self.contexts.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = match free {
            Some(context) => context,
            None => self.new_context()?,
        };
        for p in &self.patches {
            let base = match p.class {
                Class::Input(i) => inputs[i].as_ptr(),
                Class::Output(i) => slots[i].as_mut_ptr(),
                _ => continue,
            };
            // A valid program's offsets lie within its storages, whose sizes were compared with
            // the tensors' by `bind`; wrapping keeps an offset of 0 into nothing harmless.
            context.args[p.arg] = base.wrapping_add(p.offset);
        }
        for step in &self.launches {
            launch(step, &context);
        }
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner).push(context);
        for slot in slots {
            slot.finish();
        }
        Ok(())
    }

    fn new_context(&self) -> Result<Context, OutOfMemory> {
        let bases = Bases {
            constants: self.executable.constants().as_ptr(),
            prepared: self.weights.as_ptr(),
            preparing: std::ptr::null_mut(),
            parameters: &|i| self.parameters[i].as_ref().map_or(std::ptr::null_mut(), Buffer::as_ptr),
        };
        Context::new(self.program(), Phase::Run, &self.patches, &bases, self.pool.threads())
    }
}

/// Tensors for the outputs of a program.
pub(crate) fn new_outputs(program: &Program) -> Result<Vec<Tensor>, RunError> {
    let zeros = |p: &Port| {
        let refused = || OutOfMemory {
            bytes: Program::port_bytes(p).unwrap_or(usize::MAX),
            purpose: format!("output `{}`", p.name),
        };
        Tensor::try_zeros(p.dtype, &p.shape).ok_or_else(refused)
    };
    Ok(program.outputs.iter().map(zeros).collect::<Result<_, _>>()?)
}

impl Context {
    fn new(
        program: &Program,
        phase: Phase,
        patches: &[Patch],
        bases: &Bases<'_>,
        threads: usize,
    ) -> Result<Context, OutOfMemory> {
        let largest = program.kernels.iter().map(|k| k.scratch_bytes).max().unwrap_or(0);
        let stride = scratch_stride(largest);
        let arena = Buffer::zeroed(program.arena_bytes, "the arena")?;
        let scratch = Buffer::zeroed(stride.saturating_mul(threads), "scratch memory")?;
        let uses = program.launches.iter().filter(|l| l.phase == phase).map(|l| l.args.len()).sum();
        let mut args = vec![std::ptr::null_mut(); uses];
        for p in patches {
            let base = match p.class {
                Class::Constant(at) => bases.constants.wrapping_add(at),
                Class::Prepared(at) => bases.prepared.wrapping_add(at),
                Class::Preparing(at) => bases.preparing.wrapping_add(at),
                Class::Arena(at) => arena.as_ptr().wrapping_add(at),
                Class::Parameter(i) | Class::State(i) => (bases.parameters)(i),
                Class::Input(_) | Class::Output(_) => continue,
            };
            args[p.arg] = base.wrapping_add(p.offset);
        }
        Ok(Context { _arena: arena, scratch, stride, args })
    }
}

impl Step {
    /// Computes all tasks.
    ///
    /// # Safety
    /// The context must have been made for the phase of this step, and every address in its table
    /// be that of memory that lives, has the size that the program says, is not written by anyone
    /// else meanwhile and not read by anyone else if the kernel writes it.
    unsafe fn launch(&self, context: &Context, pool: &Pool) {
        // As addresses, so that the closure may go to other threads.
        let args = context.args[self.args..].as_ptr() as usize;
        let (scratch, stride) = (context.scratch.as_ptr() as usize, context.stride);
        let body = |first: u64, end: u64, worker: usize| {
            let args = std::ptr::with_exposed_provenance(args);
            let scratch = std::ptr::with_exposed_provenance_mut(scratch + worker * stride);
            // SAFETY: the entry is code of the program with this signature; by the caller's
            // promise the arguments are valid for the extents that the compiler proved and
            // `validate` compared with the storages; worker numbers are below the number of
            // threads that the scratch memory was made for, and no two calls at a time have the
            // same one; tasks are independent, so their split does not matter.
            unsafe { (self.entry)(args, first, end, scratch) }
        };
        if self.shared {
            pool.run(self.tasks, body)
        } else if self.tasks > 0 {
            body(0, self.tasks, 0)
        }
    }
}

/// The launches of a phase, and where the addresses of their arguments come from.
fn resolve(executable: &Executable, phase: Phase, least_work: u64) -> (Vec<Step>, Vec<Patch>) {
    let program = executable.program();
    let (mut steps, mut patches) = (vec![], vec![]);
    for (i, launch) in program.launches.iter().enumerate().filter(|(_, l)| l.phase == phase) {
        let kernel = &program.kernels[launch.kernel];
        let reach = kernel.params.iter().fold(0u64, |n, p| n.saturating_add(p.extent_bytes as u64));
        steps.push(Step {
            entry: executable.entry(launch.kernel),
            tasks: kernel.tasks,
            args: patches.len(),
            shared: kernel.flops.max(reach.saturating_mul(4)) >= least_work,
            launch: i,
        });
        for arg in &launch.args {
            let class = program.storages[arg.storage].class;
            patches.push(Patch { arg: patches.len(), class, offset: arg.offset });
        }
    }
    (steps, patches)
}
