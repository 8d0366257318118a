//! What a machine can do at most: what a share in a profile is of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nnc_compiler::lower::roofline::{Size, module};
use nnc_runtime::{Pool, Session};

use crate::device::cuda::{self, DeviceInfo};
use crate::device::{Device, LaunchTime, Loaded, load_program};
use crate::error::Result;
use crate::{Options, Precision, Weights, pipeline};

/// The memory that is read: more than the caches of most machines hold.
const MIB: usize = 256;

/// Tasks of multiply-adds for each thread, of about a millisecond.
const TASKS: usize = 4;

/// How often both are measured; the fastest counts.
const ROUNDS: usize = 5;

/// The two limits of a kernel's speed: a kernel that comes near one of them is as fast as its algorithm can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Floating-point operations a second of fused multiply-adds, two each: of a CPU, from registers; of a GPU, of what
    /// computes products in the options' precision.
    pub flops: f64,
    /// Bytes a second that are read from memory, in order.
    pub bytes: f64,
    /// Where that is known from.
    pub origin: Origin,
}

/// Where limits are known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Kernels that were timed.
    Measured,
    /// Clocks and units, as the driver tells them: nothing reaches all of it.
    Nominal,
}

impl Roofline {
    /// That of the device of the options. A CPU is measured with their vectors and threads, for some tenths of a
    /// second and with 256 MiB. `None` for devices of which nothing is known.
    ///
    /// # Errors
    /// If there is not enough memory, or no GPU.
    pub fn of(options: &Options) -> Result<Option<Roofline>> {
        match options.chosen_device() {
            Device::Cpu => Roofline::measure(options),
            Device::Cuda => Ok(Roofline::of_gpu(cuda::open()?.0.info(), options.chosen_precision())),
            Device::Reference => Ok(None),
        }
    }

    fn measure(options: &Options) -> Result<Option<Roofline>> {
        let session = session(options, MIB)?;
        let mut best = Roofline { flops: 0.0, bytes: 0.0, origin: Origin::Measured };
        for _ in 0..ROUNDS {
            let (_, launches) = Loaded::run_profiled(&session, &[])?;
            let [add, _, read] = launches.as_slice() else { return Ok(None) };
            best.flops = best.flops.max(per_second(add.flops, add.time));
            best.bytes = best.bytes.max(per_second(read.bytes, read.time));
        }
        Ok(Some(best))
    }

    /// From clocks and units; `None` for architectures that are not known here.
    fn of_gpu(gpu: &DeviceInfo, precision: Precision) -> Option<Roofline> {
        // Operations a cycle of a multiprocessor, dense: NVIDIA's tuning guides and the white papers of GA100,
        // GA102, AD102, GH100.
        let [f32, tf32, bf16] = match gpu.capability {
            (8, 0) => [128, 1024, 2048],
            (8, _) => [256, 256, 512],
            (9, 0) => [256, 2048, 4096],
            _ => return None,
        };
        let cycle = match precision {
            Precision::Strict => f32,
            Precision::Default => tf32,
            Precision::Bf16 => bf16,
        };
        let flops = f64::from(gpu.multiprocessors) * f64::from(gpu.clock_khz) * 1e3 * f64::from(cycle);
        let bytes = 2.0 * f64::from(gpu.memory_clock_khz) * 1e3 * f64::from(gpu.memory_bus_bits) / 8.0;
        (flops > 0.0 && bytes > 0.0).then_some(Roofline { flops, bytes, origin: Origin::Nominal })
    }

    /// A launch's operations as a share of what could be done in its time. Algorithms that need fewer than are
    /// counted (Winograd's) may pass 1.
    pub fn share_of_flops(&self, launch: &LaunchTime) -> f64 {
        per_second(launch.flops, launch.time) / self.flops
    }

    /// Likewise of the bytes of its arguments, each read or written once. Those that are in caches may pass 1.
    pub fn share_of_bytes(&self, launch: &LaunchTime) -> f64 {
        per_second(launch.bytes, launch.time) / self.bytes
    }
}

/// For under a profile.
impl fmt::Display for Roofline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [flops, bytes] = [self.flops / 1e9, self.bytes / 1e9];
        let (adds, reads) = match self.origin {
            Origin::Measured => {
                ("multiply-adds in registers; Winograd needs fewer than are counted", "reads of memory")
            }
            Origin::Nominal => ("by clock and units", "by clock and bus"),
        };
        writeln!(f, "% peak: of {flops:.0} GFLOP/s, {adds}")?;
        writeln!(
            f,
            "% memory: of {bytes:.1} GB/s, {reads}; what a kernel reads and writes counts once, caches are faster"
        )
    }
}

/// The kernels that are timed, over so much memory.
fn session(options: &Options, mib: usize) -> Result<Session> {
    let (target, threads) = (options.chosen_target(), options.thread_count());
    let module = module(&target, Size { tasks: threads * TASKS, mib });
    let program = pipeline::emit(&module, &pipeline::plan(&module, None), &target, false)?.program;
    load_program(program, &Weights::default(), Arc::new(Pool::new(threads)))
}

fn per_second(n: u64, time: Duration) -> f64 {
    n as f64 / time.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use nnc_compiler::target::CpuTarget;

    use super::*;

    #[test]
    fn gpus_by_clock_and_units() {
        // What NVIDIA's data sheets say: 156 and 312 TFLOP/s, 1,555 GB/s; 989 TFLOP/s, 3,352 GB/s.
        let gpu = |capability, multiprocessors, clock_khz, memory_clock_khz| DeviceInfo {
            ordinal: 0,
            name: String::new(),
            capability,
            memory: 0,
            multiprocessors,
            clock_khz,
            memory_clock_khz,
            memory_bus_bits: 5120,
            driver: 0,
        };
        let limits = |gpu: &DeviceInfo, precision| {
            let r = Roofline::of_gpu(gpu, precision).unwrap();
            [(r.flops / 1e12).round(), (r.bytes / 1e9).round()]
        };
        let a100 = gpu((8, 0), 108, 1_410_000, 1_215_000);
        assert_eq!(limits(&a100, Precision::Default), [156.0, 1555.0]);
        assert_eq!(limits(&a100, Precision::Bf16), [312.0, 1555.0]);
        let h100 = gpu((9, 0), 132, 1_830_000, 2_619_000);
        assert_eq!(limits(&h100, Precision::Bf16), [989.0, 3352.0]);
        assert_eq!(Roofline::of_gpu(&gpu((7, 0), 80, 1, 1), Precision::Default), None);
    }

    #[test]
    fn the_kernels_do_what_is_counted() {
        let host = CpuTarget::host();
        for lanes in host.widths() {
            let target = host.clone().with_lanes(lanes);
            let options = Options::new().threads(2).target(target.clone());
            let session = session(&options, 3).unwrap();
            let (outputs, launches) = Loaded::run_profiled(&session, &[]).unwrap();
            let [adds, read] = [0, 1].map(|i| outputs[i].as_f32().unwrap());
            let tasks = 2 * TASKS;
            assert_eq!((adds.len(), read.len()), (tasks * lanes, 3 * lanes), "{lanes}");
            // Every multiply-add added one, every element read is one.
            let all = launches[0].flops as f32 / (2 * tasks * lanes) as f32;
            assert!(adds.iter().all(|&x| x == all), "{lanes}: {all} {adds:?}");
            assert!(read.iter().all(|&x| x == ((1 << 20) / (4 * lanes)) as f32), "{lanes}: {read:?}");
            let written = 3 * lanes as u64 * 4;
            assert_eq!((launches[1].bytes, launches[2].bytes), (3 << 20, (3 << 20) + written), "{lanes}");
        }
    }
}
