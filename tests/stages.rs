//! Golden texts of every stage of the road, for the small programs in `stages` and the smallest example.
//! (`compiler/tests/ptx/golden.rs` runs the same programs as PTX.)
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

/// A program: of `stages`, or an example. As a text, so that the file's place does not show.
fn program(folder: &str, name: &str) -> Source {
    let path = format!("{}/{folder}/{name}.nn", env!("CARGO_MANIFEST_DIR"));
    Source::from_text(format!("{name}.nn"), std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn lenet() {
    let source = program("examples", "lenet");
    check("lenet", &source, Precision::Default, &STAGES);
    check_for("avx512", "lenet_avx512", &source, Precision::Default, &["fused", "kernels"]);
}

/// A stage of VGG: two convolutions and a pooling that never meet in memory.
#[test]
fn vgg_stage() {
    let source = program("tests/stages", "vgg_stage");
    check("vgg_stage", &source, Precision::Default, &STAGES);
    check_for("avx512", "vgg_stage_avx512", &source, Precision::Strict, &["fused", "kernels"]);
}

/// An inception module: four branches that write straight into their concatenation.
#[test]
fn inception() {
    check("inception", &program("tests/stages", "inception"), Precision::Strict, &STAGES[1..]);
}

/// A residual block: batch norm folded into the weights, the sum and ReLU in the convolution's kernel.
#[test]
fn residual() {
    check("residual", &program("tests/stages", "residual"), Precision::Strict, &STAGES[1..]);
}
