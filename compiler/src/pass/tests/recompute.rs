//! What is computed again in a training step, and what is kept.

use super::super::recompute;
use crate::graph::parse::parse;
use crate::graph::verify::assert_valid;

const STEP: &str = r#"graph step {
  %0 = input "x" : f32[4, 8, 16, 16]
  %1 = parameter "w" {init=constant(0.0)} : f32[8, 8, 1, 1]
  %2 = parameter "m" {init=constant(0.0)} : f32[8, 1, 1]
  %3 = conv2d %0, %1 : f32[4, 8, 16, 16]
  %4 = exp %3 : f32[4, 8, 16, 16]
  %5 = sub %3, %2 : f32[4, 8, 16, 16] @centred
  %6 = mul %5, %5 : f32[4, 8, 16, 16]
  %7 = mul %4, %5 : f32[4, 8, 16, 16]
  %8 = reduce_sum %6 {axes=[0, 2, 3]} : f32[8]
  %9 = reduce_sum %7 {axes=[0, 2, 3]} : f32[8]
  %10 = add %8, %9 : f32[8]
  %11 = reshape %10 {shape=[8, 1, 1]} : f32[8, 1, 1]
  output y = %8
  update %2 = %11
}
"#;

fn count(text: &str, op: &str) -> (usize, usize) {
    let mut graph = parse(text).unwrap();
    let report = recompute::run(&mut graph);
    assert_valid(&graph, "recompute");
    let name = format!(" = {op} ");
    (report.changes, graph.to_string().matches(&name).count())
}

#[test]
fn a_cheap_value_of_several_users_is_computed_for_each() {
    assert_eq!(count(STEP, "sub"), (1, 2));
    let mut graph = parse(STEP).unwrap();
    let report = recompute::run(&mut graph);
    assert_eq!(report.remarks[0].text, "sub `centred` is computed again for each of 2 users");
}

#[test]
fn what_is_kept() {
    // In inference; what is costly; small values; where a user is no elementwise one; where the other
    // value would have to be kept in its place.
    for (from, to) in [
        ("  update %2 = %11\n", ""),
        ("%5 = sub %3, %2", "%5 = div %3, %2"),
        ("%6 = mul %5, %5", "%6 = softmax %5 {axis=1}"),
        ("%4 = exp %3", "%4 = exp %0"),
    ] {
        assert_ne!(STEP.replace(from, to), STEP);
        assert_eq!(count(&STEP.replace(from, to), "sub").0, 0, "{to}");
    }
    assert_eq!(count(&STEP.replace("16, 16", "2, 2"), "sub"), (0, 1));
}
