//! Fields of bits against the loops over single bits by which the PTX ISA document defines them.

use crate::support::{INTS, apply, triples};

/// Positions and lengths, inside and beyond; bits above the lowest eight do not count.
const POSITIONS: [u64; 10] = [0, 1, 5, 31, 32, 33, 63, 64, 255, 0x108];

/// All combinations of a number, a position and a length.
fn cases() -> [Vec<u64>; 3] {
    let mut out = [vec![], vec![], vec![]];
    for a in INTS {
        for position in POSITIONS {
            for length in POSITIONS {
                out[0].push(a);
                out[1].push(position);
                out[2].push(length);
            }
        }
    }
    while !out[0].len().is_multiple_of(64) {
        out.iter_mut().for_each(|v| v.push(v[0]));
    }
    out
}

fn bit(a: u64, i: u64) -> u64 {
    a >> i & 1
}

fn extracted(signed: bool, top: u64, a: u64, position: u64, length: u64) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let sign = if signed && length > 0 { bit(a, (position + length - 1).min(top)) } else { 0 };
    (0..=top)
        .map(|i| (if i < length && position + i <= top { bit(a, position + i) } else { sign }) << i)
        .sum()
}

#[test]
fn extraction() {
    let [a, b, c] = cases();
    for (ty, bits, signed) in [("u32", 32, false), ("s32", 32, true), ("u64", 64, false), ("s64", 64, true)] {
        let register = format!("b{bits}");
        let found =
            apply(&format!("bfe.{ty} %d, %a, %b, %c;"), [&register, "b32", "b32", &register], [&a, &b, &c]);
        for (i, &f) in found.iter().enumerate() {
            let expected = extracted(signed, bits - 1, a[i], b[i], c[i]);
            assert_eq!(f, expected, "{ty} of {:#x}, {}, {}", a[i], b[i], c[i]);
        }
    }
}

#[test]
fn insertion() {
    let [a, b, c] = cases();
    for bits in [32, 64] {
        let register = format!("b{bits}");
        // What the field goes into.
        let into = 0x5a5a_c3c3_0ff0_1234u64;
        let body = match bits {
            32 => format!("mov.b32 %d, {}; bfi.b32 %d, %a, %d, %b, %c;", into as u32),
            _ => format!("mov.b64 %d, {into}; bfi.b64 %d, %a, %d, %b, %c;"),
        };
        let found = apply(&body, [&register, "b32", "b32", &register], [&a, &b, &c]);
        for (i, &f) in found.iter().enumerate() {
            let (position, length) = (b[i] & 0xff, c[i] & 0xff);
            let mut expected = if bits == 32 { into & 0xffff_ffff } else { into };
            for j in (0..length).take_while(|j| position + j < bits) {
                let place = 1 << (position + j);
                expected = expected & !place | if bit(a[i], j) == 1 { place } else { 0 };
            }
            assert_eq!(f, expected, "{bits} bits, {:#x}, {position}, {length}", a[i]);
        }
    }
}

#[test]
fn funnel_shifts_permutations_and_tables() {
    let [a, b, c] = triples(&INTS);
    let word = |v: u64| v & 0xffff_ffff;
    type Case<'a> = (&'a str, &'a dyn Fn(u64, u64, u64) -> u64);
    let sign = |byte: u64| if byte & 0x80 != 0 { 0xff } else { 0 };
    let ones = |position: u64, length: u64| {
        (0..32).filter(|&i| i >= position && i < position.saturating_add(length)).map(|i| 1 << i).sum::<u64>()
    };
    let cases: [Case; 8] = [
        ("bmsk.clamp.b32 %d, %a, %b;", &|a, b, _| ones(word(a), word(b))),
        ("bmsk.wrap.b32 %d, %a, %b;", &|a, b, _| ones(a % 32, b % 32)),
        ("shf.l.wrap.b32 %d, %a, %b, %c;", &|a, b, c| (word(b) << 32 | word(a)) << (c % 32) >> 32),
        ("shf.r.wrap.b32 %d, %a, %b, %c;", &|a, b, c| word((word(b) << 32 | word(a)) >> (c % 32))),
        ("shf.l.clamp.b32 %d, %a, %b, %c;", &|a, b, c| (word(b) << 32 | word(a)) << word(c).min(32) >> 32),
        ("shf.r.clamp.b32 %d, %a, %b, %c;", &|a, b, c| word((word(b) << 32 | word(a)) >> word(c).min(32))),
        ("prmt.b32 %d, %a, %b, %c;", &|a, b, c| {
            let byte = |s: u64| (word(b) << 32 | word(a)) >> (8 * (s & 7)) & 0xff;
            let pick = |s: u64| if s & 8 != 0 { sign(byte(s)) } else { byte(s) };
            (0..4).map(|i| pick(c >> (4 * i) & 15) << (8 * i)).sum()
        }),
        // 0xF0, 0xCC and 0xAA are the three operands' own tables.
        ("lop3.b32 %d, %a, %b, %c, 0x6a;", &|a, b, c| word(a & b ^ c)),
    ];
    for (instruction, f) in cases {
        let found = apply(instruction, ["b32"; 4], [&a, &b, &c]);
        for (i, &found) in found.iter().enumerate() {
            assert_eq!(found, f(a[i], b[i], c[i]), "{instruction} of {:#x}, {:#x}, {:#x}", a[i], b[i], c[i]);
        }
    }
}

#[test]
fn highest_bits_and_reversal() {
    let [a, b, c] = triples(&INTS);
    for (ty, bits, signed) in
        [("u32", 32u32, false), ("s32", 32, true), ("u64", 64, false), ("s64", 64, true)]
    {
        let register = format!("b{bits}");
        for amount in ["", ".shiftamt"] {
            let body = format!("bfind{amount}.{ty} %d, %a;");
            let found = apply(&body, [&register, "b32", "b32", "b32"], [&a, &b, &c]);
            for (i, &f) in found.iter().enumerate() {
                let negative = signed && bit(a[i], u64::from(bits) - 1) == 1;
                let highest = (0..u64::from(bits)).rev().find(|&j| bit(a[i], j) != u64::from(negative));
                let top = u64::from(bits) - 1;
                let expected = highest.map_or(0xffff_ffff, |j| if amount.is_empty() { j } else { top - j });
                assert_eq!(f, expected, "{body} of {:#x}", a[i]);
            }
        }
    }
    for bits in [32u64, 64] {
        let register = format!("b{bits}");
        let body = format!("brev.b{bits} %d, %a;");
        let found = apply(&body, [&register, "b32", "b32", &register], [&a, &b, &c]);
        for (i, &f) in found.iter().enumerate() {
            assert_eq!(f, (0..bits).map(|j| bit(a[i], j) << (bits - 1 - j)).sum::<u64>());
        }
    }
}
