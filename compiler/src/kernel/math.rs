//! Expansion of exp, log, tanh, sigmoid, erf and pow into primitive f32 operations, so that the
//! kernel interpreter and every back end compute the same bits and emitted code calls nothing.
//!
//! `exp(x)` → `let t0 = …; let t1 = …; …`: shared values are named, so that the text does not
//! explode. Polynomials are those of Cephes (S. Moshier, single precision) evaluated with fused
//! multiply-adds; all functions are exact in their limits and keep NaN.
//!
//! | function | largest error found (see the tests) |
//! |---|---|
//! | exp, log | 1.5 ulp, denormal results and operands included |
//! | tanh, sigmoid | 3e-7 relative |
//! | erf | 3e-7 absolute |
//! | pow | 3 ulp |

// Coefficients are written as their sources print them.
#![allow(clippy::excessive_precision, clippy::approx_constant)]

use nnc_runtime::DType::{F32, I32};

use super::{BinOp, Expr, Kernel, Local, Stmt, UnOp};

/// The kernel without the functions past [`UnOp::FromBits`] and without [`BinOp::Pow`].
pub fn expand(kernel: &Kernel) -> Kernel {
    let mut out = kernel.clone();
    body(&mut out.body);
    out
}

fn body(stmts: &mut [Stmt]) {
    for s in stmts {
        match s {
            Stmt::Loop { body: inner, .. } | Stmt::If { body: inner, .. } => body(inner),
            Stmt::Store { value, .. } => {
                let mut taken = 0;
                value.walk(&mut |e| {
                    if let Expr::Let(name, ..) = e {
                        taken = taken.max(name.0 + 1);
                    }
                });
                expand_expr(value, &mut taken);
            }
            Stmt::Prefetch { .. } | Stmt::Joint(_) => {}
        }
    }
}

/// Expands inside out; `next` is the first free number for names.
fn expand_expr(e: &mut Expr, next: &mut u32) {
    match e {
        Expr::Const(..) | Expr::Index(_) | Expr::Load(..) | Expr::Local(_) => {}
        Expr::Unary(_, a) | Expr::Cast(_, a) | Expr::Gather { at: a, .. } => expand_expr(a, next),
        Expr::Binary(_, a, b) | Expr::Let(_, a, b) | Expr::Guarded { value: a, otherwise: b, .. } => {
            expand_expr(a, next);
            expand_expr(b, next);
        }
        Expr::Select(a, b, c) | Expr::Fma(a, b, c) => {
            expand_expr(a, next);
            expand_expr(b, next);
            expand_expr(c, next);
        }
    }
    let mut b = Builder { names: vec![], next };
    let expanded = match e {
        Expr::Unary(UnOp::Exp, x) => exp(&mut b, (**x).clone()),
        Expr::Unary(UnOp::Log, x) => log(&mut b, (**x).clone()),
        Expr::Unary(UnOp::Tanh, x) => tanh(&mut b, (**x).clone()),
        Expr::Unary(UnOp::Sigmoid, x) => sigmoid(&mut b, (**x).clone()),
        Expr::Unary(UnOp::Erf, x) => erf(&mut b, (**x).clone()),
        Expr::Binary(BinOp::Pow, x, y) => pow(&mut b, (**x).clone(), (**y).clone()),
        _ => return,
    };
    *e = b
        .names
        .into_iter()
        .rev()
        .fold(expanded, |inner, (name, value)| Expr::Let(name, Box::new(value), Box::new(inner)));
}

/// Collects the names that an expansion needs.
struct Builder<'a> {
    names: Vec<(Local, Expr)>,
    next: &'a mut u32,
}

impl Builder<'_> {
    /// Names a value that is used more than once.
    fn name(&mut self, e: Expr) -> Expr {
        let name = Local(*self.next);
        *self.next += 1;
        self.names.push((name, e));
        Expr::Local(name)
    }
}

fn f(c: f32) -> Expr {
    Expr::Const(F32, c as f64)
}

fn i(c: i32) -> Expr {
    Expr::Const(I32, c as f64)
}

fn un(op: UnOp, a: &Expr) -> Expr {
    Expr::Unary(op, Box::new(a.clone()))
}

fn bin(op: BinOp, a: &Expr, b: &Expr) -> Expr {
    Expr::Binary(op, Box::new(a.clone()), Box::new(b.clone()))
}

fn add(a: &Expr, b: &Expr) -> Expr {
    bin(BinOp::Add, a, b)
}

fn sub(a: &Expr, b: &Expr) -> Expr {
    bin(BinOp::Sub, a, b)
}

fn mul(a: &Expr, b: &Expr) -> Expr {
    bin(BinOp::Mul, a, b)
}

fn div(a: &Expr, b: &Expr) -> Expr {
    bin(BinOp::Div, a, b)
}

fn less(a: &Expr, b: &Expr) -> Expr {
    bin(BinOp::Lt, a, b)
}

fn equal(a: &Expr, b: &Expr) -> Expr {
    bin(BinOp::Eq, a, b)
}

fn select(c: Expr, a: Expr, b: Expr) -> Expr {
    Expr::Select(Box::new(c), Box::new(a), Box::new(b))
}

fn fma(a: &Expr, b: &Expr, c: &Expr) -> Expr {
    Expr::Fma(Box::new(a.clone()), Box::new(b.clone()), Box::new(c.clone()))
}

/// `x` within `low..=high`; NaN stays.
fn clamp(b: &mut Builder, x: &Expr, low: f32, high: f32) -> Expr {
    let x = b.name(select(less(x, &f(low)), f(low), x.clone()));
    b.name(select(less(&f(high), &x), f(high), x.clone()))
}

/// Horner's rule, the highest coefficient first.
fn polynomial(x: &Expr, coefficients: &[f32]) -> Expr {
    let (first, rest) = coefficients.split_first().expect("a polynomial has coefficients");
    rest.iter().fold(f(*first), |sum, &c| fma(&sum, x, &f(c)))
}

/// ln 2 in two parts; the first has 10 bits, so that its product with an exponent is exact.
const LN2_HIGH: f32 = 0.693_359_375;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// 1.5·2^23: adding it rounds to an integer, which then lies in the lowest bits.
const ROUND: f32 = 12_582_912.0;

fn exp(b: &mut Builder, x: Expr) -> Expr {
    let x = b.name(x);
    exp_of_sum(b, &x, None)
}

/// `e^(x + low)`, low tiny. With n = round(x/ln 2): `2^n · e^(x - n·ln 2)`.
fn exp_of_sum(b: &mut Builder, x: &Expr, low: Option<&Expr>) -> Expr {
    // Beyond these the result is 0 or infinite anyway.
    let x = clamp(b, x, -104.0, 89.0);
    let shifted = b.name(fma(&x, &f(std::f32::consts::LOG2_E), &f(ROUND)));
    let n_float = b.name(sub(&shifted, &f(ROUND)));
    let n = b.name(sub(&un(UnOp::Bits, &shifted), &i(ROUND.to_bits() as i32)));
    let r = fma(&n_float, &f(-LN2_LOW), &fma(&n_float, &f(-LN2_HIGH), &x));
    let r = b.name(match low {
        Some(low) => add(&r, low),
        None => r,
    });
    let p =
        polynomial(&r, &[1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    let p = add(&fma(&mul(&r, &r), &p, &r), &f(1.0));
    // 2^n in two factors, for n = 128 and for denormal results.
    let half = b.name(bin(BinOp::Shr, &n, &i(1)));
    let power = |n: &Expr| un(UnOp::FromBits, &bin(BinOp::Shl, &add(n, &i(127)), &i(23)));
    mul(&mul(&p, &power(&half)), &power(&sub(&n, &half)))
}

/// Writes `x = 2^e · m` with m in `[sqrt(1/2), sqrt(2))`, for positive finite x: (e as f32, m - 1).
fn split_exponent(b: &mut Builder, x: &Expr) -> (Expr, Expr) {
    const SQRT_HALF: i32 = 0x3f35_04f3;
    let tiny = b.name(less(x, &f(f32::MIN_POSITIVE)));
    let normal = select(tiny.clone(), mul(x, &f(8_388_608.0)), x.clone());
    let bits = b.name(sub(&un(UnOp::Bits, &normal), &i(SQRT_HALF)));
    let e = Expr::Cast(F32, Box::new(bin(BinOp::Shr, &bits, &i(23))));
    let e = b.name(add(&e, &select(tiny, f(-23.0), f(0.0))));
    let m = add(&bin(BinOp::And, &bits, &i(0x007f_ffff)), &i(SQRT_HALF));
    let m = b.name(sub(&un(UnOp::FromBits, &m), &f(1.0)));
    (e, m)
}

fn log(b: &mut Builder, x: Expr) -> Expr {
    let x = b.name(x);
    let (e, m) = split_exponent(b, &x);
    let z = b.name(mul(&m, &m));
    let p = polynomial(
        &m,
        &[
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333_1e-1,
        ],
    );
    let p = fma(&e, &f(LN2_LOW), &mul(&mul(&p, &m), &z));
    let p = add(&m, &fma(&z, &f(-0.5), &p));
    let p = fma(&e, &f(LN2_HIGH), &p);
    let infinite = f(f32::INFINITY);
    let p = select(equal(&x, &infinite), infinite, p);
    let rest = select(equal(&x, &f(0.0)), f(f32::NEG_INFINITY), f(f32::NAN));
    select(less(&f(0.0), &x), p, rest)
}

/// `magnitude` (not negative) with the sign of `x`.
fn with_sign_of(x: &Expr, magnitude: &Expr) -> Expr {
    let sign = bin(BinOp::And, &un(UnOp::Bits, x), &i(i32::MIN));
    un(UnOp::FromBits, &bin(BinOp::Or, &un(UnOp::Bits, magnitude), &sign))
}

/// Near zero an odd polynomial, else `1 - 2 / (e^2|x| + 1)`.
fn tanh(b: &mut Builder, x: Expr) -> Expr {
    let x = b.name(x);
    let a = b.name(un(UnOp::Abs, &x));
    let z = b.name(mul(&x, &x));
    let p =
        polynomial(&z, &[-5.704_988_7e-3, 2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1]);
    let near = fma(&mul(&p, &z), &x, &x);
    let doubled = b.name(add(&a, &a));
    let e = exp_of_sum(b, &doubled, None);
    let far = sub(&f(1.0), &div(&f(2.0), &add(&e, &f(1.0))));
    // NaN goes the far way.
    select(less(&a, &f(0.625)), near, with_sign_of(&x, &far))
}

/// `1 / (1 + e^-|x|)`, times `e^-|x|` for negative x: accurate in both tails.
fn sigmoid(b: &mut Builder, x: Expr) -> Expr {
    let x = b.name(x);
    let a = b.name(un(UnOp::Neg, &un(UnOp::Abs, &x)));
    let e = exp_of_sum(b, &a, None);
    let e = b.name(e);
    let upper = b.name(div(&f(1.0), &add(&e, &f(1.0))));
    select(less(&x, &f(0.0)), mul(&e, &upper), upper)
}

/// Below 1 Cephes' odd polynomial, else Abramowitz and Stegun 7.1.26.
fn erf(b: &mut Builder, x: Expr) -> Expr {
    let x = b.name(x);
    let a = b.name(un(UnOp::Abs, &x));
    let z = b.name(mul(&x, &x));
    let near = polynomial(
        &z,
        &[
            7.853_861_4e-5,
            -8.010_194e-4,
            5.188_327_7e-3,
            -2.685_381_2e-2,
            1.128_358_5e-1,
            -3.761_262_7e-1,
            1.128_379_2,
        ],
    );
    let t = b.name(div(&f(1.0), &fma(&a, &f(0.327_591_1), &f(1.0))));
    let p = polynomial(&t, &[1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6]);
    let minus = b.name(un(UnOp::Neg, &z));
    let e = exp_of_sum(b, &minus, None);
    let far = sub(&f(1.0), &mul(&mul(&p, &t), &e));
    select(less(&a, &f(1.0)), mul(&near, &x), with_sign_of(&x, &far))
}

/// `x^y`. A few constant exponents are products; the rest is `e^(y·log|x|)`, the logarithm in two
/// floats, with C's special cases: 1 for `y = 0` and `x = 1`, NaN for negative x unless y is an integer.
fn pow(b: &mut Builder, x: Expr, y: Expr) -> Expr {
    let x = b.name(x);
    if let Expr::Const(_, c) = y {
        match c {
            1.0 => return x,
            2.0 => return mul(&x, &x),
            3.0 => return mul(&mul(&x, &x), &x),
            -1.0 => return div(&f(1.0), &x),
            _ => {}
        }
    }
    let y = b.name(y);
    let a = b.name(un(UnOp::Abs, &x));
    let (high, low) = log_in_two(b, &a);
    let p = b.name(mul(&y, &high));
    let clamped = clamp(b, &p, -110.0, 90.0);
    let rest = fma(&y, &low, &fma(&y, &high, &un(UnOp::Neg, &p)));
    let rest = b.name(select(equal(&p, &clamped), rest, f(0.0)));
    let power = exp_of_sum(b, &clamped, Some(&rest));
    magnitude_and_sign(b, &x, &y, &a, power)
}

/// log(a) as the sum of two floats: `e·ln 2 + 2·atanh(s)`, s = m / (2 + m) in two floats.
fn log_in_two(b: &mut Builder, a: &Expr) -> (Expr, Expr) {
    let (e, m) = split_exponent(b, a);
    let d = b.name(add(&m, &f(2.0)));
    let d_low = sub(&m, &sub(&d, &f(2.0)));
    let s = b.name(div(&m, &d));
    let minus_s = b.name(un(UnOp::Neg, &s));
    let s_low = div(&fma(&minus_s, &d_low, &fma(&minus_s, &d, &m)), &d);
    let z = b.name(mul(&s, &s));
    let p = polynomial(&z, &[2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0]);
    let tail = fma(&s_low, &f(2.0), &mul(&mul(&p, &z), &s));
    let whole = b.name(mul(&e, &f(LN2_HIGH)));
    let part = b.name(add(&s, &s));
    // Knuth's exact sum: high + error = whole + part.
    let high = b.name(add(&whole, &part));
    let other = b.name(sub(&high, &whole));
    let error = add(&sub(&whole, &sub(&high, &other)), &sub(&part, &other));
    let low = b.name(add(&error, &fma(&e, &f(LN2_LOW), &tail)));
    let sum = b.name(add(&high, &low));
    let left = b.name(sub(&low, &sub(&sum, &high)));
    (sum, left)
}

/// Puts the special cases of pow around `power` = |x|^y.
fn magnitude_and_sign(b: &mut Builder, x: &Expr, y: &Expr, a: &Expr, power: Expr) -> Expr {
    let (zero, one, infinite) = (f(0.0), f(1.0), f(f32::INFINITY));
    let growing = b.name(less(&zero, y));
    let of_zero = select(growing.clone(), zero.clone(), infinite.clone());
    let of_infinite = select(growing, infinite.clone(), zero.clone());
    let y_nan = b.name(bin(BinOp::Ne, y, y));
    let m = select(equal(a, &infinite), of_infinite, power);
    let m = select(equal(a, &zero), of_zero, m);
    let m = select(equal(a, &one), one.clone(), m);
    let m = b.name(select(y_nan, y.clone(), m));
    let half = b.name(mul(y, &f(0.5)));
    let odd = bin(BinOp::Ne, &half, &un(UnOp::Floor, &half));
    let integer = b.name(equal(y, &un(UnOp::Floor, y)));
    let odd = bin(BinOp::And, &odd, &integer);
    let negative = b.name(less(&un(UnOp::Bits, x), &i(0)));
    let flip = bin(BinOp::And, &negative, &odd);
    let signed = select(flip, un(UnOp::Neg, &m), m);
    // A finite negative base needs an integer exponent.
    let real = bin(BinOp::And, &less(x, &zero), &less(&f(f32::NEG_INFINITY), x));
    let undefined = bin(BinOp::And, &real, &un(UnOp::Not, &integer));
    let result = select(undefined, f(f32::NAN), signed);
    let result = select(bin(BinOp::Ne, x, x), x.clone(), result);
    let always_one = bin(BinOp::Or, &equal(y, &zero), &equal(x, &one));
    select(always_one, one, result)
}

#[cfg(test)]
mod tests;
