//! Proof that tasks do not touch each other's elements.
//!
//! All accesses to a written buffer are looked at together. A dimension *separates* task variables
//! if every access has the same terms `Σ c·t` in them there, and these work like digits: each `c`
//! is larger than all that the smaller digits and the rest of the index can add up to. If every
//! task variable is separated in some dimension, two tasks never meet in an element.

use crate::kernel::index::Atom;
use crate::kernel::{BufferId, Expr, Index, Kernel, Memory, Stmt, Var};
use nnc_runtime::program::Access;

/// What is done with one buffer.
#[derive(Clone, Default)]
struct Uses<'a> {
    written: bool,
    gathered: bool,
    places: Vec<&'a [Index]>,
}

/// The written global buffers for which there is no such proof.
pub fn unproved(kernel: &Kernel) -> Vec<BufferId> {
    let mut uses = vec![Uses::default(); kernel.buffers.len()];
    collect(&kernel.body, &mut uses);
    let global = |b: &usize| match kernel.buffers[*b].memory {
        Memory::Global(access) => access != Access::Read,
        _ => false,
    };
    (0..kernel.buffers.len())
        .filter(global)
        .filter(|&b| uses[b].written && (uses[b].gathered || !separate(kernel, &uses[b].places)))
        .map(|b| BufferId(b as u32))
        .collect()
}

fn collect<'a>(body: &'a [Stmt], uses: &mut [Uses<'a>]) {
    for stmt in body {
        match stmt {
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => collect(body, uses),
            Stmt::Store { buffer, index, value } => {
                uses[buffer.0 as usize].written = true;
                uses[buffer.0 as usize].places.push(index);
                value.walk(&mut |e| match e {
                    Expr::Load(b, i) => uses[b.0 as usize].places.push(i),
                    Expr::Gather { buffer, .. } => uses[buffer.0 as usize].gathered = true,
                    _ => {}
                });
            }
            Stmt::Joint(joint) => {
                joint.accesses().into_iter().for_each(|(b, i)| uses[b.0 as usize].places.push(i));
            }
            Stmt::Prefetch { .. } => {}
        }
    }
}

fn separate(kernel: &Kernel, places: &[&[Index]]) -> bool {
    let extents = kernel.extents();
    let mut missing: Vec<Var> = kernel.tasks.iter().copied().filter(|v| extents[v.0 as usize] > 1).collect();
    let rank = places.first().map_or(0, |p| p.len());
    for d in 0..rank {
        let mut digits: Option<Vec<(i64, Var)>> = None;
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        let mut same = true;
        for place in places {
            let (terms, rest) = split(kernel, &place[d]);
            let (l, h) = rest.range(&extents);
            low = low.min(l);
            high = high.max(h);
            same &= digits.get_or_insert_with(|| terms.clone()) == &terms;
        }
        let mut digits = digits.unwrap_or_default();
        digits.sort();
        let mut width = high - low;
        for (c, v) in digits {
            same &= c > width;
            width += c * (extents[v.0 as usize] as i64 - 1);
            if same {
                missing.retain(|m| *m != v);
            }
        }
    }
    missing.is_empty()
}

/// The terms of the index in task variables (absolute coefficients), and the rest.
fn split(kernel: &Kernel, i: &Index) -> (Vec<(i64, Var)>, Index) {
    let (mut terms, mut rest) = (vec![], i.clone());
    for (atom, &c) in &i.terms {
        match atom {
            Atom::Var(v) if kernel.tasks.contains(v) && c > 0 => {
                terms.push((c, *v));
                rest.terms.remove(atom);
            }
            _ => {}
        }
    }
    (terms, rest)
}
