//! The rule of every operation, over shapes and attributes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Net, Values, check, check_op, gradients, ints, numbers, run};
use crate::graph::Output;

fn shape(rank: std::ops::Range<usize>) -> impl Strategy<Value = Vec<usize>> {
    vec(1usize..5, rank)
}

/// `[1, 2]` as an attribute.
fn list(v: &[usize]) -> String {
    format!("{v:?}")
}

#[test]
fn unary_functions() {
    let anywhere = [
        "neg",
        "abs",
        "exp",
        "tanh",
        "sigmoid",
        "relu",
        "leaky_relu slope=0.1",
        "elu alpha=1.5",
        "gelu",
        "silu",
        "hard_swish",
        "hard_sigmoid",
        "erf",
        "clamp low=-1.0, high=2.5",
        "stop_gradient",
        "relayout",
        "dropout probability=0.5",
        "cast to=f32",
    ];
    for op in anywhere.into_iter().filter(|op| *op != "stop_gradient") {
        let mut net = Net::new();
        let x = net.parameter(&[5, 13], Values::between(37, -4.0, 4.0));
        assert!(check_op(&mut net, op, &[x]), "{op}");
    }
    for op in ["log", "sqrt", "rsqrt"] {
        let mut net = Net::new();
        let x = net.parameter(&[5, 13], Values::between(37, 0.3, 4.0));
        assert!(check_op(&mut net, op, &[x]), "{op}");
    }
}

/// Where a function has a kink the gradient is PyTorch's (2.15, `torch.autograd.grad`).
#[test]
fn at_kinks_gradients_are_pytorchs() {
    for (op, at) in [
        ("abs", &[(0.0, 0.0)][..]),
        ("relu", &[(0.0, 0.0)]),
        ("leaky_relu slope=0.1", &[(0.0, 0.1)]),
        ("elu alpha=1.5", &[(0.0, 1.5)]),
        ("hard_swish", &[(-3.0, 0.0), (3.0, 1.0)]),
        ("hard_sigmoid", &[(-3.0, 0.0), (3.0, 0.0)]),
        ("clamp low=0.0, high=6.0", &[(0.0, 0.0), (3.0, 1.0), (6.0, 0.0), (-1.0, 0.0), (7.0, 0.0)]),
        ("clamp low=-inf, high=6.0", &[(-8.0, 1.0), (6.0, 0.0)]),
    ] {
        for &(x, expected) in at {
            let mut net = Net::new();
            let p = net.parameter(&[1], Values::between(1, 0.0, 1.0));
            net.feeds.insert("p0".to_string(), nnc_runtime::Tensor::F64(ndarray::arr1(&[x]).into_dyn()));
            let y = net.op(op, &[p]);
            let loss = net.op("reduce_sum axes=[0]", &[y]);
            let node = gradients(&mut net.graph, loss, &[p]).unwrap()[0].unwrap();
            net.graph.outputs = vec![Output { name: "gradient".to_string(), node }];
            assert_eq!(numbers(&run(&net.graph, &net.feeds)["gradient"]), [expected], "{op} at {x}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn binary_functions_with_broadcasting(
        shape in shape(0..4), ones in [any::<[bool; 3]>(), any::<[bool; 3]>()], dropped in [0usize..3, 0usize..3],
        factor: u16, op in 0usize..7,
    ) {
        let op = ["add", "sub", "mul", "div", "pow", "maximum", "minimum"][op];
        let mut net = Net::new();
        let operands = [0, 1].map(|k| {
            let with_ones: Vec<usize> = shape.iter().zip(ones[k]).map(|(&n, one)| if one { 1 } else { n }).collect();
            let part = &with_ones[dropped[k].min(shape.len())..];
            // Apart from each other, away from zero.
            let values = Values::between(usize::from(factor) + 31 * k, 0.5 + 0.0007 * k as f64, 2.5);
            net.parameter(part, values)
        });
        prop_assert!(check_op(&mut net, op, &operands));
    }

    #[test]
    fn choice(shape in shape(1..4), factor: u16) {
        let mut net = Net::new();
        let count = shape.iter().product::<usize>();
        let condition = net.input(ints(&shape, (0..count).map(|i| (i % 3) as i32 - 1).collect()));
        let condition = net.op("cast to=bool", &[condition]);
        let a = net.parameter(&shape, Values::between(factor.into(), -2.0, 2.0));
        let b = net.parameter(&shape[1..], Values::between(factor.into(), -2.0, 2.0));
        prop_assert!(check_op(&mut net, "where", &[condition, a, b]));
    }

    #[test]
    fn convolutions(
        size in (1usize..7, 1usize..7), kernel in (1usize..4, 1usize..4), stride in (1usize..4, 1usize..4),
        padding in [0usize..3, 0usize..3, 0usize..3, 0usize..3], dilation in (1usize..3, 1usize..3),
        groups in 1usize..3, output_padding in (0usize..3, 0usize..3), bias: bool, factor: u16,
    ) {
        let values = Values::between(factor.into(), -1.0, 1.0);
        let [top, bottom, left, right] = padding;
        let attributes = format!(
            "stride={}x{}, padding={top}:{bottom}x{left}:{right}, dilation={}x{}, groups={groups}",
            stride.0, stride.1, dilation.0, dilation.1,
        );
        let extra = format!(", output_padding={}x{}", output_padding.0, output_padding.1);
        for (op, extra) in [("conv2d", ""), ("conv_transpose2d", extra.as_str())] {
            let mut net = Net::new();
            let x = net.parameter(&[2, 2 * groups, size.0, size.1], values);
            let weight = match op {
                "conv2d" => [3 * groups, 2, kernel.0, kernel.1],
                _ => [2 * groups, 3, kernel.0, kernel.1],
            };
            let mut operands = vec![x, net.parameter(&weight, values)];
            if bias {
                operands.push(net.parameter(&[3 * groups], values));
            }
            check_op(&mut net, &format!("{op} {attributes}{extra}"), &operands);
        }
    }

    #[test]
    fn contractions(
        batch in shape(0..3), ones in [any::<[bool; 2]>(), any::<[bool; 2]>()], sizes in [1usize..5, 1usize..5, 1usize..5],
        bias: bool, factor: u16,
    ) {
        let values = Values::between(factor.into(), -1.0, 1.0);
        let [m, k, n] = sizes;
        let batch_of = |ones: [bool; 2]| -> Vec<usize> {
            batch.iter().zip(ones).map(|(&n, one)| if one { 1 } else { n }).collect()
        };
        let mut net = Net::new();
        let a = net.parameter(&[batch_of(ones[0]), vec![m, k]].concat(), values);
        let b = net.parameter(&[batch_of(ones[1]), vec![k, n]].concat(), values);
        prop_assert!(check_op(&mut net, "matmul", &[a, b]));

        let mut net = Net::new();
        let x = net.parameter(&[batch.clone(), vec![k]].concat(), values);
        let mut operands = vec![x, net.parameter(&[n, k], values)];
        if bias {
            operands.push(net.parameter(&[n], values));
        }
        prop_assert!(check_op(&mut net, "linear", &operands));
    }

    #[test]
    fn poolings(
        size in (1usize..9, 1usize..9), kernel in (1usize..4, 1usize..4), stride in (1usize..4, 1usize..4),
        padding in [0usize..3, 0usize..3, 0usize..3, 0usize..3], dilation in (1usize..3, 1usize..3),
        ceil: bool, count: bool, grid in (1usize..5, 1usize..5), factor: u16,
    ) {
        let [top, bottom] = [padding[0], padding[1]].map(|p| p.min(kernel.0 - 1));
        let [left, right] = [padding[2], padding[3]].map(|p| p.min(kernel.1 - 1));
        let window = format!(
            "window={}x{}, stride={}x{}, padding={top}:{bottom}x{left}:{right}{}",
            kernel.0, kernel.1, stride.0, stride.1, if ceil { ", ceil" } else { "" },
        );
        for op in [
            format!("max_pool2d {window}, dilation={}x{}", dilation.0, dilation.1),
            format!("avg_pool2d {window}, dilation={}x{}, count_include_pad={count}", dilation.0, dilation.1),
            format!("adaptive_max_pool2d output={}x{}", grid.0, grid.1),
            format!("adaptive_avg_pool2d output={}x{}", grid.0, grid.1),
        ] {
            let mut net = Net::new();
            let x = net.parameter(&[2, 2, size.0, size.1], Values::between(factor.into(), -2.0, 2.0));
            // A dilated window may lie beside all elements: its maximum is no number.
            let Ok(y) = net.try_op(&op, &[x]) else { continue };
            net.graph.outputs = vec![Output { name: "y".to_string(), node: y }];
            if numbers(&run(&net.graph, &net.feeds)["y"]).iter().all(|v| v.is_finite()) {
                let loss = net.loss_of(y);
                check(&net.graph, loss, &net.feeds);
            }
        }
    }

    #[test]
    fn normalisations(shape in shape(2..5), axis in 0usize..4, size in 1usize..6, factor: u16) {
        let values = Values::between(factor.into(), -2.0, 2.0);
        for op in ["softmax", "log_softmax"] {
            let mut net = Net::new();
            let x = net.parameter(&shape, values);
            let op = format!("{op} axis={}", axis % shape.len());
            prop_assert!(check_op(&mut net, &op, &[x]));
        }
        let mut net = Net::new();
        let x = net.parameter(&shape, values);
        let op = format!("local_response_norm size={size}, alpha=0.7, beta=0.75, k=1.5");
        prop_assert!(check_op(&mut net, &op, &[x]));

        let mut net = Net::new();
        let channel = |net: &mut Net, low, high| net.parameter(&shape[1..2], Values::between(factor.into(), low, high));
        let x = net.parameter(&shape, values);
        let (weight, bias) = (channel(&mut net, -1.0, 1.0), channel(&mut net, -1.0, 1.0));
        let (mean, var) = (channel(&mut net, -0.5, 0.5), channel(&mut net, 0.5, 2.0));
        let op = "batch_norm eps=0.01, momentum=0.1";
        prop_assert!(check_op(&mut net, op, &[x, weight, bias, mean, var]));
    }

    #[test]
    fn reductions(shape in shape(0..4), reduced in any::<[bool; 4]>(), keep: bool, kind in 0usize..6, factor: u16) {
        let axes: Vec<usize> = (0..shape.len()).filter(|&a| reduced[a]).collect();
        let kind = ["sum", "mean", "max", "min", "prod", "variance"][kind];
        let mut net = Net::new();
        let x = net.parameter(&shape, Values::between(factor.into(), -2.0, 2.0));
        let op = format!("reduce_{kind} axes={}{}", list(&axes), if keep { ", keep" } else { "" });
        prop_assert!(check_op(&mut net, &op, &[x]));
    }

    #[test]
    fn movements(
        shape in shape(1..4), axis in 0usize..3, cut in (0usize..3, 0usize..3, 1usize..4), pads in [0usize..3, 0usize..3, 0usize..3],
        turn in 0usize..3, factor: u16,
    ) {
        let axis = axis % shape.len();
        let size = shape[axis];
        let values = Values::between(factor.into(), -2.0, 2.0);
        let mut order: Vec<usize> = (0..shape.len()).collect();
        order.rotate_left(turn % shape.len());
        let mut padding = vec!["0:0".to_string(); shape.len()];
        padding[axis] = format!("{}:{}:{}", pads[0], pads[1], pads[2]);
        let (start, end) = (cut.0.min(size - 1), size - cut.1.min(size - 1 - cut.0.min(size - 1)));
        let count = shape.iter().product::<usize>();
        let mut wider = vec![3];
        wider.extend(&shape);
        for op in [
            format!("reshape shape=[{count}]"),
            format!("transpose order={}", list(&order)),
            format!("slice axis={axis}, start={start}, end={end}, step={}", cut.2),
            format!("reverse axes=[{axis}]"),
            format!("pad pads=[{}], value=1.5", padding.join(", ")),
            format!("broadcast shape={}", list(&wider)),
        ] {
            let mut net = Net::new();
            let x = net.parameter(&shape, values);
            prop_assert!(check_op(&mut net, &op, &[x]), "{op}");
        }
        let mut net = Net::new();
        let x = net.parameter(&shape, values);
        let mut other = shape.clone();
        other[axis] = 2;
        let y = net.parameter(&other, values);
        let op = format!("concat axis={axis}");
        prop_assert!(check_op(&mut net, &op, &[x, y, x]));
    }

    #[test]
    fn gathers(shape in shape(1..4), axis in 0usize..3, indices in vec(-1i32..5, 1..7), factor: u16) {
        let axis = axis % shape.len();
        let mut net = Net::new();
        let table = net.parameter(&shape, Values::between(factor.into(), -2.0, 2.0));
        let at = net.input(ints(&[indices.len()], indices));
        let op = format!("gather axis={axis}");
        prop_assert!(check_op(&mut net, &op, &[table, at]));
    }
}

#[test]
fn products_with_zeros() {
    for zeros in [&[2usize][..], &[1, 4], &[0, 1, 2]] {
        let mut net = Net::new();
        let x = net.parameter(&[2, 3], Values::between(5, -2.0, 2.0));
        let mut data = numbers(&net.feeds["p0"]);
        zeros.iter().for_each(|&i| data[i] = 0.0);
        let value = ndarray::ArrayD::from_shape_vec(ndarray::IxDyn(&[2, 3]), data).unwrap();
        net.feeds.insert("p0".to_string(), nnc_runtime::Tensor::F64(value));
        assert!(check_op(&mut net, "reduce_prod axes=[1]", &[x]));
    }
}
