//! Kernels of blocks of threads, made by hand: the kernel interpreter and the PTX give the same bits, and
//! both find a barrier or a wait that is missing.

use nnc_compiler::emit::cuda::emit;
use nnc_compiler::kernel::block::Part;
use nnc_compiler::kernel::interpret::{Block, InterpretError, Order, run_kernel};
use nnc_compiler::kernel::verify::verify;
use nnc_compiler::kernel::{
    BinOp, BufferId, Expr, Fragment, Guard, Index, Joint, Kernel, LoopKind, Memory, Module, Rounding, Stmt,
    Var,
};
use nnc_compiler::target::GpuTarget;
use nnc_ptx_interpreter::Arg;
use nnc_runtime::DType::F32;
use nnc_runtime::program::Access;

fn store(buffer: BufferId, index: &[Index], value: Expr) -> Stmt {
    Stmt::Store { buffer, index: index.to_vec(), value }
}

fn load(buffer: BufferId, index: &[Index]) -> Expr {
    Expr::Load(buffer, index.to_vec())
}

fn over(var: Var, kind: LoopKind, body: Vec<Stmt>) -> Stmt {
    Stmt::Loop { var, kind, body }
}

fn add(a: Expr, b: Expr) -> Expr {
    Expr::Binary(BinOp::Add, Box::new(a), Box::new(b))
}

fn matrix(fragment: Fragment, row: Var, column: Var, body: Vec<Stmt>) -> Stmt {
    over(row, LoopKind::Rows(fragment), vec![over(column, LoopKind::Columns(fragment), body)])
}

/// Sums of rows of 200 elements, a block of two warps each.
fn row_sums() -> Kernel {
    let mut k = Kernel::new("row sums");
    k.threads = Some(64);
    let x = k.buffer("x", F32, &[3, 200], Memory::Global(Access::Read));
    let y = k.buffer("y", F32, &[3], Memory::Global(Access::Write));
    let total = k.buffer("total", F32, &[1], Memory::Register);
    let part = k.buffer("part", F32, &[2], Memory::Shared);
    let row = Index::from(k.task("row", 3));
    let [t, u, v, i] = [("t", 64), ("t", 64), ("t", 64), ("i", 4)].map(|(n, size)| k.var(n, size));
    let zero = Index::default();
    let at = Index::from(i) * 64 + t;
    let inside = Guard::between(&at, 0, 200, &k.extents());
    let own = || load(total, &[Index::default()]);
    let add_up = store(total, std::slice::from_ref(&zero), add(own(), load(x, &[row.clone(), at])));
    let (lane, warp) = (Index::from(u).rem(32, &k.extents()), Index::from(u).div(32, &k.extents()));
    let halves = [0usize, 1].map(|w| load(part, &[w.into()]));
    let [first, second] = halves;
    k.body = vec![
        over(
            t,
            LoopKind::Threads,
            vec![
                store(total, std::slice::from_ref(&zero), Expr::Const(F32, 0.0)),
                over(i, LoopKind::Serial, vec![Stmt::If { guards: inside, body: vec![add_up] }]),
            ],
        ),
        Stmt::Joint(Joint::Combine { op: BinOp::Add, buffer: total, index: vec![zero] }),
        over(
            u,
            LoopKind::Threads,
            vec![Stmt::If { guards: vec![Guard(lane * -1)], body: vec![store(part, &[warp], own())] }],
        ),
        Stmt::Joint(Joint::Barrier),
        over(
            v,
            LoopKind::Threads,
            vec![Stmt::If {
                guards: vec![Guard(Index::from(v) * -1)],
                body: vec![store(y, &[row], add(first, second))],
            }],
        ),
    ];
    k
}

/// How a second factor lies.
#[derive(Clone, Copy, PartialEq)]
enum Lies {
    /// `[depth, columns]`
    ByDepth,
    /// `[columns, depth]`
    ByColumns,
}

/// `[32, 16]` by `[16, 8]`, by a block of two warps.
fn product(lies: Lies) -> Kernel {
    let [rows, columns, pitch] = if lies == Lies::ByDepth { [16, 8, 8] } else { [8, 16, 20] };
    let mut k = Kernel::new("product");
    k.threads = Some(64);
    let x = k.buffer("x", F32, &[32, 16], Memory::Global(Access::Read));
    let y = k.buffer("y", F32, &[rows, columns], Memory::Global(Access::Read));
    let out = k.buffer("out", F32, &[32, 8], Memory::Global(Access::Write));
    let xs = k.strided("xs", F32, &[32, 16], &[20, 1], Memory::Shared);
    let ys = k.strided("ys", F32, &[rows, columns], &[pitch, 1], Memory::Shared);
    let first = k.buffer("first", F32, &[16, 8], Memory::Fragment(Fragment::First(Rounding::Tf32)));
    let second = k.buffer("second", F32, &[8, 8], Memory::Fragment(Fragment::Second(Rounding::Tf32)));
    let sum = k.buffer("sum", F32, &[16, 8], Memory::Fragment(Fragment::Sum));
    let (t, i, w, j) = (k.var("t", 64), k.var("i", 2), k.var("w", 2), k.var("j", 2));
    let e = k.extents();
    let (row, piece) = (Index::from(t).div(4, &e) + Index::from(i) * 16, Index::from(t).rem(4, &e) * 4);
    let copy = |to, from, at: [Index; 2], elements| {
        let at = at.to_vec();
        Stmt::Joint(Joint::Copy { to, index: at.clone(), from, at, elements, guards: vec![] })
    };
    let (yr, yc) = (Index::from(t).div(columns / 2, &e), Index::from(t).rem(columns / 2, &e) * 2);
    let [r0, r1, r2, r3] = [16, 16, 8, 16].map(|n| k.var("r", n));
    let [c0, c1, c2, c3] = [8; 4].map(|n| k.var("c", n));
    let here = |r: Var, c: Var| [Index::from(r), Index::from(c)];
    let down = |r: Var| Index::from(w) * 16 + r;
    let along = |v: Var| Index::from(j) * 8 + v;
    let of_y = if lies == Lies::ByDepth { [along(r2), c2.into()] } else { [c2.into(), along(r2)] };
    let part = |buffer| Part { buffer, index: vec![] };
    k.body = vec![
        over(
            t,
            LoopKind::Threads,
            vec![over(i, LoopKind::Unroll, vec![copy(xs, x, [row, piece], 4)]), copy(ys, y, [yr, yc], 2)],
        ),
        Stmt::Joint(Joint::Commit),
        Stmt::Joint(Joint::Wait { open: 0 }),
        Stmt::Joint(Joint::Barrier),
        over(
            w,
            LoopKind::Warps,
            vec![
                matrix(Fragment::Sum, r0, c0, vec![store(sum, &here(r0, c0), Expr::Const(F32, 0.0))]),
                over(
                    j,
                    LoopKind::Unroll,
                    vec![
                        matrix(
                            Fragment::First(Rounding::Tf32),
                            r1,
                            c1,
                            vec![store(first, &here(r1, c1), load(xs, &[down(r1), along(c1)]))],
                        ),
                        matrix(
                            Fragment::Second(Rounding::Tf32),
                            r2,
                            c2,
                            vec![store(second, &here(r2, c2), load(ys, &of_y))],
                        ),
                        Stmt::Joint(Joint::Multiply {
                            sum: part(sum),
                            first: part(first),
                            second: part(second),
                        }),
                    ],
                ),
                matrix(
                    Fragment::Sum,
                    r3,
                    c3,
                    vec![store(out, &[down(r3), Index::from(c3)], load(sum, &here(r3, c3)))],
                ),
            ],
        ),
    ];
    k
}

fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// What the kernel interpreter makes of the last buffer.
fn interpreted(k: &Kernel, order: Order) -> Result<Vec<u32>, InterpretError> {
    let mut blocks: Vec<Block> = vec![];
    for (i, b) in k.params().enumerate() {
        blocks.push(match b.memory {
            Memory::Global(Access::Read) => {
                Block::new(numbers(b.extent(), i as u32).into_iter().map(f32::to_bits).collect())
            }
            _ => Block::undefined(b.extent()),
        });
    }
    let args: Vec<(usize, usize)> = (0..blocks.len()).map(|i| (i, 0)).collect();
    run_kernel(k, &mut blocks, &args, order)?;
    let out = blocks.pop().expect("kernels have results");
    assert!(out.defined.iter().all(|d| *d));
    Ok(out.cells)
}

/// What its PTX does.
fn executed(k: &Kernel) -> Result<Vec<u32>, nnc_ptx_interpreter::Error> {
    let module = Module { name: "test".into(), kernels: vec![k.clone()], ..Module::default() };
    let ptx = emit(&module, GpuTarget::Sm80).unwrap_or_else(|e| panic!("{e}"));
    let code = nnc_ptx_interpreter::Module::parse(&ptx.text).unwrap_or_else(|e| panic!("{e}\n{}", ptx.text));
    let mut memory = nnc_ptx_interpreter::Memory::new();
    let buffers: Vec<_> = k
        .params()
        .enumerate()
        .map(|(i, b)| match b.memory {
            Memory::Global(Access::Read) => memory.upload(&b.name, &numbers(b.extent(), i as u32)),
            _ => memory.allocate(&b.name, b.extent() * 4),
        })
        .collect();
    let args: Vec<Arg> = buffers.iter().map(|b| Arg::Buffer(*b)).collect();
    let (name, launch) = (&ptx.entries[0].name, ptx.entries[0].launch);
    match code.launch(
        &mut memory,
        name,
        [launch.grid, 1, 1],
        [launch.block, 1, 1],
        launch.shared_bytes,
        &args,
    ) {
        Ok(_) => Ok(memory.download(buffers[buffers.len() - 1]).unwrap_or_else(|e| panic!("{e}"))),
        Err(e) => Err(e),
    }
}

fn check(k: &Kernel) {
    verify(k).unwrap_or_else(|e| panic!("{}\n{k}", e[0]));
    let forward = interpreted(k, Order::Forward).unwrap_or_else(|e| panic!("{e}\n{k}"));
    assert_eq!(forward, interpreted(k, Order::Reverse).unwrap());
    assert_eq!(forward, executed(k).unwrap_or_else(|e| panic!("{e:?}\n{k}")));
}

fn without(k: &Kernel, joint: &Joint) -> Kernel {
    let mut k = k.clone();
    let all = k.body.len();
    k.body.retain(|s| !matches!(s, Stmt::Joint(j) if j == joint));
    assert_eq!(k.body.len() + 1, all);
    k
}

#[test]
fn sums_of_rows() {
    check(&row_sums());
    insta::assert_snapshot!(row_sums().to_string());
}

#[test]
fn a_product_of_matrices() {
    insta::assert_snapshot!(product(Lies::ByDepth).to_string());
    for lies in [Lies::ByDepth, Lies::ByColumns] {
        let k = product(lies);
        check(&k);
        let found = executed(&k).unwrap();
        let (x, y) = (numbers(32 * 16, 0), numbers(16 * 8, 1));
        let of_y = |j: usize, i: usize| if lies == Lies::ByDepth { y[j * 8 + i] } else { y[i * 16 + j] };
        for (i, &bits) in found.iter().enumerate() {
            let want: f32 = (0..16).map(|j| x[i / 8 * 16 + j] * of_y(j, i % 8)).sum();
            assert!((want - f32::from_bits(bits)).abs() < 5e-3, "{i}: {want}");
        }
    }
}

/// Matrices whose lines lie in one piece are loaded at once: of the second factor one here, or two beside each other
/// (`text.rs`).
#[test]
fn a_single_matrix_of_the_second_factor_is_loaded_at_once() {
    let module = Module { kernels: vec![product(Lies::ByColumns)], ..Module::default() };
    let text = emit(&module, GpuTarget::Sm80).unwrap().text;
    let loads = |count: usize| text.matches(&format!("ldmatrix.sync.aligned.m8n8.x{count}.")).count();
    assert_eq!([loads(2), loads(4)], [2, 2], "{text}");
}

/// Both interpreters find what is not ordered.
#[test]
fn a_missing_barrier_or_wait_is_found() {
    for (k, joint) in [
        (row_sums(), Joint::Barrier),
        (product(Lies::ByDepth), Joint::Barrier),
        (product(Lies::ByDepth), Joint::Wait { open: 0 }),
    ] {
        let damaged = without(&k, &joint);
        let found = interpreted(&damaged, Order::Forward).unwrap_err();
        assert!(matches!(found, InterpretError::SharedRace { .. }), "{found}");
        executed(&damaged).unwrap_err();
    }
}

/// More shared memory than there is for all: it comes with the launch, and the buffers lie in it side by side.
#[test]
fn much_shared_memory_is_asked_for() {
    let mut k = product(Lies::ByDepth);
    k.buffer("room", F32, &[12, 1024], Memory::Shared);
    check(&k);
    let ptx = emit(&Module { kernels: vec![k.clone()], ..Module::default() }, GpuTarget::Sm80).unwrap();
    let bytes = (31 * 20 + 16 + 16 * 8 + 12 * 1024) * 4;
    assert_eq!(ptx.entries[0].launch.shared_bytes, bytes);
    assert!(ptx.text.contains(".extern .shared .align 16 .b8 dynamic_shared[];"), "{}", ptx.text);
    k.buffer("more", F32, &[13, 1024], Memory::Shared);
    let refused = verify(&k).unwrap_err()[0].problem.to_string();
    assert_eq!(refused, format!("{} bytes of shared memory, a block has 101376 at most", bytes + 13 * 4096));
}

/// The verifier knows who may do what.
#[test]
fn what_a_block_cannot_do_is_refused() {
    let problem = |k: &Kernel| verify(k).unwrap_err()[0].problem.to_string();
    let mut k = row_sums();
    k.threads = Some(65);
    assert_eq!(problem(&k), "a block of 65 threads: expected whole warps of 32, and 1024 at most");
    let mut k = row_sums();
    k.threads = None;
    assert_eq!(problem(&k), "`part` is memory of a block, and the kernel's tasks are threads");
    let mut k = row_sums();
    if let Stmt::Loop { body, .. } = &mut k.body[0] {
        body.push(Stmt::Joint(Joint::Barrier));
    }
    assert!(problem(&k).starts_with("`barrier` does not belong here"));
    let mut k = product(Lies::ByDepth);
    k.buffers[3].strides = vec![18, 1];
    assert_eq!(
        problem(&k),
        "`xs[16*i + (t) / 4, 4*(t) % 4]`: 4 elements are not copied at once from or to there"
    );
}
