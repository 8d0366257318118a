//! Writes out what layers do differently in training, before gradients are taken.
//!
//! - Dropout becomes a random mask and a factor `1 / (1 - p)`; other random numbers get their
//!   operands.
//! - Batch normalisation becomes the statistics of the batch and a normalisation with these. The
//!   running statistics follow with the layer's momentum, the variance as the unbiased one (PyTorch).
//!
//! ```text
//! %1 = dropout %0 {probability=0.5}         %2 = philox %seed, %step {from=uniform(0.0, 1.0), …}
//!                                     →     %3 = ge %2, 0.5
//!                                           %4 = where %3, (mul %0, 2.0), 0.0
//! ```

use super::{GradientBuilder, NoGradient, NotDifferentiable};
use crate::graph::op::{BatchNorm, Binary, Distribution, Parameter, Philox, ReduceKind};
use crate::graph::{Graph, NodeId, Op, Update};

/// Expands a training graph. `seed: i32[2]` and `step: i32[]` are what random numbers depend on.
///
/// # Errors
/// Batch normalisation over a batch of unknown size, or of one value a channel.
pub fn run(graph: &mut Graph, seed: NodeId, step: NodeId) -> Result<(), NotDifferentiable> {
    let mut stream = 0;
    for id in graph.topological() {
        let op = graph.node(id).op.clone();
        let new = match op {
            Op::Dropout(0.0) => graph.operands(id)[0],
            Op::Dropout(probability) => dropout(graph, id, probability, [seed, step], &mut stream),
            Op::Random(from) => draw(graph, id, from, [seed, step], &mut stream),
            Op::BatchNorm(b) if b.training => {
                batch_norm(graph, id, &b).map_err(|why| NotDifferentiable::new(graph, id, why))?
            }
            _ => continue,
        };
        graph.replace_uses(id, new);
        graph.remove(id);
    }
    Ok(())
}

fn draw(graph: &mut Graph, id: NodeId, from: Distribution, at: [NodeId; 2], stream: &mut u32) -> NodeId {
    let shape = graph.node(id).ty.shape.clone();
    *stream += 1;
    let op = Op::Philox(Philox { from, shape, stream: *stream - 1 });
    GradientBuilder::in_place_of(graph, id).op(op, &at)
}

fn dropout(graph: &mut Graph, id: NodeId, probability: f64, at: [NodeId; 2], stream: &mut u32) -> NodeId {
    let x = graph.operands(id)[0];
    let unit = Distribution::Uniform { low: 0.0, high: 1.0 };
    let shape = graph.node(id).ty.shape.clone();
    *stream += 1;
    let op = Op::Philox(Philox { from: unit, shape, stream: *stream - 1 });
    let factor = if probability < 1.0 { 1.0 / (1.0 - probability) } else { 0.0 };
    let g = GradientBuilder::in_place_of(graph, id);
    let kept = g.compare(Binary::Ge, g.op(op, &at), probability);
    g.only_where(kept, g.scale(x, factor))
}

fn batch_norm(graph: &mut Graph, id: NodeId, b: &BatchNorm) -> Result<NodeId, NoGradient> {
    let operands = graph.operands(id);
    let [x, weight, bias, running_mean, running_var] = operands[..] else {
        return Err(NoGradient::new("it needs five operands"));
    };
    let axes: Vec<usize> = (0..graph.node(x).ty.rank()).filter(|&a| a != 1).collect();
    let count = GradientBuilder::new(graph).count(x, &axes)?;
    if count < 2 {
        return Err(NoGradient::new("in training it needs more than one value a channel")
            .help("take a batch of 2 or more"));
    }
    let g = GradientBuilder::in_place_of(graph, id);
    let [mean, var] = [ReduceKind::Mean, ReduceKind::Variance]
        .map(|kind| g.op(Op::Reduce { kind, axes: axes.clone(), keep: false }, &[x]));
    let normal = Op::BatchNorm(BatchNorm { training: false, ..b.clone() });
    let result = g.op(normal, &[x, weight, bias, mean, var]);
    g.checked()?;
    let unbiased = count as f64 / (count as f64 - 1.0);
    for (running, new, factor) in
        [(running_mean, mean, b.momentum), (running_var, var, b.momentum * unbiased)]
    {
        if !matches!(graph.node(running).op, Op::Parameter(Parameter { trainable: false, .. })) {
            continue;
        }
        // A layer that is applied twice goes on from where its first use left off.
        let earlier = graph.updates.iter().position(|u| u.parameter == running);
        let before = earlier.map_or(running, |i| graph.updates[i].value);
        let g = GradientBuilder::in_place_of(graph, id);
        let value = g.add(g.scale(before, 1.0 - b.momentum), g.scale(new, factor));
        match earlier {
            Some(i) => graph.updates[i].value = value,
            None => graph.updates.push(Update { parameter: running, value }),
        }
    }
    Ok(result)
}
