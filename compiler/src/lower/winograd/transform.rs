//! The one-dimensional transforms of Winograd's convolution, as statements on vectors.
//!
//! F(m, 3) computes m results of a filter of three from m + 2 inputs with m + 2 products:
//! `y = Aᵀ [(G g) ⊙ (Bᵀ d)]`; applied along rows and columns it gives F(m×m, 3×3) (Lavin and Gray,
//! "Fast algorithms for convolutional neural networks", 2015). The matrices evaluate and interpolate polynomials at m + 1
//! points and at infinity. The points here are 0 and pairs ±p, so that a pair shares its sums and
//! differences:
//!
//! | | points | largest error of 512 channels, relative to the largest result |
//! |---|---|---|
//! | F(2, 3) | 0, ±1 | 7.5e-7 (direct: 1.8e-6) |
//! | F(4, 3) | 0, ±1, ±2 as in the paper | 1.5e-5 |
//! | F(4, 3) | 0, ±1, ±1/2 | 1.2e-5 |
//! | F(4, 3) | 0, ±√1/2, ±√2 | 3.1e-6 |
//! | F(4, 3) | **0, ±3/4, ±3/2** | 3.2e-6, and all elements of A and B are exact in `f32` |

use nnc_runtime::DType;

use crate::kernel::{BinOp, BufferId, Expr, Index, Memory};

use super::super::builder::Builder;
use super::super::elementwise::{add, f32, fma, mul, sub};

/// How many results a transform gives at a time, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transform {
    /// F(2×2, 3×3): 16 products for 4 results of 9.
    F2,
    /// F(4×4, 3×3): 36 products for 16 results of 9.
    F4,
}

/// The points ±p beside 0 and infinity.
const POINTS: [&[f64]; 2] = [&[1.0], &[0.75, 1.5]];

/// Registers of one-dimensional transforms: what goes in, and sums on the way.
#[derive(Clone, Copy)]
pub(super) struct Registers {
    inputs: BufferId,
    sums: BufferId,
}

/// A vector that is read: by its number and lane.
pub(super) type Source<'s> = dyn Fn(usize, &Index) -> Expr + 's;

/// A vector that is written: takes its number, lane and value.
pub(super) type Sink<'s> = dyn FnMut(&mut Builder, usize, &Index, Expr) + 's;

impl Transform {
    /// Results along a side.
    pub fn outputs(self) -> usize {
        match self {
            Transform::F2 => 2,
            Transform::F4 => 4,
        }
    }

    /// Inputs along a side.
    pub fn inputs(self) -> usize {
        self.outputs() + 2
    }

    /// Products for one channel of a tile.
    pub fn products(self) -> usize {
        self.inputs() * self.inputs()
    }

    fn points(self) -> &'static [f64] {
        POINTS[self as usize]
    }

    /// Operations of Bᵀ on a vector, and of Aᵀ: additions and multiply-adds.
    pub fn operations(self) -> [usize; 2] {
        match self {
            Transform::F2 => [4, 5],
            Transform::F4 => [12, 12],
        }
    }

    /// Registers for the transforms of a kernel.
    pub(super) fn registers(self, b: &mut Builder, lanes: usize) -> Registers {
        let inputs = b.kernel.buffer("d", DType::F32, &[self.inputs(), lanes], Memory::Register);
        let sums = b.kernel.buffer("e", DType::F32, &[4, lanes], Memory::Register);
        Registers { inputs, sums }
    }

    /// Bᵀ d. With M(x) = x Π (x² - p²), row 0 has the coefficients of M(x) / x, those of the points ±p
    /// have M(x) / (x ∓ p), the last has M(x).
    pub(super) fn input(self, b: &mut Builder, lanes: usize, r: Registers, x: &Source, y: &mut Sink) {
        let last = self.inputs() - 1;
        b.vector(lanes, |b, lane| {
            for i in 0..=last {
                b.store(r.inputs, at(i, &lane), x(i, &lane));
            }
            let d = |i: usize| Expr::Load(r.inputs, at(i, &lane));
            let e = |i: usize| Expr::Load(r.sums, at(i, &lane));
            match *self.points() {
                [p] => {
                    let pp = f32(-p * p);
                    y(b, 0, &lane, scaled(pp.clone(), d(0), d(2)));
                    y(b, 1, &lane, scaled(f32(p), d(1), d(2)));
                    y(b, 2, &lane, scaled(f32(-p), d(1), d(2)));
                    y(b, 3, &lane, scaled(pp, d(1), d(3)));
                }
                [p, q] => {
                    let (pp, qq) = (p * p, q * q);
                    for (i, k) in [(0, 0), (5, 1)] {
                        let outer = fma(f32(pp * qq), d(k), d(k + 4));
                        y(b, i, &lane, fma(f32(-(pp + qq)), d(k + 2), outer));
                    }
                    for (i, p, other) in [(1, p, qq), (3, q, pp)] {
                        b.store(r.sums, at(0, &lane), fma(f32(-other), d(2), d(4)));
                        b.store(r.sums, at(1, &lane), fma(f32(-other), d(1), d(3)));
                        y(b, i, &lane, scaled(f32(p), e(1), e(0)));
                        y(b, i + 1, &lane, scaled(f32(-p), e(1), e(0)));
                    }
                }
                _ => unreachable!("one or two pairs of points"),
            }
        });
    }

    /// Aᵀ m: row i has the i-th powers of the points; infinity adds to the last row.
    pub(super) fn output(self, b: &mut Builder, lanes: usize, r: Registers, m: &Source, y: &mut Sink) {
        let last = self.inputs() - 1;
        b.vector(lanes, |b, lane| {
            for i in 0..=last {
                b.store(r.inputs, at(i, &lane), m(i, &lane));
            }
            let d = |i: usize| Expr::Load(r.inputs, at(i, &lane));
            let e = |i: usize| Expr::Load(r.sums, at(i, &lane));
            for (k, _) in self.points().iter().enumerate() {
                b.store(r.sums, at(2 * k, &lane), add(d(2 * k + 1), d(2 * k + 2)));
                b.store(r.sums, at(2 * k + 1, &lane), sub(d(2 * k + 1), d(2 * k + 2)));
            }
            for i in 0..self.outputs() {
                let mut sum = None;
                if i == 0 {
                    sum = Some(d(0));
                }
                if i + 1 == self.outputs() {
                    sum = Some(d(last));
                }
                for (k, p) in self.points().iter().enumerate() {
                    let (factor, term) = (p.powi(i as i32), e(2 * k + i % 2));
                    sum = Some(match sum {
                        Some(sum) => scaled(f32(factor), term, sum),
                        None if factor == 1.0 => term,
                        None => mul(f32(factor), term),
                    });
                }
                let sum = sum.unwrap_or_else(|| f32(0.0));
                y(b, i, &lane, sum);
            }
        });
    }

    /// G g: row p has 1, p, p² over Π (p - q) for all other points q; infinity takes the last.
    pub(super) fn weights(self, b: &mut Builder, lanes: usize, r: Registers, g: &Source, y: &mut Sink) {
        b.vector(lanes, |b, lane| {
            for i in 0..3 {
                b.store(r.inputs, at(i, &lane), g(i, &lane));
            }
            let d = |i: usize| Expr::Load(r.inputs, at(i, &lane));
            let e = |i: usize| Expr::Load(r.sums, at(i, &lane));
            let points = self.points();
            let others = |p: f64| points.iter().filter(|&&q| q != p).map(|q| p * p - q * q).product::<f64>();
            let zero: f64 = points.iter().map(|p| -p * p).product();
            y(b, 0, &lane, mul(f32(1.0 / zero), d(0)));
            for (k, &p) in points.iter().enumerate() {
                let n = 2.0 * p * p * others(p);
                b.store(r.sums, at(0, &lane), fma(f32(p * p / n), d(2), mul(f32(1.0 / n), d(0))));
                b.store(r.sums, at(1, &lane), mul(f32(p / n), d(1)));
                y(b, 2 * k + 1, &lane, add(e(0), e(1)));
                y(b, 2 * k + 2, &lane, sub(e(0), e(1)));
            }
            y(b, self.inputs() - 1, &lane, d(2));
        });
    }
}

/// `factor·x + y`, without the multiplication where it is by one.
fn scaled(factor: Expr, x: Expr, y: Expr) -> Expr {
    match factor {
        Expr::Const(_, 1.0) => add(x, y),
        Expr::Const(_, -1.0) => Expr::Binary(BinOp::Sub, Box::new(y), Box::new(x)),
        factor => fma(factor, x, y),
    }
}

fn at(i: usize, lane: &Index) -> Vec<Index> {
    vec![Index::from(i), lane.clone()]
}
