//! Matrix products: `mma` of TF32, bf16 and f16, whose fragments come from shared memory by `ldmatrix`, its transposing form
//! and plain loads, through swizzled layouts. Triton's have several stages of `cp.async`; CuTe's have every shape of
//! `mma`, and follow the layouts of fragments that this library of NVIDIA's states.

use half::{bf16, f16};
use nnc_ptx_interpreter::{Arg, Buffer, Memory, Stats};

use crate::support::{Foreign, assert_close, tf32, tf32_nearest, values};

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
    let found: Vec<f32> = memory.download(c).unwrap();
    compare(&format!("{file}, {m}x{n}x{k}"), &found, (&a, &b), round, sizes);
    assert!(stats.mmas > 0);
    stats
}

/// Each element against the exact sum of products of rounded factors.
fn compare(what: &str, found: &[f32], (a, b): (&Factor, &Factor), round: fn(f32) -> f32, sizes: &Sizes) {
    let element = |i: usize, j: usize| {
        let products = (0..sizes.k).map(|p| f64::from(round(a.at(i, p))) * f64::from(round(b.at(p, j))));
        products.fold((0.0, 0.0), |(sum, size): (f64, f64), p| (sum + p, size + p.abs()))
    };
    let expected: Vec<(f64, f64)> =
        (0..sizes.m * sizes.n).map(|ij| element(ij / sizes.n, ij % sizes.n)).collect();
    assert_close(what, found, &expected, 1e-6);
}

/// A product of CuTe's, whose second factor is stored column by column if it is `turned`; the kernel rounds.
fn cute(file: &str, round: fn(f32) -> f32, turned: bool) {
    let kernel = Foreign::read(file);
    for (m, n, k) in [(1, 1, 1), (32, 32, 16), (45, 70, 50)] {
        let sizes = Sizes { m, n, k, gap: 0 };
        let (a, b) = (Factor::new(m, k, false, 0, 3), Factor::new(k, n, turned, 0, 4));
        let mut memory = Memory::new();
        let buffers =
            [memory.upload("a", &a.stored), memory.upload("b", &b.stored), memory.allocate("c", m * n * 4)];
        let mut args: Vec<Arg> = buffers.map(Arg::Buffer).into();
        args.extend([m, n, k].map(|s| Arg::U32(s as u32)));
        let grid = [n.div_ceil(32) as u32, m.div_ceil(32) as u32, 1];
        let stats = kernel.launch(&mut memory, (grid, [128, 1, 1], 0), &args);
        assert!(stats.mmas > 0);
        let found: Vec<f32> = memory.download(buffers[2]).unwrap();
        compare(&format!("{file}, {m}x{n}x{k}"), &found, (&a, &b), round, &sizes);
    }
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

#[test]
fn products_in_every_shape_of_the_instruction() {
    cute("cute_tf32", tf32_nearest, true);
    cute("cute_tf32_short", tf32_nearest, false);
    cute("cute_bf16", BF16.1, false);
    cute("cute_bf16_short", BF16.1, false);
    cute("cute_f16", F16.1, true);
    cute("cute_f16_short", F16.1, true);
}
