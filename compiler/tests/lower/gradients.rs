//! The operations of the backward graph over random shapes and attributes, and random numbers.

use ndarray::{ArrayD, IxDyn};
use nnc_compiler::graph::op::{
    AvgPool2d, AvgPool2dGrad, Binary, Conv2d, Conv2dInputGrad, Conv2dWeightGrad, Distribution, MaxPool2d,
    Philox, Unary, Window,
};
use nnc_compiler::graph::{Dim, NodeId, Op};
use nnc_runtime::Tensor;
use proptest::prelude::*;

use crate::support::{Net, check, pair};

/// Adds an input of the shape that an operation on `x` has.
fn gradient_of(net: &mut Net, op: Op, operands: &[NodeId]) -> NodeId {
    let types: Vec<_> = operands.iter().map(|&o| net.graph.node(o).ty.clone()).collect();
    let ty = op.infer(&types.iter().collect::<Vec<_>>()).unwrap();
    net.input(&ty.sizes().unwrap())
}

/// A 1x1 convolution, whose result is blocked.
fn blocked(net: &mut Net, x: NodeId) -> NodeId {
    let channels = net.shape(x)[1];
    net.conv(x, channels, [1, 1], Conv2d { stride: [1; 2], padding: [0; 4], dilation: [1; 2], groups: 1 })
}

/// Overlapping windows in several bands of rows, padded, with the mask of a ReLU behind them.
#[test]
fn pooling_in_bands() {
    for (stride, ceil) in [(2, false), (1, false), (3, true)] {
        let mut net = Net::new(77);
        let x = net.input(&[1, 8, 67, 70]);
        let x = blocked(&mut net, x);
        let x = net.op(Op::Unary(Unary::Relu), &[x]);
        let window = Window { kernel: [3; 2], stride: [stride; 2], padding: [1; 4], dilation: [1; 2], ceil };
        let pool = MaxPool2d { window };
        let dy = gradient_of(&mut net, Op::MaxPool2d(pool.clone()), &[x]);
        let dy = blocked(&mut net, dy);
        let dx = net.op(Op::MaxPool2dGrad(pool), &[x, dy]);
        let zero = net.splat(0.0);
        let mask = net.op(Op::Binary(Binary::Le), &[x, zero]);
        let dx = net.op(Op::Where, &[mask, zero, dx]);
        net.output(dx);
        let module = check(&net);
        let grad = module.kernels.iter().find(|k| k.name.contains("max_pool2d_grad")).unwrap();
        assert!(grad.name.contains("where") && grad.buffers.iter().any(|b| b.name == "sums"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolution(
        batch in 1..=3usize,
        [group_in, group_out] in pair(1..=9),
        groups in prop_oneof![4 => Just(1usize), 1 => 2..=3usize],
        depthwise in prop_oneof![5 => Just(false), 1 => Just(true)],
        size in pair(1..=9),
        kernel in pair(1..=3),
        stride in pair(1..=3),
        dilation in pair(1..=2),
        padding in [0..=3usize, 0..=3, 0..=3, 0..=3],
        behind_conv in any::<bool>(),
    ) {
        let reach = |i: usize| dilation[i] * (kernel[i] - 1) + 1;
        prop_assume!((0..2).all(|i| size[i] + padding[2 * i] + padding[2 * i + 1] >= reach(i)));
        let mut net = Net::new(size[0] as u64 * 31 + kernel[1] as u64);
        let (group_in, group_out, groups) = if depthwise { (1, 1, group_in) } else { (group_in, group_out, groups) };
        let conv = Conv2d { stride, padding, dilation, groups };
        let mut x = net.input(&[batch, group_in * groups, size[0], size[1]]);
        let weight = net.parameter(&[group_out * groups, group_in, kernel[0], kernel[1]]);
        let mut dy = gradient_of(&mut net, Op::Conv2d(conv.clone()), &[x, weight]);
        if behind_conv {
            (x, dy) = (blocked(&mut net, x), blocked(&mut net, dy));
        }
        let input = Conv2dInputGrad { conv: conv.clone(), input: size.map(Dim::from) };
        let dx = net.op(Op::Conv2dInputGrad(input), &[dy, weight]);
        let dw = net.op(Op::Conv2dWeightGrad(Conv2dWeightGrad { conv, kernel }), &[x, dy]);
        net.output(dx);
        net.output(dw);
        check(&net);
    }

    /// Either factor transposed, as the gradients of dense layers have them.
    #[test]
    fn products_of_matrices(
        [rows, depth, columns] in [1..=40usize, 1..=9, 1..=70],
        turned in prop_oneof![Just([false, false]), Just([true, false]), Just([false, true])],
        linear in any::<bool>(),
        more in any::<bool>(),
    ) {
        let mut net = Net::new((rows * 41 + columns) as u64);
        let mut factor = |[rows, columns]: [usize; 2], turned: bool| match turned {
            false => net.input(&[rows, columns]),
            true => {
                let x = net.input(&[columns, rows]);
                net.op(Op::Transpose(vec![1, 0]), &[x])
            }
        };
        let a = factor([rows, depth], turned[0]);
        let b = factor(if linear { [columns, depth] } else { [depth, columns] }, turned[1]);
        let mut y = net.op(if linear { Op::Linear } else { Op::MatMul }, &[a, b]);
        if more {
            let bias = net.input(&[columns]);
            y = net.op(Op::parse("add", "").unwrap(), &[y, bias]);
            y = net.op(Op::parse("relu", "").unwrap(), &[y]);
        }
        net.output(y);
        check(&net);
    }

    #[test]
    fn pooling(
        channels in 1..=9usize,
        size in pair(1..=9),
        kernel in pair(1..=4),
        stride in pair(1..=4),
        dilation in pair(1..=2),
        padding in [0..=3usize, 0..=3, 0..=3, 0..=3],
        [ceil, include, equal, behind_conv] in [any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()],
    ) {
        let padding = std::array::from_fn(|i| padding[i].min(kernel[i / 2] - 1));
        let room = |i: usize| size[i] + padding[2 * i] + padding[2 * i + 1];
        prop_assume!((0..2).all(|i| room(i) > dilation[i] * (kernel[i] - 1)));
        let window = Window { kernel, stride, padding, dilation, ceil };
        let mut net = Net::new(channels as u64 * 7 + size[1] as u64);
        let mut x = net.input(&[2, channels, size[0], size[1]]);
        let mut dy = gradient_of(&mut net, Op::MaxPool2d(MaxPool2d { window: window.clone() }), &[x]);
        if behind_conv {
            (x, dy) = (blocked(&mut net, x), blocked(&mut net, dy));
        }
        if equal {
            // Many equal values: the first one of a window counts.
            x = net.op(Op::Unary(Unary::Sign), &[x]);
        }
        let max = net.op(Op::MaxPool2dGrad(MaxPool2d { window: window.clone() }), &[x, dy]);
        let pool = AvgPool2d { window, count_include_pad: include };
        let mean = net.op(Op::AvgPool2dGrad(AvgPool2dGrad { pool, input: size.map(Dim::from) }), &[dy]);
        net.output(max);
        net.output(mean);
        check(&net);
    }

    #[test]
    fn pooling_to_a_grid(
        channels in 1..=9usize,
        size in pair(1..=9),
        grid in pair(1..=11),
        behind_conv in any::<bool>(),
    ) {
        let mut net = Net::new(channels as u64 * 5 + grid[1] as u64);
        let mut x = net.input(&[1, channels, size[0], size[1]]);
        let mut dy = gradient_of(&mut net, Op::AdaptiveMaxPool2d(grid), &[x]);
        if behind_conv {
            (x, dy) = (blocked(&mut net, x), blocked(&mut net, dy));
        }
        let max = net.op(Op::AdaptiveMaxPool2dGrad, &[x, dy]);
        let mean = net.op(Op::AdaptiveAvgPool2dGrad(size.map(Dim::from)), &[dy]);
        net.output(max);
        net.output(mean);
        check(&net);
    }

    #[test]
    fn gather(table in [1..=5usize, 1..=5, 1..=5], axis in 0..3usize, indices in prop::collection::vec(1..=3usize, 0..3)) {
        let mut net = Net::new(table[0] as u64);
        let rows = net.integers(&indices, table[axis] as i32 + 1);
        let mut shape = table.to_vec();
        shape.splice(axis..axis + 1, indices);
        let dy = net.input(&shape);
        let dtable = net.op(Op::GatherGrad { axis, size: Dim::from(table[axis]) }, &[dy, rows]);
        net.output(dtable);
        check(&net);
    }

    #[test]
    fn random_numbers(
        seed in any::<[i32; 2]>(),
        step in any::<i32>(),
        stream in any::<u32>(),
        shape in prop::collection::vec(1..=13usize, 0..3),
        normal in any::<bool>(),
    ) {
        let mut net = Net::new(1);
        let (key, at) = (net.integers(&[2], 1), net.integers(&[], 1));
        net.feeds.insert("x0".into(), Tensor::I32(ArrayD::from_shape_vec(IxDyn(&[2]), seed.to_vec()).unwrap()));
        net.feeds.insert("x1".into(), Tensor::I32(ArrayD::from_elem(IxDyn(&[]), step)));
        let from = match normal {
            true => Distribution::Normal { mean: 0.5, std: 2.0 },
            false => Distribution::Uniform { low: -1.0, high: 3.0 },
        };
        let shape = shape.into_iter().map(Dim::from).collect();
        let y = net.op(Op::Philox(Philox { from, shape, stream }), &[key, at]);
        net.output(y);
        check(&net);
    }
}

/// The names of the kernels that compute a gradient of weights.
fn weight_gradient(x: [usize; 4], out: usize, kernel: usize, conv: Conv2d) -> Vec<String> {
    let mut net = Net::new(x[0] as u64 * 13 + out as u64);
    let (image, kernel) = (net.input(&x), [kernel; 2]);
    let weight = net.parameter(&[out, x[1] / conv.groups, kernel[0], kernel[1]]);
    let dy = gradient_of(&mut net, Op::Conv2d(conv.clone()), &[image, weight]);
    let dw = net.op(Op::Conv2dWeightGrad(Conv2dWeightGrad { conv, kernel }), &[image, dy]);
    net.output(dw);
    check(&net).kernels.into_iter().map(|k| k.name).filter(|n| n.contains("weight")).collect()
}

/// Images in parts that are added up, more rows than a chunk has, tiles of both sizes.
#[test]
fn gradients_of_weights_in_parts() {
    let conv = |stride, padding, dilation, groups| Conv2d {
        stride: [stride; 2],
        padding: [padding; 4],
        dilation: [dilation; 2],
        groups,
    };
    let parts = ["conv2d_weight_grad", "conv2d_weight_grad_sum"];
    assert_eq!(weight_gradient([5, 7, 30, 38], 9, 3, conv(1, 1, 1, 1)), parts);
    assert_eq!(weight_gradient([7, 8, 40, 63], 8, 3, conv(2, 2, 3, 1)), parts);
    assert_eq!(weight_gradient([5, 3, 30, 28], 17, 5, conv(1, 2, 1, 1)), parts);
    assert_eq!(weight_gradient([3, 24, 28, 60], 8, 1, conv(1, 0, 1, 1)), parts[..1]);
    assert_eq!(weight_gradient([9, 7, 60, 63], 7, 3, conv(1, 1, 1, 7)), parts);
    assert_eq!(weight_gradient([5, 20, 9, 7], 40, 3, conv(1, 1, 1, 1)), parts[..1]);
}

/// NaN counts as the maximum, the first one of a window.
#[test]
fn pooling_of_nan() {
    let mut net = Net::new(2);
    let (x, dy) = (net.input(&[1, 1, 4, 4]), net.input(&[1, 1, 3, 3]));
    if let Some(Tensor::F32(values)) = net.feeds.get_mut("x0") {
        for at in [[0, 0, 1, 1], [0, 0, 1, 2], [0, 0, 3, 0]] {
            values[at.as_slice()] = f32::NAN;
        }
    }
    let window = crate::support::window(2, 1);
    let dx = net.op(Op::MaxPool2dGrad(MaxPool2d { window }), &[x, dy]);
    net.output(dx);
    check(&net);
}

/// An operand of one dimension lies along the columns: a 1x1 convolution must not take its pixels in rows of another width then.
#[test]
fn a_row_added_to_a_point_convolution() {
    let mut net = Net::new(3);
    let x = net.input(&[1, 8, 4, 6]);
    let y = net.conv(x, 8, [1, 1], Conv2d { stride: [1; 2], padding: [0; 4], dilation: [1; 2], groups: 1 });
    let row = net.input(&[6]);
    let y = net.op(Op::parse("add", "").unwrap(), &[y, row]);
    net.output(y);
    check(&net);
}
