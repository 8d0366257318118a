//! Tasks that are blocks of threads: what their kernels have beside the rest of the IR.
//!
//! A kernel with [`Kernel::threads`](super::Kernel::threads) runs a task on so many threads. Its body says
//! what the block does, one step after the other; work is done inside loops over the block's members, whose
//! iterations run side by side:
//!
//! * a loop of [`LoopKind::Threads`](super::LoopKind::Threads) is a *phase*: every thread runs its body,
//!   with register buffers of its own that live on from phase to phase;
//! * a loop of `Warps` is one of warps (32 threads), and inside it, loops of `Rows` and `Columns` run over
//!   the elements of a [`Fragment`]: a small matrix that lies across the registers of a warp. Which lane
//!   holds which element is [`Fragment::lane`], which only interpreter and emitter need.
//!
//! Nothing but a [`Joint::Barrier`] orders the threads: what one writes to a **shared** buffer, another may
//! touch after a barrier alone. The interpreter finds where one is missing.

use super::{BinOp, BufferId, Guard, Index};

/// Threads of a warp.
pub const WARP: usize = 32;

/// Threads of a block at most.
pub const MOST_THREADS: usize = 1024;

/// Bytes of shared memory of a block at most: what every launch may ask for.
pub const SHARED_BYTES: usize = 48 << 10;

/// A matrix in the registers of a warp, as tensor cores take it (`mma.m16n8k8`, TF32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// 16x8, the first factor: rows of the result, and what is summed over. Its elements are TF32: what is
    /// stored is rounded, ties away from zero ([`tf32`]).
    First,
    /// 8x8, the second factor: what is summed over, and columns of the result. TF32, too.
    Second,
    /// 16x8, the sums; f32.
    Sum,
}

impl Fragment {
    /// Rows and columns.
    pub fn shape(self) -> [usize; 2] {
        match self {
            Fragment::First | Fragment::Sum => [16, 8],
            Fragment::Second => [8, 8],
        }
    }

    /// The lane that holds an element.
    pub fn lane(self, row: usize, column: usize) -> usize {
        match self {
            Fragment::First => row % 8 * 4 + column % 4,
            Fragment::Second => column * 4 + row % 4,
            Fragment::Sum => row % 8 * 4 + column / 2,
        }
    }

    /// The name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            Fragment::First => "first",
            Fragment::Second => "second",
            Fragment::Sum => "sum",
        }
    }
}

/// An f32 with ten bits of mantissa, ties away from zero.
pub fn tf32(bits: u32) -> u32 {
    match bits & 0x7fff_ffff {
        0x7f80_0001.. => f32::NAN.to_bits(),
        0x7f80_0000 => bits,
        _ => (bits + 0x1000) & !0x1fff,
    }
}

/// A matrix of a fragment buffer: the buffer's last two dimensions are the matrix, the index has those before.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The buffer.
    pub buffer: BufferId,
    /// Which of its matrices.
    pub index: Vec<Index>,
}

/// What threads do together, or what concerns them all.
#[derive(Clone, Debug, PartialEq)]
pub enum Joint {
    /// All threads of the block have come here before one goes on. Of the block.
    Barrier,
    /// A thread starts to copy neighbours along the last dimension from global to shared memory: `to[index]`
    /// and those after it become `from[at]` and those after that where the guards hold, else zeros. Nobody may
    /// touch them before the wait; other threads not before a barrier after that.
    Copy {
        /// A shared buffer.
        to: BufferId,
        /// The first element.
        index: Vec<Index>,
        /// A global buffer of the same type.
        from: BufferId,
        /// The first element.
        at: Vec<Index>,
        /// 1, 2 or 4; both places are multiples of it.
        elements: usize,
        /// Where copying means copying.
        guards: Vec<Guard>,
    },
    /// The copies since the last one are a group. Of the block.
    Commit,
    /// Waits until so many of the youngest groups may be unfinished. Of the block.
    Wait {
        /// Groups.
        open: usize,
    },
    /// `sum += first · second`, by a warp. The products are exact; the model is that they are summed in
    /// double precision, then the old sum is added, and rounded once. (A GPU rounds in an order of its own.)
    Multiply {
        /// Of [`Fragment::Sum`].
        sum: Part,
        /// Of [`Fragment::First`].
        first: Part,
        /// Of [`Fragment::Second`].
        second: Part,
    },
    /// The element of a register buffer becomes, in every thread, what the operation makes of those of its
    /// warp: `x = op(x, x of lane ^ d)` for d = 16, 8, 4, 2, 1. Of the block.
    Combine {
        /// On f32.
        op: BinOp,
        /// A register buffer of f32.
        buffer: BufferId,
        /// The element.
        index: Vec<Index>,
    },
}

impl Joint {
    /// The places that it touches element by element.
    pub fn accesses(&self) -> Vec<(BufferId, &[Index])> {
        match self {
            Joint::Copy { to, index, from, at, .. } => vec![(*to, index), (*from, at)],
            Joint::Combine { buffer, index, .. } => vec![(*buffer, index)],
            Joint::Barrier | Joint::Commit | Joint::Wait { .. } | Joint::Multiply { .. } => vec![],
        }
    }

    /// Its guards.
    pub fn guards(&self) -> &[Guard] {
        match self {
            Joint::Copy { guards, .. } => guards,
            _ => &[],
        }
    }
}
