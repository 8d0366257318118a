//! What is said when the driver fails.

use nnc::runtime::Program;

use crate::double::{Double, TINY, pictures};

fn machine(settings: &str) -> Double {
    let machine = Double::with(settings);
    machine.write("tiny.nn", TINY);
    machine
}

const BENCH: &str = "bench {}/tiny.nn --set N=2 --device cuda --runs 3";

/// The path of the net, as messages have it.
fn line(machine: &Double, n: u32) -> String {
    format!("({}:{n})", machine.path("tiny.nn").display())
}

#[test]
fn a_kernel_that_fails_is_named_with_its_line() {
    let machine = machine("fail=conv2d_relu");
    let error = machine.nnc(BENCH).error();
    let (start, end) = (
        "kernel `conv2d_relu",
        "failed: unspecified launch failure (CUDA_ERROR_LAUNCH_FAILED of cuStreamSynchronize)",
    );
    assert!(error.starts_with(start) && error.ends_with(end), "{error}");
    assert!(error.contains(&format!("of `conv1 + relu1` {}", line(&machine, 4))), "{error}");
}

#[test]
fn so_is_one_that_fails_in_training_and_in_preparing() {
    for (kernel, command) in
        [("softmax", "bench {}/tiny.nn --train --device cuda --runs 1"), ("rsqrt", BENCH)]
    {
        let machine = machine("");
        machine.nnc(command).ok();
        let machine = machine.set(&format!("fail={kernel}"));
        let error = machine.nnc(command).error();
        assert!(error.starts_with("kernel `") && error.contains(kernel), "{error}");
        assert!(error.contains(&line(&machine, if kernel == "softmax" { 8 } else { 4 })), "{error}");
    }
}

/// After the first run kernels are replayed as a graph: the driver does not say which one failed.
#[test]
fn a_replayed_run_that_fails_says_how_to_find_out() {
    let machine = machine("fail=conv2d_relu,after=2");
    let error = machine.nnc(BENCH).error();
    assert!(
        error.starts_with("a run of `tiny` failed, in one of ")
            && error.contains("NNC_CUDA_BLOCKING set to 1"),
        "{error}"
    );
    let error = machine.blocking().nnc(BENCH).error();
    assert!(error.starts_with("kernel `conv2d_relu"), "{error}");
}

#[test]
fn memory_that_is_not_there_is_counted() {
    let error = machine("memory=1000").nnc(BENCH).error();
    assert_eq!(
        error,
        "out of memory on `Test double 0`: 1792 bytes are needed for the weights, 1000 bytes of 1000 bytes are free"
    );
    let error = machine("memory=20000").nnc("bench {}/tiny.nn --set N=64 --device cuda").error();
    let (start, end) = ("out of memory on `Test double 0`: ", " of 20.0 kB are free");
    assert!(error.starts_with(start) && error.ends_with(end), "{error}");
    assert!(error.contains(" are needed for the arena with inputs and outputs, "), "{error}");
    let error = machine("memory=20000").nnc("bench {}/tiny.nn --train --device cuda").error();
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn code_that_the_driver_refuses_is_shown_with_its_messages() {
    let machine = machine("");
    machine.write("x.npy", pictures());
    machine.nnc("compile {}/tiny.nn --set N=2 --target-gpu sm_80 -o {}/tiny.nncp").ok();
    let mut program = Program::read(&std::fs::read(machine.path("tiny.nncp")).unwrap()).unwrap();
    let text = String::from_utf8(program.code).unwrap();
    program.code = text.replacen("ld.global", "odd.global", 1).into_bytes();
    let mut bytes = vec![];
    program.write(&mut bytes).unwrap();
    machine.write("tiny.nncp", &bytes);
    let error = machine.nnc("run {}/tiny.nncp --device cuda --input {}/x.npy").error();
    assert!(error.starts_with("the driver refuses the code: a PTX JIT compilation failed"), "{error}");
    assert!(error.contains("(CUDA_ERROR_INVALID_PTX of cuLinkAddData)\nptxas double: line "), "{error}");
    // An entry that is not there.
    let mut program = program.clone();
    program.code = text.into_bytes();
    if let Some(grid) = &mut program.kernels[0].grid {
        grid.entry = "nobody".into();
    }
    let mut bytes = vec![];
    program.write(&mut bytes).unwrap();
    machine.write("tiny.nncp", &bytes);
    let error = machine.nnc("run {}/tiny.nncp --device cuda --input {}/x.npy").error();
    assert!(
        error.ends_with("failed: named symbol not found (CUDA_ERROR_NOT_FOUND of cuModuleGetFunction)"),
        "{error}"
    );
}
