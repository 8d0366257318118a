//! Lets groups that work on the same values share a pass over memory: two become one, with several
//! results.
//!
//! ```text
//! group g0 reduce_sum { %3 = .. %1 }             group g0 reduce_sum + mul + reduce_sum {
//! group g1 mul + reduce_sum {                →     %3 = reduce_sum %1 ..  anchor
//!   %4 = mul %1, %2                                %4 = mul %1, %2
//!   %5 = reduce_sum %4 }                           %5 = reduce_sum %4 .. }
//! ```
//!
//! Joined are
//! - sums over the same axes that read a value of the same size: the statistics of a normalisation,
//!   and the sums of its gradient;
//! - elementwise groups of one shape, if one reads the other's result: momentum, and the parameter
//!   that follows it;
//! - such a group with the sums whose result it reads, if it has their shape.
//!
//! Nothing outside may lie between the two. The prepare phase is left alone: it runs once.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Report, is_elementwise, label, prepared};
use crate::graph::{Graph, Group, GroupId, NodeId, Op, Shape};

/// The most nodes of a joined group: bounds registers and code.
const NODE_LIMIT: usize = 24;

/// The most values that a joined group reads from memory, and that it gives.
const VALUE_LIMIT: usize = 12;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Report {
    let mut report = Report::new("share");
    let prepared = prepared(graph);
    let groups: Vec<Option<Group>> = graph.groups.iter().cloned().map(Some).collect();
    let mut member_of = HashMap::new();
    for (g, group) in graph.groups.iter().enumerate() {
        member_of.extend(group.nodes.iter().map(|&n| (n, g)));
    }
    let position: HashMap<NodeId, usize> =
        graph.topological().into_iter().enumerate().map(|(i, n)| (n, i)).collect();
    let mut sharing = Sharing { graph, position, groups, member_of };
    for g in 0..sharing.groups.len() {
        let once = |group: &Group| prepared.contains(&group.nodes[0]);
        if sharing.groups[g].as_ref().is_some_and(once) {
            continue;
        }
        while let Some(other) = sharing.partner(g, &prepared) {
            sharing.join(g, other);
            report.changes += 1;
        }
    }
    let (groups, joined) = sharing.ordered();
    for &at in &joined {
        let group = groups.iter().find(|g| g.nodes.contains(&at)).expect("it is in one");
        let results: Vec<String> = graph.results_of(&group.nodes).iter().map(|&n| label(graph, n)).collect();
        report.remark(graph, at, format!("{} are computed in one pass", results.join(", ")));
    }
    for (g, group) in groups.iter().enumerate() {
        for &n in &group.nodes {
            graph.node_mut(n).group = Some(GroupId(g as u32));
        }
    }
    graph.groups = groups;
    report
}

/// What a group runs over, if it can share that.
#[derive(PartialEq)]
enum Kind {
    /// Elementwise work of that shape, and whether it lies in blocks.
    Elementwise(Shape, crate::graph::Layout),
    /// Sums over these axes of values like that one.
    Sums(Vec<usize>, bool, NodeId),
}

struct Sharing<'g> {
    graph: &'g Graph,
    position: HashMap<NodeId, usize>,
    /// None for those that have joined another.
    groups: Vec<Option<Group>>,
    member_of: HashMap<NodeId, usize>,
}

impl Sharing<'_> {
    /// An earlier or later group that this one can be joined with.
    fn partner(&self, g: usize, prepared: &HashSet<NodeId>) -> Option<usize> {
        let group = self.groups[g].as_ref()?;
        let kind = self.kind(group)?;
        let mut near: BTreeSet<usize> = BTreeSet::new();
        for &n in &group.nodes {
            for operand in self.graph.operands(n) {
                near.extend(self.member_of.get(&operand));
                // Groups that read the same value.
                if matches!(kind, Kind::Sums(..)) {
                    near.extend(self.graph.users(operand).iter().filter_map(|u| self.member_of.get(u)));
                }
            }
        }
        near.remove(&g);
        near.into_iter().find(|&other| {
            let Some(partner) = &self.groups[other] else { return false };
            !prepared.contains(&partner.nodes[0])
                && self.kind(partner).is_some_and(|k| self.fit(&k, partner, &kind, group))
                && self.is_small(partner, group)
                && !self.lies_between(other, g)
                && !self.lies_between(g, other)
        })
    }

    fn kind(&self, group: &Group) -> Option<Kind> {
        let node = |n: &NodeId| self.graph.node(*n);
        let shape_of = |n: &NodeId| node(n).ty.shape.clone();
        let anchors: Vec<NodeId> =
            group.nodes.iter().copied().filter(|n| !is_elementwise(&node(n).op)).collect();
        let Some(&first) = anchors.first() else {
            let last = group.nodes.last()?;
            let like = |n: &NodeId| node(n).ty.shape == node(last).ty.shape;
            let whole = group.nodes.iter().all(like) && node(last).ty.sizes().is_some();
            return whole.then(|| Kind::Elementwise(shape_of(last), node(last).layout));
        };
        let Op::Reduce { kind, axes, keep } = &node(&first).op else { return None };
        // What follows the sums lies as they do.
        let plain = anchors.iter().all(|a| matches!(&node(a).op, Op::Reduce { .. }));
        (plain && kind.adds()).then(|| Kind::Sums(axes.clone(), *keep, self.graph.operands(first)[0]))
    }

    /// True if `b` can join `a`.
    fn fit(&self, a: &Kind, first: &Group, b: &Kind, second: &Group) -> bool {
        let reads = self.reads(second, first);
        let like = |x: NodeId| {
            let node = self.graph.node(x);
            (node.ty.clone(), node.layout)
        };
        match (a, b) {
            (Kind::Sums(axes, keep, x), Kind::Sums(other_axes, other_keep, y)) => {
                let same = axes == other_axes && keep == other_keep && like(*x) == like(*y);
                same && !reads && !self.reads(first, second) && self.share_operand(first, second, *x)
            }
            (Kind::Elementwise(..), Kind::Elementwise(..)) => reads && a == b,
            (Kind::Sums(..), Kind::Elementwise(shape, layout)) => {
                let sum = first.anchor.map(|n| self.graph.node(n));
                reads && sum.is_some_and(|n| n.ty.shape == *shape && n.layout == *layout)
            }
            (Kind::Elementwise(..), Kind::Sums(..)) => false,
        }
    }

    /// True if one reads a result of the other.
    fn reads(&self, reader: &Group, other: &Group) -> bool {
        reader.nodes.iter().any(|&n| self.graph.operands(n).iter().any(|o| other.nodes.contains(o)))
    }

    /// True if both read a value of the size of `like` that is outside of both.
    fn share_operand(&self, a: &Group, b: &Group, like: NodeId) -> bool {
        let read = self.outside(a);
        let shape = &self.graph.node(like).ty.shape;
        self.outside(b).iter().any(|o| read.contains(o) && self.graph.node(*o).ty.shape == *shape)
    }

    /// What a group reads.
    fn outside(&self, group: &Group) -> BTreeSet<NodeId> {
        let operands = group.nodes.iter().flat_map(|&n| self.graph.operands(n));
        operands.filter(|o| !group.nodes.contains(o)).collect()
    }

    fn is_small(&self, a: &Group, b: &Group) -> bool {
        let nodes = [&a.nodes[..], &b.nodes[..]].concat();
        let both = Group { anchor: None, nodes };
        let values = self.outside(&both).len() + self.graph.results_of(&both.nodes).len();
        both.nodes.len() <= NODE_LIMIT && values <= VALUE_LIMIT
    }

    /// True if something outside waits for `from`, and `to` for that: a group, or another name for a
    /// result.
    fn lies_between(&self, from: usize, to: usize) -> bool {
        if self.renamed_between(from, to) {
            return true;
        }
        let (mut seen, mut work) = (HashSet::new(), vec![]);
        for next in self.followers(from) {
            if next != to && seen.insert(next) {
                work.push(next);
            }
        }
        while let Some(g) = work.pop() {
            for next in self.followers(g) {
                if next == to {
                    return true;
                }
                if seen.insert(next) {
                    work.push(next);
                }
            }
        }
        false
    }

    /// True if `to` reads a result of `from` under another name.
    fn renamed_between(&self, from: usize, to: usize) -> bool {
        let Some(reader) = &self.groups[to] else { return false };
        let operands = reader.nodes.iter().flat_map(|&n| self.graph.operands(n));
        operands.into_iter().any(|mut o| {
            let mut renamed = false;
            while let (None, Op::Reshape(_)) = (self.member_of.get(&o), &self.graph.node(o).op) {
                (o, renamed) = (self.graph.operands(o)[0], true);
            }
            renamed && self.member_of.get(&o) == Some(&from)
        })
    }

    /// The groups that read results of a group, under whatever name.
    fn followers(&self, g: usize) -> BTreeSet<usize> {
        let mut out = BTreeSet::new();
        let mut work: Vec<NodeId> = self.groups[g].iter().flat_map(|group| group.nodes.clone()).collect();
        while let Some(n) = work.pop() {
            for user in self.graph.users(n) {
                match self.member_of.get(&user) {
                    Some(&other) => {
                        out.insert(other);
                    }
                    None => work.push(user),
                }
            }
        }
        out.remove(&g);
        out
    }

    /// Puts the nodes of `other` into `g`.
    fn join(&mut self, g: usize, other: usize) {
        let Some(gone) = self.groups[other].take() else { return };
        self.member_of.extend(gone.nodes.iter().map(|&n| (n, g)));
        if let Some(group) = &mut self.groups[g] {
            group.anchor = gone.anchor.or(group.anchor);
            group.nodes.extend(gone.nodes);
            group.nodes.sort_by_key(|n| self.position[n]);
        }
    }

    /// The groups in an order in which they can run, as near to the old one as that allows; the first
    /// node of each that has several results.
    fn ordered(self) -> (Vec<Group>, Vec<NodeId>) {
        let followers: Vec<BTreeSet<usize>> = (0..self.groups.len()).map(|g| self.followers(g)).collect();
        let mut missing = vec![0; self.groups.len()];
        followers.iter().flatten().for_each(|&f| missing[f] += 1);
        let present = |g: &usize| self.groups[*g].is_some();
        let mut ready: BTreeSet<usize> =
            (0..missing.len()).filter(|g| present(g) && missing[*g] == 0).collect();
        let (mut out, mut several) = (vec![], vec![]);
        while let Some(g) = ready.pop_first() {
            let group = self.groups[g].clone().expect("only groups that are left are ready");
            if self.graph.results_of(&group.nodes).len() > 1 {
                several.push(group.anchor.unwrap_or(group.nodes[0]));
            }
            out.push(group);
            for &f in &followers[g] {
                missing[f] -= 1;
                if missing[f] == 0 {
                    ready.insert(f);
                }
            }
        }
        debug_assert_eq!(out.len(), self.groups.iter().flatten().count(), "groups wait for each other");
        (out, several)
    }
}
