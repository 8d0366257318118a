//! Arrays in NumPy's `.npy` format (versions 1 to 3).
//!
//! ```text
//! "\x93NUMPY" major minor · length of the header (u16, from version 2 on u32) ·
//! {'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), } padded with spaces, '\n' · elements
//! ```
//! The header is checked against the length of the file before anything is allocated.

use std::path::Path;

use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

use super::file;
use crate::error::Result;
use crate::{DType, Error, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Integers up to here are exact in `f32`.
const EXACT_IN_F32: u64 = 1 << 24;

/// Reads an array and converts it to `dtype`. Floats may be rounded to narrower ones and integers
/// become floats where they are exact; integers must fit, and floats do not become integers.
pub fn read(path: impl AsRef<Path>, dtype: DType) -> Result<Tensor> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    parse(&bytes, dtype).map_err(|message| Error::format(path, message))
}

/// Writes an array, beside and then renamed.
pub fn write(path: impl AsRef<Path>, tensor: &Tensor) -> Result<()> {
    file::write(path, &to_bytes(tensor))
}

/// The array in the bytes of a file, converted as [`read`] says.
pub fn parse(bytes: &[u8], dtype: DType) -> Result<Tensor, String> {
    let (header, data) = split(bytes)?;
    let header = Header::parse(header)?;
    let elements = header.elements(data)?;
    let shape = || IxDyn(&header.shape).set_f(header.fortran);
    let wrong = |e: ndarray::ShapeError| e.to_string();
    Ok(match dtype {
        DType::F32 => {
            Tensor::F32(row_major(ArrayD::from_shape_vec(shape(), elements.into_f32()?).map_err(wrong)?))
        }
        DType::F64 => {
            Tensor::F64(row_major(ArrayD::from_shape_vec(shape(), elements.into_f64()).map_err(wrong)?))
        }
        DType::I32 => {
            Tensor::I32(row_major(ArrayD::from_shape_vec(shape(), elements.into_i32()?).map_err(wrong)?))
        }
        DType::Bool => {
            Tensor::Bool(row_major(ArrayD::from_shape_vec(shape(), elements.into_bool()?).map_err(wrong)?))
        }
    })
}

/// Whether the elements in the bytes of a file are unsigned bytes.
pub fn is_bytes(bytes: &[u8]) -> bool {
    split(bytes).and_then(|(header, _)| Header::parse(header)).is_ok_and(|h| h.element == "u1")
}

/// The bytes of a file with this array.
pub fn to_bytes(tensor: &Tensor) -> Vec<u8> {
    let descr = match tensor.dtype() {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::I32 => "<i4",
        DType::Bool => "|b1",
    };
    let sizes: String = tensor.shape().iter().map(|n| format!("{n}, ")).collect();
    let sizes = if tensor.shape().len() == 1 { sizes.trim_end() } else { sizes.trim_end_matches(", ") };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The elements start at a multiple of 64.
    let end = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(end.next_multiple_of(64) - end));
    header.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    match tensor {
        Tensor::F32(a) => out.extend(a.iter().flat_map(|v| v.to_le_bytes())),
        Tensor::F64(a) => out.extend(a.iter().flat_map(|v| v.to_le_bytes())),
        Tensor::I32(a) => out.extend(a.iter().flat_map(|v| v.to_le_bytes())),
        Tensor::Bool(a) => out.extend(a.iter().map(|&v| u8::from(v))),
    }
    out
}

fn row_major<T: Clone>(a: ArrayD<T>) -> ArrayD<T> {
    if a.is_standard_layout() { a } else { a.as_standard_layout().into_owned() }
}

/// The header's text and the elements' bytes.
fn split(bytes: &[u8]) -> Result<(&str, &[u8]), String> {
    let cut = || format!("cut off: a .npy file is longer than {} bytes", bytes.len());
    let rest = bytes.strip_prefix(MAGIC).ok_or("not a .npy file")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk().map(|(n, rest)| (u64::from(u16::from_le_bytes(*n)), rest)),
        2 | 3 => rest.split_first_chunk().map(|(n, rest)| (u64::from(u32::from_le_bytes(*n)), rest)),
        v => return Err(format!("version {v} of the .npy format is not supported")),
    }
    .ok_or_else(cut)?;
    let (header, data) = rest.split_at_checked(length as usize).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is not UTF-8")?;
    Ok((header, data))
}

struct Header {
    /// `f4`, without the byte order.
    element: String,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads the Python dictionary.
    fn parse(text: &str) -> Result<Header, String> {
        let wrong =
            || format!("its header cannot be read: `{}`", text.trim().chars().take(200).collect::<String>());
        let value = |key: &str| {
            let at = text.find(&format!("'{key}'"))? + key.len() + 2;
            Some(text[at..].trim_start().strip_prefix(':')?.trim_start())
        };
        let descr = value("descr").ok_or_else(wrong)?;
        let descr = descr.strip_prefix('\'').and_then(|d| d.split_once('\'')).ok_or_else(wrong)?.0;
        let fortran = value("fortran_order").ok_or_else(wrong)?.starts_with("True");
        let shape = value("shape").and_then(|s| s.strip_prefix('(')?.split_once(')')).ok_or_else(wrong)?.0;
        let shape = shape
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(|s| s.trim_end_matches('L').parse().map_err(|_| wrong()))
            .collect::<Result<Vec<usize>, String>>()?;
        let element = descr.trim_start_matches(['<', '>', '|', '=']).to_string();
        Ok(Header { element, big_endian: descr.starts_with('>'), fortran, shape })
    }

    fn elements(&self, data: &[u8]) -> Result<Elements, String> {
        macro_rules! decode {
            ($type:ty) => {{
                let count = self.count(data, size_of::<$type>())?;
                let read = if self.big_endian { <$type>::from_be_bytes } else { <$type>::from_le_bytes };
                let mut out = Vec::new();
                out.try_reserve_exact(count).map_err(|_| "out of memory".to_string())?;
                out.extend(data.as_chunks().0.iter().map(|&b| read(b)));
                out
            }};
        }
        Ok(match self.element.as_str() {
            "f4" => Elements::F32(decode!(f32)),
            "f8" => Elements::F64(decode!(f64)),
            "f2" => Elements::F32(decode!(f16).into_iter().map(f16::to_f32).collect()),
            "i8" => Elements::Int(decode!(i64)),
            "i4" => Elements::Int(decode!(i32).into_iter().map(i64::from).collect()),
            "i2" => Elements::Int(decode!(i16).into_iter().map(i64::from).collect()),
            "i1" => Elements::Int(decode!(i8).into_iter().map(i64::from).collect()),
            "u4" => Elements::Int(decode!(u32).into_iter().map(i64::from).collect()),
            "u2" => Elements::Int(decode!(u16).into_iter().map(i64::from).collect()),
            "u1" => Elements::Int(decode!(u8).into_iter().map(i64::from).collect()),
            "b1" => Elements::Bool(decode!(u8).into_iter().map(|b| b != 0).collect()),
            other => {
                return Err(format!(
                    "element type `{other}` is not supported: expected floats, bool, or integers up to i8"
                ));
            }
        })
    }

    /// The number of elements, compared with the data.
    fn count(&self, data: &[u8], size: usize) -> Result<usize, String> {
        let bytes = self.shape.iter().try_fold(size, |n, &d| n.checked_mul(d));
        // ndarray multiplies the sizes that are not 0 alone.
        let sane = self.shape.iter().filter(|&&d| d > 0).try_fold(8usize, |n, &d| n.checked_mul(d));
        match (bytes, sane) {
            (Some(bytes), Some(_)) if bytes == data.len() => Ok(bytes / size),
            (Some(bytes), Some(_)) => Err(format!(
                "cut off or damaged: shape {:?} needs {bytes} bytes of elements, found {}",
                self.shape,
                data.len()
            )),
            _ => Err(format!("its shape {:?} is too large", self.shape)),
        }
    }
}

/// Elements as they are in the file, or in the narrowest type here that holds them all.
enum Elements {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Int(Vec<i64>),
    Bool(Vec<bool>),
}

impl Elements {
    fn into_f32(self) -> Result<Vec<f32>, String> {
        Ok(match self {
            Elements::F32(v) => v,
            Elements::F64(v) => v.into_iter().map(|x| x as f32).collect(),
            Elements::Int(v) => match v.iter().find(|x| x.unsigned_abs() > EXACT_IN_F32) {
                Some(x) => return Err(format!("expected values that fit in f32, found {x}")),
                None => v.into_iter().map(|x| x as f32).collect(),
            },
            Elements::Bool(v) => v.into_iter().map(|x| f32::from(u8::from(x))).collect(),
        })
    }

    fn into_f64(self) -> Vec<f64> {
        match self {
            Elements::F32(v) => v.into_iter().map(f64::from).collect(),
            Elements::F64(v) => v,
            Elements::Int(v) => v.into_iter().map(|x| x as f64).collect(),
            Elements::Bool(v) => v.into_iter().map(|x| f64::from(u8::from(x))).collect(),
        }
    }

    fn into_i32(self) -> Result<Vec<i32>, String> {
        match self {
            Elements::F32(_) | Elements::F64(_) => Err("expected integers, found floats".to_string()),
            Elements::Int(v) => v
                .into_iter()
                .map(|x| i32::try_from(x).map_err(|_| format!("expected values that fit in i32, found {x}")))
                .collect(),
            Elements::Bool(v) => Ok(v.into_iter().map(i32::from).collect()),
        }
    }

    fn into_bool(self) -> Result<Vec<bool>, String> {
        match self {
            Elements::Bool(v) => Ok(v),
            Elements::Int(v) if v.iter().all(|x| (0..=1).contains(x)) => {
                Ok(v.into_iter().map(|x| x != 0).collect())
            }
            _ => Err("expected truth values, found other numbers".to_string()),
        }
    }
}
