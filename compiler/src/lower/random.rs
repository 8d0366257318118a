//! Random numbers by counter: a block of Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel
//! random numbers: as easy as 1, 2, 3", 2011) gives four elements.

use std::f64::consts::TAU;

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::Place;
use super::builder::{Builder, Cell, Scope};
use super::elementwise::{add, div, f32, fma, mul, sub, unary};
use crate::graph::op::random::DRAW;
use crate::graph::op::{Distribution, Philox};
use crate::graph::{Layout, NodeId};
use crate::kernel::module::Arg;
use crate::kernel::{BinOp, BufferId, Expr, Guard, Index, Kernel, UnOp};

const ROUNDS: usize = 10;

/// Multipliers of the first and the third word.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];

/// What the key grows by every round.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Blocks of a task: some twenty microseconds of work.
const TASK_BLOCKS: usize = 512;

/// A draw: a kernel of its own.
pub(super) struct Random<'a> {
    pub name: &'a str,
    pub draw: &'a Philox,
    pub node: NodeId,
    pub out: &'a Place,
    pub lanes: usize,
}

impl Random<'_> {
    /// The kernel, a block in each lane; `None` if the result is not dense and row-major.
    pub fn kernel(&self, scope: &Scope) -> Option<(Kernel, Vec<Arg>)> {
        if self.out.layout != Layout::Plain || !self.out.is_dense() {
            return None;
        }
        let total = self.out.elements();
        let flat = self.out.reshaped(&[total])?;
        let mut b = Builder::new(self.name, scope);
        let out = b.bind(&flat, Access::Write, "out");
        let vectors = total.div_ceil(4 * self.lanes);
        let each = TASK_BLOCKS.div_ceil(self.lanes).min(vectors);
        let task = b.task("t", vectors.div_ceil(each));
        let values = b.scratch("values", &[4, self.lanes]);
        b.serial("i", each, |b, i| {
            let vector = task * each as i64 + i;
            let inside = Guard::between(&vector, 0, vectors as i64, b.extents());
            b.when(inside, |b| {
                b.with_lanes(self.lanes, |b, lane| {
                    let block = vector.clone() * self.lanes as i64 + lane.clone();
                    for (word, value) in self.elements_of(b, scope, &block).into_iter().enumerate() {
                        b.store(values, vec![Index::from(word), lane.clone()], value);
                    }
                });
                self.spread(b, (values, out), &vector, total);
            });
        });
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed).then_some((kernel, args))
    }

    /// Stores a vector of blocks: four elements of each, one block after the other.
    fn spread(&self, b: &mut Builder, (values, out): (BufferId, BufferId), vector: &Index, total: usize) {
        b.serial("lane", self.lanes, |b, lane| {
            for word in 0..4usize {
                let at = (vector.clone() * self.lanes as i64 + lane.clone()) * 4 + word;
                let inside = Guard::between(&at, 0, total as i64, b.extents());
                let value = Expr::Load(values, vec![Index::from(word), lane.clone()]);
                b.when(inside, |b| b.store(out, vec![at], value));
            }
        });
    }

    /// The four elements of a block.
    pub(super) fn elements_of(&self, b: &mut Builder, scope: &Scope, block: &Index) -> Vec<Expr> {
        let operands = scope.graph.operands(self.node);
        let key = [0, 1].map(|k: usize| b.value(operands[0], &[Index::from(k)]));
        let step = b.value(operands[1], &[]);
        let words = self.block(b, key, step, block);
        self.elements(b, words)
    }

    /// The four words of a block.
    fn block(&self, b: &mut Builder, key: [Expr; 2], step: Expr, block: &Index) -> [Expr; 4] {
        let start = [Expr::Index(block.clone()), step, word(self.draw.stream), word(DRAW)];
        let counter: [Cell; 4] = start.map(|e| cell(b, "counter", e));
        let key: [Cell; 2] = key.map(|e| cell(b, "key", e));
        b.serial("round", ROUNDS, |b, _| {
            let [(high0, low0), (high1, low1)] = [0, 1].map(|i| {
                let (c, m) = (counter[2 * i].get(), word(MULTIPLIERS[i]));
                let high = integer(BinOp::MulHigh, c.clone(), m.clone());
                (b.named("high", DType::I32, high), b.named("low", DType::I32, mul(c, m)))
            });
            let xor3 = |a: Expr, c: Expr, k: Expr| integer(BinOp::Xor, integer(BinOp::Xor, a, c), k);
            let first = xor3(high1, counter[1].get(), key[0].get());
            let third = xor3(high0, counter[3].get(), key[1].get());
            for (cell, value) in counter.iter().zip([first, low1, third, low0]) {
                b.assign(cell, value);
            }
            for (k, &grow) in key.iter().zip(&WEYL) {
                b.assign(k, add(k.get(), word(grow)));
            }
        });
        counter.map(|c| c.get())
    }

    /// The elements that a block gives.
    fn elements(&self, b: &mut Builder, words: [Expr; 4]) -> Vec<Expr> {
        match self.draw.from {
            Distribution::Uniform { low, high } => {
                words.map(|w| fma(unit(w), f32(high - low), f32(low))).to_vec()
            }
            Distribution::Normal { mean, std } => words
                .chunks(2)
                .flat_map(|pair| {
                    let above_zero = add(unit(pair[0].clone()), f32(1.0 / f64::from(1 << 24)));
                    let radius = unary(UnOp::Sqrt, mul(f32(-2.0), unary(UnOp::Log, above_zero)));
                    let radius = b.named("radius", DType::F32, mul(radius, f32(std)));
                    cos_sin(b, unit(pair[1].clone())).map(|turn| fma(radius.clone(), turn, f32(mean)))
                })
                .collect(),
        }
    }
}

/// The upper 24 bits of a word as a number in `[0, 1)`.
fn unit(w: Expr) -> Expr {
    let bits = integer(BinOp::Shr, w, Expr::Const(DType::I32, 8.0));
    let bits = integer(BinOp::And, bits, Expr::Const(DType::I32, f64::from((1 << 24) - 1)));
    mul(Expr::Cast(DType::F32, Box::new(bits)), f32(1.0 / f64::from(1 << 24)))
}

/// Cosine and sine of a turn in `[0, 1)`: the quarter turn that is nearest is taken away exactly,
/// the rest, at most an eighth, goes through the Taylor series, whose next terms are below 2^-25.
fn cos_sin(b: &mut Builder, turn: Expr) -> [Expr; 2] {
    let turn = b.named("turn", DType::F32, turn);
    let quarters = unary(UnOp::Floor, fma(turn.clone(), f32(4.0), f32(0.5)));
    let quarters = b.named("quarters", DType::F32, quarters);
    let rest = mul(f32(TAU), sub(turn, div(quarters.clone(), f32(4.0))));
    let x = b.named("rest", DType::F32, rest);
    let square = b.named("square", DType::F32, mul(x.clone(), x.clone()));
    // Terms of alternating signs, from 1 on: `1 - s/first + s²/(first·second) - …`.
    let series = |divisors: [f64; 4]| {
        divisors.iter().rev().fold(f32(1.0), |sum, d| fma(mul(square.clone(), f32(-1.0 / d)), sum, f32(1.0)))
    };
    let cos = b.named("cos", DType::F32, series([2.0, 12.0, 30.0, 56.0]));
    let sin = b.named("sin", DType::F32, mul(x, series([6.0, 20.0, 42.0, 72.0])));
    let is = |q: f64| Expr::Binary(BinOp::Eq, Box::new(quarters.clone()), Box::new(f32(q)));
    let pick = |q: f64, a: Expr, rest: Expr| Expr::Select(Box::new(is(q)), Box::new(a), Box::new(rest));
    let negative = |e: &Expr| unary(UnOp::Neg, e.clone());
    [
        pick(1.0, negative(&sin), pick(2.0, negative(&cos), pick(3.0, sin.clone(), cos.clone()))),
        pick(1.0, cos.clone(), pick(2.0, negative(&sin), pick(3.0, negative(&cos), sin))),
    ]
}

fn cell(b: &mut Builder, name: &str, value: Expr) -> Cell {
    let cell = b.cell(name, DType::I32);
    b.assign(&cell, value);
    cell
}

fn word(w: u32) -> Expr {
    Expr::Const(DType::I32, f64::from(w as i32))
}

fn integer(op: BinOp, a: Expr, b: Expr) -> Expr {
    Expr::Binary(op, Box::new(a), Box::new(b))
}
