//! `check`, `fmt` and `compile`, standard input and output.

use std::process::Stdio;

use crate::support::{command, nnc, nnc_in, nnc_with_stdin, npy, scratch};

/// A net that is small enough to be read in every stage's text.
pub const TINY: &str = "\
use std.vision

net tiny(classes = 3) {
    input image: f32[N, 1, 6, 6]

    output logits = image -> conv(2, 3, pad = 1) -> relu -> maxpool(2) -> flatten -> dense(classes)
}
";
/// The same, untidily.
const UNTIDY: &str = "\
use std.vision
net tiny(classes=3) {
  input image: f32[N,1,6,6]

  output logits = image->conv(2,3,pad=1)->relu   ->maxpool(2)->flatten->dense(classes)
}
";
const WRONG: &str = "\
use std.vision

net wrong() {
    input image: f32[N, 1, 6, 6]

    output a = image -> konv(2, 3)
    output b = image -> conv(2, 9)
}
";

#[test]
fn check_tells_right_from_wrong() {
    let folder = scratch(&[("tiny.nn", TINY.as_bytes()), ("wrong.nn", WRONG.as_bytes())]);
    let right = nnc_in(folder.path(), "check {}/tiny.nn").ok();
    assert!(right.ends_with("tiny.nn: no errors\n"), "{right}");

    let wrong = nnc_in(folder.path(), "check {}/wrong.nn {}/tiny.nn");
    assert!(wrong.stdout.ends_with("tiny.nn: no errors\n"), "the right one is checked too");
    let shown = wrong.failed();
    assert!(shown.contains("wrong.nn:6:"), "{shown}");
    assert!(shown.contains("`konv`"), "{shown}");
    assert!(shown.contains("wrong.nn:7:"), "several errors in one run: {shown}");
}

#[test]
fn check_reads_standard_input() {
    assert_eq!(nnc_with_stdin("check -", TINY.as_bytes()).ok(), "<stdin>: no errors\n");
    let shown = nnc_with_stdin("check -", WRONG.as_bytes()).failed();
    assert!(shown.contains("<stdin>:6:"), "{shown}");
}

#[test]
fn check_checks_every_net_of_a_file() {
    let two = format!("{TINY}{}", TINY.replace("net tiny", "net other").replace("use std.vision", ""));
    let folder = scratch(&[
        ("two.nn", two.as_bytes()),
        ("one_wrong.nn", two.replace("relu -> maxpool(2)", "relv -> maxpool(2)").as_bytes()),
        ("blocks.nn", b"block twice(x) { x + x }\n"),
        ("wrong_blocks.nn", b"block twice(x { x + x }\n"),
    ]);
    assert!(nnc_in(folder.path(), "check {}/two.nn").ok().ends_with("two.nn: no errors\n"));
    let shown = nnc_in(folder.path(), "check {}/one_wrong.nn").failed();
    assert_eq!(shown.matches("`relv`").count(), 2, "both nets: {shown}");
    assert!(nnc_in(folder.path(), "check {}/blocks.nn").ok().contains("no errors in its syntax"));
    nnc_in(folder.path(), "check {}/wrong_blocks.nn").failed();
    let several = nnc_in(folder.path(), "summary {}/two.nn").failed();
    assert!(several.contains("--net"), "{several}");
    nnc_in(folder.path(), "summary {}/two.nn --net other").ok();
}

#[test]
fn examples_are_right_and_in_canonical_layout() {
    for entry in std::fs::read_dir(crate::support::repository("examples")).expect("there are examples") {
        let path = entry.expect("it can be read").path();
        if path.extension().is_some_and(|e| e == "nn") {
            let name = path.display();
            nnc(&format!("check {name}")).ok();
            nnc(&format!("fmt --check {name}")).ok();
        }
    }
}

/// The program that the README shows.
#[test]
fn the_readme_shows_a_right_program() {
    let readme = String::from_utf8(crate::support::read("README.md")).unwrap();
    let program = readme.split("```").find(|block| block.contains("use std.")).expect("it shows one");
    assert_eq!(nnc_with_stdin("check -", program.as_bytes()).ok(), "<stdin>: no errors\n");
}

#[test]
fn fmt_rewrites_in_place_and_is_idempotent() {
    let folder = scratch(&[("net.nn", UNTIDY.as_bytes())]);
    let file = folder.path().join("net.nn");
    let read = || std::fs::read_to_string(&file).unwrap();

    let check = nnc_in(folder.path(), "fmt --check {}/net.nn");
    assert_eq!(check.code, 1);
    assert!(check.stdout.ends_with("net.nn: not in canonical layout\n"), "{}", check.stdout);
    assert_eq!(read(), UNTIDY, "--check changes nothing");

    nnc_in(folder.path(), "fmt {}/net.nn").ok();
    assert_eq!(read(), TINY);
    nnc_in(folder.path(), "fmt {}/net.nn").ok();
    assert_eq!(read(), TINY);
    nnc_in(folder.path(), "fmt --check {}/net.nn").ok();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

    assert_eq!(nnc_with_stdin("fmt -", UNTIDY.as_bytes()).ok(), TINY);
}

#[test]
fn fmt_leaves_a_file_with_syntax_errors_alone() {
    let folder = scratch(&[("net.nn", b"net broken( {\n")]);
    let shown = nnc_in(folder.path(), "fmt {}/net.nn").failed();
    assert!(shown.contains("net.nn:1:"), "{shown}");
    assert_eq!(std::fs::read(folder.path().join("net.nn")).unwrap(), b"net broken( {\n");
}

/// What was compiled before gives the same bits as what is compiled now.
#[test]
fn a_program_file_runs_as_its_source_does() {
    let input = ndarray::Array4::from_shape_fn((1, 1, 6, 6), |(_, _, y, x)| (y * 6 + x) as f32 / 36.0);
    let folder = scratch(&[("tiny.nn", TINY.as_bytes()), ("x.npy", &npy(&input))]);
    let written = nnc_in(folder.path(), "compile {}/tiny.nn --set N=1 -o {}/tiny.nncp").ok();
    assert!(written.contains("tiny.nncp: net `tiny`, "), "{written}");
    for program in ["tiny.nn", "tiny.nncp"] {
        let line =
            format!("run {{}}/{program} --seed 7 --input {{}}/x.npy --output logits={{}}/{program}.npy");
        nnc_in(folder.path(), &line).ok();
    }
    let [source, compiled] =
        ["tiny.nn.npy", "tiny.nncp.npy"].map(|f| std::fs::read(folder.path().join(f)).unwrap());
    assert_eq!(source, compiled);
}

/// With its weights in it, a program needs nothing else, and its file tells when it is not whole.
#[test]
fn a_program_file_with_weights_runs_alone() {
    let picture = "--input image=examples/images/digits/7a.png";
    let folder = scratch(&[]);
    let weights = "--weights examples/weights/lenet5_mnist.safetensors";
    let written =
        nnc_in(folder.path(), &format!("compile examples/lenet.nn {weights} -o {{}}/lenet.nncp")).ok();
    assert!(written.contains(" KiB with weights; compiled in "), "{written}");
    let source = nnc(&format!("run examples/lenet.nn {weights} {picture}")).ok();
    let alone = nnc_in(folder.path(), &format!("run {{}}/lenet.nncp {picture}"));
    assert!(!alone.stderr.contains("drawn afresh"), "{}", alone.stderr);
    assert_eq!(alone.ok(), source);

    let refused = nnc_in(folder.path(), &format!("run {{}}/lenet.nncp {weights} {picture}")).failed();
    assert!(refused.contains("the program has its weights: it takes no others"), "{refused}");
    let program = std::fs::read(folder.path().join("lenet.nncp")).unwrap();
    let piped = nnc_with_stdin(&format!("run - {picture}"), &program).ok();
    assert_eq!(piped, source);
    std::fs::write(folder.path().join("lenet.nncp"), &program[..program.len() - 5000]).unwrap();
    let refused = nnc_in(folder.path(), &format!("run {{}}/lenet.nncp {picture}")).failed();
    assert!(refused.contains("lenet.nncp`: the program is cut off: expected "), "{refused}");
}

/// A program is made for the CPU that is asked for.
#[test]
fn programs_are_made_for_a_named_cpu() {
    let folder = scratch(&[("tiny.nn", TINY.as_bytes())]);
    for (cpu, wide) in [("x86-64-v4", true), ("avx512", true), ("x86-64-v3", false), ("fma", false)] {
        let line = format!("compile {{}}/tiny.nn --set N=1 --target-cpu {cpu} -o {{}}/{cpu}.nncp");
        let made = nnc_in(folder.path(), &line);
        if cfg!(target_arch = "x86_64") {
            made.ok();
            let program = std::fs::read(folder.path().join(format!("{cpu}.nncp"))).unwrap();
            assert_eq!(program.windows(7).any(|w| w == b"avx512f"), wide, "{cpu}");
        }
    }
}

#[test]
fn compile_goes_to_standard_output_and_run_reads_it() {
    let args = ["compile", "-", "--set", "N=1", "-o", "-"];
    let mut compile = command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut compile.stdin.take().unwrap(), TINY.as_bytes()).unwrap();
    let program = compile.wait_with_output().unwrap().stdout;
    let folder = scratch(&[("x.npy", &npy(&ndarray::Array4::zeros((1, 1, 6, 6))))]);
    let run = nnc_with_stdin(&format!("run - --input {}/x.npy", folder.path().display()), &program).ok();
    assert_eq!(run.lines().count(), 3, "three classes: {run}");
}

#[test]
fn every_station_has_a_text() {
    let folder = scratch(&[("tiny.nn", TINY.as_bytes())]);
    for station in ["ast", "graph", "fused", "kernels", "plan", "clif", "asm", "ptx"] {
        let text = nnc_in(folder.path(), &format!("compile {{}}/tiny.nn --emit {station}")).ok();
        assert!(text.contains("tiny") || text.lines().count() > 3, "{station}: {text}");
        let line = format!("compile {{}}/tiny.nn --emit {station} -o {{}}/{station}.txt");
        assert_eq!(nnc_in(folder.path(), &line).ok(), "");
        assert_eq!(std::fs::read_to_string(folder.path().join(format!("{station}.txt"))).unwrap(), text);
    }
    // Cranelift's code is for 128 bits, whatever the target.
    let wide = nnc_in(folder.path(), "compile {}/tiny.nn --emit clif --target-cpu avx512");
    if cfg!(target_arch = "x86_64") {
        let narrow = nnc_in(folder.path(), "compile {}/tiny.nn --emit clif --target-cpu avx2").ok();
        assert!(narrow.contains("f32x4"), "{narrow}");
        assert_eq!(wide.ok(), narrow);
    }
    let unfused = nnc_in(folder.path(), "compile {}/tiny.nn --emit-after simplify").ok();
    assert!(unfused.contains("relu"), "{unfused}");
}

/// `nnc … | head -0`: no message, no failure.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = command(&["compile", "examples/googlenet.nn", "--emit", "graph"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{shown}");
    assert!(!shown.contains("error"), "{shown}");
}
