//! Parameters that a run changes: every node sees the old values, the end leaves the new ones.

use nnc_compiler::graph::op::{Binary, Conv2d, ReduceKind, Unary};
use nnc_compiler::graph::{Dim, Op};
use nnc_compiler::kernel::Module;
use nnc_compiler::kernel::module::Role;
use proptest::prelude::*;

use crate::support::{Net, check, same, text};

/// The number of values that are neither the caller's nor parameters.
fn temporaries(module: &Module) -> usize {
    module.values.iter().filter(|v| v.role == Role::Temporary).count()
}

/// Momentum and parameter of gradient descent are written over the old ones.
#[test]
fn gradient_descent_in_place() {
    let mut net = Net::new(1);
    let x = net.input(&[4, 6]);
    let (w, m) = (net.parameter(&[4, 6]), net.parameter(&[4, 6]));
    let (rate, decay) = (net.splat(0.1), net.splat(0.9));
    let loss = net.op(Op::Binary(Binary::Mul), &[x, w]);
    let total = net.op(Op::Reduce { kind: ReduceKind::Sum, axes: vec![0, 1], keep: false }, &[loss]);
    let old = net.op(Op::Binary(Binary::Mul), &[m, decay]);
    let momentum = net.op(Op::Binary(Binary::Add), &[old, x]);
    let step = net.op(Op::Binary(Binary::Mul), &[momentum, rate]);
    let next = net.op(Op::Binary(Binary::Sub), &[w, step]);
    net.output(total);
    net.update(w, next);
    net.update(m, momentum);
    let module = check(&net);
    assert_eq!(temporaries(&module), 0, "{}", text(&module));
    // The sum, and both updates in one sweep.
    assert_eq!(module.kernels.len(), 2);
    insta::assert_snapshot!(text(&module));
}

/// The other one's old value: both are saved before they are overwritten.
#[test]
fn exchanged_parameters() {
    let mut net = Net::new(2);
    let (a, b) = (net.parameter(&[5]), net.parameter(&[5]));
    net.output(a);
    net.update(a, b);
    net.update(b, a);
    check(&net);
}

/// A kernel that needs other elements of the old value cannot write over it.
#[test]
fn moved_and_summed_parameters() {
    let mut net = Net::new(3);
    let [a, b, c] = [0; 3].map(|_| net.parameter(&[3, 3]));
    let turned = net.op(Op::Transpose(vec![1, 0]), &[a]);
    let sum = net.op(Op::Reduce { kind: ReduceKind::Sum, axes: vec![1], keep: true }, &[b]);
    let spread = net.op(Op::Binary(Binary::Add), &[b, sum]);
    let product = net.op(Op::MatMul, &[c, c]);
    net.update(a, turned);
    net.update(b, spread);
    net.update(c, product);
    net.output(spread);
    check(&net);
}

/// Weights that change are packed anew in every run, and their bias is filled up to whole blocks.
#[test]
fn trained_convolution() {
    let mut net = Net::new(4);
    let x = net.input(&[1, 3, 6, 6]);
    let y = net.conv(x, 6, [3, 3], same());
    let y = net.op(Op::Unary(Unary::Relu), &[y]);
    let y = net.conv(y, 5, [1, 1], Conv2d { padding: [0; 4], ..same() });
    net.output(y);
    let half = net.splat(0.5);
    for p in net.graph.parameters() {
        let next = net.op(Op::Binary(Binary::Mul), &[p, half]);
        net.update(p, next);
    }
    let module = check(&net);
    let convolutions = module.kernels.iter().filter(|k| k.name.starts_with("conv2d"));
    // The fast path holds sums of vectors in registers.
    assert!(convolutions.clone().all(|k| k.buffers.iter().any(|b| b.name.starts_with("weight"))));
    assert_eq!(convolutions.count(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_updates(
        steps in prop::collection::vec((0..6usize, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..12),
        updates in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 4),
        outputs in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
    ) {
        let mut net = Net::new(steps.len() as u64);
        let x = net.input(&[3, 3]);
        let parameters = [0; 4].map(|_| net.parameter(&[3, 3]));
        let mut values = vec![x];
        values.extend(parameters);
        for (kind, a, b) in steps {
            let (a, b) = (*a.get(&values), *b.get(&values));
            let y = match kind {
                0 | 1 => net.op(Op::Binary(Binary::Add), &[a, b]),
                2 => net.op(Op::Unary(Unary::Tanh), &[a]),
                3 => net.op(Op::Transpose(vec![1, 0]), &[a]),
                4 => {
                    let flat = net.op(Op::Reshape(vec![Dim::from(9)]), &[a]);
                    net.op(Op::Reshape(vec![Dim::from(3), Dim::from(3)]), &[flat])
                }
                _ => net.op(Op::Reduce { kind: ReduceKind::Mean, axes: vec![0], keep: true }, &[a]),
            };
            let y = if kind == 5 { net.op(Op::Binary(Binary::Sub), &[b, y]) } else { y };
            values.push(y);
        }
        for (p, (value, updated)) in parameters.into_iter().zip(updates) {
            if updated {
                net.update(p, *value.get(&values));
            }
        }
        for y in outputs {
            net.output(*y.get(&values));
        }
        check(&net);
    }
}
