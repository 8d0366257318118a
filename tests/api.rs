//! The Rust API from source to outputs: sizes, weights, devices, threads, program files, errors.

use std::collections::BTreeMap;

use ndarray::{Array2, Array4, Axis, s};
use nnc::{Compiled, DType, Device, Error, Model, Network, Options, Source, Tensor, TensorView, Weights};

const SMALL: &str = "
use std.vision
net small(classes = 5) {
    input image: f32[N, 3, 9, 7]
    output logits = image -> conv(4, 3x3, pad = 1) -> batchnorm -> relu -> maxpool(2x2) -> flatten -> dense(classes)
    output best = logits -> argmax(axis = 1)
}
";

fn small(options: &Options) -> Network {
    let source = Source::from_text("small.nn", SMALL).unwrap();
    source.network(options).unwrap_or_else(|e| panic!("{}", e.render(false)))
}

/// Made-up pictures; the first ones of more are the same.
fn pictures(n: usize) -> Array4<f32> {
    Array4::from_shape_fn((n, 3, 9, 7), |(n, c, y, x)| {
        ((n * 31 + c * 17 + y * 7 + x * 3) % 23) as f32 / 11.5 - 1.0
    })
}

fn logits(model: &Model, x: &Array4<f32>) -> Tensor {
    model.run(&[("image", x.into())]).unwrap()["logits"].clone()
}

#[test]
fn everything_can_be_shared_among_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<(Source, Network, Compiled, Model, Weights, Options, Error)>();
}

#[test]
fn sizes_come_with_the_inputs() {
    let network = small(&Options::new().threads(2));
    assert_eq!(network.symbols(), ["N"]);
    let model = network.initialize(3).unwrap();
    let x = pictures(3);
    let all = logits(&model, &x);
    assert_eq!(all.shape(), [3, 5]);
    for i in 0..3 {
        let one = logits(&model, &x.slice(s![i..i + 1, .., .., ..]).to_owned());
        let row = all.as_f32().unwrap().index_axis(Axis(0), i).insert_axis(Axis(0)).to_owned();
        assert_eq!(one, Tensor::from(row), "a picture alone, and in a batch");
    }
    // More sizes than are kept.
    for n in (1..12).chain(1..3) {
        assert_eq!(logits(&model, &pictures(n)).shape(), [n, 5]);
    }
}

#[test]
fn runs_of_several_sizes_from_several_threads() {
    let model = small(&Options::new().threads(2)).initialize(0).unwrap();
    let expected: Vec<Tensor> = (1..4).map(|n| logits(&model, &pictures(n))).collect();
    std::thread::scope(|scope| {
        for k in 0..4 {
            let (model, expected) = (&model, &expected);
            scope.spawn(move || {
                for i in 0..20 {
                    let n = (i + k) % 3;
                    assert_eq!(logits(model, &pictures(n + 1)), expected[n]);
                }
            });
        }
    });
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let x = pictures(4);
    let run = |threads| logits(&small(&Options::new().threads(threads)).initialize(1).unwrap(), &x);
    assert_eq!(run(1), run(2));
    assert_eq!(run(1), run(3));
}

#[test]
fn devices_agree() {
    let x = pictures(2);
    let run = |device| {
        let model = small(&Options::new().device(device)).initialize(1).unwrap();
        model.run(&[("image", (&x).into())]).unwrap().into_map()
    };
    let (fast, slow) = (run(Device::Cpu), run(Device::Reference));
    assert_eq!(fast["best"], slow["best"]);
    let (a, b) = (fast["logits"].as_f32().unwrap(), slow["logits"].as_f32().unwrap());
    assert!((a - b).iter().all(|d| d.abs() < 1e-5), "{a}\n{b}");
}

#[test]
fn initial_weights_depend_on_the_seed_alone() {
    let weights = |seed| small(&Options::new()).initial_weights(seed).unwrap();
    assert_eq!(weights(1).tensors().unwrap(), weights(1).tensors().unwrap());
    assert_ne!(weights(1).tensors().unwrap(), weights(2).tensors().unwrap());
    let weights = weights(1);
    let names: Vec<&String> = weights.tensors().unwrap().keys().filter(|n| n.starts_with("conv1")).collect();
    assert_eq!(names, ["conv1.bias", "conv1.weight"]);
}

#[test]
fn a_program_file_gives_the_same_answers() {
    let network = small(&Options::new().set("N", 2));
    let weights = network.initial_weights(5).unwrap();
    let x = pictures(2);
    let expected = logits(&network.load(&weights).unwrap(), &x);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.nncp");
    network.compile().unwrap().save(&path).unwrap();
    assert!(Compiled::is_program(&std::fs::read(&path).unwrap()));
    let compiled = Compiled::open(&path, &Options::new().threads(1)).unwrap();
    assert_eq!(compiled.program(), network.compile().unwrap().program(), "compiling is deterministic");
    assert_eq!(logits(&compiled.load(&weights).unwrap(), &x), expected);
    let e = compiled.load(&weights).unwrap().run(&[("image", (&pictures(1)).into())]).unwrap_err();
    assert_eq!(e.to_string(), "input `image`: expected f32[2, 3, 9, 7], found f32[1, 3, 9, 7]");
}

#[test]
fn a_program_file_may_have_its_weights() {
    let network = small(&Options::new().set("N", 2));
    let weights = network.initial_weights(5).unwrap();
    let x = pictures(2);
    let expected = logits(&network.load(&weights).unwrap(), &x);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.nncp");
    let compiled = network.compile().unwrap();
    assert!(!compiled.has_weights());
    compiled.with_weights(&weights).unwrap().save(&path).unwrap();
    let compiled = Compiled::open(&path, &Options::new().threads(1)).unwrap();
    assert!(compiled.has_weights());
    for model in [compiled.model(), compiled.initialize(0)] {
        assert_eq!(logits(&model.unwrap(), &x), expected);
    }
    let e = compiled.load(&weights).unwrap_err().to_string();
    assert_eq!(e, "the program has its weights: it takes no others");
    let e = network.compile().unwrap().model().unwrap_err().to_string();
    assert!(e.contains("parameter `conv1.weight` is missing"), "{e}");
}

#[test]
fn profiles_name_layers_and_lines() {
    let model = small(&Options::new().set("N", 1)).initialize(0).unwrap();
    let (outputs, times) = model.run_profiled(&[("image", (&pictures(1)).into())]).unwrap();
    assert_eq!(outputs["logits"].shape(), [1, 5]);
    let conv = times.iter().find(|t| t.layer.contains("conv1")).expect("the convolution's launch");
    assert_eq!(conv.location, "small.nn:5");
    assert!(conv.flops >= 2 * 4 * 27 * 63);
}

#[test]
fn wrong_inputs_are_told() {
    let model = small(&Options::new()).initialize(0).unwrap();
    let error = |inputs: &[(&str, TensorView<'_>)]| model.run(inputs).unwrap_err().to_string();
    let x = pictures(1);
    let view = || TensorView::from(&x);
    assert_eq!(error(&[]), "input `image: f32[N, 3, 9, 7]` is missing");
    assert_eq!(error(&[("picture", view())]), "the net has no input `picture`; its inputs: `image`");
    assert_eq!(error(&[("image", view()), ("image", view())]), "input `image` is given twice");
    let flat = Array2::<f32>::zeros((3, 63));
    assert_eq!(
        error(&[("image", (&flat).into())]),
        "input `image`: expected f32[N, 3, 9, 7] (with N = 3), found f32[3, 63]"
    );
    let ints = Array4::<i32>::zeros((1, 3, 9, 7));
    assert_eq!(
        error(&[("image", (&ints).into())]),
        "input `image`: expected f32[N, 3, 9, 7] (with N = 1), found i32[1, 3, 9, 7]"
    );
}

#[test]
fn inputs_must_agree_on_sizes() {
    let text = "net add { input a: f32[N, 2]\n input b: f32[N, 2]\n output y = a + b }";
    let source = Source::from_text("add.nn", text).unwrap();
    let model = source.network(&Options::new()).unwrap().initialize(0).unwrap();
    let (a, b) = (Array2::<f32>::ones((3, 2)), Array2::<f32>::ones((4, 2)));
    let e = model.run(&[("a", (&a).into()), ("b", (&b).into())]).unwrap_err();
    assert_eq!(e.to_string(), "input `b`: expected f32[N, 2] (with N = 3), found f32[4, 2]");
    let y = &model.run(&[("b", (&a).into()), ("a", (&a).into())]).unwrap()["y"];
    assert_eq!(*y, Tensor::from(&a + &a));
}

#[test]
fn wrong_weights_are_told() {
    let network = small(&Options::new());
    let weights = network.initial_weights(0).unwrap();
    let error = |change: fn(&mut BTreeMap<String, Tensor>)| {
        let mut tensors = weights.tensors().unwrap().clone();
        change(&mut tensors);
        network.load(&Weights::from_map(tensors)).unwrap_err().to_string()
    };
    assert_eq!(
        error(|t| {
            t.remove("dense1.bias");
            t.insert("fc.bias".into(), Tensor::zeros(DType::F32, &[5]));
            t.insert("conv1.bias".into(), Tensor::zeros(DType::I32, &[3]));
            t.insert("bn1.num_batches_tracked".into(), Tensor::zeros(DType::I32, &[]));
        }),
        "the weights do not fit the network:\n  \
         parameter `conv1.bias`: expected f32[4], found i32[3]\n  \
         parameter `dense1.bias` is missing\n  \
         the network has no parameter `fc.bias`"
    );
    let many = error(|t| {
        for i in 0..20 {
            t.insert(format!("x{i:02}"), Tensor::zeros(DType::F32, &[1]));
        }
    });
    assert!(many.ends_with("`x07`\n  and 12 more"), "{many}");
}

#[test]
fn wrong_sources_and_options_are_told() {
    let source = Source::from_text("bad.nn", "net a { input x: f32[2]\n output y = x -> rellu }").unwrap();
    let e = source.network(&Options::new()).unwrap_err();
    assert!(matches!(e, Error::Source(_)));
    assert!(e.to_string().starts_with("bad.nn:2: "), "{e}");
    assert!(e.render(false).contains("bad.nn:2"), "{}", e.render(false));

    let e = small(&Options::new()).compile().unwrap_err();
    assert_eq!(e.to_string(), "the size of `N` is not set");
    let e = Source::open("/no/such.nn").unwrap_err().to_string();
    assert!(e.starts_with("cannot read `/no/such.nn`: "), "{e}");
    let long = "/".repeat(nnc::source::MAX_SOURCE_BYTES as usize + 1);
    let e = Source::from_text("long.nn", long).unwrap_err().to_string();
    assert!(e.contains("`long.nn` is larger than"), "{e}");
    let e = nnc::source::text_of("l.nn".as_ref(), b"net\n\xff".to_vec()).unwrap_err().to_string();
    assert_eq!(e, "`l.nn`: expected UTF-8 text, found other bytes in line 2 (byte 4)");
}

#[test]
fn files_are_used_from_the_folder_of_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("blocks.nn", "block twice(x) { x + x }\n");
    write("main.nn", "use \"blocks.nn\"\nnet main { input x: f32[2]\n output y = x -> twice }\n");
    let network = Source::open(folder.path().join("main.nn")).unwrap().network(&Options::new());
    let model = network.unwrap_or_else(|e| panic!("{}", e.render(false))).initialize(0).unwrap();
    let x = ndarray::arr1(&[1f32, 2.0]);
    assert_eq!(model.run(&[("x", (&x).into())]).unwrap()["y"], ndarray::arr1(&[2f32, 4.0]).into());
    write("main.nn", "use \"missing.nn\"\nnet main { input x: f32[2]\n output y = x }\n");
    let e = Source::open(folder.path().join("main.nn")).unwrap().network(&Options::new()).unwrap_err();
    assert!(e.to_string().contains("missing.nn"), "{e}");
}

mod stages {
    use super::*;
    use nnc::stages::{Stage, text};

    #[test]
    fn every_stage_has_a_text() {
        let source = Source::from_text("small.nn", SMALL).unwrap();
        for name in Stage::NAMES {
            let stage: Stage = name.parse().unwrap();
            let text = text(&source, &Options::new(), &stage).unwrap();
            assert!(text.lines().count() > 3, "{name}:\n{text}");
        }
        let folded = text(&source, &Options::new(), &Stage::After("fold_batch_norm".into())).unwrap();
        assert!(!folded.contains("batch_norm("), "{folded}");
        let e = text(&source, &Options::new(), &Stage::After("magic".into())).unwrap_err().to_string();
        assert!(e.starts_with("there is no pass `magic`: expected one of simplify, "), "{e}");
    }
}
