//! From a kernel's tasks to a grid of blocks of threads: a task is a thread, or a block where the kernel says so.
//!
//! Task number `t` is thread `t mod block` of block `t / block`. The innermost task dimension counts
//! fastest, so that neighbouring threads access neighbouring elements wherever it is the innermost
//! one in memory.

use std::fmt;

use crate::kernel::Kernel;
use crate::kernel::block::UNASKED_SHARED_BYTES;
use crate::target::GpuTarget;

/// Threads of a block: where there are enough tasks, and where there are few.
const MOST_THREADS: u32 = 256;
const LEAST_THREADS: u32 = 32;

/// How many blocks and threads run a kernel, and what they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks of the grid, along x; 1 along y and z.
    pub grid: u32,
    /// Threads of a block, along x; 1 along y and z.
    pub block: u32,
    /// Bytes of dynamic shared memory: of blocks that have more than is to be had without asking. (What others share
    /// is declared in their entries.)
    pub shared_bytes: u32,
    /// Tasks: blocks, or threads; those past them return at once.
    pub tasks: u32,
}

impl Launch {
    /// The launch of a kernel; `None` if it has more tasks than a grid counts.
    ///
    /// Blocks are as large as they can be while every multiprocessor gets one.
    pub fn of(kernel: &Kernel, target: GpuTarget) -> Option<Launch> {
        let tasks = u32::try_from(kernel.task_count()).ok().filter(|&n| n <= i32::MAX as u32)?;
        if let Some(threads) = kernel.threads {
            let (_, bytes) = kernel.shared_places();
            let shared_bytes = if bytes > UNASKED_SHARED_BYTES { bytes as u32 } else { 0 };
            return Some(Launch { grid: tasks, block: threads as u32, shared_bytes, tasks });
        }
        let wanted = target.multiprocessors() as u32;
        let mut block = MOST_THREADS;
        while block > LEAST_THREADS && tasks.div_ceil(block) < wanted {
            block /= 2;
        }
        Some(Launch { grid: tasks.div_ceil(block), block, shared_bytes: 0, tasks })
    }

    /// True if tasks are threads and some of the last block have none.
    pub fn is_ragged(&self) -> bool {
        self.grid * self.block != self.tasks
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Launch { grid, block, shared_bytes, tasks } = self;
        write!(f, "grid {grid}, block {block}, shared {shared_bytes} bytes: {tasks} tasks")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(tasks: usize) -> Launch {
        let mut kernel = Kernel::new("k");
        kernel.task("t", tasks);
        Launch::of(&kernel, GpuTarget::Sm90).unwrap()
    }

    #[test]
    fn few_tasks_are_spread_over_the_multiprocessors() {
        assert_eq!((launch(1).grid, launch(1).block), (1, 32));
        assert_eq!((launch(132 * 64).grid, launch(132 * 64).block), (132, 64));
        assert_eq!((launch(1 << 20).grid, launch(1 << 20).block), (4096, 256));
        assert!(launch(33).is_ragged() && !launch(1 << 20).is_ragged());
    }

    #[test]
    fn too_many_tasks_have_no_grid() {
        let mut kernel = Kernel::new("k");
        kernel.task("t", 1 << 20);
        kernel.task("u", 1 << 11);
        assert_eq!(Launch::of(&kernel, GpuTarget::Sm80), None);
    }
}
