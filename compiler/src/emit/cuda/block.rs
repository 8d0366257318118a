//! Blocks of threads: what a thread is in its block and its warp, elements of fragments, and what
//! threads do together.
//!
//! With `g` = lane / 4 and `t` = lane mod 4, a lane's registers of a fragment are these elements (row, column),
//! in the order in which `mma` takes them; those of bf16 hold two, the second one in the upper half:
//!
//! | fragment | registers |
//! |---|---|
//! | first  | (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4) |
//! | second | (t, g), (t + 4, g) |
//! | first bf16  | (g, 2t and 2t + 1), (g + 8, 2t and …), (g, 2t + 8 and …), (g + 8, 2t + 8 and …) |
//! | second bf16 | (2t and 2t + 1, g), (2t + 8 and 2t + 9, g) |
//! | sum    | (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1) |
//!
//! A row or column is a register and a constant, so that the places of all of a lane's elements share an
//! address.

use super::function::{Binding, Emitter};
use super::launch::Launch;
use super::matrix::{self, MatrixLoad};
use super::text::Class;
use crate::kernel::block::{Part, SHARED_ALIGNMENT, WARP};
use crate::kernel::{
    BinOp, BufferId, Expr, Fragment, Guard, Index, Joint, Kernel, LoopKind, Memory, Rounding, Stmt, Var,
};

/// The bytes of a copy from where on it passes by the first cache.
const WIDE_COPY: usize = 16;

/// Registers with what a thread is, and the element of a fragment that is being worked on.
#[derive(Default)]
pub struct Members {
    thread: String,
    warp: String,
    lane: String,
    /// lane / 4
    group: String,
    /// lane mod 4
    quad: String,
    /// twice that
    pair: String,
    /// Which of a lane's rows and columns.
    slot: [usize; 2],
    /// The line and the depth whose place a lane gives when a warp loads a matrix of the first factor, of the second.
    given: [Option<[String; 2]>; 2],
    /// The first element of a pair, until the second one is there.
    first_of_pair: Option<String>,
}

/// The memory that kernels share which have asked for more than there is for all: the driver gives it at the launch.
const DYNAMIC: &str = "dynamic_shared";

/// The declaration of that memory, in front of all entries.
pub fn dynamic_declaration() -> String {
    format!("\n.extern .shared .align {SHARED_ALIGNMENT} .b8 {DYNAMIC}[];\n")
}

/// The declarations of shared buffers; none where they are in dynamic memory.
pub fn declarations(kernel: &Kernel, names: &[String], launch: &Launch) -> String {
    if launch.shared_bytes > 0 {
        return String::new();
    }
    let shared = kernel.buffers.iter().zip(names).filter(|(b, _)| b.memory == Memory::Shared);
    let one = |(b, name): (&crate::kernel::Buffer, &String)| {
        let bytes = (b.extent() * b.dtype.size()).max(1);
        format!("    .shared .align {SHARED_ALIGNMENT} .b8 shared_{name}[{bytes}];\n")
    };
    shared.map(one).collect()
}

/// The rows and columns that a lane holds of a fragment, from its first one on.
fn slots(fragment: Fragment) -> [&'static [i64]; 2] {
    match fragment {
        Fragment::First(Rounding::Tf32) => [&[0, 8], &[0, 4]],
        Fragment::First(Rounding::Bf16) => [&[0, 8], &[0, 1, 8, 9]],
        Fragment::Second(Rounding::Tf32) => [&[0, 4], &[0]],
        Fragment::Second(Rounding::Bf16) => [&[0, 1, 8, 9], &[0]],
        Fragment::Sum => [&[0, 8], &[0, 1]],
    }
}

/// The place among a lane's registers of a fragment.
fn number(fragment: Fragment, [row, column]: [usize; 2]) -> usize {
    match fragment {
        Fragment::First(Rounding::Tf32) => 2 * column + row,
        Fragment::First(Rounding::Bf16) => 2 * (column / 2) + row,
        Fragment::Second(Rounding::Tf32) => row,
        Fragment::Second(Rounding::Bf16) => row / 2,
        Fragment::Sum => 2 * row + column,
    }
}

/// Registers that a lane has of a fragment.
fn registers(fragment: Fragment) -> usize {
    match fragment {
        Fragment::First(_) | Fragment::Sum => 4,
        Fragment::Second(_) => 2,
    }
}

impl<'k> Emitter<'k> {
    /// A register with the address of a shared buffer, which begins at a place in dynamic memory if it is there.
    pub fn shared_base(&mut self, name: &str, dynamic: Option<usize>) -> String {
        let base = self.out.named(Class::Address, name);
        match dynamic {
            None => self.out.line(format!("mov.u64 {base}, shared_{name}")),
            Some(place) => {
                self.out.line(format!("mov.u64 {base}, {DYNAMIC}"));
                self.out.line(format!("add.s64 {base}, {base}, {place}"));
            }
        }
        base
    }

    /// The registers of a fragment buffer of so many elements, matrix by matrix.
    pub fn fragment_cells(&mut self, fragment: Fragment, elements: usize, name: &str) -> Vec<String> {
        let class = if fragment == Fragment::Sum { Class::Float } else { Class::Bits };
        let matrices = elements / fragment.shape().iter().product::<usize>();
        let mut out = vec![];
        for m in 0..matrices {
            for r in 0..registers(fragment) {
                out.push(self.out.named(class, &format!("{name}_{m}_{r}")));
            }
        }
        out
    }

    /// The body of a block's kernel: what does not change in a step is computed before it.
    pub fn block(&mut self) {
        self.members();
        for s in &self.kernel.body {
            self.scoped(|e| {
                e.hoist(std::slice::from_ref(s));
                e.body(std::slice::from_ref(s));
            });
        }
    }

    /// Puts into registers what the thread is, as far as the kernel asks, and binds the variables of all
    /// loops over members: they never change.
    fn members(&mut self) {
        let mut loops = vec![];
        member_loops(&self.kernel.body, &mut loops);
        self.depth += 1;
        let thread = self.out.named(Class::Int, "thread");
        self.out.line(format!("mov.u32 {thread}, %tid.x"));
        self.members.thread = thread.clone();
        if loops.iter().any(|(_, kind)| *kind != LoopKind::Threads) {
            let [warp, lane, group, quad, pair] =
                ["warp", "lane", "group", "quad", "pair"].map(|n| self.out.named(Class::Int, n));
            self.out.line(format!("shr.s32 {warp}, {thread}, {}", WARP.trailing_zeros()));
            self.out.line(format!("and.b32 {lane}, {thread}, {}", WARP - 1));
            self.out.line(format!("shr.s32 {group}, {lane}, 2"));
            self.out.line(format!("and.b32 {quad}, {lane}, 3"));
            self.out.line(format!("shl.b32 {pair}, {quad}, 1"));
            self.members = Members { thread, warp, lane, group, quad, pair, ..Members::default() };
        }
        self.bind_loads();
        for (var, kind) in loops {
            if !matches!(self.vars[var.0 as usize], Binding::Unbound) {
                continue;
            }
            let m = &self.members;
            let register = match kind {
                LoopKind::Warps => &m.warp,
                LoopKind::Rows(Fragment::First(_) | Fragment::Sum)
                | LoopKind::Columns(Fragment::Second(_)) => &m.group,
                LoopKind::Rows(Fragment::Second(Rounding::Tf32))
                | LoopKind::Columns(Fragment::First(Rounding::Tf32)) => &m.quad,
                LoopKind::Rows(Fragment::Second(Rounding::Bf16))
                | LoopKind::Columns(Fragment::First(Rounding::Bf16) | Fragment::Sum) => &m.pair,
                _ => &m.thread,
            };
            let register = register.clone();
            self.vars[var.0 as usize] = match (kind, self.extents[var.0 as usize]) {
                (LoopKind::Warps, 1) => Binding::Known(0),
                _ => Binding::Dynamic { register, depth: self.depth, offset: 0 },
            };
        }
    }

    /// Binds the variables of loops that load whole matrices to the line and the depth whose place the lane gives.
    fn bind_loads(&mut self) {
        for load in matrix::loads(self.kernel, &self.extents) {
            let side = usize::from(matches!(load.fragment, Fragment::Second(_)));
            let known = self.members.given[side].clone();
            let registers = known.unwrap_or_else(|| self.given(side));
            self.members.given[side] = Some(registers.clone());
            for (var, register) in [load.line, load.depth].into_iter().zip(registers) {
                self.vars[var.0 as usize] = Binding::Dynamic { register, depth: self.depth, offset: 0 };
            }
        }
    }

    /// The line and the depth whose place a lane gives. Eight lanes have a matrix's lines; its number is that of
    /// the others: of the first factor, lines go on in the next matrix, of the second one the depth ([`matrix`]). Where
    /// fewer matrices are loaded, nobody takes note of the rest.
    fn given(&mut self, side: usize) -> [String; 2] {
        let [line, depth] = ["line", "depth"].map(|n| self.out.named(Class::Int, n));
        let lane = self.members.lane.clone();
        let of_depth = if side == 0 { 2 } else { 1 };
        self.out.line(format!("shr.s32 {depth}, {lane}, {of_depth}"));
        self.out.line(format!("and.b32 {depth}, {depth}, {}", matrix::ROW));
        if side == 0 {
            self.out.line(format!("and.b32 {line}, {lane}, 15"));
            return [line, depth];
        }
        let within = self.out.fresh(Class::Int);
        self.out.line(format!("and.b32 {within}, {lane}, 7"));
        self.out.line(format!("shr.s32 {line}, {lane}, 1"));
        self.out.line(format!("and.b32 {line}, {line}, 8"));
        self.out.line(format!("or.b32 {line}, {line}, {within}"));
        [line, depth]
    }

    /// Loads a matrix of a factor, or two beside each other, and rounds them unless they are.
    fn load_matrix(&mut self, load: &MatrixLoad) {
        let ((buffer, index), (from, at)) = (load.to, load.from);
        let first = self.matrix(load.fragment, buffer, &index[..index.len() - 2]);
        let count = load.matrices * registers(load.fragment);
        let cells = self.cells[buffer.0 as usize][first..first + count].to_vec();
        let place = self.place(from, at);
        self.out.line(format!(
            "ldmatrix.sync.aligned.m8n8.x{count}.shared.b16 {{{}}}, {place}",
            cells.join(", ")
        ));
        if !self.kernel.buffer_of(from).tf32 {
            for cell in cells {
                self.out.line(format!("cvt.rna.tf32.f32 {cell}, {cell}"));
            }
        }
    }

    /// Loads the matrices of an unrolled loop two at a time; false if it is none that does only that.
    pub fn load_pairs(&mut self, var: Var, kind: LoopKind, body: &'k [Stmt]) -> bool {
        let Some(load) = MatrixLoad::pairs(self.kernel, &self.extents, var, kind, body) else {
            return false;
        };
        for i in (0..self.extents[var.0 as usize]).step_by(load.matrices) {
            self.vars[var.0 as usize] = Binding::Known(i as i64);
            self.load_matrix(&load);
        }
        self.vars[var.0 as usize] = Binding::Unbound;
        true
    }

    /// A lane's share of a loop over rows or columns, written out.
    pub fn over_slots(&mut self, var: Var, kind: LoopKind, body: &'k [Stmt]) {
        if let Some(load) = MatrixLoad::of(self.kernel, &self.extents, var, kind, body) {
            return self.load_matrix(&load);
        }
        let (dimension, places) = match kind {
            LoopKind::Columns(f) => (1, slots(f)[1]),
            LoopKind::Rows(f) => (0, slots(f)[0]),
            _ => unreachable!("called for rows and columns"),
        };
        if kind == LoopKind::Columns(Fragment::Sum) && self.keeps_nothing(body) {
            return self.columns(var, places, body);
        }
        for slot in places.iter().copied().enumerate() {
            self.slot(dimension, var, slot);
            self.body(body);
        }
        self.slot(dimension, var, (0, 0));
    }

    /// True if no statement hands something on to another one in a register, which all columns would share.
    fn keeps_nothing(&self, body: &[Stmt]) -> bool {
        body.iter().all(|s| match s {
            Stmt::Store { buffer, .. } => self.kernel.buffer_of(*buffer).memory != Memory::Register,
            Stmt::If { body, .. } => self.keeps_nothing(body),
            _ => false,
        })
    }

    /// Goes to one of a lane's rows or columns: its number, and how far it is from the first one.
    pub fn slot(&mut self, dimension: usize, var: Var, (number, by): (usize, i64)) {
        self.members.slot[dimension] = number;
        if let Binding::Dynamic { offset, .. } = &mut self.vars[var.0 as usize] {
            *offset = by;
        }
    }

    /// The register of the element that is being worked on, of a matrix of a buffer.
    pub fn fragment_cell(&self, fragment: Fragment, buffer: BufferId, matrix: &[Index]) -> String {
        let matrix = self.matrix(fragment, buffer, matrix);
        self.cells[buffer.0 as usize][matrix + number(fragment, self.members.slot)].clone()
    }

    /// The number of a matrix's first register.
    fn matrix(&self, fragment: Fragment, buffer: BufferId, index: &[Index]) -> usize {
        let elements: usize = fragment.shape().iter().product();
        let flat = self.resolve(&self.kernel.flat(buffer, index));
        let element = flat.known().expect("verified: matrices have constant places");
        element as usize / elements * registers(fragment)
    }

    fn operands(&self, part: &Part) -> String {
        let Memory::Fragment(fragment) = self.kernel.buffer_of(part.buffer).memory else {
            unreachable!("verified: products are of fragments");
        };
        let first = self.matrix(fragment, part.buffer, &part.index);
        let cells = &self.cells[part.buffer.0 as usize][first..first + registers(fragment)];
        format!("{{{}}}", cells.join(", "))
    }

    /// Stores an element of a fragment; factors are rounded, unless they are already.
    pub fn store_fragment(&mut self, fragment: Fragment, buffer: BufferId, index: &[Index], value: &Expr) {
        let cell = self.cell(buffer, index);
        let Some(rounding) = fragment.rounding() else {
            let value = self.expr_to(value, Some(&cell));
            self.out.copy(&cell, &value);
            return;
        };
        let is_rounded = rounding == Rounding::Tf32 && self.kernel.is_tf32(value);
        let value = self.expr(value);
        let value = self.out.in_register(&value);
        match (rounding, self.members.first_of_pair.take()) {
            (Rounding::Tf32, _) if is_rounded => self.out.line(format!("mov.b32 {cell}, {value}")),
            (Rounding::Tf32, _) => self.out.line(format!("cvt.rna.tf32.f32 {cell}, {value}")),
            (Rounding::Bf16, None) => {
                let kept = self.out.fresh(Class::Float);
                self.out.line(format!("mov.f32 {kept}, {value}"));
                self.members.first_of_pair = Some(kept);
            }
            (Rounding::Bf16, Some(first)) => {
                self.out.line(format!("cvt.rn.bf16x2.f32 {cell}, {value}, {first}"));
            }
        }
    }

    /// Emits what threads do together.
    pub fn joint(&mut self, joint: &Joint) {
        match joint {
            Joint::Barrier => self.out.line("bar.sync 0"),
            Joint::Commit => self.out.line("cp.async.commit_group"),
            Joint::Wait { open } => self.out.line(format!("cp.async.wait_group {open}")),
            Joint::Copy { to, index, from, at, elements, guards } => {
                self.copy((*to, index), (*from, at), *elements, guards);
            }
            Joint::Multiply { sum, first, second } => {
                let word = match self.kernel.buffer_of(first.buffer).memory {
                    Memory::Fragment(Fragment::First(Rounding::Bf16)) => "m16n8k16.row.col.f32.bf16.bf16.f32",
                    _ => "m16n8k8.row.col.f32.tf32.tf32.f32",
                };
                let [sum, first, second] = [sum, first, second].map(|p| self.operands(p));
                self.out.line(format!("mma.sync.aligned.{word} {sum}, {first}, {second}, {sum}"));
            }
            Joint::Combine { op, buffer, index } => self.combine(*op, *buffer, index),
        }
    }

    fn copy(
        &mut self,
        (to, index): (BufferId, &[Index]),
        (from, at): (BufferId, &[Index]),
        elements: usize,
        guards: &[Guard],
    ) {
        let bytes = elements * self.kernel.buffer_of(to).dtype.size();
        let size = self.copy_size(guards, bytes);
        let (to, from) = (self.place(to, index), self.place(from, at));
        let cache = if bytes == WIDE_COPY { "cg" } else { "ca" };
        self.out.line(format!("cp.async.{cache}.shared.global {to}, {from}, {bytes}{size}"));
    }

    /// The bytes that are read, as an instruction's last operand: none, where the guards do not hold. Copies
    /// beside each other often have the same guards.
    fn copy_size(&mut self, guards: &[Guard], bytes: usize) -> String {
        let key: Vec<Index> = guards.iter().map(|g| self.resolve(&g.0)).collect();
        let key = (key, bytes);
        if let Some(size) = self.scopes.iter().rev().find_map(|s| s.sizes.get(&key)) {
            return format!(", {size}");
        }
        match self.guards(guards) {
            Ok(true) => String::new(),
            Ok(false) => ", 0".to_string(),
            Err(holds) => {
                let size = self.out.fresh(Class::Int);
                self.out.line(format!("selp.s32 {size}, {bytes}, 0, {holds}"));
                self.scope().sizes.insert(key, size.clone());
                format!(", {size}")
            }
        }
    }

    fn combine(&mut self, op: BinOp, buffer: BufferId, index: &[Index]) {
        let cell = self.cell(buffer, index);
        let dtype = self.kernel.buffer_of(buffer).dtype;
        let mut distance = WARP / 2;
        while distance > 0 {
            let other = self.out.fresh(Class::Float);
            self.out.line(format!("shfl.sync.bfly.b32 {other}, {cell}, {distance}, 31, 0xffffffff"));
            let operands = [&cell, &other].map(|r| super::expr::Operand::new(r, dtype));
            let value = self.out.binary(op, &operands[0], &operands[1], Some(&cell));
            self.out.copy(&cell, &value);
            distance /= 2;
        }
    }
}

/// The loops over members, and their variables.
fn member_loops(body: &[Stmt], out: &mut Vec<(Var, LoopKind)>) {
    for s in body {
        match s {
            Stmt::Loop { var, kind, body } => {
                if !matches!(kind, LoopKind::Serial | LoopKind::Unroll | LoopKind::Vector) {
                    out.push((*var, *kind));
                }
                member_loops(body, out);
            }
            Stmt::If { body, .. } => member_loops(body, out),
            Stmt::Store { .. } | Stmt::Prefetch { .. } | Stmt::Joint(_) => {}
        }
    }
}
