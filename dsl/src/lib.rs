//! The layer language: text in, syntax tree and diagnostics out.
//!
//! This crate knows text, spans, syntax, diagnostics and formatting, and carries the standard
//! library (`std/*.nn`). It knows nothing of tensors or graphs.

pub mod ast;
pub mod diagnostic;
mod dump;
mod errors;
mod format;
mod lexer;
mod parser;
mod render;
pub mod source;
pub mod stdlib;
mod token;

pub use diagnostic::{Diagnostic, Label, Severity};
pub use dump::dump;
pub use errors::MAX_ERRORS;
pub use format::format;
pub use parser::{MAX_HEIGHT, MAX_NESTING, parse};
pub use render::render;
pub use source::{FileId, MAX_SOURCE_BYTES, SourceMap, Span};
