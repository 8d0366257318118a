//! The closed set of core operations.
//!
//! Each family has a file with everything about its operations: attributes, shape rule, reference
//! semantics, text form. [`Op`] is the list of them; [`Operation`] is what each must say.

pub mod conv;
pub mod elementwise;
pub mod index;
pub mod linear;
pub mod norm;
pub mod pool;
pub mod reduce;
pub mod shape;
pub mod source;

use nnc_runtime::Tensor;

use super::TensorType;
pub use conv::{Conv2d, ConvTranspose2d};
pub use elementwise::{Binary, Unary};
pub use norm::{BatchNorm, LocalResponseNorm};
pub use pool::{AvgPool2d, MaxPool2d, Window};
pub use reduce::ReduceKind;
pub use source::{Distribution, Literal, Parameter};

/// A core operation with its attributes. Operands are the node's incoming edges, in the order
/// given here; brackets mark an optional last one.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A tensor given by the caller. No operands.
    Input,
    /// A tensor with a name in the weights file. No operands.
    Parameter(Parameter),
    /// A known tensor. No operands.
    Constant(Literal),
    /// Random numbers of a shape, drawn anew every run. No operands.
    Random(Distribution),
    /// Elementwise function of `x`.
    Unary(Unary),
    /// Elementwise function of `a`, `b` with NumPy broadcasting.
    Binary(Binary),
    /// `condition ? a : b`, elementwise with broadcasting.
    Where,
    /// Conversion of the element type of `x`.
    Cast(nnc_runtime::DType),
    /// 2-D convolution of `x: [N, C, H, W]` with `weight: [O, C/groups, KH, KW]` `[, bias: [O]]`.
    Conv2d(Conv2d),
    /// Transposed 2-D convolution of `x: [N, C, H, W]` with `weight: [C, O/groups, KH, KW]` `[, bias: [O]]`.
    ConvTranspose2d(ConvTranspose2d),
    /// Matrix product of `a: [.., M, K]` and `b: [.., K, N]`, batch dimensions broadcast.
    MatMul,
    /// `x: [.., I]` times the transpose of `weight: [O, I]` `[, bias: [O]]`.
    Linear,
    /// Largest value of every window of `x: [N, C, H, W]`; padding never wins.
    MaxPool2d(MaxPool2d),
    /// Mean of every window of `x: [N, C, H, W]`.
    AvgPool2d(AvgPool2d),
    /// Max pooling of `x: [N, C, H, W]` to a fixed grid (height, width), PyTorch's windows:
    /// row `i` takes `floor(i·H/out) .. ceil((i+1)·H/out)`.
    AdaptiveMaxPool2d([usize; 2]),
    /// Average pooling to a fixed grid.
    AdaptiveAvgPool2d([usize; 2]),
    /// Batch normalisation of `x: [N, C, ..]` with `weight`, `bias`, `running_mean`, `running_var: [C]`.
    BatchNorm(BatchNorm),
    /// Local response normalisation across channels of `x: [N, C, ..]`.
    LocalResponseNorm(LocalResponseNorm),
    /// Dropout of `x` with that probability: identity in inference.
    Dropout(f64),
    /// Softmax of `x` along the axis.
    Softmax(usize),
    /// Logarithm of the softmax of `x` along the axis.
    LogSoftmax(usize),
    /// Reduction of `x` over axes.
    Reduce {
        /// What is computed.
        kind: ReduceKind,
        /// Over which axes: sorted, each once.
        axes: Vec<usize>,
        /// Whether they stay as size 1.
        keep: bool,
    },
    /// Index (i32) of the first largest value of `x` along the axis.
    ArgMax {
        /// The axis.
        axis: usize,
        /// Whether it stays as size 1.
        keep: bool,
    },
    /// The same elements of `x`, row-major, in another shape.
    Reshape(super::Shape),
    /// `x` with its axes in that order.
    Transpose(Vec<usize>),
    /// The operands one after the other along the axis.
    Concat(usize),
    /// `x[.., start..end step, ..]` along the axis.
    Slice {
        /// The axis.
        axis: usize,
        /// First index.
        start: super::Dim,
        /// One past the last.
        end: super::Dim,
        /// Step, at least 1.
        step: usize,
    },
    /// `x` with that many copies of a value before and after each axis.
    Pad {
        /// Before and after, an axis each.
        pads: Vec<(usize, usize)>,
        /// The value.
        value: f64,
    },
    /// `x` repeated to that shape (NumPy's rules).
    Broadcast(super::Shape),
    /// Rows of `table: [.., K, ..]` along the axis at `indices` (i32): the axis is replaced by the
    /// shape of `indices`. Indices outside are clamped.
    Gather(usize),
    /// `indices: [..]` (i32) to `f32[.., classes]`: 1 at the index, else 0.
    OneHot(usize),
    /// `x`, through which no gradient flows.
    StopGradient,
    /// `x` in another memory layout (the node's `layout`); inserted by the layout pass.
    Relayout,
}

/// Why an operation cannot be applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct OpError {
    /// Starts lowercase; says expected before found.
    pub message: String,
    /// Which operand is at fault, if one is.
    pub operand: Option<usize>,
    /// What to do, where that is obvious.
    pub help: Option<String>,
}

impl OpError {
    /// About no operand in particular.
    pub fn new(message: impl Into<String>) -> OpError {
        OpError { message: message.into(), operand: None, help: None }
    }

    /// About that operand.
    pub fn operand(i: usize, message: impl Into<String>) -> OpError {
        OpError { message: message.into(), operand: Some(i), help: None }
    }

    /// With a hint.
    pub fn help(mut self, help: impl Into<String>) -> OpError {
        self.help = Some(help.into());
        self
    }
}

/// What every operation says of itself.
pub trait Operation {
    /// Its name in the text form: `conv2d`.
    fn name(&self) -> &'static str;
    /// Its attributes in the text form, e.g. `[("stride", "2x2")]`; defaults may be left out.
    fn attributes(&self) -> Vec<(&'static str, String)>;
    /// Shape rule.
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError>;
    /// Reference semantics: plain loops, obviously right. `ty` is the (known) type of the result.
    /// Floats are computed in the operands' type (f32 or f64).
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError>;
}

impl Op {
    /// The type of the result for operands of these types.
    pub fn infer(&self, _operands: &[&TensorType]) -> Result<TensorType, OpError> {
        Err(OpError::new("not yet"))
    }
}
