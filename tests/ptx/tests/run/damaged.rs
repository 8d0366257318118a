//! Damaged text: whatever happens to a module, reading and running it ends with a result or an error.

use nnc_ptx_interpreter::{Arg, Memory, Module};
use proptest::prelude::*;

use crate::support::source;

/// A bit of everything.
const TEXT: &str = ".extern .shared .align 16 .b8 pool[];
.visible .entry k(.param .u64 x, .param .u32 n, .param .align 8 .b8 rest[8]) .maxntid 64, 1, 1
{
    .reg .pred %p<3>; .reg .b16 %h<3>; .reg .b32 %r<12>; .reg .b64 %d<4>; .reg .f32 %f<8>; .reg .v4 .f32 %v;
    .shared .align 16 .f32 tile[128]; .local .align 16 .b8 own[32];
    ld.param.u64 %d0, [x]; ld.param.u32 %r0, [n]; ld.param.v2.u32 {%r1, %r2}, [rest];
    mov.u32 %r3, %tid.x;
    mad.wide.u32 %d1, %r3, 4, %d0;
    ld.global.f32 %f0, [%d1];
    mov.u32 %r4, tile;
    mad.lo.u32 %r4, %r3, 4, %r4;
    st.shared.f32 [%r4], %f0;
    cp.async.ca.shared.global [%r4+256], [%d1], 4, %r0;
    cp.async.commit_group;
    cp.async.wait_group 0;
    bar.sync 0;
    mov.u32 %r5, 0;
loop:
    ld.shared.v4.f32 %v, [tile+16];
    fma.rn.f32 %f0, %v.x, 0f3F000000, %f0;
    cvt.rna.tf32.f32 %r6, %f0; cvt.rn.bf16x2.f32 %r7, %f0, %v.y; mov.b32 {%h0, %h1}, %r7; cvt.s32.s16 %r8, %h1;
    shfl.sync.bfly.b32 %f1|%p1, %f0, 16, 31, -1;
    div.s32 %r9, %r8, %r5; shr.s32 %r9, %r9, 3; popc.b32 %r9, %r9; st.local.u32 [own+4], %r9;
    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f2, %f3, %f4, %f5}, {%r6, %r6, %r6, %r6}, {%r7, %r7},
        {%f0, %f0, %f1, %f1};
    add.u32 %r5, %r5, 1;
    setp.lt.and.u32 %p0|%p2, %r5, 3, %p1;
    @%p0 bra loop;
    vote.sync.ballot.b32 %r10, %p0, -1; max.NaN.f32 %f2, %f2, %f3; selp.f32 %f2, %f2, %f4, %p2;
    @!%p2 bra end;
    st.global.f32 [%d1], %f2;
end:
    ret;
}";

fn try_all(text: &str) {
    let Ok(mut module) = Module::parse(text) else { return };
    module.set_step_limit(2000);
    let names: Vec<String> = module.kernels().map(str::to_string).collect();
    for name in names {
        for block in [32, 64] {
            let mut memory = Memory::new();
            let x = memory.upload("x", &[1f32; 64]);
            let args = [Arg::Buffer(x), Arg::U32(4), Arg::Bytes(vec![0; 8])];
            let _ = module.launch(&mut memory, &name, [2, 1, 1], [block, 1, 1], 64, &args);
        }
    }
}

#[test]
fn the_text_is_right_as_it_stands() {
    let module = crate::support::module(TEXT);
    let mut memory = Memory::new();
    let x = memory.upload("x", &[1f32; 64]);
    let args = [Arg::Buffer(x), Arg::U32(4), Arg::Bytes(vec![0; 8])];
    module.launch(&mut memory, "k", [1; 3], [64, 1, 1], 64, &args).unwrap();
}

/// Words to put into the text.
const WORDS: [&str; 24] = [
    ";",
    ",",
    "{",
    "}",
    "[",
    "]",
    "-1",
    "0",
    "4294967295",
    "18446744073709551615",
    "%r0",
    "%p0",
    "%d0",
    "%f0",
    "%h0",
    "tile",
    "own",
    ".reg",
    "bra loop;",
    "bar.sync 0;",
    "@%p0",
    "ret;",
    "9999999999999999999999",
    "é",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_text_never_panics(edits in prop::collection::vec((any::<usize>(), 0usize..6, any::<usize>()), 1..5)) {
        let mut text = source(TEXT);
        for (at, kind, what) in edits {
            let tokens: Vec<(usize, usize)> = words(&text);
            if tokens.is_empty() {
                break;
            }
            let (start, end) = tokens[at % tokens.len()];
            let (other, other_end) = tokens[what % tokens.len()];
            let replacement = match kind {
                0 => String::new(),
                1 | 2 => WORDS[what % WORDS.len()].to_string(),
                3 => text[other..other_end].to_string(),
                4 => format!("{0} {0}", &text[start..end]),
                _ => text[start..end].chars().rev().collect(),
            };
            text.replace_range(start..end, &replacement);
        }
        try_all(&text);
    }

    #[test]
    fn cut_text_never_panics(at in 0usize..3000) {
        let text = source(TEXT);
        if let Some(cut) = text.get(..at) {
            try_all(cut);
        }
    }
}

/// Byte ranges of pieces of letters and digits, and of other single characters.
fn words(text: &str) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = vec![];
    let mut open = false;
    for (i, c) in text.char_indices() {
        let word = c.is_alphanumeric() || matches!(c, '%' | '_' | '.');
        match out.last_mut() {
            Some(last) if word && open => last.1 = i + c.len_utf8(),
            _ if !c.is_whitespace() => out.push((i, i + c.len_utf8())),
            _ => {}
        }
        open = word;
    }
    out
}
