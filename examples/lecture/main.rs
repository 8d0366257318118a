//! Three claims of a lecture on convolutional networks, measured and drawn. From the repository's root:
//!
//! ```text
//! cargo run --release --example lecture -- degradation   what depth does to the training error
//! cargo run --release --example lecture -- gradients     what of a gradient reaches which layer
//! cargo run --release --example lecture -- pooling       what a pixel's shift changes
//! ```
//!
//! Each writes `examples/lecture/NAME.svg` and prints the numbers; `README.md` there says what they mean.

mod degradation;
mod gradients;
mod pooling;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use nnc::train::curves::{Panel, svg};

/// The kinds of stacks in `stack.nn`.
const KINDS: [&str; 3] = ["plain", "residual", "highway"];
const STACK: &str = "examples/lecture/stack.nn";

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["degradation"] => degradation::run("mnist:tests/data/digits", degradation::EPOCHS),
        ["degradation", data] => degradation::run(data, degradation::EPOCHS),
        ["degradation", data, epochs] => degradation::run(data, epochs.parse()?),
        ["gradients"] => gradients::run(),
        ["pooling"] => pooling::run(),
        _ => Err("expected degradation [mnist:DIR [EPOCHS]], gradients or pooling".into()),
    }
}

/// Draws the panels into `examples/lecture/NAME.svg`.
fn draw(name: &str, title: &str, panels: &[Panel]) -> Outcome {
    let path = Path::new("examples/lecture").join(name).with_extension("svg");
    std::fs::write(&path, svg(title, panels)?)?;
    println!("drawn: {}", path.display());
    Ok(())
}
