//! From a source to answers: [`Network`] (graph), [`Compiled`] (program), [`Model`] (with weights).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Index;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nnc_compiler::graph::specialise::SpecialiseError;
use nnc_compiler::graph::{Bindings, Dim, Graph, Op, TensorType};
use nnc_compiler::lower::algorithm::Choices;
use nnc_compiler::pass::Report;
use nnc_dsl::{Diagnostic, SourceMap};
use nnc_runtime::program::{MAGIC, Parameter, Port, Program};
use nnc_runtime::session::check_parameters;
use nnc_runtime::{Pool, Session, init};

use crate::data::file;
use crate::device::{self, Backend, Job, LaunchTime, Loaded};
use crate::error::{Result, SourceError};
use crate::{Device, Error, Options, Source, Tensor, TensorView, Weights, pipeline};

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
    trainable: bool,
    options: Options,
}

impl Network {
    pub(crate) fn build(source: &Source, options: &Options) -> Result<Network> {
        let (built, sources) = pipeline::build(source, options)?;
        let spec = |(name, ty)| TensorSpec { name, ty };
        Ok(Network {
            graph: built.graph,
            sources,
            warnings: built.warnings,
            training_only: built.training_only.into_iter().map(spec).collect(),
            trainable: built.train.is_some(),
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

    /// The same net, compiled with these algorithms for its convolutions: [`Options::choices`].
    pub fn with_choices(&self, choices: Choices) -> Network {
        Network { options: self.options.clone().choices(choices), ..self.clone() }
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

    /// Layers that the options choose algorithms for and the net does not have.
    pub fn unknown_choices(&self) -> Vec<String> {
        let has = |name: &str| self.graph.ids().any(|n| self.graph.node(n).name == name);
        self.options.chosen_algorithms().keys().filter(|n| !has(n)).cloned().collect()
    }

    /// Whether it is the training variant of a net that has a `train` section.
    pub fn is_trainable(&self) -> bool {
        self.trainable
    }

    /// The symbols among its sizes that are not set.
    pub fn symbols(&self) -> Vec<String> {
        self.graph.symbols()
    }

    /// The symbols that stand first in an input's shape: the batch size.
    pub fn batch_symbols(&self) -> Vec<String> {
        let first = |i: &TensorSpec| i.ty.shape.first().map(Dim::symbols).unwrap_or_default();
        self.inputs().iter().flat_map(first).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The same net with sizes for (some of) its symbols.
    pub fn specialise(&self, bindings: &Bindings) -> Result<Network> {
        let graph = self.graph.specialise(bindings).map_err(|e| self.wrong_sizes(&e))?;
        Ok(Network { graph, ..self.clone() })
    }

    /// The graph after all passes, and what each pass has to say.
    pub fn optimized(&self) -> (Graph, Vec<Report>) {
        pipeline::optimize(&self.graph, &self.options.machine())
    }

    /// Compiles it for the CPU (or GPU) that the options choose; every size must be known.
    ///
    /// ```
    /// let source = nnc::Source::from_text("double.nn", "net double {\n input x: f32[N]\n output y = 2 * x\n}\n")?;
    /// let compiled = source.network(&nnc::Options::new().set("N", 3))?.compile()?;
    /// let model = compiled.initialize(0)?;
    /// let x = ndarray::arr1(&[1f32, 2.0, 3.0]);
    /// assert_eq!(model.run(&[("x", (&x).into())])?["y"], ndarray::arr1(&[2f32, 4.0, 6.0]).into());
    /// # Ok::<(), nnc::Error>(())
    /// ```
    pub fn compile(&self) -> Result<Compiled> {
        self.require_sizes()?;
        let (training_only, sources) = (self.training_only_names(), &self.sources);
        let program = match self.options.chosen_gpu() {
            Some(gpu) => {
                let how = self.options.lowering_for_gpu();
                device::cuda::compile(&self.graph, gpu, how, sources, &training_only)?
            }
            None => {
                let (target, how) = (self.options.chosen_target(), self.options.lowering());
                device::compile(&self.graph, &target, &how, sources, &training_only)?
            }
        };
        Ok(Compiled { program, options: self.options.clone() })
    }

    /// A model with these weights. Sizes that are not set are taken from the inputs of each run;
    /// the code for the sizes met is kept.
    ///
    /// A model has what its runs read, packed for them; parameters are read off `weights`
    /// ([`Weights::tensor`]), not off a model. Weights that are not in memory are read while they are packed, one
    /// at a time, and not kept.
    pub fn load(&self, weights: &Weights) -> Result<Model> {
        let ports = device::parameter_ports(&self.graph);
        if ports.len() == self.graph.parameters().len() {
            check_parameters(ports.iter(), &self.training_only_names(), weights)?;
        }
        Model::of_network(self, weights)
    }

    /// A model with fresh weights, the same for the same seed.
    pub fn initialize(&self, seed: u64) -> Result<Model> {
        self.load(&self.initial_weights(seed)?)
    }

    /// Fresh weights, the same for the same seed.
    pub fn initial_weights(&self, seed: u64) -> Result<Weights> {
        let mut parameters = vec![];
        for n in self.graph.parameters() {
            let node = self.graph.node(n);
            let Op::Parameter(p) = &node.op else { continue };
            let shape = node.ty.sizes().ok_or_else(|| {
                Error::Options(format!("the size of parameter `{}: {}` is not known", node.name, node.ty))
            })?;
            let port = Port { name: node.name.clone(), dtype: node.ty.dtype, shape };
            parameters.push(Parameter { port, init: p.init.clone(), trainable: p.trainable });
        }
        Ok(Weights::drawn(parameters, seed))
    }

    /// An error that names the sizes that are not set, if there are such.
    pub(crate) fn require_sizes(&self) -> Result<()> {
        let open = self.symbols();
        if open.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = open.iter().map(|s| format!("`{s}`")).collect();
        Err(Error::Options(format!("the size of {} is not set", names.join(", "))))
    }

    /// A size that an operation does not allow, shown where the operation is written.
    fn wrong_sizes(&self, e: &SpecialiseError) -> Error {
        let title = e.to_string();
        let diagnostic = match self.graph.node(e.node).spans.first() {
            Some(&span) => Diagnostic::error(title, span, ""),
            None => Diagnostic::global(title),
        };
        Error::Source(SourceError { sources: self.sources.clone(), diagnostics: vec![diagnostic] })
    }

    fn training_only_names(&self) -> Vec<String> {
        self.training_only.iter().map(|t| t.name.clone()).collect()
    }

    fn specs(&self, ids: Vec<nnc_compiler::graph::NodeId>) -> Vec<TensorSpec> {
        let spec = |n: nnc_compiler::graph::NodeId| TensorSpec {
            name: self.graph.node(n).name.clone(),
            ty: self.graph.node(n).ty.clone(),
        };
        ids.into_iter().map(spec).collect()
    }
}

/// Fresh values for parameters, the same for the same seed.
pub(crate) fn initial_parameters(parameters: &[Parameter], seed: u64) -> Result<BTreeMap<String, Tensor>> {
    let mut out = BTreeMap::new();
    for p in parameters {
        let tensor = init::initialize(p, seed).map_err(|e| Error::Weights(e.to_string()))?;
        out.insert(p.port.name.clone(), tensor);
    }
    Ok(out)
}

/// A compiled network: a program, without weights or [with them](Compiled::with_weights).
#[derive(Clone, Debug)]
pub struct Compiled {
    program: Program,
    options: Options,
}

impl Compiled {
    /// Opens a program file. It contains machine code: trust it as you would an executable.
    ///
    /// Weights in it are checked, and mapped into memory. While this or a model made of it lives, the file may
    /// be deleted, or replaced by another one of its name (as [`save`](Compiled::save) does it), but it must not
    /// be written into or cut off: as for a running executable, the system would end the process.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Compiled> {
        let path = path.as_ref();
        let failed = |e| Error::io("read", path, e);
        let file = std::fs::File::open(path).map_err(failed)?;
        let program = if file.metadata().map_err(failed)?.is_file() {
            Program::open(file, options.thread_count())
        } else {
            // A pipe can be read once, from its beginning to its end.
            Program::read(&std::fs::read(path).map_err(failed)?)
        };
        Ok(Compiled { program: program.map_err(|e| Error::format(path, e))?, options: options.clone() })
    }

    /// A program from the bytes of its file.
    pub fn from_bytes(bytes: &[u8], options: &Options) -> Result<Compiled> {
        let program = Program::read(bytes).map_err(|e| Error::Program(e.to_string()))?;
        Ok(Compiled { program, options: options.clone() })
    }

    /// True if the bytes begin as a program file does.
    pub fn is_program(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Writes the program.
    pub fn write(&self, to: impl io::Write) -> Result<()> {
        self.program.write(to).map_err(|e| Error::Program(format!("the program cannot be written: {e}")))
    }

    /// Writes a program file, beside and then renamed.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        file::write_with(path, |file| self.program.write(file))
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The program with these weights in it, packed as its runs read them: a file of it is loaded without
    /// preparing anything. It must be made for a CPU that this machine has, since its own code packs them.
    ///
    /// ```
    /// let source = nnc::Source::from_text("f.nn", "net f { input x: f32[2, 3]\n output y = x -> dense(4) }")?;
    /// let network = source.network(&nnc::Options::new())?;
    /// let deployed = network.compile()?.with_weights(&network.initial_weights(1)?)?;
    /// let x = ndarray::arr2(&[[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// let y = |model: nnc::Model| model.run(&[("x", (&x).into())]);
    /// assert_eq!(y(deployed.model()?)?, y(network.initialize(1)?)?);
    /// # Ok::<(), nnc::Error>(())
    /// ```
    pub fn with_weights(&self, weights: &Weights) -> Result<Compiled> {
        Ok(Compiled { program: self.session(weights)?.packed(), options: self.options.clone() })
    }

    /// Whether it has its weights.
    pub fn has_weights(&self) -> bool {
        self.program.weights.is_some()
    }

    /// A model of a program that has its weights, or needs none.
    pub fn model(&self) -> Result<Model> {
        self.load(&Weights::default())
    }

    /// A model with these weights, of a program that does not have its own.
    pub fn load(&self, weights: &Weights) -> Result<Model> {
        let loaded: Arc<dyn Loaded> = match self.options.chosen_device() {
            Device::Cuda => Arc::new(device::cuda::load_program(self.program.clone(), weights)?),
            _ => Arc::new(self.session(weights)?),
        };
        let specs = |ports: &[Port]| -> Vec<TensorSpec> {
            let spec = |p: &Port| TensorSpec { name: p.name.clone(), ty: TensorType::new(p.dtype, &p.shape) };
            ports.iter().map(spec).collect()
        };
        Ok(Model::new(specs(&self.program.inputs), specs(&self.program.outputs), Kind::Fixed(loaded)))
    }

    fn session(&self, weights: &Weights) -> Result<Session> {
        if self.has_weights() && !weights.names().is_empty() {
            return Err(Error::Weights("the program has its weights: it takes no others".into()));
        }
        if self.options.chosen_device() != Device::Cpu {
            let message = format!(
                "a compiled program runs where it is made for, not on {}",
                self.options.chosen_device()
            );
            return Err(Error::Options(message));
        }
        let pool = Arc::new(Pool::new(self.options.thread_count()));
        device::load_program(self.program.clone(), weights, pool)
    }

    /// A model with fresh weights, the same for the same seed; with its own if the program has them.
    pub fn initialize(&self, seed: u64) -> Result<Model> {
        self.load(&Weights::drawn(self.program.parameters.clone(), seed))
    }
}

/// A network with weights, ready to run. `Send` and `Sync`; clones share everything.
#[derive(Clone)]
pub struct Model {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    names: Arc<[String]>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// Every size is known.
    Fixed(Arc<dyn Loaded>),
    /// Sizes come with the inputs.
    Symbolic(Arc<Specialisations>),
}

/// A network with sizes left open, and what has been made of it for the sizes met so far.
struct Specialisations {
    network: Network,
    weights: Weights,
    backend: Arc<dyn Backend>,
    /// The last used at the end.
    made: Mutex<Vec<(Bindings, Arc<dyn Loaded>)>>,
}

/// A model keeps the code and prepared weights for this many combinations of sizes.
const KEPT_SPECIALISATIONS: usize = 8;

impl Specialisations {
    fn get(&self, bindings: Bindings) -> Result<Arc<dyn Loaded>> {
        let lock = || self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = reuse(&mut lock(), &bindings) {
            return Ok(loaded);
        }
        // Not under the lock: other sizes go on meanwhile.
        let loaded = self.network.specialise(&bindings)?.place(&self.weights, &*self.backend)?;
        let mut made = lock();
        if let Some(other) = reuse(&mut made, &bindings) {
            return Ok(other);
        }
        if made.len() == KEPT_SPECIALISATIONS {
            made.remove(0);
        }
        made.push((bindings, loaded.clone()));
        Ok(loaded)
    }
}

/// What was made for these sizes, moved to the end.
fn reuse(made: &mut Vec<(Bindings, Arc<dyn Loaded>)>, bindings: &Bindings) -> Option<Arc<dyn Loaded>> {
    let at = made.iter().position(|(b, _)| b == bindings)?;
    let entry = made.remove(at);
    let loaded = entry.1.clone();
    made.push(entry);
    Some(loaded)
}

impl Network {
    /// Puts it on a device with its weights; every size must be known.
    fn place(&self, weights: &Weights, backend: &dyn Backend) -> Result<Arc<dyn Loaded>> {
        self.require_sizes()?;
        let job = Job {
            graph: &self.graph,
            sources: &self.sources,
            training_only: &self.training_only_names(),
            weights,
        };
        Ok(backend.load(&job)?.into())
    }
}

impl Model {
    fn new(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>, kind: Kind) -> Model {
        let names = outputs.iter().map(|o| o.name.clone()).collect();
        Model { inputs, outputs, names, kind }
    }

    fn of_network(network: &Network, weights: &Weights) -> Result<Model> {
        let backend = device::backend(network.options())?;
        let kind = if network.symbols().is_empty() {
            Kind::Fixed(network.place(weights, &*backend)?)
        } else {
            Kind::Symbolic(Arc::new(Specialisations {
                network: network.clone(),
                weights: weights.clone(),
                backend,
                made: Mutex::default(),
            }))
        };
        Ok(Model::new(network.inputs(), network.outputs(), kind))
    }

    /// Inputs in source order; sizes may be symbolic.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// Outputs in source order.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Runs it on inputs by name. The same inputs give the same bits, whatever the number of threads.
    pub fn run(&self, inputs: &[(&str, TensorView<'_>)]) -> Result<Outputs> {
        let inputs = self.in_order(inputs)?;
        Ok(self.outputs_of(self.loaded(&inputs)?.run(&inputs)?))
    }

    /// Runs it and tells how long every launch took (nothing on the reference device).
    pub fn run_profiled(&self, inputs: &[(&str, TensorView<'_>)]) -> Result<(Outputs, Vec<LaunchTime>)> {
        let inputs = self.in_order(inputs)?;
        let (tensors, times) = self.loaded(&inputs)?.run_profiled(&inputs)?;
        Ok((self.outputs_of(tensors), times))
    }

    /// How long a run takes on a GPU, by its clock, with its inputs there; `None` on other devices. It runs
    /// twice for that.
    pub fn time_on_device(&self, inputs: &[(&str, TensorView<'_>)]) -> Result<Option<Duration>> {
        let inputs = self.in_order(inputs)?;
        self.loaded(&inputs)?.time_on_device(&inputs)
    }

    fn outputs_of(&self, tensors: Vec<Tensor>) -> Outputs {
        Outputs { names: self.names.clone(), tensors }
    }

    /// The inputs in source order.
    fn in_order<'a>(&self, given: &[(&str, TensorView<'a>)]) -> Result<Vec<TensorView<'a>>> {
        let known = |name: &str| self.inputs.iter().any(|i| i.name == name);
        for (k, (name, _)) in given.iter().enumerate() {
            if !known(name) {
                let names: Vec<String> = self.inputs.iter().map(|i| format!("`{}`", i.name)).collect();
                let names = names.join(", ");
                return Err(Error::Input(format!("the net has no input `{name}`; its inputs: {names}")));
            }
            if given[..k].iter().any(|(other, _)| other == name) {
                return Err(Error::Input(format!("input `{name}` is given twice")));
            }
        }
        let find = |spec: &TensorSpec| {
            let found = given.iter().find(|(name, _)| *name == spec.name);
            let missing = || Error::Input(format!("input `{}: {}` is missing", spec.name, spec.ty));
            found.map(|(_, view)| view.clone()).ok_or_else(missing)
        };
        self.inputs.iter().map(find).collect()
    }

    /// What runs inputs of these sizes.
    fn loaded(&self, inputs: &[TensorView<'_>]) -> Result<Arc<dyn Loaded>> {
        match &self.kind {
            Kind::Fixed(loaded) => {
                for (spec, view) in self.inputs.iter().zip(inputs) {
                    fits(spec, view, &Bindings::new())?;
                }
                Ok(loaded.clone())
            }
            Kind::Symbolic(s) => s.get(bind(&self.inputs, inputs)?),
        }
    }
}

/// The sizes that inputs give to symbols.
fn bind(specs: &[TensorSpec], inputs: &[TensorView<'_>]) -> Result<Bindings> {
    let mut bindings = Bindings::new();
    for (spec, view) in specs.iter().zip(inputs) {
        for (dim, &size) in spec.ty.shape.iter().zip(view.shape()) {
            if let [symbol] = &dim.symbols()[..]
                && *dim == Dim::symbol(symbol.clone())
            {
                bindings.entry(symbol.clone()).or_insert(size);
            }
        }
    }
    for (spec, view) in specs.iter().zip(inputs) {
        fits(spec, view, &bindings)?;
    }
    Ok(bindings)
}

/// Compares an input with its type.
fn fits(spec: &TensorSpec, view: &TensorView<'_>, bindings: &Bindings) -> Result<()> {
    let same = |(dim, &size): (&Dim, &usize)| match dim.size() {
        Some(n) => n == size,
        None => dim.substitute(bindings).size() == Some(size),
    };
    let shape = view.shape();
    let ok = view.dtype() == spec.ty.dtype
        && shape.len() == spec.ty.rank()
        && spec.ty.shape.iter().zip(shape).all(same);
    if ok {
        return Ok(());
    }
    let found = TensorType::new(view.dtype(), shape);
    let sizes: Vec<String> = bindings.iter().map(|(s, n)| format!("{s} = {n}")).collect();
    let sizes = if sizes.is_empty() { String::new() } else { format!(" (with {})", sizes.join(", ")) };
    Err(Error::Input(format!("input `{}`: expected {}{sizes}, found {found}", spec.name, spec.ty)))
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("inputs", &self.inputs).field("outputs", &self.outputs).finish()
    }
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
