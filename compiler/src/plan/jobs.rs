//! The launches of a run as the search for an order and for what to compute again sees them: which
//! values each reads and writes, what must run before it, and how much memory is in use while they run.

use std::collections::BTreeSet;

use nnc_runtime::program::Access;

/// The values that a launch reads and writes.
pub(super) type Touches = Vec<(usize, Access)>;

/// Launches that run one after the other, and what must run before what.
pub(super) struct Jobs {
    /// The jobs that must run before each, by number.
    pub before: Vec<Vec<usize>>,
    /// The jobs that must run after each.
    pub after: Vec<Vec<usize>>,
    /// The values of the arena that each has, each once.
    values: Vec<Vec<usize>>,
    /// How many jobs have a value.
    uses: Vec<usize>,
    /// Bytes of every value; 0 for those that are not in the arena.
    bytes: Vec<usize>,
}

impl Jobs {
    /// Of launches in an order that is right. `bytes` are those of the values in the arena, 0 elsewhere.
    pub fn new<'a>(launches: impl Iterator<Item = &'a Touches>, bytes: Vec<usize>) -> Jobs {
        let mut jobs =
            Jobs { before: vec![], after: vec![], values: vec![], uses: vec![0; bytes.len()], bytes };
        let mut touched = vec![Touched::default(); jobs.bytes.len()];
        for (j, touches) in launches.enumerate() {
            let (mut before, mut values) = (BTreeSet::new(), BTreeSet::new());
            for &(value, access) in touches {
                before.extend(touched[value].before(access));
                values.extend(Some(value).filter(|&v| jobs.bytes[v] > 0));
            }
            for &(value, access) in touches {
                touched[value].add(j, access);
            }
            jobs.after.push(vec![]);
            before.iter().for_each(|&b| jobs.after[b].push(j));
            values.iter().for_each(|&v| jobs.uses[v] += 1);
            jobs.before.push(before.into_iter().collect());
            jobs.values.push(values.into_iter().collect());
        }
        jobs
    }

    /// The number of jobs.
    pub fn len(&self) -> usize {
        self.before.len()
    }

    /// How many jobs must run before each, directly or not.
    pub fn depths(&self) -> Vec<usize> {
        let words = self.len().div_ceil(64);
        let mut sets: Vec<Vec<u64>> = vec![];
        for before in &self.before {
            let mut set = vec![0u64; words];
            for &b in before {
                set.iter_mut().zip(&sets[b]).for_each(|(a, b)| *a |= b);
                set[b / 64] |= 1 << (b % 64);
            }
            sets.push(set);
        }
        sets.iter().map(|s| s.iter().map(|w| w.count_ones() as usize).sum()).collect()
    }

    /// The most bytes of the arena that are in use during one job of an order.
    pub fn peak(&self, order: &[usize]) -> usize {
        let mut tracker = Tracker { jobs: self, left: self.uses.clone(), live: BTreeSet::new(), in_use: 0 };
        let level = |&job: &usize| {
            tracker.begin(job);
            let during = tracker.in_use;
            tracker.end(job);
            during
        };
        order.iter().map(level).max().unwrap_or(0)
    }
}

/// Who has touched a value so far.
#[derive(Clone, Default)]
struct Touched {
    writer: Option<usize>,
    /// Since it was written last.
    readers: Vec<usize>,
}

impl Touched {
    /// What must run before a job that does this to the value now: the writer of what it reads, the
    /// readers of what it overwrites.
    fn before(&self, access: Access) -> impl Iterator<Item = usize> {
        let readers = if access == Access::Read { &[][..] } else { &self.readers[..] };
        self.writer.into_iter().chain(readers.iter().copied())
    }

    fn add(&mut self, job: usize, access: Access) {
        if access == Access::Read {
            self.readers.push(job);
        } else {
            (self.writer, self.readers) = (Some(job), vec![]);
        }
    }
}

/// Memory in use while jobs run one after the other.
struct Tracker<'a> {
    jobs: &'a Jobs,
    /// Jobs to come that have a value.
    left: Vec<usize>,
    live: BTreeSet<usize>,
    in_use: usize,
}

impl Tracker<'_> {
    fn begin(&mut self, job: usize) {
        for &v in &self.jobs.values[job] {
            if self.live.insert(v) {
                self.in_use += self.jobs.bytes[v];
            }
        }
    }

    fn end(&mut self, job: usize) {
        for &v in &self.jobs.values[job] {
            self.left[v] -= 1;
            if self.left[v] == 0 {
                self.live.remove(&v);
                self.in_use -= self.jobs.bytes[v];
            }
        }
    }
}
