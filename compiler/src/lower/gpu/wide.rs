//! Whether a kernel that was made with lanes may have them: a GPU accesses neighbours at once.

use crate::kernel::module::Arg;
use crate::kernel::{BufferId, Expr, Index, Kernel, LoopKind, Memory, Stmt, Var};

/// True if the lanes of vector loops are neighbours, or one element, in all memory that they access, and no condition
/// around such a loop tells them apart.
pub(super) fn is_wide((kernel, args): &(Kernel, Vec<Arg>), lanes: usize) -> bool {
    let mut args = args.iter();
    let offset = |b: &crate::kernel::Buffer| match b.memory {
        Memory::Global(_) => args.next().map_or(0, |a| a.offset),
        _ => 0,
    };
    let mut wide = Wide { kernel, lanes, offsets: vec![], variables: vec![] };
    wide.offsets = kernel.buffers.iter().map(offset).collect();
    wide.find(&kernel.body);
    wide.body(&kernel.body, None)
}

struct Wide<'k> {
    kernel: &'k Kernel,
    lanes: usize,
    /// Where the argument of each buffer begins.
    offsets: Vec<usize>,
    /// The variables of all vector loops.
    variables: Vec<Var>,
}

impl Wide<'_> {
    fn find(&mut self, body: &[Stmt]) {
        for s in body {
            if let Stmt::Loop { var, kind: LoopKind::Vector, .. } = s {
                self.variables.push(*var);
            }
            if let Stmt::Loop { body, .. } | Stmt::If { body, .. } = s {
                self.find(body);
            }
        }
    }

    /// Whether statements are so, in the vector loop with that variable or in none.
    fn body(&self, body: &[Stmt], lane: Option<Var>) -> bool {
        body.iter().all(|s| match s {
            Stmt::Loop { var, kind, body } => {
                self.body(body, if *kind == LoopKind::Vector { Some(*var) } else { lane })
            }
            Stmt::If { guards, body } => {
                let other = |v: &&Var| Some(**v) != lane;
                let mut others = self.variables.iter().filter(other);
                !others.any(|&v| guards.iter().any(|g| g.0.mentions(v))) && self.body(body, lane)
            }
            Stmt::Store { buffer, index, value } => match lane {
                Some(lane) => self.access(*buffer, index, lane) && self.expr(value, lane),
                None => true,
            },
            Stmt::Prefetch { .. } | Stmt::Joint(_) => true,
        })
    }

    fn expr(&self, value: &Expr, lane: Var) -> bool {
        let mut right = true;
        value.walk(&mut |e| {
            right &= match e {
                Expr::Load(b, i) => self.access(*b, i, lane),
                Expr::Gather { .. } => false,
                _ => true,
            };
        });
        right
    }

    fn access(&self, buffer: BufferId, index: &[Index], lane: Var) -> bool {
        if self.kernel.buffer_of(buffer).memory == Memory::Register {
            return true;
        }
        let flat = self.kernel.flat(buffer, index);
        match flat.stride_of(lane) {
            Some(0) => true,
            Some(1) => {
                let first = flat.with_known(&|v| (v == lane).then_some(0), &self.kernel.extents());
                (first + self.offsets[buffer.0 as usize]).is_multiple_of(self.lanes as i64)
            }
            _ => false,
        }
    }
}
