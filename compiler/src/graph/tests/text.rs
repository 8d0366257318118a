//! The text form: what it looks like, that it reads back, what is said of texts that do not.

use proptest::prelude::*;

use super::{source, ty};
use crate::graph::parse::parse;
use crate::graph::print::print;
use crate::graph::verify::verify;
use crate::graph::{Graph, Group, GroupId, Layout, NodeId, Op, Output, Placement, TensorType};

/// Every kind of operation, with attributes off their defaults, and types of its operands.
const SAMPLES: &[(&str, &str, &[&str])] = &[
    ("neg", "", &["f32[N]"]),
    ("abs", "", &["f32[N]"]),
    ("exp", "", &["f32[N]"]),
    ("log", "", &["f32[N]"]),
    ("sqrt", "", &["f32[N]"]),
    ("rsqrt", "", &["f32[N]"]),
    ("tanh", "", &["f32[N]"]),
    ("sigmoid", "", &["f32[N]"]),
    ("relu", "", &["f32[N]"]),
    ("leaky_relu", "slope=0.01", &["f32[N]"]),
    ("elu", "alpha=1.0", &["f32[N]"]),
    ("gelu", "", &["f32[N]"]),
    ("silu", "", &["f32[N]"]),
    ("hard_swish", "", &["f32[N]"]),
    ("hard_sigmoid", "", &["f32[N]"]),
    ("erf", "", &["f32[N]"]),
    ("floor", "", &["f32[N]"]),
    ("sign", "", &["f32[N]"]),
    ("clamp", "low=0.0, high=6.0", &["f32[N]"]),
    ("clamp", "low=-inf, high=1e-30", &["f32[N]"]),
    ("not", "", &["bool[N]"]),
    ("add", "", &["f32[N, 3]", "f32[3]"]),
    ("sub", "", &["f32[N, 3]", "f32[3]"]),
    ("mul", "", &["f32[N, 3]", "f32[3]"]),
    ("div", "", &["f32[N, 3]", "f32[3]"]),
    ("pow", "", &["f32[N, 3]", "f32[3]"]),
    ("maximum", "", &["f32[N, 3]", "f32[3]"]),
    ("minimum", "", &["f32[N, 3]", "f32[3]"]),
    ("eq", "", &["i32[N]", "i32[N]"]),
    ("ne", "", &["i32[N]", "i32[N]"]),
    ("lt", "", &["i32[N]", "i32[N]"]),
    ("le", "", &["i32[N]", "i32[N]"]),
    ("gt", "", &["i32[N]", "i32[N]"]),
    ("ge", "", &["i32[N]", "i32[N]"]),
    ("and", "", &["bool[N]", "bool[N]"]),
    ("or", "", &["bool[N]", "bool[N]"]),
    ("where", "", &["bool[N]", "f32[N]", "f32[]"]),
    ("cast", "to=i32", &["f32[N]"]),
    ("conv2d", "", &["f32[N, 3, 9, 9]", "f32[8, 3, 3, 3]"]),
    (
        "conv2d",
        "stride=2x1, padding=1x0:2, dilation=1x2, groups=2",
        &["f32[N, 4, 9, 9]", "f32[8, 2, 3, 3]", "f32[8]"],
    ),
    ("conv_transpose2d", "", &["f32[N, 4, H, 9]", "f32[4, 8, 3, 3]"]),
    (
        "conv_transpose2d",
        "stride=2x2, padding=1x1, output_padding=1x0, groups=2",
        &["f32[N, 4, H, 9]", "f32[4, 8, 3, 3]", "f32[16]"],
    ),
    ("matmul", "", &["f32[N, 2, 3]", "f32[3, 4]"]),
    ("linear", "", &["f32[N, 3]", "f32[4, 3]", "f32[4]"]),
    ("max_pool2d", "window=3x3, stride=2x2, padding=1x1, dilation=2x1, ceil", &["f32[N, 4, 9, W]"]),
    ("avg_pool2d", "window=2x2, stride=2x2", &["f32[N, 4, 9, 9]"]),
    ("avg_pool2d", "window=2x2, stride=2x2, padding=1x0:1, count_include_pad=false", &["f32[N, 4, 9, 9]"]),
    ("adaptive_max_pool2d", "output=2x3", &["f32[N, 4, 9, 9]"]),
    ("adaptive_avg_pool2d", "output=1x1", &["f32[N, 4, 9, 9]"]),
    ("batch_norm", "eps=1e-5, momentum=0.1", &["f32[N, 4]", "f32[4]", "f32[4]", "f32[4]", "f32[4]"]),
    (
        "batch_norm",
        "eps=1e-5, momentum=0.1, training",
        &["f32[N, 4]", "f32[4]", "f32[4]", "f32[4]", "f32[4]"],
    ),
    ("local_response_norm", "size=5, alpha=0.0001, beta=0.75, k=2.0", &["f32[N, 4]"]),
    ("dropout", "probability=0.5", &["f32[N]"]),
    ("softmax", "axis=1", &["f32[N, 4]"]),
    ("log_softmax", "axis=0", &["f32[N, 4]"]),
    ("reduce_sum", "axes=[]", &["f32[N, 4]"]),
    ("reduce_mean", "axes=[0, 1]", &["f32[N, 4]"]),
    ("reduce_max", "axes=[1], keep", &["f32[N, 4]"]),
    ("reduce_min", "axes=[1]", &["f32[N, 4]"]),
    ("reduce_prod", "axes=[1]", &["f32[N, 4]"]),
    ("reduce_variance", "axes=[0, 1], keep", &["f32[N, 4]"]),
    ("arg_max", "axis=1", &["f32[N, 4]"]),
    ("arg_max", "axis=1, keep", &["f32[N, 4]"]),
    ("reshape", "shape=[floor(N*M/3), 3]", &["f32[floor(N*M/3)*3]"]),
    ("reshape", "shape=[]", &["f32[1]"]),
    ("transpose", "order=[1, 0]", &["f32[N, 4]"]),
    ("concat", "axis=0", &["f32[N, 4]"]),
    ("concat", "axis=1", &["f32[N, 4]", "f32[N, 5]", "f32[N, 1]"]),
    ("slice", "axis=0, start=1, end=N - 1", &["f32[N, 4]"]),
    ("slice", "axis=1, start=0, end=4, step=3", &["f32[N, 4]"]),
    ("pad", "pads=[0:0, 1:2], value=-1.5", &["f32[N, 4]"]),
    ("pad", "pads=[0:0:1, 1:2:3], value=0.0", &["f32[N, 4]"]),
    ("reverse", "axes=[0, 2]", &["f32[N, 4, 5]"]),
    ("philox", "from=uniform(0.0, 1.0), shape=[N, 4], stream=3", &["i32[2]", "i32[]"]),
    ("philox", "from=normal(0.0, 0.5), shape=[], stream=0", &["i32[2]", "i32[]"]),
    ("conv2d_input_grad", "padding=2x2, input=[28, W]", &["f32[N, 6, 28, W]", "f32[6, 1, 5, 5]"]),
    (
        "conv2d_weight_grad",
        "stride=2x2, padding=0:1x0:1, groups=2, kernel=3x3",
        &["f32[N, 4, 8, 8]", "f32[N, 6, 4, 4]"],
    ),
    ("max_pool2d_grad", "window=3x3, stride=2x2, padding=1x1", &["f32[N, 4, 9, 9]", "f32[N, 4, 5, 5]"]),
    (
        "avg_pool2d_grad",
        "window=2x2, stride=2x2, count_include_pad=false, input=[9, 8]",
        &["f32[N, 4, 4, 4]"],
    ),
    ("adaptive_max_pool2d_grad", "", &["f32[N, 4, 9, 9]", "f32[N, 4, 2, 3]"]),
    ("adaptive_avg_pool2d_grad", "input=[H, 9]", &["f32[N, 4, 2, 3]"]),
    ("gather_grad", "axis=1, size=7", &["f32[4, N, 2, 3]", "i32[N, 2]"]),
    ("broadcast", "shape=[N, 4, 2]", &["f32[4, 1]"]),
    ("gather", "axis=0", &["f32[5, 4]", "i32[N]"]),
    ("one_hot", "classes=10", &["i32[N]"]),
    ("stop_gradient", "", &["f32[N]"]),
    ("relayout", "", &["f32[N, 4, 4, 4]"]),
];

/// Sources, with types.
const SOURCES: &[(&str, &str, &str)] = &[
    ("input", "", "f32[N, 3]"),
    ("parameter", "init=constant(0.0), frozen", "f32[4]"),
    ("parameter", "init=uniform(-0.5, 0.5)", "f32[4]"),
    ("parameter", "init=normal(0.0, 1e-2)", "f32[4]"),
    ("parameter", "init=glorot_uniform", "f32[4, 4]"),
    ("parameter", "init=glorot_normal", "f32[4, 4]"),
    ("parameter", "init=he_uniform(0.577)", "f32[4, 4]"),
    ("parameter", "init=he_normal(1.4142135623730951)", "f32[4, 4]"),
    ("parameter", "init=fan_in_uniform(25)", "f32[4]"),
    ("parameter", "init=orthogonal(1.0)", "f32[4, 4]"),
    ("constant", "value=0.5", "f32[N]"),
    ("constant", "value=[1.0, -2.5, 3e10]", "f32[3]"),
    ("random", "from=uniform(0.0, 1.0)", "f32[N]"),
    ("random", "from=normal(0.0, 1.0)", "f32[N]"),
];

#[track_caller]
fn assert_round_trip(graph: &Graph) {
    let text = print(graph);
    let again = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(print(&again), text);
}

#[test]
fn updates_round_trip() {
    let text = "graph step {
  %0 = parameter \"w\" {init=constant(0.0)} : f32[4]
  %1 = input \"rate\" : f32[]
  %2 = mul %0, %1 : f32[4]
  update %0 = %2
}
";
    let graph = parse(text).unwrap();
    assert_eq!(print(&graph), text);
    assert_eq!(graph.updates.len(), 1);
    crate::graph::verify::verify(&graph).unwrap();
}

#[test]
fn every_operation_round_trips() {
    let mut g = Graph::new("all");
    let mut count = 0;
    for &(name, attributes, operands) in SAMPLES {
        let op = Op::parse(name, attributes).unwrap();
        assert_eq!(op.name(), name);
        assert_eq!(Op::parse(name, &op.attributes()), Ok(op.clone()), "{name} {}", op.attributes());
        let inputs: Vec<NodeId> = operands
            .iter()
            .map(|t| {
                count += 1;
                source(&mut g, "input", &format!("x{count}"), t)
            })
            .collect();
        g.add(op, &inputs, "", None).unwrap();
    }
    for (i, &(name, attributes, t)) in SOURCES.iter().enumerate() {
        let op = Op::parse(name, attributes).unwrap();
        assert_eq!(Op::parse(name, &op.attributes()), Ok(op.clone()), "{name} {}", op.attributes());
        g.add_typed(op, &[], ty(t), &format!("source{i}"), None);
    }
    verify(&g).unwrap();
    assert_round_trip(&g);
}

const TINY: &str = r#"graph tiny {
  %0 = input "image" : f32[N, 1, 28, 28]
  %1 = parameter "conv1.weight" {init=he_uniform(0.577)} : f32[6, 1, 5, 5]
  %2 = parameter "conv1.bias" {init=fan_in_uniform(25)} : f32[6]
  group g0 conv2d + relu + max_pool2d {
    %3 = conv2d %0, %1, %2 {padding=2x2} : f32[N, 6, 28, 28] anchor @conv1
    %4 = relu %3 : f32[N, 6, 28, 28]
    %5 = max_pool2d %4 {window=2x2, stride=2x2} : f32[N, 6, 14, 14] blocked8 into %7 at 0
  }
  group g1 avg_pool2d {
    %6 = avg_pool2d %0 {window=2x2, stride=2x2} : f32[N, 1, 14, 14] anchor into %7 at 6
  }
  %7 = concat %5, %6 {axis=1} : f32[N, 7, 14, 14] @"two branches"
  output features = %7
}
"#;

#[test]
fn reads_and_prints() {
    let g = parse(TINY).unwrap();
    verify(&g).unwrap();
    assert_eq!(print(&g), TINY);
    assert_eq!(g.groups.len(), 2);
    assert_eq!(g.groups[0].anchor, Some(g.groups[0].nodes[0]));
    let placed = g.node(g.groups[0].nodes[2]);
    assert_eq!(placed.layout, Layout::Blocked(8));
    assert_eq!(placed.placement.map(|p| p.offset), Some(0));
}

#[test]
fn groups_are_printed_in_one_piece() {
    // relu and exp are a group; abs was added between them.
    let text = "graph g {\n%0 = input \"x\" : f32[4]\n%1 = relu %0 : f32[4]\n%2 = abs %0 : f32[4]\n%3 = exp %1 : f32[4]\n}";
    let mut g = parse(text).unwrap();
    let ids: Vec<NodeId> = g.ids().collect();
    g.groups.push(Group { anchor: None, nodes: vec![ids[1], ids[3]] });
    for i in [1, 3] {
        g.node_mut(ids[i]).group = Some(GroupId(0));
    }
    assert_round_trip(&g);
    let expected = "  group g0 relu + exp {\n    %1 = relu %0 : f32[4]\n    %2 = exp %1 : f32[4]\n  }\n  %3 = abs %0 : f32[4]\n";
    assert!(print(&g).contains(expected), "{g}");
}

#[test]
fn long_literals_are_not_read_back() {
    let mut g = Graph::new("g");
    let elements: Vec<f64> = (0..65).map(f64::from).collect();
    g.add_typed(Op::Constant(crate::graph::Literal::Dense(elements.into())), &[], ty("f32[65]"), "", None);
    assert!(print(&g).contains("constant {value=<65 elements, digest "), "{g}");
    let e = parse(&print(&g)).unwrap_err();
    assert_eq!(e.to_string(), "line 2: the literal was too long to be printed and cannot be read back");
}

#[test]
fn texts_that_are_no_graphs() {
    let within = |line: &str| format!("graph g {{\n%0 = input \"x\" : f32[4]\n{line}\n}}");
    for (text, expected) in [
        (String::new(), "line 1: the graph is not closed: expected `}`"),
        ("graf g {".to_string(), "line 1: expected `graph`, found `graf g {`"),
        ("graph g {".to_string(), "line 1: the graph is not closed: expected `}`"),
        ("graph g {\n}\n}".to_string(), "line 3: nothing may follow the graph"),
        (within("%1 = relu %2 : f32[4]"), "line 3: %2 is not defined before its use"),
        (within("%0 = relu %0 : f32[4]"), "line 3: %0 is there twice"),
        (within("%1 = rely %0 : f32[4]"), "line 3: unknown operation `rely`"),
        (within("%1 = relu %0 {slope=1.0} : f32[4]"), "line 3: unknown attribute `slope`"),
        (within("%1 = softmax %0 : f32[4]"), "line 3: attribute `axis` is missing"),
        (
            within("%1 = softmax %0 {axis=-1} : f32[4]"),
            "line 3: attribute `axis` has a value that cannot be read: `-1`",
        ),
        (within("%1 = softmax %0 {axis=0, axis=1} : f32[4]"), "line 3: attribute `axis` is given twice"),
        (within("%1 = relu %0"), "line 3: expected `:`, found the end of the line"),
        (within("%1 = relu %0 : f16[4]"), "line 3: expected an element type, found `f16[4]`"),
        (within("%1 = relu %0 : f32[4"), "line 3: expected `,`, found the end of the line"),
        (within("%1 = relu %0 : f32[4] anchor"), "line 3: an anchor must be in a group"),
        (within("%1 = relu %0 : f32[4] into %9 at 0"), "line 3: %9, into which this is placed, is not there"),
        (within("%1 = relu %0 : f32[4] @\"x"), "line 3: a string is not closed"),
        (within("%1 = relu %0 : f32[4] and more"), "line 3: expected the end of the line, found `and more`"),
        (
            within("group g1 relu {\n%1 = relu %0 : f32[4]\n}"),
            "line 6: groups must be numbered from 0 without gaps: g0 is missing",
        ),
        (within("output y = %7"), "line 3: %7 is not defined before its use"),
    ] {
        assert_eq!(parse(&text).expect_err(&text).to_string(), expected, "{text}");
    }
}

/// A random graph: from a few inputs, operations that keep the type, with names, groups of
/// neighbours, layouts and a placed concatenation.
fn random_graph() -> impl Strategy<Value = Graph> {
    let step = (0usize..8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), ".{0,6}", 0usize..3);
    (prop::collection::vec(step, 1..30), "[a-z]{1,5}", any::<bool>()).prop_map(|(steps, name, grouped)| {
        let mut g = Graph::new(name);
        let t = "f32[N, 4, 8, 8]";
        let mut values = vec![source(&mut g, "input", "x", t), source(&mut g, "input", "y", t)];
        let w = source(&mut g, "parameter", "w", "f32[4, 4, 3, 3]");
        for (kind, a, b, name, layout) in steps {
            let (a, b) = (*a.get(&values), *b.get(&values));
            let (op, attributes, operands) = match kind {
                0 => ("relu", "", vec![a]),
                1 => ("add", "", vec![a, b]),
                2 => ("conv2d", "padding=1x1", vec![a, w]),
                3 => ("clamp", "low=0.0, high=6.0", vec![a]),
                4 => ("max_pool2d", "window=3x3, stride=1x1, padding=1x1", vec![a]),
                5 => ("mul", "", vec![b, a]),
                6 => ("relayout", "", vec![a]),
                _ => ("softmax", "axis=1", vec![a]),
            };
            let id = g.add(Op::parse(op, attributes).unwrap(), &operands, &name, None).unwrap();
            g.node_mut(id).layout = [Layout::Plain, Layout::Blocked(8), Layout::ChannelsLast][layout];
            values.push(id);
        }
        let tail = &values[values.len() - 2..];
        let concat = g.add(Op::Concat(1), &[tail[0], tail[1], values[0]], "", None).unwrap();
        g.node_mut(tail[1]).placement = Some(Placement { into: concat, offset: 4 });
        g.outputs.push(Output { name: "all of it".to_string(), node: concat });
        if grouped {
            group_neighbours(&mut g);
        }
        g
    })
}

/// Groups each node with its first operand where that has no other user.
fn group_neighbours(g: &mut Graph) {
    for id in g.topological() {
        let node = g.node(id);
        if node.op.is_source() || node.group.is_some() || node.placement.is_some() {
            continue;
        }
        let user = match g.users(id)[..] {
            [user] if g.operands(user).len() == 1 && g.node(user).group.is_none() => user,
            _ => continue,
        };
        let group = GroupId(g.groups.len() as u32);
        g.groups.push(Group { anchor: Some(id), nodes: vec![id, user] });
        g.node_mut(id).group = Some(group);
        g.node_mut(user).group = Some(group);
    }
}

proptest! {
    #[test]
    fn random_graphs_verify_and_round_trip(g in random_graph()) {
        prop_assert_eq!(verify(&g), Ok(()));
        let text = print(&g);
        let again = parse(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(print(&again), text);
        prop_assert_eq!(verify(&again), Ok(()));
        let types = |g: &Graph| -> Vec<TensorType> { g.topological().iter().map(|&n| g.node(n).ty.clone()).collect() };
        prop_assert_eq!(types(&again).len(), types(&g).len());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(graph g \\{\n)?(%[0-9] = (relu|conv2d|slice|constant|pad)( %[0-9])?( \\{[a-z]*=[\\[\\]0-9a-z:,.x<]*\\})?( : f32\\[[N0-9(,/ ]*\\])?.{0,8}\n){0,4}.{0,20}") {
        let _ = parse(&text);
    }
}
