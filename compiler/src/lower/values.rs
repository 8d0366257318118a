//! Memory of values: which node's value lies where, which are other names for the same memory,
//! and the copies at the borders.

use nnc_runtime::DType;
use nnc_runtime::program::Phase;

use super::access::{Place, physical};
use super::builder::{Operand, Scope};
use super::elements::Elements;
use super::elementwise::sizes;
use super::{LowerError, Lowering, label};
use crate::graph::op::Literal;
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::{Role, Value, ValueId};

/// When outputs are copied: those that are old values of updated parameters at the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Start,
    End,
}

impl Lowering<'_> {
    /// Finds, for every node, the node whose memory its value is in.
    pub(super) fn find_roots(&mut self) {
        for id in self.graph.topological() {
            let alias = !self.grouped.contains_key(&id) && self.renames(id);
            let root = if alias { self.roots[&self.graph.operands(id)[0]] } else { id };
            self.roots.insert(id, root);
        }
    }

    /// True for nodes whose value is their operand's memory under another shape.
    pub(super) fn is_alias(&self, id: NodeId) -> bool {
        self.roots[&id] != id
    }

    fn renames(&self, id: NodeId) -> bool {
        let node = self.graph.node(id);
        if node.placement.is_some() {
            return false;
        }
        let Some(&operand) = self.graph.operands(id).first() else { return false };
        let from = self.graph.node(operand);
        // A part of a concatenation has gaps.
        let whole = self.graph.node(self.roots[&operand]).placement.is_none();
        let dense = |shape: &[usize], layout| layout == Layout::Plain || one_pixel(shape, layout);
        match &node.op {
            Op::Reshape(_) => whole && dense(&sizes(from), from.layout) && node.layout == Layout::Plain,
            Op::Dropout(_) | Op::StopGradient => node.layout == from.layout,
            Op::Cast(to) => node.layout == from.layout && *to == from.ty.dtype,
            Op::Relayout if node.layout == from.layout => true,
            Op::Slice { axis: 1, step: 1, .. } => self.is_view(id),
            // Whatever the layouts, one of them is plain or both are one pixel.
            Op::Relayout => {
                let shape = sizes(node);
                whole && dense(&shape, from.layout) && dense(&shape, node.layout)
            }
            _ => false,
        }
    }

    /// True for some channels of a value whose channels lie last, on a GPU: kernels read them where they lie. Not where a
    /// value is to be whole: an output, or what is renamed further.
    fn is_view(&self, id: NodeId) -> bool {
        let graph = self.graph;
        let (node, operand) = (graph.node(id), graph.operands(id)[0]);
        let renames = |op: &Op| {
            matches!(op, Op::Reshape(_) | Op::Relayout | Op::Cast(_) | Op::Dropout(_) | Op::StopGradient)
        };
        self.gpu.is_some()
            && [node.layout, graph.node(operand).layout] == [Layout::ChannelsLast; 2]
            && !graph.node(self.roots[&operand]).op.is_source()
            && !graph.is_output(id)
            && !graph.users(id).iter().any(|&u| renames(&graph.node(u).op))
    }

    /// Places a source, or a node that only renames memory.
    pub(super) fn alias(&mut self, id: NodeId) -> Result<(), LowerError> {
        if self.graph.node(id).op.is_source() {
            return Ok(());
        }
        let operand = self.graph.operands(id)[0];
        let from = self.place(operand)?;
        let node = self.graph.node(id);
        let shape = sizes(node);
        let place = match &node.op {
            Op::Reshape(_) => from.reshaped(&shape),
            Op::Slice { axis, start, .. } => {
                start.known().and_then(|start| from.part(*axis, usize::try_from(start).ok()?, shape[*axis]))
            }
            Op::Relayout if node.layout != from.layout => {
                from.as_plain().map(|p| Place::dense_at(&p, node.layout))
            }
            _ => Some(from),
        };
        let invalid =
            || LowerError::Invalid { name: label(self.graph, id), what: "its operand has gaps".into() };
        let place = place.ok_or_else(invalid)?;
        self.places.insert(id, place);
        Ok(())
    }

    /// Where a node's value is; made on first use.
    pub(super) fn place(&mut self, id: NodeId) -> Result<Place, LowerError> {
        if !self.places.contains_key(&id) && self.is_alias(id) {
            self.alias(id)?;
        }
        if let Some(place) = self.places.get(&id) {
            return Ok(place.clone());
        }
        let node = self.graph.node(id);
        let shape = sizes(node);
        let layout = node.layout;
        if layout != Layout::Plain && (shape.len() != 4 || layout.block() == 0) {
            let what = "its layout needs four dimensions".to_string();
            return Err(LowerError::Invalid { name: label(self.graph, id), what });
        }
        let place = match node.placement {
            Some(placement) => {
                let into = self.place(placement.into)?;
                let Op::Concat(axis) = self.graph.node(placement.into).op else {
                    let what = "it is placed into a node that is no concatenation".to_string();
                    return Err(LowerError::Invalid { name: label(self.graph, id), what });
                };
                let part = into.part(axis, placement.offset, shape[axis]).filter(|p| p.layout == layout);
                part.ok_or_else(|| LowerError::Invalid {
                    name: label(self.graph, id),
                    what: "its place cuts through a block of channels".into(),
                })?
            }
            None if self.in_place.contains_key(&id) => {
                let old = self.place(self.in_place[&id])?;
                Place::dense(old.value, node.ty.dtype, &shape, layout)
            }
            None => {
                let role = self.role(id);
                let dtype = node.ty.dtype;
                let value = self.new_value(&node.name, dtype, &physical(&shape, layout), role);
                let tf32 = self.rounded.contains(&id) && !node.op.is_source();
                Place { tf32, ..Place::dense(value, dtype, &shape, layout) }
            }
        };
        self.places.insert(id, place.clone());
        Ok(place)
    }

    /// A new value.
    pub(super) fn new_value(&mut self, name: &str, dtype: DType, shape: &[usize], role: Role) -> ValueId {
        let elements = shape.iter().product();
        self.module.values.push(Value { name: name.into(), dtype, elements, shape: shape.to_vec(), role });
        ValueId(self.module.values.len() as u32 - 1)
    }

    fn role(&self, id: NodeId) -> Role {
        let position = |ids: Vec<NodeId>| ids.iter().position(|&n| n == id).unwrap_or_default();
        match &self.graph.node(id).op {
            Op::Input => Role::Input(position(self.graph.inputs())),
            Op::Parameter(_) if self.graph.is_updated(id) => Role::State(position(self.graph.parameters())),
            Op::Parameter(_) => Role::Parameter(position(self.graph.parameters())),
            Op::Constant(literal) => {
                let node = self.graph.node(id);
                Role::Constant(bytes(literal, node.ty.dtype, sizes(node).iter().product()))
            }
            _ => self.output_of.get(&id).map_or(Role::Temporary, |&i| Role::Output(i)),
        }
    }

    /// What a value is to a kernel that reads it.
    pub(super) fn operand(&mut self, id: NodeId) -> Result<Operand, LowerError> {
        let node = self.graph.node(id);
        match &node.op {
            Op::Constant(Literal::Splat(x)) => Ok(Operand::Splat(node.ty.dtype, rounded(*x, node.ty.dtype))),
            Op::Constant(Literal::Dense(values)) if values.len() == 1 => {
                Ok(Operand::Splat(node.ty.dtype, rounded(values[0], node.ty.dtype)))
            }
            _ => Ok(Operand::Memory(self.place(id)?)),
        }
    }

    /// Adds the copies to outputs that are not computed where they belong.
    pub(super) fn outputs(&mut self, when: Moment) -> Result<(), LowerError> {
        for i in 0..self.graph.outputs.len() {
            let id = self.graph.outputs[i].node;
            if self.is_state(id) != (when == Moment::Start) {
                continue;
            }
            let from = self.place(id)?;
            if self.module.values[from.value.0 as usize].role == Role::Output(i) {
                continue;
            }
            let node = self.graph.node(id);
            let shape = sizes(node);
            let name = self.graph.outputs[i].name.clone();
            let value = self.new_value(&name, node.ty.dtype, &shape, Role::Output(i));
            let to = Place::dense(value, node.ty.dtype, &shape, Layout::Plain);
            self.copy(id, &from, &to, Phase::Run);
        }
        Ok(())
    }

    /// A kernel that copies a tensor from place to place, whatever the layouts.
    pub(super) fn copy(&mut self, id: NodeId, from: &Place, to: &Place, phase: Phase) {
        let scope = Scope { graph: self.graph, members: Default::default(), operands: Default::default() };
        let name = if from.layout == to.layout { "copy" } else { "relayout" };
        if self.gpu.is_some() {
            if let Some((kernel, args)) = super::gpu::copy(&scope, name, from, to) {
                self.launch(kernel, args, &[id], phase);
            }
            return;
        }
        let same = from.layout == to.layout && from.is_dense();
        let elements = Elements { name, out: to, work: 1, flat: same, lanes: self.target.lanes };
        let kernel = elements.kernel(&scope, &|b, index| match b.flat.clone() {
            Some(at) => b.load_flat(from, "x", at),
            None => b.load(from, "x", index),
        });
        if let Some((kernel, args)) = kernel {
            self.launch(kernel, args, &[id], phase);
        }
    }
}

impl Place {
    /// The same memory as another place, seen as dense in a layout.
    fn dense_at(plain: &Place, layout: Layout) -> Place {
        let dense = Place::dense(plain.value, plain.dtype, &plain.shape, layout);
        Place { offset: plain.offset, tf32: plain.tf32, ..dense }
    }
}

/// True if another layout of that shape is the plain one: one pixel (of full blocks), or one channel last.
pub(super) fn one_pixel(shape: &[usize], layout: Layout) -> bool {
    let &[_, channels, 1, 1] = shape else {
        return layout == Layout::ChannelsLast && shape.get(1) == Some(&1);
    };
    match layout {
        Layout::Plain => false,
        Layout::Blocked(b) => channels.is_multiple_of(b as usize),
        Layout::ChannelsLast => true,
    }
}

fn rounded(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => x as f32 as f64,
        _ => x,
    }
}

/// The little-endian bytes of a constant.
fn bytes(literal: &Literal, dtype: DType, elements: usize) -> Vec<u8> {
    let one = |x: f64| match dtype {
        DType::F32 => (x as f32).to_le_bytes().to_vec(),
        DType::F64 => x.to_le_bytes().to_vec(),
        DType::I32 => (x as i32).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(x != 0.0)],
    };
    match literal {
        Literal::Splat(x) => one(*x).repeat(elements),
        Literal::Dense(values) => values.iter().flat_map(|&x| one(x)).collect(),
    }
}
