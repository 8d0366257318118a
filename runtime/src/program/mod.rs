//! A compiled program: what the compiler makes and the runtime runs.
//!
//! A program is a list of *launches* of *kernels* over *storages*. Everything has a static size.
//! There are two phases: **prepare** runs once when the weights are loaded (batch norm folding,
//! weight packing; everything that depends on parameters and constants alone), **run** once per
//! call. A program may come with its weights: then it is prepared already. Nothing here says how a kernel came to be.
//!
//! [`Program::validate`] is the border between what a file says and what the runtime believes.

mod checksum;
mod file;
mod validate;

use serde::{Deserialize, Serialize};

use crate::DType;
use crate::memory::Frozen;

pub use checksum::checksum;
pub use file::MAGIC;

/// How a parameter starts when no weights are loaded.
///
/// `fan_in` is the product of all dimensions but the first, `fan_out` that of all but the second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initializer {
    /// All elements equal.
    Constant(f64),
    /// Uniform in `[low, high)`.
    Uniform {
        /// Lower end.
        low: f64,
        /// Upper end, not included.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Uniform in ±sqrt(6 / (fan_in + fan_out)): Glorot & Bengio (2010).
    GlorotUniform,
    /// Normal with variance 2 / (fan_in + fan_out).
    GlorotNormal,
    /// Uniform in ±gain·sqrt(3 / fan_in): He et al. (2015); gain sqrt(2) for ReLU.
    HeUniform {
        /// sqrt(2) for ReLU; PyTorch's default for convolutions and dense layers is 1/sqrt(3).
        gain: f64,
    },
    /// Normal with variance gain² / fan_in.
    HeNormal {
        /// sqrt(2) for ReLU.
        gain: f64,
    },
    /// Uniform in ±1/sqrt(fan_in) of *another* tensor's fan_in: PyTorch's default for biases.
    FanInUniform {
        /// That fan_in.
        fan_in: u64,
    },
    /// Rows (or columns) orthonormal, times the gain: Saxe et al. (2014).
    Orthogonal {
        /// The factor.
        gain: f64,
    },
}

/// A dense block of memory that lives as long as its [`Class`] says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Storage {
    /// For reports: the names of the values in it.
    pub name: String,
    /// Size in bytes.
    pub bytes: usize,
    /// Where it lives.
    pub class: Class,
}

/// Where a storage lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "at")]
pub enum Class {
    /// The caller's memory: input number i, row-major.
    Input(usize),
    /// The caller's memory: output number i, row-major.
    Output(usize),
    /// Parameter number i, row-major, as loaded.
    Parameter(usize),
    /// Parameter number i, row-major, owned by the session and updated in place by the run phase:
    /// what one run leaves there the next one finds. The prepare phase does not have it.
    State(usize),
    /// Data of the program: byte offset into its constants.
    Constant(usize),
    /// Written by the prepare phase, read by the run phase: byte offset into the prepared area.
    Prepared(usize),
    /// Written and read by the prepare phase alone: byte offset into memory that is given back after it.
    Preparing(usize),
    /// Byte offset into the arena of one run; storages whose lives do not overlap share bytes.
    Arena(usize),
}

/// A named tensor at the border of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// A parameter: a port with an initialiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Name, type, shape.
    pub port: Port,
    /// How it starts.
    pub init: Initializer,
    /// Whether training changes it (false for running statistics).
    pub trainable: bool,
}

/// A region of a storage given to a kernel: its first byte. Shape and strides are the kernel's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Argument {
    /// Index into [`Program::storages`].
    pub storage: usize,
    /// Byte offset of element 0.
    pub offset: usize,
}

/// What a kernel may do with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// It only reads.
    Read,
    /// It only writes.
    Write,
    /// Both.
    ReadWrite,
}

/// What a kernel expects of an argument; the runtime checks that the storage is large enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParamSpec {
    /// What it may do.
    pub access: Access,
    /// Bytes reached from element 0: every access of the kernel was proved to lie below.
    pub extent_bytes: usize,
    /// Bytes of its elements, for reports: fewer, where they have gaps.
    #[serde(default)]
    pub bytes: usize,
    /// The rows that its elements lie in, where there are gaps between them: a part of the channels of every pixel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
}

/// Pieces of memory that lie evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Bytes from the first byte of one to that of the next one.
    pub pitch: usize,
    /// Bytes of each.
    pub bytes: usize,
}

/// One compiled kernel.
///
/// On a GPU it is an entry of the program's PTX, see [`Grid`], and its scratch memory is its own affair. On
/// a CPU its code is position-independent, calls nothing, and has the C signature
/// `extern "C" fn(args: *const *mut u8, first: u64, end: u64, scratch: *mut u8)`: it computes the
/// tasks `first..end`, in any split over threads, each with `scratch_bytes` of memory of its own,
/// aligned to 64 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// For profiles: `conv2d_relu_max_pool.3`.
    pub name: String,
    /// What it expects.
    pub params: Vec<ParamSpec>,
    /// Number of independent tasks.
    pub tasks: u64,
    /// Memory a thread needs beside the arguments.
    pub scratch_bytes: usize,
    /// Byte offset of the entry in [`Program::code`].
    pub code_offset: usize,
    /// Floating-point operations a launch, for reports.
    pub flops: u64,
    /// How it is launched, if it is a GPU's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grid: Option<Grid>,
}

/// How a kernel of a GPU is launched: a grid of blocks of threads, each along x alone. Its arguments are
/// the addresses of its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// Its entry in the PTX.
    pub entry: String,
    /// Blocks of the grid.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// The architecture of programs for NVIDIA's GPUs. Their only feature is what the PTX is made for, e.g. `sm_80`.
pub const GPU_ARCHITECTURE: &str = "nvptx64";

/// When a launch runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Once, when weights are loaded.
    Prepare,
    /// On every call.
    Run,
}

/// A call of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Index into [`Program::kernels`].
    pub kernel: usize,
    /// One for each of the kernel's parameters.
    pub args: Vec<Argument>,
    /// When.
    pub phase: Phase,
    /// The layers it computes, for profiles.
    pub layer: String,
    /// Where they are written: `vgg.nn:9`.
    pub location: String,
}

/// A whole program. [`validate`](Program::validate) before use: files are not to be trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// The net's name.
    pub name: String,
    /// Target triple and the CPU features that the code needs, e.g. `x86_64`, `["avx", "fma"]`.
    pub architecture: String,
    /// Features the CPU must have.
    pub features: Vec<String>,
    /// Inputs, in source order.
    pub inputs: Vec<Port>,
    /// Outputs, in source order.
    pub outputs: Vec<Port>,
    /// Parameters, in source order.
    pub parameters: Vec<Parameter>,
    /// Names of parameters that only the training variant has: tolerated in a weights file.
    pub training_only: Vec<String>,
    /// Memory.
    pub storages: Vec<Storage>,
    /// Kernels.
    pub kernels: Vec<Kernel>,
    /// In order: those of [`Phase::Prepare`] first.
    pub launches: Vec<Launch>,
    /// Size of the prepared area in bytes.
    pub prepared_bytes: usize,
    /// Size in bytes of the memory that only the prepare phase has.
    pub preparing_bytes: usize,
    /// Size of the arena in bytes.
    pub arena_bytes: usize,
    /// Machine code of all kernels; for a GPU, the text of a PTX module.
    #[serde(skip)]
    pub code: Vec<u8>,
    /// Data of the constants.
    #[serde(skip)]
    pub constants: Vec<u8>,
    /// The prepared area, of a program that comes with its weights: it has no parameters and no prepare phase.
    #[serde(skip)]
    pub weights: Option<Frozen>,
}

impl Program {
    /// Bytes of what a launch reads and of what it writes, each once, for reports.
    pub fn bytes_of(&self, launch: &Launch) -> u64 {
        let (mut read, mut sum) = (vec![], 0u64);
        for (argument, param) in launch.args.iter().zip(&self.kernels[launch.kernel].params) {
            // Weights come twice where they are multiplied by and fetched ahead.
            if param.access != Access::Write && !read.contains(&argument) {
                read.push(argument);
                sum = sum.saturating_add(param.bytes as u64);
            }
            if param.access != Access::Read {
                sum = sum.saturating_add(param.bytes as u64);
            }
        }
        sum
    }

    /// True if it is made for a GPU.
    pub fn is_for_gpu(&self) -> bool {
        self.architecture == GPU_ARCHITECTURE
    }

    /// The PTX of a program for a GPU.
    pub fn ptx(&self) -> Option<&str> {
        if self.is_for_gpu() { std::str::from_utf8(&self.code).ok() } else { None }
    }

    /// The parameters that runs change, as indices into [`Program::parameters`].
    pub fn state(&self) -> impl Iterator<Item = usize> + '_ {
        self.storages.iter().filter_map(|s| match s.class {
            Class::State(i) => Some(i),
            _ => None,
        })
    }
}

/// Why a program cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// The bytes are no program.
    #[error("not a program of this version of nnc")]
    Magic,
    /// The bytes end too early.
    #[error("the program is cut off: expected {expected} bytes, found {found}")]
    Truncated {
        /// How many it should have at least.
        expected: u64,
        /// How many it has.
        found: u64,
    },
    /// The header is damaged.
    #[error("the program's header cannot be read: {0}")]
    Header(String),
    /// The bytes are not those that were written.
    #[error("the program is damaged: its checksum does not match")]
    Checksum,
    /// Its bytes cannot be had.
    #[error("the program cannot be read: {0}")]
    Read(String),
    /// Something in it contradicts something else in it.
    #[error("the program is not valid: {0}")]
    Invalid(String),
    /// It is made for another machine.
    #[error("{0}")]
    Unsupported(String),
}
