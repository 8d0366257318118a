//! The kernel verifier: a kernel goes in, a [`Verified`] one comes out, or all that is wrong with it.
//!
//! Verified means: every access is inside its buffer, types are strict, variables are used inside
//! their loops, registers can be registers. Code is emitted from verified kernels only.
//!
//! An index is proved in bounds by interval analysis, with the help of the guards around it: if
//! `g >= 0` holds and `e - c·g` cannot be negative (for some `c > 0`), then neither can `e`.

mod block;
mod races;
pub mod types;

use std::ops::Deref;

use nnc_runtime::DType;
use nnc_runtime::program::Access;
use thiserror::Error;

use self::block::Who;
use super::{BufferId, Expr, Extents, Guard, Index, Kernel, LoopKind, Memory, Stmt, Var, print};

/// A kernel that [`verify`] has found right.
#[derive(Clone, Debug)]
pub struct Verified<'a> {
    kernel: &'a Kernel,
    unproved: Vec<BufferId>,
}

impl<'a> Verified<'a> {
    /// The kernel.
    pub fn kernel(&self) -> &'a Kernel {
        self.kernel
    }

    /// The written global buffers for which the verifier could not prove that tasks touch
    /// different elements. (Not an error: [`interpret`](super::interpret) checks each run.)
    pub fn unproved_races(&self) -> &[BufferId] {
        &self.unproved
    }
}

impl Deref for Verified<'_> {
    type Target = Kernel;
    fn deref(&self) -> &Kernel {
        self.kernel
    }
}

/// What is wrong with a kernel.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("kernel `{kernel}`: {problem}")]
pub struct VerifyError {
    /// The kernel's name.
    pub kernel: String,
    /// What.
    pub problem: Problem,
}

/// The kinds of mistakes in kernels. Places are given in the text form.
#[derive(Clone, Debug, PartialEq, Error)]
#[allow(missing_docs)] // the messages say what the fields are
pub enum Problem {
    #[error("`{access}`: `{index}` in dimension {dimension} of size {size} may be {low} to {high}")]
    OutOfBounds { access: String, dimension: usize, index: String, size: usize, low: i64, high: i64 },
    #[error("`{access}` has {found} indices, the buffer {expected} dimensions")]
    Rank { access: String, expected: usize, found: usize },
    #[error("buffer number {0} does not exist")]
    UnknownBuffer(u32),
    #[error("buffer `{0}`: strides and shape differ in rank, or it is of f64")]
    Buffer(String),
    #[error("variable `{0}` is used outside its loop")]
    Scope(String),
    #[error("variable `{0}` is bound twice")]
    BoundTwice(String),
    #[error("`{place}`: expected {expected}, found {found}")]
    Type { place: String, expected: String, found: DType },
    #[error("`t{0}` is used outside its `let`, or bound twice")]
    Local(u32),
    #[error(
        "`{0}`: registers are indexed by unrolled variables only, or in the last place by that of a vector loop"
    )]
    RegisterIndex(String),
    #[error("`{0}` is in registers, where nothing is prefetched to")]
    PrefetchRegister(String),
    #[error("vector loop `{0}` has a loop inside")]
    VectorLoop(String),
    #[error("`{0}` is written but not writable")]
    NotWritable(String),
    #[error("`{0}` is read but not readable")]
    NotReadable(String),
    #[error("`{0}` is memory of a block, and the kernel's tasks are threads")]
    NoBlock(String),
    #[error("a block of {0} threads: expected whole warps of 32, and 1024 at most")]
    Threads(usize),
    #[error("`{0}`: expected f32 matrices `{1}`, row-major")]
    Fragment(String, &'static str),
    #[error("{0} bytes of shared memory, a block has 101376 at most")]
    Shared(usize),
    #[error("loop `{0}` runs over members of a block (threads, warps, rows, columns) that are not there")]
    Members(String),
    #[error("loop `{name}` must have {expected} iterations, one a member")]
    MemberCount { name: String, expected: usize },
    #[error("`{0}` is done by no single thread")]
    NotByThread(String),
    #[error("`{0}`: elements of a fragment are touched in loops over its rows and columns alone")]
    FragmentIndex(String),
    #[error(
        "`{0}` does not belong here: barriers, groups of copies and combinations are of the block, copies of threads, products of warps"
    )]
    JointPlace(&'static str),
    #[error("loop `{0}` over a factor's elements has more in it than one store of them")]
    Factor(String),
    #[error("`{0}` is combined: expected an f32 in a register, and + * max or min")]
    Combine(String),
    #[error("copies go from global buffers that are read to shared ones of their type, found `{1}` to `{0}`")]
    CopySpaces(String, String),
    #[error("`{0}`: {1} elements are not copied at once from or to there")]
    CopyPlace(String, usize),
    #[error("`{0}` takes TF32 numbers, what is stored there is not known to be one")]
    NotTf32(String),
    #[error("the extents reach past 2^31 elements")]
    TooLarge,
}

/// Checks the kernel.
///
/// # Errors
/// Everything that is wrong, in the order of the text.
pub fn verify(kernel: &Kernel) -> Result<Verified<'_>, Vec<VerifyError>> {
    let mut c = Checker {
        kernel,
        extents: kernel.extents(),
        scope: vec![None; kernel.vars.len()],
        bound: vec![false; kernel.vars.len()],
        guards: vec![],
        who: if kernel.threads.is_some() { Who::Block } else { Who::Thread },
        locals: types::Locals::default(),
        errors: vec![],
    };
    c.declarations();
    if c.errors.is_empty() {
        c.body(&kernel.body);
    }
    if c.errors.is_empty() {
        return Ok(Verified { kernel, unproved: races::unproved(kernel) });
    }
    let name = &kernel.name;
    Err(c.errors.into_iter().map(|problem| VerifyError { kernel: name.clone(), problem }).collect())
}

/// How a variable that is in scope was bound.
#[derive(Clone, Copy, PartialEq)]
enum Binding {
    Task,
    Loop(LoopKind),
}

struct Checker<'a> {
    kernel: &'a Kernel,
    extents: Extents,
    scope: Vec<Option<Binding>>,
    bound: Vec<bool>,
    guards: Vec<Index>,
    who: Who,
    locals: types::Locals,
    errors: Vec<Problem>,
}

impl Checker<'_> {
    fn declarations(&mut self) {
        for b in &self.kernel.buffers {
            if b.strides.len() != b.shape.len() || b.dtype == DType::F64 {
                self.errors.push(Problem::Buffer(b.name.clone()));
                continue;
            }
            let reach = b.shape.iter().zip(&b.strides).try_fold(1usize, |sum, (n, s)| {
                n.saturating_sub(1).checked_mul(*s).and_then(|x| x.checked_add(sum))
            });
            if reach.is_none_or(|r| r > i32::MAX as usize) {
                self.errors.push(Problem::TooLarge);
            }
        }
        if self.extents.iter().any(|&n| n > i32::MAX as usize) {
            self.errors.push(Problem::TooLarge);
        }
        for &v in &self.kernel.tasks {
            self.bind(v, Binding::Task);
        }
        self.block_declarations();
    }

    fn bind(&mut self, v: Var, how: Binding) {
        let i = v.0 as usize;
        match self.bound.get(i) {
            Some(false) => {
                self.bound[i] = true;
                self.scope[i] = Some(how);
            }
            _ => self.errors.push(Problem::BoundTwice(self.kernel.var_name(v))),
        }
    }

    fn body(&mut self, body: &[Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::Loop { var, kind, body } => {
                    let has_loop = |b: &[Stmt]| any_loop(b);
                    if *kind == LoopKind::Vector && has_loop(body) {
                        self.errors.push(Problem::VectorLoop(self.kernel.var_name(*var)));
                    }
                    self.bind(*var, Binding::Loop(*kind));
                    self.factor_loop(*var, *kind, body);
                    let inside = self.inside(*var, *kind);
                    let outside = std::mem::replace(&mut self.who, inside);
                    self.body(body);
                    self.who = outside;
                    if let Some(s) = self.scope.get_mut(var.0 as usize) {
                        *s = None;
                    }
                }
                Stmt::If { guards, body } => {
                    let outer = self.guards.len();
                    self.enter(guards);
                    self.body(body);
                    self.guards.truncate(outer);
                }
                Stmt::Store { buffer, index, value } => self.store(*buffer, index, value),
                Stmt::Prefetch { buffer, index, .. } => self.prefetch(*buffer, index),
                Stmt::Joint(joint) => self.joint(joint),
            }
        }
    }

    fn store(&mut self, buffer: BufferId, index: &[Index], value: &Expr) {
        self.locals.clear();
        self.expr(value);
        if !self.access(buffer, index, None) {
            return;
        }
        self.by_thread(buffer, index);
        let b = self.kernel.buffer_of(buffer);
        if b.memory == Memory::Global(Access::Read) {
            self.errors.push(Problem::NotWritable(b.name.clone()));
        }
        if b.tf32 && !self.kernel.is_tf32(value) {
            self.errors.push(Problem::NotTf32(print::access(self.kernel, buffer, index)));
        }
        self.locals.clear();
        match types::type_of(self.kernel, &mut self.locals, value) {
            Ok(found) if found == b.dtype => {}
            Ok(found) => self.errors.push(Problem::Type {
                place: print::access(self.kernel, buffer, index),
                expected: b.dtype.to_string(),
                found,
            }),
            Err(e) => self.errors.push(e),
        }
    }

    fn prefetch(&mut self, buffer: BufferId, index: &[Index]) {
        if self.access(buffer, index, None) && self.kernel.buffer_of(buffer).memory == Memory::Register {
            self.errors.push(Problem::PrefetchRegister(print::access(self.kernel, buffer, index)));
        }
    }

    fn enter(&mut self, guards: &[Guard]) {
        for g in guards {
            self.variables(&g.0);
            self.guards.push(g.0.clone());
        }
    }

    /// Reports variables that are not in scope.
    fn variables(&mut self, i: &Index) -> bool {
        let mut missing = None;
        i.each_var(&mut |v| {
            if self.scope.get(v.0 as usize).copied().flatten().is_none() {
                missing = Some(v);
            }
        });
        if let Some(v) = missing {
            self.errors.push(Problem::Scope(self.kernel.var_name(v)));
        }
        missing.is_none()
    }

    /// Checks places inside an expression; types are checked apart, in [`types`].
    fn expr(&mut self, e: &Expr) {
        match e {
            Expr::Const(..) | Expr::Local(_) => {}
            Expr::Index(i) => {
                self.variables(i);
            }
            Expr::Load(b, i) => self.load(*b, i, None),
            Expr::Gather { buffer, index, axis, at } => {
                self.expr(at);
                self.load(*buffer, index, Some(*axis));
            }
            Expr::Guarded { guards, value, otherwise } => {
                let outer = self.guards.len();
                self.enter(guards);
                self.expr(value);
                self.guards.truncate(outer);
                self.expr(otherwise);
            }
            Expr::Select(a, b, c) | Expr::Fma(a, b, c) => [a, b, c].into_iter().for_each(|e| self.expr(e)),
            Expr::Unary(_, a) | Expr::Cast(_, a) => self.expr(a),
            Expr::Binary(_, a, b) | Expr::Let(_, a, b) => [a, b].into_iter().for_each(|e| self.expr(e)),
        }
    }

    fn load(&mut self, buffer: BufferId, index: &[Index], gather: Option<usize>) {
        if !self.access(buffer, index, gather) {
            return;
        }
        let b = self.kernel.buffer_of(buffer);
        let gathers_registers =
            gather.is_some() && matches!(b.memory, Memory::Register | Memory::Fragment(_));
        if matches!(b.memory, Memory::Fragment(f) if f.rounding().is_some()) {
            self.errors.push(Problem::NotReadable(b.name.clone()));
        }
        if b.memory == Memory::Global(Access::Write) {
            self.errors.push(Problem::NotReadable(b.name.clone()));
        } else if gathers_registers {
            self.errors.push(Problem::RegisterIndex(print::access(self.kernel, buffer, index)));
        }
    }

    /// Checks the place of a load or store; false if it makes no sense to look further.
    fn access(&mut self, buffer: BufferId, index: &[Index], gather: Option<usize>) -> bool {
        let Some(b) = self.kernel.buffers.get(buffer.0 as usize) else {
            self.errors.push(Problem::UnknownBuffer(buffer.0));
            return false;
        };
        let text = || print::access(self.kernel, buffer, index);
        if index.len() != b.shape.len() || gather.is_some_and(|a| a >= index.len()) {
            self.errors.push(Problem::Rank { access: text(), expected: b.shape.len(), found: index.len() });
            return false;
        }
        for (dimension, (i, &size)) in index.iter().zip(&b.shape).enumerate() {
            if gather == Some(dimension) {
                if size == 0 {
                    self.out_of_bounds(text(), dimension, i, size);
                }
                continue;
            }
            if !self.variables(i) {
                return false;
            }
            let room = Index::from(size as i64 - 1) - i.clone();
            let inside = proved(i, &self.guards, &self.extents) && proved(&room, &self.guards, &self.extents);
            if !inside && !self.dead() {
                self.out_of_bounds(text(), dimension, i, size);
            }
            if let Memory::Fragment(_) = b.memory
                && dimension + 2 < index.len()
            {
                self.unrolled(i, text());
            }
            if b.memory == Memory::Register {
                let last = dimension + 1 == index.len();
                self.register_index(i, last, text());
            }
        }
        if let Memory::Fragment(fragment) = b.memory {
            self.fragment_access(fragment, index, text());
        }
        true
    }

    fn out_of_bounds(&mut self, access: String, dimension: usize, index: &Index, size: usize) {
        let (low, high) = index.range(&self.extents);
        let index = print::index(self.kernel, index);
        self.errors.push(Problem::OutOfBounds { access, dimension, index, size, low, high });
    }

    /// True where no task comes: inside a loop without iterations or under a guard that never holds.
    fn dead(&self) -> bool {
        let empty = |(i, s): (usize, &Option<Binding>)| s.is_some() && self.extents[i] == 0;
        self.scope.iter().enumerate().any(empty) || self.guards.iter().any(|g| g.range(&self.extents).1 < 0)
    }

    fn register_index(&mut self, i: &Index, last: bool, text: String) {
        let mut right = true;
        i.each_var(&mut |v| {
            right &= match self.scope[v.0 as usize] {
                Some(Binding::Loop(LoopKind::Unroll)) => true,
                Some(Binding::Loop(LoopKind::Vector)) => last && i.stride_of(v) == Some(1),
                _ => self.extents[v.0 as usize] == 1,
            }
        });
        if !right {
            self.errors.push(Problem::RegisterIndex(text));
        }
    }
}

fn any_loop(body: &[Stmt]) -> bool {
    body.iter().any(|s| match s {
        Stmt::Loop { .. } => true,
        Stmt::If { body, .. } => any_loop(body),
        Stmt::Store { .. } | Stmt::Prefetch { .. } | Stmt::Joint(_) => false,
    })
}

/// True if `e >= 0` follows from the variables' ranges and the guards (one, or the sum of two).
pub fn proved(e: &Index, guards: &[Index], extents: &Extents) -> bool {
    let holds = |e: &Index| e.range(extents).0 >= 0;
    if holds(e) {
        return true;
    }
    let less = |e: &Index, g: &Index| -> Vec<Index> {
        multiples(e, g).into_iter().map(|c| e.clone() - g.clone() * c).collect()
    };
    guards.iter().enumerate().any(|(n, g)| {
        less(e, g)
            .iter()
            .any(|rest| holds(rest) || guards[n + 1..].iter().any(|g| less(rest, g).iter().any(holds)))
    })
}

/// The factors of a guard worth trying: those that cancel a term.
fn multiples(e: &Index, g: &Index) -> Vec<i64> {
    let mut out = vec![1];
    for (atom, &c) in &g.terms {
        let Some(&have) = e.terms.get(atom) else { continue };
        if have % c == 0 && have / c > 1 && !out.contains(&(have / c)) {
            out.push(have / c);
        }
    }
    out
}

#[cfg(test)]
mod tests;
