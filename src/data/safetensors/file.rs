//! A safetensors file whose tensors are read when they are asked for.
//!
//! It is read, not mapped into memory: a file that is cut off meanwhile is an error, not a signal, and pages of
//! it do not count as memory of the process.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nnc_runtime::Parameters;
use nnc_runtime::program::Port;

use super::{Entry, Header, decode};
use crate::Error;
use crate::error::Result;

/// So much is read at a time: a multiple of every element's size that stays in the cache of a core.
const CHUNK: usize = 1 << 19;

/// An open file; its header was checked.
#[derive(Debug)]
pub struct TensorFile {
    header: Header,
    file: Mutex<File>,
}

impl TensorFile {
    /// Opens a file and reads its header.
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile> {
        let path = path.as_ref();
        let failed = |e| Error::io("read", path, e);
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut start = vec![];
        file.by_ref().take(8).read_to_end(&mut start).map_err(failed)?;
        let wrong = |message: String| Error::format(path, message);
        let header = Header::length(&start, length).map_err(wrong)?;
        file.by_ref().take(header as u64).read_to_end(&mut start).map_err(failed)?;
        Ok(TensorFile { header: Header::parse(&start, length).map_err(wrong)?, file: Mutex::new(file) })
    }

    /// The metadata of that key, if there is such.
    pub fn metadata(&self, key: &str) -> Option<String> {
        self.header.metadata(key)
    }

    /// Leaves tensors out.
    pub fn forget(&mut self, names: &[String]) {
        names.iter().for_each(|name| drop(self.header.tensors.remove(name)));
    }

    /// The numbers of NaNs and of infinities in a tensor: none in one of integers.
    pub fn non_finite(&self, name: &str) -> Result<(usize, usize), String> {
        let entry = self.entry(name)?;
        let (mut nans, mut infinities) = (0, 0);
        if decode::kind(entry.dtype)? == nnc_runtime::DType::F32 {
            let mut decoded = vec![0; CHUNK.min(entry.bytes) * 2];
            self.chunks(entry, |from| {
                let to = &mut decoded[..from.len() * 32 / entry.dtype.bitsize()];
                decode::decode(entry.dtype, from, to)?;
                for v in to.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b)).filter(|v| !v.is_finite()) {
                    if v.is_nan() { nans += 1 } else { infinities += 1 }
                }
                Ok(())
            })?;
        }
        Ok((nans, infinities))
    }

    fn entry(&self, name: &str) -> Result<&Entry, String> {
        self.header.tensors.get(name).ok_or_else(|| "it is missing".into())
    }

    /// Reads the elements of a tensor, chunk by chunk.
    fn chunks(&self, entry: &Entry, mut each: impl FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                "the file has become shorter since it was opened".to_string()
            }
            _ => e.to_string(),
        };
        file.seek(SeekFrom::Start(self.header.data + entry.at as u64)).map_err(failed)?;
        let mut buffer = vec![0; CHUNK.min(entry.bytes)];
        let mut left = entry.bytes;
        while left > 0 {
            let chunk = &mut buffer[..CHUNK.min(left)];
            file.read_exact(chunk).map_err(failed)?;
            each(chunk)?;
            left -= chunk.len();
        }
        Ok(())
    }
}

impl Parameters for TensorFile {
    fn ports(&self) -> Vec<Port> {
        self.header.ports()
    }

    fn fill(&self, port: &Port, to: &mut [u8], _threads: usize) -> Result<(), String> {
        let entry = self.entry(&port.name)?;
        let mut rest = to;
        self.chunks(entry, |from| {
            let bytes = from.len() * 8 * port.dtype.size() / entry.dtype.bitsize();
            let (to, after) = std::mem::take(&mut rest)
                .split_at_mut_checked(bytes)
                .ok_or("it has more elements than are wanted")?;
            rest = after;
            decode::decode(entry.dtype, from, to)
        })
    }
}
