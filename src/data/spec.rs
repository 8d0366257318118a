//! Where a data set lies, as written on the command line: `mnist:DIR`, `cifar10:DIR`, `folder:DIR`,
//! `npz:FILE`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::Error;
use crate::data::dataset::{Dataset, Part};
use crate::data::folder::{self, Bad};
use crate::data::{cifar, idx, npz};
use crate::error::Result;

/// The kinds of data sets, and how each is written.
const KINDS: [(&str, Kind); 4] = [
    ("mnist:DIR", Kind::Idx),
    ("cifar10:DIR", Kind::Cifar10),
    ("folder:DIR", Kind::Folder),
    ("npz:FILE", Kind::Npz),
];

/// How the examples are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The idx files of MNIST and its relatives: [`idx`].
    Idx,
    /// CIFAR-10's binary files: [`cifar`].
    Cifar10,
    /// A folder of pictures for each class: [`folder`].
    Folder,
    /// Arrays of NumPy: [`npz`].
    Npz,
}

/// Kind and place of a data set.
///
/// ```
/// use nnc::data::spec::{DataSpec, Kind};
/// let spec: DataSpec = "mnist:tests/data/mnist".parse().unwrap();
/// assert_eq!(spec.kind, Kind::Idx);
/// assert!("minst:tests".parse::<DataSpec>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSpec {
    /// How the examples are stored.
    pub kind: Kind,
    /// The file or folder.
    pub path: PathBuf,
}

/// A part of a data set.
pub struct Opened {
    /// The examples; at least one.
    pub set: Arc<dyn Dataset>,
    /// Pictures that were left out because they could not be decoded: why, a line each.
    pub skipped: Vec<String>,
}

impl DataSpec {
    /// Opens a part. `expected` is the shape of an example that the network takes, without the batch;
    /// a size that it leaves open is `None`. Another shape of the examples is an error.
    pub fn open(&self, part: Part, expected: &[Option<usize>], bad: Bad) -> Result<Opened> {
        let known: Option<Vec<usize>> = expected.iter().copied().collect();
        let opened = match self.kind {
            Kind::Idx => Opened { set: Arc::new(idx::open(&self.path, part)?), skipped: vec![] },
            Kind::Cifar10 => Opened { set: Arc::new(cifar::open(&self.path, part)?), skipped: vec![] },
            Kind::Folder => {
                let shape = known.as_deref().and_then(|s| <[usize; 3]>::try_from(s).ok());
                let Some(shape) = shape else {
                    let message =
                        "a folder of pictures needs an input of known size f32[N, channels, height, width]";
                    return Err(Error::Input(message.into()));
                };
                let folder::Opened { pictures, skipped } = folder::open(&self.path, part, shape, bad)?;
                Opened { set: Arc::new(pictures), skipped }
            }
            Kind::Npz => {
                let shape: Vec<usize> = expected.iter().map(|d| d.unwrap_or(0)).collect();
                Opened { set: Arc::new(npz::open(&self.path, part, &shape)?), skipped: vec![] }
            }
        };
        let shape = opened.set.shape();
        let fits = shape.len() == expected.len()
            && shape.iter().zip(expected).all(|(n, e)| e.is_none_or(|size| size == *n));
        if fits {
            return Ok(opened);
        }
        let open = |d: &Option<usize>| d.map_or("_".to_string(), |n| n.to_string());
        let wanted: Vec<String> = expected.iter().map(open).collect();
        let message = format!("expected examples of shape [{}], found {shape:?}", wanted.join(", "));
        Err(Error::format(&self.path, message))
    }
}

impl DataSpec {
    /// Whether a part is there, as far as the names of files tell.
    pub fn has(&self, part: Part) -> bool {
        match self.kind {
            Kind::Idx => idx::has(&self.path, part),
            Kind::Cifar10 => cifar::has(&self.path, part),
            Kind::Folder => folder::has(&self.path, part),
            Kind::Npz => npz::has(&self.path, part),
        }
    }
}

impl FromStr for DataSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<DataSpec, String> {
        let found = text.split_once(':').filter(|(_, path)| !path.is_empty()).and_then(|(kind, path)| {
            let (_, kind) = KINDS.iter().find(|(usage, _)| usage.split(':').next() == Some(kind))?;
            Some(DataSpec { kind: *kind, path: path.into() })
        });
        let usages = KINDS.map(|(usage, _)| usage);
        found.ok_or_else(|| format!("expected {} or {}", usages[..3].join(", "), usages[3]))
    }
}

impl fmt::Display for DataSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or("", |(usage, _)| usage);
        write!(f, "{}:{}", usage.split(':').next().unwrap_or_default(), self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_round_trip() {
        for text in ["mnist:a/b", "cifar10:c", "folder:d:e", "npz:f.npz"] {
            assert_eq!(text.parse::<DataSpec>().unwrap().to_string(), text);
        }
        for text in ["mnist", "mnist:", "minst:a", ":a"] {
            assert_eq!(
                text.parse::<DataSpec>().unwrap_err(),
                "expected mnist:DIR, cifar10:DIR, folder:DIR or npz:FILE"
            );
        }
    }

    #[test]
    fn examples_of_another_shape_are_refused() {
        let spec: DataSpec =
            concat!("mnist:", env!("CARGO_MANIFEST_DIR"), "/tests/data/mnist").parse().unwrap();
        let open = |expected: &[Option<usize>]| spec.open(Part::Train, expected, Bad::Refuse);
        assert!(spec.has(Part::Train) && !spec.has(Part::Test));
        let opened = open(&[Some(1), None, Some(28)]).unwrap();
        assert_eq!((opened.set.len(), opened.set.shape()), (1000, &[1, 28, 28][..]));
        for expected in [&[Some(3), None, Some(32)][..], &[Some(784)]] {
            let e = open(expected).map(|_| ()).unwrap_err().to_string();
            assert!(e.contains("expected examples of shape [") && e.ends_with("found [1, 28, 28]"), "{e}");
        }
    }
}
