//! What programs become: the graph's text for small programs that each show one thing.

use nnc_compiler::build::{BuildOptions, Loader, build};
use nnc_compiler::graph::{print, verify};
use nnc_dsl::SourceMap;

/// `use "scale.nn"` finds a file with one block.
struct Files;

impl Loader for Files {
    fn load(&self, path: &str, _from: &str) -> Result<(String, String), String> {
        match path {
            "scale.nn" => Ok((path.to_string(), "block scale(x, by) { x * by }\n".to_string())),
            _ => Err("no such file".to_string()),
        }
    }
}

/// The graph of a program, with `sets` as `name=value`.
fn graph(text: &str, sets: &[(&str, &str)]) -> String {
    let mut map = SourceMap::new();
    let root = map.add("test.nn", text);
    let sets = sets.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let options = BuildOptions { sets, ..BuildOptions::default() };
    let built = build(&mut map, root, &Files, &options).unwrap_or_else(|d| panic!("{d:#?}"));
    verify::verify(&built.graph).unwrap_or_else(|e| panic!("{e:?}"));
    print::print(&built.graph)
}

macro_rules! golden {
    ($name:ident, $text:expr) => {
        golden!($name, $text, &[]);
    };
    ($name:ident, $text:expr, $sets:expr) => {
        #[test]
        fn $name() {
            insta::with_settings!({
                prepend_module_to_snapshot => false,
                omit_expression => true,
            }, {
                let both = format!("{}\n\n{}", $text.trim(), graph($text, $sets));
                insta::assert_snapshot!(format!("graph_{}", stringify!($name)), both);
            });
        }
    };
}

golden!(
    stage,
    "
use std.vision

net one(classes = 10) {
    input image: f32[N, 3, 32, 32]
    output logits = image -> stage(64, 2) -> flatten -> dense(classes)
}

block stage(x, channels, depth) {
    repeat depth { x = x -> conv(channels, 3x3, pad = 1) -> relu }
    x -> maxpool(2x2)
}
"
);

golden!(
    residual,
    "
use std.vision

net one {
    input image: f32[N, 16, 8, 8]
    output y = image -> residual(16) as layer1.0 -> residual(32, 2) as layer1.1
}

block residual(x, channels, stride = 1) {
    let f = x -> conv(channels, 3, stride, pad = 1, bias = false) -> batchnorm -> relu
              -> conv(channels, 3, pad = 1, bias = false) -> batchnorm
    let skip = if x.channels == channels and stride == 1 { x }
               else { x -> conv(channels, 1, stride, bias = false) -> batchnorm }
    f + skip -> relu
}
"
);

golden!(
    inception,
    "
use std.vision

net one {
    input image: f32[N, 192, 28, 28]
    output y = image -> inception(64, 96, 128, 16, 32, 32)
}

block inception(x, c1, r3, c3, r5, c5, p) {
    concat(
        x -> conv(c1, 1) -> relu,
        x -> conv(r3, 1) -> relu -> conv(c3, 3, pad = 1) -> relu,
        x -> conv(r5, 1) -> relu -> conv(c5, 5, pad = 2) -> relu,
        x -> maxpool(3, stride = 1, pad = 1) -> conv(p, 1) -> relu,
    )
}
"
);

golden!(
    highway,
    "
net one {
    input x: f32[N, 8]
    output y = x -> highway(8)
}

block highway(x, units) {
    let t = x -> dense(units, bias_init = constant(-2)) -> sigmoid
    t * (x -> dense(units) -> relu) + (1 - t) * x
}
"
);

golden!(
    shared_layer,
    "
use std.vision

net one {
    input left: f32[N, 3, 8, 8]
    input right: f32[N, 3, 8, 8]
    layer embed = conv(4, 3, pad = 1)
    output distance = (left -> embed) - (right -> embed)
}
"
);

golden!(
    shared_net,
    "
use std.vision

net one {
    input left: f32[N, 3, 8, 8]
    input right: f32[N, 3, 8, 8]
    layer tower = features(channels = 4)
    output distance = abs((left -> tower) - (right -> tower)) as difference -> sum(axis = 1)
}

net features(channels = 8) {
    input image: f32[B, 3, H, W]
    output y = image -> conv(channels, 3) -> conv(channels, 3) -> relu -> reshape([B, -1])
}
"
);

golden!(
    recurrence,
    "
net one {
    input xs: f32[N, 3, 4]
    output y = xs -> recurrent_highway(5, 1)
}

block recurrent_highway(xs, units, depth) {
    layer gate = dense(units)
    layer cand = dense(units)
    let h = zeros([N, units])
    for t in 0..xs.time {
        repeat depth { let g = concat(xs[:, t], h) -> gate -> sigmoid
                       h = g * (concat(xs[:, t], h) -> cand -> tanh) + (1 - g) * h }
    }
    h
}
"
);

golden!(
    own_layer,
    "
net one {
    input x: f32[N, 8]
    let y = x -> norm
    output z = y -> norm as second
}

block norm(x, eps = 1e-5) as ln {
    param gain:  f32[x.features] = ones
    param shift: f32[x.features] = zeros
    let m = mean(x, axis = -1, keep = true)
    let v = mean((x - m) * (x - m), axis = -1, keep = true)
    (x - m) / sqrt(v + eps) * gain + shift
}
"
);

golden!(
    sizes_from_outside,
    "
use \"scale.nn\"

net one(depth = 1, version = \"1.0\", grid = 2x2, widths = [4]) {
    input x: f32[N, 8]
    let y = x
    for w in widths { y = y -> dense(w) }
    repeat depth { y = y -> scale(if version == \"1.1\" { 2 } else { 3 }) }
    output z = y + grid.height
}
",
    &[("N", "4"), ("depth", "2"), ("version", "1.1"), ("grid", "3x1"), ("widths", "[5, 6]")]
);

golden!(
    indexing,
    "
net one {
    input x: f32[N, 6, 10]
    input label: i32[N]
    let a, b = x -> split(2)
    let first = x[:, 0:3] - a
    let last = x[:, -3:, 2:] + b[:, :, :8]
    output y = where(first > 0, first, -first) -> sum(axis = [1, 2])
    output z = last -> transpose -> tile([1, 2, 1])
    output h = one_hot(label, 10) -> cast(bool)
    output p = x -> pad([1, 0, 0, 2]) -> argmax
}
"
);

golden!(
    same_padding,
    "
use std.vision

net one {
    input image: f32[N, 3, 7, 10]
    output a = image -> conv(4, 2, pad = \"same\")
    output b = image -> conv(4, 3x5, stride = 2, pad = \"same\")
    output c = image -> conv(4, 3, pad = [0, 1, 2, 3], dilation = 2x1)
    output d = image -> conv_transpose(4, 3, stride = 2, pad = 1, output_pad = 1)
    output e = image -> avgpool(3, stride = 2, ceil = true, count_pad = false)
}
"
);
