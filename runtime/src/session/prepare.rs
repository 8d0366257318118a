//! The prepare phase: from parameters to the area that runs read.
//!
//! The area has what the prepare phase writes, and behind it the parameters that runs read as they are.
//! Parameters are asked for one at a time, when a launch needs them, and forgotten after the last launch that
//! does: the memory that loading takes is that of the area and of what one launch reads.

use super::bind::Bound;
use super::{Bases, Context, LoadError, resolve};
use crate::exec::Executable;
use crate::memory::{ALIGNMENT, Buffer};
use crate::parameters::Parameters;
use crate::pool::Pool;
use crate::program::{Class, Launch, Phase, Program};

/// The area of a program's weights.
pub(super) struct Area {
    /// From which byte on each parameter lies in it; `None` for those that runs do not read.
    pub kept: Vec<Option<usize>>,
    /// Its size.
    pub bytes: usize,
}

impl Area {
    /// That of a program.
    pub fn of(program: &Program) -> Area {
        let mut area = Area { kept: vec![None; program.parameters.len()], bytes: program.prepared_bytes };
        for launch in program.launches.iter().filter(|l| l.phase == Phase::Run) {
            for i in parameters_of(program, launch) {
                if area.kept[i].is_none() {
                    let at = area.bytes.checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX);
                    area.kept[i] = Some(at);
                    area.bytes = at.saturating_add(bytes_of(program, i));
                }
            }
        }
        area
    }

    /// Fills it.
    pub fn fill(
        &self,
        executable: &Executable,
        parameters: &dyn Parameters,
        pool: &Pool,
    ) -> Result<Buffer, LoadError> {
        let program = executable.program();
        let mut bytes = Buffer::zeroed(self.bytes, "the weights")?;
        let prepared = bytes.as_ptr();
        let lent = program.parameters.iter().map(|_| None).collect();
        let mut loans =
            Loans { program, area: self, bytes: &mut bytes, parameters, threads: pool.threads(), lent };
        run(executable, pool, prepared, &mut loans)?;
        for i in (0..self.kept.len()).filter(|&i| self.kept[i].is_some()) {
            loans.lend(i)?;
        }
        Ok(bytes)
    }
}

/// Who has the parameters while the prepare phase runs.
pub(super) trait Lender {
    /// Where a parameter lies, until it is taken back.
    fn lend(&mut self, parameter: usize) -> Result<*mut u8, LoadError>;

    /// No launch to come reads it.
    fn take_back(&mut self, parameter: usize);
}

/// Runs the prepare phase.
pub(super) fn run(
    executable: &Executable,
    pool: &Pool,
    prepared: *mut u8,
    lender: &mut dyn Lender,
) -> Result<(), LoadError> {
    let program = executable.program();
    let (steps, patches) = resolve(executable, Phase::Prepare, pool.least_work());
    if steps.is_empty() {
        return Ok(());
    }
    let preparing = Buffer::zeroed(program.preparing_bytes, "preparing weights")?;
    let bases = Bases {
        constants: executable.constants().as_ptr(),
        prepared,
        preparing: preparing.as_ptr(),
        // They come step by step.
        parameters: &|_| std::ptr::null_mut(),
    };
    let mut context = Context::new(program, Phase::Prepare, &patches, &bases, pool.threads())?;
    let mut last_reader = vec![usize::MAX; program.parameters.len()];
    for (s, step) in steps.iter().enumerate() {
        parameters_of(program, &program.launches[step.launch]).for_each(|i| last_reader[i] = s);
    }
    for (s, step) in steps.iter().enumerate() {
        let launch = &program.launches[step.launch];
        for p in &patches[step.args..step.args + launch.args.len()] {
            if let Class::Parameter(i) = p.class {
                context.args[p.arg] = lender.lend(i)?.wrapping_add(p.offset);
            }
        }
        // SAFETY: the context was made for these steps; its addresses are those of live buffers of the
        // sizes that the validated program asks for, those of this step's parameters were lent for it, and
        // no other thread has them. The prepare phase has no inputs and outputs.
        unsafe { step.launch(&context, pool) };
        parameters_of(program, launch).filter(|&i| last_reader[i] == s).for_each(|i| lender.take_back(i));
    }
    Ok(())
}

/// The parameters that a launch reads.
fn parameters_of<'a>(program: &'a Program, launch: &'a Launch) -> impl Iterator<Item = usize> + 'a {
    launch.args.iter().filter_map(|a| match program.storages[a.storage].class {
        Class::Parameter(i) => Some(i),
        _ => None,
    })
}

/// The size of a parameter; a valid program's fit.
fn bytes_of(program: &Program, parameter: usize) -> usize {
    Program::port_bytes(&program.parameters[parameter].port).unwrap_or(usize::MAX)
}

/// Parameters that are read when they are needed.
struct Loans<'a> {
    program: &'a Program,
    area: &'a Area,
    bytes: &'a mut Buffer,
    parameters: &'a dyn Parameters,
    threads: usize,
    lent: Vec<Option<Loan<'a>>>,
}

enum Loan<'a> {
    /// Where runs read it.
    Kept,
    /// Where its owner has it.
    Borrowed(Bound<'a>),
    /// For the prepare phase alone.
    Read(Buffer),
}

impl Lender for Loans<'_> {
    fn lend(&mut self, i: usize) -> Result<*mut u8, LoadError> {
        if self.lent[i].is_none() {
            let loan = self.read(i)?;
            self.lent[i] = Some(loan);
        }
        Ok(match (&self.lent[i], self.area.kept[i]) {
            (Some(Loan::Borrowed(tensor)), _) => tensor.as_ptr(),
            (Some(Loan::Read(buffer)), _) => buffer.as_ptr(),
            (_, at) => self.bytes.as_ptr().wrapping_add(at.unwrap_or(0)),
        })
    }

    fn take_back(&mut self, i: usize) {
        if !matches!(self.lent[i], Some(Loan::Kept)) {
            self.lent[i] = None;
        }
    }
}

impl<'a> Loans<'a> {
    fn read(&mut self, i: usize) -> Result<Loan<'a>, LoadError> {
        let port = &self.program.parameters[i].port;
        let unreadable = |problem| LoadError::Unreadable { name: port.name.clone(), problem };
        if let Some(at) = self.area.kept[i] {
            let to = &mut self.bytes.bytes_mut()[at..at + bytes_of(self.program, i)];
            self.parameters.fill(port, to, self.threads).map_err(unreadable)?;
            return Ok(Loan::Kept);
        }
        if let Some(view) = self.parameters.in_memory(&port.name) {
            return Ok(Loan::Borrowed(Bound::new(&view, &port.name)?));
        }
        let mut buffer = Buffer::zeroed(bytes_of(self.program, i), &port.name)?;
        self.parameters.fill(port, buffer.bytes_mut(), self.threads).map_err(unreadable)?;
        Ok(Loan::Read(buffer))
    }
}
