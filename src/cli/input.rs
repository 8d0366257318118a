//! `--input NAME=FILE`: arrays and pictures as the inputs of a net.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ndarray::Axis;
use nnc::data::image::{Picture, Preprocess};
use nnc::data::npy;
use nnc::error::Result;
use nnc::{DType, Error, Tensor, TensorSpec};

/// An `--input` as given; without a name it is for the only input of the net.
#[derive(Clone, Debug)]
pub struct InputArg {
    name: Option<String>,
    path: PathBuf,
}

impl std::str::FromStr for InputArg {
    type Err = String;

    fn from_str(text: &str) -> Result<InputArg, String> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (Some(name.to_string()), path),
            None => (None, text),
        };
        if path.is_empty() || name.as_deref() == Some("") {
            return Err("expected NAME=FILE".into());
        }
        Ok(InputArg { name, path: path.into() })
    }
}

/// Reads the inputs of a net. Files for one input are stacked along its first axis. Without a
/// `preprocess`, that which fits the input's channels is taken.
pub fn read(
    specs: &[TensorSpec],
    args: &[InputArg],
    preprocess: Option<Preprocess>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut parts: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    for arg in args {
        let spec = spec_of(specs, arg)?;
        let tensor = read_one(spec, &arg.path, preprocess)
            .map_err(|e| Error::Input(format!("input `{}`: {e}", spec.name)))?;
        parts.entry(spec.name.clone()).or_default().push(tensor);
    }
    let missing: Vec<String> =
        specs.iter().filter(|s| !parts.contains_key(&s.name)).map(|s| format!("`{}`", s.name)).collect();
    if !missing.is_empty() {
        let example = &specs.iter().find(|s| !parts.contains_key(&s.name)).expect("one is missing").name;
        return Err(Error::Input(format!(
            "no value for input {}: give it with --input {example}=FILE",
            missing.join(", ")
        )));
    }
    parts.into_iter().map(|(name, tensors)| Ok((name.clone(), stack(&name, tensors)?))).collect()
}

fn spec_of<'a>(specs: &'a [TensorSpec], arg: &InputArg) -> Result<&'a TensorSpec> {
    let names = || specs.iter().map(|s| format!("`{}`", s.name)).collect::<Vec<_>>().join(", ");
    match &arg.name {
        Some(name) => specs
            .iter()
            .find(|s| s.name == *name)
            .ok_or_else(|| Error::Input(format!("the net has no input `{name}`; its inputs: {}", names()))),
        None if specs.len() == 1 => Ok(&specs[0]),
        None => Err(Error::Input(format!(
            "`{}` is for which input? The net has {}: write --input NAME={0}",
            arg.path.display(),
            names()
        ))),
    }
}

fn read_one(spec: &TensorSpec, path: &Path, preprocess: Option<Preprocess>) -> Result<Tensor> {
    if is_npy(path)? {
        let tensor = npy::read(path, spec.ty.dtype)?;
        return Ok(with_batch_axis(spec, tensor));
    }
    let rank = spec.ty.rank();
    if spec.ty.dtype != DType::F32 || !(rank == 3 || rank == 4) {
        return Err(Error::Input(format!(
            "expected a .npy file for {}, found `{}` (pictures are for f32 inputs of 3 or 4 dimensions)",
            spec.ty,
            path.display()
        )));
    }
    let picture = Picture::open(path)?;
    let sizes: Vec<Option<usize>> = spec.ty.shape[rank - 3..].iter().map(|d| d.size()).collect();
    let channels = sizes[0].unwrap_or(3);
    let preprocess = preprocess.unwrap_or_else(|| Preprocess::guess(sizes[0]));
    let array = preprocess.apply(&picture, channels, (sizes[1], sizes[2]))?.into_dyn();
    Ok(Tensor::F32(if rank == 4 { array.insert_axis(Axis(0)) } else { array }))
}

/// Told by the content, or where that says nothing, by the name.
fn is_npy(path: &Path) -> Result<bool> {
    let fail = |error| Error::Io { action: "read", path: path.to_path_buf(), error };
    let mut head = vec![];
    File::open(path).map_err(fail)?.take(6).read_to_end(&mut head).map_err(fail)?;
    Ok(head == b"\x93NUMPY" || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy")))
}

/// An array that lacks only the batch dimension is a batch of one.
fn with_batch_axis(spec: &TensorSpec, tensor: Tensor) -> Tensor {
    if tensor.shape().len() + 1 != spec.ty.rank() || spec.ty.shape[0].size().is_some_and(|n| n != 1) {
        return tensor;
    }
    match tensor {
        Tensor::F32(a) => Tensor::F32(a.insert_axis(Axis(0))),
        Tensor::F64(a) => Tensor::F64(a.insert_axis(Axis(0))),
        Tensor::I32(a) => Tensor::I32(a.insert_axis(Axis(0))),
        Tensor::Bool(a) => Tensor::Bool(a.insert_axis(Axis(0))),
    }
}

fn stack(name: &str, mut tensors: Vec<Tensor>) -> Result<Tensor> {
    if tensors.len() == 1 {
        return Ok(tensors.remove(0));
    }
    let shapes: Vec<String> = tensors.iter().map(|t| format!("{:?}", t.shape())).collect();
    let wrong = || Error::Input(format!("input `{name}`: files of different shapes: {}", shapes.join(", ")));
    if tensors.iter().any(|t| t.shape().is_empty()) {
        return Err(wrong());
    }
    macro_rules! concatenate {
        ($variant:ident) => {{
            let views: Vec<_> = tensors
                .iter()
                .filter_map(|t| match t {
                    Tensor::$variant(a) => Some(a.view()),
                    _ => None,
                })
                .collect();
            ndarray::concatenate(Axis(0), &views).map(Tensor::$variant).map_err(|_| wrong())
        }};
    }
    match tensors[0].dtype() {
        DType::F32 => concatenate!(F32),
        DType::F64 => concatenate!(F64),
        DType::I32 => concatenate!(I32),
        DType::Bool => concatenate!(Bool),
    }
}
