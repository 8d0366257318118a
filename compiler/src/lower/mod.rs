//! From a graph to kernels: every group of nodes becomes a kernel, every result a place in memory.
//!
//! In: a graph without symbols, optimised or not (a node without a group is a group of one). Out:
//! a [`Module`]: values, kernels (equal ones once) and launches in order, those that depend on
//! parameters and constants alone in the prepare phase; parameters that a run changes are state,
//! which it reads and writes. Promises: every kernel passes the
//! verifier; each element is computed by one task in a fixed order; results of graphs land in the
//! caller's row-major memory.

mod access;
pub mod algorithm;
mod builder;
mod conv;
mod conv_ahead;
mod conv_border;
mod conv_depthwise;
mod conv_generic;
mod conv_pack;
mod conv_pool;
mod conv_split;
mod conv_stage;
mod conv_taps;
mod conv_tile;
mod elements;
mod elementwise;
mod generic;
pub mod gpu;
mod group;
mod linear;
mod local_norm;
mod matmul;
mod pool;
mod pool_blocked;
mod pool_grad;
mod pool_scatter;
mod random;
mod reduction;
pub mod roofline;
mod separable;
mod softmax;
mod update;
mod values;
mod weight_grad;
mod weight_grad_stage;
mod weight_grad_store;
mod weight_grad_tile;
mod windows;
pub mod winograd;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use nnc_dsl::SourceMap;
use nnc_runtime::DType;
use nnc_runtime::program::{Parameter, Phase, Port};

use self::access::Place;
use self::algorithm::{Choice, LowerOptions, algorithm_of};
use self::conv_pack::Numbers;
use self::gpu::GpuOptions;
use self::values::Moment;
use crate::graph::{Graph, Layout, NodeId, Op};
use crate::kernel::module::{Arg, Launch, Module};
use crate::kernel::{Buffer, Kernel, VarDecl};
use crate::pass::is_settled;
use crate::target::{CpuTarget, GpuTarget};

/// Why a graph cannot be lowered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// A dimension is not known.
    #[error("`{name}` has the shape [{shape}], sizes must be known before code is made")]
    Symbolic {
        /// The layer.
        name: String,
        /// Its shape.
        shape: String,
    },
    /// Compiled code has f32, i32 and bool.
    #[error("`{name}` is of type {dtype}, compiled code computes in f32, i32 and bool")]
    Type {
        /// The layer.
        name: String,
        /// Its type.
        dtype: DType,
    },
    /// The operation has no kernels on this target.
    #[error("`{name}`: {what} cannot be compiled for the CPU")]
    Unsupported {
        /// The layer.
        name: String,
        /// The operation, and what about it.
        what: String,
    },
    /// The graph contradicts itself: a pass has made a mistake.
    #[error("`{name}`: {what}")]
    Invalid {
        /// The layer.
        name: String,
        /// What is wrong.
        what: String,
    },
}

/// Lowers a graph. `sources` turns spans into `file:line` for profiles.
///
/// # Errors
/// Symbols left in shapes, f64, random numbers, contradictory layouts or placements.
pub fn lower(graph: &Graph, target: &CpuTarget, sources: Option<&SourceMap>) -> Result<Module, LowerError> {
    lower_with(graph, target, &LowerOptions::default(), sources)
}

/// Lowers a graph, with options.
///
/// # Errors
/// As [`lower`].
pub fn lower_with(
    graph: &Graph,
    target: &CpuTarget,
    options: &LowerOptions,
    sources: Option<&SourceMap>,
) -> Result<Module, LowerError> {
    let lowering = Lowering::new(graph, target, options, sources)?;
    lowering.module()
}

/// Lowers a graph for a GPU: tasks are threads, or blocks of them. The graph was optimised for
/// [`GpuTarget::thread`].
///
/// # Errors
/// As [`lower`].
pub fn lower_for_gpu(
    graph: &Graph,
    target: GpuTarget,
    sources: Option<&SourceMap>,
) -> Result<Module, LowerError> {
    lower_for_gpu_with(graph, target, GpuOptions::default(), sources)
}

/// Lowers a graph for a GPU, with options.
///
/// # Errors
/// As [`lower`].
pub fn lower_for_gpu_with(
    graph: &Graph,
    target: GpuTarget,
    gpu: GpuOptions,
    sources: Option<&SourceMap>,
) -> Result<Module, LowerError> {
    let (thread, options) = (target.thread(), LowerOptions::default());
    let mut lowering = Lowering::new(graph, &thread, &options, sources)?;
    lowering.gpu = Some(target);
    lowering.gpu_options = gpu;
    lowering.module()
}

/// A graph on its way to a module.
struct Lowering<'a> {
    graph: &'a Graph,
    /// What runs a task: a CPU's core, or a GPU's thread.
    target: &'a CpuTarget,
    /// The GPU, if it is one's thread.
    gpu: Option<GpuTarget>,
    gpu_options: GpuOptions,
    options: &'a LowerOptions,
    sources: Option<&'a SourceMap>,
    module: Module,
    /// Where values are, as far as they have been needed.
    places: HashMap<NodeId, Place>,
    /// Nodes that depend on parameters and constants alone.
    prepared: HashSet<NodeId>,
    /// The members of the group of every node that is not alone.
    grouped: HashMap<NodeId, Rc<[NodeId]>>,
    /// The node whose memory a node's value is in.
    roots: HashMap<NodeId, NodeId>,
    /// Nodes whose values are the outputs' memory, by output.
    output_of: HashMap<NodeId, usize>,
    /// Nodes whose values are written over a parameter's old one, and that parameter.
    in_place: HashMap<NodeId, NodeId>,
    /// Kernels by what can be hashed of them.
    kernels: HashMap<KernelKey, Vec<usize>>,
    /// Nodes whose values are rounded to TF32 where they are stored ([`gpu`]).
    rounded: HashSet<NodeId>,
    /// Repacked values, by what they are made of, how, their shape, and to what numbers.
    packed: HashMap<(NodeId, String, Vec<usize>, Numbers), Rc<Place>>,
    run: Vec<Launch>,
}

#[derive(PartialEq, Eq, Hash)]
struct KernelKey(String, Vec<VarDecl>, Vec<Buffer>);

impl<'a> Lowering<'a> {
    fn new(
        graph: &'a Graph,
        target: &'a CpuTarget,
        options: &'a LowerOptions,
        sources: Option<&'a SourceMap>,
    ) -> Result<Lowering<'a>, LowerError> {
        let mut prepared = HashSet::new();
        for id in graph.topological() {
            let node = graph.node(id);
            let name = label(graph, id);
            if node.ty.sizes().is_none() {
                let shape: Vec<String> = node.ty.shape.iter().map(|d| d.to_string()).collect();
                return Err(LowerError::Symbolic { name, shape: shape.join(", ") });
            }
            if node.ty.dtype == DType::F64 {
                return Err(LowerError::Type { name, dtype: node.ty.dtype });
            }
            let ready = match &node.op {
                Op::Parameter(_) | Op::Constant(_) | Op::Input => is_settled(graph, id),
                Op::Random(_) => {
                    return Err(LowerError::Unsupported { name, what: "drawing random numbers".into() });
                }
                Op::BatchNorm(b) if b.training => {
                    let what = "batch normalisation with the batch's own statistics".into();
                    return Err(LowerError::Unsupported { name, what });
                }
                _ => graph.operands(id).iter().all(|o| prepared.contains(o)),
            };
            if ready {
                prepared.insert(id);
            }
        }
        let module = Module { name: graph.name.clone(), ..Module::default() };
        Ok(Lowering {
            graph,
            target,
            gpu: None,
            gpu_options: GpuOptions::default(),
            options,
            sources,
            module,
            places: HashMap::new(),
            prepared,
            grouped: HashMap::new(),
            roots: HashMap::new(),
            output_of: HashMap::new(),
            in_place: HashMap::new(),
            kernels: HashMap::new(),
            rounded: HashSet::new(),
            packed: HashMap::new(),
            run: vec![],
        })
    }

    /// Lowers everything.
    fn module(mut self) -> Result<Module, LowerError> {
        self.find_groups();
        self.find_roots();
        self.declare();
        self.find_rounded();
        let units = self.units();
        self.outputs(Moment::Start)?;
        let saved = self.save_old_values()?;
        for unit in units.ordered() {
            match units.nodes[unit][..] {
                [id] if self.is_alias(id) => self.alias(id)?,
                ref nodes if self.gpu.is_some() => self.gpu_group(nodes)?,
                ref nodes => self.group(nodes)?,
            }
        }
        self.outputs(Moment::End)?;
        self.updates(&saved)?;
        Ok(self.finish())
    }

    /// Declares what is named: inputs, parameters, outputs.
    fn declare(&mut self) {
        let port = |id: NodeId, name: &str| {
            let ty = &self.graph.node(id).ty;
            Port { name: name.to_string(), dtype: ty.dtype, shape: ty.sizes().unwrap_or_default() }
        };
        for id in self.graph.inputs() {
            self.module.inputs.push(port(id, &self.graph.node(id).name));
        }
        for id in self.graph.parameters() {
            if let Op::Parameter(p) = &self.graph.node(id).op {
                let port = port(id, &self.graph.node(id).name);
                let (init, trainable) = (p.init.clone(), p.trainable);
                self.module.parameters.push(Parameter { port, init, trainable });
            }
        }
        for o in &self.graph.outputs {
            self.module.outputs.push(port(o.node, &o.name));
        }
        for i in 0..self.graph.outputs.len() {
            let root = self.roots[&self.graph.outputs[i].node];
            let node = self.graph.node(root);
            let own = !node.op.is_source()
                && node.layout == Layout::Plain
                && node.placement.is_none()
                && !self.prepared.contains(&root);
            if own {
                self.output_of.entry(root).or_insert(i);
            }
        }
    }

    /// Finds the groups of the graph that can be lowered as groups; all other nodes are alone.
    fn find_groups(&mut self) {
        for group in &self.graph.groups {
            let Some(&last) = group.nodes.last() else { continue };
            // What can be prepared is; the run-time rest is the group.
            let phase = self.prepared.contains(&last);
            let nodes: Vec<NodeId> =
                group.nodes.iter().copied().filter(|n| self.prepared.contains(n) == phase).collect();
            if nodes.len() > 1 && !nodes.iter().any(|&n| self.graph.node(n).op.is_source()) {
                let nodes: Rc<[NodeId]> = nodes.into();
                self.grouped.extend(nodes.iter().map(|&n| (n, nodes.clone())));
            }
        }
    }

    /// Adds a launch of a kernel, which is kept once if an equal one is there.
    fn launch(&mut self, mut kernel: Kernel, args: Vec<Arg>, nodes: &[NodeId], phase: Phase) {
        if kernel.task_count() == 0 || kernel.body.is_empty() {
            return;
        }
        for &n in nodes {
            for s in &self.graph.node(n).spans {
                if !kernel.spans.contains(s) {
                    kernel.spans.push(*s);
                }
            }
        }
        let key = KernelKey(kernel.name.clone(), kernel.vars.clone(), kernel.buffers.clone());
        let candidates = self.kernels.entry(key).or_default();
        let same = |k: &Kernel| {
            let shape = k.tasks == kernel.tasks && k.threads == kernel.threads;
            shape && k.flops == kernel.flops && k.body == kernel.body
        };
        let found = candidates.iter().copied().find(|&i| same(&self.module.kernels[i]));
        let index = match found {
            Some(i) => {
                for s in kernel.spans {
                    if !self.module.kernels[i].spans.contains(&s) {
                        self.module.kernels[i].spans.push(s);
                    }
                }
                i
            }
            None => {
                candidates.push(self.module.kernels.len());
                self.module.kernels.push(kernel);
                self.module.kernels.len() - 1
            }
        };
        let location = self.location(nodes);
        let launch = Launch { kernel: index, args, phase, layer: self.layer(nodes), location };
        match phase {
            Phase::Prepare => self.module.launches.push(launch),
            Phase::Run => self.run.push(launch),
        }
    }

    /// The names of the layers of some nodes, each once.
    fn layer(&self, nodes: &[NodeId]) -> String {
        let mut names: Vec<&str> = vec![];
        for &n in nodes {
            let name = self.graph.node(n).name.as_str();
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(" + ")
    }

    fn location(&self, nodes: &[NodeId]) -> String {
        let span = nodes.iter().find_map(|&n| self.graph.node(n).spans.first());
        match (span, self.sources) {
            (Some(&span), Some(sources)) => sources.location(span),
            _ => String::new(),
        }
    }

    /// The algorithm of a group with a convolution, where there is a choice.
    fn algorithm(&self, nodes: &[NodeId]) -> Option<Choice> {
        algorithm_of(self.graph, nodes, &self.prepared, self.target, self.options)
    }

    fn phase(&self, id: NodeId) -> Phase {
        if self.prepared.contains(&id) { Phase::Prepare } else { Phase::Run }
    }

    fn finish(mut self) -> Module {
        self.module.launches.append(&mut self.run);
        self.module
    }
}

/// What a node is called in messages.
fn label(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    match node.name.is_empty() {
        true => node.op.name().to_string(),
        false => node.name.clone(),
    }
}
