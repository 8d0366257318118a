//! f32 functions and comparisons on all lanes of a warp.
//!
//! Results that are NaN have PTX's one NaN. The `approx` functions are computed in double precision
//! and rounded once: more exact than a GPU, whose results may differ in the last bits.

use std::borrow::Cow;

use super::warp::Words;
use crate::op::{Compare, CompareAs, FloatFn, FloatUnary, Rounding, Test};

/// The NaN of all results.
const NAN: u32 = 0x7fff_ffff;

pub(super) fn bits(x: f32) -> u32 {
    if x.is_nan() { NAN } else { x.to_bits() }
}

/// Subnormal numbers become zeros.
pub(super) fn flushed(a: &Words) -> Words {
    a.map(|a| if a & 0x7f80_0000 == 0 { a & 0x8000_0000 } else { a })
}

/// An operand, flushed where `.ftz` asks for that.
pub(super) fn operand(flush: bool, a: &Words) -> Cow<'_, Words> {
    if flush { Cow::Owned(flushed(a)) } else { Cow::Borrowed(a) }
}

/// A result, flushed where `.ftz` asks for that.
pub(super) fn result(flush: bool, a: Words) -> Words {
    if flush { flushed(&a) } else { a }
}

fn map1(a: &Words, f: impl Fn(f32) -> f32) -> Words {
    std::array::from_fn(|lane| bits(f(f32::from_bits(a[lane]))))
}

fn map2(a: &Words, b: &Words, f: impl Fn(f32, f32) -> f32) -> Words {
    std::array::from_fn(|lane| bits(f(f32::from_bits(a[lane]), f32::from_bits(b[lane]))))
}

fn in_double(a: &Words, f: impl Fn(f64) -> f64) -> Words {
    map1(a, |x| f(f64::from(x)) as f32)
}

pub(super) fn unary(f: FloatUnary, a: &Words) -> Words {
    match f {
        FloatUnary::Abs => map1(a, f32::abs),
        FloatUnary::Neg => map1(a, |x| -x),
        FloatUnary::Sqrt => map1(a, f32::sqrt),
        FloatUnary::Rcp => map1(a, |x| 1.0 / x),
        FloatUnary::Rsqrt => in_double(a, |x| if x == 0.0 { 1.0 / x } else { 1.0 / x.sqrt() }),
        FloatUnary::Ex2 => in_double(a, f64::exp2),
        FloatUnary::Lg2 => in_double(a, f64::log2),
        FloatUnary::Sin => in_double(a, f64::sin),
        FloatUnary::Cos => in_double(a, f64::cos),
        FloatUnary::Tanh => in_double(a, f64::tanh),
    }
}

/// The smaller one; of zeros the negative one.
fn smaller(a: f32, b: f32) -> f32 {
    if a == b {
        f32::from_bits(a.to_bits() | b.to_bits())
    } else if a < b {
        a
    } else {
        b
    }
}

fn larger(a: f32, b: f32) -> f32 {
    if a == b {
        f32::from_bits(a.to_bits() & b.to_bits())
    } else if a > b {
        a
    } else {
        b
    }
}

/// Of a number and NaN the number.
fn number(a: f32, b: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ => f(a, b),
    }
}

fn nan(a: f32, b: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { f(a, b) }
}

pub(super) fn binary(f: FloatFn, a: &Words, b: &Words) -> Words {
    match f {
        FloatFn::Add => map2(a, b, |a, b| a + b),
        FloatFn::Sub => map2(a, b, |a, b| a - b),
        FloatFn::Mul => map2(a, b, |a, b| a * b),
        FloatFn::Div => map2(a, b, |a, b| a / b),
        FloatFn::Min => map2(a, b, |a, b| number(a, b, smaller)),
        FloatFn::Max => map2(a, b, |a, b| number(a, b, larger)),
        FloatFn::MinNan => map2(a, b, |a, b| nan(a, b, smaller)),
        FloatFn::MaxNan => map2(a, b, |a, b| nan(a, b, larger)),
        FloatFn::CopySign => std::array::from_fn(|l| a[l] & 0x8000_0000 | b[l] & 0x7fff_ffff),
    }
}

pub(super) fn fma(rounding: Rounding, a: &Words, b: &Words, c: &Words) -> Words {
    let f = |a: f32, b: f32, c: f32| match rounding {
        Rounding::Nearest => a.mul_add(b, c),
        _ => directed_fma(rounding, a, b, c),
    };
    std::array::from_fn(|l| bits(f(f32::from_bits(a[l]), f32::from_bits(b[l]), f32::from_bits(c[l]))))
}

/// a · b + c rounded down, up or towards zero.
fn directed_fma(rounding: Rounding, a: f32, b: f32, c: f32) -> f32 {
    // The product is exact; the sum is `sum + error` (Knuth's two-sum).
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    if !sum.is_finite() {
        return sum as f32;
    }
    if sum == 0.0 {
        // Numbers that cancel make -0 when rounding down; zeros of one sign make that.
        let cancelled = product.is_sign_negative() != c.is_sign_negative();
        return if cancelled && rounding == Rounding::Down { -0.0 } else { sum as f32 };
    }
    let of_c = sum - product;
    let error = (product - (sum - of_c)) + (c - of_c);
    let down = rounding == Rounding::Down || rounding == Rounding::Zero && sum > 0.0;
    let nearest = sum as f32;
    // Exact, since both have nearly the same size; an infinity is beyond every sum.
    let over = f64::from(nearest) - sum;
    match down {
        true if over > error => nearest.next_down(),
        false if over < error => nearest.next_up(),
        _ => nearest,
    }
}

fn mask<T: Copy>(a: &[T; 32], b: &[T; 32], f: impl Fn(T, T) -> bool) -> u32 {
    // Two loops, so that the first one is computed by vectors.
    let bits: Words = std::array::from_fn(|lane| u32::from(f(a[lane], b[lane])) << lane);
    bits.iter().fold(0, |all, bit| all | bit)
}

fn ordered<T: Copy + PartialOrd>(f: Compare, a: &[T; 32], b: &[T; 32]) -> u32 {
    let nan = |a: T, b: T| a.partial_cmp(&b).is_none();
    match f {
        Compare::Eq => mask(a, b, |a, b| a == b),
        // Of NaN only the unordered one holds.
        Compare::Ne => mask(a, b, |a, b| a != b && !nan(a, b)),
        Compare::Lt => mask(a, b, |a, b| a < b),
        Compare::Le => mask(a, b, |a, b| a <= b),
        Compare::Gt => mask(a, b, |a, b| a > b),
        Compare::Ge => mask(a, b, |a, b| a >= b),
        Compare::EqOrNan => mask(a, b, |a, b| a == b || nan(a, b)),
        Compare::NeOrNan => mask(a, b, |a, b| a != b),
        Compare::LtOrNan => mask(a, b, |a, b| a < b || nan(a, b)),
        Compare::LeOrNan => mask(a, b, |a, b| a <= b || nan(a, b)),
        Compare::GtOrNan => mask(a, b, |a, b| a > b || nan(a, b)),
        Compare::GeOrNan => mask(a, b, |a, b| a >= b || nan(a, b)),
        Compare::Num => mask(a, b, |a, b| !nan(a, b)),
        Compare::Nan => mask(a, b, nan),
    }
}

/// The lanes for which a comparison holds.
pub(super) fn compare32(Test { f, read }: Test, a: &Words, b: &Words) -> u32 {
    match read {
        CompareAs::Unsigned => ordered(f, a, b),
        CompareAs::Signed => ordered(f, &a.map(|a| a as i32), &b.map(|b| b as i32)),
        CompareAs::Float => ordered(f, &a.map(f32::from_bits), &b.map(f32::from_bits)),
    }
}

/// The lanes for which a comparison holds.
pub(super) fn compare64(Test { f, read }: Test, a: &[u64; 32], b: &[u64; 32]) -> u32 {
    match read {
        CompareAs::Signed => ordered(f, &a.map(|a| a as i64), &b.map(|b| b as i64)),
        CompareAs::Unsigned | CompareAs::Float => ordered(f, a, b),
    }
}
