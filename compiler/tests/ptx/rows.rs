//! Rows by blocks of threads (softmax, sums, extremes, spread; linear layers of few rows) through PTX: the
//! kernel interpreter's bits, and the graph interpreter's numbers.

use nnc_compiler::lower::gpu::{Blocks, GpuOptions, Products};

use crate::draw::Draw;
use crate::nets::check_net_with;

const ALWAYS: GpuOptions = GpuOptions { products: Products::F32, blocks: Blocks::Always };

fn net(shape: &str, outputs: &[&str]) -> String {
    let lines: String = outputs.iter().enumerate().map(|(i, o)| format!("    output y{i} = {o}\n")).collect();
    format!("use std.vision\nnet rows {{\n    input x: f32[{shape}]\n{lines}}}\n")
}

/// One warp and several, rows that do not fill them; work before and after.
#[test]
fn softmax() {
    for (shape, output) in [
        ("N, 37", "softmax(x)"),
        ("N, 3, 300", "softmax(x * 2.0) + 1.0"),
        ("N, 1030", "log_softmax(x)"),
        ("5, 2", "log_softmax(relu(x))"),
    ] {
        check_net_with(&net(shape, &[output]), ALWAYS);
    }
}

#[test]
fn a_block_a_row() {
    let outputs = [
        "mean(x, axis = [2, 3])",
        "variance(x, axis = [2, 3])",
        "max(x, axis = [2, 3])",
        "sum(relu(x), axis = [0, 2, 3])",
    ];
    check_net_with(&net("N, 5, 9, 13", &outputs), ALWAYS);
    check_net_with(&net("N, 3, 70", &["sum(x, axis = 2)", "min(x, axis = 2) * 2.0"]), ALWAYS);
}

/// Pooling to one pixel is a reduction.
#[test]
fn global_pooling() {
    check_net_with(&net("N, 5, 7, 7", &["x -> global_avgpool -> relu", "x -> global_maxpool"]), ALWAYS);
}

/// Long rows have several blocks.
#[test]
fn several_blocks_a_row() {
    let outputs = ["variance(x, axis = [0, 2, 3])", "mean(x, axis = [0, 2, 3])", "max(x, axis = [0, 2, 3])"];
    check_net_with(&net("N, 2, 70, 90", &outputs), ALWAYS);
}

/// A warp an output: depths that fill no step, several rows, an activation.
#[test]
fn linear_layers_of_few_rows() {
    for (shape, layer) in [
        ("1, 700", "x -> dense(30) -> tanh"),
        ("3, 257", "x -> dense(9, bias = false)"),
        ("2, 4, 40", "x -> dense(6)"),
    ] {
        check_net_with(&net(shape, &[layer]), ALWAYS);
    }
}

#[test]
fn random_reductions() {
    let mut draw = Draw(3);
    for _ in 0..12 {
        let shape = format!("{}, {}, {}", draw.of(1, 6), draw.of(1, 40), draw.of(2, 90));
        let axes = ["2", "[1, 2]", "[0, 2]", "[0, 1, 2]", "0", "1", "[0, 1]"][draw.of(0, 6)];
        let kind = ["sum", "mean", "max", "min", "variance", "prod"][draw.of(0, 5)];
        let keep = ["", ", keep = true"][draw.of(0, 1)];
        let output = format!("{kind}(x, axis = {axes}{keep})");
        check_net_with(&net(&shape, &[&output, "softmax(x)"]), ALWAYS);
    }
}
