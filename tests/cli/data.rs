//! Real pictures, by the command line: what other frameworks say of them.

use crate::support::{nnc, nnc_in, read, read_npy, repository, scratch};

const MOBILENET: &str =
    "run examples/mobilenet_v2.nn --weights examples/weights/mobilenet_v2_imagenet.safetensors";
const LENET: &str = "run examples/lenet.nn --weights examples/weights/lenet5_mnist.safetensors";
const PICTURES: [&str; 5] = ["chelsea", "china", "coffee", "flower", "rocket"];

/// Top five and logits by ONNX Runtime with the same weights.
#[test]
fn five_pictures_are_seen_as_by_onnx_runtime() {
    let expected: serde_json::Value =
        serde_json::from_slice(&read("examples/images/expected.json")).expect("JSON");
    let folder = scratch(&[]);
    for name in PICTURES {
        let line = format!(
            "{MOBILENET} --input image=examples/images/{name}.png --output logits={{}}/y.npy \
             --labels examples/images/imagenet_labels.txt"
        );
        let text = nnc_in(folder.path(), &line).ok();
        let found = read_npy(folder.path().join("y.npy"));
        let wanted = read_npy(repository(&format!("examples/images/{name}.mobilenet_v2.logits.npy")));
        let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
        let error = found.iter().zip(&wanted).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert_eq!(found.len(), 1000);
        assert!(error < 1e-4 * largest, "{name}: {error} of {largest}");

        let top = expected["pictures"][format!("{name}.png")]["top5"].as_array().expect("five classes");
        assert_eq!(text.lines().count(), 5);
        for (line, class) in text.lines().zip(top) {
            let mut words = line.split_whitespace();
            let share: f64 = words.next().expect("a share").parse().expect("a number");
            assert!((share / 100.0 - class[2].as_f64().unwrap()).abs() < 2e-3, "{name}: {line}");
            assert_eq!(words.nth(1).map(str::to_string), class[0].as_u64().map(|n| n.to_string()), "{name}");
            assert!(line.contains(class[1].as_str().unwrap()), "{name}: {line}");
        }
    }
}

/// Several files for one input are a batch; each gives the same answer as alone.
#[test]
fn pictures_make_a_batch() {
    let folder = scratch(&[]);
    let inputs: Vec<String> =
        PICTURES.iter().map(|p| format!("--input image=examples/images/{p}.png")).collect();
    let line = format!("{MOBILENET} {} --output logits={{}}/y.npy --top 1", inputs.join(" "));
    let text = nnc_in(folder.path(), &line).ok();
    assert_eq!(read_npy(folder.path().join("y.npy")).shape(), [5, 1000]);
    let classes: Vec<&str> = text.lines().filter_map(|l| l.split_whitespace().nth(2)).collect();
    assert_eq!(classes, ["285", "698", "967", "599", "812"], "{text}");
    assert!(text.starts_with("1:\n") && text.contains("\n\n5:\n"), "{text}");
}

/// A photograph of another size and format goes through the usual resize, crop and normalisation.
#[test]
fn a_jpeg_of_another_size_is_resized_and_cropped() {
    let folder = scratch(&[]);
    let coffee = image::open(repository("examples/images/coffee.png")).expect("a picture");
    let photo = coffee.resize_exact(600, 600, image::imageops::FilterType::CatmullRom);
    photo.save(folder.path().join("photo.jpg")).expect("a JPEG can be written");
    let line =
        format!("{MOBILENET} --input {{}}/photo.jpg --top 1 --labels examples/images/imagenet_labels.txt");
    let text = nnc_in(folder.path(), &line).ok();
    assert!(text.contains("967  espresso"), "{text}");
}

#[test]
fn handwritten_digits_are_read() {
    for digit in 0..10 {
        for copy in ["a", "b"] {
            let text = nnc(&format!("{LENET} --input examples/images/digits/{digit}{copy}.png --top 1")).ok();
            let class = text.split_whitespace().nth(2).expect("a class");
            assert_eq!(class, digit.to_string(), "{digit}{copy}.png: {text}");
        }
    }
}

/// The weights were trained on these digits, among others; one of them they still misread. The
/// interpreter says the same.
#[test]
fn eval_counts_what_is_right() {
    let line = "eval examples/lenet.nn --data mnist:tests/data/mnist --split train \
                --weights examples/weights/lenet5_mnist.safetensors";
    let accuracy = nnc(line).ok();
    assert_eq!(accuracy, "accuracy: 99.90 % (999 of 1000)\n");
    // Whatever the batch, and with a last batch that is not full.
    for batch in ["--batch 1000", "--batch 7", "--set N=33", "--device reference"] {
        assert_eq!(nnc(&format!("{line} {batch}")).ok(), accuracy);
    }
}

/// Filters written out by hand, and sizes that are found in the picture.
#[test]
fn nets_without_weights_run_on_pictures_of_any_size() {
    let output = nnc("run examples/pooling.nn --input examples/images/digits/7a.png");
    assert_eq!(output.stderr, "", "nothing is said of weights");
    insta::assert_snapshot!(output.ok());
    let coffee = nnc("run examples/pooling.nn --input examples/images/coffee.png").ok();
    assert!(coffee.starts_with("halved: f32[1, 3, 112, 112]\n"), "{coffee}");
    let one_channel = nnc("run examples/pooling.nn --set C=1 --input examples/images/coffee.png").ok();
    assert!(one_channel.starts_with("halved: f32[1, 1, 112, 112]\n"), "{one_channel}");
}
