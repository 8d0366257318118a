//! What a machine can do at most, as kernels to be timed: multiply-adds from registers, and reads of more
//! memory than caches hold. A kernel of a net is limited by one of the two (the roofline model: Williams,
//! Waterman, Patterson, CACM 52(4), 2009).
//!
//! ```text
//! multiply_adds: for k: for chain (unrolled): sum[chain] = fma(x, y, sum[chain])
//! write:         memory = 1
//! read:          for k: for chain (unrolled): sum[chain] += memory[…]
//! ```

use nnc_runtime::DType::F32;
use nnc_runtime::program::{Access, Phase, Port};

use super::elementwise::{add, f32, fma};
use crate::kernel::module::{Arg, Launch, Module, Role, Value, ValueId};
use crate::kernel::{BufferId, Expr, Index, Kernel, LoopKind, Memory, Stmt};
use crate::target::CpuTarget;

/// Steps of a task of multiply-adds: long enough that its beginning and end do not show.
const STEPS: usize = 20_000;

/// Bytes that a task reads.
const READ_BYTES: usize = 1 << 20;

/// Sums that a task of reads has at a time.
const READ_CHAINS: usize = 8;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Tasks of multiply-adds.
    pub tasks: usize,
    /// MiB that are written and read.
    pub mib: usize,
}

/// A module whose launches are, in order: multiply-adds, a write of memory, a read of it.
pub fn module(target: &CpuTarget, size: Size) -> Module {
    let lanes = target.lanes;
    let [sums, memory, read] = [0, 1, 2].map(ValueId);
    let shapes = [vec![size.tasks, lanes], memory_shape(size.mib, lanes).to_vec(), vec![size.mib, lanes]];
    let roles = [("sums", Role::Output(0)), ("memory", Role::Temporary), ("read", Role::Output(1))];
    let value = |(shape, (name, role)): (&Vec<usize>, (&str, Role))| Value {
        name: name.into(),
        dtype: F32,
        elements: shape.iter().product(),
        shape: shape.clone(),
        role,
    };
    let port = |i: usize, name: &str| Port { name: name.into(), dtype: F32, shape: shapes[i].clone() };
    let launch = |(kernel, values): (usize, &[ValueId])| Launch {
        kernel,
        args: values.iter().map(|&value| Arg { value, offset: 0 }).collect(),
        phase: Phase::Run,
        layer: String::new(),
        location: String::new(),
    };
    let launches: [(usize, &[ValueId]); 3] = [(0, &[sums]), (1, &[memory]), (2, &[memory, read])];
    Module {
        name: "roofline".into(),
        outputs: vec![port(0, "sums"), port(2, "read")],
        values: shapes.iter().zip(roles).map(value).collect(),
        kernels: vec![
            multiply_adds(target, size.tasks),
            write_memory(size.mib, lanes),
            read_memory(size.mib, lanes),
        ],
        launches: launches.into_iter().map(launch).collect(),
        ..Module::default()
    }
}

/// The memory, a MiB a task. `[mib, steps, chains, lanes]`
fn memory_shape(mib: usize, lanes: usize) -> [usize; 4] {
    [mib, READ_BYTES / (READ_CHAINS * lanes * F32.size()), READ_CHAINS, lanes]
}

/// Chains of multiply-adds that depend on nothing but themselves, in three quarters of the registers: more than
/// two units with four or five cycles each can have under way.
fn multiply_adds(target: &CpuTarget, tasks: usize) -> Kernel {
    let (chains, lanes) = (target.vector_registers * 3 / 4, target.lanes);
    let mut k = Kernel::new("multiply_adds");
    let out = k.buffer("sums", F32, &[tasks, lanes], Memory::Global(Access::Write));
    let sum = k.buffer("sum", F32, &[chains, lanes], Memory::Register);
    let factors = k.buffer("factor", F32, &[2, lanes], Memory::Register);
    let task = k.task("t", tasks);
    let one = each(&mut k, [2, lanes], |at| Stmt::Store { buffer: factors, index: at, value: f32(1.0) });
    let clear = each(&mut k, [chains, lanes], |at| Stmt::Store { buffer: sum, index: at, value: f32(0.0) });
    let factor = |i: usize, at: &[Index]| Expr::Load(factors, vec![i.into(), at[1].clone()]);
    let step = each(&mut k, [chains, lanes], |at| {
        let value = fma(factor(0, &at), factor(1, &at), Expr::Load(sum, at.clone()));
        Stmt::Store { buffer: sum, index: at, value }
    });
    let steps = Stmt::Loop { var: k.var("k", STEPS), kind: LoopKind::Serial, body: vec![step] };
    let finish = total(&mut k, out, sum, task.into(), [chains, lanes]);
    k.body = vec![one, clear, steps, finish];
    k.flops = (2 * tasks * STEPS * chains * lanes) as u64;
    k
}

fn write_memory(mib: usize, lanes: usize) -> Kernel {
    let shape = memory_shape(mib, lanes);
    let mut k = Kernel::new("write");
    let memory = k.buffer("memory", F32, &shape, Memory::Global(Access::Write));
    let (task, step) = (k.task("t", mib), k.var("k", shape[1]));
    let body = each(&mut k, [READ_CHAINS, lanes], |at| {
        let index = [vec![task.into(), step.into()], at].concat();
        Stmt::Store { buffer: memory, index, value: f32(1.0) }
    });
    k.body = vec![Stmt::Loop { var: step, kind: LoopKind::Serial, body: vec![body] }];
    k
}

fn read_memory(mib: usize, lanes: usize) -> Kernel {
    let shape = memory_shape(mib, lanes);
    let mut k = Kernel::new("read");
    let memory = k.buffer("memory", F32, &shape, Memory::Global(Access::Read));
    let out = k.buffer("read", F32, &[mib, lanes], Memory::Global(Access::Write));
    let sum = k.buffer("sum", F32, &[READ_CHAINS, lanes], Memory::Register);
    let (task, step) = (k.task("t", mib), k.var("k", shape[1]));
    let tile = [READ_CHAINS, lanes];
    let clear = each(&mut k, tile, |at| Stmt::Store { buffer: sum, index: at, value: f32(0.0) });
    let step_body = each(&mut k, tile, |at| {
        let from = [vec![task.into(), step.into()], at.clone()].concat();
        Stmt::Store {
            buffer: sum,
            index: at.clone(),
            value: add(Expr::Load(memory, from), Expr::Load(sum, at)),
        }
    });
    let step = Stmt::Loop { var: step, kind: LoopKind::Serial, body: vec![step_body] };
    let finish = total(&mut k, out, sum, task.into(), tile);
    k.body = vec![clear, step, finish];
    k
}

/// A statement for every vector of a register buffer, written out.
fn each(k: &mut Kernel, [chains, lanes]: [usize; 2], make: impl Fn(Vec<Index>) -> Stmt) -> Stmt {
    let (chain, lane) = (k.var("chain", chains), k.var("l", lanes));
    let body = vec![make(vec![chain.into(), lane.into()])];
    let vector = Stmt::Loop { var: lane, kind: LoopKind::Vector, body };
    Stmt::Loop { var: chain, kind: LoopKind::Unroll, body: vec![vector] }
}

/// Adds up the sums and stores them: what is computed is used.
fn total(k: &mut Kernel, out: BufferId, sum: BufferId, task: Index, [chains, lanes]: [usize; 2]) -> Stmt {
    let lane = k.var("l", lanes);
    let one = |chain: usize| Expr::Load(sum, vec![chain.into(), lane.into()]);
    let value = (1..chains).fold(one(0), |all, chain| add(all, one(chain)));
    let store = Stmt::Store { buffer: out, index: vec![task, lane.into()], value };
    Stmt::Loop { var: lane, kind: LoopKind::Vector, body: vec![store] }
}
