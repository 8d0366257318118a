//! Values that need no room while they wait: what makes them can be done again at each use.
//! Constants are such, and loads from places that nobody writes to in between.

use super::fold::unharmed;
use super::lir::{Base, Class, Function, Inst, Mem, Op, Reg};

/// The definition of a value, and what was then.
#[derive(Clone, Copy)]
struct Origin {
    at: usize,
    line: u32,
    stores: usize,
}

/// For each register, the instruction that makes its value again at every use, if there is one.
pub fn remakable(f: &Function) -> Vec<Option<Inst>> {
    let mut origins: Vec<Option<Origin>> = vec![None; f.regs.len()];
    let mut last_set = vec![0usize; f.regs.len()];
    let mut stores: Vec<Mem> = vec![];
    let mut line = 0;
    for (i, inst) in f.code.iter().enumerate() {
        for r in inst.reads() {
            let Some(origin) = origins[r.index()] else { continue };
            if !same_again(f, &f.code[origin.at], origin, line, &stores, &last_set) {
                origins[r.index()] = None;
            }
        }
        if inst.is_structure() {
            line += 1;
            stores.clear();
        }
        if inst.op == Op::Store {
            stores.extend(inst.mem);
        }
        if let Some(d) = inst.dst.some() {
            last_set[d.index()] = i;
            let info = f.info(d);
            if !info.variable && !info.brief && is_candidate(inst, info.class) {
                origins[d.index()] = Some(Origin { at: i, line, stores: stores.len() });
            }
        }
    }
    origins.iter().map(|o| o.map(|o| f.code[o.at])).collect()
}

fn is_candidate(inst: &Inst, class: Class) -> bool {
    match inst.op {
        Op::Zero | Op::Immediate => true,
        Op::Load | Op::Splat => class == Class::Vector && inst.src == [Reg::NONE; 3],
        _ => false,
    }
}

/// True if the instruction gives here what it gave there.
fn same_again(
    f: &Function,
    inst: &Inst,
    origin: Origin,
    line: u32,
    stores: &[Mem],
    last_set: &[usize],
) -> bool {
    let Some(mem) = inst.mem else { return true };
    let (fixed, unmoved) = match mem.base {
        Base::Constants => return true,
        Base::Frame => return false,
        Base::Register(b) => (!f.info(b).variable, last_set[b.index()] <= origin.at),
    };
    if line != origin.line {
        return fixed && mem.constant;
    }
    unmoved && (mem.constant || unharmed(&mem, &stores[origin.stores..]))
}
