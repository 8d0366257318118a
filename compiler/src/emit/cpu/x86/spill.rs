//! Registers that live in the stack frame: loaded before each use, or used from there as a memory
//! operand; stored after each definition. Constants are made again instead.

use super::fold::{memory_slots, put_memory};
use super::lir::{Base, Class, Function, Inst, Level, Mem, Op, Reg, RegInfo, Width};

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
                    let brief = fetch(f, &mut out, spilled, home);
                    inst.src.iter_mut().filter(|r| **r == spilled).for_each(|r| *r = brief);
                }
            }
        }
        // What commutes may have changed places; another memory operand is not possible.
        for slot in 0..3 {
            if let Some(home) = inst.src[slot].some().and_then(|r| home_of(&homes, r)) {
                inst.src[slot] = fetch(f, &mut out, inst.src[slot], home);
            }
        }
        if let Some(Mem { base: Base::Register(r), .. }) = inst.mem
            && let Some(home) = home_of(&homes, r)
        {
            let brief = fetch(f, &mut out, r, home);
            inst.mem = inst.mem.map(|m| Mem { base: Base::Register(brief), ..m });
        }
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
    let mut wanted = vec![false; f.regs.len()];
    for r in spilled {
        wanted[r.index()] = true;
    }
    for inst in &f.code {
        let Some(d) = inst.dst.some().filter(|d| wanted[d.index()] && !f.info(*d).variable) else { continue };
        let constant = inst.mem.is_some_and(|m| m.base == Base::Constants);
        if matches!(inst.op, Op::Zero | Op::Immediate) || constant && inst.src == [Reg::NONE; 3] {
            homes[d.index()] = Some(Home::Again(*inst));
        }
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
fn fetch(f: &mut Function, out: &mut Vec<Inst>, spilled: Reg, home: Home) -> Reg {
    let info = f.info(spilled);
    let dst = brief(f, info);
    out.push(match home {
        Home::Frame(mem) => Inst::new(Op::Load, info.width, dst, &[]).mem(mem),
        Home::Again(inst) => Inst { dst, ..inst },
    });
    dst
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
            let splat = f.level == Level::Avx512 && i.width == inst.width && inst.op != Op::MulWide;
            i.mem.filter(|_| splat)
        }
        Home::Again(i) => i.mem.filter(|_| i.width == inst.width),
    }
}
