//! Tensor-core instructions and matrix loads against naive products, with operands rounded as they are.

use half::{bf16, f16};
use nnc_ptx_interpreter::{Fault, Memory, Sums};

use crate::support::{fault, module, run};

/// D = A·B + C for one warp. A is 16 x k row-major, B is k x 8 *column*-major (8 rows of k), both of
/// `bytes` bytes an element; C and D are 16 x 8 floats. The loads follow the documented fragments.
fn tile(ty: &str, k: usize, convert: &str) -> String {
    let mut text = String::from(
        ".visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d) {
            .reg .b64 %a, %b, %c, %d, %at; .reg .b32 %lane, %g, %t, %i, %ra<4>, %rb<2>; .reg .f32 %fc<4>, %x;
            mov.u32 %lane, %laneid;
            shr.u32 %g, %lane, 2;
            and.b32 %t, %lane, 3;
            ld.param.u64 %a, [a]; ld.param.u64 %b, [b]; ld.param.u64 %c, [c]; ld.param.u64 %d, [d];\n",
    );
    let tf32 = ty == "tf32";
    // Elements of a 32-bit register, and the distance along k of a lane's registers.
    let (pack, step) = if tf32 { (1, 4) } else { (2, 8) };
    let blocks = k / step;
    let row_bytes = k * 4 / pack;
    let mut load = |register: String, row: usize, block: usize, base: &str| {
        text += &format!("mad.lo.u32 %i, %g, {row_bytes}, {};\n", row * row_bytes + block * step * 4 / pack);
        text += &format!("mad.lo.u32 %i, %t, 4, %i;\n cvt.u64.u32 %at, %i;\n add.u64 %at, %at, {base};\n");
        if convert.is_empty() {
            text += &format!("ld.global.b32 {register}, [%at];\n");
        } else {
            text += &format!("ld.global.f32 %x, [%at];\n {convert} {register}, %x;\n");
        }
    };
    let (mut a, mut b) = (vec![], vec![]);
    for block in 0..blocks {
        for half in 0..2 {
            a.push(format!("%ra{}", 2 * block + half));
            load(format!("%ra{}", 2 * block + half), 8 * half, block, "%a");
        }
        b.push(format!("%rb{block}"));
        load(format!("%rb{block}"), 0, block, "%b");
    }
    text += "shl.b32 %i, %g, 5;\n mad.lo.u32 %i, %t, 8, %i;\n cvt.u64.u32 %at, %i;\n add.u64 %c, %c, %at;\n";
    text += "add.u64 %d, %d, %at;\n ld.global.v2.f32 {%fc0, %fc1}, [%c];\n ld.global.v2.f32 {%fc2, %fc3}, [%c+256];\n";
    text += &format!(
        "mma.sync.aligned.m16n8k{k}.row.col.f32.{ty}.{ty}.f32 {{%fc0, %fc1, %fc2, %fc3}}, {{{}}}, {{{}}}, \
         {{%fc0, %fc1, %fc2, %fc3}};\n",
        a.join(", "),
        b.join(", ")
    );
    text + "st.global.v2.f32 [%d], {%fc0, %fc1};\n st.global.v2.f32 [%d+256], {%fc2, %fc3};\n ret;\n}"
}

/// Some values that need all bits of a mantissa.
fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn product(a: &[f32], b: &[f32], c: &[f32], k: usize) -> Vec<f32> {
    let sum = |i: usize, j: usize| {
        let products = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[j * k + p]));
        (products.sum::<f64>() + f64::from(c[i * 8 + j])) as f32
    };
    (0..128).map(|ij| sum(ij / 8, ij % 8)).collect()
}

/// Runs a tile whose operands were made of floats by `store`, and compares with what `round` makes of them.
fn check<T: nnc_ptx_interpreter::Element>(
    text: &str,
    k: usize,
    store: fn(f32) -> T,
    round: fn(f32) -> f32,
) -> Vec<f32> {
    let (a, b, c) = (values(16 * k, 1), values(8 * k, 2), values(128, 3));
    let mut memory = Memory::new();
    let stored = |v: &[f32]| v.iter().map(|&v| store(v)).collect::<Vec<T>>();
    let buffers = [
        memory.upload("a", &stored(&a)),
        memory.upload("b", &stored(&b)),
        memory.upload("c", &c),
        memory.allocate("d", 512),
    ];
    run(&module(text), &mut memory, 1, 32, &buffers).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let found: Vec<f32> = memory.download(buffers[3]).unwrap();
    let rounded = |v: &[f32]| v.iter().map(|&v| round(v)).collect::<Vec<f32>>();
    let expected = product(&rounded(&a), &rounded(&b), &c, k);
    let far = found.iter().zip(&expected).filter(|(f, e)| (*f - *e).abs() > 1e-6).count();
    assert!(far == 0 || text.contains("swapped"), "{far} of 128 elements differ\n{text}");
    found
}

fn tf32_nearest(x: f32) -> f32 {
    f32::from_bits((x.to_bits() + 0x1000) & !0x1fff)
}

fn tf32_truncated(x: f32) -> f32 {
    f32::from_bits(x.to_bits() & !0x1fff)
}

#[test]
fn tf32_tiles() {
    for k in [4, 8] {
        check(&tile("tf32", k, "cvt.rna.tf32.f32"), k, |x| x, tf32_nearest);
        check(&tile("tf32", k, ""), k, |x| x, tf32_truncated);
    }
}

#[test]
fn unrounded_operands_are_counted() {
    let mut memory = Memory::new();
    let (a, b) = (memory.upload("a", &[1.1f32; 128]), memory.upload("b", &[1f32; 64]));
    let (c, d) = (memory.upload("c", &[0f32; 128]), memory.allocate("d", 512));
    let stats = run(&module(&tile("tf32", 8, "")), &mut memory, 1, 32, &[a, b, c, d]).unwrap();
    assert_eq!((stats.mmas, stats.unrounded_tf32), (1, 128));
    let stats =
        run(&module(&tile("tf32", 8, "cvt.rna.tf32.f32")), &mut memory, 1, 32, &[a, b, c, d]).unwrap();
    assert_eq!(stats.unrounded_tf32, 0);
}

#[test]
fn sums_may_be_truncated() {
    let mut module = module(&tile("bf16", 16, ""));
    // The first eight products are 1.5, of which nothing is lost; the others are below the last bit of 12.
    let a: Vec<bf16> = (0..256).map(|i| bf16::from_f32(if i % 16 < 8 { 1.5 } else { 1e-7 })).collect();
    let mut memory = Memory::new();
    let (a, b) = (memory.upload("a", &a), memory.upload("b", &[bf16::ONE; 128]));
    let (c, d) = (memory.upload("c", &[0f32; 128]), memory.allocate("d", 512));
    for (sums, expected) in [(Sums::Rounded, 12.000_001), (Sums::Truncated, 12.0)] {
        module.set_sums(sums);
        run(&module, &mut memory, 1, 32, &[a, b, c, d]).unwrap();
        assert_eq!(memory.download::<f32>(d).unwrap(), [expected; 128], "{sums:?}");
    }
}

#[test]
fn tiles_of_16_bits() {
    for k in [8, 16] {
        check(&tile("bf16", k, ""), k, bf16::from_f32, |x| bf16::from_f32(x).to_f32());
        check(
            &tile("f16", k, "").replace("%ra<4>, %rb<2>;", "%unused; .reg .f16x2 %ra<4>, %rb<2>;"),
            k,
            f16::from_f32,
            |x| f16::from_f32(x).to_f32(),
        );
    }
}

#[test]
fn swapped_fragments_are_caught() {
    let right = tile("tf32", 8, "cvt.rna.tf32.f32");
    for (from, to) in
        [("%ra0, %ra1", "%ra1, %ra0"), ("%ra1, %ra2", "%ra2, %ra1"), ("{%rb0, %rb1}", "{%rb1, %rb0}")]
    {
        assert!(right.contains(from));
        let swapped = format!("{} // swapped", right.replace(from, to));
        let (wrong, good) = (check(&swapped, 8, |x| x, tf32_nearest), check(&right, 8, |x| x, tf32_nearest));
        assert!(wrong.iter().zip(&good).filter(|(a, b)| a != b).count() > 64, "{from} as {to}");
    }
}

#[test]
fn tensor_cores_need_the_whole_warp() {
    let text = tile("tf32", 8, "cvt.rna.tf32.f32");
    let mut memory = Memory::new();
    let (a, b) = (memory.upload("a", &[1f32; 128]), memory.upload("b", &[1f32; 64]));
    let (c, d) = (memory.upload("c", &[0f32; 128]), memory.allocate("d", 512));
    let (_, found) = fault(run(&module(&text), &mut memory, 1, 24, &[a, b, c, d]));
    assert_eq!(found, Fault::MissingLanes { missing: 0xff00_0000 });
    let guarded = text.replace(" mma.sync", " .reg .pred %p; setp.lt.u32 %p, %lane, 30; @%p mma.sync");
    let guarded = guarded.replace("\nmma.sync", "\n.reg .pred %p; setp.lt.u32 %p, %lane, 30; @%p mma.sync");
    let (_, found) = fault(run(&module(&guarded), &mut memory, 1, 32, &[a, b, c, d]));
    assert_eq!(found, Fault::MissingLanes { missing: 0xc000_0000 });
}

/// Loads four 8 x 8 matrices of u16 that were stored row by row, and stores the fragments.
fn matrix_load(shape: &str) -> Vec<u16> {
    let text = format!(
        ".visible .entry k(.param .u64 x, .param .u64 y) {{
            .shared .align 16 .b8 s[512];
            .reg .b64 %x, %at; .reg .b32 %lane, %a, %r<4>;
            mov.u32 %lane, %laneid;
            ld.param.u64 %x, [x];
            mad.wide.u32 %at, %lane, 16, %x;
            ld.global.v4.b32 {{%r0, %r1, %r2, %r3}}, [%at];
            mov.u32 %a, s;
            mad.lo.u32 %a, %lane, 16, %a;
            st.shared.v4.b32 [%a], {{%r0, %r1, %r2, %r3}};
            bar.sync 0;
            ldmatrix.sync.aligned.{shape}.shared.b16 {{%r0, %r1, %r2, %r3}}, [%a];
            ld.param.u64 %x, [y];
            mad.wide.u32 %at, %lane, 16, %x;
            st.global.v4.b32 [%at], {{%r0, %r1, %r2, %r3}};
        }}"
    );
    let mut memory = Memory::new();
    let elements: Vec<u16> = (0..256).collect();
    let (x, y) = (memory.upload("x", &elements), memory.allocate("y", 512));
    run(&module(&text), &mut memory, 1, 32, &[x, y]).unwrap();
    memory.download(y).unwrap()
}

#[test]
fn matrix_loads() {
    let (plain, transposed) = (matrix_load("m8n8.x4"), matrix_load("m8n8.x4.trans"));
    assert_eq!((&plain, &transposed), (&matrix_load("x4.m8n8"), &matrix_load("x4.trans.m8n8")));
    for lane in 0..32 {
        for i in 0..4 {
            for half in 0..2 {
                let (row, column) = (lane / 4, 2 * (lane % 4) + half);
                let at = lane * 8 + i * 2 + half;
                assert_eq!(usize::from(plain[at]), i * 64 + row * 8 + column);
                assert_eq!(usize::from(transposed[at]), i * 64 + column * 8 + row);
            }
        }
    }
}
