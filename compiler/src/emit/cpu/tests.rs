//! Emitted code against the kernel interpreter, bit for bit.

mod random;
mod samples;

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::*;
use crate::kernel::LoopKind;
use crate::kernel::interpret::{Block, Order, run_kernel};
use crate::kernel::verify::verify;

/// Code that can be called.
pub(super) struct Executable {
    map: memmap2::Mmap,
}

impl Executable {
    #[allow(unsafe_code)]
    pub(super) fn new(bytes: &[u8]) -> Executable {
        let mut map = memmap2::MmapMut::map_anon(bytes.len().max(1)).expect("memory");
        map[..bytes.len()].copy_from_slice(bytes);
        Executable { map: map.make_exec().expect("executable memory") }
    }

    /// Runs tasks `first..end`; the arguments must be as large as the kernel's buffers.
    #[allow(unsafe_code)]
    pub(super) fn call(&self, offset: usize, args: &[*mut u8], first: u64, end: u64, scratch: *mut u8) {
        type Entry = extern "C" fn(*const *mut u8, u64, u64, *mut u8);
        // SAFETY: the bytes at the offset are a function of this signature, made for this machine.
        let entry: Entry = unsafe { std::mem::transmute(self.map.as_ptr().add(offset)) };
        entry(args.as_ptr(), first, end, scratch);
    }
}

/// The tile of a matrix product.
pub(super) fn matmul_tile(rows: usize, vectors: usize, lanes: usize) -> Kernel {
    samples::matmul_tile(rows, vectors, lanes, 32)
}

/// Memory of an argument or of scratch, aligned to a cache line.
#[derive(Clone)]
#[repr(C, align(64))]
struct Line([u8; 64]);

fn lines(bytes: usize) -> Vec<Line> {
    vec![Line([0xa5; 64]); bytes.div_ceil(64).max(1)]
}

#[allow(unsafe_code)]
fn bytes_of(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: a line is 64 plain bytes.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 64) }
}

/// Floats that show mistakes: small integers and fractions, zeros of both signs, NaN, infinities.
fn sample(i: usize, special: bool) -> f32 {
    let h = (i as u32).wrapping_mul(2_654_435_761) >> 7;
    match h % 23 {
        0 if special => f32::NAN,
        1 if special => f32::INFINITY,
        2 if special => f32::NEG_INFINITY,
        3 => -0.0,
        4 => 0.0,
        _ => (h % 2001) as f32 / 97.0 - 10.0,
    }
}

/// What this machine can run: a target for every width of its vectors.
fn targets() -> Vec<CpuTarget> {
    let best = CpuTarget::detect();
    best.widths().into_iter().map(|w| best.clone().with_lanes(w)).collect()
}

/// Runs a kernel in the interpreter and compiled for every target, and compares.
fn check(kernel: &Kernel, special: bool) {
    let verified = verify(kernel).unwrap_or_else(|e| panic!("{kernel}\n{e:?}"));
    let start = arguments(kernel, special);
    let mut expected = start.clone();
    let places: Vec<(usize, usize)> = (0..expected.len()).map(|i| (i, 0)).collect();
    run_kernel(kernel, &mut expected, &places, Order::Forward).unwrap_or_else(|e| panic!("{kernel}\n{e}"));
    for target in targets() {
        let options = EmitOptions::default();
        let code = compile(std::slice::from_ref(&verified), &target, &options).expect("compiles");
        let found = run(kernel, &code, &start);
        for ((b, expected), mut found) in kernel.params().zip(&expected).zip(found) {
            compare(kernel, target.lanes, b, expected, bytes_of(&mut found));
        }
    }
}

/// Samples for all arguments.
fn arguments(kernel: &Kernel, special: bool) -> Vec<Block> {
    let mut blocks = vec![];
    for b in kernel.params() {
        let cell = |i: usize| match b.dtype {
            DType::I32 => (sample(i, false) as i32) as u32,
            DType::Bool => (i.is_multiple_of(3)) as u32,
            _ => sample(i, special).to_bits(),
        };
        blocks.push(match b.memory {
            Memory::Global(Access::Write) => Block::undefined(b.extent()),
            _ => Block::new((0..b.extent()).map(cell).collect()),
        });
    }
    blocks
}

/// Runs compiled code in two splits of its tasks; the arguments' memory afterwards.
fn run(kernel: &Kernel, code: &Code, blocks: &[Block]) -> Vec<Vec<Line>> {
    let memory = |(b, block): (&crate::kernel::Buffer, &Block)| {
        let mut memory = lines(b.extent() * b.dtype.size());
        let bytes = bytes_of(&mut memory);
        for (i, c) in block.cells.iter().enumerate().filter(|(i, _)| block.defined[*i]) {
            match b.dtype {
                DType::Bool => bytes[i] = *c as u8,
                _ => bytes[4 * i..4 * i + 4].copy_from_slice(&c.to_le_bytes()),
            }
        }
        memory
    };
    let mut arguments: Vec<Vec<Line>> = kernel.params().zip(blocks).map(memory).collect();
    let executable = Executable::new(&code.bytes);
    let args: Vec<*mut u8> = arguments.iter_mut().map(|a| bytes_of(a).as_mut_ptr()).collect();
    let mut scratch = lines(code.scratch_bytes[0]);
    let tasks = kernel.task_count();
    let scratch = bytes_of(&mut scratch).as_mut_ptr();
    executable.call(code.offsets[0], &args, tasks / 3, tasks, scratch);
    executable.call(code.offsets[0], &args, 0, tasks / 3, scratch);
    arguments
}

fn compare(kernel: &Kernel, lanes: usize, b: &crate::kernel::Buffer, block: &Block, bytes: &[u8]) {
    for i in (0..block.cells.len()).filter(|i| block.defined[*i]) {
        let expected = block.cells[i];
        let found = match b.dtype {
            DType::Bool => bytes[i] as u32,
            _ => u32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().expect("four bytes")),
        };
        let nan = |c: u32| b.dtype == DType::F32 && f32::from_bits(c).is_nan();
        let same = expected == found || nan(expected) && nan(found);
        let floats = (f32::from_bits(expected), f32::from_bits(found));
        let place = format!("{}[{i}] at {lanes} lanes", b.name);
        assert!(same, "{kernel}\n{place}: expected {expected:#x}, found {found:#x}; {floats:?}");
    }
}

#[test]
fn functions_are_aligned_and_the_same_each_time() {
    let kernels: Vec<Kernel> = (0..6).map(|_| samples::matmul_tile(6, 2, 4, 32)).collect();
    let verified: Vec<_> = kernels.iter().map(|k| verify(k).expect("is right")).collect();
    let options = EmitOptions { clif: true, asm: true };
    let code = compile(&verified, &CpuTarget::host(), &options).expect("compiles");
    assert_eq!(code, compile(&verified, &CpuTarget::host(), &options).expect("compiles"));
    assert!(code.offsets.iter().all(|o| o.is_multiple_of(ALIGNMENT)));
    assert_eq!(code.offsets.len(), 6);
}

#[test]
fn targets_without_fused_multiply_add_are_refused() {
    let mut target = CpuTarget::host().with_lanes(4);
    target.features.retain(|f| f != "fma");
    if target.architecture == "x86_64" {
        let error = compile(&[], &target, &EmitOptions::default()).expect_err("needs fma");
        assert_eq!(error.to_string(), "code for `x86_64` needs the feature `fma`");
    }
    target.architecture = "pdp11".into();
    assert!(matches!(compile(&[], &target, &EmitOptions::default()), Err(EmitError::Architecture { .. })));
}

#[test]
fn samples_give_the_interpreters_bits() {
    for kernel in samples::all() {
        check(&kernel, false);
        check(&kernel, true);
    }
}

#[test]
fn prefetches_reach_the_machine_where_it_has_them() {
    let kernel = samples::prefetching();
    let verified = verify(&kernel).expect("is right");
    let options = EmitOptions { clif: false, asm: true };
    for target in targets().iter().filter(|t| t.architecture == "x86_64") {
        let code = compile(std::slice::from_ref(&verified), target, &options).expect("compiles");
        let text = code.asm.expect("asked for");
        let count = |cache: &str| text.matches(cache).count();
        let expected = usize::from(target.lanes > 4);
        assert_eq!([count("prefetcht0"), count("prefetcht1")], [expected; 2], "{text}");
    }
}

#[test]
fn loops_over_the_same_registers_have_one_width() {
    let kernel = samples::shared_registers();
    let widths = |available: &[usize]| vector::widths(&kernel, available);
    let loops = |available: &[usize]| -> Vec<usize> {
        let (vars, chosen) = (&kernel.vars, widths(available).loops);
        let lanes = vars.iter().zip(chosen).filter(|(v, _)| v.name.starts_with('l'));
        lanes.map(|(_, w)| w.unwrap_or(1)).collect()
    };
    // The second loop's four lanes are those of `mixed`, and so of all that touches it.
    assert_eq!(widths(&[16, 8, 4]).groups, [None, None, Some(4), Some(4)]);
    assert_eq!(loops(&[16, 8, 4]), [4, 4, 4, 4, 4]);
    assert_eq!(widths(&[16, 8]).groups, [None, None, Some(8), Some(8)]);
    assert_eq!(loops(&[16, 8]), [8, 1, 8, 8, 8]);
    let tile = samples::matmul_tile(6, 2, 16, 8);
    let groups = vector::widths(&tile, &[16, 8, 4]).groups;
    assert!(groups[3..].iter().all(|g| *g == Some(16)), "{groups:?}");
    // 24 is no multiple of 16, 20 none of 8, 33 none of 4.
    for (extent, width) in [(24, Some(8)), (20, Some(4)), (32, Some(16)), (33, None)] {
        let loops = vector::widths(&samples::elementwise(extent), &[16, 8, 4]).loops;
        assert!(loops[1..].iter().all(|w| *w == width), "{extent}: {loops:?}");
    }
}

/// Fused multiply-adds of four lanes a second, with all operands in registers: what the core can do.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn peak_flops() -> f64 {
    use std::arch::x86_64::{__m128, _mm_fmadd_ps, _mm_set1_ps};
    #[target_feature(enable = "avx,fma")]
    fn run(n: u64) {
        let mut acc: [__m128; 12] = [_mm_set1_ps(1.0); 12];
        let (a, b) = (_mm_set1_ps(std::hint::black_box(1.0)), _mm_set1_ps(std::hint::black_box(0.0)));
        for _ in 0..n {
            for x in &mut acc {
                *x = _mm_fmadd_ps(*x, a, b);
            }
        }
        std::hint::black_box(&acc);
    }
    let n = 20_000_000;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = std::time::Instant::now();
        // SAFETY: the target of the tests' host has these features, as `compile` checks.
        unsafe { run(n) };
        best = best.min(start.elapsed().as_secs_f64());
    }
    n as f64 * 12.0 * 8.0 / best
}

/// `cargo test -p nnc-compiler tile_speed -- --ignored --nocapture` on a quiet machine.
///
/// Cranelift has only the multiply-add that overwrites a factor, so that a broadcast that is used
/// twice is copied, and its register allocator needs a register or two to spare. With 16 registers
/// of a Zen 5, 5 rows by 2 vectors run at 97 % of the peak; 6 by 2, which would fit by hand, spill
/// and run at 58 %; 3 by 3 at 92 %, 4 by 2 (as many chains as the latency needs, no more) at 86 %.
#[cfg(target_arch = "x86_64")]
#[test]
#[ignore = "a measurement"]
fn tile_speed() {
    let peak = peak_flops();
    let mut shares = vec![];
    for (rows, vectors) in [(5, 2), (6, 2), (4, 2), (3, 3), (4, 3), (10, 1), (12, 1), (14, 1)] {
        let flops = tile_flops(rows, vectors, &CpuTarget::host().with_lanes(4));
        shares.push(flops / peak);
        let share = 100.0 * flops / peak;
        println!("{rows}x{vectors}: {:.1} of {:.1} GFLOP/s: {share:.0} %", flops / 1e9, peak / 1e9);
    }
    assert!(shares[0] > 0.85, "the 5x2 tile is slow");
}

/// Likewise for wide vectors, whose peak is so much higher as they are wider.
#[cfg(target_arch = "x86_64")]
#[test]
#[ignore = "a measurement"]
fn wide_tile_speed() {
    let peak = peak_flops();
    for target in targets().iter().filter(|t| t.lanes > 4) {
        let peak = peak * target.lanes as f64 / 4.0;
        let tiles: &[(usize, usize)] = if target.lanes == 16 {
            &[(28, 1), (14, 2), (7, 4), (9, 3), (4, 7)]
        } else {
            &[(12, 1), (6, 2), (4, 3), (3, 4)]
        };
        for &(rows, vectors) in tiles {
            let flops = tile_flops(rows, vectors, target);
            let share = 100.0 * flops / peak;
            println!(
                "{rows}x{vectors}, {} lanes: {:.1} of {:.1} GFLOP/s: {share:.0} %",
                target.lanes,
                flops / 1e9,
                peak / 1e9
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn tile_flops(rows: usize, vectors: usize, target: &CpuTarget) -> f64 {
    let kernel = samples::matmul_tile(rows, vectors, target.lanes, 256);
    let verified = verify(&kernel).expect("is right");
    let code = compile(&[verified], target, &EmitOptions::default()).expect("compiles");
    let mut arguments: Vec<_> = kernel.params().map(|b| lines(b.extent() * 4)).collect();
    arguments.iter_mut().for_each(|a| bytes_of(a).fill(0));
    let args: Vec<*mut u8> = arguments.iter_mut().map(|a| bytes_of(a).as_mut_ptr()).collect();
    let executable = Executable::new(&code.bytes);
    let mut best = f64::MAX;
    for _ in 0..20 {
        let start = std::time::Instant::now();
        for _ in 0..3_000 {
            executable.call(code.offsets[0], &args, 0, 2, std::ptr::null_mut());
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    kernel.flops as f64 * 3_000.0 / best
}

#[test]
fn tiles_that_do_not_fit_the_registers_are_right() {
    for (rows, vectors, lanes) in [(3, 4, 8), (6, 4, 8), (28, 2, 16), (14, 3, 16), (20, 1, 4)] {
        check(&samples::matmul_tile(rows, vectors, lanes, 8), false);
    }
}

#[test]
fn more_buffers_than_registers_for_their_addresses_are_right() {
    check(&samples::many_buffers(30), false);
}

/// `y[n, l] = relu(Σ_i x[n, i, l])`
fn row_sum(lanes: usize) -> Kernel {
    let mut k = Kernel::new("row_sum_relu");
    let x = k.buffer("x", DType::F32, &[16, 100, lanes], Memory::Global(Access::Read));
    let y = k.buffer("y", DType::F32, &[16, lanes], Memory::Global(Access::Write));
    let acc = k.buffer("acc", DType::F32, &[lanes], Memory::Register);
    let n = k.task("n", 16);
    let (l1, i) = (k.var("l", lanes), k.var("i", 100));
    let (l2, l3) = (k.var("l", lanes), k.var("l", lanes));
    let vector = |l, stmt| samples::over(l, LoopKind::Vector, vec![stmt]);
    let clear = vector(l1, samples::store(acc, vec![l1.into()], samples::f(0.0)));
    let sum = samples::binary(
        crate::kernel::BinOp::Add,
        samples::load(acc, vec![l2.into()]),
        samples::load(x, vec![n.into(), i.into(), l2.into()]),
    );
    let step = vector(l2, samples::store(acc, vec![l2.into()], sum));
    let relu = samples::unary(crate::kernel::UnOp::Relu, samples::load(acc, vec![l3.into()]));
    let out = vector(l3, samples::store(y, vec![n.into(), l3.into()], relu));
    k.body = vec![clear, samples::over(i, LoopKind::Serial, vec![step]), out];
    k
}

#[test]
fn a_row_sum_becomes_this_cranelift_ir() {
    let k = row_sum(4);
    check(&k, true);
    let verified = verify(&k).expect("is right");
    let options = EmitOptions { clif: true, asm: false };
    let code = compile(&[verified], &CpuTarget::host().with_lanes(4), &options).expect("compiles");
    let text = code.clif.expect("asked for");
    // The calling convention is the host's.
    insta::assert_snapshot!(text.replace("apple_aarch64", "system_v"));
}

#[test]
fn a_row_sum_becomes_this_wide_code() {
    for lanes in [8, 16] {
        let k = row_sum(lanes);
        let verified = verify(&k).expect("is right");
        let target =
            CpuTarget { architecture: "x86_64".into(), features: vec![], lanes, vector_registers: 2 * lanes };
        let options = EmitOptions { clif: false, asm: true };
        let code = compile(&[verified], &target, &options).expect("compiles");
        insta::assert_snapshot!(format!("row_sum_of_{lanes}_lanes"), code.asm.expect("asked for"));
    }
}

#[test]
fn kernels_that_round_to_tf32_are_for_gpus() {
    let mut k = Kernel::new("rounds");
    let y = k.buffer("y", DType::F32, &[1], Memory::Global(Access::Write));
    let value = Expr::Unary(UnOp::Tf32, Box::new(Expr::Const(DType::F32, 0.1)));
    k.body = vec![Stmt::Store { buffer: y, index: vec![0usize.into()], value }];
    let verified = verify(&k).expect("it is right");
    for target in targets() {
        let error = compile(std::slice::from_ref(&verified), &target, &EmitOptions::default());
        let error = error.expect_err("CPUs do not round so").to_string();
        assert!(error.contains("rounds numbers to TF32, which only GPUs do"), "{error}");
    }
}
