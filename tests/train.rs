//! Training by the library: small nets, whole runs, most of them on the reference device.

use std::path::Path;
use std::sync::Arc;

use nnc::data::augment::{Augment, Transform};
use nnc::data::batches::{Batches, Rest};
use nnc::data::dataset::{Dataset, Part, split};
use nnc::data::idx;
use nnc::data::pictures::Pictures;
use nnc::train::checkpoint::{Checkpoint, Folder};
use nnc::train::fit::{CHECKPOINTS, CONFUSION, CURVES, FitOptions, Flow, Position, WEIGHTS, Watch, fit};
use nnc::train::{Measures, Trainer, TrainerOptions};
use nnc::{Device, Options, Source, Weights};

/// Which half of a picture of 4 by 4 is lighter; dropout, batch normalisation and momentum, so that
/// there is state of every kind.
const HALVES: &str = "
use std.vision
net halves {
    input image: f32[N, 1, 4, 4]
    output logits = image -> conv(3, 3x3, pad = 1) -> batchnorm -> relu -> flatten -> dropout(0.25) -> dense(2)
    train {
        input label: i32[N]
        loss = cross_entropy(logits, label)
        metric top1 = accuracy(logits, label)
        optimizer = sgd(lr = 0.1, momentum = 0.9)
        schedule = cosine(epochs = 4)
        epochs = 4
        batch = 8
    }
}
";

fn halves(n: usize, from: usize) -> Arc<dyn Dataset> {
    let pixel = |i: usize, k: usize| {
        let noise = ((i + from) * 7919 + k * 104_729) % 97;
        let light = (k / 8 == i % 2) as usize * 120;
        (noise + light) as u8
    };
    let pixels = (0..n).flat_map(|i| (0..16).map(move |k| pixel(i, k))).collect();
    let labels = (0..n).map(|i| (i % 2) as i32).collect();
    Arc::new(Pictures::new([1, 4, 4], pixels, labels, vec!["upper".into(), "lower".into()]).unwrap())
}

fn how() -> Options {
    Options::new().device(Device::Reference)
}

fn trainer(text: &str, examples: usize) -> Trainer {
    trainer_on(&how(), text, examples)
}

fn trainer_on(how: &Options, text: &str, examples: usize) -> Trainer {
    let source = Source::from_text("halves.nn", text).unwrap();
    let options = TrainerOptions { seed: 5, examples, data: "halves".into(), ..TrainerOptions::default() };
    Trainer::new(&source, how, &options).unwrap_or_else(|e| panic!("{}", e.render(false)))
}

fn options(out: Option<&Path>) -> FitOptions {
    let augment = Augment { crop: 1, flip: true };
    FitOptions { epochs: 4, augment, out: out.map(Path::to_path_buf), ..FitOptions::default() }
}

/// Stops after so many steps.
struct After(u64);

impl Watch for After {
    fn step(&mut self, _: &Position, _: &Measures) -> Flow {
        self.0 -= 1;
        if self.0 == 0 { Flow::Stop } else { Flow::Continue }
    }
}

#[test]
fn a_net_learns_and_everything_is_written() {
    let out = tempfile::tempdir().unwrap();
    let (train, test) = (halves(84, 0), halves(21, 1000));
    let mut trainer = trainer(HALVES, 84);
    assert_eq!((trainer.epochs(), trainer.steps_an_epoch(), trainer.classes()), (Some(4), 11, Some(2)));
    assert_eq!(trainer.settings().rest, 4);
    let fitted = fit(&mut trainer, &train, Some(&test), &options(Some(out.path())), &mut ()).unwrap();
    assert!(fitted.finished);
    let evaluation = fitted.evaluation.unwrap();
    let confusion = evaluation.confusion.unwrap();
    assert_eq!(confusion.total(), 21, "two whole batches and a rest");
    assert!(confusion.accuracy() > 0.9, "{confusion}");
    let (name, top1) = &evaluation.measures.metrics[0];
    assert_eq!(name, "top1");
    assert!((top1 - confusion.accuracy()).abs() < 1e-6, "the metric is the mean over all examples");
    let lines = std::fs::read_to_string(out.path().join("log.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 44 + 4);
    assert!(lines.starts_with("{\"step\":1,\"epoch\":0,\"learning_rate\":0.1,\"loss\":"), "{lines}");
    assert!(std::fs::read_to_string(out.path().join(CURVES)).unwrap().contains("top1"));
    assert!(std::fs::read_to_string(out.path().join(CONFUSION)).unwrap().contains("upper"));

    // The weights are those of the inference program, as are the checkpoint's.
    let weights = Weights::open(out.path().join(WEIGHTS)).unwrap();
    let again = Weights::open(fitted.checkpoint.unwrap()).unwrap();
    assert_eq!(weights.tensors().unwrap(), again.tensors().unwrap());
    let source = Source::from_text("halves.nn", HALVES).unwrap();
    let model = source.network(&how()).unwrap().load(&weights).unwrap();
    let mut x = ndarray::Array4::<f32>::zeros((1, 1, 4, 4));
    test.read(1, x.as_slice_mut().unwrap());
    let scores = model.run(&[("image", (&x).into())]).unwrap();
    let scores = scores["logits"].as_f32().unwrap();
    assert!(scores[[0, 1]] > scores[[0, 0]], "{scores}");
}

/// Stopped in the middle of an epoch and resumed by another trainer, and the same straight through; by
/// the interpreter, and in machine code with a number of threads that is another after the stop.
#[test]
fn resuming_is_bit_exact() {
    let cpu = |threads| Options::new().threads(threads);
    // In the middle of an epoch, before its last, smaller step, and behind that.
    for stop in [13, 21, 22] {
        for [a, b, c] in [[how(), how(), how()], [cpu(1), cpu(2), cpu(3)]] {
            stop_and_resume(stop, &a, &b, &c);
        }
    }
}

fn stop_and_resume(stop: u64, a: &Options, b: &Options, c: &Options) {
    let (straight, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let train = halves(84, 0);
    let last = |out: &Path| Folder::new(out.join(CHECKPOINTS), 3).last().unwrap().unwrap();
    fit(&mut trainer_on(a, HALVES, 84), &train, None, &options(Some(straight.path())), &mut ()).unwrap();

    let out = options(Some(stopped.path()));
    let first = fit(&mut trainer_on(b, HALVES, 84), &train, None, &out, &mut After(stop)).unwrap();
    assert!(!first.finished);
    let (path, checkpoint) = last(stopped.path());
    assert_eq!((Some(path), checkpoint.step), (first.checkpoint, stop));
    // Killed later, without a word: what was logged since is dropped.
    let log = stopped.path().join("log.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, format!("{text}{{\"step\":{},\"epoch\":1}}\n{{\"st", stop + 1)).unwrap();
    let mut second = trainer_on(c, HALVES, 84);
    second.restore(&checkpoint).unwrap();
    assert!(fit(&mut second, &train, None, &out, &mut ()).unwrap().finished);

    let (a, b) = (last(straight.path()).0, last(stopped.path()).0);
    assert_eq!(a.file_name(), b.file_name());
    assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap(), "the same bytes");
    let read = |out: &Path| std::fs::read_to_string(out.join("log.jsonl")).unwrap();
    assert_eq!(read(straight.path()), read(stopped.path()));
}

#[test]
fn checkpoints_of_other_runs_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("a.safetensors");
    let first = trainer(HALVES, 84);
    first.save(&path).unwrap();
    let mut same = trainer(HALVES, 84);
    same.load(&path).unwrap();
    let refusal = |text: &str, examples| {
        let e = trainer(text, examples).load(&path).unwrap_err().to_string();
        e.replace("\n", " ")
    };
    assert_eq!(refusal(HALVES, 85), "the checkpoint is of another run:   there are 85 examples, not 84");
    let wider = refusal(&HALVES.replace("conv(3,", "conv(4,"), 84);
    assert!(
        wider.contains("parameter `conv1.weight`: expected f32[4, 1, 3, 3], found f32[3, 1, 3, 3]"),
        "{wider}"
    );
    let adam = refusal(&HALVES.replace("sgd(lr = 0.1, momentum = 0.9)", "adam()"), 84);
    assert!(adam.contains("the optimizer is `adam`, not `sgd`"), "{adam}");
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run() {
    let out = tempfile::tempdir().unwrap();
    let train = halves(84, 0);
    let text = HALVES.replace(
        "cross_entropy(logits, label)\n",
        "cross_entropy(logits, label) + (exp(logits * 1e3) -> sum)\n",
    );
    let mut trainer = trainer(&text, 84);
    let e = fit(&mut trainer, &train, None, &options(Some(out.path())), &mut ()).unwrap_err().to_string();
    assert!(e.starts_with("the loss became ") && e.ends_with("; there is no checkpoint yet"), "{e}");
    assert!(e.contains("; the first value that is not finite is that of `exp`"), "{e}");
    assert!(e.contains("(halves.nn:8)"), "{e}");
    let kept = trainer.checkpoint().unwrap();
    let finite = |t: &nnc::Tensor| t.as_f32().unwrap().iter().all(|v| v.is_finite());
    assert!(kept.tensors.values().all(finite), "the trainer stands before the step that failed");
    let order = (0..84).collect();
    let mut batches = Batches::new(train.clone(), order, 8, Rest::Drop, Transform::default()).unwrap();
    while let Some(batch) = batches.next()
        && trainer.step_on(&batch).is_ok()
    {}
    assert!(trainer.checkpoint().is_err(), "nothing of it is kept");
    trainer.restart().unwrap();
    assert_eq!(trainer.checkpoint().unwrap().step, 0);
    assert!(Folder::new(out.path().join(CHECKPOINTS), 3).last().unwrap().is_none());
}

#[test]
fn wrong_data_is_told_before_the_first_step() {
    let complaint = |text: &str, set: Arc<dyn Dataset>| {
        let mut t = trainer(text, set.len());
        let e = fit(&mut t, &set, None, &options(None), &mut ()).unwrap_err().to_string();
        assert_eq!(t.steps(), 0);
        e
    };
    let three = Pictures::new([1, 4, 4], vec![0; 16 * 9], (0..9).map(|i| i % 3).collect(), vec![]).unwrap();
    let e = complaint(HALVES, Arc::new(three));
    assert!(e.contains("label 2 of example 2") && e.contains("the net has 2 classes"), "{e}");
    let wide = Pictures::new([1, 2, 4], vec![0; 8 * 9], vec![0; 9], vec![]).unwrap();
    let e = complaint(HALVES, Arc::new(wide));
    assert_eq!(e, "input `image: f32[8, 1, 4, 4]`: the data set gives f32[8, 1, 2, 4] and i32[8]");
    let source = Source::from_text("halves.nn", HALVES).unwrap();
    let few = TrainerOptions { examples: 7, ..TrainerOptions::default() };
    let e = Trainer::new(&source, &how(), &few).unwrap_err().to_string();
    assert_eq!(e, "7 examples are too few for a batch of 8");
    let source = Source::from_text("a.nn", "net a {\n    input x: f32[N, 2]\n    output y = x\n}\n").unwrap();
    let e = Trainer::new(&source, &how(), &TrainerOptions::default()).unwrap_err().render(false);
    assert!(e.contains("the net has no `train` section"), "{e}");
}

/// What the program says when a run goes on is what counts, and what is new in it is told.
#[test]
fn a_changed_learning_rate_counts_from_then_on() {
    let mut first = trainer(HALVES, 84);
    let (set, order) = (halves(84, 0), (0..84).collect());
    let batch = Batches::new(set, order, 8, Rest::Keep, Transform::default()).unwrap().next().unwrap();
    first.step_on(&batch).unwrap();
    let checkpoint = first.checkpoint().unwrap();
    assert_eq!(first.changes_since(&checkpoint), [""; 0]);
    let text =
        HALVES.replace("lr = 0.1", "lr = 0.025").replace("        schedule = cosine(epochs = 4)\n", "");
    let mut second = trainer(&text, 84);
    assert_eq!(
        second.changes_since(&checkpoint),
        [
            "the optimizer was `sgd(lr = 0.1, momentum = 0.9, nesterov = false, weight_decay = 0)`, \
             it is `sgd(lr = 0.025, momentum = 0.9, nesterov = false, weight_decay = 0)`",
            "the schedule was `cosine(epochs = 4, final = 0)`, there is none any more",
        ]
    );
    second.restore(&checkpoint).unwrap();
    assert_eq!((second.steps(), second.learning_rate()), (1, 0.025));
}

/// A net without randomness or memory: what a step does depends on its parameters and batch alone.
const PLAIN: &str = "
net plain {
    input image: f32[N, 1, 4, 4]
    output logits = image -> flatten -> dense(3) -> tanh -> dense(2)
    train {
        input label: i32[N]
        loss = cross_entropy(logits, label)
        optimizer = sgd(lr = 0.1)
    }
}
";

fn plain(how: &Options, batch: usize, examples: usize, drop_rest: bool) -> Trainer {
    let source = Source::from_text("plain.nn", PLAIN).unwrap();
    let options = TrainerOptions { batch: Some(batch), examples, drop_rest, ..TrainerOptions::default() };
    Trainer::new(&source, how, &options).unwrap()
}

#[test]
fn the_rest_of_an_epoch_is_a_step_of_its_own() {
    for how in [how(), Options::new().threads(1)] {
        let batches = |order: std::ops::Range<usize>, size| {
            Batches::new(halves(6, 0), order.collect(), size, Rest::Keep, Transform::default()).unwrap()
        };
        let mut both = plain(&how, 4, 6, false);
        assert_eq!(both.steps_an_epoch(), 2);
        for batch in batches(0..6, 4).chain(batches(0..4, 4)) {
            both.step_on(&batch).unwrap();
        }
        // The same three steps by trainers that have one size each.
        let mut weights = None;
        for (order, size) in [(0..4, 4), (4..6, 2), (0..4, 4)] {
            let mut one = plain(&how, size, 0, false);
            if let Some(weights) = &weights {
                assert!(one.start_from(weights, &[]).unwrap().is_empty());
            }
            batches(order, size).for_each(|b| assert!(one.step_on(&b).unwrap().loss > 0.0));
            weights = Some(one.weights().unwrap());
        }
        assert_eq!(both.weights().unwrap().tensors().unwrap(), weights.unwrap().tensors().unwrap());
        assert_eq!(plain(&how, 4, 6, true).steps_an_epoch(), 1);
    }
    // One example is too little for batch normalisation: it waits.
    let mut t = trainer(HALVES, 81);
    let text = HALVES.replace("conv(3, 3x3, pad = 1)", "flatten -> dense(3)");
    assert_eq!((t.steps_an_epoch(), trainer(&text, 81).steps_an_epoch()), (11, 10));
    fit(&mut t, &halves(81, 0), None, &options(None), &mut ()).unwrap();
}

#[test]
fn fine_tuning_starts_from_weights() {
    let mut first = plain(&how(), 4, 0, false);
    let batch = |size| {
        Batches::new(halves(6, 0), (0..6).collect(), size, Rest::Drop, Transform::default())
            .unwrap()
            .next()
            .unwrap()
    };
    first.step_on(&batch(4)).unwrap();
    let weights = first.weights().unwrap();
    let fresh = plain(&how(), 4, 0, false).weights().unwrap();
    let mut tuned = plain(&how(), 4, 0, false);
    assert_eq!(tuned.start_from(&weights, &["dense2".into()]).unwrap(), ["dense2.weight", "dense2.bias"]);
    let start = tuned.weights().unwrap();
    for (name, t) in start.tensors().unwrap() {
        assert_eq!(
            t,
            &if name.starts_with("dense2") { &fresh } else { &weights }.tensors().unwrap()[name],
            "{name}"
        );
    }
    tuned.step_on(&batch(4)).unwrap();
    tuned.restart().unwrap();
    assert_eq!(
        tuned.weights().unwrap().tensors().unwrap(),
        start.tensors().unwrap(),
        "that is where it starts again"
    );
    // More classes: the last layer does not fit.
    let text = PLAIN.replace("dense(2)", "dense(5)");
    let mut wider = trainer(&text, 0);
    let e = wider.start_from(&weights, &[]).unwrap_err().to_string();
    assert!(e.contains("parameter `dense2.weight`: expected f32[5, 3], found f32[2, 3]"), "{e}");
    wider.start_from(&weights, &["dense2".into()]).unwrap();
    let e = wider.start_from(&weights, &["dense".into()]).unwrap_err().to_string();
    assert!(e.starts_with("no parameter belongs to a layer `dense`; there are `dense1.weight`"), "{e}");
    let mut map = weights.tensors().unwrap().clone();
    let moved = map.remove("dense1.bias").unwrap();
    map.insert("stem.bias".into(), moved);
    let e = tuned.start_from(&Weights::from_map(map), &[]).unwrap_err().to_string();
    assert!(
        e.contains("`dense1.bias` is missing") && e.contains("the network has no parameter `stem.bias`"),
        "{e}"
    );
    // Heads of training are not in the weights of inference.
    let heads = PLAIN.replace(
        "    train {",
        "    let aux = if training { [logits -> dense(2) as aux] } else { [] }\n    train {",
    );
    let heads = heads.replace("loss = ", "loss = 0.3 * cross_entropy(aux[0], label) + ");
    let mut t = trainer(&heads, 0);
    assert_eq!(t.start_from(&weights, &[]).unwrap(), ["aux.weight", "aux.bias"]);
}

/// By gradient descent without momentum a step is the gradient, times the rate.
#[test]
fn gradients_are_what_a_step_follows() {
    for how in [how(), Options::new().threads(2)] {
        let mut t = plain(&how, 6, 0, false);
        let set = halves(6, 0);
        let mut x = ndarray::Array4::<f32>::zeros((6, 1, 4, 4));
        for (i, mut x) in x.outer_iter_mut().enumerate() {
            set.read(i, x.as_slice_mut().unwrap());
        }
        let label = ndarray::Array1::from_iter((0..6).map(|i| set.label(i)));
        let inputs = [("image", (&x).into()), ("label", (&label).into())];
        let before = t.weights().unwrap();
        let gradients = t.gradients(&inputs).unwrap();
        assert_eq!(t.weights().unwrap().tensors().unwrap(), before.tensors().unwrap());
        t.step(&inputs).unwrap();
        let after = t.weights().unwrap();
        assert_eq!(gradients.len(), 4);
        for (name, gradient) in &gradients {
            let of = |w: &Weights| w.tensors().unwrap()[name].as_f32().unwrap().clone();
            let step = (of(&before) - of(&after)) / 0.1;
            let gradient = gradient.as_f32().unwrap();
            assert!(gradient.iter().any(|g| g.abs() > 1e-3), "{name}: {gradient}");
            assert!(step.iter().zip(gradient).all(|(s, g)| (s - g).abs() < 1e-5), "{name}");
        }
    }
}

/// A program for batches of one size measures every example all the same.
#[test]
fn evaluation_covers_every_example() {
    for text in [HALVES.to_string(), HALVES.replace("f32[N,", "f32[8,").replace("i32[N]", "i32[8]")] {
        let mut t = trainer(&text, 84);
        for n in [21, 3, 16] {
            let e = t.evaluate(&halves(n, 1000), None).unwrap();
            let confusion = e.confusion.unwrap();
            assert_eq!(confusion.total(), n as u64);
            assert!((confusion.accuracy() - e.measures.metrics[0].1).abs() < 1e-6 || text.contains("[8,"));
        }
    }
}

#[test]
fn a_checkpoint_reads_back() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("a.safetensors");
    trainer(HALVES, 84).save(&path).unwrap();
    let c = Checkpoint::open(&path).unwrap();
    assert!(c.optimizer_state.iter().all(|n| n.contains("momentum")), "{:?}", c.optimizer_state);
    assert_eq!(c.optimizer_state.len(), 6, "{:?}", c.optimizer_state);
}

/// A subset of MNIST's training digits: learns on 2,400 of them, is measured on the other 600.
#[test]
fn lenet_learns_to_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("examples/lenet.nn")).unwrap();
    let text = text.replace("batch = 64", "batch = 32");
    let text = text.replace("lr = 0.02", "lr = 0.03");
    let digits: Arc<dyn Dataset> = Arc::new(idx::open(&root.join("tests/data/digits"), Part::Train).unwrap());
    let (train, test) = split(&digits, 0.2, 1).unwrap();
    let mut trainer = trainer_on(&Options::new(), &text, train.len());
    let augment = Augment { crop: 1, flip: false };
    let options = FitOptions { epochs: 12, augment, ..FitOptions::default() };
    let test: Arc<dyn Dataset> = Arc::new(test);
    let train: Arc<dyn Dataset> = Arc::new(train);
    let fitted = fit(&mut trainer, &train, Some(&test), &options, &mut ()).unwrap();
    let confusion = fitted.evaluation.unwrap().confusion.unwrap();
    assert_eq!(confusion.total(), 600);
    assert!(confusion.accuracy() >= 0.95, "{}\n{confusion}", confusion.accuracy());
}
