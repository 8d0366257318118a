//! Kernels that compute every element of a tensor on its own: which loops, which tasks, and
//! whether the innermost loop is one of vectors.
//!
//! The loops run in the order of memory, so that the innermost one stores side by side. Three
//! forms are tried, the first that fits is taken: one flat loop of vectors (elementwise work on
//! equal dense tensors), vectors along the innermost dimension, scalars.

use nnc_runtime::program::Access;

use super::access::{Place, position};
use super::builder::{Builder, Scope, is_vectorisable};
use super::elementwise::unary;
use crate::graph::{Layout, NodeId};
use crate::kernel::module::Arg;
use crate::kernel::{Expr, Guard, Index, Kernel, UnOp, row_major};

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

/// An element's value.
type Value<'v> = dyn Fn(&mut Builder, &[Index]) -> Expr + 'v;

/// Computes what belongs to an index, and stores it.
type Body<'v> = dyn Fn(&mut Builder, &[Index]) + 'v;

impl Elements<'_> {
    /// The kernel and its arguments; `None` if the value cannot be computed element by element.
    pub fn kernel(&self, scope: &Scope, value: &Value) -> Option<(Kernel, Vec<Arg>)> {
        self.first_that_fits(scope, &[self.out], &|b, index| {
            let v = value(b, index);
            b.store_at(self.out, index, v);
        })
    }

    /// Likewise, of several values of one shape and layout; `out` is the first one's place.
    pub fn kernel_of(&self, scope: &Scope, results: &[(NodeId, Place)]) -> Option<(Kernel, Vec<Arg>)> {
        let places: Vec<&Place> = results.iter().map(|r| &r.1).collect();
        self.first_that_fits(scope, &places, &|b, index| b.store_all(results, index))
    }

    fn first_that_fits(&self, scope: &Scope, places: &[&Place], body: &Body) -> Option<(Kernel, Vec<Arg>)> {
        let forms: [fn(&Self, &mut Builder, &Body) -> bool; 3] =
            [Elements::flat_form, Elements::vector_form, Elements::scalar_form];
        for (i, form) in forms.into_iter().enumerate() {
            let mut b = Builder::new(self.name, scope);
            // Results come first among the arguments.
            for place in places {
                match i {
                    0 => b.bind(&place.flat(), Access::Write, "out"),
                    _ => b.bind(place, Access::Write, "out"),
                };
            }
            let fits = (i > 0 || places.iter().all(|p| p.is_dense())) && form(self, &mut b, body);
            let failed = b.failed;
            let (kernel, args) = b.finish();
            if fits && !failed && is_vectorisable(&kernel) {
                return Some((kernel, args));
            }
        }
        None
    }

    /// One loop over all elements as they lie in memory.
    fn flat_form(&self, b: &mut Builder, body: &Body) -> bool {
        let total = self.out.elements();
        if !self.flat || total < self.lanes {
            return false;
        }
        let (vectors, rest) = (total / self.lanes, total % self.lanes);
        let wanted = (TASK_WORK / (self.work * self.lanes).max(1)).clamp(64, vectors.max(64));
        let chunk = divisor_near(vectors, wanted);
        let task = b.task("t", vectors.div_ceil(chunk));
        let tasks = vectors.div_ceil(chunk);
        b.serial("i", chunk, |b, i| {
            let vector = task.clone() * chunk as i64 + i;
            let inside = Guard::between(&vector, 0, vectors as i64, b.extents());
            b.when(inside, |b| {
                b.with_lanes(self.lanes, |b, lane| {
                    b.flat = Some(vector * self.lanes as i64 + lane);
                    body(b, &[]);
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
                    b.flat = Some(i + vectors * self.lanes);
                    body(b, &[]);
                });
            });
        }
        b.flat = None;
        true
    }

    /// Vectors along the innermost dimension in memory.
    fn vector_form(&self, b: &mut Builder, body: &Body) -> bool {
        let mut shape = self.out.physical();
        // The means of pictures are side by side.
        while self.out.layout == Layout::Plain && shape.last() == Some(&1) {
            shape.pop();
        }
        let Some(&inner) = shape.last() else { return false };
        if inner < self.lanes {
            return false;
        }
        if matches!(self.out.layout, Layout::Blocked(_)) && inner.is_multiple_of(self.lanes) {
            b.with_lanes(self.lanes, |b, lane| self.blocks(b, &shape, &lane, body));
            return true;
        }
        self.outer_loops(b, &shape, &mut |b, outer| {
            let (vectors, rest) = (inner / self.lanes, inner % self.lanes);
            let lanes = self.lanes;
            b.serial("v", vectors, |b: &mut Builder, v: Index| {
                b.with_lanes(lanes, |b, lane| {
                    let at = [outer, &[v * lanes as i64 + lane]].concat();
                    body(b, &self.logical(&at));
                });
            });
            b.serial("r", rest, |b, r| {
                let at = [outer, &[r + vectors * lanes]].concat();
                body(b, &self.logical(&at));
            });
        });
        true
    }

    /// Vectors of channels: what belongs to the channels alone is computed before the loops over pixels.
    fn blocks(&self, b: &mut Builder, shape: &[usize], lane: &Index, body: &Body) {
        let vectors = shape[4] / self.lanes;
        let position = |v: usize| lane.clone() + v * self.lanes;
        let at = self.task_loops(b, shape);
        self.inner_loops(b, &shape[..2], at[..at.len().min(2)].to_vec(), &mut |b, outer| {
            for v in 0..vectors {
                let first = [outer, &[Index::default(), Index::default(), position(v)]].concat();
                b.hoist(&self.out.shape, &self.logical(&first), 1);
            }
            let at = [outer, &at[at.len().min(2)..]].concat();
            self.inner_loops(b, &shape[..4], at, &mut |b, outer| {
                for v in 0..vectors {
                    body(b, &self.logical(&[outer, &[position(v)]].concat()));
                }
            });
        });
    }

    /// One element after the other; lanes without a meaning are left alone.
    fn scalar_form(&self, b: &mut Builder, body: &Body) -> bool {
        let shape = self.out.physical();
        let Some(&inner) = shape.last() else {
            body(b, &[]);
            return true;
        };
        self.outer_loops(b, &shape, &mut |b, outer| {
            b.serial("i", inner, |b, i| {
                let index = self.logical(&[outer, &[i]].concat());
                let channel = match self.out.layout {
                    Layout::Plain | Layout::ChannelsLast => vec![],
                    Layout::Blocked(_) => Guard::between(&index[1], 0, self.out.shape[1] as i64, b.extents()),
                };
                b.when(channel, |b| body(b, &index));
            });
        });
        true
    }

    /// The loops over all dimensions in memory but the last; the outer ones are tasks.
    fn outer_loops(&self, b: &mut Builder, shape: &[usize], body: &mut dyn FnMut(&mut Builder, &[Index])) {
        let at = self.task_loops(b, shape);
        self.inner_loops(b, &shape[..shape.len() - 1], at, body);
    }

    /// The dimensions that are tasks: outer ones, as long as there is much to do in them.
    fn task_loops(&self, b: &mut Builder, shape: &[usize]) -> Vec<Index> {
        let sizes = row_major(shape);
        let large = |&d: &usize| shape[d] * sizes[d] * self.work > TASK_WORK;
        let tasks = (0..shape.len() - 1).take_while(large).count();
        (0..tasks).map(|d| b.task(self.dimension(d), shape[d])).collect()
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

    /// The logical index of a position in memory.
    fn logical(&self, at: &[Index]) -> Vec<Index> {
        match self.out.layout {
            Layout::Plain => {
                let mut at = at.to_vec();
                at.resize(self.out.shape.len(), Index::default());
                at
            }
            Layout::Blocked(block) => {
                let channel = at[1].clone() * block as i64 + at[4].clone();
                vec![at[0].clone(), channel, at[2].clone(), at[3].clone()]
            }
            Layout::ChannelsLast => [0, 3, 1, 2].map(|d: usize| at[d].clone()).to_vec(),
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
        let buffer = self.bind(&place.flat(), Access::Read, name);
        let at = if place.elements() == 1 { Index::default() } else { at };
        Expr::Load(buffer, vec![at])
    }

    /// Stores an element at an index, or where the flat index says; rounded, where that place has rounded numbers.
    pub fn store_at(&mut self, place: &Place, index: &[Index], value: Expr) {
        let value = match place.tf32 && !self.kernel.is_tf32(&value) {
            true => unary(UnOp::Tf32, value),
            false => value,
        };
        match self.flat.clone() {
            Some(at) => {
                let out = self.bind(&place.flat(), Access::Write, "out");
                self.store(out, vec![at], value);
            }
            None => {
                let out = self.bind(place, Access::Write, "out");
                let at = position(index, place.layout, self.extents());
                self.store(out, at, value);
            }
        }
    }

    /// Stores several values of the same index. All are computed before: a result may be written over
    /// an operand of another one.
    pub fn store_all(&mut self, results: &[(NodeId, Place)], index: &[Index]) {
        let mut values = vec![];
        for (id, place) in results {
            let value = self.value(*id, index);
            values.push(if results.len() == 1 { value } else { self.shared(place.dtype, value) });
        }
        for ((_, place), value) in results.iter().zip(values) {
            self.store_at(place, index, value);
        }
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
