//! What an access of a warp costs a GPU's memory: sectors of global memory, wavefronts of shared memory.

use super::warp::{Longs, lanes};

/// log2 of the bytes that global memory is read and written by.
const SECTOR: u32 = 5;

/// Banks of shared memory, each a word of four bytes wide; a wavefront serves one word of each.
const BANKS: usize = 32;

/// Sectors that a warp touches, each once, in order.
pub(super) struct Sectors {
    found: Longs,
    count: usize,
}

impl Sectors {
    fn none() -> Sectors {
        Sectors { found: [0; 32], count: 0 }
    }

    pub fn as_slice(&self) -> &[u64] {
        &self.found[..self.count]
    }

    fn push(&mut self, sector: u64) {
        self.found[self.count] = sector;
        self.count += 1;
    }

    /// Each once, in order.
    fn sorted(&self) -> Sectors {
        let (mut all, mut once) = (self.found, Sectors::none());
        all[..self.count].sort_unstable();
        for &sector in &all[..self.count] {
            if once.as_slice().last() != Some(&sector) {
                once.push(sector);
            }
        }
        once
    }

    /// As [`sorted`](Self::sorted), where all are among 64 of which the first is this one.
    fn among(&self, first: u64) -> Sectors {
        let mut bits = self.as_slice().iter().fold(0u64, |bits, sector| bits | 1 << (sector - first));
        let mut once = Sectors::none();
        while bits != 0 {
            once.push(first + u64::from(bits.trailing_zeros()));
            bits &= bits - 1;
        }
        once
    }
}

/// Sectors of 32 bytes that the lanes' accesses are in. (Accesses are aligned: none is in two.)
pub(super) fn sectors(addresses: &Longs, mask: u32) -> Sectors {
    let mut all = Sectors::none();
    let (mut sorted, mut low, mut high) = (true, u64::MAX, 0);
    for lane in lanes(mask) {
        let sector = addresses[lane] >> SECTOR;
        let last = all.as_slice().last().copied();
        if last != Some(sector) {
            sorted &= last < Some(sector);
            (low, high) = (low.min(sector), high.max(sector));
            all.push(sector);
        }
    }
    match sorted {
        true => all,
        false if high - low < 64 => all.among(low),
        false => all.sorted(),
    }
}

/// Wavefronts that accesses of this size take at the least, and how many more they take because
/// lanes want different words of one bank. Wide accesses are served for 128 bytes of lanes at a time.
pub(super) fn wavefronts(addresses: &Longs, mask: u32, size: u32) -> (u64, u64) {
    let lanes_at_once = 128 / size.max(4);
    let (mut least, mut conflicts) = (0, 0);
    for first in (0..32).step_by(lanes_at_once as usize) {
        let together = mask & (u32::MAX >> (32 - lanes_at_once)) << first;
        if together != 0 {
            least += 1;
            conflicts += served(addresses, together, size) - 1;
        }
    }
    (least, conflicts)
}

/// The most words that the lanes want of one bank.
fn served(addresses: &Longs, mask: u32, size: u32) -> u64 {
    let words = || {
        lanes(mask).flat_map(|lane| (0..size.div_ceil(4)).map(move |i| (addresses[lane] >> 2) + u64::from(i)))
    };
    let mut held: [Option<u64>; BANKS] = [None; BANKS];
    if words().all(|word| *held[word as usize % BANKS].get_or_insert(word) == word) {
        return 1;
    }
    let mut all: Vec<u64> = words().collect();
    all.sort_unstable();
    all.dedup();
    let mut counts = [0; BANKS];
    all.iter().for_each(|word| counts[*word as usize % BANKS] += 1);
    counts.into_iter().max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(bytes: u64) -> Longs {
        std::array::from_fn(|lane| (1 << 20) + lane as u64 * bytes)
    }

    #[test]
    fn sectors_of_strided_accesses() {
        let cases = [(0, 1), (4, 4), (8, 8), (16, 16), (32, 32), (128, 32)];
        for (stride, count) in cases {
            assert_eq!(sectors(&strided(stride), u32::MAX).as_slice().len(), count, "{stride}");
        }
        let mut reversed = strided(4);
        reversed.reverse();
        assert_eq!(sectors(&reversed, u32::MAX).as_slice().len(), 4);
        // Back and forth, near and far.
        for stride in [256, 1 << 20] {
            let mut parted = strided(stride);
            parted.swap(3, 9);
            parted[20] = parted[0];
            let found = sectors(&parted, u32::MAX);
            assert_eq!((found.as_slice().len(), found.as_slice().is_sorted()), (31, true), "{stride}");
        }
        assert_eq!(sectors(&strided(4), 0xff).as_slice().len(), 1);
    }

    #[test]
    fn bank_conflicts_of_strided_accesses() {
        // (stride, size) to (wavefronts at the least, conflicts)
        let cases = [
            ((4, 4), (1, 0)),
            ((0, 4), (1, 0)),
            ((8, 4), (1, 1)),
            ((128, 4), (1, 31)),
            ((132, 4), (1, 0)),
            ((2, 2), (1, 0)),
            ((8, 8), (2, 0)),
            ((16, 16), (4, 0)),
            ((64, 16), (4, 12)),
            ((80, 16), (4, 0)),
        ];
        for ((stride, size), expected) in cases {
            assert_eq!(wavefronts(&strided(stride), u32::MAX, size), expected, "{stride}, {size}");
        }
        assert_eq!(wavefronts(&strided(16), 0xff, 16), (1, 0));
    }
}
