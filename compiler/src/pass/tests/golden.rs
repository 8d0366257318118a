//! Each pass on the smallest graph that shows it: before, after, and what it says.

use super::super::PASSES;
use crate::graph::{parse, verify};
use crate::target::CpuTarget;

/// Runs a pass on a graph given as text; the snapshot has the name of the test.
macro_rules! golden {
    ($name:ident, $pass:literal, $text:literal) => {
        golden!($name, $pass, $crate::pass::tests::target(), $text);
    };
    ($name:ident, $pass:literal, $target:expr, $text:literal) => {
        #[test]
        fn $name() {
            let name = format!("{}_{}", $pass.replace(", ", "_"), stringify!($name));
            insta::with_settings!({ omit_expression => true }, {
                let text = $crate::pass::tests::golden::before_and_after($pass, &$target, $text);
                insta::assert_snapshot!(name, text);
            });
        }
    };
}

pub(super) use golden;

/// `passes`: names, one after the other.
pub(super) fn before_and_after(passes: &str, target: &CpuTarget, text: &str) -> String {
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
