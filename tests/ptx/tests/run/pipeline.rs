//! A matrix product as a good kernel does it: three stages of `cp.async` with borders filled by zeros,
//! one barrier a step, TF32 fragments from tiles without bank conflicts, guarded stores. And what breaks it.

use nnc_ptx_interpreter::{Arg, Error, Fault, Memory, Stats};

use crate::support::{fault, module};

/// Sizes of C = A·Bᵀ (A is M x K, B is N x K, both row-major), none a multiple of its tile's.
const M: usize = 60;
const N: usize = 28;
const K: usize = 72;

/// Tiles of a block: 32 x 16 of C, 16 along k; a warp has 16 rows.
const TILE_M: usize = 32;
const TILE_N: usize = 16;
const TILE_K: usize = 16;

/// Bytes of a row of a tile in shared memory. Its four pieces of 16 bytes are permuted: piece `c` of row
/// `r` is at `c ^ (r / 2 % 4)`, so that neither copies nor fragments have two words in one bank.
const PITCH: usize = TILE_K * 4;

/// Copies 16 bytes of each of a thread's three rows to the stage at `%to`; past the matrix zeros.
const COPY: &str = "
    setp.lt.and.u32 %p, %k, KK, %row0; selp.u32 %n, 16, 0, %p; add.u32 %i, %to, %put0; cp.async.cg.shared.global [%i], [%from0], 16, %n;
    setp.lt.and.u32 %p, %k, KK, %row1; selp.u32 %n, 16, 0, %p; add.u32 %i, %to, %put1; cp.async.cg.shared.global [%i], [%from1], 16, %n;
    setp.lt.and.u32 %p, %k, KK, %row2; selp.u32 %n, 16, 0, %p; add.u32 %i, %to, %put2; cp.async.cg.shared.global [%i], [%from2], 16, %n;
    cp.async.commit_group;
    add.u64 %from0, %from0, 64; add.u64 %from1, %from1, 64; add.u64 %from2, %from2, 64;
    add.u32 %k, %k, 16; NEXT(%to)";

const KERNEL: &str = ".visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c) .maxntid 64, 1, 1
{
    .shared .align 16 .b8 stages[ALL];
    .reg .pred %p, %q, %row<3>; .reg .b64 %a, %b, %c, %from<3>; .reg .f32 %x, %sum<8>;
    .reg .b32 %own, %w, %g, %t, %i, %n, %k, %r, %to, %at, %step, %put<3>, %getA, %getB, %piece<4>, %ra<4>, %rb<2>;
    mov.u32 %own, %tid.x;
    shr.u32 %w, %own, 5;
    and.b32 %i, %own, 31;
    shr.u32 %g, %i, 2;
    and.b32 %t, %own, 3;
    ld.param.u64 %a, [a]; ld.param.u64 %b, [b]; ld.param.u64 %c, [c];
    // What a thread copies: 16 bytes of rows r and r + 16 of A, and of row r of B.
    shr.u32 %r, %own, 2;
    shl.b32 %k, %t, 2;
    shr.u32 %n, %r, 1; and.b32 %n, %n, 3; xor.b32 %n, %n, %t; shl.b32 %n, %n, 4;
    mov.u32 %i, stages; add.u32 %i, %i, %n;
    mad.lo.u32 %put0, %r, PITCH, %i; add.u32 %put1, %put0, HALF_A; add.u32 %put2, %put0, ALL_A;
    mov.u32 %i, %ctaid.y; mad.lo.u32 %i, %i, 32, %r;
    setp.lt.u32 %row0, %i, MM; mad.lo.u32 %n, %i, KK, %k; mad.wide.u32 %from0, %n, 4, %a;
    add.u32 %i, %i, 16;
    setp.lt.u32 %row1, %i, MM; mad.lo.u32 %n, %i, KK, %k; mad.wide.u32 %from1, %n, 4, %a;
    mov.u32 %i, %ctaid.x; mad.lo.u32 %i, %i, 16, %r;
    setp.lt.u32 %row2, %i, NN; mad.lo.u32 %n, %i, KK, %k; mad.wide.u32 %from2, %n, 4, %b;
    // Where its fragments begin: row 16 w + g of A and row g of B, element t.
    mov.u32 %i, stages; mad.lo.u32 %i, %t, 4, %i;
    shl.b32 %n, %w, 4; add.u32 %n, %n, %g; mad.lo.u32 %getA, %n, PITCH, %i;
    add.u32 %i, %i, ALL_A; mad.lo.u32 %getB, %g, PITCH, %i;
    shr.u32 %n, %g, 1; and.b32 %n, %n, 3; shl.b32 %piece0, %n, 4;
    xor.b32 %piece1, %piece0, 16; xor.b32 %piece2, %piece0, 32; xor.b32 %piece3, %piece0, 48;
    ZEROS
    mov.u32 %to, 0;
    COPY
    COPY
    mov.u32 %at, 0;
    mov.u32 %step, 0;
next:
    cp.async.wait_group 1;
    bar.sync 0;
    COPY
    MATH
    NEXT(%at)
    add.u32 %step, %step, 1;
    setp.lt.u32 %p, %step, STEPS;
    @%p bra next;
    cp.async.wait_all;
    // Rows 16 w + g and 8 further down, columns 2 t and the next.
    mov.u32 %i, %ctaid.y; shl.b32 %i, %i, 5; mad.lo.u32 %i, %w, 16, %i; add.u32 %r, %i, %g;
    mov.u32 %i, %ctaid.x; shl.b32 %i, %i, 4; mad.lo.u32 %n, %t, 2, %i;
    STORES
    ret;
}";

/// One step along k: fragments from shared memory, rounded, and the products of two tiles of C.
fn math() -> String {
    let mut out = String::from("add.u32 %r, %getA, %at; add.u32 %n, %getB, %at;\n");
    let load = |to: &str, from: &str, piece: usize, row: usize| {
        let offset = row * PITCH;
        format!(
            "    add.u32 %i, {from}, %piece{piece}; ld.shared.f32 %x, [%i+{offset}]; cvt.rna.tf32.f32 {to}, %x;\n"
        )
    };
    for k in 0..TILE_K / 8 {
        for (i, (piece, row)) in [(0, 0), (0, 8), (1, 0), (1, 8)].into_iter().enumerate() {
            out += &load(&format!("%ra{i}"), "%r", 2 * k + piece, row);
        }
        for n in 0..TILE_N / 8 {
            out += &load("%rb0", "%n", 2 * k, 8 * n);
            out += &load("%rb1", "%n", 2 * k + 1, 8 * n);
            let sums = (0..4).map(|i| format!("%sum{}", 4 * n + i)).collect::<Vec<_>>().join(", ");
            out += &format!(
                "    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {{{sums}}}, \
                 {{%ra0, %ra1, %ra2, %ra3}}, {{%rb0, %rb1}}, {{{sums}}};\n"
            );
        }
    }
    out
}

/// Pairs of C, where they are inside.
fn stores() -> String {
    let mut out = String::new();
    for (row, column) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
        let sum = column / 8 * 4 + row / 8 * 2;
        out += &format!(
            "    add.u32 %k, %r, {row}; add.u32 %i, %n, {column}; setp.lt.u32 %p, %k, MM; \
             setp.lt.and.u32 %p, %i, NN, %p; mad.lo.u32 %i, %k, NN, %i; mad.wide.u32 %from0, %i, 4, %c;\n    \
             @%p st.global.v2.f32 [%from0], {{%sum{sum}, %sum{}}};\n",
            sum + 1
        );
    }
    out
}

fn kernel() -> String {
    let stage = (TILE_M + TILE_N) * PITCH;
    let next = |r: &str| {
        format!("add.u32 {r}, {r}, {stage}; setp.eq.u32 %q, {r}, {}; selp.u32 {r}, 0, {r}, %q;", 3 * stage)
    };
    let zeros: String = (0..8).map(|i| format!("mov.f32 %sum{i}, 0f00000000; ")).collect();
    let numbers = [
        ("PITCH", PITCH),
        ("HALF_A", TILE_M / 2 * PITCH),
        ("ALL_A", TILE_M * PITCH),
        ("ALL", 3 * stage),
        ("STEPS", K.div_ceil(TILE_K)),
        ("MM", M),
        ("NN", N),
        ("KK", K),
    ];
    let mut text = KERNEL.replace("COPY", COPY).replace("MATH", &math()).replace("STORES", &stores());
    text =
        text.replace("ZEROS", &zeros).replace("NEXT(%to)", &next("%to")).replace("NEXT(%at)", &next("%at"));
    numbers.iter().fold(text, |text, (name, n)| text.replace(name, &n.to_string()))
}

fn matrix(rows: usize, seed: usize) -> Vec<f32> {
    (0..rows * K).map(|i| ((i * 7919 + seed) % 1009) as f32 / 504.5 - 1.0).collect()
}

fn multiply(text: &str) -> (Result<Stats, Error>, Vec<f32>) {
    let mut memory = Memory::new();
    let (a, b) = (memory.upload("a", &matrix(M, 1)), memory.upload("b", &matrix(N, 77)));
    let c = memory.allocate("c", M * N * 4);
    let grid = [N.div_ceil(TILE_N) as u32, M.div_ceil(TILE_M) as u32, 1];
    let args = [Arg::Buffer(a), Arg::Buffer(b), Arg::Buffer(c)];
    let result = module(text).launch(&mut memory, "k", grid, [64, 1, 1], 0, &args);
    (result, memory.download(c).unwrap_or_default())
}

/// The largest difference from the product of the rounded matrices.
fn error(found: &[f32]) -> f32 {
    let round = |x: f32| f64::from(f32::from_bits((x.to_bits() + 0x1000) & !0x1fff));
    let (a, b) = (matrix(M, 1), matrix(N, 77));
    let sum = |i: usize, j: usize| (0..K).map(|k| round(a[i * K + k]) * round(b[j * K + k])).sum::<f64>();
    let difference = |(ij, f): (usize, &f32)| (sum(ij / N, ij % N) as f32 - f).abs();
    found.iter().enumerate().map(difference).fold(0.0, f32::max)
}

#[test]
fn the_product() {
    let (stats, found) = multiply(&kernel());
    let stats = stats.unwrap();
    assert_eq!(found.len(), M * N);
    assert!(error(&found) < 1e-5, "{}", error(&found));
    // 4 blocks of 2 warps, 5 steps of 2 x 2 products.
    assert_eq!((stats.mmas, stats.unrounded_tf32), (4 * 2 * 5 * 4, 0));
    assert_eq!(stats.bank_conflicts, 0);
}

#[test]
fn what_breaks_it() {
    let text = kernel();
    let broken = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        multiply(&text.replacen(from, to, 1))
    };
    let (_, found) = fault(broken("bar.sync 0;", "").0);
    assert!(matches!(found, Fault::Race { .. } | Fault::CopyPending { .. }), "{found}");
    let (_, found) = fault(broken("cp.async.wait_group 1;", "cp.async.wait_group 2;").0);
    assert!(matches!(found, Fault::CopyPending { .. }), "{found}");
    let (_, found) = fault(broken("cp.async.wait_all;", "").0);
    assert!(matches!(found, Fault::CopyAtExit(_)), "{found}");
    // Two stages of three: the copy overtakes the reader.
    let (_, found) =
        fault(broken("mov.u32 %at, 0;", &format!("mov.u32 %at, {};", (TILE_M + TILE_N) * PITCH)).0);
    assert!(matches!(found, Fault::CopyPending { .. } | Fault::Race { .. }), "{found}");
    // A border that is not guarded.
    let (_, found) = fault(broken("%row1; selp.u32 %n, 16, 0, %p;", "%row1; mov.u32 %n, 16;").0);
    assert!(matches!(&found, Fault::OutOfBounds { place, .. } if place.name == "a"), "{found}");
    let (_, found) =
        fault(broken("@%p st.global.v2.f32 [%from0], {%sum6", "st.global.v2.f32 [%from0], {%sum6").0);
    assert!(matches!(&found, Fault::Race { .. } | Fault::OutOfBounds { .. }), "{found}");
    // Wrong numbers.
    for (from, to) in [("{%rb0, %rb1}", "{%rb1, %rb0}"), ("%r, %piece1", "%r, %piece2"), ("%sum1}", "%sum0}")]
    {
        let (result, found) = broken(from, to);
        result.unwrap();
        assert!(error(&found) > 1e-2, "{from}");
    }
}
