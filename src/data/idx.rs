//! Labelled pictures in the idx format of MNIST and its relatives, plain or compressed with gzip.
//!
//! An idx file is big-endian: two zero bytes, a type byte (8: unsigned bytes), the number of
//! dimensions, the size of each as `u32`, then the data. Sizes are checked against the data before
//! anything is allocated for them.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::data::dataset::Part;
use crate::data::pictures::Pictures;
use crate::error::Result;

/// The most bytes of data that an idx file may hold, unpacked.
const MAX_BYTES: u64 = 4 << 30;

/// Reads `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (or `t10k-…` for the test part) of
/// a folder, each plain or as `.gz`.
pub fn open(folder: &Path, part: Part) -> Result<Pictures> {
    let [pictures, labels] = names(part);
    let (pictures, labels) = (find(folder, &pictures)?, find(folder, &labels)?);
    let (sizes, pixels) = read(&pictures, 3)?;
    let (_, labels) = read(&labels, 1)?;
    if sizes[0] != labels.len() {
        let message = format!("holds {} pictures, but there are {} labels", sizes[0], labels.len());
        return Err(Error::format(folder, message));
    }
    if pixels.is_empty() {
        return Err(Error::format(folder, "holds no pictures"));
    }
    let labels = labels.into_iter().map(i32::from).collect();
    Pictures::new([1, sizes[1], sizes[2]], pixels, labels, vec![])
}

/// Whether the files of a part are there.
pub fn has(folder: &Path, part: Part) -> bool {
    names(part).iter().all(|name| find(folder, name).is_ok())
}

/// The files of a part: pictures, labels.
fn names(part: Part) -> [String; 2] {
    let prefix = match part {
        Part::Train => "train",
        Part::Test => "t10k",
    };
    ["images-idx3", "labels-idx1"].map(|what| format!("{prefix}-{what}-ubyte"))
}

fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let candidates = [folder.join(name), folder.join(format!("{name}.gz"))];
    let missing = || Error::format(folder, format!("expected `{name}` or `{name}.gz` in this folder"));
    candidates.into_iter().find(|p| p.is_file()).ok_or_else(missing)
}

/// The sizes and data of an idx file of unsigned bytes with `rank` dimensions.
fn read(path: &Path, rank: u8) -> Result<(Vec<usize>, Vec<u8>)> {
    let fail = |e| Error::io("read", path, e);
    let mut file = BufReader::new(File::open(path).map_err(fail)?);
    let zipped = std::io::BufRead::fill_buf(&mut file).map_err(fail)?.starts_with(&[0x1f, 0x8b]);
    let result =
        if zipped { parse(flate2::bufread::MultiGzDecoder::new(file), rank) } else { parse(file, rank) };
    result.map_err(|reason| Error::format(path, reason))
}

fn parse(mut reader: impl Read, rank: u8) -> Result<(Vec<usize>, Vec<u8>), String> {
    let mut header = [0; 4];
    reader.read_exact(&mut header).map_err(|e| format!("its header cannot be read ({e})"))?;
    if header != [0, 0, 8, rank] {
        let found = u32::from_be_bytes(header);
        return Err(format!(
            "expected the magic number {:#010x}, found {found:#010x}",
            0x800 + u32::from(rank)
        ));
    }
    let mut sizes = vec![];
    for _ in 0..rank {
        let mut size = [0; 4];
        reader.read_exact(&mut size).map_err(|e| format!("its header cannot be read ({e})"))?;
        sizes.push(u32::from_be_bytes(size));
    }
    let total = sizes.iter().try_fold(1u64, |n, &s| n.checked_mul(u64::from(s)));
    let Some(total) = total.filter(|&n| n <= MAX_BYTES) else {
        return Err(format!("its header claims {sizes:?} bytes of data: too many"));
    };
    let mut data = vec![];
    let got = reader.take(total + 1).read_to_end(&mut data);
    got.map_err(|e| format!("its data ends early or is damaged after {} bytes ({e})", data.len()))?;
    match (data.len() as u64).cmp(&total) {
        Ordering::Less => Err(format!("expected {total} bytes of data, found {}", data.len())),
        Ordering::Greater => Err(format!("expected {total} bytes of data, found more")),
        Ordering::Equal => Ok((sizes.into_iter().map(|s| s as usize).collect(), data)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idx(magic: u32, sizes: &[u32], data: &[u8]) -> Vec<u8> {
        let mut out = magic.to_be_bytes().to_vec();
        sizes.iter().for_each(|s| out.extend(s.to_be_bytes()));
        out.extend(data);
        out
    }

    #[test]
    fn reads_what_the_header_says() {
        let file = idx(0x803, &[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(parse(&file[..], 3).unwrap(), (vec![2, 1, 3], vec![1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn lying_headers_are_errors() {
        for (file, message) in [
            (idx(0x801, &[1], &[1]), "expected the magic number 0x00000803, found 0x00000801"),
            (idx(0x803, &[2, 1, 3], &[1, 2, 3]), "expected 6 bytes of data, found 3"),
            (idx(0x803, &[1, 1, 1], &[1, 2, 3]), "expected 1 bytes of data, found more"),
            (idx(0x803, &[u32::MAX; 3], &[]), "too many"),
            (vec![0, 0], "its header cannot be read"),
        ] {
            let error = parse(&file[..], 3).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
