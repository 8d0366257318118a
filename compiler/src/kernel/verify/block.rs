//! Kernels of blocks of threads: who runs a statement, and what it may do there.

use super::{Binding, Checker, Problem};
use crate::kernel::block::{MOST_THREADS, Part, SHARED_BYTES, WARP};
use crate::kernel::{
    BinOp, BufferId, Fragment, Guard, Index, Joint, LoopKind, Memory, Rounding, Stmt, Var, print,
};
use nnc_runtime::DType;
use nnc_runtime::program::Access;

/// Who runs a statement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Who {
    /// All threads of a block.
    Block,
    /// One thread.
    Thread,
    /// A warp.
    Warp,
    /// A warp, over the rows of a matrix.
    Row(Fragment, Var),
    /// The lane that holds an element of a matrix.
    Element(Fragment, Var, Var),
}

impl Checker<'_> {
    /// Checks what a block has: its threads, shared memory and fragments.
    pub(super) fn block_declarations(&mut self) {
        let Some(threads) = self.kernel.threads else {
            let own = |m: Memory| matches!(m, Memory::Shared | Memory::Fragment(_));
            for b in self.kernel.buffers.iter().filter(|b| own(b.memory)) {
                self.errors.push(Problem::NoBlock(b.name.clone()));
            }
            return;
        };
        if threads == 0 || threads > MOST_THREADS || !threads.is_multiple_of(WARP) {
            self.errors.push(Problem::Threads(threads));
        }
        for b in &self.kernel.buffers {
            match b.memory {
                Memory::Fragment(f) => {
                    let row_major = b.strides == crate::kernel::row_major(&b.shape);
                    if !b.shape.ends_with(&f.shape()) || b.dtype != DType::F32 || !row_major {
                        self.errors.push(Problem::Fragment(b.name.clone(), f.name()));
                    }
                }
                Memory::Global(_) | Memory::Shared | Memory::Scratch | Memory::Register => {}
            }
        }
        let (_, shared) = self.kernel.shared_places();
        if shared > SHARED_BYTES {
            self.errors.push(Problem::Shared(shared));
        }
    }

    /// Who runs the body of a loop; reports loops over members that are not there, or not so many.
    pub(super) fn inside(&mut self, var: Var, kind: LoopKind) -> Who {
        let threads = self.kernel.threads.unwrap_or_default();
        let (inner, extent) = match (kind, self.who) {
            (LoopKind::Serial | LoopKind::Unroll | LoopKind::Vector, who) => return who,
            (LoopKind::Threads, Who::Block) => (Who::Thread, threads),
            (LoopKind::Warps, Who::Block) => (Who::Warp, threads / WARP),
            (LoopKind::Rows(f), Who::Warp) => (Who::Row(f, var), f.shape()[0]),
            (LoopKind::Columns(f), Who::Row(g, row)) if f == g => (Who::Element(f, row, var), f.shape()[1]),
            _ => {
                self.errors.push(Problem::Members(self.kernel.var_name(var)));
                return self.who;
            }
        };
        if self.extents.get(var.0 as usize) != Some(&extent) {
            self.errors.push(Problem::MemberCount { name: self.kernel.var_name(var), expected: extent });
        }
        inner
    }

    /// Reports loops over the elements of a factor that do more than store each of them once: lanes put pairs of them
    /// into one register.
    pub(super) fn factor_loop(&mut self, var: Var, kind: LoopKind, body: &[Stmt]) {
        let right = match kind {
            LoopKind::Rows(f) if f.rounding().is_some() => {
                matches!(body, [Stmt::Loop { kind: LoopKind::Columns(g), .. }] if f == *g)
            }
            LoopKind::Columns(f) if f.rounding().is_some() => match body {
                [Stmt::Store { buffer, .. }] => {
                    let stored = self.kernel.buffers.get(buffer.0 as usize);
                    stored.is_some_and(|b| b.memory == Memory::Fragment(f))
                }
                _ => false,
            },
            _ => true,
        };
        if !right {
            self.errors.push(Problem::Factor(self.kernel.var_name(var)));
        }
    }

    /// Reports a store that no single thread does.
    pub(super) fn by_thread(&mut self, buffer: BufferId, index: &[Index]) {
        if !matches!(self.who, Who::Thread | Who::Element(..)) {
            let text = print::access(self.kernel, buffer, index);
            self.errors.push(Problem::NotByThread(text));
        }
    }

    /// Checks the last two places of an access to a fragment: those of the loops around.
    pub(super) fn fragment_access(&mut self, fragment: Fragment, index: &[Index], text: String) {
        let right = match self.who {
            Who::Element(f, row, column) => {
                f == fragment && index.ends_with(&[Index::from(row), Index::from(column)])
            }
            _ => false,
        };
        if !right {
            self.errors.push(Problem::FragmentIndex(text));
        }
    }

    pub(super) fn joint(&mut self, joint: &Joint) {
        let at_place = match joint {
            Joint::Barrier | Joint::Commit | Joint::Wait { .. } | Joint::Combine { .. } => {
                self.who == Who::Block
            }
            Joint::Copy { .. } => self.who == Who::Thread && self.kernel.threads.is_some(),
            Joint::Multiply { .. } => self.who == Who::Warp,
        };
        if !at_place {
            self.errors.push(Problem::JointPlace(joint_name(joint)));
        }
        match joint {
            Joint::Barrier | Joint::Commit | Joint::Wait { .. } => {}
            Joint::Copy { to, index, from, at, elements, guards } => {
                self.copy((*to, index), (*from, at), *elements, guards);
            }
            Joint::Multiply { sum, first, second } => {
                let memory = self.kernel.buffers.get(first.buffer.0 as usize).map(|b| b.memory);
                let rounding = match memory {
                    Some(Memory::Fragment(Fragment::First(rounding))) => rounding,
                    _ => Rounding::Tf32,
                };
                let (x, y) = (Fragment::First(rounding), Fragment::Second(rounding));
                [(sum, Fragment::Sum), (first, x), (second, y)]
                    .into_iter()
                    .for_each(|(p, f)| self.part(p, f));
            }
            Joint::Combine { op, buffer, index } => {
                let who = std::mem::replace(&mut self.who, Who::Thread);
                if self.access(*buffer, index, None) {
                    let b = self.kernel.buffer_of(*buffer);
                    let ops = [BinOp::Add, BinOp::Mul, BinOp::Max, BinOp::Min];
                    if b.memory != Memory::Register || b.dtype != DType::F32 || !ops.contains(op) {
                        self.errors.push(Problem::Combine(b.name.clone()));
                    }
                }
                self.who = who;
            }
        }
    }

    fn copy(
        &mut self,
        (to, index): (BufferId, &[Index]),
        (from, at): (BufferId, &[Index]),
        elements: usize,
        guards: &[Guard],
    ) {
        let reach = |i: &[Index]| -> Vec<Index> {
            let mut i = i.to_vec();
            if let Some(last) = i.last_mut() {
                *last = last.clone() + (elements.max(1) - 1);
            }
            i
        };
        if !self.access(to, index, None) || !self.access(to, &reach(index), None) {
            return;
        }
        let outer = self.guards.len();
        self.enter(guards);
        let inside = self.access(from, at, None) && self.access(from, &reach(at), None);
        self.guards.truncate(outer);
        if !inside {
            return;
        }
        let (target, source) = (self.kernel.buffer_of(to), self.kernel.buffer_of(from));
        let spaces = target.memory == Memory::Shared && source.memory == Memory::Global(Access::Read);
        if !spaces || target.dtype != source.dtype || source.dtype == DType::Bool {
            self.errors.push(Problem::CopySpaces(target.name.clone(), source.name.clone()));
        }
        if target.tf32 && !source.tf32 {
            self.errors.push(Problem::NotTf32(print::access(self.kernel, to, index)));
        }
        for (buffer, index) in [(to, index), (from, at)] {
            let flat = self.kernel.flat(buffer, index);
            let neighbours = self.kernel.buffer_of(buffer).strides.last().is_none_or(|&s| s == 1);
            let aligned = flat.is_multiple_of(elements.max(1) as i64);
            if !matches!(elements, 1 | 2 | 4) || !(elements == 1 || aligned && neighbours) {
                let text = print::access(self.kernel, buffer, index);
                self.errors.push(Problem::CopyPlace(text, elements));
            }
        }
    }

    fn part(&mut self, part: &Part, fragment: Fragment) {
        let Some(b) = self.kernel.buffers.get(part.buffer.0 as usize) else {
            self.errors.push(Problem::UnknownBuffer(part.buffer.0));
            return;
        };
        if b.memory != Memory::Fragment(fragment) || part.index.len() + 2 != b.shape.len() {
            self.errors.push(Problem::Fragment(b.name.clone(), fragment.name()));
            return;
        }
        for (dimension, (i, &size)) in part.index.iter().zip(&b.shape).enumerate() {
            let access = print::access(self.kernel, part.buffer, &part.index);
            if !self.variables(i) {
                return;
            }
            let (low, high) = i.range(&self.extents);
            if low < 0 || high >= size as i64 {
                let index = print::index(self.kernel, i);
                self.errors.push(Problem::OutOfBounds { access, dimension, index, size, low, high });
            } else {
                self.unrolled(i, access);
            }
        }
    }

    /// Reports variables in the place of a matrix that are not unrolled.
    pub(super) fn unrolled(&mut self, i: &Index, text: String) {
        let mut right = true;
        i.each_var(&mut |v| {
            let unrolled = self.scope[v.0 as usize] == Some(Binding::Loop(LoopKind::Unroll));
            right &= unrolled || self.extents[v.0 as usize] == 1;
        });
        if !right {
            self.errors.push(Problem::RegisterIndex(text));
        }
    }
}

fn joint_name(joint: &Joint) -> &'static str {
    match joint {
        Joint::Barrier => "barrier",
        Joint::Copy { .. } => "copy",
        Joint::Commit => "commit",
        Joint::Wait { .. } => "wait",
        Joint::Multiply { .. } => "multiply",
        Joint::Combine { .. } => "combine",
    }
}
