//! Global memory: buffers that know what was written, and by whom.

use crate::error::{Error, Fault, Place};
use crate::shadow::{Conflict, Other, Shadow, Who};

/// Alignment of every buffer, as `cuMemAlloc` gives it.
const ALIGN: u32 = 256;
/// log2 of the addresses between buffers: an offset that leaves one is in none.
const WINDOW: u32 = 40;

/// A buffer of a [`Memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer(u32);

impl Buffer {
    /// The address of its first byte.
    pub fn address(self) -> u64 {
        (u64::from(self.0) + 1) << WINDOW
    }
}

/// An element type of buffers: bytes in the order of the GPU (little-endian).
pub trait Element: Copy {
    /// Size in bytes.
    const BYTES: usize;
    /// Appends the value.
    fn put(self, out: &mut Vec<u8>);
    /// The value of these bytes, which are as many as it has.
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! elements {
    ($($t:ty),*) => {$(
        impl Element for $t {
            const BYTES: usize = size_of::<$t>();
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$t>()];
                array.copy_from_slice(bytes);
                Self::from_le_bytes(array)
            }
        }
    )*};
}

elements!(u8, i8, u16, i16, u32, i32, u64, i64, f32, half::f16, half::bf16);

/// What is read of a buffer that keeps nothing.
const ZEROS: [u8; 16] = [0; 16];

/// Which bytes were written.
enum Written {
    All,
    /// A bit a byte, and how many are missing.
    Some {
        bits: Vec<u64>,
        missing: usize,
    },
}

impl Written {
    fn none(bytes: usize) -> Written {
        Written::Some { bits: vec![0; bytes.div_ceil(64)], missing: bytes }
    }

    /// `size` is at most 16 and `offset` a multiple of it, so that all its bits are in one word.
    fn has(&self, offset: usize, size: usize) -> bool {
        match self {
            Written::All => true,
            Written::Some { bits, .. } => {
                let mask = ((1u64 << size) - 1) << (offset % 64);
                bits[offset / 64] & mask == mask
            }
        }
    }

    fn add(&mut self, offset: usize, size: usize) {
        let Written::Some { bits, missing } = self else { return };
        let mask = ((1u64 << size) - 1) << (offset % 64);
        let word = &mut bits[offset / 64];
        *missing -= (mask & !*word).count_ones() as usize;
        *word |= mask;
        if *missing == 0 {
            *self = Written::All;
        }
    }

    fn first_missing(&self, bytes: usize) -> Option<usize> {
        match self {
            Written::All => None,
            Written::Some { bits, .. } => (0..bytes).find(|&i| bits[i / 64] >> (i % 64) & 1 == 0),
        }
    }
}

struct Storage {
    name: String,
    /// Its size; `data` has that many, unless nothing is kept.
    bytes: usize,
    data: Vec<u8>,
    /// What a hollow buffer is written to, and never read from.
    sink: Option<Box<[u8; 16]>>,
    written: Written,
    shadow: Shadow,
    /// The last launches (by their first interval) that wrote it, and that read it by `ld.global.nc`.
    write_launch: u32,
    read_only_launch: u32,
}

/// The GPU's global memory. Buffers are apart from each other: an access outside one is a fault.
#[derive(Default)]
pub struct Memory {
    buffers: Vec<Storage>,
    /// The last interval that was given to a block.
    interval: u32,
}

impl Memory {
    /// Without buffers.
    pub fn new() -> Memory {
        Memory::default()
    }

    fn add(&mut self, name: &str, data: Vec<u8>, written: Written) -> Buffer {
        let bytes = data.len();
        self.push(Storage::new(name.to_string(), bytes, data, written))
    }

    fn push(&mut self, storage: Storage) -> Buffer {
        self.buffers.push(storage);
        Buffer(self.buffers.len() as u32 - 1)
    }

    /// A buffer of this many bytes that keeps nothing: it takes no memory, reads as zeros, and nobody looks for races in
    /// it. What remains are the checks of bounds and alignment, and [`Stats`](crate::Stats).
    pub fn hollow(&mut self, name: &str, bytes: usize) -> Buffer {
        let storage = Storage::new(name.to_string(), bytes, vec![], Written::All);
        self.push(Storage { sink: Some(Box::default()), ..storage })
    }

    /// A buffer of this many bytes that nothing has written: reading it is a fault.
    pub fn allocate(&mut self, name: &str, bytes: usize) -> Buffer {
        self.add(name, vec![0xcd; bytes], Written::none(bytes))
    }

    /// A buffer that holds these values.
    pub fn upload<T: Element>(&mut self, name: &str, values: &[T]) -> Buffer {
        let mut data = Vec::with_capacity(values.len() * T::BYTES);
        values.iter().for_each(|v| v.put(&mut data));
        self.add(name, data, Written::All)
    }

    /// Writes values over the start of a buffer.
    ///
    /// # Errors
    /// If it is too small.
    pub fn write<T: Element>(&mut self, buffer: Buffer, values: &[T]) -> Result<(), Error> {
        let storage = self.storage(buffer)?;
        let bytes = values.len() * T::BYTES;
        if bytes > storage.data.len() {
            let message = format!("has {} bytes, {bytes} are written", storage.data.len());
            return Err(Error::Memory { buffer: storage.name.clone(), message });
        }
        let mut data = Vec::with_capacity(bytes);
        values.iter().for_each(|v| v.put(&mut data));
        storage.data[..bytes].copy_from_slice(&data);
        (0..bytes).for_each(|i| storage.written.add(i, 1));
        Ok(())
    }

    /// Writes bytes from an address in a buffer on.
    ///
    /// # Errors
    /// If they do not lie in one buffer.
    pub fn write_at(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let (storage, start) = self.range(address, bytes.len())?;
        storage.data[start..start + bytes.len()].copy_from_slice(bytes);
        (start..start + bytes.len()).for_each(|i| storage.written.add(i, 1));
        Ok(())
    }

    /// The bytes from an address in a buffer on.
    ///
    /// # Errors
    /// If they do not lie in one buffer, or not all of them were written.
    pub fn read_at(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>, Error> {
        let (storage, start) = self.range(address, bytes)?;
        if let Some(at) = (start..start + bytes).find(|&i| !storage.written.has(i, 1)) {
            let message = format!("byte {at} was never written");
            return Err(Error::Memory { buffer: storage.name.clone(), message });
        }
        Ok(storage.data[start..start + bytes].to_vec())
    }

    /// Gives a buffer back: from now on its addresses are in none.
    pub fn free(&mut self, buffer: Buffer) {
        if let Some(storage) = self.buffers.get_mut(buffer.0 as usize) {
            *storage = Storage::new(format!("{} (freed)", storage.name), 0, vec![], Written::none(0));
        }
    }

    fn range(&mut self, address: u64, bytes: usize) -> Result<(&mut Storage, usize), Error> {
        let (index, offset) = ((address >> WINDOW).wrapping_sub(1), address & ((1 << WINDOW) - 1));
        let found = usize::try_from(index).ok().and_then(|i| self.buffers.get_mut(i));
        let wild = || Error::Memory { buffer: format!("{address:#x}"), message: "no such address".into() };
        let storage = found.ok_or_else(wild)?;
        let (start, size) = (offset as usize, storage.data.len());
        if start > size || bytes > size - start {
            let message = format!("has {size} bytes, not {bytes} from byte {start} on");
            return Err(Error::Memory { buffer: storage.name.clone(), message });
        }
        Ok((storage, start))
    }

    /// All values of a buffer.
    ///
    /// # Errors
    /// If not all of its bytes were written, or its size is no multiple of the type's.
    pub fn download<T: Element>(&mut self, buffer: Buffer) -> Result<Vec<T>, Error> {
        let storage = self.storage(buffer)?;
        let message = match storage.written.first_missing(storage.data.len()) {
            Some(byte) => format!("byte {byte} of {} was never written", storage.data.len()),
            None if !storage.data.len().is_multiple_of(T::BYTES) => {
                format!("{} bytes are no multiple of {}", storage.data.len(), T::BYTES)
            }
            None => return Ok(storage.data.chunks_exact(T::BYTES).map(T::get).collect()),
        };
        Err(Error::Memory { buffer: storage.name.clone(), message })
    }

    /// Makes a buffer's contents undefined again, as memory is that another value takes over.
    ///
    /// # Errors
    /// If it is a buffer of another memory.
    pub fn forget(&mut self, buffer: Buffer) -> Result<(), Error> {
        let storage = self.storage(buffer)?;
        storage.written = Written::none(storage.data.len());
        Ok(())
    }

    /// Size of a buffer in bytes.
    ///
    /// # Errors
    /// If it is a buffer of another memory.
    pub fn bytes(&mut self, buffer: Buffer) -> Result<usize, Error> {
        self.storage(buffer).map(|s| s.bytes)
    }

    fn storage(&mut self, buffer: Buffer) -> Result<&mut Storage, Error> {
        let missing =
            || Error::Memory { buffer: format!("{buffer:?}"), message: "is not of this memory".into() };
        self.buffers.get_mut(buffer.0 as usize).ok_or_else(missing)
    }

    /// A fresh number for a block's time between two barriers.
    pub(crate) fn next_interval(&mut self) -> u32 {
        self.interval += 1;
        self.interval
    }

    fn locate(&mut self, address: u64, size: u32) -> Result<(&mut Storage, usize), Fault> {
        let index = (address >> WINDOW).wrapping_sub(1);
        let offset = address & ((1 << WINDOW) - 1);
        // Just before a buffer's start the address is in its predecessor's window.
        let before = (1u64 << WINDOW) - offset < 1 << 30;
        let (index, offset) = if before {
            (index.wrapping_add(1), offset as i64 - (1 << WINDOW))
        } else {
            (index, offset as i64)
        };
        let Some(storage) = usize::try_from(index).ok().and_then(|i| self.buffers.get_mut(i)) else {
            return Err(Fault::WildAddress(address));
        };
        let bytes = storage.bytes as u64;
        if offset < 0 || offset as u64 + u64::from(size) > bytes {
            let place = Place { name: storage.name.clone(), offset };
            return Err(Fault::OutOfBounds { place, size, bytes });
        }
        // Sizes are powers of two.
        if offset & i64::from(size - 1) != 0 {
            let place = Place { name: storage.name.clone(), offset };
            return Err(Fault::Misaligned { place, size, align: ALIGN });
        }
        Ok((storage, offset as usize))
    }

    /// The address, in a buffer or not, must be a multiple of this size.
    pub(crate) fn check_aligned(&mut self, address: u64, size: u32) -> Result<(), Fault> {
        if address.is_multiple_of(size.into()) {
            return Ok(());
        }
        let place = match self.locate(address, 1) {
            Ok((storage, offset)) => Place { name: storage.name.clone(), offset: offset as i64 },
            Err(_) => Place { name: "global memory".into(), offset: address as i64 },
        };
        Err(Fault::Misaligned { place, size, align: ALIGN })
    }

    /// The number of the buffer that all lanes of the mask access, each within it and aligned, if there is one: lanes that
    /// are together are found together.
    pub(crate) fn common(&mut self, addresses: &[u64; 32], mask: u32, size: u32) -> Option<Buffer> {
        let first = addresses[mask.trailing_zeros() as usize % 32];
        let (mut low, mut high, mut bits) = (first, first, 0);
        for (lane, &address) in addresses.iter().enumerate() {
            let address = if mask >> lane & 1 != 0 { address } else { first };
            (low, high, bits) = (low.min(address), high.max(address), bits | address);
        }
        let number = u32::try_from((first >> WINDOW).checked_sub(1)?).ok()?;
        let start = Buffer(number).address();
        let bytes = self.buffers.get(number as usize)?.bytes as u64;
        let inside = low >= start && high - start + u64::from(size) <= bytes;
        (inside && bits & u64::from(size - 1) == 0).then_some(Buffer(number))
    }

    /// The buffer of an address, and the offset there; `known` is the buffer, if [`Memory::common`] has found it.
    #[inline]
    fn place(
        &mut self,
        (address, known): (u64, Option<Buffer>),
        size: u32,
    ) -> Result<(&mut Storage, usize), Fault> {
        match known {
            Some(buffer) => Ok((&mut self.buffers[buffer.0 as usize], (address - buffer.address()) as usize)),
            None => self.locate(address, size),
        }
    }

    /// The bytes that a thread reads at an address, in a buffer if that is known.
    #[inline]
    pub(crate) fn load(
        &mut self,
        at: (u64, Option<Buffer>),
        size: u32,
        read_only: bool,
        who: &Who,
    ) -> Result<&[u8], Fault> {
        let (storage, offset) = self.place(at, size)?;
        storage.load(offset, size, read_only, who)
    }

    /// The bytes that a thread is to write.
    #[inline]
    pub(crate) fn store(
        &mut self,
        at: (u64, Option<Buffer>),
        size: u32,
        who: &Who,
    ) -> Result<&mut [u8], Fault> {
        let (storage, offset) = self.place(at, size)?;
        storage.store(offset, size, who)
    }
}

impl Storage {
    fn new(name: String, bytes: usize, data: Vec<u8>, written: Written) -> Storage {
        let (shadow, sink) = (Shadow::default(), None);
        Storage { name, bytes, data, sink, written, shadow, write_launch: 0, read_only_launch: 0 }
    }

    #[inline]
    fn load(&mut self, offset: usize, size: u32, read_only: bool, who: &Who) -> Result<&[u8], Fault> {
        if read_only {
            self.read_only_launch = who.launch_first;
            self.check_coherent()?;
        }
        if self.sink.is_some() {
            return Ok(&ZEROS[..size as usize]);
        }
        self.shadow.reserve(self.data.len());
        let checked = self.shadow.read(offset, size as usize, who);
        checked.map_err(|c| conflict("reads", &self.name, c, size))?;
        if !self.written.has(offset, size as usize) {
            let place = Place { name: self.name.clone(), offset: offset as i64 };
            return Err(Fault::UninitialisedMemory { place, size });
        }
        Ok(&self.data[offset..offset + size as usize])
    }

    #[inline]
    fn store(&mut self, offset: usize, size: u32, who: &Who) -> Result<&mut [u8], Fault> {
        self.write_launch = who.launch_first;
        self.check_coherent()?;
        let Storage { name, data, sink, written, shadow, .. } = self;
        if let Some(sink) = sink {
            return Ok(&mut sink[..size as usize]);
        }
        shadow.reserve(data.len());
        shadow.write(offset, size as usize, who).map_err(|c| conflict("writes", name, c, size))?;
        written.add(offset, size as usize);
        Ok(&mut data[offset..offset + size as usize])
    }

    fn check_coherent(&self) -> Result<(), Fault> {
        match self.write_launch == self.read_only_launch {
            true => Err(Fault::NonCoherent(self.name.clone())),
            false => Ok(()),
        }
    }
}

/// The fault of a conflict at a byte.
pub(crate) fn conflict(
    access: &'static str,
    name: &str,
    (offset, conflict): (usize, Conflict),
    size: u32,
) -> Fault {
    let place = Place { name: name.into(), offset: offset as i64 };
    match conflict {
        Conflict::Unwritten => Fault::UninitialisedMemory { place, size },
        Conflict::Pending(thread) => Fault::CopyPending { access, place, thread: thread.into() },
        Conflict::Race { written, by } => {
            let did = if written { "written" } else { "read" };
            let other = match by {
                Other::Thread(t) => format!("thread {t} of the block has {did}"),
                Other::Several => format!("several threads of the block have {did}"),
                Other::AnotherBlock => format!("another block has {did}"),
            };
            Fault::Race { access, place, written, other }
        }
    }
}
