//! Source files and positions in them.
//!
//! Every file that takes part in a compilation lives in one [`SourceMap`]; a [`Span`] is a byte
//! range in one of its files. Spans are small and `Copy`: they ride on syntax, graph nodes and
//! kernels to the last stage.

use std::fmt;

use crate::diagnostic::Diagnostic;

/// The largest source that is read, in bytes. Programs have a few kilobytes; filters written out by hand some more.
pub const MAX_SOURCE_BYTES: usize = 4 << 20;

/// Index of a file in a [`SourceMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileId(pub u32);

/// A half-open byte range `start..end` of one file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The range `start..end` of `file`.
    pub fn new(file: FileId, start: usize, end: usize) -> Span {
        Span { file, start: start as u32, end: end as u32 }
    }

    /// The smallest span that covers both (they must be of one file; else `self`).
    pub fn to(self, other: Span) -> Span {
        if self.file != other.file {
            return self;
        }
        Span { file: self.file, start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}..{}", self.file.0, self.start, self.end)
    }
}

/// One source file.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The name shown to the user: a path, `<stdin>`, `<string>` or `std.vision`.
    pub name: String,
    /// The text.
    pub text: String,
    line_starts: Vec<u32>,
}

impl SourceFile {
    /// One-based line of a byte of the text.
    pub fn line_of(&self, byte: usize) -> usize {
        self.line_starts.partition_point(|&s| s as usize <= byte)
    }
}

/// All source files of one compilation.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    files: Vec<SourceFile>,
}

impl SourceMap {
    /// An empty map.
    pub fn new() -> SourceMap {
        SourceMap::default()
    }

    /// Adds a file; its text must be shorter than 4 GiB (the reader checks).
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> FileId {
        let text = text.into();
        let line_starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(i, _)| i as u32 + 1))
            .collect();
        self.files.push(SourceFile { name: name.into(), text, line_starts });
        FileId(self.files.len() as u32 - 1)
    }

    /// The file of that index.
    pub fn file(&self, id: FileId) -> &SourceFile {
        &self.files[id.0 as usize]
    }

    /// Says that a source is larger than [`MAX_SOURCE_BYTES`]; for readers, which need not read more of it.
    pub fn too_large(name: &str) -> Diagnostic {
        Diagnostic::global(format!("`{name}` is larger than {} MiB", MAX_SOURCE_BYTES >> 20))
            .note("a source of that size is refused; weights belong into a `.safetensors` file")
    }

    /// All files, in the order in which they were added.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &SourceFile)> {
        self.files.iter().enumerate().map(|(i, f)| (FileId(i as u32), f))
    }

    /// The text of a span.
    pub fn text(&self, span: Span) -> &str {
        &self.file(span.file).text[span.start as usize..span.end as usize]
    }

    /// One-based line and column (in characters) of the span's start.
    pub fn line_column(&self, span: Span) -> (usize, usize) {
        let file = self.file(span.file);
        let line = file.line_starts.partition_point(|&s| s <= span.start) - 1;
        let start = file.line_starts[line] as usize;
        (line + 1, file.text[start..span.start as usize].chars().count() + 1)
    }

    /// `vgg.nn:12`: where a span starts, for reports.
    pub fn location(&self, span: Span) -> String {
        format!("{}:{}", self.file(span.file).name, self.line_column(span).0)
    }
}
