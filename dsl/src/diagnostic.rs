//! What is said to the author of a program: errors and warnings that point at the text.
//!
//! Diagnostics are data here; [`render`](crate::render) turns them into text.

use crate::source::Span;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The program cannot be compiled.
    Error,
    /// It can, but probably not as meant.
    Warning,
}

/// A place in the text and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What is said there; may be empty.
    pub message: String,
}

/// One message with its places, explanation and hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The message: starts lowercase, names the thing in backquotes, expected before found.
    pub title: String,
    /// The place it is about; the first label is shown with `^`.
    pub primary: Vec<Label>,
    /// Further places, shown with `-`.
    pub secondary: Vec<Label>,
    /// Explanations below the excerpt, such as the chain of layers that led to a shape.
    pub notes: Vec<String>,
    /// What to do, where that is obvious.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(title: impl Into<String>, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            title: title.into(),
            primary: vec![Label { span, message: message.into() }],
            secondary: vec![],
            notes: vec![],
            help: None,
        }
    }

    /// A warning at a place.
    pub fn warning(title: impl Into<String>, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(title, span, message) }
    }

    /// An error that is about no place in a text (a file that cannot be read, say).
    pub fn global(title: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            title: title.into(),
            primary: vec![],
            secondary: vec![],
            notes: vec![],
            help: None,
        }
    }

    /// Adds a further place.
    pub fn label(mut self, span: Span, message: impl Into<String>) -> Diagnostic {
        self.secondary.push(Label { span, message: message.into() });
        self
    }

    /// Adds an explanation.
    pub fn note(mut self, note: impl Into<String>) -> Diagnostic {
        self.notes.push(note.into());
        self
    }

    /// Sets the hint.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }
}
