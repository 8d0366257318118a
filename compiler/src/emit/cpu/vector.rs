//! How wide vector loops run: how many iterations at a time, each of them a lane.
//!
//! The iterations of a vector loop are independent by contract, so what is left to see is whether
//! every access is contiguous (or the same for all lanes) and every condition on indices is the
//! same for all lanes. A loop runs at the widest width of the machine that divides its extent.
//! Register buffers are held in groups of lanes; all loops that run over a buffer's lanes run at
//! the width of its groups, so that the narrowest of them decides for all.

use nnc_runtime::DType;

use crate::kernel::index::Atom;
use crate::kernel::{BufferId, Expr, Guard, Index, Kernel, LoopKind, Memory, Stmt, Var};

/// The widths of a kernel's vectors.
#[derive(Debug, PartialEq)]
pub struct Widths {
    /// For each variable, the lanes of its vector loop; none if iterations run one by one.
    pub loops: Vec<Option<usize>>,
    /// For each buffer, the lanes of the groups that registers hold; none if each element is alone.
    pub groups: Vec<Option<usize>>,
}

/// Chooses the widths; `available` are the machine's, widest first.
pub fn widths(kernel: &Kernel, available: &[usize]) -> Widths {
    let mut vector_loops = vec![];
    collect_loops(&kernel.body, &mut vector_loops);
    let swept = swept_buffers(kernel);
    let group = |(i, b): (usize, &crate::kernel::Buffer)| {
        let held = b.memory == Memory::Register && swept[i];
        available.iter().copied().find(|&w| held && can_group(b, w))
    };
    let mut groups: Vec<Option<usize>> = kernel.buffers.iter().enumerate().map(group).collect();
    let mut loops = vec![None; kernel.vars.len()];
    // Groups only become narrower, so this ends.
    loop {
        let mut agreed = true;
        for &(var, body) in &vector_loops {
            let fits = |w: &usize| Analysis { kernel, groups: &groups, var, width: *w }.fits(body);
            let width = available.iter().copied().find(fits);
            loops[var.0 as usize] = width;
            let Some(width) = width else { continue };
            for buffer in swept_by(kernel, var, body) {
                let group = &mut groups[buffer.0 as usize];
                agreed &= *group == Some(width);
                *group = Some(width);
            }
        }
        if agreed {
            return Widths { loops, groups };
        }
    }
}

fn collect_loops<'k>(body: &'k [Stmt], found: &mut Vec<(Var, &'k [Stmt])>) {
    for s in body {
        match s {
            Stmt::Loop { var, kind, body } => {
                if *kind == LoopKind::Vector {
                    found.push((*var, body));
                }
                collect_loops(body, found);
            }
            Stmt::If { body, .. } => collect_loops(body, found),
            Stmt::Store { .. } | Stmt::Prefetch { .. } | Stmt::Joint(_) => {}
        }
    }
}

/// Calls the function with every load and store.
fn each_access(body: &[Stmt], see: &mut dyn FnMut(BufferId, &[Index])) {
    for s in body {
        match s {
            Stmt::Prefetch { .. } | Stmt::Joint(_) => {}
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => each_access(body, see),
            Stmt::Store { buffer, index, value } => {
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

/// The register buffers whose lanes a loop runs over.
fn swept_by(kernel: &Kernel, var: Var, body: &[Stmt]) -> Vec<BufferId> {
    let mut found = vec![];
    each_access(body, &mut |b, index| {
        let held = kernel.buffer_of(b).memory == Memory::Register;
        if held && index.last().is_some_and(|i| i.mentions(var)) {
            found.push(b);
        }
    });
    found
}

/// For each buffer, whether the variable of a vector loop is in the last place of an access to it.
fn swept_buffers(kernel: &Kernel) -> Vec<bool> {
    let mut found = vec![false; kernel.buffers.len()];
    let mut loops = vec![];
    collect_loops(&kernel.body, &mut loops);
    for (var, body) in loops {
        swept_by(kernel, var, body).iter().for_each(|b| found[b.0 as usize] = true);
    }
    found
}

/// True if the buffer's elements can be held in groups of so many neighbours.
fn can_group(b: &crate::kernel::Buffer, width: usize) -> bool {
    let (Some((&last, outer)), Some(n)) = (b.strides.split_last(), b.shape.last()) else { return false };
    b.dtype != DType::Bool
        && last == 1
        && n.is_multiple_of(width)
        && outer.iter().all(|s| s.is_multiple_of(width))
}

/// Decides for one vector loop and one width.
struct Analysis<'a> {
    kernel: &'a Kernel,
    groups: &'a [Option<usize>],
    var: Var,
    width: usize,
}

impl Analysis<'_> {
    /// True if the body can run so many iterations at a time.
    fn fits(&self, body: &[Stmt]) -> bool {
        let extent = self.kernel.vars[self.var.0 as usize].extent;
        if extent == 0 || !extent.is_multiple_of(self.width) || !body.iter().all(|s| self.stmt(s)) {
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
                Stmt::Prefetch { .. } | Stmt::Joint(_) => {}
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
            // Once for all lanes.
            Stmt::Prefetch { .. } | Stmt::Joint(_) => true,
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
        let wide = self.groups[buffer.0 as usize].is_some_and(|w| w >= self.width);
        match stride {
            0 => Some(0),
            1 if b.dtype == DType::Bool => None,
            1 if b.memory != Memory::Register => Some(1),
            1 if wide && self.aligned(&flat) => Some(1),
            _ => None,
        }
    }

    /// True if the offset, without the lane, is a multiple of the width for all unrolled variables.
    fn aligned(&self, flat: &Index) -> bool {
        let whole = |c: i64| c % self.width as i64 == 0;
        whole(flat.constant) && flat.terms.iter().all(|(a, &c)| *a == Atom::Var(self.var) || whole(c))
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
