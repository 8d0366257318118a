//! Winograd's convolution for 3x3 kernels of stride 1: fewer multiplications, in the same kernels
//! IR as everything else.
//!
//! The result is cut into tiles of 4x4 (or 2x2). A tile's 6x6 inputs are [transformed](input), for
//! each of the 36 places a [matrix product](product) over the channels is made with
//! [transformed weights](weights), and the 36 sums are [transformed back](output) into 16 results, with
//! the bias and whatever follows in the group before the store: 36 multiplications for 16 · 9.
//!
//! A *strip* of tiles (rows of tiles of an image, or some small images) is worked on at a time, so that its transformed
//! input and its products stay in a core's cache. There are two forms: a task has a strip and all
//! output channels; or, where that gives too few tasks, a kernel of its own transforms the input and
//! the tasks of the next split the output channels. Every result is computed by one task in one order.

pub mod geometry;
mod input;
mod output;
mod product;
pub mod transform;
mod weights;

use std::rc::Rc;

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use self::geometry::{Columns, Form, Geometry, Problem};
use self::input::Target;
use self::product::Operands;
pub(super) use self::product::VECTORS;
use self::transform::Transform;
use self::weights::Weights;
use super::access::Place;
use super::builder::{Builder, Scope, is_vectorisable};
use super::conv_pack::Numbers;
use super::conv_taps::Slide;
use super::elementwise::sizes;
use super::{LowerError, Lowering};
use crate::graph::op::{Conv2d, Window};
use crate::graph::{Graph, Layout, NodeId};
use crate::kernel::module::{Arg, Role};
use crate::kernel::{BufferId, Guard, Index, Kernel, row_major};
use crate::target::CpuTarget;

/// Elements of a cache line.
const LINE: usize = 16;

/// A group with a convolution, and where its operands are.
pub(super) struct Group<'a> {
    pub anchor: NodeId,
    /// The pooling and its windows.
    pub pool: Option<(NodeId, &'a Window)>,
    pub result: NodeId,
    pub x: Place,
    pub out: Place,
}

/// A group that is computed by this algorithm.
struct Winograd<'a> {
    name: String,
    transform: Transform,
    problem: Problem,
    geometry: Geometry,
    anchor: NodeId,
    pool: Option<(NodeId, &'a Window)>,
    result: NodeId,
    x: Place,
    out: Place,
    weights: Place,
    lanes: usize,
    registers: usize,
}

/// The strip that is worked on.
struct Strip {
    /// Along images and rows of tiles.
    number: [Index; 2],
}

/// A tile of a strip.
struct Tile {
    n: Index,
    /// Row of tiles in the image.
    row: Index,
    /// Which of the columns of tiles that are alike.
    step: Index,
    /// In the strip.
    number: Index,
}

impl<'a> Lowering<'a> {
    /// The group by Winograd's algorithm; `None` if it does not fit. The input's transform may be launched
    /// already, the kernel that comes back is the last one.
    pub(super) fn winograd(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        nodes: &[NodeId],
        (group, slide): (Group<'a>, &Slide),
        transform: Transform,
    ) -> Result<Option<(Kernel, Vec<Arg>)>, LowerError> {
        let Layout::Blocked(block) = group.x.layout else { return Ok(None) };
        let lanes = self.target.lanes;
        let width = VECTORS * lanes;
        let weight = self.graph.operands(group.anchor)[1];
        let conv_shape = sizes(self.graph.node(group.anchor));
        let Some(before) = zeros_before(slide) else { return Ok(None) };
        let problem = Problem::new(before, &group.x.shape, &conv_shape);
        let geometry = Geometry::new(&problem, transform, block as usize, width);
        let weights = self.winograd_weights(weight, slide, transform, width)?;
        let scope = self.padded_scope(scope, weight, conv_shape[1])?;
        let of = self.graph.node(group.anchor).op.name();
        let name = name.replacen(of, &format!("{of}_winograd{}", transform.outputs()), 1);
        let Group { anchor, pool, result, x, out, .. } = group;
        let registers = self.target.vector_registers;
        let winograd = Winograd {
            name,
            transform,
            problem,
            geometry,
            anchor,
            pool,
            result,
            x,
            out,
            weights,
            lanes,
            registers,
        };
        match winograd.geometry.form {
            Form::Fused => Ok(winograd.fused(&scope)),
            Form::Split => {
                let shape = winograd.split_shape();
                let label = &self.graph.node(anchor).name;
                let strides = spread(&shape, 2);
                let size = [strides[0] * shape[0]];
                let value = self.new_value(label, DType::F32, &size, Role::Temporary);
                let mut transformed = Place::dense(value, DType::F32, &shape, Layout::Plain);
                transformed.strides = strides;
                let Some(last) = winograd.split(&scope, &transformed) else { return Ok(None) };
                let (first, args) = winograd.transform_kernel(&scope, &transformed);
                self.launch(first, args, nodes, self.phase(result));
                Ok(Some(last))
            }
        }
    }

    /// Transformed weights, made when the weights are.
    fn winograd_weights(
        &mut self,
        weight: NodeId,
        slide: &Slide,
        transform: Transform,
        group: usize,
    ) -> Result<Place, LowerError> {
        let channels = slide.channels(&sizes(self.graph.node(weight)));
        let shape = weights::shape(transform, channels, group);
        let turned = if slide.transposed { "_transposed" } else { "" };
        let name = format!("winograd{}{turned}_weights", transform.outputs());
        let key = (weight, name.clone(), shape.to_vec(), Numbers::Same);
        if let Some(place) = self.packed.get(&key) {
            return Ok(Place::clone(place));
        }
        let from = self.operand(weight)?;
        let label = self.graph.node(weight).name.clone();
        let value = self.new_value(&label, weights::DTYPE, &shape, Role::Temporary);
        let to = Place::dense(value, weights::DTYPE, &shape, Layout::Plain);
        let scope = Scope { graph: self.graph, members: Default::default(), operands: Default::default() };
        let weights = Weights {
            name: &name,
            from,
            shape: channels,
            transposed: slide.transposed,
            to: to.clone(),
            transform,
            lanes: self.target.lanes,
        };
        let (kernel, args) = weights.kernel(&scope);
        self.launch(kernel, args, &[weight], self.phase(weight));
        self.packed.insert(key, Rc::new(to.clone()));
        Ok(to)
    }
}

/// The sizes of a convolution, if it, its layouts and the target are those that these kernels are made for.
pub(super) fn fits(graph: &Graph, anchor: NodeId, result: NodeId, target: &CpuTarget) -> Option<Problem> {
    let operands = graph.operands(anchor);
    let (x, y) = (graph.node(operands[0]), graph.node(anchor));
    let kernel = sizes(graph.node(operands[1]));
    let before = zeros_before(&Slide::of(&y.op)?)?;
    let Layout::Blocked(block) = x.layout else { return None };
    let out = [Layout::Plain, x.layout].contains(&graph.node(result).layout);
    let whole = (block as usize).is_multiple_of(target.lanes)
        && (VECTORS * target.lanes).is_multiple_of(block as usize);
    let (x_shape, y_shape) = (sizes(x), sizes(y));
    let some = x_shape.iter().chain(&y_shape).all(|&n| n > 0);
    let fits = kernel[2..] == [3, 3] && out && whole && some && y.ty.dtype == DType::F32;
    fits.then(|| Problem::new(before, &x_shape, &y_shape))
}

/// Rows and columns of zeros that a 3x3 convolution reads before its input; `None` if it is none that these
/// kernels are made for. A transposed one is an ordinary one with the kernel turned round.
fn zeros_before(slide: &Slide) -> Option<[usize; 2]> {
    let Conv2d { stride, padding: [top, _, left, _], dilation, groups } = slide.conv;
    if (stride, dilation, groups) != ([1; 2], [1; 2], 1) {
        return None;
    }
    match slide.transposed {
        false => Some([top, left]),
        true => Some([2usize.checked_sub(top)?, 2usize.checked_sub(left)?]),
    }
}

impl<'a> Winograd<'a> {
    /// A task for every strip: transform, multiply, transform back.
    fn fused(&self, scope: &Scope<'a>) -> Option<(Kernel, Vec<Arg>)> {
        let mut b = self.builder(scope, &self.name);
        let strip = self.strip(&mut b);
        let x = b.bind(&self.x, Access::Read, "x");
        let weights = self.bind_weights(&mut b);
        let input = self.strip_buffer(&mut b);
        let products = self.product_buffer(&mut b);
        let target = Target { buffer: input, prefix: &[] };
        b.serial("ib", self.geometry.in_blocks, |b, block| {
            self.transform_block(b, x, &strip, &block, &target)
        });
        b.serial("g", self.geometry.groups, |b, group| {
            self.multiply(b, &group, &Operands { input, prefix: &[], weights, products });
            self.finish_strip(b, &strip, &group, products);
        });
        self.finished(b)
    }

    /// Transforms the input to a value: a task for every strip and block of channels.
    fn transform_kernel(&self, scope: &Scope<'a>, to: &Place) -> (Kernel, Vec<Arg>) {
        let mut b = self.builder(scope, &format!("winograd{}_input", self.transform.outputs()));
        let strip = self.strip(&mut b);
        let block = b.task("ib", self.geometry.in_blocks);
        let x = b.bind(&self.x, Access::Read, "x");
        let buffer = b.bind(to, Access::Write, "transformed");
        let prefix = strip.number.clone();
        self.transform_block(&mut b, x, &strip, &block, &Target { buffer, prefix: &prefix });
        let (mut kernel, args) = b.finish();
        let vectors = self.geometry.strip_count() * self.geometry.strip_tiles() * self.geometry.in_blocks;
        let operations = 2 * self.transform.inputs() * self.transform.operations()[0];
        kernel.flops = (vectors * self.geometry.block * operations) as u64;
        (kernel, args)
    }

    /// The rest: a task for every group of output channels and strip.
    fn split(&self, scope: &Scope<'a>, input: &Place) -> Option<(Kernel, Vec<Arg>)> {
        let mut b = self.builder(scope, &self.name);
        let group = b.task("g", self.geometry.groups);
        let strip = self.strip(&mut b);
        let input = b.bind(input, Access::Read, "transformed");
        let weights = self.bind_weights(&mut b);
        let products = self.product_buffer(&mut b);
        let prefix = strip.number.clone();
        self.multiply(&mut b, &group, &Operands { input, prefix: &prefix, weights, products });
        self.finish_strip(&mut b, &strip, &group, products);
        self.finished(b)
    }

    /// The weights, of which those of a group and a product are in one piece.
    fn bind_weights(&self, b: &mut Builder) -> BufferId {
        let [groups, products, channels, group] = self.weights.shape[..] else {
            unreachable!("as `weights::shape` says")
        };
        let shape = vec![groups, products, channels * group];
        let strides = row_major(&shape);
        b.bind(&Place { shape, strides, ..self.weights.clone() }, Access::Read, "weight")
    }

    fn builder(&self, scope: &'a Scope<'a>, name: &str) -> Builder<'a> {
        let mut b = Builder::new(name, scope);
        b.provided = [Some(self.anchor), self.pool.map(|p| p.0)].into_iter().flatten().collect();
        b
    }

    fn finished(&self, b: Builder) -> Option<(Kernel, Vec<Arg>)> {
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    /// The strips as tasks.
    fn strip(&self, b: &mut Builder) -> Strip {
        let [images, rows] = self.geometry.strips;
        Strip { number: [b.task("n", images), b.task("s", rows)] }
    }

    /// The tiles of a strip in some columns that are alike.
    fn each_tile(
        &self,
        b: &mut Builder,
        strip: &Strip,
        columns: &Columns,
        f: &mut dyn FnMut(&mut Builder, &Tile),
    ) {
        let [images, rows] = self.geometry.strip;
        let [image_rows, image_columns] = self.geometry.tiles;
        b.serial("i", images, |b, i| {
            let n = strip.number[0].clone() * images as i64 + i.clone();
            b.serial("r", rows, |b, r| {
                let row = strip.number[1].clone() * rows as i64 + r.clone();
                let mut inside = Guard::between(&n, 0, self.problem.images as i64, b.extents());
                inside.extend(Guard::between(&row, 0, image_rows as i64, b.extents()));
                let line = (i * rows as i64 + r) * image_columns as i64;
                b.when(inside, |b| {
                    b.serial("c", columns.count, |b, step| {
                        let number = line + columns.first + step.clone();
                        f(b, &Tile { n, row, step, number });
                    });
                });
            });
        });
    }

    /// The shape of the transformed input as a value.
    fn split_shape(&self) -> Vec<usize> {
        [&self.geometry.strips[..], &self.input_shape()].concat()
    }
}

/// Strides that are row-major but for the dimension of products, whose elements are an odd number
/// of cache lines apart: a tile's 36 vectors would meet in a few sets of the cache otherwise.
fn spread(shape: &[usize], products: usize) -> Vec<usize> {
    let mut strides = row_major(shape);
    let lines = strides[products].div_ceil(LINE) | 1;
    strides[products] = lines * LINE;
    for d in (0..products).rev() {
        strides[d] = strides[d + 1] * shape[d + 1];
    }
    strides
}
