//! The reference interpreter: evaluates a graph node by node with each operation's reference
//! semantics. Slow and obviously right: everything else is measured against it.
//!
//! Layouts, groups and placements do not change what a graph means and are ignored. Symbols take
//! the sizes of the inputs given. Random numbers must be fed, under the node's name.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use nnc_runtime::{DType, Tensor, with_array};

use super::op::{Op, OpError};
use super::specialise::SpecialiseError;
use super::{Bindings, Graph, NodeId, TensorType};

/// In which type floats are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// As the graph says.
    #[default]
    AsWritten,
    /// In f64, whatever the graph says: feeds are widened, results are of f64.
    Double,
}

/// Why a graph cannot be evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InterpretError {
    /// A value that must come from outside is not there.
    #[error("no value is given for {op} `{name}`: {ty}")]
    Missing {
        /// `input`, `parameter`, `random`.
        op: &'static str,
        /// Its name.
        name: String,
        /// Its type.
        ty: TensorType,
    },
    /// A value of another type or shape is given.
    #[error("{op} `{name}` is {expected}, got {found}")]
    Mismatch {
        /// `input`, `parameter`, `random`.
        op: &'static str,
        /// Its name.
        name: String,
        /// Its type.
        expected: TensorType,
        /// What came.
        found: TensorType,
    },
    /// A symbol takes two sizes, or none.
    #[error("{0}")]
    Symbol(String),
    /// An operation does not allow these sizes.
    #[error(transparent)]
    Sizes(#[from] SpecialiseError),
    /// A value does not fit into memory.
    #[error("no memory for the value of {op} `{name}`: {ty}")]
    Memory {
        /// The operation.
        op: &'static str,
        /// The node's name.
        name: String,
        /// Its type.
        ty: TensorType,
    },
    /// An operation cannot be evaluated.
    #[error("{op} `{name}`: {error}")]
    Eval {
        /// The operation.
        op: &'static str,
        /// The node's name.
        name: String,
        /// Why.
        error: OpError,
    },
}

/// The values of the outputs, by name, for values of inputs, parameters and random numbers, by
/// name. Values under other names are ignored.
pub fn run(
    graph: &Graph,
    feeds: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, InterpretError> {
    trace(graph, feeds, Precision::AsWritten, &mut |_, _| {})
}

/// Like [`run`], in that precision; `observe` sees every node's value as it is computed.
pub fn trace(
    graph: &Graph,
    feeds: &BTreeMap<String, Tensor>,
    precision: Precision,
    observe: &mut dyn FnMut(NodeId, &Tensor),
) -> Result<BTreeMap<String, Tensor>, InterpretError> {
    evaluate_all(graph, feeds, precision, observe).map(|s| s.outputs)
}

/// What a run of a graph with updates gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The values of the outputs, by name.
    pub outputs: BTreeMap<String, Tensor>,
    /// What the updated parameters hold afterwards, by name.
    pub parameters: BTreeMap<String, Tensor>,
}

/// Like [`run`], in that precision, with the parameters' next values.
pub fn step(
    graph: &Graph,
    feeds: &BTreeMap<String, Tensor>,
    precision: Precision,
) -> Result<Step, InterpretError> {
    evaluate_all(graph, feeds, precision, &mut |_, _| {})
}

fn evaluate_all(
    graph: &Graph,
    feeds: &BTreeMap<String, Tensor>,
    precision: Precision,
    observe: &mut dyn FnMut(NodeId, &Tensor),
) -> Result<Step, InterpretError> {
    let bindings = bind(graph, feeds)?;
    let specialised;
    let graph = if bindings.is_empty() {
        graph
    } else {
        specialised = graph.specialise(&bindings)?;
        &specialised
    };
    let mut uses: HashMap<NodeId, usize> = HashMap::new();
    for id in graph.ids().flat_map(|id| graph.operands(id)).chain(graph.results()) {
        *uses.entry(id).or_default() += 1;
    }
    let mut values: HashMap<NodeId, Cow<Tensor>> = HashMap::new();
    for id in graph.topological() {
        let operands = graph.operands(id);
        let value = evaluate(graph, id, &operands, &values, feeds, precision)?;
        observe(id, &value);
        if uses.contains_key(&id) {
            values.insert(id, value);
        }
        for o in operands {
            if let Some(left) = uses.get_mut(&o) {
                *left -= 1;
                if *left == 0 {
                    values.remove(&o);
                }
            }
        }
    }
    let named = |name: &str, id: NodeId| Some((name.to_string(), values.get(&id)?.clone().into_owned()));
    Ok(Step {
        outputs: graph.outputs.iter().filter_map(|o| named(&o.name, o.node)).collect(),
        parameters: graph
            .updates
            .iter()
            .filter_map(|u| named(&graph.node(u.parameter).name, u.value))
            .collect(),
    })
}

fn evaluate<'a>(
    graph: &Graph,
    id: NodeId,
    operands: &[NodeId],
    values: &HashMap<NodeId, Cow<'a, Tensor>>,
    feeds: &'a BTreeMap<String, Tensor>,
    precision: Precision,
) -> Result<Cow<'a, Tensor>, InterpretError> {
    let node = graph.node(id);
    let mut ty = node.ty.clone();
    if precision == Precision::Double && ty.dtype.is_float() {
        ty.dtype = DType::F64;
    }
    if matches!(node.op, Op::Input | Op::Parameter(_) | Op::Random(_)) {
        return fed(node.op.name(), &node.name, ty, feeds);
    }
    if !fits_into_memory(&ty) {
        return Err(InterpretError::Memory { op: node.op.name(), name: node.name.clone(), ty });
    }
    let operands: Vec<&Tensor> = operands.iter().filter_map(|o| values.get(o).map(Cow::as_ref)).collect();
    let value = node.op.eval(&operands, &ty).map_err(|error| InterpretError::Eval {
        op: node.op.name(),
        name: node.name.clone(),
        error,
    })?;
    Ok(Cow::Owned(value))
}

/// Whether the system has room for such a value: a failed allocation later would end the process.
fn fits_into_memory(ty: &TensorType) -> bool {
    let bytes = ty.sizes().unwrap_or_default().iter().try_fold(ty.dtype.size(), |n, &d| n.checked_mul(d));
    bytes.is_some_and(|n| Vec::<u8>::new().try_reserve_exact(n).is_ok())
}

/// The value given for a name, row-major, as that type.
fn fed<'a>(
    op: &'static str,
    name: &str,
    ty: TensorType,
    feeds: &'a BTreeMap<String, Tensor>,
) -> Result<Cow<'a, Tensor>, InterpretError> {
    let Some(tensor) = feeds.get(name) else {
        return Err(InterpretError::Missing { op, name: name.to_string(), ty });
    };
    let found = TensorType::new(tensor.dtype(), tensor.shape());
    let widened = ty.dtype == DType::F64 && found.dtype == DType::F32;
    if found.shape != ty.shape || (found.dtype != ty.dtype && !widened) {
        return Err(InterpretError::Mismatch { op, name: name.to_string(), expected: ty, found });
    }
    Ok(match tensor {
        Tensor::F32(a) if widened => Cow::Owned(Tensor::F64(a.as_standard_layout().mapv(f64::from))),
        t if with_array!(t, a => a.is_standard_layout()) => Cow::Borrowed(t),
        Tensor::F32(a) => Cow::Owned(Tensor::F32(a.as_standard_layout().into_owned())),
        Tensor::F64(a) => Cow::Owned(Tensor::F64(a.as_standard_layout().into_owned())),
        Tensor::I32(a) => Cow::Owned(Tensor::I32(a.as_standard_layout().into_owned())),
        Tensor::Bool(a) => Cow::Owned(Tensor::Bool(a.as_standard_layout().into_owned())),
    })
}

/// The sizes of the symbols, from the inputs given.
fn bind(graph: &Graph, feeds: &BTreeMap<String, Tensor>) -> Result<Bindings, InterpretError> {
    let mut bindings = Bindings::new();
    for id in graph.inputs() {
        let node = graph.node(id);
        let Some(tensor) = feeds.get(&node.name) else { continue };
        if tensor.shape().len() != node.ty.rank() {
            return Err(InterpretError::Mismatch {
                op: node.op.name(),
                name: node.name.clone(),
                expected: node.ty.clone(),
                found: TensorType::new(tensor.dtype(), tensor.shape()),
            });
        }
        for (dim, &size) in node.ty.shape.iter().zip(tensor.shape()) {
            let [symbol] = &dim.symbols()[..] else { continue };
            if *dim != super::Dim::symbol(symbol.clone()) {
                continue;
            }
            let bound = *bindings.entry(symbol.clone()).or_insert(size);
            if bound != size {
                return Err(InterpretError::Symbol(format!(
                    "`{symbol}` is {bound} in one input and {size} in input `{}`",
                    node.name
                )));
            }
        }
    }
    match graph.symbols().into_iter().find(|s| !bindings.contains_key(s)) {
        None => Ok(bindings),
        Some(free) => {
            let fed = |id: &NodeId| feeds.contains_key(&graph.node(*id).name);
            match graph.inputs().into_iter().find(|id| !fed(id)) {
                Some(id) => {
                    let node = graph.node(id);
                    let (op, name, ty) = (node.op.name(), node.name.clone(), node.ty.clone());
                    Err(InterpretError::Missing { op, name, ty })
                }
                None => {
                    Err(InterpretError::Symbol(format!("the inputs given do not tell the size of `{free}`")))
                }
            }
        }
    }
}
