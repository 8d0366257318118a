//! A whole program before code: kernels, the values they work on, and the order of launches.

use nnc_runtime::DType;
use nnc_runtime::program::{Parameter, Phase, Port};

use super::Kernel;

/// Index into [`Module::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

/// What a value is to the program.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Input number i: row-major, the caller's.
    Input(usize),
    /// Output number i: row-major, the caller's.
    Output(usize),
    /// Parameter number i: row-major, as loaded. Read in the prepare phase, or (where nothing
    /// had to be prepared) directly in the run phase.
    Parameter(usize),
    /// Parameter number i, row-major, updated in place: the run phase reads and writes it, and the
    /// next run finds what this one left. It is never [`Role::Parameter`] too.
    State(usize),
    /// Known bytes, little-endian.
    Constant(Vec<u8>),
    /// Made by kernels. The plan finds out whether it is prepared once or lives in the arena.
    Temporary,
}

/// A dense block of memory that kernels read and write.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The names of the layers' values in it.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub elements: usize,
    /// Shape as it lies in memory, for the text form.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
}

/// A value given to a kernel, from an element on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// The value.
    pub value: ValueId,
    /// First element of the part that the kernel sees.
    pub offset: usize,
}

/// A call of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Index into [`Module::kernels`].
    pub kernel: usize,
    /// One for each of the kernel's global buffers.
    pub args: Vec<Arg>,
    /// When.
    pub phase: Phase,
    /// The names of the layers it computes.
    pub layer: String,
    /// Where they are written: `vgg.nn:9`, or empty.
    pub location: String,
}

/// Kernels, values and launches of one program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    /// The net's name.
    pub name: String,
    /// Inputs in source order.
    pub inputs: Vec<Port>,
    /// Outputs in source order.
    pub outputs: Vec<Port>,
    /// Parameters in source order.
    pub parameters: Vec<Parameter>,
    /// All values.
    pub values: Vec<Value>,
    /// Kernels; equal ones are kept once.
    pub kernels: Vec<Kernel>,
    /// In the order in which they run; those of [`Phase::Prepare`] first.
    pub launches: Vec<Launch>,
    /// Values that are computed again instead of being kept: the second one, and the first.
    pub recomputed: Vec<(ValueId, ValueId)>,
}
