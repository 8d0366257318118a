//! Matrices of factors that lie in shared memory with their depth along it, loaded by a warp at once: `ldmatrix`.
//!
//! The instruction loads 8x8 matrices of 16 bits: lane `8i + r` says where row `r` of matrix `i` begins (16 bytes, from
//! a multiple of 16 on), and lane `l` gets bits 32·(l mod 4) and on of row `l / 4` of each, in a register each. Four
//! elements of TF32 are such a row: a lane gets the element (l / 4, l mod 4), which is the place that fragments
//! have for it ([`super::block`]), of
//!
//! | fragment | matrices, by their first line and depth |
//! |---|---|
//! | first  | (0, 0), (8, 0), (0, 4), (8, 4) |
//! | second | (0, 0), (0, 4); of two beside each other that are loaded at once, those of the next one, too: (8, 0), (8, 4) |
//!
//! Factors of bf16 are rounded on their way, element by element, and loaded so.

use crate::kernel::{
    BufferId, Expr, Extents, Fragment, Index, Kernel, LoopKind, Memory, Rounding, Stmt, Var,
};

/// Elements of a row of a matrix: 16 bytes.
pub const ROW: i64 = 4;

/// Two loops that store a matrix of a factor from shared memory, where a row of it lies in one piece; or three of them,
/// the outer one over matrices of the second factor, of which two are loaded at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatrixLoad<'k> {
    pub fragment: Fragment,
    /// Matrices of the fragment that are loaded at once: one or two.
    pub matrices: usize,
    /// The fragment buffer, and the element.
    pub to: (BufferId, &'k [Index]),
    /// The shared buffer, and the element.
    pub from: (BufferId, &'k [Index]),
    /// The variable of rows of the first factor or columns of the second one, and that of what is summed over.
    pub line: Var,
    pub depth: Var,
}

impl<'k> MatrixLoad<'k> {
    /// That of a loop over rows, if it is one.
    pub fn of(
        kernel: &Kernel,
        extents: &Extents,
        row: Var,
        kind: LoopKind,
        body: &'k [Stmt],
    ) -> Option<MatrixLoad<'k>> {
        let [Stmt::Loop { var: column, body, .. }] = body else { return None };
        let [Stmt::Store { buffer, index, value: Expr::Load(from, at) }] = body.as_slice() else {
            return None;
        };
        let (fragment, line, depth) = match kind {
            LoopKind::Rows(f @ Fragment::First(Rounding::Tf32)) => (f, row, *column),
            LoopKind::Rows(f @ Fragment::Second(Rounding::Tf32)) => (f, *column, row),
            _ => return None,
        };
        let flat = kernel.flat(*from, at);
        let first = flat.with_known(&|v| (v == depth).then_some(0), extents);
        let fits = kernel.buffer_of(*from).memory == Memory::Shared
            && flat.stride_of(depth) == Some(1)
            && flat.stride_of(line).is_some()
            && first.is_multiple_of(ROW);
        let (to, from) = ((*buffer, index.as_slice()), (*from, at.as_slice()));
        fits.then_some(MatrixLoad { fragment, matrices: 1, to, from, line, depth })
    }

    /// That of an unrolled loop over matrices of the second factor, an even number of them, whose lines follow each other;
    /// the fragment's, too.
    pub fn pairs(
        kernel: &Kernel,
        extents: &Extents,
        matrix: Var,
        kind: LoopKind,
        body: &'k [Stmt],
    ) -> Option<MatrixLoad<'k>> {
        let [Stmt::Loop { var, kind: rows @ LoopKind::Rows(Fragment::Second(_)), body }] = body else {
            return None;
        };
        if kind != LoopKind::Unroll || !extents[matrix.0 as usize].is_multiple_of(2) {
            return None;
        }
        let load = MatrixLoad::of(kernel, extents, *var, *rows, body)?;
        let [depth, lines] = load.fragment.shape().map(|n| n as i64);
        let step = |(buffer, index): (BufferId, &[Index]), v: Var| kernel.flat(buffer, index).stride_of(v);
        let follow = step(load.to, matrix) == Some(depth * lines)
            && step(load.from, matrix) == step(load.from, load.line).map(|s| s * lines);
        follow.then_some(MatrixLoad { matrices: 2, ..load })
    }
}

/// All of a kernel's.
pub fn loads<'k>(kernel: &'k Kernel, extents: &Extents) -> Vec<MatrixLoad<'k>> {
    let mut out = vec![];
    collect(kernel, extents, &kernel.body, &mut out);
    out
}

fn collect<'k>(kernel: &Kernel, extents: &Extents, body: &'k [Stmt], out: &mut Vec<MatrixLoad<'k>>) {
    for s in body {
        match s {
            Stmt::Loop { var, kind, body } => {
                let load = MatrixLoad::of(kernel, extents, *var, *kind, body);
                match load.or_else(|| MatrixLoad::pairs(kernel, extents, *var, *kind, body)) {
                    Some(load) => out.push(load),
                    None => collect(kernel, extents, body, out),
                }
            }
            Stmt::If { body, .. } => collect(kernel, extents, body, out),
            Stmt::Store { .. } | Stmt::Prefetch { .. } | Stmt::Joint(_) => {}
        }
    }
}
