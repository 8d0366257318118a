//! A thread an element: whatever a group computes, each element of the results on its own.

use nnc_runtime::program::Access;

use super::Made;
use crate::graph::NodeId;
use crate::kernel::{Expr, Index};
use crate::lower::access::Place;
use crate::lower::builder::{Builder, Scope};

/// The kernel of results of one shape; `None` if an element cannot be computed on its own. `is_flat`
/// says that all operands lie as the results do.
pub(super) fn kernel(scope: &Scope, name: &str, results: &[(NodeId, Place)], is_flat: bool) -> Option<Made> {
    let is_flat = is_flat && results.iter().all(|(_, p)| p.is_dense());
    let mut b = Builder::new(name, scope);
    // Results come first among the arguments.
    for (_, place) in results {
        b.bind(&if is_flat { place.flat() } else { place.clone() }, Access::Write, "out");
    }
    let out = &results[0].1;
    if is_flat {
        b.flat = Some(b.task("i", out.elements()));
        b.store_all(results, &[]);
    } else {
        let index = tasks(&mut b, &out.shape, &out.layout.order(out.shape.len()));
        b.store_all(results, &index);
    }
    finished(b)
}

/// The kernel that copies a tensor from place to place, whatever the layouts.
pub(in crate::lower) fn copy(scope: &Scope, name: &str, from: &Place, to: &Place) -> Option<Made> {
    let mut b = Builder::new(name, scope);
    if from.layout == to.layout && from.is_dense() && to.is_dense() {
        b.bind(&to.flat(), Access::Write, "out");
        let at = b.task("i", to.elements());
        let value = b.load_flat(from, "x", at.clone());
        b.flat = Some(at);
        b.store_at(to, &[], value);
    } else {
        b.bind(to, Access::Write, "out");
        let index = tasks(&mut b, &to.shape, &to.layout.order(to.shape.len()));
        let value = b.load(from, "x", &index);
        b.store_at(to, &index, value);
    }
    finished(b)
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
