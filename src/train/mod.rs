//! Training: what is around the compiled step.

pub mod checkpoint;
pub mod confusion;
pub mod curves;
pub mod events;
pub mod log;
pub mod schedule;
