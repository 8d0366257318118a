//! Passes: graph in, graph out. [`PASSES`] is their table of contents, in order.
//!
//! Every pass may be run alone, gives the same result for the same graph and target, and leaves a graph
//! whose outputs are the same (up to the rounding of folded weights). What it decides is written
//! on the nodes; what it has to say to people is in its [`Report`].
//!
//! After the last one, every node is one of
//! - a source (input, parameter, constant), which needs no work;
//! - a reshape, outside of all groups: another name for its operand's memory;
//! - a member of exactly one [`Group`](crate::graph::Group), which becomes a kernel, or two (a
//!   concatenation whose operands are all placed in it needs none).

mod common_subexpressions;
mod contractions;
mod dead_code;
mod fold_batch_norm;
mod fuse;
mod layout;
mod phase;
mod place_concat;
mod recompute;
pub mod separable;
mod share;
mod simplify;
#[cfg(test)]
pub(crate) mod tests;

use nnc_dsl::Span;

use crate::graph::verify::assert_valid;
use crate::graph::{Graph, NodeId, Op};
use crate::target::CpuTarget;

pub use dead_code::sweep;
pub use phase::{is_settled, prepared};

/// Something worth telling about a place in the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Remark {
    /// The node it is about; later passes may have removed it.
    pub node: NodeId,
    /// Where.
    pub span: Option<Span>,
    /// What, starting lowercase.
    pub text: String,
}

/// What a pass did.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The pass's name.
    pub pass: &'static str,
    /// How many changes it made.
    pub changes: usize,
    /// What it decided and why, in the order of the graph.
    pub remarks: Vec<Remark>,
}

impl Report {
    fn new(pass: &'static str) -> Report {
        Report { pass, changes: 0, remarks: vec![] }
    }

    /// Adds a remark about a node.
    fn remark(&mut self, graph: &Graph, node: NodeId, text: impl Into<String>) {
        self.remarks.push(Remark { node, span: graph.node(node).spans.first().copied(), text: text.into() });
    }
}

/// A pass.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Its name, as in `--emit-after`.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&mut Graph, &CpuTarget) -> Report,
}

/// All passes, in the order in which they run.
pub const PASSES: &[Pass] = &[
    Pass {
        name: "simplify",
        about: "folds constants, removes what changes nothing, joins chains",
        run: |graph, _| simplify::run(graph),
    },
    Pass {
        name: "fold_batch_norm",
        about: "puts batch normalisation into the weights before it",
        run: |graph, _| fold_batch_norm::run(graph),
    },
    Pass {
        name: "contractions",
        about: "writes contractions of gradients as convolutions and linear layers",
        run: |graph, _| contractions::run(graph),
    },
    Pass {
        name: "common_subexpressions",
        about: "computes equal values once",
        run: |graph, _| common_subexpressions::run(graph),
    },
    Pass { name: "dead_code", about: "removes what no output needs", run: |graph, _| dead_code::run(graph) },
    Pass {
        name: "recompute",
        about: "in training, computes cheap values again instead of keeping them",
        run: |graph, _| recompute::run(graph),
    },
    Pass {
        name: "layout",
        about: "chooses blocked channels (or, on a GPU, channels last) inside, row-major at the borders",
        run: layout::run,
    },
    Pass {
        name: "fuse",
        about: "forms the groups that become one kernel each",
        run: |graph, _| fuse::run(graph),
    },
    Pass {
        name: "share",
        about: "lets groups share a pass over the values they read",
        run: |graph, _| share::run(graph),
    },
    Pass {
        name: "place_concat",
        about: "lets the operands of a concatenation write straight into its result",
        run: |graph, _| place_concat::run(graph),
    },
];

/// Runs all passes for a target; `after` sees the graph after each, with the pass's name. In debug builds the
/// verifier runs in between: what it complains about is a mistake of the pass, and panics.
pub fn run_all(graph: &mut Graph, target: &CpuTarget, after: &mut dyn FnMut(&str, &Graph)) -> Vec<Report> {
    let mut reports = vec![];
    for pass in PASSES {
        reports.push((pass.run)(graph, target));
        if cfg!(debug_assertions) {
            assert_valid(graph, pass.name);
        }
        after(pass.name, graph);
    }
    reports
}

/// A node in a remark: "conv2d `features.0`", or just its operation where it has no name.
fn label(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    match node.name.as_str() {
        "" => node.op.name().to_string(),
        name => format!("{} `{name}`", node.op.name()),
    }
}

/// True for values that need no work: inputs, parameters, constants.
fn is_source(op: &Op) -> bool {
    matches!(op, Op::Input | Op::Parameter(_) | Op::Constant(_))
}

/// True for functions of one element each of the operands (broadcasting aside).
fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Where | Op::Cast(_))
}
