use nnc_runtime::program::{Access, Phase};

use super::super::{Blocks, GpuOptions, Products};
use crate::graph::Graph;
use crate::graph::parse::parse;
use crate::kernel::interpret::{cells_of, run_module};
use crate::kernel::{Expr, Memory, Module, Stmt, UnOp};
use crate::lower::lower_for_gpu_with;
use crate::pass::run_all;
use crate::pass::tests::random;
use crate::target::GpuTarget;

fn graph(text: &str) -> Graph {
    parse(text).expect("the text is a graph's")
}

fn module(text: &str, products: Products) -> Module {
    let mut graph = graph(text);
    run_all(&mut graph, &GpuTarget::Sm90.thread(), &mut |_, _| {});
    let options = GpuOptions { products, blocks: Blocks::Always };
    lower_for_gpu_with(&graph, GpuTarget::Sm90, options, None).expect("it can be lowered")
}

/// The values that are stored rounded in a phase, by name, in the order of the launches.
fn stored(module: &Module, phase: Phase) -> Vec<&str> {
    let mut out = vec![];
    for launch in module.launches.iter().filter(|l| l.phase == phase) {
        for (buffer, arg) in module.kernels[launch.kernel].params().zip(&launch.args) {
            let name = module.values[arg.value.0 as usize].name.as_str();
            if buffer.tf32 && buffer.memory == Memory::Global(Access::Write) && out.last() != Some(&name) {
                out.push(name);
            }
        }
    }
    out
}

/// Those of a run on tensor cores; what only changes the layout of an input has no name.
fn rounded(text: &str) -> Vec<String> {
    let module = module(text, Products::Tf32);
    stored(&module, Phase::Run).into_iter().filter(|name| !name.is_empty()).map(str::to_string).collect()
}

const VGG: &str = r#"graph vgg {
  %0 = input "x" : f32[1, 16, 8, 8]
  %1 = parameter "a" {init=constant(0.0)} : f32[16, 16, 3, 3]
  %2 = parameter "b" {init=constant(0.0)} : f32[32, 16, 3, 3]
  %3 = parameter "c" {init=constant(0.0)} : f32[40, 512]
  %4 = conv2d %0, %1 {padding=1x1} : f32[1, 16, 8, 8] @first
  %5 = relu %4 : f32[1, 16, 8, 8] @first_relu
  %6 = conv2d %5, %1 {padding=1x1} : f32[1, 16, 8, 8] @second
  %7 = relu %6 : f32[1, 16, 8, 8] @second_relu
  %8 = max_pool2d %7 {window=3x3, stride=2x2, padding=1x1} : f32[1, 16, 4, 4] @pool
  %9 = conv2d %8, %2 {padding=1x1} : f32[1, 32, 4, 4] @third
  %10 = relu %9 : f32[1, 32, 4, 4] @third_relu
  output y = %10
}
"#;

#[test]
fn what_products_and_poolings_read_is_rounded() {
    assert_eq!(rounded(VGG), ["first_relu", "second_relu", "pool"]);
    // Both weights are packed, one for two layers.
    assert_eq!(stored(&module(VGG, Products::Tf32), Phase::Prepare), ["a", "b"]);
}

#[test]
fn exact_products_and_those_of_bf16_round_nothing() {
    for products in [Products::F32, Products::Bf16] {
        let module = module(VGG, products);
        assert!(module.kernels.iter().all(|k| k.buffers.iter().all(|b| !b.tf32)), "{module}");
    }
}

const RESIDUAL: &str = r#"graph residual {
  %0 = input "x" : f32[1, 16, 8, 8]
  %1 = parameter "a" {init=constant(0.0)} : f32[16, 16, 3, 3]
  %2 = conv2d %0, %1 {padding=1x1} : f32[1, 16, 8, 8]
  %3 = relu %2 : f32[1, 16, 8, 8] @stream
  %4 = conv2d %3, %1 {padding=1x1} : f32[1, 16, 8, 8]
  %5 = relu %4 : f32[1, 16, 8, 8] @inner
  %6 = conv2d %5, %1 {padding=1x1} : f32[1, 16, 8, 8]
  %7 = add %6, %3 : f32[1, 16, 8, 8] @sum
  %8 = conv2d %7, %1 {padding=1x1} : f32[1, 16, 8, 8]
  %9 = add %8, %7 : f32[1, 16, 8, 8] @next
  %10 = conv2d %9, %1 {padding=1x1} : f32[1, 16, 8, 8] @last
  output y = %10
}
"#;

/// What is read by a convolution alone is the end of the stream.
#[test]
fn a_residual_stream_keeps_its_bits() {
    assert_eq!(rounded(RESIDUAL), ["inner", "next"]);
}

/// Branches that write into a concatenation, read by a product and a pooling; `last` reads it, too.
fn inception(last: &str) -> String {
    format!(
        r#"graph inception {{
  %0 = input "x" : f32[1, 16, 8, 8]
  %1 = parameter "a" {{init=constant(0.0)}} : f32[16, 16, 1, 1]
  %2 = parameter "b" {{init=constant(0.0)}} : f32[16, 32, 1, 1]
  %3 = conv2d %0, %1 : f32[1, 16, 8, 8]
  %4 = relu %3 : f32[1, 16, 8, 8] @stem
  %5 = conv2d %4, %1 : f32[1, 16, 8, 8]
  %6 = relu %5 : f32[1, 16, 8, 8] @left
  %7 = max_pool2d %4 {{window=3x3, stride=1x1, padding=1x1}} : f32[1, 16, 8, 8] @right
  %8 = concat %6, %7 {{axis=1}} : f32[1, 32, 8, 8] @join
  %9 = conv2d %8, %2 : f32[1, 16, 8, 8] @third
  %10 = {last}
  output y = %9
  output z = %10
}}
"#
    )
}

const CHOSEN: &str = "reverse %9 {axes=[2]} : f32[1, 16, 8, 8]";

/// Somebody adds elements of the concatenation up.
const SUMMED: &str = "avg_pool2d %8 {window=8x8, stride=8x8} : f32[1, 32, 1, 1]";

#[test]
fn branches_of_a_concatenation_are_rounded_together() {
    assert_eq!(rounded(&inception(CHOSEN)), ["stem", "join"]);
    assert_eq!(rounded(&inception(SUMMED)), Vec::<String>::new());
}

const MASK: &str = r#"graph mask {
  %0 = input "x" : f32[1, 16, 8, 8]
  %1 = parameter "a" {init=constant(0.0)} : f32[16, 16, 1, 1]
  %2 = conv2d %0, %1 : f32[1, 16, 8, 8]
  %3 = relu %2 : f32[1, 16, 8, 8] @f
  %4 = conv2d %3, %1 : f32[1, 16, 8, 8]
  %5 = constant {value=LIMIT} : f32[]
  %6 = le %3, %5 : bool[1, 16, 8, 8]
  %7 = where %6, %5, %4 : f32[1, 16, 8, 8]
  output y = %7
}
"#;

#[test]
fn the_mask_of_relu_reads_what_is_rounded() {
    assert_eq!(rounded(&MASK.replace("LIMIT", "0.0")), ["f"]);
    assert_eq!(rounded(&MASK.replace("LIMIT", "0.5")), Vec::<String>::new());
}

const LINEAR: &str = r#"graph linear {
  %0 = input "x" : f32[20, 64]
  %1 = parameter "w" {init=constant(0.0)} : f32[24, 64]
  %2 = linear %0, %1 : f32[20, 24]
  output y = %2
  UPDATE
}
"#;

#[test]
fn weights_that_are_read_as_they_are_are_rounded_when_they_are_loaded() {
    let settled = module(&LINEAR.replace("UPDATE", ""), Products::Tf32);
    assert_eq!(stored(&settled, Phase::Prepare), ["w"]);
    // A step changes them: they are rounded where they are read.
    let tied = LINEAR.replace("UPDATE", "update %1 = %1");
    assert!(stored(&module(&tied, Products::Tf32), Phase::Prepare).is_empty());
}

/// Takes all roundings away, but those of fragments.
fn without_roundings(body: &mut [Stmt]) {
    for s in body {
        match s {
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => without_roundings(body),
            Stmt::Store { value, .. } => {
                if let Expr::Unary(UnOp::Tf32, inner) = value {
                    *value = (**inner).clone();
                }
            }
            Stmt::Prefetch { .. } | Stmt::Joint(_) => {}
        }
    }
}

/// Rounding where numbers are made gives the bits of rounding where products read them.
#[test]
fn nobody_can_tell() {
    let mask = MASK.replace("LIMIT", "0.0");
    let settled = LINEAR.replace("UPDATE", "");
    for text in [VGG, RESIDUAL, &inception(CHOSEN), &inception(SUMMED), &mask, &settled] {
        let (once, feeds) = (module(text, Products::Tf32), random::feeds(&graph(text)));
        let mut late = once.clone();
        for kernel in &mut late.kernels {
            kernel.buffers.iter_mut().for_each(|b| b.tf32 = false);
            without_roundings(&mut kernel.body);
        }
        let [once, late] = [once, late].map(|m| run_module(&m, &feeds, &feeds).expect("it runs"));
        for (name, tensor) in &once {
            assert_eq!(cells_of(tensor), cells_of(&late[name]), "{name} of\n{text}");
        }
    }
}
