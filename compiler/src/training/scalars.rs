//! The inputs of a step that are no data: learning rate, step, seed, and what optimizers derive from
//! the step. The host computes them in f64, for powers near 1 lose their digits in f32.

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn, arr0, arr1};
use nnc_runtime::{DType, Tensor};

use super::{StepGraph, TrainError};
use crate::graph::{Graph, NodeId, Op, TensorType};

/// What a scalar input holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScalarKind {
    /// `f32[]`: the learning rate of this step.
    LearningRate,
    /// `i32[]`: the number of steps before this one.
    Step,
    /// `i32[2]`: the seed, its low and high half.
    Seed,
    /// `f32[]`: `1 - beta^(step + 1)`, by which Adam divides a moment that started at 0.
    BiasCorrection {
        /// The share that the moment keeps in a step.
        beta: f64,
    },
}

/// Where in a training a step is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// The learning rate.
    pub learning_rate: f64,
    /// The number of steps before.
    pub step: u64,
    /// The seed of the training.
    pub seed: u64,
}

impl StepGraph {
    /// The values of the scalar inputs, by name.
    pub fn scalars(&self, at: Moment) -> BTreeMap<String, Tensor> {
        let value = |kind: ScalarKind| match kind {
            ScalarKind::LearningRate => float(at.learning_rate),
            ScalarKind::Step => Tensor::I32(arr0(at.step as i32).into_dyn()),
            ScalarKind::Seed => Tensor::I32(arr1(&[at.seed as i32, (at.seed >> 32) as i32]).into_dyn()),
            // Past the limit of i32 the correction is 1 for any beta.
            ScalarKind::BiasCorrection { beta } => {
                float(1.0 - beta.powi(i32::try_from(at.step + 1).unwrap_or(i32::MAX)))
            }
        };
        self.scalars.iter().map(|(name, kind)| (name.clone(), value(*kind))).collect()
    }
}

fn float(x: f64) -> Tensor {
    Tensor::F32(ArrayD::from_elem(IxDyn(&[]), x as f32))
}

/// The scalar inputs of a step in the making.
pub(super) struct Scalars {
    pub learning_rate: NodeId,
    pub step: NodeId,
    pub seed: NodeId,
    all: Vec<(String, ScalarKind, NodeId)>,
}

impl Scalars {
    pub fn new(graph: &mut Graph) -> Result<Scalars, TrainError> {
        let mut all = vec![];
        let learning_rate = input(graph, &mut all, "learning_rate", ScalarKind::LearningRate)?;
        let step = input(graph, &mut all, "step", ScalarKind::Step)?;
        let seed = input(graph, &mut all, "seed", ScalarKind::Seed)?;
        Ok(Scalars { learning_rate, step, seed, all })
    }

    /// The input of that kind, made where it is not there yet.
    pub fn get(&mut self, graph: &mut Graph, name: &str, kind: ScalarKind) -> Result<NodeId, TrainError> {
        match self.all.iter().find(|(_, k, _)| *k == kind) {
            Some(&(_, _, node)) => Ok(node),
            None => input(graph, &mut self.all, name, kind),
        }
    }

    pub fn finish(self) -> Vec<(String, ScalarKind)> {
        self.all.into_iter().map(|(name, kind, _)| (name, kind)).collect()
    }
}

fn input(
    graph: &mut Graph,
    all: &mut Vec<(String, ScalarKind, NodeId)>,
    name: &str,
    kind: ScalarKind,
) -> Result<NodeId, TrainError> {
    let taken = |n: NodeId| graph.node(n).name == name;
    if graph.inputs().into_iter().any(taken) {
        return Err(TrainError::Name { name: name.to_string(), what: "input" });
    }
    if graph.parameters().into_iter().any(taken) {
        return Err(TrainError::Name { name: name.to_string(), what: "parameter" });
    }
    let ty = match kind {
        ScalarKind::LearningRate | ScalarKind::BiasCorrection { .. } => TensorType::new(DType::F32, &[]),
        ScalarKind::Step => TensorType::new(DType::I32, &[]),
        ScalarKind::Seed => TensorType::new(DType::I32, &[2]),
    };
    let node = graph.add_typed(Op::Input, &[], ty, name, None);
    all.push((name.to_string(), kind, node));
    Ok(node)
}
