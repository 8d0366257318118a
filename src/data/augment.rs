//! What is done to an example on its way into a batch: random crop and flip, then normalisation.
//!
//! What is random depends on the seed, the epoch and the example's number alone.

use nnc_runtime::init::Stream;

use crate::Error;
use crate::data::dataset::{Dataset, below};
use crate::error::Result;

/// `(x - mean) / std`, a channel each, or one for all.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Normalize {
    /// Means and standard deviations, as many of each, none of the latter 0.
    pub fn new(mean: Vec<f32>, std: Vec<f32>) -> Result<Normalize> {
        let usable = |v: &[f32]| v.iter().all(|x| x.is_finite());
        if mean.is_empty() || mean.len() != std.len() || !usable(&mean) || !usable(&std) {
            return Err(Error::Options("expected as many means as standard deviations".into()));
        }
        if std.iter().any(|&s| s <= 0.0) {
            return Err(Error::Options("a standard deviation must be more than 0".into()));
        }
        Ok(Normalize { mean, std })
    }

    /// The mean and standard deviation of each channel (the first dimension of an example) over a whole
    /// set, summed in f64; a channel that is always the same keeps its scale.
    pub fn measure(set: &dyn Dataset) -> Result<Normalize> {
        let size: usize = set.shape().iter().product();
        let channels = if set.shape().len() < 2 { 1 } else { set.shape()[0] };
        let plane = size.checked_div(channels).unwrap_or(0);
        if plane == 0 || set.is_empty() {
            return Err(Error::Input("cannot normalise examples without values".into()));
        }
        let (mut sums, mut squares) = (vec![0f64; channels], vec![0f64; channels]);
        let mut x = vec![0f32; size];
        for i in 0..set.len() {
            set.read(i, &mut x);
            for (c, values) in x.chunks_exact(plane).enumerate() {
                sums[c] += values.iter().map(|&v| f64::from(v)).sum::<f64>();
                squares[c] += values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
            }
        }
        let n = (set.len() * plane) as f64;
        let std = |c: usize| (squares[c] / n - (sums[c] / n).powi(2)).max(0.0).sqrt();
        Normalize::new(
            sums.iter().map(|s| (s / n) as f32).collect(),
            (0..channels).map(|c| if std(c) < 1e-6 { 1.0 } else { std(c) as f32 }).collect(),
        )
    }

    /// Complains where the number of channels is another.
    pub fn check(&self, shape: &[usize]) -> Result<()> {
        let channels = shape.first().copied().unwrap_or(1);
        if self.mean.len() == 1 || self.mean.len() == channels {
            return Ok(());
        }
        let n = self.mean.len();
        Err(Error::Options(format!("{n} means and standard deviations for examples of {channels} channels")))
    }

    fn apply(&self, x: &mut [f32]) {
        let plane = (x.len() / self.mean.len()).max(1);
        for (values, (mean, std)) in x.chunks_exact_mut(plane).zip(self.mean.iter().zip(&self.std)) {
            values.iter_mut().for_each(|v| *v = (*v - mean) / std);
        }
    }
}

impl std::str::FromStr for Normalize {
    type Err = String;

    /// `0.1307:0.3081`, or a list for each channel: `0.49,0.48,0.45:0.25,0.24,0.26`.
    fn from_str(text: &str) -> Result<Normalize, String> {
        let list = |s: &str| s.split(',').map(|v| v.trim().parse()).collect::<Result<Vec<f32>, _>>().ok();
        let parts = text.split_once(':').and_then(|(mean, std)| Some((list(mean)?, list(std)?)));
        let (mean, std) = parts.ok_or("expected MEAN:STD, such as 0.1307:0.3081")?;
        Normalize::new(mean, std).map_err(|e| e.to_string())
    }
}

impl std::fmt::Display for Normalize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |v: &[f32]| v.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
        write!(f, "{}:{}", list(&self.mean), list(&self.std))
    }
}

/// Random changes of pictures `[channels, height, width]` that leave their class as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// The picture is moved by up to so many pixels in each direction; what comes in from outside is 0.
    /// (The picture padded on every side, and cropped to its size at a random place.)
    pub crop: usize,
    /// Half of the pictures are mirrored, left to right.
    pub flip: bool,
}

impl Augment {
    /// True if it changes nothing.
    pub fn is_identity(self) -> bool {
        self == Augment::default()
    }

    /// Changes example number `index` in place.
    fn apply(self, x: &mut [f32], shape: &[usize], seed: u64, epoch: u64, index: usize) {
        let &[_, height, width] = shape else { return };
        if self.is_identity() || height * width == 0 {
            return;
        }
        let stream = Stream::new(seed, &format!("augmentation of epoch {epoch}"));
        let [a, b] = [0, 1].map(|i| stream.block(2 * index as u64 + i));
        let shifts = 2 * self.crop + 1;
        let (down, right) = (below(shifts, a), below(shifts, [a[2], a[3], 0, 0]));
        let mirrored = self.flip && b[0] & 1 == 1;
        let mut before = vec![0.0; width * height];
        for plane in x.chunks_exact_mut(height * width) {
            before.copy_from_slice(plane);
            for (i, v) in plane.iter_mut().enumerate() {
                let (row, column) = (i / width, i % width);
                let column = if mirrored { width - 1 - column } else { column };
                let source = (row + down).checked_sub(self.crop).zip((column + right).checked_sub(self.crop));
                *v = match source {
                    Some((r, c)) if r < height && c < width => before[r * width + c],
                    _ => 0.0,
                };
            }
        }
    }
}

/// Everything that is done to an example.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transform {
    /// Random changes; for training only.
    pub augment: Augment,
    /// Of what is random.
    pub seed: u64,
    /// From 0.
    pub epoch: u64,
    /// The last step.
    pub normalize: Option<Normalize>,
}

impl Transform {
    /// Reads an example of a set and transforms it.
    pub fn read(&self, set: &dyn Dataset, index: usize, to: &mut [f32]) {
        set.read(index, to);
        self.augment.apply(to, set.shape(), self.seed, self.epoch, index);
        if let Some(normalize) = &self.normalize {
            normalize.apply(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pictures::Pictures;

    /// Two channels of 3 by 3 whose values are all different.
    fn set(n: usize) -> Pictures {
        Pictures::new([2, 3, 3], (0..18 * n).map(|i| (1 + i % 18) as u8).collect(), vec![0; n], vec![])
            .unwrap()
    }

    fn read(t: &Transform, index: usize) -> Vec<i32> {
        let mut x = [0.0; 18];
        t.read(&set(200), index, &mut x);
        x.iter().map(|v| (v * 255.0).round() as i32).collect()
    }

    #[test]
    fn crops_move_and_flips_mirror() {
        let t = Transform { augment: Augment { crop: 1, flip: true }, seed: 3, ..Transform::default() };
        let mut seen = std::collections::BTreeMap::<Vec<i32>, usize>::new();
        for i in 0..200 {
            let x = read(&t, i);
            assert!(x[..9].iter().zip(&x[9..]).all(|(a, b)| (*a == 0 && *b == 0) || a + 9 == *b), "{x:?}");
            *seen.entry(x[..9].to_vec()).or_default() += 1;
        }
        assert_eq!(seen.len(), 18, "9 places, 2 directions");
        for expected in
            [[1, 2, 3, 4, 5, 6, 7, 8, 9], [3, 2, 1, 6, 5, 4, 9, 8, 7], [0, 0, 0, 0, 1, 2, 0, 4, 5]]
        {
            assert!(seen.contains_key(expected.as_slice()), "{expected:?}");
        }
        assert_eq!(read(&t, 5), read(&t, 5));
        let other = Transform { epoch: 1, ..t.clone() };
        assert!((0..20).any(|i| read(&t, i) != read(&other, i)), "every epoch has its own");
    }

    #[test]
    fn channels_are_normalised() {
        let set = set(1);
        let n = Normalize::measure(&set).unwrap();
        let t = Transform { normalize: Some(n.clone()), ..Transform::default() };
        let mut x = [0.0; 18];
        t.read(&set, 0, &mut x);
        for plane in x.chunks(9) {
            let mean: f32 = plane.iter().sum::<f32>() / 9.0;
            let variance: f32 = plane.iter().map(|v| v * v).sum::<f32>() / 9.0;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "{mean} {variance}");
        }
        assert_eq!(n.to_string().parse::<Normalize>().unwrap(), n);
        assert!(n.check(&[3, 8, 8]).is_err() && n.check(&[2, 8, 8]).is_ok());
    }

    #[test]
    fn wrong_normalisations_are_refused() {
        for text in ["", "1", "1:0", "1,2:1", "x:y", "1:nan", "1:-2"] {
            assert!(text.parse::<Normalize>().is_err(), "{text}");
        }
        let flat = Pictures::new([1, 1, 1], vec![255; 4], vec![0; 4], vec![]).unwrap();
        assert_eq!(Normalize::measure(&flat).unwrap().to_string(), "1:1");
    }
}
