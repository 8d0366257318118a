//! Drawings as SVG, laid out by layout-rs (Sugiyama layers).

use layout::backends::svg::SVGWriter;
use layout::core::base::Orientation;
use layout::core::color::Color;
use layout::core::geometry::Point;
use layout::core::style::StyleAttr;
use layout::std_shapes::shapes::{Arrow, Element, ShapeKind};
use layout::topo::layout::VisualGraph;

use super::drawing::{Box, Drawing, Kind};

const FONT_SIZE: usize = 14;
/// Fills of boxes as `0xRRGGBBAA`: inputs, outputs, operations outside of frames.
const INPUT_FILL: u32 = 0xd8ead2ff;
const OUTPUT_FILL: u32 = 0xf9e2c4ff;
const PLAIN_FILL: u32 = 0xffffffff;
/// Boxes of one frame share a fill; neighbouring frames differ.
const FRAME_FILLS: [u32; 4] = [0xdce8f7ff, 0xece2f5ff, 0xf7f3d4ff, 0xd9f2f0ff];
const LINE: u32 = 0x333333ff;

/// The drawing as an SVG document. Frames are shown by colour: boxes of one kernel share it.
pub fn svg(drawing: &Drawing) -> String {
    let mut graph = VisualGraph::new(Orientation::TopToBottom);
    let nodes: Vec<_> = drawing.boxes.iter().map(|b| graph.add_node(element(b))).collect();
    for &(from, to) in &drawing.arrows {
        graph.add_edge(Arrow::simple(""), nodes[from], nodes[to]);
    }
    let mut writer = SVGWriter::new();
    graph.do_it(false, false, false, &mut writer);
    writer.finalize()
}

fn element(b: &Box) -> Element {
    let fill = match (b.kind, b.frame) {
        (Kind::Input, _) => INPUT_FILL,
        (Kind::Output, _) => OUTPUT_FILL,
        (Kind::Operation, Some(frame)) => FRAME_FILLS[frame % FRAME_FILLS.len()],
        (Kind::Operation, None) => PLAIN_FILL,
    };
    let look = StyleAttr::new(Color::new(LINE), 1, Some(Color::new(fill)), 6, FONT_SIZE);
    // A character of Times is about half as wide as high.
    let widest = b.lines.iter().map(|l| l.chars().count()).max().unwrap_or(1);
    let size = Point::new(
        widest as f64 * FONT_SIZE as f64 * 0.55 + 20.0,
        b.lines.len() as f64 * FONT_SIZE as f64 * 1.1 + 16.0,
    );
    Element::create(ShapeKind::Box(b.lines.join("\n")), look, Orientation::TopToBottom, size)
}
