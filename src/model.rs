//! From a source to answers: [`Network`] (graph), [`Compiled`] (program), [`Model`] (with weights).

use std::collections::BTreeMap;
use std::io;
use std::ops::Index;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nnc_compiler::graph::{Bindings, Graph, TensorType};
use nnc_dsl::{Diagnostic, SourceMap};
use nnc_runtime::program::Program;

use crate::error::Result;
use crate::{Error, Options, Source, Tensor, TensorView, Weights};

/// Name and type of an input, output or parameter; sizes may be symbolic.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Element type and shape.
    pub ty: TensorType,
}

/// A net of a source, built with options: its computation graph, before any pass.
#[derive(Clone, Debug)]
pub struct Network {
    graph: Graph,
    sources: Arc<SourceMap>,
    warnings: Vec<Diagnostic>,
    training_only: Vec<TensorSpec>,
    options: Options,
}

impl Network {
    pub(crate) fn build(source: &Source, options: &Options) -> Result<Network> {
        Ok(Network {
            graph: Graph::new(source.name()),
            sources: Arc::new(source.sources().clone()),
            warnings: vec![],
            training_only: vec![],
            options: options.clone(),
        })
    }

    /// The net's name.
    pub fn name(&self) -> &str {
        &self.graph.name
    }

    /// The graph as built.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The texts that the graph's spans point into.
    pub fn sources(&self) -> &Arc<SourceMap> {
        &self.sources
    }

    /// What is probably not as meant.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The options it was built with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Inputs in source order.
    pub fn inputs(&self) -> Vec<TensorSpec> {
        self.specs(self.graph.inputs())
    }

    /// Outputs in source order.
    pub fn outputs(&self) -> Vec<TensorSpec> {
        let spec = |o: &nnc_compiler::graph::Output| TensorSpec {
            name: o.name.clone(),
            ty: self.graph.node(o.node).ty.clone(),
        };
        self.graph.outputs.iter().map(spec).collect()
    }

    /// Parameters in source order.
    pub fn parameters(&self) -> Vec<TensorSpec> {
        self.specs(self.graph.parameters())
    }

    /// Parameters that only the training variant has; a weights file may have them.
    pub fn training_only(&self) -> &[TensorSpec] {
        &self.training_only
    }

    /// The symbols among its sizes that are not set.
    pub fn symbols(&self) -> Vec<String> {
        let mut out: Vec<String> =
            self.graph.ids().flat_map(|n| &self.graph.node(n).ty.shape).flat_map(|d| d.symbols()).collect();
        out.sort();
        out.dedup();
        out
    }

    /// The symbols that stand first in an input's shape: the batch size.
    pub fn batch_symbols(&self) -> Vec<String> {
        let mut out: Vec<String> =
            self.inputs().iter().filter_map(|i| i.ty.shape.first()).flat_map(|d| d.symbols()).collect();
        out.sort();
        out.dedup();
        out
    }

    /// The same net with sizes for (some of) its symbols.
    pub fn specialise(&self, bindings: &Bindings) -> Result<Network> {
        Err(Error::Internal(format!("cannot set {bindings:?} yet")))
    }

    /// Compiles it; every size must be known.
    pub fn compile(&self) -> Result<Compiled> {
        Err(Error::Internal("cannot compile yet".into()))
    }

    /// A model with these weights. Sizes that are not set are taken from the inputs of each run;
    /// the code for the sizes met is kept.
    pub fn load(&self, _weights: &Weights) -> Result<Model> {
        Err(Error::Internal("cannot load yet".into()))
    }

    /// A model with fresh weights, the same for the same seed.
    pub fn initialize(&self, seed: u64) -> Result<Model> {
        self.load(&self.initial_weights(seed)?)
    }

    /// Fresh weights, the same for the same seed.
    pub fn initial_weights(&self, _seed: u64) -> Result<Weights> {
        Err(Error::Internal("cannot initialise yet".into()))
    }

    fn specs(&self, ids: Vec<nnc_compiler::graph::NodeId>) -> Vec<TensorSpec> {
        let spec = |n: nnc_compiler::graph::NodeId| TensorSpec {
            name: self.graph.node(n).name.clone(),
            ty: self.graph.node(n).ty.clone(),
        };
        ids.into_iter().map(spec).collect()
    }
}

/// A compiled network: a program without weights.
#[derive(Clone, Debug)]
pub struct Compiled {
    program: Program,
    options: Options,
}

impl Compiled {
    /// Opens a program file. It contains machine code: trust it as you would an executable.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Compiled> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        Compiled::from_bytes(&bytes, options).map_err(|e| Error::format(path, e))
    }

    /// A program from the bytes of its file.
    pub fn from_bytes(_bytes: &[u8], _options: &Options) -> Result<Compiled> {
        Err(Error::Program("cannot be read yet".into()))
    }

    /// True if the bytes begin as a program file does.
    pub fn is_program(bytes: &[u8]) -> bool {
        bytes.starts_with(b"nncprog1")
    }

    /// Writes the program.
    pub fn write(&self, _to: impl io::Write) -> Result<()> {
        Err(Error::Program("cannot be written yet".into()))
    }

    /// Writes a program file, beside and then renamed.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Err(Error::format(path, "cannot be written yet"))
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// A model with these weights.
    pub fn load(&self, _weights: &Weights) -> Result<Model> {
        Err(Error::Internal("cannot load yet".into()))
    }

    /// A model with fresh weights, the same for the same seed.
    pub fn initialize(&self, _seed: u64) -> Result<Model> {
        Err(Error::Internal("cannot load yet".into()))
    }
}

/// A network with weights, ready to run. `Send` and `Sync`.
#[derive(Clone, Debug)]
pub struct Model {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Model {
    /// Inputs in source order; sizes may be symbolic.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// Outputs in source order.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Runs it on inputs by name.
    pub fn run(&self, _inputs: &[(&str, TensorView<'_>)]) -> Result<Outputs> {
        Err(Error::Internal("cannot run yet".into()))
    }

    /// Runs it and tells how long every launch took (nothing on the reference device).
    pub fn run_profiled(&self, _inputs: &[(&str, TensorView<'_>)]) -> Result<(Outputs, Vec<LaunchTime>)> {
        Err(Error::Internal("cannot run yet".into()))
    }
}

/// Time of one launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchTime {
    /// The kernel: `conv2d_relu_max_pool.3`.
    pub kernel: String,
    /// The layers it computes.
    pub layer: String,
    /// Where they are written: `vgg.nn:9`.
    pub location: String,
    /// Floating-point operations.
    pub flops: u64,
    /// How long it took.
    pub time: Duration,
}

/// The results of a run, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    names: Arc<[String]>,
    tensors: Vec<Tensor>,
}

impl Outputs {
    /// The output of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.names.iter().position(|n| n == name).map(|i| &self.tensors[i])
    }

    /// Names and tensors in source order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.names.iter().map(String::as_str).zip(&self.tensors)
    }

    /// The tensors by name.
    pub fn into_map(self) -> BTreeMap<String, Tensor> {
        self.names.iter().cloned().zip(self.tensors).collect()
    }
}

/// The output of that name; panics if there is none, as a map does.
impl Index<&str> for Outputs {
    type Output = Tensor;

    fn index(&self, name: &str) -> &Tensor {
        self.get(name).unwrap_or_else(|| panic!("the net has no output `{name}`"))
    }
}
