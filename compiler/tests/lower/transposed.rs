//! Gradients of convolutions' inputs, and transposed convolutions, in tiles: strides and dilations that leave some
//! remainders without a place of the kernel, sizes that the stride does not divide, padding wider than the
//! kernel, groups, and what follows in the group.

use nnc_compiler::graph::op::{Binary, Conv2d, Conv2dInputGrad, ConvTranspose2d, Unary};
use nnc_compiler::graph::{Dim, NodeId, Op};
use nnc_compiler::kernel::Module;

use crate::support::{Net, check, check_with, direct, same};

/// A convolution whose input's gradient is computed.
#[derive(Clone, Copy)]
struct Case {
    images: usize,
    /// Channels of its input and of its result.
    channels: [usize; 2],
    /// Height and width of its input.
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 4],
    dilation: [usize; 2],
    groups: usize,
}

const CASE: Case = Case {
    images: 2,
    channels: [5, 7],
    size: [9, 8],
    kernel: [3; 2],
    stride: [2; 2],
    padding: [1; 4],
    dilation: [1; 2],
    groups: 1,
};

impl Case {
    fn conv(&self) -> Conv2d {
        let &Case { stride, padding, dilation, groups, .. } = self;
        Conv2d { stride, padding, dilation, groups }
    }

    /// Height and width of the result.
    fn result(&self) -> [usize; 2] {
        [0, 1].map(|i| {
            let room = self.size[i] + self.padding[2 * i] + self.padding[2 * i + 1];
            (room - self.dilation[i] * (self.kernel[i] - 1) - 1) / self.stride[i] + 1
        })
    }

    /// The gradient, in blocks of channels, of a result in blocks.
    fn gradient(&self, net: &mut Net) -> NodeId {
        let ([inputs, outputs], [rows, columns], [kh, kw]) = (self.channels, self.result(), self.kernel);
        let dy = net.input(&[self.images, 3, rows, columns]);
        let dy = blocked(net, dy, outputs);
        let weight = net.parameter(&[outputs, inputs / self.groups, kh, kw]);
        let grad = Conv2dInputGrad { conv: self.conv(), input: self.size.map(Dim::from) };
        net.op(Op::Conv2dInputGrad(grad), &[dy, weight])
    }

    /// Checks the gradient with the mask of a ReLU behind it.
    fn check(&self) -> Module {
        let mut net = Net::new(self.size[0] as u64 * 31 + self.kernel[1] as u64);
        let dx = self.gradient(&mut net);
        let [height, width] = self.size;
        let x = net.input(&[self.images, 3, height, width]);
        let x = blocked(&mut net, x, self.channels[0]);
        let zero = net.splat(0.0);
        let mask = net.op(Op::Binary(Binary::Le), &[x, zero]);
        let dx = net.op(Op::Where, &[mask, zero, dx]);
        net.output(dx);
        let module = check_with(&net, &direct());
        assert_fast(&module);
        module
    }
}

/// A 1x1 convolution, whose result is in blocks.
fn blocked(net: &mut Net, x: NodeId, channels: usize) -> NodeId {
    net.conv(x, channels, [1, 1], Conv2d { padding: [0; 4], ..same() })
}

/// The kernels in tiles read packed weights.
fn assert_fast(module: &Module) {
    assert!(
        module.kernels.iter().any(|k| k.name.starts_with("pack_transposed_conv2d")),
        "no tiles\n{module}"
    );
}

#[test]
fn kernels_and_strides() {
    for (kernel, stride, size) in [
        (1, 2, [7, 8]),
        (3, 2, [8, 8]),
        (3, 2, [9, 7]),
        (5, 2, [11, 8]),
        (7, 2, [13, 9]),
        (3, 3, [9, 10]),
        (5, 3, [11, 12]),
        (2, 2, [8, 6]),
        (1, 3, [7, 5]),
    ] {
        let padding = [kernel / 2; 4];
        Case { kernel: [kernel; 2], stride: [stride; 2], size, padding, ..CASE }.check();
    }
}

/// Rows and columns by themselves, taps that a dilation spreads over some remainders only, padding on one
/// side, and so much of it that results lie outside the input altogether.
#[test]
fn uneven_attributes() {
    Case { stride: [2, 1], kernel: [3, 5], padding: [1, 0, 2, 2], ..CASE }.check();
    Case { stride: [1, 3], kernel: [1, 3], padding: [0; 4], ..CASE }.check();
    Case { dilation: [2, 2], padding: [2; 4], ..CASE }.check();
    Case { dilation: [2, 3], stride: [4, 2], padding: [2; 4], ..CASE }.check();
    Case { padding: [0, 1, 0, 1], ..CASE }.check();
    Case { padding: [4, 3, 3, 4], kernel: [2; 2], ..CASE }.check();
    Case { stride: [1; 2], padding: [3; 4], kernel: [2; 2], ..CASE }.check();
    Case { stride: [5; 2], kernel: [2; 2], padding: [0; 4], size: [4, 12], ..CASE }.check();
}

/// Several blocks of channels, tiles of several rows, and more weights than the second cache holds.
#[test]
fn many_channels() {
    let module = Case { channels: [32, 48], size: [8, 8], images: 1, ..CASE }.check();
    assert!(module.kernels.iter().all(|k| !k.name.starts_with("pad") && !k.name.starts_with("reverse")));
    let (kernel, padding) = ([7; 2], [3; 4]);
    Case { channels: [8, 800], size: [6, 6], images: 1, kernel, padding, ..CASE }.check();
}

/// Depthwise, and groups that fill blocks of all targets.
#[test]
fn groups() {
    Case { channels: [20, 20], groups: 20, ..CASE }.check();
    Case { channels: [20, 20], groups: 20, kernel: [5; 2], padding: [2; 4], stride: [1, 3], ..CASE }.check();
    Case { channels: [64, 32], groups: 2, images: 1, ..CASE }.check();
    Case { channels: [32, 64], groups: 2, stride: [1; 2], images: 1, ..CASE }.check();
}

/// Of stride 1, the kernel turned round: by Winograd's algorithm as others.
#[test]
fn stride_1_by_winograd() {
    for padding in [[1; 4], [0, 2, 1, 0]] {
        let mut net = Net::new(3);
        let dx =
            Case { channels: [24, 40], size: [12, 13], stride: [1; 2], padding, ..CASE }.gradient(&mut net);
        net.output(dx);
        let module = check(&net);
        let names: Vec<&str> = module.kernels.iter().map(|k| k.name.as_str()).collect();
        assert!(names.iter().any(|n| n.starts_with("conv2d_input_grad_winograd")), "{names:?}");
        assert!(names.iter().any(|n| n.contains("transposed_weights")), "{names:?}");
    }
}

#[test]
fn transposed_convolutions() {
    for (stride, kernel, output_padding, padding) in [
        ([2; 2], [3; 2], [1, 0], [1; 4]),
        ([2; 2], [2; 2], [0; 2], [0; 4]),
        ([3, 1], [4, 3], [2, 0], [0, 1, 2, 0]),
        ([1; 2], [3; 2], [0; 2], [1; 4]),
    ] {
        let mut net = Net::new(11);
        let x = net.input(&[2, 6, 5, 7]);
        let (weight, bias) = (net.parameter(&[6, 9, kernel[0], kernel[1]]), net.parameter(&[9]));
        let op = ConvTranspose2d { stride, padding, output_padding, dilation: [1; 2], groups: 1 };
        let y = net.op(Op::ConvTranspose2d(op), &[x, weight, bias]);
        let y = net.op(Op::Unary(Unary::Relu), &[y]);
        net.output(y);
        assert_fast(&check_with(&net, &direct()));
    }
}
