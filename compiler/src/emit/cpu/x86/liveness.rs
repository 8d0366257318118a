//! Which variables are live where. Values need no such analysis: one lives from its definition to
//! its last use, and to the end of every loop that has a use but not the definition.

use super::lir::{Function, Inst, Op, Reg};

/// A set of variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(Vec<u64>);

impl Set {
    fn new(count: usize) -> Set {
        Set(vec![0; count.div_ceil(64)])
    }

    pub fn has(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }

    pub fn insert(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    pub fn remove(&mut self, i: usize) {
        self.0[i / 64] &= !(1 << (i % 64));
    }

    fn zip(&mut self, other: &Set, f: impl Fn(u64, u64) -> u64) {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = f(*a, *b);
        }
    }

    pub fn add(&mut self, other: &Set) {
        self.zip(other, |a, b| a | b);
    }

    /// The variables in one set but not in the other.
    pub fn difference(&self, other: &Set) -> impl Iterator<Item = usize> + use<> {
        let words: Vec<u64> = self.0.iter().zip(&other.0).map(|(a, b)| a & !b).collect();
        words.into_iter().enumerate().flat_map(|(i, mut w)| {
            std::iter::from_fn(move || {
                let bit = (w != 0).then(|| w.trailing_zeros() as usize)?;
                w &= w - 1;
                Some(i * 64 + bit)
            })
        })
    }
}

/// The variables of a function, numbered.
#[derive(Debug)]
pub struct Variables {
    number: Vec<u32>,
    pub regs: Vec<Reg>,
}

impl Variables {
    pub fn new(f: &Function) -> Variables {
        let mut v = Variables { number: vec![u32::MAX; f.regs.len()], regs: vec![] };
        for (i, _) in f.regs.iter().enumerate().filter(|(_, r)| r.variable) {
            v.number[i] = v.regs.len() as u32;
            v.regs.push(Reg(i as u32));
        }
        v
    }

    /// The variable's number; none for a value.
    pub fn number(&self, r: Reg) -> Option<usize> {
        self.number.get(r.index()).filter(|n| **n != u32::MAX).map(|n| *n as usize)
    }
}

/// What a stretch of code reads before it writes, and what it surely writes.
#[derive(Clone)]
struct Summary {
    exposed: Set,
    written: Set,
}

impl Summary {
    fn new(count: usize) -> Summary {
        Summary { exposed: Set::new(count), written: Set::new(count) }
    }

    /// Puts another stretch in front.
    fn prepend(&mut self, first: &Summary) {
        self.exposed.zip(&first.written, |e, w| e & !w);
        self.exposed.add(&first.exposed);
        self.written.add(&first.written);
    }

    /// Either this or the other runs.
    fn join(&mut self, other: &Summary) {
        self.exposed.add(&other.exposed);
        self.written.zip(&other.written, |a, b| a & b);
    }
}

/// For each loop, in the order of their ends from the last: the variables that an iteration reads
/// before it writes them.
fn exposed(f: &Function, variables: &Variables) -> Vec<Set> {
    let count = variables.regs.len();
    let mut loops = vec![];
    // What follows in the region at hand; for open regions, what comes behind them and the other arm.
    let mut now = Summary::new(count);
    let mut open: Vec<(usize, Summary, Option<Summary>)> = vec![];
    for inst in f.code.iter().rev() {
        match inst.op {
            Op::EndLoop => {
                open.push((loops.len(), std::mem::replace(&mut now, Summary::new(count)), None));
                loops.push(Set::default());
            }
            Op::EndIf => open.push((0, std::mem::replace(&mut now, Summary::new(count)), None)),
            Op::Else => {
                let arm = std::mem::replace(&mut now, Summary::new(count));
                open.last_mut().expect("else is inside a branch").2 = Some(arm);
            }
            Op::Loop => {
                let (number, mut after, _) = open.pop().expect("loops nest");
                loops[number] = now.exposed.clone();
                after.prepend(&now);
                now = after;
            }
            Op::If => {
                let (_, mut after, other) = open.pop().expect("branches nest");
                now.join(&other.unwrap_or_else(|| Summary::new(count)));
                after.prepend(&now);
                now = after;
            }
            _ => {}
        }
        if let Some(v) = variables.number(inst.dst) {
            now.exposed.remove(v);
            now.written.insert(v);
        }
        for v in inst.reads().filter_map(|r| variables.number(r)) {
            now.exposed.insert(v);
        }
    }
    loops
}

/// Walks a function backwards and knows what is live.
pub struct Backward {
    /// Variables that are read later before they are written.
    pub live: Set,
    exposed: std::vec::IntoIter<Set>,
    /// Live behind the open branches, and at the beginning of their other arms.
    branches: Vec<(Set, Option<Set>)>,
}

impl Backward {
    pub fn new(f: &Function, variables: &Variables) -> Backward {
        let live = Set::new(variables.regs.len());
        Backward { live, exposed: exposed(f, variables).into_iter(), branches: vec![] }
    }

    /// Steps before a marker of structure.
    pub fn structure(&mut self, inst: &Inst) {
        match inst.op {
            Op::EndLoop => self.live.add(&self.exposed.next().expect("one a loop")),
            Op::EndIf => self.branches.push((self.live.clone(), None)),
            Op::Else => {
                let (after, arm) = self.branches.last_mut().expect("branches nest");
                *arm = Some(std::mem::replace(&mut self.live, after.clone()));
            }
            Op::If => {
                let (after, arm) = self.branches.pop().expect("branches nest");
                self.live.add(&arm.unwrap_or(after));
            }
            _ => {}
        }
    }
}
