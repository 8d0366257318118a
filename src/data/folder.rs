//! A folder of pictures by class: `cat/1.png`, `cat/2.jpg`, `dog/…`. Classes are numbered in the
//! order of their names; `train/` and `test/` (or `val/`) folders around them are the parts.
//!
//! All pictures are decoded once, brought to the size that the network takes (stretched where they
//! have another) and kept in memory as bytes.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::data::dataset::Part;
use crate::data::image::Picture;
use crate::data::pictures::Pictures;
use crate::error::Result;

/// Files that count as pictures.
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];
/// Decoded pictures may take this much memory.
const MAX_BYTES: usize = 8 << 30;
/// As many bad pictures are named in a message.
const NAMED: usize = 5;

/// What is done with a picture that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It is an error.
    Refuse,
    /// It is left out and reported.
    Skip,
}

/// Pictures, and which files were left out, with the reason.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The pictures.
    pub pictures: Pictures,
    /// What could not be decoded.
    pub skipped: Vec<String>,
}

/// Reads the pictures of a part as `[channels, height, width]`, `channels` being 1 or 3. Without
/// folders for the parts, everything is the training part.
pub fn open(folder: &Path, part: Part, shape: [usize; 3], bad: Bad) -> Result<Opened> {
    if shape[0] != 1 && shape[0] != 3 {
        return Err(Error::Input(format!("a picture has 1 or 3 channels; the input has {}", shape[0])));
    }
    let folder = part_of(folder, part)?;
    let (classes, files) = list(&folder)?;
    let bytes = shape.iter().try_fold(files.len(), |n, &d| n.checked_mul(d));
    if bytes.is_none_or(|n| n > MAX_BYTES) {
        let message = format!(
            "{} pictures of {}x{} pixels take more memory than {MAX_BYTES} bytes",
            files.len(),
            shape[2],
            shape[1]
        );
        return Err(Error::format(&folder, message));
    }
    let (mut pixels, mut labels, mut skipped) = (vec![], vec![], vec![]);
    for ((_, label), decoded) in files.iter().zip(decode_all(&files, shape)) {
        match decoded {
            Ok(picture) => {
                pixels.extend(picture);
                labels.push(*label);
            }
            Err(reason) => skipped.push(reason.to_string()),
        }
    }
    if !skipped.is_empty() && bad == Bad::Refuse {
        return Err(Error::format(&folder, complaint(&skipped)));
    }
    if labels.is_empty() {
        return Err(Error::format(&folder, "holds no picture that can be decoded"));
    }
    Ok(Opened { pictures: Pictures::new(shape, pixels, labels, classes)?, skipped })
}

/// Whether a part is there.
pub fn has(folder: &Path, part: Part) -> bool {
    part_of(folder, part).is_ok_and(|p| p.is_dir())
}

/// What to say of pictures that could not be decoded.
fn complaint(skipped: &[String]) -> String {
    let n = skipped.len();
    let mut text = format!("{n} picture{} cannot be decoded:", if n == 1 { "" } else { "s" });
    for line in skipped.iter().take(NAMED) {
        text.push_str(&format!("\n  {line}"));
    }
    if n > NAMED {
        text.push_str(&format!("\n  and {} more", n - NAMED));
    }
    text
}

/// A picture and the number of its class.
type File = (PathBuf, i32);

fn part_of(folder: &Path, part: Part) -> Result<PathBuf> {
    let inner = |names: &[&str]| names.iter().map(|n| folder.join(n)).find(|p| p.is_dir());
    match (part, inner(&["train"]), inner(&["test", "val"])) {
        (Part::Train, Some(train), _) => Ok(train),
        (Part::Test, _, Some(test)) => Ok(test),
        (Part::Train, None, None) => Ok(folder.to_path_buf()),
        (Part::Train, None, Some(_)) => Err(Error::format(folder, "expected a folder `train` in it")),
        (Part::Test, ..) => Err(Error::format(folder, "expected a folder `test` or `val` in it")),
    }
}

/// The names of the classes, and every picture with the number of its class, in order.
fn list(folder: &Path) -> Result<(Vec<String>, Vec<File>)> {
    let mut classes = entries(folder)?;
    classes.retain(|p| p.is_dir());
    if classes.is_empty() {
        return Err(Error::format(folder, "expected a folder of pictures for each class in it"));
    }
    let mut files = vec![];
    for (label, class) in classes.iter().enumerate() {
        let before = files.len();
        let pictures = entries(class)?.into_iter().filter(|p| is_picture(p));
        files.extend(pictures.map(|p| (p, label as i32)));
        if files.len() == before {
            return Err(Error::format(class, "holds no pictures (.png, .jpg)"));
        }
    }
    let name = |p: &PathBuf| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((classes.iter().map(name).collect(), files))
}

/// What is in a folder, by name, without hidden files.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e| Error::io("read", folder, e);
    let mut out = vec![];
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            out.push(entry.path());
        }
    }
    out.sort();
    Ok(out)
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    EXTENSIONS.iter().any(|e| extension.eq_ignore_ascii_case(e)) && path.is_file()
}

/// Decodes all pictures, on every core; the results are in the files' order.
fn decode_all(files: &[File], shape: [usize; 3]) -> Vec<Result<Vec<u8>>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let part = files.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let work = |files: &[File]| -> Vec<_> {
            files.iter().map(|(path, _)| Ok(Picture::open(path)?.planes(shape))).collect()
        };
        let running: Vec<_> = files.chunks(part).map(|files| scope.spawn(move || work(files))).collect();
        let died = || vec![Err(Error::Internal("decoding a picture panicked".into()))];
        running.into_iter().flat_map(|t| t.join().unwrap_or_else(|_| died())).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Dataset;

    fn picture(path: PathBuf, size: u32, value: u8) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(size, size, image::Rgb([value, 0, 255])).save(path).unwrap();
    }

    fn animals(root: &Path) {
        picture(root.join("dog/2.png"), 4, 20);
        picture(root.join("dog/1.png"), 4, 10);
        picture(root.join("cat/a.png"), 8, 30);
        std::fs::write(root.join("cat/notes.txt"), "no picture").unwrap();
        std::fs::write(root.join(".hidden"), "").unwrap();
    }

    #[test]
    fn classes_and_pictures_come_by_name() {
        let folder = tempfile::tempdir().unwrap();
        animals(folder.path());
        let set = open(folder.path(), Part::Train, [3, 4, 4], Bad::Refuse).unwrap().pictures;
        assert_eq!(set.class_names(), ["cat", "dog"]);
        let seen: Vec<(i32, u8, u8)> =
            (0..set.len()).map(|i| (set.label(i), set.pixels(i)[0], set.pixels(i)[47])).collect();
        assert_eq!(seen, [(0, 30, 255), (1, 10, 255), (1, 20, 255)]);
        let e = open(folder.path(), Part::Test, [3, 4, 4], Bad::Refuse).unwrap_err().to_string();
        assert!(e.contains("expected a folder `test` or `val` in it"), "{e}");
    }

    #[test]
    fn parts_have_folders() {
        let folder = tempfile::tempdir().unwrap();
        animals(&folder.path().join("train"));
        picture(folder.path().join("test/cat/1.png"), 4, 99);
        let part = |part| open(folder.path(), part, [1, 4, 4], Bad::Refuse).unwrap().pictures;
        assert_eq!((part(Part::Train).len(), part(Part::Test).len()), (3, 1));
    }

    #[test]
    fn bad_pictures_are_named_and_may_be_skipped() {
        let folder = tempfile::tempdir().unwrap();
        animals(folder.path());
        let whole = std::fs::read(folder.path().join("dog/1.png")).unwrap();
        std::fs::write(folder.path().join("dog/1.png"), &whole[..whole.len() / 2]).unwrap();
        std::fs::write(folder.path().join("cat/b.jpg"), "").unwrap();
        let e = open(folder.path(), Part::Train, [3, 4, 4], Bad::Refuse).unwrap_err().to_string();
        assert!(e.contains("2 pictures cannot be decoded:"), "{e}");
        assert!(e.contains("1.png") && e.contains("b.jpg"), "{e}");
        let opened = open(folder.path(), Part::Train, [3, 4, 4], Bad::Skip).unwrap();
        assert_eq!((opened.pictures.len(), opened.skipped.len()), (2, 2));
        assert_eq!((opened.pictures.label(0), opened.pictures.label(1)), (0, 1));
    }

    #[test]
    fn empty_folders_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let complaint = || open(folder.path(), Part::Train, [3, 4, 4], Bad::Skip).unwrap_err().to_string();
        assert!(complaint().contains("expected a folder of pictures for each class"));
        std::fs::create_dir(folder.path().join("cat")).unwrap();
        assert!(complaint().contains("holds no pictures"));
        std::fs::write(folder.path().join("cat/1.png"), "x").unwrap();
        assert!(complaint().contains("holds no picture that can be decoded"));
        assert!(open(folder.path(), Part::Train, [2, 4, 4], Bad::Skip).is_err());
    }
}
