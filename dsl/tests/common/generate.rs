//! Programs by chance: every kind of statement and expression, line ends and comments where they may be.

use proptest::prelude::*;

/// A program that parses.
pub fn program() -> impl Strategy<Value = String> {
    prop::collection::vec(statement(3), 0..6)
        .prop_map(|s| format!("// head\nnet a(n = 3) {{\n{}}}", s.concat()))
}

fn end() -> impl Strategy<Value = &'static str> {
    prop_oneof![5 => Just("\n"), 1 => Just("; "), 1 => Just(" // note\n"), 1 => Just("\n\n\n"), 1 => Just("\n// own\n")]
}

/// Between tokens inside of a bracket, or before an operator.
fn gap() -> impl Strategy<Value = &'static str> {
    prop_oneof![12 => Just(" "), 1 => Just("\n"), 1 => Just(" // why\n"), 1 => Just("\n\n// because\n")]
}

fn name() -> impl Strategy<Value = String> {
    "(x|y|channels|a_rather_long_name_of_a_value|w1)"
}

fn statement(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        (name(), expr(depth)).prop_map(|(n, e)| format!("let {n} = {e}")),
        (name(), name(), expr(depth)).prop_map(|(n, m, e)| format!("{n}, {m} = {e}")),
        (name(), expr(1)).prop_map(|(n, e)| format!("input {n}: f32[N, {e}]")),
        (name(), expr(1)).prop_map(|(n, e)| format!("state {n}: f32 = {e}")),
        (name(), expr(depth)).prop_map(|(n, e)| format!("output {n} = {e}")),
        (name(), expr(depth)).prop_map(|(n, e)| format!("const {n} = {e}")),
        (name(), expr(depth)).prop_map(|(n, e)| format!("layer {n} = {e}")),
        expr(depth).prop_map(|e| format!("require {e}, \"why {{x}}\"")),
        expr(depth),
    ];
    let ended = (leaf, end()).prop_map(|(s, e)| s + e);
    if depth == 0 {
        return ended.boxed();
    }
    let body = || prop::collection::vec(statement(depth - 1), 0..3).prop_map(|s| s.concat());
    prop_oneof![
        6 => ended,
        1 => (expr(1), body(), end()).prop_map(|(e, b, end)| format!("repeat {e} {{{b}}}{end}")),
        1 => (expr(1), body(), end()).prop_map(|(e, b, end)| format!("for i in {e} {{\n{b}}}{end}")),
        1 => (body(), end()).prop_map(|(b, end)| format!("train {{ {b}}}{end}")),
        1 => (expr(1), body(), gap(), body(), end())
            .prop_map(|(e, b, g, c, end)| format!("if {e} {{ {b}}}{g}else {{ {c} }}{end}")),
    ]
    .boxed()
}

/// Values of all kinds; what binds loosely stands in parentheses.
fn expr(depth: u32) -> BoxedStrategy<String> {
    let atom = prop_oneof![
        4 => name(),
        1 => "(0|12|0\\.5|5e-4|3x3|true|\"text\"|\"a\\{x\\}b\")",
    ];
    if depth == 0 {
        return atom.boxed();
    }
    let e = || expr(depth - 1);
    let many = || prop::collection::vec((gap(), e(), gap()), 0..4);
    let joined = |parts: Vec<(&str, String, &str)>| {
        parts.into_iter().map(|(a, e, b)| format!("{a}{e}{b}")).collect::<Vec<_>>().join(",")
    };
    let stages = || prop::collection::vec((gap(), name(), many()), 1..4);
    prop_oneof![
        2 => atom,
        1 => many().prop_map(move |p| format!("f({})", joined(p))),
        1 => many().prop_map(move |p| format!("[{}]", joined(p))),
        1 => (gap(), e()).prop_map(|(g, e)| format!("f(k = {e},{g}stride = 2,)")),
        2 => (e(), stages()).prop_map(move |(e, stages)| {
            let stages: String =
                stages.into_iter().map(|(g, n, a)| format!("{g}-> {n}({}) as s.{{i}}", joined(a))).collect();
            format!("({e}{stages})")
        }),
        2 => (e(), gap(), "(\\+|-|\\*|and|==|not in|\\^)", gap(), e())
            .prop_map(|(a, g, op, h, b)| format!("({a}{g}{op}{h}{b})")),
        1 => e().prop_map(|e| format!("(-{e})[:, 1:{e}].field")),
        1 => (e(), e(), e(), gap()).prop_map(|(a, b, c, g)| format!("(if {a} {{ {b} }}{g}else {{ {c} }})")),
        1 => (e(), e()).prop_map(|(a, b)| format!("({a}, {b})")),
        1 => (e(), e()).prop_map(|(a, b)| format!("({a}..{b})")),
        1 => (e(), gap()).prop_map(|(a, g)| format!("({g}{a}{g})")),
    ]
    .boxed()
}
