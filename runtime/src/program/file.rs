//! The program file.
//!
//! ```text
//! magic "nncprog2"                      8 bytes
//! length of the header                  8 bytes, little-endian
//! header: JSON                          { code_bytes, constants_bytes, program }
//! zeros up to a multiple of 64
//! machine code, zeros up to a multiple of 64
//! constants
//! checksum: FNV-1a 64 of all the above  8 bytes, little-endian
//! ```
//!
//! A program file *is* machine code: it deserves exactly the trust of an executable. Reading one is
//! safe whatever its bytes, and its description (sizes, offsets, names) is validated; what its
//! code does when it is called cannot be. The checksum detects damage, not malice.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::{Program, ProgramError};

/// The first bytes of a program file; the last one is the version of the format.
pub const MAGIC: &[u8; 8] = b"nncprog2";

const ALIGNMENT: usize = 64;
const CHECKSUM_BYTES: usize = 8;

#[derive(Serialize)]
struct HeaderOut<'a> {
    code_bytes: usize,
    constants_bytes: usize,
    program: &'a Program,
}

#[derive(Deserialize)]
struct Header {
    code_bytes: u64,
    constants_bytes: u64,
    program: Program,
}

impl Program {
    /// Writes the program file.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let header =
            HeaderOut { code_bytes: self.code.len(), constants_bytes: self.constants.len(), program: self };
        let header = serde_json::to_vec(&header).map_err(io::Error::other)?;
        let mut out = Summing { to, sum: FNV_START, written: 0 };
        out.write_all(MAGIC)?;
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        out.align()?;
        out.write_all(&self.code)?;
        out.align()?;
        out.write_all(&self.constants)?;
        let sum = out.sum;
        out.to.write_all(&sum.to_le_bytes())?;
        out.to.flush()
    }

    /// Reads and [validates](Program::validate) a program file. Never panics, and allocates no
    /// more than a small multiple of what it is given.
    pub fn read(bytes: &[u8]) -> Result<Program, ProgramError> {
        if !bytes.starts_with(MAGIC) {
            return Err(ProgramError::Magic);
        }
        let (mut rest, mut at) = (bytes, 0);
        take(&mut rest, &mut at, MAGIC.len() as u64)?;
        let length = take(&mut rest, &mut at, 8)?;
        let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
        let header = take(&mut rest, &mut at, length)?;
        let header: Header =
            serde_json::from_slice(header).map_err(|e| ProgramError::Header(e.to_string()))?;
        let gap = padding(at);
        take(&mut rest, &mut at, gap)?;
        let code = take(&mut rest, &mut at, header.code_bytes)?;
        let gap = padding(at);
        take(&mut rest, &mut at, gap)?;
        let constants = take(&mut rest, &mut at, header.constants_bytes)?;
        let sum = take(&mut rest, &mut at, CHECKSUM_BYTES as u64)?;
        if !rest.is_empty() {
            return Err(ProgramError::Invalid(format!("{} bytes follow its end", rest.len())));
        }
        if fnv(FNV_START, &bytes[..bytes.len() - CHECKSUM_BYTES]).to_le_bytes() != *sum {
            return Err(ProgramError::Checksum);
        }
        let program = Program { code: code.to_vec(), constants: constants.to_vec(), ..header.program };
        program.validate()?;
        Ok(program)
    }
}

/// Splits the next `length` bytes off.
fn take<'a>(rest: &mut &'a [u8], at: &mut usize, length: u64) -> Result<&'a [u8], ProgramError> {
    let n = usize::try_from(length).ok().filter(|&n| n <= rest.len());
    let Some(n) = n else {
        let found = (*at + rest.len()) as u64;
        return Err(ProgramError::Truncated { expected: length.saturating_add(*at as u64), found });
    };
    let (head, tail) = rest.split_at(n);
    *rest = tail;
    *at += n;
    Ok(head)
}

fn padding(at: usize) -> u64 {
    (at.next_multiple_of(ALIGNMENT) - at) as u64
}

/// Counts and sums what goes through it.
struct Summing<W> {
    to: W,
    sum: u64,
    written: usize,
}

impl<W: Write> Summing<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum = fnv(self.sum, bytes);
        self.written += bytes.len();
        self.to.write_all(bytes)
    }

    fn align(&mut self) -> io::Result<()> {
        let zeros = [0; ALIGNMENT];
        self.write_all(&zeros[..padding(self.written) as usize])
    }
}

const FNV_START: u64 = 0xCBF2_9CE4_8422_2325;

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
fn fnv(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3))
}
