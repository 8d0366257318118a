//! Checkpoints: everything that the rest of a run depends on, in one safetensors file.
//!
//! The tensors are the network's parameters, under the names they have in inference, and the
//! optimizer's state; the metadata (JSON under the key `nnc.checkpoint`) says how far the run is and
//! what it depends on. Random numbers are counter-based, so seed and step *are* the random state, and
//! seed, epoch and position the order of the data.
//!
//! A checkpoint is written beside and renamed, and only then are older ones removed: whatever
//! happens, the last whole one survives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nnc_runtime::program::Port;
use nnc_runtime::session::check_parameters;
use serde::{Deserialize, Serialize};

use crate::data::{file, safetensors};
use crate::error::Result;
use crate::{Error, Tensor};

/// The metadata's key.
pub(crate) const METADATA: &str = "nnc.checkpoint";
/// The version of the metadata.
const VERSION: u32 = 1;
const PREFIX: &str = "step-";
const SUFFIX: &str = ".safetensors";

/// What a run depends on, beside the tensors: two runs of equal settings give equal bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The net's name.
    pub net: String,
    /// Of initial weights, dropout, order and augmentation.
    pub seed: u64,
    /// Examples in a step.
    pub batch: usize,
    /// Examples that are trained on; 0 where the caller gives them.
    pub examples: usize,
    /// Examples in the last step of an epoch, where that is a smaller one; 0: there are whole batches
    /// alone.
    #[serde(default)]
    pub rest: usize,
    /// What is done to the data, as text: source, held-out share, augmentation, normalisation.
    pub data: String,
}

/// A moment of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What the run depends on.
    pub settings: Settings,
    /// Steps done.
    pub step: u64,
    /// Parameters and state of the optimizer, by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// The names among them that are the optimizer's.
    pub optimizer_state: Vec<String>,
    /// What the `train` section said of optimizer, schedule, regularizer and clipping, by key.
    pub recipe: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    version: u32,
    step: u64,
    settings: Settings,
    optimizer_state: Vec<String>,
    #[serde(default)]
    recipe: BTreeMap<String, String>,
}

impl Checkpoint {
    /// The bytes of its file; equal checkpoints give equal bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let metadata = Metadata {
            version: VERSION,
            step: self.step,
            settings: self.settings.clone(),
            optimizer_state: self.optimizer_state.clone(),
            recipe: self.recipe.clone(),
        };
        let text = serde_json::to_string(&metadata).map_err(|e| e.to_string())?;
        safetensors::to_bytes_with(&self.tensors, Some((METADATA, text)))
    }

    /// Reads a file.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        Checkpoint::parse(&bytes).map_err(|e| Error::format(path, e))
    }

    /// A checkpoint from the bytes of its file.
    pub fn parse(bytes: &[u8]) -> Result<Checkpoint, String> {
        let tensors = safetensors::parse(bytes)?;
        let Some(m) = metadata(safetensors::metadata(bytes, METADATA)?)? else {
            return Err("these are weights, not a checkpoint: they do not say how far training was".into());
        };
        let Metadata { version: _, step, settings, optimizer_state, recipe } = m;
        Ok(Checkpoint { settings, step, tensors, optimizer_state, recipe })
    }

    /// Complains if it is not of this run: other settings, or other parameters.
    pub fn check<'a>(&self, settings: &Settings, ports: impl Iterator<Item = &'a Port>) -> Result<()> {
        let (a, b) = (&self.settings, settings);
        let lines = [
            (a.net != b.net).then(|| format!("the net is `{}`, not `{}`", b.net, a.net)),
            (a.seed != b.seed).then(|| format!("the seed is {}, not {}", b.seed, a.seed)),
            (a.batch != b.batch).then(|| format!("the batch is {}, not {}", b.batch, a.batch)),
            (a.examples != b.examples)
                .then(|| format!("there are {} examples, not {}", b.examples, a.examples)),
            (a.examples == b.examples && a.batch == b.batch && a.rest != b.rest).then(|| {
                let rest = |n: usize| if n == 0 { "left out".into() } else { format!("a step on {n}") };
                format!("the rest of an epoch is {}, not {}", rest(b.rest), rest(a.rest))
            }),
            (a.data != b.data).then(|| format!("the data is `{}`, not `{}`", b.data, a.data)),
        ];
        let lines: Vec<String> = lines.into_iter().flatten().collect();
        if !lines.is_empty() {
            let text = lines.join("\n  ");
            return Err(Error::Options(format!("the checkpoint is of another run:\n  {text}")));
        }
        Ok(check_parameters(ports, &[], &self.tensors)?)
    }
}

/// The names of tensors in a file that are no parameters: the optimizer's state in a checkpoint. `text` is what
/// the file has as [`METADATA`].
pub(crate) fn optimizer_state(text: Option<String>) -> Result<Vec<String>, String> {
    Ok(metadata(text)?.map(|m| m.optimizer_state).unwrap_or_default())
}

/// The metadata; none in a file that is no checkpoint.
fn metadata(text: Option<String>) -> Result<Option<Metadata>, String> {
    let Some(text) = text else { return Ok(None) };
    let damaged = |e: serde_json::Error| format!("its checkpoint metadata cannot be read: {e}");
    let m: Metadata = serde_json::from_str(&text).map_err(damaged)?;
    match m.version {
        VERSION => Ok(Some(m)),
        v => Err(format!("it is a checkpoint of version {v}: expected {VERSION}")),
    }
}

/// A folder of checkpoints, the last few of which are kept.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    kept: usize,
}

impl Folder {
    /// The folder, which need not exist yet, and how many checkpoints stay in it (at least 1).
    pub fn new(path: impl Into<PathBuf>, kept: usize) -> Folder {
        Folder { path: path.into(), kept: kept.max(1) }
    }

    /// Writes a checkpoint, then removes those that are too many: the path of the new one.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.path).map_err(|e| Error::io("create", &self.path, e))?;
        let path = self.path.join(format!("{PREFIX}{:09}{SUFFIX}", checkpoint.step));
        let bytes = checkpoint.to_bytes().map_err(|e| Error::format(&path, e))?;
        file::write(&path, &bytes)?;
        let all = self.list()?;
        for (_, old) in &all[..all.len().saturating_sub(self.kept)] {
            std::fs::remove_file(old).map_err(|e| Error::io("remove", old, e))?;
        }
        Ok(path)
    }

    /// The checkpoint of the last step, with its path; `None` without any.
    pub fn last(&self) -> Result<Option<(PathBuf, Checkpoint)>> {
        let Some((_, path)) = self.list()?.pop() else { return Ok(None) };
        let checkpoint = Checkpoint::open(&path)?;
        Ok(Some((path, checkpoint)))
    }

    /// The path of the checkpoint of the last step.
    pub fn last_path(&self) -> Result<Option<PathBuf>> {
        Ok(self.list()?.pop().map(|(_, path)| path))
    }

    /// All checkpoints by step.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let fail = |e| Error::io("read", &self.path, e);
        let entries = match std::fs::read_dir(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.map_err(fail)?,
        };
        let mut out = vec![];
        for entry in entries {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let step = name.strip_prefix(PREFIX).and_then(|n| n.strip_suffix(SUFFIX));
            if let Some(step) = step.and_then(|s| s.parse().ok()) {
                out.push((step, path));
            }
        }
        out.sort();
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Weights};
    use ndarray::arr1;

    fn checkpoint(step: u64) -> Checkpoint {
        let tensors = [
            ("fc.bias", Tensor::from(arr1(&[1f32, f32::NAN]))),
            ("fc.weight", Tensor::from(arr1(&[0.1f32, -0.0]))),
            ("sgd.fc.weight.momentum", Tensor::from(arr1(&[f32::MIN_POSITIVE / 4.0, 3.0]))),
        ];
        Checkpoint {
            settings: Settings {
                net: "lenet".into(),
                seed: u64::MAX,
                batch: 64,
                examples: 1000,
                rest: 40,
                data: "mnist:data".into(),
            },
            step,
            tensors: tensors.map(|(n, t)| (n.to_string(), t)).into(),
            optimizer_state: vec!["sgd.fc.weight.momentum".into()],
            recipe: [("optimizer".to_string(), "sgd(lr = 0.1)".to_string())].into(),
        }
    }

    fn bits(c: &Checkpoint) -> Vec<u32> {
        c.tensors.values().flat_map(|t| t.as_f32().unwrap().iter().map(|v| v.to_bits())).collect()
    }

    fn ports() -> Vec<Port> {
        let port = |name: &str| Port { name: name.into(), dtype: DType::F32, shape: vec![2] };
        ["fc.bias", "fc.weight", "sgd.fc.weight.momentum"].map(port).into()
    }

    #[test]
    fn every_bit_comes_back() {
        let c = checkpoint(7);
        let bytes = c.to_bytes().unwrap();
        assert_eq!(bytes, c.to_bytes().unwrap(), "the same bytes every time");
        let read = Checkpoint::parse(&bytes).unwrap();
        assert_eq!(bits(&read), bits(&c));
        assert_eq!((&read.settings, read.step), (&c.settings, 7));
        assert_eq!((&read.optimizer_state, &read.recipe), (&c.optimizer_state, &c.recipe));
    }

    #[test]
    fn the_last_few_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().join("deep/checkpoints"), 2);
        assert!(folder.last().unwrap().is_none());
        for step in [9, 10, 100] {
            folder.save(&checkpoint(step)).unwrap();
        }
        let steps: Vec<u64> = folder.list().unwrap().iter().map(|(s, _)| *s).collect();
        assert_eq!(steps, [10, 100]);
        assert_eq!(folder.last().unwrap().unwrap().1.step, 100);
    }

    #[test]
    fn a_failed_write_leaves_the_one_before() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path(), 1);
        folder.save(&checkpoint(1)).unwrap();
        // Where the next one should go there is a folder.
        std::fs::create_dir(root.path().join("step-000000002.safetensors")).unwrap();
        assert!(folder.save(&checkpoint(2)).is_err());
        std::fs::remove_dir(root.path().join("step-000000002.safetensors")).unwrap();
        assert_eq!(folder.last().unwrap().unwrap().1.step, 1);
    }

    #[test]
    fn another_run_is_refused() {
        let c = checkpoint(1);
        c.check(&c.settings, ports().iter()).unwrap();
        let other = Settings { net: "vgg".into(), batch: 32, ..c.settings.clone() };
        assert_eq!(
            c.check(&other, ports().iter()).unwrap_err().to_string(),
            "the checkpoint is of another run:\n  the net is `vgg`, not `lenet`\n  the batch is 32, not 64"
        );
        let whole = Settings { rest: 0, ..c.settings.clone() };
        assert_eq!(
            c.check(&whole, ports().iter()).unwrap_err().to_string(),
            "the checkpoint is of another run:\n  the rest of an epoch is left out, not a step on 40"
        );
        let mut deeper = ports();
        deeper[1].name = "fc2.weight".into();
        let e = c.check(&c.settings, deeper.iter()).unwrap_err().to_string();
        assert!(
            e.contains("parameter `fc2.weight` is missing") && e.contains("no parameter `fc.weight`"),
            "{e}"
        );
    }

    #[test]
    fn damage_and_plain_weights_are_told() {
        let bytes = checkpoint(1).to_bytes().unwrap();
        for n in (0..bytes.len()).step_by(7) {
            assert!(Checkpoint::parse(&bytes[..n]).is_err(), "{n}");
        }
        let weights = safetensors::to_bytes(&checkpoint(1).tensors).unwrap();
        assert!(Checkpoint::parse(&weights).unwrap_err().contains("not a checkpoint"));
        let version: &[u8] = br#"\"version\":1"#;
        let at = bytes.windows(version.len()).position(|w| w == version).unwrap();
        let mut newer = bytes.clone();
        newer[at + version.len() - 1] = b'2';
        let e = Checkpoint::parse(&newer).unwrap_err();
        assert_eq!(e, "it is a checkpoint of version 2: expected 1");
    }

    #[test]
    fn as_weights_it_is_the_parameters_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = Folder::new(root.path(), 1).save(&checkpoint(1)).unwrap();
        let names: Vec<String> = Weights::open(path).unwrap().names();
        assert_eq!(names, ["fc.bias", "fc.weight"]);
    }
}
