//! Aligned memory from the system: zeroed, in whole pages, given back when dropped.
//!
//! A size that cannot be had is an error here, never an abort.

use memmap2::MmapMut;

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
