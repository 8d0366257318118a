//! Program texts: where they come from, and the checks and formatting that need no options.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nnc_dsl::{Diagnostic, FileId, SourceMap};

use crate::error::{Result, SourceError};
use crate::{Error, Network, Options};

/// Longer sources are refused.
pub const MAX_SOURCE_BYTES: u64 = nnc_dsl::MAX_SOURCE_BYTES as u64;

/// The text of a program.
#[derive(Clone, Debug)]
pub struct Source {
    pub(crate) map: SourceMap,
    pub(crate) root: FileId,
    /// Where `use "file.nn"` looks.
    pub(crate) folder: Option<PathBuf>,
}

impl Source {
    /// Reads a file. `use "other.nn"` in it looks in the file's folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Source> {
        let path = path.as_ref();
        let text = read_text(path)?;
        let mut source = Source::from_text(path.display().to_string(), text)?;
        source.folder = path.parent().map(Path::to_path_buf);
        Ok(source)
    }

    /// A program in memory; `name` is shown in diagnostics, e.g. `<stdin>`.
    pub fn from_text(name: impl Into<String>, text: impl Into<String>) -> Result<Source> {
        let (name, text) = (name.into(), text.into());
        if text.len() as u64 > MAX_SOURCE_BYTES {
            return Err(too_long(&name));
        }
        let mut map = SourceMap::new();
        let root = map.add(name, text);
        Ok(Source { map, root, folder: None })
    }

    /// The name shown in diagnostics.
    pub fn name(&self) -> &str {
        &self.map.file(self.root).name
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.map.file(self.root).text
    }

    /// The texts known so far, for rendering diagnostics.
    pub fn sources(&self) -> &SourceMap {
        &self.map
    }

    /// The text in canonical layout; comments are kept.
    ///
    /// # Errors
    /// [`Error::Source`] where the syntax is wrong.
    ///
    /// ```
    /// let source = nnc::Source::from_text("a.nn", "net a{input x:f32[N]\noutput y=x->relu}")?;
    /// assert_eq!(source.format()?, "net a {\n    input x: f32[N]\n    output y = x -> relu\n}\n");
    /// # Ok::<(), nnc::Error>(())
    /// ```
    pub fn format(&self) -> Result<String> {
        nnc_dsl::format(&self.map, self.root).map_err(|diagnostics| self.refuse(diagnostics))
    }

    /// Syntax errors and warnings, without choosing or building a net.
    pub fn syntax(&self) -> Vec<Diagnostic> {
        nnc_dsl::parse(&self.map, self.root).1
    }

    /// The syntax tree.
    pub(crate) fn parse(&self) -> Result<nnc_dsl::ast::Module> {
        let (module, diagnostics) = nnc_dsl::parse(&self.map, self.root);
        if diagnostics.iter().any(|d| d.severity == nnc_dsl::Severity::Error) {
            return Err(self.refuse(diagnostics));
        }
        Ok(module)
    }

    fn refuse(&self, diagnostics: Vec<Diagnostic>) -> Error {
        Error::Source(SourceError { sources: Arc::new(self.map.clone()), diagnostics })
    }

    /// The computation graph of one of its nets.
    pub fn network(&self, options: &Options) -> Result<Network> {
        Network::build(self, options)
    }
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    let length = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?.len();
    if length > MAX_SOURCE_BYTES {
        return Err(too_long(&path.display().to_string()));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    text_of(path, bytes)
}

/// The bytes as text, or where they stop being UTF-8.
pub fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1;
        Error::format(path, format!("expected UTF-8 text, found other bytes in line {line} (byte {at})"))
    })
}

fn too_long(name: &str) -> Error {
    let diagnostics = vec![SourceMap::too_large(name)];
    Error::Source(SourceError { sources: Arc::default(), diagnostics })
}
