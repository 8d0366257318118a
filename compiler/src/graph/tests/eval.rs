//! Reference semantics against numbers computed by hand or by NumPy (`expected.py`), in PyTorch's
//! conventions.

use std::f64::consts::{E, FRAC_1_SQRT_2, LN_2, SQRT_2};

use ndarray::{ArrayD, IxDyn};
use nnc_runtime::{DType, Tensor};
use proptest::prelude::*;

use super::{assert_near, bools, elements, eval, fill, floats, ints, ty};
use crate::graph::{Literal, Op};

const NAN: f64 = f64::NAN;

#[track_caller]
fn check(op: &str, operands: &[&Tensor], shape: &[usize], expected: &[f64]) {
    let (name, attributes) = op.split_once(' ').unwrap_or((op, ""));
    assert_near(&eval(name, attributes, operands).unwrap(), shape, expected);
}

#[test]
fn unary() {
    let x = floats(&[7], &[-4.0, -1.0, -0.5, 0.0, 0.5, 1.0, 4.0]);
    for (op, expected) in [
        ("neg", [4.0, 1.0, 0.5, 0.0, -0.5, -1.0, -4.0]),
        ("abs", [4.0, 1.0, 0.5, 0.0, 0.5, 1.0, 4.0]),
        ("exp", [0.01831564, 0.36787944, 0.60653066, 1.0, 1.64872127, E, 54.59815]),
        ("log", [NAN, NAN, NAN, f64::NEG_INFINITY, -LN_2, 0.0, 2.0 * LN_2]),
        ("sqrt", [NAN, NAN, NAN, 0.0, FRAC_1_SQRT_2, 1.0, 2.0]),
        ("rsqrt", [NAN, NAN, NAN, f64::INFINITY, SQRT_2, 1.0, 0.5]),
        ("tanh", [-0.999329, -0.761594, -0.462117, 0.0, 0.462117, 0.761594, 0.999329]),
        ("sigmoid", [0.017986, 0.268941, 0.377541, 0.5, 0.622459, 0.731059, 0.982014]),
        ("relu", [0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 4.0]),
        ("leaky_relu slope=0.1", [-0.4, -0.1, -0.05, 0.0, 0.5, 1.0, 4.0]),
        ("elu alpha=1.5", [-1.472527, -0.948181, -0.590204, 0.0, 0.5, 1.0, 4.0]),
        ("gelu", [-0.000127, -0.158655, -0.154269, 0.0, 0.345731, 0.841345, 3.999873]),
        ("silu", [-0.071945, -0.268941, -0.18877, 0.0, 0.31123, 0.731059, 3.928055]),
        ("hard_swish", [0.0, -0.333333, -0.208333, 0.0, 0.291667, 0.666667, 4.0]),
        ("hard_sigmoid", [0.0, 0.333333, 0.416667, 0.5, 0.583333, 0.666667, 1.0]),
        ("erf", [-1.0, -0.842701, -0.5205, 0.0, 0.5205, 0.842701, 1.0]),
        ("floor", [-4.0, -1.0, -1.0, 0.0, 0.0, 1.0, 4.0]),
        ("sign", [-1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 1.0]),
        ("clamp low=-0.75, high=0.75", [-0.75, -0.75, -0.5, 0.0, 0.5, 0.75, 0.75]),
        ("dropout probability=0.5", [-4.0, -1.0, -0.5, 0.0, 0.5, 1.0, 4.0]),
        ("stop_gradient", [-4.0, -1.0, -0.5, 0.0, 0.5, 1.0, 4.0]),
        ("relayout", [-4.0, -1.0, -0.5, 0.0, 0.5, 1.0, 4.0]),
    ] {
        check(op, &[&x], &[7], &expected);
    }
    check("neg", &[&ints(&[2], &[i32::MIN, 5])], &[2], &[f64::from(i32::MIN), -5.0]);
    check("abs", &[&ints(&[2], &[i32::MIN, -5])], &[2], &[f64::from(i32::MIN), 5.0]);
    check("not", &[&bools(&[2], &[true, false])], &[2], &[0.0, 1.0]);
}

#[test]
fn nan_stays_nan() {
    let nan = floats(&[1], &[f32::NAN]);
    for op in [
        "neg",
        "abs",
        "exp",
        "log",
        "sqrt",
        "rsqrt",
        "tanh",
        "sigmoid",
        "relu",
        "leaky_relu slope=0.1",
        "elu alpha=1.0",
        "gelu",
        "silu",
        "hard_swish",
        "hard_sigmoid",
        "erf",
        "floor",
        "sign",
        "clamp low=0.0, high=1.0",
    ] {
        check(op, &[&nan], &[1], &[NAN]);
    }
    let (a, b) = (floats(&[2], &[f32::NAN, 1.0]), floats(&[2], &[1.0, f32::NAN]));
    for op in ["maximum", "minimum"] {
        check(op, &[&a, &b], &[2], &[NAN, NAN]);
    }
    check("ne", &[&a, &b], &[2], &[1.0, 1.0]);
    for op in ["eq", "lt", "le", "gt", "ge"] {
        check(op, &[&a, &b], &[2], &[0.0, 0.0]);
    }
    let x = floats(&[1, 1, 1, 3], &[1.0, f32::NAN, 2.0]);
    check("max_pool2d window=1x2, stride=1x1", &[&x], &[1, 1, 1, 2], &[NAN, NAN]);
    check("adaptive_max_pool2d output=1x1", &[&x], &[1, 1, 1, 1], &[NAN]);
    check("reduce_max axes=[3]", &[&x], &[1, 1, 1], &[NAN]);
    check("arg_max axis=3", &[&x], &[1, 1, 1], &[1.0]);
}

#[test]
fn binary() {
    let (a, b) = (floats(&[2, 1], &[6.0, -2.0]), floats(&[3], &[2.0, -2.0, 0.5]));
    for (op, expected) in [
        ("add", [8.0, 4.0, 6.5, 0.0, -4.0, -1.5]),
        ("sub", [4.0, 8.0, 5.5, -4.0, 0.0, -2.5]),
        ("mul", [12.0, -12.0, 3.0, -4.0, 4.0, -1.0]),
        ("div", [3.0, -3.0, 12.0, -1.0, 1.0, -4.0]),
        ("pow", [36.0, 0.02777778, 2.44948974, 4.0, 0.25, NAN]),
        ("maximum", [6.0, 6.0, 6.0, 2.0, -2.0, 0.5]),
        ("minimum", [2.0, -2.0, 0.5, -2.0, -2.0, -2.0]),
        ("eq", [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
        ("ne", [1.0, 1.0, 1.0, 1.0, 0.0, 1.0]),
        ("lt", [0.0, 0.0, 0.0, 1.0, 0.0, 1.0]),
        ("le", [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        ("gt", [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
        ("ge", [1.0, 1.0, 1.0, 0.0, 1.0, 0.0]),
    ] {
        check(op, &[&a, &b], &[2, 3], &expected);
    }
    let (a, b) = (ints(&[4], &[7, -7, 7, i32::MAX]), ints(&[4], &[2, 2, 0, 1]));
    check("div", &[&a, &b], &[4], &[3.0, -3.0, 0.0, f64::from(i32::MAX)]);
    check("add", &[&a, &b], &[4], &[9.0, -5.0, 7.0, f64::from(i32::MIN)]);
    let (a, b) = (bools(&[4], &[false, false, true, true]), bools(&[4], &[false, true, false, true]));
    check("and", &[&a, &b], &[4], &[0.0, 0.0, 0.0, 1.0]);
    check("or", &[&a, &b], &[4], &[0.0, 1.0, 1.0, 1.0]);
    check("eq", &[&a, &b], &[4], &[1.0, 0.0, 0.0, 1.0]);
}

#[test]
fn where_and_cast() {
    let c = bools(&[2, 1], &[true, false]);
    check(
        "where",
        &[&c, &floats(&[3], &[1.0, 2.0, 3.0]), &floats(&[], &[9.0])],
        &[2, 3],
        &[1.0, 2.0, 3.0, 9.0, 9.0, 9.0],
    );
    let x = floats(&[6], &[1.9, -1.9, 0.0, 1e20, -1e20, f32::NAN]);
    let (low, high) = (f64::from(i32::MIN), f64::from(i32::MAX));
    check("cast to=i32", &[&x], &[6], &[1.0, -1.0, 0.0, high, low, 0.0]);
    check("cast to=bool", &[&x], &[6], &[1.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
    let t = eval("cast", "to=f32", &[&bools(&[2], &[true, false])]).unwrap();
    assert_eq!((t.dtype(), elements(&t)), (DType::F32, vec![1.0, 0.0]));
}

#[test]
fn conv2d() {
    // The sum of each 2x2 window, and of every second element.
    let x = floats(&[1, 1, 3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    let w = floats(&[1, 1, 2, 2], &[1.0; 4]);
    check("conv2d", &[&x, &w], &[1, 1, 2, 2], &[12.0, 16.0, 24.0, 28.0]);
    check("conv2d dilation=2x2", &[&x, &w, &floats(&[1], &[0.5])], &[1, 1, 1, 1], &[20.5]);
    check(
        "conv2d padding=1:0x0:1",
        &[&x, &w],
        &[1, 1, 3, 3],
        &[3.0, 5.0, 3.0, 12.0, 16.0, 9.0, 24.0, 28.0, 15.0],
    );
    // It does not flip the kernel.
    let w = floats(&[1, 1, 1, 2], &[1.0, 10.0]);
    check("conv2d", &[&x, &w], &[1, 1, 3, 2], &[21.0, 32.0, 54.0, 65.0, 87.0, 98.0]);
}

#[test]
fn conv2d_with_groups_stride_padding_dilation() {
    let (x, w) = (fill(&[1, 2, 4, 5], 5, 13, 4.0), fill(&[4, 1, 3, 2], 3, 7, 4.0));
    let bias = floats(&[4], &[0.5, -0.25, 0.0, 1.0]);
    let expected = [
        -0.125, 0.8125, 0.8125, 0.0, 0.8125, 0.8125, -1.25, 0.625, 3.5625, -0.375, 0.5625, 1.1875, 0.4375,
        -0.5, -1.6875, 0.5625, -1.25, -0.6875, 0.8125, -0.125, -2.0, 0.125, -0.1875, -0.9375, 1.75, -0.75,
        0.5, -1.5, -0.25, 0.375, 0.1875, -0.8125, -0.0625, 3.0, -0.4375, -0.6875, 0.6875, 1.1875, 0.6875,
        1.1875, 0.875, 0.8125, 1.125, 1.125, 0.3125, 0.5, 0.6875, 1.5625,
    ];
    let op = "conv2d stride=2x1, padding=1:0x2:1, dilation=1x2, groups=2";
    check(op, &[&x, &w, &bias], &[1, 4, 2, 6], &expected);
}

#[test]
fn conv_transpose2d() {
    let x = fill(&[1, 2, 2, 3], 5, 13, 4.0);
    let w = fill(&[2, 1, 3, 3], 3, 7, 4.0);
    let expected = [
        0.875, 0.5625, 0.25, -0.125, 1.25, 0.125, 0.3125, -0.375, 1.25, 1.75, -0.25, -0.375, 0.625, 0.9375,
        0.0, 0.25, 1.0, 0.25, 0.5, -0.4375, 0.5, 2.0, 0.5, -0.25, -0.6875, -0.125, -1.625, -0.625, -0.125,
        -0.5, -0.1875, 0.6875, -1.5, 0.5, -0.375, -0.75, -1.0625, -0.8125, 0.4375, -0.5, -0.5, -0.5, -0.6875,
        -1.0625, -0.1875, -1.125, -0.5, -0.5,
    ];
    let op = "conv_transpose2d stride=2x2, padding=1x1, output_padding=1x1, groups=2";
    check(op, &[&x, &w, &floats(&[2], &[0.5, -0.5])], &[1, 2, 4, 6], &expected);
    let w = fill(&[2, 2, 2, 2], 3, 7, 4.0);
    let expected = [
        -0.625, 1.125, 0.0, -0.375, -1.0, 0.0, -0.375, -0.9375, 1.0625, 0.0, -0.75, 0.0, -0.5, 0.625, -0.5,
        0.125, -0.5, 0.0, -0.375, 0.125, -1.0, 0.625, 0.0, 0.0, -0.625, -0.8125, 1.1875, 0.5, -0.25, 0.0,
        0.1875, -0.375, 1.125, 1.125, -0.375, 0.0,
    ];
    let op = "conv_transpose2d stride=1x2, padding=0:1x1:0, output_padding=0x1, dilation=2x1";
    check(op, &[&x, &w], &[1, 2, 3, 6], &expected);
}

#[test]
fn contractions() {
    let a = floats(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
    let b = floats(&[2, 3], &[1.0, 0.0, -1.0, 2.0, 5.0, 0.5]);
    check("matmul", &[&a, &b], &[2, 1, 3], &[5.0, 10.0, 0.0, 11.0, 20.0, -1.0]);
    let b = floats(&[2, 2, 1], &[1.0, 2.0, 10.0, 20.0]);
    check("matmul", &[&a, &b], &[2, 1, 1], &[5.0, 110.0]);
    let one = floats(&[1, 1, 2], &[1.0, 2.0]);
    check("matmul", &[&one, &b], &[2, 1, 1], &[5.0, 50.0]);
    let w = floats(&[3, 2], &[1.0, 2.0, 0.0, 5.0, -1.0, 0.5]);
    check("linear", &[&a, &w], &[2, 1, 3], &[5.0, 10.0, 0.0, 11.0, 20.0, -1.0]);
    check(
        "linear",
        &[&a, &w, &floats(&[3], &[1.0, 2.0, 3.0])],
        &[2, 1, 3],
        &[6.0, 12.0, 3.0, 12.0, 22.0, 2.0],
    );
}

#[test]
fn max_pool2d() {
    let x = floats(&[1, 1, 3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    check("max_pool2d window=2x2, stride=1x1", &[&x], &[1, 1, 2, 2], &[5.0, 6.0, 8.0, 9.0]);
    check("max_pool2d window=2x2, stride=2x2", &[&x], &[1, 1, 1, 1], &[5.0]);
    check("max_pool2d window=2x2, stride=2x2, ceil", &[&x], &[1, 1, 2, 2], &[5.0, 6.0, 8.0, 9.0]);
    let negative = floats(&[1, 1, 1, 2], &[-3.0, -2.0]);
    check("max_pool2d window=3x3, stride=1x1, padding=1x1", &[&negative], &[1, 1, 1, 2], &[-2.0, -2.0]);
    let row = floats(&[1, 1, 1, 5], &[1.0, 5.0, 2.0, 3.0, 4.0]);
    check("max_pool2d window=1x2, stride=1x1, dilation=1x2", &[&row], &[1, 1, 1, 3], &[2.0, 5.0, 4.0]);
}

#[test]
fn avg_pool2d() {
    let x = floats(&[1, 1, 3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    check("avg_pool2d window=2x2, stride=2x2, padding=1x1", &[&x], &[1, 1, 2, 2], &[0.25, 1.25, 2.75, 7.0]);
    check(
        "avg_pool2d window=2x2, stride=2x2, padding=1x1, count_include_pad=false",
        &[&x],
        &[1, 1, 2, 2],
        &[1.0, 2.5, 5.5, 7.0],
    );
    check("avg_pool2d window=2x2, stride=2x2, ceil", &[&x], &[1, 1, 2, 2], &[3.0, 4.5, 7.5, 9.0]);
    // The last window lies over one element, one row of padding, and one row past it.
    let column = floats(&[1, 1, 4, 1], &[1.0, 2.0, 3.0, 4.0]);
    let op = "avg_pool2d window=3x1, stride=2x1, padding=1x0, ceil";
    check(op, &[&column], &[1, 1, 3, 1], &[1.0, 3.0, 2.0]);
    check(&format!("{op}, count_include_pad=false"), &[&column], &[1, 1, 3, 1], &[1.5, 3.0, 4.0]);
}

#[test]
fn adaptive_pooling_windows_overlap() {
    let x = floats(&[1, 1, 1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    check("adaptive_avg_pool2d output=1x3", &[&x], &[1, 1, 1, 3], &[1.5, 3.0, 4.5]);
    check("adaptive_max_pool2d output=1x3", &[&x], &[1, 1, 1, 3], &[2.0, 4.0, 5.0]);
    check("adaptive_avg_pool2d output=2x1", &[&x], &[1, 1, 2, 1], &[3.0, 3.0]);
    let x = floats(&[1, 1, 2, 1], &[1.0, 2.0]);
    check("adaptive_avg_pool2d output=3x1", &[&x], &[1, 1, 3, 1], &[1.0, 1.5, 2.0]);
}

#[test]
fn batch_norm() {
    let x = fill(&[2, 2, 1, 2], 7, 11, 2.0);
    let parameters = [[2.0, 0.5], [1.0, -1.0], [0.5, -0.5], [4.0, 0.25]].map(|p| floats(&[2], &p));
    let [w, b, m, v] = &parameters;
    let expected = [-0.499998, 2.999998, -2e-05, -1.99998, 2.499998, 0.500001, -2.49997, 0.99996];
    check("batch_norm eps=1e-5, momentum=0.1", &[&x, w, b, m, v], &[2, 2, 1, 2], &expected);
    let expected = [-1.621106, 3.271625, -0.694204, -1.393166, 2.572663, -0.223183, -1.567906, -0.344724];
    check("batch_norm eps=1e-5, momentum=0.1, training", &[&x, w, b, m, v], &[2, 2, 1, 2], &expected);
}

#[test]
fn local_response_norm() {
    let x = fill(&[1, 5, 1, 2], 7, 11, 2.0);
    let odd =
        [-0.552016, 0.994805, 0.22646, -0.596883, 0.803202, 0.0, -0.803202, 0.596883, -0.236834, -0.994805];
    check("local_response_norm size=3, alpha=0.5, beta=0.75, k=2.0", &[&x], &[1, 5, 1, 2], &odd);
    let even =
        [-0.896832, 1.452595, 0.342472, -0.871557, 1.123972, 0.0, -1.162076, 0.791877, -0.293865, -1.452595];
    check("local_response_norm size=4, alpha=0.5, beta=0.75, k=1.0", &[&x], &[1, 5, 1, 2], &even);
}

#[test]
fn softmax_of_large_numbers() {
    let x = floats(&[2, 3], &[1.0, 2.0, 3.0, 1e4, -1e4, 9999.0]);
    check("softmax axis=1", &[&x], &[2, 3], &[0.090031, 0.244728, 0.665241, 0.731059, 0.0, 0.268941]);
    let logs = [-2.407606, -1.407606, -0.407606, -0.313262, -20000.313262, -1.313262];
    check("log_softmax axis=1", &[&x], &[2, 3], &logs);
    let x = floats(&[2, 1], &[1.0, 1.0]);
    check("softmax axis=0", &[&x], &[2, 1], &[0.5, 0.5]);
    check("softmax axis=1", &[&x], &[2, 1], &[1.0, 1.0]);
}

#[test]
fn reductions() {
    let x = floats(&[2, 3], &[1.0, 5.0, -2.0, 0.5, 5.0, 7.0]);
    check("reduce_sum axes=[1]", &[&x], &[2], &[4.0, 12.5]);
    check("reduce_sum axes=[0], keep", &[&x], &[1, 3], &[1.5, 10.0, 5.0]);
    check("reduce_mean axes=[0, 1]", &[&x], &[], &[2.75]);
    check("reduce_max axes=[0]", &[&x], &[3], &[1.0, 5.0, 7.0]);
    check("reduce_min axes=[1]", &[&x], &[2], &[-2.0, 0.5]);
    check("reduce_prod axes=[1]", &[&x], &[2], &[-10.0, 17.5]);
    check("reduce_variance axes=[0]", &[&x], &[3], &[0.0625, 0.0, 20.25]);
    check("reduce_sum axes=[]", &[&x], &[2, 3], &[1.0, 5.0, -2.0, 0.5, 5.0, 7.0]);
    check("reduce_max axes=[0]", &[&ints(&[2], &[-3, -4])], &[], &[-3.0]);
    check("arg_max axis=1", &[&floats(&[2, 3], &[1.0, 5.0, 5.0, 0.0, 0.0, 0.0])], &[2], &[1.0, 0.0]);
    check("arg_max axis=0, keep", &[&x], &[1, 3], &[0.0, 0.0, 1.0]);
}

#[test]
fn movement() {
    let x = ints(&[2, 3], &[1, 2, 3, 4, 5, 6]);
    check("reshape shape=[3, 2]", &[&x], &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    check("transpose order=[1, 0]", &[&x], &[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let y = ints(&[2, 1], &[7, 8]);
    check("concat axis=1", &[&x, &y, &x], &[2, 7], &[1., 2., 3., 7., 1., 2., 3., 4., 5., 6., 8., 4., 5., 6.]);
    check("concat axis=0", &[&x, &x], &[4, 3], &[1., 2., 3., 4., 5., 6., 1., 2., 3., 4., 5., 6.]);
    check("slice axis=1, start=0, end=3, step=2", &[&x], &[2, 2], &[1.0, 3.0, 4.0, 6.0]);
    check("slice axis=0, start=1, end=2", &[&x], &[1, 3], &[4.0, 5.0, 6.0]);
    check(
        "pad pads=[1:0, 0:1], value=9.0",
        &[&x],
        &[3, 4],
        &[9., 9., 9., 9., 1., 2., 3., 9., 4., 5., 6., 9.],
    );
    check("broadcast shape=[2, 2, 2]", &[&y], &[2, 2, 2], &[7.0, 7.0, 8.0, 8.0, 7.0, 7.0, 8.0, 8.0]);
    // Three axes, none where it was.
    let x = ints(&[1, 2, 3], &[1, 2, 3, 4, 5, 6]);
    check("transpose order=[2, 0, 1]", &[&x], &[3, 1, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
}

#[test]
fn indexing() {
    let table = floats(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let i = ints(&[2, 2], &[2, 0, -7, 9]);
    check("gather axis=0", &[&table, &i], &[2, 2, 2], &[5.0, 6.0, 1.0, 2.0, 1.0, 2.0, 5.0, 6.0]);
    check("gather axis=1", &[&table, &ints(&[1], &[1])], &[3, 1], &[2.0, 4.0, 6.0]);
    check("gather axis=1", &[&table, &ints(&[], &[1])], &[3], &[2.0, 4.0, 6.0]);
    let hot = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    check("one_hot classes=3", &[&ints(&[4], &[2, -1, 0, 3])], &[4, 3], &hot);
}

#[test]
fn constants() {
    let splat = Op::Constant(Literal::Splat(2.5));
    assert_near(&splat.eval(&[], &ty("f32[2]")).unwrap(), &[2], &[2.5, 2.5]);
    assert_near(&splat.eval(&[], &ty("i32[]")).unwrap(), &[], &[2.0]);
    let dense = Op::Constant(Literal::Dense([1.0, 0.0].into()));
    let t = dense.eval(&[], &ty("bool[2]")).unwrap();
    assert_eq!((t.dtype(), elements(&t)), (DType::Bool, vec![1.0, 0.0]));
    assert!(dense.eval(&[], &ty("f32[3]")).is_err());
}

#[test]
fn doubles_are_computed_in_double() {
    let third = |dtype: &str| eval("cast", &format!("to={dtype}"), &[&ints(&[], &[3])]).unwrap();
    let one = eval("cast", "to=f64", &[&ints(&[], &[1])]).unwrap();
    let t = eval("div", "", &[&one, &third("f64")]).unwrap();
    assert_eq!(elements(&t), [1.0 / 3.0]);
}

#[test]
fn unfit_operands_are_errors() {
    let x = floats(&[2, 3], &[0.0; 6]);
    let relu = Op::parse("relu", "").unwrap();
    assert!(relu.eval(&[&x], &ty("f32[3, 2]")).is_err());
    assert!(relu.eval(&[&x], &ty("f32[N, 3]")).is_err());
    assert!(relu.eval(&[], &ty("f32[2, 3]")).is_err());
    assert!(relu.eval(&[&floats(&[0], &[])], &ty("f32[0]")).is_err());
    let Tensor::F32(a) = x else { panic!("f32") };
    let transposed = Tensor::F32(a.reversed_axes());
    assert!(relu.eval(&[&transposed], &ty("f32[3, 2]")).is_err());
}

/// Small dyadic numbers, so that sums are exact.
fn doubles(shape: &[usize], seed: usize) -> Tensor {
    let value = |i: usize| ((i * 7 + seed) % 13) as f64 / 4.0 - 1.5;
    let count: usize = shape.iter().product();
    Tensor::F64(ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(value).collect()).unwrap())
}

fn inner_product(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    elements(a).iter().zip(elements(b)).map(|(x, y)| x * y).sum()
}

proptest! {
    /// The transposed convolution is the adjoint of the convolution with the same attributes:
    /// <conv(x), y> = <x, conv_transpose(y)>.
    #[test]
    fn convolutions_are_adjoint(
        size in (1usize..8, 1usize..8), kernel in (1usize..4, 1usize..4), stride in (1usize..4, 1usize..4),
        dilation in (1usize..3, 1usize..3), padding in prop::array::uniform4(0usize..3), groups in 1usize..3,
    ) {
        let (kernel, stride, dilation) = ([kernel.0, kernel.1], [stride.0, stride.1], [dilation.0, dilation.1]);
        let x = doubles(&[2, 2 * groups, size.0, size.1], 1);
        let w = doubles(&[3 * groups, 2, kernel[0], kernel[1]], 5);
        let [top, bottom, left, right] = padding;
        let shared = format!(
            "stride={}x{}, padding={top}:{bottom}x{left}:{right}, dilation={}x{}, groups={groups}",
            stride[0], stride[1], dilation[0], dilation[1]
        );
        let total = [size.0 + top + bottom, size.1 + left + right];
        let extent = [0, 1].map(|i| dilation[i] * (kernel[i] - 1) + 1);
        prop_assume!(total[0] >= extent[0] && total[1] >= extent[1]);
        let conv = eval("conv2d", &shared, &[&x, &w]).unwrap();
        let y = doubles(conv.shape(), 3);
        let left_over = [0, 1].map(|i| (total[i] - extent[i]) % stride[i]);
        let attributes = format!("{shared}, output_padding={}x{}", left_over[0], left_over[1]);
        let back = eval("conv_transpose2d", &attributes, &[&y, &w]).unwrap();
        prop_assert_eq!(inner_product(&conv, &y), inner_product(&x, &back));
    }
}
