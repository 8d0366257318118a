//! One program with its memory on a GPU, and how a run of it is put there.
//!
//! The first run is launched kernel by kernel and each is waited for, so that an error is that of a
//! kernel, which has a line of source; kernels have no sizes of their own, so what works once does not
//! fail for another input. Then a run (copies of inputs, kernels, copies of outputs) is captured as a
//! graph, in which kernels that do not depend on each other are side by side ([`Branches`]), and each run is one call.
//!
//! Host memory that copies use is page-locked and the machine's own; nobody touches it while they are
//! under way: see [`Machine::write_input`] and [`Machine::read_output`].

use std::sync::Arc;
use std::time::Duration;

use super::branches::Branches;
use super::driver::{Event, Function, Graph, Stream, call};
use super::error::{CudaError, DriverError};
use super::layout::{self, Layout};
use super::memory::{DeviceMemory, Pinned};
use super::upload::Uploader;
use super::{BLOCKING, CudaExecutable};
use crate::parameters::Parameters;
use crate::program::{Class, Phase, Program};
use crate::session::{LaunchTimes, LoadError};

/// Parameters on the GPU.
#[derive(Debug)]
pub(super) struct Placed {
    pub memory: DeviceMemory,
    /// Where each of the program's lies, if it is there.
    pub at: Vec<Option<usize>>,
}

impl Placed {
    /// Allocates memory for the parameters that are `wanted`, and uploads them.
    pub fn new(
        executable: &CudaExecutable,
        uploader: &mut Uploader,
        parameters: &dyn Parameters,
        purpose: &str,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Placed, LoadError> {
        let (at, bytes) = layout::parameters(executable.program(), wanted);
        let memory = DeviceMemory::new(executable.gpu(), bytes, purpose)?;
        let mut placed = Placed { memory, at };
        placed.upload(executable.program(), uploader, parameters)?;
        Ok(placed)
    }

    /// Allocates memory for the prepare phase alone, with places for those of the parameters that are `wanted`: they
    /// take turns, so they are uploaded when they are needed.
    pub fn once(
        executable: &CudaExecutable,
        purpose: &str,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Placed, CudaError> {
        let program = executable.program();
        let (at, bytes) = layout::turns(program, program.preparing_bytes, wanted);
        Ok(Placed { memory: DeviceMemory::new(executable.gpu(), bytes, purpose)?, at })
    }

    /// Uploads the parameters that are here, one after the other.
    pub fn upload(
        &mut self,
        program: &Program,
        uploader: &mut Uploader,
        parameters: &dyn Parameters,
    ) -> Result<(), LoadError> {
        for (p, at) in program.parameters.iter().zip(&self.at) {
            if let Some(at) = *at {
                uploader.parameter(&mut self.memory, at, parameters, &p.port)?;
            }
        }
        Ok(())
    }

    /// The address of a parameter's first byte.
    fn address(&self, i: usize) -> Option<u64> {
        Some(self.memory.address(self.at[i]?))
    }
}

/// A launch, resolved.
#[derive(Debug)]
struct Step {
    function: Function,
    blocks: u32,
    threads: u32,
    shared_bytes: u32,
    args: Vec<u64>,
    /// Index into the program's launches.
    launch: usize,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Machine {
    // Fields are dropped in this order: what waits for the GPU before what the GPU uses.
    /// Graphs of runs that were captured: set of inputs, which of them they do not copy.
    graphs: Vec<(usize, Vec<bool>, Graph)>,
    stream: Stream,
    /// Beside it, the other lanes of a run's branches.
    lanes: Vec<Stream>,
    /// Copies of the next inputs.
    ahead: Stream,
    /// The end of those copies.
    copied: Event,
    executable: Arc<CudaExecutable>,
    layout: Layout,
    /// The launches of a run, for each set of inputs.
    steps: Vec<Vec<Step>>,
    /// Which of them may be side by side.
    branches: Branches,
    fixed: DeviceMemory,
    parameters: Placed,
    run: DeviceMemory,
    staging: Pinned,
    /// The set whose run is not known to have ended.
    running: Option<usize>,
    /// The set that is being copied ahead, and which of its inputs.
    copying: Option<(usize, Vec<bool>)>,
    /// One run went well.
    checked: bool,
    /// Every launch is waited for.
    blocking: bool,
}

impl Machine {
    /// Allocates memory for a program, with places for `sets` sets of inputs, and uploads its constants.
    pub fn new(
        executable: &Arc<CudaExecutable>,
        uploader: &mut Uploader,
        parameters: Placed,
        sets: usize,
    ) -> Result<Machine, LoadError> {
        let (gpu, program) = (executable.gpu(), executable.program());
        let layout = Layout::new(program, sets);
        let mut fixed = DeviceMemory::new(gpu, layout.fixed_bytes, "the program with its prepared weights")?;
        let run = DeviceMemory::new(gpu, layout.run_bytes, "the arena with inputs and outputs")?;
        let staging = Pinned::new(gpu, layout.staging_bytes())?;
        uploader.bytes(&mut fixed, 0, &program.constants)?;
        let mut machine = Machine {
            graphs: vec![],
            stream: Stream::new(&gpu.context)?,
            lanes: vec![],
            ahead: Stream::new(&gpu.context)?,
            copied: Event::new(&gpu.context)?,
            executable: executable.clone(),
            layout,
            steps: vec![],
            branches: Branches::default(),
            fixed,
            parameters,
            run,
            staging,
            running: None,
            copying: None,
            checked: false,
            blocking: std::env::var_os(BLOCKING).is_some_and(|v| v == "1"),
        };
        machine.steps = (0..sets).map(|set| machine.resolve(Phase::Run, set, None)).collect();
        let launches: Vec<usize> =
            machine.steps.first().iter().flat_map(|s| s.iter()).map(|s| s.launch).collect();
        machine.branches = Branches::of(program, &launches);
        for _ in 1..machine.branches.last.len() {
            machine.lanes.push(Stream::new(&gpu.context)?);
        }
        Ok(machine)
    }

    /// Its code.
    pub fn executable(&self) -> &Arc<CudaExecutable> {
        &self.executable
    }

    /// The program.
    pub fn program(&self) -> &Program {
        self.executable.program()
    }

    /// The launches of a phase with the addresses of their arguments. What only the prepare phase has is in
    /// `once`: first its own memory, then parameters.
    fn resolve(&self, phase: Phase, set: usize, once: Option<&Placed>) -> Vec<Step> {
        let program = self.program();
        let address = |class: Class| match class {
            Class::Constant(at) => self.fixed.address(at),
            Class::Prepared(at) => self.fixed.address(self.layout.prepared + at),
            Class::Arena(at) => self.run.address(at),
            Class::Input(i) => self.run.address(self.layout.input(set, i)),
            Class::Output(i) => self.run.address(self.layout.output(i)),
            // Null, which no kernel gets past, where the phase does not have it.
            Class::Preparing(at) => once.map_or(0, |once| once.memory.address(at)),
            Class::Parameter(i) | Class::State(i) => {
                self.parameters.address(i).or_else(|| once?.address(i)).unwrap_or(0)
            }
        };
        let launches = program.launches.iter().enumerate().filter(|(_, l)| l.phase == phase);
        let step = |(i, launch): (usize, &crate::program::Launch)| {
            // A program for a GPU that was validated has a grid for every kernel.
            let (function, grid) = self.executable.entry(launch.kernel)?;
            let args = launch.args.iter();
            let args = args.map(|a| address(program.storages[a.storage].class) + a.offset as u64).collect();
            let (blocks, threads, shared_bytes) = (grid.blocks, grid.threads, grid.shared_bytes);
            (blocks > 0).then_some(Step { function, blocks, threads, shared_bytes, args, launch: i })
        };
        launches.filter_map(step).collect()
    }

    /// Runs the prepare phase. What runs do not need is in `once`: parameters are uploaded to there before the first
    /// launch that has them, when those whose place they take are not needed any more.
    pub fn prepare(
        &mut self,
        mut once: Placed,
        uploader: &mut Uploader,
        parameters: &dyn Parameters,
    ) -> Result<(), LoadError> {
        self.wait()?;
        let program = self.executable.program();
        let mut there = vec![false; once.at.len()];
        for step in &self.resolve(Phase::Prepare, 0, Some(&once)) {
            for i in layout::parameters_of(program, &program.launches[step.launch]) {
                if let Some(at) = once.at[i].filter(|_| !there[i]) {
                    uploader.parameter(&mut once.memory, at, parameters, &program.parameters[i].port)?;
                    there[i] = true;
                }
            }
            self.launch_and_wait(step)?;
        }
        Ok(())
    }

    /// Puts an input where copies to the GPU begin. Waits for a run of this set, and for a copy of it ahead.
    pub fn write_input(&mut self, set: usize, i: usize, bytes: &[u8]) -> Result<(), CudaError> {
        if self.running == Some(set) {
            self.wait()?;
        }
        if self.copying.as_ref().is_some_and(|(s, which)| *s == set && which[i]) {
            self.copied.synchronize()?;
            self.copying = None;
        }
        let at = self.layout.staged_input(set, i);
        // SAFETY: copies from there belong to a run of the set, or were put ahead for it: both have ended.
        unsafe { self.staging.write(at, bytes) };
        Ok(())
    }

    /// Copies some inputs of a set to the GPU beside the run of another set.
    pub fn copy_ahead(&mut self, set: usize, which: &[bool]) -> Result<(), CudaError> {
        if self.running == Some(set) {
            self.wait()?;
        }
        for i in (0..which.len()).filter(|&i| which[i]) {
            self.upload(set, i, &self.ahead)?;
        }
        self.copied.record(&self.ahead)?;
        // What was copied ahead before may still be under way.
        match &mut self.copying {
            Some((s, before)) if *s == set => before.iter_mut().zip(which).for_each(|(b, w)| *b |= w),
            copying => *copying = Some((set, which.to_vec())),
        }
        Ok(())
    }

    /// Starts a run with a set of inputs, of which those that are `there` were copied ahead.
    pub fn start(&mut self, set: usize, there: &[bool]) -> Result<(), CudaError> {
        self.wait()?;
        self.wait_for_copies(set)?;
        if !self.checked || self.blocking {
            self.running = Some(set);
            return self.run_checked(set, there);
        }
        self.capture(set, there)?;
        let found = self.graphs.iter().find(|(s, t, _)| (*s, &t[..]) == (set, there));
        if let Some((_, _, graph)) = found {
            // SAFETY: the work was captured by `put` of this machine, whose memory lives and is not touched
            // while `running` says so: `write_input` and `read_output` heed it.
            unsafe { graph.launch(&self.stream) }.map_err(|e| self.replay(e))?;
        }
        self.running = Some(set);
        Ok(())
    }

    /// Has a graph of such runs.
    fn capture(&mut self, set: usize, there: &[bool]) -> Result<(), CudaError> {
        if !self.graphs.iter().any(|(s, t, _)| (*s, &t[..]) == (set, there)) {
            let context = &self.executable.gpu().context;
            // Nothing is made while the stream is captured, and the events outlive that.
            let events = (0..self.branches.moments()).map(|_| Event::new(context));
            let events = events.collect::<Result<Vec<_>, _>>()?;
            let graph = self.stream.capture(|| self.put(set, there, &events))?;
            self.graphs.push((set, there.to_vec(), graph));
        }
        Ok(())
    }

    /// Repeats the run of a set, whose inputs are on the GPU since; how long that takes there, with the
    /// copies of outputs.
    pub fn repeat(&mut self, set: usize) -> Result<Duration, CudaError> {
        self.wait()?;
        let there = vec![true; self.layout.inputs.at.len()];
        self.capture(set, &there)?;
        let context = &self.executable.gpu().context;
        let (begin, end) = (Event::with_time(context)?, Event::with_time(context)?);
        begin.record(&self.stream)?;
        self.start(set, &there)?;
        end.record(&self.stream)?;
        self.wait()?;
        duration(&begin, &end)
    }

    /// Lets a run of the set wait for what was copied ahead for it.
    fn wait_for_copies(&self, set: usize) -> Result<(), CudaError> {
        match &self.copying {
            Some((s, _)) if *s == set => Ok(self.stream.wait(&self.copied)?),
            _ => Ok(()),
        }
    }

    /// Waits for the run, if there is one.
    pub fn wait(&mut self) -> Result<(), CudaError> {
        let Some(set) = self.running.take() else { return Ok(()) };
        // A run waits for what was copied ahead for it.
        self.copying.take_if(|(s, _)| *s == set);
        self.stream.synchronize().map_err(|e| self.replay(e))?;
        self.checked = true;
        Ok(())
    }

    /// Reads an output of the last run, which must have been waited for.
    pub fn read_output(&self, i: usize, bytes: &mut [u8]) -> Result<(), CudaError> {
        if self.running.is_some() {
            return Err(CudaError::Order("outputs are read before the run has ended"));
        }
        // SAFETY: copies to there belong to a run, and none is under way.
        unsafe { self.staging.read(self.layout.staged_output(i), bytes) };
        Ok(())
    }

    /// Runs a set and tells how long each launch took.
    pub fn run_profiled(&mut self, set: usize, there: &[bool]) -> Result<LaunchTimes, CudaError> {
        self.wait()?;
        self.wait_for_copies(set)?;
        self.running = Some(set);
        self.put_inputs(set, there)?;
        let context = &self.executable.gpu().context;
        let mut events = vec![Event::with_time(context)?];
        events[0].record(&self.stream)?;
        for step in &self.steps[set] {
            self.launch(step)?;
            let event = Event::with_time(context)?;
            event.record(&self.stream)?;
            events.push(event);
        }
        self.put_outputs()?;
        self.wait()?;
        let mut times = vec![];
        for (step, pair) in self.steps[set].iter().zip(events.windows(2)) {
            times.push((step.launch, duration(&pair[0], &pair[1])?));
        }
        Ok(times)
    }

    /// Where a parameter lies in its allocation, if it is there.
    pub fn place(&self, i: usize) -> Option<usize> {
        self.parameters.at[i]
    }

    /// Copies a parameter from the GPU, as the last run that has ended left it.
    pub fn read_parameter(&self, i: usize, bytes: &mut [u8]) -> Result<(), CudaError> {
        if self.running.is_some() {
            return Err(CudaError::Order("parameters are read before the step has ended"));
        }
        match self.place(i) {
            Some(at) => self.parameters.memory.read(at, bytes),
            None => Err(CudaError::Order("a parameter is read that is not kept")),
        }
    }

    /// Where the parameters are, to be replaced.
    pub fn placed(&mut self) -> Result<&mut Placed, CudaError> {
        self.wait()?;
        Ok(&mut self.parameters)
    }

    /// Gives the parameters up for another machine.
    pub fn into_parameters(mut self) -> Result<Placed, CudaError> {
        self.wait()?;
        Ok(self.parameters)
    }

    /// A run, launch by launch; the one that fails is named.
    fn run_checked(&self, set: usize, there: &[bool]) -> Result<(), CudaError> {
        self.put_inputs(set, there)?;
        self.stream.synchronize()?;
        for step in &self.steps[set] {
            self.launch_and_wait(step)?;
        }
        self.put_outputs()
    }

    /// Puts a run on the stream and its lanes, which begin and end with it. `events` are as many as there are
    /// moments to be waited for.
    fn put(&self, set: usize, there: &[bool], events: &[Event]) -> Result<(), CudaError> {
        self.put_inputs(set, there)?;
        events[0].record(&self.stream)?;
        self.lanes.iter().try_for_each(|lane| lane.wait(&events[0]))?;
        // The event of each launch that is waited for.
        let (mut ends, mut recorded) = (vec![0; self.steps[set].len()], 1);
        for (i, (step, turn)) in self.steps[set].iter().zip(&self.branches.turns).enumerate() {
            let lane = self.lane(turn.lane);
            turn.waits.iter().try_for_each(|&j| lane.wait(&events[ends[j]]))?;
            self.launch_on(step, lane)?;
            if self.branches.is_moment(i) {
                events[recorded].record(lane)?;
                ends[i] = recorded;
                recorded += 1;
            }
        }
        self.branches.last.iter().skip(1).try_for_each(|&i| self.stream.wait(&events[ends[i]]))?;
        self.put_outputs()
    }

    fn lane(&self, lane: usize) -> &Stream {
        if lane == 0 { &self.stream } else { &self.lanes[lane - 1] }
    }

    fn put_inputs(&self, set: usize, there: &[bool]) -> Result<(), CudaError> {
        for i in (0..there.len()).filter(|&i| !there[i]) {
            self.upload(set, i, &self.stream)?;
        }
        Ok(())
    }

    fn upload(&self, set: usize, i: usize, stream: &Stream) -> Result<(), DriverError> {
        let layout = &self.layout;
        let (from, to) = (layout.staged_input(set, i), self.run.address(layout.input(set, i)));
        // SAFETY: both places are the machine's and as large as the layout says. The staged bytes are not
        // written before the copy has ended (`write_input`). On the GPU nobody uses them: no run of this
        // set is under way when it is copied ahead, and in a run the copies come first.
        unsafe { self.staging.upload(from, to, layout.inputs.bytes[i], stream) }
    }

    fn put_outputs(&self) -> Result<(), CudaError> {
        let layout = &self.layout;
        for i in 0..layout.outputs.at.len() {
            let (to, from) = (layout.staged_output(i), self.run.address(layout.output(i)));
            // SAFETY: as in `upload`; `read_output` does not read while a run is under way.
            unsafe { self.staging.download(to, from, layout.outputs.bytes[i], &self.stream) }?;
        }
        Ok(())
    }

    fn launch(&self, step: &Step) -> Result<(), CudaError> {
        self.launch_on(step, &self.stream)
    }

    fn launch_on(&self, step: &Step, stream: &Stream) -> Result<(), CudaError> {
        let mut args = step.args.clone();
        let mut pointers: Vec<*mut std::ffi::c_void> =
            args.iter_mut().map(|a| std::ptr::from_mut(a).cast()).collect();
        let (blocks, threads, shared) = (step.blocks, step.threads, step.shared_bytes);
        let (stream, none) = (stream.raw(), std::ptr::null_mut());
        self.executable.gpu().context.bind()?;
        // SAFETY: the function is the program's entry for this kernel, whose parameters are addresses, as
        // many as arguments (`validate` counts them; the compiler made both). The addresses are those of
        // storages in allocations of this machine, which are at least as large as the extents that the
        // kernel was proved to keep to (`validate` compares them), and live until the stream has been
        // waited for. The driver copies the arguments before it returns.
        let launched = unsafe {
            call!(cuLaunchKernel(
                step.function.0,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                shared,
                stream,
                pointers.as_mut_ptr(),
                none
            ))
        };
        launched.map_err(|e| self.kernel_failed(step, e))
    }

    fn launch_and_wait(&self, step: &Step) -> Result<(), CudaError> {
        self.launch(step)?;
        self.stream.synchronize().map_err(|e| self.kernel_failed(step, e))
    }

    fn kernel_failed(&self, step: &Step, error: DriverError) -> CudaError {
        CudaError::Kernel { place: self.executable.place(step.launch), error }
    }

    fn replay(&self, error: DriverError) -> CudaError {
        let kernels = self.steps.first().map_or(0, Vec::len);
        CudaError::Replay { program: self.program().name.clone(), kernels, error }
    }
}

/// The time between two moments that have come.
fn duration(begin: &Event, end: &Event) -> Result<Duration, CudaError> {
    let ms = f64::from(end.since(begin)?);
    Ok(Duration::from_secs_f64(ms.max(0.0) / 1e3))
}
