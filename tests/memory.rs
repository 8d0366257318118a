//! The memory of training steps: what is planned, and that a limit changes nothing but the plan.
#![cfg(target_arch = "x86_64")]

use nnc::train::{Fate, Kind, StepMemory, Trainer, TrainerOptions};
use nnc::{ByteSize, Device, Error, Options, Source, Tensor};

/// State of every kind: running statistics, momentum, dropout, a skip connection.
const SQUARES: &str = "
use std.vision
net squares {
    input image: f32[N, 3, 16, 16]
    let x = image -> conv(16, 3x3, pad = 1) -> batchnorm -> relu
    for i in 0..4 {
        x = (x -> conv(16, 3x3, pad = 1) -> batchnorm -> relu -> dropout(0.2)) + x
    }
    output logits = x -> maxpool(2x2) -> flatten -> dense(10)
    train {
        input label: i32[N]
        loss = cross_entropy(logits, label)
        optimizer = sgd(lr = 0.05, momentum = 0.9)
        batch = 8
    }
}
";

fn source() -> Source {
    Source::from_text("squares.nn", SQUARES).unwrap()
}

fn options() -> Options {
    Options::new().device(Device::Cpu).threads(2)
}

fn planned(limit: Option<u64>) -> Result<StepMemory, Error> {
    let options = limit.iter().fold(options(), |o, &limit| o.memory_limit(ByteSize(limit)));
    StepMemory::of(&source(), &options, &TrainerOptions::default())
}

/// The smallest limit that is not refused, as the refusal says it.
fn least() -> ByteSize {
    let message = planned(Some(1000)).unwrap_err().to_string();
    let (_, rest) = message.split_once("(--memory-limit ").unwrap_or_else(|| panic!("{message}"));
    rest.split(')').next().unwrap().parse().unwrap()
}

/// Three steps: the bytes of the last checkpoint.
fn trained(options: &Options) -> (Vec<u8>, StepMemory) {
    let how = TrainerOptions { seed: 3, ..TrainerOptions::default() };
    let mut trainer = Trainer::new(&source(), options, &how).unwrap_or_else(|e| panic!("{e}"));
    let pixels = (0..8 * 3 * 256).map(|i| ((i * 7919) % 251) as f32 / 251.0).collect();
    let image = ndarray::Array4::from_shape_vec((8, 3, 16, 16), pixels).unwrap();
    let label: Tensor = ndarray::arr1(&[0, 1, 2, 3, 4, 5, 6, 7]).into();
    for _ in 0..3 {
        trainer.step(&[("image", (&image).into()), ("label", label.view())]).unwrap();
    }
    let memory = trainer.memory().expect("the CPU has a plan").clone();
    (trainer.checkpoint().unwrap().to_bytes().unwrap(), memory)
}

#[test]
fn limits_change_no_bit() {
    let (bits, whole) = trained(&options());
    assert!(whole.activations.iter().all(|a| a.fate == Fate::Kept));
    let (least, total) = (least(), whole.total().0);
    assert!(least.0 * 10 < total * 9, "{least} of {total}");
    for limit in [least, ByteSize(least.0 / 2 + total / 2), ByteSize(total - total / 100)] {
        let (again, memory) = trained(&options().memory_limit(limit));
        assert!(memory.total() <= limit, "{} for {limit}", memory.total());
        assert!(memory.activations.iter().any(|a| a.fate == Fate::Recomputed));
        assert_eq!(memory.limit, Some(limit));
        assert!(bits == again, "at most {limit}");
    }
    let (again, memory) = trained(&options().memory_limit(ByteSize(total)));
    assert!(memory.activations.iter().all(|a| a.fate == Fate::Kept) && bits == again);
}

#[test]
fn what_a_step_takes() {
    let memory = planned(None).unwrap();
    let of = |kind| memory.usage.of(kind);
    let parameters = 4 * (3 * 16 * 9 + 4 * 16 * 16 * 9 + 5 * 3 * 16 + 16 * 64 * 10 + 10);
    assert_eq!(of(Kind::Parameters), parameters);
    assert_eq!(of(Kind::OptimizerState), parameters);
    assert_eq!(of(Kind::OtherParameters), 4 * 5 * 2 * 16);
    assert_eq!(Kind::ALL.iter().map(|&k| of(k)).sum::<usize>() as u64, memory.total().0);
    // At the peak, most of what the activations take when all are there.
    let kept: usize = memory.activations.iter().map(|a| a.bytes).sum();
    assert!(
        of(Kind::Activations) <= kept + 64 * memory.activations.len() && of(Kind::Activations) * 4 > kept
    );
    let drawn = memory.to_string();
    assert!(drawn.contains("memory of a training step, batch 8, 2 threads"), "{drawn}");
}

#[test]
fn the_interpreter_keeps_no_limit() {
    let options = Options::new().device(Device::Reference).memory_limit(ByteSize(1 << 30));
    let e = Trainer::new(&source(), &options, &TrainerOptions::default()).unwrap_err();
    assert_eq!(e.to_string(), "the reference device plans no memory, so it can keep no limit");
}
