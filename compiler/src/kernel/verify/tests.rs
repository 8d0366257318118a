use nnc_runtime::DType::{Bool, F32, I32};
use nnc_runtime::program::Access::{Read, Write};

use super::*;
use crate::kernel::{BinOp, Cache, UnOp};

fn load(b: BufferId, i: Vec<Index>) -> Expr {
    Expr::Load(b, i)
}

fn over(var: Var, kind: LoopKind, body: Vec<Stmt>) -> Stmt {
    Stmt::Loop { var, kind, body }
}

fn problems(k: &Kernel) -> Vec<String> {
    verify(k).err().unwrap_or_default().iter().map(|e| e.problem.to_string()).collect()
}

/// `y[o] = x[o + t - 1]` for t in 0..3 over 8 elements, with these guards.
fn shifted(guards: impl Fn(&Index, &Extents) -> Vec<Guard>) -> Kernel {
    let mut k = Kernel::new("shifted");
    let x = k.buffer("x", F32, &[8], Memory::Global(Read));
    let y = k.buffer("y", F32, &[8], Memory::Global(Write));
    let o = k.task("o", 8);
    let t = k.var("t", 3);
    let at = Index::from(o) + t - 1i64;
    let guards = guards(&at, &k.extents());
    let value = Expr::Guarded {
        guards,
        value: Box::new(load(x, vec![at])),
        otherwise: Box::new(Expr::Const(F32, 0.0)),
    };
    let store = Stmt::Store { buffer: y, index: vec![o.into()], value };
    k.body = vec![over(t, LoopKind::Serial, vec![store])];
    k
}

#[test]
fn guards_prove_bounds() {
    let k = shifted(|at, extents| Guard::between(at, 0, 8, extents));
    let v = verify(&k).expect("is right");
    assert!(v.unproved_races().is_empty());
}

#[test]
fn missing_guard_is_found() {
    let lower_only = shifted(|at, _| vec![Guard(at.clone())]);
    assert_eq!(
        problems(&lower_only),
        ["`x[o + t - 1]`: `o + t - 1` in dimension 0 of size 8 may be -1 to 8"]
    );
    assert_eq!(problems(&shifted(|_, _| vec![])).len(), 1);
}

#[test]
fn guard_off_by_one_is_found() {
    let k = shifted(|at, extents| Guard::between(at, 0, 9, extents));
    assert_eq!(problems(&k).len(), 1);
}

#[test]
fn two_guards_and_multiples_are_added() {
    let extents = vec![10, 10];
    let (a, b) = (Index::from(Var(0)), Index::from(Var(1)));
    let guards = [a.clone() - 4i64, b.clone() - 3i64];
    assert!(proved(&(a.clone() + b.clone() - 7i64), &guards, &extents));
    assert!(!proved(&(a.clone() + b - 8i64), &guards, &extents));
    assert!(proved(&(a.clone() * 3 - 12i64), &guards, &extents));
    assert!(!proved(&(a * 3 - 13i64), &guards, &extents));
}

#[test]
fn variables_stay_in_their_loops() {
    let mut k = Kernel::new("k");
    let y = k.buffer("y", F32, &[4], Memory::Global(Write));
    let i = k.var("i", 4);
    let store = || Stmt::Store { buffer: y, index: vec![i.into()], value: Expr::Const(F32, 1.0) };
    k.body = vec![over(i, LoopKind::Serial, vec![store()]), store()];
    assert_eq!(problems(&k), ["variable `i` is used outside its loop"]);
    k.body = vec![over(i, LoopKind::Serial, vec![]), over(i, LoopKind::Serial, vec![])];
    assert_eq!(problems(&k), ["variable `i` is bound twice"]);
}

#[test]
fn types_are_strict() {
    let mut k = Kernel::new("k");
    let y = k.buffer("y", F32, &[1], Memory::Global(Write));
    let at = vec![Index::from(0usize)];
    let mut wrong = |value: Expr| {
        k.body = vec![Stmt::Store { buffer: y, index: at.clone(), value }];
        problems(&k).remove(0)
    };
    let sum =
        Expr::Binary(BinOp::Add, Box::new(Expr::Const(F32, 1.0)), Box::new(Expr::Index(Index::default())));
    assert_eq!(wrong(sum), "`index(0)`: expected f32, found i32");
    assert_eq!(wrong(Expr::Const(Bool, 1.0)), "`y[0]`: expected f32, found bool");
    let mask = Expr::Binary(BinOp::And, Box::new(Expr::Const(F32, 1.0)), Box::new(Expr::Const(F32, 1.0)));
    assert_eq!(wrong(mask), "`1.0`: expected bool or i32, found f32");
    assert_eq!(wrong(Expr::Local(crate::kernel::Local(3))), "`t3` is used outside its `let`, or bound twice");
}

#[test]
fn registers_take_unrolled_indices_only() {
    let mut k = Kernel::new("k");
    let acc = k.buffer("acc", F32, &[4, 4], Memory::Register);
    let (i, l) = (k.var("i", 4), k.var("l", 4));
    let store = |index: Vec<Index>| Stmt::Store { buffer: acc, index, value: Expr::Const(F32, 0.0) };
    k.body = vec![over(
        i,
        LoopKind::Unroll,
        vec![over(l, LoopKind::Vector, vec![store(vec![i.into(), l.into()])])],
    )];
    assert!(problems(&k).is_empty());
    k.body = vec![over(
        i,
        LoopKind::Unroll,
        vec![over(l, LoopKind::Vector, vec![store(vec![l.into(), i.into()])])],
    )];
    assert_eq!(problems(&k).len(), 1);
    k.body = vec![over(
        i,
        LoopKind::Serial,
        vec![over(l, LoopKind::Vector, vec![store(vec![i.into(), l.into()])])],
    )];
    assert_eq!(problems(&k).len(), 1);
}

#[test]
fn access_rights_are_kept() {
    let mut k = Kernel::new("k");
    let x = k.buffer("x", I32, &[1], Memory::Global(Read));
    let y = k.buffer("y", I32, &[1], Memory::Global(Write));
    let at = vec![Index::default()];
    k.body = vec![Stmt::Store { buffer: x, index: at.clone(), value: load(y, at) }];
    assert_eq!(problems(&k), ["`y` is read but not readable", "`x` is written but not writable"]);
}

#[test]
fn what_is_stored_among_tf32_numbers_is_known_to_be_one() {
    let mut k = Kernel::new("k");
    let x = k.buffer("x", F32, &[4], Memory::Global(Read));
    let y = k.buffer("y", F32, &[4], Memory::Global(Write));
    k.buffers[y.0 as usize].tf32 = true;
    let i = k.task("i", 4);
    let at = || vec![Index::from(i)];
    let store = |value: Expr| vec![Stmt::Store { buffer: y, index: at(), value }];
    let larger = |a: Expr, b: Expr| Expr::Binary(BinOp::Max, Box::new(a), Box::new(b));
    let rounded = |e: Expr| Expr::Unary(UnOp::Tf32, Box::new(e));
    let refused = "`y[i]` takes TF32 numbers, what is stored there is not known to be one";
    for (value, is_known) in [
        (load(x, at()), false),
        (rounded(load(x, at())), true),
        (larger(rounded(load(x, at())), Expr::Const(F32, -1.5)), true),
        (larger(rounded(load(x, at())), Expr::Const(F32, 0.1)), false),
        (Expr::Unary(UnOp::Sqrt, Box::new(rounded(load(x, at())))), false),
    ] {
        k.body = store(value);
        assert_eq!(problems(&k), if is_known { vec![] } else { vec![refused] }, "{k}");
    }
    // What is read from such a buffer is one.
    k.buffers[x.0 as usize].tf32 = true;
    k.body = store(load(x, at()));
    assert!(problems(&k).is_empty());
}

#[test]
fn prefetches_are_in_bounds_and_of_memory() {
    let mut k = Kernel::new("k");
    let x = k.buffer("x", F32, &[8], Memory::Global(Read));
    let y = k.buffer("y", F32, &[8], Memory::Global(Write));
    let acc = k.buffer("acc", F32, &[8], Memory::Register);
    let t = k.task("t", 8);
    let extents = k.extents();
    let next = Index::from(t) + 2i64;
    let mut prefetch = |buffer: BufferId, at: Index, guards: Vec<Guard>| {
        let hint = Stmt::Prefetch { buffer, index: vec![at], cache: Cache::First };
        k.body = vec![Stmt::If { guards, body: vec![hint] }];
        problems(&k)
    };
    assert!(prefetch(x, next.rem(8, &extents), vec![]).is_empty());
    assert!(prefetch(y, next.clone(), Guard::between(&next, 0, 8, &extents)).is_empty());
    assert_eq!(
        prefetch(x, next.clone(), vec![]),
        ["`x[t + 2]`: `t + 2` in dimension 0 of size 8 may be 2 to 9"]
    );
    assert_eq!(
        prefetch(acc, Index::default(), vec![]),
        ["`acc[0]` is in registers, where nothing is prefetched to"]
    );
}

#[test]
fn races_are_proved_absent_or_left_open() {
    let mut k = Kernel::new("k");
    let y = k.buffer("y", F32, &[64], Memory::Global(Write));
    let (a, b) = (k.task("a", 4), k.task("b", 4));
    let i = k.var("i", 4);
    let mut open = |index: Index| {
        let store = Stmt::Store { buffer: y, index: vec![index], value: Expr::Const(F32, 0.0) };
        k.body = vec![over(i, LoopKind::Serial, vec![store])];
        verify(&k).expect("in bounds").unproved_races().len()
    };
    assert_eq!(open(Index::from(a) * 16 + Index::from(b) * 4 + i), 0);
    assert_eq!(open(Index::from(a) * 16 + Index::from(b) * 3 + i), 1);
    assert_eq!(open(Index::from(a) * 12 + Index::from(b) * 4 + i), 1);
    assert_eq!(open(Index::from(a) * 16 + i), 1);
}
