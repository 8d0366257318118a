//! From syntax to graph: the evaluator of the language.
//!
//! Takes a source file, gives a [`Graph`] of core operations with every shape known or symbolic.
//! Everything but tensor values happens here: loops are unrolled, conditions decided, blocks
//! expanded, names given to layers and parameters. Several errors are found in one run; each
//! points at the author's own text, never only into the standard library.

mod builtins;
mod call;
mod eval;
mod hints;
mod modules;
mod names;
mod report;
mod resolve;
mod scope;
mod sets;
mod train;
mod unused;
mod values;

use std::collections::BTreeMap;

use nnc_dsl::{Diagnostic, FileId, Severity, SourceMap};

use crate::graph::{Graph, Op, TensorType};
use eval::Evaluator;
use modules::Modules;
pub use train::{Spec, SpecValue, TrainSection};

/// How a program is built.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildOptions {
    /// Which net, if the file has several.
    pub net: Option<String>,
    /// Values for the net's parameters and symbolic sizes, as text (`--set classes=10`).
    pub sets: BTreeMap<String, String>,
    /// Whether `training` is true: what stands under `if training` is there, batch
    /// normalisation takes the statistics of the batch.
    pub training: bool,
}

/// A program, built.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its graph.
    pub graph: Graph,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// Parameters (with their types) that only the training variant has: a weights file may hold
    /// them, an inference program does not need them.
    pub training_only: Vec<(String, TensorType)>,
    /// The `train` section, its values nodes of the graph. Only where `training` was asked for and the
    /// net has a section.
    pub train: Option<TrainSection>,
}

/// Reads the files of `use "blocks.nn"`.
pub trait Loader: Sync {
    /// The file `path`, relative to the file shown as `from`: its own name to show, and its text.
    /// An error is said to the author as it is.
    fn load(&self, path: &str, from: &str) -> Result<(String, String), String>;
}

/// A loader for programs that stand alone: every `use "file.nn"` is an error.
pub struct NoFiles;

impl Loader for NoFiles {
    fn load(&self, _path: &str, _from: &str) -> Result<(String, String), String> {
        Err("files cannot be used from here".to_string())
    }
}

/// Evaluation recurses over syntax and calls; both are limited so that this is enough.
const STACK_BYTES: usize = 1 << 28;

/// Builds the net of file `root`.
///
/// # Errors
/// All diagnostics of the run (warnings too) if one of them is an error.
pub fn build(
    map: &mut SourceMap,
    root: FileId,
    loader: &dyn Loader,
    options: &BuildOptions,
) -> Result<Built, Vec<Diagnostic>> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("build".to_string())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || build_here(map, root, loader, options));
        match thread {
            Ok(handle) => handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(e) => Err(vec![Diagnostic::global(format!("no thread to build on: {e}"))]),
        }
    })
}

fn build_here(
    map: &mut SourceMap,
    root: FileId,
    loader: &dyn Loader,
    options: &BuildOptions,
) -> Result<Built, Vec<Diagnostic>> {
    let (modules, mut diagnostics) = Modules::load(map, root, loader);
    let syntax_is_sound = !has_errors(&diagnostics);
    let net = match modules.choose_net(map, options.net.as_deref(), syntax_is_sound) {
        Ok(net) => net,
        Err(error) => {
            diagnostics.extend(error.map(|d| *d));
            return Err(diagnostics);
        }
    };
    let Evaluated { graph, train, stopped } =
        evaluate(map, &modules, &net, options, options.training, &mut diagnostics);
    // The other variant: the training one has the `train` section's errors and the parameters of
    // `if training`.
    let mut training_only = vec![];
    if !stopped {
        let other = evaluate(map, &modules, &net, options, !options.training, &mut diagnostics);
        training_only = match options.training {
            true => only_in(&graph, &other.graph),
            false => only_in(&other.graph, &graph),
        };
    }
    if syntax_is_sound && !stopped {
        let builtins = builtins::table().into_keys().collect();
        merge(&mut diagnostics, resolve::check(&modules, &builtins));
    }
    if has_errors(&diagnostics) {
        return Err(diagnostics);
    }
    diagnostics.extend(unused::check(&modules));
    Ok(Built { graph, warnings: diagnostics, training_only, train })
}

/// One variant of a net.
struct Evaluated {
    graph: Graph,
    train: Option<TrainSection>,
    /// A limit was hit.
    stopped: bool,
}

fn evaluate(
    map: &SourceMap,
    modules: &Modules,
    net: &std::rc::Rc<modules::FunctionDef>,
    options: &BuildOptions,
    training: bool,
    diagnostics: &mut Vec<Diagnostic>,
) -> Evaluated {
    let mut evaluator = Evaluator::new(map, modules, &options.sets, training);
    evaluator.run(net);
    merge(diagnostics, evaluator.diagnostics);
    Evaluated { graph: evaluator.graph, train: evaluator.trained, stopped: evaluator.stopped }
}

/// Adds what was not said yet of the same place.
fn merge(diagnostics: &mut Vec<Diagnostic>, more: Vec<Diagnostic>) {
    for d in more {
        if !diagnostics.iter().any(|x| x.title == d.title && x.primary == d.primary) {
            diagnostics.push(d);
        }
    }
}

fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|d| d.severity == Severity::Error)
}

fn only_in(training: &Graph, inference: &Graph) -> Vec<(String, TensorType)> {
    let names = |g: &Graph| -> Vec<(String, TensorType)> {
        g.ids()
            .map(|n| g.node(n))
            .filter(|n| matches!(n.op, Op::Parameter(_)))
            .map(|n| (n.name.clone(), n.ty.clone()))
            .collect()
    };
    let here: std::collections::BTreeSet<String> = names(inference).into_iter().map(|(n, _)| n).collect();
    names(training).into_iter().filter(|(n, _)| !here.contains(n)).collect()
}
