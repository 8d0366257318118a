//! Kernels of CUDA C++, compiled by NVRTC.

use half::{bf16, f16};
use nnc_ptx_interpreter::{Arg, Memory};

use crate::support::{Foreign, assert_close, values};

#[test]
fn sums_by_shuffles() {
    let kernel = Foreign::read("cuda_reduce");
    for fours in [1usize, 255, 1000] {
        let numbers = values(fours * 4, 20);
        let mut memory = Memory::new();
        let (x, sums) = (memory.upload("x", &numbers), memory.allocate("sums", 3 * 4));
        let args = [Arg::Buffer(x), Arg::Buffer(sums), Arg::U32(fours as u32)];
        kernel.launch(&mut memory, ([3, 1, 1], [256, 1, 1], 0), &args);
        let share = |block: usize| {
            let mine = numbers.chunks(4).enumerate().filter(|(i, _)| i / 256 % 3 == block).flat_map(|c| c.1);
            mine.fold((0.0, 0.0), |(sum, size), &v| (sum + f64::from(v), size + f64::from(v.abs())))
        };
        let expected: Vec<_> = (0..3).map(share).collect();
        assert_close("reduce", &memory.download::<f32>(sums).unwrap(), &expected, 1e-6);
    }
}

#[test]
fn a_transposition_through_shared_memory() {
    let kernel = Foreign::read("cuda_transpose");
    for (rows, columns) in [(1usize, 1usize), (37, 70), (64, 32)] {
        let numbers = values(rows * columns, 21);
        let mut memory = Memory::new();
        let (x, y) = (memory.upload("x", &numbers), memory.allocate("y", rows * columns * 4));
        let args = [Arg::Buffer(x), Arg::Buffer(y), Arg::U32(rows as u32), Arg::U32(columns as u32)];
        let grid = [columns.div_ceil(32) as u32, rows.div_ceil(32) as u32, 1];
        let stats = kernel.launch(&mut memory, (grid, [32, 8, 1], 0), &args);
        let found: Vec<f32> = memory.download(y).unwrap();
        assert!((0..rows * columns).all(|i| found[i % columns * rows + i / columns] == numbers[i]));
        assert_eq!(stats.bank_conflicts, 0, "rows of 33 words");
    }
}

#[test]
fn a_product_by_asynchronous_copies() {
    let kernel = Foreign::read("cuda_pipelined");
    for (m, n, k) in [(1usize, 4usize, 4usize), (33, 36, 40), (64, 64, 16), (40, 4, 100)] {
        let (a, b) = (values(m * k, 22), values(k * n, 23));
        let mut memory = Memory::new();
        let (pa, pb) = (memory.upload("a", &a), memory.upload("b", &b));
        let c = memory.allocate("c", m * n * 4);
        let mut args: Vec<Arg> = [pa, pb, c].map(Arg::Buffer).into();
        args.extend([m, n, k].map(|s| Arg::U32(s as u32)));
        let grid = [n.div_ceil(32) as u32, m.div_ceil(32) as u32, 1];
        kernel.launch(&mut memory, (grid, [256, 1, 1], 3 * 1024 * 4), &args);
        let element = |i: usize, j: usize| {
            let products = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j]));
            products.fold((0.0, 0.0), |(sum, size): (f64, f64), p| (sum + p, size + p.abs()))
        };
        let expected: Vec<_> = (0..m * n).map(|ij| element(ij / n, ij % n)).collect();
        assert_close("pipelined", &memory.download::<f32>(c).unwrap(), &expected, 1e-6);
    }
}

/// What a kernel is to compute of two numbers.
type Function<T> = fn(T, T) -> T;

/// The results of each of `count` functions of two lists of numbers.
fn functions_of<T: nnc_ptx_interpreter::Element>(file: &str, x: &[T], z: &[T], count: usize) -> Vec<Vec<T>> {
    let mut memory = Memory::new();
    let (px, pz) = (memory.upload("x", x), memory.upload("z", z));
    let y = memory.allocate("y", count * x.len() * T::BYTES);
    let mut args: Vec<Arg> = [px, pz, y].map(Arg::Buffer).into();
    args.push(Arg::U32(x.len() as u32));
    Foreign::read(file).launch(&mut memory, ([x.len().div_ceil(96) as u32, 1, 1], [96, 1, 1], 0), &args);
    memory.download::<T>(y).unwrap().chunks(x.len()).map(<[T]>::to_vec).collect()
}

#[test]
fn functions_of_floats() {
    let n = 500;
    let x: Vec<f32> = values(n, 24).iter().map(|v| v * 9.0).collect();
    let z: Vec<f32> = values(n, 25).iter().map(|v| v * 3.0).collect();
    // With the relative error that is allowed: half a unit in the last place is 6e-8 at most; CUDA's library promises
    // one or two units for most functions, four for powers.
    let expected: [(&str, Function<f64>, f64); 12] = [
        ("fma", |x, z| x * z + x, 6e-8),
        ("quotient", |x, z| x / z, 6e-8),
        ("root", |x, _| x.abs().sqrt(), 6e-8),
        ("reciprocal root", |_, z| 1.0 / z.abs().sqrt(), 2e-7),
        ("exp", |x, _| x.exp(), 2.4e-7),
        ("log", |_, z| z.abs().ln(), 2e-7),
        ("tanh", |x, _| x.tanh(), 3e-7),
        ("extrema", |x, z| x.min(z) - x.max(-z), 6e-8),
        ("sine and cosine", |x, z| x.sin() * z.cos(), 3e-7),
        ("erf", |x, _| erf(x), 3e-7),
        ("rounding", |x, z| (x.floor() + z.ceil() - x.trunc() * z.round_ties_even()).copysign(z), 6e-8),
        ("pow", |x, z| x.abs().powf(z), 6e-7),
    ];
    let found = functions_of("cuda_functions", &x, &z, expected.len());
    for ((name, f, tolerance), found) in expected.into_iter().zip(found) {
        let arguments = x.iter().zip(&z).map(|(&x, &z)| f(x.into(), z.into()));
        let sized: Vec<_> = arguments.map(|e| (e, e.abs() + f64::from(f32::MIN_POSITIVE))).collect();
        assert_close(name, &found, &sized, tolerance);
    }
}

/// The error function by its series, which loses digits further out; there it is 1 to 3e-9.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.2 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn functions_of_integers() {
    let mut x: Vec<i32> = (0..400u32).map(|i| (i.wrapping_mul(0x9e37_79b9) ^ i << 7) as i32).collect();
    x.extend([0, 1, -1, i32::MIN, i32::MAX, 255, 256, 65535, -32768, 1 << 30]);
    let z: Vec<i32> =
        x.iter().rev().map(|&v| if v == 0 || v == -1 { 3 } else { v >> (v & 15) | 1 }).collect();
    let expected: [(&str, Function<i32>); 10] = [
        ("signed quotients", |v, w| v.wrapping_div(w).wrapping_add(v.wrapping_rem(w))),
        ("unsigned quotients", |v, w| {
            let (u, t) = (v as u32, w as u32);
            (u / t).wrapping_add(u % t) as i32
        }),
        ("by constants", |v, _| v / 7 + v % 10 + (v as u32 / 1000) as i32),
        ("counts", |v, w| {
            let first = if v == 0 { 0 } else { v.trailing_zeros() as i32 + 1 };
            v.leading_zeros() as i32 + w.count_ones() as i32 * 100 + first * 10000
        }),
        ("reversed bits and picked bytes", |v, w| {
            let (v8, w8) = (v.to_le_bytes(), w.to_le_bytes());
            v.reverse_bits() ^ i32::from_le_bytes([v8[1], w8[0], v8[2], w8[1]])
        }),
        ("funnel shifts", |v, w| {
            let both = u64::from(w as u32) << 32 | u64::from(v as u32);
            ((both << 11 >> 32) as u32 ^ (both >> (v & 31)) as u32) as i32
        }),
        ("upper halves", |v, w| {
            let unsigned = (u64::from(v as u32) * u64::from(w as u32)) >> 32;
            ((i64::from(v) * i64::from(w)) >> 32).wrapping_add(unsigned as i64) as i32
        }),
        ("64 bits", |v, w| {
            let (signed, unsigned) = (i64::from(v) * i64::from(w), u64::from(v as u32) * u64::from(w as u32));
            ((signed >> 13) as i32).wrapping_add((unsigned % 1_000_003) as i32)
        }),
        ("extrema and shifts", |v, w| {
            let by = w & 15;
            let sum = v.min(w).wrapping_sub(v.max(w)).wrapping_add(v.wrapping_abs()).wrapping_add(v << by);
            sum.wrapping_add(v >> by).wrapping_add((v as u32 >> 9 & 0x7f) as i32)
        }),
        ("narrow types", |v, w| i32::from(v as i16) * i32::from(w as u8) + i32::from(v as i8)),
    ];
    let found = functions_of("cuda_integers", &x, &z, expected.len());
    for ((name, f), found) in expected.into_iter().zip(found) {
        let expected: Vec<i32> = x.iter().zip(&z).map(|(&x, &z)| f(x, z)).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn formats_of_16_bits() {
    let n = 300;
    let x: Vec<f32> = values(2 * n, 26).iter().map(|v| v * 100.0).collect();
    let mut memory = Memory::new();
    let px = memory.upload("x", &x);
    let [h, b, s] = ["h", "b", "s"].map(|name| memory.allocate(name, n * 4));
    let y = memory.allocate("y", n * 8);
    let mut args: Vec<Arg> = [px, h, b, y, s].map(Arg::Buffer).into();
    args.push(Arg::U32(n as u32));
    Foreign::read("cuda_formats").launch(&mut memory, ([5, 1, 1], [64, 1, 1], 0), &args);
    let halves: Vec<f16> = x.iter().map(|&v| f16::from_f32(v)).collect();
    let brains: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
    let differences: Vec<f32> = halves.iter().zip(&brains).map(|(h, b)| h.to_f32() - b.to_f32()).collect();
    let rounded = |(i, &v): (usize, &f32)| if i % 2 == 0 { v.round_ties_even() } else { v.floor() } as i16;
    assert_eq!(memory.download::<f16>(h).unwrap(), halves);
    assert_eq!(memory.download::<bf16>(b).unwrap(), brains);
    assert_eq!(memory.download::<f32>(y).unwrap(), differences);
    assert_eq!(memory.download::<i16>(s).unwrap(), x.iter().enumerate().map(rounded).collect::<Vec<i16>>());
}

#[test]
fn positive_numbers_by_votes() {
    let kernel = Foreign::read("cuda_compact");
    let x = values(700, 27);
    let mut memory = Memory::new();
    let (px, y) = (memory.upload("x", &x), memory.upload("y", &[0f32; 768]));
    let counts = memory.allocate("counts", 12);
    let args = [Arg::Buffer(px), Arg::Buffer(y), Arg::Buffer(counts), Arg::U32(700)];
    kernel.launch(&mut memory, ([3, 1, 1], [256, 1, 1], 0), &args);
    let (y, counts) = (memory.download::<f32>(y).unwrap(), memory.download::<i32>(counts).unwrap());
    for (block, share) in x.chunks(256).enumerate() {
        let positive: Vec<f32> = share.iter().copied().filter(|&v| v > 0.0).collect();
        assert_eq!(counts[block] as usize, positive.len());
        assert_eq!(y[block * 256..][..positive.len()], positive);
    }
}

#[test]
fn medians_of_bytes() {
    let kernel = Foreign::read("cuda_median");
    for (height, width) in [(1usize, 1usize), (9, 40)] {
        let x: Vec<u8> = values(height * width, 28).iter().map(|v| (v * 20.0) as i8 as u8).collect();
        let mut memory = Memory::new();
        let (px, y) = (memory.upload("x", &x), memory.allocate("y", height * width));
        let args = [Arg::Buffer(px), Arg::Buffer(y), Arg::U32(height as u32), Arg::U32(width as u32)];
        let grid = [width.div_ceil(32) as u32, height.div_ceil(8) as u32, 1];
        kernel.launch(&mut memory, (grid, [32, 8, 1], 0), &args);
        let at = |row: isize, column: isize| {
            let inside = |i: isize, n: usize| i.clamp(0, n as isize - 1) as usize;
            x[inside(row, height) * width + inside(column, width)]
        };
        let median = |i: usize| {
            let (row, column) = ((i / width) as isize, (i % width) as isize);
            let mut around: Vec<u8> = (0..9).map(|j| at(row + j / 3 - 1, column + j % 3 - 1)).collect();
            around.sort_unstable();
            around[4]
        };
        assert_eq!(memory.download::<u8>(y).unwrap(), (0..height * width).map(median).collect::<Vec<u8>>());
    }
}

#[test]
fn arrays_of_a_thread() {
    let n = 100;
    let x = values(n * 8, 29);
    let indices: Vec<i32> = (0..n as i32 * 4).map(|i| i * i * 7 + i).collect();
    let mut memory = Memory::new();
    let (pi, px) = (memory.upload("indices", &indices), memory.upload("x", &x));
    let y = memory.allocate("y", n * 4);
    let args = [Arg::Buffer(pi), Arg::Buffer(px), Arg::Buffer(y), Arg::U32(n as u32)];
    Foreign::read("cuda_gather").launch(&mut memory, ([2, 1, 1], [64, 1, 1], 0), &args);
    let one = |i: usize| {
        let mut row: Vec<f32> = (0..8).map(|j| x[i * 8 + j] * (j + 1) as f32).collect();
        let at: Vec<usize> = indices[i * 4..][..4].iter().map(|&i| (i & 7) as usize).collect();
        row[at[3]] += 1.0;
        row[at[1]].mul_add(row[at[2]], row[at[0]])
    };
    assert_eq!(memory.download::<f32>(y).unwrap(), (0..n).map(one).collect::<Vec<f32>>());
}
