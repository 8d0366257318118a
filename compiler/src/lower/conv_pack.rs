//! Weights in the order in which kernels read them, made once in the prepare phase, and the entry
//! to the fast convolution.

use std::rc::Rc;

use super::access::Place;
use super::algorithm::{Algorithm, Choice};
use super::builder::{Builder, Operand, Scope};
use super::conv::{ConvGroup, Form, Problem, rows_of_width};
use super::conv_split::Made;
use super::conv_taps::Slide;
use super::elements::Elements;
use super::elementwise::{is_elementwise, sizes};
use super::{LowerError, Lowering, winograd};
use crate::graph::op::{AvgPool2d, MaxPool2d, Window};
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::{Arg, Role};
use crate::kernel::{Expr, Index, Kernel};
use nnc_runtime::DType;

impl<'a> Lowering<'a> {
    /// The group as a dense convolution in blocks of channels, with its pooling if it has one;
    /// `None` if it is no such group.
    pub(super) fn dense_conv(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        nodes: &[NodeId],
        out: &Place,
    ) -> Result<Option<(Kernel, Vec<Arg>)>, LowerError> {
        let Some(found) = self.dense_conv_parts(scope, nodes) else { return Ok(None) };
        let ConvParts { anchor, slide, form, pool, x } = found;
        let block = self.target.block();
        if !matches!(out.layout, Layout::Plain) && out.layout != Layout::Blocked(block as u8) {
            return Ok(None);
        }
        if let Some(Choice { algorithm: Algorithm::Winograd(transform), pool_apart: false }) =
            self.algorithm(nodes)
        {
            let result = nodes[nodes.len() - 1];
            let group = winograd::Group { anchor, pool, result, x: x.clone(), out: out.clone() };
            let found = self.winograd(scope, name, nodes, (group, &slide), transform)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        let parts = ConvParts { anchor, slide, form, pool, x };
        let (group, scope) = self.conv_group(scope, name, parts, nodes[nodes.len() - 1], (out, Cut::Own))?;
        Ok(group.kernel(&scope))
    }

    /// A convolution cut into tasks, tiles and steps, with its weights as those read them, and the scope that it
    /// reads the rest of its operands from.
    pub(super) fn conv_group<'g>(
        &mut self,
        scope: &Scope<'a>,
        name: &'g str,
        ConvParts { anchor, slide, form, pool, mut x }: ConvParts<'a>,
        result: NodeId,
        (out, cut): (&Place, Cut),
    ) -> Result<(ConvGroup<'g>, Scope<'a>), LowerError>
    where
        'a: 'g,
    {
        let block = self.target.block();
        let weight = self.graph.operands(anchor)[1];
        let (weights_shape, conv_shape) = (sizes(self.graph.node(weight)), sizes(self.graph.node(anchor)));
        let size = |shape: &[usize]| [shape[2], shape[3]];
        let taps = slide.taps(size(&weights_shape), size(&x.shape), size(&conv_shape));
        let conv_groups = slide.conv.groups;
        let mut problem = Problem {
            conv_groups,
            form,
            pool: pool.map(|p| p.1),
            made: match cut {
                Cut::Making(made) => Some(made),
                _ => None,
            },
            images: x.shape[0],
            input: [x.shape[1], x.shape[2], x.shape[3]],
            output: [conv_shape[1], taps.grid[0], taps.grid[1]],
            rows: if pool.is_some() { out.shape[2] } else { taps.grid[0] },
            stages: taps.padded,
            taps,
            in_block: if x.layout == Layout::Plain { 1 } else { block },
            block,
            lanes: self.target.lanes,
            registers: self.target.vector_registers,
        };
        let mut scope = self.padded_scope(scope, weight, conv_shape[1])?;
        let mut out = out.clone();
        let width = if matches!(cut, Cut::Own) { problem.best_width() } else { x.shape[3] };
        if width != x.shape[3]
            && let Some(flat) = rows_of_width(&scope, &x, &out, width)
        {
            (scope, x, out) = flat;
            problem.set_width(width);
        }
        let geometry = match cut {
            Cut::Rows(rows) => problem.geometry_of_rows(rows),
            _ => problem.geometry(),
        };
        let weights = self.packed_weights(weight, &slide, geometry.in_block, geometry.tile.blocks * block)?;
        let lanes = self.target.lanes;
        let group =
            ConvGroup { name, slide, form, anchor, pool, result, x, weights, out, geometry, block, lanes };
        Ok((group, scope))
    }

    /// The convolution, its attributes, the pooling and the input of a group; `None` if it is
    /// not `conv2d, elementwise.., [pool, elementwise..]`, or with a transposed one, without pooling.
    pub(super) fn dense_conv_parts(&self, scope: &Scope<'a>, nodes: &[NodeId]) -> Option<ConvParts<'a>> {
        let graph = self.graph;
        let (mut conv, mut pool) = (None, None);
        for &n in nodes {
            match &graph.node(n).op {
                op if conv.is_none() && Slide::of(op).is_some() => conv = Slide::of(op).map(|s| (n, s)),
                Op::MaxPool2d(MaxPool2d { window }) | Op::AvgPool2d(AvgPool2d { window, .. })
                    if pool.is_none() =>
                {
                    pool = Some((n, window));
                }
                op if is_elementwise(op) => {}
                _ => return None,
            }
        }
        let (anchor, slide) = conv?;
        if slide.transposed && pool.is_some() {
            return None;
        }
        let f32s = graph.node(anchor).ty.dtype == DType::F32;
        let Some(Operand::Memory(x)) = scope.operands.get(&graph.operands(anchor)[0]) else { return None };
        let block = self.target.block();
        let layout = matches!(x.layout, Layout::Plain) || x.layout == Layout::Blocked(block as u8);
        let last = pool.map_or(anchor, |p| p.0);
        let result = graph.node(nodes[nodes.len() - 1]);
        if sizes(result) != sizes(graph.node(last)) {
            return None;
        }
        let some = x.elements() > 0 && sizes(graph.node(anchor)).iter().all(|&n| n > 0);
        let [inputs, outputs] = [x.shape[1], sizes(graph.node(anchor))[1]];
        let blocked = x.layout != Layout::Plain;
        let form = match slide.conv.groups {
            1 => Form::Dense,
            g if g == inputs && g == outputs && blocked => Form::Depthwise,
            g if fills_blocks(inputs, g, block) && fills_blocks(outputs, g, block) && blocked => Form::Dense,
            _ => return None,
        };
        (f32s && layout && some).then(|| ConvParts { anchor, slide, form, pool, x: x.clone() })
    }

    /// Weights of O output channels that sum over C inputs each as `[O/n, C/b, KH, KW, b, n]`, zeros
    /// where there is no channel.
    fn packed_weights(
        &mut self,
        weight: NodeId,
        slide: &Slide,
        in_block: usize,
        n: usize,
    ) -> Result<Place, LowerError> {
        let shape = sizes(self.graph.node(weight));
        let [o, c] = slide.channels(&shape);
        let packed = [o.div_ceil(n), c.div_ceil(in_block), shape[2], shape[3], in_block, n];
        let name = if slide.transposed { "pack_transposed_conv2d" } else { "pack_conv2d" };
        self.repacked(weight, name, &packed, &|b, from, at| {
            let oc = at[0].clone() * n as i64 + at[5].clone();
            let ic = at[1].clone() * in_block as i64 + at[4].clone();
            let at = slide.weight(&shape, [oc, ic, at[2].clone(), at[3].clone()], b.extents());
            from(b, &at)
        })
    }

    /// The scope with every operand along channels filled up to whole blocks.
    pub(super) fn padded_scope(
        &mut self,
        scope: &Scope<'a>,
        weight: NodeId,
        channels: usize,
    ) -> Result<Scope<'a>, LowerError> {
        let mut operands = scope.operands.clone();
        let full = channels.next_multiple_of(self.target.block());
        if full != channels {
            for (&id, operand) in operands.iter_mut() {
                let shape = sizes(self.graph.node(id));
                let along = shape.iter().filter(|&&n| n != 1).eq([&channels]);
                let small = shape.iter().product::<usize>() == channels;
                if id == weight || !along || !(small || self.prepared.contains(&id)) || channels == 1 {
                    continue;
                }
                let axis = shape.iter().position(|&n| n == channels).unwrap_or_default();
                let mut padded = shape;
                padded[axis] = full;
                *operand =
                    Operand::Memory(self.repacked(id, "pad_channels", &padded, &|b, from, at| from(b, at))?);
            }
        }
        Ok(Scope { graph: scope.graph, members: scope.members.clone(), operands })
    }

    /// A value in another order, made when it is: `element` maps a position of the new one, given
    /// a way to read the old one, which is zero outside.
    pub(super) fn repacked(
        &mut self,
        id: NodeId,
        name: &str,
        shape: &[usize],
        element: &Repack,
    ) -> Result<Place, LowerError> {
        self.repacked_as(id, name, shape, Numbers::Same, element)
    }

    /// A value in another order, as [`Lowering::repacked`], perhaps rounded.
    pub(super) fn repacked_as(
        &mut self,
        id: NodeId,
        name: &str,
        shape: &[usize],
        numbers: Numbers,
        element: &Repack,
    ) -> Result<Place, LowerError> {
        let (gpu, lanes) = (self.gpu.is_some(), self.target.lanes);
        self.repacked_by(id, name, shape, numbers, &|scope, from, to| {
            let elements = Elements { name, out: to, work: 1, flat: false, lanes };
            let read = |b: &mut Builder, at: &[Index]| match from {
                Operand::Splat(dtype, x) => Expr::Const(*dtype, *x),
                Operand::Memory(place) => b.load(place, "x", at),
            };
            match gpu {
                true => super::gpu::each_element(scope, name, to, &|b, at| element(b, &read, at)),
                false => elements.kernel(scope, &|b, at| element(b, &read, at)),
            }
        })
    }

    /// A value in another order, by the kernel that is made for the old place and the new one.
    pub(super) fn repacked_by(
        &mut self,
        id: NodeId,
        name: &str,
        shape: &[usize],
        numbers: Numbers,
        make: &MakeKernel,
    ) -> Result<Place, LowerError> {
        let tf32 = numbers == Numbers::Tf32;
        let key = (id, name.to_string(), shape.to_vec(), numbers);
        if let Some(place) = self.packed.get(&key) {
            return Ok(Place::clone(place));
        }
        let from = self.operand(id)?;
        let label = self.graph.node(id).name.clone();
        let value = self.new_value(&label, DType::F32, shape, Role::Temporary);
        let to = Place { tf32, ..Place::dense(value, DType::F32, shape, Layout::Plain) };
        let scope = Scope { graph: self.graph, members: Default::default(), operands: Default::default() };
        if let Some((kernel, args)) = make(&scope, &from, &to) {
            self.launch(kernel, args, &[id], self.phase(id));
        }
        self.packed.insert(key, Rc::new(to.clone()));
        Ok(to)
    }
}

/// What becomes of the numbers of a value that is repacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Numbers {
    /// They are the same.
    Same,
    /// They are rounded to TF32; for GPUs.
    Tf32,
}

/// Whose tasks a convolution is cut for.
#[derive(Clone, Copy)]
pub(super) enum Cut {
    /// Its own, which read their input from memory.
    Own,
    /// Its own, which make their input.
    Making(Made),
    /// Another one's, which make so many rows.
    Rows(usize),
}

/// What [`ConvGroup`] needs of a group.
pub(super) struct ConvParts<'a> {
    pub anchor: NodeId,
    pub slide: Slide,
    pub form: Form,
    pub pool: Option<(NodeId, &'a Window)>,
    pub x: Place,
}

/// True if the channels of every group of a convolution fill blocks.
fn fills_blocks(channels: usize, groups: usize, block: usize) -> bool {
    channels.is_multiple_of(groups * block)
}

/// Reads an element of the value that is repacked.
type Read<'r> = dyn Fn(&mut Builder, &[Index]) -> Expr + 'r;

/// The kernel that repacks what lies there, to a place, if it can.
type MakeKernel<'m> = dyn Fn(&Scope, &Operand, &Place) -> Option<(Kernel, Vec<Arg>)> + 'm;

/// An element of the repacked value.
type Repack<'r> = dyn Fn(&mut Builder, &Read, &[Index]) -> Expr + 'r;
