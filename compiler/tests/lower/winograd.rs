//! Winograd convolutions: shapes that do not fit tiles, strips, blocks and groups; what follows in the group; and the
//! error against sums in f64.

use nnc_compiler::graph::op::{AvgPool2d, BatchNorm, Binary, Conv2d, MaxPool2d, Unary};
use nnc_compiler::graph::{self, NodeId, Op};
use nnc_compiler::kernel::Module;
use nnc_compiler::kernel::interpret::run_module;
use nnc_compiler::lower::algorithm::{Algorithm, Convolutions, LowerOptions};
use nnc_compiler::lower::winograd::transform::Transform;
use nnc_compiler::pass;
use nnc_runtime::Tensor;
use proptest::prelude::*;

use crate::support::{Net, check_with, module_with, numbers, same, target, window};

/// Kernels by that algorithm wherever it can be used.
fn always(transform: Transform) -> LowerOptions {
    LowerOptions { convolutions: Convolutions::Always(Algorithm::Winograd(transform)) }
}

/// Compares with the graph interpreter; the kernels are checked for being what they should be.
fn check(net: &Net, transform: Transform) -> Module {
    let module = check_with(net, &always(transform));
    let name = format!("conv2d_winograd{}", transform.outputs());
    assert!(module.kernels.iter().any(|k| k.name.starts_with(&name)), "no {name}\n{module}");
    module
}

/// A 1x1 convolution, whose result is in blocks.
fn blocked(net: &mut Net, shape: [usize; 4]) -> NodeId {
    let [n, c, h, w] = shape;
    let x = net.input(&[n, 3, h, w]);
    net.conv(x, c, [1, 1], Conv2d { padding: [0; 4], ..same() })
}

fn relu(net: &mut Net, x: NodeId) -> NodeId {
    net.op(Op::Unary(Unary::Relu), &[x])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_shapes(
        images in 1usize..4,
        channels in (5usize..20, 5usize..20),
        size in (1usize..14, 1usize..14),
        padding in prop::array::uniform4(0usize..3),
        four in any::<bool>(),
    ) {
        let fits = size.0 + padding[0] + padding[1] >= 3 && size.1 + padding[2] + padding[3] >= 3;
        prop_assume!(fits);
        let mut net = Net::new(1);
        let x = blocked(&mut net, [images, channels.0, size.0, size.1]);
        let y = net.conv(x, channels.1, [3, 3], Conv2d { padding, ..same() });
        let y = relu(&mut net, y);
        net.output(y);
        check(&net, if four { Transform::F4 } else { Transform::F2 });
    }
}

/// Strips that the tasks transform themselves: more of them than one, some partial.
#[test]
fn many_strips() {
    for (shape, transform) in [
        ([1, 8, 70, 34], Transform::F4),
        ([1, 12, 67, 130], Transform::F4),
        ([33, 8, 20, 21], Transform::F4),
        ([1, 8, 40, 33], Transform::F2),
    ] {
        let mut net = Net::new(2);
        let x = blocked(&mut net, shape);
        let y = net.conv(x, 8, [3, 3], same());
        let y = relu(&mut net, y);
        let y = net.op(Op::MaxPool2d(MaxPool2d { window: window(2, 2) }), &[y]);
        net.output(y);
        check(&net, transform);
    }
}

/// Poolings whose windows tiles hold whole, of even and odd sizes.
#[test]
fn poolings_inside() {
    for (h, w) in [(8, 8), (9, 11), (6, 7), (2, 3)] {
        for transform in [Transform::F2, Transform::F4] {
            let mut net = Net::new(3);
            let x = blocked(&mut net, [2, 8, h, w]);
            for average in [false, true] {
                let y = net.conv(x, 16, [3, 3], same());
                let y = relu(&mut net, y);
                let window = window(2, 2);
                let pool = match average {
                    true => Op::AvgPool2d(AvgPool2d { window, count_include_pad: false }),
                    false => Op::MaxPool2d(MaxPool2d { window }),
                };
                let y = net.op(pool, &[y]);
                let y = net.op(Op::Unary(Unary::Sigmoid), &[y]);
                net.output(y);
            }
            check(&net, transform);
        }
    }
}

/// Windows that reach over tiles are pooled by a kernel of their own, with what follows them.
#[test]
fn other_poolings_come_after() {
    for (transform, count) in [(Transform::F2, 9), (Transform::F4, 12)] {
        let mut net = Net::new(4);
        let x = blocked(&mut net, [2, 8, 9, count]);
        let side = blocked(&mut net, [2, 8, 4, (count - 1) / 2]);
        let y = net.conv(x, 8, [3, 3], same());
        let y = relu(&mut net, y);
        let y = net.op(Op::MaxPool2d(MaxPool2d { window: window(3, 2) }), &[y]);
        let y = net.op(Op::Binary(Binary::Add), &[y, side]);
        net.output(y);
        let module = check(&net, transform);
        assert!(module.kernels.iter().any(|k| k.name.starts_with("max_pool2d")), "{module}");
    }
}

/// The end of a residual block, with the normalisation that could not be folded.
#[test]
fn residual() {
    for transform in [Transform::F2, Transform::F4] {
        let mut net = Net::new(5);
        let x = blocked(&mut net, [2, 13, 7, 9]);
        let x = relu(&mut net, x);
        let y = net.conv(x, 13, [3, 3], same());
        let y = net.op(Op::Binary(Binary::Add), &[y, x]);
        let y = relu(&mut net, y);
        let [w, b, mean] = [0; 3].map(|_| net.parameter(&[13]));
        let var = net.positive(&[13]);
        let norm = BatchNorm { eps: 1e-5, momentum: 0.1, training: false };
        let y = net.op(Op::BatchNorm(norm), &[y, w, b, mean, var]);
        net.output(y);
        check(&net, transform);
    }
}

/// Branches write into their concatenation; a convolution without a bias.
#[test]
fn into_a_concatenation() {
    let mut net = Net::new(6);
    let x = blocked(&mut net, [1, 8, 6, 6]);
    let a = net.conv(x, 16, [3, 3], same());
    let w = net.parameter(&[8, 8, 3, 3]);
    let b = net.op(Op::Conv2d(same()), &[x, w]);
    let y = net.op(Op::Concat(1), &[a, b]);
    net.output(y);
    check(&net, Transform::F4);
}

/// What is infinite or not a number stays so.
#[test]
fn not_a_number_spreads() {
    let mut net = Net::new(7);
    let x = blocked(&mut net, [1, 8, 5, 5]);
    let y = net.conv(x, 8, [3, 3], same());
    net.output(y);
    let Tensor::F32(image) = net.feeds.get_mut("x0").unwrap() else { unreachable!("an f32") };
    image[[0, 0, 2, 2]] = f32::NAN;
    let module = optimised(&net, &always(Transform::F4));
    let found = run_module(&module, &net.feeds, &net.feeds).unwrap();
    let Tensor::F32(y) = &found["y0"] else { unreachable!("an f32") };
    assert!(y[[0, 0, 2, 2]].is_nan() && y[[0, 7, 1, 3]].is_nan());
}

/// Two layers with the same weights transform them once.
#[test]
fn weights_are_transformed_once() {
    let mut net = Net::new(8);
    let mut x = blocked(&mut net, [1, 8, 4, 4]);
    let w = net.parameter(&[8, 8, 3, 3]);
    for _ in 0..2 {
        x = net.op(Op::Conv2d(same()), &[x, w]);
    }
    net.output(x);
    let module = check(&net, Transform::F2);
    let name = |l: &nnc_compiler::kernel::module::Launch| module.kernels[l.kernel].name.clone();
    assert_eq!(module.launches.iter().filter(|l| name(l) == "winograd2_weights").count(), 1);
}

/// The kernels as text: transform of the input, products, transform back, pooling.
#[test]
fn kernels() {
    let mut net = Net::new(9);
    let x = blocked(&mut net, [1, 8, 8, 8]);
    let y = net.conv(x, 8, [3, 3], same());
    let y = relu(&mut net, y);
    let y = net.op(Op::MaxPool2d(MaxPool2d { window: window(2, 2) }), &[y]);
    net.output(y);
    insta::assert_snapshot!(crate::support::text(&check(&net, Transform::F2)));
}

fn optimised(net: &Net, options: &LowerOptions) -> Module {
    let mut graph = net.graph.clone();
    pass::run_all(&mut graph, &target(), &mut |_, _| {});
    module_with(&graph, options)
}

/// The largest error that a layer may have, relative to its largest result.
const TOLERANCE: f64 = 5e-5;

/// Layers of VGG-16, ResNet-18 and GoogLeNet (channels, results, height and width; fewer output channels and
/// pixels than there, all of the input channels that a result sums over), with inputs after ReLU and He's initial weights.
#[test]
fn error_against_f64() {
    let layers = [
        ("vgg 64", [64, 16, 12, 12]),
        ("vgg 128", [128, 16, 12, 12]),
        ("vgg 256", [256, 16, 10, 14]),
        ("vgg 512", [512, 16, 14, 14]),
        ("resnet 512", [512, 16, 7, 7]),
        ("googlenet 160", [160, 16, 14, 14]),
    ];
    println!("{:<14} {:>9} {:>9} {:>9}", "largest error", "direct", "F(2x2)", "F(4x4)");
    for (name, [channels, outs, height, width]) in layers {
        let mut net = Net::new(10);
        let x = blocked(&mut net, [1, channels, height, width]);
        let x = relu(&mut net, x);
        let w = net.gaussian(&[outs, channels, 3, 3], (2.0 / (9 * channels) as f64).sqrt());
        let y = net.op(Op::Conv2d(same()), &[x, w]);
        net.output(y);
        let precise =
            graph::interpret::step(&net.graph, &net.feeds, graph::interpret::Precision::Double).unwrap();
        let expected = numbers(&precise.outputs["y0"]);
        let largest = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
        let error = |convolutions: Convolutions| {
            let module = optimised(&net, &LowerOptions { convolutions });
            let found = run_module(&module, &net.feeds, &net.feeds).unwrap();
            let found = numbers(&found["y0"]);
            expected.iter().zip(found).fold(0f64, |m, (a, b)| m.max((a - b).abs())) / largest
        };
        let direct = error(Convolutions::Direct);
        let [two, four] = [Transform::F2, Transform::F4].map(|t| error(always(t).convolutions));
        println!("{name:<14} {direct:>9.1e} {two:>9.1e} {four:>9.1e}");
        assert!(two < TOLERANCE && four < TOLERANCE, "{name}: F(2x2) {two:.1e}, F(4x4) {four:.1e}");
    }
}
