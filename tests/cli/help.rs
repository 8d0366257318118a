//! Help texts and wrong command lines.

use crate::support::nnc;

const SUBCOMMANDS: [&str; 12] = [
    "check", "fmt", "summary", "graph", "explain", "compile", "run", "eval", "bench", "train", "curves",
    "devices",
];

#[test]
fn help_teaches() {
    insta::assert_snapshot!("nnc", nnc("--help").ok());
    for name in SUBCOMMANDS {
        let text = nnc(&format!("help {name}")).ok();
        assert!(text.contains("Examples:\n  nnc "), "`nnc help {name}` shows no examples");
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn help_fits_a_terminal() {
    for name in SUBCOMMANDS {
        for line in nnc(&format!("help {name}")).ok().lines() {
            assert!(line.chars().count() <= 100, "`nnc help {name}`: {line}");
        }
    }
}

#[test]
fn wrong_command_lines_exit_with_2() {
    for line in [
        "",
        "destroy x.nn",
        "check",
        "run",
        "run examples/lenet.nn --set N",
        "run examples/lenet.nn --set =1",
        "run examples/lenet.nn --threads 0",
        "run examples/lenet.nn --threads many",
        "run examples/lenet.nn --device gpu",
        "run examples/lenet.nn --target-cpu pentium",
        "run examples/lenet.nn --preprocess sharpen",
        "run examples/lenet.nn --input image=",
        "run examples/lenet.nn --output logits",
        "run examples/lenet.nn --top -1",
        "run examples/lenet.nn --weights a --seed 1",
        "eval examples/lenet.nn --data cifar:x --weights w",
        "eval examples/lenet.nn --data mnist: --weights w",
        "eval examples/lenet.nn --data mnist:x",
        "compile examples/lenet.nn --emit everything",
        "compile examples/lenet.nn --emit ast --emit-after simplify",
        "graph examples/lenet.nn --format png",
        "bench examples/lenet.nn --runs 0",
        "train examples/lenet.nn",
        "train examples/lenet.nn --data mnist:x --normalize 1",
        "train examples/lenet.nn --data mnist:x --epochs 0",
        "bench examples/lenet.nn --json --profile",
    ] {
        let output = nnc(line);
        assert_eq!(output.code, 2, "nnc {line}: {}{}", output.stdout, output.stderr);
        assert!(
            output.stderr.contains("Usage") || output.stderr.contains("--help"),
            "nnc {line}: {}",
            output.stderr
        );
    }
}
