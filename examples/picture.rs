//! Runs a net on a picture: `cargo run --release --example picture -- examples/images/coffee.png`
//!
//! The program and its weights are files; the picture is resized, cropped and normalised as
//! ImageNet models expect.

use std::path::Path;

use ndarray::Axis;
use nnc::data::image::{Picture, Preprocess};
use nnc::data::labels;
use nnc::{Options, Source, Weights};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or("examples/images/coffee.png".into());

    let network = Source::open("examples/mobilenet_v2.nn")?.network(&Options::new())?;
    let weights = Weights::open("examples/weights/mobilenet_v2_imagenet.safetensors")?;
    let model = network.load(&weights)?;

    let picture = Picture::open(Path::new(&path))?;
    let image = Preprocess::ImageNet.apply(&picture, 3, (Some(224), Some(224)))?;
    let batch = image.insert_axis(Axis(0)); // [1, 3, 224, 224]

    let outputs = model.run(&[("image", (&batch).into())])?;
    let probabilities = outputs["probabilities"].as_f32().ok_or("expected f32")?;
    let names = labels::read(Path::new("examples/images/imagenet_labels.txt"))?;
    for (class, p) in labels::top(probabilities.iter().copied(), 5) {
        println!("{:6.2} %  {}", p * 100.0, names[class]);
    }
    Ok(())
}
