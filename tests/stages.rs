//! Golden texts of every stage of the road, for small programs and the smallest example.
//!
//! `INSTA_UPDATE=always cargo test --test stages` blesses; read what changed before committing.
//! Machine code and its Cranelift form depend on the CPU and are not kept.

use nnc::stages::{Stage, text};
use nnc::{Options, Precision, Source};

/// The stages whose text is the same on every machine.
const STAGES: [&str; 5] = ["ast", "graph", "fused", "kernels", "plan"];

/// The stages of a program for a target whose vectors have 4 lanes, blocks 8 channels.
fn check(name: &str, source: &Source, precision: Precision, stages: &[&str]) {
    check_for("fma", name, source, precision, stages);
}

fn check_for(target: &str, name: &str, source: &Source, precision: Precision, stages: &[&str]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("stages");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let options = Options::new().target(target.parse().unwrap()).precision(precision);
    settings.bind(|| {
        for stage in stages {
            let stage: Stage = stage.parse().unwrap();
            let text = text(source, &options, &stage).unwrap_or_else(|e| panic!("{}", e.render(false)));
            insta::assert_snapshot!(format!("{name}.{stage}"), text);
        }
    });
}

/// A net around a chain of layers.
fn net(name: &str, input: &str, layers: &str) -> Source {
    let text = format!(
        "use std.vision\n\nnet {name} {{\n    input x: f32[N, {input}]\n    output y = x\n{layers}\n}}\n"
    );
    Source::from_text(format!("{name}.nn"), text).unwrap()
}

#[test]
fn lenet() {
    // As a text, so that the file's place does not show.
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/lenet.nn");
    let source = Source::from_text("lenet.nn", std::fs::read_to_string(example).unwrap()).unwrap();
    check("lenet", &source, Precision::Default, &STAGES);
    check_for("avx512", "lenet_avx512", &source, Precision::Default, &["fused", "kernels"]);
}

/// A stage of VGG: two convolutions and a pooling that never meet in memory.
#[test]
fn vgg_stage() {
    let layers =
        "        -> conv(16, 3x3, pad = 1) -> relu -> conv(16, 3x3, pad = 1) -> relu -> maxpool(2x2)";
    check("vgg_stage", &net("vgg_stage", "8, 12, 12", layers), Precision::Default, &STAGES);
    let direct = Precision::Strict;
    check_for(
        "avx512",
        "vgg_stage_avx512",
        &net("vgg_stage", "8, 12, 12", layers),
        direct,
        &["fused", "kernels"],
    );
}

/// An inception module: four branches that write straight into their concatenation.
#[test]
fn inception() {
    let text = "use std.vision

net inception {
    input x: f32[N, 16, 10, 10]
    output y = concat(
        x -> conv(8, 1) -> relu,
        x -> conv(8, 1) -> relu -> conv(16, 3, pad = 1) -> relu,
        x -> conv(8, 1) -> relu -> conv(8, 5, pad = 2) -> relu,
        x -> maxpool(3, stride = 1, pad = 1) -> conv(8, 1) -> relu,
    ) -> avgpool_to(1) -> flatten
}
";
    let source = Source::from_text("inception.nn", text).unwrap();
    check("inception", &source, Precision::Strict, &STAGES[1..]);
}

/// A residual block: batch norm folded into the weights, the sum and ReLU in the convolution's kernel.
#[test]
fn residual() {
    let text = "use std.vision

net residual {
    input x: f32[N, 16, 8, 8]
    let f = x -> conv(16, 3, pad = 1, bias = false) -> batchnorm -> relu
              -> conv(16, 3, pad = 1, bias = false) -> batchnorm
    output y = f + x -> relu -> avgpool_to(1) -> flatten
}
";
    let source = Source::from_text("residual.nn", text).unwrap();
    check("residual", &source, Precision::Strict, &STAGES[1..]);
}
