//! The example networks at full size against PyTorch: parameter counts and logits.

mod common;

use common::reference;
use nnc::{Device, Options, Source};

/// Nets of at most 20 layers agree to a ten-thousandth of the largest logit, deeper ones (rounding adds up)
/// to a thousandth.
const SHALLOW: f64 = 1e-4;
const DEEP: f64 = 1e-3;

/// Runs an example with generated weights and compares it with the stored results.
fn check(name: &str, example: &str, sets: &[(&str, &str)], device: Device, tolerance: f64) {
    let root = env!("CARGO_MANIFEST_DIR");
    let json = std::fs::read_to_string(format!("{root}/tests/reference/{name}.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&json).unwrap();
    let shape: Vec<usize> = serde_json::from_value(expected["shape"].clone()).unwrap();
    let logits: Vec<f64> = serde_json::from_value(expected["logits"].clone()).unwrap();

    let source = Source::open(format!("{root}/examples/{example}.nn")).unwrap();
    let options = sets.iter().fold(Options::new().set("N", 1).device(device), |o, (k, v)| o.set(*k, v));
    let network = source.network(&options).unwrap_or_else(|e| panic!("{}", e.render(false)));
    assert_eq!(reference::parameter_count(&network), expected["params"].as_u64().unwrap() as usize);

    let model = network.load(&reference::weights(&network)).unwrap();
    let image = reference::image(&shape);
    let outputs = model.run(&[("image", image.view())]).unwrap();
    let found = outputs["logits"].as_f32().unwrap();
    assert_eq!(found.len(), logits.len());
    let largest = logits.iter().fold(0f64, |m, v| m.max(v.abs()));
    let error = found.iter().zip(&logits).fold(0f64, |m, (a, b)| m.max((f64::from(*a) - b).abs())) / largest;
    println!("{name}: largest error {error:.1e} of the largest logit");
    assert!(error < tolerance, "{name}: largest error {error:.1e} of the largest logit");
}

macro_rules! nets {
    ($($test:ident: $example:literal $(, $key:literal = $value:literal)* ; $tolerance:expr)*) => { $(
        #[test]
        fn $test() {
            check(stringify!($test), $example, &[$(($key, $value)),*], Device::Cpu, $tolerance);
        }
    )* };
}

nets! {
    lenet5: "lenet"; SHALLOW
    alexnet: "alexnet"; SHALLOW
    vgg11: "vgg", "depth" = "11"; SHALLOW
    vgg13: "vgg", "depth" = "13"; SHALLOW
    vgg16: "vgg", "depth" = "16"; SHALLOW
    vgg19: "vgg", "depth" = "19"; SHALLOW
    googlenet: "googlenet"; DEEP
    resnet18: "resnet", "depth" = "18"; SHALLOW
    resnet34: "resnet", "depth" = "34"; DEEP
    resnet50: "resnet", "depth" = "50"; DEEP
    resnet101: "resnet", "depth" = "101"; DEEP
    resnet152: "resnet", "depth" = "152"; DEEP
    squeezenet1_0: "squeezenet", "version" = "1.0"; SHALLOW
    squeezenet1_1: "squeezenet", "version" = "1.1"; SHALLOW
    mobilenet_v2: "mobilenet_v2"; DEEP
    vgg11_cifar: "vgg_cifar"; SHALLOW
    resnet18_cifar: "resnet_cifar"; SHALLOW
}

/// The interpreter, on the nets for which its plain loops end in reasonable time.
mod interpreted {
    use super::*;

    #[test]
    fn lenet5() {
        check("lenet5", "lenet", &[], Device::Reference, SHALLOW);
    }

    #[test]
    fn vgg11_cifar() {
        check("vgg11_cifar", "vgg_cifar", &[], Device::Reference, SHALLOW);
    }

    #[test]
    fn mobilenet_v2() {
        check("mobilenet_v2", "mobilenet_v2", &[], Device::Reference, DEEP);
    }
}
