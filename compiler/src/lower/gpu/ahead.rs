//! Loads ahead of loops: what a loop reads in all of its iterations at the same place, from memory that the kernel does not
//! write, is read once, before it.
//!
//! ```text
//! for k: sum += (x[k, c] - mean[c]) * scale[c]     →     m = mean[c]; s = scale[c]; for k: sum += (x[k, c] - m) * s
//! ```
//!
//! Only what no guard inside the loop keeps from being read goes there; the same in the statements after it is replaced, too.

use nnc_runtime::program::Access;

use crate::kernel::{BufferId, Expr, Index, Kernel, LoopKind, Memory, Stmt, Var};

/// The most loads before a loop: each has registers while it runs.
const MOST: usize = 8;

/// Brings loads before the outermost serial loops of the kernel.
pub(super) fn load_ahead(kernel: &mut Kernel) {
    let body = std::mem::take(&mut kernel.body);
    kernel.body = block(kernel, body);
}

/// A load, and the vector loop that it is in.
#[derive(Clone)]
struct Load {
    buffer: BufferId,
    index: Vec<Index>,
    lane: Option<Var>,
}

/// A load that is done, and the register that has it.
struct Done {
    load: Load,
    register: BufferId,
}

fn block(kernel: &mut Kernel, body: Vec<Stmt>) -> Vec<Stmt> {
    let mut out = vec![];
    let mut done: Vec<Done> = vec![];
    for mut s in body {
        replace(kernel, &done, std::slice::from_mut(&mut s), None);
        match s {
            Stmt::Loop { kind: LoopKind::Serial, var, body } => {
                let mut found = vec![];
                let mut inside = vec![var];
                same_in_all(kernel, &body, &mut inside, None, &mut found);
                let first = done.len();
                for load in found.into_iter().take(MOST) {
                    let (statement, register) = before(kernel, &load);
                    out.push(statement);
                    done.push(Done { load, register });
                }
                let mut loops = [Stmt::Loop { kind: LoopKind::Serial, var, body }];
                replace(kernel, &done[first..], &mut loops, None);
                out.extend(loops);
            }
            Stmt::Loop { kind, var, body } => out.push(Stmt::Loop { kind, var, body: block(kernel, body) }),
            Stmt::If { guards, body } => out.push(Stmt::If { guards, body: block(kernel, body) }),
            other => out.push(other),
        }
    }
    out
}

/// Finds the loads that variables inside do not tell apart, each once.
fn same_in_all(
    kernel: &Kernel,
    body: &[Stmt],
    inside: &mut Vec<Var>,
    lane: Option<Var>,
    found: &mut Vec<Load>,
) {
    for s in body {
        match s {
            Stmt::Loop { var, kind, body } => {
                let vector = *kind == LoopKind::Vector;
                if !vector {
                    inside.push(*var);
                }
                same_in_all(kernel, body, inside, if vector { Some(*var) } else { lane }, found);
            }
            Stmt::Store { value, .. } => each_unguarded(value, &mut |buffer, index| {
                let read = kernel.buffer_of(buffer).memory == Memory::Global(Access::Read);
                let varies = |i: &Index| inside.iter().any(|&v| i.mentions(v));
                let lane = lane.filter(|&v| index.iter().any(|i| i.mentions(v)));
                let load = Load { buffer, index: index.to_vec(), lane };
                if read && !index.iter().any(varies) && !found.iter().any(|f| is_same(kernel, f, &load)) {
                    found.push(load);
                }
            }),
            // What guards keep from being read, and what only members of a block do.
            Stmt::If { .. } | Stmt::Prefetch { .. } | Stmt::Joint(_) => {}
        }
    }
}

/// The loads that an expression always does.
fn each_unguarded(e: &Expr, f: &mut dyn FnMut(BufferId, &[Index])) {
    match e {
        Expr::Load(buffer, index) => f(*buffer, index),
        Expr::Const(..) | Expr::Index(_) | Expr::Local(_) | Expr::Guarded { .. } => {}
        Expr::Unary(_, a) | Expr::Cast(_, a) | Expr::Gather { at: a, .. } => each_unguarded(a, f),
        Expr::Binary(_, a, b) | Expr::Let(_, a, b) => [a, b].into_iter().for_each(|e| each_unguarded(e, f)),
        Expr::Select(a, b, c) | Expr::Fma(a, b, c) => {
            [a, b, c].into_iter().for_each(|e| each_unguarded(e, f));
        }
    }
}

/// True if two loads are of the same place, or of the same ones in all lanes.
fn is_same(kernel: &Kernel, a: &Load, b: &Load) -> bool {
    if a.buffer != b.buffer || a.lane.is_some() != b.lane.is_some() {
        return false;
    }
    let extents = kernel.extents();
    let renamed = |i: &Index| match (a.lane, b.lane) {
        (Some(to), Some(from)) if to != from => i.substitute(from, &to.into(), &extents),
        _ => i.clone(),
    };
    let lanes = |l: &Load| l.lane.map(|v| extents[v.0 as usize]);
    lanes(a) == lanes(b)
        && a.index.len() == b.index.len()
        && b.index.iter().map(renamed).eq(a.index.iter().cloned())
}

/// The statement that does a load, and the register that has it then.
fn before(kernel: &mut Kernel, load: &Load) -> (Stmt, BufferId) {
    let Load { buffer, index, lane } = load.clone();
    let from = kernel.buffer_of(buffer);
    let (name, dtype) = (from.name.clone(), from.dtype);
    let lanes = lane.map_or(1, |v| kernel.extents()[v.0 as usize]);
    let register = kernel.buffer(&name, dtype, &[lanes], Memory::Register);
    let Some(lane) = lane else {
        return (
            Stmt::Store { buffer: register, index: vec![Index::default()], value: Expr::Load(buffer, index) },
            register,
        );
    };
    let (var, extents) = (kernel.var("lane", lanes), kernel.extents());
    let index = index.iter().map(|i| i.substitute(lane, &var.into(), &extents)).collect();
    let store = Stmt::Store { buffer: register, index: vec![var.into()], value: Expr::Load(buffer, index) };
    (Stmt::Loop { var, kind: LoopKind::Vector, body: vec![store] }, register)
}

/// Puts registers in place of loads that are done.
fn replace(kernel: &Kernel, done: &[Done], body: &mut [Stmt], lane: Option<Var>) {
    if done.is_empty() {
        return;
    }
    for s in body {
        match s {
            Stmt::Loop { var, kind: LoopKind::Vector, body } => replace(kernel, done, body, Some(*var)),
            Stmt::Loop { body, .. } | Stmt::If { body, .. } => replace(kernel, done, body, lane),
            Stmt::Store { value, .. } => replace_in(kernel, done, value, lane),
            Stmt::Prefetch { .. } | Stmt::Joint(_) => {}
        }
    }
}

fn replace_in(kernel: &Kernel, done: &[Done], e: &mut Expr, lane: Option<Var>) {
    match e {
        Expr::Load(buffer, index) => {
            let lane = lane.filter(|&v| index.iter().any(|i| i.mentions(v)));
            let load = Load { buffer: *buffer, index: index.clone(), lane };
            if let Some(Done { register, .. }) = done.iter().find(|d| is_same(kernel, &d.load, &load)) {
                *e = Expr::Load(*register, vec![lane.map_or(Index::default(), Index::from)]);
            }
        }
        Expr::Const(..) | Expr::Index(_) | Expr::Local(_) => {}
        Expr::Unary(_, a) | Expr::Cast(_, a) | Expr::Gather { at: a, .. } => {
            replace_in(kernel, done, a, lane)
        }
        Expr::Binary(_, a, b) | Expr::Let(_, a, b) | Expr::Guarded { value: a, otherwise: b, .. } => {
            [a, b].into_iter().for_each(|e| replace_in(kernel, done, e, lane));
        }
        Expr::Select(a, b, c) | Expr::Fma(a, b, c) => {
            [a, b, c].into_iter().for_each(|e| replace_in(kernel, done, e, lane));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{BinOp, Guard, verify};
    use nnc_runtime::DType;

    /// What is the same in all iterations is read before the loop, under a guard or not; what a guard inside keeps from
    /// being read stays where it is.
    #[test]
    fn what_is_the_same_in_all_iterations_is_read_once() {
        let mut kernel = Kernel::new("k");
        let buffer =
            |k: &mut Kernel, name: &str, access| k.buffer(name, DType::F32, &[64, 4], Memory::Global(access));
        let out = buffer(&mut kernel, "out", Access::Write);
        let [x, mean, rest] = ["x", "mean", "rest"].map(|name| buffer(&mut kernel, name, Access::Read));
        let task = kernel.var("i", 8);
        kernel.tasks.push(task);
        let total = kernel.buffer("total", DType::F32, &[4], Memory::Register);
        let index = |i: Index, lane: Var| vec![i, lane.into()];
        let over_lanes = |k: &mut Kernel, value: &dyn Fn(Var) -> Expr| {
            let lane = k.var("lane", 4);
            let store = Stmt::Store { buffer: total, index: vec![lane.into()], value: value(lane) };
            Stmt::Loop { var: lane, kind: LoopKind::Vector, body: vec![store] }
        };
        let sub = |a, b| Expr::Binary(BinOp::Sub, Box::new(a), Box::new(b));
        let k = kernel.var("k", 64);
        let guard = Guard(Index::from(k) - 3i64);
        let difference =
            |lane| sub(Expr::Load(x, index(k.into(), lane)), Expr::Load(mean, index(task.into(), lane)));
        let guarded = |lane| Expr::Load(rest, index(Index::from(task) * 8, lane));
        let first = over_lanes(&mut kernel, &difference);
        let second = Stmt::If { guards: vec![guard], body: vec![over_lanes(&mut kernel, &guarded)] };
        let after = over_lanes(&mut kernel, &|lane| {
            sub(Expr::Load(total, vec![lane.into()]), Expr::Load(mean, index(task.into(), lane)))
        });
        let lane = kernel.var("lane", 4);
        let store = Stmt::Store {
            buffer: out,
            index: index(task.into(), lane),
            value: Expr::Load(total, vec![lane.into()]),
        };
        kernel.body = vec![
            Stmt::Loop { var: k, kind: LoopKind::Serial, body: vec![first, second] },
            after,
            Stmt::Loop { var: lane, kind: LoopKind::Vector, body: vec![store] },
        ];
        load_ahead(&mut kernel);
        verify::verify(&kernel).unwrap();
        let text = kernel.to_string();
        let [before, after] = text.split_once("for k ").map(<[&str; 2]>::from).unwrap();
        let reads = |text: &str, name: &str| {
            text.matches(&format!("= {name}[")).count() + text.matches(&format!("- {name}[")).count()
        };
        assert_eq!([reads(before, "mean"), reads(after, "mean")], [1, 0], "{text}");
        assert_eq!([reads(before, "rest"), reads(after, "rest")], [0, 1], "{text}");
        // The register of that name, in the loop and after it.
        assert_eq!(after.matches("- mean2[").count(), 2, "{text}");
    }
}
