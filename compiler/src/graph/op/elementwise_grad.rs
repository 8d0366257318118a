//! Gradients of the elementwise operations: PyTorch's, also where functions have a kink.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use super::{Binary, Unary};
use crate::autodiff::{At, GradientBuilder, Gradients, NoGradient};
use crate::graph::NodeId;

/// Of a function of one operand.
pub fn unary(f: Unary, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
    let (x, y, dy) = (at.operands[0], at.result, at.gradient);
    let one_minus = |v| g.sub(g.number(1.0, v), v);
    let dx = match f {
        Unary::Neg => g.neg(dy),
        Unary::Abs => g.mul(dy, g.unary(Unary::Sign, x)),
        Unary::Exp => g.mul(dy, y),
        Unary::Log => g.div(dy, x),
        Unary::Sqrt => g.div(g.scale(dy, 0.5), y),
        Unary::Rsqrt => g.mul(g.scale(dy, -0.5), g.mul(y, g.mul(y, y))),
        Unary::Tanh => g.mul(dy, one_minus(g.mul(y, y))),
        Unary::Sigmoid => g.mul(dy, g.mul(y, one_minus(y))),
        // By the result, so that the operand need not be kept.
        Unary::Relu => g.only_unless(g.compare(Binary::Le, y, 0.0), dy),
        Unary::LeakyRelu(slope) => g.select(g.compare(Binary::Gt, x, 0.0), dy, g.scale(dy, slope)),
        Unary::Elu(alpha) => g.select(g.compare(Binary::Gt, x, 0.0), dy, g.mul(dy, g.offset(y, alpha))),
        Unary::Gelu => {
            let cumulative = g.scale(g.offset(g.unary(Unary::Erf, g.scale(x, FRAC_1_SQRT_2)), 1.0), 0.5);
            let density = g.scale(g.unary(Unary::Exp, g.scale(g.mul(x, x), -0.5)), (2.0 * PI).sqrt().recip());
            g.mul(dy, g.add(cumulative, g.mul(x, density)))
        }
        Unary::Silu => {
            let s = g.unary(Unary::Sigmoid, x);
            g.mul(dy, g.mul(s, g.offset(g.mul(x, one_minus(s)), 1.0)))
        }
        Unary::HardSwish => {
            let between = g.mul(dy, g.offset(g.scale(x, 1.0 / 3.0), 0.5));
            let above = g.select(g.compare(Binary::Lt, x, 3.0), between, dy);
            g.only_unless(g.compare(Binary::Le, x, -3.0), above)
        }
        Unary::HardSigmoid => {
            let inside = g.compare(Binary::Lt, g.unary(Unary::Abs, x), 3.0);
            g.only_where(inside, g.scale(dy, 1.0 / 6.0))
        }
        Unary::Erf => g.mul(dy, g.scale(g.unary(Unary::Exp, g.neg(g.mul(x, x))), FRAC_2_SQRT_PI)),
        // By the result, as above. Nothing flows at the ends, as in PyTorch's `relu6` and `hardtanh` (and
        // `clamp` of 2.15; older ones let the gradient through there).
        Unary::Clamp(low, high) => {
            let ends = g.binary(Binary::Or, g.compare(Binary::Le, y, low), g.compare(Binary::Ge, y, high));
            g.only_unless(ends, dy)
        }
        Unary::Floor | Unary::Sign => {
            let why = NoGradient::new("it is constant but for jumps");
            return Err(why.help("if it is meant to be constant, say so with `stop_gradient`"));
        }
        Unary::Not => return Ok(vec![None]),
    };
    Ok(vec![Some(dx)])
}

/// Of a function of two operands.
pub fn binary(f: Binary, g: &GradientBuilder, at: &At) -> Result<Gradients, NoGradient> {
    let (a, b, y, dy) = (at.operands[0], at.operands[1], at.result, at.gradient);
    let (da, db) = match f {
        Binary::Add => (dy, dy),
        Binary::Sub => (dy, g.neg(dy)),
        Binary::Mul => (g.mul(dy, b), g.mul(dy, a)),
        Binary::Div => {
            let da = g.div(dy, b);
            (da, g.neg(g.mul(da, y)))
        }
        Binary::Pow => pow(g, at),
        Binary::Max => largest(g, dy, a, b),
        Binary::Min => largest(g, dy, b, a),
        _ => return Ok(vec![None, None]),
    };
    Ok(vec![Some(g.sum_to(da, a)), Some(g.sum_to(db, b))])
}

/// `b·a^(b-1)`, 0 for `b = 0`; `a^b·ln a`, 0 for `a = 0` where `b` is not negative.
fn pow(g: &GradientBuilder, at: &At) -> (NodeId, NodeId) {
    let (a, b, y, dy) = (at.operands[0], at.operands[1], at.result, at.gradient);
    let slope = g.mul(b, g.binary(Binary::Pow, a, g.offset(b, -1.0)));
    let da = g.only_unless(g.compare(Binary::Eq, b, 0.0), g.mul(dy, slope));
    let vanishes = g.binary(Binary::And, g.compare(Binary::Eq, a, 0.0), g.compare(Binary::Ge, b, 0.0));
    (da, g.only_unless(vanishes, g.mul(dy, g.mul(y, g.unary(Unary::Log, a)))))
}

/// Gradients of a maximum of `a` and `b`: halved where they are equal. (Of the minimum: with `a` and `b`
/// exchanged, the parts come in the operands' order all the same.)
fn largest(g: &GradientBuilder, dy: NodeId, a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    let half = g.select(g.binary(Binary::Eq, a, b), g.scale(dy, 0.5), dy);
    let less = g.binary(Binary::Lt, a, b);
    let more = g.binary(Binary::Gt, a, b);
    (g.only_unless(less, half), g.only_unless(more, half))
}
