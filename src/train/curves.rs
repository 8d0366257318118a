//! Curves as SVG: a panel for each measure, a line for each series in it. Learning curves, over epochs,
//! are what they are for; other things that are measured can be drawn, too.

use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::Error;
use crate::error::Result;

const WIDTH: u32 = 720;
const PANEL_HEIGHT: u32 = 320;
/// What the names of the lines have, to the right of them: so much at least, and for a letter; beside them, their colors.
const LEAST_LEGEND: i32 = 110;
const LETTER: i32 = 7;
const LEGEND_COLOR: i32 = 42;
const COLORS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 190, 207),
];

/// A line: what it is, and its points.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// `training`.
    pub name: String,
    /// By what the panel is over, then the value; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// A panel: a measure, and who has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// `loss`.
    pub measure: String,
    /// What it is over: `epoch`.
    pub over: String,
    /// Whether equal factors are equal distances, upwards; values that are not positive are left out.
    pub logarithmic: bool,
    /// Its lines.
    pub series: Vec<Series>,
}

impl Panel {
    /// A panel over epochs, without lines yet.
    pub fn new(measure: impl Into<String>) -> Panel {
        Panel { measure: measure.into(), over: "epoch".into(), logarithmic: false, series: vec![] }
    }

    /// Adds a line.
    pub fn add(&mut self, name: impl Into<String>, points: Vec<(f64, f64)>) {
        self.series.push(Series { name: name.into(), points });
    }

    /// Adds a point to the line of that name, which begins with it if there is none.
    pub fn add_point(&mut self, name: &str, point: (f64, f64)) {
        match self.series.iter_mut().find(|s| s.name == name) {
            Some(s) => s.points.push(point),
            None => self.add(name, vec![point]),
        }
    }
}

/// The color of a line by its number: of the first ones our own, then those of a palette of 99.
fn color(line: usize) -> RGBColor {
    match COLORS.get(line) {
        Some(color) => *color,
        None => {
            let (r, g, b) = Palette99::pick(line).rgb();
            RGBColor(r, g, b)
        }
    }
}

/// The panels, one below the other, as an SVG document.
pub fn svg(title: &str, panels: &[Panel]) -> Result<String> {
    let mut out = String::new();
    draw(&mut out, title, panels).map_err(|e| Error::Internal(format!("the curves cannot be drawn: {e}")))?;
    Ok(out)
}

type Drawn<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn draw(out: &mut String, title: &str, panels: &[Panel]) -> Drawn {
    let height = PANEL_HEIGHT * panels.len().max(1) as u32;
    let root = SVGBackend::with_string(out, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    for (i, (area, panel)) in root.split_evenly((panels.len().max(1), 1)).iter().zip(panels).enumerate() {
        let heading = if i == 0 { format!("{title}: {}", panel.measure) } else { panel.measure.clone() };
        draw_panel(area, &heading, &Drawable::of(panel, panels))?;
    }
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// What a panel is drawn from.
struct Drawable<'a> {
    panel: &'a Panel,
    lines: Vec<Line<'a>>,
    /// From the first to the last point of all panels over the same.
    x: std::ops::Range<f64>,
}

/// A line: its name, its color, and its points that can be drawn.
struct Line<'a> {
    name: &'a str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

impl<'a> Drawable<'a> {
    /// That of a panel of a figure: lines of one name have one color in all of them.
    fn of(panel: &'a Panel, figure: &[Panel]) -> Drawable<'a> {
        let mut names: Vec<&str> = vec![];
        for series in figure.iter().flat_map(|p| &p.series) {
            if !names.contains(&series.name.as_str()) {
                names.push(&series.name);
            }
        }
        let line = |s: &'a Series| {
            let number = names.iter().position(|n| *n == s.name).unwrap_or(0);
            Line { name: &s.name, color: color(number), points: panel.drawn(s).collect() }
        };
        let alike = figure.iter().filter(|p| p.over == panel.over);
        let x = range(alike.flat_map(|p| p.series.iter().flat_map(|s| p.drawn(s))).map(|p| p.0));
        Drawable { panel, lines: panel.series.iter().map(line).collect(), x }
    }
}

impl Panel {
    /// The points of a line that can be drawn.
    fn drawn(&self, series: &Series) -> impl Iterator<Item = (f64, f64)> + Clone {
        let logarithmic = self.logarithmic;
        let can = move |(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && (*y > 0.0 || !logarithmic);
        series.points.iter().copied().filter(can)
    }
}

fn draw_panel(area: &Area<'_>, heading: &str, Drawable { panel, lines, x }: &Drawable) -> Drawn {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x = x.clone();
    let mut builder = ChartBuilder::on(area);
    builder.caption(heading, ("sans-serif", 18)).margin(12).x_label_area_size(36).y_label_area_size(56);
    builder.margin_right(legend_width(lines));
    draw_legend(area, lines)?;
    if panel.logarithmic {
        let powers = range(all().map(|p| p.1.log10()));
        let y = (10f64.powf(powers.start)..10f64.powf(powers.end)).log_scale();
        draw_lines(builder.build_cartesian_2d(x, y)?, lines, &panel.over, |y| format!("{y:.0e}"))
    } else {
        let y = range(all().map(|p| p.1));
        // The fewest digits that tell the marks apart.
        let digits = (1.3 - (y.end - y.start).log10()).ceil().clamp(0.0, 12.0) as usize;
        draw_lines(builder.build_cartesian_2d(x, y)?, lines, &panel.over, |y| format!("{y:.digits$}"))
    }
}

fn draw_lines<'a, 'b: 'a, Y>(
    mut chart: ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>,
    lines: &[Line<'_>],
    over: &str,
    mark: impl Fn(&f64) -> String,
) -> Drawn
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(over).x_label_formatter(&plain).y_label_formatter(&mark);
    mesh.light_line_style(WHITE).draw()?;
    for line in lines {
        // A line of one point would not be seen.
        if let &[point] = line.points.as_slice() {
            chart.draw_series([Circle::new(point, 3, line.color.filled())])?;
        } else {
            let points = line.points.iter().copied();
            chart.draw_series(LineSeries::new(points, line.color.stroke_width(2)))?;
        }
    }
    Ok(())
}

/// A number without zeros at its end.
fn plain(x: &f64) -> String {
    let text = format!("{x:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Pixels of the legend. It leaves the chart half of the width, however long a name is.
fn legend_width(lines: &[Line<'_>]) -> i32 {
    let letters = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
    let wanted = LEGEND_COLOR.saturating_add(LETTER.saturating_mul(letters.try_into().unwrap_or(i32::MAX)));
    wanted.clamp(LEAST_LEGEND, WIDTH as i32 / 2)
}

/// The names of the lines, beside the chart: in it they would cover lines.
fn draw_legend(area: &Area<'_>, lines: &[Line<'_>]) -> Drawn {
    let x = WIDTH as i32 - legend_width(lines) + 12;
    for (i, line) in lines.iter().enumerate() {
        let y = 48 + 20 * i as i32;
        area.draw(&PathElement::new([(x, y), (x + 18, y)], line.color.stroke_width(2)))?;
        area.draw(&Text::new(line.name.to_string(), (x + 24, y - 6), ("sans-serif", 13)))?;
    }
    Ok(())
}

/// From the smallest to the largest value, with a little room; never empty.
fn range(values: impl Iterator<Item = f64> + Clone) -> std::ops::Range<f64> {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    match (low <= high, high - low) {
        (false, _) => 0.0..1.0,
        (true, 0.0) => low - 0.5..high + 0.5,
        (true, span) => low - 0.03 * span..high + 0.03 * span,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(measure: &str, points: Vec<(f64, f64)>) -> Panel {
        let mut panel = Panel::new(measure);
        panel.add("training", points);
        panel
    }

    #[test]
    fn a_panel_for_each_measure() {
        let loss = panel("loss", vec![(0.5, 2.3), (1.0, f64::NAN), (1.5, 0.4)]);
        let text = svg("lenet5", &[loss, panel("top1", vec![])]).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
        for part in ["lenet5: loss", "top1", "training", "epoch", "<polyline"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("NaN"));
    }

    /// A line has its color, and its place, in all panels.
    #[test]
    fn panels_are_of_one_figure() {
        let mut loss = panel("loss", vec![(0.0, 2.0), (8.0, 1.0)]);
        loss.add("test", vec![(8.0, 1.5)]);
        let mut accuracy = Panel::new("accuracy");
        accuracy.add("test", vec![(8.0, 0.9)]);
        let drawn = Drawable::of(&accuracy, &[loss.clone(), accuracy.clone()]);
        assert_eq!((drawn.lines[0].color, drawn.x), (COLORS[1], range([0.0, 8.0].into_iter())));
        let text = svg("net", &[loss, accuracy]).unwrap();
        assert_eq!(text.matches("<circle").count(), 2, "{text}");
    }

    #[test]
    fn factors_can_be_distances() {
        let mut norms = panel("norm", vec![(1.0, 1e-6), (2.0, 0.0), (3.0, 1e2)]);
        (norms.logarithmic, norms.over) = (true, "layer".into());
        let text = svg("stack", &[norms]).unwrap();
        // As marks are written.
        assert!(text.contains("1e-4") && text.contains("layer"), "{text}");
        let line = text.lines().find(|l| l.starts_with("<polyline") && l.contains("#1F77B4"));
        assert_eq!(line.expect("a line").matches(',').count(), 2, "{line:?}");
    }

    #[test]
    fn numbers_end_with_what_counts() {
        assert_eq!([0.0, 10.0, 2.5, 0.1 + 0.2].map(|x| plain(&x)), ["0", "10", "2.5", "0.3"]);
    }

    #[test]
    fn ranges_are_never_empty() {
        assert_eq!(range([].into_iter()), 0.0..1.0);
        assert_eq!(range([2.0].into_iter()), 1.5..2.5);
    }
}
