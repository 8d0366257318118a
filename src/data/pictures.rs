//! Labelled pictures in memory, a byte a value: what MNIST, CIFAR-10 and folders of pictures become.

use crate::Error;
use crate::data::dataset::Dataset;
use crate::error::Result;

/// Pictures of one size with a class each. As examples their values are 0 to 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pictures {
    shape: [usize; 3],
    pixels: Vec<u8>,
    labels: Vec<i32>,
    class_names: Vec<String>,
}

impl Pictures {
    /// Pictures of shape `[channels, height, width]`, one after the other, each row-major; a label
    /// each; the names of the classes or nothing.
    pub fn new(
        shape: [usize; 3],
        pixels: Vec<u8>,
        labels: Vec<i32>,
        class_names: Vec<String>,
    ) -> Result<Pictures> {
        let expected = shape.iter().try_fold(labels.len(), |n, &d| n.checked_mul(d));
        if expected != Some(pixels.len()) {
            let (n, found) = (labels.len(), pixels.len());
            return Err(Error::Input(format!("expected {n} pictures of {shape:?}, found {found} values")));
        }
        Ok(Pictures { shape, pixels, labels, class_names })
    }

    /// The values of a picture, 0 to 255, row-major.
    pub fn pixels(&self, index: usize) -> &[u8] {
        let size: usize = self.shape.iter().product();
        &self.pixels[index * size..][..size]
    }
}

impl Dataset for Pictures {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn label(&self, index: usize) -> i32 {
        self.labels[index]
    }

    fn read(&self, index: usize, to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(self.pixels(index)) {
            *to = f32::from(from) / 255.0;
        }
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_scaled_to_one() {
        let set = Pictures::new([1, 1, 2], vec![0, 255, 51, 0], vec![3, 4], vec![]).unwrap();
        let mut x = [9.0; 2];
        set.read(1, &mut x);
        assert_eq!((x, set.label(1)), ([0.2, 0.0], 4));
    }

    #[test]
    fn sizes_must_agree() {
        let e = Pictures::new([1, 2, 2], vec![0; 7], vec![3, 4], vec![]).unwrap_err().to_string();
        assert_eq!(e, "expected 2 pictures of [1, 2, 2], found 7 values");
        assert!(Pictures::new([usize::MAX, 2, 2], vec![], vec![3, 4], vec![]).is_err());
    }
}
