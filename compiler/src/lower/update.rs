//! Parameters that a run changes: in what order the kernels run, and which of them may write a
//! parameter's next value over the old one.
//!
//! A kernel writes in place if it needs the old value at the element that it computes at most, and
//! if all other kernels that read the old value can run before it. Any other next value gets memory
//! of its own and is copied when everything else is done; a parameter that becomes another one's
//! old value is saved before anything runs.

use std::collections::{BTreeSet, HashMap, HashSet};

use nnc_runtime::program::Phase;

use super::access::Place;
use super::elementwise::{is_elementwise, sizes};
use super::{LowerError, Lowering};
use crate::graph::{Layout, NodeId, Op, Update};
use crate::kernel::module::Role;

/// Nodes that are lowered at once, in the order of their last ones.
pub(super) struct Units {
    pub nodes: Vec<Vec<NodeId>>,
    /// The units that must run before each.
    before: Vec<BTreeSet<usize>>,
    /// The unit that computes a node.
    of: HashMap<NodeId, usize>,
}

impl Units {
    /// The order in which the units run: the given one, save where that is too early.
    pub fn ordered(&self) -> Vec<usize> {
        let mut after = vec![vec![]; self.nodes.len()];
        let mut missing = vec![0; self.nodes.len()];
        for (unit, before) in self.before.iter().enumerate() {
            missing[unit] = before.len();
            before.iter().for_each(|&b| after[b].push(unit));
        }
        let mut ready: BTreeSet<usize> = (0..missing.len()).filter(|&u| missing[u] == 0).collect();
        let mut out = vec![];
        while let Some(unit) = ready.pop_first() {
            out.push(unit);
            for &next in &after[unit] {
                missing[next] -= 1;
                if missing[next] == 0 {
                    ready.insert(next);
                }
            }
        }
        assert_eq!(out.len(), self.nodes.len(), "groups wait for each other: a pass has made a mistake");
        out
    }

    /// Everything that must run before a unit.
    fn all_before(&self, unit: usize) -> HashSet<usize> {
        let (mut found, mut work) = (HashSet::new(), vec![unit]);
        while let Some(u) = work.pop() {
            work.extend(self.before[u].iter().filter(|&&b| found.insert(b)));
        }
        found
    }
}

impl Lowering<'_> {
    /// The units of the graph. Decides, too, which next values are written in place.
    pub(super) fn units(&mut self) -> Units {
        let mut units = Units { nodes: vec![], before: vec![], of: HashMap::new() };
        for id in self.graph.topological() {
            let nodes = match self.grouped.get(&id) {
                Some(nodes) if nodes.last() == Some(&id) => nodes.to_vec(),
                Some(_) => continue,
                None if self.graph.node(id).op.is_source() => continue,
                None => vec![id],
            };
            units.of.extend(nodes.iter().map(|&n| (n, units.nodes.len())));
            units.nodes.push(nodes);
        }
        for (unit, nodes) in units.nodes.iter().enumerate() {
            let operands = nodes.iter().flat_map(|&n| self.graph.operands(n));
            let mut before: BTreeSet<usize> = operands.filter_map(|o| units.of.get(&o).copied()).collect();
            before.remove(&unit);
            units.before.push(before);
        }
        for update in &self.graph.updates {
            if let Some((root, readers)) = self.writes_in_place(&units, update) {
                self.in_place.insert(root, update.parameter);
                units.before[units.of[&root]].extend(readers);
            }
        }
        units
    }

    /// The node that can write the parameter's next value over the old one, and the units that must
    /// run before it.
    fn writes_in_place(&self, units: &Units, update: &Update) -> Option<(NodeId, Vec<usize>)> {
        let root = self.roots[&update.value];
        let node = self.graph.node(root);
        let own = !node.op.is_source()
            && node.layout == Layout::Plain
            && node.placement.is_none()
            && !self.prepared.contains(&root)
            && !self.output_of.contains_key(&root)
            && !self.in_place.contains_key(&root);
        if !own {
            return None;
        }
        let unit = units.of[&root];
        if !self.reads_where_it_writes(&units.nodes[unit], root, update.parameter) {
            return None;
        }
        let reads = |nodes: &Vec<NodeId>| {
            let operands = nodes.iter().filter(|&&n| !self.is_alias(n)).flat_map(|&n| self.graph.operands(n));
            operands.into_iter().any(|o| self.roots[&o] == update.parameter)
        };
        let readers: Vec<usize> =
            (0..units.nodes.len()).filter(|&u| u != unit && reads(&units.nodes[u])).collect();
        let late = readers.iter().any(|&r| units.all_before(r).contains(&unit));
        (!late).then_some((root, readers))
    }

    /// True if the unit needs that element of the parameter at most, for every element of a result.
    fn reads_where_it_writes(&self, nodes: &[NodeId], result: NodeId, parameter: NodeId) -> bool {
        let result = sizes(self.graph.node(result));
        let mut depends = HashSet::new();
        for &n in nodes {
            let node = self.graph.node(n);
            let reads = |o: &NodeId| self.roots[o] == parameter || depends.contains(o);
            let old: Vec<NodeId> = self.graph.operands(n).into_iter().filter(reads).collect();
            if old.is_empty() {
                continue;
            }
            let same = |&o: &NodeId| sizes(self.graph.node(o)) == result;
            let pointwise = is_elementwise(&node.op) && !matches!(node.op, Op::BatchNorm(_));
            if !pointwise || !same(&n) || !old.iter().all(same) {
                return false;
            }
            depends.insert(n);
        }
        true
    }

    /// True for nodes whose memory is that of a parameter which the run changes.
    pub(super) fn is_state(&self, id: NodeId) -> bool {
        self.graph.is_updated(self.roots[&id])
    }

    /// Places the parameters that change, used or not, and saves old values that others become.
    pub(super) fn save_old_values(&mut self) -> Result<HashMap<NodeId, Place>, LowerError> {
        let mut saved = HashMap::new();
        for update in &self.graph.updates {
            self.place(update.parameter)?;
            let root = self.roots[&update.value];
            if root == update.parameter || !self.is_state(update.value) {
                continue;
            }
            let node = self.graph.node(update.value);
            let (dtype, shape) = (node.ty.dtype, sizes(node));
            let value = self.new_value(&node.name, dtype, &shape, Role::Temporary);
            let to = Place::dense(value, dtype, &shape, Layout::Plain);
            let from = self.place(update.value)?;
            self.copy(update.value, &from, &to, Phase::Run);
            saved.insert(update.parameter, to);
        }
        Ok(saved)
    }

    /// Copies the next values that are not where they belong.
    pub(super) fn updates(&mut self, saved: &HashMap<NodeId, Place>) -> Result<(), LowerError> {
        for update in &self.graph.updates {
            let root = self.roots[&update.value];
            if root == update.parameter || self.in_place.get(&root) == Some(&update.parameter) {
                continue;
            }
            let from = match saved.get(&update.parameter) {
                Some(place) => place.clone(),
                None => self.place(update.value)?,
            };
            let to = self.place(update.parameter)?;
            self.copy(update.value, &from, &to, Phase::Run);
        }
        Ok(())
    }
}
