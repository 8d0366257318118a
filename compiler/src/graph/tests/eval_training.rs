//! Reference semantics of the operations that only training needs. Gradients of linear operations are
//! their adjoints: `<f(x), dy> = <x, f'(dy)>`.

use nnc_runtime::Tensor;
use nnc_runtime::init::philox;
use proptest::prelude::*;

use super::{assert_near, elements, eval, fill, floats, ints, output_of};
use crate::graph::op::random::DRAW;

/// The operation (`name attributes`) applied to values.
fn apply(op: &str, operands: &[&Tensor]) -> Tensor {
    let (name, attributes) = op.split_once(' ').unwrap_or((op, ""));
    eval(name, attributes, operands).unwrap_or_else(|e| panic!("{op}: {e}"))
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    elements(a).iter().zip(elements(b)).map(|(a, b)| a * b).sum()
}

/// A gradient as it arrives: like the result of an operation.
fn arriving(op: &str, operands: &[&Tensor]) -> Tensor {
    fill(apply(op, operands).shape(), 7, 11, 4.0)
}

/// All numbers are small multiples of powers of two: sums are exact.
fn assert_adjoint(name: &str, a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{name}: {a} and {b}");
}

proptest! {
    #[test]
    fn gradients_of_convolutions_are_adjoints(
        size in (1usize..7, 1usize..7), kernel in (1usize..4, 1usize..4), stride in (1usize..4, 1usize..4),
        padding in [0usize..3, 0usize..3, 0usize..3, 0usize..3], dilation in (1usize..3, 1usize..3),
        groups in 1usize..3, batch in 1usize..3,
    ) {
        let x = fill(&[batch, 2 * groups, size.0, size.1], 5, 13, 4.0);
        let w = fill(&[3 * groups, 2, kernel.0, kernel.1], 3, 7, 2.0);
        let [top, bottom, left, right] = padding;
        let conv = format!(
            "stride={}x{}, padding={top}:{bottom}x{left}:{right}, dilation={}x{}, groups={groups}",
            stride.0, stride.1, dilation.0, dilation.1,
        );
        let Some(y) = output_of("conv2d", &conv, &[&x, &w]) else { return Ok(()) };
        let dy = fill(y.shape(), 7, 11, 4.0);
        let dx = apply(&format!("conv2d_input_grad {conv}, input=[{}, {}]", size.0, size.1), &[&dy, &w]);
        let dw = apply(&format!("conv2d_weight_grad {conv}, kernel={}x{}", kernel.0, kernel.1), &[&x, &dy]);
        assert_adjoint("input", dot(&y, &dy), dot(&x, &dx));
        assert_adjoint("weight", dot(&y, &dy), dot(&w, &dw));
    }

    #[test]
    fn gradients_of_average_pooling_are_adjoints(
        size in (1usize..9, 1usize..9), kernel in (1usize..4, 1usize..4), stride in (1usize..4, 1usize..4),
        padding in [0usize..3, 0usize..3, 0usize..3, 0usize..3], ceil: bool, count: bool,
        grid in (1usize..5, 1usize..5),
    ) {
        let x = fill(&[2, 2, size.0, size.1], 5, 13, 4.0);
        let [top, bottom] = [padding[0], padding[1]].map(|p| p.min(kernel.0 - 1));
        let [left, right] = [padding[2], padding[3]].map(|p| p.min(kernel.1 - 1));
        let pool = format!(
            "window={}x{}, stride={}x{}, padding={top}:{bottom}x{left}:{right}{}, count_include_pad={count}",
            kernel.0, kernel.1, stride.0, stride.1, if ceil { ", ceil" } else { "" },
        );
        let input = format!("input=[{}, {}]", size.0, size.1);
        if let Some(y) = output_of("avg_pool2d", &pool, &[&x]) {
            let dy = fill(y.shape(), 7, 11, 4.0);
            let dx = apply(&format!("avg_pool2d_grad {pool}, {input}"), &[&dy]);
            assert_adjoint("pool", dot(&y, &dy), dot(&x, &dx));
        }
        let y = apply(&format!("adaptive_avg_pool2d output={}x{}", grid.0, grid.1), &[&x]);
        let dy = fill(y.shape(), 7, 11, 4.0);
        let dx = apply(&format!("adaptive_avg_pool2d_grad {input}"), &[&dy]);
        assert_adjoint("adaptive pool", dot(&y, &dy), dot(&x, &dx));
    }
}

#[test]
fn max_pooling_sends_the_gradient_to_the_first_maximum() {
    // Overlapping windows, equal maxima, a NaN, padding.
    let x = floats(&[1, 1, 3, 4], &[1.0, 1.0, 0.0, 2.0, 1.0, 5.0, 5.0, 2.0, 0.0, 3.0, f32::NAN, 1.0]);
    let dy = floats(&[1, 1, 2, 3], &[1.0, 10.0, 100.0, 1e3, 1e4, 1e5]);
    let dx = apply("max_pool2d_grad window=2x2, stride=1x1", &[&x, &dy]);
    let expected = [0.0, 0.0, 0.0, 0.0, 0.0, 1011.0, 100.0, 0.0, 0.0, 0.0, 110_000.0, 0.0];
    assert_near(&dx, &[1, 1, 3, 4], &expected);

    let negative = floats(&[1, 1, 2, 2], &[-1.0, -2.0, -3.0, -3.0]);
    let dy = arriving("max_pool2d window=2x2, stride=2x2, padding=1x1", &[&negative]);
    let dx = apply("max_pool2d_grad window=2x2, stride=2x2, padding=1x1", &[&negative, &dy]);
    assert_near(&dx, &[1, 1, 2, 2], &elements(&dy));

    let dy = floats(&[1, 1, 1, 2], &[1.0, 2.0]);
    let dx = apply("adaptive_max_pool2d_grad", &[&x, &dy]);
    let expected = [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0];
    assert_near(&dx, &[1, 1, 3, 4], &expected);
}

#[test]
fn gather_sums_what_comes_from_a_row() {
    let table = fill(&[2, 3, 2], 5, 13, 4.0);
    let indices = ints(&[4], &[2, -1, 2, 9]);
    let y = apply("gather axis=1", &[&table, &indices]);
    let dy = fill(y.shape(), 7, 11, 4.0);
    let grad = apply("gather_grad axis=1, size=3", &[&dy, &indices]);
    assert_adjoint("gather", dot(&y, &dy), dot(&table, &grad));
    assert_near(
        &apply("gather_grad axis=0, size=3", &[&floats(&[3], &[1.0, 2.0, 4.0]), &ints(&[3], &[1, 1, 2])]),
        &[3],
        &[0.0, 3.0, 4.0],
    );
}

#[test]
fn movements() {
    let x = floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_near(&apply("reverse axes=[1]", &[&x]), &[2, 3], &[3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
    assert_near(&apply("reverse axes=[0, 1]", &[&x]), &[2, 3], &[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
    let expected = [0.0, 1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 5.0, 0.0, 6.0];
    assert_near(&apply("pad pads=[0:0:1, 1:0:1], value=0.0", &[&x]), &[3, 6], &expected);
}

#[test]
fn philox_depends_on_seed_step_stream_and_element_alone() {
    let (seed, step) = (ints(&[2], &[7, -1]), ints(&[], &[3]));
    let draw = |stream: u32, n: usize, seed: &Tensor, step: &Tensor| {
        apply(&format!("philox from=uniform(0.0, 1.0), shape=[{n}], stream={stream}"), &[seed, step])
    };
    let long = elements(&draw(5, 9, &seed, &step));
    assert_eq!(elements(&draw(5, 6, &seed, &step)), long[..6]);
    let word = philox([1, 3, 5, DRAW], [7, u32::MAX])[2] >> 8;
    assert_eq!(long[6], f64::from(word) / 16_777_216.0);
    for other in [draw(6, 9, &seed, &step), draw(5, 9, &ints(&[2], &[8, -1]), &step)] {
        assert_ne!(elements(&other), long);
    }
    assert_ne!(elements(&draw(5, 9, &seed, &ints(&[], &[4]))), long);
}

#[test]
fn philox_has_the_moments_of_its_distribution() {
    let (seed, step) = (ints(&[2], &[1, 2]), ints(&[], &[0]));
    for (from, mean, deviation) in
        [("uniform(-1.0, 3.0)", 1.0, 4.0 / 12f64.sqrt()), ("normal(0.5, 2.0)", 0.5, 2.0)]
    {
        let x = elements(&apply(&format!("philox from={from}, shape=[40000], stream=0"), &[&seed, &step]));
        let n = x.len() as f64;
        let found = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - found).powi(2)).sum::<f64>() / n;
        assert!((found - mean).abs() < 0.03, "{from}: mean {found}");
        assert!((variance.sqrt() - deviation).abs() < 0.03, "{from}: deviation {}", variance.sqrt());
    }
}
