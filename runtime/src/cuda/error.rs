//! What can go wrong on a GPU, with the kernel and its line of source where there is one.

use std::fmt;

use crate::program::{Launch, ProgramError};
use crate::session::LoadError;

/// Bytes, for people.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1_000_000_000 => write!(f, "{:.2} GB", n as f64 / 1e9),
            n if n >= 1_000_000 => write!(f, "{:.1} MB", n as f64 / 1e6),
            n if n >= 10_000 => write!(f, "{:.1} kB", n as f64 / 1e3),
            n => write!(f, "{n} bytes"),
        }
    }
}

/// What the driver said to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverError {
    /// The function: `cuMemAlloc`.
    pub call: &'static str,
    /// The driver's name of the error: `CUDA_ERROR_INVALID_VALUE`.
    pub name: String,
    /// What it says about it: `invalid argument`.
    pub text: String,
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} of {})", self.text, self.name, self.call)
    }
}

/// Which launch of a program: for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The kernel: `conv2d_relu.3`.
    pub kernel: String,
    /// The layers that it computes.
    pub layer: String,
    /// Where they are written: `vgg.nn:9`.
    pub location: String,
}

impl Place {
    pub(super) fn of(kernel: &str, launch: Option<&Launch>) -> Box<Place> {
        let (layer, location) = launch.map(|l| (l.layer.clone(), l.location.clone())).unwrap_or_default();
        Box::new(Place { kernel: kernel.into(), layer, location })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel `{}`", self.kernel)?;
        match (self.layer.is_empty(), self.location.is_empty()) {
            (true, true) => Ok(()),
            (false, true) => write!(f, " of `{}`", self.layer),
            (true, false) => write!(f, " ({})", self.location),
            (false, false) => write!(f, " of `{}` ({})", self.layer, self.location),
        }
    }
}

/// Why something cannot be done on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// There is no driver.
    #[error("no NVIDIA driver is installed: its library (libcuda) is not found")]
    NoDriver,
    /// There is what programs are linked with where no driver is.
    #[error("the library that is found (libcuda) is a stub of CUDA's toolkit, not that of an NVIDIA driver")]
    Stub,
    /// The driver is older than what is called.
    #[error("the NVIDIA driver is too old: expected one for CUDA {}, found one for CUDA {}", version(*expected), version(*found))]
    OldDriver {
        /// As the driver counts: 12080 is 12.8.
        expected: i32,
        /// The same.
        found: i32,
    },
    /// The driver knows no GPU.
    #[error("the NVIDIA driver finds no GPU")]
    NoDevice,
    /// Kernels need a newer GPU.
    #[error("`{name}` is too old: expected compute capability {}.{}, found {}.{}", expected.0, expected.1, found.0, found.1)]
    OldDevice {
        /// The GPU's name.
        name: String,
        /// The least that is needed.
        expected: (u32, u32),
        /// What it has.
        found: (u32, u32),
    },
    /// There is not enough memory on the GPU.
    #[error(
        "out of memory on `{device}`: {} are needed for {purpose}, {} of {} are free",
        Bytes(*needed), Bytes(*free), Bytes(*total)
    )]
    OutOfMemory {
        /// The GPU's name.
        device: String,
        /// What for: `the arena`.
        purpose: String,
        /// Bytes that were asked for.
        needed: usize,
        /// Bytes that nobody has.
        free: usize,
        /// Bytes of the GPU.
        total: usize,
    },
    /// There is not enough of the memory that copies to the GPU go through.
    #[error("out of memory: cannot have {} of page-locked memory for copies to the GPU", Bytes(*needed))]
    OutOfPinned {
        /// Bytes that were asked for.
        needed: usize,
    },
    /// There is not enough memory on the host.
    #[error("out of memory: cannot have {} for a copy of a parameter", Bytes(*needed))]
    OutOfHost {
        /// Bytes that were asked for.
        needed: usize,
    },
    /// The driver does not translate the code.
    #[error("the driver refuses the code: {error}{}", messages(.log))]
    Code {
        /// What it said.
        error: DriverError,
        /// Its assembler's messages.
        log: String,
    },
    /// A launch failed, or the kernel did.
    #[error("{place} failed: {error}")]
    Kernel {
        /// Which.
        place: Box<Place>,
        /// What the driver said.
        error: DriverError,
    },
    /// A replayed run failed; the driver does not say in which kernel.
    #[error(
        "a run of `{program}` failed, in one of {kernels} kernels: {error}; with the environment variable {} \
         set to 1 every kernel is waited for, and the one that fails is named",
        super::BLOCKING
    )]
    Replay {
        /// The program's name.
        program: String,
        /// Launches of the run.
        kernels: usize,
        /// What the driver said.
        error: DriverError,
    },
    /// Another call failed.
    #[error("the NVIDIA driver failed: {0}")]
    Driver(DriverError),
    /// The program is not valid, or not one for this GPU.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Steps are asked for in an order that makes no sense.
    #[error("{0}")]
    Order(&'static str),
}

fn version(v: i32) -> String {
    format!("{}.{}", v / 1000, v % 1000 / 10)
}

fn messages(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("\n{log}") }
}

impl From<DriverError> for CudaError {
    fn from(e: DriverError) -> CudaError {
        CudaError::Driver(e)
    }
}

impl From<DriverError> for LoadError {
    fn from(e: DriverError) -> LoadError {
        LoadError::Cuda(e.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> DriverError {
        DriverError {
            call: "cuLaunchKernel",
            name: "CUDA_ERROR_LAUNCH_FAILED".into(),
            text: "unspecified launch failure".into(),
        }
    }

    #[test]
    fn messages_name_what_people_know() {
        let place =
            Box::new(Place { kernel: "conv2d.3".into(), layer: "c1".into(), location: "a.nn:9".into() });
        assert_eq!(
            CudaError::Kernel { place, error: failed() }.to_string(),
            "kernel `conv2d.3` of `c1` (a.nn:9) failed: unspecified launch failure \
             (CUDA_ERROR_LAUNCH_FAILED of cuLaunchKernel)"
        );
        let (device, purpose) = ("NVIDIA H200".to_string(), "the arena".to_string());
        let e = CudaError::OutOfMemory {
            device,
            purpose,
            needed: 12_345_678,
            free: 9999,
            total: 140_000_000_000,
        };
        assert_eq!(
            e.to_string(),
            "out of memory on `NVIDIA H200`: 12.3 MB are needed for the arena, 9999 bytes of 140.00 GB are free"
        );
        assert_eq!(
            CudaError::OldDriver { expected: 12080, found: 11040 }.to_string(),
            "the NVIDIA driver is too old: expected one for CUDA 12.8, found one for CUDA 11.4"
        );
    }
}
