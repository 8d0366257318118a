//! Small programs, asked for by hand, whose results are known.

use nnc_runtime::DType::F32;

use super::{Level, X86, allocate, encode, fold};
use crate::emit::cpu::assembler::{Assembler, Kind, Place};
use crate::emit::cpu::tests::Executable;
use crate::kernel::BinOp;

type Value = <X86 as Assembler>::Value;

const ONE: Kind = Kind::Scalar(F32);

fn levels() -> Vec<(Level, usize)> {
    let widths = crate::target::CpuTarget::detect().widths();
    let level = |n: &usize| match n {
        16 => Some((Level::Avx512, 16)),
        8 => Some((Level::Avx2, 8)),
        _ => None,
    };
    widths.iter().filter_map(level).collect()
}

/// Runs a program that may read and write one array, with `first` and `end` as given.
fn run(level: Level, data: &mut [f32], range: (u64, u64), program: impl Fn(&mut X86, Value)) {
    let mut asm = X86::new(level);
    let [arguments, ..] = asm.arguments();
    let array = asm.load_index(Place { base: arguments, offset: 0, constant: true });
    program(&mut asm, array);
    let mut f = asm.f;
    fold::run(&mut f);
    let allocation = allocate::allocate(&mut f).expect("allocates");
    let code = encode::encode(&f, &allocation).expect("encodes");
    let args = [data.as_mut_ptr().cast::<u8>()];
    Executable::new(&code.bytes).call(0, &args, range.0, range.1, std::ptr::null_mut());
}

fn place(base: Value, element: i32) -> Place<Value> {
    Place { base, offset: 4 * element, constant: false }
}

#[test]
fn values_that_wait_for_their_use_are_spilled_and_come_back() {
    const COUNT: usize = 40;
    for (level, lanes) in levels() {
        let kind = Kind::Lanes(F32, lanes);
        let mut data: Vec<f32> = (0..COUNT * lanes).map(|i| i as f32).collect();
        let mut expected = data.clone();
        // Each is computed with a constant from memory, and used when all are there.
        for (i, e) in expected.iter_mut().enumerate() {
            let mirrored = (COUNT - 1 - i / lanes) * lanes + i % lanes;
            *e = 3.0f32.mul_add(mirrored as f32, (i / lanes) as f32);
        }
        run(level, &mut data, (0, 1), |asm, array| {
            let value = |asm: &mut X86, n: i32| {
                let x = asm.load(kind, place(array, n * lanes as i32));
                let (three, number) =
                    (asm.constant(kind, 3.0), asm.constant(kind, f64::from(COUNT as i32 - 1 - n)));
                asm.fma(kind, three, x, number)
            };
            let values: Vec<Value> = (0..COUNT as i32).map(|n| value(asm, n)).collect();
            for (n, v) in values.iter().rev().enumerate() {
                asm.store(kind, place(array, (n * lanes) as i32), *v);
            }
        });
        assert_eq!(data, expected);
    }
}

#[test]
fn more_indices_than_registers_are_right() {
    for (level, _) in levels() {
        let mut data = vec![0.0; 40];
        run(level, &mut data, (3, 5), |asm, array| {
            let [_, first, end, _] = asm.arguments();
            let indices: Vec<Value> = (0..40)
                .map(|n| {
                    let (a, b) = (asm.multiply_constant(first, n), asm.multiply_constant(end, n + 1));
                    asm.sub(b, a)
                })
                .collect();
            for (n, i) in indices.iter().enumerate() {
                let low = asm.narrow(*i);
                let number = asm.cast(Kind::Scalar(nnc_runtime::DType::I32), F32, low);
                asm.store(ONE, place(array, n as i32), number);
            }
        });
        let expected: Vec<f32> = (0..40).map(|n| (5 * (n + 1) - 3 * n) as f32).collect();
        assert_eq!(data, expected);
    }
}

#[test]
fn variables_change_in_loops_and_what_was_got_does_not() {
    for (level, _) in levels() {
        let mut data = vec![0.0; 4];
        // Fibonacci numbers: two variables that change places.
        run(level, &mut data, (0, 10), |asm, array| {
            let [_, first, end, _] = asm.arguments();
            let (a, b, count) = (asm.declare(ONE), asm.declare(ONE), asm.declare(Kind::Index));
            let (zero, one) = (asm.constant(ONE, 0.0), asm.constant(ONE, 1.0));
            asm.set(a, zero);
            asm.set(b, one);
            asm.set(count, first);
            let before = asm.get(b);
            asm.begin_loop();
            let (x, y, i) = (asm.get(a), asm.get(b), asm.get(count));
            let sum = asm.binary(BinOp::Add, ONE, x, y);
            asm.set(a, y);
            asm.set(b, sum);
            let next = asm.add_constant(i, 1);
            asm.set(count, next);
            asm.store(ONE, place(array, 0), before);
            asm.store(ONE, place(array, 1), x);
            asm.end_loop((), next, end);
            let (x, y) = (asm.get(a), asm.get(b));
            asm.store(ONE, place(array, 2), x);
            asm.store(ONE, place(array, 3), y);
        });
        assert_eq!(data, [1.0, 34.0, 55.0, 89.0]);
    }
}

#[test]
fn variables_set_in_one_arm_keep_their_value_over_iterations() {
    for (level, _) in levels() {
        let mut data = vec![0.0; 8];
        run(level, &mut data, (0, 8), |asm, array| {
            let [_, first, end, _] = asm.arguments();
            let (last, count, at) = (asm.declare(ONE), asm.declare(Kind::Index), asm.declare(Kind::Index));
            asm.set(count, first);
            asm.set(at, array);
            let seven = asm.constant(ONE, 7.0);
            asm.set(last, seven);
            asm.begin_loop();
            let i = asm.get(count);
            // In the iterations 2 and 5, 3 · iteration; then kept.
            let rest = asm.and_constant(i, 3);
            let other = asm.multiply_constant(rest, -1);
            let (low, high) = (asm.add_constant(rest, -2), asm.add_constant(other, 2));
            let both = asm.or(low, high);
            let branch = asm.begin_if(both);
            let low = asm.narrow(i);
            let number = asm.cast(Kind::Scalar(nnc_runtime::DType::I32), F32, low);
            asm.set(last, number);
            asm.end_if(branch);
            let (value, pointer) = (asm.get(last), asm.get(at));
            asm.store(ONE, place(pointer, 0), value);
            let moved = asm.add_constant(pointer, 4);
            asm.set(at, moved);
            let next = asm.add_constant(i, 1);
            asm.set(count, next);
            asm.end_loop((), next, end);
        });
        assert_eq!(data, [7.0, 7.0, 2.0, 2.0, 2.0, 2.0, 6.0, 6.0]);
    }
}

#[test]
fn a_load_stays_before_a_store_to_its_place() {
    for (level, lanes) in levels() {
        let kind = Kind::Lanes(F32, lanes);
        let mut data = vec![1.0; 2 * lanes];
        run(level, &mut data, (0, 1), |asm, array| {
            let x = asm.load(kind, place(array, 0));
            let two = asm.constant(kind, 2.0);
            asm.store(kind, place(array, 0), two);
            let sum = asm.binary(BinOp::Add, kind, two, x);
            asm.store(kind, place(array, lanes as i32), sum);
        });
        assert_eq!(data[..lanes], vec![2.0; lanes]);
        assert_eq!(data[lanes..], vec![3.0; lanes]);
    }
}

#[test]
fn a_tile_of_28_vectors_and_its_operands_stay_in_registers() {
    for (level, rows, vectors) in [(Level::Avx512, 14, 2), (Level::Avx512, 28, 1), (Level::Avx2, 6, 2)] {
        let lanes = if level == Level::Avx512 { 16 } else { 8 };
        let kernel = crate::emit::cpu::tests::matmul_tile(rows, vectors, lanes);
        let options = crate::emit::cpu::EmitOptions { clif: false, asm: true };
        let code = super::compile(&kernel, level, "", &options).expect("compiles");
        let text = code.asm.expect("asked for");
        assert!(!text.contains("[rsp"), "{rows}x{vectors} spills:\n{text}");
    }
}
