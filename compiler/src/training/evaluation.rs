//! The graph that measures a net: what it computes in inference, with loss and metrics.
//!
//! Heads that only training has (`if training`) help the lower layers to learn; they say nothing of how
//! good the net is, so the loss that is measured is without their terms:
//!
//! ```text
//! loss = main + 0.3 * first head + 0.3 * second head    →    loss = main
//! ```

use std::collections::HashSet;

use super::{StepOptions, TrainError, with_outputs};
use crate::build::Built;
use crate::graph::op::Binary;
use crate::graph::{Bindings, Graph, NodeId, Op};
use crate::pass;

/// The graph that measures a trained net: dropout and batch normalisation as in inference, loss and
/// metrics of the `train` section, and the net's own outputs. Terms of the loss that need parameters of
/// the training variant alone are left out, and these parameters with them, unless that is all of it.
///
/// # Errors
/// As [`build_step`](super::build_step), but for gradients.
pub fn build_evaluation(built: &Built, sizes: &Bindings) -> Result<Graph, TrainError> {
    let section = built.train.as_ref().ok_or(TrainError::NoSection)?;
    let options = StepOptions { sizes: sizes.clone(), ..StepOptions::default() };
    let (mut graph, _) = with_outputs(built, section, &options)?;
    for id in graph.topological() {
        match &mut graph.node_mut(id).op {
            Op::BatchNorm(b) => b.training = false,
            Op::Dropout(probability) => *probability = 0.0,
            _ => {}
        }
    }
    let extra = training_only(&graph, built);
    if let Some(loss) = without(&mut graph, section.loss, &extra) {
        graph.outputs[0].node = loss;
    }
    for output in &built.graph.outputs {
        if graph.outputs.iter().any(|o| o.name == output.name) {
            return Err(TrainError::Name { name: output.name.clone(), what: "output" });
        }
        graph.outputs.push(output.clone());
    }
    pass::sweep(&mut graph);
    for (name, _) in &built.training_only {
        if let Some(unused) = graph.parameter(name).filter(|&p| graph.users(p).is_empty()) {
            graph.remove(unused);
        }
    }
    Ok(graph)
}

/// The nodes whose values depend on parameters that only the training variant has.
fn training_only(graph: &Graph, built: &Built) -> HashSet<NodeId> {
    let mut found: HashSet<NodeId> =
        built.training_only.iter().filter_map(|(name, _)| graph.parameter(name)).collect();
    for id in graph.topological() {
        if graph.operands(id).iter().any(|o| found.contains(o)) {
            found.insert(id);
        }
    }
    found
}

/// A sum without those of its terms that are in `extra`; `None` if no term is left.
fn without(graph: &mut Graph, sum: NodeId, extra: &HashSet<NodeId>) -> Option<NodeId> {
    if !extra.contains(&sum) {
        return Some(sum);
    }
    let Op::Binary(Binary::Add) = graph.node(sum).op else { return None };
    let operands = graph.operands(sum);
    let [a, b] = operands[..] else { return None };
    match (without(graph, a, extra), without(graph, b, extra)) {
        (Some(a), Some(b)) => {
            let (ty, name) = (graph.node(sum).ty.clone(), graph.node(sum).name.clone());
            let new = graph.add_typed(Op::Binary(Binary::Add), &[a, b], ty, &name, None);
            graph.inherit(new, sum);
            Some(new)
        }
        (one, other) => one.or(other),
    }
}
