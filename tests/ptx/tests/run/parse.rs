//! What is not PTX, or not of the subset, is refused with its line.

use nnc_ptx_interpreter::Module;

use crate::support::{module, source};

fn refused(text: &str) -> String {
    match Module::parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(e) => e.to_string(),
    }
}

/// The message about a body, whose first line is the fifth.
fn body(text: &str) -> String {
    refused(&source(&format!(
        ".visible .entry k(.param .u64 x) {{ .reg .b32 %r<9>; .reg .f32 %f<9>; .reg .b64 %d<9>; .reg .pred %p<9>; \
         .reg .b16 %h<9>; .shared .b32 s[4];\n{text}\n}}"
    )))
}

#[test]
fn instructions_outside_the_subset() {
    let cases = [
        ("frob.u32 %r0, %r1;", "line 5: the instruction `frob.u32` is not supported"),
        ("add.frob.u32 %r0, %r1, %r2;", "line 5: `add.frob.u32`: `.frob` is not supported here"),
        ("add.rz.f32 %f0, %f1, %f2;", "line 5: `add.rz.f32`: `.rz` is not supported here"),
        ("fma.f32 %f0, %f1, %f2, %f3;", "line 5: `fma.f32`: a rounding is missing (`.rn`)"),
        ("div.f32 %f0, %f1, %f2;", "line 5: `div.f32`: `.f32` is not supported here"),
        (
            "atom.global.add.f32 %f0, [%d0], %f1;",
            "line 5: `atom.global.add.f32`: atomic operations are not supported: \
            their order is not fixed, so sums would differ from run to run",
        ),
        (
            "ld.f32 %f0, [%d0];",
            "line 5: `ld.f32`: a state space is missing (generic addresses are not supported)",
        ),
        (
            "ld.volatile.global.f32 %f0, [%d0];",
            "line 5: `ld.volatile.global.f32`: `.volatile` is not supported here",
        ),
        ("bar.sync 0, 32;", "line 5: `bar.sync`: a barrier of a part of the block is not supported"),
        ("exit.uni;", "line 5: `exit.uni`: `.uni` is not supported here"),
        ("ld.global.f16 %h0, [%d0];", "line 5: `ld.global.f16`: `.f16` is not supported here"),
        ("prmt.f4e.b32 %r0, %r1, %r2, %r3;", "line 5: `prmt.f4e.b32`: `.f4e` is not supported here"),
        ("add.rm.f32 %f0, %f1, %f2;", "line 5: `add.rm.f32`: `.rm` is not supported here"),
        (".loop 3;", "line 5: the directive `.loop` is not supported here"),
        ("call f;", "line 5: the instruction `call` is not supported"),
    ];
    for (text, expected) in cases {
        assert_eq!(body(text), expected);
    }
}

#[test]
fn operands_that_do_not_suit() {
    let cases = [
        ("add.u32 %r0, %r1;", "expected 3 operands, found 2"),
        ("add.u32 %r0, %q1, %r2;", "`%q1` is not declared"),
        ("add.u32 %r0, %r9, %r2;", "`%r9` is not declared"),
        ("add.f32 %f0, %f1, %d2;", "does not suit .f32"),
        ("add.u32 %r0, %f1, %r2;", "`%f1` is a .f32 register, which does not suit .u32"),
        ("add.u64 %d0, %d1, %r2;", "`%r2` is a .b32 register, which does not suit .u64"),
        ("add.u32 %r0, %r1, 0f3F800000;", "is no constant of type .u32"),
        ("add.f32 %f0, %f1, 1;", "`1` is no constant of type .f32"),
        ("add.u32 %r0, %r1, 4294967296;", "4294967296 does not fit .u32"),
        ("add.u32 1, %r1, %r2;", "`1` is no destination"),
        ("add.u32 %tid.x, %r1, %r2;", "`%tid.x` is not declared"),
        ("setp.lt.b32 %p0, %r0, %r1;", "there is no such comparison of this type"),
        ("setp.lo.s32 %p0, %r0, %r1;", "there is no such comparison of this type"),
        ("setp.ltu.u32 %p0, %r0, %r1;", "there is no such comparison of this type"),
        ("setp.lt.u32 %r0, %r0, %r1;", "`%r0` is no predicate"),
        ("@%r0 mov.u32 %r0, 1;", "the guard `%r0` is no predicate"),
        ("shl.b64 %d0, %d1, %d2;", "does not suit .u32"),
        ("mul.wide.u32 %r0, %r1, %r2;", "does not suit .u64"),
        ("ld.global.f32 %f0, [%r0];", "`%r0` has not the size of an address"),
        ("ld.global.f32 %f0, [s];", "`s` is in another state space"),
        ("ld.global.v4.f64 {%f0}, [%d0];", "`.f64` is not supported here"),
        ("ld.global.v2.f32 {%f0, %f1, %f2}, [%d0];", "expected a vector of 2, found 3"),
        ("ld.global.v4.u64 {%d0, %d1, %d2, %d3}, [%d0];", "more than 16 bytes"),
        ("ld.global.u32 %h0, [%d0];", "does not suit .u32"),
        ("ld.param.u64 %d0, [y];", "there is no parameter `y`"),
        ("ld.param.u64 %d0, [x+4];", "reads 8 bytes at 4 of `x`, which has 8"),
        ("mov.u32 %r0, 1; add.u32 %r0, %r0, %tid.x;", "`%tid.x` must be moved to a register first"),
        ("mov.u64 %d0, %tid.x;", "`%tid.x` is a .u32 register, which does not suit .u64"),
        ("{ l: } bra l;", "there is no label `l` here"),
        ("ldmatrix.sync.aligned.m8n8.x1.shared.b16 %r0, [%r1];", "`%r0` must be a vector in braces"),
        ("cp.async.ca.shared.global [s], [%d0], 4, 5;", "`5` must be a constant of at most 4"),
        ("cvt.rn.bf16.f32 %r0, %f0;", "`%r0` is a .b32 register, which does not suit .bf16"),
        ("bra nowhere;", "there is no label `nowhere` here"),
        ("cp.async.cg.shared.global [s], [%d0], 8;", "a copy of 8 bytes"),
        ("cvt.f32.s32 %f0, %r0;", "this conversion with this rounding is not supported"),
        ("cvt.s32.f32 %r0, %f0;", "this conversion with this rounding is not supported"),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.tf32.tf32.f32 {%f0,%f1,%f2,%f3}, {%r0,%r1,%r2,%r3}, {%r4,%r5}, \
          {%f0,%f1,%f2,%f3};",
            "there is no such shape of this type",
        ),
        (
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f0,%f1,%f2,%f3}, {%f0,%f1,%f2,%f3}, {%r4,%r5}, \
          {%f0,%f1,%f2,%f3};",
            "`%f0` is a .f32 register",
        ),
    ];
    for (text, expected) in cases {
        let found = body(text);
        assert!(found.contains(expected), "{text}: {found}");
        assert!(found.starts_with("line 5: "), "{found}");
    }
}

#[test]
fn declarations_and_directives() {
    let cases = [
        (".pragma \"other\";", "the pragmas that are known are"),
        (".reg .f64 %x;", "expected a type, found `.f64`"),
        (".reg .b8 %x;", "registers of type .b8 are not supported"),
        (".reg .b32 %r<3>;", "`%r<...>` is declared twice"),
        (".shared .b32 s[4];", "`s` is declared twice"),
        (".shared .b32 big[1000000];", "`big` is larger than any memory of a block"),
        (".reg .b32 %tid;", "`%tid` is a special register"),
        (".reg .b32 %r7;", "`%r7` is declared twice"),
        (".reg .b32 %q1; .reg .b32 %q<3>;", "`%q<...>` is declared twice"),
        ("l: l:", "the label `l` is defined twice"),
        ("add.u32 %r0, %r1, %r2", "expected `;`, found `}`"),
        ("mov.u32 %r0, 12ab;", "`12ab` is no number"),
        ("/* never ends", "the comment does not end"),
    ];
    for (text, expected) in cases {
        let found = body(text);
        assert!(found.contains(expected), "{text}: {found}");
    }
    assert_eq!(refused(".target sm_80"), "line 1: expected `.version`, found `.target`");
    assert!(refused(".version 99.0\n").contains("PTX version 99.0 is not known"));
    assert!(refused(".version 7.8\n.target sm_20\n").contains("`sm_20` is no target"));
    assert!(refused(".version 7.8\n.target sm_80\n.address_size 32\n").contains("address size 32"));
    assert_eq!(
        refused(&source(".func f() {}")),
        "line 4: expected `.entry`, `.shared` or the end, found `.func`"
    );
    assert_eq!(
        refused(&source(".visible .entry k() {")),
        "line 4: expected a statement, found the end of the text"
    );
}

#[test]
fn what_libraries_leave_behind_is_read_and_cannot_be_used() {
    let text = |body: &str| {
        // `used_bytes_mask` came with PTX 8.3.
        format!(
            ".version 8.3
            .target sm_80
            .address_size 64
            .global .align 1 .b8 _$_str[3] = {{95, 95, 0}};
            .visible .global .u32 flags = 3;
            .visible .entry k() {{
                .reg .b64 %d; .reg .b32 %r;
                .pragma \"used_bytes_mask 0xfff\";
                {body}
            }}"
        )
    };
    assert_eq!(module(&text("mov.b32 %r, 1;")).kernels().collect::<Vec<_>>(), ["k"]);
    assert!(refused(&text("mov.b64 %d, _$_str;")).contains("`_$_str` is not declared"));
    assert!(refused(&text("ld.global.u32 %r, [flags];")).contains("`flags` is not declared"));
}

#[test]
fn scopes_comments_and_line_tables_are_read() {
    let parsed = module(
        ".file 1 \"net.nn\"
        .visible .entry first() { ret; }
        .visible .entry k() .maxntid 128, 1, 1 .minnctapersm 2 {
            .reg .b32 %r<2>; .reg .pred %p;
            .loc 1 3 0
            .pragma \"nounroll\";
            { // a scope hides outer names
                .reg .b64 %r<2>;
                mov.u64 %r1, 5;
            }
            /* and restores them */ mov.u32 %r1, 0x1F;
            mov.u32 %r0, WARP_SZ;
            setp.eq.u32 %p, %r0, 040;
            $L__end_1:
            @%p ret;
            bra.uni $L__end_1;
        }",
    );
    assert_eq!(parsed.kernels().collect::<Vec<_>>(), ["first", "k"]);
}
