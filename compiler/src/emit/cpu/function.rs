//! A kernel's function: arguments, the loop over tasks, loops, branches and stores.

use std::collections::HashMap;
use std::rc::Rc;

use nnc_runtime::DType;

use super::address::{Form, Scope, accesses};
use super::assembler::{Assembler, Kind, Place};
use super::expr::Operand;
use super::registers::{self, Registers};
use super::vector;
use crate::kernel::{BufferId, Expr, Extents, Guard, Index, Kernel, Local, LoopKind, Memory, Stmt, Var};

/// Vector loops that do not vectorise are written out up to this extent, else they are loops.
const LONGEST_WRITTEN_OUT: usize = 16;

/// What is known of a loop variable.
#[derive(Clone, Copy, Debug)]
pub enum Binding<V> {
    /// Outside its loop.
    Unbound,
    /// Unrolled (for a vector loop: the first lane).
    Known(i64),
    /// A value; deeper ones change more often.
    Dynamic { value: V, depth: usize },
}

/// The vector loop whose iterations are being emitted side by side.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    pub var: Var,
    /// So many at a time.
    pub width: usize,
}

/// Emits one kernel.
pub struct Emitter<'k, A: Assembler> {
    pub kernel: &'k Kernel,
    pub extents: Extents,
    pub asm: A,
    pub vars: Vec<Binding<A::Value>>,
    pub lane: Option<Lane>,
    /// The lanes of vector loops, by their variables.
    widths: Vec<Option<usize>>,
    pub bases: Vec<A::Value>,
    pub registers: Vec<Registers<A::Variable>>,
    pub scopes: Vec<Scope<A::Value>>,
    pub flats: HashMap<(BufferId, *const Index), Rc<Index>>,
    pub locals: HashMap<Local, Operand<A::Value>>,
    /// Vector operations so far: the clock of remembered loads.
    pub operations: u32,
    /// How long loads are remembered.
    pub remembered_for: u32,
    depth: usize,
}

/// Builds the function of a kernel; returns the assembler and the scratch bytes that it needs.
pub fn build<A: Assembler>(kernel: &Kernel, mut asm: A) -> (A, usize) {
    let [arguments, first, end, scratch] = asm.arguments();
    let (bases, scratch_bytes) = bases(kernel, &mut asm, arguments, scratch);
    let widths = vector::widths(kernel, asm.widths());
    let registers = registers::declare(kernel, &widths.groups, &mut asm);
    let mut emitter = Emitter {
        kernel,
        extents: kernel.extents(),
        vars: vec![Binding::Unbound; kernel.vars.len()],
        lane: None,
        widths: widths.loops,
        bases,
        registers,
        scopes: vec![Scope::default()],
        flats: HashMap::new(),
        locals: HashMap::new(),
        operations: 0,
        remembered_for: asm.vector_registers() as u32 / 2,
        depth: 0,
        asm,
    };
    if kernel.task_count() > 0 {
        emitter.tasks(first, end);
    }
    (emitter.asm, scratch_bytes)
}

/// The address of every buffer's first element.
fn bases<A: Assembler>(
    kernel: &Kernel,
    asm: &mut A,
    arguments: A::Value,
    scratch: A::Value,
) -> (Vec<A::Value>, usize) {
    let (offsets, scratch_bytes) = super::scratch_layout(kernel);
    let mut argument = 0;
    let base = |(buffer, &offset): (&crate::kernel::Buffer, &usize)| match buffer.memory {
        Memory::Global(_) => {
            argument += 8;
            asm.load_index(Place { base: arguments, offset: argument - 8, constant: true })
        }
        Memory::Scratch => asm.add_constant(scratch, offset as i64),
        _ => scratch,
    };
    (kernel.buffers.iter().zip(&offsets).map(base).collect(), scratch_bytes)
}

impl<'k, A: Assembler> Emitter<'k, A> {
    /// Runs the body for the tasks `first..end`. The task's number is taken apart once; after that
    /// the variables count like an odometer.
    fn tasks(&mut self, first: A::Value, end: A::Value) {
        let tasks = &self.kernel.tasks;
        tasks.iter().for_each(|v| self.vars[v.0 as usize] = Binding::Known(0));
        let counting: Vec<Var> = tasks.iter().copied().filter(|v| self.extents[v.0 as usize] != 1).collect();
        let task = self.variable(first);
        let digits = self.digits(first, &counting);
        let count = self.asm.sub(end, first);
        let last = self.asm.add_constant(count, -1);
        let any = self.asm.begin_if(last);
        let again = self.asm.begin_loop();
        let number = self.asm.get(task);
        for (v, digit) in counting.iter().zip(&digits) {
            self.depth += 1;
            let value = self.asm.get(*digit);
            self.vars[v.0 as usize] = Binding::Dynamic { value, depth: self.depth };
        }
        self.scoped(|e| {
            e.hoist_pointers(&e.kernel.body);
            e.body(&e.kernel.body);
        });
        let next = self.asm.add_constant(number, 1);
        self.count(&counting, &digits);
        self.asm.set(task, next);
        self.asm.end_loop(again, next, end);
        self.asm.end_if(any);
    }

    /// A new variable that holds an index.
    fn variable(&mut self, start: A::Value) -> A::Variable {
        let v = self.asm.declare(Kind::Index);
        self.asm.set(v, start);
        v
    }

    /// The task variables of a task.
    fn digits(&mut self, task: A::Value, counting: &[Var]) -> Vec<A::Variable> {
        let mut digits = vec![];
        let mut rest = task;
        for (i, v) in counting.iter().enumerate().rev() {
            let mut digit = rest;
            if i > 0 {
                (rest, digit) = self.asm.divide_constant(rest, self.extents[v.0 as usize] as i64);
            }
            digits.insert(0, self.variable(digit));
        }
        digits
    }

    /// Moves the task variables to the next task.
    fn count(&mut self, counting: &[Var], digits: &[A::Variable]) {
        let mut carry = None;
        for (i, (v, digit)) in counting.iter().zip(digits).enumerate().rev() {
            let Binding::Dynamic { value, .. } = self.vars[v.0 as usize] else { continue };
            let raised = match carry {
                None => self.asm.add_constant(value, 1),
                Some(c) => self.asm.add(value, c),
            };
            if i == 0 {
                self.asm.set(*digit, raised);
                break;
            }
            let (wrapped, full) = self.asm.wrap(raised, self.extents[v.0 as usize] as i64);
            self.asm.set(*digit, wrapped);
            carry = Some(full);
        }
    }

    /// Emits a region whose values are not known outside it.
    pub fn scoped<T>(&mut self, emit: impl FnOnce(&mut Self) -> T) -> T {
        self.scopes.push(Scope::default());
        let out = emit(self);
        self.scopes.pop();
        out
    }

    fn body(&mut self, body: &'k [Stmt]) {
        for s in body {
            match s {
                Stmt::Loop { var, kind, body } => self.any_loop(*var, *kind, body),
                Stmt::If { guards, body } => self.branch(guards, body),
                Stmt::Store { buffer, index, value } => self.store(*buffer, index, value),
                Stmt::Prefetch { buffer, index, cache } => {
                    let address = self.address(*buffer, index);
                    let place = self.place(&address);
                    self.asm.prefetch(*cache, place);
                }
                Stmt::Joint(_) => unreachable!("kernels of blocks are refused"),
            }
        }
    }

    fn any_loop(&mut self, var: Var, kind: LoopKind, body: &'k [Stmt]) {
        let extent = self.extents[var.0 as usize];
        match kind {
            LoopKind::Serial if extent > 1 => self.counted_loop(var, body),
            LoopKind::Threads | LoopKind::Warps | LoopKind::Rows(_) | LoopKind::Columns(_) => {
                unreachable!("kernels of blocks are refused")
            }
            LoopKind::Serial | LoopKind::Unroll => self.written_out(var, 1, body),
            LoopKind::Vector => {
                if let Some(width) = self.widths[var.0 as usize] {
                    self.lane = Some(Lane { var, width });
                    self.written_out(var, width, body);
                    self.lane = None;
                } else if extent > LONGEST_WRITTEN_OUT && !self.indexes_registers(var, body) {
                    self.counted_loop(var, body);
                } else {
                    self.written_out(var, 1, body);
                }
            }
        }
    }

    fn indexes_registers(&self, var: Var, body: &[Stmt]) -> bool {
        accesses(body).iter().any(|(b, i)| {
            self.kernel.buffer_of(*b).memory == Memory::Register && i.iter().any(|i| i.mentions(var))
        })
    }

    fn written_out(&mut self, var: Var, step: usize, body: &'k [Stmt]) {
        for i in (0..self.extents[var.0 as usize]).step_by(step) {
            self.vars[var.0 as usize] = Binding::Known(i as i64);
            self.body(body);
        }
        self.vars[var.0 as usize] = Binding::Unbound;
    }

    fn counted_loop(&mut self, var: Var, body: &'k [Stmt]) {
        let extent = self.extents[var.0 as usize] as i64;
        let keys = if self.is_innermost(body) { self.induction_keys(var, body) } else { vec![] };
        let start = self.asm.index(0);
        let counter = self.variable(start);
        let mut pointers = vec![];
        for (buffer, sum) in &keys {
            let mut before = sum.clone();
            before.terms.remove(&crate::kernel::index::Atom::Var(var));
            let start = self.pointer(*buffer, &before);
            pointers.push(self.variable(start));
        }
        for buffer in (0..self.kernel.buffers.len() as u32).map(BufferId) {
            if stores_to(body, buffer) {
                self.forget(buffer);
            }
        }
        let again = self.asm.begin_loop();
        let value = self.asm.get(counter);
        let at: Vec<A::Value> = pointers.iter().map(|p| self.asm.get(*p)).collect();
        self.depth += 1;
        self.vars[var.0 as usize] = Binding::Dynamic { value, depth: self.depth };
        self.scoped(|e| {
            for (key, &p) in keys.iter().zip(&at) {
                e.remember_pointer(key.clone(), p);
            }
            e.hoist_pointers(body);
            e.body(body);
        });
        self.vars[var.0 as usize] = Binding::Unbound;
        self.depth -= 1;
        let next = self.asm.add_constant(value, 1);
        self.asm.set(counter, next);
        for (((buffer, sum), variable), p) in keys.iter().zip(pointers).zip(at) {
            let size = self.kernel.buffer_of(*buffer).dtype.size() as i64;
            let moved = self.asm.add_constant(p, sum.stride_of(var).unwrap_or(0) * size);
            self.asm.set(variable, moved);
        }
        self.asm.end_loop_at(again, next, extent);
    }

    /// True if no loop is left inside once unrolled ones are written out.
    fn is_innermost(&self, body: &[Stmt]) -> bool {
        body.iter().all(|s| match s {
            Stmt::Loop { var, kind, body } => {
                let counted = *kind == LoopKind::Serial && self.extents[var.0 as usize] > 1;
                !counted && self.is_innermost(body)
            }
            Stmt::If { body, .. } => self.is_innermost(body),
            Stmt::Store { .. } | Stmt::Prefetch { .. } | Stmt::Joint(_) => true,
        })
    }

    fn branch(&mut self, guards: &[Guard], body: &'k [Stmt]) {
        match self.guards(guards) {
            Ok(true) => self.body(body),
            Ok(false) => {}
            Err(not_negative) => {
                let branch = self.asm.begin_if(not_negative);
                self.scoped(|e| e.body(body));
                self.asm.end_if(branch);
            }
        }
    }

    fn store(&mut self, buffer: BufferId, index: &'k [Index], value: &'k Expr) {
        let [value] = self.operands([value], self.lane.map(|lane| lane.width));
        let memory = self.kernel.buffer_of(buffer).memory;
        if memory == Memory::Register {
            let flat = self.flat(buffer, index);
            let element = self.resolve(&flat).known().expect("verified: registers have constant places");
            let registers = &self.registers[buffer.0 as usize];
            let (group, (variable, lane)) = (registers.group, registers.cell(element as usize));
            let new = match group {
                Some(n) if value.lanes.is_none() => {
                    let old = self.asm.get(variable);
                    self.asm.insert(value.dtype, n, old, lane, value.value)
                }
                _ => value.value,
            };
            self.asm.set(variable, new);
            return;
        }
        let address = self.address(buffer, index);
        let place = self.place(&address);
        self.asm.store(value.kind(), place, value.value);
        self.forget(buffer);
        if value.dtype != DType::Bool {
            let form = value.lanes.map_or(Form::Scalar, Form::Lanes);
            self.remember((address, form), value.value);
        }
    }
}

fn stores_to(body: &[Stmt], buffer: BufferId) -> bool {
    body.iter().any(|s| match s {
        Stmt::Loop { body, .. } | Stmt::If { body, .. } => stores_to(body, buffer),
        Stmt::Store { buffer: b, .. } => *b == buffer,
        Stmt::Prefetch { .. } | Stmt::Joint(_) => false,
    })
}
