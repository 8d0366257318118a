//! Blocks of threads: who runs, what a barrier orders, copies under way, products and combinations.
//!
//! Threads run one after the other from barrier to barrier. Every element of shared memory knows who has
//! touched it since the last barrier: two threads, one of them writing, are a race.

use super::arithmetic::{self, Binary};
use super::code::{Lin, Place, Together};
use super::{Cell, InterpretError, Order, Outcome, Task, Where};
use crate::kernel::block::{Fragment, WARP};
use crate::kernel::{BinOp, LoopKind};
use nnc_runtime::DType;

/// Who runs, and the times by which accesses are told apart.
pub(super) struct Members {
    /// The running thread of the block.
    pub thread: usize,
    warp: usize,
    row: usize,
    /// Barriers that have been passed, over all tasks.
    epoch: u64,
    /// Groups of copies that have been closed in this task.
    groups: usize,
    /// Copies under way: shared buffer, element, thread, group.
    flying: Vec<(usize, usize, usize, usize)>,
    /// For each shared buffer, what is known of its elements.
    shadows: Vec<Vec<Shadow>>,
}

/// Who has touched an element of shared memory last, and when.
#[derive(Clone, Copy, Default)]
struct Shadow {
    written: (u64, usize),
    read: (u64, usize),
    /// Several threads have read it in that epoch.
    shared: bool,
    flying: bool,
}

impl Members {
    /// For blocks with shared buffers of these sizes.
    pub fn new(shared: &[usize]) -> Members {
        Members {
            thread: 0,
            warp: 0,
            row: 0,
            epoch: 0,
            groups: 0,
            flying: vec![],
            shadows: shared.iter().map(|&n| vec![Shadow::default(); n]).collect(),
        }
    }

    /// The copies of a buffer of a warp or thread come one after the other.
    pub fn warp(&self) -> usize {
        self.warp
    }
}

impl Shadow {
    /// True if a thread may touch the element now; remembers that it has.
    fn touch(&mut self, epoch: u64, thread: usize, writes: bool) -> bool {
        let other = |(when, who): (u64, usize)| when == epoch && who != thread;
        let others_read = self.read.0 == epoch && (self.shared || self.read.1 != thread);
        if self.flying || other(self.written) || writes && others_read {
            return false;
        }
        if writes {
            self.written = (epoch, thread);
        } else {
            self.shared = others_read;
            self.read = (epoch, thread);
        }
        true
    }
}

impl Task<'_> {
    /// A new task begins: nothing is under way.
    pub(super) fn begin_block(&mut self) {
        self.members.epoch += 1;
        self.members.groups = 0;
        self.members.flying.clear();
        self.members.shadows.iter_mut().flatten().for_each(|s| s.flying = false);
    }

    /// A task ends: no copy may be under way.
    pub(super) fn end_block(&self) -> Outcome<()> {
        match self.members.flying.is_empty() {
            true => Ok(()),
            false => Err(Box::new(InterpretError::Unfinished { kernel: self.name(), task: self.number() })),
        }
    }

    /// What an iteration of a loop over members begins with.
    pub(super) fn enter(&mut self, kind: LoopKind, i: usize) {
        let m = &mut self.members;
        match kind {
            LoopKind::Threads => m.thread = i,
            LoopKind::Warps => m.warp = i,
            LoopKind::Rows(_) => m.row = i,
            LoopKind::Columns(fragment) => m.thread = m.warp * WARP + fragment.lane(m.row, i),
            LoopKind::Serial | LoopKind::Unroll | LoopKind::Vector => {}
        }
    }

    /// True if iterations may run in another order.
    pub(super) fn is_reversed(&self, kind: LoopKind) -> bool {
        let free = !matches!(kind, LoopKind::Serial | LoopKind::Unroll | LoopKind::Vector);
        free && self.order == Order::Reverse
    }

    /// Reports a race of the running thread for an element of shared memory.
    pub(super) fn touch(&mut self, shared: usize, at: usize, buffer: usize, writes: bool) -> Outcome<()> {
        let m = &mut self.members;
        if m.shadows[shared][at].touch(m.epoch, m.thread, writes) {
            return Ok(());
        }
        let (kernel, task, thread) = (self.name(), self.number(), self.members.thread);
        let buffer = self.kernel.buffers[buffer].name.clone();
        Err(Box::new(InterpretError::SharedRace { kernel, task, thread, buffer, at }))
    }

    pub(super) fn together(&mut self, step: &Together) -> Outcome<()> {
        match step {
            Together::Barrier => self.members.epoch += 1,
            Together::Commit => self.members.groups += 1,
            Together::Wait(open) => self.wait(*open),
            Together::Copy { to, from, elements, guards } => return self.copy(to, from, *elements, guards),
            Together::Multiply(parts) => self.multiply(parts),
            Together::Combine(place, op) => return self.combine(place, *op),
        }
        Ok(())
    }

    fn wait(&mut self, open: usize) {
        let m = &mut self.members;
        let (epoch, done) = (m.epoch, m.groups.saturating_sub(open));
        let shadows = &mut m.shadows;
        m.flying.retain(|&(shared, at, thread, group)| {
            if group < done {
                let shadow = &mut shadows[shared][at];
                (shadow.flying, shadow.written) = (false, (epoch, thread));
            }
            group >= done
        });
    }

    fn copy(&mut self, to: &Place, from: &Place, elements: usize, guards: &[Lin]) -> Outcome<()> {
        let holds = self.hold(guards);
        let first = if holds { self.offset(from, None)? } else { 0 };
        let target = self.offset(to, None)?;
        for i in 0..elements {
            let value = match holds {
                true => self.load(from, first + i)?,
                false => Cell { bits: 0, defined: true },
            };
            self.write(to, target + i, value)?;
            if let Where::Shared { shared, .. } = self.places[to.buffer] {
                let m = &mut self.members;
                m.shadows[shared][target + i].flying = true;
                m.flying.push((shared, target + i, m.thread, m.groups));
            }
        }
        Ok(())
    }

    fn multiply(&mut self, parts: &[(usize, Lin); 3]) {
        let starts: Vec<(usize, usize)> = parts
            .iter()
            .map(|(buffer, at)| {
                let at = at.eval(&self.vars) as usize;
                match self.places[*buffer] {
                    Where::OfWarp { block, extent } => (block, self.members.warp * extent + at),
                    _ => unreachable!("verified: fragments are a warp's"),
                }
            })
            .collect();
        let cell = |own: &[super::Block], part: usize, at: usize| {
            let (block, start) = starts[part];
            let b = &own[block];
            (b.cells[start + at], b.defined[start + at] && b.writer[start + at] == self.now)
        };
        let factor = |bits: u32| f64::from(f32::from_bits(bits));
        let depth = self.kernel.buffers[parts[1].0].shape.last().copied().unwrap_or_default();
        let [rows, columns] = Fragment::Sum.shape();
        let mut out = vec![];
        for row in 0..rows {
            for column in 0..columns {
                let (old, mut defined) = cell(&self.own, 0, row * columns + column);
                let mut sum = 0.0;
                for k in 0..depth {
                    let (a, known_a) = cell(&self.own, 1, row * depth + k);
                    let (b, known_b) = cell(&self.own, 2, k * columns + column);
                    sum += factor(a) * factor(b);
                    defined &= known_a && known_b;
                }
                out.push(Cell { bits: ((sum + factor(old)) as f32).to_bits(), defined });
            }
        }
        let (block, start) = starts[0];
        for (i, value) in out.into_iter().enumerate() {
            self.own[block].put(start + i, value, self.now);
        }
    }

    fn combine(&mut self, place: &Place, op: BinOp) -> Outcome<()> {
        let (f, _): (Binary, DType) = arithmetic::binary(op, DType::F32);
        let threads = self.kernel.threads.unwrap_or_default();
        let at = self.offset(place, None)?;
        for warp in (0..threads).step_by(WARP) {
            let mut values = vec![];
            for thread in warp..warp + WARP {
                self.members.thread = thread;
                values.push(self.load(place, at)?);
            }
            for distance in [16, 8, 4, 2, 1] {
                let before = values.clone();
                for (lane, v) in values.iter_mut().enumerate() {
                    let other = before[lane ^ distance];
                    v.bits = f(before[lane].bits, other.bits);
                    v.defined &= other.defined;
                }
            }
            for (lane, value) in values.into_iter().enumerate() {
                self.members.thread = warp + lane;
                self.write(place, at, value)?;
            }
        }
        Ok(())
    }

    /// What a fragment makes of a value.
    pub(super) fn fragment_value(fragment: Fragment, value: Cell) -> Cell {
        match fragment.rounding() {
            None => value,
            Some(rounding) => Cell { bits: rounding.round(value.bits), ..value },
        }
    }
}
