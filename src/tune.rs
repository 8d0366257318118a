//! Which algorithm each convolution should use, measured instead of estimated: every candidate runs in the whole net,
//! in turn, and each layer keeps the one it was fastest with.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use nnc_compiler::lower::algorithm::{
    Algorithm, Choices, Convolutions, LowerOptions, algorithm_of, convolution_of,
};
use nnc_compiler::pass;
use serde::{Deserialize, Serialize};

use crate::data::{file, made_up};
use crate::error::Result;
use crate::model::Model;
use crate::report::place;
use crate::report::profile::median;
use crate::report::table::{Align, Table};
use crate::{Device, Error, LaunchTime, Network, Precision, Tensor, TensorView};

/// What a file's `version` is; others are refused.
const VERSION: u32 = 1;

/// A candidate replaces what the cost model chose only if it takes less than this share of the time: what is
/// nearer is noise.
const CLEARLY: f64 = 0.97;

/// A net's convolutions with a choice, and how fast each candidate was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    version: u32,
    /// The net's name.
    pub net: String,
    /// The sizes of its inputs.
    pub inputs: BTreeMap<String, Vec<usize>>,
    /// Lanes of the CPU's vectors.
    pub lanes: usize,
    /// With how many threads.
    pub threads: usize,
    /// The convolutions, in the net's order.
    pub layers: Vec<TunedLayer>,
}

/// A convolution: what was measured, and what follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunedLayer {
    /// The layer's name.
    pub layer: String,
    /// Where it is written: `vgg.nn:9`.
    pub line: String,
    /// The one to use.
    #[serde(with = "by_name")]
    pub algorithm: Algorithm,
    /// What the cost model would have chosen.
    #[serde(with = "by_name")]
    pub estimated: Algorithm,
    /// Milliseconds of a run by the algorithm's name: the layer with all that is fused with it.
    pub ms: BTreeMap<String, f64>,
    /// The layer and what is fused with it, by some algorithms in a kernel of its own.
    #[serde(skip)]
    group: Vec<String>,
}

impl Tuning {
    /// Reads a file that [`save`](Tuning::save) wrote.
    ///
    /// # Errors
    /// If it cannot be read, or is no such file.
    pub fn open(path: impl AsRef<Path>) -> Result<Tuning> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let tuning: Tuning = serde_json::from_str(&text)
            .map_err(|e| Error::format(path, format!("it holds no choices that were measured: {e}")))?;
        if tuning.version != VERSION {
            let message = format!("it is of version {}, this nnc reads version {VERSION}", tuning.version);
            return Err(Error::format(path, message));
        }
        Ok(tuning)
    }

    /// Writes it as JSON, beside and then renamed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(|e| Error::Internal(e.to_string()))?;
        text.push('\n');
        file::write(path, text.as_bytes())
    }

    /// What to use, for [`Options::choices`](crate::Options::choices).
    pub fn choices(&self) -> Choices {
        self.layers.iter().map(|l| (l.layer.clone(), l.algorithm)).collect()
    }
}

/// Measures the candidates of every convolution of a net whose sizes are known, on this machine, with fresh weights
/// and made-up inputs, for about so long.
///
/// # Errors
/// If sizes are not known, the options forbid a choice ([`Precision::Strict`]) or another device, or code cannot be
/// made or run here.
pub fn tune(network: &Network, time: Duration) -> Result<Tuning> {
    let options = network.options();
    if options.chosen_precision() == Precision::Strict {
        return Err(Error::Options("strict precision leaves no algorithms to choose from".into()));
    }
    if options.chosen_device() != Device::Cpu {
        return Err(Error::Options(format!("{} has no algorithms to choose from", options.chosen_device())));
    }
    network.require_sizes()?;
    let mut layers = layers(network);
    let inputs = made_up::inputs(&network.inputs(), None);
    if !layers.is_empty() {
        measure(network, &inputs, &mut layers, time)?;
    }
    Ok(Tuning {
        version: VERSION,
        net: network.name().to_string(),
        inputs: inputs.into_iter().map(|(name, t)| (name, t.shape().to_vec())).collect(),
        lanes: options.chosen_target().lanes,
        threads: options.thread_count(),
        layers,
    })
}

/// The convolutions that have a choice, with the cost model's.
fn layers(network: &Network) -> Vec<TunedLayer> {
    let (graph, _) = network.optimized();
    let prepared = pass::prepared(&graph);
    let target = network.options().chosen_target();
    let model = LowerOptions { convolutions: Convolutions::Fastest };
    let mut layers: Vec<TunedLayer> = vec![];
    for group in &graph.groups {
        let Some(conv) = convolution_of(&graph, &group.nodes) else { continue };
        let Some(estimated) = algorithm_of(&graph, &group.nodes, &prepared, &target, &model) else {
            continue;
        };
        let names = group.nodes.iter().map(|&n| graph.node(n).name.clone());
        let node = graph.node(conv);
        if node.name.is_empty() || layers.iter().any(|l| l.layer == node.name) {
            continue;
        }
        layers.push(TunedLayer {
            layer: node.name.clone(),
            line: place::location(node, network.sources()),
            algorithm: estimated.algorithm,
            estimated: estimated.algorithm,
            ms: BTreeMap::new(),
            group: names.filter(|n| !n.is_empty()).collect(),
        });
    }
    layers
}

/// Runs the net by each algorithm in turn, and chooses.
fn measure(
    network: &Network,
    inputs: &BTreeMap<String, Tensor>,
    layers: &mut [TunedLayer],
    time: Duration,
) -> Result<()> {
    let weights = network.initial_weights(0)?;
    let everywhere = |a: Algorithm| layers.iter().map(|l| (l.layer.clone(), a)).collect::<Choices>();
    let models = Algorithm::ALL
        .into_iter()
        .map(|a| network.with_choices(everywhere(a)).load(&weights))
        .collect::<Result<Vec<Model>>>()?;
    let views: Vec<(&str, TensorView<'_>)> = inputs.iter().map(|(n, t)| (n.as_str(), t.into())).collect();
    for model in &models {
        model.run(&views)?;
    }
    // times[algorithm][layer]: one a run.
    let mut times = vec![vec![vec![]; layers.len()]; models.len()];
    let start = Instant::now();
    while start.elapsed() < time || times[0][0].len() < 3 {
        for (model, times) in models.iter().zip(&mut times) {
            let (_, launches) = model.run_profiled(&views)?;
            for (layer, times) in layers.iter().zip(times) {
                times.push(time_of(&layer.group, &launches));
            }
        }
    }
    for (i, layer) in layers.iter_mut().enumerate() {
        let medians = times.iter().map(|t| median(&t[i]).as_secs_f64() * 1e3);
        let ms: Vec<(Algorithm, f64)> = Algorithm::ALL.into_iter().zip(medians).collect();
        layer.algorithm = choose(layer.estimated, &ms);
        layer.ms = ms.into_iter().map(|(a, ms)| (a.name().to_string(), ms)).collect();
    }
    Ok(())
}

/// The time of the launches in a run that some layers are in.
fn time_of(layers: &[String], launches: &[LaunchTime]) -> Duration {
    let ours = |l: &&LaunchTime| l.layer.split(" + ").any(|name| layers.iter().any(|n| n == name));
    launches.iter().filter(ours).map(|l| l.time).sum()
}

/// The fastest, or the estimated one where it is hardly slower.
fn choose(estimated: Algorithm, ms: &[(Algorithm, f64)]) -> Algorithm {
    let of = |a| ms.iter().find(|m| m.0 == a).map_or(f64::INFINITY, |m| m.1);
    let fastest = ms.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(estimated, |m| m.0);
    if of(fastest) < CLEARLY * of(estimated) { fastest } else { estimated }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns = vec![("layer", Align::Left), ("line", Align::Left)];
        columns.extend(Algorithm::ALL.iter().map(|a| (a.name(), Align::Right)));
        columns.extend([("chosen", Align::Left), ("estimated", Align::Left)]);
        let mut table = Table::new(&columns);
        for layer in &self.layers {
            let ms = |a: &Algorithm| layer.ms.get(a.name()).map_or(String::new(), |ms| format!("{ms:.3}"));
            let mut cells = vec![layer.layer.clone(), layer.line.clone()];
            cells.extend(Algorithm::ALL.iter().map(ms));
            let same = layer.algorithm == layer.estimated;
            cells.push(layer.algorithm.name().to_string());
            cells.push(if same { String::new() } else { layer.estimated.name().to_string() });
            table.row(cells);
        }
        write!(f, "{table}")
    }
}

/// Algorithms as their names.
mod by_name {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Algorithm;

    pub fn serialize<S: Serializer>(a: &Algorithm, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(a.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Algorithm, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use nnc_compiler::lower::winograd::transform::Transform;

    use super::*;
    use crate::{Options, Source};

    const F4: Algorithm = Algorithm::Winograd(Transform::F4);

    fn network(options: Options) -> Network {
        let text = "use std.vision
        net two() {
            input x: f32[N, 16, 12, 12]
            output y = x -> conv(16, 1x1) as first -> conv(16, 3x3, pad = 1) as a -> relu -> conv(16, 3x3, pad = 1) as c
        }";
        Source::from_text("two.nn", text).unwrap().network(&options.set("N", 1).threads(1)).unwrap()
    }

    #[test]
    fn layers_with_a_choice_are_measured() {
        let net = network(Options::new());
        let tuning = tune(&net, Duration::ZERO).unwrap();
        let names: Vec<&str> = tuning.layers.iter().map(|l| l.layer.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        for layer in &tuning.layers {
            assert_eq!(layer.ms.len(), 3);
            assert!(layer.ms.values().all(|&ms| ms > 0.0), "{layer:?}");
            assert!(layer.line.starts_with("two.nn:4"), "{layer:?}");
        }
        assert_eq!((tuning.threads, &tuning.inputs["x"][..]), (1, &[1, 16, 12, 12][..]));
    }

    #[test]
    fn choices_decide_the_kernels() {
        let kernels = |choices: &[(&str, Algorithm)]| {
            let choices = choices.iter().map(|&(n, a)| (n.to_string(), a)).collect();
            let compiled = network(Options::new().choices(choices)).compile().unwrap();
            compiled.program().kernels.iter().map(|k| k.name.clone()).collect::<Vec<_>>().join(" ")
        };
        let direct = kernels(&[("a", Algorithm::Direct), ("c", Algorithm::Direct)]);
        assert!(!direct.contains("winograd"), "{direct}");
        let one = kernels(&[("a", Algorithm::Direct), ("c", F4)]);
        assert!(one.contains("winograd4") && !one.contains("winograd4_relu"), "{one}");
    }

    #[test]
    fn a_file_brings_back_what_was_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two.tune.json");
        let tuning = tune(&network(Options::new()), Duration::ZERO).unwrap();
        tuning.save(&path).unwrap();
        let back = Tuning::open(&path).unwrap();
        assert_eq!(back.choices(), tuning.choices());
        for (from, to) in [("\"version\": 1", "\"version\": 9"), ("direct", "dirct"), ("\"net\"", "\"nut\"")]
        {
            let text = std::fs::read_to_string(&path).unwrap().replace(from, to);
            let broken = folder.path().join("broken.json");
            std::fs::write(&broken, text).unwrap();
            let error = Tuning::open(&broken).unwrap_err().to_string();
            assert!(error.contains("broken.json"), "{error}");
        }
    }

    #[test]
    fn noise_changes_nothing() {
        let ms = |direct, winograd| [(Algorithm::Direct, direct), (F4, winograd)];
        assert_eq!(choose(F4, &ms(0.99, 1.0)), F4);
        assert_eq!(choose(F4, &ms(0.9, 1.0)), Algorithm::Direct);
        assert_eq!(choose(Algorithm::Direct, &ms(1.0, 0.5)), F4);
    }

    #[test]
    fn strict_precision_has_no_choice() {
        let error = tune(&network(Options::new().precision(Precision::Strict)), Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("strict"), "{error}");
    }
}
