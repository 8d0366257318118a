//! Registers that live in the stack frame: loaded before each use, or used from there as a memory
//! operand; stored after each definition. Constants are made again instead.

use super::fold::{memory_slots, put_memory, takes_splat};
use super::lir::{Base, Class, Function, Inst, Level, Mem, Op, Reg, RegInfo, Width};
use super::remake::remakable;

/// Where a spilled register's content comes from.
#[derive(Clone, Copy)]
enum Home {
    Frame(Mem),
    /// The instruction that makes it again.
    Again(Inst),
}

/// Rewrites the function without the registers.
pub fn run(f: &mut Function, spilled: &[Reg]) {
    let homes = homes(f, spilled);
    let code = std::mem::take(&mut f.code);
    let mut out = Vec::with_capacity(code.len() + code.len() / 4);
    for mut inst in code {
        if let Some(Home::Again(_)) = inst.dst.some().and_then(|d| home_of(&homes, d)) {
            continue;
        }
        for slot in 0..3 {
            let Some(home) = inst.src[slot].some().and_then(|r| home_of(&homes, r)) else { continue };
            match foldable(f, &inst, slot, &home) {
                Some(mem) => put_memory(&mut inst, slot, mem),
                None => {
                    let spilled = inst.src[slot];
                    let brief = fetch(f, &mut out, &homes, spilled, home);
                    inst.src.iter_mut().filter(|r| **r == spilled).for_each(|r| *r = brief);
                }
            }
        }
        // What commutes may have changed places; another memory operand is not possible.
        for slot in 0..3 {
            if let Some(home) = inst.src[slot].some().and_then(|r| home_of(&homes, r)) {
                inst.src[slot] = fetch(f, &mut out, &homes, inst.src[slot], home);
            }
        }
        let mut inst = with_base(f, &mut out, &homes, inst);
        let Some(Home::Frame(mem)) = inst.dst.some().and_then(|d| home_of(&homes, d)) else {
            out.push(inst);
            continue;
        };
        let info = f.info(inst.dst);
        inst.dst = brief(f, info);
        out.push(inst);
        out.push(Inst::new(Op::Store, info.width, Reg::NONE, &[inst.dst]).mem(mem));
    }
    f.code = out;
}

/// None for registers that stay, or were made just now.
fn home_of(homes: &[Option<Home>], r: Reg) -> Option<Home> {
    homes.get(r.index()).copied().flatten()
}

fn homes(f: &mut Function, spilled: &[Reg]) -> Vec<Option<Home>> {
    let mut homes = vec![None; f.regs.len()];
    let remakable = remakable(f);
    for r in spilled {
        homes[r.index()] = remakable[r.index()].map(Home::Again);
    }
    for r in spilled {
        if homes[r.index()].is_none() {
            let info = f.info(*r);
            let bytes = info.width.bytes() as u32;
            let offset = f.frame.next_multiple_of(bytes);
            f.frame = offset + bytes;
            let mem = Mem { base: Base::Frame, offset: offset as i32, splat: false, constant: false };
            homes[r.index()] = Some(Home::Frame(mem));
        }
    }
    homes
}

fn brief(f: &mut Function, info: RegInfo) -> Reg {
    f.regs.push(RegInfo { variable: false, brief: true, ..info });
    Reg(f.regs.len() as u32 - 1)
}

/// Brings the content into a register for one instruction.
fn fetch(f: &mut Function, out: &mut Vec<Inst>, homes: &[Option<Home>], spilled: Reg, home: Home) -> Reg {
    let info = f.info(spilled);
    let inst = match home {
        Home::Frame(mem) => Inst::new(Op::Load, info.width, Reg::NONE, &[]).mem(mem),
        Home::Again(inst) => with_base(f, out, homes, inst),
    };
    let dst = brief(f, info);
    out.push(Inst { dst, ..inst });
    dst
}

/// The instruction with the base of its memory operand in a register.
fn with_base(f: &mut Function, out: &mut Vec<Inst>, homes: &[Option<Home>], inst: Inst) -> Inst {
    let Some(Mem { base: Base::Register(r), .. }) = inst.mem else { return inst };
    let Some(home) = home_of(homes, r) else { return inst };
    let base = Base::Register(fetch(f, out, homes, r, home));
    Inst { mem: inst.mem.map(|m| Mem { base, ..m }), ..inst }
}

/// The memory operand that does instead of the source.
fn foldable(f: &Function, inst: &Inst, slot: usize, home: &Home) -> Option<Mem> {
    let spilled = inst.src[slot];
    let info = f.info(spilled);
    let once = inst.reads().filter(|r| *r == spilled).count() == 1;
    // The destination of a multiply-add is one of its sources: that had better be a register.
    let overwritten = inst.op == Op::Fma && slot == 2;
    if info.class != Class::Vector || !once || overwritten || memory_slots(inst, f.level) >> slot & 1 == 0 {
        return None;
    }
    match home {
        Home::Frame(mem) => (info.width >= inst.width && inst.width >= Width::Scalar).then_some(*mem),
        Home::Again(i) if i.mem.is_some_and(|m| m.splat) => {
            let splat = f.level == Level::Avx512 && i.width == inst.width && takes_splat(inst.op);
            i.mem.filter(|_| splat)
        }
        Home::Again(i) => i.mem.filter(|_| i.width == inst.width),
    }
}
