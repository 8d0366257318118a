//! The text of every stage between source and machine code, for `--emit` and for tests.

use std::fmt;
use std::str::FromStr;

use nnc_compiler::graph::Graph;
use nnc_compiler::graph::print::print;
use nnc_compiler::pass::{self, PASSES};
use nnc_compiler::target::CpuTarget;

use crate::error::Result;
use crate::{Error, Options, Source, pipeline};

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
    /// Cranelift's intermediate code, for vectors of 128 bits whatever the target's are.
    Clif,
    /// Machine code, disassembled.
    Asm,
    /// The kernels for a GPU, as PTX.
    Ptx,
}

impl Stage {
    /// The names that [`FromStr`] takes; a graph after a pass is asked for by `--emit-after`.
    pub const NAMES: [&'static str; 8] = ["ast", "graph", "fused", "kernels", "plan", "clif", "asm", "ptx"];
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
            "ptx" => Stage::Ptx,
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
            Stage::Ptx => "ptx",
        })
    }
}

/// The text of a stage. Symbolic sizes may be left up to [`Stage::Fused`]; later stages need them
/// set, save for the leading size of an input (the batch), which is 1 if it is not.
///
/// ```
/// use nnc::stages::{self, Stage};
/// let source = nnc::Source::from_text("double.nn", "net double {\n input x: f32[N]\n output y = 2 * x\n}\n")?;
/// let kernels = stages::text(&source, &nnc::Options::new(), &Stage::Kernels)?;
/// assert!(kernels.contains("kernel"));
/// # Ok::<(), nnc::Error>(())
/// ```
pub fn text(source: &Source, options: &Options, stage: &Stage) -> Result<String> {
    if *stage == Stage::Ast {
        return Ok(nnc_dsl::dump(&source.map, &source.parse()?));
    }
    let options = &match stage {
        // Wider code does not come by Cranelift.
        Stage::Clif => options.clone().target(options.chosen_target().with_lanes(4)),
        Stage::Ptx => options.clone().gpu(options.chosen_gpu().unwrap_or_default()),
        _ => options.clone(),
    };
    if let (Some(_), Stage::Clif | Stage::Asm) = (options.chosen_gpu(), stage) {
        return Err(Error::Options(format!("{stage} is a CPU's: a GPU's code is ptx")));
    }
    let network = source.network(options)?;
    match stage {
        Stage::Ast | Stage::Graph => return Ok(print(network.graph())),
        Stage::After(pass) => return after(network.graph(), &options.machine(), pass),
        Stage::Fused => return Ok(print(&network.optimized().0)),
        Stage::Kernels | Stage::Plan | Stage::Clif | Stage::Asm | Stage::Ptx => {}
    }
    let batch = network.batch_symbols().into_iter().map(|s| (s, 1)).collect();
    let network = network.specialise(&batch)?;
    network.require_sizes()?;
    let (target, graph) = (options.chosen_target(), network.optimized().0);
    let module = match options.chosen_gpu() {
        Some(gpu) => pipeline::lower_for_gpu(&graph, gpu, options.lowering_for_gpu(), network.sources())?,
        None => pipeline::lower(&graph, &target, &options.lowering(), network.sources())?,
    };
    if let (Some(gpu), Stage::Ptx) = (options.chosen_gpu(), stage) {
        return Ok(pipeline::emit_ptx(&module, gpu)?.text);
    }
    if *stage == Stage::Kernels {
        return Ok(module.to_string());
    }
    let plan = pipeline::plan(&module, options.chosen_gpu());
    if *stage == Stage::Plan {
        return Ok(plan.to_string());
    }
    let emitted = pipeline::emit(&module, &plan, &target, true)?;
    let text = if *stage == Stage::Clif { emitted.clif } else { emitted.asm };
    text.ok_or_else(|| Error::Internal(format!("the emitter gave no {stage}")))
}

/// The graph after the pass of that name.
fn after(graph: &Graph, target: &CpuTarget, pass: &str) -> Result<String> {
    let mut found = None;
    pass::run_all(&mut graph.clone(), target, &mut |name, graph| {
        if name == pass {
            found = Some(print(graph));
        }
    });
    found.ok_or_else(|| {
        let names: Vec<&str> = PASSES.iter().map(|p| p.name).collect();
        Error::Options(format!("there is no pass `{pass}`: expected one of {}", names.join(", ")))
    })
}
