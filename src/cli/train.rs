//! `nnc train`: teaches a net with a `train` section, on labelled data.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nnc::data::augment::{Augment, Normalize};
use nnc::data::dataset::{Dataset, Part, split};
use nnc::data::folder::Bad;
use nnc::data::spec::DataSpec;
use nnc::train::checkpoint::Folder;
use nnc::train::fit::{
    CHECKPOINTS, CONFUSION, CURVES, EpochReport, FitOptions, Fitted, Flow, Position, WEIGHTS, Watch, fit,
};
use nnc::train::{Measures, Trainer, TrainerOptions};
use nnc::{DType, Error, Network};

use super::args::{LimitArgs, NetArgs, RunArgs, build, open_source};
use super::{Failure, INTERRUPTED, Outcome, terminal};

/// Teach a net with a `train` section, on labelled data
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc train examples/lenet.nn --data mnist:mnist/ --epochs 12
  nnc train examples/lenet.nn --data mnist:tests/data/mnist --hold-out 0.1 --out runs/small
  nnc train examples/lenet.nn --data mnist:tests/data/mnist --hold-out 0.1 --out runs/small --resume
  nnc train examples/resnet_cifar.nn --data cifar10:cifar/ --crop 4 --flip --normalize auto
  nnc train birds.nn --data folder:birds/ --weights imagenet.safetensors --fresh fc

The data:
  mnist:DIR    MNIST's files (or Fashion-MNIST's, …), plain or as .gz
  cifar10:DIR  CIFAR-10's binary files
  folder:DIR   train/CLASS/….png (or .jpg) and test/CLASS/…, or just CLASS/…; a picture of another
               size is stretched
  npz:FILE     arrays x_train and y_train (or x and y), x_test and y_test
Bytes become numbers from 0 to 1. What is measured after each epoch is the test part, or what
--hold-out takes from the training part. The examples at the end of an epoch that are too few for
a batch make a smaller step (see --drop-rest).

What is written to --out:
  checkpoints/         parameters and optimizer state, the last few; --resume goes on from there
                       and ends with the same bits as a run that was never stopped; if the program
                       has another learning rate by then, that one counts
  weights.safetensors  the parameters, for `nnc run` and `nnc eval`
  log.jsonl            a line of JSON a step; events.out.tfevents.…: the same for TensorBoard
  curves.svg, confusion.txt

Ctrl-C finishes the step, saves a checkpoint and ends with exit code 130.")]
pub struct Args {
    /// The program (.nn); `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The labelled data: mnist:DIR, cifar10:DIR, folder:DIR or npz:FILE
    #[arg(long, value_name = "KIND:PATH", value_parser = str::parse::<DataSpec>)]
    data: DataSpec,
    /// Passes over the data (default: what the program says, or 10)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    epochs: Option<u64>,
    /// Examples in a step (default: what the program says, or 64)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    batch: Option<u64>,
    /// Of initial weights, order, augmentation and dropout
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder for checkpoints, weights, log and curves (default: runs/NET)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the last checkpoint of --out
    #[arg(long)]
    resume: bool,
    /// Start from these parameters (.safetensors), which must be all of the net's and no others
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// With --weights: a layer whose parameters begin anew (`fc`, or several with commas)
    #[arg(long, value_name = "LAYER", requires = "weights", value_delimiter = ',')]
    fresh: Vec<String>,
    /// Leave out the examples at the end of an epoch that are too few for a batch
    #[arg(long)]
    drop_rest: bool,
    /// Measure on this share of the training part, chosen at random, instead of the test part
    #[arg(long, value_name = "SHARE")]
    hold_out: Option<f64>,
    /// Move pictures at random by up to so many pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1024))]
    crop: u64,
    /// Mirror half of the pictures, left to right
    #[arg(long)]
    flip: bool,
    /// Make the values (x - MEAN) / STD; lists, with commas, for several channels; `auto` measures them
    #[arg(long, value_name = "MEAN:STD", value_parser = normalization)]
    normalize: Option<Normalization>,
    /// Leave out pictures that cannot be decoded
    #[arg(long)]
    skip_bad: bool,
    /// Checkpoints to keep
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
    /// A checkpoint after so many steps, besides those after every epoch
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    save_every: Option<u64>,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    net: NetArgs,
    #[command(flatten)]
    how: RunArgs,
}

const DEFAULT_EPOCHS: u64 = 10;
/// A confusion matrix of more classes is only written to its file.
const SHOWN_CLASSES: usize = 12;
/// Where there is no terminal, a line so often.
const LINE_EVERY: Duration = Duration::from_secs(30);

#[derive(Clone)]
enum Normalization {
    Auto,
    Given(Normalize),
}

fn normalization(text: &str) -> Result<Normalization, String> {
    if text == "auto" { Ok(Normalization::Auto) } else { text.parse().map(Normalization::Given) }
}

pub fn run(args: &Args) -> Outcome {
    let source = open_source(&args.file)?;
    let options = args.limit.options(args.how.options(args.net.options()));
    let network = build(&source, &options)?;
    let data = open_data(args, &network)?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(network.name()));
    let how = TrainerOptions {
        seed: args.seed,
        batch: args.batch.map(|n| n as usize),
        examples: data.train.len(),
        data: data.description,
        drop_rest: args.drop_rest,
    };
    let mut trainer = Trainer::new(&source, &options, &how)?;
    warn_of_untrained(trainer.untrained());
    start(args, &mut trainer, &out)?;
    let epochs = args.epochs.or(trainer.epochs().map(|n| n as u64)).unwrap_or(DEFAULT_EPOCHS);
    let options = FitOptions {
        epochs,
        augment: data.augment,
        normalize: data.normalize,
        out: Some(out.clone()),
        kept: args.keep as usize,
        save_every: args.save_every,
    };
    let mut reporter = Reporter::new(trainer.steps_an_epoch());
    let fitted = fit(&mut trainer, &data.train, data.test.as_ref(), &options, &mut reporter);
    reporter.bar.finish_and_clear();
    let fitted = fitted?;
    if !fitted.finished {
        say_how_to_resume(&trainer, &fitted);
        return Err(Failure::Interrupted);
    }
    show_results(&fitted, &out)
}

/// Data, ready to be trained on.
struct Data {
    train: Arc<dyn Dataset>,
    test: Option<Arc<dyn Dataset>>,
    augment: Augment,
    normalize: Option<Normalize>,
    /// What the run depends on.
    description: String,
}

fn open_data(args: &Args, network: &Network) -> Outcome<Data> {
    let shape = example_shape(network)?;
    let bad = if args.skip_bad { Bad::Skip } else { Bad::Refuse };
    let open = |part: Part| -> Outcome<Arc<dyn Dataset>> {
        let opened = args.data.open(part, &shape, bad)?;
        for line in &opened.skipped {
            terminal::warn(&format!("left out: {line}"));
        }
        if !opened.skipped.is_empty() {
            terminal::warn(&format!("{} pictures were left out", opened.skipped.len()));
        }
        Ok(opened.set)
    };
    let whole = open(Part::Train)?;
    let (train, test): (Arc<dyn Dataset>, Option<Arc<dyn Dataset>>) = match args.hold_out {
        Some(share) => {
            let (train, test) = split(&whole, share, args.seed)?;
            (Arc::new(train), Some(Arc::new(test)))
        }
        None if args.data.has(Part::Test) => (whole, Some(open(Part::Test)?)),
        None => {
            terminal::note("the data has no test part, so nothing is measured (see --hold-out)");
            (whole, None)
        }
    };
    let normalize = match &args.normalize {
        None => None,
        Some(Normalization::Given(n)) => Some(n.clone()),
        Some(Normalization::Auto) => {
            let measured = Normalize::measure(&*train)?;
            terminal::note(&format!("measured --normalize {measured}"));
            Some(measured)
        }
    };
    let augment = Augment { crop: args.crop as usize, flip: args.flip };
    if !augment.is_identity() && train.shape().len() != 3 {
        return Err(Error::Options("--crop and --flip are for pictures".into()).into());
    }
    let text = normalize.as_ref().map_or("no".to_string(), Normalize::to_string);
    let held_out = args.hold_out.unwrap_or(0.0);
    let description =
        format!("hold-out {held_out}, crop {}, flip {}, normalize {text}", args.crop, args.flip);
    Ok(Data { train, test, augment, normalize, description })
}

/// The shape of an example: that of the input for floats, without the batch.
fn example_shape(network: &Network) -> Outcome<Vec<Option<usize>>> {
    let inputs = network.inputs();
    match &inputs[..] {
        [input] if input.ty.dtype == DType::F32 && input.ty.rank() >= 2 => {
            Ok(input.ty.shape[1..].iter().map(|d| d.size()).collect())
        }
        _ => {
            let all: Vec<String> = inputs.iter().map(|i| format!("`{}: {}`", i.name, i.ty)).collect();
            let message = format!("expected a net with one input f32[N, …], found {}", all.join(", "));
            Err(Error::Input(message).into())
        }
    }
}

/// Parameters that nothing teaches are most often a mistake: a head that the loss forgets.
fn warn_of_untrained(names: &[String]) {
    if names.is_empty() {
        return;
    }
    let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
    terminal::warn(&format!(
        "the loss does not depend on {}: {} their initial values",
        names.join(", "),
        if names.len() == 1 { "it keeps" } else { "they keep" }
    ));
}

/// Starts anew, where no other run is written over, or goes on from the last checkpoint.
fn start(args: &Args, trainer: &mut Trainer, out: &Path) -> Outcome {
    let folder = Folder::new(out.join(CHECKPOINTS), args.keep as usize);
    if args.resume {
        return resume(trainer, &folder, out);
    }
    if let Some(path) = folder.last_path()? {
        let message = format!(
            "there is a checkpoint of an earlier run, `{}`: go on with --resume, or choose another --out",
            path.display()
        );
        return Err(Error::Options(message).into());
    }
    let Some(path) = &args.weights else { return Ok(()) };
    let anew = trainer.start_from(&super::run::open_weights(path)?, &args.fresh)?;
    let fresh = if anew.is_empty() { String::new() } else { format!("; fresh: {}", anew.join(", ")) };
    terminal::note(&format!("starts from `{}`{fresh}", path.display()));
    Ok(())
}

fn resume(trainer: &mut Trainer, folder: &Folder, out: &Path) -> Outcome {
    let Some((path, checkpoint)) = folder.last()? else {
        let message =
            format!("there is no checkpoint in `{}` to go on from", out.join(CHECKPOINTS).display());
        return Err(Error::Options(message).into());
    };
    trainer.restore(&checkpoint)?;
    terminal::note(&format!("goes on after step {} (`{}`)", checkpoint.step, path.display()));
    for change in trainer.changes_since(&checkpoint) {
        terminal::note(&format!("the program has changed since: {change}"));
    }
    Ok(())
}

fn say_how_to_resume(trainer: &Trainer, fitted: &Fitted) {
    let mut words: Vec<String> = std::env::args().map(|w| quoted(&w)).collect();
    if !words.iter().any(|w| w == "--resume") {
        words.push("--resume".into());
    }
    let saved = fitted.checkpoint.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    terminal::note(&format!("stopped after step {}, saved as `{saved}`; go on with", trainer.steps()));
    terminal::error_line(&format!("  {}", words.join(" ")));
}

/// A word of a command line, for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn show_results(fitted: &Fitted, out: &Path) -> Outcome {
    let mut text = String::new();
    let mut written = vec![WEIGHTS, CURVES];
    if let Some(confusion) = fitted.evaluation.as_ref().and_then(|e| e.confusion.as_ref()) {
        if confusion.classes() <= SHOWN_CLASSES {
            text += &format!("\n{confusion}\n");
        }
        let (right, total) = (confusion.right(), confusion.total());
        text += &format!("accuracy: {:.2} % ({right} of {total})\n", 100.0 * confusion.accuracy());
        written.push(CONFUSION);
    }
    text += &format!("written to {}: {}\n", out.display(), written.join(", "));
    terminal::print(&text)
}

/// Shows progress and listens to Ctrl-C.
struct Reporter {
    bar: ProgressBar,
    terminal: bool,
    /// Set by Ctrl-C.
    stop: Arc<AtomicBool>,
    last_line: Instant,
    /// When the epoch began, and how many of its steps were done then.
    start: Option<(Instant, u64)>,
}

impl Reporter {
    fn new(steps: u64) -> Reporter {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len}  {msg}, {eta} left");
        bar.set_style(style.unwrap_or(ProgressStyle::default_bar()));
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        // The second Ctrl-C ends at once. Where the handler cannot be set, the first one does.
        let _ = ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
        });
        Reporter { bar, terminal, stop, last_line: Instant::now(), start: None }
    }
}

impl Watch for Reporter {
    fn step(&mut self, at: &Position, mean: &Measures) -> Flow {
        let (start, before) = *self.start.get_or_insert_with(|| (Instant::now(), at.step));
        let prefix = format!("epoch {}/{}", at.epoch + 1, at.epochs);
        let seconds = start.elapsed().as_secs_f64();
        let speed = match at.step - before {
            0 => String::new(),
            n => format!(", {:.0} examples/s", (n * at.batch as u64) as f64 / seconds.max(1e-9)),
        };
        let message = format!("{}{speed}", measures(mean));
        if self.terminal {
            self.bar.set_prefix(prefix);
            self.bar.set_message(message);
            self.bar.set_position(at.step);
            if at.step == before {
                self.bar.reset_eta();
            }
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            terminal::error_line(&format!("{prefix}, step {}/{}: {message}", at.step, at.steps));
        }
        if self.stop.load(Ordering::Relaxed) { Flow::Stop } else { Flow::Continue }
    }

    fn diverged(&mut self, message: &str) {
        self.bar.suspend(|| {
            terminal::note(&format!(
                "{message}; repeating the steps since the last checkpoint to find out why"
            ));
        });
    }

    fn epoch(&mut self, report: &EpochReport) {
        self.start = None;
        self.last_line = Instant::now();
        let mut line =
            format!("epoch {}/{}: {}", report.epoch + 1, report.epochs, measures(&report.training));
        if let Some(e) = &report.evaluation {
            line += &format!("; test: {}", measures(&e.measures));
        }
        let (time, speed) = (report.time.as_secs_f64(), report.examples_per_second);
        line += &format!("; {speed:.0} examples/s, {time:.1} s\n");
        // A reader that has gone away must not stop the training.
        self.bar.suspend(|| {
            use std::io::Write;
            let mut stdout = std::io::stdout().lock();
            let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
        });
    }
}

/// `loss 0.1234, top1 0.9712`.
fn measures(m: &Measures) -> String {
    let mut out = format!("loss {:.4}", m.loss);
    for (name, value) in &m.metrics {
        out += &format!(", {name} {value:.4}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_for_a_shell() {
        assert_eq!(quoted("mnist:a/b"), "mnist:a/b");
        assert_eq!(quoted("my data"), "'my data'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
