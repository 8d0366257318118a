//! Places in an area of memory for values that are alive at different times.
//!
//! Finding the smallest area is NP-complete (dynamic storage allocation). Values are placed one after the
//! other, each where it fits best, in several orders, of which the best is taken: by size (Pisarchyk
//! and Lee, "Efficient memory management for deep neural net inference", 2020), by the product of size and
//! life, by age. Where that leaves more than a few holes, the values that lie topmost are placed earlier,
//! again and again: most of them find a place further down.

use std::cmp::Reverse;

use super::{ALIGNMENT, Life};

/// An area that is larger than what is alive at most by less than this part is good enough: no search.
const GOOD_ENOUGH: usize = 256;
/// How often the topmost values are placed anew.
const ROUNDS: usize = 64;

/// A value that needs a place.
pub(super) struct Block {
    pub value: usize,
    pub bytes: usize,
    pub life: Life,
}

/// An offset for each block, and the end of the last one.
pub(super) fn pack(blocks: &[Block]) -> (Vec<usize>, usize) {
    let needed = largest_live_set(blocks);
    let good = |total: usize| total - needed <= needed / GOOD_ENOUGH;
    let sorted = |key: fn(&Block) -> (Reverse<u128>, usize)| {
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_by_key(|&i| (key(&blocks[i]), Reverse(blocks[i].bytes), i));
        order
    };
    let orders = [
        sorted(|b| (Reverse(b.bytes as u128), b.life.first)),
        sorted(|b| (Reverse(0), b.life.first)),
        sorted(|b| (Reverse(b.bytes as u128 * b.life.span()), b.life.first)),
    ];
    let mut best: Option<(Vec<usize>, usize)> = None;
    for mut order in orders {
        for _ in 0..ROUNDS {
            let (offsets, total) = pack_in_order(blocks, &order);
            let top = |&i: &usize| offsets[i] + blocks[i].bytes.next_multiple_of(ALIGNMENT) == total;
            let (first, rest): (Vec<usize>, Vec<usize>) = order.iter().copied().partition(top);
            order = [first, rest].concat();
            if best.as_ref().is_none_or(|(_, b)| total < *b) {
                best = Some((offsets, total));
            }
            if good(total) {
                break;
            }
        }
        if best.as_ref().is_some_and(|&(_, total)| good(total)) {
            break;
        }
    }
    best.unwrap_or_default()
}

/// Places blocks one after the other, each into the smallest gap that holds it between those that
/// are alive with it; past the last of them if there is none.
fn pack_in_order(blocks: &[Block], order: &[usize]) -> (Vec<usize>, usize) {
    let mut offsets = vec![0; blocks.len()];
    // Offset and block, sorted.
    let mut placed: Vec<(usize, usize)> = vec![];
    let mut total = 0;
    for &i in order {
        let bytes = blocks[i].bytes.next_multiple_of(ALIGNMENT);
        let mut end = 0;
        let mut best: Option<(usize, usize)> = None;
        for &(at, other) in placed.iter().filter(|&&(_, o)| blocks[o].life.overlaps(blocks[i].life)) {
            let gap = at.saturating_sub(end);
            if gap >= bytes && best.is_none_or(|(size, _)| gap < size) {
                best = Some((gap, end));
            }
            end = end.max(at + blocks[other].bytes.next_multiple_of(ALIGNMENT));
        }
        let at = best.map_or(end, |(_, at)| at);
        offsets[i] = at;
        total = total.max(at + bytes);
        placed.insert(placed.partition_point(|&p| p < (at, i)), (at, i));
    }
    (offsets, total)
}

/// The most bytes that are alive at one time: no area can be smaller.
pub(super) fn largest_live_set(blocks: &[Block]) -> usize {
    // What begins and ends, when.
    let mut changes: Vec<(usize, isize)> = vec![];
    for b in blocks {
        let bytes = b.bytes.next_multiple_of(ALIGNMENT) as isize;
        changes.push((b.life.first, bytes));
        changes.push((b.life.last.saturating_add(1), -bytes));
    }
    changes.sort_unstable();
    let (mut live, mut most) = (0, 0);
    for (_, change) in changes {
        live += change;
        most = most.max(live);
    }
    most as usize
}
