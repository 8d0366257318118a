//! The programs in `examples/`: their parameters have the names and shapes of torchvision's
//! checkpoints, and as many numbers as the models have there.

use std::collections::BTreeMap;
use std::path::Path;

use nnc_compiler::build::{BuildOptions, Built, NoFiles, build};
use nnc_compiler::graph::Op;
use nnc_dsl::SourceMap;

/// `--set name=value` …
type Sets = &'static [(&'static str, &'static str)];

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

/// Example, what is set, whether the training variant is counted, and the number of trained
/// numbers of the model in torchvision (`resnet_cifar`, `vgg_cifar`, `lenet`: of the nets described there).
const COUNTS: &[(&str, Sets, bool, usize)] = &[
    ("alexnet", &[], false, 61_100_840),
    ("vgg", &[("depth", "11")], false, 132_863_336),
    ("vgg", &[("depth", "13")], false, 133_047_848),
    ("vgg", &[("depth", "16")], false, 138_357_544),
    ("vgg", &[("depth", "19")], false, 143_667_240),
    ("vgg_cifar", &[], false, 9_228_362),
    ("googlenet", &[], true, 13_004_888),
    ("resnet", &[("depth", "18")], false, 11_689_512),
    ("resnet", &[("depth", "34")], false, 21_797_672),
    ("resnet", &[("depth", "50")], false, 25_557_032),
    ("resnet", &[("depth", "101")], false, 44_549_160),
    ("resnet", &[("depth", "152")], false, 60_192_808),
    ("resnet_cifar", &[], false, 11_173_962),
    ("squeezenet", &[("version", "1.0")], false, 1_248_424),
    ("squeezenet", &[("version", "1.1")], false, 1_235_496),
    ("mobilenet_v1", &[], false, 4_231_976),
    ("mobilenet_v2", &[], false, 3_504_872),
    ("maxout", &[("pieces", "2")], false, 290_506),
    ("zfnet", &[], false, 62_357_608),
    ("crosses", &[], false, 0),
    ("pooling", &[], false, 0),
];

#[test]
fn parameter_counts() {
    let wrong: Vec<String> = COUNTS
        .iter()
        .filter_map(|&(name, sets, training, expected)| {
            let (_, found) = parameters(&example(name, sets, training));
            (found != expected).then(|| format!("{name} {sets:?}: expected {expected}, found {found}"))
        })
        .collect();
    assert_eq!(wrong, [] as [String; 0]);
}

/// Every parameter of the nets whose checkpoints others made, by name and shape.
#[test]
fn parameter_names() {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        for (name, sets, training) in [
            ("alexnet", &[][..], false),
            ("googlenet", &[], true),
            ("mobilenet_v2", &[], false),
            ("resnet", &[("depth", "18")], false),
            ("resnet", &[("depth", "50")], false),
            ("squeezenet", &[("version", "1.0")], false),
            ("squeezenet", &[("version", "1.1")], false),
            ("vgg", &[("depth", "11")], false),
            ("vgg_cifar", &[], false),
        ] {
            let variant: String = sets.iter().map(|(_, v)| format!("_{v}")).collect();
            let names = parameters(&example(name, sets, training)).0.join("\n");
            insta::assert_snapshot!(format!("parameters_{name}{variant}"), names);
        }
    });
}

/// Runs an example in the reference interpreter on one picture.
fn interpret(name: &str, shape: [usize; 4], pixels: Vec<f32>) -> BTreeMap<String, Vec<f32>> {
    let [n, c, h, w] = shape.map(|d| d.to_string());
    let sizes = [("N", n), ("C", c), ("H", h), ("W", w)];
    let graph = example(name, &[], false).graph;
    let bindings = sizes.iter().map(|(s, d)| (s.to_string(), d.parse().expect("a number"))).collect();
    let graph = graph.specialise(&bindings).expect("the sizes fit");
    let picture = ndarray::ArrayD::from_shape_vec(shape.to_vec(), pixels).expect("as many pixels");
    let feeds = BTreeMap::from([("image".to_string(), nnc_runtime::Tensor::from(picture))]);
    let results = nnc_compiler::graph::interpret::run(&graph, &feeds).expect("it runs");
    results.into_iter().map(|(name, t)| (name, t.as_f32().expect("f32").iter().copied().collect())).collect()
}

#[test]
fn crosses_are_found() {
    let picture = "
        1.1.....
        .1......
        1.1..1..
        .....11.
        ......1.
        1...1.1.
        .1.1...1
        ..1.....
    ";
    let pixels = picture.split_whitespace().collect::<String>();
    let pixels = pixels.chars().map(|c| if c == '1' { 1.0 } else { 0.0 }).collect();
    let results = interpret("crosses", [1, 1, 8, 8], pixels);
    let found: Vec<usize> =
        results["crosses"].iter().enumerate().filter(|(_, v)| **v > 0.0).map(|(i, _)| i).collect();
    assert_eq!(found, [8 + 1], "the one in the upper left corner");
    assert_eq!(results["count"], [1.0]);
}

#[test]
fn pooling_in_four_ways() {
    let results = interpret("pooling", [1, 1, 4, 6], (0..24).map(|i| i as f32).collect());
    assert_eq!(results["halved"], [7.0, 9.0, 11.0, 19.0, 21.0, 23.0]);
    assert_eq!(results["smoothed"].len(), 3 * 5);
    assert_eq!(results["partial"], [14.0, 16.0, 17.0, 20.0, 22.0, 23.0]);
    assert_eq!(results["quadrants"], [8.0, 11.0, 20.0, 23.0]);
}

#[test]
fn parameters_of_the_training_variant_are_known() {
    let built = example("googlenet", &[], false);
    let names: Vec<&str> = built.training_only.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names.len(), 2 * (5 + 2 + 2), "{names:?}");
    assert!(names.iter().all(|n| n.starts_with("aux1.") || n.starts_with("aux2.")), "{names:?}");
    assert_eq!(example("lenet", &[], false).training_only, []);
}

/// What is measured of GoogLeNet is without the heads that help it to learn.
#[test]
fn the_heads_of_googlenet_vanish_from_evaluation() {
    let built = example("googlenet", &[], true);
    let heads = |name: &str| name.starts_with("aux");
    assert!(built.training_only.iter().filter(|(name, _)| heads(name)).count() > 10);
    let sizes = [("N".to_string(), 2)].into();
    let graph = nnc_compiler::training::build_evaluation(&built, &sizes).expect("it can be measured");
    let left = graph.ids().filter(|&n| heads(&graph.node(n).name)).count();
    assert_eq!(left, 0);
}
