//! Small nets, and the check of their kernels against the reference interpreter.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use nnc_compiler::emit::cpu::EmitOptions;
use nnc_compiler::emit::emit;
use nnc_compiler::graph::op::{Conv2d, Literal, Parameter, Window};
use nnc_compiler::graph::verify::assert_valid;
use nnc_compiler::graph::{self, Graph, GroupId, NodeId, Op, Output, TensorType, Update};
use nnc_compiler::kernel::interpret::run_module;
use nnc_compiler::kernel::verify::verify;
use nnc_compiler::kernel::{Module, interpret};
use nnc_compiler::lower::algorithm::{Convolutions, LowerOptions};
use nnc_compiler::lower::lower_with;
use nnc_compiler::pass;
use nnc_compiler::plan::{order, plan};
use nnc_compiler::target::CpuTarget;
use nnc_runtime::program::Initializer;
use nnc_runtime::{DType, Executable, Pool, Tensor, TensorView, Trainable};
use proptest::prelude::Strategy;

use crate::gpu;

/// A graph in the making and the values for it.
pub struct Net {
    pub graph: Graph,
    pub feeds: BTreeMap<String, Tensor>,
    state: u64,
}

impl Net {
    pub fn new(seed: u64) -> Net {
        Net { graph: Graph::new("net"), feeds: BTreeMap::new(), state: seed.wrapping_mul(2).wrapping_add(1) }
    }

    /// Numbers in -1..1, some of them zero.
    fn number(&mut self) -> f32 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let x = (self.state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        if self.state >> 33 & 15 == 0 { 0.0 } else { x }
    }

    pub fn values(&mut self, shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        let data: Vec<f32> = (0..n).map(|_| self.number()).collect();
        Tensor::F32(ArrayD::from_shape_vec(IxDyn(shape), data).unwrap())
    }

    pub fn input(&mut self, shape: &[usize]) -> NodeId {
        let name = format!("x{}", self.graph.inputs().len());
        let value = self.values(shape);
        self.feeds.insert(name.clone(), value);
        self.graph.add_typed(Op::Input, &[], TensorType::new(DType::F32, shape), &name, None)
    }

    /// An input of i32 in `0..limit`.
    pub fn integers(&mut self, shape: &[usize], limit: i32) -> NodeId {
        let name = format!("x{}", self.graph.inputs().len());
        let n: usize = shape.iter().product();
        let data: Vec<i32> = (0..n).map(|_| (self.number().abs() * limit as f32) as i32 % limit).collect();
        self.feeds.insert(name.clone(), Tensor::I32(ArrayD::from_shape_vec(IxDyn(shape), data).unwrap()));
        self.graph.add_typed(Op::Input, &[], TensorType::new(DType::I32, shape), &name, None)
    }

    pub fn parameter(&mut self, shape: &[usize]) -> NodeId {
        let name = format!("p{}", self.graph.parameters().len());
        let value = self.values(shape);
        self.feed_parameter(&name, shape, value)
    }

    /// A parameter without negative numbers (variances).
    pub fn positive(&mut self, shape: &[usize]) -> NodeId {
        let name = format!("p{}", self.graph.parameters().len());
        let value = match self.values(shape) {
            Tensor::F32(a) => Tensor::F32(a.mapv(|x| x.abs() + 0.5)),
            other => other,
        };
        self.feed_parameter(&name, shape, value)
    }

    /// A parameter of normally distributed numbers with that deviation (sums of twelve uniform ones).
    pub fn gaussian(&mut self, shape: &[usize], deviation: f64) -> NodeId {
        let name = format!("p{}", self.graph.parameters().len());
        let n: usize = shape.iter().product();
        let one = |net: &mut Net| (0..12).map(|_| net.number()).sum::<f32>() / 2.0 * deviation as f32;
        let data: Vec<f32> = (0..n).map(|_| one(self)).collect();
        self.feed_parameter(&name, shape, Tensor::F32(ArrayD::from_shape_vec(IxDyn(shape), data).unwrap()))
    }

    fn feed_parameter(&mut self, name: &str, shape: &[usize], value: Tensor) -> NodeId {
        self.feeds.insert(name.into(), value);
        let op = Op::Parameter(Parameter { init: Initializer::Constant(0.0), trainable: true });
        self.graph.add_typed(op, &[], TensorType::new(DType::F32, shape), name, None)
    }

    pub fn splat(&mut self, x: f64) -> NodeId {
        let ty = TensorType::new(DType::F32, &[]);
        self.graph.add_typed(Op::Constant(Literal::Splat(x)), &[], ty, "", None)
    }

    pub fn op(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        self.graph.add(op.clone(), operands, "", None).unwrap_or_else(|e| panic!("{op:?}: {e}"))
    }

    /// A convolution with weights and bias of its own.
    pub fn conv(&mut self, x: NodeId, out: usize, kernel: [usize; 2], attributes: Conv2d) -> NodeId {
        let channels = self.shape(x)[1];
        let w = self.parameter(&[out, channels / attributes.groups, kernel[0], kernel[1]]);
        let b = self.parameter(&[out]);
        self.op(Op::Conv2d(attributes), &[x, w, b])
    }

    pub fn shape(&self, id: NodeId) -> Vec<usize> {
        self.graph.node(id).ty.sizes().unwrap()
    }

    pub fn output(&mut self, node: NodeId) {
        let name = format!("y{}", self.graph.outputs.len());
        self.graph.outputs.push(Output { name, node });
    }
}

impl Net {
    /// Lets the parameter hold the value after a run.
    pub fn update(&mut self, parameter: NodeId, value: NodeId) {
        self.graph.updates.push(Update { parameter, value });
    }
}

/// Stride 1, "same" padding for 3x3.
pub fn same() -> Conv2d {
    Conv2d { stride: [1; 2], padding: [1; 4], dilation: [1; 2], groups: 1 }
}

pub fn window(kernel: usize, stride: usize) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], padding: [0; 4], dilation: [1; 2], ceil: false }
}

/// The target of golden texts: vectors of four lanes, blocks of eight channels.
pub fn target() -> CpuTarget {
    named("fma")
}

fn named(name: &str) -> CpuTarget {
    CpuTarget::named(name).unwrap()
}

/// The kernels for [`target`], each of them verified.
pub fn module(graph: &Graph) -> Module {
    module_with(graph, &LowerOptions::default())
}

/// The kernels for [`target`] with options, each of them verified.
pub fn module_with(graph: &Graph, options: &LowerOptions) -> Module {
    module_for(graph, &target(), options)
}

/// The kernels for a target, each of them verified.
fn module_for(graph: &Graph, target: &CpuTarget, options: &LowerOptions) -> Module {
    let module = lower_with(graph, target, options, None).unwrap_or_else(|e| panic!("{e}"));
    for kernel in &module.kernels {
        if let Err(errors) = verify(kernel) {
            panic!("{}\n{kernel}", errors.iter().map(|e| format!("{e}\n")).collect::<String>());
        }
    }
    module
}

/// Compares kernels and interpreter, with and without passes, machine code with kernels, for
/// vectors of every width, and PTX; the module of the optimised graph for [`target`].
pub fn check(net: &Net) -> Module {
    check_with(net, &LowerOptions::default())
}

/// Direct convolutions.
pub fn direct() -> LowerOptions {
    LowerOptions { convolutions: Convolutions::Direct }
}

/// Like [`check`], lowering with options.
pub fn check_with(net: &Net, options: &LowerOptions) -> Module {
    let expected = expected(net);
    gpu::check(net, &expected);
    let plain = module_with(&net.graph, options);
    compare(&plain, &net.feeds, &expected);
    compare_code(&plain, &net.feeds, &target());
    for wide in ["avx2", "avx512"] {
        optimised(net, &named(wide), options, &expected);
    }
    let module = optimised(net, &target(), options, &expected);
    compare_orders(&module, &net.feeds);
    module
}

/// As [`check_with`], for one target, after the passes.
pub fn check_for(net: &Net, target: &CpuTarget, options: &LowerOptions) -> Module {
    optimised(net, target, options, &expected(net))
}

/// Like [`check`], with the convolution before a depthwise one in the group of that and of the 1x1 convolution after
/// it, if those are in one group: as it is for large values. The module for [`target`], and whether that was so.
pub fn check_with_first(net: &Net) -> (Module, bool) {
    let (expected, options) = (expected(net), LowerOptions::default());
    for wide in ["avx2", "avx512"] {
        optimised_as(net, &named(wide), &options, &expected, &mut |graph| {
            join_first(graph);
        });
    }
    let mut joined = false;
    let module = optimised_as(net, &target(), &options, &expected, &mut |graph| joined = join_first(graph));
    (module, joined)
}

/// Puts the group before that with two convolutions into it, if there is one.
fn join_first(graph: &mut Graph) -> bool {
    let is_conv = |graph: &Graph, n: NodeId| matches!(graph.node(n).op, Op::Conv2d(_));
    let several = |g: &usize| graph.groups[*g].nodes.iter().filter(|&&n| is_conv(graph, n)).count() == 2;
    let Some(g) = (0..graph.groups.len()).find(several) else { return false };
    let depthwise = graph.groups[g].anchor.unwrap();
    let Some(first) = graph.node(graph.operands(depthwise)[0]).group.map(|g| g.0 as usize) else {
        return false;
    };
    let nodes = [graph.groups[first].nodes.clone(), graph.groups[g].nodes.clone()].concat();
    graph.groups[g].nodes = nodes;
    graph.groups.remove(first);
    for (g, group) in graph.groups.clone().iter().enumerate() {
        group.nodes.iter().for_each(|&n| graph.node_mut(n).group = Some(GroupId(g as u32)));
    }
    assert_valid(graph, "joining groups");
    true
}

/// The outputs and the updated parameters, in the reference interpreter.
fn expected(net: &Net) -> BTreeMap<String, Tensor> {
    let step = graph::interpret::step(&net.graph, &net.feeds, graph::interpret::Precision::AsWritten);
    let step = step.unwrap();
    let mut expected = step.outputs;
    expected.extend(step.parameters);
    expected
}

/// The module of the optimised graph for a target, compared.
fn optimised(
    net: &Net,
    target: &CpuTarget,
    options: &LowerOptions,
    expected: &BTreeMap<String, Tensor>,
) -> Module {
    optimised_as(net, target, options, expected, &mut |_| {})
}

/// As [`optimised`], changed after the passes.
fn optimised_as(
    net: &Net,
    target: &CpuTarget,
    options: &LowerOptions,
    expected: &BTreeMap<String, Tensor>,
    change: &mut dyn FnMut(&mut Graph),
) -> Module {
    let mut graph = net.graph.clone();
    pass::run_all(&mut graph, target, &mut |_, _| {});
    change(&mut graph);
    let module = module_for(&graph, target, options);
    compare(&module, &net.feeds, expected);
    compare_code(&module, &net.feeds, target);
    module
}

/// The bits do not depend on the order that the plan likes best.
fn compare_orders(module: &Module, feeds: &BTreeMap<String, Tensor>) {
    let mut ordered = module.clone();
    order::run(&mut ordered);
    assert!(plan(&ordered).live_bytes <= plan(module).live_bytes);
    let [expected, found] = [module, &ordered].map(|m| run_module(m, feeds, feeds).unwrap());
    for (name, want) in &expected {
        let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        assert!(numbers(want).iter().zip(&numbers(&found[name])).all(same), "{name}\n{}", text(&ordered));
    }
}

/// Machine code gives the bits of the kernel interpreter, on 1, 2 and 3 threads, however small the
/// launches. (Where the machine does not have the target's instructions, there is nothing to compare.)
fn compare_code(module: &Module, feeds: &BTreeMap<String, Tensor>, target: &CpuTarget) {
    let here = CpuTarget::detect();
    if target.architecture != here.architecture || !target.features.iter().all(|f| here.features.contains(f))
    {
        return;
    }
    let program = emit(module, &plan(module), target, &EmitOptions::default()).unwrap().program;
    let expected = run_module(module, feeds, feeds).unwrap();
    let parameters = module.parameters.iter().map(|p| &p.port.name);
    let parameters: BTreeMap<String, Tensor> = parameters.map(|n| (n.clone(), feeds[n].clone())).collect();
    let inputs: Vec<TensorView> = module.inputs.iter().map(|p| TensorView::from(&feeds[&p.name])).collect();
    let executable = Executable::load(program).unwrap();
    for threads in 1..=3 {
        let pool = Arc::new(Pool::new(threads).sharing_from(0));
        let mut session = Trainable::new(executable.clone(), parameters.clone(), pool).unwrap();
        let outputs = session.step(&inputs).unwrap();
        let names = module.outputs.iter().map(|p| p.name.as_str());
        let states = session.state_names().into_iter().map(|n| (n, session.state(n).unwrap()));
        for (name, found) in names.zip(outputs).chain(states) {
            let (want, found) = (numbers(&expected[name]), numbers(&found));
            let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            assert!(want.iter().zip(&found).all(same), "{name}, {threads} threads\n{}", text(module));
        }
    }
}

/// Panics where the module's outputs are not these.
pub fn compare(module: &Module, feeds: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>) {
    let found = run_module(module, feeds, feeds).unwrap_or_else(|e| panic!("{e}\n{}", text(module)));
    compare_values(module, &found, expected);
}

/// Panics where what a module gave is not what was expected.
pub fn compare_values(
    module: &Module,
    found: &BTreeMap<String, Tensor>,
    expected: &BTreeMap<String, Tensor>,
) {
    for (name, want) in expected {
        let got = &found[name];
        assert_eq!(want.shape(), got.shape());
        let (a, b) = (numbers(want), numbers(got));
        let scale = a.iter().fold(1.0f64, |m, x| if x.is_finite() { m.max(x.abs()) } else { m });
        for (i, (x, y)) in a.iter().zip(&b).enumerate() {
            let same = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 2e-5 * scale;
            assert!(same, "output {name}, element {i}: expected {x}, found {y}\n{}", text(module));
        }
    }
}

/// The kernels and launches as text.
pub fn text(module: &Module) -> String {
    let kernels: String = module.kernels.iter().map(|k| format!("{k}\n")).collect();
    let launch = |l: &nnc_compiler::kernel::module::Launch| {
        format!("{:?} {} {:?}\n", l.phase, module.kernels[l.kernel].name, l.args)
    };
    kernels + &module.launches.iter().map(launch).collect::<String>()
}

pub fn numbers(t: &Tensor) -> Vec<f64> {
    match t {
        Tensor::F32(a) => a.iter().map(|&x| x as f64).collect(),
        Tensor::F64(a) => a.iter().copied().collect(),
        _ => interpret::cells_of(t).iter().map(|&c| c as i32 as f64).collect(),
    }
}

/// A 1x1 convolution.
pub const POINT: Conv2d = Conv2d { stride: [1; 2], padding: [0; 4], dilation: [1; 2], groups: 1 };

/// Two numbers of a range.
pub fn pair(range: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = [usize; 2]> {
    [range.clone(), range]
}
