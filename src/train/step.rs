//! The step that is taken again and again: of a net, for one size of batch.

use std::sync::Arc;

use nnc_compiler::build::{Built, TrainSection};
use nnc_compiler::graph::{Bindings, TensorType};
use nnc_compiler::training::{self, StepGraph, StepOptions, TrainError};
use nnc_dsl::SourceMap;

use super::engine::{Bench, Program};
use super::inputs::{batch_of, choose_batch, data_inputs};
use super::trainer::TrainerOptions;
use crate::error::{Result, SourceError};
use crate::{Error, Options, Source, TensorSpec, TensorView, pipeline};

/// A net that can be trained, and the size of its batches.
pub(super) struct Net {
    pub built: Built,
    pub sources: Arc<SourceMap>,
    /// Symbols that are the batch.
    pub batch_symbols: Vec<String>,
    pub batch: usize,
}

impl Net {
    /// Builds the training variant.
    pub fn open(source: &Source, options: &Options, how: &TrainerOptions) -> Result<Net> {
        let (built, sources) = pipeline::build(source, &options.clone().training(true))?;
        let section = section(&built).map_err(|e| wrong(&sources, &e))?;
        let (batch_symbols, fixed) = batch_of(&built.graph);
        let batch = choose_batch(fixed, how.batch, section.batch)?;
        Ok(Net { built, sources, batch_symbols, batch })
    }

    /// An error of the program, shown in its text.
    pub fn wrong(&self, e: &TrainError) -> Error {
        wrong(&self.sources, e)
    }
}

/// The `train` section of a net.
pub(super) fn section(built: &Built) -> Result<&TrainSection, TrainError> {
    built.train.as_ref().ok_or(TrainError::NoSection)
}

/// A step for one size of batch.
pub(super) struct Step {
    pub graph: StepGraph,
    /// Inputs that are the caller's.
    pub inputs: Vec<TensorSpec>,
    batch: usize,
    /// Compiled when it is needed.
    program: Option<Program>,
}

impl Step {
    pub fn new(built: &Built, symbols: &[String], batch: usize) -> Result<Step, TrainError> {
        let options = StepOptions { sizes: sizes(symbols, batch), ..StepOptions::default() };
        let graph = training::build_step(built, &options)?;
        let inputs = data_inputs(&graph);
        Ok(Step { graph, inputs, batch, program: None })
    }

    pub fn program(&mut self, bench: &Bench) -> Result<&Program> {
        Ok(match &mut self.program {
            Some(program) => program,
            empty => empty.insert(bench.step(&self.graph, self.batch)?),
        })
    }

    /// The program, if it has been needed.
    pub fn compiled(&self) -> Option<&Program> {
        self.program.as_ref()
    }

    /// Whether these are inputs of this step.
    pub fn takes(&self, inputs: &[(&str, TensorView<'_>)]) -> bool {
        let fits = |(name, view): &(&str, TensorView<'_>)| {
            let ty = TensorType::new(view.dtype(), view.shape());
            self.inputs.iter().any(|i| i.name == *name && i.ty == ty)
        };
        !inputs.is_empty() && inputs.iter().all(fits)
    }
}

/// Every one of the symbols is the batch.
pub(super) fn sizes(symbols: &[String], batch: usize) -> Bindings {
    symbols.iter().map(|s| (s.clone(), batch)).collect()
}

/// An error of the program, shown in its text.
pub(super) fn wrong(sources: &Arc<SourceMap>, e: &TrainError) -> Error {
    Error::Source(SourceError { sources: sources.clone(), diagnostics: vec![e.diagnostic()] })
}
