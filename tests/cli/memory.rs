//! Memory of runs and of training steps: what `summary`, `explain`, `bench` and `train` say of it.

use crate::support::{nnc, nnc_in, scratch};

/// Whatever the machine: vectors of eight lanes.
const WHERE: &str = "--target-cpu avx2 --threads 2";

#[cfg(target_arch = "x86_64")]
#[test]
fn summaries_of_training_show_the_memory() {
    let text = nnc(&format!("summary examples/lenet.nn --train --batch 8 {WHERE}")).ok();
    for (kind, size) in [
        ("parameters", "241.0 KiB"),
        ("gradients of parameters", " B"),
        ("optimizer state", "241.0 KiB"),
        ("activations kept for the backward part", " KiB"),
        ("scratch memory of the threads", " KiB"),
        ("inputs and outputs", "24.6 KiB"),
        ("total", " KiB"),
    ] {
        let row = |line: &str| line.starts_with(kind) && line.ends_with(size);
        assert!(text.lines().any(row), "{kind}: {text}");
    }
    // The batch is the program's.
    let text = nnc(&format!("summary examples/lenet.nn --train {WHERE}")).ok();
    assert!(text.contains("memory of a training step, batch 64, 2 threads"), "{text}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn explanations_list_the_activations() {
    let text = nnc(&format!("explain examples/lenet.nn --train --batch 8 {WHERE}")).ok();
    let first = "conv1 + relu1  examples/lenet.nn:9   conv2d_relu  ";
    let row = |line: &str| {
        line.starts_with(first) && line.ends_with("  196.0 KiB  kept  no limit asks for its room")
    };
    assert!(text.starts_with("net lenet: a training step, batch 8\n") && text.lines().any(row), "{text}");
    assert!(text.contains(" kept, ") && text.contains("too small to be worth a kernel"), "{text}");
    let limited = |limit: &str| {
        nnc(&format!("explain examples/resnet_cifar.nn --train --batch 16 {WHERE} --memory-limit {limit}"))
    };
    let said = limited("1MB").failed();
    let least = said.split("--memory-limit ").nth(1).unwrap().split(')').next().unwrap();
    let text = limited(least).ok();
    for (fate, rule) in [("computed again", "for the limit"), ("kept", "there is room")] {
        let row = |line: &str| line.contains(&format!("{fate}  ")) && line.ends_with(rule);
        assert!(text.lines().any(row), "{fate}: {text}");
    }
    assert!(text.contains(&format!("the limit is {least}")), "{text}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn limits_that_no_plan_keeps_are_refused_with_the_smallest() {
    let folder = scratch(&[]);
    for command in ["summary", "explain", "bench"] {
        let batch = if command == "bench" { "--set N=64" } else { "--batch 64" };
        let line = format!("{command} examples/lenet.nn --train {batch} {WHERE} --memory-limit 100kB");
        let said = nnc(&line).failed();
        let start = "error: a training step does not fit into 100kB of memory: the smallest plan that was found takes ";
        assert!(said.contains(start), "{said}");
        let least = said.split("--memory-limit ").nth(1).unwrap().split(')').next().unwrap();
        nnc(&line.replace("100kB", least).replace("bench", "bench --runs 1")).ok();
    }
    let train = "train examples/lenet.nn --data mnist:tests/data/digits --out {}/run --memory-limit 1kB";
    assert!(nnc_in(folder.path(), train).failed().contains("the smallest plan that was found takes "));
}

#[test]
fn sizes_must_be_sizes() {
    let said = |size: &str| {
        let args = ["summary", "examples/lenet.nn", "--train", "--memory-limit", size];
        let output = crate::support::command(&args).output().expect("nnc starts");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    insta::assert_snapshot!(said("12 bananas"));
    assert!(said("512").contains("`512` has no unit: expected a size such as `512MB` or `1.5GiB`"));
    let text = nnc("summary examples/lenet.nn --memory-limit 1GB").failed();
    assert!(text.contains("--memory-limit is for training: give --train, too"), "{text}");
}

/// What was planned is printed with what the system counts.
#[cfg(target_os = "linux")]
#[test]
fn bench_tells_planned_and_measured_memory() {
    let text = nnc("bench examples/lenet.nn --train --set N=512 --threads 2 --runs 2 --json").ok();
    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let [planned, grown] = ["planned", "resident_growth"].map(|key| line[key].as_u64().expect("a number"));
    // Beside the plan: the compiler's memory and the code.
    assert!(grown * 10 > planned * 9 && grown < planned + (64 << 20), "{planned} {grown}");
}

#[cfg(target_os = "linux")]
#[test]
fn bench_tells_it_of_inference_too() {
    let text = nnc("bench examples/alexnet.nn --set N=1 --threads 2 --runs 1 --json").ok();
    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let [planned, grown] = ["planned", "resident_growth"].map(|key| line[key].as_u64().expect("a number"));
    assert!(planned > 240_000_000, "the parameters alone are 244 MB");
    assert!(grown * 10 > planned * 9 && grown < planned + (64 << 20), "{planned} {grown}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn summaries_show_the_memory_of_a_run() {
    let text = nnc(&format!("summary examples/vgg.nn --set N=1 --set depth=16 {WHERE}")).ok();
    for (kind, size) in [
        ("parameters", " 471.7 MiB"),
        ("weights packed once", " MiB"),
        ("scratch memory of the threads", "iB"),
        ("inputs and outputs", " KiB"),
        ("total", " MiB"),
    ] {
        let row = |line: &str| line.starts_with(kind) && line.ends_with(size);
        assert!(text.lines().any(row), "{kind}: {text}");
    }
    assert!(text.contains("\nmemory of a run, 2 threads\n"), "{text}");
    assert!(text.contains("\nloading reads 527.8 MiB of parameters; weights take "), "{text}");
}

/// The memory on a GPU is that of its own kernels: no winograd filters, no scratch memory of threads.
#[test]
fn memory_on_a_gpu() {
    let run = nnc("summary examples/vgg.nn --set N=1 --target-gpu sm_90").ok();
    assert!(run.contains("memory of a run, on a GPU (sm_90)\n"), "{run}");
    // Convolutions' weights are packed, the largest of which have 2359296 elements.
    assert!(run.contains("; weights take 536.8 MiB at most meanwhile\n"), "{run}");
    let step = nnc("summary examples/lenet.nn --train --batch 8 --target-gpu sm_80").ok();
    assert!(step.contains("memory of a training step, batch 8, on a GPU (sm_80)\n"), "{step}");
    // Eight pictures and labels, twice: the next ones are copied while a step runs.
    let batch = step.lines().find(|l| l.starts_with("inputs and outputs")).unwrap_or_default();
    assert!(batch.ends_with("49.1 KiB"), "{step}");
}
