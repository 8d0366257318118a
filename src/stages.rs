//! The text of every stage between source and machine code, for `--emit` and for tests.

use std::fmt;
use std::str::FromStr;

use crate::error::Result;
use crate::{Error, Options, Source};

/// A stage with a text form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The syntax tree.
    Ast,
    /// The graph as built.
    Graph,
    /// The graph after the pass of that name.
    After(String),
    /// The graph after all passes: groups, layouts, placements.
    Fused,
    /// Loop nests.
    Kernels,
    /// Order of launches, place of every buffer, peak memory.
    Plan,
    /// Cranelift's intermediate code.
    Clif,
    /// Machine code, disassembled.
    Asm,
}

impl Stage {
    /// The names that [`FromStr`] takes; a graph after a pass is asked for by `--emit-after`.
    pub const NAMES: [&'static str; 7] = ["ast", "graph", "fused", "kernels", "plan", "clif", "asm"];
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(s: &str) -> Result<Stage, String> {
        Ok(match s {
            "ast" => Stage::Ast,
            "graph" => Stage::Graph,
            "fused" => Stage::Fused,
            "kernels" => Stage::Kernels,
            "plan" => Stage::Plan,
            "clif" => Stage::Clif,
            "asm" => Stage::Asm,
            _ => return Err(format!("expected one of {}, found `{s}`", Stage::NAMES.join(", "))),
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Ast => "ast",
            Stage::Graph => "graph",
            Stage::After(pass) => pass,
            Stage::Fused => "fused",
            Stage::Kernels => "kernels",
            Stage::Plan => "plan",
            Stage::Clif => "clif",
            Stage::Asm => "asm",
        })
    }
}

/// The text of a stage. Symbolic sizes may be left up to [`Stage::Fused`]; later stages need them
/// set, and the leading size of an input (the batch) is 1 if it is not.
pub fn text(_source: &Source, _options: &Options, stage: &Stage) -> Result<String> {
    Err(Error::Internal(format!("the text of stage {stage} is not there yet")))
}
