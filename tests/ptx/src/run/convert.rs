//! Conversions on all lanes of a warp.

use half::{bf16, f16};

use super::float::bits;
use super::warp::Longs;
use crate::op::{Cvt, IntType, Integral};

/// The NaN of both 16-bit types.
const HALF_NAN: u16 = 0x7fff;

/// Bits of an integer type, extended to 64.
fn extend(ty: IntType, x: u64) -> u64 {
    match (ty.bytes, ty.signed) {
        (1, false) => x & 0xff,
        (1, true) => x as i8 as u64,
        (2, false) => x & 0xffff,
        (2, true) => x as i16 as u64,
        (4, false) => x & 0xffff_ffff,
        (4, true) => x as i32 as u64,
        _ => x,
    }
}

fn value(ty: IntType, x: u64) -> i128 {
    let x = extend(ty, x);
    if ty.signed { i128::from(x as i64) } else { i128::from(x) }
}

fn range(ty: IntType) -> (i128, i128) {
    let bits = u32::from(ty.bytes) * 8;
    if ty.signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn integral(rounding: Integral, x: f32) -> f32 {
    match rounding {
        Integral::Nearest => x.round_ties_even(),
        Integral::Zero => x.trunc(),
        Integral::Down => x.floor(),
        Integral::Up => x.ceil(),
    }
}

fn float_to_int(x: f32, to: IntType, rounding: Integral) -> u64 {
    if x.is_nan() {
        // Of 64 bits the result is the bit pattern of the lowest number, else zero.
        return if to.bytes == 8 { 1 << 63 } else { 0 };
    }
    let x = integral(rounding, x);
    if to.signed {
        let (low, high) = range(to);
        (x as i64).clamp(low as i64, high as i64) as u64
    } else {
        (x as u64).min(range(to).1 as u64)
    }
}

fn saturated(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 }
}

/// Ten bits of mantissa, ties away from zero.
pub(super) fn tf32(x: u32) -> u32 {
    match x & 0x7fff_ffff {
        0x7f80_0001.. => bits(f32::NAN),
        0x7f80_0000 => x,
        _ => (x + 0x1000) & !0x1fff,
    }
}

pub(super) fn half(x: f32) -> u16 {
    if x.is_nan() { HALF_NAN } else { f16::from_f32(x).to_bits() }
}

pub(super) fn brain(x: f32) -> u16 {
    if x.is_nan() { HALF_NAN } else { bf16::from_f32(x).to_bits() }
}

fn float(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

pub(super) fn convert(f: Cvt, a: &Longs) -> Longs {
    match f {
        // Narrow results are stored extended, so that the register's upper bits are right.
        Cvt::Int { from, to, saturate: false, .. } => a.map(|x| extend(to, extend(from, x))),
        Cvt::Int { from, to, saturate: true, .. } => {
            let (low, high) = range(to);
            a.map(|x| value(from, x).clamp(low, high) as u64)
        }
        Cvt::IntToFloat { from } if from.signed => {
            a.map(|x| (extend(from, x) as i64 as f32).to_bits().into())
        }
        Cvt::IntToFloat { from } => a.map(|x| (extend(from, x) as f32).to_bits().into()),
        Cvt::FloatToInt { to, rounding, .. } => a.map(|x| float_to_int(float(x), to, rounding)),
        Cvt::Float { rounding, saturate } => a.map(|x| {
            let x = rounding.map_or(float(x), |r| integral(r, float(x)));
            bits(if saturate { saturated(x) } else { x }).into()
        }),
        Cvt::FloatToHalf => a.map(|x| half(float(x)).into()),
        Cvt::FloatToBf16 => a.map(|x| brain(float(x)).into()),
        Cvt::HalfToFloat => a.map(|x| bits(f16::from_bits(x as u16).to_f32()).into()),
        Cvt::Bf16ToFloat => a.map(|x| bits(bf16::from_bits(x as u16).to_f32()).into()),
        Cvt::FloatToTf32 => a.map(|x| tf32(x as u32).into()),
    }
}
