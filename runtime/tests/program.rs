//! Program files: round trips, damage, lies.
#![cfg(target_arch = "x86_64")]

mod common;

use common::sum;
use nnc_runtime::program::{Access, Class, GPU_ARCHITECTURE, Grid, Initializer, Phase, checksum};
use nnc_runtime::{Program, ProgramError};
use proptest::prelude::*;

fn file(p: &Program) -> Vec<u8> {
    let mut bytes = vec![];
    p.write(&mut bytes).unwrap();
    bytes
}

/// Puts a right checksum at the end, so that lies reach the validation.
fn seal(bytes: &mut [u8]) {
    let body = bytes.len() - 8;
    let sum = checksum(&bytes[..body], &[]);
    bytes[body..].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn each_byte_counts_once() {
    let mut p = sum();
    let bytes = 4 * common::N as u64;
    assert_eq!(p.bytes_of(&p.launches[0]), 3 * bytes);
    p.launches[0].args[1] = p.launches[0].args[0].clone();
    assert_eq!(p.bytes_of(&p.launches[0]), 2 * bytes, "read twice");
    p.kernels[0].params[2].access = Access::ReadWrite;
    assert_eq!(p.bytes_of(&p.launches[0]), 3 * bytes, "read and written");
    p.kernels[0].params[2].bytes = usize::MAX;
    assert_eq!(p.bytes_of(&p.launches[0]), u64::MAX, "a lie in a file");
}

#[test]
fn round_trip() {
    let mut p = sum();
    p.parameters[0].init = Initializer::Uniform { low: 0.1, high: 1.0 / 3.0 };
    let bytes = file(&p);
    assert_eq!(Program::read(&bytes).unwrap(), p);
    let code = bytes.windows(common::ADD.len()).position(|w| w == common::ADD).unwrap();
    assert_eq!(code % 64, 0);
}

#[test]
fn truncation_is_told_at_every_length() {
    let bytes = file(&sum());
    for n in (0..bytes.len()).step_by(97).chain([8, 12, 16, bytes.len() - 1]) {
        let e = Program::read(&bytes[..n]).unwrap_err();
        assert!(matches!(e, ProgramError::Magic | ProgramError::Truncated { .. }), "{n}: {e}");
    }
}

#[test]
fn lying_lengths() {
    for lie in [u64::MAX, 1 << 40, u64::MAX - 15] {
        let mut bytes = file(&sum());
        bytes[8..16].copy_from_slice(&lie.to_le_bytes());
        assert!(matches!(Program::read(&bytes), Err(ProgramError::Truncated { .. })));
    }
    let mut longer = file(&sum());
    longer.extend([0; 3]);
    assert_eq!(
        Program::read(&longer).unwrap_err().to_string(),
        "the program is not valid: 3 bytes follow its end"
    );
}

#[test]
fn damage_is_detected() {
    let mut bytes = file(&sum());
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    assert_eq!(Program::read(&bytes), Err(ProgramError::Checksum));
}

fn refusal(change: impl FnOnce(&mut Program)) -> String {
    let mut p = sum();
    change(&mut p);
    p.validate().unwrap_err().to_string().replace("the program is not valid: ", "")
}

#[test]
fn lies_are_refused() {
    type Change = fn(&mut Program);
    let table: [(&str, Change); 21] = [
        ("there are two parameters `weight`", |p| p.parameters.push(p.parameters[0].clone())),
        ("`x` is too large: shape [1099511627776, 1099511627776]", |p| {
            p.inputs[0].shape = vec![1 << 40, 1 << 40]
        }),
        ("`x` is too large: shape [0, 1099511627776, 1099511627776]", |p| {
            p.inputs[0].shape = vec![0, 1 << 40, 1 << 40];
        }),
        ("the initialiser of `weight` is not finite", |p| {
            p.parameters[0].init = Initializer::Constant(f64::NAN)
        }),
        ("the arena is too large: 18446744073709551615 bytes", |p| p.arena_bytes = usize::MAX),
        ("storage 0 (`x`): there is no input 1", |p| p.storages[0].class = Class::Input(1)),
        ("storage 2 (`weight`): another storage is input 0 too", |p| p.storages[2].class = Class::Input(0)),
        ("storage 0 (`x`): expected the 16384 bytes of `x`, found 7", |p| p.storages[0].bytes = 7),
        (
            "storage 5 (`between`): 16384 bytes at 18446744073709551615 are not within the 16448 bytes of the arena",
            |p| {
                p.storages[5].class = Class::Arena(usize::MAX);
            },
        ),
        ("storage 5 (`between`): byte 8 of the arena, where it begins, is not a multiple of 64", |p| {
            p.storages[5].class = Class::Arena(8);
        }),
        ("kernel `add`: its code starts at byte 42 of 42", |p| p.kernels[0].code_offset = 42),
        ("kernel `add`: it needs 18446744073709551615 bytes of scratch memory", |p| {
            p.kernels[0].scratch_bytes = usize::MAX;
        }),
        ("launch 0: there is no kernel 1", |p| p.launches[0].kernel = 1),
        ("launch 1: `add` takes 3 arguments, found 2", |p| {
            p.launches[1].args.pop();
        }),
        ("launch 1: argument 2 of `add`: there is no storage 99", |p| p.launches[1].args[2].storage = 99),
        (
            "launch 1: argument 1 of `add`: 16384 bytes at 4 are not within the 16384 bytes of `prepared`",
            |p| {
                p.launches[1].args[1].offset = 4;
            },
        ),
        ("launch 1: argument 0 of `add`: it may not be written", |p| {
            p.kernels[0].params[0].access = Access::ReadWrite;
            p.launches.remove(0);
            p.launches.swap(0, 1);
        }),
        ("launch 1: argument 0 of `add`: the prepare phase does not have it", |p| {
            p.launches[1].phase = Phase::Prepare
        }),
        (
            "storage 4 (`prepared`): 16384 bytes at 0 are not within the 0 bytes of the prepare phase's memory",
            |p| p.storages[4].class = Class::Preparing(0),
        ),
        ("launch 1: argument 1 of `add`: only the prepare phase has it", |p| {
            p.storages[4].class = Class::Preparing(0);
            p.preparing_bytes = p.prepared_bytes;
        }),
        ("nothing writes output `y`", |p| {
            p.launches.pop();
        }),
    ];
    for (expected, change) in table {
        let found = refusal(change);
        assert_eq!(found, expected);
    }
}

#[test]
fn a_launch_may_not_write_what_it_shares_with_another_storage() {
    let e = refusal(|p| {
        p.storages.push(p.storages[5].clone());
        p.storages[6].name = "other".into();
        p.storages[6].class = Class::Arena(0);
        p.launches[2].args[1].storage = 6;
        p.launches[2].args[2].storage = 5;
    });
    assert_eq!(e, "launch 2: `add` writes `between`, which shares bytes with `other`");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes: no panic; what reads is valid.
    #[test]
    fn mutated_files_read_or_are_refused(
        changes in prop::collection::vec((0.0..1.0f64, any::<u8>()), 1..6),
        sealed in any::<bool>(),
    ) {
        let mut bytes = file(&sum());
        // The header is the interesting half.
        let header = 16 + u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize;
        for (at, byte) in changes {
            bytes[(at * header as f64) as usize] = byte;
        }
        if sealed {
            seal(&mut bytes);
        }
        if let Ok(p) = Program::read(&bytes) {
            prop_assert!(p.validate().is_ok());
        }
    }

    /// Numbers of the header replaced by others: the way a liar would go.
    #[test]
    fn lying_numbers_read_or_are_refused(which in 0usize..200, lie in prop_oneof![0u64..10_000, any::<u64>()]) {
        let bytes = file(&sum());
        let length = u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize;
        let header = String::from_utf8(bytes[16..16 + length].to_vec()).unwrap();
        let mut parts: Vec<String> = vec![];
        for c in header.chars() {
            match parts.last_mut() {
                Some(p) if c.is_ascii_digit() == p.ends_with(|d: char| d.is_ascii_digit()) => p.push(c),
                _ => parts.push(c.to_string()),
            }
        }
        let numbers: Vec<usize> = (0..parts.len()).filter(|&i| parts[i].starts_with(|c: char| c.is_ascii_digit())).collect();
        parts[numbers[which % numbers.len()]] = lie.to_string();
        let header = parts.concat();
        let mut lying = b"nncprog3".to_vec();
        lying.extend((header.len() as u64).to_le_bytes());
        lying.extend(header.as_bytes());
        lying.resize(lying.len().next_multiple_of(64), 0);
        lying.extend(&bytes[(16 + length).next_multiple_of(64)..]);
        seal(&mut lying);
        if let Ok(p) = Program::read(&lying) {
            prop_assert!(p.validate().is_ok());
        }
    }

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = b"nncprog3".to_vec();
        bytes.extend(noise);
        prop_assert!(Program::read(&bytes).is_err());
    }
}

/// The program for a GPU.
fn for_gpu() -> Program {
    let mut p = sum();
    (p.architecture, p.features) = (GPU_ARCHITECTURE.into(), vec!["sm_80".into()]);
    p.code = b".version 7.0\n.target sm_80\n".to_vec();
    p.kernels[0].grid = Some(Grid { entry: "k0_add".into(), blocks: 16, threads: 256, shared_bytes: 0 });
    p
}

#[test]
fn programs_for_gpus_have_text_and_grids() {
    let p = for_gpu();
    assert_eq!(Program::read(&file(&p)), Ok(p.clone()));
    assert_eq!((p.ptx(), sum().ptx()), (Some(".version 7.0\n.target sm_80\n"), None));
    let refused = |change: fn(&mut Grid)| {
        let mut p = for_gpu();
        change(p.kernels[0].grid.as_mut().unwrap());
        p.validate().unwrap_err().to_string().replace("the program is not valid: kernel `add`: ", "")
    };
    assert_eq!(refused(|g| g.entry = "k 0".into()), "`k 0` is no name of an entry");
    let launch = |blocks, threads, shared: u32| {
        format!(
            "{blocks} blocks of {threads} threads with {shared} bytes of shared memory cannot be launched"
        )
    };
    assert_eq!(refused(|g| g.threads = 1025), launch(16, 1025, 0));
    assert_eq!(refused(|g| g.threads = 0), launch(16, 0, 0));
    assert_eq!(refused(|g| g.blocks = 1 << 31), launch(1u32 << 31, 256, 0));
    assert_eq!(refused(|g| g.shared_bytes = 1 << 20), launch(16, 256, 1 << 20));
    assert_eq!(
        refusal(|p| p.kernels[0].grid = for_gpu().kernels[0].grid.clone()),
        "kernel `add`: it has a grid, but is no GPU's"
    );
    assert_eq!(
        refusal(|p| *p = Program { kernels: sum().kernels, ..for_gpu() }),
        "kernel `add`: it is a GPU's, but has no grid"
    );
    assert_eq!(refusal(|p| *p = Program { code: vec![0xff], ..for_gpu() }), "its code is not text");
}

#[test]
fn programs_for_gpus_are_refused_by_the_cpu() {
    let e = nnc_runtime::Executable::load(for_gpu()).unwrap_err().to_string();
    assert_eq!(e, format!("the program is made for nvptx64, this machine is {}", std::env::consts::ARCH));
}
