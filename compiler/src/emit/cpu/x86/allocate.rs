//! Machine registers for virtual ones: a linear scan over intervals with holes.
//!
//! Intervals take registers in the order of their beginnings. Where none is free, what is used
//! least in its life goes to the stack frame, and the scan begins anew ([`super::spill`]).

use super::lir::{Class, Function, Inst, Level, Op, Reg};
use super::live_ranges::{Interval, Range, intervals};
use super::spill;

/// Numbers of machine registers in the order of preference: those that a function may change first.
/// (The stack pointer, 4, is not among them.)
const GENERAL: [u8; 15] = [0, 1, 2, 6, 7, 8, 9, 10, 11, 3, 5, 12, 13, 14, 15];

/// The registers of the arguments (System V): rdi, rsi, rdx, rcx.
const ARGUMENTS: [u8; 4] = [7, 6, 2, 1];

/// Rounds of spilling; each leaves less to spill, and real kernels need two or three.
const MOST_ROUNDS: usize = 64;

/// A machine register's number for each virtual register.
#[derive(Debug)]
pub struct Allocation {
    machine: Vec<u8>,
}

impl Allocation {
    const NONE: u8 = u8::MAX;

    pub fn of(&self, r: Reg) -> u8 {
        self.machine[r.index()]
    }
}

/// Gives every virtual register a machine register; the function may get loads and stores for it.
///
/// # Errors
/// If spilling does not end.
pub fn allocate(f: &mut Function) -> Result<Allocation, String> {
    for _ in 0..MOST_ROUNDS {
        let mut scan = Scan::new(f);
        for interval in intervals(f) {
            scan.place(f, interval)?;
        }
        if scan.spilled.is_empty() {
            return Ok(Allocation { machine: scan.machine });
        }
        spill::run(f, &scan.spilled);
    }
    Err("registers could not be allocated".into())
}

/// One machine register.
#[derive(Default)]
struct Slot {
    /// Intervals whose last range has not ended.
    owners: Vec<Interval>,
}

impl Slot {
    fn expire(&mut self, now: u32) {
        self.owners.retain(|o| o.end() >= now);
    }

    fn is_free(&self, interval: &Interval) -> bool {
        !self.owners.iter().any(|o| overlap(&o.ranges, &interval.ranges))
    }
}

/// True if a time is in both lists.
fn overlap(a: &[Range], b: &[Range]) -> bool {
    let (first, last) = (b[0].start, b[b.len() - 1].end);
    let a = &a[a.partition_point(|r| r.end < first)..];
    let mut b = b.iter().peekable();
    for r in a.iter().take_while(|r| r.start <= last) {
        while b.next_if(|s| s.end < r.start).is_some() {}
        match b.peek() {
            Some(s) if s.start <= r.end => return true,
            Some(_) => {}
            None => return false,
        }
    }
    false
}

struct Scan {
    machine: Vec<u8>,
    slots: [Vec<Slot>; 3],
    spilled: Vec<Reg>,
}

impl Scan {
    fn new(f: &Function) -> Scan {
        let slots = [16, if f.level == Level::Avx512 { 32 } else { 16 }, 8];
        Scan {
            machine: vec![Allocation::NONE; f.regs.len()],
            slots: slots.map(|n| (0..n).map(|_| Slot::default()).collect()),
            spilled: vec![],
        }
    }

    fn place(&mut self, f: &Function, interval: Interval) -> Result<(), String> {
        let class = f.info(interval.reg).class;
        let slots = &mut self.slots[class as usize];
        for s in slots.iter_mut() {
            s.expire(interval.start());
        }
        let made_by = &f.code[interval.start() as usize / 2];
        let argument = [ARGUMENTS[(made_by.imm & 3) as usize]];
        let order: &[u8] = match class {
            Class::General if is_argument(made_by, &interval) => &argument,
            Class::General => &GENERAL,
            Class::Vector => &VECTORS[..slots.len()],
            Class::Mask => &VECTORS[1..8],
        };
        let free = |m: &u8| slots[*m as usize].is_free(&interval);
        let chosen = match hints(f, made_by, &interval, &self.machine).find(|m| free(m)) {
            Some(m) => Some(m),
            None => order.iter().copied().find(free),
        };
        if let Some(m) = chosen {
            self.machine[interval.reg.index()] = m;
            slots[m as usize].owners.push(interval);
            return Ok(());
        }
        self.make_room(f, interval, order)
    }

    /// Spills the interval, or those in the way of it in one register.
    fn make_room(&mut self, f: &Function, interval: Interval, order: &[u8]) -> Result<(), String> {
        let class = f.info(interval.reg).class;
        let slots = &mut self.slots[class as usize];
        let weight = |i: &Interval| if f.info(i.reg).brief { f32::INFINITY } else { i.weight };
        let in_the_way = |m: u8| {
            let owners = slots[m as usize].owners.iter();
            owners.filter(|o| overlap(&o.ranges, &interval.ranges)).map(weight).sum::<f32>()
        };
        let (machine, cost) = order
            .iter()
            .map(|m| (*m, in_the_way(*m)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .ok_or("there are no registers of a class")?;
        if weight(&interval) <= cost {
            if f.info(interval.reg).brief {
                return Err("an instruction needs more registers than there are".into());
            }
            self.spilled.push(interval.reg);
            return Ok(());
        }
        let owners = &mut slots[machine as usize].owners;
        for o in owners.extract_if(.., |o| overlap(&o.ranges, &interval.ranges)) {
            self.spilled.push(o.reg);
            self.machine[o.reg.index()] = Allocation::NONE;
        }
        self.machine[interval.reg.index()] = machine;
        owners.push(interval);
        Ok(())
    }
}

const VECTORS: [u8; 32] = {
    let mut all = [0; 32];
    let mut i = 0;
    while i < 32 {
        all[i] = i as u8;
        i += 1;
    }
    all
};

fn is_argument(made_by: &Inst, interval: &Interval) -> bool {
    made_by.op == Op::Argument && made_by.dst == interval.reg
}

/// Registers that spare a copy: those of sources that the instruction overwrites.
fn hints(
    f: &Function,
    made_by: &Inst,
    interval: &Interval,
    machine: &[u8],
) -> impl Iterator<Item = u8> + use<> {
    let class = f.info(interval.reg).class;
    let sources = match made_by.op {
        Op::Fma => [2, 0, 1],
        _ => [0, 1, 2],
    };
    let mut all = [Allocation::NONE; 3];
    if made_by.dst == interval.reg {
        for (h, s) in all.iter_mut().zip(sources) {
            let of_class = |r: &Reg| f.info(*r).class == class;
            *h = made_by.src[s].some().filter(of_class).map_or(Allocation::NONE, |r| machine[r.index()]);
        }
    }
    all.into_iter().filter(|m| *m != Allocation::NONE)
}
