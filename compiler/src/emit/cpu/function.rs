//! A kernel's function: arguments, the loop over tasks, loops, branches and stores.

use std::collections::HashMap;
use std::rc::Rc;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block, BlockArg, Function, InstBuilder, MemFlagsData, Signature, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use nnc_runtime::DType;

use super::address::{Form, Scope, accesses};
use super::expr::Operand;
use super::registers::{self, Registers};
use super::vector::{Analysis, LANES};
use crate::kernel::{BufferId, Expr, Extents, Guard, Index, Kernel, Local, LoopKind, Memory, Stmt, Var};

/// Vector loops that do not vectorise are written out up to this extent, else they are loops.
const LONGEST_WRITTEN_OUT: usize = 16;

/// What is known of a loop variable.
#[derive(Clone, Copy, Debug)]
pub enum Binding {
    /// Outside its loop.
    Unbound,
    /// Unrolled (for a vector loop: the first lane).
    Known(i64),
    /// A value; deeper ones change more often.
    Dynamic { value: Value, depth: usize },
}

/// Emits one kernel.
pub struct Emitter<'k, 'f> {
    pub kernel: &'k Kernel,
    pub extents: Extents,
    pub b: FunctionBuilder<'f>,
    pub vars: Vec<Binding>,
    /// The variable whose lanes are being emitted side by side.
    pub lane: Option<Var>,
    pub bases: Vec<Value>,
    pub registers: Vec<Registers>,
    pub vector_buffers: Vec<bool>,
    pub scopes: Vec<Scope>,
    pub flats: HashMap<(BufferId, *const Index), Rc<Index>>,
    pub locals: HashMap<Local, Operand>,
    /// Vector operations so far: the clock of remembered loads.
    pub operations: u32,
    depth: usize,
}

/// Builds the function of a kernel; returns the scratch bytes that it needs.
pub fn build(kernel: &Kernel, isa: &dyn TargetIsa, function: &mut Function) -> usize {
    let pointer = AbiParam::new(types::I64);
    let mut signature = Signature::new(CallConv::triple_default(isa.triple()));
    signature.params.extend([pointer; 4]);
    function.signature = signature;
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(function, &mut context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let &[args, first, end, scratch] = b.block_params(entry) else {
        unreachable!("the signature has four parameters")
    };
    let (bases, scratch_bytes) = bases(kernel, &mut b, args, scratch);
    let vector_buffers = registers::vector_buffers(kernel);
    let registers = registers::declare(kernel, &vector_buffers, &mut b);
    let mut emitter = Emitter {
        kernel,
        extents: kernel.extents(),
        b,
        vars: vec![Binding::Unbound; kernel.vars.len()],
        lane: None,
        bases,
        registers,
        vector_buffers,
        scopes: vec![Scope::default()],
        flats: HashMap::new(),
        locals: HashMap::new(),
        operations: 0,
        depth: 0,
    };
    emitter.tasks(first, end);
    emitter.b.ins().return_(&[]);
    emitter.b.finalize(isa.frontend_config());
    scratch_bytes
}

/// The address of every buffer's first element.
fn bases(kernel: &Kernel, b: &mut FunctionBuilder<'_>, args: Value, scratch: Value) -> (Vec<Value>, usize) {
    let (offsets, scratch_bytes) = super::scratch_layout(kernel);
    let mut argument = 0;
    let base = |(buffer, &offset): (&crate::kernel::Buffer, &usize)| match buffer.memory {
        Memory::Global(_) => {
            // The argument list is there for the whole call.
            let flags = MemFlagsData::trusted().with_readonly().with_can_move();
            argument += 8;
            b.ins().load(types::I64, flags, args, argument - 8)
        }
        Memory::Scratch => b.ins().iadd_imm_s(scratch, offset as i64),
        Memory::Register => scratch,
    };
    (kernel.buffers.iter().zip(&offsets).map(base).collect(), scratch_bytes)
}

impl<'k> Emitter<'k, '_> {
    /// Runs the body for the tasks `first..end`. The task's number is taken apart once; after that
    /// the variables count like an odometer.
    fn tasks(&mut self, first: Value, end: Value) {
        let (body, exit) = (self.b.create_block(), self.b.create_block());
        let counting: Vec<Var> =
            self.kernel.tasks.iter().copied().filter(|v| self.extents[v.0 as usize] != 1).collect();
        for v in &self.kernel.tasks {
            self.vars[v.0 as usize] = Binding::Known(0);
        }
        if self.kernel.task_count() == 0 {
            self.b.ins().jump(exit, &[]);
            self.b.switch_to_block(exit);
            self.b.seal_all_blocks();
            return;
        }
        let mut start = vec![BlockArg::Value(first)];
        let mut rest = first;
        for (i, v) in counting.iter().enumerate().rev() {
            let value = if i == 0 {
                rest
            } else {
                let extent = self.b.ins().iconst(types::I64, self.extents[v.0 as usize] as i64);
                let digit = self.b.ins().urem(rest, extent);
                rest = self.b.ins().udiv(rest, extent);
                digit
            };
            start.insert(1, BlockArg::Value(value));
        }
        let any = self.b.ins().icmp(IntCC::UnsignedLessThan, first, end);
        self.b.ins().brif(any, body, &start, exit, &[]);
        let task = self.b.append_block_param(body, types::I64);
        for v in &counting {
            self.depth += 1;
            let value = self.b.append_block_param(body, types::I64);
            self.vars[v.0 as usize] = Binding::Dynamic { value, depth: self.depth };
        }
        self.b.switch_to_block(body);
        self.scoped(|e| {
            e.hoist_pointers(&e.kernel.body);
            e.body(&e.kernel.body);
        });
        let next = self.b.ins().iadd_imm_s(task, 1);
        let more = self.b.ins().icmp(IntCC::UnsignedLessThan, next, end);
        let mut digits = self.count(&counting);
        digits.insert(0, BlockArg::Value(next));
        self.b.ins().brif(more, body, &digits, exit, &[]);
        self.b.seal_block(body);
        self.b.seal_block(exit);
        self.b.switch_to_block(exit);
    }

    /// The task variables of the next task.
    fn count(&mut self, counting: &[Var]) -> Vec<BlockArg> {
        let mut digits = vec![];
        let mut carry = None;
        for (i, v) in counting.iter().enumerate().rev() {
            let Binding::Dynamic { value, .. } = self.vars[v.0 as usize] else { continue };
            let raised = match carry {
                None => self.b.ins().iadd_imm_s(value, 1),
                Some(c) => self.b.ins().iadd(value, c),
            };
            if i == 0 {
                digits.insert(0, BlockArg::Value(raised));
                break;
            }
            let extent = self.extents[v.0 as usize] as i64;
            let full = self.b.ins().icmp_imm_s(IntCC::Equal, raised, extent);
            let zero = self.b.ins().iconst(types::I64, 0);
            let digit = self.b.ins().select(full, zero, raised);
            carry = Some(self.b.ins().uextend(types::I64, full));
            digits.insert(0, BlockArg::Value(digit));
        }
        digits
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
            }
        }
    }

    fn any_loop(&mut self, var: Var, kind: LoopKind, body: &'k [Stmt]) {
        let extent = self.extents[var.0 as usize];
        match kind {
            LoopKind::Serial if extent > 1 => self.counted_loop(var, body),
            LoopKind::Serial | LoopKind::Unroll => self.written_out(var, 1, body),
            LoopKind::Vector => {
                let vector_buffers = &self.vector_buffers;
                if (Analysis { kernel: self.kernel, vector_buffers, var }).vectorisable(body) {
                    self.lane = Some(var);
                    self.written_out(var, LANES, body);
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
        let mut start = vec![BlockArg::Value(self.b.ins().iconst(types::I64, 0))];
        for (buffer, sum) in &keys {
            let mut before = sum.clone();
            before.terms.remove(&crate::kernel::index::Atom::Var(var));
            start.push(BlockArg::Value(self.pointer(*buffer, &before)));
        }
        for buffer in (0..self.kernel.buffers.len() as u32).map(BufferId) {
            if stores_to(body, buffer) {
                self.forget(buffer);
            }
        }
        let (header, exit) = (self.b.create_block(), self.b.create_block());
        self.b.ins().jump(header, &start);
        let counter = self.b.append_block_param(header, types::I64);
        let pointers: Vec<Value> =
            keys.iter().map(|_| self.b.append_block_param(header, types::I64)).collect();
        self.b.switch_to_block(header);
        self.depth += 1;
        self.vars[var.0 as usize] = Binding::Dynamic { value: counter, depth: self.depth };
        self.scoped(|e| {
            for (key, &p) in keys.iter().zip(&pointers) {
                e.remember_pointer(key.clone(), p);
            }
            e.hoist_pointers(body);
            e.body(body);
        });
        self.vars[var.0 as usize] = Binding::Unbound;
        self.depth -= 1;
        let next = self.b.ins().iadd_imm_s(counter, 1);
        let mut again = vec![BlockArg::Value(next)];
        for ((buffer, sum), p) in keys.iter().zip(pointers) {
            let size = self.kernel.buffer_of(*buffer).dtype.size() as i64;
            let step = sum.stride_of(var).unwrap_or(0) * size;
            again.push(BlockArg::Value(self.b.ins().iadd_imm_s(p, step)));
        }
        let more = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, next, extent);
        self.b.ins().brif(more, header, &again, exit, &[]);
        self.b.seal_block(header);
        self.b.seal_block(exit);
        self.b.switch_to_block(exit);
    }

    /// True if no loop is left inside once unrolled ones are written out.
    fn is_innermost(&self, body: &[Stmt]) -> bool {
        body.iter().all(|s| match s {
            Stmt::Loop { var, kind, body } => {
                let counted = *kind == LoopKind::Serial && self.extents[var.0 as usize] > 1;
                !counted && self.is_innermost(body)
            }
            Stmt::If { body, .. } => self.is_innermost(body),
            Stmt::Store { .. } => true,
        })
    }

    fn branch(&mut self, guards: &[Guard], body: &'k [Stmt]) {
        match self.guards(guards) {
            Ok(true) => self.body(body),
            Ok(false) => {}
            Err(not_negative) => {
                let (inside, after) = (self.b.create_block(), self.b.create_block());
                self.branch_on(not_negative, inside, after);
                self.b.seal_block(inside);
                self.b.switch_to_block(inside);
                self.scoped(|e| e.body(body));
                self.b.ins().jump(after, &[]);
                self.b.seal_block(after);
                self.b.switch_to_block(after);
            }
        }
    }

    /// Goes to the first block if the value is not negative.
    pub fn branch_on(&mut self, not_negative: Value, first: Block, second: Block) {
        let holds = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, not_negative, 0);
        self.b.ins().brif(holds, first, &[], second, &[]);
    }

    fn store(&mut self, buffer: BufferId, index: &'k [Index], value: &'k Expr) {
        let value = self.expr(value);
        let memory = self.kernel.buffer_of(buffer).memory;
        let lanes = self.lane.is_some();
        let value = if lanes { self.lanes(value) } else { value };
        if memory == Memory::Register {
            let flat = self.flat(buffer, index);
            let element = self.resolve(&flat).known().expect("verified: registers have constant places");
            let registers = &self.registers[buffer.0 as usize];
            let (variable, lane) = registers.cell(element as usize);
            let new = if registers.vector && !lanes {
                let old = self.b.use_var(variable);
                self.b.ins().insertlane(old, value.value, lane)
            } else {
                value.value
            };
            self.b.def_var(variable, new);
            return;
        }
        let address = self.address(buffer, index);
        let (pointer, offset) = self.pointer_and_offset(&address);
        let flags = self.flags(buffer);
        self.b.ins().store(flags, value.value, pointer, offset);
        self.forget(buffer);
        if value.dtype != DType::Bool {
            let form = if lanes { Form::Lanes } else { Form::Scalar };
            self.remember((address, form), value.value);
        }
    }
}

fn stores_to(body: &[Stmt], buffer: BufferId) -> bool {
    body.iter().any(|s| match s {
        Stmt::Loop { body, .. } | Stmt::If { body, .. } => stores_to(body, buffer),
        Stmt::Store { buffer: b, .. } => *b == buffer,
    })
}
