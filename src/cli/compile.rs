//! `nnc compile`: a program file, or the text of any station on the way to it.

use std::path::PathBuf;
use std::time::Instant;

use nnc::stages::{self, Stage};

use super::args::{CompileArgs, NetArgs, build, open_source, with_known_sizes};
use super::progress::Progress;
use super::{Outcome, terminal};

/// Compile a program to machine code, into one file that `nnc run` loads without compiling again
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc compile vgg.nn                          writes vgg.nncp
  nnc compile vgg.nn --set N=8 -o vgg8.nncp   for batches of 8 pictures
  nnc compile lenet.nn --emit fused           print the graph after fusion
  nnc compile lenet.nn --emit kernels         print the loop nests
  nnc compile lenet.nn --emit-after fold_batch_norm
  nnc compile lenet.nn --emit asm -o lenet.s  machine code, disassembled

The stations, in order: ast, graph, fused, kernels, plan, clif, asm.
clif is what Cranelift gets for vectors of 128 bits; asm is the code for the CPU.
Weights are given when it runs: the file holds code and layout only.")]
pub struct Args {
    /// The program (.nn); `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The file to write (default: the program's name with .nncp; standard output with --emit)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print a station's text instead of compiling
    #[arg(long, value_name = "STATION", value_parser = clap::builder::PossibleValuesParser::new(Stage::NAMES), conflicts_with = "emit_after")]
    emit: Option<String>,
    /// Print the graph after the pass of that name
    #[arg(long, value_name = "PASS")]
    emit_after: Option<String>,
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    how: CompileArgs,
}

pub fn run(args: &Args) -> Outcome {
    let source = open_source(&args.file)?;
    let options = args.how.options(args.net.options());
    let stage = match (&args.emit, &args.emit_after) {
        (Some(name), _) => Some(name.parse::<Stage>().map_err(nnc::Error::Options)?),
        (None, Some(pass)) => Some(Stage::After(pass.clone())),
        (None, None) => None,
    };
    if let Some(stage) = stage {
        let text = stages::text(&source, &options, &stage)?;
        return terminal::write_or_print(args.output.as_deref(), &text);
    }

    let start = Instant::now();
    let network = with_known_sizes(build(&source, &options)?)?;
    let progress = Progress::busy("compiling");
    let compiled = network.compile()?;
    drop(progress);
    let time = start.elapsed();
    let output = args.output.clone().unwrap_or_else(|| default_output(&args.file));
    let program = compiled.program();
    if output.as_os_str() == "-" {
        let mut bytes = vec![];
        compiled.write(&mut bytes)?;
        return terminal::print_bytes(&bytes);
    }
    compiled.save(&output)?;
    let size = std::fs::metadata(&output).map_or(0, |m| m.len());
    terminal::print(&format!(
        "{}: net `{}`, {} kernels ({} of code), {}; compiled in {:.2} s\n",
        output.display(),
        program.name,
        program.kernels.len(),
        terminal::bytes(program.code.len() as u64),
        terminal::bytes(size),
        time.as_secs_f64(),
    ))
}

/// `dir/vgg.nn` is compiled to `vgg.nncp` in the current folder, standard input to `program.nncp`.
fn default_output(file: &std::path::Path) -> PathBuf {
    let stem = file.file_stem().filter(|s| *s != "-").unwrap_or("program".as_ref());
    PathBuf::from(stem).with_extension("nncp")
}
