//! The order of the launches of each phase: one in which little memory is in use at once.
//!
//! Lowering gives an order that is right; any other that keeps what each launch reads is right, too,
//! and gives the same bits. In a training step the difference is large: a parameter can be updated as
//! soon as its gradient is there, or when all gradients are, and a copy of an activation that the
//! backward part needs can be made just before it is used, or long before.
//!
//! Finding the best order is NP-complete (Sethi, "Complete register allocation problems", 1975). Here,
//! for each result in turn, those that need least first, what it needs is computed *on demand*: depth
//! first, the longest road first (as Sethi and Ullman number the registers of an expression). Where
//! that needs no less than the given order, the given one stays: it is nearer to the source.
//!
//! In the prepare phase it is parameters that are freed early: each is read when the first launch needs it, and
//! forgotten after the last one.

use std::cmp::Reverse;
use std::ops::Range;

use nnc_runtime::program::Phase;

use super::jobs::Jobs;
use super::{arena_bytes, loading_bytes, touches};
use crate::kernel::module::Module;

/// Orders the launches.
pub fn run(module: &mut Module) {
    let first = module.launches.iter().take_while(|l| l.phase == Phase::Prepare).count();
    let prepare = order(module, 0..first, loading_bytes(module));
    let run = order(module, first..module.launches.len(), arena_bytes(module));
    let mut launches: Vec<Option<_>> = module.launches.drain(..).map(Some).collect();
    module.launches.extend(prepare.into_iter().chain(run).filter_map(|l| launches[l].take()));
}

/// An order of some launches that stand one after the other.
fn order(module: &Module, launches: Range<usize>, bytes: Vec<usize>) -> Vec<usize> {
    let touches = touches(module, &module.launches[launches.clone()]);
    best(&Jobs::new(touches.iter(), bytes)).into_iter().map(|j| launches.start + j).collect()
}

/// The better one of the given order and that on demand.
pub(super) fn best(jobs: &Jobs) -> Vec<usize> {
    let given: Vec<usize> = (0..jobs.len()).collect();
    let other = on_demand(jobs);
    if jobs.peak(&other) < jobs.peak(&given) { other } else { given }
}

/// Depth first from the results.
pub(super) fn on_demand(jobs: &Jobs) -> Vec<usize> {
    let depth = jobs.depths();
    let mut results: Vec<usize> = (0..jobs.len()).filter(|&j| jobs.after[j].is_empty()).collect();
    results.sort_by_key(|&j| (depth[j], j));
    let mut done = vec![false; jobs.len()];
    let mut order = Vec::with_capacity(jobs.len());
    // A job, and whether all that it needs has been put on the stack.
    let mut stack: Vec<(usize, bool)> = results.into_iter().rev().map(|j| (j, false)).collect();
    while let Some((job, ready)) = stack.pop() {
        if done[job] {
            continue;
        }
        if ready {
            done[job] = true;
            order.push(job);
            continue;
        }
        stack.push((job, true));
        let mut missing: Vec<usize> = jobs.before[job].iter().copied().filter(|&b| !done[b]).collect();
        // The last one is taken from the stack first.
        missing.sort_by_key(|&b| (depth[b], Reverse(b)));
        stack.extend(missing.into_iter().map(|b| (b, false)));
    }
    order
}
