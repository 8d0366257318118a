//! Shape rules: what they give, and what they say when they refuse.

use proptest::prelude::*;

use super::ty;
use crate::graph::op::rule::Slide;
use crate::graph::{Bindings, Dim, Op, OpError, TensorType};

fn infer(op: &str, operands: &[&str]) -> Result<TensorType, OpError> {
    let (name, attributes) = op.split_once(' ').unwrap_or((op, ""));
    let types: Vec<TensorType> = operands.iter().map(|t| ty(t)).collect();
    Op::parse(name, attributes).unwrap().infer(&types.iter().collect::<Vec<_>>())
}

#[test]
fn results() {
    for (op, operands, expected) in [
        ("relu", &["f32[N, 3]"][..], "f32[N, 3]"),
        ("neg", &["i32[4]"], "i32[4]"),
        ("not", &["bool[4]"], "bool[4]"),
        ("add", &["f32[N, 64, 7, 7]", "f32[64, 1, 1]"], "f32[N, 64, 7, 7]"),
        ("add", &["f32[1, 5]", "f32[4, 1]"], "f32[4, 5]"),
        ("mul", &["f32[]", "f32[N]"], "f32[N]"),
        ("lt", &["i32[4]", "i32[4]"], "bool[4]"),
        ("eq", &["bool[4]", "bool[1]"], "bool[4]"),
        ("where", &["bool[N, 1]", "f32[3]", "f32[]"], "f32[N, 3]"),
        ("cast to=i32", &["f32[N]"], "i32[N]"),
        ("conv2d padding=1x1", &["f32[N, 3, 224, 224]", "f32[64, 3, 3, 3]"], "f32[N, 64, 224, 224]"),
        (
            "conv2d stride=4x4, padding=2x2",
            &["f32[1, 3, 224, 224]", "f32[64, 3, 11, 11]", "f32[64]"],
            "f32[1, 64, 55, 55]",
        ),
        ("conv2d padding=0:1x2:0", &["f32[1, 1, 4, 4]", "f32[1, 1, 2, 3]"], "f32[1, 1, 4, 4]"),
        ("conv2d dilation=2x3", &["f32[1, 1, 9, 9]", "f32[1, 1, 3, 3]"], "f32[1, 1, 5, 3]"),
        ("conv2d groups=32", &["f32[1, 32, 8, 8]", "f32[64, 1, 1, 1]"], "f32[1, 64, 8, 8]"),
        (
            "conv2d stride=2x2, padding=1x1",
            &["f32[N, 3, H, W]", "f32[8, 3, 3, 3]"],
            "f32[N, 8, floor((H + 1)/2), floor((W + 1)/2)]",
        ),
        (
            "conv_transpose2d stride=2x2, padding=1x1, output_padding=1x1",
            &["f32[N, 8, 7, 7]", "f32[8, 4, 3, 3]"],
            "f32[N, 4, 14, 14]",
        ),
        (
            "conv_transpose2d stride=2x2, groups=2",
            &["f32[N, 8, H, 5]", "f32[8, 4, 2, 3]", "f32[8]"],
            "f32[N, 8, H*2, 11]",
        ),
        ("matmul", &["f32[N, 1, 3, 4]", "f32[5, 4, 2]"], "f32[N, 5, 3, 2]"),
        ("linear", &["f32[N, T, 4]", "f32[6, 4]", "f32[6]"], "f32[N, T, 6]"),
        ("max_pool2d window=2x2, stride=2x2", &["f32[N, 6, 28, 28]"], "f32[N, 6, 14, 14]"),
        ("max_pool2d window=3x3, stride=2x2", &["f32[N, 6, H, 7]"], "f32[N, 6, floor((H + 1)/2) - 1, 3]"),
        ("max_pool2d window=3x3, stride=2x2, ceil", &["f32[N, 6, H, 8]"], "f32[N, 6, floor(H/2), 4]"),
        ("max_pool2d window=2x2, stride=2x2, padding=1x1, ceil", &["f32[N, 6, 3, 4]"], "f32[N, 6, 2, 3]"),
        ("avg_pool2d window=2x3, stride=2x3, ceil", &["f32[1, 1, 1, 2]"], "f32[1, 1, 1, 1]"),
        ("adaptive_avg_pool2d output=6x6", &["f32[N, 256, H, W]"], "f32[N, 256, 6, 6]"),
        ("adaptive_max_pool2d output=2x1", &["f32[N, 256, 1, 1]"], "f32[N, 256, 2, 1]"),
        (
            "batch_norm eps=1e-5, momentum=0.1",
            &["f32[N, 8, H, W]", "f32[8]", "f32[8]", "f32[8]", "f32[8]"],
            "f32[N, 8, H, W]",
        ),
        ("local_response_norm size=5, alpha=1e-4, beta=0.75, k=2.0", &["f32[N, 8, 4]"], "f32[N, 8, 4]"),
        ("dropout probability=0.5", &["f32[N]"], "f32[N]"),
        ("softmax axis=1", &["f32[N, C]"], "f32[N, C]"),
        ("reduce_mean axes=[2, 3]", &["f32[N, 8, H, W]"], "f32[N, 8]"),
        ("reduce_max axes=[1], keep", &["i32[N, 8]"], "i32[N, 1]"),
        ("reduce_sum axes=[]", &["f32[]"], "f32[]"),
        ("arg_max axis=1", &["f32[N, 10]"], "i32[N]"),
        ("reshape shape=[N, 400]", &["f32[N, 16, 5, 5]"], "f32[N, 400]"),
        ("reshape shape=[N*T, 8]", &["f32[N, T, 8]"], "f32[N*T, 8]"),
        ("transpose order=[0, 2, 1]", &["i32[N, 3, 4]"], "i32[N, 4, 3]"),
        ("concat axis=1", &["f32[N, 3, 7]", "f32[N, C, 7]", "f32[N, 2, 7]"], "f32[N, C + 5, 7]"),
        ("slice axis=1, start=1, end=8, step=3", &["f32[N, 8]"], "f32[N, 3]"),
        ("slice axis=0, start=1, end=N", &["f32[N, 8]"], "f32[N - 1, 8]"),
        ("pad pads=[0:0, 1:2], value=0.0", &["f32[N, 8]"], "f32[N, 11]"),
        ("broadcast shape=[N, 8, 4]", &["f32[8, 1]"], "f32[N, 8, 4]"),
        ("gather axis=1", &["f32[N, 100, 16]", "i32[B, 7]"], "f32[N, B, 7, 16]"),
        ("one_hot classes=10", &["i32[N]"], "f32[N, 10]"),
        ("stop_gradient", &["bool[N]"], "bool[N]"),
        ("relayout", &["f32[N, 8, 4, 4]"], "f32[N, 8, 4, 4]"),
    ] {
        assert_eq!(
            infer(op, operands).map(|t| t.to_string()),
            Ok(expected.to_string()),
            "{op} of {operands:?}"
        );
    }
}

/// Operation, operands, operand at fault, message.
type Refusal<'a> = (&'a str, &'a [&'a str], Option<usize>, &'a str);

#[track_caller]
fn assert_refused(refusals: &[Refusal]) {
    for &(op, operands, operand, message) in refusals {
        let e = infer(op, operands).expect_err(op);
        assert_eq!((e.operand, e.message.as_str()), (operand, message), "{op} of {operands:?}");
    }
}

#[test]
fn refusals_of_contractions() {
    assert_refused(&[
        ("conv2d", &["f32[N, 3, 8, 8]"], None, "`conv2d` takes 2 or 3 operands, got 1"),
        (
            "conv2d",
            &["f32[3, 8, 8]", "f32[4, 3, 3, 3]"],
            Some(0),
            "`x` must have 4 dimensions ([N, C, H, W]), it has 3: f32[3, 8, 8]",
        ),
        (
            "conv2d",
            &["i32[N, 3, 8, 8]", "f32[4, 3, 3, 3]"],
            Some(0),
            "`x` must be of floats, it is i32[N, 3, 8, 8]",
        ),
        (
            "conv2d",
            &["f32[N, 3, 8, 8]", "f64[4, 3, 3, 3]"],
            Some(1),
            "`weight` must be of f32, it is f64[4, 3, 3, 3]",
        ),
        (
            "conv2d",
            &["f32[N, 64, 8, 8]", "f32[4, 3, 3, 3]"],
            Some(0),
            "`weight` expects 3 input channels, `x` has 64",
        ),
        (
            "conv2d",
            &["f32[N, C, 8, 8]", "f32[4, 3, 3, 3]"],
            Some(0),
            "`weight` expects 3 input channels, `x` has C (`3` and `C` cannot be proved equal)",
        ),
        (
            "conv2d groups=2",
            &["f32[N, 4, 8, 8]", "f32[5, 2, 3, 3]"],
            Some(1),
            "groups must divide the output channels: 2 groups, 5 channels",
        ),
        (
            "conv2d",
            &["f32[N, 3, 8, 8]", "f32[4, 3, 3, 3]", "f32[5]"],
            Some(2),
            "`bias` must have one element for each of 4 output channels, it has 5",
        ),
        (
            "conv2d",
            &["f32[N, 3, 8, 8]", "f32[4, 3, K, 3]"],
            Some(1),
            "the kernel must have a known size of at least 1, it is `K`",
        ),
        (
            "conv2d padding=1x1",
            &["f32[N, 3, 4, 8]", "f32[4, 3, 7, 7]"],
            Some(0),
            "the window is larger than the padded input: it covers 7 rows, `x` has 6 with padding",
        ),
        (
            "conv2d dilation=1x4",
            &["f32[N, 3, 8, 8]", "f32[4, 3, 3, 3]"],
            Some(0),
            "the window is larger than the padded input: it covers 9 columns (dilation 4), `x` has 8 with padding",
        ),
        (
            "conv2d stride=0x1",
            &["f32[N, 3, 8, 8]", "f32[4, 3, 3, 3]"],
            None,
            "stride must be at least 1, it is 0",
        ),
        (
            "conv2d groups=0",
            &["f32[N, 3, 8, 8]", "f32[4, 3, 3, 3]"],
            None,
            "groups must be at least 1, it is 0",
        ),
        (
            "conv2d padding=9999999999x1",
            &["f32[N, 3, 8, 8]", "f32[4, 3, 3, 3]"],
            None,
            "padding must be less than 2^31, it is 9999999999",
        ),
        (
            "conv_transpose2d",
            &["f32[N, 3, 8, 8]", "f32[4, 3, 3, 3]"],
            Some(0),
            "`weight` expects 4 input channels, `x` has 3",
        ),
        (
            "conv_transpose2d output_padding=1x1",
            &["f32[N, 4, 8, 8]", "f32[4, 3, 3, 3]"],
            None,
            "output_padding must be less than stride or dilation (1), it is 1",
        ),
        (
            "conv_transpose2d padding=2x2",
            &["f32[N, 4, 2, 2]", "f32[4, 3, 3, 3]"],
            Some(0),
            "padding cuts all rows: 0 would be left",
        ),
        (
            "matmul",
            &["f32[2, 3]", "f32[4, 5]"],
            Some(1),
            "`a` has 3 columns, so `b` must have 3 rows, it has 4: f32[2, 3] times f32[4, 5]",
        ),
        ("matmul", &["f32[3]", "f32[3, 5]"], Some(0), "`a` must have at least 2 dimensions, it is f32[3]"),
        (
            "matmul",
            &["f32[2, 1, 3]", "f32[4, 3, 5]"],
            Some(1),
            "in the batch dimensions, `a` and `b` do not broadcast: dimension 0 is 2 in f32[2] and 4 in f32[4]",
        ),
        (
            "linear",
            &["f32[N, 400]", "f32[120, 256]"],
            Some(0),
            "`weight` expects 256 input features, `x` has 400: f32[N, 400]",
        ),
        (
            "linear",
            &["f32[N, 4]", "f32[6, 4]", "f32[1]"],
            Some(2),
            "`bias` must have one element for each of 6 output features, it has 1",
        ),
    ]);
}

#[test]
fn refusals_of_elementwise() {
    assert_refused(&[
        ("relu", &["i32[4]"], Some(0), "`x` must be of floats, it is i32[4]"),
        ("not", &["f32[4]"], Some(0), "`x` must be of bool, it is f32[4]"),
        ("clamp low=6.0, high=0.0", &["f32[4]"], None, "the lower end 6 must not be above the upper end 0"),
        (
            "add",
            &["f32[4]", "i32[4]"],
            Some(1),
            "`a` and `b` must have one element type, they are f32[4] and i32[4]",
        ),
        (
            "add",
            &["f32[N, 64]", "f32[N, 32]"],
            Some(1),
            "`a` and `b` do not broadcast: dimension 1 is 64 in f32[N, 64] and 32 in f32[N, 32]",
        ),
        (
            "add",
            &["f32[N]", "f32[M]"],
            Some(1),
            "`a` and `b` do not broadcast: dimension 0 is N in f32[N] and M in f32[M] (`N` and `M` cannot be proved equal)",
        ),
        ("add", &["bool[4]", "bool[4]"], Some(0), "`add` is on numbers, `a` is bool[4]"),
        ("and", &["f32[4]", "f32[4]"], Some(0), "`a` must be of bool, it is f32[4]"),
        ("pow", &["i32[4]", "i32[4]"], Some(0), "`a` must be of floats, it is i32[4]"),
        ("where", &["f32[4]", "f32[4]", "f32[4]"], Some(0), "`condition` must be of bool, it is f32[4]"),
        (
            "where",
            &["bool[4]", "f32[5]", "f32[]"],
            Some(1),
            "`condition` and `a` do not broadcast: dimension 0 is 4 in bool[4] and 5 in f32[5]",
        ),
        ("dropout probability=1.5", &["f32[4]"], None, "the probability must lie in 0 to 1, it is 1.5"),
    ]);
}

#[test]
fn refusals_of_the_rest() {
    assert_refused(&[
        (
            "max_pool2d window=3x3, stride=2x2",
            &["f32[N, 6, 2, 8]"],
            Some(0),
            "the window is larger than the padded input: it covers 3 rows, `x` has 2 with padding",
        ),
        (
            "max_pool2d window=3x3, stride=2x2, ceil",
            &["f32[N, 6, 1, 8]"],
            Some(0),
            "the window is larger than the padded input: it covers 3 rows, `x` has 1 with padding",
        ),
        (
            "avg_pool2d window=2x2, stride=2x2, padding=2x0",
            &["f32[N, 6, 8, 8]"],
            None,
            "padding must be less than the window, so that no window is all padding: window 2, padding 2",
        ),
        (
            "adaptive_avg_pool2d output=0x1",
            &["f32[N, 6, 8, 8]"],
            None,
            "the output size must be at least 1, it is 0",
        ),
        (
            "batch_norm eps=1e-5, momentum=0.1",
            &["f32[N, 8, 4]", "f32[8]", "f32[8]", "f32[4]", "f32[8]"],
            Some(0),
            "`running_mean` expects 4 channels, `x` has 8",
        ),
        (
            "softmax axis=2",
            &["f32[N, C]"],
            Some(0),
            "axis 2 is not one of `x`, which is f32[N, C]: its axes are 0 to 1",
        ),
        ("softmax axis=0", &["f32[]"], Some(0), "axis 0 is not one of `x`, which is f32[]: it has no axes"),
        (
            "reduce_sum axes=[1, 1]",
            &["f32[N, C]"],
            None,
            "axes must be sorted, each once: axis 1 is given twice",
        ),
        ("reduce_mean axes=[0]", &["i32[N, C]"], Some(0), "`x` must be of floats, it is i32[N, C]"),
        (
            "reshape shape=[N, 401]",
            &["f32[N, 16, 5, 5]"],
            Some(0),
            "f32[N, 401] has N*401 elements, `x` has N*400: f32[N, 16, 5, 5]",
        ),
        ("reshape shape=[2, 3]", &["f32[7]"], Some(0), "f32[2, 3] has 6 elements, `x` has 7: f32[7]"),
        ("reshape shape=[0]", &["f32[7]"], None, "dimension 0 must be at least 1, it would be 0 in f32[0]"),
        (
            "transpose order=[0, 0]",
            &["f32[2, 3]"],
            Some(0),
            "the order of axes must name each axis of `x` once, it is [0, 0] for f32[2, 3]",
        ),
        ("concat axis=0", &[], None, "`concat` takes at least 1 operand, got 0"),
        (
            "concat axis=1",
            &["f32[N, 3, 7]", "f32[N, 3, 8]"],
            Some(1),
            "operands may differ in axis 1 only: dimension 2 is 7 in `x0` (f32[N, 3, 7]) and 8 in `x1` (f32[N, 3, 8])",
        ),
        (
            "concat axis=1",
            &["f32[N, 3]", "i32[N, 3]"],
            Some(1),
            "all operands must be of f32, `x1` is i32[N, 3]",
        ),
        (
            "concat axis=0",
            &["f32[3]", "f32[3, 1]"],
            Some(1),
            "all operands must have as many dimensions as `x0` (f32[3]), `x1` is f32[3, 1]",
        ),
        (
            "slice axis=0, start=2, end=9",
            &["f32[8]"],
            Some(0),
            "2..9 must lie in 0..8, axis 0 of `x`: f32[8]",
        ),
        (
            "slice axis=0, start=1, end=N + 1",
            &["f32[N]"],
            Some(0),
            "1..N + 1 must lie in 0..N, axis 0 of `x`: f32[N]",
        ),
        ("slice axis=0, start=3, end=3", &["f32[8]"], Some(0), "3..3 must not be empty"),
        (
            "pad pads=[1:1], value=0.0",
            &["f32[8, 8]"],
            Some(0),
            "padding must be given for each of the 2 axes of `x`, it is given for 1: f32[8, 8]",
        ),
        (
            "broadcast shape=[4, 8]",
            &["f32[2, 8]"],
            Some(0),
            "`x` does not broadcast to f32[4, 8]: dimension 0 must be 4 or 1, it is 2 in f32[2, 8]",
        ),
        ("broadcast shape=[8]", &["f32[1, 8]"], Some(0), "f32[8] has fewer dimensions than `x`: f32[1, 8]"),
        (
            "broadcast shape=[1048576, 131073]",
            &["f32[]"],
            None,
            "f32[1048576, 131073] is too large: a tensor may have 2^37 elements, this one would have 137440002048",
        ),
        ("gather axis=0", &["f32[8]", "f32[2]"], Some(1), "`indices` must be of i32, it is f32[2]"),
        ("one_hot classes=0", &["i32[8]"], None, "classes must be at least 1, it is 0"),
        (
            "pad pads=[9223372036854775807:9223372036854775807], value=0.0",
            &["f32[8]"],
            None,
            "f32[9223372036854775807] is too large: a tensor may have 2^37 elements, this one would have 2^63 or more",
        ),
    ]);
    let e =
        infer("broadcast shape=[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]", &["f32[]"]).unwrap_err();
    assert_eq!(e.message, "a tensor may have 16 dimensions, this one would have 17");
    let e = Op::Input.infer(&[]).unwrap_err();
    assert_eq!(e.message, "the type of `input` is given, not inferred");
}

#[test]
fn hints() {
    for (op, operands, expected) in [
        ("add", &["f32[N, 64, 7, 7]", "f32[64]"][..], "a value a channel has the shape [64, 1, 1]"),
        ("conv2d", &["f32[N, 8, 8, 3]", "f32[4, 3, 3, 3]"], "channels come second: `x` must be [N, C, H, W]"),
        ("conv2d", &["f32[3, 8, 8]", "f32[4, 3, 3, 3]"], "add a batch dimension: `reshape` to [1, C, H, W]"),
        ("matmul", &["f32[2, 3]", "f32[4, 3]"], "`transpose` the last two axes of `b`"),
        ("linear", &["f32[N, 16, 5, 5]", "f32[120, 400]"], "`flatten` it first"),
        ("mul", &["f32[4]", "i32[4]"], "convert one of them with `cast`"),
        ("relu", &["i32[4]"], "convert it with `cast(f32)`"),
    ] {
        assert_eq!(infer(op, operands).unwrap_err().help.as_deref(), Some(expected), "{op} of {operands:?}");
    }
}

/// PyTorch's `pooling_output_shape`, in its words.
fn torch_windows(
    size: i64,
    kernel: i64,
    stride: i64,
    before: i64,
    after: i64,
    dilation: i64,
    ceil: bool,
) -> i64 {
    let total = size + before + after - dilation * (kernel - 1) - 1 + if ceil { stride - 1 } else { 0 };
    let mut out = total.div_euclid(stride) + 1;
    if ceil && (out - 1) * stride >= size + before {
        out -= 1;
    }
    out
}

proptest! {
    #[test]
    fn windows_are_counted_as_in_pytorch(
        size in 1usize..30, kernel in 1usize..6, stride in 1usize..5, dilation in 1usize..4,
        before in 0usize..5, after in 0usize..5, ceil: bool,
    ) {
        let (before, after) = (before.min(kernel - 1), after.min(kernel - 1));
        let slide = Slide { unit: "rows", kernel, stride, before, after, dilation, ceil };
        let [n, k, s, b, a, d] = [size, kernel, stride, before, after, dilation].map(|v| v as i64);
        let expected = torch_windows(n, k, s, b, a, d, ceil);
        let found = slide.count(&Dim::from(size)).ok().and_then(|d| d.known());
        prop_assert_eq!(found, Some(expected).filter(|&e| e >= 1));
        let symbolic = slide.count(&Dim::symbol("H")).unwrap();
        let bound = symbolic.substitute(&Bindings::from([("H".to_string(), size)]));
        prop_assert_eq!(bound.known(), Some(expected));
    }
}
