//! Training: the CPU's curve, the same bits for the same seed, and copies beside the steps.

use serde_json::Value;

use crate::double::{Double, TINY, count};

fn machine() -> Double {
    let machine = Double::new();
    machine.write("tiny.nn", TINY);
    machine
}

/// On 100 of the digits that the repository carries (7 steps an epoch, the last one smaller), measured on
/// the others.
const TRAIN: &str = "train {}/tiny.nn --data mnist:tests/data/mnist --hold-out 0.9 --seed 3";

fn train(machine: &Double, out: &str, more: &str) -> String {
    machine.nnc(&format!("{TRAIN} --out {{}}/{out} {more}")).ok();
    std::fs::read_to_string(machine.path(out).join("log.jsonl")).unwrap()
}

fn weights(machine: &Double, out: &str) -> Vec<u8> {
    std::fs::read(machine.path(out).join("weights.safetensors")).unwrap()
}

/// All numbers of a log in order.
fn numbers(log: &str) -> Vec<(String, f64)> {
    fn collect(name: &str, value: &Value, out: &mut Vec<(String, f64)>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(k, v)| collect(k, v, out)),
            v => out.push((name.into(), v.as_f64().unwrap())),
        }
    }
    let mut out = vec![];
    log.lines().for_each(|l| collect("", &serde_json::from_str(l).unwrap(), &mut out));
    out
}

#[test]
fn the_curve_is_that_of_the_cpu_and_the_seed_decides_it() {
    let machine = machine();
    let cpu = train(&machine, "cpu", "");
    let first = train(&machine, "first", "--device cuda");
    assert_eq!(cpu.lines().count(), 2 * 7 + 2);
    let (a, b) = (numbers(&cpu), numbers(&first));
    assert_eq!(a.len(), b.len());
    for ((name, x), (_, y)) in a.iter().zip(&b) {
        // A digit on the edge between two classes may fall to either side.
        let tolerance = if name == "loss" { 1e-4 } else { 0.01 };
        assert!((x - y).abs() <= tolerance, "{name}: {x} on the CPU, {y}");
    }
    let second = train(&machine, "second", "--device cuda");
    assert_eq!(first, second);
    assert_eq!(weights(&machine, "first"), weights(&machine, "second"));
}

#[test]
fn a_checkpoint_goes_on_bit_for_bit() {
    let machine = machine();
    let straight = train(&machine, "straight", "--device cuda");
    train(&machine, "parts", "--device cuda --epochs 1");
    let parts = train(&machine, "parts", "--device cuda --epochs 2 --resume");
    assert_eq!(straight, parts);
    assert_eq!(weights(&machine, "straight"), weights(&machine, "parts"));
}

#[test]
fn the_next_batch_is_copied_while_a_step_runs() {
    let machine = machine();
    train(&machine, "run", "--device cuda --epochs 1");
    let calls = machine.calls();
    // Steps of whole batches, the first of which is not replayed; a set of inputs has a graph for batches
    // that were copied ahead, and one for the first of all.
    let starts: Vec<usize> = (0..calls.len()).filter(|&i| calls[i].starts_with("GraphLaunch")).collect();
    let mut ahead = 0;
    for start in starts {
        let stream = calls[start].split_once(' ').unwrap().1;
        let end =
            start + calls[start..].iter().position(|c| *c == format!("StreamSynchronize {stream}")).unwrap();
        let uploads = calls[start..end].iter().filter(|c| c.starts_with("MemcpyHtoDAsync"));
        let others = uploads.filter(|c| !c.ends_with(&format!(" {stream}"))).count();
        // Pictures and labels.
        assert!(others == 0 || others == 2, "{:?}", &calls[start..end]);
        ahead += usize::from(others == 2);
    }
    assert!(ahead >= 3, "only {ahead} steps had the next batch copied meanwhile");
    assert!(count(&calls, "StreamWaitEvent") >= ahead, "steps wait for what was copied ahead");
}

#[test]
fn steps_can_be_timed_and_kernels_profiled() {
    let machine = machine();
    let text = machine.nnc("bench {}/tiny.nn --train --device cuda --runs 2").ok();
    assert!(text.contains("training steps") && text.contains("planned memory"), "{text}");
    let text = machine.nnc("bench {}/tiny.nn --train --device cuda --runs 2 --profile").ok();
    assert!(text.contains("softmax") && text.contains("tiny.nn:8"), "{text}");
}

#[test]
fn checks_of_real_gpus() {
    Double::new().test("gpu::training_steps");
    Double::new().test("gpu::lenet5_step");
    Double::new().test("gpu::inputs_copied_ahead");
}
