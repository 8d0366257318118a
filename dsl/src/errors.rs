//! Collects the errors of one file, at most a screenful.

use crate::diagnostic::{Diagnostic, Severity};

/// How many errors of one file are shown.
pub const MAX_ERRORS: usize = 20;

/// Characters of a word shown in a message.
const SHOWN: usize = 40;

/// Kept while collecting, so that a sorted list has the first ones of the file.
const KEPT: usize = 1000;

/// Text of the program for use in a message: of long ones the beginning.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The errors of one file.
#[derive(Debug, Default)]
pub struct Errors {
    list: Vec<Diagnostic>,
    dropped: usize,
}

impl Errors {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < KEPT {
            self.list.push(diagnostic);
        } else {
            self.dropped += 1;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len() + self.dropped
    }

    /// All, in the order of the text; past [`MAX_ERRORS`] only their number.
    pub fn finish(self) -> Vec<Diagnostic> {
        let mut list = self.list;
        list.sort_by_key(|d| d.primary.first().map(|l| l.span));
        let mut shown = 0;
        let mut more = self.dropped;
        list.retain(|d| {
            let kept = d.severity != Severity::Error || shown < MAX_ERRORS;
            shown += usize::from(kept && d.severity == Severity::Error);
            more += usize::from(!kept);
            kept
        });
        if more > 0 {
            list.push(Diagnostic::global(format!("and {more} more errors")));
        }
        list
    }
}
