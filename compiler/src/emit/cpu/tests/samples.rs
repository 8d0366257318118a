//! Small kernels as the lowering builds them.

use nnc_runtime::DType::{Bool, F32, I32};
use nnc_runtime::program::Access::{Read, ReadWrite, Write};

use crate::kernel::LoopKind::{Serial, Unroll, Vector};
use crate::kernel::{BinOp, BufferId, Cache, Expr, Guard, Index, Kernel, LoopKind, Memory, Stmt, UnOp, Var};

pub fn over(var: Var, kind: LoopKind, body: Vec<Stmt>) -> Stmt {
    Stmt::Loop { var, kind, body }
}

pub fn store(buffer: BufferId, index: Vec<Index>, value: Expr) -> Stmt {
    Stmt::Store { buffer, index, value }
}

pub fn load(buffer: BufferId, index: Vec<Index>) -> Expr {
    Expr::Load(buffer, index)
}

pub fn f(c: f64) -> Expr {
    Expr::Const(F32, c)
}

pub fn unary(op: UnOp, a: Expr) -> Expr {
    Expr::Unary(op, Box::new(a))
}

pub fn binary(op: BinOp, a: Expr, b: Expr) -> Expr {
    Expr::Binary(op, Box::new(a), Box::new(b))
}

pub fn fma(a: Expr, b: Expr, c: Expr) -> Expr {
    Expr::Fma(Box::new(a), Box::new(b), Box::new(c))
}

fn i(v: Var) -> Index {
    v.into()
}

fn c(n: i64) -> Index {
    n.into()
}

/// The register tile of convolution and matrix product: rows, vectors of so many lanes, depth unrolled by 4; weights
/// and the broadcast input held in registers, as the lowering writes it.
/// `y[r, j, l] = relu(Σ_k x[r, k] · w[k, j, l])`
pub fn matmul_tile(rows: usize, vectors: usize, lanes: usize, depth: usize) -> Kernel {
    let mut k = Kernel::new("matmul_tile");
    let x = k.buffer("x", F32, &[2 * rows, depth], Memory::Global(Read));
    let w = k.buffer("w", F32, &[depth, vectors, lanes], Memory::Global(Read));
    let y = k.buffer("y", F32, &[2 * rows, vectors, lanes], Memory::Global(Write));
    let acc = k.buffer("acc", F32, &[rows, vectors, lanes], Memory::Register);
    let t = k.task("t", 2);
    let nest = |k: &mut Kernel, make: &dyn Fn(Var, Var, Var) -> Stmt| {
        let (p, j, l) = (k.var("p", rows), k.var("j", vectors), k.var("l", lanes));
        over(p, Unroll, vec![over(j, Unroll, vec![over(l, Vector, vec![make(p, j, l)])])])
    };
    let clear = nest(&mut k, &|p, j, l| store(acc, vec![i(p), i(j), i(l)], f(0.0)));
    let (outer, inner) = (k.var("k", depth / 4), k.var("u", 4));
    let at = i(outer) * 4 + i(inner);
    let weights = k.buffer("weights", F32, &[vectors, lanes], Memory::Register);
    let row = k.buffer("row", F32, &[lanes], Memory::Register);
    let (j, l) = (k.var("j", vectors), k.var("l", lanes));
    let value = load(w, vec![at.clone(), i(j), i(l)]);
    let fetch = over(l, Vector, vec![store(weights, vec![i(j), i(l)], value)]);
    let fetch = over(j, Unroll, vec![fetch]);
    let (p, j, l, l2) = (k.var("p", rows), k.var("j", vectors), k.var("l", lanes), k.var("l", lanes));
    let value = load(x, vec![i(t) * rows as i64 + i(p), at]);
    let spread = over(l, Vector, vec![store(row, vec![i(l)], value)]);
    let place = vec![i(p), i(j), i(l2)];
    let (a, b) = (load(row, vec![i(l2)]), load(weights, vec![i(j), i(l2)]));
    let value = fma(a, b, load(acc, place.clone()));
    let add = over(j, Unroll, vec![over(l2, Vector, vec![store(acc, place, value)])]);
    let step = over(p, Unroll, vec![spread, add]);
    let finish = nest(&mut k, &|p, j, l| {
        let value = unary(UnOp::Relu, load(acc, vec![i(p), i(j), i(l)]));
        store(y, vec![i(t) * rows as i64 + i(p), i(j), i(l)], value)
    });
    k.body = vec![clear, over(outer, Serial, vec![over(inner, Unroll, vec![fetch, step])]), finish];
    k.flops = (2 * 2 * rows * lanes * vectors * depth) as u64;
    k
}

/// A 3x3 convolution with zero padding that stages its rows in scratch memory.
fn conv_rows(lanes: usize) -> Kernel {
    const H: usize = 7;
    const W: usize = 5;
    let mut k = Kernel::new("conv2d");
    let x = k.buffer("x", F32, &[H, W], Memory::Global(Read));
    let w = k.buffer("w", F32, &[3, 3, lanes], Memory::Global(Read));
    let y = k.buffer("y", F32, &[H, W, lanes], Memory::Global(Write));
    let rows = k.buffer("rows", F32, &[3, W + 2], Memory::Scratch);
    let acc = k.buffer("acc", F32, &[W, lanes], Memory::Register);
    let oh = k.task("oh", H);
    let (r, s) = (k.var("r", 3), k.var("s", W + 2));
    let (ih, iw) = (i(oh) + i(r) - 1i64, i(s) - 1i64);
    let mut guards = Guard::between(&ih, 0, H as i64, &k.extents());
    guards.extend(Guard::between(&iw, 0, W as i64, &k.extents()));
    let value = Expr::Guarded { guards, value: Box::new(load(x, vec![ih, iw])), otherwise: Box::new(f(0.0)) };
    let stage = over(r, Serial, vec![over(s, Serial, vec![store(rows, vec![i(r), i(s)], value)])]);
    let (p, l) = (k.var("p", W), k.var("l", lanes));
    let clear = over(p, Unroll, vec![over(l, Vector, vec![store(acc, vec![i(p), i(l)], f(0.5))])]);
    let (kh, kw, p, l) = (k.var("kh", 3), k.var("kw", 3), k.var("p", W), k.var("l", lanes));
    let value = fma(
        load(rows, vec![i(kh), i(p) + i(kw)]),
        load(w, vec![i(kh), i(kw), i(l)]),
        load(acc, vec![i(p), i(l)]),
    );
    let tile = over(p, Unroll, vec![over(l, Vector, vec![store(acc, vec![i(p), i(l)], value)])]);
    let sum = over(kh, Serial, vec![over(kw, Serial, vec![tile])]);
    let (p, l) = (k.var("p", W), k.var("l", lanes));
    let out = store(y, vec![i(oh), i(p), i(l)], load(acc, vec![i(p), i(l)]));
    k.body = vec![stage, clear, sum, over(p, Unroll, vec![over(l, Vector, vec![out])])];
    k
}

/// 3x3 max pooling at stride 2 over channels side by side, the window cut at the border.
fn max_pool(lanes: usize) -> Kernel {
    let mut k = Kernel::new("max_pool2d");
    let x = k.buffer("x", F32, &[6, 6, lanes], Memory::Global(Read));
    let y = k.buffer("y", F32, &[3, 3, lanes], Memory::Global(Write));
    let best = k.buffer("best", F32, &[lanes], Memory::Register);
    let (oh, ow) = (k.task("oh", 3), k.task("ow", 3));
    let l = k.var("l", lanes);
    let clear = over(l, Vector, vec![store(best, vec![i(l)], f(f64::NEG_INFINITY))]);
    let (kh, kw, l) = (k.var("kh", 3), k.var("kw", 3), k.var("l", lanes));
    let (ih, iw) = (i(oh) * 2 + i(kh), i(ow) * 2 + i(kw));
    let mut guards = Guard::between(&ih, 0, 6, &k.extents());
    guards.extend(Guard::between(&iw, 0, 6, &k.extents()));
    let value = binary(BinOp::Max, load(best, vec![i(l)]), load(x, vec![ih, iw, i(l)]));
    let step = over(l, Vector, vec![store(best, vec![i(l)], value)]);
    let window = over(kh, Serial, vec![over(kw, Unroll, vec![Stmt::If { guards, body: vec![step] }])]);
    let l = k.var("l", lanes);
    let out = over(l, Vector, vec![store(y, vec![i(oh), i(ow), i(l)], load(best, vec![i(l)]))]);
    k.body = vec![clear, window, out];
    k
}

/// Softmax over rows of six vectors, with partial results in lanes.
fn softmax(width: usize) -> Kernel {
    let mut k = Kernel::new("softmax");
    let x = k.buffer("x", F32, &[3, 6, width], Memory::Global(Read));
    let y = k.buffer("y", F32, &[3, 6, width], Memory::Global(ReadWrite));
    let lanes = k.buffer("lanes", F32, &[width], Memory::Register);
    let (most, total) =
        (k.buffer("most", F32, &[], Memory::Register), k.buffer("total", F32, &[1], Memory::Register));
    let n = k.task("n", 3);
    let mut body = vec![];
    let l = k.var("l", width);
    body.push(over(l, Vector, vec![store(lanes, vec![i(l)], load(x, vec![i(n), c(0), i(l)]))]));
    let (s, l) = (k.var("s", 5), k.var("l", width));
    let value = binary(BinOp::Max, load(lanes, vec![i(l)]), load(x, vec![i(n), i(s) + 1i64, i(l)]));
    body.push(over(s, Serial, vec![over(l, Vector, vec![store(lanes, vec![i(l)], value)])]));
    let lane = |n: usize| load(lanes, vec![c(n as i64)]);
    let largest = (1..width).fold(lane(0), |m, n| binary(BinOp::Max, m, lane(n)));
    body.push(store(most, vec![], largest));
    body.push(store(total, vec![c(0)], f(0.0)));
    let (s, l) = (k.var("s", 6), k.var("l", width));
    let shifted = binary(BinOp::Sub, load(x, vec![i(n), i(s), i(l)]), load(most, vec![]));
    let exp = store(y, vec![i(n), i(s), i(l)], unary(UnOp::Exp, shifted));
    // Not independent: must run lane by lane.
    let l2 = k.var("l", width);
    let sum = binary(BinOp::Add, load(total, vec![c(0)]), load(y, vec![i(n), i(s), i(l2)]));
    let add = store(total, vec![c(0)], sum);
    body.push(over(s, Serial, vec![over(l, Vector, vec![exp]), over(l2, Vector, vec![add])]));
    let (s, l) = (k.var("s", 6), k.var("l", width));
    let value = binary(BinOp::Div, load(y, vec![i(n), i(s), i(l)]), load(total, vec![c(0)]));
    body.push(over(s, Serial, vec![over(l, Vector, vec![store(y, vec![i(n), i(s), i(l)], value)])]));
    k.body = body;
    k
}

/// Every function of one operand and many of two on floats, side by side and one by one.
pub fn elementwise(width: usize) -> Kernel {
    use {BinOp::*, UnOp::*};
    const UNARY: [UnOp; 10] = [Neg, Abs, Sqrt, Floor, Relu, Exp, Log, Tanh, Sigmoid, Erf];
    const BINARY: [BinOp; 7] = [Add, Sub, Mul, Div, Max, Min, Pow];
    const CONSTANTS: [f64; 4] = [0.0, -0.0, 6.0, f64::NAN];
    const COMPARE: [BinOp; 4] = [Eq, Ne, Lt, Le];
    let mut k = Kernel::new("elementwise");
    let n = UNARY.len() + BINARY.len() + 4 * CONSTANTS.len() + COMPARE.len() + 1;
    let x = k.buffer("x", F32, &[16, width], Memory::Global(Read));
    let z = k.buffer("z", F32, &[16, width], Memory::Global(Read));
    let y = k.buffer("y", F32, &[n, 16, width], Memory::Global(Write));
    let t = k.task("t", 16);
    let at = |k: &mut Kernel| {
        let l = k.var("l", width);
        (l, load(x, vec![i(t), i(l)]), load(z, vec![i(t), i(l)]))
    };
    let mut values = vec![];
    for op in UNARY {
        let (l, a, _) = at(&mut k);
        values.push((l, unary(op, a)));
    }
    for op in BINARY {
        let (l, a, b) = at(&mut k);
        values.push((l, binary(op, a, b)));
    }
    // A constant that comes first may leave an instruction out, unless it is NaN.
    for c in CONSTANTS {
        for op in [Max, Min] {
            let (l, a, b) = at(&mut k);
            values.push((l, binary(Add, binary(op, f(c), a), binary(op, b, f(c)))));
            let (l, a, _) = at(&mut k);
            values.push((l, binary(op, f(c), a)));
        }
    }
    for op in COMPARE {
        let (l, a, b) = at(&mut k);
        let (c, flag) = (binary(op, a.clone(), b.clone()), binary(op, b.clone(), f(1.0)));
        let both = binary(And, c.clone(), unary(Not, flag));
        let number = Expr::Cast(F32, Box::new(binary(Or, both, c.clone())));
        let chosen = Expr::Select(Box::new(c), Box::new(a), Box::new(number));
        values.push((l, chosen));
    }
    let (l, a, b) = at(&mut k);
    let whole = Expr::Cast(I32, Box::new(binary(Mul, a.clone(), f(1e9))));
    let shifted = binary(Shr, whole.clone(), Expr::Const(I32, 3.0));
    let divided = binary(Div, shifted, Expr::Cast(I32, Box::new(b)));
    let place = Expr::Index(i(l) * 3 + i(t));
    let sum = binary(Add, binary(Min, divided, place), binary(And, whole, Expr::Const(I32, 255.0)));
    values.push((l, Expr::Cast(F32, Box::new(sum))));
    for (op, (l, value)) in values.into_iter().enumerate() {
        k.body.push(over(l, Vector, vec![store(y, vec![c(op as i64), i(t), i(l)], value)]));
    }
    k
}

/// Rows looked up by number, out-of-range numbers clamped; a bool result; a strided destination.
fn gather() -> Kernel {
    let mut k = Kernel::new("gather");
    let table = k.buffer("table", F32, &[5, 8], Memory::Global(Read));
    let at = k.buffer("at", I32, &[9], Memory::Global(Read));
    let y = k.strided("y", F32, &[9, 8], &[20, 2], Memory::Global(Write));
    let positive = k.buffer("positive", Bool, &[9, 8], Memory::Global(Write));
    let rows = k.strided("rows", F32, &[9, 8], &[12, 1], Memory::Global(Write));
    let t = k.task("t", 9);
    let row = |l: Var| Expr::Gather {
        buffer: table,
        index: vec![c(0), i(l)],
        axis: 0,
        at: Box::new(load(at, vec![i(t)])),
    };
    let l = k.var("l", 8);
    let spread = over(l, Vector, vec![store(y, vec![i(t), i(l)], row(l))]);
    let l = k.var("l", 8);
    let flags = store(positive, vec![i(t), i(l)], binary(BinOp::Lt, f(0.0), row(l)));
    let flags = over(l, Serial, vec![flags]);
    let l = k.var("l", 8);
    let dense = over(l, Vector, vec![store(rows, vec![i(t), i(l)], row(l))]);
    k.body = vec![spread, flags, dense];
    k
}

/// Index arithmetic with division and remainder, of negative numbers too.
fn div_mod() -> Kernel {
    let mut k = Kernel::new("div_mod");
    let x = k.buffer("x", F32, &[40], Memory::Global(Read));
    let y = k.buffer("y", F32, &[7, 11], Memory::Global(Write));
    let z = k.buffer("z", I32, &[7, 11], Memory::Global(Write));
    let (a, b) = (k.task("a", 7), k.var("b", 11));
    let extents = k.extents();
    let e = i(a) * 5 + i(b) - 9i64;
    let at = e.rem(7, &extents) + e.div(4, &extents) + 3i64;
    let value = load(x, vec![at]);
    let whole = Expr::Index(e.div(3, &extents) * 100 + e.rem(8, &extents));
    k.body =
        vec![over(b, Serial, vec![store(y, vec![i(a), i(b)], value), store(z, vec![i(a), i(b)], whole)])];
    k
}

/// Registers that loops of different widths share: 16 elements written in halves and quarters, and
/// those of the other row one by one.
pub fn shared_registers() -> Kernel {
    let mut k = Kernel::new("shared_registers");
    let x = k.buffer("x", F32, &[2, 16], Memory::Global(Read));
    let y = k.buffer("y", F32, &[3, 16], Memory::Global(Write));
    let halves = k.buffer("halves", F32, &[16], Memory::Register);
    let mixed = k.buffer("mixed", F32, &[2, 16], Memory::Register);
    k.task("t", 1);
    let twice = |k: &mut Kernel, width: usize, make: &dyn Fn(Index) -> Vec<Stmt>| {
        let (h, l) = (k.var("h", 16 / width), k.var("l", width));
        over(h, Unroll, vec![over(l, Vector, make(i(h) * width as i64 + i(l)))])
    };
    let mut body = vec![
        twice(&mut k, 8, &|at| vec![store(halves, vec![at.clone()], load(x, vec![c(0), at]))]),
        twice(&mut k, 4, &|at| vec![store(mixed, vec![c(0), at.clone()], load(x, vec![c(1), at]))]),
    ];
    // 16 at a time, but over what is held in eights and fours.
    body.push(twice(&mut k, 16, &|at| {
        let sum = binary(BinOp::Add, load(halves, vec![at.clone()]), load(x, vec![c(1), at.clone()]));
        vec![store(y, vec![c(0), at], sum)]
    }));
    body.push(twice(&mut k, 8, &|at| {
        let sum = binary(BinOp::Add, load(halves, vec![at.clone()]), load(mixed, vec![c(0), at.clone()]));
        vec![store(mixed, vec![c(1), at], sum)]
    }));
    body.push(store(mixed, vec![c(1), c(9)], load(halves, vec![c(3)])));
    body.push(twice(&mut k, 16, &|at| {
        vec![
            store(y, vec![c(1), at.clone()], load(mixed, vec![c(1), at.clone()])),
            store(y, vec![c(2), at], load(mixed, vec![c(0), c(5)])),
        ]
    }));
    k.body = body;
    k
}

/// Sums of rows, while the next row comes to the second cache and the next elements, where there are some, to the first.
pub fn prefetching() -> Kernel {
    let mut k = Kernel::new("prefetching");
    let x = k.buffer("x", F32, &[5, 12, 16], Memory::Global(Read));
    let y = k.buffer("y", F32, &[5, 16], Memory::Global(Write));
    let acc = k.buffer("acc", F32, &[16], Memory::Register);
    let (t, s) = (k.task("t", 5), k.var("s", 12));
    let [l1, l2, l3] = [0; 3].map(|_| k.var("l", 16));
    let extents = k.extents();
    let fetch = |at: [Index; 2], cache| {
        let [row, step] = at;
        Stmt::Prefetch { buffer: x, index: vec![row, step, c(0)], cache }
    };
    let later = i(s) + 4i64;
    let soon = Stmt::If {
        guards: Guard::between(&later, 0, 12, &extents),
        body: vec![fetch([i(t), later.clone()], Cache::First)],
    };
    let next = fetch([(i(t) + 1i64).rem(5, &extents), i(s)], Cache::Second);
    let sum = binary(BinOp::Add, load(acc, vec![i(l2)]), load(x, vec![i(t), i(s), i(l2)]));
    let step = over(l2, Vector, vec![store(acc, vec![i(l2)], sum)]);
    k.body = vec![
        over(l1, Vector, vec![store(acc, vec![i(l1)], f(0.0))]),
        over(s, Serial, vec![soon, next, step]),
        over(l3, Vector, vec![store(y, vec![i(t), i(l3)], load(acc, vec![i(l3)]))]),
    ];
    k
}

/// Sums of as many inputs at places that all move in their own way.
pub fn many_buffers(count: usize) -> Kernel {
    let mut k = Kernel::new("many_buffers");
    let inputs: Vec<BufferId> =
        (0..count).map(|n| k.buffer("x", F32, &[3, 5, 16 + n], Memory::Global(Read))).collect();
    let y = k.buffer("y", F32, &[3, 5, 16], Memory::Global(Write));
    let (a, b, l) = (k.task("a", 3), k.var("b", 5), k.var("l", 16));
    let sum = inputs.iter().fold(f(0.0), |sum, x| binary(BinOp::Add, sum, load(*x, vec![i(a), i(b), i(l)])));
    let out = over(l, Vector, vec![store(y, vec![i(a), i(b), i(l)], sum)]);
    k.body = vec![over(b, Serial, vec![out])];
    k
}

pub fn all() -> Vec<Kernel> {
    let mut all = vec![matmul_tile(6, 2, 4, 32), matmul_tile(5, 2, 4, 4)];
    all.extend([matmul_tile(6, 2, 8, 8), matmul_tile(6, 4, 16, 8), matmul_tile(14, 2, 16, 4)]);
    for lanes in [4, 8, 16] {
        all.extend([conv_rows(lanes), max_pool(lanes), softmax(lanes)]);
    }
    all.extend([4, 8, 16, 3, 20, 24, 33].map(elementwise));
    all.extend([gather(), div_mod(), shared_registers(), prefetching()]);
    all
}
