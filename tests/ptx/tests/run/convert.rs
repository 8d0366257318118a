//! Conversions against Rust's.

use half::{bf16, f16};

use crate::support::{FLOATS, INTS, apply, triples};

/// An instruction, its register types, and what it is in Rust.
type Conversion<T, R> = (&'static str, &'static str, &'static str, fn(T) -> R);
type Function<R> = fn(f32) -> R;

/// Converts values of a register type to another.
fn convert(instruction: &str, from: &str, to: &str, values: &[u64]) -> Vec<u64> {
    let ones = vec![0; values.len()];
    apply(instruction, [from, "b32", "b32", to], [values, &ones, &ones])
}

/// Floats around what integers and halves can hold.
fn floats() -> Vec<f32> {
    let mut out = FLOATS.to_vec();
    out.extend([
        0.5,
        1.5,
        -0.5,
        126.6,
        255.5,
        256.0,
        -129.0,
        65519.9,
        65520.0,
        1e-5,
        6e-8,
        2_147_483_500.0,
        3.4e38,
    ]);
    out.extend((0..37).map(|i| (i as f32 - 18.0) * 1.234_567 * 10f32.powi(i % 9 - 4)));
    assert_eq!(out.len(), 64);
    out
}

fn words(values: &[f32]) -> Vec<u64> {
    values.iter().map(|v| u64::from(v.to_bits())).collect()
}

#[test]
fn integers_to_integers() {
    let [a, ..] = triples(&INTS);
    let cases: [Conversion<u64, u64>; 9] = [
        ("cvt.u64.u32 %d, %a;", "b32", "b64", |v| v & 0xffff_ffff),
        ("cvt.s64.s32 %d, %a;", "b32", "b64", |v| v as i32 as u64),
        ("cvt.u32.u64 %d, %a;", "b64", "b32", |v| v & 0xffff_ffff),
        ("cvt.s32.s8 %d, %a;", "b32", "b32", |v| v as i8 as u32 as u64),
        ("cvt.u32.u16 %d, %a;", "b16", "b32", |v| v & 0xffff),
        ("cvt.u16.u32 %d, %a;", "b32", "b16", |v| v & 0xffff),
        ("cvt.u8.u32 %d, %a;", "b32", "b32", |v| v & 0xff),
        ("cvt.sat.s16.s32 %d, %a;", "b32", "b16", |v| (v as i32).clamp(-32768, 32767) as u16 as u64),
        ("cvt.sat.u8.s32 %d, %a;", "b32", "b32", |v| (v as i32).clamp(0, 255) as u64),
    ];
    for (instruction, from, to, expected) in cases {
        let found = convert(instruction, from, to, &a);
        for (&v, &f) in a.iter().zip(&found) {
            assert_eq!(f, expected(v), "{instruction} of {v:#x}");
        }
    }
}

#[test]
fn integers_to_floats_and_back() {
    let [a, ..] = triples(&INTS);
    for (v, f) in a.iter().zip(convert("cvt.rn.f32.s32 %d, %a;", "b32", "f32", &a)) {
        assert_eq!(f as u32, (*v as i32 as f32).to_bits());
    }
    for (v, f) in a.iter().zip(convert("cvt.rn.f32.u64 %d, %a;", "b64", "f32", &a)) {
        assert_eq!(f as u32, (*v as f32).to_bits());
    }
    let values = floats();
    let cases: [(&str, Function<u32>); 6] = [
        ("cvt.rzi.s32.f32 %d, %a;", |x| x as i32 as u32),
        ("cvt.rni.s32.f32 %d, %a;", |x| x.round_ties_even() as i32 as u32),
        ("cvt.rmi.s32.f32 %d, %a;", |x| x.floor() as i32 as u32),
        ("cvt.rpi.u32.f32 %d, %a;", |x| x.ceil() as u32),
        ("cvt.rzi.u32.f32 %d, %a;", |x| x as u32),
        ("cvt.rni.u8.f32 %d, %a;", |x| u32::from(x.round_ties_even() as u8)),
    ];
    for (instruction, expected) in cases {
        let found = convert(instruction, "f32", "b32", &words(&values));
        for (&v, &f) in values.iter().zip(&found) {
            assert_eq!(f as u32, expected(v), "{instruction} of {v}");
        }
    }
    let found = convert("cvt.rzi.s64.f32 %d, %a;", "f32", "b64", &words(&[f32::NAN, -1e30, 7.9]));
    assert_eq!(found, [1 << 63, 1 << 63, 7]);
}

#[test]
fn floats_to_floats() {
    let values = floats();
    let nan = |x: f32| if x.is_nan() { 0x7fff_ffff } else { x.to_bits() };
    let cases: [(&str, Function<f32>); 4] = [
        ("cvt.rmi.f32.f32 %d, %a;", f32::floor),
        ("cvt.rni.f32.f32 %d, %a;", f32::round_ties_even),
        ("cvt.rzi.f32.f32 %d, %a;", f32::trunc),
        ("cvt.sat.f32.f32 %d, %a;", |x| if x > 0.0 { x.min(1.0) } else { 0.0 }),
    ];
    for (instruction, expected) in cases {
        for (&v, f) in values.iter().zip(convert(instruction, "f32", "f32", &words(&values))) {
            assert_eq!(f as u32, nan(expected(v)), "{instruction} of {v}");
        }
    }
}

#[test]
fn floats_to_16_bits_and_back() {
    let values = floats();
    let halves = convert("cvt.rn.f16.f32 %d, %a;", "f32", "b16", &words(&values));
    for (&v, &h) in values.iter().zip(&halves) {
        let expected = if v.is_nan() { 0x7fff } else { f16::from_f32(v).to_bits() };
        assert_eq!(h, u64::from(expected), "f16 of {v}");
    }
    for (&h, f) in halves.iter().zip(convert("cvt.f32.f16 %d, %a;", "b16", "f32", &halves)) {
        let back = f16::from_bits(h as u16).to_f32();
        assert_eq!(f as u32, if back.is_nan() { 0x7fff_ffff } else { back.to_bits() });
    }
    for (&v, b) in values.iter().zip(convert("cvt.rn.bf16.f32 %d, %a;", "f32", "b16", &words(&values))) {
        let expected = if v.is_nan() { 0x7fff } else { bf16::from_f32(v).to_bits() };
        assert_eq!(b, u64::from(expected), "bf16 of {v}");
    }
}

#[test]
fn pairs_have_the_first_operand_on_top() {
    let body = "cvt.rn.bf16x2.f32 %d, %a, 0f40000000;";
    assert_eq!(convert(body, "f32", "b32", &words(&[1.0])), [0x3f80_4000]);
    let body = "cvt.rn.f16x2.f32 %d, 0f40000000, %a; mov.b32 {%h, %g}, %d; mov.b32 %d, {%g, %h};";
    assert_eq!(convert(body, "f32", "b32", &words(&[1.0])), [0x3c00_4000]);
}

#[test]
fn tf32_rounds_ties_away_from_zero() {
    let tie = f32::from_bits(0x3f80_1000);
    let below = f32::from_bits(0x3f80_0fff);
    let found = convert("cvt.rna.tf32.f32 %d, %a;", "f32", "b32", &words(&[tie, -tie, below, f32::INFINITY]));
    assert_eq!(found, [0x3f80_2000, 0xbf80_2000, 0x3f80_0000, 0x7f80_0000]);
}

#[test]
fn bits_move_between_types() {
    let body = "mov.b32 %t, %a; add.u32 %t, %t, 1; mov.b32 %d, %t;";
    assert_eq!(convert(body, "f32", "f32", &words(&[1.0])), [0x3f80_0001]);
    let body = "mov.b64 %long, {%b, %a}; mov.b64 {%t, %u}, %long; mov.b64 %d, {%u, %t};";
    assert_eq!(convert(body, "b32", "b64", &[7]), [7]);
}
