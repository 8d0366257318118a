//! `ldmatrix` and `mma`: fragments of matrices in the registers of a warp.
//!
//! With `g` = lane / 4 and `t` = lane % 4, a lane holds of a 16 x k matrix A the rows `g` and `g + 8`,
//! of a k x 8 matrix B the column `g`, of the 16 x 8 accumulators rows `g` and `g + 8`, columns `2t`
//! and `2t + 1`. Along k, a lane holds the elements `t` and `t + 4` of TF32, and the pairs from `2t`
//! and `2t + 8` of the 16-bit types.
//!
//! Operands are exact: TF32 ones are f32 whose low 13 bits are ignored. Products are exact too; [`super::sums`] says how they
//! are summed with the accumulator.

use half::{bf16, f16};

use super::Env;
use super::access::at;
use super::sums::{Sums, truncated};
use super::warp::{Outcome, Warp, Words};
use crate::op::{Address, Lanes, Mma, MmaType, Slot, Space, W};

const LARGEST_K: usize = 16;

/// The bits of f32 that TF32 does not have.
const BELOW_TF32: u32 = 0x1fff;

/// An element of a register: the lower half (0) or the upper (1) of a pair.
fn element(ty: MmaType, register: u32, half: usize) -> f64 {
    let bits = (register >> (16 * half)) as u16;
    match ty {
        MmaType::Tf32 => f32::from_bits(register & !BELOW_TF32).into(),
        MmaType::F16 => f16::from_bits(bits).into(),
        MmaType::Bf16 => bf16::from_bits(bits).into(),
    }
}

/// Where an operand's register lies: which of a lane's rows (of A), which place along k.
fn place(ty: MmaType, t: usize, block: usize, half: usize) -> usize {
    match ty {
        MmaType::Tf32 => t + 4 * block,
        MmaType::F16 | MmaType::Bf16 => 2 * t + 8 * block + half,
    }
}

impl Warp {
    pub(super) fn mma(&mut self, env: &mut Env, m: &Mma, mask: u32) -> Outcome<()> {
        self.need_all(mask)?;
        let k = usize::from(m.k);
        let halves = if m.ty == MmaType::Tf32 { 1 } else { 2 };
        // Blocks along k: registers of a lane that are apart by 4 (TF32) or 8 elements.
        let blocks = k / (4 * halves);
        let (mut a, mut b) = ([[0f64; LARGEST_K]; 16], [[0f64; 8]; LARGEST_K]);
        for block in 0..blocks {
            for row in 0..2 {
                let words = self.operand(env, m.ty, m.a[2 * block + row], mask)?;
                for (lane, &word) in words.iter().enumerate() {
                    for half in 0..halves {
                        a[lane / 4 + 8 * row][place(m.ty, lane % 4, block, half)] = element(m.ty, word, half);
                    }
                }
            }
            let words = self.operand(env, m.ty, m.b[block], mask)?;
            for (lane, &word) in words.iter().enumerate() {
                for half in 0..halves {
                    b[place(m.ty, lane % 4, block, half)][lane / 4] = element(m.ty, word, half);
                }
            }
        }
        env.stats.mmas += 1;
        if env.sums == Sums::Truncated {
            return self.accumulate(m, mask, |row, column, c| {
                let products: [f64; LARGEST_K] = std::array::from_fn(|i| a[row][i] * b[i][column]);
                truncated(c, &products[..k], 4 * halves)
            });
        }
        let mut sums = [[0f64; 8]; 16];
        for (sum, a) in sums.iter_mut().zip(&a) {
            for (x, b) in a.iter().zip(&b).take(k) {
                for (s, y) in sum.iter_mut().zip(b) {
                    *s += x * y;
                }
            }
        }
        self.accumulate(m, mask, |row, column, c| (sums[row][column] + f64::from(c)) as f32)
    }

    fn operand(&self, env: &mut Env, ty: MmaType, register: W, mask: u32) -> Outcome<&Words> {
        let words = self.w(register, mask)?;
        if ty == MmaType::Tf32 {
            env.stats.unrounded_tf32 += words.iter().filter(|&w| w & BELOW_TF32 != 0).count() as u64;
        }
        Ok(words)
    }

    /// d = sum(row, column, c)
    fn accumulate(&mut self, m: &Mma, mask: u32, sum: impl Fn(usize, usize, f32) -> f32) -> Outcome<()> {
        let mut out = [[0; 32]; 4];
        for (i, out) in out.iter_mut().enumerate() {
            let c = self.w(m.c[i], mask)?;
            for lane in 0..32 {
                let (row, column) = (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
                out[lane] = super::float::bits(sum(row, column, f32::from_bits(c[lane])));
            }
        }
        for (d, out) in m.d.iter().zip(&out) {
            self.put_w(*d, mask, out);
        }
        Ok(())
    }

    /// Loads 8 x 8 matrices of 16-bit elements: lane `8i + r` gives the address of row `r` of matrix
    /// `i`; lane `l` gets the elements `2(l % 4)` and the next of row `l / 4` (or of that column).
    pub(super) fn ldmatrix(
        &mut self,
        env: &mut Env,
        (count, transpose): (u8, bool),
        d: &Lanes,
        address: &Address,
        mask: u32,
    ) -> Outcome<()> {
        self.need_all(mask)?;
        let rows = 8 * usize::from(count);
        let giving = (u64::MAX >> (64 - rows)) as u32;
        let addresses = self.addresses(address, giving)?;
        env.count(Space::Shared, &addresses, giving, 16);
        for (i, slot) in d.iter().enumerate() {
            let mut matrix = [[0u16; 8]; 8];
            for (r, row) in matrix.iter_mut().enumerate() {
                let lane = 8 * i + r;
                let who = self.who(env, lane);
                let bytes = env.shared.load(addresses[lane], 16, &who).map_err(at(lane))?;
                for (element, pair) in row.iter_mut().zip(bytes.chunks_exact(2)) {
                    *element = u16::from_le_bytes([pair[0], pair[1]]);
                }
            }
            let at = |r: usize, c: usize| u32::from(if transpose { matrix[c][r] } else { matrix[r][c] });
            let words: Words =
                std::array::from_fn(|l| at(l / 4, 2 * (l % 4)) | at(l / 4, 2 * (l % 4) + 1) << 16);
            if let Slot::W(w) = slot {
                self.put_w(w, mask, &words);
            }
        }
        Ok(())
    }
}
