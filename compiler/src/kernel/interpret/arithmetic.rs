//! The operations on 32-bit cells: an f32's bits, an i32, or a bool as 0 or 1.

use nnc_runtime::DType;

use crate::kernel::block::tf32;
use crate::kernel::{BinOp, UnOp};

pub type Unary = fn(u32) -> u32;
pub type Binary = fn(u32, u32) -> u32;

fn f(x: u32) -> f32 {
    f32::from_bits(x)
}

fn i(x: u32) -> i32 {
    x as i32
}

/// A constant as a cell.
pub fn constant(dtype: DType, c: f64) -> u32 {
    match dtype {
        DType::F32 | DType::F64 => (c as f32).to_bits(),
        DType::I32 => c as i32 as u32,
        DType::Bool => (c != 0.0) as u32,
    }
}

/// The operation for operands of a type that the verifier has allowed, and the type of its result.
pub fn unary(op: UnOp, dtype: DType) -> (Unary, DType) {
    let float = dtype == DType::F32;
    let operation: Unary = match op {
        UnOp::Neg if float => |x| x ^ 0x8000_0000,
        UnOp::Neg => |x| i(x).wrapping_neg() as u32,
        UnOp::Abs if float => |x| x & 0x7fff_ffff,
        UnOp::Abs => |x| i(x).wrapping_abs() as u32,
        UnOp::Sqrt => |x| f(x).sqrt().to_bits(),
        UnOp::Floor => |x| f(x).floor().to_bits(),
        UnOp::Relu if float => |x| if 0.0 > f(x) { 0 } else { x },
        UnOp::Relu => |x| i(x).max(0) as u32,
        UnOp::Not => |x| x ^ 1,
        UnOp::Bits | UnOp::FromBits => |x| x,
        UnOp::Tf32 => tf32,
        // Expanded before: see `math`.
        UnOp::Exp => |x| f(x).exp().to_bits(),
        UnOp::Log => |x| f(x).ln().to_bits(),
        UnOp::Tanh => |x| f(x).tanh().to_bits(),
        UnOp::Sigmoid => |x| (1.0 / (1.0 + (-f(x)).exp())).to_bits(),
        UnOp::Erf => |x| (libm::erff(f(x))).to_bits(),
    };
    let result = match op {
        UnOp::Bits => DType::I32,
        UnOp::FromBits => DType::F32,
        _ => dtype,
    };
    (operation, result)
}

/// `a` if it is NaN or `wins`, else `b`.
fn choose(a: u32, b: u32, wins: bool) -> u32 {
    if f(a).is_nan() || wins { a } else { b }
}

/// Likewise for two operands.
pub fn binary(op: BinOp, dtype: DType) -> (Binary, DType) {
    let float = dtype == DType::F32;
    let operation: Binary = match op {
        BinOp::Add if float => |a, b| (f(a) + f(b)).to_bits(),
        BinOp::Add => u32::wrapping_add,
        BinOp::Sub if float => |a, b| (f(a) - f(b)).to_bits(),
        BinOp::Sub => u32::wrapping_sub,
        BinOp::Mul if float => |a, b| (f(a) * f(b)).to_bits(),
        BinOp::Mul => u32::wrapping_mul,
        BinOp::Div if float => |a, b| (f(a) / f(b)).to_bits(),
        BinOp::Div => |a, b| if b == 0 { 0 } else { i(a).wrapping_div(i(b)) as u32 },
        BinOp::Max if float => |a, b| choose(a, b, f(a) > f(b)),
        BinOp::Max => |a, b| i(a).max(i(b)) as u32,
        BinOp::Min if float => |a, b| choose(a, b, f(a) < f(b)),
        BinOp::Min => |a, b| i(a).min(i(b)) as u32,
        BinOp::Eq if float => |a, b| (f(a) == f(b)) as u32,
        BinOp::Eq => |a, b| (a == b) as u32,
        BinOp::Ne if float => |a, b| (f(a) != f(b)) as u32,
        BinOp::Ne => |a, b| (a != b) as u32,
        BinOp::Lt if float => |a, b| (f(a) < f(b)) as u32,
        BinOp::Lt => |a, b| (i(a) < i(b)) as u32,
        BinOp::Le if float => |a, b| (f(a) <= f(b)) as u32,
        BinOp::Le => |a, b| (i(a) <= i(b)) as u32,
        BinOp::And => |a, b| a & b,
        BinOp::Or => |a, b| a | b,
        BinOp::Xor => |a, b| a ^ b,
        BinOp::MulHigh => |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32,
        BinOp::Shl => u32::wrapping_shl,
        BinOp::Shr => |a, b| i(a).wrapping_shr(b) as u32,
        // Expanded before: see `math`.
        BinOp::Pow => |a, b| f(a).powf(f(b)).to_bits(),
    };
    let result = match op {
        BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le => DType::Bool,
        _ => dtype,
    };
    (operation, result)
}

/// Conversion between types.
pub fn cast(from: DType, to: DType) -> Unary {
    match (from, to) {
        (DType::F32, DType::I32) => |x| f(x) as i32 as u32,
        (DType::F32, DType::Bool) => |x| (f(x) != 0.0) as u32,
        (DType::I32 | DType::Bool, DType::F32) => |x| (i(x) as f32).to_bits(),
        (DType::I32, DType::Bool) => |x| (x != 0) as u32,
        _ => |x| x,
    }
}

/// `a·b + c`, rounded once.
pub fn fma(a: u32, b: u32, c: u32) -> u32 {
    f(a).mul_add(f(b), f(c)).to_bits()
}
