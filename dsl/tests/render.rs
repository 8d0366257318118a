//! Rendering at the edges of texts.

use nnc_dsl::{Diagnostic, SourceMap, Span, render};

fn shown(text: &str, start: usize, end: usize) -> String {
    let mut map = SourceMap::new();
    let file = map.add("a.nn", text);
    render(&map, &[Diagnostic::error("title", Span::new(file, start, end), "label")], false)
}

#[test]
fn empty_file() {
    insta::assert_snapshot!(shown("", 0, 0));
    insta::assert_snapshot!(shown("", 5, 9));
}

#[test]
fn end_of_file() {
    insta::assert_snapshot!(shown("abc", 3, 3));
    insta::assert_snapshot!(shown("abc\n", 4, 4));
    insta::assert_snapshot!(shown("abc\r\n", 3, 5));
}

#[test]
fn tabs_and_wide_characters() {
    insta::assert_snapshot!(shown("\t漢字 = é + x\r\nnext\r\n", 14, 15));
}

#[test]
fn inside_of_a_character() {
    insta::assert_snapshot!(shown("漢字", 1, 2));
}

#[test]
fn several_lines() {
    insta::assert_snapshot!(shown("one\ntwo\nthree\nfour\nfive\n", 4, 22));
}

#[test]
fn long_line() {
    let text = format!("{}here{}", "word ".repeat(100), " word".repeat(100));
    insta::assert_snapshot!(shown(&text, 500, 504));
}

#[test]
fn every_part() {
    let mut map = SourceMap::new();
    let one = map.add("one.nn", "net a() {\n    input x: f32[N, 3]\n}\n");
    let two = map.add("two.nn", "block b(x) { x -> conv(64, 3) }\n");
    let diagnostics = [
        Diagnostic::error("shapes differ", Span::new(two, 18, 29), "expected 4 dimensions, found 2")
            .label(Span::new(two, 13, 14), "this value")
            .label(Span::new(one, 20, 21), "came from here")
            .note("`x` f32[N, 3] (one.nn:2)\n`conv1` … (two.nn:1)")
            .note("second note")
            .help("reshape it"),
        Diagnostic::warning("`x` is never used", Span::new(one, 20, 21), ""),
        Diagnostic::global("cannot read `three.nn`: no such file").help("is the name right?"),
    ];
    insta::assert_snapshot!(render(&map, &diagnostics, false));
    let colored = render(&map, &diagnostics, true);
    assert!(colored.contains("\u{1b}["), "{colored}");
    assert_eq!(render(&map, &[], true), "");
}

#[test]
fn without_a_place() {
    let map = SourceMap::new();
    assert_eq!(
        render(&map, &[Diagnostic::global("title")], false),
        "error: title
"
    );
}
