//! Builds one kernel: blocks, loops, guards, registers and lanes.
//!
//! The builder keeps the current block of statements; loops and guards take closures that fill
//! theirs. In *lane mode* every assignment becomes the lanes of a vector loop, so that one way of
//! writing an operation serves scalars and vectors.

use std::collections::{HashMap, HashSet};

use nnc_runtime::DType;

use super::access::Place;
use crate::graph::{Graph, NodeId};
use crate::kernel::module::Arg;
use crate::kernel::{
    BufferId, Cache, Expr, Extents, Guard, Index, Joint, Kernel, LoopKind, Memory, Stmt, Var,
};

/// What a value outside the group is to a kernel.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// A tensor in memory.
    Memory(Place),
    /// The same number everywhere.
    Splat(DType, f64),
}

/// What the kernel computes and from what.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The nodes that this kernel computes.
    pub members: HashSet<NodeId>,
    /// The values it reads.
    pub operands: HashMap<NodeId, Operand>,
}

/// A register: one element, or one a lane.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    buffer: BufferId,
    index: Index,
}

impl Cell {
    /// Its value.
    pub fn get(&self) -> Expr {
        Expr::Load(self.buffer, vec![self.index.clone()])
    }

    /// Its buffer, and its place there.
    pub fn place(&self) -> (BufferId, Vec<Index>) {
        (self.buffer, vec![self.index.clone()])
    }

    /// The value of one of its lanes, outside of lane mode.
    pub fn lane(&self, lane: usize) -> Expr {
        Expr::Load(self.buffer, vec![Index::from(lane)])
    }
}

struct Lanes {
    /// What stands for the lane in indices while a statement is made.
    var: Var,
    width: usize,
    /// The vector loops made so far.
    loops: Vec<Var>,
}

/// A kernel in the making.
pub(super) struct Builder<'a> {
    pub scope: &'a Scope<'a>,
    pub kernel: Kernel,
    pub args: Vec<Arg>,
    /// Places with buffers; whether they are written.
    pub bound: Vec<(Place, bool, BufferId)>,
    /// Guards that hold for every statement of this block.
    pub held: Vec<Guard>,
    /// Guards of the expression being made: its statements go under an `if`.
    pub pending: Vec<Guard>,
    /// Values already in registers.
    pub memo: Vec<(NodeId, Vec<Index>, Expr)>,
    /// Elementwise kernels over equal dense tensors run over one flat index.
    pub flat: Option<Index>,
    /// The nodes whose values a fast path provides (through `memo`).
    pub provided: Vec<NodeId>,
    /// Set when a fast path meets an index it was not made for.
    pub failed: bool,
    extents: Extents,
    block: Vec<Stmt>,
    lanes: Option<Lanes>,
}

impl<'a> Builder<'a> {
    /// An empty kernel.
    pub fn new(name: &str, scope: &'a Scope<'a>) -> Builder<'a> {
        Builder {
            scope,
            kernel: Kernel::new(name),
            args: vec![],
            bound: vec![],
            held: vec![],
            pending: vec![],
            memo: vec![],
            flat: None,
            provided: vec![],
            failed: false,
            extents: vec![],
            block: vec![],
            lanes: None,
        }
    }

    /// The finished kernel and its arguments.
    pub fn finish(mut self) -> (Kernel, Vec<Arg>) {
        self.kernel.body = self.block;
        (self.kernel, self.args)
    }

    /// The extents of all variables.
    pub fn extents(&self) -> &Extents {
        &self.extents
    }

    fn var(&mut self, name: &str, extent: usize) -> Var {
        self.extents.push(extent);
        self.kernel.var(name, extent)
    }

    /// A task dimension (none, if there is only one task along it).
    pub fn task(&mut self, name: &str, extent: usize) -> Index {
        if extent == 1 {
            return Index::default();
        }
        let v = self.var(name, extent);
        self.kernel.tasks.push(v);
        v.into()
    }

    /// A loop; written plainly if it has one iteration, left out if it has none.
    pub fn repeat(
        &mut self,
        kind: LoopKind,
        name: &str,
        extent: usize,
        body: impl FnOnce(&mut Builder<'a>, Index),
    ) {
        match extent {
            0 => {}
            1 if kind != LoopKind::Vector => body(self, Index::default()),
            _ => {
                let var = self.var(name, extent);
                let body = self.scoped(|b| body(b, var.into()));
                if !body.is_empty() {
                    self.push(Stmt::Loop { var, kind, body });
                }
            }
        }
    }

    /// A loop over members of a block; one over a single member, too.
    pub fn members(
        &mut self,
        kind: LoopKind,
        name: &str,
        extent: usize,
        body: impl FnOnce(&mut Builder<'a>, Index),
    ) {
        let var = self.var(name, extent);
        let body = self.scoped(|b| body(b, var.into()));
        self.push(Stmt::Loop { var, kind, body });
    }

    /// What the threads of a block do together.
    pub fn joint(&mut self, joint: Joint) {
        self.push(Stmt::Joint(joint));
    }

    /// A serial loop.
    pub fn serial(&mut self, name: &str, extent: usize, body: impl FnOnce(&mut Builder<'a>, Index)) {
        self.repeat(LoopKind::Serial, name, extent, body);
    }

    /// A loop that is written out.
    pub fn unroll(&mut self, name: &str, extent: usize, body: impl FnOnce(&mut Builder<'a>, Index)) {
        self.repeat(LoopKind::Unroll, name, extent, body);
    }

    /// A vector loop made by hand.
    pub fn vector(&mut self, width: usize, body: impl FnOnce(&mut Builder<'a>, Index)) {
        self.repeat(LoopKind::Vector, "lane", width, body);
    }

    /// Statements under guards.
    pub fn when(&mut self, guards: Vec<Guard>, body: impl FnOnce(&mut Builder<'a>)) {
        if guards.is_empty() {
            return body(self);
        }
        let held = self.held.len();
        self.held.extend(guards.iter().cloned());
        let body = self.scoped(body);
        self.held.truncate(held);
        self.push(Stmt::If { guards, body });
    }

    /// Statements under guards from which others follow: accesses need not ask for those.
    pub fn when_implied(
        &mut self,
        guards: Vec<Guard>,
        implied: Vec<Guard>,
        body: impl FnOnce(&mut Builder<'a>),
    ) {
        self.when(guards, |b| {
            let held = b.held.len();
            b.held.extend(implied);
            body(b);
            b.held.truncate(held);
        });
    }

    /// True if a guard would hold for some lanes of the statements being made and not for others.
    pub fn tells_lanes_apart(&self, guards: &[Guard]) -> bool {
        self.lanes.as_ref().is_some_and(|l| guards.iter().any(|g| g.0.mentions(l.var)))
    }

    /// `value()` where the guards hold, else `otherwise`.
    pub fn guarded(
        &mut self,
        guards: Vec<Guard>,
        otherwise: Expr,
        value: impl FnOnce(&mut Builder<'a>) -> Expr,
    ) -> Expr {
        if guards.is_empty() {
            return value(self);
        }
        let (pending, memo) = (self.pending.len(), self.memo.len());
        self.pending.extend(guards.iter().cloned());
        let value = Box::new(value(self));
        self.pending.truncate(pending);
        self.memo.truncate(memo);
        Expr::Guarded { guards, value, otherwise: Box::new(otherwise) }
    }

    fn scoped(&mut self, body: impl FnOnce(&mut Builder<'a>)) -> Vec<Stmt> {
        let outer = std::mem::take(&mut self.block);
        let pending = std::mem::take(&mut self.pending);
        let (memo, held) = (self.memo.len(), self.held.len());
        self.held.extend(pending.iter().cloned());
        body(self);
        self.memo.truncate(memo);
        self.held.truncate(held);
        self.pending = pending;
        std::mem::replace(&mut self.block, outer)
    }

    fn push(&mut self, stmt: Stmt) {
        let stmt = match self.pending.is_empty() {
            true => stmt,
            false => Stmt::If { guards: self.pending.clone(), body: vec![stmt] },
        };
        self.block.push(stmt);
    }

    /// Runs `body` in lane mode: the index it gets stands for the lane.
    pub fn with_lanes(&mut self, width: usize, body: impl FnOnce(&mut Builder<'a>, Index)) {
        let var = self.var("lane", width);
        let memo = self.memo.len();
        self.lanes = Some(Lanes { var, width, loops: vec![] });
        body(self, var.into());
        self.lanes = None;
        self.memo.truncate(memo);
    }

    /// What stands for the lane in lane mode; else nothing.
    pub fn lane(&self) -> Index {
        self.lanes.as_ref().map_or(Index::default(), |l| l.var.into())
    }

    /// `buffer[index] = value`; in lane mode, for every lane.
    pub fn store(&mut self, buffer: BufferId, index: Vec<Index>, value: Expr) {
        let stmt = Stmt::Store { buffer, index, value };
        let Some(lanes) = &mut self.lanes else { return self.push(stmt) };
        let (from, width) = (lanes.var, lanes.width);
        if let Some(Stmt::Loop { var, body, .. }) = self.block.last_mut()
            && self.pending.is_empty()
            && lanes.loops.contains(var)
        {
            body.push(rename_stmt(&stmt, from, *var, &self.extents));
            return;
        }
        // The first loop takes the variable itself.
        let first = lanes.loops.is_empty();
        let var = if first { from } else { self.var("lane", width) };
        let mut body = rename_stmt(&stmt, from, var, &self.extents);
        if let Some(lanes) = &mut self.lanes {
            lanes.loops.push(var);
        }
        let (inner, outer): (Vec<Guard>, Vec<Guard>) =
            self.pending.iter().cloned().partition(|g| g.0.mentions(from));
        if !inner.is_empty() {
            let guards = inner.iter().map(|g| Guard(rename(&g.0, from, var, &self.extents))).collect();
            body = Stmt::If { guards, body: vec![body] };
        }
        let vector = Stmt::Loop { var, kind: LoopKind::Vector, body: vec![body] };
        self.block.push(match outer.is_empty() {
            true => vector,
            false => Stmt::If { guards: outer, body: vec![vector] },
        });
    }

    /// A hint that the cache line of an element is read soon.
    pub fn prefetch(&mut self, buffer: BufferId, index: Vec<Index>, cache: Cache) {
        self.push(Stmt::Prefetch { buffer, index, cache });
    }

    /// A register for one value (a lane each in lane mode).
    pub fn cell(&mut self, name: &str, dtype: DType) -> Cell {
        let (width, index) = match &self.lanes {
            Some(l) => (l.width, l.var.into()),
            None => (1, Index::default()),
        };
        let buffer = self.kernel.buffer(name, dtype, &[width], Memory::Register);
        Cell { buffer, index }
    }

    /// The scratch buffer of that name and shape, made on first use.
    pub fn scratch(&mut self, name: &str, shape: &[usize]) -> BufferId {
        self.buffer(name, shape, Memory::Scratch)
    }

    /// The buffer of that name and shape, made on first use.
    pub fn buffer(&mut self, name: &str, shape: &[usize], memory: Memory) -> BufferId {
        let same = |b: &crate::kernel::Buffer| b.memory == memory && b.name == name && b.shape == shape;
        match self.kernel.buffers.iter().position(same) {
            Some(i) => BufferId(i as u32),
            None => self.kernel.buffer(name, DType::F32, shape, memory),
        }
    }

    /// Puts a value into a register.
    pub fn assign(&mut self, cell: &Cell, value: Expr) {
        self.store(cell.buffer, vec![cell.index.clone()], value);
    }

    /// A register that holds the value.
    pub fn named(&mut self, name: &str, dtype: DType, value: Expr) -> Expr {
        let cell = self.cell(name, dtype);
        self.assign(&cell, value);
        cell.get()
    }

    /// The value in a form that may be used twice without being computed twice.
    pub fn shared(&mut self, dtype: DType, value: Expr) -> Expr {
        match &value {
            Expr::Const(..) => value,
            Expr::Load(b, _)
                if matches!(
                    self.kernel.buffers[b.0 as usize].memory,
                    Memory::Register | Memory::Fragment(_)
                ) =>
            {
                value
            }
            _ => self.named("t", dtype, value),
        }
    }
}

fn rename(i: &Index, from: Var, to: Var, extents: &Extents) -> Index {
    match from == to || !i.mentions(from) {
        true => i.clone(),
        false => i.substitute(from, &to.into(), extents),
    }
}

fn rename_stmt(s: &Stmt, from: Var, to: Var, extents: &Extents) -> Stmt {
    match s {
        Stmt::Store { buffer, index, value } => Stmt::Store {
            buffer: *buffer,
            index: index.iter().map(|i| rename(i, from, to, extents)).collect(),
            value: rename_expr(value, from, to, extents),
        },
        // Lane mode makes vector loops of single stores.
        other => other.clone(),
    }
}

fn rename_expr(e: &Expr, from: Var, to: Var, extents: &Extents) -> Expr {
    if from == to {
        return e.clone();
    }
    let sub = |e: &Expr| Box::new(rename_expr(e, from, to, extents));
    let all = |v: &[Index]| v.iter().map(|i| rename(i, from, to, extents)).collect::<Vec<_>>();
    match e {
        Expr::Const(..) => e.clone(),
        Expr::Index(i) => Expr::Index(rename(i, from, to, extents)),
        Expr::Load(b, i) => Expr::Load(*b, all(i)),
        Expr::Gather { buffer, index, axis, at } => {
            Expr::Gather { buffer: *buffer, index: all(index), axis: *axis, at: sub(at) }
        }
        Expr::Guarded { guards, value, otherwise } => Expr::Guarded {
            guards: guards.iter().map(|g| Guard(rename(&g.0, from, to, extents))).collect(),
            value: sub(value),
            otherwise: sub(otherwise),
        },
        Expr::Select(c, a, b) => Expr::Select(sub(c), sub(a), sub(b)),
        Expr::Unary(op, a) => Expr::Unary(*op, sub(a)),
        Expr::Binary(op, a, b) => Expr::Binary(*op, sub(a), sub(b)),
        Expr::Fma(a, b, c) => Expr::Fma(sub(a), sub(b), sub(c)),
        Expr::Cast(t, a) => Expr::Cast(*t, sub(a)),
        Expr::Let(name, a, b) => Expr::Let(*name, sub(a), sub(b)),
        Expr::Local(_) => e.clone(),
    }
}

/// True if every vector loop of the kernel is one of whole vectors: its accesses are side by side
/// or all the same, of f32, and no guard tells lanes apart.
pub(super) fn is_vectorisable(kernel: &Kernel) -> bool {
    fn block(kernel: &Kernel, body: &[Stmt], lane: Option<Var>) -> bool {
        body.iter().all(|s| match s {
            Stmt::Loop { var, kind: LoopKind::Vector, body } => block(kernel, body, Some(*var)),
            Stmt::Loop { body, .. } => lane.is_none() && block(kernel, body, lane),
            Stmt::If { guards, body } => {
                guards.iter().all(|g| uniform(&g.0, lane)) && block(kernel, body, lane)
            }
            Stmt::Store { buffer, index, value } => match lane {
                Some(l) => stride(kernel, *buffer, index, l) == Some(1) && expr(kernel, value, l),
                None => true,
            },
            Stmt::Prefetch { .. } | Stmt::Joint(_) => true,
        })
    }
    fn uniform(i: &Index, lane: Option<Var>) -> bool {
        lane.is_none_or(|l| !i.mentions(l))
    }
    fn stride(kernel: &Kernel, buffer: BufferId, index: &[Index], lane: Var) -> Option<i64> {
        let buffer = &kernel.buffers[buffer.0 as usize];
        if buffer.dtype != DType::F32 {
            return None;
        }
        index.iter().zip(&buffer.strides).map(|(i, &s)| Some(i.stride_of(lane)? * s as i64)).sum()
    }
    fn expr(kernel: &Kernel, e: &Expr, lane: Var) -> bool {
        let sub = |e: &Expr| expr(kernel, e, lane);
        match e {
            Expr::Const(..) => true,
            Expr::Index(i) => uniform(i, Some(lane)),
            Expr::Load(b, i) => matches!(stride(kernel, *b, i, lane), Some(0 | 1)),
            Expr::Gather { .. } => false,
            Expr::Guarded { guards, value, otherwise } => {
                guards.iter().all(|g| uniform(&g.0, Some(lane))) && sub(value) && sub(otherwise)
            }
            Expr::Select(c, a, b) | Expr::Fma(c, a, b) => sub(c) && sub(a) && sub(b),
            Expr::Unary(_, a) => sub(a),
            Expr::Binary(_, a, b) | Expr::Let(_, a, b) => sub(a) && sub(b),
            Expr::Cast(_, a) => sub(a),
            Expr::Local(_) => true,
        }
    }
    block(kernel, &kernel.body, None)
}
