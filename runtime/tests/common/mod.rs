//! Programs made by hand: a few bytes of machine code for x86-64.
#![cfg(target_arch = "x86_64")]

use nnc_runtime::DType;
use nnc_runtime::program::{
    Access, Argument, Class, Initializer, Kernel, Launch, ParamSpec, Parameter, Phase, Port, Program, Storage,
};

/// `for i in first..end { args[2][i] = args[0][i] + args[1][i] }` over `f32`; the scratch memory is
/// written too, so that the test fails if there is none.
///
/// ```text
/// mov rax, [rdi]        488b07
/// mov r8,  [rdi+8]      4c8b4708
/// mov r9,  [rdi+16]     4c8b4f10
/// mov [rcx], rdx        488911
/// again: cmp rsi, rdx   4839d6
/// jae done              7316
/// movss xmm0, [rax+rsi*4]     f30f1004b0
/// addss xmm0, [r8+rsi*4]      f3410f5804b0
/// movss [r9+rsi*4], xmm0      f3410f1104b1
/// inc rsi               48ffc6
/// jmp again             ebe5
/// done: ret             c3
/// ```
pub const ADD: &[u8] = &[
    0x48, 0x8b, 0x07, 0x4c, 0x8b, 0x47, 0x08, 0x4c, 0x8b, 0x4f, 0x10, 0x48, 0x89, 0x11, 0x48, 0x39, 0xd6,
    0x73, 0x16, 0xf3, 0x0f, 0x10, 0x04, 0xb0, 0xf3, 0x41, 0x0f, 0x58, 0x04, 0xb0, 0xf3, 0x41, 0x0f, 0x11,
    0x04, 0xb1, 0x48, 0xff, 0xc6, 0xeb, 0xe5, 0xc3,
];

/// Elements of every tensor.
pub const N: usize = 4096;

fn port(name: &str) -> Port {
    Port { name: name.into(), dtype: DType::F32, shape: vec![4, N / 4] }
}

fn storage(name: &str, class: Class) -> Storage {
    Storage { name: name.into(), bytes: N * 4, class }
}

/// A launch of `add`.
pub fn launch(args: [usize; 3], phase: Phase) -> Launch {
    let args = args.map(|storage| Argument { storage, offset: 0 }).to_vec();
    Launch { kernel: 0, args, phase, layer: "sum".into(), location: "sum.nn:2".into() }
}

/// `prepared = weight + constant` once; `y = (x + prepared) + weight` on every run, through the arena.
pub fn sum() -> Program {
    let param = |access| ParamSpec { access, extent_bytes: N * 4, bytes: N * 4, rows: None };
    let parameter = Parameter { port: port("weight"), init: Initializer::Constant(0.5), trainable: true };
    Program {
        name: "sum".into(),
        architecture: "x86_64".into(),
        features: vec![],
        inputs: vec![port("x")],
        outputs: vec![port("y")],
        parameters: vec![parameter],
        training_only: vec!["aux.weight".into()],
        storages: vec![
            storage("x", Class::Input(0)),
            storage("y", Class::Output(0)),
            storage("weight", Class::Parameter(0)),
            storage("one", Class::Constant(0)),
            storage("prepared", Class::Prepared(0)),
            storage("between", Class::Arena(64)),
        ],
        kernels: vec![Kernel {
            name: "add".into(),
            params: vec![param(Access::Read), param(Access::Read), param(Access::Write)],
            tasks: N as u64,
            scratch_bytes: 8,
            code_offset: 0,
            flops: N as u64,
            grid: None,
        }],
        launches: vec![
            launch([2, 3, 4], Phase::Prepare),
            launch([0, 4, 5], Phase::Run),
            launch([5, 2, 1], Phase::Run),
        ],
        prepared_bytes: N * 4,
        preparing_bytes: 0,
        arena_bytes: 64 + N * 4,
        code: ADD.to_vec(),
        constants: 1f32.to_le_bytes().repeat(N),
        weights: None,
    }
}
