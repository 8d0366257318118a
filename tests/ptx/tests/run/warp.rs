//! Shuffles, votes, barriers of warps, and what goes wrong with them.

use nnc_ptx_interpreter::{Fault, Memory, Stats};

use crate::support::{apply, fault, module, run};

fn lanes() -> Vec<u64> {
    (0..64).map(|i| 100 + i * i).collect()
}

/// Shuffles the values of two warps; `%q` says whether the source was in range.
fn shuffle(instruction: &str) -> Vec<u64> {
    let values = lanes();
    let zeros = vec![0; 64];
    let body = format!("{instruction} selp.u32 %t, 1000000, 0, %q; add.u32 %d, %d, %t;");
    apply(&body, ["b32"; 4], [&values, &zeros, &zeros])
}

#[test]
fn shuffles() {
    let v = lanes();
    let value = |lane: usize, from: usize, inside: bool| {
        v[lane / 32 * 32 + from] + if inside { 1_000_000 } else { 0 }
    };
    // Where a lane's value comes from, and whether that was in range.
    type Case<'a> = (&'a str, &'a dyn Fn(usize) -> (usize, bool));
    let cases: [Case; 6] = [
        ("shfl.sync.bfly.b32 %d|%q, %a, 5, 31, -1;", &|l| (l ^ 5, true)),
        ("shfl.sync.down.b32 %d|%q, %a, 3, 31, 0xffffffff;", &|l| {
            if l + 3 < 32 { (l + 3, true) } else { (l, false) }
        }),
        ("shfl.sync.up.b32 %d|%q, %a, 4, 0, -1;", &|l| if l >= 4 { (l - 4, true) } else { (l, false) }),
        ("shfl.sync.idx.b32 %d|%q, %a, 7, 31, -1;", &|_| (7, true)),
        // Segments of eight lanes: the upper field of the clamp fixes bits 3 and 4.
        ("shfl.sync.down.b32 %d|%q, %a, 1, 0x181f, -1;", &|l| {
            if l % 8 < 7 { (l + 1, true) } else { (l, false) }
        }),
        ("shfl.sync.idx.b32 %d|%q, %a, 2, 0x1807, -1;", &|l| (l / 8 * 8 + 2, true)),
    ];
    for (instruction, source) in cases {
        let found = shuffle(instruction);
        for (i, &f) in found.iter().enumerate() {
            let (from, inside) = source(i % 32);
            assert_eq!(f, value(i, from, inside), "{instruction} in lane {i}");
        }
    }
}

/// The sum of a warp's values, by halves.
const SUM: &str = ".visible .entry k(.param .u64 x, .param .u64 y) {
    .reg .b64 %x, %at; .reg .b32 %t; .reg .f32 %v, %o; .reg .pred %p;
    mov.u32 %t, %tid.x;
    ld.param.u64 %x, [x];
    mad.wide.u32 %at, %t, 4, %x;
    ld.global.f32 %v, [%at];
    shfl.sync.bfly.b32 %o, %v, 16, 31, -1; add.f32 %v, %v, %o;
    shfl.sync.bfly.b32 %o, %v, 8, 31, -1; add.f32 %v, %v, %o;
    shfl.sync.bfly.b32 %o, %v, 4, 31, -1; add.f32 %v, %v, %o;
    shfl.sync.bfly.b32 %o, %v, 2, 31, -1; add.f32 %v, %v, %o;
    shfl.sync.bfly.b32 %o, %v, 1, 31, -1; add.f32 %v, %v, %o;
    setp.eq.u32 %p, %t, 0;
    ld.param.u64 %x, [y];
    @%p st.global.f32 [%x], %v;
}";

fn sum(text: &str, threads: u32) -> (Result<Stats, nnc_ptx_interpreter::Error>, Vec<f32>) {
    let mut memory = Memory::new();
    let values: Vec<f32> = (0..32).map(|i| 0.1 + i as f32).collect();
    let (x, y) = (memory.upload("x", &values), memory.allocate("y", 4));
    let result = run(&module(text), &mut memory, 1, threads, &[x, y]);
    (result, memory.download(y).unwrap_or_default())
}

#[test]
fn a_sum_over_a_warp() {
    let mut values: Vec<f32> = (0..32).map(|i| 0.1 + i as f32).collect();
    for distance in [16, 8, 4, 2, 1] {
        values = (0..32).map(|l| values[l] + values[l ^ distance]).collect();
    }
    assert_eq!(sum(SUM, 32).1, [values[0]]);
}

#[test]
fn lanes_that_do_not_take_part() {
    let (_, found) = fault(sum(SUM, 20).0);
    assert_eq!(found, Fault::MissingLanes { missing: 0xfff0_0000 });
    // The upper half has gone another way.
    let text = SUM.replace(
        "shfl.sync.bfly.b32 %o, %v, 16, 31, -1;",
        "setp.ge.u32 %p, %t, 16; @%p bra on; shfl.sync.bfly.b32 %o, %v, 16, 31, 0xffff; on: mov.f32 %o, %v;",
    );
    let (_, found) = fault(sum(&text, 32).0);
    assert_eq!(found, Fault::InactiveLane(16));
    let text = SUM.replace("16, 31, -1", "16, 31, 0xffff");
    let (_, found) = fault(sum(&text, 32).0);
    assert!(matches!(found, Fault::NotUniform(_)), "{found}");
}

#[test]
fn votes() {
    let values: Vec<u64> = (0..64).collect();
    let zeros = vec![0; 64];
    let body = "setp.lt.u32 %p, %a, 40; vote.sync.ballot.b32 %t, %p, -1; vote.sync.all.pred %q, %p, -1;
        selp.u32 %u, 1, 0, %q; vote.sync.any.pred %q, !%p, -1; selp.u32 %d, 2, 0, %q; or.b32 %u, %u, %d;
        vote.sync.uni.pred %q, %p, -1; selp.u32 %d, 4, 0, %q; or.b32 %u, %u, %d; activemask.b32 %i; popc.b32 %i, %i;
        popc.b32 %t, %t; mad.lo.u32 %d, %t, 100, %u; mov.u32 %i, %tid.x;";
    let found = apply(body, ["b32"; 4], [&values, &zeros, &zeros]);
    assert!(found[..32].iter().all(|&v| v == 3205), "{found:?}");
    assert!(found[32..].iter().all(|&v| v == 802), "{found:?}");
}

#[test]
fn groups_of_a_warp() {
    let values: Vec<u64> = (0..64).collect();
    let zeros = vec![0; 64];
    // Eight lanes name each other.
    let members = "and.b32 %t, %u, 24; shl.b32 %t, 0xff, %t;";
    let run = |body: &str| apply(&format!("{members} {body}"), ["b32"; 4], [&values, &zeros, &zeros]);
    let swapped = run("shfl.sync.bfly.b32 %d, %a, 7, 0x1f, %t;");
    assert!(swapped.iter().enumerate().all(|(i, &v)| v == (i ^ 7) as u64), "{swapped:?}");
    let body = "setp.ge.u32 %p, %a, 12; vote.sync.ballot.b32 %d, %p, %t; vote.sync.all.pred %q, %p, %t;
        selp.u32 %u, 1, 0, %q; vote.sync.any.pred %q, %p, %t; selp.u32 %i, 2, 0, %q; or.b32 %u, %u, %i;
        vote.sync.uni.pred %q, %p, %t; selp.u32 %i, 4, 0, %q; or.b32 %u, %u, %i; shl.b32 %u, %u, 8; shr.u32 %t, %a, 3;
        and.b32 %t, %t, 3; shl.b32 %t, %t, 3; shr.u32 %d, %d, %t; or.b32 %d, %d, %u; mov.u32 %i, %tid.x;";
    let voted: Vec<u64> = run(body).chunks(8).map(|group| group[0]).collect();
    assert_eq!(voted, [0x400, 0x2f0, 0x7ff, 0x7ff, 0x7ff, 0x7ff, 0x7ff, 0x7ff]);
    assert!(run(body).chunks(8).all(|group| group.iter().all(|v| *v == group[0])));
}

#[test]
fn groups_that_do_not_agree() {
    // Lanes of the lower half name the whole warp, those of the upper half themselves.
    let text = SUM.replace(
        "shfl.sync.bfly.b32 %o, %v, 16, 31, -1;",
        ".reg .b32 %m; setp.lt.u32 %p, %t, 16; selp.b32 %m, -1, 0xffff0000, %p; shfl.sync.bfly.b32 %o, %v, 16, 31, %m;",
    );
    let (_, found) = fault(sum(&text, 32).0);
    assert!(matches!(found, Fault::NotUniform(what) if what.contains("different member masks")), "{found}");
    // A value from another group.
    let text = SUM.replace(
        "shfl.sync.bfly.b32 %o, %v, 16, 31, -1;",
        ".reg .b32 %m; setp.lt.u32 %p, %t, 16; selp.b32 %m, 0xffff, 0xffff0000, %p; shfl.sync.bfly.b32 %o, %v, 16, 31, %m;",
    );
    let (_, found) = fault(sum(&text, 32).0);
    assert_eq!(found, Fault::InactiveLane(16));
}

/// Lanes exchange words through shared memory, with a barrier of the warp between.
fn exchange(between: &str) -> Result<Stats, nnc_ptx_interpreter::Error> {
    let text = format!(
        ".visible .entry k() {{
            .shared .b32 s[64];
            .reg .b32 %t, %a, %v;
            mov.u32 %t, %tid.x;
            mov.u32 %a, s;
            mad.lo.u32 %a, %t, 4, %a;
            st.shared.u32 [%a], %t;
            {between}
            xor.b32 %t, %t, 1;
            mov.u32 %a, s;
            mad.lo.u32 %a, %t, 4, %a;
            ld.shared.u32 %v, [%a];
        }}"
    );
    run(&module(&text), &mut Memory::new(), 1, 64, &[])
}

#[test]
fn barriers_of_a_warp() {
    assert!(exchange("bar.warp.sync -1;").is_ok());
    assert!(exchange("bar.sync 0;").is_ok());
    let (_, found) = fault(exchange(""));
    assert!(matches!(found, Fault::Race { access: "reads", .. }), "{found}");
}

#[test]
fn divergent_barriers() {
    // Within a warp.
    let (_, found) = fault(exchange(".reg .pred %p; setp.lt.u32 %p, %t, 8; @%p bar.sync 0;"));
    assert_eq!(found, Fault::DivergentBarrier { missing: 0xffff_ff00 });
    // One warp of two.
    let (_, found) = fault(exchange(".reg .pred %p; setp.lt.u32 %p, %t, 32; @%p bar.sync 0; ret;"));
    assert_eq!(found, Fault::BarrierNotReached(32));
    // Threads that have ended do not arrive.
    let (_, found) = fault(exchange(".reg .pred %p; setp.gt.u32 %p, %t, 60; @%p exit; bar.sync 0;"));
    assert_eq!(found, Fault::DivergentBarrier { missing: 0xe000_0000 });
    // Two barriers of different number.
    let (_, found) =
        fault(exchange(".reg .pred %p; setp.lt.u32 %p, %t, 32; @%p bar.sync 0; @!%p bar.sync 1;"));
    assert_eq!(found, Fault::BarrierNotReached(32));
}

#[test]
fn uniform_branches() {
    let (_, found) = fault(exchange(".reg .pred %p; setp.lt.u32 %p, %t, 8; @%p bra.uni on; on: bar.sync 0;"));
    assert!(matches!(found, Fault::NotUniform(_)), "{found}");
    assert!(exchange(".reg .pred %p; setp.lt.u32 %p, %t, 32; @%p bra.uni on; on: bar.sync 0;").is_ok());
}
