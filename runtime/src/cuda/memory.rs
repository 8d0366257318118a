//! Memory of the GPU, and memory of the host that the GPU copies from and to by itself.

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use super::Gpu;
use super::driver::{Context, Stream, call, check};
use super::error::{CudaError, DriverError};

/// An allocation on the GPU.
#[derive(Debug)]
pub(super) struct DeviceMemory {
    context: Arc<Context>,
    address: u64,
    bytes: usize,
}

impl DeviceMemory {
    /// Asks for that many bytes, which hold anything at first.
    pub fn new(gpu: &Gpu, bytes: usize, purpose: &str) -> Result<DeviceMemory, CudaError> {
        gpu.context.bind()?;
        let mut address = 0;
        // The driver gives no empty allocations.
        // SAFETY: a context is current; the pointer is to be written.
        let result = unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1)) };
        if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let (free, total) = gpu.context.memory()?;
            let (device, purpose) = (gpu.info.name.clone(), purpose.to_string());
            return Err(CudaError::OutOfMemory { device, purpose, needed: bytes, free, total });
        }
        check("cuMemAlloc", result)?;
        Ok(DeviceMemory { context: gpu.context.clone(), address, bytes })
    }

    /// The address of a byte.
    pub fn address(&self, at: usize) -> u64 {
        self.address + at as u64
    }

    /// The address of a byte, from which on there are that many.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn place(&self, at: usize, bytes: usize) -> u64 {
        assert!(at + bytes <= self.bytes, "the layout has room for all that is uploaded");
        self.address(at)
    }

    /// Copies bytes from the GPU, and waits for it. Streams are not waited for.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn read(&self, at: usize, bytes: &mut [u8]) -> Result<(), CudaError> {
        assert!(at + bytes.len() <= self.bytes, "what is read back was laid out");
        if bytes.is_empty() {
            return Ok(());
        }
        self.context.bind()?;
        let to = bytes.as_mut_ptr().cast::<c_void>();
        // SAFETY: the range lies within the allocation, the bytes may be written.
        Ok(unsafe { call!(cuMemcpyDtoH_v2(to, self.address(at), bytes.len())) }?)
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: it was allocated by `new`; machines drop their stream, which waits, before.
        let _ = unsafe { sys::cuMemFree_v2(self.address) };
    }
}

/// Page-locked memory: copies from and to it run beside everything else.
#[derive(Debug)]
pub(super) struct Pinned {
    context: Arc<Context>,
    /// None without bytes.
    start: Option<NonNull<u8>>,
    bytes: usize,
}

// SAFETY: it is memory that one value owns.
unsafe impl Send for Pinned {}

impl Pinned {
    /// That many zero bytes.
    pub fn new(gpu: &Gpu, bytes: usize) -> Result<Pinned, CudaError> {
        let context = gpu.context.clone();
        if bytes == 0 {
            return Ok(Pinned { context, start: None, bytes });
        }
        context.bind()?;
        let mut start = null_mut();
        // SAFETY: a context is current; the pointer is to be written.
        let result = unsafe { sys::cuMemHostAlloc(&mut start, bytes, 0) };
        if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return Err(CudaError::OutOfPinned { needed: bytes });
        }
        check("cuMemHostAlloc", result)?;
        let start = NonNull::new(start.cast::<u8>());
        if let Some(start) = start {
            // SAFETY: the allocation has that many bytes, and is ours alone.
            unsafe { start.as_ptr().write_bytes(0, bytes) };
        }
        Ok(Pinned { context, start, bytes })
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// The first bytes, to be written.
    ///
    /// # Safety
    /// No copy that the GPU has not finished may read or write them.
    pub unsafe fn bytes_mut(&mut self, bytes: usize) -> &mut [u8] {
        let start = self.start.filter(|_| bytes <= self.bytes);
        // SAFETY: the allocation has as many, every one of which was written by `new` at least; it is ours alone, by
        // the caller's promise.
        start.map_or(&mut [], |start| unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), bytes) })
    }

    /// A byte's address.
    fn at(&self, at: usize, bytes: usize) -> *mut u8 {
        assert!(at + bytes <= self.bytes, "the layout has room for all that is copied");
        // Without bytes the address is never used.
        self.start.map_or(null_mut(), |start| start.as_ptr().wrapping_add(at))
    }

    /// Writes bytes.
    ///
    /// # Safety
    /// No copy that the GPU has not finished may read them.
    pub unsafe fn write(&mut self, at: usize, bytes: &[u8]) {
        let to = self.at(at, bytes.len());
        if !bytes.is_empty() {
            // SAFETY: `at` found the range within the allocation, which is not the caller's slice; by
            // the caller's promise nobody else uses it.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        }
    }

    /// Reads bytes.
    ///
    /// # Safety
    /// No copy that the GPU has not finished may write them.
    pub unsafe fn read(&self, at: usize, bytes: &mut [u8]) {
        let from = self.at(at, bytes.len());
        if !bytes.is_empty() {
            // SAFETY: as in `write`; every byte was written by `new` at least.
            unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        }
    }

    /// Puts a copy to the GPU on a stream.
    ///
    /// # Safety
    /// Both ranges must live and not be touched otherwise until the stream has come so far.
    pub unsafe fn upload(
        &self,
        at: usize,
        to: u64,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), DriverError> {
        let from = self.at(at, bytes);
        if bytes == 0 {
            return Ok(());
        }
        self.context.bind()?;
        // SAFETY: `at` found the range within the allocation; the caller vouches for the rest.
        unsafe { call!(cuMemcpyHtoDAsync_v2(to, from.cast::<c_void>(), bytes, stream.raw())) }
    }

    /// Puts a copy from the GPU on a stream.
    ///
    /// # Safety
    /// Both ranges must live and not be touched otherwise until the stream has come so far.
    pub unsafe fn download(
        &self,
        at: usize,
        from: u64,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), DriverError> {
        let to = self.at(at, bytes);
        if bytes == 0 {
            return Ok(());
        }
        self.context.bind()?;
        // SAFETY: `at` found the range within the allocation; the caller vouches for the rest.
        unsafe { call!(cuMemcpyDtoHAsync_v2(to.cast::<c_void>(), from, bytes, stream.raw())) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(start) = self.start {
            let _ = self.context.bind();
            // SAFETY: it was allocated by `new`; machines drop their streams, which wait, before.
            let _ = unsafe { sys::cuMemFreeHost(start.as_ptr().cast::<c_void>()) };
        }
    }
}
