//! Aligned memory from the system: zeroed, in whole pages, given back when dropped. And what is written no more,
//! to be shared: such memory, or a file mapped into it.
//!
//! A size that cannot be had is an error here, never an abort.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut, MmapOptions};

/// What a buffer of the runtime is aligned to, at least: a cache line, and the widest vectors.
pub const ALIGNMENT: usize = 64;

/// From this size on the system is asked for huge pages: 2 MiB on x86-64 and most of AArch64.
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// No buffer may be larger: 2^46 bytes, past what processors of today address.
pub const MAX_BYTES: usize = 1 << 46;

/// From one thread's scratch memory to the next one's, where a task needs that much: a line lies between
/// them, so that prefetching one does not take the other's.
pub fn scratch_stride(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes.next_multiple_of(ALIGNMENT).saturating_add(ALIGNMENT) }
}

/// The system would not give that much memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of memory: cannot have {bytes} bytes for {purpose}")]
pub struct OutOfMemory {
    /// How much was asked for.
    pub bytes: usize,
    /// What for: `the arena`.
    pub purpose: String,
}

/// Zeroed bytes aligned to [`ALIGNMENT`].
#[derive(Debug)]
pub struct Buffer {
    /// `None` for no bytes.
    map: Option<MmapMut>,
}

impl Buffer {
    /// That many zero bytes. Pages that are never touched cost nothing.
    pub fn zeroed(bytes: usize, purpose: &str) -> Result<Buffer, OutOfMemory> {
        if bytes == 0 {
            return Ok(Buffer { map: None });
        }
        let refused = || OutOfMemory { bytes, purpose: purpose.to_string() };
        if bytes > MAX_BYTES {
            return Err(refused());
        }
        let map = MmapMut::map_anon(bytes).map_err(|_| refused())?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE {
            // Fewer misses of the address cache; where the system declines nothing is lost.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Buffer { map: Some(map) })
    }

    /// A copy of bytes.
    pub fn copy_of(bytes: &[u8], purpose: &str) -> Result<Buffer, OutOfMemory> {
        let mut buffer = Buffer::zeroed(bytes.len(), purpose)?;
        if let Some(map) = &mut buffer.map {
            map.copy_from_slice(bytes);
        }
        Ok(buffer)
    }

    /// Its first byte; valid for reads and writes of [`len`](Buffer::len) bytes while the buffer
    /// lives. Without bytes it is aligned and not null, and points at nothing.
    pub fn as_ptr(&self) -> *mut u8 {
        match &self.map {
            Some(map) => map.as_ptr().cast_mut(),
            None => std::ptr::without_provenance_mut(ALIGNMENT),
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Its bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.map.as_deref_mut().unwrap_or_default()
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.map.as_ref().map_or(0, |m| m.len())
    }

    /// True without bytes.
    pub fn is_empty(&self) -> bool {
        self.map.is_none()
    }
}

/// Bytes that are written no more, aligned to [`ALIGNMENT`]. Clones share them.
#[derive(Clone)]
pub struct Frozen(Arc<Bytes>);

enum Bytes {
    Memory(Buffer),
    File(Mmap),
}

impl Frozen {
    /// A part of a file, from a multiple of [`ALIGNMENT`] on. Pages are read when they are first needed. The
    /// file must have that part, and must not be changed as long as this lives.
    pub(crate) fn map(file: &File, at: u64, bytes: usize) -> io::Result<Frozen> {
        if bytes == 0 || bytes > MAX_BYTES || !at.is_multiple_of(ALIGNMENT as u64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the bytes are numbers, any of which are valid; the map is private and never written, and
        // lies within the file. If others write into the file or cut it off meanwhile, against what the
        // program file's description asks, numbers change or the system ends the process: the risk of
        // every mapped file and of every running executable.
        let map = unsafe { MmapOptions::new().offset(at).len(bytes).map_copy_read_only(file)? };
        Ok(Frozen(Arc::new(Bytes::File(map))))
    }

    /// The first byte, only ever to be read through; as [`Buffer::as_ptr`].
    pub fn as_ptr(&self) -> *mut u8 {
        match &*self.0 {
            Bytes::Memory(buffer) => buffer.as_ptr(),
            Bytes::File(map) => map.as_ptr().cast_mut(),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &*self.0 {
            Bytes::Memory(buffer) => buffer.bytes(),
            Bytes::File(map) => map,
        }
    }

    /// Their number.
    pub fn len(&self) -> usize {
        match &*self.0 {
            Bytes::Memory(buffer) => buffer.len(),
            Bytes::File(map) => map.len(),
        }
    }

    /// True without bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is a file's part.
    pub fn is_mapped(&self) -> bool {
        matches!(&*self.0, Bytes::File(_))
    }
}

impl From<Buffer> for Frozen {
    fn from(buffer: Buffer) -> Frozen {
        Frozen(Arc::new(Bytes::Memory(buffer)))
    }
}

impl PartialEq for Frozen {
    fn eq(&self, other: &Frozen) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.bytes() == other.bytes()
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} bytes", self.len(), if self.is_mapped() { "mapped" } else { "frozen" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_and_zero() {
        for n in [1, 63, 4097, (2 << 20) + 1] {
            let b = Buffer::zeroed(n, "a test").unwrap();
            assert_eq!((b.len(), b.as_ptr().addr() % ALIGNMENT), (n, 0));
        }
        let b = Buffer::zeroed(0, "a test").unwrap();
        assert!(b.is_empty() && b.as_ptr().addr().is_multiple_of(ALIGNMENT) && !b.as_ptr().is_null());
    }

    #[test]
    fn too_much_is_an_error() {
        let e = Buffer::zeroed(usize::MAX, "the arena").unwrap_err();
        assert!(e.to_string().contains("for the arena"), "{e}");
        assert!(Buffer::zeroed(MAX_BYTES, "the arena").is_err());
    }
}
