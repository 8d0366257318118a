//! `nnc summary`: the layers of a net as a table.

use std::path::PathBuf;

use super::args::{NetArgs, build, open_source, with_known_sizes};
use super::{Outcome, terminal};

/// Show a net as a table: layers, output shapes, parameters, multiply-accumulates
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc summary examples/vgg.nn
  nnc summary examples/resnet.nn --set depth=50 --set N=8
  nnc summary examples/googlenet.nn --train     with the parts that exist only in training

MACs are the multiply-accumulate operations of convolutions and matrix products of one run.")]
pub struct Args {
    /// The program (.nn); `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The variant that is trained
    #[arg(long)]
    train: bool,
    #[command(flatten)]
    net: NetArgs,
}

pub fn run(args: &Args) -> Outcome {
    let source = open_source(&args.file)?;
    let network = with_known_sizes(build(&source, &args.net.options().training(args.train))?)?;
    terminal::print(&nnc::report::summary::summary(&network).to_string())
}
