//! Runs PTX without a GPU, and fails where a GPU would go on with wrong numbers.
//!
//! [`Module::parse`] reads the text of a PTX module, [`Module::launch`] runs a kernel of it on
//! buffers of a [`Memory`]. Every access is checked against its buffer, every register and byte must
//! be written before it is read, and threads that touch the same bytes must be ordered by barriers.
//! The README of this crate lists the subset of PTX and how the checks work.
//!
//! ```
//! use nnc_ptx_interpreter::{Arg, Memory, Module};
//!
//! let module = Module::parse(
//!     ".version 7.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry double(.param .u64 x) {
//!         .reg .b32 %r<2>;
//!         .reg .b64 %a;
//!         .reg .f32 %f;
//!         mov.u32 %r0, %tid.x;
//!         ld.param.u64 %a, [x];
//!         mad.wide.u32 %a, %r0, 4, %a;
//!         ld.global.f32 %f, [%a];
//!         add.f32 %f, %f, %f;
//!         st.global.f32 [%a], %f;
//!         ret;
//!     }",
//! )?;
//! let mut memory = Memory::new();
//! let x = memory.upload("x", &[1f32, 2., 3., 4.]);
//! module.launch(&mut memory, "double", [1, 1, 1], [4, 1, 1], 0, &[Arg::Buffer(x)])?;
//! assert_eq!(memory.download::<f32>(x)?, [2., 4., 6., 8.]);
//! # Ok::<(), nnc_ptx_interpreter::Error>(())
//! ```

mod decode;
mod error;
mod kernel;
mod memory;
mod op;
mod parse;
mod run;
mod shadow;
mod shared;
mod types;

pub use error::{At, Error, Fault, Place, ThreadFault};
pub use memory::{Buffer, Element, Memory};
pub use run::{Arg, Stats, Sums};

/// Instructions that a warp may execute, unless [`Module::set_step_limit`] says otherwise.
pub const STEP_LIMIT: u64 = 1 << 26;

/// A PTX module that was read.
pub struct Module {
    kernels: Vec<kernel::Kernel>,
    lines: Vec<String>,
    step_limit: u64,
    sums: Sums,
}

impl Module {
    /// Reads the text of a module.
    ///
    /// # Errors
    /// If something in it is not understood, or not of the subset that this crate runs: the message
    /// says which line and what.
    pub fn parse(text: &str) -> Result<Module, Error> {
        let kernels = parse::parse(text)?;
        let lines = text.lines().map(str::to_string).collect();
        Ok(Module { kernels, lines, step_limit: STEP_LIMIT, sums: Sums::default() })
    }

    /// Names of the kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|k| k.name.as_str())
    }

    /// Sizes of a kernel's parameters in bytes; `None` if there is no such kernel.
    pub fn parameter_sizes(&self, kernel: &str) -> Option<Vec<usize>> {
        let found = self.kernels.iter().find(|k| k.name == kernel)?;
        Some(found.params.iter().map(|p| p.bytes as usize).collect())
    }

    /// Sets how many instructions a warp may execute: more are a fault, so no kernel hangs.
    pub fn set_step_limit(&mut self, limit: u64) {
        self.step_limit = limit;
    }

    /// Sets how products of tensor cores are added up.
    pub fn set_sums(&mut self, sums: Sums) {
        self.sums = sums;
    }

    /// Runs a kernel on a grid of blocks of threads, with this many bytes of dynamic shared memory.
    ///
    /// # Errors
    /// If there is no such kernel, the shape or the arguments do not suit it, or a thread does what
    /// it must not: that names thread, line and what.
    pub fn launch(
        &self,
        memory: &mut Memory,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        args: &[Arg],
    ) -> Result<Stats, Error> {
        let shape = run::Shape { grid, block, dynamic_shared: shared_bytes };
        let all = 0..grid.map(u64::from).iter().product();
        self.launch_some(memory, kernel, (shape, all, false), args)
    }

    /// Runs some blocks of a grid, by their numbers (`x` counts fastest), as if the others had no effect: to count what
    /// they do, with [`Memory::hollow`] buffers.
    ///
    /// # Errors
    /// As [`Module::launch`]; or if there is no such block.
    pub fn sample(
        &self,
        memory: &mut Memory,
        kernel: &str,
        shape: ([u32; 3], [u32; 3], u32),
        blocks: &[u64],
        args: &[Arg],
    ) -> Result<Stats, Error> {
        let (grid, block, dynamic_shared) = shape;
        let count: u64 = grid.map(u64::from).iter().product();
        if let Some(number) = blocks.iter().find(|&&b| b >= count) {
            let message = format!("block {number} of {count}");
            return Err(Error::Launch { kernel: kernel.into(), message });
        }
        let shape = run::Shape { grid, block, dynamic_shared };
        self.launch_some(memory, kernel, (shape, blocks.iter().copied(), true), args)
    }

    fn launch_some(
        &self,
        memory: &mut Memory,
        kernel: &str,
        blocks: (run::Shape, impl Iterator<Item = u64>, bool),
        args: &[Arg],
    ) -> Result<Stats, Error> {
        let Some(found) = self.kernels.iter().find(|k| k.name == kernel) else {
            return Err(Error::NoKernel(kernel.into()));
        };
        run::launch(found, &self.lines, memory, blocks, args, (self.step_limit, self.sums))
    }
}
