//! A plain stack of convolutions against the same stack with shortcuts, 10, 20 and 40 layers deep: the same data in the
//! same order, the same optimizer, the same number of steps.

use nnc::data::dataset::Part;
use nnc::data::folder::Bad;
use nnc::data::spec::DataSpec;
use nnc::train::curves::Panel;
use nnc::train::fit::{EpochReport, FitOptions, Watch, fit};
use nnc::train::{Trainer, TrainerOptions};
use nnc::{Options, Source};

use super::{KINDS, Outcome, STACK, draw};

const DEPTHS: [usize; 3] = [10, 20, 40];
pub const EPOCHS: u64 = 15;

/// The training error of every epoch, in percent.
struct Errors(Vec<(f64, f64)>);

impl Watch for Errors {
    fn epoch(&mut self, report: &EpochReport) {
        let right = report.training.metrics.iter().find(|(name, _)| name == "top1").map_or(0.0, |m| m.1);
        self.0.push((report.epoch as f64 + 1.0, 100.0 * (1.0 - right)));
    }
}

pub fn run(data: &str, epochs: u64) -> Outcome {
    let digits =
        data.parse::<DataSpec>()?.open(Part::Train, &[Some(1), Some(28), Some(28)], Bad::Refuse)?.set;
    let source = Source::open(STACK)?;
    let mut panels = vec![Panel::new(format!("training error in epoch {epochs}, %"))];
    panels[0].over = "layers".into();
    let mut last = KINDS.map(|kind| (kind, vec![]));
    for depth in DEPTHS {
        let mut panel = Panel::new(format!("{depth} layers: training error, %"));
        for (kind, last) in &mut last {
            let options = Options::new().set("kind", *kind).set("depth", depth);
            let how = TrainerOptions { examples: digits.len(), ..TrainerOptions::default() };
            let mut trainer = Trainer::new(&source, &options, &how)?;
            let mut errors = Errors(vec![]);
            fit(&mut trainer, &digits, None, &FitOptions { epochs, ..FitOptions::default() }, &mut errors)?;
            let (_, error) = errors.0.last().copied().ok_or("no epoch was trained")?;
            println!("{kind:9} {depth:3} layers: {error:5.2} % of the digits are wrong in epoch {epochs}");
            last.push((depth as f64, error));
            panel.add(*kind, errors.0);
        }
        panels.push(panel);
    }
    for (kind, points) in last {
        panels[0].add(kind, points);
    }
    draw("degradation", "3x3 convolutions", &panels)
}
