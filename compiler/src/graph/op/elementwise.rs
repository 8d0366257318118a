//! Elementwise operations: unary, binary with broadcasting, select, cast, dropout, stop_gradient.

use nnc_runtime::{DType, Tensor};

use super::reference::{self, Element, Float, Number, Target, Walk, broadcast_strides, for_dtype};
use super::rule::{self, Signature};
use super::text::{Reader, Writer};
use super::{Op, OpError, Operation, elementwise_grad};
use crate::autodiff::{At, GradientBuilder, Gradients, NoGradient};
use crate::graph::TensorType;

/// Elementwise functions of one operand. Floats unless said otherwise; definitions are PyTorch's.
/// NaN stays NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // each is its own name
pub enum Unary {
    /// On i32 too (wraps).
    Neg,
    /// On i32 too (wraps).
    Abs,
    Exp,
    Log,
    Sqrt,
    /// `1 / sqrt(x)`
    Rsqrt,
    Tanh,
    Sigmoid,
    Relu,
    /// `x` where positive, else `slope·x`.
    LeakyRelu(f64),
    /// `x` where positive, else `alpha·(exp(x) - 1)`.
    Elu(f64),
    /// The exact form: `x·Φ(x)` by erf.
    Gelu,
    /// `x·sigmoid(x)`
    Silu,
    /// `x·clamp(x + 3, 0, 6) / 6`
    HardSwish,
    /// `clamp(x + 3, 0, 6) / 6`
    HardSigmoid,
    Erf,
    Floor,
    /// -1, 0 or 1.
    Sign,
    /// `min(max(x, lo), hi)`; ReLU6 is `Clamp(0, 6)`.
    Clamp(f64, f64),
    /// On bool.
    Not,
}

/// Elementwise functions of two operands of one type, with NumPy broadcasting. Arithmetic is on
/// floats and i32, where it wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is its own name
pub enum Binary {
    Add,
    Sub,
    Mul,
    /// i32: rounds towards zero; by zero is zero.
    Div,
    /// Floats only.
    Pow,
    /// NaN if one of the two is; `Min` likewise.
    Max,
    Min,
    /// The comparisons give bool; with NaN they are false, but `Ne` true. `Eq` and `Ne` are on
    /// bool too.
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// On bool.
    And,
    Or,
}

/// See [`Op::Where`].
pub struct Where;

/// See [`Op::Cast`]. Float to i32 rounds towards zero and saturates, NaN is 0;
/// anything to bool is `!= 0`.
pub struct Cast {
    /// The type of the result.
    pub to: DType,
}

/// See [`Op::Dropout`].
pub struct Dropout {
    /// Share of the elements that training drops.
    pub probability: f64,
}

/// See [`Op::StopGradient`].
pub struct StopGradient;

impl Unary {
    /// The function on floats. (`Not` is on bool: here the identity.)
    fn apply<T: Float>(self, x: T) -> T {
        let c = T::from_f64;
        let sigmoid = |x: T| c(1.0).div(c(1.0).add(x.neg().exp()));
        // NaN is neither below nor above.
        let clamp = |x: T, low: T, high: T| {
            if x < low {
                low
            } else if x > high {
                high
            } else {
                x
            }
        };
        match self {
            Unary::Neg => x.neg(),
            Unary::Abs => x.abs(),
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Sqrt => x.sqrt(),
            Unary::Rsqrt => c(1.0).div(x.sqrt()),
            Unary::Tanh => x.tanh(),
            Unary::Sigmoid => sigmoid(x),
            Unary::Relu if x < c(0.0) => c(0.0),
            Unary::LeakyRelu(slope) if x < c(0.0) => c(slope).mul(x),
            Unary::Elu(alpha) if x < c(0.0) => c(alpha).mul(x.exp_m1()),
            Unary::Gelu => c(0.5).mul(x).mul(c(1.0).add(x.mul(c(std::f64::consts::FRAC_1_SQRT_2)).erf())),
            Unary::Silu => x.mul(sigmoid(x)),
            Unary::HardSwish => x.mul(clamp(x.add(c(3.0)), c(0.0), c(6.0))).div(c(6.0)),
            Unary::HardSigmoid => clamp(x.add(c(3.0)), c(0.0), c(6.0)).div(c(6.0)),
            Unary::Erf => x.erf(),
            Unary::Floor => x.floor(),
            Unary::Sign if x > c(0.0) => c(1.0),
            Unary::Sign if x < c(0.0) => c(-1.0),
            Unary::Clamp(low, high) => clamp(x, c(low), c(high)),
            Unary::Relu | Unary::LeakyRelu(_) | Unary::Elu(_) | Unary::Sign | Unary::Not => x,
        }
    }
}

impl Operation for Unary {
    fn name(&self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Abs => "abs",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Sqrt => "sqrt",
            Unary::Rsqrt => "rsqrt",
            Unary::Tanh => "tanh",
            Unary::Sigmoid => "sigmoid",
            Unary::Relu => "relu",
            Unary::LeakyRelu(_) => "leaky_relu",
            Unary::Elu(_) => "elu",
            Unary::Gelu => "gelu",
            Unary::Silu => "silu",
            Unary::HardSwish => "hard_swish",
            Unary::HardSigmoid => "hard_sigmoid",
            Unary::Erf => "erf",
            Unary::Floor => "floor",
            Unary::Sign => "sign",
            Unary::Clamp(..) => "clamp",
            Unary::Not => "not",
        }
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        match *self {
            Unary::LeakyRelu(slope) => w.float("slope", slope),
            Unary::Elu(alpha) => w.float("alpha", alpha),
            Unary::Clamp(low, high) => w.float("low", low).float("high", high),
            _ => w,
        };
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let x = operands[0];
        match self {
            Unary::Not => rule::dtype(0, "x", x, DType::Bool)?,
            Unary::Neg | Unary::Abs if x.dtype == DType::I32 => {}
            _ => rule::float(0, "x", x)?,
        }
        if let Unary::Clamp(low, high) = self
            && low > high
        {
            return Err(OpError::new(format!("the lower end {low} must not be above the upper end {high}")));
        }
        Ok(x.clone())
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let x = operands[0];
        match self {
            Unary::Not => map(operands, to, |b: bool| !b),
            Unary::Neg => for_dtype!(numbers, x.dtype(), T => map(operands, to, <T as Number>::neg)),
            Unary::Abs => for_dtype!(numbers, x.dtype(), T => map(operands, to, <T as Number>::abs)),
            _ => for_dtype!(floats, x.dtype(), T => map(operands, to, |x: T| self.apply(x))),
        }
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        elementwise_grad::unary(*self, g, at)
    }
}

impl Binary {
    /// True for the comparisons, whose result is bool.
    pub fn is_comparison(self) -> bool {
        matches!(self, Binary::Eq | Binary::Ne | Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge)
    }

    /// True for `And` and `Or`, which are on bool.
    pub fn is_logical(self) -> bool {
        matches!(self, Binary::And | Binary::Or)
    }
}

impl Operation for Binary {
    fn name(&self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Pow => "pow",
            Binary::Max => "maximum",
            Binary::Min => "minimum",
            Binary::Eq => "eq",
            Binary::Ne => "ne",
            Binary::Lt => "lt",
            Binary::Le => "le",
            Binary::Gt => "gt",
            Binary::Ge => "ge",
            Binary::And => "and",
            Binary::Or => "or",
        }
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["a", "b"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let (a, b) = (operands[0], operands[1]);
        check_same_dtype(1, ("a", a), ("b", b))?;
        if self.is_logical() {
            rule::dtype(0, "a", a, DType::Bool)?;
        } else if *self == Binary::Pow {
            rule::float(0, "a", a)?;
        } else if a.dtype == DType::Bool && !matches!(self, Binary::Eq | Binary::Ne) {
            return Err(OpError::operand(0, format!("`{}` is on numbers, `a` is {a}", self.name())));
        }
        let dtype = if self.is_comparison() { DType::Bool } else { a.dtype };
        Ok(TensorType { dtype, shape: rule::broadcast(&[("a", a), ("b", b)])? })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let dtype = operands[0].dtype();
        match self {
            Binary::And => zip(operands, to, |a: bool, b: bool| a & b),
            Binary::Or => zip(operands, to, |a: bool, b: bool| a | b),
            Binary::Eq => for_dtype!(all, dtype, T => zip(operands, to, |a: T, b: T| a == b)),
            Binary::Ne => for_dtype!(all, dtype, T => zip(operands, to, |a: T, b: T| a != b)),
            Binary::Lt => for_dtype!(numbers, dtype, T => zip(operands, to, |a: T, b: T| a < b)),
            Binary::Le => for_dtype!(numbers, dtype, T => zip(operands, to, |a: T, b: T| a <= b)),
            Binary::Gt => for_dtype!(numbers, dtype, T => zip(operands, to, |a: T, b: T| a > b)),
            Binary::Ge => for_dtype!(numbers, dtype, T => zip(operands, to, |a: T, b: T| a >= b)),
            Binary::Add => for_dtype!(numbers, dtype, T => zip(operands, to, T::add)),
            Binary::Sub => for_dtype!(numbers, dtype, T => zip(operands, to, T::sub)),
            Binary::Mul => for_dtype!(numbers, dtype, T => zip(operands, to, T::mul)),
            Binary::Div => for_dtype!(numbers, dtype, T => zip(operands, to, <T as Number>::div)),
            Binary::Max => for_dtype!(numbers, dtype, T => zip(operands, to, <T as Number>::max)),
            Binary::Min => for_dtype!(numbers, dtype, T => zip(operands, to, <T as Number>::min)),
            Binary::Pow => for_dtype!(floats, dtype, T => zip(operands, to, T::powf)),
        }
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        elementwise_grad::binary(*self, g, at)
    }
}

impl Operation for Where {
    fn name(&self) -> &'static str {
        "where"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["condition", "a", "b"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        let (condition, a, b) = (operands[0], operands[1], operands[2]);
        rule::dtype(0, "condition", condition, DType::Bool)?;
        check_same_dtype(2, ("a", a), ("b", b))?;
        let shape = rule::broadcast(&[("condition", condition), ("a", a), ("b", b)])?;
        Ok(TensorType { dtype: a.dtype, shape })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        let condition = reference::elements::<bool>(operands, 0)?;
        for_dtype!(all, operands[1].dtype(), T => {
            let (a, b) = (reference::elements::<T>(operands, 1)?, reference::elements::<T>(operands, 2)?);
            let walk = |i: usize| Walk::new(&to.shape, broadcast_strides(operands[i].shape(), &to.shape), 0);
            let pick = |((c, i), j): ((usize, usize), usize)| if condition[c] { a[i] } else { b[j] };
            reference::tensor(&to.shape, walk(0).zip(walk(1)).zip(walk(2)).map(pick).collect())
        })
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let (condition, dy) = (at.operands[0], at.gradient);
        let (da, db) = (g.only_where(condition, dy), g.only_unless(condition, dy));
        Ok(vec![None, Some(g.sum_to(da, at.operands[1])), Some(g.sum_to(db, at.operands[2]))])
    }
}

impl Operation for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.put("to", self.to);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        Ok(TensorType { dtype: self.to, shape: operands[0].shape.clone() })
    }

    fn eval(&self, operands: &[&Tensor], to: &Target) -> Result<Tensor, OpError> {
        for_dtype!(all, operands[0].dtype(), From => for_dtype!(all, to.dtype, To => {
            map(operands, to, |x: From| To::from_f64(x.to_f64()))
        }))
    }

    fn gradient(&self, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        let from = g.ty(at.operands[0]).dtype;
        Ok(vec![from.is_float().then(|| g.op(Op::Cast(from), &[at.gradient]))])
    }
}

impl Operation for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn attributes(&self, w: &mut Writer) {
        w.float("probability", self.probability);
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        rule::float(0, "x", operands[0])?;
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(OpError::new(format!(
                "the probability must lie in 0 to 1, it is {}",
                self.probability
            )));
        }
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor], _: &Target) -> Result<Tensor, OpError> {
        Ok(operands[0].clone())
    }

    fn gradient(&self, _: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
        Ok(vec![Some(at.gradient)])
    }
}

impl Operation for StopGradient {
    fn name(&self) -> &'static str {
        "stop_gradient"
    }

    fn signature(&self) -> Signature {
        Signature::fixed(&["x"])
    }

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, OpError> {
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor], _: &Target) -> Result<Tensor, OpError> {
        Ok(operands[0].clone())
    }

    fn gradient(&self, _: &GradientBuilder, _: &At) -> Result<Gradients, NoGradient> {
        Ok(vec![None])
    }
}

fn check_same_dtype(i: usize, a: (&str, &TensorType), b: (&str, &TensorType)) -> Result<(), OpError> {
    if a.1.dtype == b.1.dtype {
        return Ok(());
    }
    Err(OpError::operand(
        i,
        format!("`{}` and `{}` must have one element type, they are {} and {}", a.0, b.0, a.1, b.1),
    )
    .help("convert one of them with `cast`"))
}

fn map<A: Element, B: Element>(
    operands: &[&Tensor],
    to: &Target,
    f: impl Fn(A) -> B,
) -> Result<Tensor, OpError> {
    let x = reference::elements::<A>(operands, 0)?;
    reference::tensor(&to.shape, x.iter().map(|&x| f(x)).collect())
}

fn zip<A: Element, B: Element>(
    operands: &[&Tensor],
    to: &Target,
    f: impl Fn(A, A) -> B,
) -> Result<Tensor, OpError> {
    let (a, b) = (reference::elements::<A>(operands, 0)?, reference::elements::<A>(operands, 1)?);
    let walk = |i: usize| Walk::new(&to.shape, broadcast_strides(operands[i].shape(), &to.shape), 0);
    reference::tensor(&to.shape, walk(0).zip(walk(1)).map(|(i, j)| f(a[i], b[j])).collect())
}

/// The operation of this family with that name, its attributes read; `None` for other names.
pub fn parse(name: &str, r: &mut Reader) -> Result<Option<Op>, String> {
    const UNARY: [Unary; 17] = [
        Unary::Neg,
        Unary::Abs,
        Unary::Exp,
        Unary::Log,
        Unary::Sqrt,
        Unary::Rsqrt,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Relu,
        Unary::Gelu,
        Unary::Silu,
        Unary::HardSwish,
        Unary::HardSigmoid,
        Unary::Erf,
        Unary::Floor,
        Unary::Sign,
        Unary::Not,
    ];
    const BINARY: [Binary; 15] = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Pow,
        Binary::Max,
        Binary::Min,
        Binary::Eq,
        Binary::Ne,
        Binary::Lt,
        Binary::Le,
        Binary::Gt,
        Binary::Ge,
        Binary::And,
        Binary::Or,
    ];
    if let Some(u) = UNARY.into_iter().find(|u| u.name() == name) {
        return Ok(Some(Op::Unary(u)));
    }
    if let Some(b) = BINARY.into_iter().find(|b| b.name() == name) {
        return Ok(Some(Op::Binary(b)));
    }
    Ok(Some(match name {
        "leaky_relu" => Op::Unary(Unary::LeakyRelu(r.value("slope")?)),
        "elu" => Op::Unary(Unary::Elu(r.value("alpha")?)),
        "clamp" => Op::Unary(Unary::Clamp(r.value("low")?, r.value("high")?)),
        "where" => Op::Where,
        "cast" => {
            let to = r.need("to")?;
            Op::Cast(DType::from_name(&to).ok_or_else(|| format!("`{to}` is not an element type"))?)
        }
        "dropout" => Op::Dropout(r.value("probability")?),
        "stop_gradient" => Op::StopGradient,
        _ => return Ok(None),
    }))
}
