//! Drawings as SVG: boxes in layers, arrows between them, what becomes one kernel in one colour.

use std::fmt::Write;

use super::drawing::{Box, Drawing, Kind};
use super::layered::{Placed, Point, place};

const FONT_SIZE: f64 = 13.0;
/// Of a bold character of the font, on average, as a share of its size.
const CHARACTER_WIDTH: f64 = 0.62;
const LINE_HEIGHT: f64 = 17.0;
const MARGIN: f64 = 8.0;
const INPUT_FILL: &str = "#d8ead2";
const OUTPUT_FILL: &str = "#f9e2c4";
const PLAIN_FILL: &str = "#ffffff";
/// Boxes of one frame share a fill; neighbouring frames differ.
const FRAME_FILLS: [&str; 4] = ["#dce8f7", "#ece2f5", "#f7f3d4", "#d9f2f0"];

const STYLE: &str = "\
<style>
rect { stroke: #555; rx: 5px }
path { stroke: #555; fill: none }
text { font: 13px Helvetica, Arial, sans-serif; text-anchor: middle }
text :first-child { font-weight: bold }
</style>
<defs>
<marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">
<path d=\"M0 1 L8 4 L0 7 z\" style=\"fill: #555\"/>
</marker>
</defs>
";

/// The drawing as an SVG document.
pub fn svg(drawing: &Drawing) -> String {
    let sizes: Vec<Point> = drawing.boxes.iter().map(size).collect();
    let placed = place(&sizes, &drawing.arrows);
    let (width, height) = placed.size;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">"
    );
    let _ = writeln!(out, "<title>{}</title>", escaped(&drawing.name));
    out.push_str(STYLE);
    for i in 0..drawing.arrows.len() {
        arrow(&mut out, &placed, &sizes, drawing.arrows[i], i);
    }
    for (i, b) in drawing.boxes.iter().enumerate() {
        draw_box(&mut out, b, placed.centres[i], sizes[i]);
    }
    out.push_str("</svg>\n");
    out
}

fn size(b: &Box) -> Point {
    let widest = b.lines.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    let width = widest as f64 * FONT_SIZE * CHARACTER_WIDTH + 2.0 * MARGIN;
    (width.round(), b.lines.len() as f64 * LINE_HEIGHT + MARGIN)
}

fn draw_box(out: &mut String, b: &Box, (x, y): Point, (width, height): Point) {
    let fill = match (b.kind, b.frame) {
        (Kind::Input, _) => INPUT_FILL,
        (Kind::Output, _) => OUTPUT_FILL,
        (Kind::Operation, Some(frame)) => FRAME_FILLS[frame % FRAME_FILLS.len()],
        (Kind::Operation, None) => PLAIN_FILL,
    };
    let (left, top) = (x - width / 2.0, y - height / 2.0);
    out.push_str("<g>");
    if !b.location.is_empty() {
        let _ = write!(out, "<title>{}</title>", escaped(&b.location));
    }
    let _ = write!(
        out,
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/><text>"
    );
    for (i, line) in b.lines.iter().enumerate() {
        let baseline = top + MARGIN / 2.0 + (i as f64 + 0.75) * LINE_HEIGHT;
        let _ = write!(out, "<tspan x=\"{x:.1}\" y=\"{baseline:.1}\">{}</tspan>", escaped(line));
    }
    out.push_str("</text></g>\n");
}

/// A curve from the bottom of one box through its bends to the top of another, vertical at each.
fn arrow(out: &mut String, placed: &Placed, sizes: &[Point], (from, to): (usize, usize), i: usize) {
    let (start, end) = (placed.centres[from], placed.centres[to]);
    let mut points = vec![(start.0, start.1 + sizes[from].1 / 2.0)];
    points.extend(&placed.bends[i]);
    points.push((end.0, end.1 - sizes[to].1 / 2.0));
    let _ = write!(out, "<path marker-end=\"url(#tip)\" d=\"M{:.1} {:.1}", points[0].0, points[0].1);
    for pair in points.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let middle = (a.1 + b.1) / 2.0;
        let _ = write!(out, " C{:.1} {middle:.1} {:.1} {middle:.1} {:.1} {:.1}", a.0, b.0, b.0, b.1);
    }
    out.push_str("\"/>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
    }
}
