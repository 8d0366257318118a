//! A program that changes its parameters, which stay on the GPU: a training step.
//!
//! A step may be started and waited for apart, and the inputs of the next one copied meanwhile:
//! [`stage`](CudaTrainable::stage) after [`begin`](CudaTrainable::begin). There are two sets of inputs,
//! which steps use in turns.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::machine::{Machine, Placed};
use super::session::read_outputs;
use super::upload::Uploader;
use super::{CudaError, CudaExecutable};
use crate::parameters::Parameters;
use crate::program::{Parameter, Port, Program};
use crate::session::bind::{self, check_parameters};
use crate::session::{LaunchTimes, LoadError, RunError, new_outputs};
use crate::tensor::{Tensor, TensorView};

/// See the module's head.
#[derive(Debug)]
pub struct CudaTrainable {
    machine: Machine,
    /// The set of the next step.
    next: usize,
    /// What was copied ahead for it.
    staged: Option<(Staged, Vec<bool>)>,
    /// How often inputs were copied ahead.
    stagings: u64,
    /// A step was begun.
    under_way: bool,
}

/// Inputs that were copied ahead: to be given to the step that they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged(u64);

/// Sets of inputs.
const SETS: usize = 2;

impl CudaTrainable {
    /// Checks the parameters against the program's, uploads them and runs the prepare phase. A program
    /// that changes nothing may be run so too.
    pub fn new(
        executable: Arc<CudaExecutable>,
        parameters: &dyn Parameters,
    ) -> Result<CudaTrainable, LoadError> {
        let program = executable.program();
        check_parameters(program.parameters.iter().map(|p| &p.port), &program.training_only, parameters)?;
        let mut uploader = Uploader::new(executable.gpu(), program)?;
        let purpose = "parameters with the optimizer's state";
        let own = Placed::new(&executable, &mut uploader, parameters, purpose, |_| true)?;
        CudaTrainable::with(&executable, &mut uploader, own)
    }

    fn with(
        executable: &Arc<CudaExecutable>,
        uploader: &mut Uploader,
        own: Placed,
    ) -> Result<CudaTrainable, LoadError> {
        let mut machine = Machine::new(executable, uploader, own, SETS)?;
        prepare(&mut machine, uploader, executable)?;
        Ok(CudaTrainable { machine, next: 0, staged: None, stagings: 0, under_way: false })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        self.machine.program()
    }

    /// Takes one step on inputs in the program's order: the outputs in the program's order.
    pub fn step(&mut self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>, RunError> {
        self.begin(inputs, None)?;
        self.finish()
    }

    /// Takes one step and tells how long each launch took, by the GPU's clock.
    pub fn step_profiled(
        &mut self,
        inputs: &[TensorView<'_>],
    ) -> Result<(Vec<Tensor>, LaunchTimes), RunError> {
        let (set, there) = self.ready(inputs, None)?;
        let mut outputs = new_outputs(self.program())?;
        let times = self.machine.run_profiled(set, &there)?;
        read_outputs(&self.machine, &mut outputs)?;
        Ok((outputs, times))
    }

    /// Starts a step. Inputs that were copied ahead for it (`staged`) are not copied again.
    pub fn begin(&mut self, inputs: &[TensorView<'_>], staged: Option<Staged>) -> Result<(), RunError> {
        let (set, there) = self.ready(inputs, staged)?;
        self.machine.start(set, &there)?;
        self.under_way = true;
        Ok(())
    }

    /// Copies inputs of the next step to the GPU while this one is under way; `None` for those that are
    /// not known yet.
    pub fn stage(&mut self, inputs: &[Option<TensorView<'_>>]) -> Result<Staged, RunError> {
        let ports = &self.program().inputs;
        if inputs.len() != ports.len() {
            let (expected, found) = (ports.len(), inputs.len());
            return Err(RunError::Count { what: "inputs", expected, found });
        }
        let mut bound = vec![];
        for (port, view) in ports.iter().zip(inputs) {
            bound.push(view.as_ref().map(|v| bind::input(port, v)).transpose()?);
        }
        for (i, input) in bound.iter().enumerate() {
            if let Some(input) = input {
                self.machine.write_input(self.next, i, input.bytes())?;
            }
        }
        let which: Vec<bool> = bound.iter().map(Option::is_some).collect();
        self.machine.copy_ahead(self.next, &which)?;
        self.stagings += 1;
        let staged = Staged(self.stagings);
        self.staged = Some((staged, which));
        Ok(staged)
    }

    /// Waits for the step: its outputs.
    pub fn finish(&mut self) -> Result<Vec<Tensor>, RunError> {
        if !std::mem::take(&mut self.under_way) {
            return Err(CudaError::Order("no step is under way").into());
        }
        let mut outputs = new_outputs(self.program())?;
        self.machine.wait()?;
        read_outputs(&self.machine, &mut outputs)?;
        Ok(outputs)
    }

    /// Writes inputs to the next set, but for those that are on the GPU: the set, and which these are.
    fn ready(
        &mut self,
        inputs: &[TensorView<'_>],
        staged: Option<Staged>,
    ) -> Result<(usize, Vec<bool>), RunError> {
        let bound = bind::inputs(self.machine.program(), inputs)?;
        let there = match self.staged.take() {
            Some((s, which)) if Some(s) == staged => which,
            _ => vec![false; inputs.len()],
        };
        for (i, input) in bound.iter().enumerate().filter(|&(i, _)| !there[i]) {
            self.machine.write_input(self.next, i, input.bytes())?;
        }
        let set = self.next;
        self.next = (set + 1) % SETS;
        Ok((set, there))
    }

    /// Goes on with another program for the same parameters (a step for a batch of another size), which
    /// stay where they are. On an error that is not about the parameters the state is lost.
    pub fn switch(self, to: &Arc<CudaExecutable>) -> Result<CudaTrainable, LoadError> {
        let other = to.program();
        let at = self.places_in(other)?;
        let own = self.machine.into_parameters()?;
        let mut uploader = Uploader::new(to.gpu(), other)?;
        CudaTrainable::with(to, &mut uploader, Placed { memory: own.memory, at })
    }

    /// Complains about a program that [`switch`](CudaTrainable::switch) cannot go on with.
    pub fn check_switch(&self, to: &CudaExecutable) -> Result<(), LoadError> {
        self.places_in(to.program()).map(|_| ())
    }

    /// Where another program's parameters are, if they are these.
    fn places_in(&self, other: &Program) -> Result<Vec<Option<usize>>, LoadError> {
        let from = self.program();
        let find = |p: &Parameter| from.parameters.iter().position(|own| own.port == p.port);
        let at: Vec<Option<usize>> = other.parameters.iter().map(find).collect();
        if other.parameters.len() != from.parameters.len() || at.contains(&None) {
            let line = format!("`{}` has other parameters than `{}`", other.name, from.name);
            return Err(LoadError::Parameters(vec![line]));
        }
        Ok(at.into_iter().map(|i| self.machine.place(i?)).collect())
    }

    /// A copy of every parameter, as it is now.
    pub fn parameters(&self) -> Result<BTreeMap<String, Tensor>, CudaError> {
        let mut out = BTreeMap::new();
        for (i, p) in self.program().parameters.iter().enumerate() {
            out.insert(p.port.name.clone(), self.read(i, &p.port)?);
        }
        Ok(out)
    }

    fn read(&self, i: usize, port: &Port) -> Result<Tensor, CudaError> {
        let needed = Program::port_bytes(port).unwrap_or(usize::MAX);
        let mut tensor = Tensor::try_zeros(port.dtype, &port.shape).ok_or(CudaError::OutOfHost { needed })?;
        let mut slot = bind::slot(&mut tensor).map_err(|_| CudaError::OutOfHost { needed })?;
        self.machine.read_parameter(i, slot.bytes_mut())?;
        slot.finish();
        Ok(tensor)
    }

    /// Replaces every parameter. If these are not the program's, everything is as before.
    pub fn set_parameters(&mut self, parameters: &dyn Parameters) -> Result<(), LoadError> {
        let executable = self.machine.executable().clone();
        let program = executable.program();
        check_parameters(program.parameters.iter().map(|p| &p.port), &program.training_only, parameters)?;
        let mut uploader = Uploader::new(executable.gpu(), program)?;
        self.machine.placed()?.upload(program, &mut uploader, parameters)?;
        prepare(&mut self.machine, &mut uploader, &executable)
    }
}

/// Runs the prepare phase, which has all parameters where they are.
fn prepare(
    machine: &mut Machine,
    uploader: &mut Uploader,
    executable: &CudaExecutable,
) -> Result<(), LoadError> {
    let none: BTreeMap<String, Tensor> = BTreeMap::new();
    let once = Placed::once(executable, "memory to prepare weights in", |_| false)?;
    machine.prepare(once, uploader, &none)
}
