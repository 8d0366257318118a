//! Checks for a machine with a GPU: `cargo test --release --test cuda -- --ignored`. No GPU has run them yet.
//! (Small ones are also run against the double of the driver.)

use std::collections::BTreeMap;
use std::path::Path;

use nnc::compiler::target::GpuTarget;
use nnc::device::cuda::gpus;
use nnc::runtime::cuda::{Cache, CudaExecutable, CudaTrainable, Gpu};
use nnc::train::{Trainer, TrainerOptions};
use nnc::{Device, Network, Options, Precision, Source, Tensor, TensorView};

use crate::common::reference;

/// Of the largest element: sums are added up in another order.
const ROUNDING: f64 = 1e-4;

fn require_gpu() {
    if let Err(e) = gpus() {
        panic!("these tests need a GPU: {e}");
    }
}

fn network(text: &str, options: Options) -> Network {
    let source = Source::from_text("test.nn", text).unwrap();
    source.network(&options).unwrap_or_else(|e| panic!("{}", e.render(false)))
}

fn floats(t: &Tensor) -> Vec<f64> {
    match t {
        Tensor::F32(a) => a.iter().map(|&v| f64::from(v)).collect(),
        Tensor::F64(a) => a.iter().copied().collect(),
        Tensor::I32(a) => a.iter().map(|&v| f64::from(v)).collect(),
        Tensor::Bool(a) => a.iter().map(|&v| f64::from(u8::from(v))).collect(),
    }
}

fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what}, element {i}: expected {b}, found {a}");
    }
}

/// Made-up values for the inputs: integers are below 3.
fn inputs(network: &Network) -> Vec<(String, Tensor)> {
    let of = |spec: nnc::TensorSpec| {
        let shape = spec.ty.sizes().unwrap();
        let image = reference::image(&shape);
        let value = match spec.ty.dtype {
            nnc::DType::I32 => Tensor::I32(image.as_f32().unwrap().mapv(|v| (v.abs() * 3.0) as i32 % 3)),
            _ => image,
        };
        (spec.name, value)
    };
    network.inputs().into_iter().map(of).collect()
}

/// Nets that have every operation that programs can say.
const NETS: [(&str, &str); 5] = [
    (
        "convolutions",
        "use std.vision
net convolutions {
    input x: f32[2, 8, 9, 10]
    let a = x -> conv(8, 3x3, pad = 1) -> batchnorm -> relu
    let b = x -> conv(8, 1x1) -> sigmoid
    let c = x -> conv(8, 3x3, pad = 1, groups = 8) -> tanh
    output sum = a + b + c
    output strided = x -> conv(5, 5x5, stride = 2, pad = 2)
    output dilated = x -> conv(4, 3x3, dilation = 2)
    output up = x -> conv_transpose(3, 2x2, stride = 2)
    output larger = x -> upsample(2) -> conv(3, 3x3)
}
",
    ),
    (
        "pools",
        "use std.vision
net pools {
    input x: f32[2, 3, 9, 10]
    output most = x -> maxpool(3, stride = 2, pad = 1)
    output mean = x -> avgpool(2)
    output all = x -> global_avgpool
    output largest = x -> global_maxpool
    output adaptive = x -> avgpool_to(3)
    output response = x -> lrn(3)
}
",
    ),
    (
        "elements",
        "use std.vision
net elements {
    input x: f32[4, 6]
    input y: f32[4, 6]
    output a = exp(x) + log(abs(y) + 1) - sqrt(abs(x)) * rsqrt(y * y + 2) + erf(x)
    output b = maximum(x, y) * minimum(x, 0.5) - tanh(y) + floor(3 * x) * sign(y)
    output c = where(x > y, gelu(x), silu(y) + hard_swish(x))
    output d = cast(cast(4 * x, i32), f32) + clamp(y, -0.5, 0.5) ^ 2 + softplus(x) + x -> elu -> leaky_relu
    output e = x > y and not (x == y)
}
",
    ),
    (
        "sums",
        "use std.vision
net sums {
    input x: f32[3, 40, 7]
    output a = sum(x, axis = 1)
    output b = mean(x)
    output c = max(x, axis = [0, 2])
    output d = variance(x, axis = [0, 2])
    output e = x -> softmax
    output f = log_softmax(x, axis = 1)
    output g = argmax(x, axis = 2)
    output h = prod(x, axis = 2) + min(x, axis = 2)
    output normal = x -> layer_norm
}
",
    ),
    (
        "products",
        "use std.vision
net products {
    input x: f32[5, 12]
    input y: f32[12, 7]
    input labels: i32[3]
    output a = matmul(x, y)
    output b = x -> dense(9) -> relu -> dense(3)
    output c = concat(x, 2 * x, axis = 1)
    output d = transpose(x)
    output e = reshape(x, [3, 20])
    output f = pad(x[:, 1:9], [[1, 0], [0, 2]], value = 3) -> tile([2, 1])
    output g = gather(x, labels) + stack(x[0], x[1], x[4], axis = 0)
    output h = one_hot(labels, 4)
}
",
    ),
];

/// Every operation against the CPU.
#[test]
#[ignore = "needs a GPU"]
fn operations() {
    require_gpu();
    for (name, text) in NETS {
        let run = |device| {
            let network = network(text, Options::new().device(device));
            let inputs = inputs(&network);
            let views: Vec<(&str, TensorView<'_>)> =
                inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
            network.initialize(7).unwrap_or_else(|e| panic!("{name}: {e}")).run(&views).unwrap()
        };
        let (cpu, gpu) = (run(Device::Cpu), run(Device::Cuda));
        for (output, expected) in cpu.iter() {
            let what = format!("`{output}` of `{name}`");
            assert_close(&what, &floats(&gpu[output]), &floats(expected), ROUNDING);
        }
    }
}

/// One model, several threads.
#[test]
#[ignore = "needs a GPU"]
fn runs_take_turns() {
    require_gpu();
    let network = network(NETS[4].1, Options::new().device(Device::Cuda));
    let model = network.initialize(7).unwrap();
    let inputs = inputs(&network);
    let views: Vec<(&str, TensorView<'_>)> = inputs.iter().map(|(n, t)| (n.as_str(), t.view())).collect();
    let expected = model.run(&views).unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| (0..5).for_each(|_| assert_eq!(model.run(&views).unwrap(), expected)));
        }
    });
}

/// Branches beside each other, and inputs in turn: runs from the graph give the bits of first runs, which are kernel by
/// kernel.
#[test]
#[ignore = "needs a GPU"]
fn branches_beside_each_other() {
    require_gpu();
    let text = "use std.vision
net branches {
    input x: f32[1, 8, 6, 6]
    let first = concat(
        x -> conv(8, 1) -> relu,
        x -> conv(4, 1) -> relu -> conv(8, 3, pad = 1) -> relu,
        x -> conv(4, 1) -> relu -> conv(4, 5, pad = 2) -> relu,
        x -> maxpool(3, stride = 1, pad = 1) -> conv(4, 1) -> relu,
    )
    output y = concat(
        first -> conv(4, 1) -> relu,
        first -> conv(8, 1) -> relu -> conv(4, 3, pad = 1) -> relu,
    ) -> global_avgpool -> dense(5)
}
";
    let network = network(text, Options::new().device(Device::Cuda));
    let model = || network.initialize(7).unwrap();
    let run = |model: &nnc::Model, scale: f32| {
        let x = reference::image(&[1, 8, 6, 6]).as_f32().unwrap().mapv(|v| scale * v);
        model.run(&[("x", Tensor::F32(x).view())]).unwrap()
    };
    let [first, second] = [1.0, -2.0].map(|scale| (scale, run(&model(), scale)));
    assert_ne!(first.1, second.1);
    let model = model();
    for _ in 0..10 {
        for (scale, expected) in [&first, &second] {
            assert_eq!(run(&model, *scale), *expected);
        }
    }
}

/// Steps whose inputs were copied ahead, or other ones, or some of them: each gets its own.
#[test]
#[ignore = "needs a GPU"]
fn inputs_copied_ahead() {
    require_gpu();
    let gpu = Gpu::open(Cache::off()).unwrap();
    let target = GpuTarget::for_capability(gpu.info().capability).unwrap();
    let text = "net sum {\n input x: f32[3]\n input y: f32[3]\n output z = 2 * x + y\n}\n";
    let compiled = network(text, Options::new().gpu(target)).compile().unwrap();
    let code = CudaExecutable::load(&gpu, compiled.program().clone()).unwrap();
    let none: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut steps = CudaTrainable::new(code, &none).unwrap();
    let tensor = |k: usize| Tensor::F32(ndarray::arr1(&[k as f32, 1.0, -1.0]).into_dyn());
    let mut staged = None;
    for k in 0..28 {
        let (x, y) = (tensor(k), tensor(100 * k));
        steps.begin(&[x.view(), y.view()], staged.take()).unwrap();
        // The next ones, once all, once the first alone, once others that are not used then, once each by itself,
        // once none.
        let (next, other) = ([tensor(k + 1), tensor(100 * (k + 1))], tensor(7777));
        let [a, b] = &next;
        match k % 7 {
            0 => staged = Some(steps.stage(&[Some(a.view()), Some(b.view())]).unwrap()),
            1 | 4 => staged = Some(steps.stage(&[Some(a.view()), None]).unwrap()),
            2 => drop(steps.stage(&[Some(other.view()), Some(other.view())]).unwrap()),
            3 => {
                steps.stage(&[Some(other.view()), Some(other.view())]).unwrap();
                staged = Some(steps.stage(&[None, Some(b.view())]).unwrap());
            }
            5 => {
                steps.stage(&[Some(other.view()), None]).unwrap();
                staged = Some(steps.stage(&[None, Some(b.view())]).unwrap());
            }
            _ => {}
        }
        let found = steps.finish().unwrap();
        assert_eq!(floats(&found[0]), [102.0 * k as f64, 3.0, -3.0], "step {k}");
    }
    assert!(steps.finish().is_err(), "no step is under way");
}

/// A net of every optimizer, three steps on the CPU and on the GPU: losses and all parameters.
#[test]
#[ignore = "needs a GPU"]
fn training_steps() {
    require_gpu();
    for optimizer in ["sgd(lr = 0.1, momentum = 0.9)", "adam(lr = 0.01)"] {
        let text = format!(
            "use std.vision
net steps {{
    input image: f32[N, 2, 8, 8]
    output logits = image -> conv(4, 3x3, pad = 1, bias = false) -> batchnorm -> relu -> maxpool(2) -> conv(4, 3x3, stride = 2)
                          -> relu -> flatten -> dropout(0.2) -> dense(3)
    train {{
        input label: i32[N]
        loss = cross_entropy(logits, label)
        optimizer = {optimizer}
    }}
}}
"
        );
        let run = |device| {
            let source = Source::from_text("steps.nn", &text).unwrap();
            let how = TrainerOptions { seed: 3, batch: Some(4), ..TrainerOptions::default() };
            let mut trainer = Trainer::new(&source, &Options::new().device(device), &how)
                .unwrap_or_else(|e| panic!("{}", e.render(false)));
            let image = reference::image(&[4, 2, 8, 8]);
            let label = Tensor::I32(ndarray::arr1(&[0, 1, 2, 1]).into_dyn());
            let given = [("image", image.view()), ("label", label.view())];
            let losses: Vec<f64> = (0..3).map(|_| trainer.step(&given).unwrap().loss).collect();
            (losses, trainer.checkpoint().unwrap().tensors)
        };
        let ((cpu_losses, cpu), (gpu_losses, gpu)) = (run(Device::Cpu), run(Device::Cuda));
        assert_close("losses", &gpu_losses, &cpu_losses, ROUNDING);
        assert!(cpu.len() > 8 && cpu.keys().eq(gpu.keys()));
        for (name, expected) in &cpu {
            assert_close(name, &floats(&gpu[name]), &floats(expected), 1e-3);
        }
    }
}

/// An example with generated weights against the results of PyTorch that the repository carries.
fn check_example(name: &str, example: &str, sets: &[(&str, &str)]) {
    require_gpu();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let json = std::fs::read_to_string(root.join(format!("tests/reference/{name}.json"))).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&json).unwrap();
    let shape: Vec<usize> = serde_json::from_value(expected["shape"].clone()).unwrap();
    let logits: Vec<f64> = serde_json::from_value(expected["logits"].clone()).unwrap();
    let source = Source::open(root.join(format!("examples/{example}.nn"))).unwrap();
    for (precision, tolerance) in [(Precision::Default, LOGITS), (Precision::Strict, STRICT_LOGITS)] {
        let options = Options::new().set("N", 1).device(Device::Cuda).precision(precision);
        let options = sets.iter().fold(options, |o, (k, v)| o.set(*k, v));
        let network = source.network(&options).unwrap_or_else(|e| panic!("{}", e.render(false)));
        assert_eq!(reference::parameter_count(&network), expected["params"].as_u64().unwrap() as usize);
        let model = network.load(&reference::weights(&network)).unwrap();
        let image = reference::image(&shape);
        let outputs = model.run(&[("image", image.view())]).unwrap();
        assert_close(name, &floats(&outputs["logits"]), &logits, tolerance);
    }
}

/// Of the largest logit: products in TF32 may be rounded so, in f32 they are closer.
const LOGITS: f64 = 5e-3;
const STRICT_LOGITS: f64 = 1e-4;

macro_rules! examples {
    ($($test:ident: $example:literal $(, $key:literal = $value:literal)*;)*) => { $(
        #[test]
        #[ignore = "needs a GPU"]
        fn $test() {
            check_example(stringify!($test), $example, &[$(($key, $value)),*]);
        }
    )* };
}

examples! {
    lenet5: "lenet";
    alexnet: "alexnet";
    vgg11: "vgg", "depth" = "11";
    vgg13: "vgg", "depth" = "13";
    vgg16: "vgg", "depth" = "16";
    vgg19: "vgg", "depth" = "19";
    googlenet: "googlenet";
    resnet18: "resnet", "depth" = "18";
    resnet34: "resnet", "depth" = "34";
    resnet50: "resnet", "depth" = "50";
    resnet101: "resnet", "depth" = "101";
    resnet152: "resnet", "depth" = "152";
    squeezenet1_0: "squeezenet", "version" = "1.0";
    squeezenet1_1: "squeezenet", "version" = "1.1";
    mobilenet_v2: "mobilenet_v2";
    vgg11_cifar: "vgg_cifar";
    resnet18_cifar: "resnet_cifar";
}

/// A training step of an example against PyTorch's: loss, gradients, running statistics.
fn check_step(name: &str, example: &str) {
    require_gpu();
    check_step_in(Precision::Default, name, example, [GRADIENT, LOGITS]);
    check_step_in(Precision::Strict, name, example, [STRICT_GRADIENT, STRICT_LOGITS]);
}

fn check_step_in(precision: Precision, name: &str, example: &str, [gradient, logits]: [f64; 2]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let json = std::fs::read_to_string(root.join(format!("tests/reference/train/{name}.json"))).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&json).unwrap();
    let shape: Vec<usize> = serde_json::from_value(expected["shape"].clone()).unwrap();
    let label: Vec<i32> = serde_json::from_value(expected["labels"].clone()).unwrap();
    let source = Source::open(root.join(format!("examples/{example}.nn"))).unwrap();
    let options = Options::new().device(Device::Cuda).precision(precision);
    let how = TrainerOptions { batch: Some(label.len()), ..TrainerOptions::default() };
    let mut trainer = Trainer::new(&source, &options, &how).unwrap_or_else(|e| panic!("{}", e.render(false)));
    trainer.start_from(&reference::weights(&source.network(&options).unwrap()), &[]).unwrap();
    let (image, label) = (reference::image(&shape), Tensor::I32(ndarray::Array1::from(label).into_dyn()));
    let given = [("image", image.view()), ("label", label.view())];
    let gradients = trainer.gradients(&given).unwrap();
    assert_eq!(gradients.len(), expected["gradients"].as_object().unwrap().len());
    for (parameter, want) in expected["gradients"].as_object().unwrap() {
        let found = floats(&gradients[parameter]);
        let (norm, want_norm) =
            (found.iter().map(|x| x * x).sum::<f64>().sqrt(), want["norm"].as_f64().unwrap());
        assert!((norm - want_norm).abs() <= gradient * want_norm, "`{parameter}`: {want_norm}, found {norm}");
        let first: Vec<f64> = serde_json::from_value(want["first"].clone()).unwrap();
        for (f, w) in found.iter().zip(first) {
            assert!((f - w).abs() <= gradient * want_norm, "gradient of `{parameter}`: {w}, found {f}");
        }
    }
    let loss = expected["loss"].as_f64().unwrap();
    assert_close("the loss", &[trainer.step(&given).unwrap().loss], &[loss], logits);
    let weights = trainer.weights().unwrap();
    for (statistic, want) in expected["running"].as_object().unwrap() {
        let want: Vec<f64> = serde_json::from_value(want.clone()).unwrap();
        let found = floats(&weights.tensors().unwrap()[statistic]);
        assert_close(statistic, &found[..want.len()], &want, logits);
    }
}

/// Of a gradient's norm. With factors rounded to TF32 in the same places, PyTorch on a CPU differs from itself by up to
/// 1.3e-2 (LeNet-5), 3.6e-2 (VGG-11) and 3.9e-2 (ResNet-18) of it: batch normalisation of eight pictures magnifies that.
const GRADIENT: f64 = 8e-2;
const STRICT_GRADIENT: f64 = 2e-3;

macro_rules! steps {
    ($($test:ident: $name:literal, $example:literal;)*) => { $(
        #[test]
        #[ignore = "needs a GPU"]
        fn $test() {
            check_step($name, $example);
        }
    )* };
}

steps! {
    lenet5_step: "lenet5", "lenet";
    vgg11_cifar_step: "vgg11_cifar", "vgg_cifar";
    resnet18_cifar_step: "resnet18_cifar", "resnet_cifar";
}
