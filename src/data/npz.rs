//! Arrays of examples and labels in NumPy's `.npz` (a zip archive of `.npy` files).
//!
//! Examples are called `x` and labels `y`, or, for the two parts of a data set (as Keras packs
//! them), `x_train`, `y_train`, `x_test`, `y_test`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ndarray::ArrayD;
use zip::ZipArchive;

use super::npy;
use crate::data::dataset::{Dataset, Part};
use crate::error::Result;
use crate::{DType, Error, Tensor};

/// An array in an archive may have this many bytes, unpacked.
const MAX_BYTES: u64 = 8 << 30;

/// Examples as numbers, with a class each.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrays {
    examples: ArrayD<f32>,
    labels: Vec<i32>,
}

impl Arrays {
    /// Examples along the first axis, and the label of each. The others are an example's shape; where
    /// that has the rank of `expected` less its channels (grey pictures `[height, width]`), they are 1.
    pub fn new(examples: ArrayD<f32>, labels: Vec<i32>, expected: &[usize]) -> Result<Arrays, String> {
        let n = examples.shape().first().copied().unwrap_or(0);
        if n != labels.len() {
            return Err(format!("it holds {n} examples, but {} labels", labels.len()));
        }
        if examples.is_empty() {
            return Err("it holds no examples".into());
        }
        let grey = examples.ndim() == expected.len() && expected.len() == 3 && expected[0] == 1;
        let examples = if grey { examples.insert_axis(ndarray::Axis(1)) } else { examples };
        let examples =
            if examples.is_standard_layout() { examples } else { examples.as_standard_layout().into_owned() };
        Ok(Arrays { examples, labels })
    }
}

impl Dataset for Arrays {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> &[usize] {
        &self.examples.shape()[1..]
    }

    fn label(&self, index: usize) -> i32 {
        self.labels[index]
    }

    fn read(&self, index: usize, to: &mut [f32]) {
        let all = self.examples.as_slice().unwrap_or_default();
        to.copy_from_slice(&all[index * to.len()..][..to.len()]);
    }
}

/// Reads a part. Examples of unsigned bytes are scaled to 0 to 1, as pictures are; other numbers
/// stay as they are. `expected` is the shape of an example that the network takes.
pub fn open(path: &Path, part: Part, expected: &[usize]) -> Result<Arrays> {
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let read = || {
        let mut zip = ZipArchive::new(file).map_err(|e| format!("not a .npz file, or damaged: {e}"))?;
        let (x, y) = (find(&zip, "x", part)?, find(&zip, "y", part)?);
        let bytes = member(&mut zip, &x)?;
        let said = |name: &str, e: String| format!("`{name}`: {e}");
        let examples = match npy::parse(&bytes, DType::F32).map_err(|e| said(&x, e))? {
            Tensor::F32(a) if npy::is_bytes(&bytes) => a / 255.0,
            Tensor::F32(a) => a,
            _ => return Err("its examples are not numbers".into()),
        };
        let labels = match npy::parse(&member(&mut zip, &y)?, DType::I32).map_err(|e| said(&y, e))? {
            Tensor::I32(a) => a.into_iter().collect(),
            _ => return Err("its labels are not integers".into()),
        };
        Arrays::new(examples, labels, expected)
    };
    read().map_err(|message: String| Error::format(path, message))
}

/// Whether the arrays of a part are there.
pub fn has(path: &Path, part: Part) -> bool {
    let zip = File::open(path).ok().and_then(|file| ZipArchive::new(file).ok());
    zip.is_some_and(|zip| find(&zip, "x", part).is_ok() && find(&zip, "y", part).is_ok())
}

/// The member with an array of a part.
fn find<R: Read + std::io::Seek>(zip: &ZipArchive<R>, array: &str, part: Part) -> Result<String, String> {
    let part = match part {
        Part::Train => "train",
        Part::Test => "test",
    };
    let wanted = format!("{array}_{part}.npy");
    let alone = format!("{array}.npy");
    let names: Vec<String> = zip.file_names().flatten().map(String::from).collect();
    let has = |name: &str| names.iter().any(|n| n == name);
    match (has(&wanted), has(&alone), part) {
        (true, ..) => Ok(wanted),
        (false, true, "train") => Ok(alone),
        _ => {
            let mut found: Vec<&str> = names.iter().map(|n| n.trim_end_matches(".npy")).collect();
            found.sort_unstable();
            let or = if part == "train" { format!(" or `{array}`") } else { String::new() };
            Err(format!("expected an array `{array}_{part}`{or}, found {}", found.join(", ")))
        }
    }
}

fn member<R: Read + std::io::Seek>(zip: &mut ZipArchive<R>, name: &str) -> Result<Vec<u8>, String> {
    let file = zip.by_name(name).map_err(|e| format!("`{name}`: {e}"))?;
    let mut bytes = vec![];
    // What the archive says of the size is not believed.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| format!("`{name}` is damaged: {e}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("`{name}` is too large: more than {MAX_BYTES} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, Array3};
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    fn archive(members: &[(&str, Vec<u8>)]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut zip = zip::ZipWriter::new(&mut file);
        for (i, (name, bytes)) in members.iter().enumerate() {
            let method = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated][i % 2];
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        file
    }

    fn npy_of(t: impl Into<Tensor>) -> Vec<u8> {
        npy::to_bytes(&t.into())
    }

    fn bytes_npy(shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn parts_of_a_keras_archive() {
        let file = archive(&[
            ("x_train.npy", bytes_npy("2, 1, 2", &[0, 255, 51, 0])),
            ("y_train.npy", npy_of(Array1::from(vec![3, 4]))),
            ("x_test.npy", npy_of(Array3::from_elem((1, 1, 2), 7.5f32))),
            ("y_test.npy", npy_of(Array1::from(vec![1]))),
        ]);
        let train = open(file.path(), Part::Train, &[1, 1, 2]).unwrap();
        assert_eq!((train.len(), train.shape(), train.label(1)), (2, &[1, 1, 2][..], 4));
        let mut x = [0.0; 2];
        train.read(1, &mut x);
        assert_eq!(x, [0.2, 0.0], "bytes are scaled");
        let test = open(file.path(), Part::Test, &[1, 2]).unwrap();
        test.read(0, &mut x);
        assert_eq!((x, test.shape()), ([7.5; 2], &[1, 2][..]), "floats are not");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let x = || npy_of(Array3::from_elem((2, 1, 2), 0f32));
        let complaint = |members: &[(&str, Vec<u8>)]| {
            let file = archive(members);
            let text = open(file.path(), Part::Train, &[1, 1, 2]).unwrap_err().to_string();
            text.split_once("`: ").unwrap().1.to_string()
        };
        assert_eq!(complaint(&[("images.npy", x())]), "expected an array `x_train` or `x`, found images");
        let two = npy_of(Array1::from(vec![1, 2, 3]));
        assert_eq!(complaint(&[("x.npy", x()), ("y.npy", two)]), "it holds 2 examples, but 3 labels");
        let floats = npy_of(Array1::from(vec![1f32, 2.0]));
        assert_eq!(
            complaint(&[("x.npy", x()), ("y.npy", floats)]),
            "`y.npy`: expected integers, found floats"
        );
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"PK but no archive").unwrap();
        let e = open(file.path(), Part::Train, &[]).unwrap_err().to_string();
        assert!(e.contains("not a .npz file, or damaged"), "{e}");
    }
}
