//! Integer functions on all lanes of a warp.

use std::borrow::Cow;

use super::warp::{Longs, Words};
use crate::op::{IntFn, IntUnary, Narrow, ShiftFn};

/// A quotient by zero is all ones, as it comes out on NVIDIA's GPUs; PTX leaves it open.
const BY_ZERO: u64 = u64::MAX;

fn map1<T: Copy + Default, R>(a: &[T; 32], f: impl Fn(T) -> R) -> [R; 32] {
    std::array::from_fn(|lane| f(a[lane]))
}

fn map2<T: Copy, U: Copy, R>(a: &[T; 32], b: &[U; 32], f: impl Fn(T, U) -> R) -> [R; 32] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

macro_rules! functions {
    ($binary:ident, $unary:ident, $shift:ident, $u:ty, $s:ty, $double_u:ty, $double_s:ty) => {
        /// The function of two operands.
        pub(super) fn $binary(f: IntFn, a: &[$u; 32], b: &[$u; 32]) -> [$u; 32] {
            const BITS: u32 = <$u>::BITS;
            match f {
                IntFn::Add => map2(a, b, |a, b| a.wrapping_add(b)),
                IntFn::Sub => map2(a, b, |a, b| a.wrapping_sub(b)),
                IntFn::MulLo => map2(a, b, |a, b| a.wrapping_mul(b)),
                IntFn::MulHiU => {
                    map2(a, b, |a, b| ((<$double_u>::from(a) * <$double_u>::from(b)) >> BITS) as $u)
                }
                IntFn::MulHiS => map2(a, b, |a, b| {
                    ((<$double_s>::from(a as $s) * <$double_s>::from(b as $s)) >> BITS) as $u
                }),
                IntFn::DivU => map2(a, b, |a, b| a.checked_div(b).unwrap_or(BY_ZERO as $u)),
                IntFn::DivS => map2(a, b, |a, b| match b {
                    0 => BY_ZERO as $u,
                    _ => (a as $s).wrapping_div(b as $s) as $u,
                }),
                IntFn::RemU => map2(a, b, |a, b| a.checked_rem(b).unwrap_or(a)),
                IntFn::RemS => map2(a, b, |a, b| match b {
                    0 => a,
                    _ => (a as $s).wrapping_rem(b as $s) as $u,
                }),
                IntFn::MinU => map2(a, b, |a, b| a.min(b)),
                IntFn::MinS => map2(a, b, |a, b| (a as $s).min(b as $s) as $u),
                IntFn::MaxU => map2(a, b, |a, b| a.max(b)),
                IntFn::MaxS => map2(a, b, |a, b| (a as $s).max(b as $s) as $u),
                IntFn::And => map2(a, b, |a, b| a & b),
                IntFn::Or => map2(a, b, |a, b| a | b),
                IntFn::Xor => map2(a, b, |a, b| a ^ b),
            }
        }

        /// The function of one operand.
        pub(super) fn $unary(f: IntUnary, a: &[$u; 32]) -> [$u; 32] {
            match f {
                IntUnary::Neg => map1(a, |a| a.wrapping_neg()),
                IntUnary::Abs => map1(a, |a| (a as $s).wrapping_abs() as $u),
                IntUnary::Not => map1(a, |a| !a),
                IntUnary::Popc => map1(a, |a| <$u>::from(a.count_ones())),
                IntUnary::Clz => map1(a, |a| <$u>::from(a.leading_zeros())),
                IntUnary::Reverse => map1(a, |a| a.reverse_bits()),
                IntUnary::Find { signed, from_top } => map1(a, |a| {
                    let a = if signed && (a as $s) < 0 { !a } else { a };
                    match a.leading_zeros() {
                        <$u>::BITS => <$u>::MAX,
                        zeros if from_top => zeros.into(),
                        zeros => (<$u>::BITS - 1 - zeros).into(),
                    }
                }),
            }
        }

        /// A shift; amounts of the type's size and more push everything out.
        pub(super) fn $shift(f: ShiftFn, a: &[$u; 32], by: &Words) -> [$u; 32] {
            const BITS: u32 = <$u>::BITS;
            match f {
                ShiftFn::Left => map2(a, by, |a, by| a.checked_shl(by).unwrap_or(0)),
                ShiftFn::RightU => map2(a, by, |a, by| a.checked_shr(by).unwrap_or(0)),
                ShiftFn::RightS => map2(a, by, |a, by| (a as $s >> by.min(BITS - 1)) as $u),
            }
        }
    };
}

functions!(binary32, unary32, shift32, u32, i32, u64, i64);
functions!(binary64, unary64, shift64, u64, i64, u128, i128);

/// Operands of 16 bits, extended to compute with 32.
pub(super) fn widen(narrow: Narrow, a: &Words) -> Cow<'_, Words> {
    match narrow {
        Narrow::No => Cow::Borrowed(a),
        Narrow::Unsigned => Cow::Owned(a.map(|a| a & 0xffff)),
        Narrow::Signed => Cow::Owned(a.map(|a| a as u16 as i16 as u32)),
    }
}

/// [`binary32`] on operands of 16 or 32 bits; of the former's results the lower half counts.
pub(super) fn binary(f: IntFn, narrow: Narrow, a: &Words, b: &Words) -> Words {
    let (a, b) = (widen(narrow, a), widen(narrow, b));
    match (f, narrow) {
        (IntFn::MulHiU | IntFn::MulHiS, Narrow::Unsigned | Narrow::Signed) => {
            map2(&a, &b, |a, b| a.wrapping_mul(b) >> 16)
        }
        _ => binary32(f, &a, &b),
    }
}

/// Products of 32 bits each.
pub(super) fn wide64(signed: bool, a: &Words, b: &Words) -> Longs {
    if signed {
        map2(a, b, |a, b| (i64::from(a as i32) * i64::from(b as i32)) as u64)
    } else {
        map2(a, b, |a, b| u64::from(a) * u64::from(b))
    }
}
