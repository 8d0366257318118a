//! Channels last through PTX: layers that keep the layout, parts of a concatenation, sums of columns; and what the
//! layout makes of every example's copies. `INSTA_UPDATE=always` blesses the table.

use std::fmt::Write;

use nnc_compiler::graph::Graph;
use nnc_compiler::kernel::{Joint, Kernel, Stmt};
use nnc_compiler::lower::gpu::{Blocks, GpuOptions, Products};
use nnc_compiler::lower::lower_for_gpu;
use nnc_compiler::pass;
use nnc_compiler::target::GpuTarget;

use crate::assemble::each_program;
use crate::nets::{check_net_with, check_step_with};

const TF32: GpuOptions = GpuOptions { products: Products::Tf32, blocks: Blocks::Always };
const STRICT: GpuOptions = GpuOptions { products: Products::F32, blocks: Blocks::Always };

fn net(shape: &str, body: &str) -> String {
    format!("use std.vision\nnet last {{\n    input x: f32[{shape}]\n{body}\n}}\n")
}

/// Convolutions read parts of a concatenation where they lie: four, two and one channels at once.
#[test]
fn parts_of_a_concatenation() {
    for second in [10, 12, 7] {
        let body = format!(
            "    let a = x -> conv(8, 1) -> relu
    let b = a -> conv({second}, 3, pad = 1) -> relu
    let c = b -> conv(4, 3, pad = 1) -> relu
    let d = c -> conv(20, 1)
    output y = concat(a, b, c, d) -> conv(18, 3, stride = 2) -> relu"
        );
        check_net_with(&net("N, 3, 7, 9", &body), TF32);
    }
}

#[test]
fn layers_that_keep_channels_last() {
    let layers = [
        "depthwise(3, pad = 1) -> maxpool(3, stride = 2, pad = 1) -> conv(9, 1)",
        "conv(36, 3, stride = 2, groups = 3) -> lrn -> avgpool(2) -> conv(5, 1)",
        "relu6 -> maxpool_to(2) -> conv(24, 1) -> sigmoid",
        "conv_transpose(10, 3, stride = 2, groups = 2) -> upsample(2) -> conv(3, 1)",
        "batchnorm -> avgpool_to(1) -> conv(20, 1) -> relu -> flatten -> dense(3)",
    ];
    for layer in layers {
        check_net_with(&net("N, 3, 10, 8", &format!("    output y = x -> conv(18, 1) -> {layer}")), STRICT);
    }
}

/// Depthwise convolutions, four channels a thread: weights in registers and not, strides, dilation, borders.
#[test]
fn depthwise_convolutions() {
    for layer in [
        "depthwise(3, pad = 1) -> relu6",
        "depthwise(5, stride = 2, pad = 2)",
        "depthwise(3, dilation = 2, bias = false)",
        "depthwise(4, stride = 3, pad = 1) -> sigmoid",
    ] {
        let body = format!("    output y = x -> conv(20, 1) -> {layer} -> conv(3, 1)");
        check_net_with(&net("N, 3, 12, 10", &body), STRICT);
    }
}

/// Their gradients: channels that are a multiple of four and not, pixels in parts and not, strides that leave some over,
/// dilation, kernels that have a block for each of their rows, and one that is too large for the gradient of its input.
#[test]
fn gradients_of_depthwise_convolutions() {
    for (shape, channels, layer) in [
        ("12, 10", 20, "depthwise(3, pad = 1)"),
        ("24, 22", 36, "depthwise(3, stride = 2, pad = 1, bias = false)"),
        ("11, 13", 18, "depthwise(3, stride = 2, pad = 1)"),
        ("11, 13", 24, "depthwise(3, stride = 2, pad = 1)"),
        ("12, 10", 8, "depthwise(5, stride = 2x1, pad = 2, bias = false)"),
        ("12, 11", 12, "depthwise(3, dilation = 2, stride = 2)"),
        ("13, 10", 7, "depthwise(4x2, stride = 3, pad = 1)"),
        ("9, 8", 12, "depthwise(7, pad = 3)"),
        ("10, 8", 8, "depthwise(1x9, pad = 0x4)"),
    ] {
        let body = format!(
            "    output y = x -> conv({channels}, 1) -> relu -> {layer} -> relu -> global_avgpool -> dense(3)
    train {{
        input label: i32[N]
        loss = cross_entropy(y, label)
        optimizer = sgd(lr = 0.1)
    }}"
        );
        let text = net(&format!("N, 3, {shape}"), &body);
        check_step_with(&text, STRICT);
        check_step_with(&text, GpuOptions { products: Products::F32, ..GpuOptions::default() });
    }
}

/// Pictures of two and three channels are filled up to four: kernels whose rows are whole steps and not, strides, borders,
/// transposed; with the gradient of the weights, in one part and in several.
#[test]
fn pictures_of_few_channels() {
    for (channels, layer) in [
        (3, "conv(8, 7x7, stride = 2, pad = 3)"),
        (3, "conv(10, 3, pad = 1, bias = false)"),
        (2, "conv(8, 2x5, pad = 1, dilation = 2)"),
        (3, "conv(12, 4x4, stride = 4)"),
        (2, "conv_transpose(8, 3, stride = 2)"),
    ] {
        let body = format!(
            "    output y = x -> {layer} -> relu -> global_avgpool -> dense(3)
    train {{
        input label: i32[N]
        loss = cross_entropy(y, label)
        optimizer = sgd(lr = 0.1)
    }}"
        );
        let text = net(&format!("N, {channels}, 9, 8"), &body);
        check_net_with(&text, TF32);
        check_step_with(&text, STRICT);
    }
}

/// Weights that are packed, gradients of weights that are added up from parts, and layouts that change: through shared
/// memory, by tiles that are full and not, of more rows than columns and the other way round.
#[test]
fn matrices_that_are_turned() {
    for (picture, channels, next, layer) in [
        ("13, 12", 24, 20, "conv(20, 3, pad = 1)"),
        ("6, 5", 70, 33, "conv(33, 3, stride = 2, pad = 1)"),
        ("5, 5", 30, 18, "conv(18, 5, pad = 2)"),
        ("6, 7", 9, 66, "conv(66, 2x4)"),
        ("9, 8", 36, 18, "conv(18, 1)"),
    ] {
        let body = format!(
            "    let f = x -> conv({channels}, 1) -> relu -> {layer} -> relu
    output map = f
    output y = f -> conv({next}, 1) -> global_avgpool -> dense(3)
    train {{
        input label: i32[N]
        loss = cross_entropy(y, label)
        optimizer = sgd(lr = 0.1)
    }}"
        );
        let text = net(&format!("N, 3, {picture}"), &body);
        check_step_with(&text, STRICT);
        check_step_with(&text, TF32);
    }
}

/// Gradients of a concatenation are read where they lie, also by products and poolings; not where they are results.
#[test]
fn gradients_of_concatenations_are_views() {
    let body = "    let f = x -> conv(16, 1) -> relu
    let a = f -> conv(8, 1) -> batchnorm -> relu
    let b = f -> conv(12, 3, pad = 1)
    let c = f -> maxpool(3, stride = 1, pad = 1)
    let d = f -> conv(7, 1) -> sigmoid
    output y = concat(a, b, c, d) -> conv(20, 3, pad = 1) -> relu -> global_avgpool -> dense(3)
    train {
        input label: i32[N]
        loss = cross_entropy(y, label)
        optimizer = sgd(lr = 0.1)
    }";
    let text = net("N, 3, 9, 8", body);
    for options in [STRICT, TF32, GpuOptions { products: Products::F32, ..GpuOptions::default() }] {
        check_step_with(&text, options);
    }
}

/// Gradients of maximum poolings: windows that overlap, tile, leave elements out, and go past the border; work after it.
#[test]
fn gradients_of_maximum_poolings() {
    for (pooling, next) in [
        ("maxpool(3, stride = 2, pad = 1)", "relu"),
        ("maxpool(2)", "sigmoid"),
        ("maxpool(3, stride = 1, pad = 1)", "conv(4, 1)"),
        ("maxpool(2, stride = 3)", "relu"),
        ("maxpool(4x2, stride = 2x1)", "relu"),
    ] {
        for channels in [8, 6] {
            let body = format!(
                "    let f = x -> conv({channels}, 1) -> relu
    output y = f -> {pooling} -> {next} -> global_avgpool -> dense(3)
    train {{
        input label: i32[N]
        loss = cross_entropy(y, label)
        optimizer = sgd(lr = 0.1)
    }}"
            );
            check_step_with(&net("N, 3, 9, 7", &body), STRICT);
        }
    }
}

/// Reductions of channels that lie last, with and without parts; and of columns of a matrix.
#[test]
fn sums_of_columns() {
    let outputs = [
        "mean(f, axis = [0, 2, 3])",
        "variance(f, axis = [0, 2, 3])",
        "max(f, axis = [2, 3], keep = true)",
        "variance(f, axis = [2, 3])",
        "sum(f, axis = 1)",
        "min(f, axis = 0)",
        "mean(f)",
    ];
    let lines: Vec<String> =
        outputs.iter().enumerate().map(|(i, o)| format!("    output y{i} = {o}")).collect();
    for shape in ["N, 3, 5, 6", "N, 3, 24, 14"] {
        let body = format!("    let f = x -> conv(37, 1)\n{}", lines.join("\n"));
        check_net_with(&net(shape, &body), STRICT);
    }
    let columns = "    output sums = sum(x, axis = 0)\n    output spread = variance(x, axis = 0) * 2.0";
    for shape in ["70, 37", "600, 5"] {
        check_net_with(&net(shape, columns), STRICT);
    }
}

const STEP: &str = "use std.vision
net step {
    input x: f32[N, 3, 9, 8]
    let f = x -> conv(8, 3, pad = 1, bias = false) -> batchnorm -> relu
    let g = f -> depthwise(3, pad = 1) -> maxpool(3, stride = 2, pad = 1) -> conv(12, 1) -> relu
    let h = concat(g, g -> conv(6, 3, pad = 1), g -> avgpool(3, stride = 1, pad = 1))
    output y = h -> conv(10, 3, stride = 2, pad = 1, groups = 2) -> relu -> global_avgpool -> dense(3)
    train {
        input label: i32[N]
        loss = cross_entropy(y, label)
        optimizer = sgd(lr = 0.1, momentum = 0.9)
    }
}
";

/// Gradients of all of them.
#[test]
fn a_training_step() {
    check_step_with(STEP, STRICT);
    check_step_with(STEP, TF32);
    check_step_with(STEP, GpuOptions::default());
}

/// With strides, a product for each remainder of the pixels: kernels smaller and larger than the stride, borders.
#[test]
fn transposed_convolutions_with_strides() {
    for (channels, layer) in [
        (16, "conv_transpose(12, 3, stride = 2, pad = 1, output_pad = 1) -> relu"),
        (6, "conv_transpose(9, 5, stride = 3, pad = 2)"),
        (10, "conv_transpose(8, 2, stride = 3, output_pad = 1) -> sigmoid"),
        (32, "conv_transpose(20, 4, stride = 2, dilation = 3, bias = false)"),
    ] {
        let body = format!("    output y = x -> conv({channels}, 1) -> {layer}");
        check_net_with(&net("N, 3, 5, 4", &body), TF32);
        check_net_with(&net("N, 3, 5, 4", &body), STRICT);
    }
}

/// A 1x1 convolution with a stride leaves pixels out: their gradient is that of the other branch.
const DOWN: &str = "use std.vision
net down {
    input x: f32[N, 3, 9, 8]
    let f = x -> conv(16, 3, pad = 1) -> relu
    let y1 = f -> conv(20, 1, stride = 2)
    let y2 = f -> conv(20, 3, stride = 2, pad = 1)
    output y = y1 + y2 -> relu -> global_avgpool -> dense(3)
    train {
        input label: i32[N]
        loss = cross_entropy(y, label)
        optimizer = sgd(lr = 0.1, momentum = 0.9)
    }
}
";

#[test]
fn gradients_of_convolutions_with_strides() {
    check_step_with(DOWN, STRICT);
    check_step_with(DOWN, TF32);
}

/// How often a kernel's threads copy one, two and four elements to shared memory.
fn copies(kernel: &Kernel) -> [u64; 3] {
    fn block(kernel: &Kernel, body: &[Stmt], times: u64, out: &mut [u64; 3]) {
        for stmt in body {
            match stmt {
                Stmt::Loop { var, body, .. } => {
                    block(kernel, body, times * kernel.vars[var.0 as usize].extent as u64, out);
                }
                Stmt::If { body, .. } => block(kernel, body, times, out),
                Stmt::Joint(Joint::Copy { elements, .. }) => out[elements.ilog2() as usize] += times,
                _ => {}
            }
        }
    }
    let mut out = [0; 3];
    block(kernel, &kernel.body, kernel.task_count(), &mut out);
    out
}

fn line(name: &str, graph: &Graph) -> String {
    let (mut graph, target) = (graph.clone(), GpuTarget::Sm90);
    pass::run_all(&mut graph, &target.thread(), &mut |_, _| {});
    let module = lower_for_gpu(&graph, target, None).unwrap_or_else(|e| panic!("{name}: {e}"));
    let launched = || module.launches.iter().map(|l| &module.kernels[l.kernel]);
    let relayouts = launched().filter(|k| k.name == "relayout").count();
    let all = launched().map(copies).fold([0; 3], |sum, c| [0, 1, 2].map(|i| sum[i] + c[i]));
    let millions = |n: u64| n as f64 / 1e6;
    let [one, two, four] = all.map(millions);
    format!("{name:<24} {:>8}  {relayouts:>9}  {one:>8.2}  {two:>8.2}  {four:>8.2}\n", module.launches.len())
}

/// Values change their layout at the borders alone, and blocks copy 16 bytes at a time: a picture aside.
#[test]
fn copies_of_every_example() {
    let mut table = String::from(
        "                                              copies to shared memory, millions
program                  launches  relayouts   4 bytes   8 bytes  16 bytes\n",
    );
    each_program(&mut |name, graph| {
        let _ = write!(table, "{}", line(name, graph));
    });
    insta::assert_snapshot!(table);
}
