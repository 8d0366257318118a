//! Programs that come with their weights: the same results as those that prepare them, and files that lie.
#![cfg(target_arch = "x86_64")]

mod common;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;

use common::{N, launch, sum};
use ndarray::Array2;
use nnc_runtime::memory::{Buffer, Frozen};
use nnc_runtime::program::{Class, Phase, checksum};
use nnc_runtime::{Executable, LoadError, Pool, Program, ProgramError, Session, Tensor};
use proptest::prelude::*;

fn weights() -> BTreeMap<String, Tensor> {
    let w = Array2::from_shape_fn((4, N / 4), |(i, j)| (i * 7 + j) as f32);
    BTreeMap::from([("weight".to_string(), Tensor::from(w))])
}

fn session(program: Program, weights: &BTreeMap<String, Tensor>) -> Result<Session, LoadError> {
    Session::new(Executable::load(program).unwrap(), weights, Arc::new(Pool::new(2)))
}

fn packed() -> Program {
    session(sum(), &weights()).unwrap().packed()
}

/// The same with so many weights that a file of it is mapped.
fn large() -> Program {
    let mut p = packed();
    let mut more = Buffer::zeroed((33 << 20) + 64, "a test").unwrap();
    let old = p.weights.take().unwrap();
    more.bytes_mut()[..old.len()].copy_from_slice(old.bytes());
    more.bytes_mut()[20 << 20] = 7;
    p.prepared_bytes = more.len();
    p.weights = Some(more.into());
    p
}

fn run(program: Program) -> Vec<Tensor> {
    let x = Array2::from_shape_fn((4, N / 4), |(i, j)| (i + 3 * j) as f32);
    session(program, &BTreeMap::new()).unwrap().run(&[(&x).into()]).unwrap()
}

fn prepared_here() -> Vec<Tensor> {
    let x = Array2::from_shape_fn((4, N / 4), |(i, j)| (i + 3 * j) as f32);
    session(sum(), &weights()).unwrap().run(&[(&x).into()]).unwrap()
}

fn bytes_of(p: &Program) -> Vec<u8> {
    let mut bytes = vec![];
    p.write(&mut bytes).unwrap();
    bytes
}

/// A program file in a folder of its own.
fn file(p: &Program) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nncp");
    p.write(File::create(&path).unwrap()).unwrap();
    (folder, path)
}

fn open(path: &Path) -> Result<Program, ProgramError> {
    Program::open(File::open(path).unwrap(), 2)
}

#[test]
fn nothing_is_left_to_prepare() {
    let p = packed();
    assert!(p.parameters.is_empty() && p.launches.iter().all(|l| l.phase == Phase::Run));
    assert_eq!(p.weights.as_ref().map(Frozen::len), Some(2 * 4 * N), "prepared ones, and one as it is");
    assert_eq!(p.storages.len(), 5, "the constant was for the prepare phase");
    assert_eq!(p.validate(), Ok(()));
    assert_eq!(run(p), prepared_here());
    let again = session(packed(), &BTreeMap::new()).unwrap().packed();
    assert_eq!(again, packed());
    let e = session(packed(), &weights()).unwrap_err();
    assert_eq!(e.to_string(), "the network has no parameter `weight`");
}

#[test]
fn through_memory_and_files() {
    assert_eq!(run(Program::read(&bytes_of(&packed())).unwrap()), prepared_here());
    for (program, mapped) in [(packed(), false), (large(), true)] {
        let (_folder, path) = file(&program);
        for threads in [1, 7] {
            let back = Program::open(File::open(&path).unwrap(), threads).unwrap();
            assert_eq!(back.weights.as_ref().map(Frozen::is_mapped), Some(mapped));
            assert_eq!(back, program);
            assert_eq!(run(back), prepared_here());
        }
        let at = bytes_of(&program).len() - 8 - program.prepared_bytes;
        assert_eq!(at % 4096, 0, "weights begin a page");
    }
}

/// Another file may take the place of one that is in use.
#[cfg(unix)]
#[test]
fn files_may_be_replaced_and_deleted() {
    let (folder, path) = file(&large());
    let old = open(&path).unwrap();
    let other = folder.path().join("b.nncp");
    let mut program = large();
    program.weights = Some(Buffer::zeroed(program.prepared_bytes, "a test").unwrap().into());
    program.write(File::create(&other).unwrap()).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_ne!(run(open(&path).unwrap()), prepared_here());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(run(old), prepared_here());
}

#[test]
fn files_that_are_cut_off_or_damaged_are_told() {
    let whole = bytes_of(&large());
    let (_folder, path) = file(&large());
    let end = whole.len() as u64;
    for n in [end - 1, end - 8, end - 9, end - (1 << 20), 4096, 100, 16, 12, 8, 7, 0] {
        OpenOptions::new().write(true).open(&path).unwrap().set_len(n).unwrap();
        let e = open(&path).unwrap_err();
        assert!(matches!(e, ProgramError::Magic | ProgramError::Truncated { .. }), "{n}: {e}");
    }
    for at in [whole.len() / 2, whole.len() - 9, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x80;
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(open(&path), Err(ProgramError::Checksum));
        assert_eq!(Program::read(&damaged), Err(ProgramError::Checksum));
    }
    std::fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert_eq!(open(&path).unwrap_err().to_string(), "the program is not valid: 1 bytes follow its end");
}

#[test]
fn lies_are_refused() {
    type Change = fn(&mut Program);
    let table: [(&str, Change); 4] = [
        ("expected the 32764 bytes of the prepared area as weights, found 32768", |p| p.prepared_bytes -= 4),
        ("it has weights and asks for parameter `weight`", |p| p.parameters = sum().parameters),
        ("it has weights, but launch 0 prepares some", |p| {
            p.launches.insert(0, launch([1, 1, 3], Phase::Prepare));
        }),
        (
            "storage 1 (`prepared`): 16384 bytes at 20000 are not within the 32768 bytes of the prepared area",
            |p| {
                p.storages[1].class = Class::Prepared(20000);
            },
        ),
    ];
    for (expected, change) in table {
        let mut p = packed();
        change(&mut p);
        let found = p.validate().unwrap_err().to_string();
        assert_eq!(found, format!("the program is not valid: {expected}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the header says: no panic; what reads is valid, from memory as from a file.
    #[test]
    fn mutated_files_read_or_are_refused(changes in prop::collection::vec((0.0..1.0f64, any::<u8>()), 1..6)) {
        let mut bytes = bytes_of(&packed());
        let header = 16 + u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize;
        for (at, byte) in changes {
            bytes[(at * header as f64) as usize] = byte;
        }
        let body = bytes.len() - 8;
        let (front, weights) = bytes[..body].split_at(body - 8 * N);
        let right = checksum(front, weights);
        bytes[body..].copy_from_slice(&right.to_le_bytes());
        let (_folder, path) = file(&sum());
        std::fs::write(&path, &bytes).unwrap();
        let (memory, disk) = (Program::read(&bytes), open(&path));
        prop_assert_eq!(&memory, &disk);
        if let Ok(p) = memory {
            prop_assert!(p.validate().is_ok());
        }
    }
}
