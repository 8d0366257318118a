//! Every operation once, in its plainest form and in groups.

use nnc_compiler::graph::Op;
use nnc_compiler::graph::op::{
    AvgPool2d, BatchNorm, Binary, Conv2d, ConvTranspose2d, LocalResponseNorm, MaxPool2d, Padding, ReduceKind,
    Unary, Window,
};
use nnc_compiler::graph::{Dim, Shape};
use nnc_runtime::DType;

use crate::support::{Net, check, same, window};

fn shape(sizes: &[usize]) -> Shape {
    sizes.iter().map(|&n| Dim::from(n)).collect()
}

#[test]
fn unary_functions() {
    use Unary::*;
    let functions = [
        Neg,
        Abs,
        Exp,
        Tanh,
        Sigmoid,
        Relu,
        LeakyRelu(0.1),
        Elu(0.7),
        Gelu,
        Silu,
        HardSwish,
        HardSigmoid,
        Erf,
        Floor,
        Sign,
        Clamp(-0.25, 0.5),
        Clamp(0.0, f64::INFINITY),
    ];
    for f in functions {
        let mut net = Net::new(1);
        let x = net.input(&[3, 7]);
        let y = net.op(Op::Unary(f), &[x]);
        net.output(y);
        check(&net);
    }
    for f in [Log, Sqrt, Rsqrt] {
        let mut net = Net::new(2);
        let x = net.positive(&[21]);
        let z = net.input(&[21]);
        let y = net.op(Op::Unary(f), &[x]);
        let y = net.op(Op::Binary(Binary::Add), &[y, z]);
        net.output(y);
        check(&net);
    }
}

#[test]
fn binary_functions_broadcast() {
    use Binary::*;
    for f in [Add, Sub, Mul, Div, Max, Min] {
        for (a, b) in [
            (vec![2, 3, 8], vec![2, 3, 8]),
            (vec![2, 3, 9], vec![3, 1]),
            (vec![1, 5], vec![4, 1]),
            (vec![6], vec![]),
        ] {
            let mut net = Net::new(3);
            let a = net.input(&a);
            let b = net.positive(&b);
            let y = net.op(Op::Binary(f), &[a, b]);
            net.output(y);
            check(&net);
        }
    }
}

#[test]
fn comparisons_logic_and_selection() {
    use Binary::*;
    for f in [Eq, Ne, Lt, Le, Gt, Ge] {
        let mut net = Net::new(4);
        let (a, b) = (net.input(&[2, 9]), net.input(&[2, 9]));
        let zero = net.splat(0.0);
        let c = net.op(Op::Binary(f), &[a, zero]);
        let d = net.op(Op::Binary(f), &[a, b]);
        let either = net.op(Op::Binary(Or), &[c, d]);
        let both = net.op(Op::Binary(And), &[c, d]);
        let not = net.op(Op::Unary(Unary::Not), &[both]);
        let pick = net.op(Op::Where, &[either, a, b]);
        let number = net.op(Op::Cast(DType::I32), &[pick]);
        for y in [either, not, pick, number] {
            net.output(y);
        }
        check(&net);
    }
}

#[test]
fn powers() {
    let mut net = Net::new(5);
    let (a, b) = (net.positive(&[13]), net.input(&[13]));
    let y = net.op(Op::Binary(Binary::Pow), &[a, b]);
    net.output(y);
    check(&net);
}

#[test]
fn convolutions() {
    let mut net = Net::new(6);
    let x = net.input(&[2, 3, 9, 11]);
    let y = net.conv(x, 10, [3, 3], same());
    let y = net.op(Op::Unary(Unary::Relu), &[y]);
    let y = net.conv(y, 9, [1, 1], Conv2d { padding: [0; 4], ..same() });
    let y = net.conv(
        y,
        16,
        [3, 2],
        Conv2d { stride: [2, 1], padding: [1, 0, 2, 0], dilation: [1, 2], groups: 1 },
    );
    let y = net.conv(y, 8, [3, 3], Conv2d { groups: 4, ..same() });
    net.output(y);
    check(&net);
}

#[test]
fn transposed_convolutions() {
    for (stride, padding, output_padding, dilation, groups) in [
        ([1, 1], [0; 4], [0, 0], [1, 1], 1),
        ([2, 3], [1, 0, 0, 1], [1, 2], [1, 1], 1),
        ([2, 2], [1; 4], [0, 0], [2, 1], 2),
    ] {
        let mut net = Net::new(7);
        let x = net.input(&[1, 4, 4, 3]);
        let w = net.parameter(&[4, 3, 3, 3]);
        let b = net.parameter(&[3 * groups]);
        let op = ConvTranspose2d { stride, padding, output_padding, dilation, groups };
        let y = net.op(Op::ConvTranspose2d(op), &[x, w, b]);
        net.output(y);
        check(&net);
    }
}

#[test]
fn contractions() {
    for (a, b) in [(vec![3, 5], vec![5, 7]), (vec![2, 1, 4, 6], vec![3, 6, 8]), (vec![1, 9], vec![9, 1])] {
        let mut net = Net::new(8);
        let (a, b) = (net.input(&a), net.input(&b));
        let y = net.op(Op::MatMul, &[a, b]);
        net.output(y);
        check(&net);
    }
    for (x, out) in [(vec![1, 33], 10), (vec![5, 16], 8), (vec![2, 3, 7], 1), (vec![13], 4)] {
        let mut net = Net::new(9);
        let depth = x[x.len() - 1];
        let x = net.input(&x);
        let (w, b) = (net.parameter(&[out, depth]), net.parameter(&[out]));
        let y = net.op(Op::Linear, &[x, w, b]);
        let y = net.op(Op::Unary(Unary::Relu), &[y]);
        net.output(y);
        check(&net);
    }
}

/// Blocks of channels: windows that overlap or do not, partial ones, few and many rows, work after.
#[test]
fn poolings_of_blocks() {
    let windows = [
        Window { padding: [1; 4], ..window(3, 1) },
        Window { padding: [1, 0, 0, 1], ceil: true, ..window(3, 2) },
        Window { kernel: [1, 4], stride: [2, 1], padding: [0, 0, 2, 1], ..window(1, 1) },
        Window { ceil: true, ..window(2, 3) },
    ];
    for shape in [[1, 24, 5, 6], [2, 13, 14, 19], [9, 40, 3, 3]] {
        let mut net = Net::new(11);
        let x = net.input(&[shape[0], 2, shape[2], shape[3]]);
        let x = net.conv(x, shape[1], [1, 1], Conv2d { padding: [0; 4], ..same() });
        for window in windows.clone() {
            for include_pad in [false, true] {
                let average = AvgPool2d { window: window.clone(), count_include_pad: include_pad };
                for op in [Op::MaxPool2d(MaxPool2d { window: window.clone() }), Op::AvgPool2d(average)] {
                    let y = net.op(op, &[x]);
                    let scale = net.parameter(&[1, shape[1], 1, 1]);
                    let y = net.op(Op::Binary(Binary::Mul), &[y, scale]);
                    let y = net.op(Op::Unary(Unary::Relu), &[y]);
                    // Its reader takes blocks.
                    let y = net.conv(y, 4, [1, 1], Conv2d { padding: [0; 4], ..same() });
                    net.output(y);
                }
            }
        }
        check(&net);
    }
}

#[test]
fn poolings() {
    for channels in [3, 16, 13] {
        let mut net = Net::new(10);
        let x = net.input(&[2, 2, 13, 11]);
        let x = net.conv(x, channels, [1, 1], Conv2d { padding: [0; 4], ..same() });
        let ops = [
            Op::MaxPool2d(MaxPool2d { window: window(3, 2) }),
            Op::AvgPool2d(AvgPool2d { window: window(2, 2), count_include_pad: true }),
            Op::AdaptiveAvgPool2d([1, 1]),
            Op::AdaptiveAvgPool2d([3, 4]),
            Op::AdaptiveMaxPool2d([2, 20]),
        ];
        for op in ops {
            let y = net.op(op, &[x]);
            net.output(y);
        }
        check(&net);
    }
}

#[test]
fn normalisations() {
    for channels in [5, 8, 24] {
        let mut net = Net::new(11);
        let x = net.input(&[2, channels, 4, 3]);
        let x = net.conv(x, channels, [1, 1], Conv2d { padding: [0; 4], ..same() });
        let [w, b, mean] = [0; 3].map(|_| net.parameter(&[channels]));
        let var = net.positive(&[channels]);
        let norm = BatchNorm { eps: 1e-5, momentum: 0.1, training: false };
        let x = net.op(Op::Unary(Unary::Relu), &[x]);
        let y = net.op(Op::BatchNorm(norm), &[x, w, b, mean, var]);
        net.output(y);
        for (size, beta) in [(5, 0.75), (4, 0.5)] {
            let lrn = LocalResponseNorm { size, alpha: 0.5, beta, k: 2.0 };
            let y = net.op(Op::LocalResponseNorm(lrn), &[x]);
            net.output(y);
        }
        check(&net);
    }
}

/// Over blocks of channels, full ones and others, with windows of all kinds, and work after it.
#[test]
fn local_response_norms() {
    for (channels, size, beta) in
        [(16, 5, 0.75), (20, 3, 0.5), (6, 5, 0.75), (33, 4, 0.75), (40, 1, 0.75), (8, 17, 0.75)]
    {
        let mut net = Net::new(channels as u64);
        let x = net.input(&[2, 3, 4, 5]);
        let x = net.conv(x, channels, [3, 3], same());
        let lrn = LocalResponseNorm { size, alpha: 0.5, beta, k: 2.0 };
        let y = net.op(Op::LocalResponseNorm(lrn), &[x]);
        let y = net.op(Op::Unary(Unary::Tanh), &[y]);
        net.output(y);
        check(&net);
    }
}

#[test]
fn softmaxes() {
    for (sizes, axis) in [(vec![3, 10], 1), (vec![2, 5, 4], 1), (vec![7], 0), (vec![2, 16, 2, 3], 1)] {
        let mut net = Net::new(12);
        let x = net.input(&sizes);
        let y = net.op(Op::Softmax(axis), &[x]);
        let z = net.op(Op::LogSoftmax(axis), &[x]);
        let two = net.splat(2.0);
        let z = net.op(Op::Binary(Binary::Mul), &[z, two]);
        net.output(y);
        net.output(z);
        check(&net);
    }
}

#[test]
fn reductions() {
    use ReduceKind::*;
    for kind in [Sum, Mean, Max, Min, Prod, Variance] {
        for (axes, keep) in [(vec![1], false), (vec![0, 2], true), (vec![2], false), (vec![0, 1, 2], false)] {
            let mut net = Net::new(13);
            let x = net.input(&[3, 4, 9]);
            let y = net.op(Op::Reduce { kind, axes, keep }, &[x]);
            let y = net.op(Op::Unary(Unary::Abs), &[y]);
            net.output(y);
            check(&net);
        }
    }
    for (axis, keep) in [(0, false), (1, true), (2, false)] {
        let mut net = Net::new(14);
        let x = net.input(&[3, 4, 9]);
        let y = net.op(Op::ArgMax { axis, keep }, &[x]);
        net.output(y);
        check(&net);
    }
}

#[test]
fn movements() {
    let mut net = Net::new(15);
    let x = net.input(&[2, 8, 3, 5]);
    let x = net.conv(x, 16, [3, 3], same());
    let ops = [
        Op::Reshape(shape(&[4, 20, 6])),
        Op::Transpose(vec![0, 2, 3, 1]),
        Op::Slice { axis: 1, start: Dim::from(3), end: Dim::from(15), step: 4 },
        Op::Pad {
            pads: vec![
                Padding::default(),
                Padding::around(1, 2),
                Padding { before: 0, after: 3, interior: 1 },
                Padding { before: 2, after: 0, interior: 2 },
            ],
            value: 1.5,
        },
        Op::Reverse(vec![1, 3]),
        Op::StopGradient,
        Op::Dropout(0.5),
    ];
    for op in ops {
        let y = net.op(op, &[x]);
        net.output(y);
    }
    let small = net.input(&[3, 1]);
    let y = net.op(Op::Broadcast(shape(&[2, 3, 4])), &[small]);
    net.output(y);
    check(&net);
}

#[test]
fn concatenations() {
    for (a, b, axis) in [(8, 16, 1), (5, 11, 1), (8, 8, 0), (9, 9, 2)] {
        let mut net = Net::new(16);
        let x = net.input(&[2, 3, 4, 4]);
        let a = net.conv(x, a, [3, 3], same());
        let b = net.conv(x, b, [3, 3], same());
        let y = net.op(Op::Concat(axis), &[a, b, a]);
        let z = net.op(Op::Concat(axis), &[b, a]);
        let z = net.op(Op::Unary(Unary::Relu), &[z]);
        net.output(y);
        net.output(z);
        check(&net);
    }
}

#[test]
fn indexing() {
    for axis in [0, 1] {
        let mut net = Net::new(17);
        let table = net.parameter(&[6, 5]);
        let indices = net.integers(&[2, 3], 5);
        let y = net.op(Op::Gather(axis), &[table, indices]);
        let z = net.op(Op::OneHot(4), &[indices]);
        net.output(y);
        net.output(z);
        check(&net);
    }
}

#[test]
fn outputs_that_are_inputs_parameters_or_twice() {
    let mut net = Net::new(18);
    let (x, p) = (net.input(&[2, 3]), net.parameter(&[2, 3]));
    let y = net.op(Op::Binary(Binary::Add), &[x, p]);
    let prepared = net.op(Op::Unary(Unary::Exp), &[p]);
    let flat = net.op(Op::Reshape(shape(&[6])), &[y]);
    for y in [x, p, y, y, flat, prepared] {
        net.output(y);
    }
    check(&net);
}
