//! What goes into a step: which sizes are the batch, what the graph takes, what a batch of data gives.

use std::collections::BTreeMap;

use nnc_compiler::graph::{Dim, Graph, NodeId, Op, TensorType};
use nnc_compiler::training::StepGraph;
use nnc_runtime::program::{Parameter, Port};

use crate::data::batches::Batch;
use crate::error::Result;
use crate::{Error, TensorSpec, TensorView};

/// Examples in a step, where neither the program nor the caller says.
const DEFAULT_BATCH: usize = 64;

/// The symbols that stand first in an input's shape, or the size that stands there.
pub(super) fn batch_of(graph: &Graph) -> (Vec<String>, Option<usize>) {
    let first = |n: &NodeId| graph.node(*n).ty.shape.first().cloned();
    let dims: Vec<Dim> = graph.inputs().iter().filter_map(first).collect();
    let mut symbols: Vec<String> = dims.iter().flat_map(Dim::symbols).collect();
    symbols.sort();
    symbols.dedup();
    let fixed = dims.first().and_then(Dim::size);
    (symbols, fixed)
}

pub(super) fn choose_batch(
    fixed: Option<usize>,
    asked: Option<usize>,
    program: Option<usize>,
) -> Result<usize> {
    match (fixed, asked) {
        (Some(n), Some(m)) if n != m => {
            Err(Error::Options(format!("the batch is {m}, but the program's input is for {n} examples")))
        }
        (Some(0), _) | (_, Some(0)) => Err(Error::Options("a batch has at least one example".into())),
        (Some(n), _) | (None, Some(n)) => Ok(n),
        (None, None) => Ok(program.unwrap_or(DEFAULT_BATCH)),
    }
}

/// The parameters, with what they are initialised by.
pub(super) fn parameters_of(graph: &Graph) -> Vec<Parameter> {
    let parameter = |n: NodeId| {
        let node = graph.node(n);
        let Op::Parameter(p) = &node.op else { return None };
        let port = Port { name: node.name.clone(), dtype: node.ty.dtype, shape: node.ty.sizes()? };
        Some(Parameter { port, init: p.init.clone(), trainable: p.trainable })
    };
    graph.parameters().into_iter().filter_map(parameter).collect()
}

/// Inputs that are no scalars of the step.
pub(super) fn data_inputs(step: &StepGraph) -> Vec<TensorSpec> {
    let scalar = |i: &TensorSpec| step.scalars.iter().any(|(name, _)| *name == i.name);
    specs_of(&step.graph).into_iter().filter(|i| !scalar(i)).collect()
}

/// Names and types of the inputs.
pub(super) fn specs_of(graph: &Graph) -> Vec<TensorSpec> {
    let spec = |n: NodeId| TensorSpec { name: graph.node(n).name.clone(), ty: graph.node(n).ty.clone() };
    graph.inputs().into_iter().map(spec).collect()
}

/// Inputs by name in the graph's order, their types checked.
pub(super) fn in_order<'a>(
    graph: &Graph,
    given: &BTreeMap<&str, TensorView<'a>>,
) -> Result<Vec<TensorView<'a>>> {
    let find = |n: NodeId| {
        let node = graph.node(n);
        let view = given.get(node.name.as_str());
        let view = view.ok_or_else(|| Error::Input(format!("input `{}` is not given", node.name)))?;
        let found = TensorType::new(view.dtype(), view.shape());
        if found != node.ty {
            let (name, ty) = (&node.name, &node.ty);
            return Err(Error::Input(format!("input `{name}`: expected {ty}, found {found}")));
        }
        Ok(view.clone())
    };
    graph.inputs().into_iter().map(find).collect()
}

/// What a batch of a labelled data set gives an input: floats are examples, integers labels.
fn input_of_batch<'a>(input: &TensorSpec, batch: &'a Batch) -> Result<TensorView<'a>> {
    for t in [&batch.examples, &batch.labels] {
        if input.ty == TensorType::new(t.dtype(), t.shape()) {
            return Ok(t.view());
        }
    }
    let (name, ty) = (&input.name, &input.ty);
    let found = [&batch.examples, &batch.labels].map(|t| TensorType::new(t.dtype(), t.shape()).to_string());
    Err(Error::Input(format!("input `{name}: {ty}`: the data set gives {} and {}", found[0], found[1])))
}

/// What a batch of a labelled data set gives each of the inputs.
pub(super) fn inputs_of_batch<'a>(inputs: &[TensorSpec], batch: &'a Batch) -> Result<Vec<TensorView<'a>>> {
    inputs.iter().map(|i| input_of_batch(i, batch)).collect()
}

/// What a batch gives the inputs of a step, in the graph's order: none for what is not data. `None` if it is a
/// batch for another step.
pub(super) fn inputs_ahead<'a>(
    graph: &Graph,
    data: &[TensorSpec],
    batch: &'a Batch,
) -> Option<Vec<Option<TensorView<'a>>>> {
    let find = |n: NodeId| match data.iter().find(|i| i.name == graph.node(n).name) {
        Some(input) => input_of_batch(input, batch).ok().map(Some),
        None => Some(None),
    };
    graph.inputs().into_iter().map(find).collect()
}
