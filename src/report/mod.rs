//! Reports for people: tables, drawings, explanations. Each takes what a stage made and gives text;
//! none decides anything.

pub mod activations;
pub mod dot;
pub mod drawing;
pub mod explain;
pub mod layered;
pub mod memory;
pub mod place;
pub mod profile;
pub mod summary;
pub mod svg;
pub mod table;
