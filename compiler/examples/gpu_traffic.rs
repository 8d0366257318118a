//! Which kernels of a program would be slow on a GPU, counted without one: `tests/ptx/README.md` says what the
//! columns mean.
//!
//! ```sh
//! cargo run -p nnc-compiler --example gpu_traffic -- examples/resnet.nn --train --set depth=18 --set N=64
//! ```

#[path = "../tests/common/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::process::ExitCode;

use nnc_compiler::build::{BuildOptions, NoFiles, build};
use nnc_compiler::graph::Graph;
use nnc_compiler::lower::lower_for_gpu;
use nnc_compiler::pass;
use nnc_compiler::target::GpuTarget;
use nnc_compiler::training::{StepOptions, build_step};
use nnc_dsl::SourceMap;
use nnc_ptx_interpreter::Stats;

use traffic::{Row, traffic};

/// Letters of the names of layers that are shown.
const LAYER_SHOWN: usize = 40;

const USAGE: &str = "gpu_traffic FILE.nn [--train] [--set NAME=VALUE]...";

/// What was asked for.
#[derive(Default)]
struct Asked {
    path: String,
    training: bool,
    sets: BTreeMap<String, String>,
}

impl Asked {
    fn parse(mut args: impl Iterator<Item = String>) -> Option<Asked> {
        let mut asked = Asked::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--train" => asked.training = true,
                "--set" => {
                    let (name, value) = args.next()?.split_once('=').map(|(n, v)| (n.into(), v.into()))?;
                    asked.sets.insert(name, value);
                }
                _ if asked.path.is_empty() && !arg.starts_with('-') => asked.path = arg,
                _ => return None,
            }
        }
        (!asked.path.is_empty()).then_some(asked)
    }

    fn graph(self) -> Result<Graph, String> {
        let text = std::fs::read_to_string(&self.path).map_err(|e| format!("{}: {e}", self.path))?;
        let mut map = SourceMap::new();
        let root = map.add(self.path, text);
        let options = BuildOptions { training: self.training, sets: self.sets, ..BuildOptions::default() };
        let built =
            build(&mut map, root, &NoFiles, &options).map_err(|d| nnc_dsl::render(&map, &d, false))?;
        if !self.training {
            return Ok(built.graph);
        }
        let options = StepOptions { sizes: BTreeMap::new(), gradients: false };
        build_step(&built, &options).map(|step| step.graph).map_err(|e| e.to_string())
    }
}

fn main() -> ExitCode {
    let Some(asked) = Asked::parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    match asked.graph().and_then(report) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// What a multiprocessor does in a clock, at most: instructions of warps, products of warps, wavefronts of its nearest
/// memory (128 bytes each).
const ISSUED: f64 = 4.0;
const MULTIPLIED: f64 = 1.0;
const WAVEFRONTS: f64 = 1.0;

/// Sectors of a wavefront of global memory, and bytes of a sector.
const SECTORS: f64 = 4.0;
const SECTOR_BYTES: f64 = 32.0;

/// Bytes a clock of an H100: from its second cache (about what is measured), and from memory (3.35 TB/s); clocks of a
/// microsecond.
const CACHE_BYTES: f64 = 3000.0;
const MEMORY_BYTES: f64 = 1900.0;
const CLOCKS: f64 = 1755.0;

/// Microseconds that a launch takes on an H100 at the least, by the one thing that takes longest. No GPU was asked; it
/// is there to say what to look at first. Infinite where counting ended.
fn time(row: &Row, target: GpuTarget) -> f64 {
    let Some(s) = row.stats else { return f64::INFINITY };
    let busy = (row.launch.grid as usize).min(target.multiprocessors()) as f64;
    let sectors = s.global_sectors as f64;
    let wavefronts = (s.shared_wavefronts + s.bank_conflicts) as f64 + sectors / SECTORS;
    let of_each = [
        s.instructions as f64 / ISSUED / busy,
        s.mmas as f64 / MULTIPLIED / busy,
        wavefronts / WAVEFRONTS / busy,
        s.block_sectors as f64 * SECTOR_BYTES / CACHE_BYTES,
        row.bytes as f64 / MEMORY_BYTES,
    ];
    of_each.into_iter().fold(0.0, f64::max) / CLOCKS
}

/// The heading of the table.
const HEADING: &str = "      us  times          grid x block  instructions  of them  sectors  least  conflicts         MB  kernel
                                           a thread  a product      a request  a wavefront
";

/// A line of the table.
fn line(row: &Row, time: f64) -> String {
    let Row { name, layer, launches, launch, stats, bytes } = row;
    let threads = u64::from(launch.grid) * u64::from(launch.block);
    let [sectors, least] = row.sectors();
    let product = match stats {
        Some(s) if s.mmas > 0 => format!("{:.1}", row.ratio(|s| s.instructions, |s| s.mmas)),
        _ => "-".to_string(),
    };
    format!(
        "{time:>8.1}  {launches:>5}  {:>8} x {:<4}  {:>12.0}  {product:>7}  {sectors:>7.2}  {least:>5.2}  {:>9.2}  \
         {:>9.2}  {name}  {}\n",
        launch.grid,
        launch.block,
        row.ratio(|s| 32 * s.instructions, |_| threads),
        row.ratio(|s| s.bank_conflicts, |s| s.shared_wavefronts),
        *bytes as f64 / 1e6,
        layer.chars().take(LAYER_SHOWN).collect::<String>()
    )
}

/// What all launches ask for, but for kernels where counting ended.
fn totals(rows: &[(f64, Row)]) -> String {
    let launches: usize = rows.iter().map(|(_, row)| row.launches).sum();
    let all = |f: fn(&Stats) -> u64| -> f64 {
        rows.iter().map(|(_, row)| row.stats.map_or(0, |s| f(&s)) * row.launches as u64).sum::<u64>() as f64
    };
    let (sectors, least) = (all(|s| s.global_sectors), all(|s| s.global_bytes) / SECTOR_BYTES);
    format!(
        "{launches} launches, {:.1} million sectors, {:.2} of what they would be side by side, {:.1} million \
         instructions of threads\n",
        sectors / 1e6,
        sectors / least,
        all(|s| s.thread_instructions) / 1e6
    )
}

/// The kernels, those that take longest first.
fn report(mut graph: Graph) -> Result<String, String> {
    let target = GpuTarget::Sm90;
    pass::run_all(&mut graph, &target.thread(), &mut |_, _| {});
    let module = lower_for_gpu(&graph, target, None).map_err(|e| e.to_string())?;
    let rows = traffic(&module, target);
    let mut rows: Vec<(f64, Row)> = rows.into_iter().map(|row| (time(&row, target), row)).collect();
    let all = |(time, row): &(f64, Row)| time * row.launches as f64;
    rows.sort_by(|a, b| all(b).total_cmp(&all(a)));
    let sum: f64 = rows.iter().map(all).filter(|t| t.is_finite()).sum();
    let lines: String = rows.iter().map(|(time, row)| line(row, *time)).collect();
    Ok(format!("{HEADING}{lines}{sum:>8.1} us in all, at the least\n{}", totals(&rows)))
}
