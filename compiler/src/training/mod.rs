//! From the training variant of a net to one training step: a graph that takes a batch, gives loss and
//! metrics, and updates parameters and optimizer state.
//!
//! What is done, in order: sizes are fixed; dropout and batch normalisation are written out; the
//! penalties of the regularizer join the loss; gradients are taken; they are clipped; the optimizer
//! makes the parameters' next values of them. Everything is ordinary nodes, so that the whole is
//! compiled as one program.
//!
//! ```text
//! %60 = mul %59, %4                       lr · gradient
//! %61 = sub %2, %60
//! output loss = %31
//! update %2 = %61
//! ```
//!
//! What changes from step to step but is no data (learning rate, step, seed) comes in as inputs:
//! [`StepGraph::scalars`] gives their values. Schedules are the caller's business.

mod clip;
mod error;
mod evaluation;
mod optimizer;
mod regularizer;
mod scalars;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::autodiff::{expand, gradients};
use crate::build::{Built, TrainSection};
use crate::graph::{Bindings, Graph, NodeId, Op, Output, Update};
use crate::pass;

pub use clip::Clip;
pub use error::TrainError;
pub use evaluation::build_evaluation;
pub use optimizer::Optimizer;
pub use regularizer::Regularizer;
use scalars::Scalars;
pub use scalars::{Moment, ScalarKind};

/// The name of the loss among the outputs.
pub const LOSS: &str = "loss";

/// How a step is built.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOptions {
    /// Sizes for symbols: the batch.
    pub sizes: Bindings,
    /// Whether gradients, as they are before clipping, are outputs too, as `<parameter>.grad`.
    pub gradients: bool,
}

/// One step of training.
#[derive(Clone, Debug)]
pub struct StepGraph {
    /// The graph. Inputs: those of the net and of its `train` section, and the scalars. Outputs: the
    /// loss and the metrics.
    pub graph: Graph,
    /// The metrics' names, in source order.
    pub metrics: Vec<String>,
    /// Inputs that are no data, by name.
    pub scalars: Vec<(String, ScalarKind)>,
    /// Trainable parameters that the loss does not depend on, by name: they keep their values.
    pub untrained: Vec<String>,
    /// Parameters that the net does not have, by name: what the optimizer remembers.
    pub optimizer_state: BTreeSet<String>,
}

/// The training step of a net that was built with `training`.
///
/// # Errors
/// No `train` section, sizes that are not known or not allowed, operations without a gradient, names
/// that are taken.
pub fn build_step(built: &Built, options: &StepOptions) -> Result<StepGraph, TrainError> {
    let section = built.train.as_ref().ok_or(TrainError::NoSection)?;
    let (mut graph, metrics) = with_outputs(built, section, options)?;
    let mut scalars = Scalars::new(&mut graph)?;
    expand::run(&mut graph, scalars.seed, scalars.step)?;
    let parameters = trainable(&graph);
    // Expansion may have replaced the node that the section named.
    let loss = graph.outputs[0].node;
    let loss = match section.regularizer.as_ref().and_then(Regularizer::from_spec) {
        Some(r) => r.add_to(&mut graph, loss, &parameters),
        None => loss,
    };
    graph.outputs[0].node = loss;
    let found = gradients(&mut graph, loss, &parameters)?;
    let mut untrained = vec![];
    let mut pairs: Vec<(NodeId, NodeId)> = vec![];
    for (p, gradient) in parameters.into_iter().zip(found) {
        match gradient {
            Some(gradient) => pairs.push((p, gradient)),
            None => untrained.push(graph.node(p).name.clone()),
        }
    }
    if options.gradients {
        for &(p, node) in &pairs {
            let name = format!("{}.grad", graph.node(p).name);
            graph.outputs.push(Output { name, node });
        }
    }
    if let Some(clip) = section.clip.as_ref().and_then(Clip::from_spec) {
        clip.apply(&mut graph, &mut pairs);
    }
    let optimizer = Optimizer::from_spec(&section.optimizer)
        .ok_or_else(|| TrainError::Optimizer(section.optimizer.name.to_string()))?;
    for (parameter, gradient) in pairs {
        let value = optimizer.step(&mut graph, &mut scalars, parameter, gradient)?;
        graph.updates.push(Update { parameter, value });
    }
    pass::sweep(&mut graph);
    let optimizer_state = &names(&graph) - &names(&built.graph);
    Ok(StepGraph { graph, metrics, scalars: scalars.finish(), untrained, optimizer_state })
}

/// The names of the parameters.
fn names(graph: &Graph) -> BTreeSet<String> {
    graph.parameters().into_iter().map(|n| graph.node(n).name.clone()).collect()
}

/// The net's graph with sizes for its symbols, the section's loss and metrics as outputs.
fn with_outputs(
    built: &Built,
    section: &TrainSection,
    options: &StepOptions,
) -> Result<(Graph, Vec<String>), TrainError> {
    let mut graph = built.graph.specialise(&options.sizes)?;
    let unknown = graph.symbols();
    if !unknown.is_empty() {
        return Err(TrainError::Symbols(unknown));
    }
    graph.outputs = vec![Output { name: LOSS.to_string(), node: section.loss }];
    for (name, node) in &section.metrics {
        if graph.outputs.iter().any(|o| o.name == *name) {
            return Err(TrainError::Name { name: name.clone(), what: "metric" });
        }
        graph.outputs.push(Output { name: name.clone(), node: *node });
    }
    Ok((graph, section.metrics.iter().map(|(name, _)| name.clone()).collect()))
}

/// The parameters that follow their gradients.
fn trainable(graph: &Graph) -> Vec<NodeId> {
    let follows = |n: &NodeId| {
        let node = graph.node(*n);
        node.ty.dtype.is_float() && matches!(&node.op, Op::Parameter(p) if p.trainable)
    };
    graph.parameters().into_iter().filter(follows).collect()
}
