//! Sums, means and variances in vectors: several of them over the same elements in one pass.
//!
//! Lanes are elements that stay apart (channels of blocked values, columns of matrices), or, where
//! everything becomes one number, neighbours in memory. What is reduced is cut into *parts* of about
//! [`PART_BYTES`], each added up by one task in several registers. If there is more than one part,
//! a second kernel adds the parts in their order; either way the split depends on shapes alone.
//! What is summed is computed on the way (`dy·(x - mean)` reaches no memory), and elementwise work
//! on the results follows where they are.
//!
//! A variance takes each part twice, which stays in the cache meanwhile: its mean, then the squared
//! distances from that. Parts are joined as Chan, Golub and LeVeque ("Updating formulae and a
//! pairwise algorithm for computing sample variances", 1979) do: nothing large is subtracted.

use nnc_runtime::DType;

use super::access::Place;
use super::builder::{Builder, Operand, Scope};
use super::elements::divisor_near;
use super::elementwise::{is_elementwise, sizes};
use super::{LowerError, Lowering};
use crate::graph::op::ReduceKind;
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::Kernel;
use crate::kernel::module::{Arg, Role, ValueId};

mod flat;
mod parts;
mod totals;

use self::flat::Flat;

/// What a task adds up, of its largest operand: a quarter of a core's second-level cache, where it
/// still is when a variance comes back for it.
const PART_BYTES: usize = 64 << 10;

/// Results that share one pass at most: each needs registers.
const MAX_TOTALS: usize = 8;

/// Vectors of one row that a task takes from a matrix: four cache lines of the widest.
const ROW_VECTORS: usize = 4;

/// Without parts, kernels with that many tasks keep all threads busy.
const ENOUGH_TASKS: usize = 64;

/// Something that is added up over the elements of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Total {
    /// The value itself.
    Sum(NodeId),
    /// Its squared distance from its mean in the part.
    Squares(NodeId),
}

/// A dimension of the operands, some of whose elements a task takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    axis: usize,
    /// So many tasks ..
    parts: usize,
    /// .. of so many elements.
    each: usize,
}

/// How the elements of the operands are dealt to tasks and lanes.
#[derive(Clone, Debug)]
struct Space {
    rank: usize,
    /// Dimensions of the result that are no lanes.
    kept: Vec<(usize, usize)>,
    /// Dimensions that are summed, outermost first.
    reduced: Vec<Cut>,
    /// The axis along which lanes lie, and its size.
    channel: (usize, usize),
    /// Elements along it that a task takes, and how many tasks there are of these.
    block: usize,
    blocks: usize,
    /// Elements of the last, incomplete vector along it: one at a time.
    tail: usize,
    /// Its size in the memory of partial sums.
    padded: usize,
}

/// Reductions over the same elements, and the elementwise work around them: a group that becomes a
/// kernel, or two.
struct Reduction<'a> {
    name: &'a str,
    /// The reductions, and of which values.
    anchors: Vec<(NodeId, ReduceKind, NodeId)>,
    totals: Vec<Total>,
    axes: &'a [usize],
    keep: bool,
    /// Elements that one result is made of.
    count: usize,
    nodes: &'a [NodeId],
    results: &'a [(NodeId, Place)],
    lanes: usize,
    registers: usize,
}

/// A reduction whose lanes stay apart.
struct Apart<'a> {
    of: &'a Reduction<'a>,
    space: Space,
}

/// A kernel and its arguments.
type Made = (Kernel, Vec<Arg>);

impl<'a> Lowering<'a> {
    /// Lowers a group of reductions, with the elementwise work before and after them; false if it is
    /// no such group, or not one that vectors fit.
    pub(super) fn reduction(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        nodes: &[NodeId],
        results: &[(NodeId, Place)],
    ) -> Result<bool, LowerError> {
        let Some(r) = self.as_reduction(name, nodes, results) else { return Ok(false) };
        let x = r.anchors[0].2;
        let (shape, layout) = (sizes(self.graph.node(x)), self.graph.node(x).layout);
        let squares = r.totals.iter().any(|t| matches!(t, Total::Squares(_)));
        let kernels = if r.axes.len() == shape.len() && !squares {
            match Flat::new(r.count, r.lanes).filter(|_| flat::is_even(scope, nodes, x)) {
                Some(flat) => self.flat_reduction(scope, &r, flat),
                None => return Ok(false),
            }
        } else {
            match Space::new(&shape, layout, r.axes, r.lanes, squares) {
                Some(space) => self.reduction_apart(scope, &Apart { of: &r, space })?,
                None => return Ok(false),
            }
        };
        let Some(mut kernels) = kernels else { return Ok(false) };
        kernels[0].0.flops = nodes.iter().map(|&n| self.flops(n)).sum();
        for (kernel, args) in kernels {
            self.launch(kernel, args, nodes, self.phase(results[0].0));
        }
        Ok(true)
    }

    /// The group as reductions over the same axes of values that lie alike.
    fn as_reduction<'r>(
        &self,
        name: &'r str,
        nodes: &'r [NodeId],
        results: &'r [(NodeId, Place)],
    ) -> Option<Reduction<'r>>
    where
        'a: 'r,
    {
        let graph = self.graph;
        let mut anchors = vec![];
        let mut how: Option<(&'r [usize], bool, NodeId)> = None;
        for &n in nodes {
            match &graph.node(n).op {
                Op::Reduce { kind, axes, keep } => {
                    let x = graph.operands(n)[0];
                    anchors.push((n, *kind, x));
                    let (first_axes, first_keep, first) = *how.get_or_insert((axes, *keep, x));
                    let (a, b) = (graph.node(first), graph.node(x));
                    if first_axes != axes || first_keep != *keep || a.ty != b.ty || a.layout != b.layout {
                        return None;
                    }
                }
                op if is_elementwise(op) && !matches!(op, Op::Relayout) => {}
                _ => return None,
            }
        }
        let (axes, keep, x) = how?;
        let like = &graph.node(anchors[0].0).ty;
        let fits = |(id, place): &(NodeId, Place)| {
            place.layout == Layout::Plain && graph.node(*id).ty.shape == like.shape
        };
        let float = graph.node(x).ty.dtype == DType::F32;
        let totals = totals_of(&anchors)?;
        if !float || totals.len() > MAX_TOTALS || !results.iter().all(fits) {
            return None;
        }
        let shape = sizes(graph.node(x));
        let count = axes.iter().map(|&a| shape[a]).product();
        let (lanes, registers) = (self.target.lanes, self.target.vector_registers);
        Some(Reduction { name, anchors, totals, axes, keep, count, nodes, results, lanes, registers })
    }

    fn flat_reduction(&mut self, scope: &Scope<'a>, r: &Reduction, flat: Flat) -> Option<Vec<Made>> {
        if flat.parts() == 1 {
            return Some(vec![r.flat_parts(scope, flat, None)?]);
        }
        self.with_parts(&[r.totals.len(), flat.parts()], |parts| {
            Some([r.flat_parts(scope, flat, Some(parts))?, r.flat_joined(scope, flat, parts)?])
        })
    }

    fn reduction_apart(&mut self, scope: &Scope<'a>, r: &Apart) -> Result<Option<Vec<Made>>, LowerError> {
        let filled = self.filled_scope(scope, r.space.channel.1, r.space.padded)?;
        if r.space.is_whole() {
            return Ok(r.whole(&filled).map(|kernel| vec![kernel]));
        }
        let made = self
            .with_parts(&r.parts_shape(), |parts| Some([r.parts(&filled, parts)?, r.joined(scope, parts)?]));
        Ok(made)
    }

    /// Makes kernels that need memory for partial sums of that shape.
    fn with_parts(
        &mut self,
        shape: &[usize],
        make: impl FnOnce(&Place) -> Option<[Made; 2]>,
    ) -> Option<Vec<Made>> {
        // The value is added if there is something that uses it.
        let value = ValueId(self.module.values.len() as u32);
        let kernels = make(&Place::dense(value, DType::F32, shape, Layout::Plain))?;
        self.new_value("", DType::F32, shape, Role::Temporary);
        Some(kernels.into())
    }

    /// The scope with every operand along `channels` channels filled up to a whole number of blocks.
    pub(super) fn filled_scope(
        &mut self,
        scope: &Scope<'a>,
        channels: usize,
        full: usize,
    ) -> Result<Scope<'a>, LowerError> {
        let mut operands = scope.operands.clone();
        for (&id, operand) in operands.iter_mut().filter(|_| full > channels) {
            let shape = sizes(self.graph.node(id));
            let along = shape.iter().filter(|&&n| n != 1).eq([&channels]);
            if !along || self.graph.node(id).layout != Layout::Plain || shape.len() == 2 {
                continue;
            }
            let axis = shape.iter().position(|&n| n == channels).unwrap_or_default();
            let mut filled = shape;
            filled[axis] = full;
            *operand =
                Operand::Memory(self.repacked(id, "pad_channels", &filled, &|b, from, at| from(b, at))?);
        }
        Ok(Scope { graph: scope.graph, members: scope.members.clone(), operands })
    }
}

impl Space {
    /// For operands of that shape; `None` if no vectors fit.
    fn new(shape: &[usize], layout: Layout, axes: &[usize], lanes: usize, squares: bool) -> Option<Space> {
        let rank = shape.len();
        let channel = match layout {
            Layout::Blocked(_) => 1,
            Layout::Plain => rank.checked_sub(1)?,
            Layout::ChannelsLast => return None,
        };
        if axes.is_empty() || axes.contains(&channel) || shape.contains(&0) {
            return None;
        }
        let size = shape[channel];
        let (block, blocks, tail, padded) = match layout {
            Layout::Blocked(b) if usize::from(b).is_multiple_of(lanes) => {
                let b = usize::from(b);
                (b, size.div_ceil(b), 0, size.next_multiple_of(b))
            }
            Layout::Plain if size >= lanes => {
                let vectors = size / lanes;
                let many = (1..=ROW_VECTORS).rev().find(|&n| vectors.is_multiple_of(n)).unwrap_or(1);
                (many * lanes, vectors / many, size % lanes, size)
            }
            _ => return None,
        };
        let kept: Vec<(usize, usize)> =
            (0..rank).filter(|&a| a != channel && !axes.contains(&a)).map(|a| (a, shape[a])).collect();
        let tasks = kept.iter().map(|k| k.1).product::<usize>() * blocks;
        let mut room = (PART_BYTES / (block * 4)).max(1);
        if !squares && tasks >= ENOUGH_TASKS {
            room = usize::MAX;
        }
        let mut reduced = vec![];
        for axis in (0..rank).rev().filter(|&a| axes.contains(&a) && shape[a] > 1) {
            let each = (1..=shape[axis].min(room)).rev().find(|&n| shape[axis].is_multiple_of(n))?;
            room = if each < shape[axis] { 1 } else { room / each };
            reduced.insert(0, Cut { axis, parts: shape[axis] / each, each });
        }
        let channel = (channel, size);
        Some(Space { rank, kept, reduced, channel, block, blocks, tail, padded })
    }

    /// The number of parts.
    fn part_count(&self) -> usize {
        self.reduced.iter().map(|c| c.parts).product()
    }

    /// The number of elements of a part that are added up.
    fn part_elements(&self) -> usize {
        self.reduced.iter().map(|c| c.each).product()
    }

    /// True if there is one part, and no lane without a meaning in it.
    fn is_whole(&self) -> bool {
        self.part_count() == 1 && self.padded == self.channel.1
    }
}

impl Apart<'_> {
    /// The partial sums: one for each total, part, and element of the result.
    fn parts_shape(&self) -> Vec<usize> {
        let space = &self.space;
        let mut shape = vec![self.of.totals.len(), space.part_count()];
        shape.extend(space.kept.iter().map(|k| k.1));
        shape.push(space.padded);
        shape
    }
}

impl Reduction<'_> {
    /// The place of a total among the totals.
    fn number(&self, total: Total) -> usize {
        self.totals.iter().position(|t| *t == total).unwrap_or_default()
    }
}

/// What has to be added up, each thing once; `None` if that is not all.
fn totals_of(anchors: &[(NodeId, ReduceKind, NodeId)]) -> Option<Vec<Total>> {
    let mut totals = vec![];
    for &(_, kind, x) in anchors {
        let needed = match kind {
            ReduceKind::Sum | ReduceKind::Mean => vec![Total::Sum(x)],
            ReduceKind::Variance => vec![Total::Sum(x), Total::Squares(x)],
            ReduceKind::Max | ReduceKind::Min | ReduceKind::Prod => return None,
        };
        for total in needed {
            if !totals.contains(&total) {
                totals.push(total);
            }
        }
    }
    Some(totals)
}

/// A kernel that vectors fit, with its arguments.
fn finished(b: Builder) -> Option<Made> {
    let failed = b.failed;
    let (kernel, args) = b.finish();
    (!failed && super::builder::is_vectorisable(&kernel)).then_some((kernel, args))
}

/// How many of `n` things of that size a task should do.
fn dealt(n: usize, work: usize) -> usize {
    divisor_near(n, (4096 / work.max(1)).clamp(1, n.max(1)))
}
