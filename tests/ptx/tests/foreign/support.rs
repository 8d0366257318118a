//! Kernels of files, numbers, comparisons.

use std::collections::HashMap;

use nnc_ptx_interpreter::{Arg, Memory, Module, Stats};

/// A kernel of `ptx/`, and what its first line says.
pub struct Foreign {
    module: Module,
    name: String,
    threads: u32,
    shared: u32,
    /// Arguments that were constants to the compiler, and tile sizes.
    pub constants: HashMap<String, u32>,
}

impl Foreign {
    /// Reads `ptx/{file}.ptx`, which has one kernel.
    pub fn read(file: &str) -> Foreign {
        let path = format!("{}/tests/foreign/ptx/{file}.ptx", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let module = Module::parse(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        let name = module.kernels().next().expect("a kernel").to_string();
        let facts = text.lines().next().and_then(|l| l.split_once(": ")).map_or("", |l| l.1);
        let constants: HashMap<String, u32> = facts
            .split(", ")
            .filter_map(|fact| fact.split_once(' '))
            .filter_map(|(name, value)| Some((name.to_string(), value.parse().ok()?)))
            .collect();
        let of = |name: &str| constants.get(name).copied().unwrap_or(0);
        Foreign { module, name, threads: of("threads"), shared: of("shared"), constants }
    }

    /// Launches a kernel of Triton's, whose last two arguments are memory that these kernels do not use.
    pub fn triton(&self, memory: &mut Memory, grid: [u32; 3], args: &[Arg]) -> Stats {
        let args = [args, &[Arg::U64(0), Arg::U64(0)]].concat();
        self.launch(memory, (grid, [self.threads, 1, 1], self.shared), &args)
    }

    /// Launches the kernel; a fault fails the test.
    pub fn launch(&self, memory: &mut Memory, shape: ([u32; 3], [u32; 3], u32), args: &[Arg]) -> Stats {
        let (grid, block, shared) = shape;
        let result = self.module.launch(memory, &self.name, grid, block, shared, args);
        result.unwrap_or_else(|e| panic!("{e}"))
    }
}

/// Numbers between -1 and 1 that need all bits of a mantissa.
pub fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A TF32 operand: the low 13 bits do not count.
pub fn tf32(x: f32) -> f32 {
    f32::from_bits(x.to_bits() & !0x1fff)
}

/// Ten bits of mantissa, ties away from zero.
pub fn tf32_nearest(x: f32) -> f32 {
    tf32(f32::from_bits(x.to_bits() + 0x1000))
}

/// All results must be within `tolerance` of the expected ones, in parts of the size that each comes with.
pub fn assert_close(what: &str, found: &[f32], expected: &[(f64, f64)], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&f, &(e, size))) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(f) - e).abs();
        assert!(
            error <= tolerance * size,
            "{what}: element {i} is {f}, expected {e} ({:.1e} off)",
            error / size
        );
    }
}
