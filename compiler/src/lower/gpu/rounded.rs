//! Which values are rounded to TF32 once, where they are made, instead of at every load of a factor in the innermost
//! loop: those that nobody could tell from the rounded ones.
//!
//! A value is rounded where it is stored if everybody who reads it
//! * rounds it: a product on tensor cores, as a factor,
//! * chooses among its elements (the largest of a window, a part, another order), and what is chosen is read by such
//!   readers alone: rounding keeps the order of numbers, and what is rounded stays as it is,
//! * or compares it with zero (the mask of ReLU). Of all numbers, only those below 6e-42 are rounded to zero.
//!
//! Results of the graph are not, nor what is added to something else: a sum of residual blocks keeps all its
//! bits, and the products that read it round it themselves. Values that share memory (a concatenation and what is
//! placed into it) are rounded together or not at all.
//!
//! Weights are rounded when they are packed; those that are read as they are, once, when they are loaded.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::op::{Binary, Literal, ReduceKind, Unary};
use crate::graph::{NodeId, Op};
use crate::kernel::block::tf32;
use crate::lower::access::Place;
use crate::lower::conv_pack::Numbers;
use crate::lower::{LowerError, Lowering};
use nnc_runtime::DType;

impl Lowering<'_> {
    /// Finds the values that are stored rounded, and the parameters that could be.
    pub(in crate::lower) fn find_rounded(&mut self) {
        if self.gpu.is_none() || self.gpu_options.products.factors() != Numbers::Tf32 {
            return;
        }
        let readers = Readers::new(self);
        let rounded = readers.rounded();
        self.rounded = readers.order.iter().copied().filter(|&n| rounded.contains(&self.memory(n))).collect();
    }

    /// The node whose memory a value is in, or in a part of it.
    fn memory(&self, id: NodeId) -> NodeId {
        let root = self.roots[&id];
        self.graph.node(root).placement.map_or(root, |placement| self.memory(placement.into))
    }

    /// A factor of a product by blocks; of a parameter that runs do not change, a rounded copy, if all others that read it
    /// want that, too.
    pub(super) fn rounded_once(&mut self, id: NodeId, place: Place) -> Result<Place, LowerError> {
        let is_parameter = matches!(self.graph.node(id).op, Op::Parameter(_));
        if !is_parameter || !self.rounded.contains(&id) {
            return Ok(place);
        }
        let shape = place.shape;
        self.repacked_as(id, "round", &shape, Numbers::Tf32, &|b, from, at| from(b, at))
    }
}

/// Values by their memory, and who reads them.
struct Readers<'l, 'a> {
    lowering: &'l Lowering<'a>,
    order: Vec<NodeId>,
    /// The products on tensor cores.
    products: BTreeSet<NodeId>,
    /// The values in every piece of memory, by the node that it is of.
    values: BTreeMap<NodeId, Vec<NodeId>>,
}

impl<'l, 'a> Readers<'l, 'a> {
    fn new(lowering: &'l Lowering<'a>) -> Readers<'l, 'a> {
        let order = lowering.graph.topological();
        let rounds = |n| lowering.schedule(n).is_some_and(|s| s.products.factors() == Numbers::Tf32);
        let products = order.iter().copied().filter(|&n| rounds(n)).collect();
        let mut values: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for &n in &order {
            values.entry(lowering.memory(n)).or_default().push(n);
        }
        Readers { lowering, order, products, values }
    }

    /// The memory whose values are rounded: all that may be, without what somebody reads who wants more, until nothing
    /// is left to take away.
    fn rounded(&self) -> BTreeSet<NodeId> {
        let mut rounded: BTreeSet<NodeId> = self.values.keys().copied().filter(|&m| self.may_be(m)).collect();
        loop {
            let before = rounded.len();
            // What is chosen among values comes after them.
            for &memory in self.order.iter().rev().filter(|n| self.values.contains_key(n)) {
                let fits = |v: &NodeId| self.wants_no_more(*v, &rounded);
                if rounded.contains(&memory) && !self.values[&memory].iter().all(fits) {
                    rounded.remove(&memory);
                }
            }
            if rounded.len() == before {
                return rounded;
            }
        }
    }

    /// True for f32 that kernels store and that are no results, and for parameters that no run changes.
    fn may_be(&self, memory: NodeId) -> bool {
        let graph = self.lowering.graph;
        let made = match graph.node(memory).op {
            Op::Parameter(_) => !graph.is_updated(memory),
            Op::Philox(_) => false,
            ref op => !op.is_source(),
        };
        let values = &self.values[&memory];
        made && values.iter().all(|&v| graph.node(v).ty.dtype == DType::F32 && !graph.is_output(v))
    }

    /// True if rounded numbers are all that the readers of a value need.
    fn wants_no_more(&self, value: NodeId, rounded: &BTreeSet<NodeId>) -> bool {
        let graph = self.lowering.graph;
        graph.users(value).iter().all(|&user| {
            let operands = graph.operands(user);
            let places = || operands.iter().enumerate().filter(|(_, o)| **o == value).map(|(i, _)| i);
            if self.products.contains(&user) {
                return places().all(|i| i < 2);
            }
            // Of what is in the same memory, the readers are looked at anyway.
            chooses(&graph.node(user).op) && rounded.contains(&self.lowering.memory(user))
                || self.compares_with_zero(user, &operands, value)
        })
    }

    fn compares_with_zero(&self, user: NodeId, operands: &[NodeId], value: NodeId) -> bool {
        let compares = matches!(
            self.lowering.graph.node(user).op,
            Op::Binary(Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge | Binary::Eq | Binary::Ne)
        );
        let is_zero = |n: &NodeId| match &self.lowering.graph.node(*n).op {
            Op::Constant(Literal::Splat(x)) => *x == 0.0,
            _ => false,
        };
        compares && operands.iter().all(|o| *o == value || is_zero(o))
    }
}

/// True for operations whose elements are elements of their operands, or numbers that rounding leaves as they are.
fn chooses(op: &Op) -> bool {
    match op {
        Op::MaxPool2d(_) | Op::AdaptiveMaxPool2d(_) => true,
        Op::Reduce { kind, .. } => matches!(kind, ReduceKind::Max | ReduceKind::Min),
        Op::Pad { value, .. } => {
            let bits = (*value as f32).to_bits();
            tf32(bits) == bits
        }
        Op::Concat(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Slice { .. } | Op::Reverse(_) => true,
        Op::Broadcast(_) | Op::Relayout | Op::StopGradient | Op::Dropout(_) | Op::Cast(DType::F32) => true,
        Op::Unary(Unary::Relu) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
