//! A program whose code can be called: memory that is never writable and executable at once.

use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

use crate::memory::{Buffer, OutOfMemory};
use crate::program::{Program, ProgramError};

/// What the code of a kernel is: see [`Kernel`](crate::program::Kernel).
pub(crate) type Entry = unsafe extern "C" fn(args: *const *mut u8, first: u64, end: u64, scratch: *mut u8);

/// A validated program with its code in executable memory. Shared by sessions.
#[derive(Debug)]
pub struct Executable {
    program: Program,
    code: Mmap,
    constants: Buffer,
}

/// Why a program cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecutableError {
    /// It is not valid, or made for another machine.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// There is not enough memory.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// The system does not let programs make code.
    #[error("the system refuses executable memory: {0}")]
    Code(String),
}

impl Executable {
    /// Validates a program, checks that it is made for this machine and maps its code.
    pub fn load(mut program: Program) -> Result<Arc<Executable>, ExecutableError> {
        program.validate()?;
        program.check_host()?;
        let bytes = std::mem::take(&mut program.code);
        let refused = |e: std::io::Error| ExecutableError::Code(e.to_string());
        // A program may have no kernels; a map must have a byte.
        let mut code = MmapMut::map_anon(bytes.len().max(1)).map_err(refused)?;
        code[..bytes.len()].copy_from_slice(&bytes);
        let code = code.make_exec().map_err(refused)?;
        make_visible(&code);
        let constants = Buffer::copy_of(&std::mem::take(&mut program.constants), "the program's constants")?;
        Ok(Arc::new(Executable { program, code, constants }))
    }

    /// The program; its code and constants have moved to where they are used.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Size of the code in bytes.
    pub fn code_bytes(&self) -> usize {
        self.code.len()
    }

    pub(crate) fn code(&self) -> &[u8] {
        &self.code
    }

    /// The entry of a kernel.
    pub(crate) fn entry(&self, kernel: usize) -> Entry {
        let at = self.program.kernels[kernel].code_offset;
        let address: *const u8 = &self.code[at];
        // SAFETY: the pointer is not null and points at executable memory that lives as long as
        // `self`; that the code there has this signature is what a program promises (its bytes
        // come from the compiler, or from a file that is trusted as an executable is). Calling
        // it is unsafe, and justified where it is called.
        unsafe { std::mem::transmute::<*const u8, Entry>(address) }
    }

    pub(crate) fn constants(&self) -> &Buffer {
        &self.constants
    }
}

/// Makes freshly written code visible to instruction fetch. x86 does it by itself.
#[cfg(not(target_arch = "aarch64"))]
fn make_visible(_code: &[u8]) {}

/// Makes freshly written code visible to instruction fetch: cleans the data cache and invalidates
/// the instruction cache, line by line, as the Arm Architecture Reference Manual says.
#[cfg(target_arch = "aarch64")]
fn make_visible(code: &[u8]) {
    /// The smallest line that the architecture allows.
    const LINE: usize = 16;
    let range = code.as_ptr_range();
    let start = range.start as usize / LINE * LINE;
    // SAFETY: cache maintenance of mapped addresses changes no memory.
    unsafe {
        for line in (start..range.end as usize).step_by(LINE) {
            std::arch::asm!("dc cvau, {0}", in(reg) line, options(nostack, preserves_flags));
        }
        std::arch::asm!("dsb ish", options(nostack, preserves_flags));
        for line in (start..range.end as usize).step_by(LINE) {
            std::arch::asm!("ic ivau, {0}", in(reg) line, options(nostack, preserves_flags));
        }
        std::arch::asm!("dsb ish", "isb", options(nostack, preserves_flags));
    }
}
