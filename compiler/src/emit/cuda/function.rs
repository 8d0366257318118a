//! A kernel's entry: parameters, the task of a thread, loops, branches, stores.

use std::collections::HashMap;

use nnc_runtime::DType;

use super::block::{Members, declarations};
use super::expr::{Operand, in_registers};
use super::index::Scope;
use super::lanes::WIDEST;
use super::launch::Launch;
use super::text::{Class, Writer, plain, unique};
use crate::kernel::index::Atom;
use crate::kernel::{
    BufferId, Expr, Extents, Guard, Index, Joint, Kernel, Local, LoopKind, Memory, Stmt, Var, VarDecl,
};

/// Vector loops (of kernels made for CPUs) are written out up to this extent, else they are loops.
const LONGEST_WRITTEN_OUT: usize = 16;

/// Expressions of a value that is computed whether or not it is stored.
const LONGEST_UNCONDITIONAL: usize = 8;

/// Iterations of a loop inside that are written out from which on the loop around them is long enough.
const WRITTEN_OUT: usize = 4;

/// Every local buffer starts at a multiple of this.
const ALIGNMENT: usize = 16;

/// What is known of a loop variable.
#[derive(Clone, Debug)]
pub enum Binding {
    /// Outside its loop.
    Unbound,
    /// Unrolled.
    Known(i64),
    /// In a register, and so much more; deeper ones change more often.
    Dynamic { register: String, depth: usize, offset: i64 },
}

/// Emits one kernel.
pub struct Emitter<'k> {
    pub kernel: &'k Kernel,
    pub extents: Extents,
    pub out: Writer,
    pub vars: Vec<Binding>,
    /// The names of variables in registers and labels.
    names: Vec<String>,
    /// Registers with the addresses of buffers in memory.
    pub bases: Vec<String>,
    /// The registers of each register buffer, one an element.
    pub cells: Vec<Vec<String>>,
    pub scopes: Vec<Scope>,
    pub locals: HashMap<Local, Operand>,
    /// Likewise of the lanes of a vector loop.
    pub lane_locals: HashMap<Local, Vec<Operand>>,
    /// At multiples of how many elements each buffer begins, up to [`WIDEST`].
    pub alignments: Vec<usize>,
    /// What a thread is in its block.
    pub members: Members,
    pub depth: usize,
}

/// The entry of that name for a kernel whose functions are expanded. `alignments` says of each argument at multiples of
/// how many elements it begins.
pub fn entry(kernel: &Kernel, name: &str, launch: &Launch, alignments: &[usize]) -> String {
    let names = unique(kernel.buffers.iter().map(|b| plain(&b.name)));
    let params = kernel.buffers.iter().zip(&names).filter(|(b, _)| matches!(b.memory, Memory::Global(_)));
    let params: Vec<String> = params.map(|(_, n)| format!("    .param .u64 arg_{n}")).collect();
    let mut e = Emitter {
        kernel,
        extents: kernel.extents(),
        out: Writer::default(),
        vars: vec![Binding::Unbound; kernel.vars.len()],
        names: unique(kernel.vars.iter().map(|v: &VarDecl| plain(&v.name))),
        bases: vec![],
        cells: vec![],
        scopes: vec![Scope::default()],
        locals: HashMap::new(),
        lane_locals: HashMap::new(),
        alignments: vec![],
        members: Members::default(),
        depth: 0,
    };
    let mut scratch = declarations(kernel, &names, launch);
    let places = if launch.shared_bytes > 0 { kernel.shared_places().0 } else { vec![None; names.len()] };
    for ((buffer, name), place) in kernel.buffers.iter().zip(&names).zip(places) {
        if buffer.memory == Memory::Scratch {
            let bytes = (buffer.extent() * buffer.dtype.size()).max(1);
            scratch += &format!("    .local .align {ALIGNMENT} .b8 scratch_{name}[{bytes}];\n");
        }
        e.declare(buffer, name, place);
    }
    let mut alignments = alignments.iter();
    e.alignments = kernel
        .buffers
        .iter()
        .map(|b| match b.memory {
            Memory::Global(_) => alignments.next().copied().unwrap_or(1),
            _ => WIDEST,
        })
        .collect();
    e.task(launch);
    match kernel.threads {
        Some(_) => e.block(),
        None => e.scoped(|e| {
            e.hoist(&e.kernel.body);
            e.body(&e.kernel.body);
        }),
    }
    e.out.place("done", "");
    e.out.line("ret");
    let params = if params.is_empty() { String::new() } else { format!("\n{}\n", params.join(",\n")) };
    let mut limit = format!(".maxntid {}, 1, 1", launch.block);
    if kernel.threads.is_some() {
        // Else the assembler would rather spill than have fewer blocks at a time.
        limit += "\n.minnctapersm 1";
    }
    format!(".visible .entry {name}({params})\n{limit}\n{{\n{scratch}{}}}\n", e.out.finish())
}

impl<'k> Emitter<'k> {
    /// The registers of a buffer: its address, or its elements. Its place is that in dynamic shared memory.
    fn declare(&mut self, buffer: &crate::kernel::Buffer, name: &str, place: Option<usize>) {
        let mut cells = vec![];
        let base = match buffer.memory {
            Memory::Register => {
                let class = Class::of(buffer.dtype);
                let n = buffer.extent();
                let one = |i: usize| if n == 1 { name.to_string() } else { format!("{name}_{i}") };
                cells = (0..n).map(|i| self.out.named(class, &one(i))).collect();
                String::new()
            }
            Memory::Fragment(fragment) => {
                cells = self.fragment_cells(fragment, buffer.extent(), name);
                String::new()
            }
            Memory::Shared => self.shared_base(name, place),
            Memory::Global(_) => {
                let base = self.out.named(Class::Address, name);
                self.out.line(format!("ld.param.u64 {base}, [arg_{name}]"));
                self.out.line(format!("cvta.to.global.u64 {base}, {base}"));
                base
            }
            Memory::Scratch => {
                let base = self.out.named(Class::Address, name);
                self.out.line(format!("mov.u64 {base}, scratch_{name}"));
                base
            }
        };
        self.bases.push(base);
        self.cells.push(cells);
    }

    /// The thread's task, taken apart into the task variables.
    fn task(&mut self, launch: &Launch) {
        let tasks = &self.kernel.tasks;
        tasks.iter().for_each(|v| self.vars[v.0 as usize] = Binding::Known(0));
        let counting: Vec<Var> = tasks.iter().copied().filter(|v| self.extents[v.0 as usize] != 1).collect();
        let task = self.out.named(Class::Int, "task");
        let (block, thread) = (self.out.fresh(Class::Int), self.out.fresh(Class::Int));
        self.out.line(format!("mov.u32 {block}, %ctaid.x"));
        if self.kernel.threads.is_some() {
            self.out.line(format!("mov.s32 {task}, {block}"));
        } else {
            self.out.line(format!("mov.u32 {thread}, %tid.x"));
            self.out.line(format!("mad.lo.s32 {task}, {block}, {}, {thread}", launch.block));
        }
        if self.kernel.threads.is_none() && launch.is_ragged() {
            let past = self.out.fresh(Class::Predicate);
            self.out.line(format!("setp.ge.s32 {past}, {task}, {}", launch.tasks));
            self.out.line(format!("@{past} bra done"));
        }
        let mut rest = task;
        for (i, v) in counting.iter().enumerate().rev() {
            let mut digit = rest.clone();
            if i > 0 {
                let extent = self.extents[v.0 as usize] as i64;
                digit = self.out.named(Class::Int, &self.names[v.0 as usize]);
                self.divide(&rest, 0, extent, true, Some(&digit));
                rest = self.divide(&rest, 0, extent, false, None);
            }
            self.vars[v.0 as usize] = Binding::Dynamic { register: digit, depth: i + 1, offset: 0 };
        }
        self.depth = counting.len();
    }

    /// Emits a region whose values are not known outside it.
    pub fn scoped<T>(&mut self, emit: impl FnOnce(&mut Self) -> T) -> T {
        self.scopes.push(Scope::default());
        let out = emit(self);
        self.scopes.pop();
        out
    }

    pub fn body(&mut self, body: &'k [Stmt]) {
        for s in body {
            match s {
                Stmt::Loop { var, kind, body } => self.any_loop(*var, *kind, body),
                Stmt::If { guards, body } => self.branch(guards, body),
                Stmt::Store { buffer, index, value } => self.store(*buffer, index, value),
                // Threads hide latency by being many.
                Stmt::Prefetch { .. } => {}
                Stmt::Joint(joint) => self.joint(joint),
            }
        }
    }

    fn any_loop(&mut self, var: Var, kind: LoopKind, body: &'k [Stmt]) {
        let extent = self.extents[var.0 as usize];
        if self.load_pairs(var, kind, body) {
            return;
        }
        match kind {
            LoopKind::Serial if extent > 1 => self.counted_loop(var, body),
            LoopKind::Vector if extent > LONGEST_WRITTEN_OUT && !self.indexes_registers(var, body) => {
                self.counted_loop(var, body);
            }
            LoopKind::Vector if extent > 1 => self.lanes(var, body),
            LoopKind::Serial | LoopKind::Unroll | LoopKind::Vector => self.written_out(var, body),
            LoopKind::Threads | LoopKind::Warps => self.scoped(|e| e.body(body)),
            LoopKind::Rows(_) | LoopKind::Columns(_) => self.over_slots(var, kind, body),
        }
    }

    fn indexes_registers(&self, var: Var, body: &[Stmt]) -> bool {
        accesses(body).iter().any(|(b, i)| {
            self.kernel.buffer_of(*b).memory == Memory::Register && i.iter().any(|i| i.mentions(var))
        })
    }

    fn written_out(&mut self, var: Var, body: &'k [Stmt]) {
        for i in 0..self.extents[var.0 as usize] {
            self.vars[var.0 as usize] = Binding::Known(i as i64);
            self.body(body);
        }
        self.vars[var.0 as usize] = Binding::Unbound;
    }

    /// True for the body of a loop in which warps multiply matrices, or that has several loads from memory under way.
    fn is_long(&self, body: &[Stmt]) -> bool {
        let is_global = |b: BufferId| matches!(self.kernel.buffer_of(b).memory, Memory::Global(_));
        let in_memory = |body: &[Stmt]| accesses(body).iter().any(|a| is_global(a.0));
        body.iter().any(|s| match s {
            Stmt::Loop { kind: LoopKind::Unroll, var, body } => {
                self.extents[var.0 as usize] >= WRITTEN_OUT && in_memory(body) || self.is_long(body)
            }
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => self.is_long(body),
            Stmt::Joint(joint) => matches!(joint, Joint::Multiply { .. }),
            Stmt::Store { .. } | Stmt::Prefetch { .. } => false,
        })
    }

    fn counted_loop(&mut self, var: Var, body: &'k [Stmt]) {
        let (extent, name) = (self.extents[var.0 as usize], self.names[var.0 as usize].clone());
        let label = self.out.label(&format!("for_{name}"));
        let counter = self.out.named(Class::Int, &name);
        self.out.line(format!("mov.s32 {counter}, 0"));
        self.out.place(&label, &format!("{name} in 0..{extent}"));
        self.out.indent();
        if self.is_long(body) {
            // It is as long as it should be: the assembler would write it out again, and take twice the registers, or spill.
            self.out.line(".pragma \"nounroll\"");
        }
        self.depth += 1;
        self.vars[var.0 as usize] =
            Binding::Dynamic { register: counter.clone(), depth: self.depth, offset: 0 };
        self.scoped(|e| {
            e.hoist(body);
            e.body(body);
        });
        self.vars[var.0 as usize] = Binding::Unbound;
        self.depth -= 1;
        let again = self.out.fresh(Class::Predicate);
        self.out.line(format!("add.s32 {counter}, {counter}, 1"));
        self.out.line(format!("setp.lt.s32 {again}, {counter}, {extent}"));
        self.out.line(format!("@{again} bra {label}"));
        self.out.outdent();
    }

    fn branch(&mut self, guards: &[Guard], body: &'k [Stmt]) {
        match self.guards(guards) {
            Ok(true) => self.body(body),
            Ok(false) => {}
            Err(holds) => {
                if let [Stmt::Store { buffer, index, value }] = body
                    && self.is_of_registers(value)
                    && !in_registers(self.kernel.buffer_of(*buffer).memory)
                {
                    return self.store_if(Some(&holds), *buffer, index, value);
                }
                let after = self.out.label("after");
                self.out.line(format!("@!{holds} bra {after}"));
                self.scoped(|e| e.body(body));
                self.out.place(&after, "");
            }
        }
    }

    /// True if a value takes a few instructions and no memory: a store of it needs no branch.
    fn is_of_registers(&self, value: &Expr) -> bool {
        let (mut steps, mut right) = (0, true);
        value.walk(&mut |e| {
            steps += 1;
            right &= match e {
                Expr::Load(b, _) => in_registers(self.kernel.buffer_of(*b).memory),
                Expr::Gather { .. } | Expr::Guarded { .. } | Expr::Let(..) | Expr::Local(_) => false,
                _ => true,
            };
        });
        right && steps <= LONGEST_UNCONDITIONAL
    }

    fn store(&mut self, buffer: BufferId, index: &[Index], value: &Expr) {
        self.store_if(None, buffer, index, value);
    }

    /// A store; under a guard if there is one, which is no register's.
    fn store_if(&mut self, guard: Option<&str>, buffer: BufferId, index: &[Index], value: &Expr) {
        self.locals.clear();
        let b = self.kernel.buffer_of(buffer);
        if let Memory::Fragment(fragment) = b.memory {
            return self.store_fragment(fragment, buffer, index, value);
        }
        if b.memory == Memory::Register {
            let cell = self.cell(buffer, index);
            let value = self.expr_to(value, Some(&cell));
            self.out.copy(&cell, &value);
            return;
        }
        let value = self.expr(value);
        let value = self.out.in_memory(&value);
        let place = self.place(buffer, index);
        let guard = guard.map_or_else(String::new, |g| format!("@{g} "));
        self.out.line(format!("{guard}st.{}.{} {place}, {value}", space(b.memory), stored(b.dtype)));
    }

    /// The register of an element of a register buffer.
    pub fn cell(&self, buffer: BufferId, index: &[Index]) -> String {
        if let Memory::Fragment(fragment) = self.kernel.buffer_of(buffer).memory {
            return self.fragment_cell(fragment, buffer, &index[..index.len() - 2]);
        }
        let flat = self.resolve(&self.kernel.flat(buffer, index));
        let element = flat.known().expect("verified: registers have constant places");
        self.cells[buffer.0 as usize][element as usize].clone()
    }

    /// How deep the innermost loop around is.
    pub fn depth_of(&self, atom: &Atom) -> usize {
        match atom {
            Atom::Var(v) => match &self.vars[v.0 as usize] {
                Binding::Dynamic { depth, .. } => *depth,
                Binding::Unbound | Binding::Known(_) => 0,
            },
            Atom::Div(i, _) | Atom::Mod(i, _) => i.terms.keys().map(|a| self.depth_of(a)).max().unwrap_or(0),
        }
    }
}

impl Writer {
    /// Copies a value unless it is there already.
    pub fn copy(&mut self, to: &str, value: &Operand) {
        if value.text != to {
            self.line(format!("mov.{} {to}, {}", Class::of(value.dtype).ptx(), value.text));
        }
    }

    /// The value in a register, if it is a constant.
    pub fn in_register(&mut self, value: &Operand) -> String {
        if value.text.starts_with('%') {
            return value.text.clone();
        }
        let register = self.fresh(Class::of(value.dtype));
        self.copy(&register, value);
        register
    }
}

/// The state space of a buffer in memory.
pub fn space(memory: Memory) -> &'static str {
    match memory {
        Memory::Global(_) => "global",
        Memory::Shared => "shared",
        Memory::Scratch | Memory::Register | Memory::Fragment(_) => "local",
    }
}

/// The type of an element in memory.
pub fn stored(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "u8",
        DType::I32 => "s32",
        DType::F32 | DType::F64 => "f32",
    }
}

/// All loads and stores.
pub fn accesses(body: &[Stmt]) -> Vec<(BufferId, &[Index])> {
    let mut out = vec![];
    Stmt::walk(body, &mut |stmt| {
        // What is fetched ahead on a CPU is left out here.
        if !matches!(stmt, Stmt::Prefetch { .. }) {
            out.extend(stmt.places());
        }
    });
    out
}
