//! `nnc fmt`: programs in their canonical layout.

use std::path::{Path, PathBuf};

use super::args::{STDIN, open_source};
use super::{Failure, Outcome, terminal};

/// Format programs: one canonical layout
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc fmt net.nn             rewrite the file in canonical layout
  nnc fmt --check *.nn       only say which files are not (exit code 1 if there are any)
  nnc fmt - < net.nn         from standard input to standard output

Comments stay where they are. A file with syntax errors is left as it is.")]
pub struct Args {
    /// The programs (.nn); `-` is standard input, written to standard output
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Change nothing; name the files that are not in canonical layout and exit with 1
    #[arg(long)]
    check: bool,
}

pub fn run(args: &Args) -> Outcome {
    let mut failed = false;
    for file in &args.files {
        match format(file, args.check) {
            Ok(ok) => failed |= !ok,
            Err(Failure::Reported | Failure::Interrupted) => failed = true,
            Err(Failure::Error(e)) => {
                terminal::error_line(&e.render(terminal::color()));
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Reported) } else { Ok(()) }
}

/// Formats one file; false if it was only to be checked and is not in canonical layout.
fn format(file: &Path, check: bool) -> Outcome<bool> {
    let source = open_source(file)?;
    let formatted = source.format()?;
    let same = formatted == source.text();
    if check {
        if !same {
            terminal::print(&format!("{}: not in canonical layout\n", source.name()))?;
        }
        return Ok(same);
    }
    if file == Path::new(STDIN) {
        terminal::print(&formatted)?;
    } else if !same {
        nnc::data::file::write(file, formatted.as_bytes())?;
    }
    Ok(true)
}
