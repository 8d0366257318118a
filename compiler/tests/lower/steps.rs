//! Whole training steps of small programs in kernels: loss, metrics, next parameters and state are
//! those of the reference interpreter.

use nnc_compiler::build::{BuildOptions, NoFiles, build};
use nnc_compiler::graph::{Bindings, Op};
use nnc_compiler::training::{Moment, StepOptions, build_step};
use nnc_dsl::SourceMap;
use nnc_runtime::DType;

use crate::support::{Net, check};

/// Builds a step for a batch of four, makes up values, and checks it.
fn check_step(text: &str) {
    let mut map = SourceMap::new();
    let root = map.add("test.nn", text);
    let options = BuildOptions { training: true, ..BuildOptions::default() };
    let built = build(&mut map, root, &NoFiles, &options)
        .unwrap_or_else(|d| panic!("{}", nnc_dsl::render(&map, &d, false)));
    let sizes = Bindings::from([("N".to_string(), 4)]);
    let step = build_step(&built, &StepOptions { sizes, gradients: true }).unwrap_or_else(|e| panic!("{e}"));
    let mut net = Net::new(31);
    net.feeds = step.scalars(Moment { learning_rate: 0.125, step: 3, seed: 1 << 40 | 77 });
    for id in step.graph.inputs().into_iter().chain(step.graph.parameters()) {
        let node = step.graph.node(id);
        if net.feeds.contains_key(&node.name) {
            continue;
        }
        let shape = node.ty.sizes().unwrap();
        // Made in a net of its own, for the name alone.
        let positive = ["running_var", "second_moment", "mean_square"].iter().any(|s| node.name.ends_with(s));
        let source = match (node.ty.dtype, positive) {
            (DType::I32, _) => net.integers(&shape, 3),
            (_, true) => net.positive(&shape),
            _ => net.input(&shape),
        };
        let made = net.graph.node(source).name.clone();
        let value = net.feeds.remove(&made).unwrap();
        net.feeds.insert(node.name.clone(), value);
    }
    assert!(step.graph.ids().any(|n| matches!(step.graph.node(n).op, Op::Parameter(_))));
    net.graph = step.graph;
    check(&net);
}

#[test]
fn convolutions_with_every_layer_that_training_changes() {
    check_step(
        "use std.vision
        net pictures {
            input x: f32[N, 3, 8, 8]
            output y = x -> conv(8, 3x3, pad = 1, bias = false) -> batchnorm -> relu -> maxpool(3x3, stride = 2, pad = 1)
                -> conv(8, 3x3, stride = 2, pad = 1) -> lrn -> relu -> dropout(0.25) -> global_avgpool -> dense(3)
            train {
                input label: i32[N]
                loss = cross_entropy(y, label, smoothing = 0.1)
                metric top1 = accuracy(y, label)
                optimizer = sgd(lr = 0.1, momentum = 0.9, nesterov = true, weight_decay = 1e-3)
                regularizer = l2(1e-3)
                clip = clip_norm(0.5)
            }
        }",
    );
}

#[test]
fn residual_blocks_and_shared_weights() {
    check_step(
        "use std.vision
        net blocks {
            input x: f32[N, 8, 6, 6]
            layer twice = conv(8, 3, pad = 1)
            output y = x -> twice -> residual(8) -> residual(16, 2) -> avgpool(3) -> flatten -> dense(3)
            output z = y + (x -> twice -> maxpool_to(1x1) -> flatten -> dense(3))
            train {
                input label: i32[N]
                loss = cross_entropy(z, label) + 0.3 * cross_entropy(y, label)
                optimizer = adamw(lr = 0.01)
                clip = clip_value(0.05)
            }
        }
        block residual(x, channels, stride = 1) {
            let f = x -> conv(channels, 3, stride, pad = 1, bias = false) -> batchnorm -> relu
                      -> conv(channels, 3, pad = 1, bias = false) -> batchnorm
            let skip = if x.channels == channels and stride == 1 { x }
                       else { x -> conv(channels, 1, stride, bias = false) -> batchnorm }
            f + skip -> relu
        }",
    );
}

#[test]
fn tables_and_recurrence() {
    check_step(
        "net words {
            input x: i32[N, 3]
            let rows = x -> embedding(3, 5)
            layer cell = dense(4)
            let h = zeros([N, 4])
            for t in 0..3 { h = concat(rows[:, t], h) -> cell -> tanh }
            output y = h -> layer_norm -> dense(3)
            train {
                input label: i32[N]
                loss = cross_entropy(y, label)
                optimizer = rmsprop(lr = 0.01, momentum = 0.5)
                regularizer = l1(1e-3)
            }
        }",
    );
}
