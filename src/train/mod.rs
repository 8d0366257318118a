//! Training: what is around the compiled step.
//!
//! ```text
//! Source ── Trainer::new ──▶ Trainer ── step, step, … ──▶ weights()
//!                              │  ▲
//!               checkpoint() / save()   restore() / load()
//! ```
//!
//! [`Trainer`] is the step with its memory; [`fit`](fit::fit) is the loop around it: epochs of a data
//! set in random order, evaluation, checkpoints, logs.

pub mod checkpoint;
pub mod confusion;
pub mod curves;
mod engine;
mod evaluation;
pub mod events;
pub mod fit;
mod inputs;
pub mod log;
pub mod logged;
mod memory;
pub mod schedule;
mod step;
mod trainer;

pub use evaluation::{Evaluation, Measures};
pub use memory::StepMemory;
pub use nnc_compiler::plan::activations::{Activation, Fate};
pub use nnc_compiler::plan::usage::{Kind, Usage};
pub use trainer::{Trainer, TrainerOptions};
