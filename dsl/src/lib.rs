//! The layer language: text in, syntax tree and diagnostics out.
//!
//! This crate knows text, spans, syntax, diagnostics and formatting, and carries the standard
//! library (`std/*.nn`). It knows nothing of tensors or graphs.

pub mod ast;
pub mod diagnostic;
pub mod source;

pub use diagnostic::{Diagnostic, Label, Severity};
pub use source::{FileId, SourceMap, Span};
