//! `nnc eval`: how often a classifier is right on labelled pictures.

use std::path::PathBuf;

use nnc::data::idx::{LabelledPictures, Split};
use nnc::data::labels;
use nnc::{Error, Model, Tensor, TensorSpec};

use super::args::{NetArgs, RunArgs, build, open_source};
use super::progress::Progress;
use super::{Outcome, run, terminal};

/// Measure a classifier's accuracy on labelled pictures
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc eval examples/lenet.nn --data mnist:mnist/ --weights examples/weights/lenet5_mnist.safetensors
  nnc eval examples/lenet.nn --data mnist:tests/data/mnist --split train \\
           --weights examples/weights/lenet5_mnist.safetensors

mnist:DIR is a folder with MNIST's files (or Fashion-MNIST's, …), plain or as .gz:
t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, or train-… with --split train.
Pixels become numbers from 0 to 1.")]
pub struct Args {
    /// The program (.nn); `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The labelled pictures: mnist:DIR
    #[arg(long, value_name = "KIND:DIR", value_parser = data)]
    data: PathBuf,
    /// Which part of the data: test or train
    #[arg(long, value_name = "PART", default_value = "test", value_parser = ["test", "train"])]
    split: String,
    /// The weights (.safetensors)
    #[arg(short, long, value_name = "FILE")]
    weights: PathBuf,
    /// Pictures a run, where the program leaves that open
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    batch: u64,
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    how: RunArgs,
}

fn data(text: &str) -> Result<PathBuf, String> {
    match text.split_once(':') {
        Some(("mnist", folder)) if !folder.is_empty() => Ok(folder.into()),
        _ => Err("expected mnist:DIR".into()),
    }
}

pub fn run(args: &Args) -> Outcome {
    let split = if args.split == "train" { Split::Train } else { Split::Test };
    let pictures = LabelledPictures::open(&args.data, split)?;
    let source = open_source(&args.file)?;
    let network = build(&source, &args.how.options(args.net.options()))?;
    let model = network.load(&run::open_weights(&args.weights)?)?;
    let right = count_right(&model, &pictures, args.batch as usize)?;
    let share = 100.0 * right as f64 / pictures.len() as f64;
    terminal::print(&format!("accuracy: {share:.2} % ({right} of {})\n", pictures.len()))
}

/// How many pictures have the largest output at their label.
fn count_right(model: &Model, pictures: &LabelledPictures, batch: usize) -> Outcome<usize> {
    let input = image_input(model, pictures)?;
    // The last batch is filled up with repeated pictures, so that one program serves all.
    let batch = input.ty.shape[0].size().unwrap_or(batch.min(pictures.len()));
    let output = classes_output(model)?;
    let progress = Progress::counted(pictures.len() as u64, "pictures");
    let mut right = 0;
    for start in (0..pictures.len()).step_by(batch.max(1)) {
        let end = (start + batch).min(pictures.len());
        let mut x = pictures.batch(start, end);
        if end - start < batch {
            let missing: Vec<usize> = (0..batch).map(|i| i % (end - start)).collect();
            x = x.select(ndarray::Axis(0), &missing);
        }
        let outputs = model.run(&[(input.name.as_str(), (&x).into())])?;
        let Some(Tensor::F32(scores)) = outputs.get(&output.name) else {
            return Err(Error::Internal(format!("no output `{}`", output.name)).into());
        };
        for (row, &label) in scores.outer_iter().zip(&pictures.labels[start..end]) {
            if usize::from(label) >= row.len() {
                let message = format!("label {label} is out of range: the net has {} classes", row.len());
                return Err(Error::Input(message).into());
            }
            let best = labels::top(row.iter().copied(), 1);
            right += usize::from(best[0].0 == usize::from(label));
        }
        progress.advance((end - start) as u64);
    }
    Ok(right)
}

/// The only input, which must take the pictures.
fn image_input<'a>(model: &'a Model, pictures: &LabelledPictures) -> Outcome<&'a TensorSpec> {
    let [input] = model.inputs() else {
        let message = format!("expected a net with one input, found {}", model.inputs().len());
        return Err(Error::Input(message).into());
    };
    let expected = [1, pictures.height, pictures.width];
    let shape = &input.ty.shape;
    let fits = shape.len() == 4
        && shape[1..].iter().zip(expected).all(|(d, n)| d.size().is_none_or(|size| size == n))
        && shape[0].size() != Some(0);
    if fits {
        return Ok(input);
    }
    let [_, h, w] = expected;
    let message =
        format!("expected an input for pictures f32[N, 1, {h}, {w}], found `{}: {}`", input.name, input.ty);
    Err(Error::Input(message).into())
}

/// `logits`, `probabilities`, or the first output of shape `[N, classes]`.
fn classes_output(model: &Model) -> Outcome<&TensorSpec> {
    let scores = |o: &&TensorSpec| o.ty.dtype == nnc::DType::F32 && o.ty.rank() == 2;
    let named = |name| model.outputs().iter().find(|o| o.name == name).filter(scores);
    let found = named("logits").or_else(|| named("probabilities"));
    found
        .or_else(|| model.outputs().iter().find(scores))
        .ok_or_else(|| Error::Input("the net has no output f32[N, classes] to classify by".into()).into())
}
