//! Registers that are read before they are written, and the text of messages.

use nnc_ptx_interpreter::{Fault, Memory};

use crate::support::{fault, module, run, source};

#[test]
fn uninitialised_registers() {
    let body = |text: &str| {
        format!(".visible .entry k() {{ .reg .b32 %r<4>; .reg .pred %p; .reg .b64 %d; {text} }}")
    };
    let run_body = |text: &str| run(&module(&body(text)), &mut Memory::new(), 1, 32, &[]);
    let (_, found) = fault(run_body("add.u32 %r0, %r1, 1;"));
    assert_eq!(found, Fault::UninitialisedRegister("%r1".into()));
    let (_, found) = fault(run_body("@%p mov.u32 %r0, 1;"));
    assert_eq!(found, Fault::UninitialisedRegister("%p".into()));
    let (_, found) = fault(run_body("cvt.u32.u64 %r0, %d;"));
    assert_eq!(found, Fault::UninitialisedRegister("%d".into()));
    // Written by some lanes only.
    let some = "mov.u32 %r0, %laneid; setp.lt.u32 %p, %r0, 7; @%p mov.u32 %r1, 1; add.u32 %r2, %r1, 1;";
    let (_, found) = fault(run_body(some));
    assert_eq!(found, Fault::UninitialisedRegister("%r1".into()));
    assert!(run_body(&some.replace("add.u32", "@%p add.u32")).is_ok());
}

#[test]
fn uninitialised_memory() {
    let text = ".visible .entry k(.param .u64 x) { .reg .b64 %x; .reg .b32 %r; .shared .b32 s[2];
        ld.param.u64 %x, [x]; SPACE }";
    for space in ["ld.global.u32 %r, [%x];", "ld.shared.u32 %r, [s+4];"] {
        let mut memory = Memory::new();
        let x = memory.allocate("x", 4);
        let (_, found) = fault(run(&module(&text.replace("SPACE", space)), &mut memory, 1, 1, &[x]));
        assert!(matches!(found, Fault::UninitialisedMemory { .. }), "{found}");
    }
}

#[test]
fn messages_name_kernel_line_and_thread() {
    let text = source(
        ".visible .entry k(.param .u64 x) {
    .reg .b64 %x; .reg .b32 %t; .reg .f32 %v;
    ld.param.u64 %x, [x];
    mov.u32 %t, %tid.y;
    mad.wide.u32 %x, %t, 4, %x;
    ld.global.f32 %v, [%x]; // here
}",
    );
    let mut memory = Memory::new();
    let x = memory.upload("x", &[0f32; 3]);
    let args = [nnc_ptx_interpreter::Arg::Buffer(x)];
    let error = module(&text).launch(&mut memory, "k", [1, 1, 1], [2, 4, 1], 0, &args).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`k`, line 9, thread (0, 3, 0) of block (0, 0, 0): access of 4 bytes at byte 12 of `x`, which has 12 bytes\n    \
         ld.global.f32 %v, [%x]; // here"
    );
}

#[test]
fn nothing_is_left_of_the_block_before() {
    let text = ".visible .entry k() {
        .shared .b32 s[2]; .local .b32 own[2];
        .reg .b32 %r<3>; .reg .pred %p, %q;
        mov.u32 %r0, %ctaid.x;
        setp.eq.u32 %p, %r0, 0;
        @%p mov.u32 %r1, 1;
        @%p setp.eq.u32 %q, %r0, 0;
        @%p st.shared.u32 [s], %r0;
        @%p st.local.u32 [own], %r0;
        READ
    }";
    let reads =
        ["mov.u32 %r2, %r1;", "@%q mov.u32 %r2, 1;", "ld.shared.u32 %r2, [s];", "ld.local.u32 %r2, [own];"];
    for read in reads {
        let module = module(&text.replace("READ", read));
        assert!(run(&module, &mut Memory::new(), 1, 1, &[]).is_ok());
        let (_, found) = fault(run(&module, &mut Memory::new(), 2, 1, &[]));
        let uninitialised =
            matches!(found, Fault::UninitialisedRegister(_) | Fault::UninitialisedMemory { .. });
        assert!(uninitialised, "{read}: {found}");
    }
}
