//! The checksum of program files: it detects damage, not malice, and is as fast as memory.
//!
//! The bytes are cut into blocks, so that threads can sum them side by side. In a block, four sums take the
//! 64-bit words in turn; each step is a bijection of the sum and of the word, so one changed word always shows.
//! The rotation brings the upper bits, which a product leaves to themselves, back into play.

use std::io::{self, Write};

/// Bytes of a block, but for the last one.
pub(super) const BLOCK: usize = 1 << 20;

/// Odd: 2^64 divided by the golden ratio.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

const START: u64 = 0xCBF2_9CE4_8422_2325;

/// Of bytes, and of others behind them that begin a block of their own.
pub fn checksum(bytes: &[u8], more: &[u8]) -> u64 {
    join(bytes.chunks(BLOCK).chain(more.chunks(BLOCK)).map(of_block))
}

/// Of all bytes, from the sums of their blocks in order.
pub(super) fn join(blocks: impl Iterator<Item = u64>) -> u64 {
    blocks.fold(START, mix)
}

/// Of one block.
pub(super) fn of_block(bytes: &[u8]) -> u64 {
    let mut sums = [1, 2, 3, 4].map(|i| START ^ i);
    let (steps, rest) = bytes.as_chunks::<32>();
    let mut last = [0; 32];
    last[..rest.len()].copy_from_slice(rest);
    for step in steps.iter().chain([&last]) {
        for (sum, word) in sums.iter_mut().zip(step.as_chunks().0) {
            *sum = mix(*sum, u64::from_le_bytes(*word));
        }
    }
    sums.into_iter().fold(bytes.len() as u64, mix)
}

fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(FACTOR).rotate_left(29)
}

/// Counts and sums what goes through it.
pub(super) struct Summing<W> {
    to: W,
    /// What has not made up a block yet.
    block: Vec<u8>,
    sum: u64,
    written: u64,
}

impl<W: Write> Summing<W> {
    pub fn new(to: W) -> Summing<W> {
        Summing { to, block: Vec::with_capacity(BLOCK), sum: START, written: 0 }
    }

    /// How many bytes there have been.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK {
                self.pass_on()?;
            }
        }
        Ok(())
    }

    /// What follows begins a block.
    pub fn cut(&mut self) -> io::Result<()> {
        if self.block.is_empty() { Ok(()) } else { self.pass_on() }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        self.sum = mix(self.sum, of_block(&self.block));
        self.to.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// Writes the checksum of all bytes behind them.
    pub fn finish(mut self) -> io::Result<()> {
        self.cut()?;
        self.to.write_all(&self.sum.to_le_bytes())?;
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_piece_by_piece_or_at_once() {
        for n in [0, 1, 31, 32, 33, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 77] {
            let bytes: Vec<u8> = (0..n).map(|i| (i * 7 + i / 251) as u8).collect();
            let mut out = vec![];
            let mut summing = Summing::new(&mut out);
            let (first, second) = bytes.split_at(n / 3);
            first.chunks(100_003).for_each(|piece| summing.write_all(piece).unwrap());
            summing.cut().unwrap();
            second.chunks(100_003).for_each(|piece| summing.write_all(piece).unwrap());
            assert_eq!(summing.written(), n as u64);
            summing.finish().unwrap();
            assert!(out[..n] == bytes && out[n..] == checksum(first, second).to_le_bytes(), "{n}");
        }
    }

    #[test]
    fn damage_shows() {
        let bytes: Vec<u8> = (0..200u8).collect();
        let sum = checksum(&bytes, &[]);
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut other = bytes.clone();
            change(&mut other);
            checksum(&other, &[]) != sum
        };
        for bit in 0..8 * bytes.len() {
            assert!(changed(&|b| b[bit / 8] ^= 1 << (bit % 8)), "{bit}");
        }
        // Two signs of floats in the same sum.
        assert!(changed(&|b| (b[7] ^= 0x80, b[39] ^= 0x80).0));
        assert!(changed(&|b| b.swap(3, 99)));
        assert!(changed(&|b| b.push(0)));
        assert!(changed(&|b| b.truncate(199)));
    }
}
