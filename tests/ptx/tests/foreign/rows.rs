//! Kernels of Triton's on rows: reductions and prefix sums by shuffles, through shared memory between warps; sorting;
//! a transposition.

use nnc_ptx_interpreter::{Arg, Memory};

use crate::support::{Foreign, assert_close, values};

fn softmax(row: &[f32]) -> Vec<(f64, f64)> {
    let largest = row.iter().copied().fold(f32::MIN, f32::max);
    let powers: Vec<f64> = row.iter().map(|&v| (f64::from(v) - f64::from(largest)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| (p / sum, p / sum)).collect()
}

#[test]
fn softmax_of_rows() {
    for (file, sizes) in
        [("softmax", [(1, 1), (7, 37), (8, 128)]), ("softmax_sm_90", [(3, 16), (8, 112), (9, 128)])]
    {
        for (rows, columns) in sizes {
            let kernel = Foreign::read(file);
            let numbers: Vec<f32> = values(rows * columns, 3).iter().map(|v| v * 10.0).collect();
            let mut memory = Memory::new();
            let (x, y) = (memory.upload("x", &numbers), memory.allocate("y", rows * columns * 4));
            let args = [Arg::Buffer(x), Arg::Buffer(y), Arg::U32(rows as u32), Arg::U32(columns as u32)];
            kernel.triton(&mut memory, [rows.div_ceil(4) as u32, 1, 1], &args);
            let expected: Vec<_> = numbers.chunks(columns).flat_map(softmax).collect();
            assert_close(file, &memory.download::<f32>(y).unwrap(), &expected, 3e-6);
        }
    }
}

#[test]
fn layer_norm_of_rows() {
    for (file, sizes) in
        [("layer_norm", [(1, 3), (2, 256), (3, 611)]), ("layer_norm_sm_90", [(1, 16), (2, 256), (3, 624)])]
    {
        for (rows, columns) in sizes {
            let kernel = Foreign::read(file);
            let numbers: Vec<f32> = values(rows * columns, 4).iter().map(|v| v + 0.5).collect();
            let (scale, shift) = (values(columns, 5), values(columns, 6));
            let mut memory = Memory::new();
            let buffers = [&numbers, &scale, &shift].map(|v| memory.upload("in", v));
            let y = memory.allocate("y", rows * columns * 4);
            let mut args: Vec<Arg> = buffers.into_iter().chain([y]).map(Arg::Buffer).collect();
            args.extend([Arg::U32(columns as u32), Arg::F32(1e-5)]);
            kernel.triton(&mut memory, [rows as u32, 1, 1], &args);
            let normal = |row: &[f32]| {
                let n = columns as f64;
                let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
                let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
                let factor = 1.0 / (variance + f64::from(1e-5f32)).sqrt();
                let one = |c: usize| {
                    (f64::from(row[c]) - mean) * factor * f64::from(scale[c]) + f64::from(shift[c])
                };
                (0..columns).map(|c| (one(c), 2.0)).collect::<Vec<_>>()
            };
            let expected: Vec<_> = numbers.chunks(columns).flat_map(normal).collect();
            assert_close(file, &memory.download::<f32>(y).unwrap(), &expected, 1e-6);
        }
    }
}

#[test]
fn prefix_sums() {
    let kernel = Foreign::read("prefix");
    for columns in [1, 32, 133, 256] {
        let numbers = values(3 * columns, 7);
        let mut memory = Memory::new();
        let (x, y) = (memory.upload("x", &numbers), memory.allocate("y", numbers.len() * 4));
        kernel.triton(&mut memory, [3, 1, 1], &[Arg::Buffer(x), Arg::Buffer(y), Arg::U32(columns as u32)]);
        let sums = |row: &[f32]| {
            let add = |(sum, size): &mut (f64, f64), &v: &f32| {
                (*sum, *size) = (*sum + f64::from(v), *size + f64::from(v.abs()));
                Some((*sum, *size))
            };
            row.iter().scan((0.0, 0.0), add).collect::<Vec<_>>()
        };
        let expected: Vec<_> = numbers.chunks(columns).flat_map(sums).collect();
        assert_close("prefix", &memory.download::<f32>(y).unwrap(), &expected, 1e-6);
    }
}

#[test]
fn sorted_rows() {
    let kernel = Foreign::read("sort");
    for columns in [1usize, 50, 64] {
        let numbers: Vec<i32> = values(2 * columns, 8).iter().map(|v| (v * 20.0) as i32).collect();
        let mut memory = Memory::new();
        let (x, y) = (memory.upload("x", &numbers), memory.allocate("y", numbers.len() * 4));
        kernel.triton(&mut memory, [2, 1, 1], &[Arg::Buffer(x), Arg::Buffer(y), Arg::U32(columns as u32)]);
        let mut expected = numbers.clone();
        expected.chunks_mut(columns).for_each(<[i32]>::sort_unstable);
        assert_eq!(memory.download::<i32>(y).unwrap(), expected);
    }
}

#[test]
fn transposed_matrices() {
    for file in ["transpose", "transpose_sm_90"] {
        let kernel = Foreign::read(file);
        for (rows, columns) in [(16, 16), (48, 80)] {
            let numbers = values(rows * columns, 9);
            let mut memory = Memory::new();
            let (x, y) = (memory.upload("x", &numbers), memory.allocate("y", numbers.len() * 4));
            let args = [Arg::Buffer(x), Arg::Buffer(y), Arg::U32(rows as u32), Arg::U32(columns as u32)];
            let grid = [rows.div_ceil(32) as u32, columns.div_ceil(16) as u32, 1];
            let stats = kernel.triton(&mut memory, grid, &args);
            assert_eq!(stats.bank_conflicts, 0);
            let found: Vec<f32> = memory.download(y).unwrap();
            assert!((0..rows * columns).all(|i| found[i % columns * rows + i / columns] == numbers[i]));
        }
    }
}
