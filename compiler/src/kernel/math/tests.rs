//! Expansions against libm's f64 functions, over dense ranges, in the kernel interpreter.

use nnc_runtime::DType::F32;
use nnc_runtime::program::Access::{Read, Write};

use crate::kernel::interpret::{Block, Order, run_kernel};
use crate::kernel::{BinOp, Expr, Index, Kernel, Memory, Stmt, UnOp};

fn kernel(n: usize, value: impl Fn(Expr, Expr) -> Expr) -> Kernel {
    let mut k = Kernel::new("k");
    let x = k.buffer("x", F32, &[n], Memory::Global(Read));
    let y = k.buffer("y", F32, &[n], Memory::Global(Read));
    let z = k.buffer("z", F32, &[n], Memory::Global(Write));
    let i = vec![Index::from(k.task("i", n))];
    let value = value(Expr::Load(x, i.clone()), Expr::Load(y, i.clone()));
    k.body = vec![Stmt::Store { buffer: z, index: i, value }];
    crate::kernel::verify::verify(&super::expand(&k)).expect("expansions are well typed");
    k
}

fn run(value: impl Fn(Expr, Expr) -> Expr, x: &[f32], y: &[f32]) -> Vec<f32> {
    let bits = |a: &[f32]| Block::new(a.iter().map(|v| v.to_bits()).collect());
    let mut blocks = [bits(x), bits(y), Block::undefined(x.len())];
    let k = kernel(x.len(), value);
    run_kernel(&k, &mut blocks, &[(0, 0), (1, 0), (2, 0)], Order::Forward).expect("runs");
    blocks[2].cells.iter().map(|c| f32::from_bits(*c)).collect()
}

fn unary(op: UnOp, x: &[f32]) -> Vec<f32> {
    run(|x, _| Expr::Unary(op, Box::new(x)), x, x)
}

fn range(low: f32, high: f32, n: usize) -> Vec<f32> {
    (0..n).map(|i| low + (high - low) * i as f32 / (n - 1) as f32).collect()
}

/// Floats of all magnitudes in an interval of bit patterns.
fn patterns(low: u32, high: u32, n: u32) -> Vec<f32> {
    (0..n).map(|i| f32::from_bits(low + ((high - low) as u64 * i as u64 / n as u64) as u32)).collect()
}

/// The distance in units in the last place of the exact value.
fn ulps(found: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    if rounded.is_infinite() || found.is_infinite() {
        return if rounded == found { 0.0 } else { f64::INFINITY };
    }
    let next = f32::from_bits(rounded.abs().to_bits() + 1);
    let ulp = next as f64 - rounded.abs() as f64;
    (found as f64 - exact).abs() / ulp
}

fn worst(x: &[f32], found: &[f32], error: impl Fn(f64, f32) -> f64) -> f64 {
    let errors = x.iter().zip(found).map(|(&x, &y)| error(x as f64, y));
    errors.fold(0.0, |worst, e| if e > worst || e.is_nan() { e } else { worst })
}

#[test]
fn exp_is_within_ulps() {
    let x =
        [range(-110.0, 95.0, 100_001), range(-1.0, 1.0, 50_001), patterns(1, 0x3f80_0000, 20_000)].concat();
    let e = worst(&x, &unary(UnOp::Exp, &x), |x, y| ulps(y, x.exp()));
    assert!(e < 1.5, "{e} ulp");
    assert_eq!(
        unary(UnOp::Exp, &[f32::INFINITY, f32::NEG_INFINITY, 0.0, 1000.0]),
        [f32::INFINITY, 0.0, 1.0, f32::INFINITY]
    );
    assert!(unary(UnOp::Exp, &[f32::NAN])[0].is_nan());
}

#[test]
fn log_is_within_ulps() {
    let x = [patterns(1, 0x7f7f_ffff, 100_000), range(0.5, 2.0, 100_001)].concat();
    let e = worst(&x, &unary(UnOp::Log, &x), |x, y| ulps(y, x.ln()));
    assert!(e < 1.5, "{e} ulp");
    let limits = unary(UnOp::Log, &[0.0, -0.0, f32::INFINITY, 1.0]);
    assert_eq!(limits, [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY, 0.0]);
    assert!(unary(UnOp::Log, &[f32::NAN, -1.0, f32::NEG_INFINITY]).iter().all(|y| y.is_nan()));
}

fn symmetric() -> Vec<f32> {
    let mut x = [range(-12.0, 12.0, 100_001), patterns(1, 0x42c8_0000, 50_000)].concat();
    x.extend(x.clone().iter().map(|x| -x));
    x
}

#[test]
fn tanh_and_sigmoid_are_relatively_exact() {
    let x = symmetric();
    let relative = |exact: f64, y: f32| (y as f64 - exact).abs() / exact.abs().max(f32::MIN_POSITIVE as f64);
    let e = worst(&x, &unary(UnOp::Tanh, &x), |x, y| relative(x.tanh(), y));
    assert!(e < 3e-7, "{e}");
    let e = worst(&x, &unary(UnOp::Sigmoid, &x), |x, y| relative(1.0 / (1.0 + (-x).exp()), y));
    assert!(e < 3e-7, "{e}");
    let ends = [f32::INFINITY, f32::NEG_INFINITY];
    assert_eq!(unary(UnOp::Tanh, &ends), [1.0, -1.0]);
    assert_eq!(unary(UnOp::Sigmoid, &ends), [1.0, 0.0]);
    assert!(unary(UnOp::Tanh, &[f32::NAN])[0].is_nan() && unary(UnOp::Sigmoid, &[f32::NAN])[0].is_nan());
}

#[test]
fn erf_is_absolutely_exact() {
    let x = symmetric();
    let e = worst(&x, &unary(UnOp::Erf, &x), |x, y| (y as f64 - libm::erf(x)).abs());
    assert!(e < 4e-7, "{e}");
    assert_eq!(unary(UnOp::Erf, &[f32::INFINITY, f32::NEG_INFINITY, 0.0]), [1.0, -1.0, 0.0]);
    assert!(unary(UnOp::Erf, &[f32::NAN])[0].is_nan());
}

fn pow(x: &[f32], y: &[f32]) -> Vec<f32> {
    run(|x, y| Expr::Binary(BinOp::Pow, Box::new(x), Box::new(y)), x, y)
}

#[test]
fn pow_is_within_ulps() {
    let bases = [patterns(1, 0x7f7f_ffff, 300), range(0.3, 3.0, 300)].concat();
    let exponents = [range(-3.0, 3.0, 61), range(-60.0, 60.0, 41), vec![0.5, 0.75, 1e-3]].concat();
    let (mut x, mut y) = (vec![], vec![]);
    for &b in &bases {
        for &e in &exponents {
            x.push(b);
            y.push(e);
        }
    }
    let found = pow(&x, &y);
    let errors = (0..x.len()).map(|i| ulps(found[i], (x[i] as f64).powf(y[i] as f64)));
    let worst = errors.fold(0.0, f64::max);
    assert!(worst < 3.0, "{worst} ulp");
}

#[test]
fn pow_has_the_special_cases_of_c() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let special = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, 2.5, -2.5, inf, -inf, nan];
    let (mut x, mut y) = (vec![], vec![]);
    for &b in &special {
        for &e in &special {
            x.push(b);
            y.push(e);
        }
    }
    for ((found, b), e) in pow(&x, &y).into_iter().zip(&x).zip(&y) {
        let expected = (*b as f64).powf(*e as f64) as f32;
        let same = found == expected || found.is_nan() && expected.is_nan();
        assert!(
            same || (found - expected).abs() <= expected.abs() * 4e-7,
            "{b}^{e} = {found}, not {expected}"
        );
    }
}
