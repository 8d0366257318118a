//! Programs on an NVIDIA GPU, through the driver that is installed with it: nothing else of CUDA is needed,
//! and nothing where there is no GPU.
//!
//! A [`Gpu`] is opened; [`CudaExecutable::load`] has the driver translate a program's PTX (or finds the
//! machine code in the [`Cache`]); a [`CudaSession`] has its parameters on the GPU and runs it,
//! a [`CudaTrainable`] takes training steps. How a program's memory lies there is [`layout`]'s story.
//!
//! **No GPU has run this code yet**: the tests run it against a double of the driver that executes PTX in
//! an interpreter.

mod branches;
mod cache;
mod code;
mod driver;
mod error;
mod layout;
mod machine;
mod memory;
mod session;
mod trainable;
mod upload;

use std::sync::Arc;

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;

use self::driver::Context;

pub use cache::{CACHE, Cache, Key, LIMIT};
pub use code::CudaExecutable;
pub use error::{CudaError, DriverError, Place};
pub use session::CudaSession;
pub use trainable::{CudaTrainable, Staged};

/// The environment variable that makes every launch waited for: slow, but an error names its kernel.
pub const BLOCKING: &str = "NNC_CUDA_BLOCKING";

/// The oldest driver: of CUDA 12.0 (525). It has all functions that are called, and its assembler takes all PTX that
/// is written.
pub const LEAST_DRIVER: i32 = 12_000;

/// The least compute capability: Ampere, which kernels are made for.
pub const LEAST_CAPABILITY: (u32, u32) = (8, 0);

/// What is known of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number, as the driver counts: those that `CUDA_VISIBLE_DEVICES` names, from 0.
    pub ordinal: i32,
    /// Its name: `NVIDIA H200`.
    pub name: String,
    /// Its compute capability: (9, 0).
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub memory: usize,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Their clock at most, in kHz; 0 if the driver does not say.
    pub clock_khz: u32,
    /// The memory's clock at most, in kHz; 0 if the driver does not say. It moves data twice a cycle.
    pub memory_clock_khz: u32,
    /// Width of the memory's bus in bits; 0 if the driver does not say.
    pub memory_bus_bits: u32,
    /// The CUDA version of the driver: 12080 is 12.8.
    pub driver: i32,
}

impl DeviceInfo {
    /// Whether kernels run on it.
    pub fn check(&self) -> Result<(), CudaError> {
        if self.capability >= LEAST_CAPABILITY {
            return Ok(());
        }
        let (name, found) = (self.name.clone(), self.capability);
        Err(CudaError::OldDevice { name, expected: LEAST_CAPABILITY, found })
    }
}

/// The GPUs that the driver finds: at least one.
///
/// # Errors
/// No driver, one that is too old, or no GPU.
pub fn devices() -> Result<Vec<DeviceInfo>, CudaError> {
    if !driver::is_present() {
        return Err(CudaError::NoDriver);
    }
    let version = driver::version()?;
    if version < LEAST_DRIVER {
        return Err(CudaError::OldDriver { expected: LEAST_DRIVER, found: version });
    }
    driver::init()?;
    let devices: Vec<DeviceInfo> =
        (0..driver::count()?).map(|i| describe(i, version)).collect::<Result<_, _>>()?;
    if devices.is_empty() { Err(CudaError::NoDevice) } else { Ok(devices) }
}

fn describe(ordinal: i32, version: i32) -> Result<DeviceInfo, DriverError> {
    let device = driver::device(ordinal)?;
    let attribute = |which| driver::attribute(device, which);
    // What only reports use: a driver need not tell it.
    let about = |which| attribute(which).unwrap_or(0);
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(DeviceInfo {
        ordinal,
        name: driver::name(device)?,
        capability: (major, minor),
        memory: driver::total_memory(device)?,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        clock_khz: about(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
        memory_clock_khz: about(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE),
        memory_bus_bits: about(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH),
        driver: version,
    })
}

/// A GPU that is used.
#[derive(Debug)]
pub struct Gpu {
    context: Arc<Context>,
    info: DeviceInfo,
    cache: Cache,
}

impl Gpu {
    /// Opens the first GPU that kernels run on.
    ///
    /// # Errors
    /// Those of [`devices`], and a GPU that is too old where there is no other.
    pub fn open(cache: Cache) -> Result<Arc<Gpu>, CudaError> {
        let mut all = devices()?;
        let at = all.iter().position(|d| d.check().is_ok()).unwrap_or(0);
        let info = all.swap_remove(at);
        info.check()?;
        let context = Context::of(driver::device(info.ordinal)?)?;
        Ok(Arc::new(Gpu { context, info, cache }))
    }

    /// What is known of it.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }
}
