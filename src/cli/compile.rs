//! `nnc compile`: a program file, or the text of any station on the way to it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nnc::compiler::target::GpuTarget;
use nnc::stages::{self, Stage};
use nnc::tune::tune;
use nnc::{Compiled, Error, Network, Weights};

use super::args::{CompileArgs, NetArgs, build, open_source, with_known_sizes};
use super::progress::Progress;
use super::run::warn_of_non_finite;
use super::{Outcome, terminal};

/// Compile a program to machine code, into one file that `nnc run` loads without compiling again
#[derive(clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("stations").args(["emit", "emit_after"]))]
#[command(after_help = "\
Examples:
  nnc compile vgg.nn                          writes vgg.nncp
  nnc compile vgg.nn --set N=8 -o vgg8.nncp   for batches of 8 pictures
  nnc compile vgg.nn --weights vgg16.safetensors   with its weights: `nnc run vgg.nncp`
                                              needs nothing else and starts at once
  nnc compile vgg.nn --tune                   measures algorithms on this machine,
                                              writes vgg.nncp and vgg.tune.json
  nnc compile vgg.nn --tuned vgg.tune.json    the same program, without measuring again
  nnc compile lenet.nn --emit fused           print the graph after fusion
  nnc compile lenet.nn --emit kernels         print the loop nests
  nnc compile lenet.nn --emit-after fold_batch_norm
  nnc compile lenet.nn --emit asm -o lenet.s  machine code, disassembled
  nnc compile lenet.nn --emit ptx --target-gpu sm_90 -o lenet.ptx
  nnc compile lenet.nn --target-gpu sm_90     writes lenet.nncp, for `nnc run --device cuda`

The stations, in order: ast, graph, fused, kernels, plan, clif, asm; and ptx.
clif is what Cranelift gets for vectors of 128 bits; asm is the code for the CPU.
ptx is the code for a GPU. With --target-gpu, fused, kernels and plan are those for the GPU, and
the program is one that `nnc run --device cuda` loads.
Without --weights the file holds code and layout only, and weights are given when it runs. With
them it holds the weights as this CPU's kernels read them, and is mapped into memory: replace such
a file (compile does), but do not write into it while something runs it.")]
pub struct Args {
    /// The program (.nn); `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The file to write (default: the program's name with .nncp; standard output with --emit)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Weights to be packed into the file (.safetensors)
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["emit", "emit_after"])]
    weights: Option<PathBuf>,
    /// Print a station's text instead of compiling
    #[arg(long, value_name = "STATION", value_parser = clap::builder::PossibleValuesParser::new(Stage::NAMES), conflicts_with = "emit_after")]
    emit: Option<String>,
    /// Print the graph after the pass of that name
    #[arg(long, value_name = "PASS")]
    emit_after: Option<String>,
    /// Measure on this machine which algorithm is the fastest for each convolution, use it, and write what was
    /// measured beside the program (NAME.tune.json, for --tuned)
    #[arg(long, conflicts_with_all = ["emit", "emit_after", "tuned"])]
    tune: bool,
    /// Compile, or show the stations, for a GPU: `sm_80` (Ampere) or `sm_90` (Hopper); ptx is for sm_80
    /// if not said
    #[arg(long, value_name = "GPU", conflicts_with_all = ["tune", "tuned", "weights"])]
    target_gpu: Option<GpuTarget>,
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    how: CompileArgs,
}

/// How long `--tune` measures.
const MEASURED: Duration = Duration::from_secs(5);

pub fn run(args: &Args) -> Outcome {
    let source = open_source(&args.file)?;
    let options = args.how.options(args.net.options());
    let options = args.target_gpu.into_iter().fold(options, nnc::Options::gpu);
    let stage = match (&args.emit, &args.emit_after) {
        (Some(name), _) => Some(name.parse::<Stage>().map_err(nnc::Error::Options)?),
        (None, Some(pass)) => Some(Stage::After(pass.clone())),
        (None, None) => None,
    };
    if let Some(stage) = stage {
        let text = stages::text(&source, &options, &stage)?;
        return terminal::write_or_print(args.output.as_deref(), &text);
    }

    let output = args.output.clone().unwrap_or_else(|| default_output(&args.file));
    let mut network = with_known_sizes(build(&source, &options)?)?;
    if args.tune {
        network = tuned(network, &output)?;
    }
    let start = Instant::now();
    let progress = Progress::busy("compiling");
    let mut compiled = network.compile()?;
    drop(progress);
    let time = start.elapsed();
    let code = compiled.program().code.len() as u64;
    if let Some(path) = &args.weights {
        compiled = packed(&compiled, path)?;
    }
    let program = compiled.program();
    if output.as_os_str() == "-" {
        return terminal::print_with(|out| program.write(out));
    }
    let progress = Progress::busy("writing");
    compiled.save(&output)?;
    drop(progress);
    let size = std::fs::metadata(&output).map_or(0, |m| m.len());
    terminal::print(&format!(
        "{}: net `{}`, {} kernels ({} of code), {}{}; compiled in {:.2} s\n",
        output.display(),
        program.name,
        program.kernels.len(),
        terminal::bytes(code),
        terminal::bytes(size),
        if compiled.has_weights() { " with weights" } else { "" },
        time.as_secs_f64(),
    ))
}

/// The program with the weights of a file.
fn packed(compiled: &Compiled, path: &Path) -> Outcome<Compiled> {
    let weights = Weights::open(path)?;
    let progress = Progress::busy("packing the weights");
    let packed = compiled.with_weights(&weights).map_err(|e| match e {
        Error::Program(message) => {
            Error::Program(format!("the weights cannot be packed on this machine: {message}"))
        }
        e => e,
    })?;
    drop(progress);
    warn_of_non_finite(&weights)?;
    Ok(packed)
}

/// The net with the algorithms that were the fastest; writes what was measured beside the output.
fn tuned(network: Network, output: &Path) -> Outcome<Network> {
    let progress = Progress::busy("measuring");
    let tuning = tune(&network, MEASURED)?;
    drop(progress);
    let table = tuning.to_string();
    if output.as_os_str() == "-" {
        terminal::note(&format!("measured, in milliseconds:\n{table}"));
    } else {
        let path = output.with_extension("tune.json");
        tuning.save(&path)?;
        terminal::print(&format!("{table}{}: what was measured, in milliseconds\n", path.display()))?;
    }
    Ok(network.with_choices(tuning.choices()))
}

/// `dir/vgg.nn` is compiled to `vgg.nncp` in the current folder, standard input to `program.nncp`.
fn default_output(file: &Path) -> PathBuf {
    let stem = file.file_stem().filter(|s| *s != "-").unwrap_or("program".as_ref());
    PathBuf::from(stem).with_extension("nncp")
}
