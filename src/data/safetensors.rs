//! Tensors in the safetensors format: an 8-byte length, a JSON header, the elements.
//!
//! The crate `safetensors` checks headers against the data (lengths, offsets, overflow); what it
//! lets pass and a user should still hear of, a name that appears twice, is checked here.

use std::collections::{BTreeMap, HashSet};

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::Tensor;

/// All tensors of the bytes of a file. `f16`, `bf16` and `f64` become `f32`; integers become `i32`
/// where they fit.
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| explain(e, bytes.len()))?;
    no_name_twice(bytes)?;
    let mut out = BTreeMap::new();
    for (name, view) in file.iter() {
        out.insert(name.to_string(), tensor(&view).map_err(|e| format!("tensor `{name}`: {e}"))?);
    }
    Ok(out)
}

/// The metadata of that key in the bytes of a file, if there is such.
pub fn metadata(bytes: &[u8], key: &str) -> Result<Option<String>, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| explain(e, bytes.len()))?;
    Ok(header.metadata().as_ref().and_then(|m| m.get(key)).cloned())
}

/// The bytes of a file with these tensors.
pub fn to_bytes(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>, String> {
    to_bytes_with(tensors, None)
}

/// The bytes of a file with these tensors and one entry of metadata.
pub fn to_bytes_with(
    tensors: &BTreeMap<String, Tensor>,
    metadata: Option<(&str, String)>,
) -> Result<Vec<u8>, String> {
    let mut data: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = vec![];
    for (name, t) in tensors {
        let (dtype, bytes) = match t {
            Tensor::F32(a) => (Dtype::F32, a.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Tensor::F64(a) => (Dtype::F64, a.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Tensor::I32(a) => (Dtype::I32, a.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Tensor::Bool(a) => (Dtype::BOOL, a.iter().map(|&v| u8::from(v)).collect()),
        };
        data.push((name, dtype, t.shape().to_vec(), bytes));
    }
    let mut views = vec![];
    for (name, dtype, shape, bytes) in &data {
        views.push((*name, TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| e.to_string())?));
    }
    let metadata = metadata.map(|(key, text)| [(key.to_string(), text)].into());
    safetensors::serialize(views, metadata).map_err(|e| e.to_string())
}

fn tensor(view: &TensorView<'_>) -> Result<Tensor, String> {
    let (shape, bytes) = (view.shape(), view.data());
    Ok(match view.dtype() {
        Dtype::F32 => Tensor::F32(array(shape, bytes, f32::from_le_bytes)?),
        Dtype::F16 => Tensor::F32(array(shape, bytes, |b| f16::from_le_bytes(b).to_f32())?),
        Dtype::BF16 => Tensor::F32(array(shape, bytes, |b| bf16::from_le_bytes(b).to_f32())?),
        Dtype::F64 => Tensor::F32(array(shape, bytes, |b| f64::from_le_bytes(b) as f32)?),
        Dtype::I32 => Tensor::I32(array(shape, bytes, i32::from_le_bytes)?),
        Dtype::I64 => Tensor::I32(integers(shape, bytes, i64::from_le_bytes)?),
        Dtype::U32 => Tensor::I32(integers(shape, bytes, u32::from_le_bytes)?),
        Dtype::I16 => Tensor::I32(array(shape, bytes, |b| i16::from_le_bytes(b).into())?),
        Dtype::U16 => Tensor::I32(array(shape, bytes, |b| u16::from_le_bytes(b).into())?),
        Dtype::I8 => Tensor::I32(array(shape, bytes, |b| i8::from_le_bytes(b).into())?),
        Dtype::U8 => Tensor::I32(array(shape, bytes, |b| u8::from_le_bytes(b).into())?),
        Dtype::BOOL => Tensor::Bool(array(shape, bytes, |[b]| b != 0)?),
        other => return Err(format!("element type {other} is not supported")),
    })
}

/// Decodes elements of `N` bytes each. Every element has its bytes: the header was validated.
fn array<const N: usize, T>(
    shape: &[usize],
    bytes: &[u8],
    decode: impl Fn([u8; N]) -> T,
) -> Result<ArrayD<T>, String> {
    let mut elements = Vec::new();
    elements.try_reserve_exact(bytes.len() / N).map_err(|_| "out of memory".to_string())?;
    elements.extend(bytes.as_chunks::<N>().0.iter().map(|&b| decode(b)));
    ArrayD::from_shape_vec(IxDyn(shape), elements).map_err(|e| e.to_string())
}

fn integers<const N: usize, T: TryInto<i32> + Copy + std::fmt::Display>(
    shape: &[usize],
    bytes: &[u8],
    decode: impl Fn([u8; N]) -> T,
) -> Result<ArrayD<i32>, String> {
    let wide = array(shape, bytes, decode)?;
    if let Some(v) = wide.iter().find(|&&v| v.try_into().is_err()) {
        return Err(format!("{v} does not fit in i32"));
    }
    Ok(wide.mapv(|v| v.try_into().unwrap_or_default()))
}

/// The crate's error, in words that say what is wrong with the file.
fn explain(e: SafeTensorError, found: usize) -> String {
    match e {
        SafeTensorError::HeaderTooSmall => format!("not a safetensors file: it has only {found} bytes"),
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => format!(
            "not a safetensors file, or cut off: it says that its header is longer than its {found} bytes, or than 100 MB"
        ),
        SafeTensorError::InvalidHeader(e) => format!("not a safetensors file: its header is not UTF-8: {e}"),
        SafeTensorError::InvalidHeaderDeserialization(e) => format!("its header cannot be read: {e}"),
        SafeTensorError::InvalidOffset(name) => {
            format!(
                "its header is wrong: the data of `{name}` overlaps others, leaves a gap, or ends before it starts"
            )
        }
        SafeTensorError::TensorInvalidInfo => {
            "its header is wrong: the bytes of a tensor are not those that its shape and type need"
                .to_string()
        }
        SafeTensorError::MetadataIncompleteBuffer => format!(
            "cut off or damaged: its header describes another amount of data than the {found} bytes of the file"
        ),
        SafeTensorError::ValidationOverflow => "its header is wrong: a shape overflows".to_string(),
        other => other.to_string(),
    }
}

/// JSON takes the last of several equal keys; two tensors of one name are a mistake.
fn no_name_twice(bytes: &[u8]) -> Result<(), String> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Option<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a header")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
            let (mut seen, mut twice) = (HashSet::new(), None);
            while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                if !seen.insert(name.clone()) {
                    twice = Some(name);
                }
            }
            Ok(twice)
        }
    }
    let length = bytes.first_chunk().map_or(0, |n| u64::from_le_bytes(*n) as usize);
    let header = bytes.get(8..).and_then(|b| b.get(..length)).unwrap_or_default();
    let mut json = serde_json::Deserializer::from_slice(header);
    match json.deserialize_map(Names) {
        Ok(Some(name)) => Err(format!("there are two tensors `{name}`")),
        Ok(None) => Ok(()),
        Err(e) => Err(format!("its header cannot be read: {e}")),
    }
}
