//! The closed set of core operations.
//!
//! Each family has a file with everything about its operations: attributes, shape rule, reference
//! semantics, gradient rule, text form. [`Op`] is the list of them; [`Operation`] is what each must say.

pub mod conv;
pub mod conv_grad;
pub mod elementwise;
mod elementwise_grad;
pub mod index;
pub mod linear;
pub mod norm;
pub mod pool;
pub mod pool_grad;
pub mod random;
pub mod reduce;
pub mod reference;
pub mod rule;
pub mod shape;
pub mod source;
pub mod text;

use nnc_runtime::Tensor;

use super::TensorType;
use crate::autodiff::{At, GradientBuilder, Gradients, NoGradient};
pub use conv::{Conv2d, ConvTranspose2d};
pub use conv_grad::{Conv2dInputGrad, Conv2dWeightGrad};
pub use elementwise::{Binary, Unary};
pub use norm::{BatchNorm, LocalResponseNorm};
pub use pool::{AvgPool2d, MaxPool2d, Window};
pub use pool_grad::AvgPool2dGrad;
pub use random::Philox;
pub use reduce::ReduceKind;
use reference::Target;
pub use rule::{Signature, check_type};
pub use shape::Padding;
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
    /// Random numbers as a function of `seed: i32[2]`, `step: i32[]`, a stream and the element.
    Philox(Philox),
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
    /// Gradient of a [`Conv2d`] with respect to `x`, from that of its result, `dy`, and `weight`.
    Conv2dInputGrad(Conv2dInputGrad),
    /// Gradient of a [`Conv2d`] with respect to `weight`, from `x` and that of its result, `dy`.
    Conv2dWeightGrad(Conv2dWeightGrad),
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
    /// Gradient of max pooling, from `x` and that of its result, `dy`: to each window's first
    /// maximum, row-major; a NaN counts as one.
    MaxPool2dGrad(MaxPool2d),
    /// Gradient of average pooling, from that of its result, `dy`.
    AvgPool2dGrad(AvgPool2dGrad),
    /// Gradient of max pooling to the grid of `dy`, from `x` and `dy`.
    AdaptiveMaxPool2dGrad,
    /// Gradient of average pooling of that height and width to the grid of `dy`.
    AdaptiveAvgPool2dGrad([super::Dim; 2]),
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
    /// `x` with its elements in reverse order along these axes (sorted, each once).
    Reverse(Vec<usize>),
    /// `x` with copies of a value before, after and between its elements.
    Pad {
        /// How many, an axis each.
        pads: Vec<Padding>,
        /// The value.
        value: f64,
    },
    /// `x` repeated to that shape (NumPy's rules).
    Broadcast(super::Shape),
    /// Rows of `table: [.., K, ..]` along the axis at `indices` (i32): the axis is replaced by the
    /// shape of `indices`. Indices outside are clamped.
    Gather(usize),
    /// Gradient of a gather from a table that has `size` rows, from that of its result, `dy`, and
    /// `indices`: sums for every row.
    GatherGrad {
        /// The axis of the table.
        axis: usize,
        /// Its size.
        size: super::Dim,
    },
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

/// What every operation says of itself. Implemented in the families' files; rules and evaluation
/// may rely on the number of operands that the signature allows.
pub trait Operation {
    /// Its name in the text form: `conv2d`.
    fn name(&self) -> &'static str;
    /// Names and number of its operands.
    fn signature(&self) -> Signature;
    /// Writes its attributes; each family's `parse` reads them.
    fn attributes(&self, _: &mut text::Writer) {}
    /// Shape rule. The caller checks the number of operands before, sizes of the result after.
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError>;
    /// Reference semantics: plain loops, obviously right, floats computed in the operands' type.
    /// The operands are row-major and fit the shape rule, `to` is what it gives.
    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError>;
    /// Gradient rule: from the gradient of the result those of the operands, an entry each; `None`
    /// where nothing flows (indices, conditions). Gradients are not differentiated themselves.
    fn gradient(&self, _: &GradientBuilder, _: &At) -> Result<Gradients, NoGradient> {
        Err(NoGradient::new("it has no gradient rule"))
    }
}

impl Op {
    /// Hands the operation, whatever its family, to a function.
    fn with<R>(&self, f: impl FnOnce(&dyn Operation) -> R) -> R {
        match self {
            Op::Input => f(&source::Input),
            Op::Parameter(p) => f(p),
            Op::Constant(c) => f(c),
            Op::Random(d) => f(d),
            Op::Philox(p) => f(p),
            Op::Unary(u) => f(u),
            Op::Binary(b) => f(b),
            Op::Where => f(&elementwise::Where),
            &Op::Cast(to) => f(&elementwise::Cast { to }),
            Op::Conv2d(c) => f(c),
            Op::ConvTranspose2d(c) => f(c),
            Op::Conv2dInputGrad(c) => f(c),
            Op::Conv2dWeightGrad(c) => f(c),
            Op::MatMul => f(&linear::MatMul),
            Op::Linear => f(&linear::Linear),
            Op::MaxPool2d(p) => f(p),
            Op::AvgPool2d(p) => f(p),
            &Op::AdaptiveMaxPool2d(output) => f(&pool::AdaptiveMaxPool2d { output }),
            &Op::AdaptiveAvgPool2d(output) => f(&pool::AdaptiveAvgPool2d { output }),
            Op::MaxPool2dGrad(pool) => f(&pool_grad::MaxPool2dGrad { pool }),
            Op::AvgPool2dGrad(p) => f(p),
            Op::AdaptiveMaxPool2dGrad => f(&pool_grad::AdaptiveMaxPool2dGrad),
            Op::AdaptiveAvgPool2dGrad(input) => f(&pool_grad::AdaptiveAvgPool2dGrad { input }),
            Op::BatchNorm(b) => f(b),
            Op::LocalResponseNorm(l) => f(l),
            &Op::Dropout(probability) => f(&elementwise::Dropout { probability }),
            &Op::Softmax(axis) => f(&norm::Softmax { axis }),
            &Op::LogSoftmax(axis) => f(&norm::LogSoftmax { axis }),
            Op::Reduce { kind, axes, keep } => f(&reduce::Reduce { kind: *kind, axes, keep: *keep }),
            &Op::ArgMax { axis, keep } => f(&reduce::ArgMax { axis, keep }),
            Op::Reshape(shape) => f(&shape::Reshape { shape }),
            Op::Transpose(order) => f(&shape::Transpose { order }),
            &Op::Concat(axis) => f(&shape::Concat { axis }),
            Op::Slice { axis, start, end, step } => f(&shape::Slice { axis: *axis, start, end, step: *step }),
            Op::Reverse(axes) => f(&shape::Reverse { axes }),
            Op::Pad { pads, value } => f(&shape::Pad { pads, value: *value }),
            Op::Broadcast(shape) => f(&shape::Broadcast { shape }),
            &Op::Gather(axis) => f(&index::Gather { axis }),
            Op::GatherGrad { axis, size } => f(&index::GatherGrad { axis: *axis, size }),
            &Op::OneHot(classes) => f(&index::OneHot { classes }),
            Op::StopGradient => f(&elementwise::StopGradient),
            Op::Relayout => f(&shape::Relayout),
        }
    }

    /// Its name in the text form: `conv2d`, `relu`, `reduce_mean`.
    pub fn name(&self) -> &'static str {
        self.with(|o| o.name())
    }

    /// Its attributes in the text form, `stride=2x2, padding=1x1`; empty if all have their default.
    pub fn attributes(&self) -> String {
        let mut writer = text::Writer::default();
        self.with(|o| o.attributes(&mut writer));
        writer.finish()
    }

    /// The operation of that name with attributes as [`Op::attributes`] writes them.
    pub fn parse(name: &str, attributes: &str) -> Result<Op, String> {
        type Parse = fn(&str, &mut text::Reader) -> Result<Option<Op>, String>;
        const FAMILIES: [Parse; 12] = [
            source::parse,
            elementwise::parse,
            conv::parse,
            conv_grad::parse,
            linear::parse,
            pool::parse,
            pool_grad::parse,
            random::parse,
            norm::parse,
            reduce::parse,
            shape::parse,
            index::parse,
        ];
        let mut reader = text::Reader::new(attributes)?;
        for parse in FAMILIES {
            if let Some(op) = parse(name, &mut reader)? {
                reader.finish()?;
                return Ok(op);
            }
        }
        Err(format!("unknown operation `{name}`"))
    }

    /// Names and number of its operands.
    pub fn signature(&self) -> Signature {
        self.with(|o| o.signature())
    }

    /// True for inputs, parameters, constants and random numbers: no operands, a given type.
    pub fn is_source(&self) -> bool {
        matches!(self, Op::Input | Op::Parameter(_) | Op::Constant(_) | Op::Random(_))
    }

    /// The type of the result for operands of these types. (Not for sources: their type is given;
    /// check it with [`check_type`].)
    pub fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        self.with(|o| {
            o.signature().check_count(o.name(), operands.len())?;
            let ty = o.infer(operands)?;
            check_type(&ty)?;
            Ok(ty)
        })
    }

    /// Adds the gradients of the operands; see [`Operation::gradient`].
    pub fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        self.with(|o| o.gradient(g, at))
    }

    /// The value for operands of these values: the reference semantics, in plain loops. `ty` is the
    /// node's type; its element type decides what a constant, cast or one_hot gives (so that a
    /// graph can be evaluated in f64). Inputs, parameters and random numbers have no value here.
    pub fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        let shape = ty.sizes().ok_or_else(|| OpError::new(format!("{ty} has no known size")))?;
        if !self.is_source() {
            let types: Vec<TensorType> =
                operands.iter().map(|t| TensorType::new(t.dtype(), t.shape())).collect();
            types.iter().try_for_each(check_type)?;
            let found = self.infer(&types.iter().collect::<Vec<_>>())?;
            if found.shape != ty.shape {
                return Err(OpError::new(format!("the result should be {ty}, it would be {found}")));
            }
        }
        self.with(|o| o.eval(operands, &Target { dtype: ty.dtype, shape }))
    }
}
