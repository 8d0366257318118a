//! `nnc explain`: what the compiler made of a net, and why.

use std::path::PathBuf;

use nnc::train::StepMemory;

use super::args::{CompileArgs, NetArgs, StepArgs, build, open_source, with_known_sizes};
use super::{Outcome, terminal};

/// Explain what was fused into one kernel, what was not and why, and what that saves in memory
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc explain examples/lenet.nn
  nnc explain examples/resnet.nn --set depth=18 --set N=8
  nnc explain examples/resnet_cifar.nn --train --batch 64 --memory-limit 300MB

With --train: which values of the forward part are kept for the backward part, which are computed
again, and what decided.")]
pub struct Args {
    /// The program (.nn); `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The activations of a training step
    #[arg(long)]
    train: bool,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    how: CompileArgs,
}

pub fn run(args: &Args) -> Outcome {
    let source = open_source(&args.file)?;
    let options = args.step.options(args.how.options(args.net.options()), args.train)?;
    if args.train {
        let options = options.training(true);
        build(&source, &options)?;
        let memory = StepMemory::of(&source, &options, &args.step.trainer())?;
        return terminal::print(&nnc::report::activations::activations(&memory));
    }
    let network = with_known_sizes(build(&source, &options)?)?;
    terminal::print(&nnc::report::explain::explain(&network)?)
}
