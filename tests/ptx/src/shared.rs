//! Memory of a block and of a thread: the variables of `.shared` and `.local`.

use crate::error::{Fault, Place};
use crate::kernel::{Variable, WINDOW};
use crate::memory::conflict;
use crate::shadow::{Shadow, Who};

/// Variables side by side in one array, each with a window of addresses of its own.
pub(crate) struct Layout {
    variables: Vec<Placed>,
    pub bytes: usize,
}

struct Placed {
    name: String,
    start: usize,
    bytes: u32,
    align: u32,
}

impl Layout {
    /// Variables of dynamic size get this many bytes.
    pub fn new(variables: &[Variable], dynamic: u32) -> Layout {
        let mut bytes = 0;
        let place = |v: &Variable| {
            let start = usize::next_multiple_of(bytes, 16);
            let size = if v.dynamic { dynamic } else { v.bytes };
            bytes = start + size as usize;
            Placed { name: v.name.clone(), start, bytes: size, align: v.align }
        };
        let variables = variables.iter().map(place).collect();
        Layout { variables, bytes }
    }

    /// The variable of an address and the byte in the array; sizes are powers of two.
    #[inline]
    fn locate(&self, address: u64, size: u32) -> Result<(&Placed, usize), Fault> {
        // Just before a variable's start the address is in its predecessor's window.
        let window = 1u64 << WINDOW;
        let before = address % window > window - window / 4;
        let index = (address >> WINDOW).wrapping_sub(u64::from(!before));
        let offset = (address % window) as i64 - if before { window as i64 } else { 0 };
        let Some(v) = usize::try_from(index).ok().and_then(|i| self.variables.get(i)) else {
            return Err(Fault::WildAddress(address));
        };
        let place = || Place { name: v.name.clone(), offset };
        if offset < 0 || offset + i64::from(size) > v.bytes.into() {
            return Err(Fault::OutOfBounds { place: place(), size, bytes: v.bytes.into() });
        }
        if offset & i64::from(size - 1) != 0 || v.align & (size - 1) != 0 {
            return Err(Fault::Misaligned { place: place(), size, align: v.align });
        }
        Ok((v, v.start + offset as usize))
    }
}

/// The shared memory of the block that runs.
pub(crate) struct Shared {
    layout: Layout,
    data: Vec<u8>,
    shadow: Shadow,
}

/// A place in shared memory that a copy is to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyTarget {
    at: usize,
    size: u8,
}

/// No block sees what another one left in its shared memory.
fn alone(who: &Who) -> Who {
    Who { launch_first: who.block_first, ..*who }
}

impl Shared {
    pub fn new(layout: Layout) -> Shared {
        let mut shadow = Shadow::default();
        shadow.reserve(layout.bytes);
        Shared { data: vec![0; layout.bytes], shadow, layout }
    }

    pub fn load(&mut self, address: u64, size: u32, who: &Who) -> Result<&[u8], Fault> {
        let (v, at) = self.layout.locate(address, size)?;
        let checked = self.shadow.read_written(at, size as usize, &alone(who));
        checked.map_err(|(byte, c)| conflict("reads", &v.name, (byte - v.start, c), size))?;
        Ok(&self.data[at..at + size as usize])
    }

    pub fn store(&mut self, address: u64, size: u32, who: &Who) -> Result<&mut [u8], Fault> {
        let (v, at) = self.layout.locate(address, size)?;
        let checked = self.shadow.write(at, size as usize, &alone(who));
        checked.map_err(|(byte, c)| conflict("writes", &v.name, (byte - v.start, c), size))?;
        Ok(&mut self.data[at..at + size as usize])
    }

    /// A copy to this address is on its way; its bytes are those given.
    pub fn begin_copy(&mut self, address: u64, bytes: &[u8], who: &Who) -> Result<CopyTarget, Fault> {
        let size = bytes.len();
        let (v, at) = self.layout.locate(address, size as u32)?;
        let checked = self.shadow.begin_copy(at, size, &alone(who));
        checked.map_err(|(byte, c)| conflict("writes", &v.name, (byte - v.start, c), size as u32))?;
        self.data[at..at + size].copy_from_slice(bytes);
        Ok(CopyTarget { at, size: size as u8 })
    }

    pub fn end_copy(&mut self, target: CopyTarget, who: &Who) {
        // Ending a copy conflicts with nothing: while it was on its way nobody could touch the bytes.
        let _ = self.shadow.end_copy(target.at, target.size.into(), who);
    }
}

/// The local memory of a warp's threads.
pub(crate) struct Local {
    layout: Layout,
    data: Vec<u8>,
    written: Vec<bool>,
}

impl Local {
    pub fn new(variables: &[Variable]) -> Local {
        let layout = Layout::new(variables, 0);
        let bytes = layout.bytes * 32;
        Local { layout, data: vec![0; bytes], written: vec![false; bytes] }
    }

    /// As at the start of a thread: nothing is written.
    pub fn reset(&mut self) {
        self.written.fill(false);
    }

    fn range(
        &self,
        lane: usize,
        address: u64,
        size: u32,
    ) -> Result<(&Placed, std::ops::Range<usize>), Fault> {
        let (v, at) = self.layout.locate(address, size)?;
        let start = lane * self.layout.bytes + at;
        Ok((v, start..start + size as usize))
    }

    pub fn load(&self, lane: usize, address: u64, size: u32) -> Result<&[u8], Fault> {
        let (v, range) = self.range(lane, address, size)?;
        if !self.written[range.clone()].iter().all(|&w| w) {
            let offset = (range.start - lane * self.layout.bytes - v.start) as i64;
            return Err(Fault::UninitialisedMemory { place: Place { name: v.name.clone(), offset }, size });
        }
        Ok(&self.data[range])
    }

    pub fn store(&mut self, lane: usize, address: u64, size: u32) -> Result<&mut [u8], Fault> {
        let (_, range) = self.range(lane, address, size)?;
        self.written[range.clone()].fill(true);
        Ok(&mut self.data[range])
    }
}
