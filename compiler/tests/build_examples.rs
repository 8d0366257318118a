//! The programs in `examples/`: their parameters have the names and shapes of torchvision's
//! checkpoints, and as many numbers as the models have there.

use std::collections::BTreeMap;
use std::path::Path;

use nnc_compiler::build::{BuildOptions, Built, NoFiles, build};
use nnc_compiler::graph::Op;
use nnc_dsl::SourceMap;

/// Builds an example; panics with its diagnostics.
fn example(name: &str, sets: &[(&str, &str)], training: bool) -> Built {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(format!("{name}.nn"));
    let text = std::fs::read_to_string(&path).expect("the example is there");
    let mut map = SourceMap::new();
    let root = map.add(format!("{name}.nn"), text);
    let sets: BTreeMap<String, String> = sets.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let options = BuildOptions { net: None, sets, training };
    let built = build(&mut map, root, &NoFiles, &options).unwrap_or_else(|d| panic!("{name}: {d:#?}"));
    assert_eq!(built.warnings, [], "{name} has warnings");
    built
}

/// Names and shapes of the parameters (running statistics too), and the number of trained numbers.
fn parameters(built: &Built) -> (Vec<String>, usize) {
    let mut names = vec![];
    let mut count = 0;
    for id in built.graph.parameters() {
        let node = built.graph.node(id);
        let shape = node.ty.sizes().expect("parameters have known shapes");
        names.push(format!("{} {shape:?}", node.name));
        if let Op::Parameter(p) = &node.op
            && p.trainable
        {
            count += shape.iter().product::<usize>();
        }
    }
    (names, count)
}

#[test]
fn lenet() {
    let built = example("lenet", &[], false);
    let (names, count) = parameters(&built);
    assert_eq!(count, 61_706);
    assert_eq!(
        names,
        [
            "conv1.weight [6, 1, 5, 5]",
            "conv1.bias [6]",
            "conv2.weight [16, 6, 5, 5]",
            "conv2.bias [16]",
            "fc1.weight [120, 400]",
            "fc1.bias [120]",
            "fc2.weight [84, 120]",
            "fc2.bias [84]",
            "fc3.weight [10, 84]",
            "fc3.bias [10]",
        ]
    );
    let outputs: Vec<String> =
        built.graph.outputs.iter().map(|o| format!("{}: {}", o.name, built.graph.node(o.node).ty)).collect();
    assert_eq!(outputs, ["logits: f32[N, 10]", "probabilities: f32[N, 10]"]);
}
