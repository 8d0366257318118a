//! The computation graph: one operation a node, one value a node.
//!
//! A [`Graph`] wraps a petgraph graph whose edges run from producer to consumer and carry the
//! operand's position. Values are known by the node that computes them. Every node keeps the
//! author's name for it and the source spans it came from. Passes rewrite the graph in place;
//! what they decide (groups, layouts, in-place concatenation) is written on the nodes, where
//! the text form shows it.

pub mod dim;
pub mod interpret;
pub mod op;
pub mod parse;
pub mod print;
pub mod specialise;
pub mod text;
pub mod verify;

#[cfg(test)]
mod tests;

use nnc_dsl::Span;
use nnc_runtime::DType;
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

pub use dim::{Bindings, Dim};
pub use op::{Literal, Op, OpError};

/// A node and the value it computes.
pub type NodeId = NodeIndex<u32>;

/// A shape, possibly symbolic.
pub type Shape = Vec<Dim>;

/// Element type and shape of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Shape,
}

impl TensorType {
    /// A type of known shape.
    pub fn new(dtype: DType, shape: &[usize]) -> TensorType {
        TensorType { dtype, shape: shape.iter().map(|&n| Dim::from(n)).collect() }
    }

    /// The shape in numbers; `None` where a symbol is left.
    pub fn sizes(&self) -> Option<Vec<usize>> {
        self.shape.iter().map(Dim::size).collect()
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dims: Vec<String> = self.shape.iter().map(Dim::to_string).collect();
        write!(f, "{}[{}]", self.dtype, dims.join(", "))
    }
}

/// How a value lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// Row-major.
    #[default]
    Plain,
    /// `[N, C, H, W]` as `[N, ceil(C/block), H, W, block]`. Lanes past `C` hold anything.
    Blocked(u8),
    /// `[N, C, H, W]` as `[N, H, W, C]`.
    ChannelsLast,
}

impl Layout {
    /// Channels that lie side by side in blocks; one, where there are no blocks.
    pub fn block(self) -> usize {
        match self {
            Layout::Blocked(block) => usize::from(block),
            Layout::Plain | Layout::ChannelsLast => 1,
        }
    }

    /// The dimensions of a value of that rank, the one that changes most slowly in memory first (of blocks: which
    /// channels first, lanes last).
    pub fn order(self, rank: usize) -> Vec<usize> {
        match self {
            Layout::ChannelsLast if rank == 4 => vec![0, 2, 3, 1],
            _ => (0..rank).collect(),
        }
    }
}

/// Index into [`Graph::groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// Nodes that become one kernel. What users outside need reaches memory: the last node's value, and
/// where groups share their work, others' ([`Graph::results_of`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The node that shapes the kernel: a convolution, contraction, pooling, reduction, …
    pub anchor: Option<NodeId>,
    /// All members in topological order; the last one is a result of the group.
    pub nodes: Vec<NodeId>,
}

/// A value that is written straight into a part of a concatenation's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The concatenation.
    pub into: NodeId,
    /// Position of its first element along the concatenation's axis.
    pub offset: usize,
}

/// An operation and its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Type of the result.
    pub ty: TensorType,
    /// The author's name: the path of the layer (`layer1.0.conv1`) or of a named value; may be
    /// empty. For parameters, inputs: their full name.
    pub name: String,
    /// Where it was written: innermost first. Merged nodes carry all of theirs.
    pub spans: Vec<Span>,
    /// How the result lies in memory (set by the layout pass).
    pub layout: Layout,
    /// The group it belongs to (set by the fusion pass).
    pub group: Option<GroupId>,
    /// Where the result is placed (set by the concatenation pass).
    pub placement: Option<Placement>,
}

/// A named result of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// The value.
    pub node: NodeId,
}

/// What a parameter holds when a run ends. Every node of the run sees the value that it had before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// The parameter.
    pub parameter: NodeId,
    /// Its next value, of the same type.
    pub value: NodeId,
}

/// A computation graph. See the module's head.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The net's name.
    pub name: String,
    inner: StableDiGraph<Node, u32, u32>,
    /// Results, in source order.
    pub outputs: Vec<Output>,
    /// What a run changes: each parameter at most once. Empty in inference.
    pub updates: Vec<Update>,
    /// Groups, in the order in which they run. Empty before the fusion pass.
    pub groups: Vec<Group>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// Adds a node, its type found by the operation's shape rule.
    pub fn add(
        &mut self,
        op: Op,
        operands: &[NodeId],
        name: &str,
        span: Option<Span>,
    ) -> Result<NodeId, op::OpError> {
        let types: Vec<&TensorType> = operands.iter().map(|&n| &self.node(n).ty).collect();
        let ty = op.infer(&types)?;
        Ok(self.add_typed(op, operands, ty, name, span))
    }

    /// Adds a node whose type is known (sources such as inputs; printed graphs).
    pub fn add_typed(
        &mut self,
        op: Op,
        operands: &[NodeId],
        ty: TensorType,
        name: &str,
        span: Option<Span>,
    ) -> NodeId {
        let node = Node {
            op,
            ty,
            name: name.to_string(),
            spans: span.into_iter().collect(),
            layout: Layout::Plain,
            group: None,
            placement: None,
        };
        let id = self.inner.add_node(node);
        for (i, &o) in operands.iter().enumerate() {
            self.inner.add_edge(o, id, i as u32);
        }
        id
    }

    /// The node of that id. Panics if it was removed: ids are the compiler's own.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.inner[id]
    }

    /// The node of that id, to be changed.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.inner[id]
    }

    /// True if the id is still in the graph.
    pub fn contains(&self, id: NodeId) -> bool {
        self.inner.contains_node(id)
    }

    /// The operands of a node, in order.
    pub fn operands(&self, id: NodeId) -> Vec<NodeId> {
        let mut edges: Vec<(u32, NodeId)> =
            self.inner.edges_directed(id, Direction::Incoming).map(|e| (*e.weight(), e.source())).collect();
        edges.sort();
        edges.into_iter().map(|(_, n)| n).collect()
    }

    /// The nodes that use a value, each as often as it does, by id.
    pub fn users(&self, id: NodeId) -> Vec<NodeId> {
        let mut out: Vec<NodeId> =
            self.inner.edges_directed(id, Direction::Outgoing).map(|e| e.target()).collect();
        out.sort();
        out
    }

    /// True if the value is a result of the graph: an output, or what a parameter is updated to.
    pub fn is_output(&self, id: NodeId) -> bool {
        self.results().any(|r| r == id)
    }

    /// The values that a run is for: outputs, then what parameters are updated to.
    pub fn results(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.outputs.iter().map(|o| o.node).chain(self.updates.iter().map(|u| u.value))
    }

    /// The members of a group whose values reach memory, in the order of the members: what is used
    /// outside, or a result of the graph; the last one in any case.
    pub fn results_of(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let needed = |n: &NodeId| {
            nodes.last() == Some(n) || self.is_output(*n) || self.users(*n).iter().any(|u| !nodes.contains(u))
        };
        nodes.iter().copied().filter(needed).collect()
    }

    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<NodeId> {
        let named = |n: &NodeId| self.node(*n).name == name && matches!(self.node(*n).op, Op::Parameter(_));
        self.ids().find(named)
    }

    /// True for a parameter that a run changes.
    pub fn is_updated(&self, parameter: NodeId) -> bool {
        self.updates.iter().any(|u| u.parameter == parameter)
    }

    /// All ids, in the order in which they were added.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.inner.node_indices()
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.inner.node_count()
    }

    /// True without nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All ids, operands before users; the same order for the same graph, as near to the order of
    /// ids as that allows.
    pub fn topological(&self) -> Vec<NodeId> {
        let mut missing: std::collections::HashMap<NodeId, usize> =
            self.ids().map(|n| (n, self.inner.edges_directed(n, Direction::Incoming).count())).collect();
        let mut ready: std::collections::BTreeSet<NodeId> =
            missing.iter().filter(|&(_, &m)| m == 0).map(|(&n, _)| n).collect();
        let mut out = Vec::with_capacity(self.len());
        while let Some(n) = ready.pop_first() {
            out.push(n);
            for u in self.inner.neighbors_directed(n, Direction::Outgoing) {
                let m = missing.get_mut(&u).expect("a neighbour is in the graph");
                *m -= 1;
                if *m == 0 {
                    ready.insert(u);
                }
            }
        }
        out
    }

    /// Makes `new` the i-th operand of `id`.
    pub fn set_operand(&mut self, id: NodeId, i: usize, new: NodeId) {
        let old = self
            .inner
            .edges_directed(id, Direction::Incoming)
            .find(|e| *e.weight() == i as u32)
            .map(|e| e.id());
        if let Some(e) = old {
            self.inner.remove_edge(e);
        }
        self.inner.add_edge(new, id, i as u32);
    }

    /// Lets every user of `old`, outputs and updates use `new` instead; `old` stays, without users.
    pub fn replace_uses(&mut self, old: NodeId, new: NodeId) {
        let edges: Vec<_> = self
            .inner
            .edges_directed(old, Direction::Outgoing)
            .filter(|e| e.target() != new)
            .map(|e| (e.id(), e.target(), *e.weight()))
            .collect();
        for (e, target, i) in edges {
            self.inner.remove_edge(e);
            self.inner.add_edge(new, target, i);
        }
        for o in &mut self.outputs {
            if o.node == old {
                o.node = new;
            }
        }
        for u in &mut self.updates {
            if u.value == old {
                u.value = new;
            }
        }
    }

    /// Adds the names and spans of `from` to `to`: for nodes that were merged.
    pub fn inherit(&mut self, to: NodeId, from: NodeId) {
        let source = self.node(from).clone();
        let target = self.node_mut(to);
        if target.name.is_empty() {
            target.name = source.name;
        }
        for s in source.spans {
            if !target.spans.contains(&s) {
                target.spans.push(s);
            }
        }
    }

    /// Removes a node that nothing uses.
    pub fn remove(&mut self, id: NodeId) {
        debug_assert!(self.users(id).is_empty(), "a node in use is removed");
        self.inner.remove_node(id);
    }

    /// Inputs in source order: ids of nodes that are [`Op::Input`].
    pub fn inputs(&self) -> Vec<NodeId> {
        self.ids().filter(|&n| matches!(self.node(n).op, Op::Input)).collect()
    }

    /// Parameters in source order.
    pub fn parameters(&self) -> Vec<NodeId> {
        self.ids().filter(|&n| matches!(self.node(n).op, Op::Parameter(_))).collect()
    }
}
