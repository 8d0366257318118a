//! Whole small nets through PTX text, forward and one training step: the kernel interpreter's bits,
//! and the graph interpreter's numbers.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use nnc_compiler::build::{BuildOptions, Built, NoFiles, build};
use nnc_compiler::graph::interpret::{Precision, step};
use nnc_compiler::graph::{Bindings, Graph};
use nnc_compiler::kernel::interpret::{cells_of, run_module};
use nnc_compiler::lower::gpu::{Blocks, GpuOptions, Products};
use nnc_compiler::lower::lower_for_gpu_with;
use nnc_compiler::pass;
use nnc_compiler::plan::order;
use nnc_compiler::target::GpuTarget;
use nnc_compiler::training::{Moment, StepOptions, build_step};
use nnc_dsl::SourceMap;
use nnc_runtime::{DType, Tensor};

use crate::gpu::run_ptx;

/// Of the largest element: sums are added up in another order; and what TF32 or bf16 leave of factors.
const TOLERANCE: f32 = 2e-5;
const TF32_TOLERANCE: f32 = 5e-3;
const BF16_TOLERANCE: f32 = 4e-2;

pub fn built(text: &str, training: bool) -> Built {
    let mut map = SourceMap::new();
    let root = map.add("test.nn", text);
    let options = BuildOptions { training, ..BuildOptions::default() };
    build(&mut map, root, &NoFiles, &options)
        .unwrap_or_else(|d| panic!("{}", nnc_dsl::render(&map, &d, false)))
}

pub fn batch(n: usize) -> Bindings {
    BTreeMap::from([("N".to_string(), n)])
}

/// Made-up values for what has none yet: labels below 3, variances and second moments above zero.
pub fn fill(graph: &Graph, feeds: &mut BTreeMap<String, Tensor>) {
    let mut state = 7u64;
    let mut number = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    for id in graph.inputs().into_iter().chain(graph.parameters()) {
        let node = graph.node(id);
        let shape = node.ty.sizes().unwrap();
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| number()).collect();
        let positive = ["var", "second"].iter().any(|s| node.name.ends_with(s));
        // Of a layer's inputs, so that numbers stay near one.
        let fan_in = shape.iter().skip(1).product::<usize>().max(1) as f32;
        let value = match node.ty.dtype {
            DType::I32 => Tensor::I32(
                ArrayD::from_shape_vec(
                    IxDyn(&shape),
                    values.iter().map(|x| (x.abs() * 3.0) as i32 % 3).collect(),
                )
                .unwrap(),
            ),
            _ => Tensor::F32(
                ArrayD::from_shape_vec(
                    IxDyn(&shape),
                    values
                        .iter()
                        .map(|x| if positive { x.abs() + 0.5 } else { x * (3.0 / fan_in).sqrt() })
                        .collect(),
                )
                .unwrap(),
            ),
        };
        feeds.entry(node.name.clone()).or_insert(value);
    }
}

/// Compares the PTX of a graph with the kernel interpreter, bit for bit, and with the graph's, within the tolerance of
/// the precision. True if there are kernels of blocks.
pub fn check(graph: &Graph, feeds: &BTreeMap<String, Tensor>, options: GpuOptions) -> bool {
    let reference = step(graph, feeds, Precision::AsWritten).unwrap();
    let target = GpuTarget::Sm90;
    let mut optimised = graph.clone();
    pass::run_all(&mut optimised, &target.thread(), &mut |_, _| {});
    let mut module = lower_for_gpu_with(&optimised, target, options, None).unwrap();
    order::run(&mut module);
    let bits = run_module(&module, feeds, feeds).unwrap();
    let found = run_ptx(&module, target, feeds);
    for (name, want) in &bits {
        assert!(cells_of(want) == cells_of(&found[name]), "{name}: other bits than the kernel interpreter's");
    }
    let by_blocks = module.kernels.iter().any(|k| k.threads.is_some());
    let tolerance = match options.products {
        Products::Tf32 if by_blocks => TF32_TOLERANCE,
        Products::Bf16 if by_blocks => BF16_TOLERANCE,
        _ => TOLERANCE,
    };
    for (name, want) in reference.outputs.iter().chain(&reference.parameters) {
        let (want, found) = (floats(want), floats(&found[name]));
        let largest = want.iter().fold(1f32, |m, x| m.max(x.abs()));
        for (w, f) in want.iter().zip(&found) {
            assert!((w - f).abs() <= tolerance * largest, "{name}: expected {w}, found {f}");
        }
    }
    by_blocks
}

/// Likewise; there must be kernels of blocks if they are asked for.
fn check_blocks(graph: &Graph, feeds: &BTreeMap<String, Tensor>, options: GpuOptions) {
    let by_blocks = check(graph, feeds, options);
    assert!(by_blocks || options.blocks == Blocks::WherePaid, "no kernel of blocks:\n{graph}");
}

pub fn floats(t: &Tensor) -> Vec<f32> {
    match t {
        Tensor::F32(a) => a.iter().copied().collect(),
        other => cells_of(other).iter().map(|&c| c as i32 as f32).collect(),
    }
}

/// Forward, for a batch of two.
pub fn check_net_with(text: &str, options: GpuOptions) {
    let graph = built(text, false).graph.specialise(&batch(2)).unwrap();
    let mut feeds = BTreeMap::new();
    fill(&graph, &mut feeds);
    check_blocks(&graph, &feeds, options);
}

fn check_net(text: &str) {
    check_net_with(text, GpuOptions::default());
}

/// A training step of a batch of four.
pub fn check_step_with(text: &str, options: GpuOptions) {
    let step = build_step(&built(text, true), &StepOptions { sizes: batch(4), gradients: false }).unwrap();
    let mut feeds = step.scalars(Moment { learning_rate: 0.125, step: 1, seed: 9 });
    fill(&step.graph, &mut feeds);
    check_blocks(&step.graph, &feeds, options);
}

fn check_step(text: &str) {
    check_step_with(text, GpuOptions::default());
}

pub fn lenet() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/lenet.nn");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn lenet_forward() {
    check_net(&lenet());
}

#[test]
fn lenet_step() {
    check_step(&lenet());
}

pub const RESIDUAL: &str = "use std.vision
net residual {
    input x: f32[N, 8, 8, 8]
    let f = x -> conv(8, 3, pad = 1, bias = false) -> batchnorm -> relu
              -> conv(8, 3, pad = 1, bias = false) -> batchnorm
    output y = f + x -> relu -> global_avgpool -> dense(3)
    train {
        input label: i32[N]
        loss = cross_entropy(y, label)
        optimizer = sgd(lr = 0.1, momentum = 0.9)
    }
}
";

#[test]
fn residual_block() {
    check_net(RESIDUAL);
}

#[test]
fn residual_block_step() {
    check_step(RESIDUAL);
}

pub const INCEPTION: &str = "use std.vision
net inception {
    input x: f32[N, 8, 9, 9]
    output y = concat(
        x -> conv(4, 1) -> relu,
        x -> conv(4, 1) -> relu -> conv(8, 3, pad = 1) -> relu,
        x -> conv(4, 1) -> relu -> conv(4, 5, pad = 2) -> relu,
        x -> maxpool(3, stride = 1, pad = 1) -> conv(4, 1) -> relu,
    ) -> avgpool_to(1) -> flatten -> softmax
}
";

#[test]
fn inception_module() {
    check_net(INCEPTION);
}

/// Large enough for tiles of a convolution and for sums in parts.
#[test]
fn tiles_and_parts() {
    check_net(
        "use std.vision
net wide {
    input x: f32[N, 2, 272, 256]
    let f = x -> conv(4, 3x3, pad = 1) -> relu
    output means = mean(f, axis = [0, 2, 3])
    output largest = max(f, axis = [2, 3])
    output spread = variance(x, axis = [0, 2, 3])
}
",
    );
}
