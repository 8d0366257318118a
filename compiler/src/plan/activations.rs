//! The values of the forward part that the backward part needs: which are kept, which are computed
//! again, and what decided. For people who want to know where the memory of a training step goes.

use std::fmt::{self, Display, Formatter};

use nnc_runtime::program::Access;

use super::recompute::{Base, Obstacle};
use super::usage::{Kind, Roles};
use super::{Plan, accesses};
use crate::kernel::module::{Module, ValueId};

/// What becomes of a value between the forward and the backward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays in memory.
    Kept,
    /// It is dropped, and its kernels run again before the backward part needs it.
    Recomputed,
}

/// A value of the forward part that the backward part needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Activation {
    /// The layers whose kernel makes it: `conv1 + bn1`.
    pub layers: String,
    /// Where these are written: `vgg.nn:9`.
    pub location: String,
    /// The kernel: `conv2d_relu`.
    pub kernel: String,
    /// Its size.
    pub bytes: usize,
    /// Floating-point operations that make it once more.
    pub flops: u64,
    /// The kernels of the backward part that read it, each once.
    pub readers: Vec<String>,
    /// What becomes of it.
    pub fate: Fate,
    /// Why it cannot be dropped, if it cannot.
    pub obstacle: Option<Obstacle>,
}

impl Activation {
    /// What decided, in words. `limited` if there is a limit to memory.
    pub fn rule(&self, limited: bool) -> String {
        match (self.fate, self.obstacle) {
            (Fate::Recomputed, _) => "for the limit".into(),
            (Fate::Kept, Some(obstacle)) => obstacle.to_string(),
            (Fate::Kept, None) if limited => "there is room".into(),
            (Fate::Kept, None) => "no limit asks for its room".into(),
        }
    }
}

impl Display for Fate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Fate::Kept => "kept",
            Fate::Recomputed => "computed again",
        })
    }
}

/// The activations of a training step in the order in which they are made; none in inference.
pub fn activations(module: &Module, plan: &Plan) -> Vec<Activation> {
    let (roles, base) = (Roles::of(module), Base::new(module));
    let copy = |v: usize| module.recomputed.iter().find(|&&(_, first)| first == ValueId(v as u32));
    let mut out = vec![];
    let mut seen = vec![false; module.values.len()];
    for launch in &module.launches {
        for (v, access) in accesses(module, launch) {
            let copy = copy(v).map(|&(copy, _)| copy.0 as usize);
            let needed = roles.kinds[v] == Kind::Activations || copy.is_some();
            if access == Access::Read || !needed || std::mem::replace(&mut seen[v], true) {
                continue;
            }
            let makers = module.launches.iter().enumerate().filter(|&(l, _)| writes(module, l, v));
            out.push(Activation {
                layers: launch.layer.clone(),
                location: launch.location.clone(),
                kernel: module.kernels[launch.kernel].name.clone(),
                bytes: plan.bytes[v],
                flops: makers.map(|(_, l)| module.kernels[l.kernel].flops).sum(),
                readers: readers(module, &roles, copy.unwrap_or(v)),
                fate: if copy.is_some() { Fate::Recomputed } else { Fate::Kept },
                obstacle: if copy.is_some() { None } else { base.obstacle(v) },
            });
        }
    }
    out
}

fn writes(module: &Module, launch: usize, value: usize) -> bool {
    accesses(module, &module.launches[launch]).any(|(v, access)| v == value && access != Access::Read)
}

fn readers(module: &Module, roles: &Roles, value: usize) -> Vec<String> {
    let mut out: Vec<String> = vec![];
    for (launch, &forward) in module.launches.iter().zip(&roles.forward) {
        let reads = || accesses(module, launch).any(|(v, a)| v == value && a != Access::Write);
        let name = &module.kernels[launch.kernel].name;
        if !forward && reads() && !out.contains(name) {
            out.push(name.clone());
        }
    }
    out
}
