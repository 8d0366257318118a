//! `nnc devices`: where programs can run.

use nnc::ByteSize;
use nnc::compiler::target::CpuTarget;
use nnc::device::cuda::{DeviceInfo, gpus};

use super::{Outcome, terminal};

/// List what programs can run on: the CPU and the GPUs
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc devices

For `--device cuda` a GPU needs compute capability 8.0 or more and a driver for CUDA 12.0 or
later; nothing else of CUDA. The first such GPU is taken: the environment variable
CUDA_VISIBLE_DEVICES says which there are.")]
pub struct Args {}

pub fn run(_: &Args) -> Outcome {
    let cpu = CpuTarget::host();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut text = format!("cpu   {}, {cores} cores, vectors of {} x f32\n", cpu.architecture, cpu.lanes);
    match gpus() {
        Ok(all) => all.iter().for_each(|gpu| text += &line(gpu)),
        Err(e) => text += &format!("cuda  none: {e}\n"),
    }
    terminal::print(&text)
}

fn line(gpu: &DeviceInfo) -> String {
    let DeviceInfo { ordinal, name, capability: (major, minor), memory, multiprocessors, driver, .. } = gpu;
    let memory = ByteSize(*memory as u64);
    let refused = gpu.check().err().map_or(String::new(), |e| format!("; cannot be used: {e}"));
    format!(
        "cuda  {ordinal}: {name}, compute capability {major}.{minor}, {memory}, {multiprocessors} multiprocessors, \
         driver for CUDA {}.{}{refused}\n",
        driver / 1000,
        driver % 1000 / 10
    )
}
