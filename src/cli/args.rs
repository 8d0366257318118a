//! Arguments that several subcommands share, and what they come to.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use nnc::compiler::lower::algorithm::Choices;
use nnc::compiler::target::CpuTarget;
use nnc::source::{MAX_SOURCE_BYTES, text_of};
use nnc::train::TrainerOptions;
use nnc::tune::Tuning;
use nnc::{ByteSize, Device, Error, Network, Options, Precision, Source};

use super::terminal;

/// The name of standard input on the command line.
pub const STDIN: &str = "-";

/// Which net of a program, and with which sizes.
#[derive(Args, Clone)]
pub struct NetArgs {
    /// Which net of the file, if it has several
    #[arg(long, value_name = "NAME")]
    pub net: Option<String>,
    /// Set a size (N=8) or a parameter of the net (depth=16); may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub sets: Vec<(String, String)>,
}

impl NetArgs {
    /// The options these arguments ask for.
    pub fn options(&self) -> Options {
        let mut options = Options::new();
        if let Some(net) = &self.net {
            options = options.net(net);
        }
        self.sets.iter().fold(options, |options, (name, value)| options.set(name, value))
    }
}

/// How it is compiled.
#[derive(Args, Clone)]
pub struct CompileArgs {
    /// Number of threads (default: every core)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// `default` allows algorithms that round a little differently (Winograd's for 3x3
    /// convolutions; on a GPU, TF32 for large products), `strict` does not; `bf16` rounds the factors of a
    /// GPU's large products to bf16
    #[arg(long, value_name = "HOW", default_value = "default", value_parser = ["default", "strict", "bf16"])]
    precision: String,
    /// The CPU that the code is for: `native`, `x86-64-v4` (or `avx512`), `x86-64-v3` (`avx2`),
    /// `x86-64-fma` (`fma`)
    #[arg(long, value_name = "CPU", default_value = "native")]
    target_cpu: CpuTarget,
    /// Algorithms of convolutions that `nnc compile --tune` has measured
    #[arg(long, value_name = "FILE", value_parser = tuned)]
    tuned: Option<Arc<Choices>>,
}

impl CompileArgs {
    /// Adds what these arguments ask for.
    pub fn options(&self, options: Options) -> Options {
        let precision = match self.precision.as_str() {
            "strict" => Precision::Strict,
            "bf16" => Precision::Bf16,
            _ => Precision::Default,
        };
        let options = options.precision(precision);
        let mut options = options.target(self.target_cpu.clone());
        if let Some(choices) = &self.tuned {
            options = options.choices(Choices::clone(choices));
        }
        match self.threads {
            Some(n) => options.threads(n as usize),
            None => options,
        }
    }
}

/// How much memory a training step may take.
#[derive(Args, Clone)]
pub struct LimitArgs {
    /// Let a training step take no more memory than that (512MB, 1.5GiB): activations are computed again
    /// instead of being kept, with the same results
    #[arg(long, value_name = "SIZE", value_parser = str::parse::<ByteSize>)]
    memory_limit: Option<ByteSize>,
}

impl LimitArgs {
    /// Adds what these arguments ask for.
    pub fn options(&self, options: Options) -> Options {
        match self.memory_limit {
            Some(limit) => options.memory_limit(limit),
            None => options,
        }
    }

    /// Complains about a limit where nothing is trained.
    pub fn check(&self, train: bool) -> nnc::error::Result<()> {
        match self.memory_limit {
            Some(_) if !train => {
                Err(Error::Options("--memory-limit is for training: give --train, too".into()))
            }
            _ => Ok(()),
        }
    }
}

/// The training step that is looked at.
#[derive(Args, Clone)]
pub struct StepArgs {
    /// With --train: examples in a step (default: what the program says, or 64)
    #[arg(long, value_name = "N", requires = "train", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    batch: Option<u64>,
    #[command(flatten)]
    limit: LimitArgs,
}

impl StepArgs {
    /// Adds what these arguments ask for; complains where nothing is trained.
    pub fn options(&self, options: Options, train: bool) -> nnc::error::Result<Options> {
        self.limit.check(train)?;
        Ok(self.limit.options(options))
    }

    /// What a trainer is told of it.
    pub fn trainer(&self) -> TrainerOptions {
        TrainerOptions { batch: self.batch.map(|n| n as usize), ..TrainerOptions::default() }
    }
}

/// How it is compiled and where it runs.
#[derive(Args, Clone)]
pub struct RunArgs {
    #[command(flatten)]
    compile: CompileArgs,
    /// Where it runs: `cpu` is compiled machine code, `cuda` an NVIDIA GPU, `auto` that if there is
    /// one and the CPU if not, `reference` a slow interpreter that is easy to check
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = ["auto", "cpu", "cuda", "reference"])]
    device: String,
}

impl RunArgs {
    /// Adds what these arguments ask for.
    pub fn options(&self, options: Options) -> Options {
        // clap lets `auto` and the devices' names through.
        let device = self.device.parse().unwrap_or_else(|_| Device::auto());
        self.compile.options(options).device(device)
    }
}

/// What was measured, for clap.
fn tuned(path: &str) -> Result<Arc<Choices>, String> {
    Ok(Arc::new(Tuning::open(path).map_err(|e| e.to_string())?.choices()))
}

/// `NAME=VALUE`, for clap.
pub fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.into(), value.into())),
        _ => Err("expected NAME=VALUE".into()),
    }
}

/// Reads a program text; `-` is standard input.
pub fn open_source(path: &Path) -> nnc::error::Result<Source> {
    if path != Path::new(STDIN) {
        return Source::open(path);
    }
    Source::from_text("<stdin>", text_of(Path::new("<stdin>"), read_stdin(MAX_SOURCE_BYTES + 1)?)?)
}

/// All of standard input, up to a limit.
pub fn read_stdin(limit: u64) -> nnc::error::Result<Vec<u8>> {
    let mut bytes = vec![];
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
    read.map_err(|error| Error::Io { action: "read", path: PathBuf::from("<stdin>"), error })?;
    Ok(bytes)
}

/// Builds a net and shows its warnings.
pub fn build(source: &Source, options: &Options) -> nnc::error::Result<Network> {
    let network = source.network(options)?;
    if !network.warnings().is_empty() {
        let text = nnc::error::render_diagnostics(network.sources(), network.warnings(), terminal::color());
        terminal::error_line(&text);
    }
    let unknown = network.unknown_choices();
    if !unknown.is_empty() {
        terminal::warn(&format!(
            "--tuned is about layers that the net does not have: {}",
            unknown.join(", ")
        ));
    }
    Ok(network)
}

/// The net for a batch of that size.
pub fn with_batch(network: Network, batch: usize) -> nnc::error::Result<Network> {
    let symbols = network.batch_symbols().into_iter().map(|s| (s, batch)).collect();
    network.specialise(&symbols)
}

/// The net with every size known: a batch size that is not set is 1, and a note says so.
pub fn with_known_sizes(network: Network) -> nnc::error::Result<Network> {
    let batch = network.batch_symbols();
    let network = if batch.is_empty() {
        network
    } else {
        let hint: Vec<String> = batch.iter().map(|s| format!("--set {s}=…")).collect();
        terminal::note(&format!("{} is 1 (change it with {})", batch.join(", "), hint.join(" ")));
        network.specialise(&batch.into_iter().map(|s| (s, 1)).collect())?
    };
    let open = network.symbols();
    if open.is_empty() {
        return Ok(network);
    }
    let names: Vec<String> = open.iter().map(|s| format!("`{s}`")).collect();
    let hint: Vec<String> = open.iter().map(|s| format!("--set {s}=…")).collect();
    Err(Error::Options(format!(
        "the size of {} is not known: give it with {}",
        names.join(", "),
        hint.join(" ")
    )))
}
