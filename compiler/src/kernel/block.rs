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

use super::{BinOp, Buffer, BufferId, Guard, Index, Kernel, Memory};

/// Threads of a warp.
pub const WARP: usize = 32;

/// Threads of a block at most.
pub const MOST_THREADS: usize = 1024;

/// Bytes of shared memory of a block at most: what a block that asks for it gets on every GPU from compute capability
/// 8.0 on. (8.6, 8.9 and 12.0 have no more; 8.0 has 163 KB, 9.0 227 KB. Code for `sm_90` runs on 12.0 too.)
pub const SHARED_BYTES: usize = 99 << 10;

/// Bytes that a block gets without asking.
pub const UNASKED_SHARED_BYTES: usize = 48 << 10;

/// Every shared buffer starts at a multiple of so many bytes: the largest copy.
pub const SHARED_ALIGNMENT: usize = 16;

impl Kernel {
    /// Where in a block's shared memory each buffer begins, in bytes (`None` for those elsewhere), and how many bytes
    /// they take together.
    pub fn shared_places(&self) -> (Vec<Option<usize>>, usize) {
        let mut end = 0usize;
        let mut place = |b: &Buffer| {
            let start = end.next_multiple_of(SHARED_ALIGNMENT);
            end = start.saturating_add(b.extent().saturating_mul(b.dtype.size()));
            start
        };
        let places = self.buffers.iter().map(|b| (b.memory == Memory::Shared).then(|| place(b))).collect();
        (places, end)
    }
}

/// What tensor cores make of factors: what is stored in a fragment of one is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Ten bits of mantissa, ties away from zero ([`tf32`]).
    Tf32,
    /// Seven bits of mantissa, ties to even ([`bf16`]).
    Bf16,
}

impl Rounding {
    /// What tensor cores sum over at a time.
    pub fn depth(self) -> usize {
        match self {
            Rounding::Tf32 => 8,
            Rounding::Bf16 => 16,
        }
    }

    /// The rounded f32.
    pub fn round(self, bits: u32) -> u32 {
        match self {
            Rounding::Tf32 => tf32(bits),
            Rounding::Bf16 => bf16(bits),
        }
    }
}

/// A matrix in the registers of a warp, as tensor cores take it (`mma.m16n8k8` of TF32, `mma.m16n8k16` of bf16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// The first factor: 16 rows of the result, and what is summed over.
    First(Rounding),
    /// The second factor: what is summed over, and 8 columns of the result.
    Second(Rounding),
    /// 16x8, the sums; f32.
    Sum,
}

impl Fragment {
    /// Rows and columns.
    pub fn shape(self) -> [usize; 2] {
        match self {
            Fragment::First(rounding) => [16, rounding.depth()],
            Fragment::Second(rounding) => [rounding.depth(), 8],
            Fragment::Sum => [16, 8],
        }
    }

    /// The lane that holds an element.
    pub fn lane(self, row: usize, column: usize) -> usize {
        match self {
            Fragment::First(Rounding::Tf32) => row % 8 * 4 + column % 4,
            Fragment::First(Rounding::Bf16) => row % 8 * 4 + column % 8 / 2,
            Fragment::Second(Rounding::Tf32) => column * 4 + row % 4,
            Fragment::Second(Rounding::Bf16) => column * 4 + row % 8 / 2,
            Fragment::Sum => row % 8 * 4 + column / 2,
        }
    }

    /// The name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            Fragment::First(Rounding::Tf32) => "first",
            Fragment::Second(Rounding::Tf32) => "second",
            Fragment::First(Rounding::Bf16) => "first bf16",
            Fragment::Second(Rounding::Bf16) => "second bf16",
            Fragment::Sum => "sum",
        }
    }

    /// What becomes of stored elements; sums stay as they are.
    pub fn rounding(self) -> Option<Rounding> {
        match self {
            Fragment::First(rounding) | Fragment::Second(rounding) => Some(rounding),
            Fragment::Sum => None,
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

/// An f32 with seven bits of mantissa, ties to even.
pub fn bf16(bits: u32) -> u32 {
    match bits & 0x7fff_ffff {
        0x7f80_0001.. => f32::NAN.to_bits(),
        _ => bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000,
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
    /// `sum += first · second`, by a warp; both factors are rounded alike. The products are exact; the model is that they are summed in
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
