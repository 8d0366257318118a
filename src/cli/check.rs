//! `nnc check`: every error and warning of programs.

use std::path::PathBuf;

use super::args::{NetArgs, build, open_source};
use super::{Failure, Outcome, terminal};

/// Check programs: report every error and warning
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc check net.nn                      every net of the file, with its default parameters
  nnc check examples/*.nn
  nnc check resnet.nn --set depth=50    with a parameter of the net set
  cat net.nn | nnc check -              from standard input

Exit code: 0 if there are no errors (warnings are allowed), else 1.")]
pub struct Args {
    /// The programs (.nn); `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    net: NetArgs,
}

pub fn run(args: &Args) -> Outcome {
    let mut failed = false;
    for file in &args.files {
        let checked = open_source(file).and_then(|source| {
            build(&source, &args.net.options())?;
            Ok(source)
        });
        match checked {
            Ok(source) => terminal::print(&format!("{}: no errors\n", source.name()))?,
            Err(e) => {
                terminal::error_line(&e.render(terminal::color()));
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Reported) } else { Ok(()) }
}
