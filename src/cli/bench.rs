//! `nnc bench`: how long a run takes, or a training step.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nnc::data::made_up;
use nnc::report::memory::RunMemory;
use nnc::report::profile::{Profile, median};
use nnc::roofline::Roofline;
use nnc::train::{Trainer, TrainerOptions};
use nnc::{ByteSize, Device, Error, LaunchTime, Model, Network, Options, Source, Tensor};

use super::args::{LimitArgs, NetArgs, RunArgs, build, open_source, with_known_sizes};
use super::progress::Progress;
use super::resident::resident;
use super::run::views;
use super::{Outcome, terminal};

/// Measure how long a run takes, with fresh weights and made-up inputs
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc bench examples/vgg.nn --threads 2
  nnc bench examples/resnet.nn --set depth=50 --set N=8 --json
  nnc bench examples/mobilenet_v2.nn --profile     where the time goes, kernel by kernel
  nnc bench examples/lenet.nn --train --set N=64   a training step

--json prints one line: {\"model\":…, \"batch\":…, \"threads\":…, \"ms_min\":…, \"ms_median\":…, \"runs\":…}
and, on a GPU, \"device_ms_median\", by its clock, with the inputs there and without its start.
Also, in bytes: \"planned\", what the plan says that loading and a run (or a training step) take
at most, and (on Linux) \"resident_growth\", the peak of what the process has in RAM (VmHWM) less what
it had before the net was compiled: it has the compiler's own memory and the machine code, too.")]
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
    /// A table of the kernels: their time, speed, share of what the machine can do, and source line
    #[arg(long, conflicts_with = "json")]
    profile: bool,
    /// Time a training step (forward, backward, update) of the net's `train` section
    #[arg(long)]
    train: bool,
    #[command(flatten)]
    limit: LimitArgs,
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
    /// Of runs on a GPU, by its clock, with inputs there.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_ms_median: Option<f64>,
    /// Bytes of loading and a run, or of a training step, by the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    planned: Option<u64>,
    /// Bytes by which that has made the process grow, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_growth: Option<u64>,
}

/// How long is warmed up, and how long is timed, where the number of runs is not given.
const WARM_UP: Duration = Duration::from_millis(300);
const TIMED: Duration = Duration::from_secs(3);
const FEWEST_RUNS: usize = 5;
const MOST_RUNS: usize = 1_000_000;

pub fn run(args: &Args) -> Outcome {
    let source = open_source(&args.file)?;
    args.limit.check(args.train)?;
    let options = args.limit.options(args.how.options(args.net.options()));
    let threads = options.thread_count();
    let network = build(&source, &options)?;
    let before = resident();
    let (progress, mut subject);
    if args.train {
        progress = Progress::busy("timing");
        subject = Subject::training(&source, &options)?;
    } else {
        let network = with_known_sizes(network)?;
        progress = Progress::busy("timing");
        subject = Subject::inference(&network)?;
    }
    if args.profile {
        // Where there is no memory to measure it, there are no shares.
        let roofline = Roofline::of(&options).ok().flatten();
        let profile = profile(&mut subject, args.runs, roofline)?;
        drop(progress);
        return terminal::print(&profile.to_string());
    }
    let times = time_runs(&mut subject, args.runs)?;
    let on_device = subject.times_on_device(times.len())?;
    drop(progress);
    let device_ms_median = on_device.map(|times| median(&times).as_secs_f64() * 1e3);
    let (min, median, runs) = (times.iter().min().copied().unwrap_or_default(), median(&times), times.len());
    let [min_ms, median_ms] = [min, median].map(|t| t.as_secs_f64() * 1e3);
    let planned = subject.planned;
    let resident_growth = planned.and_then(|_| Some(resident()?.peak.saturating_sub(before?.now)));
    let Subject { name: model, batch, macs, .. } = &subject;
    if args.json {
        let batch = *batch;
        let [ms_min, ms_median] = [min_ms, median_ms];
        let line = Line {
            model,
            batch,
            threads,
            ms_min,
            ms_median,
            runs,
            device_ms_median,
            planned,
            resident_growth,
        };
        let text = serde_json::to_string(&line).map_err(|e| Error::Internal(e.to_string()))?;
        return terminal::print(&format!("{text}\n"));
    }
    let on_device = device_ms_median.map_or(String::new(), |ms| format!(" ({ms:.3} ms on the GPU)"));
    let place = match options.chosen_device() {
        Device::Cpu => format!("{threads} thread{}", if threads == 1 { "" } else { "s" }),
        device => device.to_string(),
    };
    let speed = match macs {
        0 => String::new(),
        macs => format!(", {:.1} GFLOP/s", 2.0 * *macs as f64 / median.as_secs_f64() / 1e9),
    };
    terminal::print(&format!(
        "{model}, batch {batch}, {place}: median {median_ms:.3} ms{on_device}, minimum {min_ms:.3} ms of {runs} {}{speed}\n",
        if args.train { "training steps" } else { "runs" },
    ))?;
    let sizes = [("planned memory", planned), ("resident growth", resident_growth)];
    let sizes: Vec<String> =
        sizes.iter().filter_map(|(what, n)| Some(format!("{what} {}", ByteSize((*n)?)))).collect();
    if sizes.is_empty() { Ok(()) } else { terminal::print(&format!("{}\n", sizes.join(", "))) }
}

/// What is timed, with its inputs.
struct Subject {
    name: String,
    batch: usize,
    /// Multiplications a run; 0 where they are not counted.
    macs: u64,
    inputs: BTreeMap<String, Tensor>,
    /// Bytes that the plan says it takes, where there is a plan.
    planned: Option<u64>,
    what: What,
}

enum What {
    Inference(Model),
    /// A step; it starts anew if the loss, on made-up data, is not finite any more.
    Training(Box<Trainer>),
}

impl Subject {
    fn inference(network: &Network) -> Outcome<Subject> {
        Ok(Subject {
            name: network.name().to_string(),
            batch: batch_size(network),
            macs: nnc::report::summary::summary(network).totals.macs,
            inputs: made_up::inputs(&network.inputs(), None),
            planned: match network.options().chosen_device() {
                Device::Cpu => Some(RunMemory::of(network)?.peak().0),
                _ => None,
            },
            what: What::Inference(network.initialize(0)?),
        })
    }

    fn training(source: &Source, options: &Options) -> Outcome<Subject> {
        let trainer = Trainer::new(source, options, &TrainerOptions::default())?;
        Ok(Subject {
            name: trainer.settings().net.clone(),
            batch: trainer.settings().batch,
            macs: 0,
            inputs: made_up::inputs(trainer.inputs(), trainer.classes()),
            planned: trainer.memory().map(|memory| memory.total().0),
            what: What::Training(Box::new(trainer)),
        })
    }

    fn run(&mut self) -> Outcome {
        let inputs = views(&self.inputs);
        match &mut self.what {
            What::Inference(model) => {
                model.run(&inputs)?;
            }
            What::Training(trainer) => match trainer.step(&inputs) {
                Err(Error::Training(_)) => trainer.restart()?,
                result => {
                    result?;
                }
            },
        }
        Ok(())
    }

    /// So many times of runs on a GPU, by its clock; none on other devices and of training steps.
    fn times_on_device(&self, n: usize) -> Outcome<Option<Vec<Duration>>> {
        let What::Inference(model) = &self.what else { return Ok(None) };
        let inputs = views(&self.inputs);
        Ok((0..n).map(|_| model.time_on_device(&inputs)).collect::<Result<_, _>>()?)
    }

    fn run_profiled(&mut self) -> Outcome<Vec<LaunchTime>> {
        let inputs = views(&self.inputs);
        Ok(match &mut self.what {
            What::Inference(model) => model.run_profiled(&inputs)?.1,
            What::Training(trainer) => trainer.step_profiled(&inputs)?.1,
        })
    }
}

/// The first size of the first input.
fn batch_size(network: &Network) -> usize {
    network.inputs().first().and_then(|i| i.ty.shape.first()?.size()).unwrap_or(1)
}

fn time_runs(subject: &mut Subject, runs: Option<u32>) -> Outcome<Vec<Duration>> {
    let warm_up = Instant::now();
    loop {
        subject.run()?;
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
        subject.run()?;
        times.push(run.elapsed());
    }
}

fn profile(subject: &mut Subject, runs: Option<u32>, roofline: Option<Roofline>) -> Outcome<Profile> {
    subject.run()?;
    let (mut profile, start) = (Profile::new(roofline), Instant::now());
    loop {
        profile.add(subject.run_profiled()?);
        let enough = match runs {
            Some(n) => profile.runs() >= n as usize,
            None => profile.runs() >= FEWEST_RUNS && start.elapsed() >= TIMED,
        };
        if enough {
            return Ok(profile);
        }
    }
}
