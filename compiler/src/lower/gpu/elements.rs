//! A thread an element, or four neighbours: whatever a group computes, each element of the results on its own.

use nnc_runtime::program::Access;

use super::schedule::{GpuOptions, lanes_of};
use super::wide::is_wide;
use super::{Made, turned};
use crate::graph::NodeId;
use crate::kernel::{Expr, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Scope};

/// The kernel of results of one shape; `None` if an element cannot be computed on its own. `is_flat`
/// says that all operands lie as the results do.
pub(super) fn kernel(
    scope: &Scope,
    name: &str,
    results: &[(NodeId, Place)],
    is_flat: bool,
    options: GpuOptions,
) -> Option<Made> {
    let places: Vec<&Place> = results.iter().map(|(_, p)| p).collect();
    let elements = Elements { scope, name, places: &places, is_flat };
    elements.kernel(options, &|b, index| b.store_all(results, index))
}

/// The kernel that copies a tensor from place to place, whatever the layouts.
pub(in crate::lower) fn copy(scope: &Scope, name: &str, from: &Place, to: &Place) -> Option<Made> {
    if let Some(made) = turned::relayout(scope, name, from, to) {
        return Some(made);
    }
    let is_flat = from.layout == to.layout && from.is_dense();
    let elements = Elements { scope, name, places: &[to], is_flat };
    elements.kernel(GpuOptions::default(), &|b, index| {
        let value = match b.flat.clone() {
            Some(at) => b.load_flat(from, "x", at),
            None => b.load(from, "x", index),
        };
        b.store_at(to, index, value);
    })
}

/// A kernel for every element of some places of one shape and layout.
pub(super) struct Elements<'e> {
    pub scope: &'e Scope<'e>,
    pub name: &'e str,
    pub places: &'e [&'e Place],
    /// Whether all that is read lies as they do.
    pub is_flat: bool,
}

/// Computes what belongs to an index (or to the builder's flat index), and stores it.
type Body<'b> = dyn Fn(&mut Builder, &[Index]) + 'b;

impl Elements<'_> {
    /// With a thread for four neighbours, where all that they access lies so; else for one.
    pub fn kernel(&self, options: GpuOptions, body: &Body) -> Option<Made> {
        if let Some(lanes) = lanes_of(self.places[0].elements(), options)
            && let Some(made) = self.of_lanes(lanes, body)
            && is_wide(&made, lanes)
        {
            return Some(made);
        }
        self.of_lanes(1, body)
    }

    fn of_lanes(&self, lanes: usize, body: &Body) -> Option<Made> {
        let is_flat = self.is_flat && self.places.iter().all(|p| p.is_dense());
        let mut b = Builder::new(self.name, self.scope);
        // Results come first among the arguments.
        for place in self.places {
            b.bind(&if is_flat { place.flat() } else { (*place).clone() }, Access::Write, "out");
        }
        let out = self.places[0];
        if is_flat {
            if !out.elements().is_multiple_of(lanes) {
                return None;
            }
            let task = b.task("i", out.elements() / lanes);
            with_lanes(&mut b, lanes, |b, lane| {
                b.flat = Some(task * lanes as i64 + lane);
                body(b, &[]);
            });
        } else {
            let order = out.layout.order(out.shape.len());
            // Pictures of one pixel lie side by side.
            let inner = order.iter().rev().copied().find(|&d| out.shape[d] > 1);
            let mut shape = out.shape.clone();
            if let Some(d) = inner {
                if !shape[d].is_multiple_of(lanes) {
                    return None;
                }
                shape[d] /= lanes;
            } else if lanes > 1 {
                return None;
            }
            let mut index = tasks(&mut b, &shape, &order);
            with_lanes(&mut b, lanes, |b, lane| {
                if let Some(d) = inner {
                    index[d] = index[d].clone() * lanes as i64 + lane;
                }
                body(b, &index);
            });
        }
        finished(b)
    }
}

/// Does something for so many lanes, or plainly for one.
pub(super) fn with_lanes<'a>(b: &mut Builder<'a>, lanes: usize, body: impl FnOnce(&mut Builder<'a>, Index)) {
    match lanes {
        1 => body(b, Index::default()),
        _ => b.with_lanes(lanes, body),
    }
}

/// The kernel that fills a tensor, a thread an element: what `element` says of its index.
pub(in crate::lower) fn each_element(
    scope: &Scope,
    name: &str,
    to: &Place,
    element: &dyn Fn(&mut Builder, &[Index]) -> Expr,
) -> Option<Made> {
    let mut b = Builder::new(name, scope);
    b.bind(to, Access::Write, "out");
    let index = tasks(&mut b, &to.shape, &to.layout.order(to.shape.len()));
    let value = element(&mut b, &index);
    b.store_at(to, &index, value);
    finished(b)
}

/// A task dimension for every dimension of a tensor, in that order: neighbouring threads are neighbours along the
/// last of them.
pub(super) fn tasks(b: &mut Builder, shape: &[usize], order: &[usize]) -> Vec<Index> {
    let name = |d: usize| if shape.len() == 4 { ["n", "c", "h", "w"][d] } else { "i" };
    let mut index = vec![Index::default(); shape.len()];
    for &d in order {
        index[d] = b.task(name(d), shape[d]);
    }
    index
}

/// The kernel, unless it met an index that it was not made for.
pub(super) fn finished(b: Builder) -> Option<Made> {
    let failed = b.failed;
    let made = b.finish();
    (!failed).then_some(made)
}
