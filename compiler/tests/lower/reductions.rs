//! Sums, means and variances in vectors: channels of blocked values, columns of matrices, in one part
//! and in many, with work before and after them, alone and several in one pass.

use nnc_compiler::graph::op::{Binary, Conv2d, ReduceKind, Unary};
use nnc_compiler::graph::{Dim, NodeId, Op};
use nnc_compiler::kernel::Module;
use proptest::prelude::*;

use crate::support::{Net, check, text};

/// A 1x1 convolution, whose result is blocked if its channels fill blocks.
fn blocked(net: &mut Net, x: NodeId) -> NodeId {
    let channels = net.shape(x)[1];
    net.conv(x, channels, [1, 1], Conv2d { stride: [1; 2], padding: [0; 4], dilation: [1; 2], groups: 1 })
}

fn reduce(net: &mut Net, kind: ReduceKind, axes: &[usize], keep: bool, x: NodeId) -> NodeId {
    net.op(Op::Reduce { kind, axes: axes.to_vec(), keep }, &[x])
}

/// A value a channel in the shape that broadcasts to `[N, C, H, W]`.
fn by_channel(net: &mut Net, v: NodeId) -> NodeId {
    let channels = net.graph.node(v).ty.sizes().unwrap().iter().product::<usize>();
    net.op(Op::Reshape([channels, 1, 1].map(Dim::from).to_vec()), &[v])
}

/// Launches of kernels whose names begin so.
fn launches(module: &Module, name: &str) -> usize {
    module.launches.iter().filter(|l| module.kernels[l.kernel].name.starts_with(name)).count()
}

/// Mean, variance and the normalised value; then what its gradient sums.
fn normalised(shape: [usize; 4]) -> Module {
    let mut net = Net::new(shape[1] as u64);
    let x = net.input(&shape);
    let x = blocked(&mut net, x);
    let dy = net.input(&shape);
    let dy = blocked(&mut net, dy);
    let [mean, variance] =
        [ReduceKind::Mean, ReduceKind::Variance].map(|kind| reduce(&mut net, kind, &[0, 2, 3], false, x));
    let running = net.parameter(&[shape[1]]);
    let tenth = net.splat(0.1);
    let share = net.op(Op::Binary(Binary::Mul), &[mean, tenth]);
    let next = net.op(Op::Binary(Binary::Add), &[running, share]);
    net.update(running, next);
    let mean = by_channel(&mut net, mean);
    let centred = net.op(Op::Binary(Binary::Sub), &[x, mean]);
    let product = net.op(Op::Binary(Binary::Mul), &[dy, centred]);
    for y in [dy, product] {
        let sum = reduce(&mut net, ReduceKind::Sum, &[0, 2, 3], false, y);
        net.output(sum);
    }
    net.output(variance);
    check(&net)
}

#[test]
fn statistics_share_a_pass() {
    let module = normalised([3, 16, 32, 33]);
    assert_eq!(launches(&module, "relayout"), 0, "{}", text(&module));
    // Each in parts and their sum: mean and variance with the running mean, the sums of the gradient.
    let sums = module.launches.iter().filter(|l| module.kernels[l.kernel].name.contains("reduce_"));
    assert_eq!(sums.count(), 4, "{}", text(&module));
    assert_eq!(launches(&module, "reduce_mean_reduce_variance_mul_add"), 2, "{}", text(&module));
    assert_eq!(launches(&module, "sub_mul_reduce_sum_reduce_sum"), 2, "{}", text(&module));
}

/// Small numbers on a large offset: what is left of the variance if squares are summed is noise.
#[test]
fn variance_far_from_zero() {
    let mut net = Net::new(5);
    let x = net.input(&[4, 8, 24, 24]);
    let thousand = net.splat(1000.0);
    let shifted = net.op(Op::Binary(Binary::Add), &[x, thousand]);
    let x = blocked(&mut net, shifted);
    let variance = reduce(&mut net, ReduceKind::Variance, &[0, 2, 3], false, x);
    net.output(variance);
    check(&net);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn channels(
        [batch, channels, height, width] in [1..=5usize, 1..=20, 1..=7, 1..=7],
        large in any::<bool>(),
        axes in prop_oneof![Just(vec![0, 2, 3]), Just(vec![2, 3]), Just(vec![0, 3]), Just(vec![0])],
        [keep, in_blocks, after] in [any::<bool>(), any::<bool>(), any::<bool>()],
        kinds in prop::collection::vec(0..3usize, 1..4),
    ) {
        let mut net = Net::new((batch * 7 + channels) as u64);
        let (height, width) = if large { (height + 30, width + 40) } else { (height, width) };
        let mut x = net.input(&[batch, channels, height, width]);
        if in_blocks {
            x = blocked(&mut net, x);
        }
        let scale = net.parameter(&[channels, 1, 1]);
        for (i, kind) in kinds.into_iter().enumerate() {
            let kind = [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Variance][kind];
            let operand = match i {
                0 => x,
                1 => net.op(Op::Binary(Binary::Mul), &[x, scale]),
                _ => net.op(Op::Unary(Unary::Relu), &[x]),
            };
            let mut y = reduce(&mut net, kind, &axes, keep, operand);
            if after {
                let p = net.parameter(&net.shape(y));
                net.output(y);
                y = net.op(Op::Binary(Binary::Sub), &[p, y]);
                net.update(p, y);
            }
            net.output(y);
        }
        check(&net);
    }

    #[test]
    fn columns(
        [rows, columns] in [1..=40usize, 1..=70],
        batch in prop_oneof![Just(None), (1..=3usize).prop_map(Some)],
        long in any::<bool>(),
        keep in any::<bool>(),
        kind in 0..3usize,
    ) {
        let mut net = Net::new((rows * 7 + columns) as u64);
        let rows = if long { rows * 30 } else { rows };
        let shape = batch.map_or(vec![rows, columns], |n| vec![n, rows, columns]);
        let (x, y) = (net.input(&shape), net.input(&shape));
        let product = net.op(Op::Binary(Binary::Mul), &[x, y]);
        let kind = [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Variance][kind];
        let sum = reduce(&mut net, kind, &[shape.len() - 2], keep, product);
        net.output(sum);
        let everything: Vec<usize> = (0..shape.len()).collect();
        // Squares: a sum of 84,000 numbers of both signs is near zero, and its rounding is not.
        let squares = net.op(Op::Binary(Binary::Mul), &[x, x]);
        let sum = reduce(&mut net, kind, &everything, keep, squares);
        net.output(sum);
        check(&net);
    }
}
