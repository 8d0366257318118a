//! Pictures as network inputs: PNG and JPEG files, with the resize, crop and normalisation that
//! ImageNet and MNIST models expect.
//!
//! A [`Picture`] is decoded 8-bit RGB. [`Preprocess`] turns it into an `f32` tensor `[C, H, W]`.
//! Resizing is Pillow's bilinear filter with antialiasing, bit for bit (8-bit fixed point, rows
//! first, then columns), because that is what torchvision's checkpoints were evaluated with.

use std::path::Path;

use image::{ImageDecoder, ImageReader};
use ndarray::Array3;

use crate::Error;
use crate::error::Result;

/// Pictures wider or higher than this are refused before they are decoded.
pub const MAX_SIDE: u32 = 20_000;
/// Pictures that need more memory than this to decode are refused.
const MAX_DECODE_BYTES: u64 = 1 << 30;
/// ImageNet models see the centre of a picture whose shorter side is this much longer than it:
/// 224 of 256 pixels.
const IMAGENET_CROP: (usize, usize) = (224, 256);
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// A decoded picture: 8-bit RGB, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// `height · width · 3` bytes.
    pub rgb: Vec<u8>,
}

/// How a picture becomes a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preprocess {
    /// torchvision's evaluation transform: shorter side resized to 8/7 of the input's (256 for
    /// 224), centre crop, `(x/255 - mean) / std` a channel. A picture that already has the input's
    /// size is only normalised. Three channels.
    ImageNet,
    /// Grey (or RGB, where the input has three channels), resized to the input's size, `x/255`.
    /// MNIST's models expect white digits on black.
    Mnist,
    /// Grey or RGB values 0 to 255 as they are; the picture must have the input's size.
    None,
}

impl Preprocess {
    /// What an input of that many channels (`None`: any number) most likely expects.
    pub fn guess(channels: Option<usize>) -> Preprocess {
        if channels == Some(3) { Preprocess::ImageNet } else { Preprocess::Mnist }
    }

    /// The picture as `[channels, height, width]`, `channels` being 1 or 3. A side that is `None`
    /// is free: the picture keeps its own.
    pub fn apply(
        self,
        picture: &Picture,
        channels: usize,
        size: (Option<usize>, Option<usize>),
    ) -> Result<Array3<f32>> {
        if channels != 1 && channels != 3 {
            return Err(Error::Input(format!("a picture has 1 or 3 channels; the input has {channels}")));
        }
        let (height, width) = (size.0.unwrap_or(picture.height), size.1.unwrap_or(picture.width));
        let fits = (height, width) == (picture.height, picture.width);
        match self {
            Preprocess::ImageNet if channels != 3 => Err(Error::Input(
                "ImageNet's normalisation is for inputs of 3 channels; this one has 1".into(),
            )),
            Preprocess::ImageNet => {
                let fitted = if fits { picture.clone() } else { picture.resize_and_crop(height, width) };
                let mut x = fitted.to_array(3);
                for (c, mut plane) in x.outer_iter_mut().enumerate() {
                    plane.mapv_inplace(|v| (v / 255.0 - IMAGENET_MEAN[c]) / IMAGENET_STD[c]);
                }
                Ok(x)
            }
            Preprocess::Mnist => {
                let fitted = if fits { picture.clone() } else { picture.resize(height, width) };
                Ok(fitted.to_array(channels).mapv(|v| v / 255.0))
            }
            Preprocess::None if !fits => Err(Error::Input(format!(
                "expected a picture of {width}x{height} pixels, found {}x{}",
                picture.width, picture.height
            ))),
            Preprocess::None => Ok(picture.to_array(channels)),
        }
    }
}

impl Picture {
    /// Reads a PNG or JPEG file, told apart by its content. Transparency is ignored; a camera's
    /// orientation mark is obeyed.
    pub fn open(path: &Path) -> Result<Picture> {
        let fail = |e| Error::io("read", path, e);
        let file = std::io::BufReader::new(std::fs::File::open(path).map_err(fail)?);
        let reader = ImageReader::new(file).with_guessed_format().map_err(fail)?;
        Picture::decode(reader, path)
    }

    /// Decodes a PNG or JPEG file's bytes; `name` is for messages.
    pub fn from_bytes(bytes: &[u8], name: &Path) -> Result<Picture> {
        let reader = ImageReader::new(std::io::Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|e| Error::io("read", name, e))?;
        Picture::decode(reader, name)
    }

    fn decode<R: std::io::BufRead + std::io::Seek>(
        mut reader: ImageReader<R>,
        path: &Path,
    ) -> Result<Picture> {
        let fail = |e: image::ImageError| Error::format(path, format!("the picture cannot be read: {e}"));
        if reader.format().is_none() {
            return Err(Error::format(path, "expected a picture (PNG or JPEG), found something else"));
        }
        // The size is checked here, from the header, so that the message can name it.
        reader.limits(image::Limits::no_limits());
        let mut decoder = reader.into_decoder().map_err(fail)?;
        let (width, height) = decoder.dimensions();
        if width > MAX_SIDE || height > MAX_SIDE || decoder.total_bytes() > MAX_DECODE_BYTES {
            return Err(Error::format(
                path,
                format!("the picture is too large: {width}x{height} pixels, at most {MAX_SIDE}x{MAX_SIDE}"),
            ));
        }
        let mut limits = image::Limits::no_limits();
        limits.max_alloc = Some(2 * MAX_DECODE_BYTES);
        decoder.set_limits(limits).map_err(fail)?;
        let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
        let mut picture = image::DynamicImage::from_decoder(decoder).map_err(fail)?;
        picture.apply_orientation(orientation);
        let rgb = picture.into_rgb8();
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        Ok(Picture { width, height, rgb: rgb.into_raw() })
    }

    /// The picture stretched to that size.
    pub fn resize(&self, height: usize, width: usize) -> Picture {
        let rows = resample(&self.rgb, self.height, self.width, 1, width);
        let rgb = resample(&rows, 1, self.height, width, height);
        Picture { width, height, rgb }
    }

    /// The centre `height` x `width` of the picture, resized so that this is 7/8 of its shorter
    /// side (torchvision's `Resize(256)`, `CenterCrop(224)`).
    pub fn resize_and_crop(&self, height: usize, width: usize) -> Picture {
        let (inner, outer) = IMAGENET_CROP;
        let grown = |side: usize| (side * outer).div_ceil(inner);
        // The scale at which both sides are covered; for a square, that of the shorter side.
        let (tall, wide) = (grown(height), grown(width));
        let (h, w) = if tall * self.width <= wide * self.height {
            (wide * self.height / self.width, wide)
        } else {
            (tall, tall * self.width / self.height)
        };
        self.resize(h.max(height), w.max(width)).crop_centre(height, width)
    }

    fn crop_centre(&self, height: usize, width: usize) -> Picture {
        let (top, left) = (
            half_to_even(self.height.saturating_sub(height)),
            half_to_even(self.width.saturating_sub(width)),
        );
        let mut rgb = Vec::with_capacity(height * width * 3);
        for row in top..top + height {
            let start = (row * self.width + left) * 3;
            rgb.extend_from_slice(&self.rgb[start..start + width * 3]);
        }
        Picture { width, height, rgb }
    }

    /// The bytes of the picture as `[channels, height, width]`, stretched to that size; `channels` is
    /// 1 or 3.
    pub fn planes(&self, [channels, height, width]: [usize; 3]) -> Vec<u8> {
        let values = |p: &Picture| p.to_array(channels).iter().map(|&v| v as u8).collect();
        if (height, width) == (self.height, self.width) {
            values(self)
        } else {
            values(&self.resize(height, width))
        }
    }

    /// The values 0 to 255 as `[channels, height, width]`; one channel is the luma of ITU-R 601-2,
    /// rounded as Pillow does.
    fn to_array(&self, channels: usize) -> Array3<f32> {
        Array3::from_shape_fn((channels, self.height, self.width), |(c, y, x)| {
            let pixel = &self.rgb[(y * self.width + x) * 3..][..3];
            if channels == 3 {
                return f32::from(pixel[c]);
            }
            let [r, g, b] = [0, 1, 2].map(|i| u32::from(pixel[i]));
            ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as f32
        })
    }
}

/// Half of `n`; an odd half rounds to even, as Python's `round` does in torchvision's crop.
fn half_to_even(n: usize) -> usize {
    let half = n / 2;
    if n % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

/// Bits of the fixed-point weights of the filter (Pillow's `PRECISION_BITS`).
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Resamples RGB data `[outer, from, inner, 3]` along its second axis to `to` elements, by Pillow's
/// antialiased triangle filter (`Resample.c`).
fn resample(data: &[u8], outer: usize, from: usize, inner: usize, to: usize) -> Vec<u8> {
    if from == to {
        return data.to_vec();
    }
    let step = inner * 3;
    let mut out = vec![0; outer * to * step];
    for (i, (first, weights)) in filter(from, to).into_iter().enumerate() {
        for o in 0..outer {
            for k in 0..step {
                let mut sum = 1i64 << (PRECISION_BITS - 1);
                for (j, &w) in weights.iter().enumerate() {
                    sum += i64::from(data[(o * from + first + j) * step + k]) * w;
                }
                out[(o * to + i) * step + k] = (sum >> PRECISION_BITS).clamp(0, 255) as u8;
            }
        }
    }
    out
}

/// For each of `to` output elements: the first of the `from` input elements that it sees, and
/// their fixed-point weights.
fn filter(from: usize, to: usize) -> Vec<(usize, Vec<i64>)> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    (0..to)
        .map(|i| {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let triangle = |x: f64| (1.0 - x.abs()).max(0.0);
            let weights: Vec<f64> =
                (first..end).map(|j| triangle((j as f64 - centre + 0.5) / support)).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |w: &f64| (0.5 + w / sum * f64::from(1u32 << PRECISION_BITS)) as i64;
            (first, weights.iter().map(fixed).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture with structure in every channel, the same as in the script that asked Pillow.
    fn pattern(width: usize, height: usize) -> Picture {
        let value = |i: usize| ((i * i * 31 + i * 17) % 251) as u8;
        Picture { width, height, rgb: (0..width * height * 3).map(value).collect() }
    }

    fn checksum(p: &Picture) -> u32 {
        p.rgb.iter().fold(7, |h: u32, &v| h.wrapping_mul(31).wrapping_add(u32::from(v)))
    }

    /// Pillow 13: `Image.fromarray(pattern).resize((w, h), BILINEAR)`.
    #[test]
    fn resizing_equals_pillow() {
        for (from, to, expected) in [
            ((10, 7), (4, 3), PILLOW_10X7_TO_4X3),
            ((10, 7), (23, 16), PILLOW_10X7_TO_23X16),
            ((61, 47), (28, 28), PILLOW_61X47_TO_28X28),
            ((5, 64), (5, 20), PILLOW_5X64_TO_5X20),
        ] {
            let out = pattern(from.0, from.1).resize(to.1, to.0);
            assert_eq!((out.width, out.height), to);
            assert_eq!(checksum(&out), expected, "{from:?} -> {to:?}");
        }
    }

    /// torchvision: `Compose([Resize(256), CenterCrop(224)])` of a Pillow image.
    #[test]
    fn resize_and_crop_equals_torchvision() {
        for ((w, h), expected) in [((301, 417), TORCHVISION_301X417), ((500, 333), TORCHVISION_500X333)] {
            assert_eq!(checksum(&pattern(w, h).resize_and_crop(224, 224)), expected, "{w}x{h}");
        }
    }

    #[test]
    fn a_picture_of_the_inputs_size_is_not_resized() {
        let p = pattern(8, 8);
        let x = Preprocess::ImageNet.apply(&p, 3, (Some(8), Some(8))).unwrap();
        assert_eq!(x[[1, 0, 0]], (f32::from(p.rgb[1]) / 255.0 - 0.456) / 0.224);
        assert_eq!(Preprocess::None.apply(&p, 3, (None, None)).unwrap()[[2, 7, 7]], f32::from(p.rgb[191]));
    }

    #[test]
    fn wrong_sizes_and_channels_are_errors() {
        let p = pattern(8, 8);
        assert!(Preprocess::None.apply(&p, 3, (Some(9), None)).is_err());
        assert!(Preprocess::Mnist.apply(&p, 4, (None, None)).is_err());
        assert!(Preprocess::ImageNet.apply(&p, 1, (None, None)).is_err());
    }

    const PILLOW_10X7_TO_4X3: u32 = 1909876059;
    const PILLOW_10X7_TO_23X16: u32 = 3406774394;
    const PILLOW_61X47_TO_28X28: u32 = 1585567397;
    const PILLOW_5X64_TO_5X20: u32 = 4185187818;
    const TORCHVISION_301X417: u32 = 1965133635;
    const TORCHVISION_500X333: u32 = 2280484844;
}
