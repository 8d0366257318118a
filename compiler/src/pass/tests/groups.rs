//! The passes that say how a graph is computed: layouts, groups, what they share, what is written in place.

use super::golden::golden;
use crate::target::GpuTarget;

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
