//! What the compiler made of a net, and why: the kernels with their layers, what the passes have
//! to say, and what all that saves in memory.

use std::collections::HashSet;
use std::fmt::Write;

use nnc_compiler::graph::{Graph, NodeId, Op};
use nnc_compiler::lower::algorithm::algorithm_of;
use nnc_compiler::pass::{self, Remark, Report};
use nnc_dsl::SourceMap;

use super::place;
use super::table::bytes;
use crate::Network;
use crate::error::Result;

/// The pass whose remarks stand with the groups.
const FUSION: &str = "fuse";

/// The explanation of a net whose sizes are all known.
pub fn explain(network: &Network) -> Result<String> {
    let written = network.graph();
    let operations = work(written).len();
    let separate = bytes_of(written, work(written));
    let (graph, reports) = network.optimized();
    let program = network.compile()?.program().clone();

    let prepared = pass::prepared(&graph);
    let is_prepared = |i: usize| graph.groups[i].nodes.iter().all(|n| prepared.contains(n));
    let (once, every): (Vec<usize>, Vec<usize>) = (0..graph.groups.len()).partition(|&i| is_prepared(i));

    let mut out = String::new();
    let _ = writeln!(out, "net {}: {operations} operations become {} kernels", graph.name, every.len());
    let fusion = reports.iter().find(|r| r.pass == FUSION);
    for &i in &every {
        out.push('\n');
        group(&mut out, &graph, network.sources(), i, fusion);
        algorithm(&mut out, network, &graph, i, &prepared);
    }
    if !once.is_empty() {
        let _ = writeln!(out, "\nprepared once, when weights are loaded: {} kernels", once.len());
        for i in once {
            let members: Vec<String> = graph.groups[i].nodes.iter().map(|&n| label(&graph, n)).collect();
            let _ = writeln!(out, "  {}", members.join(" + "));
        }
    }
    for report in reports.iter().filter(|r| r.pass != FUSION && !r.remarks.is_empty()) {
        passed(&mut out, &graph, network.sources(), report);
    }

    let results = graph.groups.iter().flat_map(|g| graph.results_of(&g.nodes));
    let fused = bytes_of(&graph, results.filter(|n| !prepared.contains(n)).collect());
    let _ = writeln!(out, "\nmemory of a run");
    for (what, size) in [
        ("every operation's result", separate),
        ("what the kernels leave of that", fused),
        ("the arena (whole vectors, places shared)", program.arena_bytes as u64),
        ("beside it: prepared weights", program.prepared_bytes as u64),
    ] {
        let _ = writeln!(out, "  {what:<42}{:>10}", bytes(size));
    }
    Ok(out)
}

/// A kernel: its layers, the line they are written in, its result, what stays out of memory, and
/// why no more was fused.
fn group(out: &mut String, graph: &Graph, sources: &SourceMap, i: usize, fusion: Option<&Report>) {
    let nodes = &graph.groups[i].nodes;
    let members: Vec<String> = nodes.iter().map(|&n| label(graph, n)).collect();
    let _ = writeln!(out, "kernel {i}: {}", members.join(" + "));
    let mut locations: Vec<String> = vec![];
    for &n in nodes {
        let location = place::location(graph.node(n), sources);
        if !location.is_empty() && !locations.contains(&location) {
            locations.push(location);
        }
    }
    if !locations.is_empty() {
        let _ = writeln!(out, "  written in {}", locations.join(", "));
    }
    let results = graph.results_of(nodes);
    for &result in &results {
        let node = graph.node(result);
        let into = match node.placement {
            Some(p) => format!(", straight into {}", label(graph, p.into)),
            None => String::new(),
        };
        let _ = writeln!(out, "  result {}: {}{into}", node.ty, bytes(bytes_of(graph, vec![result])));
    }
    let inner: Vec<NodeId> = nodes.iter().copied().filter(|n| !results.contains(n)).collect();
    if !inner.is_empty() {
        let saved = bytes_of(graph, inner);
        let _ = writeln!(out, "  fused: {} never reach memory", bytes(saved));
    }
    let remarks = fusion.map_or(&[][..], |r| &r.remarks);
    for remark in remarks.iter().filter(|r| about(graph, r, i)) {
        let _ = writeln!(out, "  {}", remark.text);
    }
}

/// How a 3x3 convolution, or several of them, are computed.
fn algorithm(out: &mut String, network: &Network, graph: &Graph, i: usize, prepared: &HashSet<NodeId>) {
    let nodes = &graph.groups[i].nodes;
    let options = network.options().lowering();
    if let Some(chosen) = algorithm_of(graph, nodes, prepared, &network.options().chosen_target(), &options) {
        let _ = writeln!(out, "  by {chosen}");
    }
    let convolutions = nodes.iter().filter(|&&n| matches!(graph.node(n).op, Op::Conv2d(_)));
    if let [made @ .., _] = convolutions.map(|&n| label(graph, n)).collect::<Vec<_>>().as_slice()
        && !made.is_empty()
    {
        let _ = writeln!(out, "  by rows: a task makes those of {} that it reads", made.join(" and "));
    }
}

/// Whether a remark is about a node of the group, and says more than what is shown anyway.
fn about(graph: &Graph, remark: &Remark, i: usize) -> bool {
    graph.groups[i].nodes.contains(&remark.node) && !remark.text.starts_with("group ")
}

fn passed(out: &mut String, graph: &Graph, sources: &SourceMap, report: &Report) {
    let about = pass::PASSES.iter().find(|p| p.name == report.pass).map_or("", |p| p.about);
    let _ = writeln!(out, "\n{}: {about}", report.pass);
    let mut said = HashSet::new();
    for remark in &report.remarks {
        let node = Some(remark.node).filter(|&n| graph.contains(n)).map(|n| graph.node(n));
        let location = match (node, remark.span) {
            (Some(node), _) => place::location(node, sources),
            (None, Some(span)) => sources.location(span),
            (None, None) => String::new(),
        };
        if said.insert((location.clone(), &remark.text)) {
            let _ = writeln!(out, "  {}", format!("{} {location}", remark.text).trim_end());
        }
    }
}

fn label(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    match node.name.as_str() {
        "" => node.op.name().to_string(),
        name => format!("{} `{name}`", node.op.name()),
    }
}

/// What is computed in every run.
fn work(graph: &Graph) -> Vec<NodeId> {
    let prepared = pass::prepared(graph);
    let source = |op: &Op| matches!(op, Op::Input | Op::Parameter(_) | Op::Constant(_) | Op::Reshape(_));
    graph.ids().filter(|n| !prepared.contains(n) && !source(&graph.node(*n).op)).collect()
}

fn bytes_of(graph: &Graph, ids: Vec<NodeId>) -> u64 {
    let size = |id: NodeId| {
        let ty = &graph.node(id).ty;
        ty.sizes().map_or(0, |s| s.iter().map(|&n| n as u64).product::<u64>() * ty.dtype.size() as u64)
    };
    ids.into_iter().map(size).sum()
}
