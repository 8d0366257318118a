//! Loads and stores of all widths, parameters, shared and local memory.

use nnc_ptx_interpreter::{Arg, Error, Fault, Memory, Stats};

use crate::support::{fault, module, run};

#[test]
fn parameters_of_all_kinds() {
    let module = module(
        ".visible .entry k(.param .u64 .ptr .global .align 16 out, .param .u32 n, .param .f32 x, .param .s32 i,
                           .param .align 8 .b8 rest[24]) {
            .reg .b64 %out, %a, %b; .reg .b32 %r<4>; .reg .f32 %x;
            ld.param.u64 %out, [out];
            ld.param.u32 %r0, [n];
            ld.param.f32 %x, [x];
            ld.param.s32 %r1, [i];
            ld.param.v2.u32 {%r2, %r3}, [rest+16];
            st.global.u32 [%out], %r0;
            st.global.f32 [%out+4], %x;
            st.global.v2.b32 [%out+8], {%r1, %r2};
            st.global.u32 [%out+16], %r3;
            ld.param.u64 %a, [rest];
            ld.param.u64 %b, [rest+8];
            add.u64 %a, %a, %b;
            st.global.u64 [%out+24], %a;
            mov.u32 %r0, 9;
            st.global.u8 [%out+20], %r0;
            st.global.v2.u8 [%out+22], {%r0, %r0};
            st.global.u8 [%out+21], 8;
        }",
    );
    let mut memory = Memory::new();
    let out = memory.allocate("out", 32);
    let mut rest = vec![];
    for v in [1u64 << 40, 5, 7 << 32 | 6] {
        rest.extend(v.to_le_bytes());
    }
    let args = [Arg::Buffer(out), Arg::U32(3), Arg::F32(0.5), Arg::I32(-4), Arg::Bytes(rest)];
    module.launch(&mut memory, "k", [1; 3], [1; 3], 0, &args).unwrap();
    let found: Vec<u32> = memory.download(out).unwrap();
    assert_eq!(found, [3, 0.5f32.to_bits(), -4i32 as u32, 6, 7, 0x0909_0809, 5, 256]);
}

#[test]
fn narrow_loads_are_extended() {
    let module = module(
        ".visible .entry k(.param .u64 in, .param .u64 out) {
            .reg .b64 %in, %out, %w; .reg .b32 %r<5>; .reg .b16 %h;
            ld.param.u64 %in, [in]; ld.param.u64 %out, [out];
            ld.global.u8 %r0, [%in];
            ld.global.s8 %r1, [%in];
            ld.global.s16 %r2, [%in];
            ld.global.nc.b16 %h, [%in+2];
            cvt.s32.s16 %r3, %h;
            ld.global.s32 %w, [%in+4];
            st.global.v4.u32 [%out], {%r0, %r1, %r2, %r3};
            st.global.u64 [%out+16], %w;
            ret;
        }",
    );
    let mut memory = Memory::new();
    let input = memory.upload("in", &[0xfffe_8081u32, 0xffff_fff0]);
    let out = memory.allocate("out", 24);
    run(&module, &mut memory, 1, 1, &[input, out]).unwrap();
    let found: Vec<i32> = memory.download(out).unwrap();
    assert_eq!(found, [0x81, -127, -32639, -2, -16, -1]);
}

#[test]
fn vectors_of_registers() {
    let module = module(
        ".visible .entry k(.param .u64 x) {
            .reg .b64 %x; .reg .v4 .f32 %v; .reg .f32 %s;
            ld.param.u64 %x, [x];
            ld.global.v4.f32 %v, [%x];
            add.f32 %s, %v.x, %v.w;
            mov.f32 %v.y, %s;
            st.global.v4.f32 [%x], %v;
        }",
    );
    let mut memory = Memory::new();
    let x = memory.upload("x", &[1f32, 2., 3., 4.]);
    run(&module, &mut memory, 1, 1, &[x]).unwrap();
    assert_eq!(memory.download::<f32>(x).unwrap(), [1., 5., 3., 4.]);
}

/// Reverses the 64 floats of a block by way of shared memory, and doubles them in local memory.
const REVERSE: &str = ".visible .entry k(.param .u64 x, .param .u64 y) {
    .shared .align 16 .f32 tile[64];
    .local .align 4 .b8 own[8];
    .reg .b64 %x, %at; .reg .b32 %t, %s, %b; .reg .f32 %v, %w;
    mov.u32 %t, %tid.x;
    mov.u32 %b, %ctaid.x;
    mad.lo.u32 %b, %b, 64, %t;
    ld.param.u64 %x, [x];
    mad.wide.u32 %at, %b, 4, %x;
    ld.global.f32 %v, [%at];
    st.local.f32 [own+4], %v;
    ld.local.f32 %w, [own+4];
    add.f32 %v, %v, %w;
    mov.u32 %s, tile;
    mad.lo.u32 %s, %t, 4, %s;
    st.shared.f32 [%s], %v;
    bar.sync 0;
    mov.u32 %s, tile+252;
    shl.b32 %t, %t, 2;
    sub.u32 %s, %s, %t;
    ld.shared.f32 %v, [%s];
    ld.param.u64 %x, [y];
    mad.wide.u32 %at, %b, 4, %x;
    st.global.f32 [%at], %v;
    ret;
}";

fn reversed(text: &str, grid: u32, block: u32) -> (Result<Stats, Error>, Vec<f32>) {
    let module = module(text);
    let mut memory = Memory::new();
    let values: Vec<f32> = (0..128).map(|i| i as f32).collect();
    let (x, y) = (memory.upload("x", &values), memory.allocate("y", 512));
    let result = run(&module, &mut memory, grid, block, &[x, y]);
    (result, memory.download(y).unwrap_or_default())
}

#[test]
fn shared_and_local_memory() {
    let (stats, found) = reversed(REVERSE, 2, 64);
    assert_eq!(stats.unwrap().barriers, 2);
    let expected: Vec<f32> = (0..128).map(|i| 2.0 * (i / 64 * 64 + 63 - i % 64) as f32).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_dropped_barrier_is_caught() {
    let text = REVERSE.replace("bar.sync 0;", "");
    let (line, found) = fault(reversed(&text, 2, 64).0);
    assert!(REVERSE.lines().nth(line as usize - 4).unwrap().contains("ld.shared"), "{line}");
    assert!(matches!(found, Fault::UninitialisedMemory { .. } | Fault::Race { .. }), "{found}");
}

/// Stores by many threads to one word.
fn stored(to: &str, value: &str, threads: u32) -> Result<Stats, Error> {
    let text = format!(
        ".visible .entry k(.param .u64 x) {{
            .shared .b32 s[2]; .reg .b32 %t, %v; .reg .b64 %x;
            mov.u32 %t, %tid.x; ld.param.u64 %x, [x];
            mov.b32 %v, {value};
            st.{to}.b32 [{}], %v;
            bar.sync 0;
            ld.{to}.b32 %v, [{}];
        }}",
        if to == "shared" { "s" } else { "%x" },
        if to == "shared" { "s" } else { "%x" },
    );
    let mut memory = Memory::new();
    let x = memory.allocate("x", 4);
    run(&module(&text), &mut memory, 1, threads, &[x])
}

#[test]
fn lanes_may_write_the_same_to_one_place_at_once() {
    assert!(stored("shared", "7", 32).is_ok());
    // Different values, another warp, and global memory, where nobody needs it.
    for (to, value, threads) in [("shared", "%t", 32), ("shared", "7", 64), ("global", "7", 32)] {
        let (_, found) = fault(stored(to, value, threads));
        assert!(
            matches!(found, Fault::Race { access: "writes", written: true, .. }),
            "{to} {value}: {found}"
        );
    }
}

#[test]
fn an_index_off_by_one_is_caught() {
    let (_, found) = fault(reversed(&REVERSE.replace("tile+252", "tile+256"), 2, 64).0);
    assert!(
        matches!(&found, Fault::OutOfBounds { place, .. } if place.name == "tile" && place.offset == 256),
        "{found}"
    );
    let (_, found) = fault(reversed(&REVERSE.replace("tile+252", "tile+248"), 2, 64).0);
    assert!(matches!(&found, Fault::OutOfBounds { place, .. } if place.offset == -4), "{found}");
    let (_, found) = fault(reversed(REVERSE, 3, 64).0);
    assert!(matches!(&found, Fault::OutOfBounds { place, .. } if place.name == "x"), "{found}");
    let (_, found) =
        fault(reversed(&REVERSE.replace("ld.local.f32 %w, [own+4]", "ld.local.f32 %w, [own]"), 2, 64).0);
    assert!(matches!(&found, Fault::UninitialisedMemory { place, .. } if place.name == "own"), "{found}");
}

#[test]
fn alignment() {
    let (_, found) = fault(reversed(&REVERSE.replace("tile+252", "tile+250"), 2, 64).0);
    assert!(matches!(found, Fault::Misaligned { size: 4, .. }), "{found}");
    let text = REVERSE.replace(".align 16 .f32 tile", ".align 4 .b8 tile").replace("tile[64]", "tile[256]");
    assert!(reversed(&text, 2, 64).0.is_ok());
    let text = text.replace(".align 4 .b8 tile", ".align 1 .b8 tile");
    let (_, found) = fault(reversed(&text, 2, 64).0);
    assert!(matches!(found, Fault::Misaligned { align: 1, .. }), "{found}");
}

#[test]
fn dynamic_shared_memory() {
    let text = ".extern .shared .align 16 .b8 pool[];\n".to_string() + REVERSE;
    let text = text.replace(".shared .align 16 .f32 tile[64];", "").replace("tile", "pool");
    let module = module(&text);
    let mut memory = Memory::new();
    let (x, y) = (memory.upload("x", &[1f32; 64]), memory.allocate("y", 256));
    let args = [Arg::Buffer(x), Arg::Buffer(y)];
    module.launch(&mut memory, "k", [1; 3], [64, 1, 1], 256, &args).unwrap();
    let y = memory.allocate("y", 256);
    let args = [Arg::Buffer(x), Arg::Buffer(y)];
    let (_, found) = fault(module.launch(&mut memory, "k", [1; 3], [64, 1, 1], 252, &args));
    assert!(matches!(found, Fault::OutOfBounds { bytes: 252, .. }), "{found}");
}

#[test]
fn host_code_cannot_read_what_was_not_written() {
    let mut memory = Memory::new();
    let buffer = memory.allocate("y", 8);
    memory.write(buffer, &[1f32]).unwrap();
    assert!(matches!(memory.download::<f32>(buffer), Err(Error::Memory { .. })));
    memory.write(buffer, &[1f32, 2.]).unwrap();
    assert_eq!(memory.download::<f32>(buffer).unwrap(), [1., 2.]);
    assert!(memory.write(buffer, &[0u8; 9]).is_err());
    memory.forget(buffer).unwrap();
    assert!(memory.download::<f32>(buffer).is_err());
}

#[test]
fn the_cost_of_accesses_is_counted() {
    let (stats, _) = reversed(REVERSE, 2, 64);
    let stats = stats.unwrap();
    // Two warps of two blocks read and write 32 neighbouring words each.
    assert_eq!((stats.global_requests, stats.global_sectors), (8, 32));
    assert_eq!((stats.shared_wavefronts, stats.bank_conflicts), (8, 0));
    // Columns of a tile that is 32 words wide are in one bank.
    let text = REVERSE
        .replace("tile[64]", "tile[2048]")
        .replace("mad.lo.u32 %s, %t, 4, %s", "mad.lo.u32 %s, %t, 128, %s");
    let text = text.replace("tile+252", "tile+8064").replace("shl.b32 %t, %t, 2", "shl.b32 %t, %t, 7");
    assert_eq!(reversed(&text, 2, 64).0.unwrap().bank_conflicts, 8 * 31);
}

#[test]
fn bytes_by_address() {
    let mut memory = Memory::new();
    let (x, y) = (memory.allocate("x", 8), memory.allocate("y", 8));
    memory.write_at(x.address() + 2, &[1, 2, 3]).unwrap();
    assert_eq!(memory.read_at(x.address() + 3, 2).unwrap(), [2, 3]);
    assert!(memory.read_at(x.address() + 3, 3).is_err(), "the last was never written");
    assert!(memory.write_at(x.address() + 6, &[0; 3]).is_err());
    assert!(memory.write_at(y.address() - 1, &[0]).is_err());
    assert!(memory.read_at(0, 1).is_err());
    memory.free(x);
    assert!(memory.write_at(x.address(), &[0]).is_err());
    memory.write_at(y.address(), &[7; 8]).unwrap();
    assert_eq!(memory.download::<u8>(y).unwrap(), [7; 8], "others stay");
}

#[test]
fn some_blocks_on_hollow_memory() {
    let module = module(
        ".visible .entry k(.param .u64 x) {
            .reg .u64 %x; .reg .u32 %t, %b; .reg .f32 %v;
            mov.u32 %t, %tid.x; mov.u32 %b, %ctaid.x; mad.lo.u32 %t, %b, 32, %t;
            ld.param.u64 %x, [x]; mad.wide.u32 %x, %t, 8, %x;
            ld.global.f32 %v, [%x]; st.global.f32 [%x+4], %v;
        }",
    );
    let mut memory = Memory::new();
    let x = memory.hollow("x", 1 << 30);
    let grid = ([1 << 22, 1, 1], [32, 1, 1], 0);
    let run =
        |memory: &mut Memory, blocks: &[u64]| module.sample(memory, "k", grid, blocks, &[Arg::Buffer(x)]);
    let stats = run(&mut memory, &[0, 7, (1 << 22) - 1]).unwrap();
    assert_eq!((stats.global_requests, stats.global_bytes, stats.global_sectors), (6, 6 * 128, 6 * 8));
    // What is loaded and what is stored lie in the same ones.
    assert_eq!(stats.block_sectors, 3 * 8);
    assert!(memory.write(x, &[1f32]).is_err());
    assert!(run(&mut memory, &[1 << 22]).is_err());
    let small = memory.hollow("small", 32 * 8 + 4);
    let outside = module.sample(&mut memory, "k", grid, &[1], &[Arg::Buffer(small)]);
    assert!(matches!(fault(outside).1, Fault::OutOfBounds { .. }));
}
