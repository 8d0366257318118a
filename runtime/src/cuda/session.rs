//! A program with its parameters on a GPU, ready to run any number of times, from any thread; runs
//! take turns.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::layout;
use super::machine::{Machine, Placed};
use super::upload::Uploader;
use super::{CudaError, CudaExecutable};
use crate::parameters::Parameters;
use crate::program::{Phase, Program};
use crate::session::bind::{self, check_parameters};
use crate::session::{LaunchTimes, LoadError, RunError, new_outputs};
use crate::tensor::{Tensor, TensorView};

/// See the module's head.
#[derive(Debug)]
pub struct CudaSession {
    executable: Arc<CudaExecutable>,
    machine: Mutex<Machine>,
}

impl CudaSession {
    /// Checks the parameters against the program's, uploads them and runs the prepare phase. What only
    /// that needs is freed then. A program that changes its parameters is refused: see
    /// [`CudaTrainable`](super::CudaTrainable).
    pub fn new(
        executable: Arc<CudaExecutable>,
        parameters: &dyn Parameters,
    ) -> Result<CudaSession, LoadError> {
        let program = executable.program();
        if let Some(i) = program.state().next() {
            return Err(LoadError::Changes(program.parameters[i].port.name.clone()));
        }
        check_parameters(program.parameters.iter().map(|p| &p.port), &program.training_only, parameters)?;
        let (run, prepare) = (layout::used(program, Phase::Run), layout::used(program, Phase::Prepare));
        let mut uploader = Uploader::new(executable.gpu(), program)?;
        let up = &mut uploader;
        let kept = Placed::new(&executable, up, parameters, "the weights", |i| run[i])?;
        let mut machine = Machine::new(&executable, up, kept, 1)?;
        let once = Placed::once(&executable, "weights to be prepared", |i| prepare[i] && !run[i])?;
        machine.prepare(once, up, parameters)?;
        Ok(CudaSession { executable, machine: Mutex::new(machine) })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        self.executable.program()
    }

    /// Runs it on inputs in the program's order; the outputs are in the program's order.
    pub fn run(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>, RunError> {
        let run = |machine: &mut Machine, there: &[bool]| {
            machine.start(0, there)?;
            machine.wait()
        };
        Ok(self.with(inputs, run)?.0)
    }

    /// Runs it and tells how long each launch took, by the GPU's clock.
    pub fn run_profiled(&self, inputs: &[TensorView<'_>]) -> Result<(Vec<Tensor>, LaunchTimes), RunError> {
        self.with(inputs, |machine, there| machine.run_profiled(0, there))
    }

    /// Runs it, and then once more on the same inputs, which are on the GPU by then: how long the second run
    /// took there.
    pub fn time(&self, inputs: &[TensorView<'_>]) -> Result<Duration, RunError> {
        let run = |machine: &mut Machine, there: &[bool]| {
            machine.start(0, there)?;
            machine.repeat(0)
        };
        Ok(self.with(inputs, run)?.1)
    }

    fn with<T>(
        &self,
        inputs: &[TensorView<'_>],
        run: impl FnOnce(&mut Machine, &[bool]) -> Result<T, CudaError>,
    ) -> Result<(Vec<Tensor>, T), RunError> {
        let inputs = bind::inputs(self.program(), inputs)?;
        let mut outputs = new_outputs(self.program())?;
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        for (i, input) in inputs.iter().enumerate() {
            machine.write_input(0, i, input.bytes())?;
        }
        let result = run(&mut machine, &vec![false; inputs.len()])?;
        read_outputs(&machine, &mut outputs)?;
        Ok((outputs, result))
    }
}

/// The outputs of the last run.
pub(super) fn read_outputs(machine: &Machine, outputs: &mut [Tensor]) -> Result<(), RunError> {
    let slots = bind::outputs(machine.program(), outputs)?;
    for (i, mut slot) in slots.into_iter().enumerate() {
        machine.read_output(i, slot.bytes_mut())?;
        slot.finish();
    }
    Ok(())
}
