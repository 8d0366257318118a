//! TensorBoard's event files: a sequence of TFRecords, each a protocol buffer `Event`.
//!
//! ```text
//! record:  length (u64) · masked crc32c of the length (u32) · data · masked crc32c of the data (u32)
//! Event:   1 wall_time: double · 2 step: int64 · 3 file_version: string · 5 summary: Summary
//! Summary: 1 value: repeated { 1 tag: string · 2 simple_value: float }
//! ```
//! Little-endian; the sources are TensorFlow's `event.proto`, `summary.proto` and `record_writer.cc`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Error;
use crate::error::Result;

/// What every event file begins with.
const VERSION: &str = "brain.Event:2";

/// An event file, being written.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    out: BufWriter<File>,
}

impl EventFile {
    /// Creates a file in a folder; its name holds the time, so that several runs lie beside each other.
    pub fn create(folder: &Path) -> Result<EventFile> {
        let now = now();
        let name = format!("events.out.tfevents.{:010}.{:09}.nnc", now.as_secs(), now.subsec_nanos());
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(|e| Error::io("write", &path, e))?;
        let mut events = EventFile { path, out: BufWriter::new(file) };
        let mut event = head();
        text(&mut event, 3, VERSION);
        events.record(&event)?;
        Ok(events)
    }

    /// Writes values of a step under `group/name`.
    pub fn scalars(&mut self, step: u64, group: &str, values: &[(&str, f64)]) -> Result<()> {
        let mut event = head();
        key(&mut event, 2, 0);
        varint(&mut event, step);
        bytes(&mut event, 5, &summary(group, values));
        self.record(&event)
    }

    /// Makes sure that everything is in the file.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(|e| Error::io("write", &self.path, e))
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        self.out.write_all(&record(data)).map_err(|e| Error::io("write", &self.path, e))
    }
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked_crc(data).to_le_bytes());
    out
}

/// The checksum as TFRecords have it, so that checksums of data with checksums are sound.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// An event with the time.
fn head() -> Vec<u8> {
    let mut out = vec![];
    key(&mut out, 1, 1);
    out.extend(now().as_secs_f64().to_le_bytes());
    out
}

fn summary(group: &str, values: &[(&str, f64)]) -> Vec<u8> {
    let mut out = vec![];
    for (name, value) in values {
        let mut v = vec![];
        text(&mut v, 1, &format!("{group}/{name}"));
        key(&mut v, 2, 5);
        v.extend((*value as f32).to_le_bytes());
        bytes(&mut out, 1, &v);
    }
    out
}

/// Number and wire type of a field: 0 varint, 1 64 bits, 2 length and bytes, 5 32 bits.
fn key(out: &mut Vec<u8>, field: u8, wire: u8) {
    out.push(field << 3 | wire);
}

fn text(out: &mut Vec<u8>, field: u8, value: &str) {
    bytes(out, field, value.as_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32C (RFC 3720), and the mask of an empty string in TensorFlow.
    #[test]
    fn checksums() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(masked_crc(b""), 0xA282_EAD8);
    }

    /// The bytes that protoc's encoding rules give.
    #[test]
    fn a_summary_is_a_protocol_buffer() {
        assert_eq!(summary("train", &[("loss", 1.0)]), b"\x0a\x11\x0a\x0atrain/loss\x15\x00\x00\x80\x3f");
        let mut long = vec![];
        varint(&mut long, 300);
        assert_eq!(long, [0xAC, 0x02]);
    }

    #[test]
    fn files_are_whole_records() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path()).unwrap();
        file.scalars(7, "train", &[("loss", 0.5), ("top1", 0.25)]).unwrap();
        file.flush().unwrap();
        let bytes = std::fs::read(&file.path).unwrap();
        let mut rest = &bytes[..];
        let mut records = vec![];
        while let Some((length, _)) = rest.split_first_chunk::<8>() {
            let n = u64::from_le_bytes(*length) as usize;
            let data = &rest[12..12 + n];
            assert_eq!(&rest[..16 + n], &record(data)[..]);
            records.push(data);
            rest = &rest[16 + n..];
        }
        assert_eq!(records.len(), 2);
        assert!(records[0].ends_with(b"\x1a\x0dbrain.Event:2"));
        assert_eq!(&records[1][9..13], b"\x10\x07\x2a\x26", "step 7, a summary of 38 bytes");
    }
}
