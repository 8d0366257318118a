//! Contractions by blocks of threads, in many shapes, through PTX: the kernel interpreter's bits, and the graph
//! interpreter's numbers within what TF32 (or f32) keeps.

use nnc_compiler::lower::gpu::{Blocks, GpuOptions, Products};
use nnc_compiler::lower::lower_for_gpu_with;
use nnc_compiler::pass;
use nnc_compiler::target::GpuTarget;

use crate::draw::Draw;
use crate::nets::{INCEPTION, RESIDUAL, batch, built, check_net_with, check_step_with, lenet};

const TF32: GpuOptions = GpuOptions { products: Products::Tf32, blocks: Blocks::Always };
const BF16: GpuOptions = GpuOptions { products: Products::Bf16, blocks: Blocks::Always };
const SPLIT: GpuOptions = GpuOptions { products: Products::SplitTf32, blocks: Blocks::Always };
const STRICT: GpuOptions = GpuOptions { products: Products::F32, blocks: Blocks::Always };

/// A net of one layer on an input of that shape.
fn layer(shape: &str, layer: &str) -> String {
    format!("use std.vision\nnet one {{\n    input x: f32[{shape}]\n    output y = x -> {layer}\n}}\n")
}

/// Channels in whole steps and not, borders, strides, dilation, pixels that fill no tile.
const CONVOLUTIONS: [(&str, &str); 8] = [
    ("N, 16, 7, 9", "conv(40, 3, pad = 1) -> relu"),
    ("N, 3, 19, 11", "conv(24, 5, stride = 2, pad = 2)"),
    ("N, 32, 8, 8", "conv(70, 1)"),
    ("3, 20, 6, 14", "conv(33, 1) -> relu"),
    ("N, 5, 6, 5", "conv(9, 3x2, bias = false) -> sigmoid"),
    ("N, 48, 5, 5", "conv(16, 3, pad = 2, dilation = 2)"),
    ("N, 16, 4, 6", "conv_transpose(20, 4, stride = 2, pad = 1)"),
    ("N, 7, 5, 4", "conv_transpose(33, 3)"),
];

#[test]
fn convolutions_on_tensor_cores() {
    for (shape, text) in CONVOLUTIONS {
        check_net_with(&layer(shape, text), TF32);
    }
}

#[test]
fn convolutions_of_exact_products() {
    for (shape, text) in [CONVOLUTIONS[0], CONVOLUTIONS[1], CONVOLUTIONS[5]] {
        check_net_with(&layer(shape, text), STRICT);
    }
}

/// Factors as sums of two TF32 numbers: the tolerance of f32.
#[test]
fn products_of_split_factors() {
    for (shape, text) in CONVOLUTIONS {
        check_net_with(&layer(shape, text), SPLIT);
    }
    check_net_with(&layer("N, 9, 130", "dense(70) -> relu"), SPLIT);
    check_step_with(STEP, SPLIT);
}

#[test]
fn products_of_bf16() {
    for (shape, text) in [CONVOLUTIONS[0], CONVOLUTIONS[1], CONVOLUTIONS[3], CONVOLUTIONS[6]] {
        check_net_with(&layer(shape, text), BF16);
    }
    check_net_with(&layer("N, 9, 130", "dense(70) -> relu"), BF16);
    check_step_with(STEP, BF16);
}

#[test]
fn linear_layers_and_matrix_products() {
    for options in [TF32, STRICT] {
        for (shape, text) in [("N, 9, 130", "dense(70) -> relu"), ("N, 5, 33", "dense(18, bias = false)")] {
            check_net_with(&layer(shape, text), options);
        }
    }
    check_net_with(
        "net attention {
    input q: f32[N, 2, 20, 12]
    input k: f32[N, 2, 36, 12]
    output y = matmul(q, transpose(k))
}
",
        TF32,
    );
}

/// Every tile, with edges that fill none: factors by rows and by channels, copies of 16 bytes and of 4.
#[test]
fn every_tile() {
    for tile in 0..Blocks::TILES {
        for options in [TF32, BF16, STRICT] {
            let options = GpuOptions { blocks: Blocks::ByTile(tile), ..options };
            check_net_with(&layer("N, 16, 7, 9", "conv(40, 3, pad = 1) -> relu"), options);
            check_net_with(&layer("N, 3, 8, 11", "conv(24, 3)"), options);
        }
        check_step_with(STEP, GpuOptions { blocks: Blocks::ByTile(tile), ..TF32 });
    }
}

/// True if a layer becomes a kernel of blocks whose name ends so.
fn has_blocks(layer: &str, options: GpuOptions, end: &str) -> bool {
    let mut graph = built(layer, false).graph.specialise(&batch(2)).unwrap();
    let target = GpuTarget::Sm90;
    pass::run_all(&mut graph, &target.thread(), &mut |_, _| {});
    let module = lower_for_gpu_with(&graph, target, options, None).unwrap();
    module.kernels.iter().any(|k| k.threads.is_some() && k.name.ends_with(end))
}

/// Products whose time is that of memory are nearly exact, if nobody has said otherwise; those with more of them are not.
#[test]
fn products_that_wait_for_memory() {
    let split = |text: &str| {
        let mut graph = built(text, false).graph.specialise(&batch(2)).unwrap();
        pass::run_all(&mut graph, &GpuTarget::Sm90.thread(), &mut |_, _| {});
        let module = lower_for_gpu_with(&graph, GpuTarget::Sm90, GpuOptions::default(), None).unwrap();
        module.to_string().contains("first_rest")
    };
    assert!(split(&layer("N, 16, 64, 64", "conv(96, 1)")), "16 x 96 / (16 + 96) is 14");
    assert!(!split(&layer("N, 64, 64, 64", "conv(384, 1)")), "64 x 384 / (64 + 384) is 55");
    assert!(!split(&layer("N, 16, 64, 64", "conv(96, 3)")));
    check_net_with(&layer("N, 16, 64, 64", "conv(96, 1) -> relu"), GpuOptions::default());
}

/// Convolutions whose windows of 2x2 are pooled in the same kernel: odd pictures, elementwise work before and after.
#[test]
fn pooled_convolutions() {
    let nets = [
        ("N, 16, 7, 9", "conv(40, 3, pad = 1) -> relu -> maxpool(2)", "max_pool2d_relayout"),
        ("N, 3, 8, 11", "conv(24, 3) -> maxpool(2) -> tanh", "max_pool2d_tanh_relayout"),
        ("N, 32, 12, 8", "conv(64, 1) -> relu -> avgpool(2)", "avg_pool2d_relayout"),
    ];
    for options in [TF32, BF16, STRICT] {
        for (shape, text, end) in nets {
            let (layer, options) = (layer(shape, text), GpuOptions { blocks: Blocks::ByTile(0), ..options });
            assert!(has_blocks(&layer, options, end), "{text}");
            check_net_with(&layer, options);
        }
    }
    // Tiles with 64 rows a warp.
    let (shape, text, end) = nets[0];
    let pools = |&tile: &usize| {
        let options = GpuOptions { blocks: Blocks::ByTile(tile), ..TF32 };
        check_net_with(&layer(shape, text), options);
        has_blocks(&layer(shape, text), options, end)
    };
    assert_eq!((0..Blocks::TILES).filter(pools).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

/// Windows that overlap or are padded have a kernel of their own.
#[test]
fn other_poolings_are_on_their_own() {
    for pool in ["maxpool(3, stride = 2)", "maxpool(2, stride = 1)", "avgpool(2, pad = 1)"] {
        let layer = layer("N, 16, 8, 8", &format!("conv(40, 3, pad = 1) -> relu -> {pool}"));
        assert!(!has_blocks(&layer, TF32, "pool2d_relayout"), "{pool}");
        check_net_with(&layer, TF32);
    }
}

/// As many of the largest tiles as a GPU has multiprocessors: four stages of them, in shared memory that is asked for.
#[test]
fn the_largest_tiles() {
    let text = "net many {
    input a: f32[132, 128, 70]
    input b: f32[132, 70, 128]
    output y = matmul(a, b)
}
";
    check_net_with(text, TF32);
}

/// Few results and long sums: parts, and a kernel that adds them up.
#[test]
fn sums_in_parts() {
    check_net_with(&layer("N, 64, 6, 6", "conv(24, 3, pad = 1) -> relu"), TF32);
    check_net_with(&layer("N, 9, 700", "dense(30) -> tanh"), STRICT);
}

const STEP: &str = "use std.vision
net two {
    input x: f32[N, 3, 12, 10]
    let f = x -> conv(16, 3, pad = 1) -> relu -> conv(24, 3, stride = 2, pad = 1) -> relu
    output y = f -> flatten -> dense(12) -> relu -> dense(3)
    train {
        input label: i32[N]
        loss = cross_entropy(y, label)
        optimizer = sgd(lr = 0.1, momentum = 0.9)
    }
}
";

/// Gradients of inputs and weights, with stride and padding.
#[test]
fn a_training_step() {
    check_step_with(STEP, TF32);
    check_step_with(STEP, STRICT);
}

/// Whole nets, of which every contraction and every row is computed by blocks.
#[test]
fn small_nets() {
    check_net_with(&lenet(), TF32);
    check_net_with(RESIDUAL, TF32);
    check_net_with(INCEPTION, TF32);
}

#[test]
fn steps_of_small_nets() {
    check_step_with(&lenet(), TF32);
    check_step_with(RESIDUAL, TF32);
}

/// A convolution of any size, stride, border and dilation, on a picture that it fits.
fn any_convolution(draw: &mut Draw) -> (String, String) {
    let channels = [draw.of(1, 20), 16 * draw.of(1, 3)][draw.of(0, 1)];
    let [kh, kw] = [draw.of(1, 4), draw.of(1, 4)];
    let (stride, pad, dilation) = (draw.of(1, 3), draw.of(0, 2), draw.of(1, 2));
    let [h, w] = [kh, kw].map(|k| (k - 1) * dilation + draw.of(1, 9));
    let outputs = draw.of(1, 80);
    let layer = format!("conv({outputs}, {kh}x{kw}, stride = {stride}, pad = {pad}, dilation = {dilation})");
    (format!("N, {channels}, {h}, {w}"), layer)
}

#[test]
fn random_convolutions() {
    let mut draw = Draw(5);
    for options in [TF32, TF32, TF32, STRICT].into_iter().cycle().take(12) {
        let (shape, conv) = any_convolution(&mut draw);
        check_net_with(&layer(&shape, &conv), options);
    }
}

#[test]
fn random_matrix_products() {
    let mut draw = Draw(11);
    for options in [TF32, STRICT].into_iter().cycle().take(6) {
        let [m, n, k] = [draw.of(1, 90), draw.of(1, 90), draw.of(1, 70)];
        let text = format!(
            "net product {{
    input a: f32[{m}, {k}]
    input b: f32[{k}, {n}]
    output y = matmul(a, b)
    output turned = matmul(transpose(b), transpose(a))
}}
"
        );
        check_net_with(&text, options);
    }
}

/// Steps of two convolutions of any kind: the first one's weights, the second one's input and weights.
#[test]
fn random_gradients() {
    let mut draw = Draw(23);
    for options in [TF32, STRICT, TF32] {
        let ((shape, first), channels) = (any_convolution(&mut draw), 16 * draw.of(1, 2));
        let stride = draw.of(1, 2);
        let text = format!(
            "use std.vision
net gradients {{
    input x: f32[{shape}]
    let f = x -> {first} -> relu -> conv({channels}, 1) -> conv(20, 3, pad = 1, stride = {stride})
    output y = f -> global_avgpool -> dense(3)
    train {{
        input label: i32[N]
        loss = cross_entropy(y, label)
        optimizer = sgd(lr = 0.1)
    }}
}}
"
        );
        check_step_with(&text, options);
    }
}
