//! The checking interpreter: runs kernels on typed memory and watches every access.
//!
//! Reported are accesses out of bounds, two tasks that write one element, a task that reads what
//! another one of the launch has written, threads of a block that meet in shared memory without a barrier, numbers that should have been rounded, and results that depend on memory nobody has written.
//! Undefined elements may be copied and computed with (the unused lanes of a blocked layout are),
//! but not decide anything, and not reach an output. [`run_module`] runs the tasks of every
//! launch in order and, in a second run, in reverse, and wants the same bits both times.

mod arithmetic;
mod block;
mod code;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use nnc_runtime::{DType, Tensor};
use thiserror::Error;

use self::block::Members;
use self::code::{Code, Compiler, Lin, Place, Step};
use super::block::{WARP, tf32};
use super::module::Role;
use super::verify::{Problem, VerifyError};
use super::{Kernel, Memory, Module, math};

/// What the interpreter has found.
#[derive(Clone, Debug, PartialEq, Error)]
#[allow(missing_docs)] // the messages say what the fields are
pub enum InterpretError {
    #[error(transparent)]
    Kernel(#[from] VerifyError),
    #[error(
        "kernel `{kernel}`, task {task}: `{buffer}` is accessed at {at} in dimension {dimension} of size {size}"
    )]
    OutOfBounds { kernel: String, task: u64, buffer: String, dimension: usize, at: i64, size: usize },
    #[error("kernel `{kernel}`, task {task}: `{buffer}` reaches element {at} of an argument with {size}")]
    Argument { kernel: String, task: u64, buffer: String, at: usize, size: usize },
    #[error(
        "kernel `{kernel}`: task {task} touches element {at} of `{buffer}`, which another task has written"
    )]
    Race { kernel: String, task: u64, buffer: String, at: usize },
    #[error(
        "kernel `{kernel}`, task {task}: thread {thread} touches element {at} of `{buffer}` with no barrier after another thread, or with a copy under way"
    )]
    SharedRace { kernel: String, task: u64, thread: usize, buffer: String, at: usize },
    #[error("kernel `{kernel}`, task {task}: ends with copies that nobody has waited for")]
    Unfinished { kernel: String, task: u64 },
    #[error("kernel `{kernel}`, task {task}: element {at} of `{buffer}` is {value}, which is no TF32 number")]
    NotTf32 { kernel: String, task: u64, buffer: String, at: usize, value: f32 },
    #[error("kernel `{kernel}`, task {task}: a condition or position depends on undefined memory")]
    UndefinedDecision { kernel: String, task: u64 },
    #[error("kernel `{kernel}` has {expected} arguments, the launch {found}")]
    ArgumentCount { kernel: String, expected: usize, found: usize },
    #[error("element {at} of output `{name}` is undefined")]
    UndefinedOutput { name: String, at: usize },
    #[error("output `{0}` depends on the order of the tasks")]
    Order(String),
    #[error("no tensor for `{0}`")]
    Missing(String),
    #[error("`{name}`: expected {expected}, found {found}")]
    Feed { name: String, expected: String, found: String },
}

/// A block of memory: cells of 32 bits, with what is known of them.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Bits of an f32 or i32; 0 or 1 for bool.
    pub cells: Vec<u32>,
    /// Whether somebody has written the cell (a value that depends on memory only).
    pub defined: Vec<bool>,
    /// The task that wrote it last, counted over all launches.
    writer: Vec<u64>,
}

impl Block {
    /// Memory that nobody has written.
    pub fn undefined(elements: usize) -> Block {
        Block { cells: vec![0; elements], defined: vec![false; elements], writer: vec![0; elements] }
    }

    /// Memory with these cells.
    pub fn new(cells: Vec<u32>) -> Block {
        let n = cells.len();
        Block { cells, defined: vec![true; n], writer: vec![0; n] }
    }

    fn put(&mut self, at: usize, value: Cell, now: u64) {
        self.cells[at] = value.bits;
        self.defined[at] = value.defined;
        self.writer[at] = now;
    }
}

/// The order in which tasks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last.
    Forward,
    /// From the last to the first.
    Reverse,
}

/// Runs one kernel: `args[i]` says in which block, and where, the i-th global buffer starts.
///
/// # Errors
/// See [`InterpretError`].
pub fn run_kernel(
    kernel: &Kernel,
    blocks: &mut [Block],
    args: &[(usize, usize)],
    order: Order,
) -> Result<(), InterpretError> {
    Machine { blocks, clock: 0, order }.launch(kernel, args)
}

/// Runs a module on inputs and parameters by name: the outputs by name, and what became of the
/// parameters that it changes (`state`), by theirs.
///
/// # Errors
/// See [`InterpretError`].
pub fn run_module(
    module: &Module,
    inputs: &BTreeMap<String, Tensor>,
    parameters: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, InterpretError> {
    let forward = run_ordered(module, inputs, parameters, Order::Forward)?;
    let reverse = run_ordered(module, inputs, parameters, Order::Reverse)?;
    for (name, tensor) in &forward {
        if cells_of(tensor) != cells_of(&reverse[name]) {
            return Err(InterpretError::Order(name.clone()));
        }
    }
    Ok(forward)
}

fn run_ordered(
    module: &Module,
    inputs: &BTreeMap<String, Tensor>,
    parameters: &BTreeMap<String, Tensor>,
    order: Order,
) -> Result<BTreeMap<String, Tensor>, InterpretError> {
    let mut blocks = vec![];
    for v in &module.values {
        let block = match &v.role {
            Role::Input(i) => feed(inputs, &module.inputs[*i].name, v.dtype, v.elements)?,
            Role::Parameter(i) | Role::State(i) => {
                feed(parameters, &module.parameters[*i].port.name, v.dtype, v.elements)?
            }
            Role::Constant(bytes) => Block::new(cells_of_bytes(v.dtype, bytes)),
            Role::Output(_) | Role::Temporary => Block::undefined(v.elements),
        };
        blocks.push(block);
    }
    let mut machine = Machine { blocks: &mut blocks, clock: 0, order };
    for launch in &module.launches {
        let args: Vec<_> = launch.args.iter().map(|a| (a.value.0 as usize, a.offset)).collect();
        machine.launch(&module.kernels[launch.kernel], &args)?;
    }
    let mut outputs = BTreeMap::new();
    for (v, block) in module.values.iter().zip(&blocks) {
        let port = match v.role {
            Role::Output(i) => &module.outputs[i],
            Role::State(i) => &module.parameters[i].port,
            _ => continue,
        };
        if let Some(at) = block.defined.iter().position(|d| !d) {
            return Err(InterpretError::UndefinedOutput { name: port.name.clone(), at });
        }
        outputs.insert(port.name.clone(), tensor_of(port.dtype, &port.shape, &block.cells));
    }
    Ok(outputs)
}

fn feed(
    feeds: &BTreeMap<String, Tensor>,
    name: &str,
    dtype: DType,
    elements: usize,
) -> Result<Block, InterpretError> {
    let t = feeds.get(name).ok_or_else(|| InterpretError::Missing(name.into()))?;
    if t.dtype() != dtype || t.len() != elements {
        return Err(InterpretError::Feed {
            name: name.into(),
            expected: format!("{elements} elements of {dtype}"),
            found: format!("{}{:?}", t.dtype(), t.shape()),
        });
    }
    Ok(Block::new(cells_of(t)))
}

/// The elements of a tensor as cells.
pub fn cells_of(t: &Tensor) -> Vec<u32> {
    match t {
        Tensor::F32(a) => a.iter().map(|x| x.to_bits()).collect(),
        Tensor::F64(a) => a.iter().map(|x| (*x as f32).to_bits()).collect(),
        Tensor::I32(a) => a.iter().map(|x| *x as u32).collect(),
        Tensor::Bool(a) => a.iter().map(|x| *x as u32).collect(),
    }
}

fn cells_of_bytes(dtype: DType, bytes: &[u8]) -> Vec<u32> {
    match dtype {
        DType::Bool => bytes.iter().map(|b| (*b != 0) as u32).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect(),
    }
}

fn tensor_of(dtype: DType, shape: &[usize], cells: &[u32]) -> Tensor {
    let n: usize = shape.iter().product();
    let shape = IxDyn(shape);
    let cells = cells[..n].iter();
    let fits = "as many elements as the shape says";
    match dtype {
        DType::F32 | DType::F64 => Tensor::F32(
            ArrayD::from_shape_vec(shape, cells.map(|c| f32::from_bits(*c)).collect()).expect(fits),
        ),
        DType::I32 => {
            Tensor::I32(ArrayD::from_shape_vec(shape, cells.map(|c| *c as i32).collect()).expect(fits))
        }
        DType::Bool => {
            Tensor::Bool(ArrayD::from_shape_vec(shape, cells.map(|c| *c != 0).collect()).expect(fits))
        }
    }
}

/// Memory and time of a run.
struct Machine<'a> {
    blocks: &'a mut [Block],
    /// Tasks that have run so far.
    clock: u64,
    order: Order,
}

impl Machine<'_> {
    fn launch(&mut self, kernel: &Kernel, args: &[(usize, usize)]) -> Result<(), InterpretError> {
        let expected = kernel.params().count();
        if expected != args.len() {
            let kernel = kernel.name.clone();
            return Err(InterpretError::ArgumentCount { kernel, expected, found: args.len() });
        }
        let expanded = math::expand(kernel);
        let mut compiler = Compiler::new(&expanded);
        let of_kernel = |problem: Problem| VerifyError { kernel: kernel.name.clone(), problem };
        let steps = compiler.body(&expanded.body).map_err(of_kernel)?;
        let mut next = args.iter();
        let (mut own, mut shared) = (vec![], vec![]);
        let threads = kernel.threads.unwrap_or(1);
        let mut places = vec![];
        for b in &kernel.buffers {
            let (block, extent) = (own.len(), b.extent());
            let (copies, place) = match b.memory {
                Memory::Global(_) => {
                    let &(block, offset) = next.next().expect("counted above");
                    places.push(Where::Global { block, offset });
                    continue;
                }
                Memory::Scratch | Memory::Register => (threads, Where::OfThread { block, extent }),
                Memory::Shared => {
                    shared.push(extent);
                    (1, Where::Shared { block, shared: shared.len() - 1 })
                }
                Memory::Fragment(_) => (threads.div_ceil(WARP), Where::OfWarp { block, extent }),
            };
            own.push(Block::undefined(copies * extent));
            places.push(place);
        }
        let mut task = Task {
            kernel,
            blocks: self.blocks,
            own,
            places,
            members: Members::new(&shared),
            order: self.order,
            start: self.clock,
            now: 0,
            vars: vec![0; kernel.vars.len()],
            locals: vec![Cell::default(); compiler.slots],
        };
        let count = kernel.task_count();
        for i in 0..count {
            let number = if self.order == Order::Forward { i } else { count - 1 - i };
            task.run(number, &steps)?;
        }
        self.clock += count;
        Ok(())
    }
}

/// Where a buffer's elements are: in a block of memory, or so many for each thread or warp in one of the
/// task's own.
#[derive(Clone, Copy)]
enum Where {
    Global { block: usize, offset: usize },
    OfThread { block: usize, extent: usize },
    OfWarp { block: usize, extent: usize },
    Shared { block: usize, shared: usize },
}

/// A value and whether it is defined.
#[derive(Clone, Copy, Default)]
struct Cell {
    bits: u32,
    defined: bool,
}

/// A launch, and in it the task that runs.
struct Task<'a> {
    kernel: &'a Kernel,
    blocks: &'a mut [Block],
    own: Vec<Block>,
    places: Vec<Where>,
    members: Members,
    order: Order,
    /// The clock at the start of the launch.
    start: u64,
    /// The running task's time.
    now: u64,
    vars: Vec<i64>,
    locals: Vec<Cell>,
}

type Outcome<T> = Result<T, Box<InterpretError>>;

impl Task<'_> {
    fn number(&self) -> u64 {
        self.now - self.start - 1
    }

    fn run(&mut self, number: u64, steps: &[Step]) -> Result<(), InterpretError> {
        self.now = self.start + number + 1;
        let mut rest = number;
        for &v in self.kernel.tasks.iter().rev() {
            let extent = self.kernel.vars[v.0 as usize].extent as u64;
            self.vars[v.0 as usize] = (rest % extent) as i64;
            rest /= extent;
        }
        self.begin_block();
        self.steps(steps).map_err(|e| *e)?;
        self.end_block().map_err(|e| *e)
    }

    fn steps(&mut self, steps: &[Step]) -> Outcome<()> {
        for s in steps {
            match s {
                Step::Loop(v, extent, kind, body) => {
                    let reversed = self.is_reversed(*kind);
                    for i in 0..*extent {
                        let i = if reversed { extent - 1 - i } else { i };
                        self.vars[*v] = i as i64;
                        self.enter(*kind, i);
                        self.steps(body)?;
                    }
                }
                Step::Together(step) => self.together(step)?,
                Step::If(guards, body) => {
                    if self.hold(guards) {
                        self.steps(body)?;
                    }
                }
                Step::Store(place, value) => {
                    let value = self.eval(value)?;
                    self.store(place, value)?;
                }
            }
        }
        Ok(())
    }

    fn hold(&self, guards: &[Lin]) -> bool {
        guards.iter().all(|g| g.eval(&self.vars) >= 0)
    }

    fn name(&self) -> String {
        self.kernel.name.clone()
    }

    /// The element offset within the buffer; `at` replaces the index of an axis.
    fn offset(&self, place: &Place, gather: Option<(usize, i64)>) -> Outcome<usize> {
        let mut sum = 0;
        for (dimension, d) in place.dims.iter().enumerate() {
            let at = match gather {
                Some((axis, at)) if axis == dimension => at.clamp(0, d.size.max(1) as i64 - 1),
                _ => d.at.eval(&self.vars),
            };
            if at < 0 || at >= d.size as i64 {
                let buffer = self.kernel.buffers[place.buffer].name.clone();
                let (kernel, task, size) = (self.name(), self.number(), d.size);
                return Err(Box::new(InterpretError::OutOfBounds {
                    kernel,
                    task,
                    buffer,
                    dimension,
                    at,
                    size,
                }));
            }
            sum += at as usize * d.stride;
        }
        Ok(sum)
    }

    /// The block of memory and the place in it of an element; reports races.
    fn block(&mut self, place: &Place, offset: usize, writes: bool) -> Outcome<(&mut Block, usize)> {
        let (now, start, id) = (self.now, self.start, place.buffer);
        let (block, at, is_shared) = match self.places[id] {
            Where::OfThread { block, extent } => {
                (&mut self.own[block], self.members.thread * extent + offset, false)
            }
            Where::OfWarp { block, extent } => {
                (&mut self.own[block], self.members.warp() * extent + offset, false)
            }
            Where::Shared { block, shared } => {
                self.touch(shared, offset, id, writes)?;
                (&mut self.own[block], offset, false)
            }
            Where::Global { block, offset: first } => (&mut self.blocks[block], first + offset, true),
        };
        let buffer = &self.kernel.buffers[id].name;
        let (kernel, task) = (&self.kernel.name, now - start - 1);
        if at >= block.cells.len() {
            let size = block.cells.len();
            let (kernel, buffer) = (kernel.clone(), buffer.clone());
            return Err(Box::new(InterpretError::Argument { kernel, task, buffer, at, size }));
        }
        if is_shared && block.writer[at] > start && block.writer[at] != now {
            let (kernel, buffer) = (kernel.clone(), buffer.clone());
            return Err(Box::new(InterpretError::Race { kernel, task, buffer, at }));
        }
        Ok((block, at))
    }

    fn load(&mut self, place: &Place, offset: usize) -> Outcome<Cell> {
        let now = self.now;
        let own = !matches!(self.places[place.buffer], Where::Global { .. });
        let (block, at) = self.block(place, offset, false)?;
        // What another task left in memory of its own is undefined.
        let defined = block.defined[at] && (!own || block.writer[at] == now);
        let value = Cell { bits: block.cells[at], defined };
        self.check_rounded(place, offset, value)?;
        Ok(value)
    }

    /// Reports a number in a buffer of TF32 numbers that is none.
    fn check_rounded(&self, place: &Place, at: usize, value: Cell) -> Outcome<()> {
        let buffer = &self.kernel.buffers[place.buffer];
        if !buffer.tf32 || !value.defined || tf32(value.bits) == value.bits {
            return Ok(());
        }
        let (kernel, task, buffer) = (self.name(), self.number(), buffer.name.clone());
        let value = f32::from_bits(value.bits);
        Err(Box::new(InterpretError::NotTf32 { kernel, task, buffer, at, value }))
    }

    fn store(&mut self, place: &Place, value: Cell) -> Outcome<()> {
        let offset = self.offset(place, None)?;
        let value = match self.kernel.buffers[place.buffer].memory {
            Memory::Fragment(fragment) => Task::fragment_value(fragment, value),
            _ => value,
        };
        self.write(place, offset, value)
    }

    fn write(&mut self, place: &Place, offset: usize, value: Cell) -> Outcome<()> {
        self.check_rounded(place, offset, value)?;
        let now = self.now;
        let (block, at) = self.block(place, offset, true)?;
        block.put(at, value, now);
        Ok(())
    }

    fn undefined(&self) -> Box<InterpretError> {
        Box::new(InterpretError::UndefinedDecision { kernel: self.name(), task: self.number() })
    }

    fn eval(&mut self, code: &Code) -> Outcome<Cell> {
        Ok(match code {
            Code::Const(bits) => Cell { bits: *bits, defined: true },
            Code::Index(i) => Cell { bits: i.eval(&self.vars) as u32, defined: true },
            Code::Load(place) => {
                let offset = self.offset(place, None)?;
                self.load(place, offset)?
            }
            Code::Gather(place, axis, at) => {
                let at = self.eval(at)?;
                if !at.defined {
                    return Err(self.undefined());
                }
                let offset = self.offset(place, Some((*axis, at.bits as i32 as i64)))?;
                self.load(place, offset)?
            }
            Code::Guarded(guards, value, otherwise) => {
                return self.eval(if self.hold(guards) { value } else { otherwise });
            }
            Code::Select(c, a, b) => {
                let (c, a, b) = (self.eval(c)?, self.eval(a)?, self.eval(b)?);
                let chosen = if c.bits != 0 { a } else { b };
                Cell { bits: chosen.bits, defined: c.defined && chosen.defined }
            }
            Code::Unary(f, a) => {
                let a = self.eval(a)?;
                Cell { bits: f(a.bits), defined: a.defined }
            }
            Code::Binary(f, a, b) => {
                let (a, b) = (self.eval(a)?, self.eval(b)?);
                Cell { bits: f(a.bits, b.bits), defined: a.defined && b.defined }
            }
            Code::Fma(a, b, c) => {
                let (a, b, c) = (self.eval(a)?, self.eval(b)?, self.eval(c)?);
                let bits = arithmetic::fma(a.bits, b.bits, c.bits);
                Cell { bits, defined: a.defined && b.defined && c.defined }
            }
            Code::Let(slot, value, inner) => {
                self.locals[*slot] = self.eval(value)?;
                return self.eval(inner);
            }
            Code::Local(slot) => self.locals[*slot],
        })
    }
}
