//! The graph's text form: one node a line, operands before users, numbered in that order. What
//! passes have decided stands where it belongs: members of a group in the group's block, layouts
//! behind types, placements behind those. [`parse`](super::parse::parse) reads it back; source
//! positions are not part of it.
//!
//! ```text
//! graph tiny {
//!   %0 = input "image" : f32[N, 1, 28, 28]
//!   %1 = parameter "conv1.weight" {init=he_uniform(0.577)} : f32[6, 1, 5, 5]
//!   group g0 conv2d + relu {
//!     %2 = conv2d %0, %1 {padding=2x2} : f32[N, 6, 28, 28] anchor @conv1
//!     %3 = relu %2 : f32[N, 6, 28, 28] blocked8
//!   }
//!   output features = %3
//! }
//! ```
//!
//! A training step ends with what its parameters hold afterwards: `update %1 = %40`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::text::quote_name;
use super::{Graph, Layout, NodeId, Op};

/// The text form of a graph.
pub fn print(graph: &Graph) -> String {
    graph.to_string()
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = order(self);
        let numbers: HashMap<NodeId, usize> =
            units.iter().flat_map(|u| &u.nodes).enumerate().map(|(i, &id)| (id, i)).collect();
        writeln!(f, "graph {} {{", quote_name(&self.name))?;
        for unit in &units {
            let Some(g) = unit.group else {
                unit.nodes.iter().try_for_each(|&id| writeln!(f, "  {}", line(self, id, &numbers)))?;
                continue;
            };
            let names: Vec<&str> = unit.nodes.iter().map(|&id| self.node(id).op.name()).collect();
            writeln!(f, "  group g{g} {} {{", names.join(" + "))?;
            for &id in &unit.nodes {
                writeln!(f, "    {}", line(self, id, &numbers))?;
            }
            writeln!(f, "  }}")?;
        }
        for o in &self.outputs {
            writeln!(f, "  output {} = {}", quote_name(&o.name), number(&numbers, o.node))?;
        }
        for u in &self.updates {
            let (parameter, value) = (number(&numbers, u.parameter), number(&numbers, u.value));
            writeln!(f, "  update {parameter} = {value}")?;
        }
        writeln!(f, "}}")
    }
}

/// `%3`; a node that is not there, in a broken graph, is `%?`.
fn number(numbers: &HashMap<NodeId, usize>, id: NodeId) -> String {
    numbers.get(&id).map_or("%?".to_string(), |n| format!("%{n}"))
}

fn line(graph: &Graph, id: NodeId, numbers: &HashMap<NodeId, usize>) -> String {
    let node = graph.node(id);
    let mut out = format!("{} = {}", number(numbers, id), node.op.name());
    let named_first = matches!(node.op, Op::Input | Op::Parameter(_));
    if named_first {
        out += &format!(" {:?}", node.name);
    }
    let operands: Vec<String> = graph.operands(id).iter().map(|&o| number(numbers, o)).collect();
    if !operands.is_empty() {
        out += &format!(" {}", operands.join(", "));
    }
    let attributes = node.op.attributes();
    if !attributes.is_empty() {
        out += &format!(" {{{attributes}}}");
    }
    out += &format!(" : {}", node.ty);
    match node.layout {
        Layout::Plain => {}
        Layout::Blocked(n) => out += &format!(" blocked{n}"),
        Layout::ChannelsLast => out += " channels_last",
    }
    if node.group.and_then(|g| graph.groups.get(g.0 as usize)).is_some_and(|g| g.anchor == Some(id)) {
        out += " anchor";
    }
    if let Some(p) = node.placement {
        out += &format!(" into {} at {}", number(numbers, p.into), p.offset);
    }
    if !named_first && !node.name.is_empty() {
        out += &format!(" @{}", quote_name(&node.name));
    }
    out
}

/// Nodes that are printed together.
struct Unit {
    group: Option<usize>,
    nodes: Vec<NodeId>,
}

/// All nodes, groups in one piece and in their order, operands before users as far as that is
/// possible; among what is possible, by id. Nothing is lost even of a broken graph.
fn order(graph: &Graph) -> Vec<Unit> {
    let mut units: Vec<Unit> = vec![];
    let mut unit_of: HashMap<NodeId, usize> = HashMap::new();
    for (g, group) in graph.groups.iter().enumerate() {
        let fresh = |id: &NodeId| graph.contains(*id) && !unit_of.contains_key(id);
        let mut nodes: Vec<NodeId> = group.nodes.iter().copied().filter(fresh).collect();
        let mut seen = BTreeSet::new();
        nodes.retain(|&id| seen.insert(id));
        unit_of.extend(nodes.iter().map(|&id| (id, g)));
        units.push(Unit { group: Some(g), nodes });
    }
    for id in graph.ids() {
        unit_of.entry(id).or_insert_with(|| {
            units.push(Unit { group: None, nodes: vec![id] });
            units.len() - 1
        });
    }
    // What each unit waits for: the units of its operands, and the group before it.
    let mut waits: Vec<BTreeSet<usize>> = units
        .iter()
        .enumerate()
        .map(|(u, unit)| {
            let operands = unit.nodes.iter().flat_map(|&id| graph.operands(id)).map(|o| unit_of[&o]);
            let group_before = unit.group.and_then(|g| g.checked_sub(1));
            operands.chain(group_before).filter(|&other| other != u).collect()
        })
        .collect();
    let mut followers: Vec<Vec<usize>> = vec![vec![]; units.len()];
    for (u, waits) in waits.iter().enumerate() {
        waits.iter().for_each(|&w| followers[w].push(u));
    }
    let key = |u: usize| (units[u].nodes.iter().min().copied().unwrap_or_default(), u);
    let mut ready: BTreeSet<_> = (0..units.len()).filter(|&u| waits[u].is_empty()).map(key).collect();
    let mut left: BTreeSet<_> = (0..units.len()).map(key).collect();
    let mut sequence = vec![];
    while let Some(next) = ready.pop_first().or_else(|| left.first().copied()) {
        if !left.remove(&next) {
            continue;
        }
        sequence.push(next.1);
        for &u in &followers[next.1] {
            waits[u].remove(&next.1);
            if waits[u].is_empty() {
                ready.insert(key(u));
            }
        }
    }
    let mut by_index: BTreeMap<usize, Unit> = units.into_iter().enumerate().collect();
    sequence.iter().filter_map(|u| by_index.remove(u)).collect()
}
