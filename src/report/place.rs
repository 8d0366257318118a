//! Where a node was written, as its author would say it.

use nnc_compiler::graph::Node;
use nnc_dsl::{SourceMap, Span};

/// The innermost place in the author's own files; in the standard library where there is none.
pub fn span(node: &Node, sources: &SourceMap) -> Option<Span> {
    let own = |s: &&Span| !sources.file(s.file).name.starts_with("std.");
    node.spans.iter().find(own).or(node.spans.first()).copied()
}

/// `vgg.nn:9`, or nothing for a node without a place.
pub fn location(node: &Node, sources: &SourceMap) -> String {
    span(node, sources).map_or(String::new(), |s| sources.location(s))
}
