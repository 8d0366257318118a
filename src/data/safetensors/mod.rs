//! Tensors in the safetensors format: an 8-byte length, a JSON header, the elements.
//!
//! The crate `safetensors` checks headers against themselves (lengths, offsets, overflow); here they are checked
//! against the file, too, and names that appear twice are told.

mod decode;
mod file;

use std::collections::{BTreeMap, HashMap, HashSet};

use nnc_runtime::parameters;
use nnc_runtime::program::Port;
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, TensorInfo, TensorView};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::Tensor;
use decode::kind;
pub use file::TensorFile;

/// All tensors of the bytes of a file. `f16`, `bf16` and `f64` become `f32`; integers become `i32`
/// where they fit.
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    let header = Header::parse(bytes, bytes.len() as u64)?;
    let tensors = Parsed { header: &header, bytes };
    let mut out = BTreeMap::new();
    for port in header.ports() {
        let tensor = parameters::read(&tensors, &port, 1).map_err(|e| match e {
            nnc_runtime::LoadError::Unreadable { name, problem } => format!("tensor `{name}`: {problem}"),
            e => e.to_string(),
        })?;
        out.insert(port.name, tensor);
    }
    Ok(out)
}

/// The metadata of that key in the bytes of a file, if there is such.
pub fn metadata(bytes: &[u8], key: &str) -> Result<Option<String>, String> {
    Ok(Header::parse(bytes, bytes.len() as u64)?.metadata(key))
}

/// What a file says of its tensors, checked.
#[derive(Debug)]
struct Header {
    tensors: BTreeMap<String, Entry>,
    metadata: HashMap<String, String>,
    /// Where the elements begin in the file.
    data: u64,
}

/// A tensor of a file.
#[derive(Clone, Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Its first byte among the elements, and the number of its bytes.
    at: usize,
    bytes: usize,
}

/// A header as the format has it.
#[derive(serde::Deserialize)]
struct Written {
    #[serde(rename = "__metadata__", default)]
    metadata: Option<HashMap<String, String>>,
    #[serde(flatten)]
    tensors: HashMap<String, TensorInfo>,
}

/// Longer headers are refused.
const MAX_HEADER_BYTES: u64 = 100_000_000;

impl Header {
    /// Reads the header at the beginning of a file of that many bytes, of which `start` has at least the header.
    fn parse(start: &[u8], file_bytes: u64) -> Result<Header, String> {
        let explained = |e| explain(e, file_bytes);
        let length = Header::length(start, file_bytes)?;
        let text = start.get(8..).and_then(|rest| rest.get(..length));
        let text = text.ok_or_else(|| explained(SafeTensorError::InvalidHeaderLength))?;
        let text = str::from_utf8(text).map_err(|e| explained(SafeTensorError::InvalidHeader(e)))?;
        no_name_twice(text)?;
        let invalid = |e| explained(SafeTensorError::InvalidHeaderDeserialization(e));
        let Written { metadata, tensors } = serde_json::from_str(text).map_err(invalid)?;
        let mut tensors: Vec<(String, TensorInfo)> = tensors.into_iter().collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let checked = Metadata::new(metadata, tensors).map_err(explained)?;
        let data = 8 + length as u64;
        if data + checked.data_len() as u64 != file_bytes {
            return Err(explained(SafeTensorError::MetadataIncompleteBuffer));
        }
        let mut entries = BTreeMap::new();
        for (name, info) in checked.tensors() {
            if let Err(problem) = kind(info.dtype) {
                return Err(format!("tensor `{name}`: {problem}"));
            }
            let (at, end) = info.data_offsets;
            let entry = Entry { dtype: info.dtype, shape: info.shape.clone(), at, bytes: end - at };
            entries.insert(name, entry);
        }
        Ok(Header { tensors: entries, metadata: checked.metadata().clone().unwrap_or_default(), data })
    }

    /// The length that a file says its header has.
    fn length(start: &[u8], file_bytes: u64) -> Result<usize, String> {
        let length = start.first_chunk().map(|n| u64::from_le_bytes(*n));
        let length = length.ok_or_else(|| explain(SafeTensorError::HeaderTooSmall, file_bytes))?;
        match usize::try_from(length) {
            Ok(n) if length <= MAX_HEADER_BYTES && length <= file_bytes - 8 => Ok(n),
            _ => Err(explain(SafeTensorError::HeaderTooLarge, file_bytes)),
        }
    }

    /// The tensors by name, as they are when they are read.
    fn ports(&self) -> Vec<Port> {
        let port = |(name, e): (&String, &Entry)| {
            Some(Port { name: name.clone(), dtype: kind(e.dtype).ok()?, shape: e.shape.clone() })
        };
        self.tensors.iter().filter_map(port).collect()
    }

    fn metadata(&self, key: &str) -> Option<String> {
        self.metadata.get(key).cloned()
    }
}

/// A file in memory.
struct Parsed<'a> {
    header: &'a Header,
    bytes: &'a [u8],
}

impl parameters::Parameters for Parsed<'_> {
    fn ports(&self) -> Vec<Port> {
        self.header.ports()
    }

    fn fill(&self, port: &Port, to: &mut [u8], _threads: usize) -> Result<(), String> {
        let e = self.header.tensors.get(&port.name).ok_or("it is missing")?;
        let first = self.header.data as usize + e.at;
        // There, since the header was compared with the length of the file.
        let elements = self.bytes.get(first..).and_then(|b| b.get(..e.bytes)).ok_or("it is cut off")?;
        decode::decode(e.dtype, elements, to)
    }
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

/// The crate's error, in words that say what is wrong with the file.
fn explain(e: SafeTensorError, found: u64) -> String {
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
fn no_name_twice(header: &str) -> Result<(), String> {
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
    let mut json = serde_json::Deserializer::from_str(header);
    match json.deserialize_map(Names) {
        Ok(Some(name)) => Err(format!("there are two tensors `{name}`")),
        Ok(None) => Ok(()),
        Err(e) => Err(format!("its header cannot be read: {e}")),
    }
}
