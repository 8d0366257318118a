use nnc_runtime::DType::F32;
use nnc_runtime::program::Access::{Read, ReadWrite, Write};

use super::*;
use crate::kernel::{BufferId, Stmt};
use crate::kernel::{Expr, Index, LoopKind, UnOp, Var};

/// A kernel over buffers x and y of 4 elements, 4 tasks.
fn kernel(access: nnc_runtime::program::Access) -> (Kernel, BufferId, BufferId, Var) {
    let mut k = Kernel::new("k");
    let x = k.buffer("x", F32, &[4], Memory::Global(Read));
    let y = k.buffer("y", F32, &[4], Memory::Global(access));
    let t = k.task("t", 4);
    (k, x, y, t)
}

fn store(buffer: BufferId, at: impl Into<Index>, value: Expr) -> Stmt {
    Stmt::Store { buffer, index: vec![at.into()], value }
}

fn load(buffer: BufferId, at: impl Into<Index>) -> Expr {
    Expr::Load(buffer, vec![at.into()])
}

fn run(k: &Kernel, order: Order) -> Result<Vec<Block>, InterpretError> {
    let mut blocks = vec![Block::new(vec![0; 4]), Block::undefined(4)];
    run_kernel(k, &mut blocks, &[(0, 0), (1, 0)], order)?;
    Ok(blocks)
}

#[test]
fn bounds_are_checked() {
    let (mut k, x, y, t) = kernel(Write);
    k.body = vec![store(y, t, load(x, Index::from(t) + 1i64))];
    let error = run(&k, Order::Forward).expect_err("reads x[4]");
    assert_eq!(error.to_string(), "kernel `k`, task 3: `x` is accessed at 4 in dimension 0 of size 4");
}

#[test]
fn two_writers_are_found() {
    let (mut k, _, y, _) = kernel(Write);
    k.body = vec![store(y, 0usize, Expr::Const(F32, 1.0))];
    assert!(matches!(run(&k, Order::Forward), Err(InterpretError::Race { task: 1, .. })));
}

#[test]
fn reads_of_another_tasks_writes_are_found() {
    let (mut k, _, y, t) = kernel(ReadWrite);
    // Task t reads y[t + 1 mod 4], which task t + 1 writes: after it in one order, before it in the other.
    let next = (Index::from(t) + 1i64).rem(4, &k.extents());
    k.body = vec![store(y, t, load(y, next))];
    assert!(matches!(run(&k, Order::Reverse), Err(InterpretError::Race { .. })));
    assert!(matches!(run(&k, Order::Forward), Err(InterpretError::Race { task: 3, .. })));
}

#[test]
fn undefined_memory_taints() {
    let (mut k, _, y, t) = kernel(Write);
    let s = k.buffer("s", F32, &[1], Memory::Scratch);
    let first = Expr::Guarded {
        guards: vec![crate::kernel::Guard(Index::from(0usize) - t)],
        value: Box::new(Expr::Const(F32, 1.0)),
        otherwise: Box::new(load(s, 0usize)),
    };
    k.body = vec![store(s, 0usize, first), store(y, t, load(s, 0usize))];
    let blocks = run(&k, Order::Forward).expect("may be computed with");
    // Only task 0 defines its scratch; others do not see what it left there.
    assert_eq!(blocks[1].defined, [true, false, false, false]);
}

#[test]
fn guarded_loads_are_lazy() {
    let (mut k, x, y, t) = kernel(Write);
    let at = Index::from(t) - 1i64;
    let value = Expr::Guarded {
        guards: vec![crate::kernel::Guard(at.clone())],
        value: Box::new(load(x, at)),
        otherwise: Box::new(Expr::Const(F32, 7.0)),
    };
    let i = k.var("i", 1);
    k.body = vec![Stmt::Loop { var: i, kind: LoopKind::Serial, body: vec![store(y, t, value)] }];
    let blocks = run(&k, Order::Reverse).expect("in bounds");
    assert_eq!(blocks[1].cells, [7f32.to_bits(), 0, 0, 0]);
}

#[test]
fn numbers_that_should_be_rounded_and_are_not_are_found() {
    let (mut k, x, y, t) = kernel(Write);
    k.body = vec![store(y, t, load(x, t))];
    let run = |k: &Kernel, value: f32| {
        let mut blocks = vec![Block::new(vec![value.to_bits(); 4]), Block::undefined(4)];
        run_kernel(k, &mut blocks, &[(0, 0), (1, 0)], Order::Forward).map(|()| blocks[1].cells[3])
    };
    for buffer in [x, y] {
        k.buffers[buffer.0 as usize].tf32 = true;
        assert_eq!(run(&k, 1.5), Ok(1.5f32.to_bits()));
        let error = run(&k, 0.1).expect_err("it has more than ten bits");
        let name = &k.buffers[buffer.0 as usize].name;
        assert_eq!(
            error.to_string(),
            format!("kernel `k`, task 0: element 0 of `{name}` is 0.1, which is no TF32 number")
        );
        k.buffers[buffer.0 as usize].tf32 = false;
    }
    k.body = vec![store(y, t, Expr::Unary(UnOp::Tf32, Box::new(load(x, t))))];
    k.buffers[y.0 as usize].tf32 = true;
    assert_eq!(run(&k, 0.1), Ok(0x3dcc_c000));
}
