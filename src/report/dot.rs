//! Drawings in Graphviz's DOT language.

use std::fmt::Write;

use super::drawing::{Box, Drawing, Kind};

/// The drawing as DOT text.
pub fn dot(drawing: &Drawing) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "digraph {} {{", quoted(&drawing.name));
    out.push_str("  rankdir=TB;\n");
    out.push_str("  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"Helvetica\"];\n");
    let in_frame = |frame| drawing.boxes.iter().enumerate().filter(move |(_, b)| b.frame == frame);
    for (i, frame) in drawing.frames.iter().enumerate() {
        let _ = writeln!(out, "  subgraph cluster_{i} {{");
        let _ = writeln!(out, "    label={}; style=rounded; bgcolor=\"#eef3fa\";", quoted(&frame.title));
        for (n, b) in in_frame(Some(i)) {
            let _ = writeln!(out, "    {}", node(n, b));
        }
        out.push_str("  }\n");
    }
    for (n, b) in in_frame(None) {
        let _ = writeln!(out, "  {}", node(n, b));
    }
    for (from, to) in &drawing.arrows {
        let _ = writeln!(out, "  n{from} -> n{to};");
    }
    out.push_str("}\n");
    out
}

fn node(n: usize, b: &Box) -> String {
    let color = match b.kind {
        Kind::Operation => "",
        Kind::Input => ", fillcolor=\"#d8ead2\"",
        Kind::Output => ", fillcolor=\"#f9e2c4\"",
    };
    let tooltip =
        if b.location.is_empty() { String::new() } else { format!(", tooltip={}", quoted(&b.location)) };
    format!("n{n} [label={}{color}{tooltip}];", quoted(&b.lines.join("\n")))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a \"b\"\nc\\"), r#""a \"b\"\nc\\""#);
    }
}
