//! What can be wrong with PTX text and with a run of it.

use std::fmt;

/// Why a module could not be read or run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The text is not PTX, or not of the subset that this crate runs.
    #[error("line {line}: {message}")]
    Parse {
        /// Line of the text, from 1.
        line: u32,
        /// What was not understood.
        message: String,
    },
    /// The module has no such entry.
    #[error("the module has no kernel `{0}`")]
    NoKernel(String),
    /// Grid, block, shared memory or arguments do not suit the kernel.
    #[error("cannot launch `{kernel}`: {message}")]
    Launch {
        /// The entry.
        kernel: String,
        /// What does not suit.
        message: String,
    },
    /// A thread did what it must not.
    #[error(transparent)]
    Fault(#[from] Box<ThreadFault>),
    /// Host code asked for what memory does not hold.
    #[error("buffer `{buffer}`: {message}")]
    Memory {
        /// The buffer's name.
        buffer: String,
        /// What is not there.
        message: String,
    },
}

/// A thread did what it must not.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{kernel}`, line {line}, {at}: {fault}\n    {text}")]
pub struct ThreadFault {
    /// The entry.
    pub kernel: String,
    /// Line of the instruction, from 1.
    pub line: u32,
    /// The thread.
    pub at: At,
    /// What it did.
    pub fault: Fault,
    /// The instruction's text.
    pub text: String,
}

/// A thread of a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// `%ctaid`.
    pub block: [u32; 3],
    /// `%tid`.
    pub thread: [u32; 3],
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "thread {} of block {}", Triple(self.thread), Triple(self.block))
    }
}

struct Triple([u32; 3]);

impl fmt::Display for Triple {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "({}, {}, {})", self.0[0], self.0[1], self.0[2])
    }
}

/// What a thread did wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// A register was read that this thread has not written.
    #[error("register `{0}` is read before it is written")]
    UninitialisedRegister(String),
    /// Memory was read that nothing has written.
    #[error("{size} bytes at {place} are read, of which not all were written")]
    UninitialisedMemory {
        /// Buffer or variable and byte offset.
        place: Place,
        /// Size of the access.
        size: u32,
    },
    /// An access outside its buffer or variable.
    #[error("access of {size} bytes at {place}, which has {bytes} bytes")]
    OutOfBounds {
        /// Buffer or variable and byte offset.
        place: Place,
        /// Size of the access.
        size: u32,
        /// Size of the buffer.
        bytes: u64,
    },
    /// An address in no buffer.
    #[error("address {0:#x} is in no buffer of this state space")]
    WildAddress(u64),
    /// An access whose address is no multiple of its size.
    #[error("access at {place} must be aligned to {size} bytes (the alignment of `{}` is {align})", place.name)]
    Misaligned {
        /// Buffer or variable and byte offset.
        place: Place,
        /// Size of the access.
        size: u32,
        /// Declared alignment of the buffer.
        align: u32,
    },
    /// Two threads touch the same bytes, one of them writes, and nothing orders them.
    #[error("race: {access} {place}, which {other}, with no barrier between")]
    Race {
        /// `reads` or `writes`.
        access: &'static str,
        /// Buffer or variable and byte offset.
        place: Place,
        /// Whether the other thread wrote; else it read.
        written: bool,
        /// What the other thread did.
        other: String,
    },
    /// Bytes were touched that an asynchronous copy is still to write.
    #[error("{access} {place} while `cp.async` of thread {thread} may still write it (no wait_group yet)")]
    CopyPending {
        /// `reads` or `writes`.
        access: &'static str,
        /// Variable and byte offset.
        place: Place,
        /// Number of the copying thread in its block.
        thread: u32,
    },
    /// A thread ended with asynchronous copies that it has not waited for.
    #[error("the thread ends with {0} asynchronous copies that it has not waited for")]
    CopyAtExit(usize),
    /// A barrier in code that not all threads of the warp execute.
    #[error("barrier in divergent code: lanes {missing:#010x} of the warp are not here")]
    DivergentBarrier {
        /// The lanes that do not arrive.
        missing: u32,
    },
    /// Some threads wait at a barrier that others never reach.
    #[error("the thread waits at a barrier that thread {0} of the block never reaches")]
    BarrierNotReached(u32),
    /// A warp-wide instruction without the lanes it needs.
    #[error("the instruction needs lanes {missing:#010x} of the warp, which are not here")]
    MissingLanes {
        /// The lanes that are not here.
        missing: u32,
    },
    /// A shuffle takes a value of a lane that does not take part.
    #[error("the value of lane {0} is taken, which does not take part")]
    InactiveLane(u32),
    /// The lanes of a warp do not agree where they must.
    #[error("{0}")]
    NotUniform(&'static str),
    /// An operand outside the range in which the instruction is defined.
    #[error("{what} is {value}, which must be at most {limit}")]
    Operand {
        /// Which operand.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// Memory was read through the read-only path in a launch that writes it.
    #[error("`{0}` is read by ld.global.nc and written in one launch")]
    NonCoherent(String),
    /// The warp executed more instructions than allowed.
    #[error("more than {0} instructions in one warp: an endless loop?")]
    StepLimit(u64),
}

/// A byte of a buffer or variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the buffer or variable.
    pub name: String,
    /// Byte offset in it; negative before its start.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "byte {} of `{}`", self.offset, self.name)
    }
}
