//! Optimizers: a parameter's next value from its gradient. The definitions are PyTorch's
//! (`torch.optim`), where each names its source.
//!
//! What an optimizer remembers are parameters too, which start at 0 and are not trained themselves:
//! `<optimizer>.<parameter>.<what>`, such as `sgd.conv1.weight.momentum`.

use nnc_runtime::program::Initializer;

use super::TrainError;
use super::scalars::{ScalarKind, Scalars};
use crate::autodiff::GradientBuilder;
use crate::build::Spec;
use crate::graph::op::{Parameter, Unary};
use crate::graph::{Graph, NodeId, Op, Update};

/// How parameters follow their gradients `g`, at the learning rate `lr`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// `g += weight_decay·p; v = momentum·v + g; p -= lr·v`, with Nesterov
    /// `p -= lr·(g + momentum·v)`.
    Sgd {
        /// Share of the velocity that is kept.
        momentum: f64,
        /// Nesterov's form (Sutskever et al. 2013).
        nesterov: bool,
        /// Added to the gradient, times the parameter.
        weight_decay: f64,
    },
    /// `s = alpha·s + (1 - alpha)·g²; g /= sqrt(s) + eps` (Hinton 2012), then with momentum as `Sgd`.
    RmsProp {
        /// Share of the mean square that is kept.
        alpha: f64,
        /// Added to the root.
        eps: f64,
        /// Share of the velocity that is kept.
        momentum: f64,
        /// Added to the gradient, times the parameter.
        weight_decay: f64,
    },
    /// `m = beta1·m + (1 - beta1)·g; v = beta2·v + (1 - beta2)·g²`, corrected by `1 - beta^t`;
    /// `p -= lr·m / (sqrt(v) + eps)` (Kingma & Ba 2015).
    Adam {
        /// Share of the first moment that is kept.
        beta1: f64,
        /// Share of the second moment that is kept.
        beta2: f64,
        /// Added to the root.
        eps: f64,
        /// Pulls parameters to 0.
        weight_decay: f64,
        /// The decay is `p -= lr·weight_decay·p`, apart from the moments (AdamW: Loshchilov & Hutter
        /// 2019), instead of a part of the gradient.
        decoupled: bool,
    },
}

impl Optimizer {
    /// As written; `None` for other specs.
    pub fn from_spec(spec: &Spec) -> Option<Optimizer> {
        let number = |name| spec.number(name);
        let adam = |decoupled| Optimizer::Adam {
            beta1: number("beta1"),
            beta2: number("beta2"),
            eps: number("eps"),
            weight_decay: number("weight_decay"),
            decoupled,
        };
        match spec.name {
            "sgd" => Some(Optimizer::Sgd {
                momentum: number("momentum"),
                nesterov: spec.flag("nesterov"),
                weight_decay: number("weight_decay"),
            }),
            "rmsprop" => Some(Optimizer::RmsProp {
                alpha: number("alpha"),
                eps: number("eps"),
                momentum: number("momentum"),
                weight_decay: number("weight_decay"),
            }),
            "adam" => Some(adam(false)),
            "adamw" => Some(adam(true)),
            _ => None,
        }
    }

    /// Its name, with which the names of its state begin.
    pub fn name(&self) -> &'static str {
        match self {
            Optimizer::Sgd { .. } => "sgd",
            Optimizer::RmsProp { .. } => "rmsprop",
            Optimizer::Adam { decoupled: false, .. } => "adam",
            Optimizer::Adam { decoupled: true, .. } => "adamw",
        }
    }

    /// Adds the next value of a parameter, and the updates of what is remembered for it.
    pub(super) fn step(
        &self,
        graph: &mut Graph,
        scalars: &mut Scalars,
        parameter: NodeId,
        gradient: NodeId,
    ) -> Result<NodeId, TrainError> {
        let lr = scalars.learning_rate;
        match *self {
            Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                let gradient = decayed(graph, parameter, gradient, weight_decay);
                let change = self.with_momentum(graph, parameter, gradient, momentum, nesterov)?;
                let g = GradientBuilder::in_place_of(graph, parameter);
                Ok(g.sub(parameter, g.mul(change, lr)))
            }
            Optimizer::RmsProp { alpha, eps, momentum, weight_decay } => {
                let gradient = decayed(graph, parameter, gradient, weight_decay);
                let square = self.state(graph, parameter, "mean_square")?;
                let g = GradientBuilder::in_place_of(graph, parameter);
                let next = moving(&g, square, g.mul(gradient, gradient), alpha);
                let change = g.div(gradient, g.offset(g.unary(Unary::Sqrt, next), eps));
                graph.updates.push(Update { parameter: square, value: next });
                let change = self.with_momentum(graph, parameter, change, momentum, false)?;
                let g = GradientBuilder::in_place_of(graph, parameter);
                Ok(g.sub(parameter, g.mul(change, lr)))
            }
            Optimizer::Adam { .. } => self.adam(graph, scalars, parameter, gradient),
        }
    }

    fn adam(
        &self,
        graph: &mut Graph,
        scalars: &mut Scalars,
        parameter: NodeId,
        gradient: NodeId,
    ) -> Result<NodeId, TrainError> {
        let Optimizer::Adam { beta1, beta2, eps, weight_decay, decoupled } = *self else {
            return Err(TrainError::Optimizer(self.name().to_string()));
        };
        let lr = scalars.learning_rate;
        let mut correction =
            |graph: &mut Graph, name, beta| scalars.get(graph, name, ScalarKind::BiasCorrection { beta });
        let first_correction = correction(graph, "bias_correction1", beta1)?;
        let second_correction = correction(graph, "bias_correction2", beta2)?;
        let gradient = decayed(graph, parameter, gradient, if decoupled { 0.0 } else { weight_decay });
        let first = self.state(graph, parameter, "first_moment")?;
        let second = self.state(graph, parameter, "second_moment")?;
        let g = GradientBuilder::in_place_of(graph, parameter);
        let next_first = moving(&g, first, gradient, beta1);
        let next_second = moving(&g, second, g.mul(gradient, gradient), beta2);
        let root = g.div(g.unary(Unary::Sqrt, next_second), g.unary(Unary::Sqrt, second_correction));
        let change = g.mul(g.div(next_first, g.offset(root, eps)), g.div(lr, first_correction));
        let start = match decoupled && weight_decay != 0.0 {
            true => g.sub(parameter, g.mul(parameter, g.scale(lr, weight_decay))),
            false => parameter,
        };
        let next = g.sub(start, change);
        graph.updates.push(Update { parameter: first, value: next_first });
        graph.updates.push(Update { parameter: second, value: next_second });
        Ok(next)
    }

    /// The velocity that the change adds to, or what Nesterov makes of both.
    fn with_momentum(
        &self,
        graph: &mut Graph,
        parameter: NodeId,
        change: NodeId,
        momentum: f64,
        nesterov: bool,
    ) -> Result<NodeId, TrainError> {
        if momentum == 0.0 {
            return Ok(change);
        }
        let velocity = self.state(graph, parameter, "momentum")?;
        let g = GradientBuilder::in_place_of(graph, parameter);
        let next = g.add(g.scale(velocity, momentum), change);
        let out = if nesterov { g.add(change, g.scale(next, momentum)) } else { next };
        graph.updates.push(Update { parameter: velocity, value: next });
        Ok(out)
    }

    /// Something to be remembered for a parameter: of its type, at first 0.
    fn state(&self, graph: &mut Graph, parameter: NodeId, what: &str) -> Result<NodeId, TrainError> {
        let node = graph.node(parameter);
        let (ty, span) = (node.ty.clone(), node.spans.first().copied());
        let name = format!("{}.{}.{what}", self.name(), node.name);
        if graph.parameter(&name).is_some() {
            return Err(TrainError::Name { name, what: "parameter" });
        }
        let op = Op::Parameter(Parameter { init: Initializer::Constant(0.0), trainable: false });
        Ok(graph.add_typed(op, &[], ty, &name, span))
    }
}

/// `gradient + decay·parameter`
fn decayed(graph: &mut Graph, parameter: NodeId, gradient: NodeId, decay: f64) -> NodeId {
    if decay == 0.0 {
        return gradient;
    }
    let g = GradientBuilder::in_place_of(graph, parameter);
    g.add(gradient, g.scale(parameter, decay))
}

/// `keep·old + (1 - keep)·new`
fn moving(g: &GradientBuilder, old: NodeId, new: NodeId, keep: f64) -> NodeId {
    g.add(g.scale(old, keep), g.scale(new, 1.0 - keep))
}
