//! Depthwise convolutions that the 1x1 convolution after them takes into its kernel: a task makes some rows of
//! the first in its scratch, and the second one reads them there. What lies between never reaches memory.
//!
//! A task has all output channels, or the depthwise convolution would be computed several times. So tasks are
//! rows, and every core reads all weights of the 1x1 convolution, where cores could else share them out:
//! [`pays`] where the values that cross the kernel are more than the weights. On MobileNetV2 that is so from
//! 14x14 pixels on (64 to 96 channels of 384 to 576: 0.1 to 0.2 MB of weights, 0.4 to 0.6 MB of values), and
//! not at 7x7 (0.6 MB of weights, 0.2 MB of values).
//!
//! Where what the depthwise convolution reads is large, it [takes] the convolution that makes that, too: a strip of
//! rows and some blocks of channels at a time.

use super::label;
use crate::graph::op::Conv2d;
use crate::graph::{Graph, Layout, NodeId, Op};

/// Places of the largest depthwise kernel whose loops are written out.
pub const DEPTHWISE_PLACES: usize = 16;

/// Bytes of a task's scratch for what lies between: a quarter of a core's second cache (1 MiB).
pub const SCRATCH_BYTES: usize = 256 << 10;

/// A value of a convolution that has more bytes than that an image does not stay in the cores' own caches.
const FAR_BYTES: usize = 2 << 20;

/// Rows of the depthwise convolution are cut into so many tasks, about.
const TASKS: usize = 8;

/// Of so many rows one may be computed by two tasks.
const AGAIN: usize = 7;

/// Whether `point`, which reads `tail`, can be computed in the kernel of `first`, whose group ends with `tail`.
/// `None` if these are no such convolutions.
pub(super) fn joins(graph: &Graph, [first, tail, point]: [NodeId; 3]) -> Option<Result<(), String>> {
    let (Op::Conv2d(depthwise), Op::Conv2d(conv)) = (&graph.node(first).op, &graph.node(point).op) else {
        return None;
    };
    let x = graph.operands(first)[0];
    let [x_shape, y_shape, z_shape] = [x, tail, point].map(|n| graph.node(n).ty.sizes());
    let (x_shape, y_shape, z_shape) = (x_shape?, y_shape?, z_shape?);
    let kernel = |conv: NodeId| graph.node(graph.operands(conv)[1]).ty.sizes();
    let is_depthwise = depthwise.groups == x_shape[1] && depthwise.groups == y_shape[1];
    let is_point = is_plain(conv) && kernel(point)?[2..] == [1, 1];
    if !is_depthwise || depthwise.groups == 1 || !is_point {
        return None;
    }
    let layout = graph.node(x).layout;
    let users_read = graph.operands(point)[1..].iter().all(|&o| o != tail);
    let in_blocks = matches!(layout, Layout::Blocked(_));
    if !in_blocks || [tail, point].iter().any(|&n| graph.node(n).layout != layout) {
        return Some(Err("their layouts differ".into()));
    }
    if depthwise.dilation != [1; 2] || kernel(first)?[2..].iter().product::<usize>() > DEPTHWISE_PLACES {
        return Some(Err(format!("the kernel of {} is too large", label(graph, first))));
    }
    let fits = users_read.then(|| pays(&y_shape, z_shape[1]));
    Some(fits.unwrap_or_else(|| Err("it reads the value twice".into())))
}

/// Whether it is faster to compute some rows of all `channels` of a 1x1 convolution at a time, right where its
/// input `[N, C, H, W]` is made; or why not.
fn pays(input: &[usize], channels: usize) -> Result<(), String> {
    let (weights, values) = (input[1] * channels, (input[1] + channels) * input[2] * input[3]);
    if weights > values {
        return Err(format!("its {weights} weights are more than the {values} values that cross it"));
    }
    let row = 4 * input[1] * input[3];
    if row > SCRATCH_BYTES {
        return Err(format!("a row of what it reads has {row} bytes, more than a task keeps"));
    }
    Ok(())
}

/// Whether the convolution `conv`, whose group ends with `tail`, had better be computed where the depthwise one is
/// that reads it, though neighbouring tasks compute some of its rows both: what it gives is then never in memory.
/// The rows of a picture and 1x1 convolutions are soon computed again.
pub(super) fn takes(graph: &Graph, [conv, tail, depthwise]: [NodeId; 3]) -> bool {
    let (Op::Conv2d(first), Op::Conv2d(slide)) = (&graph.node(conv).op, &graph.node(depthwise).op) else {
        return false;
    };
    let [x, filters] = [0, 1].map(|i| graph.operands(conv)[i]);
    let sizes = [filters, graph.operands(depthwise)[1], tail, depthwise].map(|n| graph.node(n).ty.sizes());
    let [Some(filters), Some(kernel), Some(wide), Some(out)] = sizes else { return false };
    let is_light = is_plain(first) && filters[2..] == [1, 1] || graph.node(x).layout == Layout::Plain;
    let is_far = 4 * wide[1..].iter().product::<usize>() > FAR_BYTES;
    if !is_light || first.groups != 1 || !is_far || !matches!(graph.node(tail).layout, Layout::Blocked(_)) {
        return false;
    }
    let (row, stride) = (4 * out[1] * out[3], slide.stride[0]);
    let rows = (SCRATCH_BYTES / row.max(1)).min(out[2].div_ceil(TASKS)) * stride;
    kernel[2].saturating_sub(stride) * AGAIN <= rows
}

/// True for a convolution that takes every pixel at its own place, of all channels.
fn is_plain(conv: &Conv2d) -> bool {
    conv.stride == [1; 2] && conv.padding == [0; 4] && conv.groups == 1
}
