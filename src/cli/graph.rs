//! `nnc graph`: a net as a drawing.

use std::path::{Path, PathBuf};

use nnc::report::drawing::Drawing;

use super::args::{NetArgs, build, open_source, with_known_sizes};
use super::{Outcome, terminal};

/// Draw a net: as DOT for Graphviz, or as SVG
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc graph examples/lenet.nn -o lenet.svg
  nnc graph examples/lenet.nn --fused -o lenet.svg     what becomes one kernel is framed together
  nnc graph examples/lenet.nn | dot -Tpdf -o lenet.pdf

Without --format, the file's name decides; DOT is what goes to standard output.")]
pub struct Args {
    /// The program (.nn); `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The file to write (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// dot or svg
    #[arg(long, value_name = "FORMAT", value_parser = ["dot", "svg"])]
    format: Option<String>,
    /// After all passes, with the groups that become one kernel
    #[arg(long)]
    fused: bool,
    #[command(flatten)]
    net: NetArgs,
}

pub fn run(args: &Args) -> Outcome {
    let source = open_source(&args.file)?;
    let network = build(&source, &args.net.options())?;
    let drawing = if args.fused {
        Drawing::fused(&with_known_sizes(network)?)
    } else {
        Drawing::of(network.graph(), network.sources())
    };
    let by_name =
        args.output.as_deref().and_then(Path::extension).is_some_and(|e| e.eq_ignore_ascii_case("svg"));
    let svg = args.format.as_deref().map_or(by_name, |f| f == "svg");
    let text = if svg { nnc::report::svg::svg(&drawing) } else { nnc::report::dot::dot(&drawing) };
    terminal::write_or_print(args.output.as_deref(), &text)
}
