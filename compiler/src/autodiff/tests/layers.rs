//! What is written out before gradients are taken; what has none.

use nnc_runtime::Tensor;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Net, Values, check, gradients, ints, numbers, run};
use crate::autodiff::expand;
use crate::graph::interpret::{Precision, step};
use crate::graph::op::{Literal, Parameter};
use crate::graph::{NodeId, Op, Output, TensorType};

/// The inputs that random numbers depend on.
fn random_inputs(net: &mut Net) -> [NodeId; 2] {
    [net.input(ints(&[2], vec![5, 6])), net.input(ints(&[], vec![9]))]
}

fn state(net: &mut Net, size: usize, low: f64, high: f64) -> NodeId {
    let id = net.parameter(&[size], Values::between(77, low, high));
    if let Op::Parameter(p) = &mut net.graph.node_mut(id).op {
        *p = Parameter { trainable: false, ..p.clone() };
    }
    id
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Values, running statistics and gradients; two values a channel are the fewest.
    #[test]
    fn batch_normalisation_by_the_statistics_of_the_batch(
        shape in vec(1usize..6, 2..5), factor: u16, eps in 1e-3f64..0.5,
    ) {
        let count = shape.iter().product::<usize>() / shape[1];
        prop_assume!(count >= 2);
        let shape = &shape[..];
        let mut net = Net::new();
        let [seed, at] = random_inputs(&mut net);
        let x = net.parameter(shape, Values::between(factor.into(), -2.0, 2.0));
        let weight = net.parameter(&shape[1..2], Values::between(17, 0.5, 2.0));
        let bias = net.parameter(&shape[1..2], Values::between(23, -1.0, 1.0));
        let (mean, var) = (state(&mut net, shape[1], -0.5, 0.5), state(&mut net, shape[1], 0.5, 2.0));
        let op = format!("batch_norm eps={eps}, momentum=0.3, training");
        let y = net.op(&op, &[x, weight, bias, mean, var]);
        let loss = net.loss_of(y);
        net.graph.outputs = vec![Output { name: "y".to_string(), node: y }];
        let before = run(&net.graph, &net.feeds);
        expand::run(&mut net.graph, seed, at).unwrap();
        let after = step(&net.graph, &net.feeds, Precision::Double).unwrap();
        for (a, b) in numbers(&before["y"]).iter().zip(numbers(&after.outputs["y"])) {
            assert!((a - b).abs() < 1e-12, "{a} and {b}");
        }
        check_running_statistics(&net, shape, &after.parameters["p3"], &after.parameters["p4"]);
        check(&net.graph, loss, &net.feeds);
    }

    /// The same elements are dropped whatever is around them; the gradient flows through the others.
    #[test]
    fn dropout_of_any_shape(shape in vec(1usize..6, 0..5), factor: u16, probability in 0f64..1.0) {
        let mut net = Net::new();
        let [seed, at] = random_inputs(&mut net);
        let x = net.parameter(&shape, Values::between(factor.into(), 1.0, 2.0));
        let y = net.op(&format!("dropout probability={probability}"), &[x]);
        let loss = net.loss_of(y);
        net.graph.outputs = vec![Output { name: "y".to_string(), node: y }];
        expand::run(&mut net.graph, seed, at).unwrap();
        let (x, y) = (numbers(&net.feeds["p0"]), numbers(&run(&net.graph, &net.feeds)["y"]));
        for (x, y) in x.iter().zip(&y) {
            prop_assert!(*y == 0.0 || (y * (1.0 - probability) / x - 1.0).abs() < 1e-12, "{x} becomes {y}");
        }
        check(&net.graph, loss, &net.feeds);
    }
}

/// `running = 0.7·running + 0.3·new`, the variance unbiased.
fn check_running_statistics(net: &Net, shape: &[usize], mean: &Tensor, var: &Tensor) {
    let x = numbers(&net.feeds["p0"]);
    let inner: usize = shape[2..].iter().product();
    for c in 0..shape[1] {
        let of_channel: Vec<f64> =
            x.iter().enumerate().filter(|(i, _)| i / inner % shape[1] == c).map(|(_, &v)| v).collect();
        let n = of_channel.len() as f64;
        let m = of_channel.iter().sum::<f64>() / n;
        let v = of_channel.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (n - 1.0);
        for (found, old, new) in [(mean, "p3", m), (var, "p4", v)] {
            let expected = 0.7 * numbers(&net.feeds[old])[c] + 0.3 * new;
            let found = numbers(found)[c];
            assert!((found - expected).abs() < 1e-12, "expected {expected}, found {found}");
        }
    }
}

#[test]
fn batch_normalisation_twice_updates_its_statistics_twice() {
    let mut net = Net::new();
    let [seed, at] = random_inputs(&mut net);
    let x = net.parameter(&[4, 2], Values::between(311, -2.0, 2.0));
    let one = net.parameter(&[2], Values::between(17, 0.5, 2.0));
    let (mean, var) = (state(&mut net, 2, -0.5, 0.5), state(&mut net, 2, 0.5, 2.0));
    let op = "batch_norm eps=0.001, momentum=0.5, training";
    let y = net.op(op, &[x, one, one, mean, var]);
    let z = net.op(op, &[y, one, one, mean, var]);
    net.loss_of(z);
    expand::run(&mut net.graph, seed, at).unwrap();
    assert_eq!(net.graph.updates.len(), 2);
    let after = step(&net.graph, &net.feeds, Precision::Double).unwrap();
    let x = numbers(&net.feeds["p0"]);
    let (old, first) = (numbers(&net.feeds["p2"])[0], (x[0] + x[2] + x[4] + x[6]) / 4.0);
    // The second mean is the first bias.
    let second = numbers(&net.feeds["p1"])[0];
    let expected = 0.5 * (0.5 * old + 0.5 * first) + 0.5 * second;
    assert!((numbers(&after.parameters["p2"])[0] - expected).abs() < 1e-12);
}

#[test]
fn batch_normalisation_needs_more_than_one_value() {
    let mut net = Net::new();
    let [seed, at] = random_inputs(&mut net);
    let x = net.parameter(&[1, 2], Values::between(311, -2.0, 2.0));
    let one = net.parameter(&[2], Values::between(17, 0.5, 2.0));
    net.op("batch_norm eps=0.001, momentum=0.5, training", &[x, one, one, one, one]);
    let e = expand::run(&mut net.graph, seed, at).unwrap_err();
    assert_eq!(
        e.to_string(),
        "`batch_norm` has no gradient: in training it needs more than one value a channel"
    );
}

#[test]
fn dropout_drops_its_share_and_scales_the_rest() {
    let mut net = Net::new();
    let [seed, at] = random_inputs(&mut net);
    let x = net.parameter(&[40, 50], Values::between(311, 1.0, 2.0));
    let y = net.op("dropout probability=0.25", &[x]);
    let all = net.op("dropout probability=0.0", &[x]);
    let loss = net.loss_of(y);
    net.graph.outputs =
        [("y", y), ("all", all)].map(|(name, node)| Output { name: name.to_string(), node }).to_vec();
    expand::run(&mut net.graph, seed, at).unwrap();
    let results = run(&net.graph, &net.feeds);
    let (x, y) = (numbers(&net.feeds["p0"]), numbers(&results["y"]));
    let dropped = y.iter().filter(|&&v| v == 0.0).count();
    assert!((440..560).contains(&dropped), "{dropped} of 2000 are dropped");
    assert!(x.iter().zip(&y).all(|(x, y)| *y == 0.0 || (y - x / 0.75).abs() < 1e-12));
    assert_eq!(numbers(&results["all"]), x);
    check(&net.graph, loss, &net.feeds);
}

#[test]
fn cross_entropy_is_stable_for_large_logits() {
    let mut net = Net::new();
    let logits = net.parameter(&[3, 4], Values::between(1, -1.0, 1.0));
    let large = [[1e4f32, -1e4, 0.0, 1.0], [-1e4, -1e4, 1e4, 1e4], [3.0, 2.0, 1.0, -1e4]].concat();
    let value = ndarray::ArrayD::from_shape_vec(ndarray::IxDyn(&[3, 4]), large).unwrap();
    net.feeds.insert("p0".to_string(), Tensor::F32(value));
    let labels = net.input(ints(&[3], vec![1, 3, 0]));
    let hot = net.op("one_hot classes=4", &[labels]);
    let log = net.op("log_softmax axis=1", &[logits]);
    let product = net.op("mul", &[hot, log]);
    let picked = net.op("reduce_sum axes=[1]", &[product]);
    let negative = net.op("neg", &[picked]);
    let loss = net.op("reduce_mean axes=[0]", &[negative]);
    let gradient = gradients(&mut net.graph, loss, &[logits]).unwrap()[0].unwrap();
    net.graph.outputs = [("loss", loss), ("gradient", gradient)]
        .map(|(n, node)| Output { name: n.to_string(), node })
        .to_vec();
    let results = crate::graph::interpret::run(&net.graph, &net.feeds).unwrap();
    // The third row: 1 - softmax of [3, 2, 1].
    let third = 1.0 / (1.0 + (-1f64).exp() + (-2f64).exp());
    let expected_loss = (2e4 + std::f64::consts::LN_2 - third.ln()) / 3.0;
    assert!((numbers(&results["loss"])[0] - expected_loss).abs() < 1e-2);
    let rest = [third * (-1f64).exp(), third * (-2f64).exp()];
    let expected = [1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.5, -0.5, third - 1.0, rest[0], rest[1], 0.0];
    for (found, expected) in numbers(&results["gradient"]).iter().zip(expected) {
        assert!((found - expected / 3.0).abs() < 1e-6, "expected {}, found {found}", expected / 3.0);
    }
}

#[test]
fn nothing_flows_through_stop_gradient() {
    let mut net = Net::new();
    let x = net.parameter(&[3], Values::between(5, 0.5, 2.0));
    let fixed = net.op("stop_gradient", &[x]);
    let y = net.op("mul", &[x, fixed]);
    let loss = net.op("reduce_sum axes=[0]", &[y]);
    let gradient = gradients(&mut net.graph, loss, &[x]).unwrap()[0].unwrap();
    net.graph.outputs = vec![Output { name: "g".to_string(), node: gradient }];
    assert_eq!(numbers(&run(&net.graph, &net.feeds)["g"]), numbers(&net.feeds["p0"]));
}

#[test]
fn what_has_no_gradient_says_so() {
    let mut net = Net::new();
    let x = net.parameter(&[3], Values::between(5, 0.5, 2.0));
    let y = net.op("floor", &[x]);
    let loss = net.op("reduce_sum axes=[0]", &[y]);
    let e = gradients(&mut net.graph, loss, &[x]).unwrap_err();
    assert_eq!(e.to_string(), "`floor` has no gradient: it is constant but for jumps");

    let mut net = Net::new();
    let x = net.parameter(&[3], Values::between(5, 0.5, 2.0));
    let best = net.op("arg_max axis=0", &[x]);
    let loss = net.op("cast to=f32", &[best]);
    let e = gradients(&mut net.graph, loss, &[x]).unwrap_err();
    let expected = "the loss depends on parameters through `arg_max` alone, which has no gradient";
    assert_eq!(e.to_string(), expected);

    let mut net = Net::new();
    let x = net.parameter(&[3], Values::between(5, 0.5, 2.0));
    let one = Op::Constant(Literal::Splat(1.0));
    let loss = net.graph.add_typed(one, &[], TensorType::new(nnc_runtime::DType::F32, &[]), "", None);
    let e = gradients(&mut net.graph, loss, &[x]).unwrap_err();
    assert_eq!(e.to_string(), "the loss depends on no parameter");
}

#[test]
fn gradients_carry_names_and_spans_of_what_they_are_due_to() {
    let mut net = Net::new();
    let x = net.parameter(&[3], Values::between(5, 0.5, 2.0));
    let y = net.op("tanh", &[x]);
    let span = nnc_dsl::Span::new(nnc_dsl::SourceMap::new().add("a.nn", "x"), 0, 1);
    net.graph.node_mut(y).name = "squash".to_string();
    net.graph.node_mut(y).spans = vec![span];
    let loss = net.op("reduce_sum axes=[0]", &[y]);
    let gradient = gradients(&mut net.graph, loss, &[x]).unwrap()[0].unwrap();
    let node = net.graph.node(gradient);
    assert_eq!((node.name.as_str(), &node.spans[..]), ("squash.grad", &[span][..]));
}
