//! The command line: what it takes, and which file does the work.
//!
//! Exit codes: 0 done; 1 failed (a wrong program, wrong data, a file that cannot be written); 2
//! the command line itself is wrong (clap); 101 a bug in nnc; 130 stopped by Ctrl-C (training, saved).

mod args;
mod bench;
mod check;
mod compile;
mod curves;
mod devices;
mod eval;
mod explain;
mod fmt;
mod graph;
mod input;
mod progress;
mod resident;
mod run;
mod summary;
pub mod terminal;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "nnc",
    version,
    about = "The neural-network compiler: a layer language in, machine code out",
    long_about = "The neural-network compiler: reads a network written in a small layer language (.nn), \
                  fuses its layers and compiles them to machine code, and runs it.",
    term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  nnc check net.nn                        is the program right?
  nnc summary examples/vgg.nn             layers, shapes, parameters, operations
  nnc compile examples/vgg.nn -o vgg.nncp compile it into one file
  nnc train examples/lenet.nn --data mnist:mnist/
                                          teach it
  nnc run examples/mobilenet_v2.nn --weights examples/weights/mobilenet_v2_imagenet.safetensors \\
          --input image=examples/images/coffee.png --labels examples/images/imagenet_labels.txt
                                          what is in this picture?

`nnc help COMMAND` says more about each, with examples."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Args),
    Fmt(fmt::Args),
    Summary(summary::Args),
    Graph(graph::Args),
    Explain(explain::Args),
    Compile(compile::Args),
    Run(run::Args),
    Eval(eval::Args),
    Bench(bench::Args),
    Train(train::Args),
    Curves(curves::Args),
    Devices(devices::Args),
}

/// The exit code of a run that was stopped by Ctrl-C: 128 and the signal's number, as shells have it.
const INTERRUPTED: u8 = 130;

/// Why a subcommand does not end with exit code 0.
pub enum Failure {
    /// Something to be said.
    Error(nnc::Error),
    /// Everything is said already.
    Reported,
    /// Stopped by Ctrl-C, with everything saved and said.
    Interrupted,
}

/// What a subcommand returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl From<nnc::Error> for Failure {
    fn from(e: nnc::Error) -> Failure {
        Failure::Error(e)
    }
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Check(args) => check::run(&args),
        Command::Fmt(args) => fmt::run(&args),
        Command::Summary(args) => summary::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Curves(args) => curves::run(&args),
        Command::Devices(args) => devices::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::FAILURE,
        Err(Failure::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(Failure::Error(e)) => {
            terminal::error_line(&e.render(terminal::color()));
            ExitCode::FAILURE
        }
    }
}
