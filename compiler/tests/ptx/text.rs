//! The text of small kernels and nets, and what is refused. `INSTA_UPDATE=always` blesses it.

use std::path::Path;

use nnc_compiler::build::{BuildOptions, NoFiles, build};
use nnc_compiler::emit::cuda::emit;
use nnc_compiler::graph::Bindings;
use nnc_compiler::kernel::{
    BinOp, BufferId, Expr, Guard, Index, Kernel, LoopKind, Memory, Module, Stmt, UnOp,
};
use nnc_compiler::lower::gpu::{Blocks, GpuOptions};
use nnc_compiler::lower::{lower_for_gpu, lower_for_gpu_with};
use nnc_compiler::pass;
use nnc_compiler::plan::order;
use nnc_compiler::target::GpuTarget;
use nnc_dsl::SourceMap;
use nnc_runtime::DType;
use nnc_runtime::program::Access;

fn module(kernel: Kernel) -> Module {
    Module { name: "test".into(), kernels: vec![kernel], ..Module::default() }
}

fn ptx(kernel: Kernel) -> String {
    emit(&module(kernel), GpuTarget::Sm80).unwrap_or_else(|e| panic!("{e}")).text
}

fn store(buffer: BufferId, index: Index, value: Expr) -> Stmt {
    Stmt::Store { buffer, index: vec![index], value }
}

/// A border that is not read, a serial sum in a register, a comparison, bytes for bools.
#[test]
fn guards_loops_and_bools() {
    let mut k = Kernel::new("count above");
    let x = k.buffer("x", DType::F32, &[6], Memory::Global(Access::Read));
    let out = k.buffer("max", DType::Bool, &[6], Memory::Global(Access::Write));
    let sum = k.buffer("sum", DType::F32, &[1], Memory::Register);
    let (i, j) = (k.task("i", 6), k.var("j", 3));
    let at = Index::from(i) + j - 1i64;
    let guards = Guard::between(&at, 0, 6, &k.extents());
    let load = |b, i: Index| Expr::Load(b, vec![i]);
    let inside = Expr::Guarded {
        guards,
        value: Box::new(load(x, at)),
        otherwise: Box::new(Expr::Const(DType::F32, 0.5)),
    };
    let add = |a: Expr, b: Expr| Expr::Binary(BinOp::Add, Box::new(a), Box::new(b));
    let register = || load(sum, Index::default());
    k.body = vec![
        store(sum, Index::default(), Expr::Const(DType::F32, 0.0)),
        Stmt::Loop {
            var: j,
            kind: LoopKind::Serial,
            body: vec![store(sum, Index::default(), add(register(), inside))],
        },
        store(
            out,
            i.into(),
            Expr::Binary(BinOp::Lt, Box::new(Expr::Const(DType::F32, 1.0)), Box::new(register())),
        ),
    ];
    insta::assert_snapshot!(ptx(k));
}

/// A table's row, and a thread's own memory.
#[test]
fn gather_and_scratch() {
    let mut k = Kernel::new("gather");
    let at = k.buffer("at", DType::I32, &[4], Memory::Global(Access::Read));
    let table = k.buffer("table", DType::F32, &[10], Memory::Global(Access::Read));
    let out = k.buffer("out", DType::F32, &[4], Memory::Global(Access::Write));
    let own = k.buffer("own", DType::F32, &[2], Memory::Scratch);
    let i = k.task("i", 4);
    let row = Expr::Gather {
        buffer: table,
        index: vec![Index::default()],
        axis: 0,
        at: Box::new(Expr::Load(at, vec![i.into()])),
    };
    let one = Index::from(1usize);
    k.body = vec![
        store(own, one.clone(), Expr::Unary(UnOp::Abs, Box::new(row))),
        store(out, i.into(), Expr::Load(own, vec![one])),
    ];
    insta::assert_snapshot!(ptx(k));
}

#[test]
fn what_needs_more_than_32_bits_is_refused() {
    let mut k = Kernel::new("far");
    let out = k.strided("out", DType::F32, &[3], &[1 << 29], Memory::Global(Access::Write));
    let i = k.task("i", 3);
    k.body = vec![store(out, i.into(), Expr::Const(DType::F32, 0.0))];
    let error = emit(&module(k), GpuTarget::Sm80).unwrap_err().to_string();
    assert_eq!(error, "kernel `far`: the index `536870912*i` does not fit into 32 bits");
}

#[test]
fn a_kernel_that_is_wrong_is_refused() {
    let mut k = Kernel::new("wrong");
    let out = k.buffer("out", DType::F32, &[3], Memory::Global(Access::Write));
    let i = k.task("i", 4);
    k.body = vec![store(out, i.into(), Expr::Const(DType::F32, 0.0))];
    let error = emit(&module(k), GpuTarget::Sm80).unwrap_err().to_string();
    assert!(error.starts_with("kernel `wrong`: `out[i]`"), "{error}");
}

/// A convolution on tensor cores: a block's kernel, and its text.
#[test]
fn convolution_by_blocks() {
    let mut map = SourceMap::new();
    let text = "use std.vision
net one {
    input x: f32[2, 128, 14, 14]
    output y = x -> conv(64, 3, pad = 1) -> relu
}
";
    let root = map.add("one.nn", text);
    let built = build(&mut map, root, &NoFiles, &BuildOptions::default()).unwrap();
    let mut graph = built.graph.specialise(&Bindings::new()).unwrap();
    let target = GpuTarget::Sm80;
    pass::run_all(&mut graph, &target.thread(), &mut |_, _| {});
    let options = GpuOptions { blocks: Blocks::Always, ..GpuOptions::default() };
    let mut module = lower_for_gpu_with(&graph, target, options, Some(&map)).unwrap();
    order::run(&mut module);
    insta::assert_snapshot!(format!("{module}\n{}", emit(&module, target).unwrap().text));
}

/// LeNet-5, with the lines of its layers.
#[test]
fn lenet() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/lenet.nn");
    let mut map = SourceMap::new();
    let root = map.add("lenet.nn", std::fs::read_to_string(path).unwrap());
    let built = build(&mut map, root, &NoFiles, &BuildOptions::default()).unwrap();
    let mut graph = built.graph.specialise(&Bindings::from([("N".to_string(), 1)])).unwrap();
    let target = GpuTarget::Sm80;
    pass::run_all(&mut graph, &target.thread(), &mut |_, _| {});
    let mut module = lower_for_gpu(&graph, target, Some(&map)).unwrap();
    order::run(&mut module);
    insta::assert_snapshot!(emit(&module, target).unwrap().text);
}
