//! Wrong files and places that cannot be written: one clear message, exit code 1, nothing half
//! written.

use std::io::Write;

use crate::programs::TINY;
use crate::support::{nnc_in, nnc_with_stdin, npy, read, scratch};

const DIGIT: &str = "examples/images/digits/7a.png";
const LENET: &str = "run examples/lenet.nn --weights examples/weights/lenet5_mnist.safetensors";

/// A command line (`{}` is the scratch folder), and what its message must contain.
type Case = (&'static str, &'static str);

/// Names and contents.
type Files<'a> = &'a [(&'a str, &'a [u8])];

/// Runs each case in a folder with these files; none may leave another file there.
fn all_fail(files: Files<'_>, cases: &[Case]) {
    for (line, expected) in cases {
        let folder = scratch(files);
        let shown = nnc_in(folder.path(), line).failed();
        assert!(shown.contains(expected), "nnc {line}\nexpected: {expected}\nfound: {shown}");
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, files.len(), "nnc {line}: something was left behind");
        for (name, bytes) in files {
            assert_eq!(
                &std::fs::read(folder.path().join(name)).unwrap(),
                bytes,
                "nnc {line}: {name} changed"
            );
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zeros(shape: &[usize]) -> Vec<u8> {
    npy(&ndarray::ArrayD::<f32>::zeros(shape))
}

/// A PNG header that claims a size, and nothing after it.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut crc = flate2::Crc::new();
    crc.update(&chunk);
    let mut out = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    out.extend(&chunk);
    out.extend(crc.sum().to_be_bytes());
    out.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    out
}

#[test]
fn wrong_programs() {
    all_fail(
        &[("binary.nn", b"net \xff\xfe"), ("empty.nn", b""), ("symbols.nn", SYMBOLS.as_bytes())],
        &[
            ("check {}/missing.nn", "cannot read `"),
            ("check {}", "cannot read `"),
            ("check {}/binary.nn", "expected UTF-8 text"),
            ("check {}/empty.nn", "net"),
            ("run {}/missing.nn", "cannot read `"),
            ("compile {}/missing.nn", "cannot read `"),
            ("summary examples/vgg.nn --set depth=12", "there is no VGG with 12 layers"),
            ("summary examples/lenet.nn --set depth=1", "`--set depth`"),
            ("summary examples/lenet.nn --set N=0", "N"),
            ("summary examples/lenet.nn --set N=-1", "N"),
            ("summary examples/lenet.nn --set N=x", "N"),
            ("summary examples/lenet.nn --net vgg", "`vgg`"),
            ("summary {}/symbols.nn", "--set W=…"),
            ("compile {}/symbols.nn -o {}/out.nncp", "--set W=…"),
            ("compile examples/lenet.nn --emit-after magic", "`magic`"),
        ],
    );
}

const SYMBOLS: &str = "\
use std.vision

net symbols() {
    input image: f32[N, 1, 6, W]

    output y = image -> relu
}
";

#[test]
fn a_program_without_end_on_standard_input() {
    let long = vec![b' '; 17 << 20];
    let shown = nnc_with_stdin("check -", &long).failed();
    assert!(shown.contains("`<stdin>` is larger than"), "{shown}");
}

#[test]
fn wrong_pictures() {
    let digit = read(DIGIT);
    let files: Files<'_> = &[
        ("truncated.png", &digit[..digit.len() / 2]),
        ("header.png", &digit[..20]),
        ("text.png", b"this is no picture"),
        ("empty.png", b""),
        ("huge.png", &png_header(1_000_000, 1_000_000)),
        ("lie.png", &png_header(15_000, 15_000)),
        ("half.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF"),
    ];
    let run = |file: &str| format!("{LENET} --input image={file} --output logits={{}}/y.npy");
    for (file, expected) in [
        ("{}/truncated.png", "truncated.png`: the picture cannot be read: "),
        ("{}/header.png", "header.png`: the picture cannot be read: "),
        ("{}/text.png", "text.png`: expected a picture (PNG or JPEG)"),
        ("{}/empty.png", "empty.png`: expected a picture (PNG or JPEG)"),
        ("{}/huge.png", "huge.png`: the picture is too large: 1000000x1000000 pixels"),
        ("{}/lie.png", "lie.png`: the picture cannot be read: "),
        ("{}/half.jpg", "half.jpg`: the picture cannot be read: "),
        ("{}/missing.png", "missing.png`: No such file"),
        ("{}", "input `image`: "),
        ("examples/images/digits/7a.png --preprocess imagenet", "ImageNet's normalisation"),
        ("examples/images/coffee.png --preprocess none", "expected a picture of 28x28 pixels, found 224x224"),
    ] {
        all_fail(files, &[(&*run(file).leak(), expected)]);
    }
}

#[test]
fn wrong_arrays() {
    let good = zeros(&[1, 1, 28, 28]);
    let files: Files<'_> = &[
        ("good.npy", &good),
        ("truncated.npy", &good[..good.len() - 5]),
        ("text.npy", b"1, 2, 3"),
        ("small.npy", &zeros(&[1, 1, 27, 28])),
        ("flat.npy", &zeros(&[784])),
        ("none.npy", &zeros(&[0, 1, 28, 28])),
    ];
    for (rest, expected) in [
        ("--input image={}/truncated.npy", "truncated.npy"),
        ("--input image={}/text.npy", "text.npy"),
        ("--input image={}/small.npy", "27"),
        ("--input image={}/flat.npy", "784"),
        ("--input image={}/none.npy", "0"),
        ("--input image={}/good.npy --input image={}/flat.npy", "different shapes"),
        ("--input picture={}/good.npy", "no input `picture`; its inputs: `image`"),
        ("", "no value for input `image`: give it with --input image=FILE"),
        ("--input image={}/good.npy --output scores={}/y.npy", "no output `scores`; its outputs: `logits`"),
        ("--input image={}/good.npy --set N=2", "2"),
    ] {
        let line = format!("{LENET} {rest}");
        all_fail(files, &[(&*line.leak(), expected)]);
    }
}

#[test]
fn wrong_weights() {
    let good = read("examples/weights/lenet5_mnist.safetensors");
    let mut lying = good.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let files: Files<'_> = &[
        ("truncated.safetensors", &good[..good.len() - 100]),
        ("header.safetensors", &good[..30]),
        ("lying.safetensors", &lying),
        ("empty.safetensors", b""),
        ("text.safetensors", b"these are no weights at all"),
    ];
    for (weights, expected) in [
        ("{}/truncated.safetensors", "truncated.safetensors"),
        ("{}/header.safetensors", "header.safetensors"),
        ("{}/lying.safetensors", "lying.safetensors"),
        ("{}/empty.safetensors", "empty.safetensors"),
        ("{}/text.safetensors", "text.safetensors"),
        ("{}/missing.safetensors", "cannot read `"),
        ("examples/weights/mobilenet_v2_imagenet.safetensors", "conv1.weight"),
    ] {
        let line =
            format!("run examples/lenet.nn --weights {weights} --input {DIGIT} --output logits={{}}/y.npy");
        all_fail(files, &[(&*line.leak(), expected)]);
    }
}

#[test]
fn wrong_program_files() {
    let folder = scratch(&[("tiny.nn", TINY.as_bytes())]);
    nnc_in(folder.path(), "compile {}/tiny.nn --set N=1 -o {}/tiny.nncp").ok();
    let good = std::fs::read(folder.path().join("tiny.nncp")).unwrap();
    let mut damaged = good.clone();
    let middle = good.len() / 2;
    damaged[middle..middle + 16].fill(0xff);
    let files: Files<'_> = &[
        ("truncated.nncp", &good[..good.len() - 10]),
        ("head.nncp", &good[..12]),
        ("damaged.nncp", &damaged),
        ("good.nncp", &good),
    ];
    all_fail(
        files,
        &[
            ("run {}/truncated.nncp --input examples/images/digits/7a.png", "truncated.nncp"),
            ("run {}/head.nncp --input examples/images/digits/7a.png", "head.nncp"),
            ("run {}/damaged.nncp --input examples/images/digits/7a.png", "damaged.nncp"),
            ("run {}/good.nncp --set N=2 --input examples/images/digits/7a.png", "--set"),
        ],
    );
}

#[test]
fn wrong_data_sets() {
    let (images, labels) = (
        read("tests/data/mnist/train-images-idx3-ubyte.gz"),
        read("tests/data/mnist/train-labels-idx1-ubyte.gz"),
    );
    let few_labels = gzip(&[0, 0, 8, 1, 0, 0, 0, 2, 7, 7]);
    let two_images = |height: u32| {
        let mut idx = vec![0, 0, 8, 3, 0, 0, 0, 2];
        idx.extend(height.to_be_bytes());
        idx.extend(28u32.to_be_bytes());
        idx.resize(idx.len() + 2 * height as usize * 28, 0);
        idx
    };
    let wrong_label = [0, 0, 8, 1, 0, 0, 0, 2, 7, 10];
    let no_images: &[u8] = &[0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 28];
    const PICTURES: &str = "train-images-idx3-ubyte";
    const LABELS: &str = "train-labels-idx1-ubyte";
    let gz = |name: &str| &*format!("{name}.gz").leak();
    let cases: &[(Files<'_>, &str)] = &[
        (&[], "expected `train-images-idx3-ubyte` or `train-images-idx3-ubyte.gz` in this folder"),
        (&[(gz(PICTURES), &images)], "expected `train-labels-idx1-ubyte`"),
        (&[(gz(PICTURES), &images[..5000]), (gz(LABELS), &labels)], "its data ends early or is damaged"),
        (&[(gz(PICTURES), &images[..12]), (gz(LABELS), &labels)], "its header cannot be read"),
        (
            &[(gz(PICTURES), &labels), (gz(LABELS), &labels)],
            "expected the magic number 0x00000803, found 0x00000801",
        ),
        (
            &[(gz(PICTURES), &images), (gz(LABELS), &few_labels)],
            "holds 1000 pictures, but there are 2 labels",
        ),
        (&[(PICTURES, no_images), (LABELS, &[0, 0, 8, 1, 0, 0, 0, 0])], "holds no pictures"),
        (
            &[(PICTURES, &two_images(28)), (LABELS, &wrong_label)],
            "the label 10 of example 1 is out of range: the net has 10 classes, 0 to 9",
        ),
        (
            &[(PICTURES, &two_images(30)), (gz(LABELS), &few_labels)],
            "expected examples of shape [1, 28, 28], found [1, 30, 28]",
        ),
        (
            &[(PICTURES, &two_images(28)[..100]), (gz(LABELS), &few_labels)],
            "expected 1568 bytes of data, found 84",
        ),
    ];
    for (files, expected) in cases {
        let line = "eval examples/lenet.nn --data mnist:{} --split train \
                    --weights examples/weights/lenet5_mnist.safetensors";
        all_fail(files, &[(line, expected)]);
    }
}

#[test]
fn places_that_cannot_be_written() {
    let files: Files<'_> = &[("net.nn", TINY.as_bytes())];
    all_fail(
        files,
        &[
            ("compile {}/net.nn -o {}/missing/net.nncp", "cannot write `"),
            ("compile {}/net.nn -o {}", "cannot write `"),
            ("compile {}/net.nn --emit graph -o {}/missing/net.txt", "cannot write `"),
            ("graph {}/net.nn -o {}/missing/net.svg", "cannot write `"),
            (
                "run {}/net.nn --input examples/images/digits/7a.png --output logits={}/missing/y.npy",
                "cannot write `",
            ),
            ("run {}/net.nn --input examples/images/digits/7a.png --labels {}/missing.txt", "missing.txt"),
        ],
    );
}

/// Weights that are not numbers run, but not silently.
#[test]
fn weights_that_are_not_finite_are_counted() {
    let mut weights = read("examples/weights/lenet5_mnist.safetensors");
    let end = weights.len();
    weights[end - 8..end - 4].copy_from_slice(&f32::NAN.to_le_bytes());
    weights[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let folder = scratch(&[("w.safetensors", &weights)]);
    let output =
        nnc_in(folder.path(), &format!("run examples/lenet.nn --weights {{}}/w.safetensors --input {DIGIT}"));
    assert!(output.stderr.starts_with("warning: `"), "{}", output.stderr);
    assert!(output.stderr.contains(" has 1 NaN and 1 infinite values"), "{}", output.stderr);
    output.ok();
}
