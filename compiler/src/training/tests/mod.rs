//! Steps against PyTorch's optimizers, and what a step refuses.

mod expected;

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use nnc_dsl::{FileId, SourceMap};
use nnc_runtime::Tensor;

use super::{Moment, ScalarKind, StepGraph, StepOptions, TrainError, build_evaluation, build_step};
use crate::build::{BuildOptions, Built, NoFiles, build};
use crate::graph::interpret::{Precision, step, trace};
use crate::graph::verify::assert_valid;
use crate::graph::{Bindings, print};
use crate::pass;
use crate::target::CpuTarget;

type Feeds = BTreeMap<String, Tensor>;

fn built(text: &str) -> Built {
    let mut map = SourceMap::new();
    let root: FileId = map.add("test.nn", text);
    let options = BuildOptions { training: true, ..BuildOptions::default() };
    build(&mut map, root, &NoFiles, &options)
        .unwrap_or_else(|d| panic!("{}", nnc_dsl::render(&map, &d, false)))
}

fn sizes(n: usize) -> Bindings {
    Bindings::from([("N".to_string(), n)])
}

fn train(text: &str, n: usize) -> Result<StepGraph, TrainError> {
    let step = build_step(&built(text), &StepOptions { sizes: sizes(n), gradients: true })?;
    assert_valid(&step.graph, "build_step");
    Ok(step)
}

fn doubles(shape: &[usize], data: &[f64]) -> Tensor {
    Tensor::F64(ArrayD::from_shape_vec(IxDyn(shape), data.to_vec()).unwrap())
}

fn numbers(t: &Tensor) -> Vec<f64> {
    match t {
        Tensor::F64(a) => a.iter().copied().collect(),
        Tensor::F32(a) => a.iter().map(|&x| f64::from(x)).collect(),
        other => panic!("{} is no float", other.dtype()),
    }
}

const REGRESSION: &str = "
net regression {
    input x: f32[2, 3]
    param weight: f32[2, 3] = ones
    param bias: f32[3] = zeros
    output y = x * weight + bias
    train {
        input target: f32[2, 3]
        loss = mse(y, target)
        optimizer = SPEC
    }
}
";

fn regression() -> Feeds {
    Feeds::from(
        [
            ("x", doubles(&[2, 3], &[0.5, -1.0, 2.0, 1.5, 0.25, -0.75])),
            ("target", doubles(&[2, 3], &[1.0, 0.0, -1.0, 0.5, 2.0, 1.0])),
            ("weight", doubles(&[2, 3], &[0.5, -1.0, 2.0, 1.0, 0.75, -0.5])),
            ("bias", doubles(&[3], &[0.25, -0.5, 0.125])),
        ]
        .map(|(name, t)| (name.to_string(), t)),
    )
}

/// Runs some steps from a feed of data and parameters; state starts at 0. The last loss.
fn run(graph: &StepGraph, feeds: &mut Feeds, steps: u64, learning_rate: f64) -> f64 {
    for id in graph.graph.parameters() {
        let node = graph.graph.node(id);
        let shape = node.ty.sizes().unwrap();
        let zeros = doubles(&shape, &vec![0.0; shape.iter().product()]);
        feeds.entry(node.name.clone()).or_insert(zeros);
    }
    let mut loss = f64::NAN;
    for at in 0..steps {
        for (name, value) in graph.scalars(Moment { learning_rate, step: at, seed: 1 }) {
            // Exact in f64, as PyTorch's own scalars are.
            let kind = graph.scalars.iter().find(|(n, _)| *n == name).unwrap().1;
            let value = match kind {
                ScalarKind::LearningRate => doubles(&[], &[learning_rate]),
                ScalarKind::BiasCorrection { beta } => doubles(&[], &[1.0 - beta.powi(at as i32 + 1)]),
                _ => value,
            };
            feeds.insert(name, value);
        }
        let done = step(&graph.graph, feeds, Precision::Double).unwrap();
        loss = numbers(&done.outputs["loss"])[0];
        feeds.extend(done.parameters);
    }
    loss
}

#[test]
fn optimizers_clipping_and_regularizers_are_pytorchs() {
    for (spec, expected, expected_loss) in expected::THREE_STEPS {
        let graph = train(&REGRESSION.replace("SPEC", spec), 2).unwrap();
        let mut feeds = regression();
        let loss = run(&graph, &mut feeds, 3, 0.1);
        let found = [numbers(&feeds["weight"]), numbers(&feeds["bias"])].concat();
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 2e-8, "{spec}: expected {expected:?}, found {found:?}");
        }
        assert!((loss - expected_loss).abs() < 2e-8, "{spec}: expected {expected_loss}, found {loss}");
    }
}

#[test]
fn a_step_in_full() {
    let spec = "sgd(lr = 0.1, momentum = 0.9)";
    let step = build_step(
        &built(&REGRESSION.replace("SPEC", spec)),
        &StepOptions { sizes: sizes(2), gradients: false },
    );
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("training_step", print::print(&step.unwrap().graph));
    });
}

#[test]
fn scalars_come_from_the_moment() {
    let graph = train(&REGRESSION.replace("SPEC", "adam(lr = 0.1)"), 2).unwrap();
    let kinds: Vec<&str> = graph.scalars.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(kinds, ["learning_rate", "step", "seed", "bias_correction1", "bias_correction2"]);
    let found = graph.scalars(Moment { learning_rate: 0.5, step: 1, seed: 5 | 7 << 32 });
    assert_eq!(numbers(&found["learning_rate"]), [0.5]);
    assert!((numbers(&found["bias_correction2"])[0] - (1.0 - 0.999f64.powi(2))).abs() < 1e-9);
    assert_eq!(found["seed"], Tensor::I32(ndarray::arr1(&[5, 7]).into_dyn()));
    assert_eq!(found["step"], Tensor::I32(ndarray::arr0(1).into_dyn()));
}

const LAYERS: &str = "
use std.vision
net layers {
    input x: f32[N, 4]
    output y = x -> dense(3) -> dropout(0.5) -> batchnorm -> dense(1)
    train {
        input target: f32[N, 1]
        loss = mse(y, target)
        metric error = mae(y, target)
        optimizer = sgd(lr = 0.1, momentum = 0.9)
    }
}
";

#[test]
fn state_and_statistics_are_updated_once_each() {
    let graph = train(LAYERS, 4).unwrap().graph;
    let mut names: Vec<&str> = graph.updates.iter().map(|u| graph.node(u.parameter).name.as_str()).collect();
    names.sort();
    let weights = ["bn1.bias", "bn1.weight", "dense1.bias", "dense1.weight", "dense2.bias", "dense2.weight"];
    let mut expected: Vec<String> = weights.map(|w| w.to_string()).to_vec();
    expected.extend(["bn1.running_mean", "bn1.running_var"].map(str::to_string));
    expected.extend(weights.map(|w| format!("sgd.{w}.momentum")));
    expected.sort();
    assert_eq!(names, expected);
    let outputs: Vec<&str> = graph.outputs.iter().map(|o| o.name.as_str()).take(2).collect();
    assert_eq!(outputs, ["loss", "error"]);
}

/// All layers that training writes out, in the layouts that the passes choose.
const PICTURES: &str = "
use std.vision
net pictures {
    input x: f32[N, 3, 8, 8]
    output y = x -> conv(8, 3x3, pad = 1, bias = false) -> batchnorm -> relu -> maxpool(2x2)
        -> conv(8, 3x3, pad = 1) -> lrn -> relu -> dropout(0.25) -> global_avgpool -> dense(5)
    train {
        input label: i32[N]
        loss = cross_entropy(y, label)
        metric top1 = accuracy(y, label)
        optimizer = adamw()
        regularizer = l2(1e-3)
        clip = clip_norm(1.0)
    }
}
";

#[test]
fn passes_keep_what_a_step_means() {
    for text in [LAYERS, PICTURES] {
        let graph = train(text, 4).unwrap();
        let mut feeds = graph.scalars(Moment { learning_rate: 0.1, step: 2, seed: 3 });
        for (k, id) in graph.graph.inputs().into_iter().chain(graph.graph.parameters()).enumerate() {
            let node = graph.graph.node(id);
            let shape = node.ty.sizes().unwrap();
            let count = shape.iter().product::<usize>();
            let value = match node.name.as_str() {
                "label" => Tensor::I32(ndarray::arr1(&[0, 3, 4, 1]).into_dyn()),
                name => {
                    let lowest =
                        if name.ends_with("running_var") || name.ends_with("_moment") { 0.1 } else { -0.5 };
                    let data: Vec<f64> =
                        (0..count).map(|i| lowest + ((i * 37 + k * 11) % 101) as f64 / 101.0).collect();
                    doubles(&shape, &data)
                }
            };
            feeds.entry(node.name.clone()).or_insert(value);
        }
        let before = step(&graph.graph, &feeds, Precision::Double).unwrap();
        let mut after = graph.graph.clone();
        pass::run_all(&mut after, &CpuTarget::host(), &mut |_, _| {});
        let after = step(&after, &feeds, Precision::Double).unwrap();
        assert_eq!(before.parameters.len(), after.parameters.len());
        for (a, b) in [(&before.outputs, &after.outputs), (&before.parameters, &after.parameters)] {
            for (name, value) in a {
                for (x, y) in numbers(value).iter().zip(numbers(&b[name])) {
                    assert!((x - y).abs() <= 1e-7 * x.abs().max(1.0), "`{name}`: {x} and {y}");
                }
            }
        }
    }
}

#[test]
fn evaluation_is_the_inference_net_with_loss_and_metrics() {
    let training = built(LAYERS);
    let graph = build_evaluation(&training, &sizes(2)).unwrap();
    assert_valid(&graph, "build_evaluation");
    let outputs: Vec<&str> = graph.outputs.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, ["loss", "error", "y"]);
    assert!(graph.updates.is_empty());
    let mut feeds = Feeds::new();
    for id in graph.parameters().into_iter().chain(graph.inputs()) {
        let node = graph.node(id);
        let shape = node.ty.sizes().unwrap();
        let data: Vec<f64> = (0..shape.iter().product()).map(|i| 0.1 + (i % 7) as f64 / 8.0).collect();
        feeds.insert(node.name.clone(), doubles(&shape, &data));
    }
    let mut map = SourceMap::new();
    let root = map.add("test.nn", LAYERS);
    let inference = build(&mut map, root, &NoFiles, &BuildOptions::default()).unwrap().graph;
    let run = |graph| trace(graph, &feeds, Precision::Double, &mut |_, _| {}).unwrap();
    assert_eq!(run(&graph)["y"], run(&inference)["y"]);
}

#[test]
fn evaluation_leaves_out_the_heads_of_training() {
    let text = "
net heads {
    input x: f32[N, 4]
    let hidden = x -> dense(3)
    output y = hidden -> dense(2)
    let heads = if training { [hidden -> dense(2) as aux1, hidden -> dense(2) as aux2] } else { [] }
    train {
        input label: i32[N]
        loss = 0.3 * cross_entropy(heads[0], label) + cross_entropy(y, label)
            + 0.3 * cross_entropy(heads[1], label) + mean(hidden)
        optimizer = sgd(lr = 0.1)
    }
}
";
    let training = built(text);
    let extra: Vec<&str> = training.training_only.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(extra, ["aux1.weight", "aux1.bias", "aux2.weight", "aux2.bias"]);
    let graph = build_evaluation(&training, &sizes(2)).unwrap();
    assert_valid(&graph, "build_evaluation");
    let of = |graph: &crate::graph::Graph| -> Vec<String> {
        graph.parameters().into_iter().map(|p| graph.node(p).name.clone()).collect()
    };
    assert_eq!(of(&graph), ["dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias"]);
    // The same net without heads has the same loss.
    let main = text.replace("0.3 * cross_entropy(heads[0], label) + ", "");
    let main = built(&main.replace("\n            + 0.3 * cross_entropy(heads[1], label)", ""));
    let main = build_evaluation(&main, &sizes(2)).unwrap();
    let mut feeds = Feeds::from([("label".to_string(), Tensor::I32(ndarray::arr1(&[0, 1]).into_dyn()))]);
    for id in main.parameters().into_iter().chain(main.inputs()) {
        let (name, shape) = (main.node(id).name.clone(), main.node(id).ty.sizes().unwrap());
        let data: Vec<f64> = (0..shape.iter().product()).map(|i| 0.1 + (i % 7) as f64 / 8.0).collect();
        feeds.entry(name).or_insert_with(|| doubles(&shape, &data));
    }
    let run = |graph| trace(graph, &feeds, Precision::Double, &mut |_, _| {}).unwrap();
    assert_eq!(run(&graph)["loss"], run(&main)["loss"]);
    // A loss that is nothing else stays.
    let only = text.replace("cross_entropy(y, label)", "mean(heads[0])").replace(" + mean(hidden)", "");
    let graph = build_evaluation(&built(&only), &sizes(2)).unwrap();
    assert!(graph.parameter("aux2.bias").is_some());
}

#[test]
fn what_a_step_refuses() {
    let inference = {
        let mut map = SourceMap::new();
        let root = map.add("test.nn", LAYERS);
        build(&mut map, root, &NoFiles, &BuildOptions::default()).unwrap()
    };
    assert_eq!(build_step(&inference, &StepOptions::default()).unwrap_err(), TrainError::NoSection);
    let unsized_ = build_step(&built(LAYERS), &StepOptions::default()).unwrap_err();
    assert_eq!(unsized_.to_string(), "the size `N` is not known");
    let taken = LAYERS.replace("input x:", "input step:").replace("= x ->", "= step ->");
    let e = train(&taken, 4).unwrap_err();
    assert_eq!(e.to_string(), "the input `step` has a name that the training step needs");
    let e = train(LAYERS, 1).unwrap_err();
    assert_eq!(
        e.to_string(),
        "`bn1`: `batch_norm` has no gradient: in training it needs more than one value a channel"
    );
}

#[test]
fn parameters_that_the_loss_does_not_see_stay_and_are_named() {
    let text = "
net two {
    input x: f32[N, 4]
    output y = x -> dense(3)
    output other = x -> dense(2)
    train { loss = mean(y); optimizer = sgd(lr = 0.1) }
}
";
    let step = train(text, 2).unwrap();
    assert_eq!(step.untrained, ["dense2.weight", "dense2.bias"]);
    assert_eq!(step.graph.updates.len(), 2);
}

#[test]
fn what_has_no_gradient_is_shown_in_the_source() {
    let text = "
net rounded {
    input x: f32[N, 4]
    output y = x -> dense(3) -> floor
    train {
        loss = mean(y)
        optimizer = sgd(lr = 0.1)
    }
}
";
    let mut map = SourceMap::new();
    let root = map.add("test.nn", text);
    let options = BuildOptions { training: true, ..BuildOptions::default() };
    let built = build(&mut map, root, &NoFiles, &options).unwrap();
    let e = build_step(&built, &StepOptions { sizes: sizes(2), gradients: false }).unwrap_err();
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("not_differentiable", nnc_dsl::render(&map, &[e.diagnostic()], false));
    });
}
