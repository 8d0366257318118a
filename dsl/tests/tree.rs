//! Every kind of statement and expression as a tree, and the meaning of precedence, line ends and names.

use nnc_dsl::{SourceMap, dump, parse, render};

/// The tree of a block's body without places.
fn tree(body: &str) -> String {
    let mut map = SourceMap::new();
    let file = map.add("a.nn", format!("block b(x) {{\n{body}\n}}\n"));
    let (module, diagnostics) = parse(&map, file);
    assert!(diagnostics.is_empty(), "{}", render(&map, &diagnostics, false));
    let dumped = dump(&map, &module);
    let lines = dumped.lines().skip(2).map(|l| l[2..].rsplit_once("  ").unwrap().0);
    lines.collect::<Vec<_>>().join("\n")
}

/// Both bodies have the same tree, parentheses aside.
#[track_caller]
fn same(left: &str, right: &str) {
    let flat = |body| -> Vec<String> {
        tree(body).lines().map(|l| l.trim().to_owned()).filter(|l| l != "parentheses").collect()
    };
    assert_eq!(flat(left), flat(right));
}

#[test]
fn samples() {
    for (name, text) in samples::SAMPLES {
        let mut map = SourceMap::new();
        let file = map.add(*name, *text);
        let (module, diagnostics) = parse(&map, file);
        assert!(diagnostics.is_empty(), "{}", render(&map, &diagnostics, false));
        insta::assert_snapshot!(*name, dump(&map, &module));
    }
}

#[path = "common/samples.rs"]
mod samples;

#[test]
fn precedence() {
    same("a + b * c ^ d", "a + (b * (c ^ d))");
    same("a - b - c", "(a - b) - c");
    same("a ^ b ^ c", "a ^ (b ^ c)");
    same("-a ^ b", "-(a ^ b)");
    same("-a * b", "(-a) * b");
    same("a ^ -b", "a ^ (-b)");
    same("not a == b and c or d", "((not (a == b)) and c) or d");
    same("a + 1 in b", "(a + 1) in b");
    same("a not in 0..b + 1", "a not in (0..(b + 1))");
    same("a % b / c", "(a % b) / c");
    same("a < b and c >= d", "(a < b) and (c >= d)");
    same("not not a", "not (not a)");
    same("- -a", "-(-a)");
    same("a.b(c)[d]", "((a.b)(c))[d]");
    same("f + x -> relu", "(f + x) -> relu");
    same("a or b -> relu", "(a or b) -> relu");
}

#[test]
fn line_ends() {
    same("relu\n(a + b)", "relu; (a + b)");
    same("relu\n[a]", "relu; [a]");
    same("x\n-> f\n-> g", "x -> f -> g");
    same("x ->\nf", "x -> f");
    same("let y =\n3", "let y = 3");
    same("a +\nb", "a + b");
    same("a\n+ b", "a + b");
    same("a\n- b", "a - b");
    same("a\nnot in b", "a not in b");
    same("a\nnot b", "a; not b");
    same("f(\na\n,\nb\n)", "f(a, b)");
    same("f(a\n[0])", "f(a[0])");
    same("if a { b }\nelse { c }", "if a { b } else { c }");
    same("if a { b }\nelse\nif d { c }", "if a { b } else if d { c }");
    same("f(if a {\nb\n(c) })", "f(if a { b; (c) })");
    same("x -> f\nas g\n-> h", "x -> f as g -> h");
    same(";;a;;b;", "a; b");
    same("(a\n-> f)", "(a -> f)");
}

#[test]
fn trailing_commas() {
    same("f(a, b,)", "f(a, b)");
    same("[a, b,]", "[a, b]");
    same("(a, b,)", "(a, b)");
    assert_eq!(tree("(a,)"), "value\n  tuple\n    name a");
    assert_eq!(tree("(a)"), "value\n  parentheses\n    name a");
    assert_eq!(tree("[]"), "value\n  list");
}

#[test]
fn numbers() {
    assert_eq!(tree("3x3"), "value\n  pair 3x3");
    assert_eq!(tree("1x70"), "value\n  pair 1x70");
    assert_eq!(tree("1..4"), "value\n  range\n    int 1\n    int 4");
    assert_eq!(tree("5e-4"), "value\n  float 0.0005");
    assert_eq!(tree("1.5E+3"), "value\n  float 1500.0");
    assert_eq!(tree("007"), "value\n  int 7");
    assert_eq!(tree("9223372036854775807"), "value\n  int 9223372036854775807");
}

#[test]
fn strings() {
    assert_eq!(tree(r#""""#), "value\n  string");
    assert_eq!(
        tree(r#""a{b}c\{\"\\\n\t\}""#),
        "value\n  string\n    text \"a\"\n    name b\n    text \"c{\\\"\\\\\\n\\t}\""
    );
    assert_eq!(tree(r#""// {1 + 2}""#).lines().count(), 6);
}

#[test]
fn names() {
    assert_eq!(
        tree("x -> f as layer{i}.0.{i + 1}.input.in"),
        "value
  pipe
    name x
    as
      name f
      path
        string
          text \"layer\"
          name i
        part 0
        binary +
          name i
          int 1
        part input
        part in"
    );
    assert_eq!(
        tree("f(in = 1, if = 2)"),
        "value\n  call\n    name f\n    argument in\n      int 1\n    argument if\n      int 2"
    );
    assert_eq!(tree("x.input.output"), "value\n  field output\n    field input\n      name x");
    assert_eq!(
        tree("x -> f as a.0.1"),
        "value\n  pipe\n    name x\n    as\n      name f\n      path\n        part a\n        part 0\n        part 1"
    );
}

#[test]
fn blank_texts() {
    for text in ["", "\n", "// only a comment", "\u{feff}block b(x) { x }", "\u{feff}", " \t\r\n", ";;"] {
        let mut map = SourceMap::new();
        let file = map.add("a.nn", text);
        let (_, diagnostics) = parse(&map, file);
        assert!(diagnostics.is_empty(), "{text:?} {diagnostics:?}");
    }
}

#[test]
fn a_sign_at_the_beginning_of_a_line_is_warned_of() {
    let mut map = SourceMap::new();
    let file = map.add("a.nn", "block b(x, y) {\n    let z = x\n    -y\n}\n");
    let (_, diagnostics) = parse(&map, file);
    insta::assert_snapshot!(render(&map, &diagnostics, false));
}
