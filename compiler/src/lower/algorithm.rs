//! Which algorithm computes a convolution: the cost model.
//!
//! Costs are cycles of one core, estimated from what the kernels do:
//!
//! * **Direct**: a vector multiply-add for every tap, input channel, pixel and vector of output channels, two
//!   a cycle, at [`DIRECT_SHARE`] of that peak.
//! * **Winograd**: the products, at [`PRODUCT_SHARE`] of the peak and with whole tiles and groups of output
//!   channels (partial ones compute what nobody uses); for every tile and vector of channels
//!   the input's and the output's transform ([`TRANSFORM_CYCLES`]); and, where weights are not known before the
//!   run (training), theirs ([`WEIGHT_CYCLES`]).
//! * Both read their weights from memory once: [`MEMORY_BYTES`] a cycle. Winograd's are 36/9 (or 16/9) as
//!   large. At batch 1 and few pixels this decides: 512 channels at 14x14 are 38 MB of weights. Winograd's are
//!   fetched ahead, so the slower one of arithmetic and memory counts in full, the other one by
//!   [`OVERLAP_LEFT`]; direct convolutions wait for theirs.
//! * A pooling whose windows Winograd's tiles do not hold (3x3, stride 2) is a kernel of its own after that
//!   algorithm, which costs [`POOL_APART_CYCLES`] a vector of the convolution's result. Direct convolutions pool
//!   their own rows, and compute those again that two tasks need: [`POOL_AGAIN`].
//!
//! Measured on two cores of a Xeon (Sapphire Rapids, 160 GFLOP/s a core at 2.5 to 3 GHz, 33 GB/s when both read
//! memory), batch 1, ms, and in brackets what these costs are at 3 GHz:
//!
//! | channels, pixels | direct | F(2x2) | F(4x4) |
//! |---|---|---|---|
//! | 512, 28x28 | | | 4.0 (3.6) |
//! | 512, 14x14 | | 1.7 (1.6) | 2.2 (2.1) |
//! | 256, 14x14 | | 0.43 (0.41) | 0.49 (0.53) |
//! | 512, 7x7 | 1.12 (1.16) | 0.79 (0.93) | |
//!
//! The cheapest wins; direct wins ties. What was chosen shows in the kernel's name (`conv2d_winograd4_relu`)
//! and in `nnc explain`. `nnc bench --profile` is the check.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::conv_taps::Slide;
use super::winograd::geometry::{Problem, pool_fits};
use super::winograd::transform::Transform;
use super::winograd::{VECTORS, fits};
use crate::graph::op::{AvgPool2d, MaxPool2d};
use crate::graph::{Graph, NodeId, Op};
use crate::pass::is_settled;
use crate::target::CpuTarget;

/// Share of the multiply-add peak that direct convolutions reach.
const DIRECT_SHARE: f64 = 0.85;

/// Share of the multiply-add peak that Winograd's products reach.
const PRODUCT_SHARE: f64 = 0.8;

/// Cycles of the input's and the output's transform of a tile, for a vector of channels: F(2×2), F(4×4).
const TRANSFORM_CYCLES: [[f64; 2]; 2] = [[50.0, 50.0], [120.0, 120.0]];

/// Cycles of the transform of a vector of filters.
const WEIGHT_CYCLES: f64 = 300.0;

/// Bytes of weights that memory gives a core a cycle while all cores read and multiply.
const MEMORY_BYTES: f64 = 3.5;

/// Cycles of a pooling of its own, for a vector of what it reads: written and read again in the last cache.
const POOL_APART_CYCLES: f64 = 24.0;

/// What rows that are computed twice add to a direct convolution whose pooling's windows overlap.
const POOL_AGAIN: f64 = 1.1;

/// What the faster one of arithmetic and memory still costs where weights are fetched ahead.
const OVERLAP_LEFT: f64 = 0.3;

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// As sums of products.
    Direct,
    /// By Winograd's algorithm.
    Winograd(Transform),
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Algorithm; 3] =
        [Algorithm::Direct, Algorithm::Winograd(Transform::F2), Algorithm::Winograd(Transform::F4)];

    /// A word for files and tables: `direct`, `winograd2`, `winograd4`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Direct => "direct",
            Algorithm::Winograd(Transform::F2) => "winograd2",
            Algorithm::Winograd(Transform::F4) => "winograd4",
        }
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(s: &str) -> Result<Algorithm, String> {
        let names: Vec<&str> = Algorithm::ALL.iter().map(|a| a.name()).collect();
        let found = Algorithm::ALL.into_iter().find(|a| a.name() == s);
        found.ok_or_else(|| format!("expected an algorithm ({}), found `{s}`", names.join(", ")))
    }
}

/// Algorithms by the name of the layer: what was measured to be fastest.
pub type Choices = BTreeMap<String, Algorithm>;

/// Who chooses the algorithms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Convolutions {
    /// The cost model.
    #[default]
    Fastest,
    /// Nobody, all are direct: nothing rounds otherwise than sums of products do (`--precision strict`).
    Direct,
    /// This one wherever it can be used: for tests and measurements.
    Always(Algorithm),
    /// Somebody who has measured them; the cost model, for layers that are not named.
    Measured(Arc<Choices>),
}

/// Options of lowering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LowerOptions {
    /// Who chooses the algorithms of convolutions.
    pub convolutions: Convolutions,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Algorithm::Direct => f.write_str("direct convolution"),
            Algorithm::Winograd(t) => {
                let m = t.outputs();
                write!(f, "Winograd F({m}x{m}, 3x3): {} products for {} results", t.products(), m * m)
            }
        }
    }
}

/// What was chosen for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The convolution's algorithm.
    pub algorithm: Algorithm,
    /// Whether the group's pooling, and what follows it, is a kernel of its own.
    pub pool_apart: bool,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = if self.pool_apart { ", the pooling in a kernel of its own" } else { "" };
        write!(f, "{}{rest}", self.algorithm)
    }
}

/// The convolution of a group, forward or transposed.
pub fn convolution_of(graph: &Graph, nodes: &[NodeId]) -> Option<NodeId> {
    nodes.iter().copied().find(|n| Slide::of(&graph.node(*n).op).is_some())
}

/// The algorithm of a group with a convolution, at the moment for 3x3 kernels; `None` if there is
/// no such choice. `prepared` is what is computed once, before the runs.
pub fn algorithm_of(
    graph: &Graph,
    nodes: &[NodeId],
    prepared: &HashSet<NodeId>,
    target: &CpuTarget,
    options: &LowerOptions,
) -> Option<Choice> {
    let anchor = convolution_of(graph, nodes)?;
    let problem = fits(graph, anchor, nodes[nodes.len() - 1], target)?;
    let [_, height, width] = problem.output;
    let pools = nodes.iter().find_map(|&n| match &graph.node(n).op {
        Op::MaxPool2d(MaxPool2d { window }) | Op::AvgPool2d(AvgPool2d { window, .. }) => Some(window),
        _ => None,
    });
    let overlaps = pools.is_some_and(|w| !pool_fits(w, [height, width]));
    let weight = graph.operands(anchor)[1];
    let known = is_settled(graph, weight) || prepared.contains(&weight);
    let model = || algorithm(&problem, overlaps, known, target);
    let algorithm = match &options.convolutions {
        Convolutions::Direct => Algorithm::Direct,
        Convolutions::Always(a) => *a,
        Convolutions::Fastest => model(),
        Convolutions::Measured(choices) => {
            choices.get(&graph.node(anchor).name).copied().unwrap_or_else(model)
        }
    };
    let pool_apart = overlaps && algorithm != Algorithm::Direct;
    Some(Choice { algorithm, pool_apart })
}

/// The cheapest algorithm for a 3x3 convolution of stride 1; `overlaps` where a pooling follows that
/// Winograd's tiles do not hold.
pub fn algorithm(problem: &Problem, overlaps: bool, prepared: bool, target: &CpuTarget) -> Algorithm {
    let [outs, height, width] = problem.output;
    let vectors = problem.images * height * width * outs.div_ceil(target.lanes);
    let (again, apart) = match overlaps {
        true => (POOL_AGAIN, POOL_APART_CYCLES * vectors as f64),
        false => (1.0, 0.0),
    };
    let mut best = (Algorithm::Direct, direct(problem, target) * again);
    for transform in [Transform::F2, Transform::F4] {
        let cost = winograd(problem, transform, prepared, target) + apart;
        if cost < best.1 {
            best = (Algorithm::Winograd(transform), cost);
        }
    }
    best.0
}

/// Cycles of a direct convolution.
fn direct(problem: &Problem, target: &CpuTarget) -> f64 {
    let [outs, height, width] = problem.output;
    let taps = 9 * problem.input[0];
    let vectors = problem.images * height * width * outs.div_ceil(target.lanes);
    let arithmetic = (taps * vectors) as f64 / 2.0 / DIRECT_SHARE;
    arithmetic + (4 * taps * outs) as f64 / MEMORY_BYTES
}

/// Cycles of Winograd's algorithm.
fn winograd(problem: &Problem, transform: Transform, prepared: bool, target: &CpuTarget) -> f64 {
    let [outs, channels] = [problem.output[0], problem.input[0]];
    let group = VECTORS * target.lanes;
    let vectors = outs.div_ceil(group) * VECTORS;
    let tiles = problem.images * problem.tiles(transform).iter().product::<usize>();
    let products = (transform.products() * tiles * channels * vectors) as f64 / 2.0 / PRODUCT_SHARE;
    let [input, output] = TRANSFORM_CYCLES[transform as usize];
    let transforms = tiles as f64
        * (input * channels.div_ceil(target.lanes) as f64 + output * outs.div_ceil(target.lanes) as f64);
    let weights = if prepared { 0.0 } else { WEIGHT_CYCLES * (channels * vectors) as f64 };
    let bytes = 4 * transform.products() * channels * vectors * target.lanes;
    overlapped(products + transforms + weights, bytes as f64 / MEMORY_BYTES)
}

fn overlapped(arithmetic: f64, memory: f64) -> f64 {
    arithmetic.max(memory) + OVERLAP_LEFT * arithmetic.min(memory)
}
