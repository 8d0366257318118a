//! Constants and parameters on their way to the GPU: in slices, through page-locked memory.
//!
//! While one slice is copied the next one is read, so loading needs two slices of the host's memory and not a whole
//! parameter. The copies are on a stream that is waited for at the end. (`cuMemcpyHtoD` would not do: from memory that
//! is not page-locked it may return before the bytes have arrived, and streams that do not wait for the null
//! stream, as all here, would not wait for them.)

use super::Gpu;
use super::driver::{Event, Stream};
use super::error::CudaError;
use super::memory::{DeviceMemory, Pinned};
use crate::parameters::{self, Parameters};
use crate::program::{Port, Program};
use crate::session::LoadError;
use crate::session::bind::Bound;

/// Bytes of a slice at most: how long a copy takes to start is nothing beside the third of a millisecond that so much
/// takes on PCIe 4. A multiple of every element's size.
const SLICE_BYTES: usize = 8 << 20;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Uploader {
    /// Dropped first: it waits for the copies.
    stream: Stream,
    slices: [Slice; 2],
    /// The slice that is written next.
    next: usize,
    threads: usize,
}

/// Writes a slice from a byte on, by that many threads; false if that cannot be done by slices.
type Read<'a> = dyn FnMut(usize, usize, &mut [u8]) -> Result<bool, LoadError> + 'a;

/// Bytes on their way.
#[derive(Debug)]
struct Slice {
    memory: Pinned,
    /// The end of its last copy.
    copied: Event,
}

impl Uploader {
    /// One for the constants and the parameters of a program.
    pub fn new(gpu: &Gpu, program: &Program) -> Result<Uploader, CudaError> {
        let sizes = program.parameters.iter().filter_map(|p| Program::port_bytes(&p.port).ok());
        let largest = sizes.fold(program.constants.len(), usize::max);
        let slice = || -> Result<Slice, CudaError> {
            let memory = Pinned::new(gpu, largest.min(SLICE_BYTES))?;
            Ok(Slice { memory, copied: Event::new(&gpu.context)? })
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        Ok(Uploader { stream: Stream::new(&gpu.context)?, slices: [slice()?, slice()?], next: 0, threads })
    }

    /// Copies bytes to the GPU, to byte `at` of `to`, and waits for it.
    pub fn bytes(&mut self, to: &mut DeviceMemory, at: usize, bytes: &[u8]) -> Result<(), LoadError> {
        self.fill(to, at, bytes.len(), &mut |_, from, slice| {
            slice.copy_from_slice(&bytes[from..from + slice.len()]);
            Ok(true)
        })?;
        Ok(())
    }

    /// Copies a parameter to the GPU, to byte `at` of `to`, and waits for it.
    pub fn parameter(
        &mut self,
        to: &mut DeviceMemory,
        at: usize,
        parameters: &dyn Parameters,
        port: &Port,
    ) -> Result<(), LoadError> {
        if let Some(view) = parameters.in_memory(&port.name) {
            return self.bytes(to, at, Bound::new(&view, &port.name)?.bytes());
        }
        let bytes = Program::port_bytes(port).unwrap_or(usize::MAX);
        let has_parts = self.fill(to, at, bytes, &mut |threads, from, slice| {
            let unreadable = |problem| LoadError::Unreadable { name: port.name.clone(), problem };
            parameters.fill_part(port, from / port.dtype.size(), slice, threads).map_err(unreadable)
        })?;
        if has_parts {
            return Ok(());
        }
        let tensor = parameters::read(parameters, port, self.threads)?;
        self.bytes(to, at, Bound::new(&tensor.view(), &port.name)?.bytes())
    }

    /// Copies what `read` writes, slice after slice, and waits for it; false if `read` could not.
    fn fill(
        &mut self,
        to: &mut DeviceMemory,
        at: usize,
        bytes: usize,
        read: &mut Read<'_>,
    ) -> Result<bool, LoadError> {
        let done = self.put(to, at, bytes, read);
        // Whatever has become of it: what was put on the stream uses `to`.
        let waited = self.stream.synchronize().map_err(CudaError::from);
        let done = done?;
        waited?;
        Ok(done)
    }

    fn put(
        &mut self,
        to: &mut DeviceMemory,
        at: usize,
        bytes: usize,
        read: &mut Read<'_>,
    ) -> Result<bool, LoadError> {
        let mut from = 0;
        while from < bytes {
            let slice = &mut self.slices[self.next];
            self.next ^= 1;
            slice.copied.synchronize().map_err(CudaError::from)?;
            let n = slice.memory.len().min(bytes - from);
            // SAFETY: the last copy from there has ended.
            if !read(self.threads, from, unsafe { slice.memory.bytes_mut(n) })? {
                return Ok(false);
            }
            // SAFETY: the slice is not touched before `copied`, and `to` is borrowed until `fill` has waited
            // for the stream. (No other stream uses it: by `&mut`, and machines wait for theirs before they lend it.)
            unsafe { slice.memory.upload(0, to.place(at + from, n), n, &self.stream) }
                .and_then(|()| slice.copied.record(&self.stream))
                .map_err(CudaError::from)?;
            from += n;
        }
        Ok(true)
    }
}
