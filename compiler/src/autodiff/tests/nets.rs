//! Whole small nets as programs: every layer and loss of the standard library behind one with weights.

use nnc_dsl::SourceMap;
use nnc_runtime::DType;

use super::{Feeds, Values, check, ints};
use crate::autodiff::expand;
use crate::build::{BuildOptions, NoFiles, build};
use crate::graph::{Graph, Op, Output, TensorType};
use crate::pass;

/// The training variant of a program as far as its loss, written out.
fn program(text: &str) -> Graph {
    let mut map = SourceMap::new();
    let root = map.add("test.nn", text);
    let options = BuildOptions { training: true, ..BuildOptions::default() };
    let built = build(&mut map, root, &NoFiles, &options)
        .unwrap_or_else(|d| panic!("{}", nnc_dsl::render(&map, &d, false)));
    let mut graph = built.graph;
    graph.outputs = vec![Output { name: "loss".to_string(), node: built.train.unwrap().loss }];
    let mut input = |name, shape: &[usize]| {
        graph.add_typed(Op::Input, &[], TensorType::new(DType::I32, shape), name, None)
    };
    let (seed, step) = (input("seed", &[2]), input("step", &[]));
    expand::run(&mut graph, seed, step).unwrap_or_else(|e| panic!("{e}"));
    graph.updates.clear();
    pass::sweep(&mut graph);
    graph
}

/// Values for everything; integers are labels below 3.
fn feeds(graph: &Graph) -> Feeds {
    let mut out = Feeds::new();
    for (i, id) in graph.inputs().into_iter().chain(graph.parameters()).enumerate() {
        let node = graph.node(id);
        let shape = node.ty.sizes().unwrap();
        let value = match (node.ty.dtype, node.name.ends_with("running_var")) {
            (DType::I32, _) => {
                ints(&shape, (0..shape.iter().product::<usize>()).map(|i| i as i32 * 2 % 3).collect())
            }
            (_, true) => Values::between(41 * i + 5, 0.5, 1.5).tensor(&shape),
            _ => Values::between(41 * i + 5, -0.6, 0.7).tensor(&shape),
        };
        out.insert(node.name.clone(), value);
    }
    out
}

fn check_program(text: &str) {
    let graph = program(text);
    check(&graph, graph.outputs[0].node, &feeds(&graph));
}

#[test]
fn layers_for_pictures() {
    for layer in [
        "conv(3, 3x2, stride = 2, pad = 1)",
        "conv(4, 3x3, pad = \"same\", groups = 2, dilation = 2, bias = false)",
        "depthwise(3x3, pad = 1)",
        "conv_transpose(3, 3x3, stride = 2, pad = 1, output_pad = 1)",
        "maxpool(3x3, stride = 2, pad = 1, ceil = true)",
        "avgpool(3x3, stride = 2, pad = 1, count_pad = false)",
        "maxpool_to(2x3)",
        "avgpool_to(2x3)",
        "global_avgpool",
        "global_maxpool",
        "batchnorm",
        "lrn(size = 3, alpha = 0.5, k = 1.0)",
        "upsample(2x3)",
        "dropout(0.3)",
        "flatten -> dense(3)",
        "relu6",
        "softplus",
        "variance(axis = [2, 3])",
        "layer_norm",
    ] {
        check_program(&format!(
            "use std.vision
            net one {{
                input x: f32[2, 2, 5, 4]
                let y = x -> conv(4, 3x3, pad = 1) -> tanh -> {layer}
                output all = y
                train {{ loss = mean(y * y * y + y); optimizer = sgd(lr = 0.1) }}
            }}"
        ));
    }
}

#[test]
fn layers_for_sequences_and_tables() {
    for (input, layers) in [
        ("f32[2, 3, 7]", "x -> conv1d(4, 3, stride = 2, pad = 1, groups = 1) -> tanh"),
        ("i32[2, 3]", "x -> embedding(4, 5) -> layer_norm -> dense(2)"),
        ("f32[3, 4]", "x -> dense(5) -> softmax -> dense(3) -> log_softmax"),
    ] {
        check_program(&format!(
            "use std.vision
            net one {{
                input x: {input}
                let y = {layers}
                output all = y
                train {{ loss = mean(y * y * y + y); optimizer = sgd(lr = 0.1) }}
            }}"
        ));
    }
}

#[test]
fn losses() {
    for loss in [
        "cross_entropy(y, label)",
        "binary_cross_entropy(y, sigmoid(target))",
        "mse(y, target)",
        "mae(y, target)",
        "hinge(y, target)",
        "0.3 * mse(y, target) + cross_entropy(y, label)",
    ] {
        check_program(&format!(
            "net one {{
                input x: f32[4, 5]
                let y = x -> dense(3)
                output all = y
                train {{
                    input label: i32[4]
                    input target: f32[4, 3]
                    loss = {loss} + 0 * mean(target) * mean(cast(label, f32))
                    optimizer = sgd(lr = 0.1)
                }}
            }}"
        ));
    }
}

#[test]
fn residual_highway_and_recurrent_blocks() {
    check_program(
        "use std.vision
        net one {
            input x: f32[2, 3, 4, 4]
            let f = x -> residual(3) -> residual(4, 2) -> flatten -> dense(4) -> highway(4)
            let h = f
            layer cell = dense(4)
            repeat 3 { h = concat(h, f) -> cell_input -> cell -> tanh }
            output y = h
            train { input label: i32[2]; loss = cross_entropy(h, label); optimizer = adam() }
        }
        block cell_input(x) { x[:, 0:4] * x[:, 4:8] }
        block residual(x, channels, stride = 1) {
            let f = x -> conv(channels, 3, stride, pad = 1, bias = false) -> batchnorm -> relu
                      -> conv(channels, 3, pad = 1, bias = false) -> batchnorm
            let skip = if x.channels == channels and stride == 1 { x }
                       else { x -> conv(channels, 1, stride, bias = false) -> batchnorm }
            f + skip -> relu
        }
        block highway(x, units) {
            let t = x -> dense(units, bias_init = constant(-2)) -> sigmoid
            t * (x -> dense(units) -> relu) + (1 - t) * x
        }",
    );
}

/// PyTorch: `cross_entropy(x, y, label_smoothing=0.1)`.
#[test]
fn smoothed_labels() {
    let text = "net one {
        param logits: f32[2, 3] = zeros
        input label: i32[2]
        output y = logits
        train { loss = cross_entropy(logits, label, smoothing = 0.1); optimizer = sgd(lr = 0.1) }
    }";
    let graph = program(text);
    let mut feeds = feeds(&graph);
    let data = vec![0.5, -1.0, 2.0, 1.5, 0.25, -0.75];
    let logits = ndarray::ArrayD::from_shape_vec(ndarray::IxDyn(&[2, 3]), data).unwrap();
    feeds.insert("logits".to_string(), nnc_runtime::Tensor::F64(logits));
    feeds.insert("label".to_string(), ints(&[2], vec![1, 0]));
    let loss = super::numbers(&super::run(&graph, &feeds)["loss"])[0];
    assert!((loss - 1.769_325_286_365_524).abs() < 1e-12, "{loss}");
    check(&graph, graph.outputs[0].node, &feeds);
}

/// Formulas that avoid overflow have a kink in their parts, but none in the whole: at 0, where a last
/// layer that starts with zeros is, the slope of softplus is 1/2.
#[test]
fn slopes_at_zero() {
    for (loss, slope) in
        [("mean(softplus(logits))", 0.5), ("binary_cross_entropy(logits, ones([2, 3]))", -0.5)]
    {
        let mut graph = program(&format!(
            "net one {{
                param logits: f32[2, 3] = zeros
                output y = logits
                train {{ loss = {loss}; optimizer = sgd(lr = 0.1) }}
            }}"
        ));
        let (logits, loss) = (graph.parameter("logits").unwrap(), graph.outputs[0].node);
        let gradient = super::gradients(&mut graph, loss, &[logits]).unwrap()[0].unwrap();
        graph.outputs = vec![Output { name: "gradient".to_string(), node: gradient }];
        let zeros = nnc_runtime::Tensor::F64(ndarray::ArrayD::zeros(ndarray::IxDyn(&[2, 3])));
        let mut feeds = feeds(&graph);
        feeds.insert("logits".to_string(), zeros);
        let found = super::run(&graph, &feeds);
        let found = super::numbers(&found["gradient"]);
        assert!(found.iter().all(|g| (g - slope / 6.0).abs() < 1e-12), "{found:?}");
    }
}

/// A block of the standard library that is not in a net above is not checked.
#[test]
fn every_block_of_the_library_is_checked() {
    let here = include_str!("nets.rs");
    for module in nnc_dsl::stdlib::names() {
        let source = nnc_dsl::stdlib::source(module).unwrap();
        for line in source.lines().filter_map(|l| l.strip_prefix("block ")) {
            let name = line.split('(').next().unwrap();
            let used = |separator| here.contains(&format!("{name}{separator}"));
            // Without a gradient by its nature.
            let exempt = name == "accuracy";
            assert!(exempt || used("(") || used("\"") || used(" "), "`{name}` of {module}");
        }
    }
}
