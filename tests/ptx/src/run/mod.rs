//! Launches: the blocks of a grid one after the other, the warps of a block in turns.
//!
//! A warp runs until all its threads have ended or wait at a barrier; then the next one runs. When
//! no warp can run, the barrier opens if all threads of the block wait at it, and is a fault if not.

mod access;
mod convert;
mod copy;
mod exchange;
mod field;
mod float;
mod int;
mod matrix;
mod step;
mod sums;
mod traffic;
mod warp;

use std::collections::HashSet;

use crate::error::{At, Error, Fault, ThreadFault};
use crate::kernel::{Kernel, Special};
use crate::memory::{Buffer, Element, Memory};
use crate::op::{Space, W};
use crate::shadow::Who;
use crate::shared::{Layout, Shared};
pub use sums::Sums;
use warp::{Cause, Longs, State, Trouble, Warp};

/// Shared memory of a block: what variables of fixed size may have, and all together.
const MOST_STATIC_SHARED: usize = 48 << 10;
const MOST_SHARED: usize = 227 << 10;

/// Threads of a block, and the limits of its shape and of the grid's.
const MOST_THREADS: u64 = 1024;
const BLOCK_LIMITS: [u32; 3] = [1024, 1024, 64];
const GRID_LIMITS: [u32; 3] = [0x7fff_ffff, 0xffff, 0xffff];

/// An argument of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// The address of a buffer.
    Buffer(Buffer),
    /// A number of 32 bits.
    U32(u32),
    /// A number of 32 bits.
    I32(i32),
    /// A number of 64 bits, or an address inside a buffer.
    U64(u64),
    /// A float.
    F32(f32),
    /// The bytes of an array.
    Bytes(Vec<u8>),
}

impl Arg {
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Arg::Buffer(b) => b.address().put(&mut out),
            Arg::U32(v) => v.put(&mut out),
            Arg::I32(v) => v.put(&mut out),
            Arg::U64(v) => v.put(&mut out),
            Arg::F32(v) => v.put(&mut out),
            Arg::Bytes(v) => out.extend_from_slice(v),
        }
        out
    }
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Instructions of warps.
    pub instructions: u64,
    /// Instructions of threads: those of warps times the lanes that took part.
    pub thread_instructions: u64,
    /// Barriers that blocks passed.
    pub barriers: u64,
    /// Accesses of warps to global memory.
    pub global_requests: u64,
    /// Bytes that their lanes want, each counted for itself.
    pub global_bytes: u64,
    /// Sectors of 32 bytes that those touch: 4 for each request of 32 neighbouring words.
    pub global_sectors: u64,
    /// Sectors that blocks touch, each once a block: what comes from behind a cache that holds all that a block needs.
    /// Counted for samples alone.
    pub block_sectors: u64,
    /// Wavefronts that accesses to shared memory take at the least (an access of 16 bytes a lane takes 4).
    pub shared_wavefronts: u64,
    /// Wavefronts on top of those, where lanes want different words of one bank.
    pub bank_conflicts: u64,
    /// Matrix multiplications of warps.
    pub mmas: u64,
    /// Operands of TF32 multiplications whose low 13 bits were not zero: the tensor cores ignore
    /// those bits, which rounds towards zero; `cvt.rna.tf32.f32` would have rounded to nearest.
    pub unrounded_tf32: u64,
}

/// What all warps of a block see.
pub(crate) struct Env<'a> {
    pub kernel: &'a Kernel,
    pub memory: &'a mut Memory,
    pub shared: Shared,
    pub params: Vec<u8>,
    /// Time and place; the thread is the warp's to fill in.
    pub who: Who,
    pub stats: Stats,
    /// The sectors that the block has touched, if they are to be counted.
    pub touched: Option<HashSet<u64>>,
    pub step_limit: u64,
    pub sums: Sums,
}

impl Env<'_> {
    /// Counts what an access costs.
    fn count(&mut self, space: Space, addresses: &Longs, mask: u32, bytes: u32) {
        match space {
            Space::Global => {
                self.stats.global_requests += u64::from(mask != 0);
                self.stats.global_bytes += u64::from(mask.count_ones() * bytes);
                let sectors = traffic::sectors(addresses, mask);
                self.stats.global_sectors += sectors.as_slice().len() as u64;
                if let Some(touched) = &mut self.touched {
                    touched.extend(sectors.as_slice());
                }
            }
            Space::Shared => {
                let (least, conflicts) = traffic::wavefronts(addresses, mask, bytes);
                self.stats.shared_wavefronts += least;
                self.stats.bank_conflicts += conflicts;
            }
            Space::Local => {}
        }
    }
}

/// Grid and block of a launch.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
}

fn threads(shape: [u32; 3]) -> u64 {
    shape.iter().map(|&n| u64::from(n)).product()
}

/// The bytes of the parameters, or what does not suit.
fn parameters(kernel: &Kernel, args: &[Arg]) -> Result<Vec<u8>, String> {
    if args.len() != kernel.params.len() {
        return Err(format!("expected {} arguments, found {}", kernel.params.len(), args.len()));
    }
    let mut out = vec![0; kernel.param_bytes as usize];
    for (param, arg) in kernel.params.iter().zip(args) {
        let bytes = arg.bytes();
        if bytes.len() != param.bytes as usize {
            return Err(format!("`{}` has {} bytes, the argument {}", param.name, param.bytes, bytes.len()));
        }
        let start = param.offset as usize;
        out[start..start + bytes.len()].copy_from_slice(&bytes);
    }
    Ok(out)
}

fn check_shape(kernel: &Kernel, shape: &Shape) -> Result<(), String> {
    let count = threads(shape.block);
    let limits = [("block", shape.block, BLOCK_LIMITS), ("grid", shape.grid, GRID_LIMITS)];
    for (what, sizes, limits) in limits {
        if let Some((n, limit)) = sizes.iter().zip(limits).find(|&(&n, limit)| n == 0 || n > limit) {
            return Err(format!("a {what} of {sizes:?}: {n} is not in 1 to {limit}"));
        }
    }
    if count > kernel.max_threads.unwrap_or(MOST_THREADS).min(MOST_THREADS) {
        return Err(format!("{count} threads are more than a block may have"));
    }
    if kernel.required.is_some_and(|r| r != shape.block) {
        return Err(format!(
            "the block must be {:?}, found {:?}",
            kernel.required.unwrap_or_default(),
            shape.block
        ));
    }
    let fixed = Layout::new(&kernel.shared, 0).bytes;
    let all = Layout::new(&kernel.shared, shape.dynamic_shared).bytes;
    let dynamic = kernel.shared.iter().filter(|v| v.dynamic).count();
    if dynamic > 1 {
        return Err("more than one variable of dynamic shared memory".into());
    }
    if dynamic == 0 && shape.dynamic_shared > 0 {
        return Err("dynamic shared memory, but no variable for it".into());
    }
    if fixed > MOST_STATIC_SHARED || all > MOST_SHARED {
        return Err(format!(
            "{all} bytes of shared memory, {fixed} of them in variables of fixed size, are too many"
        ));
    }
    Ok(())
}

/// Runs a kernel on some blocks of a grid, by their numbers in the order in which x counts fastest.
pub(crate) fn launch(
    kernel: &Kernel,
    lines: &[String],
    memory: &mut Memory,
    (shape, blocks, is_sample): (Shape, impl Iterator<Item = u64>, bool),
    args: &[Arg],
    (step_limit, sums): (u64, Sums),
) -> Result<Stats, Error> {
    let refuse = |message| Error::Launch { kernel: kernel.name.clone(), message };
    check_shape(kernel, &shape).map_err(refuse)?;
    let params = parameters(kernel, args).map_err(refuse)?;
    let first = memory.next_interval();
    let who = Who { launch_first: first, block_first: first, now: first, thread: 0, sync: 0 };
    let shared = Shared::new(Layout::new(&kernel.shared, shape.dynamic_shared));
    let touched = is_sample.then(HashSet::new);
    let stats = Stats::default();
    let mut env = Env { kernel, memory, shared, params, who, stats, touched, step_limit, sums };
    let count = threads(shape.block) as u32;
    let mut warps: Vec<Warp> =
        (0..count.div_ceil(32)).map(|w| Warp::new(kernel, w * 32, (count - w * 32).min(32))).collect();
    for warp in &mut warps {
        for (&special, &slot) in &kernel.specials {
            fill_constant(warp, special, slot, &shape);
        }
    }
    let [width, height, _] = shape.grid.map(u64::from);
    for number in blocks {
        let block = [number % width, number / width % height, number / width / height].map(|i| i as u32);
        for (&special, &slot) in &kernel.specials {
            if let Special::Ctaid(axis) = special {
                warps.iter_mut().for_each(|w| w.set_constant(slot, [block[usize::from(axis)]; 32]));
            }
        }
        run_block(&mut env, &mut warps).map_err(|(warp, trouble)| {
            let thread = warps[warp].first_thread + trouble.lane;
            explain(kernel, lines, warps[warp].at(), block, position(thread, shape.block), trouble)
        })?;
        if let Some(touched) = &mut env.touched {
            env.stats.block_sectors += touched.len() as u64;
            touched.clear();
        }
    }
    Ok(env.stats)
}

/// `%tid` of a thread by its number.
fn position(thread: u32, block: [u32; 3]) -> [u32; 3] {
    [thread % block[0], thread / block[0] % block[1], thread / block[0] / block[1]]
}

/// The special registers that are the same in all blocks.
fn fill_constant(warp: &mut Warp, special: Special, slot: W, shape: &Shape) {
    let first = warp.first_thread;
    let values: [u32; 32] = std::array::from_fn(|lane| match special {
        Special::Tid(axis) => position(first + lane as u32, shape.block)[usize::from(axis)],
        Special::Ntid(axis) => shape.block[usize::from(axis)],
        Special::Nctaid(axis) => shape.grid[usize::from(axis)],
        Special::LaneId => lane as u32,
        Special::WarpId => first / 32,
        Special::Ctaid(_) => 0,
    });
    warp.set_constant(slot, values);
}

fn explain(
    kernel: &Kernel,
    lines: &[String],
    at: usize,
    block: [u32; 3],
    thread: [u32; 3],
    trouble: Trouble,
) -> Error {
    let line = kernel.code.get(at).map_or(0, |i| i.line);
    let text = (line as usize).checked_sub(1).and_then(|l| lines.get(l));
    let fault = match trouble.cause {
        Cause::Fault(fault) => fault,
        Cause::Register(slot) => Fault::UninitialisedRegister(kernel.slot_name(slot)),
    };
    Error::Fault(Box::new(ThreadFault {
        kernel: kernel.name.clone(),
        line,
        at: At { block, thread },
        fault,
        text: text.map_or(String::new(), |t| t.trim().to_string()),
    }))
}

/// Runs a block to its end; a trouble comes with the number of its warp.
fn run_block(env: &mut Env, warps: &mut [Warp]) -> Result<(), (usize, Trouble)> {
    let start = env.memory.next_interval();
    env.who.block_first = start;
    env.who.now = start;
    warps.iter_mut().for_each(Warp::reset);
    loop {
        for (i, warp) in warps.iter_mut().enumerate() {
            warp.run(env).map_err(|t| (i, t))?;
        }
        let waiting = warps.iter().position(|w| matches!(w.state, State::AtBarrier(_)));
        let Some(first) = waiting else { return Ok(()) };
        // The barrier at which the first waits must be reached by all.
        if let Some(missing) = warps.iter().find(|w| w.state != warps[first].state) {
            let fault = Fault::BarrierNotReached(missing.first_thread);
            // The barrier is the instruction before.
            warps[first].step_back();
            return Err((first, Trouble { lane: 0, cause: Cause::Fault(fault) }));
        }
        env.who.now = env.memory.next_interval();
        env.stats.barriers += 1;
        warps.iter_mut().for_each(|w| w.state = State::Running);
    }
}
