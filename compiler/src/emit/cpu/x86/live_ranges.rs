//! When each register is live: ranges of time. Instruction `i` reads at time `2i` and writes at
//! `2i + 1`. A value has one range, a variable may have holes.

use super::fold::last_uses;
use super::lir::{Function, Op, Reg};
use super::liveness::{Backward, Variables};
use super::remake::remakable;

/// Times from the first to the second, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: u32,
    pub end: u32,
}

/// A register's life.
#[derive(Clone, Debug)]
pub struct Interval {
    pub reg: Reg,
    /// In order, apart.
    pub ranges: Vec<Range>,
    /// What spilling would cost, by a rough count of executions.
    pub weight: f32,
}

impl Interval {
    pub fn start(&self) -> u32 {
        self.ranges.first().map_or(0, |r| r.start)
    }

    pub fn end(&self) -> u32 {
        self.ranges.last().map_or(0, |r| r.end)
    }

    fn length(&self) -> u32 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }
}

/// How much more often the inside of a loop runs.
const ITERATIONS: f32 = 8.0;

/// What is made again instead of kept costs so much less: a memory operand, and nothing is stored.
const REMAKING: f32 = 1.0 / 16.0;

/// The intervals of all registers, by their beginnings.
pub fn intervals(f: &Function) -> Vec<Interval> {
    let variables = Variables::new(f);
    let weights = weights(f);
    let remakable = remakable(f);
    let last = last_uses(f);
    let mut found: Vec<Interval> = vec![];
    for (i, inst) in f.code.iter().enumerate() {
        let Some(dst) = inst.dst.some() else { continue };
        if variables.number(dst).is_none() {
            let start = 2 * i as u32 + 1;
            let until = last[dst.index()];
            // To the end of a loop means past its jump back.
            let jump = f.code[until as usize].op == Op::EndLoop;
            let end = (2 * until + u32::from(jump)).max(start);
            found.push(Interval { reg: dst, ranges: vec![Range { start, end }], weight: 0.0 });
        }
    }
    for (reg, mut ranges) in variables.regs.iter().zip(variable_ranges(f, &variables)) {
        ranges.reverse();
        join(&mut ranges);
        if !ranges.is_empty() {
            found.push(Interval { reg: *reg, ranges, weight: 0.0 });
        }
    }
    for interval in &mut found {
        let share = if remakable[interval.reg.index()].is_some() { REMAKING } else { 1.0 };
        interval.weight = share * weights[interval.reg.index()] / (interval.length() + 8) as f32;
    }
    found.sort_by_key(Interval::start);
    found
}

/// Joins ranges that touch.
fn join(ranges: &mut Vec<Range>) {
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for r in ranges.drain(..) {
        match joined.last_mut() {
            Some(l) if r.start <= l.end + 1 => l.end = l.end.max(r.end),
            _ => joined.push(r),
        }
    }
    *ranges = joined;
}

fn weights(f: &Function) -> Vec<f32> {
    let mut weights = vec![0.0; f.regs.len()];
    let mut often = 1.0;
    for inst in &f.code {
        if inst.op == Op::Loop {
            often *= ITERATIONS;
        }
        for r in inst.reads().chain(inst.dst.some()) {
            weights[r.index()] += often;
        }
        if inst.op == Op::EndLoop {
            often /= ITERATIONS;
        }
    }
    weights
}

/// The ranges of variables, from the last to the first.
fn variable_ranges(f: &Function, variables: &Variables) -> Vec<Vec<Range>> {
    let count = variables.regs.len();
    let mut ranges = vec![vec![]; count];
    // The ends of the ranges that are open.
    let mut until = vec![0u32; count];
    let mut walk = Backward::new(f, variables);
    for (i, inst) in f.code.iter().enumerate().rev() {
        let time = 2 * i as u32;
        if inst.is_structure() {
            let before = walk.live.clone();
            walk.structure(inst);
            for v in before.difference(&walk.live) {
                ranges[v].push(Range { start: time + 1, end: until[v] });
            }
            for v in walk.live.difference(&before) {
                until[v] = time + 1;
            }
        }
        if let Some(v) = variables.number(inst.dst) {
            let end = if walk.live.has(v) { until[v] } else { time + 1 };
            ranges[v].push(Range { start: time + 1, end });
            walk.live.remove(v);
        }
        for v in inst.reads().filter_map(|r| variables.number(r)) {
            if !walk.live.has(v) {
                walk.live.insert(v);
                until[v] = time;
            }
        }
    }
    // Read before it was written: whatever the register holds.
    for v in walk.live.difference(&Backward::new(f, variables).live) {
        ranges[v].push(Range { start: 0, end: until[v] });
    }
    ranges
}
