//! A thread pool for launches that last microseconds.
//!
//! The caller works too. Workers wait by spinning for a few tens of microseconds after a launch,
//! so that the next one finds them awake, and then sleep. A launch never waits for a worker that
//! comes too late: whoever is there takes chunks of tasks from a counter, and when the counter
//! has run out the launch is closed. Nothing is allocated per launch; one thread needs no
//! synchronisation at all.
//!
//! ```
//! use std::sync::atomic::{AtomicU64, Ordering};
//! let pool = nnc_runtime::Pool::new(2);
//! let sum = AtomicU64::new(0);
//! pool.run(100, |first, end, _worker| {
//!     sum.fetch_add((first..end).sum::<u64>(), Ordering::Relaxed);
//! });
//! assert_eq!(sum.into_inner(), 4950);
//! ```

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How often a worker looks for work before it sleeps. A look takes about 10 ns (`pause` and a
/// load), so this is some 40 µs: longer than the kernels of LeNet-5 that run on one thread, and
/// too short to be seen in a profile of an idle program.
const SPINS_BEFORE_SLEEP: u32 = 4000;

/// How often the caller looks for the last worker to finish before it lets others have the core.
const SPINS_BEFORE_YIELD: u32 = 4000;

/// Chunks that each thread would take if all were equally fast: enough to even out tasks of
/// different lengths, few enough that the shared counter does not show.
const CHUNKS_PER_THREAD: u64 = 8;

/// More tasks than this (no kernel has them) run on the caller alone, so that the counter of
/// taken tasks cannot wrap.
const MAX_SHARED_TASKS: u64 = 1 << 62;

/// A launch of less work than this stays on the calling thread: waking others costs about a
/// microsecond, in which one core does some 60,000 floating-point operations.
const LEAST_WORK: u64 = 60_000;

/// `State`: the lowest bit says that a launch is open, the next 31 count the workers that are in
/// it, the upper 32 number the launches.
const OPEN: u64 = 1;
const ONE_WORKER: u64 = 2;
const WORKERS: u64 = 0xFFFF_FFFE;
const ONE_LAUNCH: u64 = 1 << 32;

/// The work of a launch: a closure behind a pointer, and how its tasks are cut.
#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const (), u64, u64, usize),
    closure: *const (),
    tasks: u64,
    chunk: u64,
}

/// First task of a thread's part that nobody has taken; on a cache line of its own.
#[repr(align(128))]
struct Next(AtomicU64);

struct Shared {
    state: AtomicU64,
    /// One a thread.
    next: Box<[Next]>,
    /// Written by the caller while the launch is closed and no worker is in it; read by workers
    /// that are in it.
    job: UnsafeCell<Option<Job>>,
    /// Set when a task panicked.
    panicked: AtomicBool,
    /// Number of workers that sleep or are about to.
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
}

// SAFETY: everything but `job` is atomic or a lock. `job` is written only by the thread that holds
// `Pool::turn`, while the state is closed and counts no workers; a worker reads it only between
// entering (a successful compare-exchange on an open state, which acquires what the caller wrote
// before opening it with release) and leaving (a decrement with release, which the caller acquires
// before it writes again). The pointer in it is not used outside that time, during which
// `Pool::run` keeps the closure alive; closures are `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only ever dereferenced under those rules.
unsafe impl Send for Shared {}

/// Threads that share the tasks of launches.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller of a launch.
    turn: Mutex<()>,
    least_work: u64,
}

impl Pool {
    /// A pool of that many threads, the caller's included (at least 1). Where the system will not
    /// start as many, it has fewer.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: (0..threads.max(1)).map(|_| Next(AtomicU64::new(0))).collect(),
            job: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut workers = vec![];
        for i in 1..threads {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("nnc-{i}"));
            match thread.spawn(move || shared.work(i)) {
                Ok(handle) => workers.push(handle),
                Err(_) => break,
            }
        }
        Pool { shared, workers, turn: Mutex::new(()), least_work: LEAST_WORK }
    }

    /// The same pool, for which launches of that much work are worth sharing. Work counts floating-point
    /// operations, or bytes within reach times four; 0 shares everything, as tests do.
    pub fn sharing_from(mut self, work: u64) -> Pool {
        self.least_work = work;
        self
    }

    /// The least work of a launch that is worth sharing among threads.
    pub fn least_work(&self) -> u64 {
        self.least_work
    }

    /// The number of threads, the caller's included. Worker numbers are below it.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(first, end, worker)` for ranges that make up `0..tasks`, and returns when all
    /// are done. No two calls of one run at a time have the same `worker` number. While another thread is
    /// using the pool (or from within a task) all tasks run on the calling thread, as worker 0.
    ///
    /// A panic in a task is passed on to the caller, after the launch has ended.
    pub fn run<F: Fn(u64, u64, usize) + Sync>(&self, tasks: u64, body: F) {
        if tasks == 0 {
            return;
        }
        if tasks == 1 || tasks > MAX_SHARED_TASKS || self.workers.is_empty() {
            return body(0, tasks, 0);
        }
        match self.turn.try_lock() {
            Ok(turn) => self.launch(tasks, &body, turn),
            Err(std::sync::TryLockError::Poisoned(turn)) => self.launch(tasks, &body, turn.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => body(0, tasks, 0),
        }
    }

    fn launch<F: Fn(u64, u64, usize) + Sync>(&self, tasks: u64, body: &F, turn: MutexGuard<'_, ()>) {
        /// Calls the closure behind the pointer.
        ///
        /// # Safety
        /// `closure` must point to a live `F`.
        unsafe fn call<F: Fn(u64, u64, usize)>(closure: *const (), first: u64, end: u64, worker: usize) {
            // SAFETY: the caller's promise.
            unsafe { (*closure.cast::<F>())(first, end, worker) }
        }
        let chunks = CHUNKS_PER_THREAD * self.threads() as u64;
        let job = Job {
            call: call::<F>,
            closure: std::ptr::from_ref(body).cast(),
            tasks,
            chunk: tasks.div_ceil(chunks).max(1),
        };
        let shared = &*self.shared;
        // SAFETY: `turn` is held, and the last launch ended closed and without workers.
        unsafe { *shared.job.get() = Some(job) };
        for (part, next) in shared.next.iter().enumerate() {
            next.0.store(shared.part(&job, part).start, Ordering::Relaxed);
        }
        let closed = shared.state.load(Ordering::Relaxed);
        shared.state.store(closed.wrapping_add(ONE_LAUNCH) | OPEN, Ordering::SeqCst);
        // A worker counts itself asleep before it looks at the state for the last time, and the
        // state was stored before this load, both sequentially consistent: one sees the other.
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            let _guard = lock(&shared.sleep);
            shared.wake.notify_all();
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| shared.take_chunks(&job, 0)));
        shared.close();
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        drop(turn);
        if let Err(payload) = outcome {
            resume_unwind(payload);
        }
        assert!(!panicked, "a task of a launch panicked");
    }
}

impl Shared {
    /// The tasks of a thread.
    fn part(&self, job: &Job, part: usize) -> Range<u64> {
        let size = job.tasks.div_ceil(self.next.len() as u64);
        let start = (part as u64).saturating_mul(size).min(job.tasks);
        start..start.saturating_add(size).min(job.tasks)
    }

    /// Works on chunks of the thread's own part, then on those of the others.
    fn take_chunks(&self, job: &Job, worker: usize) {
        let parts = self.next.len();
        for part in (0..parts).map(|i| (worker + i) % parts) {
            let part_end = self.part(job, part).end;
            loop {
                let first = self.next[part].0.fetch_add(job.chunk, Ordering::Relaxed);
                if first >= part_end {
                    break;
                }
                let end = first.saturating_add(job.chunk).min(part_end);
                // SAFETY: the launch is open or has this thread in it, so `run` has not returned and
                // the closure it borrows lives.
                unsafe { (job.call)(job.closure, first, end, worker) };
            }
        }
    }

    /// Lets no more workers in, and waits for those that are.
    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0;
        while self.state.load(Ordering::Acquire) & WORKERS != 0 {
            looks += 1;
            if looks < SPINS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// The life of a worker.
    fn work(&self, worker: usize) {
        let mut done = 0;
        let mut looks = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN != 0 && state / ONE_LAUNCH != done {
                let entered = self.state.compare_exchange_weak(
                    state,
                    state + ONE_WORKER,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                if entered.is_ok() {
                    done = state / ONE_LAUNCH;
                    self.take_part(worker);
                    looks = 0;
                }
                continue;
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            looks += 1;
            if looks < SPINS_BEFORE_SLEEP {
                std::hint::spin_loop();
            } else {
                self.fall_asleep(done);
                looks = 0;
            }
        }
    }

    /// Works on the launch that the thread has entered, and leaves it.
    fn take_part(&self, worker: usize) {
        // SAFETY: the thread is counted in the state, so the caller does not write.
        let job = unsafe { *self.job.get() };
        if let Some(job) = job
            && catch_unwind(AssertUnwindSafe(|| self.take_chunks(&job, worker))).is_err()
        {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.state.fetch_sub(ONE_WORKER, Ordering::AcqRel);
    }

    /// Sleeps until it is woken, unless there is a launch other than `done`. Whoever is woken too
    /// late for a launch spins again before the next sleep: where there is one there are more.
    fn fall_asleep(&self, done: u64) {
        let guard = lock(&self.sleep);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let state = self.state.load(Ordering::SeqCst);
        let work = state & OPEN != 0 && state / ONE_LAUNCH != done;
        if !work && !self.stop.load(Ordering::SeqCst) {
            drop(self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner));
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _guard = lock(&self.shared.sleep);
            self.shared.wake.notify_all();
        }
        for w in self.workers.drain(..) {
            let _ = w.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_task_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 64, 1000, 12345] {
                let seen: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                pool.run(tasks, |first, end, worker| {
                    assert!(worker < threads && first < end);
                    for i in first..end {
                        seen[i as usize].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(
                    seen.iter().all(|n| n.load(Ordering::Relaxed) == 1),
                    "{threads} threads, {tasks} tasks"
                );
            }
        }
    }

    #[test]
    fn workers_do_not_meet() {
        let pool = Pool::new(4);
        let busy: Vec<AtomicBool> = (0..4).map(|_| AtomicBool::new(false)).collect();
        for round in 0..2000 {
            pool.run(40, |_, _, worker| {
                assert!(!busy[worker].swap(true, Ordering::SeqCst));
                std::hint::black_box(round);
                busy[worker].store(false, Ordering::SeqCst);
            });
            if round % 500 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(2)); // lets them fall asleep
            }
        }
    }

    #[test]
    fn shared_by_several_callers_and_nested() {
        let pool = Pool::new(3);
        let sum = AtomicU64::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..200 {
                        pool.run(10, |first, end, _| {
                            pool.run(end - first, |a, b, _| {
                                sum.fetch_add(b - a, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 200 * 10);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let outcome =
            catch_unwind(AssertUnwindSafe(|| pool.run(100, |first, _, _| assert!(first < 50, "no"))));
        assert!(outcome.is_err());
        let sum = AtomicU64::new(0);
        pool.run(100, |first, end, _| {
            sum.fetch_add(end - first, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 100);
    }

    #[test]
    fn a_huge_number_of_tasks_does_not_overflow() {
        let pool = Pool::new(2);
        let sum = AtomicU64::new(0);
        pool.run(u64::MAX, |first, end, _| {
            sum.fetch_add(end - first, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), u64::MAX);
    }
}
