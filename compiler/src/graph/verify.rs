//! The structural verifier: everything that later stations rely on. It runs between passes in
//! tests and debug builds, and gives all problems, not just the first.

use std::collections::{BTreeMap, BTreeSet};

use nnc_runtime::DType;
use petgraph::Direction;

use super::op::check_type;
use super::print::print;
use super::{Graph, Group, GroupId, Layout, Literal, NodeId, Op, Placement, TensorType};

/// All problems, each a line that names the node by id, operation and name.
pub fn verify(graph: &Graph) -> Result<(), Vec<String>> {
    let mut v = Verifier { graph, problems: vec![] };
    let order = graph.topological();
    if order.len() != graph.len() {
        v.problems.push(format!("{} nodes are in a cycle or depend on one", graph.len() - order.len()));
    }
    graph.ids().for_each(|id| v.node(id));
    v.names();
    v.outputs();
    v.updates();
    v.groups();
    if v.problems.is_empty() { Ok(()) } else { Err(v.problems) }
}

/// Panics with the problems and the graph's text if it is broken after `pass`: a mistake of the
/// compiler's. For tests and debug builds.
pub fn assert_valid(graph: &Graph, pass: &str) {
    if let Err(problems) = verify(graph) {
        panic!("broken graph after {pass}:\n{}\n\n{}", problems.join("\n"), print(graph));
    }
}

struct Verifier<'a> {
    graph: &'a Graph,
    problems: Vec<String>,
}

impl Verifier<'_> {
    fn say(&mut self, id: NodeId, problem: impl std::fmt::Display) {
        let node = self.graph.node(id);
        let name = if node.name.is_empty() { String::new() } else { format!(" `{}`", node.name) };
        self.problems.push(format!("node {} ({}{name}): {problem}", id.index(), node.op.name()));
    }

    fn node(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        self.operands_and_type(id);
        let fits = node.ty.rank() == 4 && matches!(node.ty.dtype, DType::F32 | DType::Bool);
        match node.layout {
            Layout::Blocked(n) if n == 0 || !fits => {
                self.say(id, format!("blocked{n} is for f32 and bool of 4 dimensions, it is {}", node.ty));
            }
            Layout::ChannelsLast if !fits => {
                self.say(id, format!("channels_last is for f32 and bool of 4 dimensions, it is {}", node.ty));
            }
            _ => {}
        }
        if let Some(g) = node.group
            && !self.graph.groups.get(g.0 as usize).is_some_and(|group| group.nodes.contains(&id))
        {
            self.say(id, format!("it says that it is in group g{}, which does not have it", g.0));
        }
        if let Some(p) = node.placement {
            self.placement(id, p);
        }
    }

    fn operands_and_type(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        let mut positions: Vec<u32> =
            self.graph.inner.edges_directed(id, Direction::Incoming).map(|e| *e.weight()).collect();
        positions.sort();
        if !positions.iter().copied().eq(0..positions.len() as u32) {
            self.say(id, format!("operands are numbered {positions:?}"));
            return;
        }
        if node.op.is_source() {
            if !positions.is_empty() {
                self.say(id, format!("it takes no operands, got {}", positions.len()));
            }
            if let Err(e) = check_type(&node.ty) {
                self.say(id, e);
            }
            if let Op::Constant(Literal::Dense(elements)) = &node.op
                && node.ty.sizes().map(|s| s.iter().product()) != Some(elements.len())
            {
                self.say(id, format!("{} elements are given for {}", elements.len(), node.ty));
            }
            return;
        }
        let operands = self.graph.operands(id);
        let types: Vec<&TensorType> = operands.iter().map(|&o| &self.graph.node(o).ty).collect();
        match node.op.infer(&types) {
            Err(e) => self.say(id, e),
            Ok(ty) if ty != node.ty => self.say(id, format!("its type should be {ty}, it is {}", node.ty)),
            Ok(_) => {}
        }
    }

    fn names(&mut self) {
        let mut seen: BTreeMap<&str, NodeId> = BTreeMap::new();
        for id in self.graph.ids() {
            let node = self.graph.node(id);
            if !matches!(node.op, Op::Input | Op::Parameter(_)) {
                continue;
            }
            if node.name.is_empty() {
                self.say(id, "it needs a name");
            } else if let Some(other) = seen.insert(&node.name, id) {
                self.say(id, format!("node {} has the same name", other.index()));
            }
        }
    }

    fn outputs(&mut self) {
        for (i, o) in self.graph.outputs.iter().enumerate() {
            if !self.graph.contains(o.node) {
                self.problems.push(format!("output `{}` is a node that is not there", o.name));
            }
            if self.graph.outputs[..i].iter().any(|other| other.name == o.name) {
                self.problems.push(format!("output `{}` is there twice", o.name));
            }
        }
    }

    fn updates(&mut self) {
        let mut seen = BTreeSet::new();
        for u in &self.graph.updates {
            if !self.graph.contains(u.parameter) || !self.graph.contains(u.value) {
                self.problems.push("an update is of or to a node that is not there".to_string());
                continue;
            }
            let (parameter, value) = (self.graph.node(u.parameter), self.graph.node(u.value));
            if !matches!(parameter.op, Op::Parameter(_)) {
                self.say(u.parameter, "it is updated, but it is no parameter");
            }
            if parameter.ty != value.ty {
                let problem = format!("it is {}, it is updated to {}", parameter.ty, value.ty);
                self.say(u.parameter, problem);
            }
            if !seen.insert(u.parameter) {
                self.say(u.parameter, "it is updated twice");
            }
        }
    }

    fn placement(&mut self, id: NodeId, p: Placement) {
        if !self.graph.contains(p.into) {
            return self.say(id, "it is placed into a node that is not there");
        }
        let into = self.graph.node(p.into);
        let Op::Concat(axis) = into.op else {
            return self.say(id, format!("it is placed into node {}, which is no concat", p.into.index()));
        };
        let mut offset = Some(0);
        let mut fits = false;
        for o in self.graph.operands(p.into) {
            fits |= o == id && offset == Some(p.offset);
            let size = self.graph.node(o).ty.shape.get(axis).and_then(|d| d.size());
            offset = offset.zip(size).map(|(at, n)| at + n);
        }
        if !fits {
            self.say(id, format!("it is not the operand of node {} at {}", p.into.index(), p.offset));
        }
    }

    fn groups(&mut self) {
        let mut member: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (g, group) in self.graph.groups.iter().enumerate() {
            let Some(&last) = group.nodes.last() else {
                self.problems.push(format!("group g{g} is empty"));
                continue;
            };
            if let Some(a) = group.anchor.filter(|a| !group.nodes.contains(a)) {
                self.problems.push(format!("the anchor of group g{g}, node {}, is not in it", a.index()));
            }
            for &id in &group.nodes {
                if !self.graph.contains(id) {
                    self.problems.push(format!("group g{g} has node {}, which is not there", id.index()));
                    continue;
                }
                if let Some(other) = member.insert(id, g) {
                    self.say(id, format!("it is in group g{other} and in group g{g}"));
                }
                if self.graph.node(id).group != Some(GroupId(g as u32)) {
                    self.say(id, format!("group g{g} has it, but it says otherwise"));
                }
                let operands = self.graph.operands(id);
                let later = |o: &NodeId| !before_in(&group.nodes, *o, id) && group.nodes.contains(o);
                if operands.iter().any(later) {
                    self.say(id, format!("in group g{g}, it comes before one of its operands"));
                }
                if id != last {
                    self.inner_member(g, id, group);
                }
            }
        }
        self.group_order(&member);
    }

    /// A member before the last: its value reaches memory only where elementwise work and sums share a
    /// pass, and is placed nowhere.
    fn inner_member(&mut self, g: usize, id: NodeId, group: &Group) {
        let shaped = |a: NodeId| !matches!(self.graph.node(a).op, Op::Reduce { .. });
        if group.anchor.is_some_and(shaped) {
            if let Some(user) = self.graph.users(id).into_iter().find(|u| !group.nodes.contains(u)) {
                let user = user.index();
                let text =
                    format!("node {user} uses it, but only the last node of group g{g} reaches memory");
                self.say(id, text);
            }
            if self.graph.is_output(id) {
                self.say(id, format!("it is a result, but only the last node of group g{g} reaches memory"));
            }
        }
        if self.graph.node(id).placement.is_some() {
            self.say(id, format!("it is placed, but only the last node of group g{g} can be"));
        }
    }

    /// Groups run in their order: what one needs is computed by an earlier one.
    fn group_order(&mut self, member: &BTreeMap<NodeId, usize>) {
        for (&id, &g) in member {
            for o in self.graph.operands(id) {
                let mut made = o;
                while let (None, Op::Reshape(_)) = (member.get(&made), &self.graph.node(made).op) {
                    made = self.graph.operands(made)[0];
                }
                let Some(&other) = member.get(&made) else { continue };
                if other > g || (other == g && made != o) {
                    let made = made.index();
                    self.say(id, format!("group g{g} needs node {made}, which group g{other} computes"));
                }
            }
        }
    }
}

/// True if `a` comes before `b` in the list.
fn before_in(nodes: &[NodeId], a: NodeId, b: NodeId) -> bool {
    let at = |id| nodes.iter().position(|&n| n == id);
    at(a) < at(b)
}
