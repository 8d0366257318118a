//! The evaluator: walks the syntax, gives values, adds nodes to the graph.
//!
//! An expression is a value or [`Reported`](super::values::Reported): its error has been said
//! already, and whoever asked for it stays silent and goes on with the next statement. Work, depth
//! and size are limited, so that every program ends with a graph or a message.

mod expr;
mod fields;
mod operators;
mod stmt;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use nnc_dsl::{Diagnostic, SourceMap, Span};
use nnc_runtime::DType;

use super::builtins::{self, Builtin};
use super::modules::{FunctionDef, Modules};
use super::names::Names;
use super::scope::Frame;
use super::train::{Section, TrainSection};
use super::values::{Eval, Reported, Value};
use crate::graph::op::{Literal, check_type};
use crate::graph::{Graph, NodeId, Op, TensorType};

/// Expressions and statements that may be evaluated: ResNet-152 takes 9,000.
const MAX_STEPS: usize = 1_000_000;
/// Nodes that a graph may have: ResNet-152 has 1,500.
const MAX_NODES: usize = 20_000;
/// Expressions inside expressions, through calls.
const MAX_DEPTH: usize = 4_000;

/// A place where something is called or computed.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Its text.
    pub span: Span,
    /// The name that the author gave it with `as`, not yet joined with the scope's path.
    pub name: Option<(String, Span)>,
}

impl Site {
    /// A place without a name.
    pub fn at(span: Span) -> Site {
        Site { span, name: None }
    }
}

/// A parameter that was made.
pub(super) struct ParameterRecord {
    pub node: NodeId,
    pub span: Span,
}

/// The state of an evaluation.
pub(crate) struct Evaluator<'a> {
    pub map: &'a SourceMap,
    pub modules: &'a Modules,
    pub sets: &'a BTreeMap<String, String>,
    /// `training`.
    pub training: bool,
    pub graph: Graph,
    pub diagnostics: Vec<Diagnostic>,
    /// A limit was hit: nothing more is evaluated.
    pub stopped: bool,
    pub(super) builtins: HashMap<&'static str, Rc<Builtin>>,
    pub(super) frames: Vec<Frame>,
    pub(super) names: Names,
    pub(super) parameters: HashMap<String, ParameterRecord>,
    /// Symbolic sizes by name; a net that is called has its own.
    pub(super) symbols: Vec<BTreeMap<String, Value>>,
    /// The `train` section that is being evaluated.
    pub(super) train: Option<Section>,
    /// The one that has been.
    pub(super) trained: Option<TrainSection>,
    steps: usize,
    depth: usize,
}

impl<'a> Evaluator<'a> {
    pub fn new(
        map: &'a SourceMap,
        modules: &'a Modules,
        sets: &'a BTreeMap<String, String>,
        training: bool,
    ) -> Evaluator<'a> {
        Evaluator {
            map,
            modules,
            sets,
            training,
            graph: Graph::default(),
            diagnostics: vec![],
            stopped: false,
            builtins: builtins::table(),
            frames: vec![],
            names: Names::new(),
            parameters: HashMap::new(),
            symbols: vec![BTreeMap::new()],
            train: None,
            trained: None,
            steps: 0,
            depth: 0,
        }
    }

    /// Evaluates a net into the graph.
    pub fn run(&mut self, net: &Rc<FunctionDef>) {
        self.graph.name = net.ast.name.name.clone();
        self.run_root(net);
    }

    /// The call in progress.
    pub(crate) fn frame(&self) -> &Frame {
        self.frames.last().expect("evaluation happens inside the net's frame")
    }

    /// The same, to be changed.
    pub(super) fn frame_mut(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("evaluation happens inside the net's frame")
    }

    /// Whether the text being evaluated is the standard library's.
    pub(super) fn in_std(&self) -> bool {
        self.frame().function.std
    }

    /// Counts a step; stops a program that does not end.
    pub(super) fn tick(&mut self, span: Span) -> Eval<()> {
        if self.stopped {
            return Err(Reported);
        }
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(self.stop(
                format!("the program takes more than {MAX_STEPS} steps to unroll"),
                span,
                "still going on here",
            ));
        }
        Ok(())
    }

    /// Counts the work of something that takes as many steps as a list has elements.
    pub(crate) fn charge(&mut self, elements: usize, span: Span) -> Eval<()> {
        self.steps = self.steps.saturating_add(elements);
        self.tick(span)
    }

    /// Goes one level down in a syntax tree or a call.
    pub(super) fn deeper<T>(&mut self, span: Span, f: impl FnOnce(&mut Self) -> Eval<T>) -> Eval<T> {
        if self.depth >= MAX_DEPTH {
            return Err(self.stop("expressions are nested too deeply", span, "the innermost one"));
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// The name of the next node of a kind: the author's, or the layer's that it is part of, or
    /// the kind with a number.
    pub(super) fn node_name(&mut self, kind: &str, site: &Site) -> Eval<String> {
        match &site.name {
            Some((name, span)) => self.claim(name, *span),
            None if self.in_std() => Ok(self.names.path().to_string()),
            None => Ok(self.names.number(kind, site.span)),
        }
    }

    /// Takes a name in the current scope; its full path.
    pub(super) fn claim(&mut self, name: &str, span: Span) -> Eval<String> {
        let full = self.names.join(name);
        match self.names.claim(&full, span) {
            Ok(()) => Ok(full),
            Err(other) => Err(self.duplicate_name(&full, span, other)),
        }
    }

    /// Adds an operation.
    pub(super) fn add(&mut self, op: Op, operands: &[NodeId], kind: &str, site: &Site) -> Eval<NodeId> {
        let name = self.node_name(kind, site)?;
        self.add_named(op, operands, &name, site.span)
    }

    /// Adds an operation whose name is known.
    pub(super) fn add_named(&mut self, op: Op, operands: &[NodeId], name: &str, span: Span) -> Eval<NodeId> {
        self.check_count(span)?;
        let types: Vec<&TensorType> = operands.iter().map(|&n| &self.graph.node(n).ty).collect();
        match op.infer(&types) {
            Ok(ty) => Ok(self.graph.add_typed(op, operands, ty, name, Some(self.user_span(span)))),
            Err(e) => Err(self.shape_error(&op, operands, name, span, e)),
        }
    }

    /// Adds an input, a parameter, a constant: a node whose type is given.
    pub(super) fn add_source(&mut self, op: Op, ty: TensorType, name: &str, span: Span) -> Eval<NodeId> {
        self.check_count(span)?;
        if let Err(e) = check_type(&ty) {
            return Err(self.error(e.message, span, format!("`{ty}`")));
        }
        Ok(self.graph.add_typed(op, &[], ty, name, Some(self.user_span(span))))
    }

    /// A number as a tensor without dimensions.
    pub(super) fn scalar(&mut self, x: f64, dtype: DType, span: Span) -> Eval<NodeId> {
        let ty = TensorType { dtype, shape: vec![] };
        self.add_source(Op::Constant(Literal::Splat(x)), ty, "", span)
    }

    fn check_count(&mut self, span: Span) -> Eval<()> {
        if self.graph.len() >= MAX_NODES {
            let title = format!("the graph has more than {MAX_NODES} operations");
            return Err(self.stop(title, span, "the next one"));
        }
        Ok(())
    }
}
