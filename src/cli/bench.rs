//! `nnc bench`: how long a run takes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nnc::report::profile::{Profile, median};
use nnc::{DType, Error, Model, Network, Tensor, TensorView};

use super::args::{NetArgs, RunArgs, build, open_source, with_known_sizes};
use super::progress::Progress;
use super::run::views;
use super::{Outcome, terminal};

/// Measure how long a run takes, with fresh weights and made-up inputs
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc bench examples/vgg.nn --threads 2
  nnc bench examples/resnet.nn --set depth=50 --set N=8 --json
  nnc bench examples/mobilenet_v2.nn --profile     where the time goes, kernel by kernel

--json prints one line: {\"model\":…, \"batch\":…, \"threads\":…, \"ms_min\":…, \"ms_median\":…, \"runs\":…}")]
pub struct Args {
    /// The program (.nn); `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Number of timed runs (default: as many as fit in three seconds, at least five)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// One line of JSON instead of text
    #[arg(long)]
    json: bool,
    /// A table of the kernels: their time, speed and source line
    #[arg(long, conflicts_with = "json")]
    profile: bool,
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    how: RunArgs,
}

/// What `--json` prints, in this order.
#[derive(serde::Serialize)]
struct Line<'a> {
    model: &'a str,
    batch: usize,
    threads: usize,
    ms_min: f64,
    ms_median: f64,
    runs: usize,
}

/// How long is warmed up, and how long is timed, where the number of runs is not given.
const WARM_UP: Duration = Duration::from_millis(300);
const TIMED: Duration = Duration::from_secs(3);
const FEWEST_RUNS: usize = 5;
const MOST_RUNS: usize = 1_000_000;

pub fn run(args: &Args) -> Outcome {
    let source = open_source(&args.file)?;
    let options = args.how.options(args.net.options());
    let threads = options.thread_count();
    let network = with_known_sizes(build(&source, &options)?)?;
    let progress = Progress::busy("timing");
    let model = network.initialize(0)?;
    let inputs = made_up_inputs(&network);
    let inputs = views(&inputs);
    if args.profile {
        let profile = profile(&model, &inputs, args.runs)?;
        drop(progress);
        return terminal::print(&profile.to_string());
    }
    let times = time_runs(&model, &inputs, args.runs)?;
    drop(progress);
    let (min, median, runs) = (times.iter().min().copied().unwrap_or_default(), median(&times), times.len());
    let [min_ms, median_ms] = [min, median].map(|t| t.as_secs_f64() * 1e3);
    let batch = batch_size(&network);
    if args.json {
        let line = Line {
            model: network.name(),
            batch,
            threads,
            ms_min: min_ms,
            ms_median: median_ms,
            runs: times.len(),
        };
        let text = serde_json::to_string(&line).map_err(|e| Error::Internal(e.to_string()))?;
        return terminal::print(&format!("{text}\n"));
    }
    let speed = match nnc::report::summary::summary(&network).totals.macs {
        0 => String::new(),
        macs => format!(", {:.1} GFLOP/s", 2.0 * macs as f64 / median.as_secs_f64() / 1e9),
    };
    terminal::print(&format!(
        "{}, batch {batch}, {threads} thread{}: median {median_ms:.3} ms, minimum {min_ms:.3} ms of {runs} runs{speed}\n",
        network.name(),
        if threads == 1 { "" } else { "s" },
    ))
}

/// The first size of the first input.
fn batch_size(network: &Network) -> usize {
    network.inputs().first().and_then(|i| i.ty.shape.first()?.size()).unwrap_or(1)
}

/// Numbers from -1 to 1 (or 0, 1, 2, … for integers), the same every time.
fn made_up_inputs(network: &Network) -> BTreeMap<String, Tensor> {
    let make = |dtype: DType, shape: &[usize]| {
        let mut tensor = Tensor::zeros(dtype, shape);
        let mut state = 1u32;
        if let Tensor::F32(a) = &mut tensor {
            // A linear congruential generator (Numerical Recipes) is random enough for timing.
            a.mapv_inplace(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            });
        }
        tensor
    };
    let sizes = |ty: &nnc::compiler::graph::TensorType| ty.sizes().unwrap_or_default();
    network.inputs().into_iter().map(|i| (i.name, make(i.ty.dtype, &sizes(&i.ty)))).collect()
}

fn time_runs(model: &Model, inputs: &[(&str, TensorView<'_>)], runs: Option<u32>) -> Outcome<Vec<Duration>> {
    let warm_up = Instant::now();
    loop {
        model.run(inputs)?;
        if warm_up.elapsed() >= WARM_UP {
            break;
        }
    }
    let (mut times, start) = (vec![], Instant::now());
    loop {
        let enough = match runs {
            Some(n) => times.len() >= n as usize,
            None => (times.len() >= FEWEST_RUNS && start.elapsed() >= TIMED) || times.len() >= MOST_RUNS,
        };
        if enough {
            return Ok(times);
        }
        let run = Instant::now();
        model.run(inputs)?;
        times.push(run.elapsed());
    }
}

fn profile(model: &Model, inputs: &[(&str, TensorView<'_>)], runs: Option<u32>) -> Outcome<Profile> {
    let (mut profile, start) = (Profile::default(), Instant::now());
    model.run(inputs)?;
    loop {
        profile.add(model.run_profiled(inputs)?.1);
        let enough = match runs {
            Some(n) => profile.runs() >= n as usize,
            None => profile.runs() >= FEWEST_RUNS && start.elapsed() >= TIMED,
        };
        if enough {
            return Ok(profile);
        }
    }
}
