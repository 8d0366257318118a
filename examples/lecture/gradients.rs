//! The length of the loss's gradient with respect to the weights of each layer, before anything is learnt, in a stack of
//! 40 layers.

use ndarray::{Array1, Array4};
use nnc::data::dataset::{Dataset, Part};
use nnc::data::idx;
use nnc::train::curves::Panel;
use nnc::train::{Trainer, TrainerOptions};
use nnc::{Options, Source};

use super::{KINDS, Outcome, STACK, draw};

const DEPTH: usize = 40;
const BATCH: usize = 50;

pub fn run() -> Outcome {
    let digits = idx::open("tests/data/digits".as_ref(), Part::Train)?;
    let mut image = Array4::<f32>::zeros((BATCH, 1, 28, 28));
    for (i, mut to) in image.outer_iter_mut().enumerate() {
        digits.read(i, to.as_slice_mut().ok_or("pictures lie row by row")?);
    }
    let label = Array1::from_iter((0..BATCH).map(|i| digits.label(i)));
    let source = Source::open(STACK)?;
    let mut panels = vec![];
    for (norm, title) in
        [(false, "length of the gradient by layer, nothing normalised"), (true, "with batch normalisation")]
    {
        let mut panel = Panel::new(title);
        (panel.logarithmic, panel.over) = (true, "layer".into());
        for kind in KINDS {
            let options = Options::new().set("kind", kind).set("depth", DEPTH).set("norm", norm);
            let how = TrainerOptions { batch: Some(BATCH), ..TrainerOptions::default() };
            let mut trainer = Trainer::new(&source, &options, &how)?;
            let gradients = trainer.gradients(&[("image", (&image).into()), ("label", (&label).into())])?;
            let length = |name: &str| -> Option<f64> {
                let values = gradients.get(name)?.as_f32()?;
                Some(values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt())
            };
            let layers =
                (1..=DEPTH / 2).flat_map(|i| ["a", "b"].map(|part| format!("block{i}.{part}.conv.weight")));
            let lengths: Option<Vec<f64>> = layers.map(|name| length(&name)).collect();
            let lengths = lengths.ok_or("a layer has no gradient")?;
            let (first, last) = (lengths[0], lengths[DEPTH - 1]);
            println!(
                "{title}: {kind:9} layer 1: {first:8.2e}, layer {DEPTH}: {last:8.2e}, {:8.2e} times",
                first / last
            );
            panel.add(kind, lengths.iter().enumerate().map(|(i, &l)| (i as f64 + 1.0, l)).collect());
        }
        panels.push(panel);
    }
    draw("gradients", &format!("{DEPTH} layers"), &panels)
}
