//! `compile --tune` and `--tuned`.

use crate::programs::TINY;
use crate::support::{nnc, nnc_in, scratch};

/// Two convolutions that Winograd's algorithm can compute.
const NET: &str = "\
use std.vision

net two() {
    input x: f32[N, 16, 12, 12]
    output y = x -> conv(16, 1x1) as first -> conv(16, 3x3, pad = 1) as a -> relu -> conv(16, 3x3, pad = 1) as b
}
";

#[test]
fn what_was_measured_is_written_beside_the_program_and_used() {
    let folder = scratch(&[("two.nn", NET.as_bytes())]);
    let shown = nnc_in(folder.path(), "compile {}/two.nn -o {}/two.nncp --threads 1 --tune").ok();
    let rows: Vec<&str> = shown.lines().filter(|l| l.contains("two.nn:5")).collect();
    assert_eq!(rows.len(), 2, "{shown}");
    assert!(shown.contains("two.tune.json") && shown.contains("compiled in"), "{shown}");
    nnc_in(folder.path(), "run {}/two.nncp").failed();

    // Another choice makes another program.
    let file = folder.path().join("two.tune.json");
    let measured = std::fs::read_to_string(&file).expect("it was written");
    let choose = |algorithm: &str| {
        let other: String = measured
            .lines()
            .map(|line| match line.trim_start().starts_with("\"algorithm\"") {
                true => format!("\"algorithm\": \"{algorithm}\",\n"),
                false => format!("{line}\n"),
            })
            .collect();
        std::fs::write(&file, other).expect("it can be written");
        nnc_in(folder.path(), "compile {}/two.nn --tuned {}/two.tune.json --emit kernels").ok()
    };
    assert!(!choose("direct").contains("winograd"));
    assert!(choose("winograd2").contains("winograd2"));
}

#[test]
fn choices_that_make_no_sense() {
    let folder = scratch(&[
        ("two.nn", NET.as_bytes()),
        ("tiny.nn", TINY.as_bytes()),
        ("empty.json", b"{}"),
        ("not.json", b"net"),
    ]);
    let strict = nnc_in(folder.path(), "compile {}/two.nn -o {}/x.nncp --tune --precision strict").failed();
    assert!(strict.contains("strict"), "{strict}");
    assert!(!folder.path().join("x.nncp").exists() && !folder.path().join("x.tune.json").exists());
    for file in ["empty.json", "not.json", "missing.json"] {
        let output = nnc_in(folder.path(), &format!("bench {{}}/two.nn --tuned {{}}/{file}"));
        assert_eq!(output.code, 2, "{file}");
        assert!(output.stderr.contains(file), "{}", output.stderr);
    }
    nnc_in(folder.path(), "compile {}/two.nn -o {}/two.nncp --tune").ok();
    let other = nnc_in(folder.path(), "compile {}/tiny.nn -o {}/tiny.nncp --tuned {}/two.tune.json");
    assert!(other.stderr.contains("does not have: a, b"), "{}", other.stderr);
    assert_eq!(nnc("compile x.nn --tune --emit kernels").code, 2);
}
