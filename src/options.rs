//! How a network is compiled and run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nnc_compiler::lower::algorithm::{Choices, Convolutions, LowerOptions};
use nnc_compiler::lower::gpu::{GpuOptions, Products};
use nnc_compiler::target::{CpuTarget, GpuTarget};

use crate::{ByteSize, Device};

/// How results may differ from plain `f32` arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// `f32`, sums in any fixed order, algorithms that need fewer multiplications; on a GPU, factors of large products
    /// are rounded to TF32 (ten bits of mantissa).
    #[default]
    Default,
    /// `f32`, textbook algorithms only: no Winograd convolutions, no TF32.
    Strict,
    /// On a GPU, factors of large products are rounded to bf16 (seven bits of mantissa), their sums are `f32`, and so is
    /// what is kept. On a CPU, the default.
    Bf16,
}

/// Options for building, compiling and running, set one after the other.
///
/// ```
/// let options = nnc::Options::new().set("N", 1).set("depth", 16).threads(2);
/// assert_eq!(options.sets()["depth"], "16");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    net: Option<String>,
    sets: BTreeMap<String, String>,
    threads: usize,
    precision: Precision,
    choices: Option<Arc<Choices>>,
    device: Device,
    target: Option<CpuTarget>,
    gpu: Option<GpuTarget>,
    training: bool,
    memory_limit: Option<ByteSize>,
}

impl Options {
    /// The defaults: the only (or last) net of the source, every core, the CPU, inference.
    pub fn new() -> Options {
        Options::default()
    }

    /// Chooses a net by name, where a source has several.
    pub fn net(mut self, name: impl Into<String>) -> Options {
        self.net = Some(name.into());
        self
    }

    /// Sets a symbolic size (`N`) or a parameter of the net (`classes`): `--set` of the command line.
    pub fn set(mut self, name: impl Into<String>, value: impl fmt::Display) -> Options {
        self.sets.insert(name.into(), value.to_string());
        self
    }

    /// The number of threads; 0 means every core.
    pub fn threads(mut self, threads: usize) -> Options {
        self.threads = threads;
        self
    }

    /// How exact results must be.
    pub fn precision(mut self, precision: Precision) -> Options {
        self.precision = precision;
        self
    }

    /// Algorithms of convolutions by layer, in place of the cost model's; [`tune`](crate::tune::tune) measures them.
    /// With [`Precision::Strict`] they do not count.
    pub fn choices(mut self, choices: Choices) -> Options {
        self.choices = Some(Arc::new(choices));
        self
    }

    /// Where it runs.
    pub fn device(mut self, device: Device) -> Options {
        self.device = device;
        self
    }

    /// The CPU that code is made for; without it, the one that this runs on.
    ///
    /// ```
    /// let options = nnc::Options::new().target("avx2".parse()?);
    /// assert_eq!(options.chosen_target().lanes, 8);
    /// # Ok::<(), nnc::compiler::target::UnknownTarget>(())
    /// ```
    pub fn target(mut self, target: CpuTarget) -> Options {
        self.target = Some(target);
        self
    }

    /// The GPU that programs are compiled and stages shown for, instead of the CPU: its graph, kernels, plan,
    /// PTX. (On [`Device::Cuda`] the target is that of the GPU that is there.)
    ///
    /// ```
    /// let options = nnc::Options::new().gpu("sm_90".parse()?);
    /// assert_eq!(options.chosen_gpu().map(|g| g.name()), Some("sm_90"));
    /// # Ok::<(), nnc::compiler::target::UnknownGpu>(())
    /// ```
    pub fn gpu(mut self, target: GpuTarget) -> Options {
        self.gpu = Some(target);
        self
    }

    /// Builds the training variant of the net (with the parts that exist only in training).
    pub fn training(mut self, training: bool) -> Options {
        self.training = training;
        self
    }

    /// The most memory that a training step may take by its plan. Activations are computed again, where
    /// that keeps it, at the price of time; the results have the same bits. Inference does not heed it.
    ///
    /// ```
    /// let options = nnc::Options::new().memory_limit("512MB".parse()?);
    /// assert_eq!(options.chosen_memory_limit(), Some(nnc::ByteSize(512_000_000)));
    /// # Ok::<(), String>(())
    /// ```
    pub fn memory_limit(mut self, limit: ByteSize) -> Options {
        self.memory_limit = Some(limit);
        self
    }

    /// The chosen net.
    pub fn chosen_net(&self) -> Option<&str> {
        self.net.as_deref()
    }

    /// What was set.
    pub fn sets(&self) -> &BTreeMap<String, String> {
        &self.sets
    }

    /// The number of threads that will be used.
    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n.min(MAX_THREADS),
        }
    }

    /// How exact results must be.
    pub fn chosen_precision(&self) -> Precision {
        self.precision
    }

    /// Algorithms of convolutions by layer; none where they are the cost model's.
    pub fn chosen_algorithms(&self) -> &Choices {
        static NONE: Choices = Choices::new();
        self.choices.as_deref().unwrap_or(&NONE)
    }

    /// How graphs are lowered: who chooses the algorithms of convolutions.
    pub fn lowering(&self) -> LowerOptions {
        let convolutions = match (self.precision, &self.choices) {
            (Precision::Strict, _) => Convolutions::Direct,
            (Precision::Default | Precision::Bf16, Some(choices)) => Convolutions::Measured(choices.clone()),
            (Precision::Default | Precision::Bf16, None) => Convolutions::Fastest,
        };
        LowerOptions { convolutions }
    }

    /// How graphs are lowered for a GPU: how products are computed.
    pub fn lowering_for_gpu(&self) -> GpuOptions {
        let products = match self.precision {
            Precision::Strict => Products::F32,
            Precision::Default => Products::Tf32,
            Precision::Bf16 => Products::Bf16,
        };
        GpuOptions { products, ..GpuOptions::default() }
    }

    /// Where it runs.
    pub fn chosen_device(&self) -> Device {
        self.device
    }

    /// The CPU that code is made for.
    pub fn chosen_target(&self) -> CpuTarget {
        self.target.clone().unwrap_or_else(CpuTarget::host)
    }

    /// The GPU that programs are compiled and stages shown for, if one was chosen.
    pub fn chosen_gpu(&self) -> Option<GpuTarget> {
        self.gpu
    }

    /// What passes see of the chosen target: the CPU, or a GPU's thread.
    pub(crate) fn machine(&self) -> CpuTarget {
        self.gpu.map_or_else(|| self.chosen_target(), GpuTarget::thread)
    }

    /// The most memory that a training step may take.
    pub fn chosen_memory_limit(&self) -> Option<ByteSize> {
        self.memory_limit
    }

    /// Whether the training variant is built.
    pub fn is_training(&self) -> bool {
        self.training
    }
}

/// More threads than this are never started.
const MAX_THREADS: usize = 1024;
