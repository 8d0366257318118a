//! Programs in inference: the CPU's results, and what the driver is asked for.

use nnc::data::npy;

use crate::double::{Double, TINY, count, pictures};

fn machine(settings: &str) -> Double {
    let machine = Double::with(settings);
    machine.write("tiny.nn", TINY);
    machine.write("x.npy", pictures());
    machine
}

fn logits(machine: &Double, name: &str) -> Vec<f32> {
    let tensor = npy::read(machine.path(name), nnc::DType::F32).unwrap();
    tensor.as_f32().unwrap().iter().copied().collect()
}

const RUN: &str = "run {}/tiny.nn --input {}/x.npy --seed 1 --output";

#[test]
fn the_results_are_those_of_the_cpu() {
    for capability in ["8.6", "9.0", "12.0"] {
        let machine = machine(&format!("capability={capability}"));
        machine.nnc(&format!("{RUN} logits={{}}/cpu.npy")).ok();
        machine.nnc(&format!("{RUN} logits={{}}/cuda.npy --device cuda")).ok();
        let (cpu, cuda) = (logits(&machine, "cpu.npy"), logits(&machine, "cuda.npy"));
        for (a, b) in cpu.iter().zip(&cuda) {
            assert!((a - b).abs() < 1e-5, "{cpu:?} {cuda:?}");
        }
    }
}

#[test]
fn weights_are_uploaded_once_and_runs_are_one_graph() {
    let machine = machine("");
    let runs = |n: usize| {
        machine.nnc(&format!("bench {{}}/tiny.nn --set N=2 --device cuda --runs {n}")).ok();
        machine.calls()
    };
    let (one, many) = (runs(1), runs(40));
    for function in
        ["MemAlloc", "MemHostAlloc", "MemcpyHtoDAsync", "LaunchKernel", "GraphInstantiateWithFlags"]
    {
        assert_eq!(count(&one, function), count(&many, function), "{function}");
    }
    // And one more, with the inputs there, to be timed.
    assert_eq!(count(&many, "GraphInstantiateWithFlags"), 2);
    assert!(count(&many, "GraphLaunch") >= 40);
    // A fixed one, weights, a run; and for a while what only the preparation needs.
    assert_eq!(count(&many, "MemAlloc"), 4);
    assert_eq!(count(&many, "MemFree"), 4);
    assert_eq!(count(&many, "MemcpyDtoH"), 0, "results come through page-locked memory");
    // Launched once, and captured twice; the rest prepares.
    let frees = many.iter().position(|c| c == "MemFree").unwrap();
    let (prepared, run) = many.split_at(frees);
    assert!(count(prepared, "LaunchKernel") > 0);
    assert_eq!(count(run, "LaunchKernel") % 3, 0);
}

/// A net whose weights are 19 MB.
const LARGE: &str = "net large {
    input x: f32[1, 150000]
    param w: f32[150000, 32] = INIT
    output y = matmul(x, w)
}
";

/// They go in three slices; they are drawn by slices, or as a whole.
#[test]
fn large_weights_are_uploaded_in_slices() {
    let machine = machine("");
    machine.write("x.npy", npy::to_bytes(&ndarray::Array2::from_elem((1, 150_000), 0.5f32).into()));
    for init in ["glorot_uniform", "orthogonal"] {
        machine.write("large.nn", LARGE.replace("INIT", init));
        let run = |device: &str| {
            let line = "run {}/large.nn --input {}/x.npy --seed 1 --precision strict --output y={}/y.npy";
            machine.nnc(&format!("{line} --device {device}")).ok();
            logits(&machine, "y.npy")
        };
        for (a, b) in run("cpu").iter().zip(run("cuda")) {
            assert!((a - b).abs() < 1e-3, "{init}: {a} {b}");
        }
    }
    machine.calls();
    machine.nnc("run {}/large.nn --input {}/x.npy --seed 1 --device cuda").ok();
    assert_eq!(count(&machine.calls(), "MemcpyHtoDAsync"), 4, "three slices and the input");
}

#[test]
fn the_clock_of_the_gpu_is_read() {
    let machine = machine("");
    let text = machine.nnc("bench {}/tiny.nn --set N=2 --device cuda --runs 3 --json").ok();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(line["device_ms_median"].as_f64().unwrap() > 0.0, "{text}");
    assert!(machine.nnc("bench {}/tiny.nn --device cuda --runs 1").ok().contains(" ms on the GPU)"));
    assert!(!machine.nnc("bench {}/tiny.nn --runs 1 --json").ok().contains("device_ms"));
}

#[test]
fn profiles_name_kernels_layers_and_lines() {
    let text = machine("").nnc("bench {}/tiny.nn --set N=2 --device cuda --runs 2 --profile").ok();
    let limits =
        ["% peak: of 8192 GFLOP/s, by clock and units\n", "% memory: of 64.0 GB/s, by clock and bus;"];
    for part in ["conv2d", "conv1 + relu1", "tiny.nn:4", "medians of 2 runs"].into_iter().chain(limits) {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn sizes_that_come_with_the_input() {
    let machine = machine("");
    machine.write("digit.png", std::fs::read("examples/images/digits/3a.png").unwrap());
    let line = "eval {}/tiny.nn --data mnist:tests/data/mnist --split train --batch 300 --weights {}/w";
    machine.nnc("train {}/tiny.nn --data mnist:tests/data/mnist --hold-out 0.9 --out {}/run --epochs 1").ok();
    std::fs::rename(machine.path("run/weights.safetensors"), machine.path("w")).unwrap();
    let [cpu, cuda] = ["cpu", "cuda"].map(|d| machine.nnc(&format!("{line} --device {d}")).ok());
    assert_eq!(cpu, cuda);
}

#[test]
fn program_files_for_gpus() {
    let machine = machine("capability=8.6");
    machine.nnc("compile {}/tiny.nn --set N=2 --target-gpu sm_80 -o {}/tiny80.nncp").ok();
    machine.nnc("compile {}/tiny.nn --set N=2 --target-gpu sm_90 -o {}/tiny90.nncp").ok();
    machine.nnc("compile {}/tiny.nn --set N=2 -o {}/cpu.nncp").ok();
    machine.nnc(&format!("{RUN} logits={{}}/source.npy --device cuda")).ok();
    let run = |file: &str, device: &str| {
        let line = "--input {}/x.npy --seed 1 --output logits={}/file.npy";
        machine.nnc(&format!("run {{}}/{file} {line} --device {device}"))
    };
    run("tiny80.nncp", "cuda").ok();
    assert_eq!(logits(&machine, "file.npy"), logits(&machine, "source.npy"));
    let refused = [
        ("tiny90.nncp", "cuda", "the program is made for compute capability 9.0, `Test double 0` has 8.6"),
        (
            "tiny80.nncp",
            "cpu",
            &format!("the program is made for nvptx64, this machine is {}", std::env::consts::ARCH),
        ),
        ("cpu.nncp", "cuda", &format!("the program is made for {}, not for a GPU", std::env::consts::ARCH)),
    ];
    for (file, device, why) in refused {
        assert_eq!(run(file, device).error(), *why);
    }
}

#[test]
fn small_checks_of_real_gpus() {
    for test in ["gpu::operations", "gpu::runs_take_turns", "gpu::branches_beside_each_other", "gpu::lenet5"]
    {
        Double::new().test(test);
    }
}

/// PTX leaves open how tensor cores round their sums.
#[test]
fn small_checks_with_sums_that_are_cut_off() {
    for test in ["gpu::operations", "gpu::lenet5", "gpu::lenet5_step"] {
        Double::with("sums=truncated").test(test);
    }
}
