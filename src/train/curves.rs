//! Learning curves as SVG: a panel for each measure, a line for each series in it, over epochs.

use plotters::prelude::*;

use crate::Error;
use crate::error::Result;

const WIDTH: u32 = 720;
const PANEL_HEIGHT: u32 = 320;
const COLORS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)];

/// A line: what it is, and its points (epochs, value).
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// `training`.
    pub name: String,
    /// By epoch; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// A panel: a measure, and who has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// `loss`.
    pub measure: String,
    /// Its lines.
    pub series: Vec<Series>,
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
        draw_panel(area, &heading, panel)?;
    }
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_panel(area: &Area<'_>, heading: &str, panel: &Panel) -> Drawn {
    let finite = |s: &Series| -> Vec<(f64, f64)> {
        s.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let lines: Vec<(&str, Vec<(f64, f64)>)> = panel.series.iter().map(|s| (&*s.name, finite(s))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (x, y) = (range(all().map(|p| p.0)), range(all().map(|p| p.1)));
    let mut chart = ChartBuilder::on(area)
        .caption(heading, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(x, y)?;
    chart.configure_mesh().x_desc("epoch").light_line_style(WHITE).draw()?;
    for (i, (name, points)) in lines.into_iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        let line = chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
        line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
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
        Panel { measure: measure.into(), series: vec![Series { name: "training".into(), points }] }
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

    #[test]
    fn ranges_are_never_empty() {
        assert_eq!(range([].into_iter()), 0.0..1.0);
        assert_eq!(range([2.0].into_iter()), 1.5..2.5);
    }
}
