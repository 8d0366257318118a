//! GPUs that PTX is made for, by NVIDIA's names of their architectures.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::CpuTarget;
use crate::kernel::Rounding;

/// A GPU target.
///
/// ```
/// use nnc_compiler::target::GpuTarget;
/// let target: GpuTarget = "sm_90".parse()?;
/// assert_eq!(target.multiprocessors(), 132);
/// # Ok::<(), nnc_compiler::target::UnknownGpu>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuTarget {
    /// Ampere (A100) and what runs its code: the least that kernels need.
    #[default]
    Sm80,
    /// Hopper (H100, H200).
    Sm90,
}

/// The name of no GPU target.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no target GPU `{name}`, expected one of {}", GpuTarget::NAMES.join(", "))]
pub struct UnknownGpu {
    /// The name.
    pub name: String,
}

/// Registers of 32 bits that a tile of sums may fill: a thread has 255, and with a quarter of them
/// a multiprocessor holds enough threads to hide how long memory takes.
const TILE_REGISTERS: usize = 64;

impl GpuTarget {
    /// The names of all targets.
    pub const NAMES: [&'static str; 2] = ["sm_80", "sm_90"];

    /// The target whose code is best on GPUs of that compute capability; `None` if they run no code of ours.
    pub fn for_capability(capability: (u32, u32)) -> Option<GpuTarget> {
        match capability.0 {
            0..8 => None,
            8 => Some(GpuTarget::Sm80),
            _ => Some(GpuTarget::Sm90),
        }
    }

    /// The name, as PTX has it.
    pub fn name(self) -> &'static str {
        match self {
            GpuTarget::Sm80 => "sm_80",
            GpuTarget::Sm90 => "sm_90",
        }
    }

    /// The oldest version of PTX that knows the target.
    pub fn ptx_version(self) -> &'static str {
        match self {
            GpuTarget::Sm80 => "7.0",
            GpuTarget::Sm90 => "7.8",
        }
    }

    /// Multiprocessors of the data centre's model: launches should have that many blocks.
    pub fn multiprocessors(self) -> usize {
        match self {
            GpuTarget::Sm80 => 108,
            GpuTarget::Sm90 => 132,
        }
    }

    /// Multiply-adds of a multiprocessor in a clock: on tensor cores, of factors that are rounded so (what `mma` reaches,
    /// not the peak that only `wgmma` does), or in f32.
    pub fn multiply_adds(self, rounding: Option<Rounding>) -> usize {
        match (self, rounding) {
            (GpuTarget::Sm80, Some(Rounding::Tf32)) => 512,
            (GpuTarget::Sm80, Some(Rounding::Bf16)) => 1024,
            (GpuTarget::Sm90, Some(Rounding::Tf32)) => 640,
            (GpuTarget::Sm90, Some(Rounding::Bf16)) => 1280,
            (GpuTarget::Sm80, None) => 64,
            (GpuTarget::Sm90, None) => 128,
        }
    }

    /// One of its threads, as passes and lowering see a machine: a core with vectors of one lane. There are no
    /// vectors to fill with blocks of channels then; channels lie last.
    pub fn thread(self) -> CpuTarget {
        CpuTarget {
            architecture: "nvptx64".into(),
            features: vec![self.name().into()],
            lanes: 1,
            vector_registers: TILE_REGISTERS,
        }
    }
}

impl fmt::Display for GpuTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for GpuTarget {
    type Err = UnknownGpu;

    fn from_str(name: &str) -> Result<GpuTarget, UnknownGpu> {
        let all = [GpuTarget::Sm80, GpuTarget::Sm90];
        all.into_iter().find(|t| t.name() == name).ok_or_else(|| UnknownGpu { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in GpuTarget::NAMES {
            assert_eq!(name.parse::<GpuTarget>().unwrap().to_string(), name);
        }
        let of = GpuTarget::for_capability;
        assert_eq!(
            [of((7, 5)), of((8, 9)), of((12, 0))],
            [None, Some(GpuTarget::Sm80), Some(GpuTarget::Sm90)]
        );
        let error = "sm_61".parse::<GpuTarget>().unwrap_err().to_string();
        assert_eq!(error, "there is no target GPU `sm_61`, expected one of sm_80, sm_90");
    }
}
