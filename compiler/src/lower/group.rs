//! From a group to kernels: the fast path that fits, else one kernel of generic elements, else a
//! kernel for every node.

use std::collections::{HashMap, HashSet};

use super::access::Place;
use super::builder::{Operand, Scope};
use super::elements::Elements;
use super::elementwise::{is_elementwise, is_movement, sizes};
use super::linear::Linear;
use super::local_norm::LocalNorm;
use super::matmul::MatMul;
use super::pool_blocked::Pooling;
use super::pool_scatter::PoolScatter;
use super::random::Random;
use super::softmax::Softmax;
use super::values::one_pixel;
use super::{LowerError, Lowering, label};
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::Kernel;
use crate::kernel::module::Arg;

/// The most nodes that become one kernel.
const GROUP_LIMIT: usize = 128;

impl<'a> Lowering<'a> {
    /// Lowers nodes whose values, but the last one's, are used among them alone.
    pub(super) fn group(&mut self, nodes: &[NodeId]) -> Result<(), LowerError> {
        let result = nodes[nodes.len() - 1];
        if let Op::Concat(axis) = self.graph.node(result).op
            && nodes.len() == 1
        {
            return self.concat(result, axis);
        }
        let out = self.place(result)?;
        if out.elements() == 0 {
            return Ok(());
        }
        if nodes.len() == 1 && self.weight_grad(result, &out)? {
            return Ok(());
        }
        if let Some((before, after)) = self.pool_apart(nodes) {
            self.group(&before)?;
            return self.group(&after);
        }
        if nodes.len() <= GROUP_LIMIT {
            let scope = self.scope(nodes)?;
            let name = self.kernel_name(nodes);
            let mut results = vec![];
            for id in self.graph.results_of(nodes) {
                results.push((id, self.place(id)?));
            }
            if self.reduction(&scope, &name, nodes, &results)? {
                return Ok(());
            }
            let mut found = None;
            if results.len() == 1 {
                found = match self.separable_parts(nodes) {
                    None => self.dense_conv(&scope, &name, nodes, &out)?,
                    Some(parts) => {
                        let found = self.separable(&scope, &name, &parts, &out)?;
                        if found.is_none() {
                            self.group(&parts.before)?;
                            return self.group(&parts.after);
                        }
                        found
                    }
                };
            }
            if found.is_none() {
                found = self.one_kernel(&scope, &name, nodes, &results)?;
            }
            if let Some((mut kernel, args)) = found {
                kernel.flops = nodes.iter().map(|&n| self.flops(n)).sum();
                self.launch(kernel, args, nodes, self.phase(result));
                return Ok(());
            }
        }
        if nodes.len() == 1 {
            let what = format!("{} of these shapes and layouts", self.graph.node(result).op.name());
            return Err(LowerError::Unsupported { name: label(self.graph, result), what });
        }
        nodes.iter().try_for_each(|n| self.group(std::slice::from_ref(n)))
    }

    /// The convolution with what comes before the group's pooling, and that pooling with what follows, where
    /// the convolution's algorithm asks for two kernels.
    fn pool_apart(&self, nodes: &[NodeId]) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
        if !self.algorithm(nodes)?.pool_apart {
            return None;
        }
        let is_pool = |n: &&NodeId| matches!(self.graph.node(**n).op, Op::MaxPool2d(_) | Op::AvgPool2d(_));
        let pool = *nodes.iter().find(is_pool)?;
        self.cut_after(nodes, self.graph.operands(pool)[0])
    }

    /// A group in two: what a value needs, and the rest, which needs nothing of that but the value.
    pub(super) fn cut_after(&self, nodes: &[NodeId], value: NodeId) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
        let mut before = HashSet::from([value]);
        for &n in nodes.iter().rev() {
            if self.graph.users(n).iter().any(|u| before.contains(u)) {
                before.insert(n);
            }
        }
        let (before, after): (Vec<NodeId>, Vec<NodeId>) = nodes.iter().partition(|n| before.contains(n));
        let crosses = |n: &NodeId| self.graph.users(*n).iter().any(|u| after.contains(u));
        (before.iter().filter(|n| crosses(n)).eq([&value])).then_some((before, after))
    }

    /// The group as one kernel; `None` if it has to be taken apart.
    fn one_kernel(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        nodes: &[NodeId],
        results: &[(NodeId, Place)],
    ) -> Result<Option<(Kernel, Vec<Arg>)>, LowerError> {
        let light =
            |n: &NodeId| is_elementwise(&self.graph.node(*n).op) || is_movement(&self.graph.node(*n).op);
        let anchors: Vec<NodeId> = nodes.iter().copied().filter(|n| !light(n)).collect();
        let lanes = self.target.lanes;
        let (&[anchor], [(result, out)]) = (anchors.as_slice(), results) else {
            return if anchors.is_empty() { self.generic(scope, name, nodes, results) } else { Ok(None) };
        };
        let (result, registers) = (*result, self.target.vector_registers);
        let fast = match self.graph.node(anchor).op {
            Op::Softmax(_) | Op::LogSoftmax(_) => {
                return Ok(Softmax { name, anchor, result, out, lanes }.kernel(scope));
            }
            Op::Philox(ref draw) if nodes.len() == 1 => {
                return Ok(Random { name, draw, node: anchor, out, lanes }.kernel(scope));
            }
            Op::Concat(_) | Op::Philox(_) => return Ok(None),
            Op::Gather(_) => {
                let table = self.graph.operands(anchor)[0];
                let reachable =
                    scope.operands.contains_key(&table) && self.graph.node(table).layout == Layout::Plain;
                if !reachable {
                    return Ok(None);
                }
                None
            }
            Op::Linear => Linear { name, anchor, result, out, lanes }.kernel(scope),
            Op::MatMul => MatMul { name, anchor, result, out, lanes, registers }.kernel(scope),
            Op::MaxPool2d(_) | Op::AvgPool2d(_) => {
                let filled = self.filled(scope, out)?;
                Pooling { name, anchor, result, out, lanes }.kernel(&filled)
            }
            Op::LocalResponseNorm(_) => {
                let filled = self.filled(scope, out)?;
                LocalNorm { name, anchor, result, out, lanes }.kernel(&filled)
            }
            Op::MaxPool2dGrad(_) | Op::AvgPool2dGrad(_) => {
                PoolScatter { name, anchor, result, out, lanes }.kernel(scope)
            }
            _ => None,
        };
        match fast {
            Some(fast) => Ok(Some(fast)),
            None => self.generic(scope, name, nodes, results),
        }
    }

    /// Every element on its own.
    fn generic(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        nodes: &[NodeId],
        results: &[(NodeId, Place)],
    ) -> Result<Option<(Kernel, Vec<Arg>)>, LowerError> {
        let out = &results[0].1;
        if results.iter().any(|(_, p)| p.shape != out.shape || p.layout != out.layout) {
            return Ok(None);
        }
        let elements = out.shape.iter().product::<usize>().max(1);
        let flops: u64 = nodes.iter().map(|&n| self.flops(n)).sum();
        let work = nodes.len() + (flops / elements as u64) as usize;
        let pointwise = |n: &NodeId| {
            let node = self.graph.node(*n);
            let op = is_elementwise(&node.op) && !matches!(node.op, Op::BatchNorm(_));
            op && (sizes(node) == out.shape || sizes(node).iter().all(|&d| d == 1))
        };
        let even = |operand: &Operand| match operand {
            Operand::Splat(..) => true,
            Operand::Memory(p) => {
                let equal = p.shape == out.shape && p.layout == out.layout;
                (equal || p.elements() == 1) && p.is_dense()
            }
        };
        let flat = nodes.iter().all(pointwise) && scope.operands.values().all(even);
        let lanes = self.target.lanes;
        let filled = self.filled(scope, out)?;
        let [(result, out)] = results else {
            return Ok(Elements { name, out, work, flat, lanes }.kernel_of(&filled, results));
        };
        let blocked = self.seen_as_blocked(nodes, out);
        let out = blocked.as_ref().unwrap_or(out);
        let elements = Elements { name, out, work, flat, lanes };
        Ok(elements.kernel(&filled, &|b, index| b.value(*result, index)))
    }

    /// The scope with operands along channels filled up to the blocks of the result.
    fn filled(&mut self, scope: &Scope<'a>, out: &Place) -> Result<Scope<'a>, LowerError> {
        let Layout::Blocked(b) = out.layout else { return Ok(scope.clone()) };
        let channels = out.shape[1];
        self.filled_scope(scope, channels, channels.next_multiple_of(usize::from(b)))
    }

    /// One pixel of full blocks is the same memory in both layouts: it is written in that of the
    /// work before it.
    fn seen_as_blocked(&self, nodes: &[NodeId], out: &Place) -> Option<Place> {
        let layout = self.graph.node(nodes[0]).layout;
        let same = out.layout == Layout::Plain && out.is_dense() && one_pixel(&out.shape, layout);
        if !same {
            return None;
        }
        let dense = Place::dense(out.value, out.dtype, &out.shape, layout);
        Some(Place { offset: out.offset, ..dense })
    }

    /// Copies the operands that have not been placed into the result already.
    pub(super) fn concat(&mut self, id: NodeId, axis: usize) -> Result<(), LowerError> {
        let out = self.place(id)?;
        let mut start = 0;
        for operand in self.graph.operands(id) {
            let node = self.graph.node(operand);
            let size = sizes(node)[axis];
            let placed = node.placement.is_some_and(|p| p.into == id && p.offset == start);
            if !placed && size > 0 {
                match out.part(axis, start, size) {
                    Some(part) => {
                        let from = self.place(operand)?;
                        self.copy(id, &from, &part, self.phase(id));
                    }
                    None => self.copy_channels(id, operand, &out, start)?,
                }
            }
            start += size;
        }
        Ok(())
    }

    /// Copies an operand whose channels do not begin with a block: an element at a time.
    fn copy_channels(
        &mut self,
        id: NodeId,
        operand: NodeId,
        out: &Place,
        start: usize,
    ) -> Result<(), LowerError> {
        let from = self.place(operand)?;
        let scope = Scope { graph: self.graph, members: Default::default(), operands: Default::default() };
        let (kernel, args) = super::elements::copy_channels(&scope, &from, out, start);
        self.launch(kernel, args, &[id], self.phase(id));
        Ok(())
    }

    /// The nodes of a kernel, with all that they read.
    pub(super) fn scope(&mut self, nodes: &[NodeId]) -> Result<Scope<'a>, LowerError> {
        let mut operands = HashMap::new();
        for &n in nodes {
            for operand in self.graph.operands(n) {
                if !nodes.contains(&operand) && !operands.contains_key(&operand) {
                    operands.insert(operand, self.operand(operand)?);
                }
            }
        }
        Ok(Scope { graph: self.graph, members: nodes.iter().copied().collect(), operands })
    }

    /// `conv2d_relu_max_pool2d`
    pub(super) fn kernel_name(&self, nodes: &[NodeId]) -> String {
        let names: Vec<&str> = nodes.iter().map(|&n| self.graph.node(n).op.name()).collect();
        names.join("_")
    }

    /// Floating-point operations of a node: those of contractions and poolings.
    pub(super) fn flops(&self, id: NodeId) -> u64 {
        let graph = self.graph;
        let node = graph.node(id);
        let product = |shape: Vec<usize>| shape.iter().map(|&n| n as u64).product::<u64>();
        let operand = |i: usize| sizes(graph.node(graph.operands(id)[i]));
        let elements = product(sizes(node));
        match &node.op {
            Op::Conv2d(_) => 2 * elements * product(operand(1)[1..].to_vec()),
            Op::ConvTranspose2d(_) => 2 * product(operand(0)) * product(operand(1)[1..].to_vec()),
            Op::Conv2dInputGrad(_) => 2 * product(operand(0)) * product(operand(1)[1..].to_vec()),
            Op::Conv2dWeightGrad(_) => 2 * product(operand(1)) * product(sizes(node)[1..].to_vec()),
            Op::Linear => 2 * elements * operand(1)[1] as u64,
            Op::MatMul => 2 * elements * operand(0).last().copied().unwrap_or(1) as u64,
            Op::MaxPool2d(p) => elements * (p.window.kernel[0] * p.window.kernel[1]) as u64,
            Op::AvgPool2d(p) => elements * (p.window.kernel[0] * p.window.kernel[1]) as u64,
            Op::AdaptiveMaxPool2d(_) | Op::AdaptiveAvgPool2d(_) | Op::Reduce { .. } => product(operand(0)),
            _ => 0,
        }
    }
}
