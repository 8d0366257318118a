//! A safetensors file whose tensors are read when they are asked for, each by several threads.
//!
//! It is read, not mapped into memory: a file that is cut off meanwhile is an error, not a signal, and pages of
//! it do not count as memory of the process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nnc_runtime::program::Port;
use nnc_runtime::read_at::{ReadAt, side_by_side};
use nnc_runtime::{DType, Parameters, parameters};

use super::{Entry, Header, decode};
use crate::Error;
use crate::error::Result;

/// So much is read at a time: a multiple of every element's size that stays in the cache of a core.
const CHUNK: usize = 1 << 19;

/// An open file; its header was checked.
#[derive(Debug)]
pub struct TensorFile {
    header: Header,
    file: ReadAt,
    /// The numbers of NaNs and of infinities in the tensors that have been read.
    non_finite: Mutex<BTreeMap<String, (usize, usize)>>,
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
        let header = Header::parse(&start, length).map_err(wrong)?;
        Ok(TensorFile { header, file: ReadAt::new(file), non_finite: Mutex::default() })
    }

    /// The metadata of that key, if there is such.
    pub fn metadata(&self, key: &str) -> Option<String> {
        self.header.metadata(key)
    }

    /// Leaves tensors out.
    pub fn forget(&mut self, names: &[String]) {
        names.iter().for_each(|name| drop(self.header.tensors.remove(name)));
    }

    /// The numbers of NaNs and of infinities in a tensor. It is read if it has not been before.
    pub fn non_finite(&self, port: &Port, threads: usize) -> std::result::Result<(usize, usize), String> {
        let known = || self.counts().get(&port.name).copied();
        if known().is_none() {
            parameters::read(self, port, threads).map_err(|e| e.to_string())?;
        }
        Ok(known().unwrap_or_default())
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (usize, usize)>> {
        self.non_finite.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a part of a tensor, from element `first` on; counts NaNs and infinities.
    fn read_part(
        &self,
        entry: &Entry,
        (dtype, first): (DType, usize),
        to: &mut [u8],
    ) -> std::result::Result<(usize, usize), String> {
        let size = entry.dtype.bitsize() / 8;
        let mut buffer = vec![0; CHUNK.min(to.len() / dtype.size() * size)];
        let mut at = self.header.data + (entry.at + first * size) as u64;
        let (mut nans, mut infinities) = (0, 0);
        for to in to.chunks_mut(CHUNK / size * dtype.size()) {
            let from = &mut buffer[..to.len() / dtype.size() * size];
            self.file.read(from, at).map_err(|e| e.to_string())?;
            decode::decode(entry.dtype, from, to)?;
            at += from.len() as u64;
            if dtype == DType::F32 {
                let wrong =
                    to.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b)).filter(|v| !v.is_finite());
                wrong.for_each(|v| if v.is_nan() { nans += 1 } else { infinities += 1 });
            }
        }
        Ok((nans, infinities))
    }
}

/// A thread reads at least that many elements.
const LEAST_ELEMENTS: usize = 1 << 16;

impl Parameters for TensorFile {
    fn ports(&self) -> Vec<Port> {
        self.header.ports()
    }

    fn fill(&self, port: &Port, to: &mut [u8], threads: usize) -> std::result::Result<(), String> {
        let elements = to.len() / port.dtype.size();
        let found = self.header.tensors.get(&port.name);
        if found.is_some_and(|e| elements * e.dtype.bitsize() != 8 * e.bytes) {
            return Err(format!("it does not have {elements} elements"));
        }
        self.fill_part(port, 0, to, threads).map(|_| ())
    }

    fn fill_part(
        &self,
        port: &Port,
        first: usize,
        to: &mut [u8],
        threads: usize,
    ) -> std::result::Result<bool, String> {
        let entry = self.header.tensors.get(&port.name).ok_or("it is missing")?;
        let (size, elements) = (port.dtype.size(), to.len() / port.dtype.size());
        if (first + elements) * entry.dtype.bitsize() > 8 * entry.bytes {
            return Err(format!("it does not have {} elements", first + elements));
        }
        let part = elements.div_ceil(threads.max(1)).max(LEAST_ELEMENTS);
        let counted = Mutex::new((0, 0));
        side_by_side(to.chunks_mut(part * size), |i, to| {
            let (nans, infinities) = self.read_part(entry, (port.dtype, first + i * part), to)?;
            let mut sum = counted.lock().unwrap_or_else(PoisonError::into_inner);
            *sum = (sum.0 + nans, sum.1 + infinities);
            Ok::<(), String>(())
        })?;
        let (nans, infinities) = counted.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut counts = self.counts();
        let sum = counts.entry(port.name.clone()).or_default();
        // From the first part on it is counted anew.
        *sum = if first == 0 { (nans, infinities) } else { (sum.0 + nans, sum.1 + infinities) };
        Ok(true)
    }
}
