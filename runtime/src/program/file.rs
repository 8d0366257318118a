//! The program file.
//!
//! ```text
//! magic "nncprog3"                      8 bytes
//! length of the header                  8 bytes, little-endian
//! header: JSON                          { code_bytes, constants_bytes, weights_bytes, program }
//! zeros up to a multiple of 64
//! machine code, zeros up to a multiple of 64
//! constants
//! if it has weights: zeros up to a multiple of 4096, and the prepared area as runs read it
//! checksum of all the above             8 bytes, little-endian; weights begin a block of it
//! ```
//!
//! A program file *is* machine code: it deserves exactly the trust of an executable. Reading one is
//! safe whatever its bytes, and its description (sizes, offsets, names) is validated; what its
//! code does when it is called cannot be. The checksum detects damage, not malice.
//!
//! All of an open file is read and summed, so whatever is wrong with it when it is opened is an error. Then weights,
//! if they are many, are mapped: they take no memory that the system could not take back, and processes share it.
//! From then on the file must stay as it is. It may be deleted, and another file may take its name; but what is
//! written into it shows in the weights, and if it is cut off, the system ends the process when it reads what is
//! not there any more, as it does with executables.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::checksum::{self, Summing};
use super::{Program, ProgramError};
use crate::memory::{Buffer, Frozen};
use crate::read_at::{ReadAt, side_by_side};

/// The first bytes of a program file; the last one is the version of the format.
pub const MAGIC: &[u8; 8] = b"nncprog3";

const ALIGNMENT: u64 = 64;
/// A page of most systems. Where pages are larger, maps begin a little earlier.
const WEIGHTS_ALIGNMENT: u64 = 4096;
const CHECKSUM_BYTES: u64 = 8;

/// Fewer bytes of weights are read instead of mapped. That takes some 5 ms, the file is free to change, and the
/// memory has huge pages: runs of VGG-16 were 3 % slower on a map (57.0 ms, 55.1).
const MAPPED_FROM: usize = 32 << 20;

#[derive(Serialize)]
struct HeaderOut<'a> {
    code_bytes: usize,
    constants_bytes: usize,
    weights_bytes: Option<usize>,
    program: &'a Program,
}

#[derive(Deserialize)]
struct Header {
    code_bytes: u64,
    constants_bytes: u64,
    weights_bytes: Option<u64>,
    program: Program,
}

impl Program {
    /// Writes the program file.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let weights = self.weights.as_ref();
        let header = HeaderOut {
            code_bytes: self.code.len(),
            constants_bytes: self.constants.len(),
            weights_bytes: weights.map(Frozen::len),
            program: self,
        };
        let header = serde_json::to_vec(&header).map_err(io::Error::other)?;
        let mut out = Summing::new(to);
        out.write_all(MAGIC)?;
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        align(&mut out, ALIGNMENT)?;
        out.write_all(&self.code)?;
        align(&mut out, ALIGNMENT)?;
        out.write_all(&self.constants)?;
        if let Some(weights) = weights {
            align(&mut out, WEIGHTS_ALIGNMENT)?;
            out.cut()?;
            out.write_all(weights.bytes())?;
        }
        out.finish()
    }

    /// Reads and [validates](Program::validate) a program file. Never panics, and allocates no
    /// more than a small multiple of what it is given.
    pub fn read(bytes: &[u8]) -> Result<Program, ProgramError> {
        let (header, layout) = describe(&bytes)?;
        let (front, behind) = bytes[..layout.end as usize].split_at(layout.front() as usize);
        let sum = checksum::checksum(front, behind);
        let weights = layout.weights.as_ref().map(|_| Buffer::copy_of(behind, "weights").map(Frozen::from));
        let weights = weights.transpose().map_err(|e| ProgramError::Read(e.to_string()))?;
        assemble(&bytes, header, &layout, sum, weights)
    }

    /// Reads and [validates](Program::validate) a program file, with up to that many threads. Many weights
    /// are mapped into memory: as long as the program or a session of it lives, the file may be deleted, or
    /// another one may take its name, but it must not be written into or cut off.
    pub fn open(file: File, threads: usize) -> Result<Program, ProgramError> {
        let failed = |e: io::Error| ProgramError::Read(e.to_string());
        let file = ReadAt::new(file);
        let source = Opened { length: file.length().map_err(failed)?, file };
        let (header, layout) = describe(&source)?;
        let mut sums = source.sums(0..layout.front(), threads)?;
        let weights = layout.weights.clone().map(|at| source.weights(at, threads, &mut sums)).transpose()?;
        assemble(&source, header, &layout, checksum::join(sums.into_iter()), weights)
    }
}

fn align<W: Write>(out: &mut Summing<W>, to: u64) -> io::Result<()> {
    let zeros = [0; WEIGHTS_ALIGNMENT as usize];
    let gap = out.written().next_multiple_of(to) - out.written();
    out.write_all(&zeros[..gap as usize])
}

/// Where the bytes of a program file are.
trait Source {
    fn length(&self) -> u64;
    /// Some of them; there are as many.
    fn read(&self, at: Range<u64>) -> Result<Cow<'_, [u8]>, ProgramError>;
}

impl Source for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, at: Range<u64>) -> Result<Cow<'_, [u8]>, ProgramError> {
        Ok(Cow::Borrowed(&self[at.start as usize..at.end as usize]))
    }
}

/// Where the parts of a file lie.
struct Layout {
    code: Range<u64>,
    constants: Range<u64>,
    weights: Option<Range<u64>>,
    /// What is summed.
    end: u64,
}

impl Layout {
    /// Where weights begin, which are summed for themselves.
    fn front(&self) -> u64 {
        self.weights.as_ref().map_or(self.end, |w| w.start)
    }
}

/// Reads the header and finds the parts: they all lie within the file, which has nothing else.
fn describe(source: &dyn Source) -> Result<(Header, Layout), ProgramError> {
    let found = source.length();
    if found < MAGIC.len() as u64 || *source.read(0..MAGIC.len() as u64)? != MAGIC[..] {
        return Err(ProgramError::Magic);
    }
    // The next part of that many bytes.
    let part = |at: u64, length: u64| match at.checked_add(length) {
        Some(end) if end <= found => Ok(at..end),
        end => Err(ProgramError::Truncated { expected: end.unwrap_or(u64::MAX), found }),
    };
    let length = part(MAGIC.len() as u64, 8)?;
    let bytes = source.read(length.clone())?;
    let header_bytes = u64::from_le_bytes(bytes[..].try_into().unwrap_or_default());
    let header = part(length.end, header_bytes)?;
    let text = source.read(header.clone())?;
    let parsed: Header = serde_json::from_slice(&text).map_err(|e| ProgramError::Header(e.to_string()))?;
    let code = part(header.end.next_multiple_of(ALIGNMENT), parsed.code_bytes)?;
    let constants = part(code.end.next_multiple_of(ALIGNMENT), parsed.constants_bytes)?;
    let weights = |bytes| part(constants.end.next_multiple_of(WEIGHTS_ALIGNMENT), bytes);
    let weights = parsed.weights_bytes.map(weights).transpose()?;
    let end = weights.as_ref().map_or(constants.end, |w| w.end);
    let sum = part(end, CHECKSUM_BYTES)?;
    match found - sum.end {
        0 => Ok((parsed, Layout { code, constants, weights, end })),
        more => Err(ProgramError::Invalid(format!("{more} bytes follow its end"))),
    }
}

/// Compares the checksum and validates the program.
fn assemble(
    source: &dyn Source,
    header: Header,
    layout: &Layout,
    sum: u64,
    weights: Option<Frozen>,
) -> Result<Program, ProgramError> {
    if *source.read(layout.end..layout.end + CHECKSUM_BYTES)? != sum.to_le_bytes() {
        return Err(ProgramError::Checksum);
    }
    let code = source.read(layout.code.clone())?.into_owned();
    let constants = source.read(layout.constants.clone())?.into_owned();
    let program = Program { code, constants, weights, ..header.program };
    program.validate()?;
    Ok(program)
}

/// An open file of a known length.
struct Opened {
    file: ReadAt,
    length: u64,
}

impl Source for Opened {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, at: Range<u64>) -> Result<Cow<'_, [u8]>, ProgramError> {
        let mut bytes = vec![0; (at.end - at.start) as usize];
        self.read_into(&mut bytes, at.start)?;
        Ok(Cow::Owned(bytes))
    }
}

impl Opened {
    fn read_into(&self, to: &mut [u8], at: u64) -> Result<(), ProgramError> {
        self.file.read(to, at).map_err(|e| ProgramError::Read(e.to_string()))
    }

    /// The sums of the blocks of a part.
    fn sums(&self, part: Range<u64>, threads: usize) -> Result<Vec<u64>, ProgramError> {
        let blocks = (part.end - part.start).div_ceil(checksum::BLOCK as u64) as usize;
        let mut sums = vec![0; blocks];
        let each = blocks_of_a_thread(blocks, threads);
        let sum_some = |i: usize, sums: &mut [u64]| {
            let mut buffer = vec![0; checksum::BLOCK];
            for (k, sum) in sums.iter_mut().enumerate() {
                let at = part.start + ((i * each + k) * checksum::BLOCK) as u64;
                let bytes = &mut buffer[..checksum::BLOCK.min((part.end - at) as usize)];
                self.read_into(bytes, at)?;
                *sum = checksum::of_block(bytes);
            }
            Ok(())
        };
        side_by_side(sums.chunks_mut(each), sum_some)?;
        Ok(sums)
    }

    /// The same, of a part that is read into memory.
    fn read_and_sum(&self, to: &mut [u8], at: u64, threads: usize) -> Result<Vec<u64>, ProgramError> {
        let blocks = to.len().div_ceil(checksum::BLOCK);
        let mut sums = vec![0; blocks];
        let each = blocks_of_a_thread(blocks, threads);
        let parts = sums.chunks_mut(each).zip(to.chunks_mut(each * checksum::BLOCK));
        side_by_side(parts, |i, (sums, to)| {
            for (k, (sum, to)) in sums.iter_mut().zip(to.chunks_mut(checksum::BLOCK)).enumerate() {
                self.read_into(to, at + ((i * each + k) * checksum::BLOCK) as u64)?;
                *sum = checksum::of_block(to);
            }
            Ok(())
        })?;
        Ok(sums)
    }

    /// The weights, and the sums of their blocks: mapped, or where they are few or the system maps no files, read.
    fn weights(&self, at: Range<u64>, threads: usize, sums: &mut Vec<u64>) -> Result<Frozen, ProgramError> {
        let bytes = (at.end - at.start) as usize;
        if bytes >= MAPPED_FROM
            && let Ok(map) = Frozen::map(self.file.file(), at.start, bytes)
        {
            sums.extend(self.sums(at, threads)?);
            return Ok(map);
        }
        let mut buffer = Buffer::zeroed(bytes, "weights").map_err(|e| ProgramError::Read(e.to_string()))?;
        sums.extend(self.read_and_sum(buffer.bytes_mut(), at.start, threads)?);
        Ok(buffer.into())
    }
}

/// So many of some blocks each thread takes, at least one.
fn blocks_of_a_thread(blocks: usize, threads: usize) -> usize {
    blocks.div_ceil(threads.max(1)).max(1)
}
