//! What logs say, as curves: of one run over its epochs, or of several over their steps in one figure.

use std::path::Path;

use serde_json::Value;

use crate::Error;
use crate::error::Result;
use crate::train::curves::Panel;

/// Members of a line that are not measured.
const NOT_MEASURED: [&str; 3] = ["step", "epoch", "learning_rate"];

/// What was measured at a step (counted from 1): names and values.
type Point = (u64, Vec<(String, f64)>);

/// The log of a run ([`log`](crate::train::log)).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logged {
    training: Vec<Point>,
    test: Vec<Point>,
}

impl Logged {
    /// Reads a log. Lines that are not of one (half a line, where a run was cut) are left out.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(path: &Path) -> Result<Logged> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let mut all = Logged::default();
        for line in text.lines() {
            let Ok(Value::Object(line)) = serde_json::from_str(line) else { continue };
            let Some(step) = line.get("step").and_then(Value::as_u64) else { continue };
            let (points, values) = match line.get("evaluation") {
                Some(Value::Object(values)) => (&mut all.test, values),
                _ => (&mut all.training, &line),
            };
            let measured = values.iter().filter(|(name, _)| !NOT_MEASURED.contains(&name.as_str()));
            let named = measured.map(|(name, v)| (name.clone(), v.as_f64().unwrap_or(f64::NAN)));
            points.push((step, named.collect()));
        }
        Ok(all)
    }

    /// The last step that was trained; 0 without any.
    pub fn steps(&self) -> u64 {
        self.training.last().map_or(0, |(step, _)| *step)
    }

    /// Means of the measures of training over every so many steps, each at the last one of them.
    fn means(&self, every: u64) -> Vec<Point> {
        let (every, mut means) = (every.max(1), vec![]);
        let mut part: Vec<(String, f64, u64)> = vec![];
        for (step, values) in &self.training {
            for (name, v) in values {
                match part.iter_mut().find(|(n, ..)| n == name) {
                    Some((_, sum, count)) => (*sum, *count) = (*sum + v, *count + 1),
                    None => part.push((name.clone(), *v, 1)),
                }
            }
            if step.is_multiple_of(every) {
                let of = |(name, sum, count): (String, f64, u64)| (name, sum / count as f64);
                means.push((*step, part.drain(..).map(of).collect()));
            }
        }
        means
    }
}

/// A run in a figure, and what its lines are called.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// Its log.
    pub log: &'a Logged,
    /// The name of what was measured in training, as means.
    pub training: String,
    /// The name of what was measured on other data.
    pub test: String,
}

/// What a figure is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Steps of training.
    Steps,
    /// Epochs, of so many steps.
    Epochs(u64),
}

/// A panel for each measure, the loss first: of training means over every so many steps, and all evaluations.
pub fn panels(runs: &[Run<'_>], every: u64, over: Over) -> Vec<Panel> {
    let mut panels: Vec<Panel> = vec![];
    let (over, scale) = match over {
        Over::Steps => ("step", 1.0),
        Over::Epochs(steps) => ("epoch", steps.max(1) as f64),
    };
    for run in runs {
        for (series, points) in [(&run.training, run.log.means(every)), (&run.test, run.log.test.clone())] {
            for (step, values) in points {
                for (name, v) in values {
                    let panel = panel_of(&mut panels, &name, over);
                    panel.add_point(series, (step as f64 / scale, v));
                }
            }
        }
    }
    panels.sort_by_key(|p| p.measure != "loss");
    panels
}

fn panel_of<'p>(panels: &'p mut Vec<Panel>, measure: &str, over: &str) -> &'p mut Panel {
    let at = panels.iter().position(|p| p.measure == measure).unwrap_or_else(|| {
        panels.push(Panel { over: over.into(), ..Panel::new(measure) });
        panels.len() - 1
    });
    &mut panels[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(text: &str) -> Logged {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, text).unwrap();
        Logged::read(&path).unwrap()
    }

    #[test]
    fn training_is_means_and_evaluations_are_points() {
        let log = logged(
            "{\"step\":1,\"epoch\":0,\"learning_rate\":0.1,\"top1\":0.5,\"loss\":3.0}\n\
             {\"step\":2,\"epoch\":0,\"learning_rate\":0.1,\"top1\":0.7,\"loss\":1.0}\n\
             {\"step\":2,\"epoch\":0,\"evaluation\":{\"loss\":0.25}}\n\
             {\"step\":3,\"epoch\":1,\"learning_rate\":0.1,\"top1\":0.7,\"loss\":\"NaN\"}\n\
             {\"step\":4,\"epo",
        );
        assert_eq!(log.steps(), 3);
        let run = Run { log: &log, training: "training".into(), test: "test".into() };
        let panels = panels(&[run], 2, Over::Epochs(2));
        let of = |i: usize, s: usize| {
            (&*panels[i].measure, &*panels[i].series[s].name, &panels[i].series[s].points)
        };
        assert_eq!(of(0, 0), ("loss", "training", &vec![(1.0, 2.0)]));
        assert_eq!(of(0, 1), ("loss", "test", &vec![(1.0, 0.25)]));
        assert_eq!(of(1, 0), ("top1", "training", &vec![(1.0, 0.6)]));
        assert_eq!((panels.len(), &*panels[1].over), (2, "epoch"));
    }

    #[test]
    fn runs_share_the_panels_of_their_measures() {
        let a = logged("{\"step\":1,\"epoch\":0,\"loss\":3.0}\n");
        let b = logged("{\"step\":1,\"epoch\":0,\"loss\":2.0,\"top1\":1.0}\n");
        let run = |log, name: &str| Run { log, training: name.into(), test: format!("{name}, test") };
        let panels = panels(&[run(&a, "a"), run(&b, "b")], 1, Over::Steps);
        let names: Vec<Vec<&str>> =
            panels.iter().map(|p| p.series.iter().map(|s| &*s.name).collect()).collect();
        assert_eq!(names, [vec!["a", "b"], vec!["b"]]);
    }
}
