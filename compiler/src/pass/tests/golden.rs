//! Each pass on the smallest graph that shows it: before, after, and what it says.

use super::super::PASSES;
use crate::graph::{parse, verify};
use crate::target::{CpuTarget, GpuTarget};

/// Runs a pass on a graph given as text; the snapshot has the name of the test.
macro_rules! golden {
    ($name:ident, $pass:literal, $text:literal) => {
        golden!($name, $pass, super::target(), $text);
    };
    ($name:ident, $pass:literal, $target:expr, $text:literal) => {
        #[test]
        fn $name() {
            let name = format!("{}_{}", $pass.replace(", ", "_"), stringify!($name));
            insta::with_settings!({ omit_expression => true }, {
                insta::assert_snapshot!(name, before_and_after($pass, &$target, $text));
            });
        }
    };
}

/// `passes`: names, one after the other.
fn before_and_after(passes: &str, target: &CpuTarget, text: &str) -> String {
    let mut graph = parse::parse(text).expect("the text is a graph's");
    verify::assert_valid(&graph, "parsing");
    let mut out = format!("// before\n{graph}\n// after {passes}\n");
    let mut remarks = String::new();
    for name in passes.split(", ") {
        let pass = PASSES.iter().find(|p| p.name == name).expect("a pass of that name");
        let report = (pass.run)(&mut graph, target);
        verify::assert_valid(&graph, name);
        for remark in report.remarks {
            remarks += &format!("// {name}: {}\n", remark.text);
        }
    }
    out += &format!("{graph}\n{remarks}");
    out
}

golden!(
    what_changes_nothing_goes,
    "simplify",
    r#"graph g {
        %0 = input "x" : f32[2, 3]
        %1 = constant {value=1.0} : f32[]
        %2 = constant {value=0.0} : f32[]
        %3 = mul %1, %0 : f32[2, 3]
        %4 = add %3, %2 : f32[2, 3]
        %5 = dropout %4 {probability=0.5} : f32[2, 3] @drop
        %6 = reshape %5 {shape=[2, 3]} : f32[2, 3]
        %7 = transpose %6 {order=[0, 1]} : f32[2, 3]
        %8 = concat %7 {axis=0} : f32[2, 3]
        %9 = relu %8 : f32[2, 3] @first
        %10 = relu %9 : f32[2, 3] @second
        %11 = neg %10 : f32[2, 3]
        %12 = neg %11 : f32[2, 3]
        output y = %12
    }"#
);

golden!(
    chains_join,
    "simplify",
    r#"graph g {
        %0 = input "x" : f32[1, 2, 3, 4]
        %1 = reshape %0 {shape=[2, 12]} : f32[2, 12]
        %2 = reshape %1 {shape=[1, 2, 4, 3]} : f32[1, 2, 4, 3]
        %3 = transpose %2 {order=[0, 1, 3, 2]} : f32[1, 2, 3, 4]
        %4 = transpose %3 {order=[0, 2, 1, 3]} : f32[1, 3, 2, 4]
        %5 = clamp %4 {low=-1.0, high=6.0} : f32[1, 3, 2, 4]
        %6 = relu %5 : f32[1, 3, 2, 4]
        %7 = constant {value=3.0} : f32[]
        %8 = constant {value=2.0} : f32[]
        %9 = mul %6, %7 : f32[1, 3, 2, 4]
        %10 = mul %8, %9 : f32[1, 3, 2, 4]
        %11 = constant {value=4.0} : f32[]
        %12 = div %10, %11 : f32[1, 3, 2, 4]
        output y = %12
    }"#
);

golden!(
    constants_fold,
    "simplify",
    r#"graph g {
        %0 = input "x" : f32[2]
        %1 = constant {value=2.0} : f32[]
        %2 = constant {value=3.0} : f32[]
        %3 = mul %1, %2 : f32[] @six
        %4 = broadcast %3 {shape=[2]} : f32[2]
        %5 = add %0, %4 : f32[2]
        output y = %5
    }"#
);

golden!(
    a_transpose_of_ones_is_a_reshape,
    "simplify",
    r#"graph g {
        %0 = input "x" : f32[2, 1, 3]
        %1 = transpose %0 {order=[0, 2, 1]} : f32[2, 3, 1]
        %2 = reduce_sum %1 {axes=[2]} : f32[2, 3]
        output y = %2
    }"#
);

golden!(
    padding_goes_into_the_convolution,
    "simplify",
    r#"graph g {
        %0 = input "x" : f32[1, 3, 8, 8]
        %1 = parameter "conv1.weight" {init=constant(0.0)} : f32[8, 3, 3, 3]
        %2 = pad %0 {pads=[0:0, 0:0, 1:0, 1:0], value=0.0} : f32[1, 3, 9, 9]
        %3 = conv2d %2, %1 {stride=2x2} : f32[1, 8, 4, 4] @conv1
        output y = %3
    }"#
);

golden!(
    the_mean_of_a_picture_is_a_pooling,
    "simplify, layout",
    r#"graph g {
        %0 = input "x" : f32[1, 3, 8, 8]
        %1 = parameter "conv1.weight" {init=constant(0.0)} : f32[8, 3, 1, 1]
        %2 = conv2d %0, %1 : f32[1, 8, 8, 8] @conv1
        %3 = reduce_mean %2 {axes=[2, 3]} : f32[1, 8] @global_avgpool1
        output y = %3
    }"#
);

golden!(
    nothing_unsafe_is_done,
    "simplify",
    r#"graph g {
        %0 = input "x" : f32[2]
        %1 = constant {value=0.0} : f32[]
        %2 = mul %0, %1 : f32[2]
        %3 = sub %0, %0 : f32[2]
        %4 = div %0, %0 : f32[2]
        %5 = constant {value=3.0} : f32[]
        %6 = div %0, %5 : f32[2]
        %7 = constant {value=1000.0} : f32[]
        %8 = constant {value=0.001} : f32[]
        %9 = mul %0, %7 : f32[2]
        %10 = mul %9, %8 : f32[2]
        output a = %2
        output b = %3
        output c = %4
        output d = %6
        output e = %10
    }"#
);

golden!(
    into_a_convolution,
    "fold_batch_norm",
    r#"graph g {
        %0 = input "x" : f32[1, 3, 8, 8]
        %1 = parameter "conv1.weight" {init=constant(0.0)} : f32[8, 3, 3, 3]
        %2 = conv2d %0, %1 : f32[1, 8, 6, 6] @conv1
        %3 = parameter "bn1.weight" {init=constant(1.0)} : f32[8]
        %4 = parameter "bn1.bias" {init=constant(0.0)} : f32[8]
        %5 = parameter "bn1.running_mean" {init=constant(0.0), frozen} : f32[8]
        %6 = parameter "bn1.running_var" {init=constant(1.0), frozen} : f32[8]
        %7 = batch_norm %2, %3, %4, %5, %6 {eps=1e-5, momentum=0.1} : f32[1, 8, 6, 6] @bn1
        output y = %7
    }"#
);

golden!(
    into_a_grouped_transposed_convolution_with_bias,
    "fold_batch_norm",
    r#"graph g {
        %0 = input "x" : f32[1, 4, 8, 8]
        %1 = parameter "up.weight" {init=constant(0.0)} : f32[4, 3, 2, 2]
        %2 = parameter "up.bias" {init=constant(0.0)} : f32[6]
        %3 = conv_transpose2d %0, %1, %2 {groups=2} : f32[1, 6, 9, 9] @up
        %4 = parameter "gamma" {init=constant(1.0)} : f32[6]
        %5 = parameter "beta" {init=constant(0.0)} : f32[6]
        %6 = parameter "mean" {init=constant(0.0)} : f32[6]
        %7 = parameter "var" {init=constant(1.0)} : f32[6]
        %8 = batch_norm %3, %4, %5, %6, %7 {eps=1e-5, momentum=0.1} : f32[1, 6, 9, 9]
        output y = %8
    }"#
);

golden!(
    alone_a_scale_and_a_shift,
    "fold_batch_norm",
    r#"graph g {
        %0 = input "x" : f32[2, 8]
        %1 = relu %0 : f32[2, 8]
        %2 = parameter "gamma" {init=constant(1.0)} : f32[8]
        %3 = parameter "beta" {init=constant(0.0)} : f32[8]
        %4 = parameter "mean" {init=constant(0.0)} : f32[8]
        %5 = parameter "var" {init=constant(1.0)} : f32[8]
        %6 = batch_norm %1, %2, %3, %4, %5 {eps=1e-5, momentum=0.1} : f32[2, 8] @bn1
        output y = %6
    }"#
);

golden!(
    in_training_it_stays,
    "fold_batch_norm",
    r#"graph g {
        %0 = input "x" : f32[2, 8]
        %1 = parameter "gamma" {init=constant(1.0)} : f32[8]
        %2 = parameter "beta" {init=constant(0.0)} : f32[8]
        %3 = parameter "mean" {init=constant(0.0)} : f32[8]
        %4 = parameter "var" {init=constant(1.0)} : f32[8]
        %5 = batch_norm %0, %1, %2, %3, %4 {eps=1e-5, momentum=0.1, training} : f32[2, 8] @bn1
        output y = %5
    }"#
);

golden!(
    equal_values_are_computed_once,
    "common_subexpressions",
    r#"graph g {
        %0 = input "x" : f32[2]
        %1 = input "y" : f32[2]
        %2 = add %0, %1 : f32[2] @a
        %3 = add %1, %0 : f32[2] @b
        %4 = exp %2 : f32[2]
        %5 = exp %3 : f32[2]
        %6 = sub %0, %1 : f32[2]
        %7 = sub %1, %0 : f32[2]
        %8 = mul %4, %5 : f32[2]
        %9 = mul %6, %7 : f32[2]
        %10 = random {from=uniform(0.0, 1.0)} : f32[2] @noise1
        %11 = random {from=uniform(0.0, 1.0)} : f32[2] @noise2
        output e = %8
        output d = %9
        output n = %10
        output m = %11
    }"#
);

golden!(
    what_no_output_needs_goes,
    "dead_code",
    r#"graph g {
        %0 = input "x" : f32[2]
        %1 = input "unused" : f32[2]
        %2 = parameter "weight" {init=constant(0.0)} : f32[2]
        %3 = mul %1, %2 : f32[2]
        %4 = exp %3 : f32[2]
        %5 = neg %0 : f32[2]
        output y = %5
    }"#
);

golden!(
    blocked_inside_row_major_at_the_borders,
    "layout",
    r#"graph lenet {
        %0 = input "image" : f32[1, 1, 28, 28]
        %1 = parameter "conv1.weight" {init=constant(0.0)} : f32[6, 1, 5, 5]
        %2 = parameter "conv1.bias" {init=constant(0.0)} : f32[6]
        %3 = conv2d %0, %1, %2 {padding=2x2} : f32[1, 6, 28, 28] @conv1
        %4 = relu %3 : f32[1, 6, 28, 28]
        %5 = max_pool2d %4 {window=2x2, stride=2x2} : f32[1, 6, 14, 14]
        %6 = reshape %5 {shape=[1, 1176]} : f32[1, 1176]
        %7 = parameter "fc1.weight" {init=constant(0.0)} : f32[10, 1176]
        %8 = linear %6, %7 : f32[1, 10] @fc1
        output logits = %8
        output features = %5
    }"#
);

golden!(
    few_channels_stay_row_major,
    "layout",
    r#"graph g {
        %0 = input "x" : f32[1, 3, 8, 8]
        %1 = parameter "w" {init=constant(0.0)} : f32[3, 3, 1, 1]
        %2 = conv2d %0, %1 : f32[1, 3, 8, 8]
        %3 = max_pool2d %2 {window=2x2, stride=2x2} : f32[1, 3, 4, 4]
        output y = %3
    }"#
);

golden!(
    depthwise_and_gates,
    "layout",
    r#"graph g {
        %0 = input "x" : f32[1, 16, 8, 8]
        %1 = parameter "dw" {init=constant(0.0)} : f32[16, 1, 1, 1]
        %2 = conv2d %0, %1 {groups=16} : f32[1, 16, 8, 8] @depthwise
        %3 = adaptive_avg_pool2d %2 {output=1x1} : f32[1, 16, 1, 1]
        %4 = sigmoid %3 : f32[1, 16, 1, 1]
        %5 = mul %2, %4 : f32[1, 16, 8, 8] @gated
        %6 = parameter "scale" {init=constant(0.0)} : f32[16, 1, 1]
        %7 = mul %5, %6 : f32[1, 16, 8, 8]
        %8 = softmax %7 {axis=1} : f32[1, 16, 8, 8]
        %9 = reduce_sum %7 {axes=[1]} : f32[1, 8, 8]
        output y = %8
        output z = %9
    }"#
);

golden!(
    convolution_bias_relu_and_pooling,
    "fuse",
    r#"graph g {
        %0 = input "x" : f32[1, 3, 8, 8]
        %1 = parameter "conv1.weight" {init=constant(0.0)} : f32[8, 3, 1, 1]
        %2 = parameter "conv1.bias" {init=constant(0.0)} : f32[8, 1, 1]
        %3 = conv2d %0, %1 : f32[1, 8, 8, 8] @conv1
        %4 = add %3, %2 : f32[1, 8, 8, 8]
        %5 = relu %4 : f32[1, 8, 8, 8]
        %6 = max_pool2d %5 {window=2x2, stride=2x2} : f32[1, 8, 4, 4] @pool1
        %7 = max_pool2d %6 {window=2x2, stride=1x1} : f32[1, 8, 3, 3] @pool2
        output y = %7
    }"#
);

golden!(
    residual_block,
    "fuse",
    r#"graph g {
        %0 = input "x" : f32[1, 8, 8, 8]
        %1 = parameter "conv1.weight" {init=constant(0.0)} : f32[8, 8, 1, 1]
        %2 = parameter "conv2.weight" {init=constant(0.0)} : f32[8, 8, 1, 1]
        %3 = parameter "down.weight" {init=constant(0.0)} : f32[8, 8, 1, 1]
        %4 = relu %0 : f32[1, 8, 8, 8] @entry
        %5 = conv2d %4, %1 : f32[1, 8, 8, 8] @conv1
        %6 = relu %5 : f32[1, 8, 8, 8]
        %7 = conv2d %6, %2 : f32[1, 8, 8, 8] @conv2
        %8 = conv2d %4, %3 : f32[1, 8, 8, 8] @down
        %9 = add %7, %8 : f32[1, 8, 8, 8] @sum
        %10 = relu %9 : f32[1, 8, 8, 8]
        output y = %10
    }"#
);

golden!(
    branching_activation_and_side_work,
    "fuse",
    r#"graph g {
        %0 = input "x" : f32[2, 4]
        %1 = input "t" : f32[2, 4]
        %2 = parameter "fc1.weight" {init=constant(0.0)} : f32[4, 4]
        %3 = linear %0, %2 : f32[2, 4] @fc1
        %4 = sigmoid %3 : f32[2, 4]
        %5 = mul %3, %4 : f32[2, 4] @swish
        %6 = constant {value=1.0} : f32[]
        %7 = sub %6, %1 : f32[2, 4] @rest
        %8 = mul %5, %7 : f32[2, 4]
        %9 = tanh %0 : f32[2, 4] @skip
        %10 = mul %9, %1 : f32[2, 4]
        %11 = add %8, %10 : f32[2, 4] @sum
        output y = %11
    }"#
);

golden!(
    what_is_not_fused,
    "fuse",
    r#"graph g {
        %0 = input "x" : f32[2, 4]
        %1 = parameter "fc1.weight" {init=constant(0.0)} : f32[4, 4]
        %2 = linear %0, %1 : f32[2, 4] @fc1
        %3 = relu %2 : f32[2, 4] @act
        %4 = parameter "fc2.weight" {init=constant(0.0)} : f32[1, 4]
        %5 = linear %0, %4 : f32[2, 1] @fc2
        %6 = mul %5, %0 : f32[2, 4] @wide
        %7 = exp %4 : f32[1, 4] @prepared
        %8 = add %7, %6 : f32[2, 4]
        %9 = tanh %8 : f32[2, 4]
        %10 = softmax %8 {axis=1} : f32[2, 4] @probabilities
        output y = %9
        output z = %10
        output logits = %2
        output a = %3
    }"#
);

golden!(
    depthwise_before_1x1,
    "layout, fuse",
    r#"graph g {
        %0 = input "x" : f32[1, 3, 8, 8]
        %1 = parameter "wide.weight" {init=constant(0.0)} : f32[16, 3, 1, 1]
        %2 = parameter "depthwise.weight" {init=constant(0.0)} : f32[16, 1, 3, 3]
        %3 = parameter "point.weight" {init=constant(0.0)} : f32[16, 16, 1, 1]
        %4 = parameter "small.weight" {init=constant(0.0)} : f32[16, 1, 3, 3]
        %5 = parameter "many.weight" {init=constant(0.0)} : f32[256, 16, 1, 1]
        %6 = conv2d %0, %1 : f32[1, 16, 8, 8] @wide
        %7 = conv2d %6, %2 {padding=1x1, groups=16} : f32[1, 16, 8, 8] @depthwise
        %8 = relu %7 : f32[1, 16, 8, 8]
        %9 = conv2d %8, %3 : f32[1, 16, 8, 8] @point
        %10 = add %9, %6 : f32[1, 16, 8, 8] @sum
        %11 = conv2d %10, %4 {stride=4x4, padding=1x1, groups=16} : f32[1, 16, 2, 2] @small
        %12 = conv2d %11, %5 : f32[1, 256, 2, 2] @many
        output y = %12
    }"#
);

golden!(
    large_values_before_depthwise,
    "layout, fuse",
    r#"graph g {
        %0 = input "x" : f32[1, 16, 112, 112]
        %1 = parameter "wide.weight" {init=constant(0.0)} : f32[96, 16, 1, 1]
        %2 = parameter "depthwise.weight" {init=constant(0.0)} : f32[96, 1, 3, 3]
        %3 = parameter "point.weight" {init=constant(0.0)} : f32[24, 96, 1, 1]
        %4 = conv2d %0, %1 : f32[1, 96, 112, 112] @wide
        %5 = clamp %4 {low=0.0, high=6.0} : f32[1, 96, 112, 112]
        %6 = conv2d %5, %2 {stride=2x2, padding=1x1, groups=96} : f32[1, 96, 56, 56] @depthwise
        %7 = conv2d %6, %3 : f32[1, 24, 56, 56] @point
        output y = %7
    }"#
);

golden!(
    branches_write_in_place,
    "layout, fuse, place_concat",
    r#"graph inception {
        %0 = input "x" : f32[1, 3, 8, 8]
        %1 = parameter "a.weight" {init=constant(0.0)} : f32[8, 3, 1, 1]
        %2 = parameter "b.weight" {init=constant(0.0)} : f32[16, 3, 1, 1]
        %3 = conv2d %0, %1 : f32[1, 8, 8, 8] @a
        %4 = relu %3 : f32[1, 8, 8, 8]
        %5 = conv2d %0, %2 : f32[1, 16, 8, 8] @b
        %6 = relu %5 : f32[1, 16, 8, 8]
        %7 = concat %4, %6 {axis=1} : f32[1, 24, 8, 8] @join
        %8 = max_pool2d %7 {window=2x2, stride=2x2} : f32[1, 24, 4, 4]
        output y = %8
    }"#
);

golden!(
    odd_channels_are_joined_row_major,
    "layout, fuse, place_concat",
    r#"graph g {
        %0 = input "x" : f32[1, 3, 8, 8]
        %1 = parameter "a.weight" {init=constant(0.0)} : f32[6, 3, 1, 1]
        %2 = conv2d %0, %1 : f32[1, 6, 8, 8] @a
        %3 = parameter "b.weight" {init=constant(0.0)} : f32[10, 3, 1, 1]
        %4 = conv2d %0, %3 : f32[1, 10, 8, 8] @b
        %5 = concat %2, %4 {axis=1} : f32[1, 16, 8, 8] @join
        %6 = reshape %5 {shape=[1, 1024]} : f32[1, 1024]
        output y = %6
    }"#
);

golden!(
    an_input_cannot_be_placed,
    "fuse, place_concat",
    r#"graph g {
        %0 = input "x" : f32[1, 4]
        %1 = tanh %0 : f32[1, 4]
        %2 = concat %0, %1 {axis=1} : f32[1, 8] @history
        output y = %2
    }"#
);

golden!(
    gradients_of_convolutions,
    "layout, fuse",
    r#"graph g {
        %0 = input "x" : f32[2, 8, 8, 8]
        %1 = parameter "w" {init=constant(0.0)} : f32[16, 8, 3, 3]
        %2 = input "dy" : f32[2, 16, 4, 4]
        %3 = conv2d_input_grad %2, %1 {stride=2x2, padding=1x1, input=[8, 8]} : f32[2, 8, 8, 8] @conv1.grad
        %4 = conv2d_weight_grad %0, %2 {stride=2x2, padding=1x1, kernel=3x3} : f32[16, 8, 3, 3] @conv1.grad
        %5 = relu %3 : f32[2, 8, 8, 8]
        output dx = %5
        output dw = %4
    }"#
);

golden!(
    matrix_products_and_what_stays,
    "contractions",
    r#"graph g {
        %0 = input "x" : f32[5, 7]
        %1 = input "dy" : f32[5, 3]
        %2 = transpose %1 {order=[1, 0]} : f32[3, 5]
        %3 = matmul %2, %0 : f32[3, 7]
        %4 = input "grouped" : f32[1, 4, 6, 6]
        %5 = parameter "w" {init=constant(0.0)} : f32[4, 2, 3, 3]
        %6 = conv2d_input_grad %4, %5 {padding=1x1, groups=2, input=[6, 6]} : f32[1, 4, 6, 6] @conv2.grad
        output dw = %3
        output dx = %6
    }"#
);

golden!(
    statistics_and_sums_of_a_normalisation,
    "layout, fuse, share",
    r#"graph g {
        %0 = input "x" : f32[2, 3, 8, 8]
        %1 = parameter "w" {init=constant(0.0)} : f32[8, 3, 1, 1]
        %13 = input "above" : f32[2, 3, 8, 8]
        %2 = conv2d %13, %1 : f32[2, 8, 8, 8] @conv2.grad
        %3 = conv2d %0, %1 : f32[2, 8, 8, 8] @conv1
        %4 = reduce_mean %3 {axes=[0, 2, 3]} : f32[8] @bn1
        %5 = reduce_variance %3 {axes=[0, 2, 3]} : f32[8] @bn1
        %6 = parameter "running" {init=constant(0.0), frozen} : f32[8]
        %7 = add %6, %4 : f32[8] @bn1
        %8 = reshape %4 {shape=[8, 1, 1]} : f32[8, 1, 1]
        %9 = sub %3, %8 : f32[2, 8, 8, 8] @bn1.grad
        %10 = mul %2, %9 : f32[2, 8, 8, 8] @bn1.grad
        %11 = reduce_sum %10 {axes=[0, 2, 3]} : f32[8] @bn1.grad
        %12 = reduce_sum %2 {axes=[0, 2, 3]} : f32[8] @bn1.grad
        output variance = %5
        output dweight = %11
        output dbias = %12
        update %6 = %7
    }"#
);

golden!(
    an_optimizer_in_one_sweep,
    "fuse, share",
    r#"graph g {
        %0 = input "gradient" : f32[4, 6]
        %1 = input "rate" : f32[]
        %2 = parameter "w" {init=constant(0.0)} : f32[4, 6]
        %3 = parameter "first" {init=constant(0.0), frozen} : f32[4, 6]
        %4 = parameter "second" {init=constant(0.0), frozen} : f32[4, 6]
        %5 = constant {value=0.5} : f32[]
        %6 = mul %3, %5 : f32[4, 6]
        %7 = add %6, %0 : f32[4, 6]
        %8 = mul %4, %5 : f32[4, 6]
        %9 = mul %0, %0 : f32[4, 6]
        %10 = add %8, %9 : f32[4, 6]
        %11 = sqrt %10 : f32[4, 6]
        %12 = div %7, %11 : f32[4, 6]
        %13 = mul %12, %1 : f32[4, 6]
        %14 = sub %2, %13 : f32[4, 6]
        update %2 = %14
        update %3 = %7
        update %4 = %10
    }"#
);

golden!(
    groups_with_something_between_stay_apart,
    "fuse, share",
    r#"graph g {
        %0 = input "x" : f32[4, 6]
        %1 = exp %0 : f32[4, 6]
        %2 = transpose %1 {order=[1, 0]} : f32[6, 4]
        %3 = neg %2 : f32[6, 4]
        %4 = transpose %3 {order=[1, 0]} : f32[4, 6]
        %5 = add %1, %4 : f32[4, 6]
        %6 = reduce_sum %0 {axes=[0]} : f32[6]
        %7 = reshape %6 {shape=[1, 6]} : f32[1, 6]
        %8 = mul %0, %7 : f32[4, 6]
        %9 = reduce_sum %8 {axes=[0]} : f32[6]
        output y = %1
        output z = %5
        output a = %6
        output b = %9
    }"#
);

golden!(
    channels_last_on_a_gpu,
    "layout",
    GpuTarget::Sm80.thread(),
    r#"graph g {
        %0 = input "x" : f32[1, 3, 8, 8]
        %1 = parameter "stem" {init=constant(0.0)} : f32[6, 3, 1, 1]
        %2 = conv2d %0, %1 : f32[1, 6, 8, 8] @stem
        %3 = parameter "grouped" {init=constant(0.0)} : f32[10, 3, 1, 1]
        %4 = conv2d %2, %3 {groups=2} : f32[1, 10, 8, 8] @grouped
        %5 = concat %2, %4 {axis=1} : f32[1, 16, 8, 8] @join
        %6 = adaptive_avg_pool2d %5 {output=1x1} : f32[1, 16, 1, 1]
        %7 = sigmoid %6 : f32[1, 16, 1, 1]
        %8 = mul %5, %7 : f32[1, 16, 8, 8] @gated
        %9 = reduce_max %8 {axes=[1]} : f32[1, 8, 8]
        %10 = parameter "picture" {init=constant(0.0)} : f32[3, 16, 1, 1]
        %11 = conv2d %8, %10 : f32[1, 3, 8, 8] @picture
        %12 = reshape %8 {shape=[1, 1024]} : f32[1, 1024]
        output features = %12
        output largest = %9
        output picture = %11
    }"#
);

golden!(
    channels_that_come_from_elsewhere_are_put_last,
    "layout, fuse",
    GpuTarget::Sm80.thread(),
    r#"graph decoder {
        %0 = input "code" : f32[2, 96]
        %1 = reshape %0 {shape=[2, 24, 2, 2]} : f32[2, 24, 2, 2]
        %2 = parameter "up" {init=constant(0.0)} : f32[24, 8, 2, 2]
        %3 = conv_transpose2d %1, %2 {stride=2x2} : f32[2, 8, 4, 4] @up
        %4 = relu %3 : f32[2, 8, 4, 4]
        %5 = input "dy" : f32[2, 8, 4, 4]
        %6 = conv2d_weight_grad %5, %1 {stride=2x2, kernel=2x2} : f32[24, 8, 2, 2] @up.grad
        output y = %4
        output dw = %6
    }"#
);
