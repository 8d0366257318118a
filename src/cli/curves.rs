//! `nnc curves`: the training of several runs in one figure.

use std::path::{Path, PathBuf};

use nnc::Error;
use nnc::train::curves::svg;
use nnc::train::log;
use nnc::train::logged::{Logged, Over, Run, panels};

use super::{Outcome, terminal};

/// Points that a line has where nothing else is asked for.
const POINTS: u64 = 100;

/// Draw the learning curves of runs in one figure
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc curves runs/plain runs/residual -o depth.svg
  nnc curves cpu=runs/lenet gpu=runs/lenet-cuda --every 50 -o devices.svg

A panel for each measure, over steps: the means of training steps, and what was measured after each epoch.")]
pub struct Args {
    /// Folders that `nnc train --out` has written (or log.jsonl files), each with a name for its lines or
    /// called as the folder is
    #[arg(value_name = "[NAME=]DIR", required = true)]
    runs: Vec<String>,
    /// The file to write (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Steps that are one point of a line, their mean (default: a hundredth of the longest run)
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
    /// What is above the figure
    #[arg(long, default_value = "training")]
    title: String,
}

pub fn run(args: &Args) -> Outcome {
    let logs = args.runs.iter().map(|run| named_log(run)).collect::<Result<Vec<_>, Error>>()?;
    for (i, (name, _)) in logs.iter().enumerate() {
        if logs[..i].iter().any(|(other, _)| other == name) {
            let run = &args.runs[i];
            let path = run.strip_prefix(&format!("{name}=")).unwrap_or(run);
            let message = format!("two runs are called `{name}`: `NAME={path}` gives one another name");
            return Err(Error::Options(message).into());
        }
    }
    let longest = logs.iter().map(|(_, log)| log.steps()).max().unwrap_or(0);
    let every = args.every.unwrap_or((longest / POINTS).max(1));
    let runs =
        logs.iter().map(|(name, log)| Run { log, training: name.clone(), test: format!("{name}, test") });
    let panels = panels(&runs.collect::<Vec<_>>(), every, Over::Steps);
    terminal::write_or_print(args.output.as_deref(), &svg(&args.title, &panels)?)
}

/// A run's name and its log.
fn named_log(run: &str) -> Result<(String, Logged), Error> {
    let (name, path) = match run.split_once('=') {
        // A folder may have an equals sign in its name.
        Some((name, path)) if !name.is_empty() && !Path::new(run).exists() => {
            (Some(name.to_string()), Path::new(path))
        }
        _ => (None, Path::new(run)),
    };
    let file = if path.is_dir() { path.join(log::FILE) } else { path.to_path_buf() };
    let logged = Logged::read(&file)?;
    if logged.steps() == 0 {
        return Err(Error::Format { path: file, message: "has no steps of a training run".into() });
    }
    let of_path = || path.file_name().map_or(run.to_string(), |n| n.to_string_lossy().into_owned());
    Ok((name.unwrap_or_else(of_path), logged))
}
