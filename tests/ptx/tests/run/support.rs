//! What the tests share. With `PTXAS` naming NVIDIA's assembler, every module that is run is also
//! assembled for sm_80 and sm_90.

use std::io::Write;
use std::process::{Command, Stdio};

use nnc_ptx_interpreter::{Arg, Buffer, Error, Fault, Memory, Module, Stats};

/// A module with this text behind the header.
pub fn source(text: &str) -> String {
    format!(".version 7.8\n.target sm_80\n.address_size 64\n{text}")
}

/// Reads a module, which must be right.
pub fn module(text: &str) -> Module {
    let text = if text.starts_with(".version") { text.to_string() } else { source(text) };
    assemble(&text);
    Module::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Has `ptxas` check a text, if there is one.
fn assemble(text: &str) {
    let Some(ptxas) = std::env::var_os("PTXAS") else { return };
    for target in ["sm_80", "sm_90"] {
        if text.contains(".target sm_90") && target == "sm_80" {
            continue;
        }
        let text = text.replace(".target sm_80", &format!(".target {target}"));
        let mut child = Command::new(&ptxas)
            .args(["-arch", target, "-o", "/dev/null", "/dev/stdin"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ptxas starts");
        child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("ptxas reads");
        let output = child.wait_with_output().expect("ptxas ends");
        let message =
            String::from_utf8_lossy(&output.stderr).to_string() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "ptxas for {target}: {message}\n{text}");
    }
}

/// Runs the kernel `k`.
pub fn run(
    module: &Module,
    memory: &mut Memory,
    grid: u32,
    block: u32,
    args: &[Buffer],
) -> Result<Stats, Error> {
    let args: Vec<Arg> = args.iter().map(|&b| Arg::Buffer(b)).collect();
    module.launch(memory, "k", [grid, 1, 1], [block, 1, 1], 0, &args)
}

/// The fault of a launch that must have one.
pub fn fault(result: Result<Stats, Error>) -> (u32, Fault) {
    match result {
        Err(Error::Fault(f)) => (f.line, f.fault),
        other => panic!("a fault was expected, found {other:?}"),
    }
}

fn size(ty: &str) -> usize {
    match ty.trim_start_matches(|c: char| c.is_ascii_alphabetic()) {
        "16" => 2,
        "32" | "16x2" => 4,
        "64" => 8,
        other => panic!("type of {other} bits"),
    }
}

fn bytes(ty: &str, values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()[..size(ty)].to_vec()).collect()
}

/// Runs a body of instructions in as many threads as there are values: from registers `%a`, `%b`,
/// `%c` of the types to `%d`.
pub fn apply(body: &str, types: [&str; 4], values: [&[u64]; 3]) -> Vec<u64> {
    let n = values[0].len();
    let [a, b, c, d] = types;
    let mut text = String::from(
        ".visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d) {
            .reg .pred %p, %q; .reg .b32 %i, %t, %u; .reg .b64 %base, %at, %long; .reg .b16 %h, %g; .reg .f32 %x, %y;\n",
    );
    text += &format!(".reg .{a} %a; .reg .{b} %b; .reg .{c} %c; .reg .{d} %d;\n");
    text +=
        "mov.u32 %i, %ctaid.x;\n mov.u32 %t, %ntid.x;\n mov.u32 %u, %tid.x;\n mad.lo.u32 %i, %i, %t, %u;\n";
    for (name, ty) in ["a", "b", "c"].iter().zip(types) {
        let bytes = size(ty);
        text += &format!("ld.param.u64 %base, [{name}];\n mad.wide.u32 %at, %i, {bytes}, %base;\n");
        text += &format!("ld.global.b{} %{name}, [%at];\n", bytes * 8);
    }
    text += body;
    let bytes_d = size(d);
    text += &format!("\nld.param.u64 %base, [d];\n mad.wide.u32 %at, %i, {bytes_d}, %base;\n");
    text += &format!("st.global.b{} [%at], %d;\n ret;\n}}\n", bytes_d * 8);
    let module = module(&text);
    let mut memory = Memory::new();
    let mut buffers: Vec<Buffer> = (0..3).map(|i| memory.upload("in", &bytes(types[i], values[i]))).collect();
    let out = memory.allocate("d", n * bytes_d);
    buffers.push(out);
    let block = if n.is_multiple_of(64) { 64 } else { n as u32 };
    run(&module, &mut memory, n as u32 / block, block, &buffers).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let raw: Vec<u8> = memory.download(out).unwrap();
    let number = |b: &[u8]| b.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    raw.chunks(bytes_d).map(number).collect()
}

/// All triples of some values, a multiple of 64 of them.
pub fn triples(values: &[u64]) -> [Vec<u64>; 3] {
    let mut out = [vec![], vec![], vec![]];
    for (i, &a) in values.iter().enumerate() {
        for (j, &b) in values.iter().enumerate() {
            out[0].push(a);
            out[1].push(b);
            out[2].push(values[(i * 7 + j * 3 + 1) % values.len()]);
        }
    }
    while !out[0].len().is_multiple_of(64) {
        out.iter_mut().for_each(|v| v.push(v[0]));
    }
    out
}

/// Words that are interesting as integers.
pub const INTS: [u64; 12] = [
    0,
    1,
    2,
    3,
    7,
    31,
    100,
    0x7fff_ffff_7fff_7fff,
    0x8000_0000_8000_8000,
    0xffff_ffff_ffff_ffff,
    0xffff_fffe_ffff_ff9c,
    0x1234_5678_9abc_def0,
];

/// Floats of all kinds.
pub const FLOATS: [f32; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    0.333_333_34,
    2.5,
    -3.5,
    1e-40,
    3.0e9,
    -5.0e9,
    1.0e38,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];
