//! Weights and inputs that both PyTorch and these tests make from names, so that only results need
//! to be stored (`tests/reference/*.json`, from PyTorch in f64).
//!
//! ```text
//! seed(name)    = FNV-1a 64 of the name
//! unit(name, i) = splitmix64(seed(name) + i * 0x9E3779B97F4A7C15) >> 40, / 2^24      in [0, 1)
//!
//! input "image"             2 * unit - 1
//! weights of rank >= 2      (2 * unit - 1) * sqrt(6 / fan_in), fan_in: all dimensions but the first
//! biases                    (2 * unit - 1) * 0.1
//! batch norm: weight, running_var     0.5 + unit
//! batch norm: running_mean            (2 * unit - 1) * 0.1
//! ```
//! `i` counts elements row-major; arithmetic in f32.

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use nnc::{Network, Tensor, Weights};

use super::unit::unit;

/// A tensor whose elements are a function of `unit`.
fn tensor(name: &str, shape: &[usize], f: impl Fn(f32) -> f32) -> Tensor {
    let values: Vec<f32> = unit(name, shape.iter().product()).map(f).collect();
    ArrayD::from_shape_vec(IxDyn(shape), values).expect("as many values as elements").into()
}

/// The input called `image`.
pub fn image(shape: &[usize]) -> Tensor {
    tensor("image", shape, |u| 2.0 * u - 1.0)
}

/// Weights for every parameter of a network.
pub fn weights(network: &Network) -> Weights {
    let shapes: BTreeMap<String, Vec<usize>> = network
        .parameters()
        .into_iter()
        .map(|p| (p.name, p.ty.sizes().expect("parameters of known shape")))
        .collect();
    let is_norm = |owner: &str| shapes.contains_key(&format!("{owner}.running_mean"));
    let fill = |(name, shape): (&String, &Vec<usize>)| {
        let (owner, kind) = name.rsplit_once('.').unwrap_or(("", name));
        let fan_in = shape.iter().skip(1).product::<usize>() as f32;
        let t = match kind {
            "weight" | "running_var" if is_norm(owner) => tensor(name, shape, |u| u + 0.5),
            "bias" | "running_mean" => tensor(name, shape, |u| (2.0 * u - 1.0) * 0.1),
            _ => tensor(name, shape, |u| (2.0 * u - 1.0) * (6.0 / fan_in).sqrt()),
        };
        (name.clone(), t)
    };
    Weights::from_map(shapes.iter().map(fill).collect())
}

/// The number of trainable parameters, with those that only training has.
pub fn parameter_count(network: &Network) -> usize {
    let is_statistic = |name: &str| name.ends_with(".running_mean") || name.ends_with(".running_var");
    let parameters = network.parameters();
    let all = parameters.iter().chain(network.training_only());
    all.filter(|p| !is_statistic(&p.name)).map(|p| p.ty.sizes().map_or(0, |s| s.iter().product())).sum()
}
