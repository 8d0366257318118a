//! Forms groups: the nodes of a group become one kernel, and only its last value reaches memory.
//!
//! ```text
//! %3 = conv2d %0, %1, %2              group g0 conv2d + relu + max_pool2d {
//! %4 = relu %3                 →        %3 = conv2d %0, %1, %2  anchor
//! %5 = max_pool2d %4                    %4 = relu %3
//!                                       %5 = max_pool2d %4
//!                                     }
//! ```
//!
//! A group is, in this order,
//! 1. at most one **anchor** that shapes the kernel: whatever is not elementwise;
//! 2. elementwise nodes of the anchor's shape, any number, as long as their values have no user
//!    outside (the residual sum is one of them: its other operand is just read);
//! 3. after a 2-D convolution at most one pooling, if it [suits](pool_suits), or after a depthwise one the 1x1
//!    convolution that reads it, if that [pays](super::separable), and elementwise nodes of its shape; such a
//!    group may take that of the convolution before it;
//! 4. at most one relayout: the result is stored in the other layout (not after a pooling's gradient).
//!
//! Elementwise nodes whose only users are elementwise nodes of the group join it, too; so do, before a
//! sum, what is summed and used nowhere else, and a transposition whose only user is a product of
//! matrices, as its first factor.
//!
//! All values but the last are used within the group alone, so nothing outside can lie between two
//! members: groups never wait for each other in a circle. (The next pass lets groups share their
//! work.) Phases are not mixed (what is prepared once must not be repeated in every run), nor layouts,
//! save by that last relayout and before sums. Reshapes are in no group: they are other names for the
//! same memory.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Report, is_elementwise, is_source, label, prepared, separable};
use crate::graph::op::Window;
use crate::graph::{Graph, Group, GroupId, NodeId, Op};

/// The most nodes that a branching elementwise region may have before its paths meet again:
/// bounds the search; the largest activation written out by hand (GELU by tanh) has nine.
const REGION_LIMIT: usize = 32;

/// How often at most a value of a convolution may be computed again, in each direction, because
/// pooling windows overlap and a kernel's tasks share nothing. With tiles of several rows the true
/// figure is smaller: a 3x3 pooling of stride 2 over 4 rows computes 9 rows for 8.
const POOL_OVERLAP_LIMIT: usize = 2;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Report {
    let mut report = Report::new("fuse");
    let formed = {
        let mut fuser = Fuser::new(graph);
        fuser.form_all(&mut report);
        fuser.ordered()
    };
    report.changes = formed.iter().filter(|g| g.nodes.len() > 1).count();
    for id in graph.ids().collect::<Vec<_>>() {
        graph.node_mut(id).group = None;
    }
    for (i, group) in formed.iter().enumerate() {
        for &id in &group.nodes {
            graph.node_mut(id).group = Some(GroupId(i as u32));
        }
    }
    graph.groups = formed;
    describe(graph, &mut report);
    report
}

/// Groups in the making.
struct Fuser<'a> {
    graph: &'a Graph,
    order: Vec<NodeId>,
    position: HashMap<NodeId, usize>,
    prepared: HashSet<NodeId>,
    member_of: HashMap<NodeId, usize>,
    groups: Vec<Group>,
}

impl<'a> Fuser<'a> {
    fn new(graph: &'a Graph) -> Fuser<'a> {
        let order = graph.topological();
        let position = order.iter().enumerate().map(|(i, &n)| (n, i)).collect();
        let prepared = prepared(graph);
        Fuser { graph, order, position, prepared, member_of: HashMap::new(), groups: vec![] }
    }

    fn form_all(&mut self, report: &mut Report) {
        // Anchors first, so that elementwise work goes to the kernels that need cover for it;
        // relayouts last: most are the end of another group by then.
        self.form(report, |op| !is_elementwise(op) && *op != Op::Relayout);
        (0..self.groups.len()).for_each(|g| self.absorb_sides(g));
        self.form(report, is_elementwise);
        self.form(report, |op| *op == Op::Relayout);
        (0..self.groups.len()).rev().for_each(|g| self.take_first(g));
    }

    /// Lets a depthwise convolution that is in a group with the 1x1 convolution after it take the group of what it
    /// reads, if that [pays](separable::takes). The latest group first: it fills the place of the one that is taken.
    fn take_first(&mut self, g: usize) {
        let convs = |group: &Group| {
            let is_conv = |n: &&NodeId| matches!(self.graph.node(**n).op, Op::Conv2d(_));
            group.nodes.iter().filter(is_conv).count()
        };
        let Some(group) = self.groups.get(g) else { return };
        let (Some(depthwise), 2) = (group.anchor, convs(group)) else { return };
        let tail = self.graph.operands(depthwise)[0];
        let Some(&other) = self.member_of.get(&tail) else { return };
        let first = &self.groups[other];
        let Some(conv) = first.anchor else { return };
        let light = first.nodes.iter().all(|&n| n == conv || is_elementwise(&self.graph.node(n).op));
        let only = self.graph.users(tail) == [depthwise] && !self.graph.is_output(tail);
        if other == g || !light || !only || !self.same_phase(tail, depthwise) {
            return;
        }
        if !separable::takes(self.graph, [conv, tail, depthwise]) {
            return;
        }
        let taken = std::mem::take(&mut self.groups[other].nodes);
        self.groups[g].nodes.extend(taken);
        self.groups.swap_remove(other);
        self.member_of.clear();
        for (g, group) in self.groups.iter().enumerate() {
            self.member_of.extend(group.nodes.iter().map(|&n| (n, g)));
        }
    }

    /// Forms groups around all nodes of that kind that are in none yet.
    fn form(&mut self, report: &mut Report, wanted: fn(&Op) -> bool) {
        for id in self.order.clone() {
            let op = &self.graph.node(id).op;
            let alias = matches!(op, Op::Reshape(_));
            if !wanted(op) || is_source(op) || alias || self.member_of.contains_key(&id) {
                continue;
            }
            if self.is_read_through(id) {
                continue;
            }
            let elementwise = is_elementwise(op);
            self.groups.push(Group { anchor: (!elementwise).then_some(id), nodes: vec![] });
            self.absorb_movement(id);
            self.join(id);
            self.extend(id, report);
            if elementwise {
                self.absorb_sides(self.groups.len() - 1);
            }
        }
    }

    /// True for movements of elements that their only user reads in another order instead.
    fn is_read_through(&self, id: NodeId) -> bool {
        let users = self.graph.users(id);
        let &[user] = users.as_slice() else { return false };
        let only = !self.graph.is_output(id) && self.same_phase(id, user);
        let operands = self.graph.operands(user);
        only && match (&self.graph.node(id).op, &self.graph.node(user).op) {
            (Op::Transpose(order), Op::MatMul) => order[..] == [1, 0] && operands[0] == id,
            _ => false,
        }
    }

    /// Puts the movements that a node reads through into the newest group.
    fn absorb_movement(&mut self, id: NodeId) {
        for operand in self.graph.operands(id) {
            if self.is_read_through(operand) && !self.member_of.contains_key(&operand) {
                self.absorb_movement(operand);
                self.join(operand);
            }
        }
    }

    /// Puts a node into the newest group.
    fn join(&mut self, id: NodeId) {
        let g = self.groups.len() - 1;
        self.groups[g].nodes.push(id);
        self.member_of.insert(id, g);
    }

    /// Lets the newest group, which consists of `seed`, grow towards its users.
    fn extend(&mut self, seed: NodeId, report: &mut Report) {
        if moves_only(&self.graph.node(seed).op) {
            return;
        }
        let mut tail = seed;
        let mut may_pool = matches!(self.graph.node(seed).op, Op::Conv2d(_));
        loop {
            let users: BTreeSet<NodeId> = self.graph.users(tail).into_iter().collect();
            if users.is_empty() {
                return;
            }
            if self.graph.is_output(tail) {
                let text = format!("{} ends its group: its value is an output", label(self.graph, tail));
                return report.remark(self.graph, tail, text);
            }
            let only = if users.len() == 1 { users.first().copied() } else { None };
            if let Some(user) = only
                && let Op::MaxPool2d(crate::graph::op::MaxPool2d { window })
                | Op::AvgPool2d(crate::graph::op::AvgPool2d { window, .. }) = &self.graph.node(user).op
            {
                match self.pool_joins(tail, user, window, may_pool) {
                    Ok(()) => {
                        self.join(user);
                        (tail, may_pool) = (user, false);
                        continue;
                    }
                    Err(why) => return self.reject(user, tail, &why, report),
                }
            }
            if let Some(user) = only
                && may_pool
                && let Some(joins) = separable::joins(self.graph, [seed, tail, user])
            {
                let same_phase = self.same_phase(tail, user) && !self.member_of.contains_key(&user);
                match joins {
                    Ok(()) if same_phase => {
                        self.join(user);
                        (tail, may_pool) = (user, false);
                        continue;
                    }
                    Ok(()) => return,
                    Err(why) => return self.reject(user, tail, &why, report),
                }
            }
            if let Some(user) = only
                && matches!(self.graph.node(user).op, Op::Relayout)
                && !is_pool_grad(&self.graph.node(seed).op)
                && self.same_phase(tail, user)
            {
                return self.join(user);
            }
            match self.region(tail, &users) {
                Ok(nodes) => {
                    tail = *nodes.last().expect("a region has a last node");
                    nodes.into_iter().for_each(|n| self.join(n));
                }
                Err(Some((user, why))) => return self.reject(user, tail, &why, report),
                Err(None) => return,
            }
        }
    }

    fn reject(&self, user: NodeId, tail: NodeId, why: &str, report: &mut Report) {
        let text =
            format!("{} is not fused with {}: {why}", label(self.graph, user), label(self.graph, tail));
        report.remark(self.graph, user, text);
    }

    fn pool_joins(&self, tail: NodeId, pool: NodeId, window: &Window, may_pool: bool) -> Result<(), String> {
        if !may_pool {
            return Err("a pooling joins only a convolution, and only one".into());
        }
        if self.graph.node(tail).layout != self.graph.node(pool).layout {
            return Err("their layouts differ".into());
        }
        if !self.same_phase(tail, pool) {
            return Err("one of them is prepared once, the other runs every time".into());
        }
        pool_suits(window)
    }

    /// The elementwise nodes after `tail` up to the first one where all paths from it meet, that
    /// one last. Else the user that is in the way and why; nothing where nobody would have expected
    /// it to join.
    fn region(
        &self,
        tail: NodeId,
        users: &BTreeSet<NodeId>,
    ) -> Result<Vec<NodeId>, Option<(NodeId, String)>> {
        let at = |&n: &NodeId| (self.position[&n], n);
        let mut frontier: BTreeSet<(usize, NodeId)> = users.iter().map(at).collect();
        let mut nodes = vec![];
        let why = loop {
            let Some((_, node)) = frontier.pop_first() else { return Err(None) };
            if let Err(why) = self.joins(tail, node) {
                break why;
            }
            nodes.push(node);
            if frontier.is_empty() {
                return Ok(nodes);
            }
            if self.graph.is_output(node) {
                break format!("{} is an output", label(self.graph, node));
            }
            if nodes.len() > REGION_LIMIT {
                break format!("more than {REGION_LIMIT} nodes lie between");
            }
            frontier.extend(self.graph.users(node).iter().map(at));
        };
        let Some(&expected) = users.iter().find(|&&u| is_elementwise(&self.graph.node(u).op)) else {
            return Err(None);
        };
        if users.len() == 1 && nodes.is_empty() {
            return Err(Some((expected, why)));
        }
        let names: Vec<String> = users.iter().map(|&u| label(self.graph, u)).collect();
        Err(Some((expected, format!("the value is needed by {}", names.join(", ")))))
    }

    /// Whether an elementwise node may join the group that `tail` is the end of.
    fn joins(&self, tail: NodeId, node: NodeId) -> Result<(), String> {
        let (a, b) = (self.graph.node(tail), self.graph.node(node));
        if !is_elementwise(&b.op) {
            return Err("it is not elementwise".into());
        }
        if a.ty.shape != b.ty.shape {
            return Err(format!("it computes {}, not {}", b.ty, a.ty));
        }
        if a.layout != b.layout {
            return Err("their layouts differ".into());
        }
        if !self.same_phase(tail, node) {
            return Err("one of them is prepared once, the other runs every time".into());
        }
        if let Some(&g) = self.member_of.get(&node) {
            let other = self.groups[g].anchor.unwrap_or(self.groups[g].nodes[0]);
            return Err(format!("it is in the group of {} already", label(self.graph, other)));
        }
        Ok(())
    }

    fn same_phase(&self, a: NodeId, b: NodeId) -> bool {
        self.prepared.contains(&a) == self.prepared.contains(&b)
    }

    /// Lets elementwise operands join whose users are all elementwise members of the group.
    fn absorb_sides(&mut self, g: usize) {
        let mut work = self.groups[g].nodes.clone();
        while let Some(member) = work.pop() {
            let sums = |n: NodeId| matches!(&self.graph.node(n).op, Op::Reduce { kind, .. } if kind.adds());
            if !is_elementwise(&self.graph.node(member).op) && !sums(member) {
                continue;
            }
            for operand in self.graph.operands(member) {
                let inside = |u: &NodeId| {
                    self.member_of.get(u) == Some(&g) && (is_elementwise(&self.graph.node(*u).op) || sums(*u))
                };
                // What is summed has the shape of no member yet.
                let like = if sums(member) { operand } else { member };
                if self.joins(like, operand).is_ok()
                    && self.same_phase(member, operand)
                    && !self.graph.is_output(operand)
                    && self.graph.users(operand).iter().all(inside)
                {
                    self.groups[g].nodes.push(operand);
                    self.member_of.insert(operand, g);
                    work.push(operand);
                }
            }
        }
    }

    /// The groups in an order in which they can run, those of the prepare phase first, else as
    /// near to the order of the graph as that allows; members in topological order.
    fn ordered(mut self) -> Vec<Group> {
        for group in &mut self.groups {
            group.nodes.sort_by_key(|n| self.position[n]);
        }
        let n = self.groups.len();
        let (mut users, mut missing) = (vec![BTreeSet::new(); n], vec![0usize; n]);
        for (g, group) in self.groups.iter().enumerate() {
            for &id in &group.nodes {
                for operand in self.graph.operands(id) {
                    if let Some(p) = self.producer(operand)
                        && p != g
                        && users[p].insert(g)
                    {
                        missing[g] += 1;
                    }
                }
            }
        }
        let key = |g: usize| {
            let first = self.groups[g].nodes[0];
            (!self.prepared.contains(&first), self.position[&first], g)
        };
        let mut ready: BTreeSet<_> = (0..n).filter(|&g| missing[g] == 0).map(key).collect();
        let mut out = vec![];
        while let Some((_, _, g)) = ready.pop_first() {
            out.push(self.groups[g].clone());
            for &u in &users[g] {
                missing[u] -= 1;
                if missing[u] == 0 {
                    ready.insert(key(u));
                }
            }
        }
        debug_assert_eq!(out.len(), n, "groups wait for each other");
        out
    }

    /// The group whose memory a value is in: reshapes are other names for their operand.
    fn producer(&self, mut id: NodeId) -> Option<usize> {
        loop {
            if let Some(&g) = self.member_of.get(&id) {
                return Some(g);
            }
            match self.graph.node(id).op {
                Op::Reshape(_) => id = self.graph.operands(id)[0],
                _ => return None,
            }
        }
    }
}

/// Whether a pooling can be computed where the convolution before it is: its windows must not
/// overlap too much, because a task computes all the values that its windows need.
fn pool_suits(window: &Window) -> Result<(), String> {
    if window.dilation != [1, 1] {
        return Err("its windows are dilated".into());
    }
    let again = |i: usize| window.kernel[i].div_ceil(window.stride[i].max(1));
    if again(0).max(again(1)) > POOL_OVERLAP_LIMIT {
        return Err(format!(
            "its windows overlap: each value of the convolution would be computed up to {} times",
            again(0) * again(1)
        ));
    }
    Ok(())
}

/// Gradients of poolings, whose kernels are made of vectors only where they store as they read.
fn is_pool_grad(op: &Op) -> bool {
    matches!(
        op,
        Op::MaxPool2dGrad(_)
            | Op::AvgPool2dGrad(_)
            | Op::AdaptiveMaxPool2dGrad
            | Op::AdaptiveAvgPool2dGrad(_)
    )
}

/// Movements of elements, and what else gains nothing from elementwise work beside it (gradients of
/// weights are stored element by element).
fn moves_only(op: &Op) -> bool {
    matches!(
        op,
        Op::Transpose(_)
            | Op::Concat(_)
            | Op::Slice { .. }
            | Op::Reverse(_)
            | Op::Pad { .. }
            | Op::Broadcast(_)
            | Op::Gather(_)
            | Op::OneHot(_)
            | Op::Random(_)
            | Op::Philox(_)
            | Op::Dropout(_)
            | Op::StopGradient
            | Op::Relayout
            | Op::Conv2dWeightGrad(_)
    )
}

/// A remark for every group of several nodes.
fn describe(graph: &Graph, report: &mut Report) {
    let mut remarks = vec![];
    for (i, group) in graph.groups.iter().enumerate().filter(|(_, g)| g.nodes.len() > 1) {
        let names: Vec<String> = group.nodes.iter().map(|&n| label(graph, n)).collect();
        let (_, inner) = group.nodes.split_last().expect("a group has members");
        let bytes: usize = inner
            .iter()
            .filter_map(|&n| {
                let ty = &graph.node(n).ty;
                ty.sizes().map(|s| s.iter().product::<usize>() * ty.dtype.size())
            })
            .sum();
        let at = group.anchor.unwrap_or(group.nodes[0]);
        remarks.push((at, format!("group {i} is {}: {bytes} bytes stay out of memory", names.join(" + "))));
    }
    for (at, text) in remarks {
        report.remark(graph, at, text);
    }
}
