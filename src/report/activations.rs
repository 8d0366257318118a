//! Which activations of a training step are kept, which are computed again, and what decided.

use std::fmt::Write;

use nnc_compiler::plan::Obstacle;

use super::table::{Align, Table, bytes};
use crate::train::{Activation, Fate, Kind, StepMemory};

/// So many readers of a value are named.
const SHOWN_READERS: usize = 2;
/// So much of a kernel's name is shown: those of many operations are long.
const SHOWN_NAME: usize = 24;

/// The report of `nnc explain --train`.
pub fn activations(memory: &StepMemory) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "net {}: a training step, batch {}\n\nvalues that wait for the backward part",
        memory.net, memory.batch
    );
    let mut table = Table::new(&[
        ("layers", Align::Left),
        ("written in", Align::Left),
        ("made by", Align::Left),
        ("needed by", Align::Left),
        ("size", Align::Right),
        ("fate", Align::Left),
        ("because", Align::Left),
    ]);
    let (small, worth): (Vec<&Activation>, Vec<&Activation>) =
        memory.activations.iter().partition(|a| a.obstacle == Some(Obstacle::Small));
    for a in worth {
        let mut readers: Vec<String> = a.readers.iter().take(SHOWN_READERS).map(|r| shortened(r)).collect();
        if a.readers.len() > SHOWN_READERS {
            readers.push("…".into());
        }
        table.row(vec![
            a.layers.clone(),
            a.location.clone(),
            shortened(&a.kernel),
            readers.join(", "),
            bytes(a.bytes as u64),
            a.fate.to_string(),
            a.rule(memory.limit.is_some()),
        ]);
    }
    let _ = write!(out, "{table}");
    if !small.is_empty() {
        let sum = small.iter().map(|a| a.bytes as u64).sum();
        let _ = writeln!(out, "and {} kept, {} in all: {}", small.len(), bytes(sum), Obstacle::Small);
    }
    for fate in [Fate::Kept, Fate::Recomputed] {
        let of: Vec<usize> = memory.activations.iter().filter(|a| a.fate == fate).map(|a| a.bytes).collect();
        let _ =
            writeln!(out, "{fate:<15} {:>3} values, {}", of.len(), bytes(of.iter().sum::<usize>() as u64));
    }
    if !memory.never_stored.is_empty() {
        let _ = writeln!(
            out,
            "\nnever stored: cheap functions of one value that is kept anyway, computed in the kernels that use them"
        );
        for (what, location) in &memory.never_stored {
            let _ = writeln!(out, "  {}", format!("{what} {location}").trim_end());
        }
    }
    let peak = memory.usage.of(Kind::Activations) + memory.usage.of(Kind::Recomputed);
    let _ = writeln!(out, "\nat the peak of {}, {} are activations", memory.total(), bytes(peak as u64));
    if let Some(limit) = memory.limit {
        let _ = writeln!(out, "the limit is {}", limit.rounded_up());
    }
    out
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(SHOWN_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_string(),
    }
}
