//! Depthwise convolutions with their neighbours in one kernel, over random shapes.

use nnc_compiler::graph::Op;
use nnc_compiler::graph::op::{Binary, Conv2d, Unary};
use proptest::prelude::*;

use crate::support::{Net, POINT, check, check_with_first, pair, same};

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn separable_convolution(
        batch in 1..=2usize,
        [channels, outs] in pair(1..=24),
        size in pair(1..=14),
        kernel in pair(1..=5),
        stride in pair(1..=2),
        dilation in prop_oneof![5 => Just(1usize), 1 => Just(2)],
        padding in [0..=2usize, 0..=2, 0..=2, 0..=2],
        [between, residual] in [any::<bool>(), any::<bool>()],
    ) {
        let room = |i: usize| size[i] + padding[2 * i] + padding[2 * i + 1];
        prop_assume!((0..2).all(|i| room(i) > dilation * (kernel[i] - 1)));
        let mut net = Net::new((channels * 25 + outs) as u64);
        let x = net.input(&[batch, channels, size[0], size[1]]);
        let wide = net.conv(x, channels, [1, 1], POINT);
        let depthwise = Conv2d { stride, padding, dilation: [dilation; 2], groups: channels };
        let mut y = net.conv(wide, channels, kernel, depthwise);
        if between {
            y = net.op(Op::Unary(Unary::Clamp(0.0, 0.5)), &[y]);
        }
        y = net.conv(y, outs, [1, 1], POINT);
        if residual {
            let shape = net.shape(y);
            let other = net.input(&shape);
            y = net.op(Op::Binary(Binary::Add), &[y, other]);
        }
        net.output(y);
        check(&net);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inverted_residual(
        batch in 1..=2usize,
        [picture, channels, outs] in [1..=20usize, 4..=36, 4..=20],
        size in pair(2..=20),
        [kernel, stride, first_stride] in [1..=4usize, 1..=2, 1..=2],
        padding in [0..=2usize, 0..=2, 0..=2, 0..=2],
        [point, blocked, residual] in [any::<bool>(), any::<bool>(), any::<bool>()],
    ) {
        let mut net = Net::new((channels * 25 + outs) as u64);
        let mut x = net.input(&[batch, picture, size[0], size[1]]);
        if blocked {
            x = net.conv(x, picture, [1, 1], POINT);
        }
        let y = match point {
            true => net.conv(x, channels, [1, 1], POINT),
            false => net.conv(x, channels, [3, 3], Conv2d { stride: [first_stride; 2], ..same() }),
        };
        let y = net.op(Op::Unary(Unary::Clamp(0.0, 0.5)), &[y]);
        let shape = net.shape(y);
        prop_assume!((0..2).all(|i| shape[2 + i] + padding[2 * i] + padding[2 * i + 1] >= kernel));
        let depthwise = Conv2d { stride: [stride; 2], padding, dilation: [1; 2], groups: channels };
        let y = net.conv(y, channels, [kernel; 2], depthwise);
        let y = net.op(Op::Unary(Unary::Relu), &[y]);
        let mut y = net.conv(y, outs, [1, 1], POINT);
        if residual {
            let shape = net.shape(y);
            let other = net.input(&shape);
            y = net.op(Op::Binary(Binary::Add), &[y, other]);
        }
        net.output(y);
        check_with_first(&net);
    }
}

/// Three convolutions are one kernel: neither value between them is in memory.
#[test]
fn what_lies_between_is_in_scratch() {
    let mut net = Net::new(1);
    let x = net.input(&[1, 3, 33, 31]);
    let y = net.conv(x, 24, [3, 3], Conv2d { stride: [2; 2], ..same() });
    let y = net.op(Op::Unary(Unary::Clamp(0.0, 6.0)), &[y]);
    let y = net.conv(y, 24, [3, 3], Conv2d { groups: 24, ..same() });
    let y = net.op(Op::Unary(Unary::Clamp(0.0, 6.0)), &[y]);
    let y = net.conv(y, 8, [1, 1], POINT);
    net.output(y);
    let (module, joined) = check_with_first(&net);
    assert!(joined);
    let large = |v: &&nnc_compiler::kernel::module::Value| v.elements >= 24 * 16 * 16;
    assert_eq!(module.values.iter().filter(large).count(), 0, "{:?}", module.values);
    let scratch = |name: &str| module.kernels.iter().flat_map(|k| &k.buffers).any(|b| b.name == name);
    assert!(scratch("image") && scratch("wide") && scratch("rows"));
}
