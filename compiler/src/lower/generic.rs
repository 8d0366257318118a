//! Elements of operations that sum, compare or search: loops that leave one element (or a vector
//! of them) in a register. Right for every shape, attribute and layout; the fast paths are beside.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::position;
use super::builder::{Builder, Operand};
use super::elementwise::{add, constant, div, f32, fma, max, min, mul, sizes, sub, unary};
use crate::graph::op::{LocalResponseNorm, ReduceKind};
use crate::graph::{Node, NodeId, Op};
use crate::kernel::{BinOp, Expr, Guard, Index, UnOp};

impl Builder<'_> {
    /// The node's element at an index, for operations that are neither elementwise nor movement.
    pub fn computed(&mut self, id: NodeId, node: &Node, operands: &[NodeId], index: &[Index]) -> Expr {
        if self.provided.contains(&id) {
            // A fast path holds this value in registers, but for another index.
            self.failed = true;
            return Expr::Const(node.ty.dtype, 0.0);
        }
        match &node.op {
            Op::Conv2d(c) => self.conv2d_element(c, operands, index),
            Op::ConvTranspose2d(c) => self.conv_transpose2d_element(c, operands, index),
            Op::Conv2dInputGrad(g) => self.conv2d_input_grad_element(g, operands, index),
            Op::Conv2dWeightGrad(g) => self.conv2d_weight_grad_element(g, operands, index),
            Op::MatMul => self.matmul_element(operands, index),
            Op::Linear => self.linear_element(operands, index),
            Op::MaxPool2d(p) => self.max_pool_element(&p.window, operands[0], index),
            Op::AvgPool2d(p) => self.avg_pool_element(p, operands[0], index),
            Op::AdaptiveMaxPool2d(_) => self.adaptive_pool_element(node, operands[0], index, true),
            Op::AdaptiveAvgPool2d(_) => self.adaptive_pool_element(node, operands[0], index, false),
            Op::MaxPool2dGrad(_)
            | Op::AvgPool2dGrad(_)
            | Op::AdaptiveMaxPool2dGrad
            | Op::AdaptiveAvgPool2dGrad(_) => self.pool_grad_element(node, operands, index),
            Op::LocalResponseNorm(l) => self.lrn_element(l, operands[0], index),
            Op::Reduce { kind, axes, keep } => self.reduce_element(*kind, axes, *keep, operands[0], index),
            Op::ArgMax { axis, keep } => self.arg_max_element(*axis, *keep, operands[0], index),
            Op::Gather(axis) => self.gather_element(*axis, operands, index),
            Op::GatherGrad { axis, .. } => self.gather_grad_element(node, *axis, operands, index),
            // Not reachable: the driver gives these kernels of their own, or refuses them.
            _ => {
                self.failed = true;
                Expr::Const(node.ty.dtype, 0.0)
            }
        }
    }

    /// The sizes of a node's value.
    pub fn shape_of(&self, id: NodeId) -> Vec<usize> {
        sizes(self.scope.graph.node(id))
    }

    fn matmul_element(&mut self, operands: &[NodeId], index: &[Index]) -> Expr {
        let (a_shape, b_shape) = (self.shape_of(operands[0]), self.shape_of(operands[1]));
        let (rank, depth) = (index.len(), a_shape[a_shape.len() - 1]);
        let sum = self.cell("sum", DType::F32);
        self.assign(&sum, f32(0.0));
        let (batch, row, column) = (&index[..rank - 2], index[rank - 2].clone(), index[rank - 1].clone());
        self.serial("k", depth, |b, k| {
            let pick = |shape: &[usize], last: [Index; 2]| {
                let mut at = super::elementwise::broadcast_index(&shape[..shape.len() - 2], rank - 2, batch);
                at.extend(last);
                at
            };
            let x = b.value(operands[0], &pick(&a_shape, [row, k.clone()]));
            let y = b.value(operands[1], &pick(&b_shape, [k, column]));
            b.assign(&sum, fma(x, y, sum.get()));
        });
        sum.get()
    }

    fn linear_element(&mut self, operands: &[NodeId], index: &[Index]) -> Expr {
        let depth = self.shape_of(operands[1])[1];
        let (row, out) = (&index[..index.len() - 1], index[index.len() - 1].clone());
        let start = match operands.get(2) {
            Some(&bias) => self.value(bias, std::slice::from_ref(&out)),
            None => f32(0.0),
        };
        let sum = self.cell("sum", DType::F32);
        self.assign(&sum, start);
        self.serial("i", depth, |b, i| {
            let x = b.value(operands[0], &[row, std::slice::from_ref(&i)].concat());
            let w = b.value(operands[1], &[out, i]);
            b.assign(&sum, fma(x, w, sum.get()));
        });
        sum.get()
    }

    fn lrn_element(&mut self, l: &LocalResponseNorm, x: NodeId, index: &[Index]) -> Expr {
        let channels = self.shape_of(x)[1] as i64;
        let sum = self.cell("sum", DType::F32);
        self.assign(&sum, f32(0.0));
        self.serial("k", l.size, |b, k| {
            let mut at = index.to_vec();
            at[1] = at[1].clone() + k - l.size / 2;
            let inside = Guard::between(&at[1], 0, channels, b.extents());
            let v = b.guarded(inside, f32(0.0), |b| b.value(x, &at));
            let v = b.shared(DType::F32, v);
            b.assign(&sum, fma(v.clone(), v, sum.get()));
        });
        let value = self.value(x, index);
        self.normalised(l, value, sum.get())
    }

    /// A value, divided by the power of the sum of the squares around it.
    pub(super) fn normalised(&mut self, l: &LocalResponseNorm, value: Expr, sum: Expr) -> Expr {
        let scale = fma(f32(l.alpha / l.size as f64), sum, f32(l.k));
        // AlexNet's beta is 3/4: two square roots are a fraction of a power.
        let power = if l.beta == 0.75 {
            let root = unary(UnOp::Sqrt, scale);
            let root = self.shared(DType::F32, root);
            mul(root.clone(), unary(UnOp::Sqrt, root))
        } else {
            Expr::Binary(BinOp::Pow, Box::new(scale), Box::new(f32(l.beta)))
        };
        div(value, power)
    }

    fn reduce_element(
        &mut self,
        kind: ReduceKind,
        axes: &[usize],
        keep: bool,
        x: NodeId,
        index: &[Index],
    ) -> Expr {
        let shape = self.shape_of(x);
        let dtype = self.scope.graph.node(x).ty.dtype;
        let start = match kind {
            ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Variance => constant(dtype, 0.0),
            ReduceKind::Prod => constant(dtype, 1.0),
            ReduceKind::Max => lowest(dtype),
            ReduceKind::Min => highest(dtype),
        };
        let total = self.cell("total", dtype);
        self.assign(&total, start.clone());
        let mut at = vec![];
        let mut kept = index.iter();
        for axis in 0..shape.len() {
            let reduced = axes.contains(&axis);
            let i = if !reduced || keep { kept.next() } else { None };
            at.push(if reduced { Index::default() } else { i.cloned().unwrap_or_default() });
        }
        self.over_axes(&shape, axes, at.clone(), &mut |b, at| {
            let v = b.value(x, at);
            let value = match kind {
                ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Variance => add(total.get(), v),
                ReduceKind::Prod => mul(total.get(), v),
                ReduceKind::Max => max(total.get(), v),
                ReduceKind::Min => min(total.get(), v),
            };
            b.assign(&total, value);
        });
        let count: usize = axes.iter().map(|&a| shape[a]).product();
        let mean = |total: Expr| div(total, constant(dtype, count as f64));
        match kind {
            ReduceKind::Mean => mean(total.get()),
            ReduceKind::Variance => {
                let centre = self.named("mean", dtype, mean(total.get()));
                self.assign(&total, start);
                self.over_axes(&shape, axes, at, &mut |b, at| {
                    let v = b.value(x, at);
                    let distance = b.named("distance", dtype, sub(v, centre.clone()));
                    b.assign(&total, fma(distance.clone(), distance, total.get()));
                });
                mean(total.get())
            }
            _ => total.get(),
        }
    }

    /// Loops over some axes, outermost first.
    fn over_axes(
        &mut self,
        shape: &[usize],
        axes: &[usize],
        at: Vec<Index>,
        body: &mut dyn FnMut(&mut Self, &[Index]),
    ) {
        match axes.split_first() {
            None => body(self, &at),
            Some((&axis, rest)) => self.serial("k", shape[axis], |b, k| {
                let mut at = at;
                at[axis] = k;
                b.over_axes(shape, rest, at, body);
            }),
        }
    }

    fn arg_max_element(&mut self, axis: usize, keep: bool, x: NodeId, index: &[Index]) -> Expr {
        let shape = self.shape_of(x);
        let dtype = self.scope.graph.node(x).ty.dtype;
        let mut at = index.to_vec();
        if !keep {
            at.insert(axis, Index::default());
        }
        at[axis] = Index::default();
        let best = self.cell("best", dtype);
        let place = self.cell("place", DType::I32);
        let first = self.value(x, &at);
        self.assign(&best, first);
        self.assign(&place, Expr::Const(DType::I32, 0.0));
        let rest = shape[axis].saturating_sub(1);
        self.serial("k", rest, |b, k| {
            at[axis] = k + 1usize;
            let position = Expr::Index(at[axis].clone());
            let v = b.value(x, &at);
            let v = b.shared(dtype, v);
            let better = b.cell("better", DType::Bool);
            b.assign(&better, beats(dtype, &v, &best.get()));
            let pick = |a: Expr, c: Expr| Expr::Select(Box::new(better.get()), Box::new(a), Box::new(c));
            b.assign(&best, pick(v, best.get()));
            b.assign(&place, pick(position, place.get()));
        });
        place.get()
    }

    fn gather_element(&mut self, axis: usize, operands: &[NodeId], index: &[Index]) -> Expr {
        let scope = self.scope;
        let rank = self.shape_of(operands[1]).len();
        let at = self.value(operands[1], &index[axis..axis + rank]);
        let mut row = index[..axis].to_vec();
        row.push(Index::default());
        row.extend_from_slice(&index[axis + rank..]);
        match scope.operands.get(&operands[0]) {
            Some(Operand::Splat(dtype, x)) => Expr::Const(*dtype, *x),
            Some(Operand::Memory(place)) => {
                let place = place.clone();
                let buffer = self.bind(&place, Access::Read, "table");
                let index = position(&row, place.layout, self.extents());
                Expr::Gather { buffer, index, axis, at: Box::new(at) }
            }
            None => {
                self.failed = true;
                Expr::Const(DType::F32, 0.0)
            }
        }
    }

    /// Sums `dy` over the indices that stand for the element's row.
    fn gather_grad_element(
        &mut self,
        node: &Node,
        axis: usize,
        operands: &[NodeId],
        index: &[Index],
    ) -> Expr {
        let (dy, indices) = (operands[0], operands[1]);
        let (rows, shape) = (sizes(node)[axis], self.shape_of(indices));
        let sum = self.cell("sum", DType::F32);
        self.assign(&sum, f32(0.0));
        let all: Vec<usize> = (0..shape.len()).collect();
        self.over_axes(&shape, &all, vec![Index::default(); shape.len()], &mut |b, at| {
            let row = b.value(indices, at);
            let last = Expr::Const(DType::I32, rows as f64 - 1.0);
            let row = max(min(row, last), Expr::Const(DType::I32, 0.0));
            let here = Expr::Index(index[axis].clone());
            let hit = Expr::Binary(BinOp::Eq, Box::new(row), Box::new(here));
            let d = b.value(dy, &[&index[..axis], at, &index[axis + 1..]].concat());
            let d = Expr::Select(Box::new(hit), Box::new(d), Box::new(f32(0.0)));
            b.assign(&sum, add(sum.get(), d));
        });
        sum.get()
    }
}

/// `v > best`, where NaN is above all numbers.
fn beats(dtype: DType, v: &Expr, best: &Expr) -> Expr {
    let compare = |op, a: &Expr, b: &Expr| Expr::Binary(op, Box::new(a.clone()), Box::new(b.clone()));
    let above = compare(BinOp::Lt, best, v);
    if dtype != DType::F32 {
        return above;
    }
    let first_nan = Expr::Binary(
        BinOp::And,
        Box::new(compare(BinOp::Ne, v, v)),
        Box::new(compare(BinOp::Eq, best, best)),
    );
    Expr::Binary(BinOp::Or, Box::new(above), Box::new(first_nan))
}

/// What a maximum starts from.
pub(super) fn lowest(dtype: DType) -> Expr {
    match dtype {
        DType::I32 => Expr::Const(dtype, i32::MIN as f64),
        _ => Expr::Const(dtype, f64::NEG_INFINITY),
    }
}

fn highest(dtype: DType) -> Expr {
    match dtype {
        DType::I32 => Expr::Const(dtype, i32::MAX as f64),
        _ => Expr::Const(dtype, f64::INFINITY),
    }
}
