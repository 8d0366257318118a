//! Makes instructions fewer: what nobody reads goes; a load that is used once becomes its user's
//! memory operand; copies to and from variables go where the variable itself can be used.

use super::lir::{Function, Inst, Level, Mem, Op, Reg, Width};
use super::liveness::{Backward, Variables};

/// A load moves behind so many stores at most, if they are to other places.
const MOST_STORES: usize = 64;

/// Runs all of it.
pub fn run(f: &mut Function) {
    remove_dead(f);
    fold_loads(f);
    merge_copies(f);
}

/// Removes instructions without effect whose results nobody reads.
fn remove_dead(f: &mut Function) {
    let variables = Variables::new(f);
    let mut walk = Backward::new(f, &variables);
    let mut used = vec![false; f.regs.len()];
    let mut keep = vec![true; f.code.len()];
    for (i, inst) in f.code.iter().enumerate().rev() {
        walk.structure(inst);
        if !inst.has_effect() {
            keep[i] = match variables.number(inst.dst) {
                Some(v) => walk.live.has(v),
                None => used[inst.dst.index()],
            };
            if !keep[i] {
                continue;
            }
        }
        if let Some(v) = variables.number(inst.dst) {
            walk.live.remove(v);
        }
        for r in inst.reads() {
            match variables.number(r) {
                Some(v) => walk.live.insert(v),
                None => used[r.index()] = true,
            }
        }
    }
    let mut kept = keep.iter();
    f.code.retain(|_| *kept.next().expect("one each"));
}

/// The sources at which an instruction can have a memory operand, as bits.
pub fn memory_slots(inst: &Inst, level: Level) -> u8 {
    if inst.mem.is_some() {
        return 0;
    }
    match inst.op {
        Op::Fma => 0b111,
        Op::AddF | Op::MulF | Op::AndI | Op::OrI | Op::XorI | Op::AddI | Op::MulI | Op::MaxI | Op::MinI => {
            0b11
        }
        Op::EqualI | Op::MulWide => 0b11,
        Op::SubF | Op::DivF | Op::MaxF | Op::MinF | Op::SubI | Op::ShlLanes | Op::SarLanes | Op::DivD => 0b10,
        Op::CompareF | Op::CompareI | Op::GreaterI | Op::Blend | Op::BlendImmediate => 0b10,
        Op::Sqrt | Op::Round | Op::AbsI | Op::IntToFloat | Op::FloatToInt => 0b1,
        Op::ShlLanesImmediate | Op::SarLanesImmediate | Op::ShrLanesImmediate if level == Level::Avx512 => {
            0b1
        }
        _ => 0,
    }
}

/// True if the memory operand may be one element for all lanes.
pub fn takes_splat(op: Op) -> bool {
    !matches!(op, Op::MulWide | Op::DivD | Op::BlendImmediate)
}

/// Puts a memory operand in the place of a source. Sources that commute change places for it.
pub fn put_memory(inst: &mut Inst, slot: usize, mem: Mem) {
    let mut slot = slot;
    if inst.op != Op::Fma && slot == 0 && inst.src[1] != Reg::NONE {
        inst.src.swap(0, 1);
        slot = 1;
    }
    inst.src[slot] = Reg::NONE;
    inst.mem = Some(mem);
    inst.mem_at = slot as u8;
}

/// A load that may still move down to its user.
#[derive(Clone, Copy)]
struct Pending {
    at: usize,
    line: u32,
    stores: usize,
}

fn fold_loads(f: &mut Function) {
    let mut uses = vec![0u32; f.regs.len()];
    for r in f.code.iter().flat_map(|i| i.reads()) {
        uses[r.index()] += 1;
    }
    let mut loads: Vec<Option<Pending>> = vec![None; f.regs.len()];
    let mut stores: Vec<Mem> = vec![];
    let mut gone = vec![false; f.code.len()];
    let mut line = 0;
    for i in 0..f.code.len() {
        let mut inst = f.code[i];
        if inst.is_structure() {
            line += 1;
            stores.clear();
            continue;
        }
        for slot in 0..3 {
            let Some(r) = inst.src[slot].some() else { continue };
            let Some(load) = loads[r.index()] else { continue };
            let from = f.code[load.at];
            let mem = from.mem.expect("loads have a place");
            let still = load.line == line && (mem.constant || unharmed(&mem, &stores[load.stores..]));
            if still && fits(&inst, slot, &from, &mem, f.level) {
                take_over(&mut inst, slot, mem);
                gone[load.at] = true;
            }
        }
        f.code[i] = inst;
        if inst.op == Op::Store {
            stores.extend(inst.mem);
        }
        let loads_only = matches!(inst.op, Op::Load | Op::Splat) && inst.mem.is_some();
        if loads_only && uses[inst.dst.index()] == 1 && !f.regs[inst.dst.index()].variable {
            // A splat that took over a load counts from where that was; no store came between.
            loads[inst.dst.index()] = Some(Pending { at: i, line, stores: stores.len() });
        }
    }
    let mut gone = gone.iter();
    f.code.retain(|_| !gone.next().expect("one each"));
}

/// The user reads the memory itself.
fn take_over(inst: &mut Inst, slot: usize, mem: Mem) {
    match inst.op {
        Op::Splat | Op::SplatGeneral => {
            inst.op = Op::Splat;
            inst.src[0] = Reg::NONE;
            inst.mem = Some(Mem { splat: true, ..mem });
        }
        Op::ToVector => *inst = Inst::new(Op::Load, Width::Scalar, inst.dst, &[]).mem(mem),
        _ => put_memory(inst, slot, mem),
    }
}

/// True if none of the stores writes where the load reads, as far as one can see.
pub fn unharmed(load: &Mem, stores: &[Mem]) -> bool {
    let apart = |s: &Mem| s.base == load.base && (i64::from(s.offset) - i64::from(load.offset)).abs() >= 64;
    stores.len() <= MOST_STORES && stores.iter().all(apart)
}

fn fits(inst: &Inst, slot: usize, load: &Inst, mem: &Mem, level: Level) -> bool {
    if matches!(inst.op, Op::Splat | Op::SplatGeneral) {
        return load.op == Op::Load && matches!(load.width, Width::Scalar | Width::Double);
    }
    if inst.op == Op::ToVector {
        return load.op == Op::Load && load.width == Width::Double;
    }
    if memory_slots(inst, level) >> slot & 1 == 0 || load.width != inst.width {
        return false;
    }
    !mem.splat || level == Level::Avx512 && takes_splat(inst.op)
}

/// Where the reads and definitions of registers are.
struct Places {
    /// The last use of each value, with the loops around it.
    last: Vec<u32>,
    /// The places where each variable is set, in order.
    sets: Vec<Vec<u32>>,
}

impl Places {
    fn new(f: &Function) -> Places {
        let mut p = Places { last: last_uses(f), sets: vec![vec![]; f.regs.len()] };
        for (i, inst) in f.code.iter().enumerate() {
            if inst.dst.some().is_some_and(|d| f.info(d).variable) {
                p.sets[inst.dst.index()].push(i as u32);
            }
        }
        p
    }

    /// The first place after another at which the variable is set.
    fn next_set(&self, variable: Reg, after: usize) -> u32 {
        let sets = &self.sets[variable.index()];
        let next = sets.partition_point(|s| *s <= after as u32);
        sets.get(next).copied().unwrap_or(u32::MAX)
    }
}

/// The last instruction during which each value must be kept: its last use, or the end of the
/// outermost loop around a use that does not contain the definition.
pub fn last_uses(f: &Function) -> Vec<u32> {
    let ends = loop_ends(f);
    let mut last = vec![0u32; f.regs.len()];
    // The number of the loops around each definition, and the loops around the current place.
    let mut depth = vec![0u32; f.regs.len()];
    let mut open: Vec<usize> = vec![];
    for (i, inst) in f.code.iter().enumerate() {
        if inst.op == Op::Loop {
            open.push(i);
        }
        for r in inst.reads() {
            let outermost = open.get(depth[r.index()] as usize);
            let until = outermost.map_or(i as u32, |l| ends[*l]);
            last[r.index()] = last[r.index()].max(until);
        }
        if inst.op == Op::EndLoop {
            open.pop();
        }
        if inst.dst != Reg::NONE {
            depth[inst.dst.index()] = open.len() as u32;
        }
    }
    last
}

/// For the place of each loop's beginning, that of its end.
pub fn loop_ends(f: &Function) -> Vec<u32> {
    let mut ends = vec![0; f.code.len()];
    let mut open = vec![];
    for (i, inst) in f.code.iter().enumerate() {
        match inst.op {
            Op::Loop => open.push(i),
            Op::EndLoop => ends[open.pop().expect("loops nest")] = i as u32,
            _ => {}
        }
    }
    ends
}

/// A value copied from a variable is the variable until that is set; a value that a variable is
/// set to is computed in the variable, if nobody needs the old content in between.
fn merge_copies(f: &mut Function) {
    let places = Places::new(f);
    let count = f.regs.len();
    let mut same: Vec<Reg> = (0..count as u32).map(Reg).collect();
    let mut seen = vec![false; count];
    // Of values: place and straight line of the definition. Of variables: last read and last set.
    let mut defined = vec![(0usize, u32::MAX); count];
    let mut last_read = vec![0usize; count];
    let mut last_set = vec![0usize; count];
    let mut line = 0;
    let mut gone = vec![false; f.code.len()];
    for (i, gone) in gone.iter_mut().enumerate() {
        let mut inst = f.code[i];
        line += u32::from(inst.is_structure());
        let copied = inst.src[0];
        inst.each_read(|r| *r = same[r.index()]);
        let dst = inst.dst;
        if inst.op == Op::Copy && inst.mem.is_none() {
            let source = inst.src[0];
            let from_variable = f.info(source).variable;
            if source == dst {
                *gone = true;
                continue;
            }
            if from_variable && !f.info(dst).variable {
                if places.next_set(source, i) >= places.last[dst.index()] {
                    same[dst.index()] = source;
                    *gone = true;
                    continue;
                }
            } else if !from_variable && copied == source {
                let (at, its_line) = defined[source.index()];
                let free = its_line == line
                    && !seen[source.index()]
                    && last_read[dst.index()] <= at
                    && last_set[dst.index()] < at
                    && places.next_set(dst, i) >= places.last[source.index()]
                    && f.code[at].op != Op::Argument;
                if free {
                    f.code[at].dst = dst;
                    same[source.index()] = dst;
                    last_set[dst.index()] = at;
                    last_read[dst.index()] = last_read[dst.index()].max(at);
                    *gone = true;
                    continue;
                }
            }
        }
        for r in inst.reads() {
            seen[r.index()] = true;
            last_read[r.index()] = i;
        }
        if let Some(d) = dst.some() {
            defined[d.index()] = (i, line);
            last_set[d.index()] = i;
        }
        f.code[i] = inst;
    }
    let mut gone = gone.iter();
    f.code.retain(|_| !gone.next().expect("one each"));
}
