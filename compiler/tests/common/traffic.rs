//! What the kernels of a program ask of a GPU, counted by the interpreter of PTX: instructions, sectors of global
//! memory, bank conflicts. The first, a middle and the last block of each grid are run, on memory without contents (so
//! it takes seconds, however large the batch); the other blocks count as the middle one.

use nnc_compiler::emit::cuda::{self, Launch};
use nnc_compiler::kernel::Module;
use nnc_compiler::kernel::module::{self, Value};
use nnc_compiler::target::GpuTarget;
use nnc_ptx_interpreter::{Arg, Error, Fault, Memory, Stats};
use nnc_runtime::program::Phase;

/// Instructions of a warp at which counting ends: who takes more is slow.
const MOST_STEPS: u64 = 1 << 22;

/// A kernel, and what all its blocks do in a launch.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    /// The layers of the first launch.
    pub layer: String,
    pub launches: usize,
    pub launch: Launch,
    /// `None` where a warp takes more than [`MOST_STEPS`] instructions.
    pub stats: Option<Stats>,
    /// What the arguments have, each once.
    pub bytes: u64,
}

impl Row {
    /// So much of one thing for each of another.
    pub fn ratio(&self, above: impl Fn(&Stats) -> u64, below: impl Fn(&Stats) -> u64) -> f64 {
        self.stats.map_or(f64::NAN, |s| above(&s) as f64 / below(&s).max(1) as f64)
    }

    /// Sectors of a request, and how many they would be if the bytes of its lanes lay side by side.
    pub fn sectors(&self) -> [f64; 2] {
        let least = self.ratio(|s| s.global_bytes, |s| s.global_requests) / 32.0;
        [self.ratio(|s| s.global_sectors, |s| s.global_requests), least]
    }
}

/// A row for every kernel that a run launches, in the order of their first launch.
///
/// # Panics
/// If there is no PTX, or the interpreter finds a fault in it.
pub fn traffic(module: &Module, target: GpuTarget) -> Vec<Row> {
    let ptx = cuda::emit(module, target).unwrap_or_else(|e| panic!("{e}"));
    let mut code = nnc_ptx_interpreter::Module::parse(&ptx.text).unwrap_or_else(|e| panic!("{e}"));
    code.set_step_limit(MOST_STEPS);
    let mut memory = Memory::new();
    let hollow = |v: &Value| memory.hollow(&v.name, v.elements * v.dtype.size());
    let buffers: Vec<_> = module.values.iter().map(hollow).collect();
    let mut rows: Vec<(usize, Row)> = vec![];
    for l in module.launches.iter().filter(|l| l.phase == Phase::Run) {
        if let Some((_, row)) = rows.iter_mut().find(|(kernel, _)| *kernel == l.kernel) {
            row.launches += 1;
            continue;
        }
        let address = |a: &module::Arg| {
            let value = a.value.0 as usize;
            Arg::U64(buffers[value].address() + (a.offset * module.values[value].dtype.size()) as u64)
        };
        let args: Vec<Arg> = l.args.iter().map(address).collect();
        let (kernel, entry) = (&module.kernels[l.kernel], &ptx.entries[l.kernel]);
        let stats = count(&code, &mut memory, entry, &args).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
        let row = Row {
            name: kernel.name.clone(),
            layer: l.layer.clone(),
            launches: 1,
            launch: entry.launch,
            stats,
            bytes: kernel.params().map(|b| (b.extent() * b.dtype.size()) as u64).sum(),
        };
        rows.push((l.kernel, row));
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// What all blocks of a launch do.
fn count(
    code: &nnc_ptx_interpreter::Module,
    memory: &mut Memory,
    entry: &cuda::Entry,
    args: &[Arg],
) -> Result<Option<Stats>, Error> {
    let Launch { grid, block, shared_bytes, .. } = entry.launch;
    let grid = u64::from(grid);
    let shape = ([entry.launch.grid, 1, 1], [block, 1, 1], shared_bytes);
    let mut sum = Stats::default();
    for (number, times) in [(0, 1), (grid / 2, grid.saturating_sub(2)), (grid - 1, u64::from(grid > 1))] {
        if times == 0 {
            continue;
        }
        let s = match code.sample(memory, &entry.name, shape, &[number], args) {
            Err(Error::Fault(f)) if matches!(f.fault, Fault::StepLimit(_)) => return Ok(None),
            found => found?,
        };
        sum.instructions += s.instructions * times;
        sum.thread_instructions += s.thread_instructions * times;
        sum.barriers += s.barriers * times;
        sum.global_requests += s.global_requests * times;
        sum.global_bytes += s.global_bytes * times;
        sum.global_sectors += s.global_sectors * times;
        sum.block_sectors += s.block_sectors * times;
        sum.shared_wavefronts += s.shared_wavefronts * times;
        sum.bank_conflicts += s.bank_conflicts * times;
        sum.mmas += s.mmas * times;
        sum.unrounded_tf32 += s.unrounded_tf32 * times;
    }
    Ok(Some(sum))
}
