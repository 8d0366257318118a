use nnc_runtime::DType::{F32, I32};
use nnc_runtime::program::Access::{Read, Write};

use crate::kernel::math;
use crate::kernel::{BinOp, Cache, Expr, Guard, Index, Kernel, LoopKind, Memory, Stmt, UnOp};

/// A kernel that shows every kind of statement.
fn sample() -> Kernel {
    let mut k = Kernel::new("conv1d_exp");
    let x = k.strided("x", F32, &[2, 8], &[16, 2], Memory::Global(Read));
    let w = k.buffer("w", F32, &[3, 4], Memory::Global(Read));
    let at = k.buffer("at", I32, &[2], Memory::Global(Read));
    let y = k.buffer("y", F32, &[2, 8, 4], Memory::Global(Write));
    let row = k.buffer("row", F32, &[8], Memory::Scratch);
    let acc = k.buffer("acc", F32, &[4], Memory::Register);
    let (n, o) = (k.task("n", 2), k.task("o", 8));
    let s = k.var("s", 8);
    let looked_up = Expr::Gather {
        buffer: x,
        index: vec![Index::default(), s.into()],
        axis: 0,
        at: Box::new(Expr::Load(at, vec![n.into()])),
    };
    let stage = Stmt::Store { buffer: row, index: vec![s.into()], value: looked_up };
    let (t, l) = (k.var("t", 3), k.var("l", 4));
    let place = Index::from(o) + t - 1i64;
    let acc_l = Expr::Load(acc, vec![l.into()]);
    let value = Expr::Fma(
        Box::new(Expr::Load(row, vec![place.clone()])),
        Box::new(Expr::Load(w, vec![t.into(), l.into()])),
        Box::new(acc_l),
    );
    let step = Stmt::Store { buffer: acc, index: vec![l.into()], value };
    let vector = Stmt::Loop { var: l, kind: LoopKind::Vector, body: vec![step] };
    let guards = Guard::between(&place, 0, 8, &k.extents());
    let window = Stmt::If { guards, body: vec![vector] };
    let l2 = k.var("l", 4);
    let sum =
        Expr::Binary(BinOp::Add, Box::new(Expr::Load(acc, vec![l2.into()])), Box::new(Expr::Const(F32, 0.5)));
    let scaled = Expr::Binary(BinOp::Mul, Box::new(sum), Box::new(Expr::Const(F32, 2.0)));
    let value = Expr::Unary(UnOp::Exp, Box::new(scaled));
    let out = Stmt::Store { buffer: y, index: vec![n.into(), o.into(), l2.into()], value };
    k.body = vec![
        Stmt::Loop { var: s, kind: LoopKind::Serial, body: vec![stage] },
        Stmt::Prefetch { buffer: w, index: vec![2usize.into(), 0usize.into()], cache: Cache::First },
        Stmt::Loop { var: t, kind: LoopKind::Unroll, body: vec![window] },
        Stmt::Loop { var: l2, kind: LoopKind::Vector, body: vec![out] },
    ];
    k.flops = 384;
    k
}

#[test]
fn kernels_read_like_loop_nests() {
    insta::assert_snapshot!(sample().to_string());
}

#[test]
fn expanded_functions_name_what_they_share() {
    insta::assert_snapshot!(math::expand(&sample()).to_string());
}
