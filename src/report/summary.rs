//! A net as a table: an operation a row, with its shape, parameters and multiply-accumulates.

use std::collections::{HashMap, HashSet};
use std::fmt;

use nnc_compiler::graph::{Graph, NodeId, Op};

use super::table::{Align, Table, bytes, thousands};
use crate::Network;

/// A row of a [`Summary`].
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The author's name for the layer; may be empty.
    pub layer: String,
    /// The operation: `conv2d`.
    pub operation: &'static str,
    /// The shape of its result: `f32[1, 64, 112, 112]`.
    pub shape: String,
    /// Elements of the parameters that it is the first to use.
    pub parameters: u64,
    /// Multiply-accumulate operations of one run.
    pub macs: u64,
}

/// Sums over a net.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Elements of the parameters that training changes by gradients.
    pub trainable: u64,
    /// Elements of the others: running statistics.
    pub statistics: u64,
    /// Bytes of all parameters.
    pub bytes: u64,
    /// Multiply-accumulate operations of one run.
    pub macs: u64,
}

/// See the module's head. `Display` draws it.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The net's name.
    pub name: String,
    /// Inputs and operations in source order.
    pub rows: Vec<Row>,
    /// Sums over all of them.
    pub totals: Totals,
}

/// The summary of a net. Sizes that are not known count as nothing in the numbers.
pub fn summary(network: &Network) -> Summary {
    let graph = network.graph();
    let order = graph.topological();
    let shown: HashSet<NodeId> = depends_on_input(graph, &order);
    let owners = owners(graph, &order, &shown);
    let mut rows = vec![];
    for &id in order.iter().filter(|id| shown.contains(id)) {
        let node = graph.node(id);
        let parameters = owners.get(&id).map_or(0, |ps| ps.iter().map(|&p| elements(graph, p)).sum());
        rows.push(Row {
            layer: node.name.clone(),
            operation: node.op.name(),
            shape: node.ty.to_string(),
            parameters,
            macs: macs(graph, id),
        });
    }
    let mut totals = Totals { macs: rows.iter().map(|r| r.macs).sum(), ..Totals::default() };
    for id in graph.parameters() {
        let (node, count) = (graph.node(id), elements(graph, id));
        totals.bytes += count * node.ty.dtype.size() as u64;
        match &node.op {
            Op::Parameter(p) if !p.trainable => totals.statistics += count,
            _ => totals.trainable += count,
        }
    }
    Summary { name: graph.name.clone(), rows, totals }
}

/// Inputs and what is computed from them: everything but the preparation of weights.
fn depends_on_input(graph: &Graph, order: &[NodeId]) -> HashSet<NodeId> {
    let mut out = HashSet::new();
    for &id in order {
        let source = matches!(graph.node(id).op, Op::Input | Op::Random(_));
        if source || graph.operands(id).iter().any(|o| out.contains(o)) {
            out.insert(id);
        }
    }
    out
}

/// For every row, the parameters that it is the first to use, directly or through the preparation
/// of weights.
fn owners(graph: &Graph, order: &[NodeId], shown: &HashSet<NodeId>) -> HashMap<NodeId, Vec<NodeId>> {
    let mut owners: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
    let mut owned = HashSet::new();
    for &id in order.iter().filter(|id| shown.contains(id)) {
        let mut open = graph.operands(id);
        while let Some(o) = open.pop() {
            if shown.contains(&o) || !owned.insert(o) {
                continue;
            }
            match graph.node(o).op {
                Op::Parameter(_) => owners.entry(id).or_default().push(o),
                _ => open.extend(graph.operands(o)),
            }
        }
    }
    owners
}

fn elements(graph: &Graph, id: NodeId) -> u64 {
    graph.node(id).ty.sizes().map_or(0, |s| s.iter().map(|&n| n as u64).product())
}

/// Multiply-accumulate operations of convolutions and matrix products; 0 for all else.
pub fn macs(graph: &Graph, id: NodeId) -> u64 {
    let operands = graph.operands(id);
    let size = |i: usize| operands.get(i).map_or(0, |&o| elements(graph, o));
    let dim = |i: usize, axis_from_end: usize| {
        let shape = operands.get(i).map(|&o| &graph.node(o).ty.shape);
        let at = shape.and_then(|s| s.len().checked_sub(axis_from_end).map(|a| s[a].size().unwrap_or(0)));
        at.unwrap_or(0) as u64
    };
    let out = elements(graph, id);
    match &graph.node(id).op {
        // Every output element sums over the weight's elements of its own channel.
        Op::Conv2d(_) => out * dim(1, 3) * dim(1, 2) * dim(1, 1),
        // Every input element is spread over the weight's elements of its channel.
        Op::ConvTranspose2d(_) => size(0) * dim(1, 3) * dim(1, 2) * dim(1, 1),
        Op::Linear | Op::MatMul => out * dim(0, 1),
        _ => 0,
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            ("layer", Align::Left),
            ("operation", Align::Left),
            ("output", Align::Left),
            ("parameters", Align::Right),
            ("MACs", Align::Right),
        ]);
        let count = |n: u64| if n == 0 { String::new() } else { thousands(n) };
        for row in &self.rows {
            table.row(vec![
                row.layer.clone(),
                row.operation.to_string(),
                row.shape.clone(),
                count(row.parameters),
                count(row.macs),
            ]);
        }
        let t = &self.totals;
        writeln!(f, "net {}", self.name)?;
        writeln!(f)?;
        write!(f, "{table}")?;
        write!(f, "parameters  {} ({})", thousands(t.trainable), bytes(t.bytes))?;
        if t.statistics > 0 {
            write!(f, ", and {} running statistics", thousands(t.statistics))?;
        }
        writeln!(f)?;
        writeln!(f, "MACs        {}", thousands(t.macs))
    }
}
