//! How much memory a model takes while it is loaded and run: what the plan says, and no weight twice. A test of
//! its own process, since it is the process that is measured.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::io::Write;
use std::path::Path;

use nnc::report::memory::RunMemory;
use nnc::{Compiled, Model, Network, Options, Source, Weights};

/// 160 MB of parameters: dense ones that runs read as they are, convolutions that are packed.
const WIDE: &str = "
use std.vision
net wide {
    input image: f32[1, 64, 12, 12]
    let x = image -> conv(512, 3x3, pad = 1) -> relu
    for i in 0..8 { x = x -> conv(512, 3x3, pad = 1) -> batchnorm -> relu }
    output logits = x -> flatten -> dense(280)
}
";

/// Beside the plan: code, the compiler's memory, what the allocator holds.
const BESIDE: u64 = 40 << 20;

#[test]
fn no_weight_is_in_memory_twice() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::from_text("wide.nn", WIDE).unwrap();
    let network = source.network(&Options::new().threads(2)).unwrap();
    let memory = RunMemory::of(&network).unwrap();
    // Original weights beside packed ones would be seen.
    assert!(memory.read.0 > 2 * BESIDE && memory.weights().0 > 2 * BESIDE, "{memory}");
    assert!(memory.peak().0 < memory.weights().0 + memory.read.0 - 2 * BESIDE, "{memory}");
    let planned = memory.peak().0;
    let before = resident("VmRSS:");
    let measured = |what: &str, model: Model| {
        let image = ndarray::Array4::<f32>::zeros((1, 64, 12, 12));
        model.run(&[("image", (&image).into())]).unwrap();
        let grown = resident("VmHWM:") - before;
        println!("{what}: planned {planned}, grown {grown}");
        assert!(grown < planned + BESIDE, "{what}: {grown} for\n{memory}");
        assert!(resident("VmRSS:") - before > memory.weights().0 / 10 * 9, "{what}");
    };
    let path = folder.path().join("zeros.safetensors");
    write_zeros(&network, &path);
    let weights = Weights::open(&path).unwrap();
    assert!(weights.non_finite().unwrap().is_empty());
    measured("a file of weights", network.load(&weights).unwrap());
    let file = folder.path().join("wide.nncp");
    network.compile().unwrap().with_weights(&weights).unwrap().save(&file).unwrap();
    let length = std::fs::metadata(&file).unwrap().len();
    assert!(length < memory.weights().0 + (1 << 20), "{length} bytes for\n{memory}");
    let opened = Compiled::open(&file, &Options::new().threads(2)).unwrap();
    measured("a program with its weights", opened.model().unwrap());
    drop(opened);
    measured("fresh weights", network.initialize(0).unwrap());
}

/// A file of weights that are all zero, which takes no room on a disk.
fn write_zeros(network: &Network, path: &Path) {
    let (mut entries, mut end) = (vec![], 0);
    for p in network.parameters() {
        let shape = p.ty.sizes().unwrap();
        let start = end;
        end += 4 * shape.iter().product::<usize>() as u64;
        let name = &p.name;
        entries
            .push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#));
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}

/// A field of proc(5)'s status of this process, in bytes.
fn resident(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
