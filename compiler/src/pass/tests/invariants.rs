//! What must hold of every graph after the fusion pass, whatever went in.

use std::collections::HashMap;

use super::super::{is_elementwise, prepared};
use crate::graph::{Graph, GroupId, Layout, NodeId, Op};

/// Panics with the node at fault where a promise of `fuse` or `place_concat` does not hold.
pub fn check(graph: &Graph) {
    every_node_is_in_one_group(graph);
    values_within_groups_are_used_within(graph);
    groups_run_after_their_operands(graph);
    groups_mix_neither_phases_nor_layouts(graph);
    placements_fill_their_concatenations(graph);
}

fn every_node_is_in_one_group(graph: &Graph) {
    for id in graph.ids() {
        let outside =
            matches!(graph.node(id).op, Op::Input | Op::Parameter(_) | Op::Constant(_) | Op::Reshape(_));
        let holders: Vec<usize> =
            (0..graph.groups.len()).filter(|&g| graph.groups[g].nodes.contains(&id)).collect();
        let expected = graph.node(id).group.map(|g| g.0 as usize).into_iter().collect::<Vec<_>>();
        assert_eq!(holders, expected, "{id:?}");
        assert_eq!(holders.is_empty(), outside, "{id:?} {:?}", graph.node(id).op);
    }
    for group in &graph.groups {
        let shaping: Vec<NodeId> = group
            .nodes
            .iter()
            .copied()
            .filter(|&n| !is_elementwise(&graph.node(n).op) && Some(n) != group.anchor)
            .collect();
        if shaping.iter().all(|&n| matches!(graph.node(n).op, Op::Reduce { .. })) {
            continue;
        }
        // A pooling after a convolution, or convolutions around a depthwise one; a relayout at the end.
        assert!(shaping.len() <= 3, "{:?}", group.nodes);
    }
}

fn values_within_groups_are_used_within(graph: &Graph) {
    for group in &graph.groups {
        let anchored = group.anchor.is_some_and(|a| !matches!(graph.node(a).op, Op::Reduce { .. }));
        for &id in &group.nodes[..group.nodes.len() - 1] {
            let used = !graph.users(id).is_empty() || graph.is_output(id);
            assert!(used, "{id:?} is unused inside a group");
            if anchored {
                assert!(!graph.is_output(id), "{id:?} is an output inside a group");
                for user in graph.users(id) {
                    assert!(group.nodes.contains(&user), "{id:?} inside a group is used outside by {user:?}");
                }
            }
        }
    }
}

fn groups_run_after_their_operands(graph: &Graph) {
    let mut done: HashMap<NodeId, usize> = HashMap::new();
    for (g, group) in graph.groups.iter().enumerate() {
        for &id in &group.nodes {
            for mut operand in graph.operands(id) {
                while matches!(graph.node(operand).op, Op::Reshape(_)) {
                    operand = graph.operands(operand)[0];
                }
                let source = matches!(graph.node(operand).op, Op::Input | Op::Parameter(_) | Op::Constant(_));
                assert!(source || done.contains_key(&operand), "{id:?} runs before its operand {operand:?}");
            }
            done.insert(id, g);
        }
    }
}

fn groups_mix_neither_phases_nor_layouts(graph: &Graph) {
    let prepared = prepared(graph);
    let mut run_phase = false;
    for (g, group) in graph.groups.iter().enumerate() {
        let once = prepared.contains(&group.nodes[0]);
        assert!(group.nodes.iter().all(|n| prepared.contains(n) == once), "group {g} mixes phases");
        assert!(!(once && run_phase), "group {g} is prepared after the run phase began");
        run_phase |= !once;
        if group.nodes.iter().any(|&n| matches!(graph.node(n).op, Op::Reduce { .. })) {
            // Sums are row-major, what they read may lie in blocks.
            continue;
        }
        let layouts: Vec<Layout> = group
            .nodes
            .iter()
            .map(|&n| graph.node(n))
            .filter(|n| n.op != Op::Relayout)
            .map(|n| n.layout)
            .collect();
        assert!(layouts.windows(2).all(|w| w[0] == w[1]), "group {g} mixes layouts");
    }
}

fn placements_fill_their_concatenations(graph: &Graph) {
    for id in graph.ids() {
        if let Some(placement) = graph.node(id).placement {
            assert!(graph.operands(placement.into).contains(&id));
            let group = graph.node(id).group.map(|GroupId(g)| &graph.groups[g as usize]);
            assert_eq!(group.and_then(|g| g.nodes.last()), Some(&id), "{id:?} is placed, but no result");
        }
        let Op::Concat(axis) = graph.node(id).op else { continue };
        let operands = graph.operands(id);
        let placed: Vec<_> = operands
            .iter()
            .filter_map(|&o| graph.node(o).placement.filter(|p| p.into == id).map(|p| (o, p.offset)))
            .collect();
        assert!(placed.is_empty() || placed.len() == operands.len(), "{id:?} is half placed");
        let mut offset = 0;
        for (operand, at) in placed {
            assert_eq!(at, offset);
            offset += graph.node(operand).ty.shape[axis].size().expect("a known size");
        }
    }
}
