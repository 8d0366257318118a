//! Builds a net from a string, gives it weights written out by hand, and runs it:
//! `cargo run --release --example from_string`
//!
//! The net computes the exclusive or of two truth values, which no single dense layer can
//! (Minsky & Papert 1969); one hidden layer of two units can.

use std::collections::BTreeMap;

use ndarray::{arr1, arr2};
use nnc::{Options, Source, Weights};

const PROGRAM: &str = "
net xor() {
    input x: f32[N, 2]

    output y = x -> dense(2) as hidden -> relu -> dense(1) as top
}
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source = Source::from_text("<xor>", PROGRAM)?;
    let network = source.network(&Options::new().threads(1))?;

    // hidden = (relu(a + b), relu(a + b - 1)), y = hidden[0] - 2 hidden[1]
    let weights = Weights::from_map(BTreeMap::from([
        ("hidden.weight".to_string(), arr2(&[[1f32, 1.0], [1.0, 1.0]]).into()),
        ("hidden.bias".to_string(), arr1(&[0f32, -1.0]).into()),
        ("top.weight".to_string(), arr2(&[[1f32, -2.0]]).into()),
        ("top.bias".to_string(), arr1(&[0f32]).into()),
    ]));
    let model = network.load(&weights)?;

    let x = arr2(&[[0f32, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]); // N = 4 is found here
    let outputs = model.run(&[("x", (&x).into())])?;
    println!("x =\n{x}\ny =\n{}", outputs["y"].as_f32().ok_or("expected f32")?);
    Ok(())
}
