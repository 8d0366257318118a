//! Gradients of convolutions' weights: `dw[o, c, kh, kw] = Σ dy[n, o, p, q] · x[n, c, p·s + kh·d - pad, …]`.
//!
//! `dy` comes in blocks of channels. A [tile](super::weight_grad_tile) of sums, some of the inputs
//! that meet an output channel by two vectors of output channels, is held in registers while pixels
//! pass by: every pixel is a few vectors of `dy`, and one element of `x` in all lanes for each input.
//! What the inputs of a tile are depends on `x` ([`Form`]).
//!
//! A task has some blocks of output channels, some of input channels and some of the images. It goes
//! through them in chunks of rows that stay in L1 while all kernel positions and channels are done;
//! between chunks the sums are in scratch. Where the channels alone are too few tasks, the images
//! are split into a fixed number of parts, whose sums a [second kernel](super::weight_grad_store) adds up
//! in a fixed order: the bits do not depend on the number of threads.

use nnc_runtime::DType;
use nnc_runtime::program::Access;

use super::access::Place;
use super::builder::{Builder, Operand, Scope, is_vectorisable};
use super::{LowerError, Lowering};
use crate::graph::op::{Conv2d, Conv2dWeightGrad};
use crate::graph::{Layout, NodeId, Op};
use crate::kernel::module::{Arg, Role};
use crate::kernel::{BufferId, Kernel};

/// Bytes of `dy` and `x` that a chunk has for one tile of channels: what leaves room in L1d (32 KiB
/// and more) for the sums.
const CHUNK_BYTES: usize = 24 << 10;

/// Bytes of sums that a task may have: a fifth of L2 (1 MiB).
const SUM_BYTES: usize = 192 << 10;

/// A task should do that much at least.
const TASK_FLOPS: usize = 1 << 21;

/// Tasks wanted of a large gradient: enough to balance eight threads.
const TASKS: usize = 32;

/// Pixels that are taken as a row where the convolution does not tell rows apart.
const POINT_ROW: usize = 64;

/// What the inputs of a tile are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `x` in blocks: input channels of one block, at one position of the kernel after the other.
    /// Pixels whose partner would be padding are left out by the bounds of loops.
    Blocks,
    /// `x` row-major, few channels: channels and positions of the kernel. Rows are copied to
    /// scratch with zeros around, so that all positions have the same pixels.
    Taps,
    /// Each channel by itself: positions of the kernel, `x` comes in vectors, too.
    Depthwise,
}

/// A gradient, and where its operands are.
pub(super) struct WeightGrad<'a> {
    pub conv: &'a Conv2d,
    pub kernel: [usize; 2],
    pub form: Form,
    pub x: Place,
    pub dy: Place,
    /// Channels in a block.
    pub block: usize,
    pub lanes: usize,
    pub registers: usize,
}

/// How the work is cut into pieces.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    /// Blocks of output channels, and of input channels (one where the inputs are kernel positions): all.
    pub blocks: [usize; 2],
    /// Those of a task.
    pub task_blocks: [usize; 2],
    /// Parts of the images, and images of a part.
    pub parts: usize,
    pub part_images: usize,
    /// Images and rows of a chunk.
    pub chunk_images: usize,
    pub chunk_rows: usize,
    /// Sums that a pair of blocks has for an output channel: `[positions, inputs]`.
    pub sums: [usize; 2],
}

impl Lowering<'_> {
    /// Adds the kernels of a gradient of weights; false if it is none that has fast ones.
    pub(super) fn weight_grad(&mut self, id: NodeId, out: &Place) -> Result<bool, LowerError> {
        let Op::Conv2dWeightGrad(op) = &self.graph.node(id).op else { return Ok(false) };
        let operands = self.graph.operands(id);
        let (x, dy) = match (self.operand(operands[0])?, self.operand(operands[1])?) {
            (Operand::Memory(x), Operand::Memory(dy)) => (x, dy),
            _ => return Ok(false),
        };
        let Some(grad) = WeightGrad::new(op, x, dy, (self.target.lanes, self.target.vector_registers)) else {
            return Ok(false);
        };
        let Some(flat) = out.reshaped(&[out.shape[0], out.shape[1..].iter().product()]) else {
            return Ok(false);
        };
        let (pieces, scope) = (grad.pieces(), self.scope(&[id])?);
        let (phase, flops) = (self.phase(id), self.flops(id));
        if pieces.parts == 1 {
            let Some((mut kernel, args)) = grad.whole(&pieces, &scope, &flat) else { return Ok(false) };
            kernel.flops = flops;
            self.launch(kernel, args, &[id], phase);
            return Ok(true);
        }
        let shape = grad.parts_shape(&pieces);
        let value = self.new_value(&self.graph.node(id).name.clone(), DType::F32, &shape, Role::Temporary);
        let parts = Place::dense(value, DType::F32, &shape, Layout::Plain);
        let Some((mut kernel, args)) = grad.part(&pieces, &scope, &parts) else { return Ok(false) };
        kernel.flops = flops;
        let (sum, sum_args) = grad.sum_of_parts(&pieces, &scope, &parts, &flat);
        self.launch(kernel, args, &[id], phase);
        self.launch(sum, sum_args, &[id], phase);
        Ok(true)
    }
}

impl<'a> WeightGrad<'a> {
    /// The gradient, if these operands suit a form.
    fn new(
        op: &'a Conv2dWeightGrad,
        x: Place,
        dy: Place,
        (lanes, registers): (usize, usize),
    ) -> Option<WeightGrad<'a>> {
        let Layout::Blocked(block) = dy.layout else { return None };
        let (block, groups) = (usize::from(block), op.conv.groups);
        let form = match x.layout {
            Layout::Plain if groups == 1 => Form::Taps,
            layout if layout != dy.layout => return None,
            _ if groups == 1 => Form::Blocks,
            _ if groups == x.shape[1] && groups == dy.shape[1] => Form::Depthwise,
            _ => return None,
        };
        let some = x.elements() > 0 && dy.elements() > 0 && op.kernel.iter().all(|&k| k > 0);
        let f32s = x.dtype == DType::F32 && dy.dtype == DType::F32;
        if !some || !f32s || !block.is_multiple_of(lanes) {
            return None;
        }
        let grad = WeightGrad { conv: &op.conv, kernel: op.kernel, form, x, dy, block, lanes, registers };
        Some(grad.with_point_rows())
    }

    /// The pixels of a 1x1 convolution in rows of a good length.
    fn with_point_rows(mut self) -> WeightGrad<'a> {
        let c = self.conv;
        let point = self.kernel == [1, 1] && c.stride == [1, 1] && c.padding == [0; 4];
        let even = |p: &Place| p.strides[2] == p.shape[3] * p.strides[3];
        if !point || self.form != Form::Blocks || !even(&self.x) || !even(&self.dy) {
            return self;
        }
        let pixels = self.dy.shape[2] * self.dy.shape[3];
        let long = |&d: &usize| pixels.is_multiple_of(d);
        let width = (POINT_ROW / 2..=2 * POINT_ROW).filter(long).min_by_key(|d| d.abs_diff(POINT_ROW));
        let width = width.unwrap_or(if pixels <= 2 * POINT_ROW { pixels } else { self.dy.shape[3] });
        for place in [&mut self.x, &mut self.dy] {
            (place.shape[2], place.shape[3]) = (pixels / width, width);
            place.strides[2] = width * place.strides[3];
        }
        self
    }

    /// Vectors in a block.
    pub fn vectors(&self) -> usize {
        self.block / self.lanes
    }

    /// Blocks of output channels in a tile: two vectors, so that each input is loaded for both.
    pub fn tile_blocks(&self) -> usize {
        match self.form {
            Form::Depthwise => 1,
            Form::Blocks | Form::Taps => (2 / self.vectors()).max(1),
        }
    }

    /// Inputs of a tile with that many blocks of output channels: as many as leave registers for
    /// the vectors of `dy`, an input and (where multiply-adds overwrite a factor) its copies.
    pub fn tile_inputs(&self, blocks: usize) -> usize {
        let vectors = blocks * self.vectors();
        let spare = if self.registers > 16 { 2 } else { 3 };
        (self.registers.saturating_sub(vectors + spare) / vectors).max(1)
    }

    /// Rows (columns) of `x` that so many rows (columns) of `dy` meet.
    pub fn reach(&self, axis: usize, size: usize) -> usize {
        (size - 1) * self.conv.stride[axis] + (self.kernel[axis] - 1) * self.conv.dilation[axis] + 1
    }

    fn pieces(&self) -> Pieces {
        let [images, _, rows, columns] = [0, 1, 2, 3].map(|i| self.dy.shape[i]);
        let out_blocks = self.dy.shape[1].div_ceil(self.block);
        let in_blocks = if self.form == Form::Blocks { self.x.shape[1].div_ceil(self.block) } else { 1 };
        let positions = self.kernel[0] * self.kernel[1];
        let sums = match self.form {
            // LeNet-5 has six input channels: sums for the empty ones of a block would be most of the work.
            Form::Blocks => [positions, self.block.min(self.x.shape[1])],
            Form::Taps => [self.x.shape[1] * positions, 1],
            Form::Depthwise => [positions, 1],
        };
        let x_channels = match self.form {
            Form::Blocks | Form::Depthwise => self.block,
            Form::Taps => self.x.shape[1],
        };
        let row_bytes = 4
            * (self.tile_blocks().min(out_blocks) * self.block * columns
                + x_channels * self.conv.stride[0] * self.reach(1, columns));
        let fit = (CHUNK_BYTES / row_bytes).clamp(1, rows);
        let chunk_rows = rows.div_ceil(rows.div_ceil(fit));
        let chunk_images = match self.form {
            Form::Blocks if chunk_rows == rows => (CHUNK_BYTES / (row_bytes * rows)).clamp(1, images),
            _ => 1,
        };
        let mut pieces = Pieces {
            blocks: [out_blocks, in_blocks],
            task_blocks: [1; 2],
            parts: 1,
            part_images: images,
            chunk_images,
            chunk_rows,
            sums,
        };
        self.split(&mut pieces);
        pieces
    }

    /// Chooses the blocks and images of a task: the way with the least memory traffic that gives
    /// enough tasks.
    fn split(&self, pieces: &mut Pieces) {
        let [out_blocks, in_blocks] = pieces.blocks;
        let sums = pieces.sums[0] * pieces.sums[1];
        let wanted = (2 * self.dy.elements() * sums * in_blocks / TASK_FLOPS).clamp(1, TASKS);
        let divisors = |n: usize| (1..=n).filter(move |&d| n.is_multiple_of(d));
        let mut best: Option<([usize; 3], Pieces)> = None;
        for task_out in divisors(out_blocks) {
            for task_in in divisors(in_blocks) {
                let pairs = task_out * task_in;
                if pairs > 1 && 4 * pairs * sums * self.block > SUM_BYTES {
                    continue;
                }
                let groups = out_blocks * in_blocks / pairs;
                let candidate = self.with_parts(pieces, [task_out, task_in], wanted.div_ceil(groups));
                let parts = candidate.parts;
                let stored = if parts == 1 { 0 } else { 2 * parts * groups * pairs * sums * self.block };
                let traffic = in_blocks / task_in * self.dy.elements()
                    + out_blocks / task_out * self.x.elements()
                    + stored;
                let key = [wanted.saturating_sub(groups * parts), traffic, parts];
                if best.as_ref().is_none_or(|(least, _)| key < *least) {
                    best = Some((key, candidate));
                }
            }
        }
        if let Some((_, candidate)) = best {
            *pieces = candidate;
        }
    }

    /// With the images in about so many parts of whole chunks.
    fn with_parts(&self, pieces: &Pieces, task_blocks: [usize; 2], parts: usize) -> Pieces {
        let images = self.dy.shape[0];
        let chunks = images.div_ceil(pieces.chunk_images);
        let part_images = chunks.div_ceil(parts.min(chunks)) * pieces.chunk_images;
        Pieces { task_blocks, part_images, parts: images.div_ceil(part_images), ..pieces.clone() }
    }

    /// The kernel of all images.
    fn whole(&self, pieces: &Pieces, scope: &Scope, out: &Place) -> Option<(Kernel, Vec<Arg>)> {
        self.kernel(pieces, scope, &mut |b, task, sums| {
            let out = b.bind(out, Access::Write, "out");
            self.store_task(b, pieces, task, sums, out);
        })
    }

    /// The kernel of parts of the images: `parts` is `[part, out block, in block, position, input, channel]`.
    fn part(&self, pieces: &Pieces, scope: &Scope, parts: &Place) -> Option<(Kernel, Vec<Arg>)> {
        self.kernel(pieces, scope, &mut |b, task, sums| {
            let parts = b.bind(parts, Access::Write, "parts");
            self.store_part(b, pieces, task, sums, parts);
        })
    }

    fn kernel(
        &self,
        pieces: &Pieces,
        scope: &Scope,
        store: &mut dyn FnMut(&mut Builder, &super::weight_grad_tile::Task, BufferId),
    ) -> Option<(Kernel, Vec<Arg>)> {
        let mut b = Builder::new("conv2d_weight_grad", scope);
        self.task(&mut b, pieces, store);
        let failed = b.failed;
        let (kernel, args) = b.finish();
        (!failed && is_vectorisable(&kernel)).then_some((kernel, args))
    }

    fn parts_shape(&self, pieces: &Pieces) -> [usize; 6] {
        let ([out_blocks, in_blocks], [positions, inputs]) = (pieces.blocks, pieces.sums);
        [pieces.parts, out_blocks, in_blocks, positions, inputs, self.block]
    }
}
