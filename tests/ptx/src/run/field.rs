//! Fields of bits on all lanes of a warp, as the PTX ISA document's pseudocode has them.

use super::warp::{Longs, Words};
use crate::op::FieldFn;

/// The lowest `length` bits; all from 64 on.
fn low_bits(length: u32) -> u64 {
    1u64.checked_shl(length).map_or(u64::MAX, |bit| bit - 1)
}

/// `bfe` of a number of `size` bits: those from `position` on, `length` of them. What is above is the field's highest
/// bit (that of the number, where the field reaches beyond it) if signed, else zero. Of positions and lengths
/// the lowest eight bits count.
fn extract(signed: bool, size: u32, a: u64, position: u32, length: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let inside = size.saturating_sub(position).min(length);
    let field = a.checked_shr(position).unwrap_or(0) & low_bits(inside);
    let sign = if signed && length > 0 { a >> (position + length - 1).min(size - 1) & 1 } else { 0 };
    if sign == 0 { field } else { field | !low_bits(inside) & low_bits(size) }
}

/// `bfi`: `into` with the lowest `length` bits of `a` in it.
fn insert(size: u32, a: u64, into: u64, position: u32, length: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let inside = size.saturating_sub(position).min(length);
    let mask = low_bits(inside).checked_shl(position).unwrap_or(0);
    into & !mask | a.checked_shl(position).unwrap_or(0) & mask
}

fn funnel(left: bool, wrap: bool, low: u32, high: u32, by: u32) -> u32 {
    let by = if wrap { by & 31 } else { by.min(32) };
    let both = u64::from(high) << 32 | u64::from(low);
    if left { (both << by >> 32) as u32 } else { (both >> by) as u32 }
}

/// `bmsk`: ones from a position on, so many.
fn mask(wrap: bool, position: u32, length: u32) -> u32 {
    let (position, length) = if wrap { (position & 31, length & 31) } else { (position, length) };
    // As many as there is place for.
    (low_bits(length) as u32).checked_shl(position).unwrap_or(0)
}

/// Four bytes of the eight of `b` and `a`; bit 3 of a selector asks for the byte's sign in all its bits.
fn permute(a: u32, b: u32, selectors: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let byte = |i: u32| {
        let selector = selectors >> (4 * i);
        let byte = (bytes >> (8 * (selector & 7))) as u8;
        let byte = if selector & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 };
        u32::from(byte) << (8 * i)
    };
    (0..4).map(byte).fold(0, |word, byte| word | byte)
}

/// Bit by bit what the table says of three bits, the first one counting four.
fn table(table: u8, a: u32, b: u32, c: u32) -> u32 {
    let pick = |x: u32, bit: u32| if bit != 0 { x } else { !x };
    let terms = (0..8).filter(|i| table >> i & 1 != 0);
    terms.map(|i| pick(a, i & 4) & pick(b, i & 2) & pick(c, i & 1)).fold(0, |word, term| word | term)
}

/// A function of three words.
pub(super) fn words(f: FieldFn, a: &Words, b: &Words, c: &Words) -> Words {
    std::array::from_fn(|l| match f {
        FieldFn::ExtractU => extract(false, 32, a[l].into(), b[l], c[l]) as u32,
        FieldFn::ExtractS => extract(true, 32, a[l].into(), b[l], c[l]) as u32,
        FieldFn::Funnel { left, wrap } => funnel(left, wrap, a[l], b[l], c[l]),
        FieldFn::Mask { wrap } => mask(wrap, a[l], b[l]),
        FieldFn::Permute => permute(a[l], b[l], c[l]),
        FieldFn::Table(t) => table(t, a[l], b[l], c[l]),
    })
}

/// `bfe` of 64 bits.
pub(super) fn extract64(signed: bool, a: &Longs, position: &Words, length: &Words) -> Longs {
    std::array::from_fn(|l| extract(signed, 64, a[l], position[l], length[l]))
}

/// `bfi` of 32 bits.
pub(super) fn insert32(a: &Words, into: &Words, position: &Words, length: &Words) -> Words {
    std::array::from_fn(|l| insert(32, a[l].into(), into[l].into(), position[l], length[l]) as u32)
}

/// `bfi` of 64 bits.
pub(super) fn insert64(a: &Longs, into: &Longs, position: &Words, length: &Words) -> Longs {
    std::array::from_fn(|l| insert(64, a[l], into[l], position[l], length[l]))
}
