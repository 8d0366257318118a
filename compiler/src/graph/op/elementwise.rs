//! Elementwise operations: unary, binary with broadcasting, select, cast, dropout, stop_gradient.

/// Elementwise functions of one operand. Floats unless said otherwise; definitions are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // each is its own name
pub enum Unary {
    Neg,
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

/// Elementwise functions of two operands of one type, with NumPy broadcasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is its own name
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Max,
    Min,
    /// The comparisons give bool.
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
