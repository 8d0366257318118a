//! CIFAR-10 in its binary form (Krizhevsky 2009): records of a label byte and 3 planes (red, green,
//! blue) of 32 by 32 bytes, in `data_batch_1.bin` … `data_batch_5.bin` and `test_batch.bin`.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::data::dataset::Part;
use crate::data::pictures::Pictures;
use crate::error::Result;

const SHAPE: [usize; 3] = [3, 32, 32];
const PICTURE_BYTES: usize = 3 * 32 * 32;
const RECORD_BYTES: usize = 1 + PICTURE_BYTES;
const CLASSES: u8 = 10;
/// The folder inside the archive that the data comes in.
const ARCHIVE_FOLDER: &str = "cifar-10-batches-bin";
/// The names of the classes, a line each.
const NAMES: &str = "batches.meta.txt";

/// Reads the training files that are there, in their order, or the test file.
pub fn open(folder: &Path, part: Part) -> Result<Pictures> {
    let (folder, names) = (inside(folder), names(part));
    let files: Vec<PathBuf> = names.iter().map(|n| folder.join(n)).filter(|p| p.is_file()).collect();
    if files.is_empty() {
        let message = format!("expected CIFAR-10's binary files (`{}`) in this folder", names[0]);
        return Err(Error::format(&folder, message));
    }
    let (mut labels, mut pixels) = (vec![], vec![]);
    for path in &files {
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        parse(&bytes, &mut labels, &mut pixels).map_err(|e| Error::format(path, e))?;
    }
    Pictures::new(SHAPE, pixels, labels, class_names(&folder))
}

/// Whether files of a part are there.
pub fn has(folder: &Path, part: Part) -> bool {
    let folder = inside(folder);
    names(part).iter().any(|n| folder.join(n).is_file())
}

/// The folder with the files: this one, or that of the archive in it.
fn inside(folder: &Path) -> PathBuf {
    let inner = folder.join(ARCHIVE_FOLDER);
    if inner.is_dir() { inner } else { folder.to_path_buf() }
}

fn names(part: Part) -> Vec<String> {
    match part {
        Part::Train => (1..=5).map(|i| format!("data_batch_{i}.bin")).collect(),
        Part::Test => vec!["test_batch.bin".into()],
    }
}

/// Appends the records of a file.
fn parse(bytes: &[u8], labels: &mut Vec<i32>, pixels: &mut Vec<u8>) -> Result<(), String> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD_BYTES) {
        let found = bytes.len();
        return Err(format!(
            "cut off or damaged: expected records of {RECORD_BYTES} bytes, found {found} bytes"
        ));
    }
    for (i, record) in bytes.chunks_exact(RECORD_BYTES).enumerate() {
        if record[0] >= CLASSES {
            return Err(format!("record {i} has the label {}: expected 0 to {}", record[0], CLASSES - 1));
        }
        labels.push(i32::from(record[0]));
        pixels.extend_from_slice(&record[1..]);
    }
    Ok(())
}

/// The names, or none where they are not ten.
fn class_names(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(NAMES)).unwrap_or_default();
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect();
    if names.len() == usize::from(CLASSES) { names } else { vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Dataset;

    fn record(label: u8, value: u8) -> Vec<u8> {
        let mut out = vec![label];
        out.extend((0..PICTURE_BYTES).map(|i| value.wrapping_add((i / 1024) as u8)));
        out
    }

    #[test]
    fn files_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join(ARCHIVE_FOLDER);
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("data_batch_2.bin"), record(9, 40)).unwrap();
        std::fs::write(inside.join("data_batch_1.bin"), [record(1, 10), record(2, 20)].concat()).unwrap();
        std::fs::write(inside.join("test_batch.bin"), record(3, 30)).unwrap();
        let train = open(folder.path(), Part::Train).unwrap();
        assert_eq!((train.len(), train.shape()), (3, &[3, 32, 32][..]));
        assert_eq!((0..3).map(|i| train.label(i)).collect::<Vec<_>>(), [1, 2, 9]);
        assert_eq!([0, 1024, 2048].map(|i| train.pixels(2)[i]), [40, 41, 42], "planes");
        assert_eq!(open(folder.path(), Part::Test).unwrap().label(0), 3);
    }

    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let e = open(folder.path(), Part::Train).unwrap_err().to_string();
        assert!(e.contains("expected CIFAR-10's binary files (`data_batch_1.bin`)"), "{e}");
        let complaint = |bytes: &[u8]| parse(bytes, &mut vec![], &mut vec![]).unwrap_err();
        assert!(complaint(&record(1, 1)[..3000]).starts_with("cut off or damaged"));
        assert!(complaint(&[]).contains("found 0 bytes"));
        let wrong = [record(1, 1), record(10, 1)].concat();
        assert_eq!(complaint(&wrong), "record 1 has the label 10: expected 0 to 9");
    }
}
