//! A decoded kernel: its code, parameters, variables and slots.

use std::collections::HashMap;

use crate::op::{Inst, L, P, Slot, W};

/// Special registers that have a value when a thread starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
}

impl Special {
    /// The special register of this name.
    pub fn parse(name: &str) -> Option<Special> {
        let axis = |c: &str| ["x", "y", "z"].iter().position(|&a| a == c).map(|a| a as u8);
        match name {
            "%laneid" => return Some(Special::LaneId),
            "%warpid" => return Some(Special::WarpId),
            _ => {}
        }
        let (base, c) = name.split_once('.')?;
        match base {
            "%tid" => axis(c).map(Special::Tid),
            "%ntid" => axis(c).map(Special::Ntid),
            "%ctaid" => axis(c).map(Special::Ctaid),
            "%nctaid" => axis(c).map(Special::Nctaid),
            _ => None,
        }
    }
}

/// A `.shared` or `.local` variable. Every variable has a window of addresses of its own, so that
/// an offset that leaves it hits nothing.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub name: String,
    pub bytes: u32,
    pub align: u32,
    /// `.extern .shared x[]`: its size is the launch's.
    pub dynamic: bool,
}

/// log2 of the addresses between variables.
pub(crate) const WINDOW: u32 = 20;

/// A parameter of a kernel.
#[derive(Clone, Debug)]
pub(crate) struct Param {
    pub name: String,
    pub bytes: u32,
    pub offset: u32,
}

/// A decoded kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    pub name: String,
    pub params: Vec<Param>,
    pub param_bytes: u32,
    pub shared: Vec<Variable>,
    pub local: Vec<Variable>,
    pub code: Vec<Inst>,
    /// Names of the slots of each file, for messages.
    pub preds: Vec<String>,
    pub words: Vec<String>,
    pub longs: Vec<String>,
    pub constant_words: HashMap<u32, W>,
    pub constant_longs: HashMap<u64, L>,
    pub specials: HashMap<Special, W>,
    /// `.maxntid`: the most threads of a block.
    pub max_threads: Option<u64>,
    /// `.reqntid`: the shape of a block.
    pub required: Option<[u32; 3]>,
}

impl Kernel {
    /// A slot's name in the text.
    pub fn slot_name(&self, slot: Slot) -> String {
        match slot {
            Slot::P(P(i)) => self.preds[usize::from(i)].clone(),
            Slot::W(W(i)) => self.words[usize::from(i)].clone(),
            Slot::L(L(i)) => self.longs[usize::from(i)].clone(),
        }
    }
}
