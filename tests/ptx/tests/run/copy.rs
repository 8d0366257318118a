//! A tiled matrix product through shared memory, and the same with asynchronous copies in two stages.

use nnc_ptx_interpreter::{Arg, Error, Fault, Memory, Stats};

use crate::support::{fault, module};

/// Size of the matrices and of a tile.
const N: usize = 32;

/// C = A·B of 32 x 32 floats by blocks of 8 x 8 threads, one element each; tiles along k are 8 wide.
const TILED: &str = ".visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c) {
    .shared .align 16 .f32 ta[64];
    .shared .align 16 .f32 tb[64];
    .reg .pred %p; .reg .b64 %a, %b, %c, %at; .reg .b32 %x, %y, %r, %q, %k, %i, %sa, %sb, %ra, %rb; .reg .f32 %sum, %f, %g;
    mov.u32 %x, %tid.x; mov.u32 %y, %tid.y;
    mov.u32 %r, %ctaid.y; mad.lo.u32 %r, %r, 8, %y;
    mov.u32 %q, %ctaid.x; mad.lo.u32 %q, %q, 8, %x;
    ld.param.u64 %a, [a]; ld.param.u64 %b, [b]; ld.param.u64 %c, [c];
    mad.lo.u32 %i, %r, 32, %x; mad.wide.u32 %a, %i, 4, %a;
    mad.lo.u32 %i, %y, 32, %q; mad.wide.u32 %b, %i, 4, %b;
    mov.u32 %sa, ta; mov.u32 %sb, tb;
    mad.lo.u32 %i, %y, 8, %x; shl.b32 %i, %i, 2;
    add.u32 %sa, %sa, %i; add.u32 %sb, %sb, %i;
    mov.u32 %ra, ta; mad.lo.u32 %ra, %y, 32, %ra;
    mov.u32 %rb, tb; mad.lo.u32 %rb, %x, 4, %rb;
    mov.f32 %sum, 0f00000000;
    mov.u32 %k, 0;
next:
    ld.global.f32 %f, [%a]; st.shared.f32 [%sa], %f;
    ld.global.f32 %g, [%b]; st.shared.f32 [%sb], %g;
    bar.sync 0; // filled
    ld.shared.f32 %f, [%ra]; ld.shared.f32 %g, [%rb]; fma.rn.f32 %sum, %f, %g, %sum;
    ld.shared.f32 %f, [%ra+4]; ld.shared.f32 %g, [%rb+32]; fma.rn.f32 %sum, %f, %g, %sum;
    ld.shared.f32 %f, [%ra+8]; ld.shared.f32 %g, [%rb+64]; fma.rn.f32 %sum, %f, %g, %sum;
    ld.shared.f32 %f, [%ra+12]; ld.shared.f32 %g, [%rb+96]; fma.rn.f32 %sum, %f, %g, %sum;
    ld.shared.f32 %f, [%ra+16]; ld.shared.f32 %g, [%rb+128]; fma.rn.f32 %sum, %f, %g, %sum;
    ld.shared.f32 %f, [%ra+20]; ld.shared.f32 %g, [%rb+160]; fma.rn.f32 %sum, %f, %g, %sum;
    ld.shared.f32 %f, [%ra+24]; ld.shared.f32 %g, [%rb+192]; fma.rn.f32 %sum, %f, %g, %sum;
    ld.shared.f32 %f, [%ra+28]; ld.shared.f32 %g, [%rb+224]; fma.rn.f32 %sum, %f, %g, %sum;
    bar.sync 0; // used
    add.u64 %a, %a, 32;
    add.u64 %b, %b, 1024;
    add.u32 %k, %k, 1;
    setp.lt.u32 %p, %k, 4;
    @%p bra next;
    mad.lo.u32 %i, %r, 32, %q; mad.wide.u32 %at, %i, 4, %c;
    st.global.f32 [%at], %sum;
    ret;
}";

/// The same sum, but the tile of step `k + 1` is copied to the other half of the tiles while step `k` is computed.
fn pipelined() -> String {
    let text = TILED.replace("ta[64]", "ta[128]").replace("tb[64]", "tb[128]");
    let copy = "cp.async.ca.shared.global [%sa], [%a], 4;\n cp.async.ca.shared.global [%sb], [%b], 4;\n \
        cp.async.commit_group;\n";
    let (before, rest) = text.split_once("next:").unwrap();
    let (_, rest) = rest.split_once("bar.sync 0; // filled").unwrap();
    let (sums, rest) = rest.split_once("bar.sync 0; // used").unwrap();
    let (_, rest) = rest.split_once("add.u32 %k, %k, 1;").unwrap();
    format!(
        "{before} {copy}
    next:
        add.u64 %a, %a, 32; add.u64 %b, %b, 1024;
        xor.b32 %sa, %sa, 256; xor.b32 %sb, %sb, 256; // the other stage
        setp.lt.u32 %p, %k, 3;
        @!%p bra last;
        {copy}
        bra wait;
    last:
        cp.async.commit_group;
    wait:
        cp.async.wait_group 1;
        bar.sync 0; // filled
        {sums}
        bar.sync 0; // used
        xor.b32 %ra, %ra, 256; xor.b32 %rb, %rb, 256;
        add.u32 %k, %k, 1; {rest}"
    )
}

fn inputs() -> (Vec<f32>, Vec<f32>) {
    let value = |i: usize| ((i * 37 + 11) % 101) as f32 / 17.0 - 3.0;
    ((0..N * N).map(value).collect(), (0..N * N).map(|i| value(i * 3 + 5)).collect())
}

fn multiply(text: &str) -> (Result<Stats, Error>, Vec<f32>) {
    let (a, b) = inputs();
    let mut memory = Memory::new();
    let (a, b, c) = (memory.upload("a", &a), memory.upload("b", &b), memory.allocate("c", N * N * 4));
    let args = [Arg::Buffer(a), Arg::Buffer(b), Arg::Buffer(c)];
    let result = module(text).launch(&mut memory, "k", [4, 4, 1], [8, 8, 1], 0, &args);
    (result, memory.download(c).unwrap_or_default())
}

fn expected() -> Vec<f32> {
    let (a, b) = inputs();
    let sum = |i: usize, j: usize| (0..N).fold(0f32, |s, k| a[i * N + k].mul_add(b[k * N + j], s));
    (0..N * N).map(|ij| sum(ij / N, ij % N)).collect()
}

#[test]
fn tiled_products() {
    let (stats, found) = multiply(TILED);
    assert_eq!(stats.unwrap().barriers, 16 * 8);
    assert_eq!(found, expected());
    let (stats, found) = multiply(&pipelined());
    stats.unwrap();
    assert_eq!(found, expected());
}

#[test]
fn each_barrier_is_needed() {
    for text in [TILED.to_string(), pipelined()] {
        for barrier in ["bar.sync 0; // filled", "bar.sync 0; // used"] {
            let (_, found) = fault(multiply(&text.replace(barrier, "")).0);
            assert!(
                matches!(found, Fault::Race { .. } | Fault::UninitialisedMemory { .. }),
                "{barrier}: {found}"
            );
        }
    }
}

#[test]
fn waiting_is_needed() {
    let text = pipelined();
    let (_, found) = fault(multiply(&text.replace("cp.async.wait_group 1;", "")).0);
    assert!(matches!(found, Fault::CopyPending { .. }), "{found}");
    // One group too many may still be on its way.
    let (_, found) = fault(multiply(&text.replace("wait_group 1", "wait_group 2")).0);
    assert!(matches!(found, Fault::CopyPending { .. }), "{found}");
    // Without the empty group of the last step its wait leaves the last copy open.
    let (_, found) = fault(multiply(&text.replace("last:\n        cp.async.commit_group;", "last:")).0);
    assert!(matches!(found, Fault::CopyPending { .. }), "{found}");
    assert!(multiply(&text.replace("cp.async.wait_group 1;", "cp.async.wait_all;")).0.is_ok());
}

#[test]
fn the_stages_must_not_be_mixed_up() {
    let (_, found) = fault(multiply(&pipelined().replace("xor.b32 %sa, %sa, 256;", "")).0);
    assert!(matches!(found, Fault::CopyPending { .. } | Fault::Race { .. }), "{found}");
}

/// One copy of 16 bytes in a single thread, of which `size` come from memory, and what is there then.
fn copy(operands: &str, wait: &str) -> (Result<Stats, Error>, Vec<u32>) {
    let text = format!(
        ".visible .entry k(.param .u64 x, .param .u64 y) {{
            .shared .align 16 .b8 s[32];
            .reg .b64 %x; .reg .b32 %n, %r<4>; .reg .pred %p;
            mov.u32 %n, 8;
            setp.eq.u32 %p, %n, 8;
            ld.param.u64 %x, [x];
            cp.async.{operands};
            {wait}
            ld.shared.v4.u32 {{%r0, %r1, %r2, %r3}}, [s];
            ld.param.u64 %x, [y];
            st.global.v4.u32 [%x], {{%r0, %r1, %r2, %r3}};
        }}"
    );
    let mut memory = Memory::new();
    let (x, y) = (memory.upload("x", &[1u32, 2, 3, 4, 5, 6]), memory.allocate("y", 16));
    let result = module(&text).launch(&mut memory, "k", [1; 3], [1; 3], 0, &[Arg::Buffer(x), Arg::Buffer(y)]);
    (result, memory.download(y).unwrap_or_default())
}

#[test]
fn copies_fill_with_zeros() {
    let all = "cp.async.wait_all;";
    assert_eq!(copy("cg.shared.global [s], [%x], 16", all).1, [1, 2, 3, 4]);
    assert_eq!(copy("cg.shared.global.L2::128B [s], [%x], 16, %n", all).1, [1, 2, 0, 0]);
    assert_eq!(copy("ca.shared.global [s], [%x], 16, 12", all).1, [1, 2, 3, 0]);
    assert_eq!(copy("ca.shared.global [s], [%x], 16, 0", all).1, [0; 4]);
    // What lies past the size is not read: the buffer ends after 8 bytes here.
    assert_eq!(copy("ca.shared.global [s], [%x+16], 16, 8", all).1, [5, 6, 0, 0]);
    // Where nothing is read the address may be anywhere, but must be aligned.
    assert_eq!(copy("ca.shared.global [s], [%x+1600], 16, 0", all).1, [0; 4]);
    let (_, found) = fault(copy("ca.shared.global [s], [%x+1604], 16, 0", all).0);
    assert!(matches!(found, Fault::Misaligned { .. }), "{found}");
    let (_, found) = fault(copy("ca.shared.global [s], [%x+16], 16", all).0);
    assert!(matches!(found, Fault::OutOfBounds { .. }), "{found}");
    let (_, found) = fault(copy("ca.shared.global [s], [%x+4], 16", all).0);
    assert!(matches!(found, Fault::Misaligned { .. }), "{found}");
    let (_, found) = fault(copy("ca.shared.global [s], [%x], 4, %n", all).0);
    assert!(matches!(found, Fault::Operand { value: 8, limit: 4, .. }), "{found}");
}

#[test]
fn copies_that_nobody_waits_for() {
    let (_, found) = fault(copy("ca.shared.global [s], [%x], 16", "").0);
    assert!(matches!(found, Fault::CopyPending { thread: 0, .. }), "{found}");
    // A wait for groups does not wait for what is in none.
    let (_, found) = fault(copy("ca.shared.global [s], [%x], 16", "cp.async.wait_group 0;").0);
    assert!(matches!(found, Fault::CopyPending { thread: 0, .. }), "{found}");
    let other =
        "ca.shared.global [s], [%x], 16; cp.async.wait_all; cp.async.ca.shared.global [s+16], [%x], 4";
    let (_, found) = fault(copy(other, "").0);
    assert_eq!(found, Fault::CopyAtExit(1));
}
