//! `nnc eval`: how often a classifier is right on labelled pictures.

use std::path::PathBuf;
use std::sync::Arc;

use nnc::data::augment::{Normalize, Transform};
use nnc::data::batches::{Batches, Rest};
use nnc::data::dataset::{Dataset, Part, check_labels};
use nnc::data::folder::Bad;
use nnc::data::labels;
use nnc::data::spec::{DataSpec, Opened};
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

The data:
  mnist:DIR    MNIST's files (or Fashion-MNIST's, …), plain or as .gz: t10k-images-idx3-ubyte and
               t10k-labels-idx1-ubyte, or train-… with --split train
  cifar10:DIR  CIFAR-10's binary files: test_batch.bin, or data_batch_….bin
  folder:DIR   test/CLASS/….png (or .jpg), or train/…; a picture of another size is stretched
  npz:FILE     arrays x_test and y_test, or x_train (or x) and y_train (or y)
Bytes become numbers from 0 to 1.")]
pub struct Args {
    /// The program (.nn); `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The labelled pictures: mnist:DIR, cifar10:DIR, folder:DIR or npz:FILE
    #[arg(long, value_name = "KIND:PATH", value_parser = str::parse::<DataSpec>)]
    data: DataSpec,
    /// Which part of the data: test or train
    #[arg(long, value_name = "PART", default_value = "test", value_parser = ["test", "train"])]
    split: String,
    /// Make the values (x - MEAN) / STD; a list of each, with commas, for several channels
    #[arg(long, value_name = "MEAN:STD", value_parser = str::parse::<Normalize>)]
    normalize: Option<Normalize>,
    /// Leave out pictures that cannot be decoded
    #[arg(long)]
    skip_bad: bool,
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

pub fn run(args: &Args) -> Outcome {
    let part = if args.split == "train" { Part::Train } else { Part::Test };
    let source = open_source(&args.file)?;
    let network = build(&source, &args.how.options(args.net.options()))?;
    let model = network.load(&run::open_weights(&args.weights)?)?;
    let input = example_input(&model)?;
    let sizes: Vec<Option<usize>> = input.ty.shape[1..].iter().map(|d| d.size()).collect();
    let bad = if args.skip_bad { Bad::Skip } else { Bad::Refuse };
    let Opened { set, skipped } = args.data.open(part, &sizes, bad)?;
    for line in &skipped {
        terminal::warn(&format!("left out: {line}"));
    }
    let transform = Transform { normalize: args.normalize.clone(), ..Transform::default() };
    let right = count_right(&model, &set, args.batch as usize, transform)?;
    let share = 100.0 * right as f64 / set.len() as f64;
    terminal::print(&format!("accuracy: {share:.2} % ({right} of {})\n", set.len()))
}

/// How many examples have the largest output at their label.
fn count_right(model: &Model, set: &Arc<dyn Dataset>, batch: usize, transform: Transform) -> Outcome<usize> {
    let input = example_input(model)?;
    // The last batch is filled up with repeated examples, so that one program serves all.
    let batch = input.ty.shape[0].size().unwrap_or(batch.min(set.len()));
    let output = classes_output(model)?;
    let progress = Progress::counted(set.len() as u64, "examples");
    let (mut right, mut seen) = (0, 0);
    for b in Batches::new(set.clone(), (0..set.len()).collect(), batch, Rest::Fill, transform)? {
        let outputs = model.run(&[(input.name.as_str(), b.examples.view())])?;
        let (Some(Tensor::F32(scores)), Tensor::I32(wanted)) = (outputs.get(&output.name), &b.labels) else {
            return Err(Error::Internal(format!("no output `{}`", output.name)).into());
        };
        if seen == 0 {
            check_labels(&**set, scores.shape()[1])?;
        }
        seen += b.count;
        for (row, &label) in scores.outer_iter().zip(wanted).take(b.count) {
            let best = labels::top(row.iter().copied(), 1).first().map(|&(class, _)| class as i64);
            right += usize::from(best == Some(i64::from(label)));
        }
        progress.advance(b.count as u64);
    }
    Ok(right)
}

/// The only input, which must take a batch of numbers.
fn example_input(model: &Model) -> Outcome<&TensorSpec> {
    let [input] = model.inputs() else {
        let message = format!("expected a net with one input, found {}", model.inputs().len());
        return Err(Error::Input(message).into());
    };
    let shape = &input.ty.shape;
    if input.ty.dtype == nnc::DType::F32 && shape.len() >= 2 && shape[0].size() != Some(0) {
        return Ok(input);
    }
    let message = format!("expected an input for examples f32[N, …], found `{}: {}`", input.name, input.ty);
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
