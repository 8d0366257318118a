//! `nnc explain`: what the compiler made of a net, and why.

use std::path::PathBuf;

use super::args::{CompileArgs, NetArgs, build, open_source, with_known_sizes};
use super::{Outcome, terminal};

/// Explain what was fused into one kernel, what was not and why, and what that saves in memory
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc explain examples/lenet.nn
  nnc explain examples/resnet.nn --set depth=18 --set N=8")]
pub struct Args {
    /// The program (.nn); `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    how: CompileArgs,
}

pub fn run(args: &Args) -> Outcome {
    let source = open_source(&args.file)?;
    let network = with_known_sizes(build(&source, &args.how.options(args.net.options()))?)?;
    terminal::print(&nnc::report::explain::explain(&network)?)
}
