//! Large and hostile texts: a clear word, in time linear in the text.

use std::time::{Duration, Instant};

use nnc_dsl::{SourceMap, parse, render};

/// Parses and renders; the time is generous, but nothing quadratic would keep to it.
fn report(text: String) -> String {
    let begun = Instant::now();
    let mut map = SourceMap::new();
    let file = map.add("large.nn", text);
    let (module, diagnostics) = parse(&map, file);
    drop(module);
    let rendered = render(&map, &diagnostics, false);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    eprintln!("{:?} {}", begun.elapsed(), rendered.lines().next().unwrap_or(""));
    rendered
}

fn full(piece: &str) -> String {
    piece.repeat((512 << 10) / piece.len())
}

#[test]
fn ten_thousand_parentheses() {
    for (open, close) in
        [("(", ")"), ("[", "]"), ("-", ""), ("not ", ""), ("f(", ")"), ("if a { ", " }"), ("2 ^ ", "")]
    {
        let text = format!("block b(x) {{\n{}x{}\n}}\n", open.repeat(10_000), close.repeat(10_000));
        let rendered = report(text);
        assert!(rendered.contains("levels of nesting"), "{open}: {rendered}");
    }
    let rendered = report(format!("block b(x) {{\n{}\n}}\n", "repeat 2 { ".repeat(10_000)));
    assert!(rendered.contains("levels of nesting"), "{rendered}");
}

#[test]
fn long_chains() {
    for link in [" -> relu", " + x", "[0]", ".y", "(y)", " ^ x"] {
        let rendered = report(format!("block b(x) {{\n    x{}\n}}\n", link.repeat(10_000)));
        assert!(rendered.contains("steps") || rendered.contains("levels"), "{link}: {rendered}");
    }
}

#[test]
fn refuses_what_is_too_large() {
    let rendered = report("x".repeat(50 << 20));
    assert_eq!(rendered.lines().next(), Some("error: `large.nn` is larger than 4 MiB"));
}

#[test]
fn noise() {
    let pieces = [
        "(",
        ")",
        "{",
        "}",
        "[",
        "\"",
        "'",
        "'a'",
        "\n",
        "(\n",
        "x\n",
        "x ",
        "1.",
        "1 ",
        "@",
        "é",
        "\"{",
        "x -> (\n",
        "#",
        "# \n",
        "block b(x) {",
        "block b(x) {\n",
        " block b(x) {\n",
        "let x = (1\n",
        "if x {",
        "x,",
        "a.",
        "-x\n",
        "//\n",
        "use ",
        "def x\n",
        "\0",
    ];
    for piece in pieces {
        report(full(piece));
        report(format!("block b(x) {{\n{}", full(piece)));
    }
}
