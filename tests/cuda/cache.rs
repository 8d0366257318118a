//! Compiled code in files: made once, and again where the file cannot be trusted.

use std::path::PathBuf;

use crate::double::{Double, TINY, count};

fn machine() -> Double {
    let machine = Double::new();
    machine.write("tiny.nn", TINY);
    machine
}

/// How often the driver has translated PTX in a run.
fn translations(machine: &Double) -> usize {
    machine.nnc("bench {}/tiny.nn --set N=2 --device cuda --runs 1").ok();
    count(&machine.calls(), "LinkComplete")
}

fn files(machine: &Double) -> Vec<PathBuf> {
    std::fs::read_dir(machine.path("cache")).unwrap().map(|f| f.unwrap().path()).collect()
}

#[test]
fn code_is_translated_once_for_each_driver_and_gpu() {
    let machine = machine();
    assert_eq!([translations(&machine), translations(&machine)], [1, 0]);
    let machine = machine.set("driver=13010");
    assert_eq!([translations(&machine), translations(&machine)], [1, 0]);
    let machine = machine.set("capability=10.0");
    assert_eq!([translations(&machine), translations(&machine)], [1, 0]);
    let machine = machine.set("");
    assert_eq!(translations(&machine), 0, "the first one is still there");
    assert_eq!(files(&machine).len(), 3);
}

#[test]
fn damaged_files_are_replaced() {
    let machine = machine();
    translations(&machine);
    let path = files(&machine).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for bytes in [&flipped[..], &whole[..whole.len() / 2], &[]] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!([translations(&machine), translations(&machine)], [1, 0]);
    }
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[test]
fn it_can_be_switched_off_and_need_not_be_writable() {
    let machine = machine().cache("off");
    assert_eq!([translations(&machine), translations(&machine)], [1, 1]);
    assert!(!machine.path("cache").exists());
    let machine = machine.cache("/dev/null/below");
    assert_eq!([translations(&machine), translations(&machine)], [1, 1]);
}

#[test]
fn processes_that_write_at_once() {
    let machine = machine();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| machine.nnc("bench {}/tiny.nn --set N=2 --device cuda --runs 1").ok());
        }
    });
    assert_eq!(files(&machine).len(), 1, "one entry, and nothing unfinished");
    machine.calls();
    assert_eq!(translations(&machine), 0);
}
