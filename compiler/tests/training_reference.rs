//! One training step of the examples against PyTorch: loss, gradients, running statistics
//! (`tests/reference/train`), in the reference interpreter and compiled. And a step for every example that trains.

#[path = "../../tests/common/unit.rs"]
mod unit;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use nnc_compiler::build::{BuildOptions, Built, NoFiles, build};
use nnc_compiler::emit::cpu::EmitOptions;
use nnc_compiler::emit::emit;
use nnc_compiler::graph::interpret::{Precision, Step, step};
use nnc_compiler::graph::verify::verify;
use nnc_compiler::graph::{Bindings, Graph};
use nnc_compiler::lower::lower;
use nnc_compiler::pass;
use nnc_compiler::plan::plan;
use nnc_compiler::target::CpuTarget;
use nnc_compiler::training::{Moment, StepGraph, StepOptions, build_evaluation, build_step};
use nnc_dsl::SourceMap;
use nnc_runtime::{Executable, Pool, Tensor, Trainable};
use serde_json::Value;
use unit::unit;

/// Of the loss, relative; gradient norms, relative, and first elements, of the norm; statistics.
const LOSS: f64 = 1e-5;
const GRADIENT: f64 = 2e-3;
const STATISTIC: f64 = 1e-5;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The training variant of an example.
fn example(name: &str, sets: &[(&str, &str)]) -> Built {
    let text = std::fs::read_to_string(root().join(format!("examples/{name}.nn"))).unwrap();
    let mut map = SourceMap::new();
    let file = map.add(format!("{name}.nn"), text);
    let sets = sets.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let options = BuildOptions { sets, training: true, ..BuildOptions::default() };
    build(&mut map, file, &NoFiles, &options).unwrap_or_else(|d| panic!("{name}: {d:#?}"))
}

fn sizes(batch: usize) -> Bindings {
    Bindings::from([("N".to_string(), batch)])
}

fn tensor(shape: &[usize], values: impl Iterator<Item = f32>) -> Tensor {
    Tensor::F32(ArrayD::from_shape_vec(IxDyn(shape), values.collect()).unwrap())
}

/// Made-up values for inputs and parameters, as in `tests/common/reference.rs`; state starts at 0.
fn feeds(step: &StepGraph, labels: &[i32]) -> BTreeMap<String, Tensor> {
    let graph = &step.graph;
    let mut out = step.scalars(Moment { learning_rate: 0.0, step: 0, seed: 0 });
    let is_norm = |owner: &str| graph.parameter(&format!("{owner}.running_mean")).is_some();
    for id in graph.inputs().into_iter().chain(graph.parameters()) {
        let node = graph.node(id);
        let (name, shape) = (node.name.as_str(), node.ty.sizes().unwrap());
        let values = unit(name, shape.iter().product());
        let fan_in = shape.iter().skip(1).product::<usize>() as f32;
        let (owner, kind) = name.rsplit_once('.').unwrap_or(("", name));
        let value = match (name, kind) {
            ("label", _) => Tensor::I32(ndarray::arr1(labels).into_dyn()),
            ("image", _) => tensor(&shape, values.map(|u| 2.0 * u - 1.0)),
            (_, "momentum") => tensor(&shape, values.map(|_| 0.0)),
            (_, "weight" | "running_var") if is_norm(owner) => tensor(&shape, values.map(|u| u + 0.5)),
            (_, "bias" | "running_mean") => tensor(&shape, values.map(|u| (2.0 * u - 1.0) * 0.1)),
            _ => tensor(&shape, values.map(|u| (2.0 * u - 1.0) * (6.0 / fan_in).sqrt())),
        };
        out.entry(name.to_string()).or_insert(value);
    }
    out
}

fn numbers(t: &Tensor) -> Vec<f64> {
    match t {
        Tensor::F32(a) => a.iter().map(|&x| f64::from(x)).collect(),
        other => panic!("expected f32, found {}", other.dtype()),
    }
}

fn floats(v: &Value) -> Vec<f64> {
    serde_json::from_value(v.clone()).unwrap()
}

fn check(name: &str, example_name: &str) {
    let json = std::fs::read_to_string(root().join(format!("tests/reference/train/{name}.json"))).unwrap();
    let expected: Value = serde_json::from_str(&json).unwrap();
    let labels: Vec<i32> = serde_json::from_value(expected["labels"].clone()).unwrap();
    let options = StepOptions { sizes: sizes(labels.len()), gradients: true };
    let graph = build_step(&example(example_name, &[]), &options).unwrap();
    let feeds = feeds(&graph, &labels);
    agrees(name, &expected, &step(&graph.graph, &feeds, Precision::AsWritten).unwrap());
    let compiled = compiled_step(&graph.graph, &feeds, 2);
    agrees(name, &expected, &compiled);
    assert!(compiled == compiled_step(&graph.graph, &feeds, 1), "{name}: the number of threads shows");
}

/// The step in machine code.
fn compiled_step(graph: &Graph, feeds: &BTreeMap<String, Tensor>, threads: usize) -> Step {
    let mut graph = graph.clone();
    let target = CpuTarget::host();
    pass::run_all(&mut graph, &target, &mut |_, _| {});
    let module = lower(&graph, &target, None).unwrap();
    let emitted = emit(&module, &plan(&module), &target, &EmitOptions::default()).unwrap();
    let named = |n| feeds.get_key_value(&graph.node(n).name).unwrap();
    let parameters = graph.parameters().into_iter().map(|n| (named(n).0.clone(), named(n).1.clone()));
    let executable = Executable::load(emitted.program).unwrap();
    let mut trainable =
        Trainable::new(executable, parameters.collect(), Arc::new(Pool::new(threads))).unwrap();
    let inputs: Vec<_> = graph.inputs().into_iter().map(|n| named(n).1.view()).collect();
    let outputs = trainable.step(&inputs).unwrap();
    let names = graph.outputs.iter().map(|o| o.name.clone());
    let state = |name: &str| (name.to_string(), trainable.state(name).unwrap());
    let parameters = trainable.state_names().into_iter().map(state).collect();
    Step { outputs: names.zip(outputs).collect(), parameters }
}

fn agrees(name: &str, expected: &Value, found: &Step) {
    let (loss, want) = (numbers(&found.outputs["loss"])[0], expected["loss"].as_f64().unwrap());
    println!("{name}: loss {loss}, relative error {:.1e}", (loss - want).abs() / want);
    assert!((loss - want).abs() <= LOSS * want, "loss: expected {want}, found {loss}");
    let gradients = expected["gradients"].as_object().unwrap();
    let made = found.outputs.keys().filter(|k| k.ends_with(".grad")).count();
    assert_eq!(made, gradients.len());
    for (parameter, want) in gradients {
        let gradient = numbers(&found.outputs[&format!("{parameter}.grad")]);
        let norm = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
        let expected_norm = want["norm"].as_f64().unwrap();
        assert!(
            (norm - expected_norm).abs() <= GRADIENT * expected_norm,
            "norm of the gradient of `{parameter}`: expected {expected_norm}, found {norm}"
        );
        for (f, w) in gradient.iter().zip(floats(&want["first"])) {
            assert!((f - w).abs() <= GRADIENT * norm, "gradient of `{parameter}`: expected {w}, found {f}");
        }
    }
    for (statistic, want) in expected["running"].as_object().unwrap() {
        for (f, w) in numbers(&found.parameters[statistic]).iter().zip(floats(want)) {
            assert!((f - w).abs() <= STATISTIC * w.abs().max(1.0), "`{statistic}`: expected {w}, found {f}");
        }
    }
}

#[test]
fn lenet5() {
    check("lenet5", "lenet");
}

#[test]
fn vgg11_cifar() {
    check("vgg11_cifar", "vgg_cifar");
}

#[test]
#[ignore = "half a minute in the interpreter"]
fn resnet18_cifar() {
    check("resnet18_cifar", "resnet_cifar");
}

#[test]
fn every_example_with_a_train_section_has_a_step() {
    let sound = |graph: &Graph, name: &str| verify(graph).unwrap_or_else(|e| panic!("{name}: {e:#?}"));
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "nn") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let built = example(&name, &[]);
        if built.train.is_none() {
            continue;
        }
        let options = StepOptions { sizes: sizes(2), gradients: false };
        let step = build_step(&built, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        sound(&step.graph, &name);
        sound(&build_evaluation(&built, &sizes(2)).unwrap_or_else(|e| panic!("{name}: {e}")), &name);
        assert_eq!(step.untrained, [""; 0], "{name}");
        let (mut optimised, updates) = (step.graph.clone(), step.graph.updates.len());
        pass::run_all(&mut optimised, &CpuTarget::host(), &mut |_, _| {});
        assert_eq!(optimised.updates.len(), updates);
        count += 1;
    }
    assert!(count >= 6, "{count} examples train");
}
