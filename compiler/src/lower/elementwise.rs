//! Values as expressions: what a node of the group is at a logical index.
//!
//! [`Builder::value`] is pulled by whoever needs an element. Elementwise and movement operations
//! become expressions (movement only maps the index); the others emit loops that leave the
//! element in a register. A value that is used twice at the same index is computed once.

use nnc_runtime::DType;

use super::builder::{Builder, Operand};
use crate::graph::op::{BatchNorm, Binary, Unary};
use crate::graph::{Node, NodeId, Op};
use crate::kernel::{BinOp, Expr, Guard, Index, UnOp};

/// True for operations that compute an element from the elements at the same (or a broadcast)
/// index of their operands.
pub(super) fn is_elementwise(op: &Op) -> bool {
    match op {
        Op::Unary(_) | Op::Binary(_) | Op::Where | Op::Cast(_) => true,
        Op::Dropout(_) | Op::StopGradient | Op::Relayout => true,
        Op::BatchNorm(b) => !b.training,
        _ => false,
    }
}

/// True for operations whose elements are elements of the operands: they cost an index map.
pub(super) fn is_movement(op: &Op) -> bool {
    matches!(
        op,
        Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Slice { .. }
            | Op::Reverse(_)
            | Op::Pad { .. }
            | Op::Broadcast(_)
            | Op::OneHot(_)
    )
}

/// The sizes of a node's value; the driver has checked that they are known.
pub(super) fn sizes(node: &Node) -> Vec<usize> {
    node.ty.sizes().unwrap_or_default()
}

impl Builder<'_> {
    /// The node's element at an index.
    pub fn value(&mut self, id: NodeId, index: &[Index]) -> Expr {
        if let Some((_, _, e)) = self.memo.iter().rev().find(|(n, at, _)| *n == id && at == index) {
            return e.clone();
        }
        if !self.scope.members.contains(&id) {
            return self.operand_value(id, index);
        }
        let graph = self.scope.graph;
        let node = graph.node(id);
        let operands = graph.operands(id);
        let all = graph.users(id);
        let within = all.iter().filter(|u| self.scope.members.contains(u)).count();
        // A result among the members is stored, too.
        let users = within + usize::from(within < all.len() || within > 0 && graph.is_output(id));
        let cheap = is_elementwise(&node.op) || is_movement(&node.op);
        let value = match &node.op {
            Op::Unary(f) => {
                let x = self.value_like(operands[0], node, index);
                self.unary(*f, x, node.ty.dtype)
            }
            Op::Binary(f) => {
                let a = self.value_like(operands[0], node, index);
                let b = self.value_like(operands[1], node, index);
                binary(*f, a, b)
            }
            Op::Where => {
                let [c, a, b] = [0, 1, 2].map(|i| self.value_like(operands[i], node, index));
                Expr::Select(Box::new(c), Box::new(a), Box::new(b))
            }
            Op::Cast(to) => {
                let x = self.value(operands[0], index);
                match graph.node(operands[0]).ty.dtype == *to {
                    true => x,
                    false => Expr::Cast(*to, Box::new(x)),
                }
            }
            Op::Dropout(_) | Op::StopGradient | Op::Relayout => self.value(operands[0], index),
            Op::BatchNorm(b) => self.batch_norm(id, b, &operands, index),
            _ if cheap => self.moved(node, &operands, index),
            _ => self.computed(id, node, &operands, index),
        };
        if cheap && users < 2 {
            return value;
        }
        let shared = self.shared(node.ty.dtype, value);
        self.memo.push((id, index.to_vec(), shared.clone()));
        shared
    }

    fn operand_value(&mut self, id: NodeId, index: &[Index]) -> Expr {
        let scope = self.scope;
        match scope.operands.get(&id) {
            Some(Operand::Splat(dtype, x)) => Expr::Const(*dtype, *x),
            Some(Operand::Memory(place)) => {
                let name = operand_name(scope.graph.node(id));
                match self.flat.clone() {
                    Some(flat) => self.load_flat(place, &name, flat),
                    None => self.load(place, &name, index),
                }
            }
            // Not reachable: the driver collects the operands of all members.
            None => {
                self.failed = true;
                Expr::Const(scope.graph.node(id).ty.dtype, 0.0)
            }
        }
    }

    /// The element that broadcasting pairs with an index of `like`.
    fn value_like(&mut self, id: NodeId, like: &Node, index: &[Index]) -> Expr {
        if self.flat.is_some() {
            return self.value(id, index);
        }
        let from = sizes(self.scope.graph.node(id));
        let at = broadcast_index(&from, like.ty.rank(), index);
        self.value(id, &at)
    }

    fn batch_norm(&mut self, id: NodeId, of: &BatchNorm, operands: &[NodeId], index: &[Index]) -> Expr {
        let x = self.value(operands[0], index);
        let channel = [index[1].clone()];
        let [bias, mean] = [2, 3].map(|i| self.value(operands[i], &channel));
        let scale = self.batch_norm_scale(id, of, operands, &channel);
        fma(sub(x, mean), scale, bias)
    }

    /// `weight / sqrt(var + eps)`: remembered as what the node is at an index of a channel alone.
    fn batch_norm_scale(
        &mut self,
        id: NodeId,
        of: &BatchNorm,
        operands: &[NodeId],
        channel: &[Index; 1],
    ) -> Expr {
        if let Some((_, _, e)) = self.memo.iter().rev().find(|(n, at, _)| *n == id && at == channel) {
            return e.clone();
        }
        let [weight, var] = [1, 4].map(|i| self.value(operands[i], channel));
        div(weight, unary(UnOp::Sqrt, add(var, f32(of.eps))))
    }

    /// Keeps an element in a register, for everything in this block that needs it.
    pub fn keep(&mut self, id: NodeId, index: &[Index]) {
        let value = self.value(id, index);
        self.remember(id, index, value);
    }

    fn remember(&mut self, id: NodeId, index: &[Index], value: Expr) {
        if !matches!(value, Expr::Const(..)) {
            let kept = self.shared(self.scope.graph.node(id).ty.dtype, value);
            self.memo.push((id, index.to_vec(), kept));
        }
    }

    /// Computes what elementwise members of that shape need of values that have channels alone, or one
    /// element: loops over the other dimensions find it in registers. `at` is the index of any element.
    pub fn hoist(&mut self, shape: &[usize], at: &[Index], channel: usize) {
        let graph = self.scope.graph;
        let mut members: Vec<NodeId> = self.scope.members.iter().copied().collect();
        members.sort();
        for id in members {
            let node = graph.node(id);
            if sizes(node) != shape || !is_elementwise(&node.op) {
                continue;
            }
            let operands = graph.operands(id);
            let normalises = matches!(node.op, Op::BatchNorm(_));
            for (i, &operand) in operands.iter().enumerate() {
                let from = sizes(graph.node(operand));
                let small = from.iter().rev().zip(shape.iter().rev()).enumerate();
                let mut others = small.filter(|(d, _)| shape.len() - 1 - d != channel);
                let along = others.all(|(_, (&n, _))| n == 1);
                let needed = match (normalises, i) {
                    (true, 2 | 3) => Some(vec![at[channel].clone()]),
                    (true, _) => None,
                    (false, _) if from == shape || !along => None,
                    _ => Some(broadcast_index(&from, shape.len(), at)),
                };
                let Some(index) = needed else { continue };
                if graph.node(operand).ty.dtype == DType::F32 && !self.scope.members.contains(&operand) {
                    self.keep(operand, &index);
                }
            }
            if let Op::BatchNorm(of) = &node.op {
                let channel = [at[channel].clone()];
                let scale = self.batch_norm_scale(id, of, &operands, &channel);
                self.remember(id, &channel, scale);
            }
        }
    }

    /// An element of a movement operation.
    fn moved(&mut self, node: &Node, operands: &[NodeId], index: &[Index]) -> Expr {
        let x = operands[0];
        let from = sizes(self.scope.graph.node(x));
        match &node.op {
            Op::Reshape(_) => {
                let at = reshape_index(&sizes(node), &from, index, self.extents());
                self.value(x, &at)
            }
            Op::Transpose(order) => {
                let mut at = vec![Index::default(); order.len()];
                for (i, &axis) in index.iter().zip(order) {
                    at[axis] = i.clone();
                }
                self.value(x, &at)
            }
            Op::Slice { axis, start, step, .. } => {
                let mut at = index.to_vec();
                let start = start.known().unwrap_or(0);
                at[*axis] = at[*axis].clone() * *step as i64 + Index::from(start);
                self.value(x, &at)
            }
            Op::Reverse(axes) => {
                let mut at = index.to_vec();
                for &axis in axes {
                    at[axis] = Index::from(from[axis] as i64 - 1) - at[axis].clone();
                }
                self.value(x, &at)
            }
            Op::Pad { pads, value } => {
                let mut guards = vec![];
                let mut at = vec![];
                for (axis, i) in index.iter().enumerate() {
                    let mut inner = i.clone() - pads[axis].before;
                    let step = pads[axis].interior + 1;
                    if step > 1 {
                        let rest = inner.rem(step, self.extents());
                        guards.extend(Guard::between(&rest, 0, 1, self.extents()));
                        inner = inner.div(step, self.extents());
                    }
                    guards.extend(Guard::between(&inner, 0, from[axis] as i64, self.extents()));
                    at.push(inner);
                }
                let otherwise = Expr::Const(node.ty.dtype, *value);
                self.guarded(guards, otherwise, |b| b.value(x, &at))
            }
            Op::OneHot(_) => {
                let (class, at) = (&index[index.len() - 1], &index[..index.len() - 1]);
                let hot = self.value(x, at);
                let is_hot = Expr::Binary(BinOp::Eq, Box::new(hot), Box::new(Expr::Index(class.clone())));
                let dtype = node.ty.dtype;
                let (one, zero) = (Expr::Const(dtype, 1.0), Expr::Const(dtype, 0.0));
                Expr::Select(Box::new(is_hot), Box::new(one), Box::new(zero))
            }
            _ => self.value_like(x, node, index),
        }
    }

    fn unary(&mut self, f: Unary, x: Expr, dtype: DType) -> Expr {
        match f {
            Unary::Neg => unary(UnOp::Neg, x),
            Unary::Abs => unary(UnOp::Abs, x),
            Unary::Exp => unary(UnOp::Exp, x),
            Unary::Log => unary(UnOp::Log, x),
            Unary::Sqrt => unary(UnOp::Sqrt, x),
            Unary::Rsqrt => div(f32(1.0), unary(UnOp::Sqrt, x)),
            Unary::Tanh => unary(UnOp::Tanh, x),
            Unary::Sigmoid => unary(UnOp::Sigmoid, x),
            Unary::Relu => unary(UnOp::Relu, x),
            Unary::Erf => unary(UnOp::Erf, x),
            Unary::Floor => unary(UnOp::Floor, x),
            Unary::Not => unary(UnOp::Not, x),
            Unary::LeakyRelu(slope) => {
                let x = self.shared(dtype, x);
                where_positive(x.clone(), x.clone(), mul(f32(slope), x))
            }
            Unary::Elu(alpha) => {
                let x = self.shared(dtype, x);
                let low = mul(f32(alpha), sub(unary(UnOp::Exp, x.clone()), f32(1.0)));
                where_positive(x.clone(), x, low)
            }
            Unary::Gelu => {
                let x = self.shared(dtype, x);
                let erf = unary(UnOp::Erf, mul(x.clone(), f32(std::f64::consts::FRAC_1_SQRT_2)));
                mul(mul(f32(0.5), x), add(f32(1.0), erf))
            }
            Unary::Silu => {
                let x = self.shared(dtype, x);
                mul(x.clone(), unary(UnOp::Sigmoid, x))
            }
            Unary::HardSwish => {
                let x = self.shared(dtype, x);
                div(mul(x.clone(), clamp(add(x, f32(3.0)), 0.0, 6.0)), f32(6.0))
            }
            Unary::HardSigmoid => div(clamp(add(x, f32(3.0)), 0.0, 6.0), f32(6.0)),
            Unary::Sign => {
                let x = self.shared(dtype, x);
                let (zero, one) = (Expr::Const(dtype, 0.0), Expr::Const(dtype, 1.0));
                let minus = Expr::Const(dtype, -1.0);
                let negative = Expr::Binary(BinOp::Lt, Box::new(x.clone()), Box::new(zero.clone()));
                let rest = Expr::Select(Box::new(negative), Box::new(minus), Box::new(x.clone()));
                let positive = Expr::Binary(BinOp::Lt, Box::new(zero), Box::new(x));
                Expr::Select(Box::new(positive), Box::new(one), Box::new(rest))
            }
            Unary::Clamp(low, high) => clamp_as(dtype, x, low, high),
        }
    }
}

/// The name of an operand's buffer.
fn operand_name(node: &Node) -> String {
    let last = node.name.rsplit('.').next().unwrap_or_default();
    let word = !last.is_empty() && last.chars().all(|c| c.is_alphanumeric() || c == '_');
    match &node.op {
        Op::Parameter(_) if word && !last.starts_with(|c: char| c.is_numeric()) => last.to_string(),
        _ => "x".to_string(),
    }
}

/// The index into a tensor of shape `from` that broadcasting to `rank` dimensions makes of `index`.
pub(super) fn broadcast_index(from: &[usize], rank: usize, index: &[Index]) -> Vec<Index> {
    let skipped = rank - from.len();
    let pick =
        |(axis, &n): (usize, &usize)| if n == 1 { Index::default() } else { index[skipped + axis].clone() };
    from.iter().enumerate().map(pick).collect()
}

/// The index into shape `to` of the element that is at `index` in shape `from`.
pub(super) fn reshape_index(
    from: &[usize],
    to: &[usize],
    index: &[Index],
    extents: &crate::kernel::Extents,
) -> Vec<Index> {
    let mut linear = Index::default();
    for (i, &n) in index.iter().zip(from) {
        linear = linear * n as i64 + i.clone();
    }
    let mut out = vec![Index::default(); to.len()];
    for axis in (0..to.len()).rev() {
        let size = to[axis].max(1);
        let outermost = to[..axis].iter().all(|&n| n == 1);
        out[axis] = if outermost { linear.clone() } else { linear.rem(size, extents) };
        linear = if outermost { Index::default() } else { linear.div(size, extents) };
    }
    out
}

/// An f32 constant, rounded.
pub(super) fn f32(x: f64) -> Expr {
    constant(DType::F32, x)
}

pub(super) fn unary(op: UnOp, x: Expr) -> Expr {
    Expr::Unary(op, Box::new(x))
}

pub(super) fn add(a: Expr, b: Expr) -> Expr {
    Expr::Binary(BinOp::Add, Box::new(a), Box::new(b))
}

pub(super) fn sub(a: Expr, b: Expr) -> Expr {
    Expr::Binary(BinOp::Sub, Box::new(a), Box::new(b))
}

pub(super) fn mul(a: Expr, b: Expr) -> Expr {
    Expr::Binary(BinOp::Mul, Box::new(a), Box::new(b))
}

pub(super) fn div(a: Expr, b: Expr) -> Expr {
    Expr::Binary(BinOp::Div, Box::new(a), Box::new(b))
}

pub(super) fn max(a: Expr, b: Expr) -> Expr {
    Expr::Binary(BinOp::Max, Box::new(a), Box::new(b))
}

pub(super) fn min(a: Expr, b: Expr) -> Expr {
    Expr::Binary(BinOp::Min, Box::new(a), Box::new(b))
}

pub(super) fn fma(a: Expr, b: Expr, c: Expr) -> Expr {
    Expr::Fma(Box::new(a), Box::new(b), Box::new(c))
}

fn clamp(x: Expr, low: f64, high: f64) -> Expr {
    clamp_as(DType::F32, x, low, high)
}

fn clamp_as(dtype: DType, x: Expr, low: f64, high: f64) -> Expr {
    // Rounded to what the type holds; an infinite end is no end. A constant that comes first can be
    // no NaN, which leaves one instruction.
    let mut x = x;
    if low > f64::NEG_INFINITY {
        x = max(constant(dtype, low), x);
    }
    if high < f64::INFINITY {
        x = min(constant(dtype, high), x);
    }
    x
}

/// A constant, rounded to its type.
pub(super) fn constant(dtype: DType, x: f64) -> Expr {
    let x = match dtype {
        DType::F32 => x as f32 as f64,
        DType::F64 => x,
        DType::I32 => x as i32 as f64,
        DType::Bool => f64::from(x != 0.0),
    };
    Expr::Const(dtype, x)
}

fn where_positive(x: Expr, then: Expr, otherwise: Expr) -> Expr {
    let positive = Expr::Binary(BinOp::Lt, Box::new(f32(0.0)), Box::new(x));
    Expr::Select(Box::new(positive), Box::new(then), Box::new(otherwise))
}

fn binary(f: Binary, a: Expr, b: Expr) -> Expr {
    let (op, a, b) = match f {
        Binary::Add => (BinOp::Add, a, b),
        Binary::Sub => (BinOp::Sub, a, b),
        Binary::Mul => (BinOp::Mul, a, b),
        Binary::Div => (BinOp::Div, a, b),
        Binary::Pow => (BinOp::Pow, a, b),
        Binary::Max => (BinOp::Max, a, b),
        Binary::Min => (BinOp::Min, a, b),
        Binary::Eq => (BinOp::Eq, a, b),
        Binary::Ne => (BinOp::Ne, a, b),
        Binary::Lt => (BinOp::Lt, a, b),
        Binary::Le => (BinOp::Le, a, b),
        Binary::Gt => (BinOp::Lt, b, a),
        Binary::Ge => (BinOp::Le, b, a),
        Binary::And => (BinOp::And, a, b),
        Binary::Or => (BinOp::Or, a, b),
    };
    Expr::Binary(op, Box::new(a), Box::new(b))
}
