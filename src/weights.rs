//! Named tensors: what a network has learnt.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::data::{file, safetensors};
use crate::error::Result;
use crate::train::checkpoint;
use crate::{Error, Tensor};

/// Tensors by name, from a safetensors file or from memory. Cheap to clone.
///
/// ```
/// use nnc::{Tensor, Weights};
/// let weights = Weights::from_map([("fc.bias".to_string(), Tensor::from(ndarray::arr1(&[1f32, f32::NAN])))].into());
/// assert_eq!(weights.non_finite(), [("fc.bias".to_string(), 1, 0)]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Weights {
    tensors: Arc<BTreeMap<String, Tensor>>,
    path: Option<PathBuf>,
}

impl Weights {
    /// Reads a safetensors file; `f16`, `bf16` and `f64` become `f32`. Of a checkpoint, the parameters
    /// alone, without the optimizer's state.
    pub fn open(path: impl AsRef<Path>) -> Result<Weights> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let read = || {
            let mut tensors = safetensors::parse(&bytes)?;
            for name in checkpoint::optimizer_state(&bytes)? {
                tensors.remove(&name);
            }
            Ok(tensors)
        };
        let tensors = read().map_err(|message: String| Error::format(path, message))?;
        Ok(Weights { tensors: Arc::new(tensors), path: Some(path.to_path_buf()) })
    }

    /// Tensors in memory.
    pub fn from_map(tensors: BTreeMap<String, Tensor>) -> Weights {
        Weights { tensors: Arc::new(tensors), path: None }
    }

    /// Writes a safetensors file, beside and then renamed, so that it is whole or not there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = safetensors::to_bytes(&self.tensors).map_err(|e| Error::format(path, e))?;
        file::write(path, &bytes)
    }

    /// The tensors.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Where they came from, if from a file.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The tensors with values that are not finite: name, number of NaNs, number of infinities.
    pub fn non_finite(&self) -> Vec<(String, usize, usize)> {
        self.tensors
            .iter()
            .filter_map(|(name, t)| {
                let a = t.as_f32()?;
                let nans = a.iter().filter(|v| v.is_nan()).count();
                let infinities = a.iter().filter(|v| v.is_infinite()).count();
                (nans + infinities > 0).then(|| (name.clone(), nans, infinities))
            })
            .collect()
    }
}
