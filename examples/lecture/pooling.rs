//! Five photographs, each seen a second time one pixel to the left: the share of the values that change, in what a
//! convolution finds and in what max pooling makes of it.

use std::path::Path;

use ndarray::{Array4, ArrayD, s};
use nnc::data::image::Picture;
use nnc::train::curves::Panel;
use nnc::{Options, Source, Weights};

use super::{Outcome, draw};

const PICTURES: [&str; 5] = ["chelsea", "china", "coffee", "flower", "rocket"];
/// Outputs of `shift.nn` by window, with stride 1 and with windows side by side.
const OUTPUTS: [(usize, &str, &str); 4] =
    [(1, "maps", "maps"), (2, "pool2", "strided2"), (3, "pool3", "strided3"), (5, "pool5", "strided5")];
/// What counts as a change, as a share of the larger value.
const TOLERANCE: f32 = 0.01;
const SIDE: usize = 220;
/// ImageNet's, by which the weights were trained.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

pub fn run() -> Outcome {
    let trained = Weights::open("examples/weights/mobilenet_v2_imagenet.safetensors")?;
    let first = trained.tensors()?.iter().filter(|(name, _)| name.starts_with("features.0."));
    let weights = Weights::from_map(first.map(|(name, t)| (name.clone(), t.clone())).collect());
    let model = Source::open("examples/lecture/shift.nn")?.network(&Options::new())?.load(&weights)?;

    // [window][stride 1, side by side]
    let mut changed = [[0.0; 2]; OUTPUTS.len()];
    for name in PICTURES {
        let picture = Picture::open(&Path::new("examples/images").join(name).with_extension("png"))?;
        let bytes = picture.resize_and_crop(SIDE + 1, SIDE + 1).planes([3, SIDE + 1, SIDE + 1]);
        let mut image = Array4::from_shape_fn((1, 3, SIDE + 1, SIDE + 1), |(_, c, y, x)| {
            f32::from(bytes[(c * (SIDE + 1) + y) * (SIDE + 1) + x]) / 255.0
        });
        for (c, mut plane) in image.slice_mut(s![0, .., .., ..]).outer_iter_mut().enumerate() {
            plane.mapv_inplace(|v| (v - MEAN[c]) / STD[c]);
        }
        let seen = |left: usize| {
            let part = image.slice(s![.., .., ..SIDE, left..left + SIDE]).to_owned();
            model.run(&[("image", (&part).into())])
        };
        let (here, there) = (seen(0)?, seen(1)?);
        for (output, changed) in OUTPUTS.iter().zip(&mut changed) {
            for (name, share) in [output.1, output.2].iter().zip(changed) {
                let pair = here[*name].as_f32().zip(there[*name].as_f32()).ok_or("expected f32")?;
                *share += share_of_changes(pair.0, pair.1) / PICTURES.len() as f64;
            }
        }
    }
    let mut panel = Panel::new("values that change, %");
    panel.over = "window of max pooling (1: the convolution itself)".into();
    for (k, name) in ["stride 1", "side by side"].into_iter().enumerate() {
        let points = OUTPUTS.iter().zip(&changed).map(|(o, share)| (o.0 as f64, 100.0 * share[k]));
        panel.add(name, points.collect());
    }
    for ((window, ..), [every, beside]) in OUTPUTS.iter().zip(&changed) {
        let (every, beside) = (100.0 * every, 100.0 * beside);
        println!(
            "{window}x{window}: {every:5.1} % change with stride 1, {beside:5.1} % with windows side by side"
        );
    }
    draw("pooling", "a picture moved by a pixel", &[panel])
}

/// Of the values that are not zero both times, the share that differs by more than the tolerance.
fn share_of_changes(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f64 {
    let (mut all, mut changed) = (0, 0);
    for (a, b) in a.iter().zip(b).filter(|(a, b)| **a > 0.0 || **b > 0.0) {
        all += 1;
        changed += usize::from((a - b).abs() > TOLERANCE * a.max(*b));
    }
    changed as f64 / f64::from(all.max(1) as u32)
}
