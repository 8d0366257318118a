//! Which vector loops can run four iterations at a time. The others run lane by lane.
//!
//! The iterations of a vector loop are independent by contract, so what is left to see is whether
//! every access is contiguous (or the same for all lanes) and every condition on indices is the
//! same for all lanes.

use nnc_runtime::DType;

use crate::kernel::index::Atom;
use crate::kernel::{BufferId, Expr, Guard, Index, Kernel, LoopKind, Memory, Stmt, Var};

/// Lanes of the vectors that Cranelift knows on every target.
pub const LANES: usize = 4;

/// For each buffer, whether the variable of a vector loop is in the last place of an access to it.
pub fn last_index_is_vector(kernel: &Kernel) -> Vec<bool> {
    let mut found = vec![false; kernel.buffers.len()];
    let mut vectors = vec![];
    mark(&kernel.body, &mut vectors, &mut found);
    found
}

fn mark(body: &[Stmt], vectors: &mut Vec<Var>, found: &mut [bool]) {
    for s in body {
        match s {
            Stmt::Loop { var, kind, body } => {
                if *kind == LoopKind::Vector {
                    vectors.push(*var);
                }
                mark(body, vectors, found);
            }
            Stmt::If { body, .. } => mark(body, vectors, found),
            Stmt::Store { buffer, index, value } => {
                let mut see = |b: BufferId, index: &[Index]| {
                    let last = index.last();
                    found[b.0 as usize] |= last.is_some_and(|i| vectors.iter().any(|v| i.mentions(*v)));
                };
                see(*buffer, index);
                value.walk(&mut |e| {
                    if let Expr::Load(b, i) = e {
                        see(*b, i);
                    }
                });
            }
        }
    }
}

/// Decides for one vector loop.
pub struct Analysis<'a> {
    pub kernel: &'a Kernel,
    /// The register buffers that vectors hold.
    pub vector_buffers: &'a [bool],
    pub var: Var,
}

impl Analysis<'_> {
    /// True if the body can run four iterations at a time.
    pub fn vectorisable(&self, body: &[Stmt]) -> bool {
        let extent = self.kernel.vars[self.var.0 as usize].extent;
        if extent == 0 || !extent.is_multiple_of(LANES) || !body.iter().all(|s| self.stmt(s)) {
            return false;
        }
        let (mut stores, mut loads) = (vec![], vec![]);
        self.collect(body, &mut stores, &mut loads);
        // A load near a store of the same buffer would see other lanes' values, and of two stores
        // that overlap the wrong one would come last.
        let near = |b: &BufferId, at: &Index| {
            loads.iter().chain(&stores).any(|(other, i): &(BufferId, Index)| {
                let distance = (i.clone() - at.clone()).known();
                other == b && distance.is_some_and(|d| d != 0 && d.unsigned_abs() < extent as u64)
            })
        };
        !stores.iter().any(|(b, at)| near(b, at))
    }

    fn collect(
        &self,
        body: &[Stmt],
        stores: &mut Vec<(BufferId, Index)>,
        loads: &mut Vec<(BufferId, Index)>,
    ) {
        for s in body {
            match s {
                Stmt::Loop { body, .. } | Stmt::If { body, .. } => self.collect(body, stores, loads),
                Stmt::Store { buffer, index, value } => {
                    stores.push((*buffer, self.kernel.flat(*buffer, index)));
                    value.walk(&mut |e| {
                        if let Expr::Load(b, i) = e {
                            loads.push((*b, self.kernel.flat(*b, i)));
                        }
                    });
                }
            }
        }
    }

    fn stmt(&self, s: &Stmt) -> bool {
        match s {
            Stmt::Loop { .. } => false,
            Stmt::If { guards, body } => self.uniform(guards) && body.iter().all(|s| self.stmt(s)),
            Stmt::Store { buffer, index, value } => {
                self.stride(*buffer, index) == Some(1) && self.expr(value)
            }
        }
    }

    fn uniform(&self, guards: &[Guard]) -> bool {
        !guards.iter().any(|g| g.0.mentions(self.var))
    }

    /// The distance of neighbouring lanes, if a vector (1) or a scalar (0) can be accessed.
    fn stride(&self, buffer: BufferId, index: &[Index]) -> Option<i64> {
        let flat = self.kernel.flat(buffer, index);
        let stride = flat.stride_of(self.var)?;
        let b = self.kernel.buffer_of(buffer);
        let held = self.vector_buffers[buffer.0 as usize];
        match stride {
            0 => Some(0),
            1 if b.dtype == DType::Bool => None,
            1 if b.memory != Memory::Register => Some(1),
            1 if held && aligned(&flat, self.var) => Some(1),
            _ => None,
        }
    }

    fn expr(&self, e: &Expr) -> bool {
        match e {
            Expr::Const(..) | Expr::Local(_) => true,
            Expr::Index(i) => i.stride_of(self.var).is_some(),
            Expr::Load(b, i) => self.stride(*b, i).is_some(),
            Expr::Gather { buffer, index, axis, at } => {
                let mut fixed = index.clone();
                fixed[*axis] = Index::default();
                let mut same = true;
                at.walk(&mut |e| same &= self.same_for_all_lanes(e));
                same && self.expr(at) && self.stride(*buffer, &fixed).is_some()
            }
            Expr::Guarded { guards, value, otherwise } => {
                self.uniform(guards) && self.expr(value) && self.expr(otherwise)
            }
            Expr::Select(a, b, c) | Expr::Fma(a, b, c) => self.expr(a) && self.expr(b) && self.expr(c),
            Expr::Unary(_, a) | Expr::Cast(_, a) => self.expr(a),
            Expr::Binary(_, a, b) | Expr::Let(_, a, b) => self.expr(a) && self.expr(b),
        }
    }

    /// True for an expression without operands that mention the variable (names are not looked up).
    fn same_for_all_lanes(&self, e: &Expr) -> bool {
        match e {
            Expr::Index(i) => !i.mentions(self.var),
            Expr::Load(_, i) => !i.iter().any(|i| i.mentions(self.var)),
            Expr::Local(_) | Expr::Gather { .. } => false,
            _ => true,
        }
    }
}

/// True if the offset, without the lane, is a multiple of four for all unrolled variables.
fn aligned(flat: &Index, lane: Var) -> bool {
    let whole = |c: i64| c % LANES as i64 == 0;
    whole(flat.constant) && flat.terms.iter().all(|(a, &c)| *a == Atom::Var(lane) || whole(c))
}
