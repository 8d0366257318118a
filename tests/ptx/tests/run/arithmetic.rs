//! Integer and f32 instructions against Rust's arithmetic on interesting operands.

use crate::support::{FLOATS, INTS, apply, triples};

/// An instruction and what it is in Rust.
type Case<'a, T> = (&'a str, &'a dyn Fn(T, T, T) -> T);

fn check<T: Copy>(
    ty: &str,
    cases: &[Case<T>],
    from: impl Fn(u64) -> T,
    to: impl Fn(T) -> u64,
    values: &[u64],
) {
    let [a, b, c] = triples(values);
    for (instruction, expected) in cases {
        let found = apply(instruction, [ty; 4], [&a, &b, &c]);
        for i in 0..a.len() {
            let want = to(expected(from(a[i]), from(b[i]), from(c[i])));
            let [a, b, c] = [a[i], b[i], c[i]];
            assert_eq!(
                found[i], want,
                "{instruction} of {a:#x}, {b:#x}, {c:#x}: {:#x}, not {want:#x}",
                found[i]
            );
        }
    }
}

#[test]
fn unsigned_32() {
    let cases: [Case<u32>; 17] = [
        ("add.u32 %d, %a, %b;", &|a, b, _| a.wrapping_add(b)),
        ("sub.u32 %d, %a, %b;", &|a, b, _| a.wrapping_sub(b)),
        ("mul.lo.u32 %d, %a, %b;", &|a, b, _| a.wrapping_mul(b)),
        ("mul.hi.u32 %d, %a, %b;", &|a, b, _| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        ("mad.lo.u32 %d, %a, %b, %c;", &|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        ("mad.hi.u32 %d, %a, %b, %c;", &|a, b, c| {
            ((u64::from(a) * u64::from(b)) >> 32).wrapping_add(c.into()) as u32
        }),
        ("setp.ne.u32 %p, %b, 0; mov.b32 %d, 5; @%p div.u32 %d, %a, %b;", &|a, b, _| {
            a.checked_div(b).unwrap_or(5)
        }),
        ("setp.ne.u32 %p, %b, 0; mov.b32 %d, 5; @%p rem.u32 %d, %a, %b;", &|a, b, _| {
            a.checked_rem(b).unwrap_or(5)
        }),
        ("min.u32 %d, %a, %b;", &|a, b, _| a.min(b)),
        ("max.u32 %d, %a, %b;", &|a, b, _| a.max(b)),
        ("and.b32 %d, %a, %b;", &|a, b, _| a & b),
        ("or.b32 %d, %a, 0xF0F0F0F0;", &|a, _, _| a | 0xf0f0_f0f0),
        ("xor.b32 %d, %a, %b; not.b32 %d, %d;", &|a, b, _| !(a ^ b)),
        ("shl.b32 %d, %a, %b;", &|a, b, _| a.checked_shl(b).unwrap_or(0)),
        ("shr.u32 %d, %a, %b;", &|a, b, _| a.checked_shr(b).unwrap_or(0)),
        ("popc.b32 %d, %a;", &|a, _, _| a.count_ones()),
        ("clz.b32 %d, %a;", &|a, _, _| a.leading_zeros()),
    ];
    check("b32", &cases, |v| v as u32, u64::from, &INTS);
}

#[test]
fn signed_32() {
    let cases: [Case<i32>; 10] = [
        ("add.s32 %d, %a, -7;", &|a, _, _| a.wrapping_sub(7)),
        ("mul.hi.s32 %d, %a, %b;", &|a, b, _| ((i64::from(a) * i64::from(b)) >> 32) as i32),
        ("or.b32 %t, %b, 1; div.s32 %d, %a, %t;", &|a, b, _| a.wrapping_div(b | 1)),
        ("or.b32 %t, %b, 1; rem.s32 %d, %a, %t;", &|a, b, _| a.wrapping_rem(b | 1)),
        ("min.s32 %d, %a, %b;", &|a, b, _| a.min(b)),
        ("max.s32 %d, %a, %b;", &|a, b, _| a.max(b)),
        ("abs.s32 %d, %a;", &|a, _, _| a.wrapping_abs()),
        ("neg.s32 %d, %a;", &|a, _, _| a.wrapping_neg()),
        ("shr.s32 %d, %a, %b;", &|a, b, _| a >> (b as u32).min(31)),
        ("setp.lt.s32 %p, %a, %b; selp.s32 %d, %a, %c, %p;", &|a, b, c| if a < b { a } else { c }),
    ];
    check("s32", &cases, |v| v as i32, |v| u64::from(v as u32), &INTS);
}

#[test]
fn integers_of_16_bits() {
    let cases: [Case<i16>; 13] = [
        ("add.s16 %d, %a, %b;", &|a, b, _| a.wrapping_add(b)),
        ("sub.u16 %d, %a, %b;", &|a, b, _| a.wrapping_sub(b)),
        ("mul.lo.s16 %d, %a, %b;", &|a, b, _| a.wrapping_mul(b)),
        ("mul.hi.s16 %d, %a, %b;", &|a, b, _| ((i32::from(a) * i32::from(b)) >> 16) as i16),
        ("mul.hi.u16 %d, %a, %b;", &|a, b, _| ((u32::from(a as u16) * u32::from(b as u16)) >> 16) as i16),
        ("min.s16 %d, %a, %b;", &|a, b, _| a.min(b)),
        ("max.u16 %d, %a, %b;", &|a, b, _| (a as u16).max(b as u16) as i16),
        ("not.b16 %d, %a; and.b16 %d, %d, %b;", &|a, b, _| !a & b),
        ("shr.s16 %d, %a, 3;", &|a, _, _| a >> 3),
        ("shr.u16 %d, %a, 3;", &|a, _, _| (a as u16 >> 3) as i16),
        ("shl.b16 %d, %a, 20;", &|_, _, _| 0),
        ("setp.gt.s16 %p, %a, %b; selp.b16 %d, %a, %b, %p;", &|a, b, _| a.max(b)),
        ("setp.hs.u16 %p, %a, %b; selp.u16 %d, %a, %b, %p;", &|a, b, _| (a as u16).max(b as u16) as i16),
    ];
    check("b16", &cases, |v| v as i16, |v| u64::from(v as u16), &INTS);
}

#[test]
fn integers_of_64_bits() {
    let cases: [Case<u64>; 15] = [
        ("add.u64 %d, %a, %b;", &|a, b, _| a.wrapping_add(b)),
        ("sub.s64 %d, %a, %b;", &|a, b, _| a.wrapping_sub(b)),
        ("mul.lo.u64 %d, %a, %b;", &|a, b, _| a.wrapping_mul(b)),
        ("mul.hi.u64 %d, %a, %b;", &|a, b, _| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        ("mad.lo.s64 %d, %a, %b, %c;", &|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        ("or.b64 %d, %b, 1; div.u64 %d, %a, %d;", &|a, b, _| a / (b | 1)),
        ("or.b64 %d, %b, 1; rem.s64 %d, %a, %d;", &|a, b, _| (a as i64).wrapping_rem((b | 1) as i64) as u64),
        ("min.s64 %d, %a, %b;", &|a, b, _| (a as i64).min(b as i64) as u64),
        ("max.u64 %d, %a, %b;", &|a, b, _| a.max(b)),
        ("xor.b64 %d, %a, %b; not.b64 %d, %d;", &|a, b, _| !(a ^ b)),
        ("shl.b64 %d, %a, 40;", &|a, _, _| a << 40),
        ("shr.s64 %d, %a, 70;", &|a, _, _| (a as i64 >> 63) as u64),
        ("neg.s64 %d, %a;", &|a, _, _| a.wrapping_neg()),
        ("setp.lt.s64 %p, %a, %b; selp.b64 %d, %b, %c, %p;", &|a, b, c| {
            if (a as i64) < b as i64 { b } else { c }
        }),
        ("popc.b64 %t, %a; clz.b64 %u, %a; mov.b64 %d, {%t, %u};", &|a, _, _| {
            u64::from(a.count_ones()) | u64::from(a.leading_zeros()) << 32
        }),
    ];
    check("b64", &cases, |v| v, |v| v, &INTS);
}

#[test]
fn wide_products() {
    let [a, b, _] = triples(&INTS);
    let c: Vec<u64> = a.iter().map(|a| a.wrapping_mul(3)).collect();
    let cases: [Case<u64>; 3] = [
        ("mul.wide.u32 %d, %a, %b;", &|a, b, _| u64::from(a as u32) * u64::from(b as u32)),
        ("mul.wide.s32 %d, %a, %b;", &|a, b, _| (i64::from(a as i32) * i64::from(b as i32)) as u64),
        ("mad.wide.s32 %d, %a, %b, %c;", &|a, b, c| {
            (i64::from(a as i32) * i64::from(b as i32)).wrapping_add(c as i64) as u64
        }),
    ];
    for (instruction, expected) in cases {
        let found = apply(instruction, ["b32", "b32", "b64", "b64"], [&a, &b, &c]);
        for i in 0..a.len() {
            assert_eq!(found[i], expected(a[i], b[i], c[i]), "{instruction} of {:#x}, {:#x}", a[i], b[i]);
        }
    }
    let found = apply("mul.wide.s16 %d, %a, %b;", ["b16", "b16", "b64", "b32"], [&a, &b, &c]);
    for i in 0..a.len() {
        assert_eq!(found[i] as u32 as i32, i32::from(a[i] as i16) * i32::from(b[i] as i16));
    }
}

fn float(v: u64) -> f32 {
    f32::from_bits(v as u32)
}

/// All NaN are the one that PTX makes.
fn bits(v: f32) -> u64 {
    if v.is_nan() { 0x7fff_ffff } else { v.to_bits().into() }
}

fn float_values() -> Vec<u64> {
    FLOATS.iter().map(|f| u64::from(f.to_bits())).collect()
}

#[test]
fn floats() {
    let cases: [Case<f32>; 17] = [
        ("add.f32 %d, %a, %b;", &|a, b, _| a + b),
        ("sub.rn.f32 %d, %a, %b;", &|a, b, _| a - b),
        ("mul.f32 %d, %a, %b;", &|a, b, _| a * b),
        ("fma.rn.f32 %d, %a, %b, %c;", &|a, b, c| a.mul_add(b, c)),
        ("mad.rn.f32 %d, %a, 0f40000000, %c;", &|a, _, c| a.mul_add(2., c)),
        ("div.rn.f32 %d, %a, %b;", &|a, b, _| a / b),
        ("sqrt.rn.f32 %d, %a;", &|a, _, _| a.sqrt()),
        ("rcp.rn.f32 %d, %a;", &|a, _, _| 1. / a),
        ("abs.f32 %d, %a;", &|a, _, _| a.abs()),
        ("neg.f32 %d, %a;", &|a, _, _| -a),
        ("min.f32 %d, %a, %b;", &|a, b, _| a.min(b)),
        ("max.f32 %d, %a, %b;", &|a, b, _| a.max(b)),
        ("max.NaN.f32 %d, %a, %b;", &|a, b, _| if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) }),
        ("min.NaN.f32 %d, %a, %b;", &|a, b, _| if a.is_nan() || b.is_nan() { f32::NAN } else { a.min(b) }),
        ("copysign.f32 %d, %a, %b; abs.f32 %d, %d;", &|_, b, _| b.abs()),
        ("ex2.approx.f32 %d, %a;", &|a, _, _| f64::from(a).exp2() as f32),
        ("lg2.approx.f32 %d, %a;", &|a, _, _| f64::from(a).log2() as f32),
    ];
    // Extrema of zeros are compared by the test below.
    let values: Vec<u64> = float_values().into_iter().filter(|&v| v != 0x8000_0000).collect();
    check("f32", &cases, float, bits, &values);
}

#[test]
fn extrema_of_zeros() {
    let (plus, minus) = (0.0f32.to_bits().into(), (-0.0f32).to_bits().into());
    let found =
        apply("max.f32 %d, %a, %b;", ["f32"; 4], [&[plus, minus, minus], &[minus, plus, minus], &[0, 0, 0]]);
    assert_eq!(found, [plus, plus, minus]);
    let found =
        apply("min.f32 %d, %a, %b;", ["f32"; 4], [&[plus, minus, plus], &[minus, plus, plus], &[0, 0, 0]]);
    assert_eq!(found, [minus, minus, plus]);
}

#[test]
fn subnormal_numbers_are_kept_unless_flushed() {
    let small = 1e-40f32.to_bits().into();
    let found = apply("add.f32 %d, %a, %a;", ["f32"; 4], [&[small], &[0], &[0]]);
    assert_eq!(float(found[0]), 1e-40f32 + 1e-40f32);
    let found = apply("add.ftz.f32 %d, %a, %a;", ["f32"; 4], [&[small], &[0], &[0]]);
    assert_eq!(found, [0]);
}

#[test]
fn comparisons_of_floats() {
    let [a, b, c] = triples(&float_values());
    let nan = |a: f32, b: f32| a.is_nan() || b.is_nan();
    type Comparison<'a> = (&'a str, &'a dyn Fn(f32, f32) -> bool);
    let cases: [Comparison; 14] = [
        ("eq", &|a, b| a == b),
        ("ne", &|a, b| a != b && !nan(a, b)),
        ("lt", &|a, b| a < b),
        ("le", &|a, b| a <= b),
        ("gt", &|a, b| a > b),
        ("ge", &|a, b| a >= b),
        ("equ", &|a, b| a == b || nan(a, b)),
        ("neu", &|a, b| a != b),
        ("ltu", &|a, b| a < b || nan(a, b)),
        ("leu", &|a, b| a <= b || nan(a, b)),
        ("gtu", &|a, b| a > b || nan(a, b)),
        ("geu", &|a, b| a >= b || nan(a, b)),
        ("num", &|a, b| !nan(a, b)),
        ("nan", &|a, b| nan(a, b)),
    ];
    for (name, holds) in cases {
        let body = format!("setp.{name}.f32 %p, %a, %b; selp.u32 %d, 1, 0, %p;");
        let found = apply(&body, ["f32", "f32", "f32", "b32"], [&a, &b, &c]);
        for i in 0..a.len() {
            assert_eq!(
                found[i] == 1,
                holds(float(a[i]), float(b[i])),
                "{name} of {} and {}",
                float(a[i]),
                float(b[i])
            );
        }
    }
}

#[test]
fn comparisons_are_combined() {
    let [a, b, c] = triples(&INTS);
    let body = "setp.gt.u32 %q, %c, 100; setp.lt.and.s32 %p|%q, %a, %b, !%q;
        selp.u32 %t, 1, 0, %p; selp.u32 %u, 2, 0, %q; or.b32 %d, %t, %u;";
    let found = apply(body, ["b32"; 4], [&a, &b, &c]);
    for i in 0..a.len() {
        let (less, small) = ((a[i] as i32) < b[i] as i32, c[i] as u32 <= 100);
        assert_eq!(found[i], u64::from(less && small) + 2 * u64::from(!less && small));
    }
}

#[test]
fn predicates() {
    let [a, b, c] = triples(&INTS);
    let body = "setp.lt.u32 %p, %a, %b; setp.eq.u32 %q, %b, %c; and.pred %q, %p, %q; xor.pred %p, %p, %q;
        not.pred %p, %p; mov.pred %q, %p; selp.u32 %d, 1, 0, %q;";
    let found = apply(body, ["b32"; 4], [&a, &b, &c]);
    for i in 0..a.len() {
        let (p, q) = ((a[i] as u32) < b[i] as u32, b[i] as u32 == c[i] as u32);
        assert_eq!(found[i] == 1, !(p ^ (p && q)));
    }
}

#[test]
fn products_and_sums_rounded_in_a_direction() {
    // Multiples of 2^-34, so that sums of products are exact in 128 bits of fixed point.
    let values: Vec<u64> =
        [1.0f32, -1.0, 1.5e-3, -0.333_333_34, 0.1, 1000.001, -999.9999, 3.0, 0.999_999_94, 0.0]
            .map(|v| v.to_bits().into())
            .into();
    let [a, b, c] = triples(&values);
    let fixed = |v: f32, bits: i32| (f64::from(v) * f64::from(bits).exp2()) as i128;
    for rounding in ["rm", "rp", "rz"] {
        let found = apply(&format!("fma.{rounding}.f32 %d, %a, %b, %c;"), ["f32"; 4], [&a, &b, &c]);
        for (i, &f) in found.iter().enumerate() {
            let (x, y, z, found) = (float(a[i]), float(b[i]), float(c[i]), float(f));
            let exact = fixed(x, 34) * fixed(y, 34) + fixed(z, 68);
            let down = rounding == "rm" || rounding == "rz" && exact > 0;
            let beyond = if down { found.next_up() } else { found.next_down() };
            let (near, far) = if down { (found, beyond) } else { (beyond, found) };
            let inside = fixed(near, 68) < exact && exact < fixed(far, 68);
            assert!(fixed(found, 68) == exact || inside, "fma.{rounding} of {x}, {y}, {z}: {found}");
        }
    }
    let (one, minus) = (1f32.to_bits().into(), (-1f32).to_bits().into());
    for (rounding, zero) in [("rn", 0.0f32), ("rz", 0.0), ("rp", 0.0), ("rm", -0.0)] {
        let found =
            apply(&format!("fma.{rounding}.f32 %d, %a, %b, %c;"), ["f32"; 4], [&[one], &[one], &[minus]]);
        assert_eq!(found, [u64::from(zero.to_bits())], "numbers that cancel, {rounding}");
    }
}
