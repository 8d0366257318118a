//! `nnc summary`: the layers of a net as a table, and the memory that it takes.

use std::path::PathBuf;

use nnc::compiler::target::GpuTarget;
use nnc::report::memory::RunMemory;
use nnc::train::StepMemory;

use super::args::{CompileArgs, NetArgs, StepArgs, build, open_source, with_batch, with_known_sizes};
use super::{Outcome, terminal};

/// Show a net as a table: layers, output shapes, parameters, multiply-accumulates, memory
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc summary examples/vgg.nn
  nnc summary examples/resnet.nn --set depth=50 --set N=8
  nnc summary examples/googlenet.nn --train     with the parts that exist only in training, and
                                                the memory that a training step takes
  nnc summary examples/resnet_cifar.nn --train --batch 64 --memory-limit 300MB
  nnc summary examples/vgg.nn --target-gpu sm_90

MACs are the multiply-accumulate operations of convolutions and matrix products of one run.
The memory is what the plan says that a run takes: weights packed for it, each once, and room for
what kernels hand on. The process has its own code and the compiler's memory beside it.")]
pub struct Args {
    /// The program (.nn); `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The variant that is trained; if the net has a `train` section, also the memory of a step
    #[arg(long)]
    train: bool,
    #[command(flatten)]
    step: StepArgs,
    /// The memory on a GPU: `sm_80` (Ampere) or `sm_90` (Hopper)
    #[arg(long, value_name = "GPU", conflicts_with = "tuned")]
    target_gpu: Option<GpuTarget>,
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    how: CompileArgs,
}

pub fn run(args: &Args) -> Outcome {
    let source = open_source(&args.file)?;
    let options = args.how.options(args.net.options()).training(args.train);
    let options = args.step.options(options, args.train)?;
    let options = args.target_gpu.into_iter().fold(options, nnc::Options::gpu);
    let network = build(&source, &options)?;
    let memory = match args.train && network.is_trainable() {
        true => Some(StepMemory::of(&source, &options, &args.step.trainer())?),
        false => None,
    };
    let network = match &memory {
        Some(memory) => with_batch(network, memory.batch)?,
        None => with_known_sizes(network)?,
    };
    let mut text = nnc::report::summary::summary(&network).to_string();
    match memory {
        Some(memory) => text += &format!("\n{memory}"),
        // What the reference device alone can run has no plan.
        None if !args.train => {
            text += &RunMemory::of(&network).map_or(String::new(), |memory| format!("\n{memory}"));
        }
        None => {}
    }
    terminal::print(&text)
}
