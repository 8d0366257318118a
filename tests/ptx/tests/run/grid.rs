//! Grids, blocks, launches, divergence; races between threads in global memory.

use nnc_ptx_interpreter::{Arg, Error, Fault, Memory};

use crate::support::{fault, module, run};

#[test]
fn special_registers_in_three_dimensions() {
    let module = module(
        ".visible .entry k(.param .u64 out) .maxntid 24, 1, 1 {
            .reg .b64 %out; .reg .b32 %n, %r<8>;
            mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z;
            mov.u32 %r3, %ntid.x; mov.u32 %r4, %ntid.y;
            mad.lo.u32 %n, %r2, %r4, %r1;
            mad.lo.u32 %n, %n, %r3, %r0;
            mov.u32 %r5, %ctaid.z; mov.u32 %r6, %nctaid.y; mov.u32 %r7, %ctaid.y;
            mad.lo.u32 %r5, %r5, %r6, %r7;
            mov.u32 %r6, %nctaid.x; mov.u32 %r7, %ctaid.x;
            mad.lo.u32 %r5, %r5, %r6, %r7;
            mad.lo.u32 %n, %r5, 24, %n;
            ld.param.u64 %out, [out];
            mad.wide.u32 %out, %n, 4, %out;
            mov.u32 %r0, %laneid; mov.u32 %r1, %warpid;
            mad.lo.u32 %r0, %r5, 1000, %r0;
            st.global.u32 [%out], %r0;
        }",
    );
    let mut memory = Memory::new();
    let out = memory.allocate("out", 12 * 24 * 4);
    module.launch(&mut memory, "k", [2, 2, 3], [4, 3, 2], 0, &[Arg::Buffer(out)]).unwrap();
    let expected: Vec<u32> = (0..12 * 24).map(|i| i / 24 * 1000 + i % 24).collect();
    assert_eq!(memory.download::<u32>(out).unwrap(), expected);
    assert!(matches!(
        module.launch(&mut memory, "k", [1, 1, 1], [25, 1, 1], 0, &[Arg::Buffer(out)]),
        Err(Error::Launch { .. })
    ));
}

/// Steps of the Collatz sequence: loops of different length, with a branch inside.
const COLLATZ: &str = ".visible .entry k(.param .u64 out) {
    .reg .pred %odd, %done; .reg .b64 %out; .reg .b32 %x, %n, %t, %b;
    mov.u32 %t, %tid.x;
    add.u32 %x, %t, 1;
    mov.u32 %n, 0;
loop:
    setp.eq.u32 %done, %x, 1;
    @%done bra end;
    add.u32 %n, %n, 1;
    and.b32 %b, %x, 1;
    setp.eq.u32 %odd, %b, 1;
    @%odd bra odd;
    shr.u32 %x, %x, 1;
    bra.uni loop;
odd:
    mad.lo.u32 %x, %x, 3, 1;
    bra loop;
end:
    bar.sync 0;
    ld.param.u64 %out, [out];
    mad.wide.u32 %out, %t, 4, %out;
    st.global.u32 [%out], %n;
    ret;
}";

fn collatz(mut x: u32) -> u32 {
    let mut n = 0;
    while x != 1 {
        x = if x % 2 == 1 { 3 * x + 1 } else { x / 2 };
        n += 1;
    }
    n
}

#[test]
fn lanes_that_part_meet_again() {
    let mut memory = Memory::new();
    let out = memory.allocate("out", 400);
    let stats = run(&module(COLLATZ), &mut memory, 1, 100, &[out]).unwrap();
    let expected: Vec<u32> = (1..=100).map(collatz).collect();
    assert_eq!(memory.download::<u32>(out).unwrap(), expected);
    assert!(stats.thread_instructions < 32 * stats.instructions);
}

#[test]
fn a_barrier_waits_for_lanes_that_come_from_further_on() {
    let text = ".visible .entry k(.param .u64 out) {
        .reg .pred %p; .reg .b64 %out; .reg .b32 %t, %v;
        mov.u32 %t, %tid.x;
        setp.ge.u32 %p, %t, 7;
        @%p bra aside;
        mov.u32 %v, 1;
    together:
        bar.sync 0;
        vote.sync.ballot.b32 %t, %p, -1;
        mov.u32 %t, %tid.x;
        ld.param.u64 %out, [out];
        mad.wide.u32 %out, %t, 4, %out;
        st.global.u32 [%out], %v;
        ret;
    aside:
        mov.u32 %v, 2;
        bra together;
    }";
    let mut memory = Memory::new();
    let out = memory.allocate("out", 256);
    run(&module(text), &mut memory, 1, 64, &[out]).unwrap();
    let expected: Vec<u32> = (0..64).map(|i| if i < 7 { 1 } else { 2 }).collect();
    assert_eq!(memory.download::<u32>(out).unwrap(), expected);
    // Two barriers are not one.
    let apart = text.replace("mov.u32 %v, 2;", "mov.u32 %v, 2; bar.sync 0;");
    let (_, found) = fault(run(&module(&apart), &mut memory, 1, 64, &[out]));
    assert!(matches!(found, Fault::DivergentBarrier { .. }), "{found}");
}

#[test]
fn endless_loops_end() {
    let mut module = module(&COLLATZ.replace("add.u32 %x, %t, 1", "mov.u32 %x, 0"));
    module.set_step_limit(10_000);
    let mut memory = Memory::new();
    let out = memory.allocate("out", 400);
    let (_, found) = fault(run(&module, &mut memory, 1, 100, &[out]));
    assert_eq!(found, Fault::StepLimit(10_000));
}

/// Writes `tid + shift` of its own block's part: a stencil in place if `read` and `write` overlap.
fn stencil(read: &str, between: &str) -> String {
    format!(
        ".visible .entry k(.param .u64 x) {{
            .reg .b64 %x, %at; .reg .b32 %t, %r; .reg .f32 %v; .reg .pred %p;
            mov.u32 %t, %ctaid.x; mov.u32 %r, %ntid.x; mul.lo.u32 %t, %t, %r; mov.u32 %r, %tid.x; add.u32 %t, %t, %r;
            ld.param.u64 %x, [x];
            mad.wide.u32 %at, %t, 4, %x;
            ld.global.f32 %v, [%at+{read}];
            {between}
            st.global.f32 [%at], %v;
        }}"
    )
}

fn run_stencil(text: &str, grid: u32, block: u32) -> Result<nnc_ptx_interpreter::Stats, Error> {
    let mut memory = Memory::new();
    let x = memory.upload("x", &[0f32; 256]);
    run(&module(text), &mut memory, grid, block, &[x])
}

#[test]
fn races_in_global_memory() {
    assert!(run_stencil(&stencil("0", ""), 2, 64).is_ok());
    let (_, found) = fault(run_stencil(&stencil("4", ""), 2, 64));
    assert!(matches!(&found, Fault::Race { access: "writes", .. }), "{found}");
    // A barrier orders the threads of a block, but not blocks.
    assert!(run_stencil(&stencil("4", "bar.sync 0;"), 1, 64).is_ok());
    let (_, found) = fault(run_stencil(&stencil("4", "bar.sync 0;"), 2, 64));
    assert!(matches!(&found, Fault::Race { other, .. } if other.contains("another block")), "{found}");
    // All threads write one word.
    let all = stencil("0", "mov.u64 %at, %x;");
    let (_, found) = fault(run_stencil(&all, 1, 2));
    assert!(matches!(&found, Fault::Race { access: "writes", .. }), "{found}");
    assert!(run_stencil(&all, 1, 1).is_ok());
    let (_, found) = fault(run_stencil(&all, 2, 1));
    assert!(matches!(&found, Fault::Race { .. }), "{found}");
}

#[test]
fn launches_are_ordered() {
    let module = module(&stencil("4", ""));
    let mut memory = Memory::new();
    let x = memory.upload("x", &[1f32, 2., 3., 4.]);
    for _ in 0..3 {
        run(&module, &mut memory, 1, 1, &[x]).unwrap();
    }
    assert_eq!(memory.download::<f32>(x).unwrap(), [2., 2., 3., 4.]);
}

#[test]
fn the_read_only_path_needs_memory_that_nobody_writes() {
    let text = stencil("0", "").replace("ld.global", "ld.global.nc");
    let (_, found) = fault(run_stencil(&text, 1, 64));
    assert_eq!(found, Fault::NonCoherent("x".into()));
}

#[test]
fn wild_addresses() {
    let (_, found) = fault(run_stencil(&stencil("0", "mov.u64 %at, 64;"), 1, 1));
    assert_eq!(found, Fault::WildAddress(64));
    let (_, found) = fault(run_stencil(&stencil("0", "sub.u64 %at, %at, 4;"), 1, 1));
    assert!(matches!(&found, Fault::OutOfBounds { place, .. } if place.offset == -4), "{found}");
}

#[test]
fn launches_that_do_not_suit() {
    let module = module(&stencil("0", ""));
    let mut memory = Memory::new();
    let x = memory.upload("x", &[0f32; 4]);
    let mut refused = |name: &str, block: u32, shared: u32, args: &[Arg]| {
        module.launch(&mut memory, name, [1; 3], [block, 1, 1], shared, args).unwrap_err().to_string()
    };
    let x = Arg::Buffer(x);
    assert_eq!(refused("other", 1, 0, &[]), "the module has no kernel `other`");
    assert_eq!(refused("k", 1, 0, &[]), "cannot launch `k`: expected 1 arguments, found 0");
    assert_eq!(refused("k", 1, 0, &[Arg::U32(0)]), "cannot launch `k`: `x` has 8 bytes, the argument 4");
    assert_eq!(
        refused("k", 0, 0, std::slice::from_ref(&x)),
        "cannot launch `k`: a block of [0, 1, 1]: 0 is not in 1 to 1024"
    );
    assert!(refused("k", 1, 16, &[x]).contains("dynamic shared memory"));
}
