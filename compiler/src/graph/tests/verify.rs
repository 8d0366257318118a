//! Broken graphs and what the verifier says of them.

use super::{node, source, ty};
use crate::graph::parse::parse;
use crate::graph::verify::verify;
use crate::graph::{Graph, GroupId, Op, Output, Update};

/// The problems of the graph of that text.
fn problems(text: &str) -> Vec<String> {
    verify(&parse(text).unwrap()).err().unwrap_or_default()
}

const GOOD: &str = r#"
graph good {
  %0 = input "x" : f32[1, 3, 8, 8]
  %1 = parameter "w" {init=constant(0.0)} : f32[16, 3, 3, 3]
  group g0 conv2d + relu {
    %2 = conv2d %0, %1 {padding=1x1} : f32[1, 16, 8, 8] anchor
    %3 = relu %2 : f32[1, 16, 8, 8] blocked8 into %5 at 0
  }
  %4 = pad %0 {pads=[0:0, 0:5, 0:0, 0:0], value=0.0} : f32[1, 8, 8, 8] into %5 at 16
  %5 = concat %3, %4 {axis=1} : f32[1, 24, 8, 8]
  output y = %5
}
"#;

#[test]
fn updates_are_of_parameters_each_once_and_of_their_type() {
    let mut g = Graph::new("g");
    let x = source(&mut g, "input", "x", "f32[4]");
    let w = source(&mut g, "parameter", "w", "f32[4]");
    let v = source(&mut g, "parameter", "v", "f32[3]");
    let y = node(&mut g, "mul", &[x, w]);
    g.updates = vec![
        Update { parameter: w, value: y },
        Update { parameter: w, value: x },
        Update { parameter: x, value: y },
        Update { parameter: v, value: y },
    ];
    let problems = verify(&g).unwrap_err();
    assert_eq!(
        problems,
        [
            "node 1 (parameter `w`): it is updated twice",
            "node 0 (input `x`): it is updated, but it is no parameter",
            "node 2 (parameter `v`): it is f32[3], it is updated to f32[4]",
        ]
    );
}

#[test]
fn a_good_graph() {
    assert_eq!(problems(GOOD), [""; 0]);
}

#[test]
fn broken_texts() {
    for (from, to, expected) in [
        (
            "f32[1, 16, 8, 8] anchor",
            "f32[1, 16, 8, 9] anchor",
            "node 2 (conv2d): its type should be f32[1, 16, 8, 8], it is f32[1, 16, 8, 9]",
        ),
        ("conv2d %0, %1", "conv2d %0", "node 2 (conv2d): `conv2d` takes 2 or 3 operands, got 1"),
        (
            "f32[1, 3, 8, 8]\n",
            "f32[1, 0, 8, 8]\n",
            "node 0 (input `x`): dimension 1 must be at least 1, it would be 0 in f32[1, 0, 8, 8]",
        ),
        ("into %5 at 16", "into %5 at 15", "node 4 (pad): it is not the operand of node 5 at 15"),
        ("into %5 at 16", "into %3 at 0", "node 4 (pad): it is placed into node 3, which is no concat"),
        (
            "anchor",
            "into %5 at 0",
            "node 2 (conv2d): it is placed, but only the last node of group g0 can be",
        ),
        (
            "pad %0 {pads=[0:0, 0:5, 0:0, 0:0]",
            "pad %2 {pads=[0:0, 0:0, 0:0, 0:0]",
            "node 2 (conv2d): node 4 uses it, but only the last node of group g0 reaches memory",
        ),
        (
            "output y = %5",
            "output y = %2",
            "node 2 (conv2d): it is a result, but only the last node of group g0 reaches memory",
        ),
        ("output y = %5", "output y = %5\noutput y = %0", "output `y` is there twice"),
        (
            "blocked8",
            "blocked0",
            "node 3 (relu): blocked0 is for f32 and bool of 4 dimensions, it is f32[1, 16, 8, 8]",
        ),
        (
            "%1 = parameter \"w\" {init=constant(0.0)} : f32[16, 3, 3, 3]",
            "%1 = parameter \"w\" {init=constant(0.0)} : f32[16, 3, 3, 3]\n%6 = reshape %0 {shape=[192]} : f32[192] channels_last",
            "node 2 (reshape): channels_last is for f32 and bool of 4 dimensions, it is f32[192]",
        ),
        ("\"w\"", "\"x\"", "node 1 (parameter `x`): node 0 has the same name"),
        ("\"w\"", "\"\"", "node 1 (parameter): it needs a name"),
        ("%4 = pad", "group g1 {\n}\n%4 = pad", "group g1 is empty"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let found = problems(&GOOD.replacen(from, to, 1));
        assert!(found.iter().any(|p| p == expected), "expected {expected}\nfound {found:#?}");
    }
}

#[test]
fn literals_of_the_wrong_length() {
    let text = "graph g {\n%0 = constant {value=[1.0, 2.0]} : f32[3]\n}";
    assert_eq!(problems(text), ["node 0 (constant): 2 elements are given for f32[3]"]);
}

/// Input, relu, neg.
fn chain() -> (Graph, [crate::graph::NodeId; 3]) {
    let mut g = Graph::new("chain");
    let x = source(&mut g, "input", "x", "f32[4]");
    let a = node(&mut g, "relu", &[x]);
    let b = node(&mut g, "neg", &[a]);
    g.outputs.push(Output { name: "y".to_string(), node: b });
    (g, [x, a, b])
}

#[test]
fn dangling_ids_and_cycles() {
    let (mut g, [_, a, b]) = chain();
    g.node_mut(b).group = Some(GroupId(3));
    let p = verify(&g).unwrap_err();
    assert_eq!(p, ["node 2 (neg): it says that it is in group g3, which does not have it"]);

    let (mut g, [x, _, b]) = chain();
    g.replace_uses(b, x);
    g.remove(b);
    g.outputs.push(Output { name: "gone".to_string(), node: b });
    assert_eq!(verify(&g).unwrap_err(), ["output `gone` is a node that is not there"]);

    let (mut g, _) = chain();
    g.set_operand(a, 0, b);
    assert_eq!(verify(&g).unwrap_err(), ["2 nodes are in a cycle or depend on one"]);
    assert!(g.to_string().contains("%1 = relu %2"), "a broken graph can be printed:\n{g}");
}

#[test]
fn groups_out_of_order() {
    let (mut g, [_, a, b]) = chain();
    let group = |nodes: &[_]| crate::graph::Group { anchor: None, nodes: nodes.to_vec() };
    g.groups = vec![group(&[b, a])];
    g.node_mut(a).group = Some(GroupId(0));
    g.node_mut(b).group = Some(GroupId(0));
    let p = verify(&g).unwrap_err();
    assert!(
        p.contains(&"node 2 (neg): in group g0, it comes before one of its operands".to_string()),
        "{p:?}"
    );

    g.groups = vec![group(&[b]), group(&[a])];
    g.node_mut(a).group = Some(GroupId(1));
    let p = verify(&g).unwrap_err();
    assert_eq!(p, ["node 2 (neg): group g0 needs node 1, which group g1 computes"]);
    assert!(g.to_string().contains("group g1 relu"), "{g}");
}

#[test]
fn sources_take_no_operands() {
    let mut g = Graph::new("g");
    let x = source(&mut g, "input", "x", "f32[4]");
    g.add_typed(Op::Input, &[x], ty("f32[4]"), "y", None);
    assert_eq!(verify(&g).unwrap_err(), ["node 1 (input `y`): it takes no operands, got 1"]);
}
