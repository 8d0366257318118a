//! Programs that use every feature of the language; the layout is the author's, not the canonical one.

/// Name and text.
pub const SAMPLES: &[(&str, &str)] = &[
    (
        "vgg",
        r#"// vgg.nn: VGG-16, configuration D of Simonyan & Zisserman (2014)
use std.vision

net vgg16(classes = 1000) {
    input image: f32[N, 3, 224, 224]

    output logits = image
        -> stage(64, 2) -> stage(128, 2) -> stage(256, 3) -> stage(512, 3) -> stage(512, 3)
        -> flatten
        -> dense(4096) -> relu -> dropout(0.5)
        -> dense(4096) -> relu -> dropout(0.5)
        -> dense(classes)
    output probabilities = logits -> softmax

    train {
        input label: i32[N]
        loss = cross_entropy(logits, label)
        metric top1 = accuracy(logits, label)
        optimizer = sgd(lr = 0.01, momentum = 0.9, weight_decay = 5e-4)
        schedule = step(every = 30, factor = 0.1)
    }
}

block stage(x, channels, depth) {
    repeat depth { x = x -> conv(channels, 3x3, pad = 1) -> relu }
    x -> maxpool(2x2)
}
"#,
    ),
    (
        "branches",
        r#"block inception(x, c1, r3, c3, r5, c5, p) {
    concat(
        x -> conv(c1, 1) -> relu,
        x -> conv(r3, 1) -> relu -> conv(c3, 3, pad = 1) -> relu,
        x -> conv(r5, 1) -> relu -> conv(c5, 5, pad = 2) -> relu,
        x -> maxpool(3, stride = 1, pad = 1) -> conv(p, 1) -> relu,
    )
}

block residual(x, channels, stride = 1) {
    let f = x -> conv(channels, 3, stride, pad = 1, bias = false) -> batchnorm -> relu
              -> conv(channels, 3, pad = 1, bias = false) -> batchnorm
    let skip = if x.channels == channels and stride == 1 { x }
               else { x -> conv(channels, 1, stride, bias = false) -> batchnorm }
    f + skip -> relu
}

block highway(x, units) {                            // y = C(x)·x + T(x)·F(x), C = 1 - T
    let t = x -> dense(units, bias_init = constant(-2)) -> sigmoid
    t * (x -> dense(units) -> relu) + (1 - t) * x
}
"#,
    ),
    (
        "sharing",
        r#"net sample() {
    layer embed = conv(32, 3, pad = 1)        // one set of weights, however often it is applied
    let distance = (left -> embed) - (right -> embed)

    x -> conv(64, 3) as conv1_1 -> relu       // `as` names the layer: conv1_1.weight, and taps its value
}
"#,
    ),
    (
        "paths",
        r#"net sample() {
    for i in 0..blocks { x = x -> residual(channels) as layer1.{i} }      // layer1.0.conv1.weight, layer1.0.bn1.weight …
    x -> conv(64, 3, pad = 1) as features.{i} -> relu                     // features.0.weight
}
"#,
    ),
    (
        "layers",
        r#"block maxout(x, pieces) {                 // pooling over channels that learn different filters
    x -> reshape([N, pieces, x.channels / pieces, x.height, x.width]) -> max(axis = 1)
}

block layer_norm(x, eps = 1e-5) {
    param gain:  f32[x.features] = ones
    param shift: f32[x.features] = zeros
    let m = mean(x, axis = -1, keep = true)
    let v = mean((x - m) * (x - m), axis = -1, keep = true)
    (x - m) / sqrt(v + eps) * gain + shift
}
"#,
    ),
    (
        "recurrence",
        r#"block recurrent_highway(xs, units, depth) {           // xs: f32[N, T, features], T a number here
    layer gate = dense(units)
    layer cand = dense(units)
    let h = zeros([N, units])
    for t in 0..xs.time {
        repeat depth { let g = concat(xs[:, t], h) -> gate -> sigmoid
                       h = g * (concat(xs[:, t], h) -> cand -> tanh) + (1 - g) * h }
    }
    h
}
"#,
    ),
    (
        "everything",
        r#"use std.vision
use "blocks.nn"

block batchnorm(x, eps = 1e-5) as bn {
    let c = x.channels
    param weight: f32[c] = ones
    state running_mean: f32[c] = zeros
    state count: i32
    (x - running_mean) * weight
}

net everything(depth = 16, wide = false, version = "1.0") {
    require depth in [11, 13, 16, 19], "no VGG has {depth} layers, {depth + 1} neither; say \{depth\} \"so\""
    input image: f32[N, 3, 224, 224]; input flag: bool[]
    const w = [[1, 0], [0, 1]]
    let y, aux = image -> head
    let a = -2 ^ 2 + 3 * 4 % 5 - -1
    let b = not wide and depth >= 5 or version != "1.1" and 3 not in 0..4
    for c, n in zip([64, 128], [1, 2]) { y = y -> conv(c, 3x3, stride = 1x2, in = 3) as features.{n}.conv }
    y, aux = aux -> pair(y)
    for i in 0..4 {
        y = y -> conv(64, 3) as layer{i + 1}.0 -> relu as input.output.0
    }
    let z = if depth == 11 { y } else if depth == 13 { aux } else { (y + aux) as sum -> relu }
    let t = z[:, 1, 2:, :3, 4:5].features
    let pair = (t, z)
    let one = (t,)
    let longer = t +
        z
        -> relu
    let condition = if wide { 1 }
                    else { 2 }
    output result = downsample(t, x.input) as downsample.0
        -> (relu)
    repeat depth { t = t -> relu; z = z -> relu }
    relu
    (a + b)
    train { loss = mse(result, t); metric top1 = accuracy(result, t) }
}
"#,
    ),
];
