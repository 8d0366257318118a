//! Convolutions and poolings over random shapes and attributes.

use nnc_compiler::graph::Op;
use nnc_compiler::graph::op::{AvgPool2d, Conv2d, MaxPool2d, Unary, Window};
use nnc_compiler::kernel::Memory;
use nnc_compiler::kernel::module::Role;
use nnc_compiler::target::CpuTarget;
use proptest::prelude::*;

use crate::support::{Net, POINT, check, check_for, direct, module, pair, same, target, text, window};

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolution(
        batch in 1..=2usize,
        [group_in, group_out] in pair(1..=10),
        groups in prop_oneof![4 => Just(1usize), 1 => 2..=3usize],
        size in pair(1..=12),
        kernel in pair(1..=4),
        stride in pair(1..=3),
        dilation in pair(1..=2),
        padding in [0..=3usize, 0..=3, 0..=3, 0..=3],
        blocked in any::<bool>(),
    ) {
        let mut net = Net::new(size[0] as u64 * 31 + kernel[1] as u64);
        let reach = |i: usize| dilation[i] * (kernel[i] - 1) + 1;
        let room = |i: usize| size[i] + padding[2 * i] + padding[2 * i + 1];
        prop_assume!(room(0) >= reach(0) && room(1) >= reach(1));
        let mut x = net.input(&[batch, group_in * groups, size[0], size[1]]);
        if blocked {
            x = net.conv(x, group_in * groups, [1, 1], POINT);
        }
        let y = net.conv(x, group_out * groups, kernel, Conv2d { stride, padding, dilation, groups });
        let y = net.op(Op::Unary(Unary::Relu), &[y]);
        net.output(y);
        check(&net);
    }

    #[test]
    fn depthwise_convolution(
        channels in 1..=20usize,
        size in pair(1..=10),
        kernel in pair(1..=3),
        stride in pair(1..=2),
        padding in [0..=2usize, 0..=2, 0..=2, 0..=2],
    ) {
        let mut net = Net::new(channels as u64);
        prop_assume!((0..2).all(|i| size[i] + padding[2 * i] + padding[2 * i + 1] >= kernel[i]));
        let x = net.input(&[1, channels, size[0], size[1]]);
        let x = net.conv(x, channels, [1, 1], POINT);
        let y = net.conv(x, channels, kernel, Conv2d { stride, padding, dilation: [1; 2], groups: channels });
        let y = net.op(Op::Unary(Unary::Clamp(0.0, 0.5)), &[y]);
        net.output(y);
        check(&net);
    }

    #[test]
    fn pooling(
        channels in 1..=9usize,
        size in pair(1..=12),
        kernel in pair(1..=4),
        stride in pair(1..=4),
        dilation in pair(1..=2),
        padding in [0..=3usize, 0..=3, 0..=3, 0..=3],
        [ceil, average, include] in [any::<bool>(), any::<bool>(), any::<bool>()],
        behind_conv in any::<bool>(),
    ) {
        let padding = std::array::from_fn(|i| padding[i].min(kernel[i / 2] - 1));
        let room = |i: usize| size[i] + padding[2 * i] + padding[2 * i + 1];
        prop_assume!((0..2).all(|i| room(i) > dilation[i] * (kernel[i] - 1)));
        let window = Window { kernel, stride, padding, dilation, ceil };
        let mut net = Net::new(channels as u64 * 7 + size[1] as u64);
        let mut x = net.input(&[2, channels, size[0], size[1]]);
        if behind_conv {
            let conv = Conv2d { stride: [1; 2], padding: [1; 4], dilation: [1; 2], groups: 1 };
            x = net.conv(x, channels, [3, 3], conv);
            x = net.op(Op::Unary(Unary::Relu), &[x]);
        }
        let op = match average {
            true => Op::AvgPool2d(AvgPool2d { window, count_include_pad: include }),
            false => Op::MaxPool2d(MaxPool2d { window }),
        };
        let y = net.op(op, &[x]);
        net.output(y);
        check(&net);
    }

    #[test]
    fn linear(rows in 1..=7usize, outputs in 1..=21usize, depth in 1..=40usize, deep in any::<bool>()) {
        let mut net = Net::new((rows * outputs) as u64);
        let x = if deep { net.input(&[rows, 2, depth]) } else { net.input(&[rows, depth]) };
        let (w, b) = (net.parameter(&[outputs, depth]), net.parameter(&[outputs]));
        let y = net.op(Op::Linear, &[x, w, b]);
        let y = net.op(Op::Unary(Unary::Gelu), &[y]);
        net.output(y);
        check(&net);
    }
}

/// Groups whose channels fill the blocks of every target.
#[test]
fn groups_of_whole_blocks() {
    for (seed, (groups, size, out, pool)) in
        [(2, 3, 32, false), (3, 4, 16, false), (2, 5, 32, true)].into_iter().enumerate()
    {
        let mut net = Net::new(seed as u64);
        let x = net.input(&[1, 3, size, size]);
        let x = net.conv(x, 16 * groups, [1, 1], Conv2d { padding: [0; 4], ..same() });
        let mut y = net.conv(x, out * groups, [3, 3], Conv2d { groups, ..same() });
        if pool {
            y = net.op(Op::MaxPool2d(MaxPool2d { window: window(3, 2) }), &[y]);
        }
        net.output(y);
        check(&net);
    }
}

/// Where the weights of all input channels would not stay in a cache, sums wait in scratch, for an
/// activation or for a pooling.
#[test]
fn sums_of_many_channels_go_through_memory() {
    for (seed, pool) in [false, true].into_iter().enumerate() {
        let mut net = Net::new(seed as u64);
        let x = net.input(&[1, 3, 2, 2]);
        let x = net.conv(x, 704, [1, 1], Conv2d { padding: [0; 4], ..same() });
        let y = net.conv(x, 32, [3, 3], same());
        let mut y = net.op(Op::Unary(Unary::Relu), &[y]);
        if pool {
            y = net.op(Op::MaxPool2d(MaxPool2d { window: window(2, 2) }), &[y]);
        }
        net.output(y);
        let module = check_for(&net, &CpuTarget::named("avx512").unwrap(), &direct());
        let partial = module.kernels.iter().flat_map(|k| &k.buffers).find(|b| b.name == "partial");
        assert!(partial.is_some(), "{}", text(&module));
    }
}

/// A pooled convolution's result is nowhere as a whole: neither a value nor a task's scratch holds
/// as many elements.
#[test]
fn a_pooled_convolution_is_never_materialised() {
    let sizes = [(1, 6, 28, 5), (3, 16, 10, 3), (8, 64, 56, 3)];
    for (seed, (channels, out, size, kernel)) in sizes.into_iter().enumerate() {
        let mut net = Net::new(seed as u64);
        let x = net.input(&[1, channels, size, size]);
        let conv = net.conv(x, out, [kernel; 2], Conv2d { padding: [kernel / 2; 4], ..same() });
        let y = net.op(Op::Unary(Unary::Relu), &[conv]);
        let y = net.op(Op::MaxPool2d(MaxPool2d { window: window(2, 2) }), &[y]);
        net.output(y);
        let mut graph = net.graph.clone();
        nnc_compiler::pass::run_all(&mut graph, &target(), &mut |_, _| {});
        let module = module(&graph);
        let whole: usize = net.shape(conv).iter().product();
        let temporary = module.values.iter().filter(|v| v.role == Role::Temporary).map(|v| v.elements);
        let scratch = module.kernels.iter().flat_map(|k| &k.buffers);
        let scratch = scratch.filter(|b| b.memory == Memory::Scratch && b.name.contains("conv"));
        let largest = temporary.chain(scratch.map(|b| b.shape.iter().product())).max().unwrap_or(0);
        assert!(largest < whole, "{largest} of {whole}\n{}", text(&module));
    }
}
