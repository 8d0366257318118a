//! A program that changes its parameters: a training step with the memory that it updates in place.
//!
//! The parameters of [`Class::State`](crate::program::Class::State) live here and change with every
//! step, so a step has the program for itself (`&mut self`), where a [`Session`] is shared. What is
//! no state (inputs, outputs, preparation) is a session's.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::prepare::{self, Lender};
use super::{LaunchTimes, LoadError, RunError, Session, bind};
use crate::exec::Executable;
use crate::memory::{Buffer, Frozen, OutOfMemory};
use crate::pool::Pool;
use crate::program::{Parameter, Port, Program};
use crate::tensor::{Tensor, TensorView};

/// A program with its parameters, some of which its runs change. See the module's head.
#[derive(Debug)]
pub struct Trainable {
    session: Session,
}

/// Why a state cannot be read or set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// No parameter of that name changes.
    #[error("the program does not change a parameter `{0}`")]
    Unknown(String),
    /// It has another type or shape.
    #[error("state `{name}`: expected {expected}, found {found}")]
    Mismatch {
        /// The parameter.
        name: String,
        /// Its type in the program.
        expected: String,
        /// The type that was given.
        found: String,
    },
    /// There is not enough memory.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
}

impl Trainable {
    /// Checks the parameters against the program's, moves them to where steps change them, one after
    /// the other, and runs the prepare phase. A program that changes nothing may be run so too.
    pub fn new(
        executable: Arc<Executable>,
        mut parameters: BTreeMap<String, Tensor>,
        pool: Arc<Pool>,
    ) -> Result<Trainable, LoadError> {
        let program = executable.program();
        check(program, &parameters)?;
        let mut own = vec![];
        for p in &program.parameters {
            // Taken, so that no more than one is there twice.
            let tensor = parameters.remove(&p.port.name);
            own.push(tensor.map(|t| buffer_of(&t, &p.port.name)).transpose()?);
        }
        let weights = prepared(&executable, &pool, &|i| address(&own[i]))?;
        Ok(Trainable { session: Session::ready(executable, pool, weights, own) })
    }

    /// Goes on with another program for the same parameters (a step for a batch of another size), which
    /// stay where they are. If it cannot, everything is as before.
    pub fn switch(&mut self, to: Arc<Executable>) -> Result<(), LoadError> {
        let (from, other) = (self.program(), to.program());
        let find = |port: &Port| from.parameters.iter().position(|p| p.port == *port);
        let at: Vec<Option<usize>> = other.parameters.iter().map(|p| find(&p.port)).collect();
        if other.parameters.len() != from.parameters.len() || at.contains(&None) {
            let line = format!("`{}` has other parameters than `{}`", other.name, from.name);
            return Err(LoadError::Parameters(vec![line]));
        }
        let at: Vec<usize> = at.into_iter().flatten().collect();
        // Two arenas are not needed at once.
        self.forget_contexts();
        let weights = prepared(&to, &self.session.pool, &|i| address(&self.session.parameters[at[i]]))?;
        let own = at.into_iter().map(|i| self.session.parameters[i].take()).collect();
        self.session = Session::ready(to, self.session.pool.clone(), weights, own);
        Ok(())
    }

    /// A copy of every parameter, as it is now.
    pub fn parameters(&self) -> Result<BTreeMap<String, Tensor>, OutOfMemory> {
        let own = self.program().parameters.iter().zip(&self.session.parameters);
        let copy = |(p, buffer): (&Parameter, &Option<Buffer>)| {
            Some(tensor_of(&p.port, buffer.as_ref()?).map(|tensor| (p.port.name.clone(), tensor)))
        };
        own.filter_map(copy).collect()
    }

    /// Replaces every parameter. If these do not fit, everything is as before.
    pub fn set_parameters(&mut self, mut parameters: BTreeMap<String, Tensor>) -> Result<(), LoadError> {
        let executable = self.session.executable.clone();
        check(executable.program(), &parameters)?;
        for (p, buffer) in executable.program().parameters.iter().zip(&mut self.session.parameters) {
            let name = &p.port.name;
            if let (Some(tensor), Some(buffer)) = (parameters.remove(name), buffer) {
                let value = bind::Bound::new(&tensor.view(), name)?;
                buffer.bytes_mut().copy_from_slice(value.bytes());
            }
        }
        // They have the address of what was prepared of the old ones.
        self.forget_contexts();
        let own = |i: usize| address(&self.session.parameters[i]);
        self.session.weights = prepared(&executable, &self.session.pool, &own)?;
        Ok(())
    }

    fn forget_contexts(&mut self) {
        self.session.contexts.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The program.
    pub fn program(&self) -> &Program {
        self.session.program()
    }

    /// Runs one step on inputs in the program's order: the outputs in the program's order. If it
    /// cannot start, the state is as before.
    pub fn step(&mut self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>, RunError> {
        self.session.run(inputs)
    }

    /// Runs one step and writes the results into tensors of the right types and shapes.
    pub fn step_into(&mut self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        self.session.run_into(inputs, outputs)
    }

    /// Runs one step and tells how long each launch took.
    pub fn step_profiled(
        &mut self,
        inputs: &[TensorView<'_>],
    ) -> Result<(Vec<Tensor>, LaunchTimes), RunError> {
        self.session.run_profiled(inputs)
    }

    /// The names of the parameters that steps change, in the program's order of parameters.
    pub fn state_names(&self) -> Vec<&str> {
        let mut at: Vec<usize> = self.program().state().collect();
        at.sort_unstable();
        at.into_iter().map(|i| self.program().parameters[i].port.name.as_str()).collect()
    }

    /// A copy of a parameter that steps change, as it is now.
    pub fn state(&self, name: &str) -> Result<Tensor, StateError> {
        let (port, buffer) = self.find(name)?;
        Ok(tensor_of(port, buffer)?)
    }

    /// Replaces a parameter that steps change.
    pub fn set_state(&mut self, name: &str, value: &TensorView<'_>) -> Result<(), StateError> {
        let (port, _) = self.find(name)?;
        if (value.dtype(), value.shape()) != (port.dtype, &port.shape[..]) {
            return Err(StateError::Mismatch {
                name: name.into(),
                expected: bind::describe(port.dtype, &port.shape),
                found: bind::describe(value.dtype(), value.shape()),
            });
        }
        let value = bind::Bound::new(value, name)?;
        let at = self.program().parameters.iter().position(|p| p.port.name == name);
        if let Some(buffer) = at.and_then(|i| self.session.parameters[i].as_mut()) {
            buffer.bytes_mut().copy_from_slice(value.bytes());
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<(&Port, &Buffer), StateError> {
        let program = self.program();
        let named = program.state().find(|&i| program.parameters[i].port.name == name);
        named
            .and_then(|i| Some((&program.parameters[i].port, self.session.parameters[i].as_ref()?)))
            .ok_or_else(|| StateError::Unknown(name.into()))
    }
}

/// Complains about tensors that are not the program's parameters.
fn check(program: &Program, parameters: &BTreeMap<String, Tensor>) -> Result<(), LoadError> {
    let ports = program.parameters.iter().map(|p| &p.port);
    bind::check_parameters(ports, &program.training_only, parameters)
}

fn buffer_of(tensor: &Tensor, name: &str) -> Result<Buffer, OutOfMemory> {
    Buffer::copy_of(bind::Bound::new(&tensor.view(), name)?.bytes(), name)
}

fn tensor_of(port: &Port, buffer: &Buffer) -> Result<Tensor, OutOfMemory> {
    let refused = || OutOfMemory { bytes: buffer.len(), purpose: format!("a copy of `{}`", port.name) };
    let mut tensor = Tensor::try_zeros(port.dtype, &port.shape).ok_or_else(refused)?;
    let mut slot = bind::slot(&mut tensor)?;
    slot.bytes_mut().copy_from_slice(buffer.bytes());
    slot.finish();
    Ok(tensor)
}

fn address(buffer: &Option<Buffer>) -> *mut u8 {
    buffer.as_ref().map_or(std::ptr::null_mut(), Buffer::as_ptr)
}

/// Runs the prepare phase on parameters that lie there; gives what it fills.
fn prepared(
    executable: &Executable,
    pool: &Pool,
    parameters: &dyn Fn(usize) -> *mut u8,
) -> Result<Frozen, LoadError> {
    if let Some(weights) = &executable.program().weights {
        return Ok(weights.clone());
    }
    let prepared = Buffer::zeroed(executable.program().prepared_bytes, "prepared weights")?;
    prepare::run(executable, pool, prepared.as_ptr(), &mut Own(parameters))?;
    Ok(prepared.into())
}

/// Parameters that stay where they are.
struct Own<'a>(&'a dyn Fn(usize) -> *mut u8);

impl Lender for Own<'_> {
    fn lend(&mut self, parameter: usize) -> Result<*mut u8, LoadError> {
        Ok((self.0)(parameter))
    }

    fn take_back(&mut self, _: usize) {}
}
