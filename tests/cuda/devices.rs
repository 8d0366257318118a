//! What `nnc devices` lists, and where `--device` goes.

use crate::double::{Double, TINY, count, pictures};

#[test]
fn gpus_are_listed() {
    let text = Double::with("devices=2,capability=9.0,memory=1073741824").nnc("devices").ok();
    let gpu = "Test double 1, compute capability 9.0, 1.0 GiB, 4 multiprocessors, driver for CUDA 13.0\n";
    assert!(text.starts_with("cpu   ") && text.ends_with(&format!("cuda  1: {gpu}")), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    let text = Double::with("capability=7.5").nnc("devices").ok();
    let refused = "cannot be used: `Test double 0` is too old: expected compute capability 8.0, found 7.5\n";
    assert!(text.ends_with(refused), "{text}");
}

/// Machines on which no program runs on a GPU, and why.
fn without() -> Vec<(Double, &'static str)> {
    vec![
        (Double::missing(), "no NVIDIA driver is installed: its library (libcuda) is not found"),
        (Double::with("devices=0"), "the NVIDIA driver finds no GPU"),
        (
            Double::with("stub=1"),
            "the library that is found (libcuda) is a stub of CUDA's toolkit, not that of an NVIDIA driver",
        ),
        (
            Double::with("driver=11040"),
            "the NVIDIA driver is too old: expected one for CUDA 12.0, found one for CUDA 11.4",
        ),
    ]
}

#[test]
fn without_a_gpu_it_is_said_why() {
    for (machine, why) in without() {
        let text = machine.nnc("devices").ok();
        assert!(text.ends_with(&format!("cuda  none: {why}\n")), "{text}");
        machine.write("tiny.nn", TINY);
        machine.write("x.npy", pictures());
        for line in ["run {}/tiny.nn --input {}/x.npy", "bench {}/tiny.nn", "bench {}/tiny.nn --train"] {
            let error = machine.nnc(&format!("{line} --device cuda")).error();
            assert_eq!(error, format!("there is no GPU to run on: {why}"), "{line}");
        }
        // It falls back without a word.
        let line = "run {}/tiny.nn --input {}/x.npy --seed 1 --device";
        let [auto, cpu] = ["auto", "cpu"].map(|device| machine.nnc(&format!("{line} {device}")));
        assert_eq!((auto.stderr.clone(), auto.ok()), (cpu.stderr.clone(), cpu.ok()));
    }
}

#[test]
fn an_old_gpu_is_passed_over() {
    let machine = Double::with("capability=7.0");
    machine.write("tiny.nn", TINY);
    let error = machine.nnc("bench {}/tiny.nn --device cuda").error();
    assert_eq!(
        error,
        "there is no GPU to run on: `Test double 0` is too old: expected compute capability 8.0, found 7.0"
    );
    machine.nnc("bench {}/tiny.nn --device auto --runs 1").ok();
    assert_eq!(count(&machine.calls(), "DevicePrimaryCtxRetain"), 0);
}

#[test]
fn auto_takes_the_gpu() {
    let machine = Double::new();
    machine.write("tiny.nn", TINY);
    machine.nnc("bench {}/tiny.nn --device auto --runs 1").ok();
    assert!(count(&machine.calls(), "GraphLaunch") > 0);
    machine.nnc("bench {}/tiny.nn --runs 1").ok();
    assert_eq!(machine.calls(), Vec::<String>::new(), "the CPU is the default, and asks for no GPU");
}
