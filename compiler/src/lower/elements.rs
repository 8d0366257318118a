//! Kernels that compute every element of a tensor on its own: which loops, which tasks, and
//! whether the innermost loop is one of vectors.
//!
//! The loops run in the order of memory, so that the innermost one stores side by side. Three
//! forms are tried, the first that fits is taken: one flat loop of vectors (elementwise work on
//! equal dense tensors), vectors along the innermost dimension, scalars.

use nnc_runtime::program::Access;

use super::access::{Place, position};
use super::builder::{Builder, Scope, is_vectorisable};
use crate::graph::Layout;
use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Guard, Index, Kernel, row_major};

/// Operations that a task should do at least: starting one costs about as much as a thousand.
const TASK_WORK: usize = 1 << 16;

/// What is computed for every element of `out`.
pub(super) struct Elements<'a> {
    /// The kernel's name.
    pub name: &'a str,
    /// Where the results go.
    pub out: &'a Place,
    /// Operations that an element takes, about.
    pub work: usize,
    /// Whether all operands have the shape and layout of `out`, or one element.
    pub flat: bool,
    /// Lanes of a vector.
    pub lanes: usize,
}

type Value<'v> = dyn Fn(&mut Builder, &[Index]) -> Expr + 'v;

impl Elements<'_> {
    /// The kernel and its arguments; `None` if the value cannot be computed element by element.
    pub fn kernel(&self, scope: &Scope, value: &Value) -> Option<(Kernel, Vec<Arg>)> {
        let forms: [fn(&Self, &mut Builder, &Value) -> bool; 3] =
            [Elements::flat_form, Elements::vector_form, Elements::scalar_form];
        for form in forms {
            let mut b = Builder::new(self.name, scope);
            let fits = form(self, &mut b, value);
            let failed = b.failed;
            let (kernel, args) = b.finish();
            if fits && !failed && is_vectorisable(&kernel) {
                return Some((kernel, args));
            }
        }
        None
    }

    /// One loop over all elements as they lie in memory.
    fn flat_form(&self, b: &mut Builder, value: &Value) -> bool {
        let total = self.out.elements();
        if !self.flat || !self.out.is_dense() || total < self.lanes {
            return false;
        }
        let (vectors, rest) = (total / self.lanes, total % self.lanes);
        let wanted = (TASK_WORK / (self.work * self.lanes).max(1)).clamp(64, vectors.max(64));
        let chunk = divisor_near(vectors, wanted);
        let out = self.flat_output(b);
        let task = b.task("t", vectors.div_ceil(chunk));
        let tasks = vectors.div_ceil(chunk);
        b.serial("i", chunk, |b, i| {
            let vector = task.clone() * chunk as i64 + i;
            let inside = Guard::between(&vector, 0, vectors as i64, b.extents());
            b.when(inside, |b| {
                b.with_lanes(self.lanes, |b, lane| {
                    let at = vector * self.lanes as i64 + lane;
                    b.flat = Some(at.clone());
                    let v = value(b, &[]);
                    b.store(out, vec![at], v);
                });
            });
        });
        let last = match tasks {
            1 => vec![],
            _ => vec![Guard(task - (tasks - 1))],
        };
        if rest > 0 {
            b.when(last, |b| {
                b.serial("i", rest, |b, i| {
                    let at = i + vectors * self.lanes;
                    b.flat = Some(at.clone());
                    let v = value(b, &[]);
                    b.store(out, vec![at], v);
                });
            });
        }
        b.flat = None;
        true
    }

    fn flat_output(&self, b: &mut Builder) -> BufferId {
        let total = self.out.elements();
        let flat = Place { shape: vec![total], strides: vec![1], layout: Layout::Plain, ..self.out.clone() };
        b.bind(&flat, Access::Write, "out")
    }

    /// Vectors along the innermost dimension in memory.
    fn vector_form(&self, b: &mut Builder, value: &Value) -> bool {
        let shape = self.out.physical();
        let Some(&inner) = shape.last() else { return false };
        if inner < self.lanes {
            return false;
        }
        let out = b.bind(self.out, Access::Write, "out");
        self.outer_loops(b, &shape, &mut |b, outer| {
            let (vectors, rest) = (inner / self.lanes, inner % self.lanes);
            let blocked = matches!(self.out.layout, Layout::Blocked(_));
            let vector_loop = if blocked { Builder::unroll } else { Builder::serial };
            let lanes = self.lanes;
            vector_loop(b, "v", vectors, |b: &mut Builder, v: Index| {
                b.with_lanes(lanes, |b, lane| {
                    let at = [outer, &[v * lanes as i64 + lane]].concat();
                    self.element(b, out, &at, value);
                });
            });
            b.serial("r", rest, |b, r| {
                let at = [outer, &[r + vectors * lanes]].concat();
                self.element(b, out, &at, value);
            });
        });
        true
    }

    /// One element after the other; lanes without a meaning are left alone.
    fn scalar_form(&self, b: &mut Builder, value: &Value) -> bool {
        let shape = self.out.physical();
        let out = b.bind(self.out, Access::Write, "out");
        let Some(&inner) = shape.last() else {
            self.element(b, out, &[], value);
            return true;
        };
        self.outer_loops(b, &shape, &mut |b, outer| {
            b.serial("i", inner, |b, i| {
                let at = [outer, &[i]].concat();
                let channel = match self.out.layout {
                    Layout::Plain => vec![],
                    Layout::Blocked(_) => {
                        let channel = &self.logical(&at)[1];
                        Guard::between(channel, 0, self.out.shape[1] as i64, b.extents())
                    }
                };
                b.when(channel, |b| self.element(b, out, &at, value));
            });
        });
        true
    }

    /// The loops over all dimensions in memory but the last; the outer ones are tasks.
    fn outer_loops(&self, b: &mut Builder, shape: &[usize], body: &mut dyn FnMut(&mut Builder, &[Index])) {
        let outer = shape.len() - 1;
        let sizes = row_major(shape);
        let tasks = (0..outer).take_while(|&d| shape[d] * sizes[d] * self.work > TASK_WORK).count();
        let mut at = vec![];
        for (d, &n) in shape[..tasks].iter().enumerate() {
            at.push(b.task(self.dimension(d), n));
        }
        self.inner_loops(b, &shape[..outer], at, body);
    }

    fn inner_loops(
        &self,
        b: &mut Builder,
        shape: &[usize],
        at: Vec<Index>,
        body: &mut dyn FnMut(&mut Builder, &[Index]),
    ) {
        let d = at.len();
        if d == shape.len() {
            return body(b, &at);
        }
        b.serial(self.dimension(d), shape[d], |b, i| {
            let mut at = at;
            at.push(i);
            self.inner_loops(b, shape, at, body);
        });
    }

    fn dimension(&self, d: usize) -> &'static str {
        match (self.out.layout, self.out.shape.len(), d) {
            (Layout::Blocked(_), _, 1) => "cb",
            (_, 4, _) => ["n", "c", "h", "w"][d],
            _ => "i",
        }
    }

    fn element(&self, b: &mut Builder, out: BufferId, at: &[Index], value: &Value) {
        let index = self.logical(at);
        let v = value(b, &index);
        let at = match self.out.layout {
            Layout::Plain => at.to_vec(),
            layout => position(&index, layout, b.extents()),
        };
        b.store(out, at, v);
    }

    /// The logical index of a position in memory.
    fn logical(&self, at: &[Index]) -> Vec<Index> {
        match self.out.layout {
            Layout::Plain => at.to_vec(),
            Layout::Blocked(block) => {
                let channel = at[1].clone() * block as i64 + at[4].clone();
                vec![at[0].clone(), channel, at[2].clone(), at[3].clone()]
            }
        }
    }
}

/// A kernel that copies a tensor to the channels of another one from `start` on, an element at a time.
pub(super) fn copy_channels(scope: &Scope, from: &Place, to: &Place, start: usize) -> (Kernel, Vec<Arg>) {
    let mut b = Builder::new("copy", scope);
    let out = b.bind(to, Access::Write, "out");
    let n = b.task("n", from.shape[0]);
    b.serial("c", from.shape[1], |b, c| {
        b.serial("h", from.shape[2], |b, h| {
            b.serial("w", from.shape[3], |b, w| {
                let value = b.load(from, "x", &[n.clone(), c.clone(), h.clone(), w.clone()]);
                let at = position(&[n, c + start, h, w], to.layout, b.extents());
                b.store(out, at, value);
            });
        });
    });
    b.finish()
}

impl Builder<'_> {
    /// The element of a dense place at a flat index, or its only one.
    pub fn load_flat(&mut self, place: &Place, name: &str, at: Index) -> Expr {
        let total = place.elements();
        let flat = Place { shape: vec![total], strides: vec![1], layout: Layout::Plain, ..place.clone() };
        let buffer = self.bind(&flat, Access::Read, name);
        let at = if total == 1 { Index::default() } else { at };
        Expr::Load(buffer, vec![at])
    }
}

/// The divisor of `n` nearest to `wanted` within a factor of two, else `wanted` itself.
pub(super) fn divisor_near(n: usize, wanted: usize) -> usize {
    if n <= wanted {
        return n.max(1);
    }
    let distance = |d: usize| d.max(wanted) - d.min(wanted);
    (wanted.div_ceil(2)..=2 * wanted)
        .filter(|&d| n.is_multiple_of(d))
        .min_by_key(|&d| distance(d))
        .unwrap_or(wanted)
}
