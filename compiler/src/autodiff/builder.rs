//! What gradient rules are written with: a graph that is added to by nested calls.
//!
//! A rule reads as its formula: `g.mul(dy, g.sub(one, g.mul(y, y)))`. Shape rules are applied as
//! everywhere; what they refuse is kept and said once the rule has ended ([`GradientBuilder::checked`]).

use std::cell::RefCell;

use nnc_dsl::Span;

use super::{NoGradient, NotDifferentiable};
use crate::graph::op::{Binary, Literal, ReduceKind, Unary};
use crate::graph::{Dim, Graph, NodeId, Op, Shape, TensorType};

/// See the module's head.
pub struct GradientBuilder<'a> {
    inner: RefCell<Inner<'a>>,
}

struct Inner<'a> {
    graph: &'a mut Graph,
    name: String,
    spans: Vec<Span>,
    failure: Option<NoGradient>,
}

impl<'a> GradientBuilder<'a> {
    /// Adds to that graph.
    pub fn new(graph: &'a mut Graph) -> GradientBuilder<'a> {
        let inner = Inner { graph, name: String::new(), spans: vec![], failure: None };
        GradientBuilder { inner: RefCell::new(inner) }
    }

    /// Adds to that graph what takes the place of one of its nodes.
    pub fn in_place_of(graph: &'a mut Graph, id: NodeId) -> GradientBuilder<'a> {
        let node = graph.node(id);
        let (name, spans) = (node.name.clone(), node.spans.clone());
        let inner = Inner { graph, name, spans, failure: None };
        GradientBuilder { inner: RefCell::new(inner) }
    }

    /// What is added from now on is the gradient of that node.
    pub fn differentiates(&self, id: NodeId) {
        let mut inner = self.inner.borrow_mut();
        let node = inner.graph.node(id);
        let (name, spans) = (node.name.clone(), node.spans.clone());
        inner.name = if name.is_empty() { name } else { format!("{name}.grad") };
        inner.spans = spans;
    }

    /// An error if a shape rule has refused something since the last time.
    pub fn checked(&self) -> Result<(), NoGradient> {
        self.inner.borrow_mut().failure.take().map_or(Ok(()), Err)
    }

    /// The error that a node has no gradient.
    pub fn not_differentiable(&self, id: NodeId, why: NoGradient) -> NotDifferentiable {
        NotDifferentiable::new(self.inner.borrow().graph, id, why)
    }

    /// The type of a value.
    pub fn ty(&self, id: NodeId) -> TensorType {
        self.inner.borrow().graph.node(id).ty.clone()
    }

    /// The shape of a value.
    pub fn shape(&self, id: NodeId) -> Shape {
        self.ty(id).shape
    }

    /// The operation of a node.
    pub fn op_of(&self, id: NodeId) -> Op {
        self.inner.borrow().graph.node(id).op.clone()
    }

    /// The operands of a node.
    pub fn operands(&self, id: NodeId) -> Vec<NodeId> {
        self.inner.borrow().graph.operands(id)
    }

    /// The size of an axis, which must be known.
    pub fn size(&self, x: NodeId, axis: usize) -> Result<usize, NoGradient> {
        let size = &self.shape(x)[axis];
        size.size().ok_or_else(|| NoGradient::new(format!("the size `{size}` must be known")))
    }

    /// The number of elements along some axes, which must be known.
    pub fn count(&self, x: NodeId, axes: &[usize]) -> Result<usize, NoGradient> {
        axes.iter().try_fold(1, |n, &axis| Ok(n * self.size(x, axis)?))
    }

    /// Adds an operation.
    pub fn op(&self, op: Op, operands: &[NodeId]) -> NodeId {
        let inner = &mut *self.inner.borrow_mut();
        match inner.graph.add(op, operands, &inner.name, None) {
            Ok(id) => {
                inner.graph.node_mut(id).spans.clone_from(&inner.spans);
                id
            }
            Err(e) => {
                inner.failure.get_or_insert(e.into());
                // Stands in for what could not be made, until `checked` tells.
                operands.first().copied().unwrap_or_default()
            }
        }
    }

    /// A constant whose elements are all equal.
    pub fn splat(&self, value: f64, ty: TensorType) -> NodeId {
        let inner = &mut *self.inner.borrow_mut();
        inner.graph.add_typed(Op::Constant(Literal::Splat(value)), &[], ty, "", None)
    }

    /// A number without dimensions, of the type of `like`.
    pub fn number(&self, value: f64, like: NodeId) -> NodeId {
        self.splat(value, TensorType { dtype: self.ty(like).dtype, shape: vec![] })
    }

    /// Ones of the type of `like`.
    pub fn ones_like(&self, like: NodeId) -> NodeId {
        self.splat(1.0, self.ty(like))
    }

    /// An elementwise function.
    pub fn unary(&self, f: Unary, x: NodeId) -> NodeId {
        self.op(Op::Unary(f), &[x])
    }

    /// An elementwise function with broadcasting.
    pub fn binary(&self, f: Binary, a: NodeId, b: NodeId) -> NodeId {
        self.op(Op::Binary(f), &[a, b])
    }

    /// `a + b`
    pub fn add(&self, a: NodeId, b: NodeId) -> NodeId {
        self.binary(Binary::Add, a, b)
    }

    /// `a - b`
    pub fn sub(&self, a: NodeId, b: NodeId) -> NodeId {
        self.binary(Binary::Sub, a, b)
    }

    /// `a·b`
    pub fn mul(&self, a: NodeId, b: NodeId) -> NodeId {
        self.binary(Binary::Mul, a, b)
    }

    /// `a / b`
    pub fn div(&self, a: NodeId, b: NodeId) -> NodeId {
        self.binary(Binary::Div, a, b)
    }

    /// `-x`
    pub fn neg(&self, x: NodeId) -> NodeId {
        self.unary(Unary::Neg, x)
    }

    /// `factor·x`
    pub fn scale(&self, x: NodeId, factor: f64) -> NodeId {
        self.mul(x, self.number(factor, x))
    }

    /// `x + term`
    pub fn offset(&self, x: NodeId, term: f64) -> NodeId {
        self.add(x, self.number(term, x))
    }

    /// Compares with a number.
    pub fn compare(&self, f: Binary, x: NodeId, with: f64) -> NodeId {
        self.binary(f, x, self.number(with, x))
    }

    /// `condition ? a : b`
    pub fn select(&self, condition: NodeId, a: NodeId, b: NodeId) -> NodeId {
        self.op(Op::Where, &[condition, a, b])
    }

    /// `x` where the condition holds, else 0.
    pub fn only_where(&self, condition: NodeId, x: NodeId) -> NodeId {
        self.select(condition, x, self.number(0.0, x))
    }

    /// `x` where the condition does not hold, else 0.
    pub fn only_unless(&self, condition: NodeId, x: NodeId) -> NodeId {
        self.select(condition, self.number(0.0, x), x)
    }

    /// `x` in another shape.
    pub fn reshape(&self, x: NodeId, shape: Shape) -> NodeId {
        if self.shape(x) == shape { x } else { self.op(Op::Reshape(shape), &[x]) }
    }

    /// `x` repeated to a shape.
    pub fn broadcast(&self, x: NodeId, shape: Shape) -> NodeId {
        if self.shape(x) == shape { x } else { self.op(Op::Broadcast(shape), &[x]) }
    }

    /// A sum over axes that stay as size 1.
    pub fn sum_keeping(&self, x: NodeId, axes: Vec<usize>) -> NodeId {
        self.op(Op::Reduce { kind: ReduceKind::Sum, axes, keep: true }, &[x])
    }

    /// A sum over axes.
    pub fn sum(&self, x: NodeId, axes: Vec<usize>) -> NodeId {
        if axes.is_empty() {
            x
        } else {
            self.op(Op::Reduce { kind: ReduceKind::Sum, axes, keep: false }, &[x])
        }
    }

    /// The last two axes of `x` exchanged.
    pub fn transpose_last(&self, x: NodeId) -> NodeId {
        let rank = self.ty(x).rank();
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(rank - 2, rank - 1);
        self.op(Op::Transpose(order), &[x])
    }

    /// A value a channel `[C]` in the shape that broadcasts to `x: [N, C, ..]`.
    pub fn by_channel(&self, v: NodeId, x: NodeId) -> NodeId {
        let mut shape = self.shape(v);
        shape.resize(self.ty(x).rank() - 1, Dim::constant(1));
        self.reshape(v, shape)
    }

    /// A gradient of something that `to` was broadcast to, summed back to the shape of `to`.
    pub fn sum_to(&self, gradient: NodeId, to: NodeId) -> NodeId {
        let (from, target) = (self.shape(gradient), self.shape(to));
        let added = from.len() - target.len();
        let repeated = |&axis: &usize| {
            axis < added || (target[axis - added] == Dim::constant(1) && from[axis] != Dim::constant(1))
        };
        let axes: Vec<usize> = (0..from.len()).filter(repeated).collect();
        self.reshape(self.sum(gradient, axes), target)
    }

    /// A reduction's result in the shape with the reduced axes as size 1.
    pub fn keep_axes(&self, reduced: NodeId, x: NodeId, axes: &[usize]) -> NodeId {
        let mut shape = self.shape(x);
        axes.iter().for_each(|&a| shape[a] = Dim::constant(1));
        self.reshape(reduced, shape)
    }
}
