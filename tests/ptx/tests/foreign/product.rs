//! Matrix products of Triton's: `mma` of TF32, bf16 and f16, whose fragments come from shared memory by `ldmatrix`, its
//! transposing form and plain loads, through swizzled layouts and several stages of `cp.async`.

use half::{bf16, f16};
use nnc_ptx_interpreter::{Arg, Buffer, Memory, Stats};

use crate::support::{Foreign, assert_close, tf32, values};

/// Rows, columns, depth; elements that rows of the factors are apart beyond their length.
struct Sizes {
    m: usize,
    n: usize,
    k: usize,
    gap: usize,
}

/// A factor of `rows` x `columns` in memory: the numbers, their strides.
struct Factor {
    stored: Vec<f32>,
    strides: [usize; 2],
}

impl Factor {
    fn new(rows: usize, columns: usize, turned: bool, gap: usize, seed: u32) -> Factor {
        let strides = if turned { [1, rows + gap] } else { [columns + gap, 1] };
        Factor { stored: values(rows * columns + gap * rows.max(columns), seed), strides }
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.stored[row * self.strides[0] + column * self.strides[1]]
    }
}

/// How numbers get to the kernel, and what it computes with.
type Type = (fn(&mut Memory, &str, &[f32]) -> Buffer, fn(f32) -> f32);

const TF32: Type = (|m, name, v| m.upload(name, v), tf32);
const BF16: Type = (
    |m, name, v| m.upload(name, &v.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>()),
    |x| bf16::from_f32(x).to_f32(),
);
const F16: Type = (
    |m, name, v| m.upload(name, &v.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>()),
    |x| f16::from_f32(x).to_f32(),
);

fn check(file: &str, (upload, round): Type, sizes: &Sizes) -> Stats {
    let kernel = Foreign::read(file);
    let known = |name: &str| kernel.constants.contains_key(name);
    let &Sizes { m, n, k, gap } = sizes;
    let a = Factor::new(m, k, known("a_row"), gap, 1);
    let b = Factor::new(k, n, known("b_row"), gap, 2);
    let mut memory = Memory::new();
    let (pa, pb) = (upload(&mut memory, "a", &a.stored), upload(&mut memory, "b", &b.stored));
    let c = memory.allocate("c", m * n * 4);
    let mut args = vec![Arg::Buffer(pa), Arg::Buffer(pb), Arg::Buffer(c)];
    args.extend([m, n, k].map(|s| Arg::U32(s as u32)));
    let strides = [("a_row", a.strides[0]), ("a_column", a.strides[1]), ("b_row", b.strides[0])];
    for (name, stride) in strides.into_iter().chain([("b_column", b.strides[1])]) {
        if !known(name) {
            args.push(Arg::U32(stride as u32));
        }
    }
    let tiles = |size: usize, tile: &str| (size as u32).div_ceil(kernel.constants[tile]);
    let stats = kernel.triton(&mut memory, [tiles(m, "BM"), tiles(n, "BN"), 1], &args);
    let element = |i: usize, j: usize| {
        let products = (0..k).map(|p| f64::from(round(a.at(i, p))) * f64::from(round(b.at(p, j))));
        products.fold((0.0, 0.0), |(sum, size): (f64, f64), p| (sum + p, size + p.abs()))
    };
    let expected: Vec<(f64, f64)> = (0..m * n).map(|ij| element(ij / n, ij % n)).collect();
    let found: Vec<f32> = memory.download(c).unwrap();
    assert_close(&format!("{file}, {m}x{n}x{k}"), &found, &expected, 1e-6);
    assert!(stats.mmas > 0);
    stats
}

/// Any sizes.
fn loose(file: &str, ty: Type) {
    for (m, n, k) in [(1, 1, 1), (32, 32, 64), (37, 45, 29), (70, 3, 50)] {
        check(file, ty, &Sizes { m, n, k, gap: k % 3 });
    }
}

/// Multiples of 16.
fn aligned(file: &str, ty: Type) -> Stats {
    for (m, n, k) in [(16, 16, 16), (48, 80, 112)] {
        check(file, ty, &Sizes { m, n, k, gap: 16 });
    }
    check(file, ty, &Sizes { m: 64, n: 64, k: 64, gap: 0 })
}

#[test]
fn tf32_of_any_size() {
    loose("tf32", TF32);
    loose("tf32_turned", TF32);
}

#[test]
fn tf32_by_copies_of_16_bytes() {
    for file in ["tf32_aligned", "tf32_wide", "tf32_sm_90", "tf32_turned_a", "tf32_turned_b"] {
        let stats = aligned(file, TF32);
        assert!(stats.unrounded_tf32 > 0, "Triton leaves the rounding to the tensor cores");
        assert_eq!(stats.bank_conflicts, 0, "{file}: Triton's layouts have none");
    }
}

#[test]
fn bf16_and_f16() {
    loose("bf16_loose", BF16);
    for file in ["bf16", "bf16_turned_a", "bf16_turned_b"] {
        assert_eq!(aligned(file, BF16).bank_conflicts, 0, "{file}");
    }
    assert_eq!(aligned("f16", F16).bank_conflicts, 0);
}
