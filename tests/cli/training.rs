//! `nnc train`: whole runs on a small data set, stopped, killed and resumed.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{command, nnc_in, scratch};

/// Which half of a picture is lighter, with momentum and dropout.
const HALVES: &str = "
use std.vision
net halves {
    input image: f32[N, 1, 6, 6]
    output logits = image -> conv(4, 3x3, pad = 1) -> relu -> flatten -> dropout(0.2) -> dense(2)
    train {
        input label: i32[N]
        loss = cross_entropy(logits, label)
        metric top1 = accuracy(logits, label)
        optimizer = sgd(lr = 0.05, momentum = 0.9)
        batch = 10
        epochs = 3
    }
}
";

/// 200 pictures of 6 by 6 and their labels as idx files.
fn data() -> (Vec<u8>, Vec<u8>) {
    let (n, side) = (200u32, 6u32);
    let mut images = vec![0, 0, 8, 3];
    [n, side, side].iter().for_each(|s| images.extend(s.to_be_bytes()));
    let mut labels = vec![0, 0, 8, 1];
    labels.extend(n.to_be_bytes());
    for i in 0..n {
        labels.push((i % 2) as u8);
        images
            .extend((0..36).map(|k| ((i * 7919 + k * 104_729) % 97 + (k / 18 == i % 2) as u32 * 120) as u8));
    }
    (images, labels)
}

fn folder() -> tempfile::TempDir {
    let (images, labels) = data();
    let files: &[(&str, &[u8])] = &[
        ("halves.nn", HALVES.as_bytes()),
        ("train-images-idx3-ubyte", &images),
        ("train-labels-idx1-ubyte", &labels),
    ];
    scratch(files)
}

const TRAIN: &str = "train {}/halves.nn --data mnist:{} --hold-out 0.2 --seed 3";

#[test]
fn a_run_tells_what_it_does_and_leaves_weights_that_work() {
    let folder = folder();
    let text = nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/run")).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("epoch 1/3: loss 0."), "{text}");
    assert!(lines[2].contains("; test: loss 0.") && lines[2].contains(" examples/s, "), "{text}");
    assert!(text.contains("accuracy: 100.00 % (40 of 40)"), "{text}");
    for file in ["weights.safetensors", "curves.svg", "confusion.txt", "log.jsonl"] {
        assert!(folder.path().join("run").join(file).is_file(), "{file}");
    }
    let eval = "eval {}/halves.nn --data mnist:{} --split train --weights {}/run/weights.safetensors";
    assert_eq!(nnc_in(folder.path(), eval).ok(), "accuracy: 100.00 % (200 of 200)\n");
    // The interpreter takes the same road.
    let slow = nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/slow --device reference")).ok();
    assert!(slow.contains("accuracy: 100.00 % (40 of 40)"), "{slow}");
    // The same run is refused there, goes on with more epochs, and is found to be done.
    let again = nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/run")).failed();
    assert!(again.contains("go on with --resume, or choose another --out"), "{again}");
    let more = nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/run --resume --epochs 4")).ok();
    assert!(more.starts_with("epoch 4/4: "), "{more}");
    assert!(nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/run --resume")).ok().contains("accuracy: "));
}

/// Runs in one figure: a line of training and one of tests each, named.
#[test]
fn curves_of_several_runs_are_one_figure() {
    let folder = folder();
    for seed in [1, 2] {
        let line = format!("{TRAIN} --epochs 1 --out {{}}/run{seed}");
        nnc_in(folder.path(), &line.replace("--seed 3", &format!("--seed {seed}"))).ok();
    }
    nnc_in(folder.path(), "curves {}/run1 second={}/run2/ --every 4 -o {}/both.svg --title halves").ok();
    let drawing = std::fs::read_to_string(folder.path().join("both.svg")).unwrap();
    for text in ["halves: loss", "top1", "accuracy", "run1", "run1, test", "second", "second, test", "step"] {
        assert!(drawing.contains(&format!("\n{text}\n")), "{text}: {drawing}");
    }
    // Of the only evaluation there is a point for each of three measures.
    assert_eq!(drawing.matches("<circle").count(), 6, "{drawing}");
    assert_eq!(drawing, nnc_in(folder.path(), "curves {}/run1 second={}/run2 --every 4 --title halves").ok());

    let text = nnc_in(folder.path(), "curves {}/run1 run1={}/run2").failed();
    assert!(
        text.contains(
            "two runs are called `run1`: `NAME={}/run2`"
                .replace("{}", folder.path().to_str().unwrap())
                .as_str()
        ),
        "{text}"
    );
    let text = nnc_in(folder.path(), "curves {}/nothing").failed();
    assert!(text.contains("cannot read") && text.contains("nothing"), "{text}");
    let text = nnc_in(folder.path(), "curves {}/halves.nn").failed();
    assert!(text.contains("has no steps of a training run"), "{text}");
}

fn weights(folder: &Path, run: &str) -> Vec<u8> {
    std::fs::read(folder.join(run).join("weights.safetensors")).expect("the run has ended")
}

/// Starts a run and waits until it has saved `steps` steps.
#[cfg(unix)]
fn start_and_wait(folder: &Path, run: &str, steps: usize) -> Child {
    let line = format!("{TRAIN} --out {{}}/{run} --save-every 1 --keep 1000");
    let args: Vec<String> =
        line.split_whitespace().map(|w| w.replace("{}", folder.to_str().unwrap())).collect();
    let child = command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("nnc starts");
    let checkpoints = folder.join(run).join("checkpoints");
    let (start, saved) = (Instant::now(), || std::fs::read_dir(&checkpoints).map_or(0, Iterator::count));
    while saved() < steps {
        assert!(start.elapsed() < Duration::from_secs(60), "no checkpoints");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Straight through, killed twice without a word and resumed: the same bytes.
#[cfg(unix)]
#[test]
fn killed_runs_resume_bit_for_bit() {
    let folder = folder();
    nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/straight")).ok();
    let mut child = start_and_wait(folder.path(), "killed", 5);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let resumed = nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/killed --resume"));
    assert!(resumed.stderr.contains("note: goes on after step "), "{}", resumed.stderr);
    resumed.ok();
    assert!(weights(folder.path(), "straight") == weights(folder.path(), "killed"));
    let log = |run: &str| std::fs::read_to_string(folder.path().join(run).join("log.jsonl")).unwrap();
    assert_eq!(log("straight"), log("killed"));
}

/// Ctrl-C: the step is finished, everything saved, and the command shown that goes on.
#[cfg(unix)]
#[test]
fn interrupted_runs_say_how_to_go_on() {
    let folder = folder();
    let child = start_and_wait(folder.path(), "run", 2);
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill starts").success());
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("note: stopped after step "), "{text}");
    let line = text.lines().last().expect("a command");
    assert!(line.starts_with("  ") && line.ends_with(" --resume"), "{text}");
    let resumed = nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/run --resume"));
    assert!(resumed.ok().contains("accuracy: "));
}

/// The disk is full (here: files may not grow beyond a limit) while a checkpoint is written: the one
/// before survives, and with room again the run goes on from it as if nothing had happened.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    let wide = HALVES.replace("dense(2)", "dense(400) -> relu -> dense(2)");
    let (images, labels) = data();
    let files: &[(&str, &[u8])] = &[
        ("halves.nn", wide.as_bytes()),
        ("train-images-idx3-ubyte", &images),
        ("train-labels-idx1-ubyte", &labels),
    ];
    let folder = scratch(files);
    nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/straight")).ok();
    nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/full --epochs 1")).ok();
    let listing = || -> Vec<String> {
        let entries = std::fs::read_dir(folder.path().join("full/checkpoints")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    };
    let last = "step-000000016.safetensors";
    assert_eq!(listing(), [last]);
    let path = folder.path().join("full/checkpoints").join(last);
    let before = std::fs::read(&path).unwrap();
    assert!(before.len() > 400_000, "the log has room where the checkpoint has none: {}", before.len());
    let line = format!("{TRAIN} --out {{}}/full --resume").replace("{}", folder.path().to_str().unwrap());
    // In blocks of 512 or 1024 bytes; the signal of a file that grows too large becomes an error.
    let script = format!("trap '' XFSZ; ulimit -f 200; exec {} {line}", env!("CARGO_BIN_EXE_nnc"));
    let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("error: cannot write") && text.contains("step-000000032.safetensors"), "{text}");
    assert!(text.contains("File too large"), "{text}");
    assert_eq!(listing(), [last], "nothing half-written stays");
    assert!(std::fs::read(&path).unwrap() == before);
    nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/full --resume")).ok();
    assert!(weights(folder.path(), "straight") == weights(folder.path(), "full"));
}

/// A changed learning rate counts when a run goes on; another net's weights are where a run starts.
#[test]
fn runs_start_from_weights_and_go_on_with_changed_programs() {
    let folder = folder();
    nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/run --epochs 1")).ok();
    let slower = HALVES.replace("lr = 0.05", "lr = 0.01");
    std::fs::write(folder.path().join("halves.nn"), slower).unwrap();
    let output = nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/run --resume --epochs 2"));
    let expected = "note: the program has changed since: the optimizer was `sgd(lr = 0.05, ";
    assert!(output.stderr.contains(expected), "{}", output.stderr);
    output.ok();
    let log = std::fs::read_to_string(folder.path().join("run/log.jsonl")).unwrap();
    let rates: Vec<&str> = log.lines().filter(|l| l.contains("learning_rate")).collect();
    assert!(rates[15].contains("\"learning_rate\":0.05,") && rates[16].contains("\"learning_rate\":0.01,"));

    let tuned = "--weights {}/run/weights.safetensors --fresh dense1 --epochs 1";
    let output = nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/tuned {tuned}"));
    assert!(output.stderr.contains("weights.safetensors`; fresh: dense1.weight, dense1.bias"), "{output:?}");
    output.ok();
    let wider = HALVES.replace("dense(2)", "dense(3)");
    std::fs::write(folder.path().join("halves.nn"), wider).unwrap();
    let line = format!("{TRAIN} --out {{}}/no --weights {{}}/run/weights.safetensors");
    let text = nnc_in(folder.path(), &line).failed();
    assert!(text.contains("parameter `dense1.weight`: expected f32[3, 144], found f32[2, 144]"), "{text}");
    assert!(!folder.path().join("no").exists());
}

#[test]
fn parameters_that_nothing_teaches_are_named() {
    let folder = folder();
    let forgotten =
        HALVES.replace("    train {", "    output other = image -> flatten -> dense(1)\n    train {");
    std::fs::write(folder.path().join("halves.nn"), forgotten).unwrap();
    let output = nnc_in(folder.path(), &format!("{TRAIN} --out {{}}/run --epochs 1"));
    let expected = "warning: the loss does not depend on `dense2.weight`, `dense2.bias`: they keep";
    assert!(output.stderr.contains(expected), "{}", output.stderr);
    output.ok();
    let eval = "eval {}/halves.nn --data mnist:{} --split train --weights {}/run/weights.safetensors";
    assert!(nnc_in(folder.path(), eval).ok().starts_with("accuracy: "));
}

#[test]
fn wrong_runs_are_told() {
    let folder = folder();
    let fails = |line: &str, expected: &str| {
        let text = nnc_in(folder.path(), line).failed();
        assert!(text.contains(expected), "nnc {line}\n{text}");
    };
    fails("train {}/halves.nn --data mnist:{} --resume --out {}/no", "there is no checkpoint in");
    fails(&format!("{TRAIN} --batch 161 --out {{}}/a"), "160 examples are too few for a batch of 161");
    fails(
        "train {}/halves.nn --data mnist:{} --hold-out 1.5 --out {}/a",
        "cannot hold out 1.5 of 200 examples",
    );
    fails("train {}/halves.nn --data mnist:{}/none --out {}/a", "expected `train-images-idx3-ubyte`");
    fails("train {}/halves.nn --data cifar10:{} --out {}/a", "expected CIFAR-10's binary files");
    fails("train examples/lenet.nn --data mnist:{} --out {}/a", "expected examples of shape [1, 28, 28]");
    fails("train examples/maxout.nn --data mnist:{} --out {}/a", "error");
    assert!(!folder.path().join("a").exists(), "nothing is written of a run that does not start");
}
