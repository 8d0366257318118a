//! The kernels of the fused patterns, as text. `INSTA_UPDATE=always cargo test` blesses them.

use nnc_compiler::graph::op::{Binary, Conv2d, MaxPool2d, Unary};
use nnc_compiler::graph::{Dim, Op};

use crate::support::{Net, check, check_with, direct, same, text, window};

/// LeNet's first stage: a plain picture, six channels in a block of eight, pooled in the task.
#[test]
fn conv_relu_pool() {
    let mut net = Net::new(1);
    let x = net.input(&[1, 1, 12, 12]);
    let y = net.conv(x, 6, [5, 5], Conv2d { padding: [2; 4], ..same() });
    let y = net.op(Op::Unary(Unary::Relu), &[y]);
    let y = net.op(Op::MaxPool2d(MaxPool2d { window: window(2, 2) }), &[y]);
    net.output(y);
    insta::assert_snapshot!(text(&check(&net)));
}

/// Two convolutions of VGG: the second one reads blocks.
#[test]
fn conv_relu_twice() {
    let mut net = Net::new(2);
    let mut x = net.input(&[1, 3, 8, 8]);
    for channels in [16, 16] {
        x = net.conv(x, channels, [3, 3], same());
        x = net.op(Op::Unary(Unary::Relu), &[x]);
    }
    net.output(x);
    insta::assert_snapshot!(text(&check_with(&net, &direct())));
}

/// The end of a residual block: the sum and the activation while the convolution is in registers.
#[test]
fn residual() {
    let mut net = Net::new(3);
    let x = net.input(&[1, 8, 6, 7]);
    let point = Conv2d { padding: [0; 4], ..same() };
    let x = net.conv(x, 8, [1, 1], point.clone());
    let y = net.conv(x, 8, [1, 1], point);
    let y = net.op(Op::Binary(Binary::Add), &[y, x]);
    let y = net.op(Op::Unary(Unary::Relu), &[y]);
    net.output(y);
    insta::assert_snapshot!(text(&check(&net)));
}

/// Two branches of an inception module write side by side into the concatenation.
#[test]
fn concatenation_in_place() {
    let mut net = Net::new(4);
    let x = net.input(&[1, 3, 4, 4]);
    let point = Conv2d { padding: [0; 4], ..same() };
    let x = net.conv(x, 8, [1, 1], point.clone());
    let a = net.conv(x, 8, [1, 1], point);
    let b = net.conv(x, 16, [3, 3], same());
    let y = net.op(Op::Concat(1), &[a, b]);
    let y = net.op(Op::MaxPool2d(MaxPool2d { window: window(2, 2) }), &[y]);
    net.output(y);
    insta::assert_snapshot!(text(&check_with(&net, &direct())));
}

/// A depthwise convolution with its clamp, then a fully connected layer on the mean of each map.
#[test]
fn depthwise_and_linear() {
    let mut net = Net::new(5);
    let x = net.input(&[1, 3, 6, 6]);
    let x = net.conv(x, 16, [1, 1], Conv2d { padding: [0; 4], ..same() });
    let y = net.conv(x, 16, [3, 3], Conv2d { groups: 16, ..same() });
    let y = net.op(Op::Unary(Unary::Clamp(0.0, 6.0)), &[y]);
    let y = net.op(Op::AdaptiveAvgPool2d([1, 1]), &[y]);
    let y = net.op(Op::Reshape(vec![Dim::from(1usize), Dim::from(16usize)]), &[y]);
    let (w, b) = (net.parameter(&[10, 16]), net.parameter(&[10]));
    let y = net.op(Op::Linear, &[y, w, b]);
    net.output(y);
    insta::assert_snapshot!(text(&check(&net)));
}

/// A depthwise convolution of stride 2 whose rows the 1x1 convolution after it reads from the task's scratch.
#[test]
fn separable() {
    let mut net = Net::new(6);
    let x = net.input(&[1, 3, 9, 9]);
    let x = net.conv(x, 12, [1, 1], Conv2d { padding: [0; 4], ..same() });
    let y = net.conv(x, 12, [3, 3], Conv2d { groups: 12, stride: [2; 2], ..same() });
    let y = net.op(Op::Unary(Unary::Clamp(0.0, 6.0)), &[y]);
    let y = net.conv(y, 8, [1, 1], Conv2d { padding: [0; 4], ..same() });
    net.output(y);
    insta::assert_snapshot!(text(&check(&net)));
}
