//! `nnc run`: a net on pictures or arrays.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use ndarray::{ArrayView2, Ix2};
use nnc::data::image::Preprocess;
use nnc::data::{labels, npy};
use nnc::source::{MAX_SOURCE_BYTES, text_of};
use nnc::{Compiled, Error, Model, Network, Outputs, Source, Tensor, TensorView, Weights};

use super::args::{NetArgs, RunArgs, STDIN, build, name_and_value, read_stdin};
use super::input::{self, InputArg};
use super::progress::Progress;
use super::{Outcome, terminal};

/// Run a net: a program (.nn) or what `compile` made of it
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc run examples/mobilenet_v2.nn --weights examples/weights/mobilenet_v2_imagenet.safetensors \\
          --input image=examples/images/coffee.png --labels examples/images/imagenet_labels.txt
  nnc run examples/lenet.nn --weights examples/weights/lenet5_mnist.safetensors \\
          --input examples/images/digits/7a.png
  nnc run vgg.nncp --weights vgg16.safetensors --input image=x.npy --output logits=y.npy
  nnc run vgg.nncp --input image=x.npy            compiled with its weights

Pictures are PNG or JPEG of any size. --preprocess says what becomes of them:
  imagenet  shorter side resized to 256 (for an input of 224), centre 224x224 cut out, RGB
            normalised by ImageNet's mean and deviation; a picture that has the input's size
            already is only normalised. Taken for inputs with 3 channels.
  mnist     grey, resized to the input's size, 0 to 1. Taken for inputs with 1 channel. Models of
            MNIST expect white digits on black.
  none      values 0 to 255 as they are; the picture must have the input's size.

The likeliest classes are printed from the output `probabilities` if there is one, else from the
softmax of the first output of shape [batch, classes]; other outputs are described, small ones
printed.")]
pub struct Args {
    /// A program (.nn) or a compiled program; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A value for an input: a picture (PNG, JPEG) or an array (.npy); several for one input make a
    /// batch. NAME= may be left out where the net has one input
    #[arg(short, long = "input", value_name = "NAME=FILE")]
    inputs: Vec<InputArg>,
    /// Write an output as .npy; may be repeated
    #[arg(short, long = "output", value_name = "NAME=FILE", value_parser = name_and_value)]
    outputs: Vec<(String, String)>,
    /// The weights (.safetensors); without them, fresh ones are drawn for a program that does not have its own
    #[arg(short, long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Seed of fresh weights
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "weights")]
    seed: u64,
    /// Names of the classes, one a line
    #[arg(short, long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// How many of the likeliest classes are printed
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
    /// How pictures become numbers: imagenet, mnist or none
    #[arg(long, value_name = "HOW", value_parser = preprocess)]
    preprocess: Option<Preprocess>,
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    how: RunArgs,
}

/// More is not read from standard input.
const MAX_STDIN_BYTES: u64 = 1 << 30;

/// What is run: a program file is compiled already, a source is compiled for the sizes it meets.
enum Runnable {
    Network(Network),
    Compiled(Compiled),
}

impl Runnable {
    fn has_parameters(&self) -> bool {
        match self {
            Runnable::Network(network) => !network.parameters().is_empty(),
            Runnable::Compiled(compiled) => !compiled.program().parameters.is_empty(),
        }
    }
}

fn preprocess(name: &str) -> Result<Preprocess, String> {
    match name {
        "imagenet" => Ok(Preprocess::ImageNet),
        "mnist" => Ok(Preprocess::Mnist),
        "none" => Ok(Preprocess::None),
        _ => Err("expected imagenet, mnist or none".into()),
    }
}

pub fn run(args: &Args) -> Outcome {
    let class_names = args.labels.as_deref().map(labels::read).transpose()?;
    let runnable = open(args)?;
    let progress = Progress::busy("preparing the weights");
    let weights = args.weights.as_deref().map(Weights::open).transpose()?;
    let model = load(&runnable, weights.as_ref(), args.seed)?;
    drop(progress);
    for (name, _) in &args.outputs {
        if !model.outputs().iter().any(|o| o.name == *name) {
            let names: Vec<String> = model.outputs().iter().map(|o| format!("`{}`", o.name)).collect();
            let names = names.join(", ");
            return Err(Error::Input(format!("the net has no output `{name}`; its outputs: {names}")).into());
        }
    }
    let inputs = input::read(model.inputs(), &args.inputs, args.preprocess)?;
    let progress = Progress::busy("running");
    let outputs = model.run(&views(&inputs))?;
    drop(progress);
    // Now that all of them have been read.
    weights.iter().try_for_each(warn_of_non_finite)?;
    for (name, path) in &args.outputs {
        npy::write(path, &outputs[name])?;
    }
    terminal::print(&describe(&outputs, class_names.as_deref(), args.top))
}

/// The inputs as [`Model::run`] takes them.
pub fn views(inputs: &BTreeMap<String, Tensor>) -> Vec<(&str, TensorView<'_>)> {
    inputs.iter().map(|(name, t)| (name.as_str(), t.view())).collect()
}

fn open(args: &Args) -> Outcome<Runnable> {
    let options = args.how.options(args.net.options());
    let stdin = args.file == Path::new(STDIN);
    let bytes = if stdin { read_stdin(MAX_STDIN_BYTES)? } else { head(&args.file)? };
    if Compiled::is_program(&bytes) {
        if !args.net.sets.is_empty() || args.net.net.is_some() {
            let message = "--set and --net are for sources (.nn): a compiled program has its sizes";
            return Err(Error::Options(message.into()).into());
        }
        let compiled = if stdin {
            Compiled::from_bytes(&bytes, &options)?
        } else {
            Compiled::open(&args.file, &options)?
        };
        return Ok(Runnable::Compiled(compiled));
    }
    let source = if stdin {
        if bytes.len() as u64 > MAX_SOURCE_BYTES {
            return Err(Error::Input("standard input is too long for a source".into()).into());
        }
        Source::from_text("<stdin>", text_of(Path::new("<stdin>"), bytes)?)?
    } else {
        Source::open(&args.file)?
    };
    Ok(Runnable::Network(build(&source, &options)?))
}

/// The first bytes of a file, enough to tell a program from a source.
fn head(path: &Path) -> nnc::error::Result<Vec<u8>> {
    use std::io::Read;
    let fail = |error| Error::Io { action: "read", path: path.to_path_buf(), error };
    let mut bytes = vec![];
    std::fs::File::open(path).map_err(fail)?.take(64).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

fn load(runnable: &Runnable, weights: Option<&Weights>, seed: u64) -> Outcome<Model> {
    let Some(weights) = weights else {
        if runnable.has_parameters() {
            terminal::note(&format!(
                "no --weights: they are drawn afresh (seed {seed}), the results mean nothing"
            ));
        }
        return Ok(match runnable {
            Runnable::Network(network) => network.initialize(seed)?,
            Runnable::Compiled(compiled) => compiled.initialize(seed)?,
        });
    };
    Ok(match runnable {
        Runnable::Network(network) => network.load(weights)?,
        Runnable::Compiled(compiled) => compiled.load(weights)?,
    })
}

/// Opens weights, and warns of those that are not finite.
pub fn open_weights(path: &Path) -> nnc::error::Result<Weights> {
    let weights = Weights::open(path)?;
    warn_of_non_finite(&weights)?;
    Ok(weights)
}

/// Warns of weights that are not finite; those of a file are read if they have not been.
pub fn warn_of_non_finite(weights: &Weights) -> nnc::error::Result<()> {
    let path = weights.path().unwrap_or(Path::new(""));
    for (name, nans, infinities) in weights.non_finite()? {
        terminal::warn(&format!(
            "`{}`: `{name}` has {nans} NaN and {infinities} infinite values",
            path.display()
        ));
    }
    Ok(())
}

/// Outputs with at most this many elements are printed in full.
const PRINTED_ELEMENTS: usize = 200;

/// The likeliest classes, or where there are none, every output.
fn describe(outputs: &Outputs, names: Option<&[String]>, top: usize) -> String {
    let mut text = String::new();
    if let Some(rows) = class_probabilities(outputs) {
        let many = rows.len() > 1;
        for (i, row) in rows.into_iter().enumerate() {
            if many {
                let _ = writeln!(text, "{}{}:", if i > 0 { "\n" } else { "" }, i + 1);
            }
            for (class, p) in labels::top(row, top) {
                let name = names.and_then(|n| n.get(class)).map_or("", String::as_str);
                let _ = writeln!(text, "{}", format!("{:6.2} %  {class:>4}  {name}", p * 100.0).trim_end());
            }
        }
        return text;
    }
    for (name, tensor) in outputs.iter() {
        let _ = writeln!(text, "{name}: {}{:?}", tensor.dtype(), tensor.shape());
        if tensor.len() <= PRINTED_ELEMENTS {
            let _ = match tensor {
                Tensor::F32(a) => writeln!(text, "{a}"),
                Tensor::F64(a) => writeln!(text, "{a}"),
                Tensor::I32(a) => writeln!(text, "{a}"),
                Tensor::Bool(a) => writeln!(text, "{a}"),
            };
        }
    }
    text
}

/// A row of probabilities for every element of the batch.
fn class_probabilities(outputs: &Outputs) -> Option<Vec<Vec<f32>>> {
    if let Some(p) = outputs.get("probabilities").and_then(matrix) {
        return Some(p.rows().into_iter().map(|r| r.to_vec()).collect());
    }
    let logits = outputs.iter().find_map(|(_, t)| matrix(t))?;
    Some(logits.rows().into_iter().map(|r| labels::softmax(&r.to_vec())).collect())
}

fn matrix(tensor: &Tensor) -> Option<ArrayView2<'_, f32>> {
    tensor.as_f32()?.view().into_dimensionality::<Ix2>().ok()
}
