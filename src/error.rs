//! What can go wrong, as one type; [`Error::render`] is what a person should see.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nnc_dsl::{Diagnostic, SourceMap};
use nnc_runtime::cuda::CudaError;
use nnc_runtime::{LoadError, RunError};

/// Why something could not be done. `Display` is one or more lines without colour.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The source is wrong: where and why.
    Source(SourceError),
    /// A file could not be read or written.
    Io {
        /// What was to be done: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file is not what it should be: a weights file, a program, an array, a picture.
    Format {
        /// The file, or what else the data came from.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The weights do not fit the network.
    Weights(String),
    /// An input does not fit the network.
    Input(String),
    /// A program cannot be loaded or run here.
    Program(String),
    /// Training cannot go on.
    Training(String),
    /// The options ask for what cannot be.
    Options(String),
    /// A stage of the compiler refused what an earlier one made: a bug in nnc.
    Internal(String),
}

/// Diagnostics together with the texts they point at.
#[derive(Clone, Debug)]
pub struct SourceError {
    /// All texts.
    pub sources: Arc<SourceMap>,
    /// At least one error.
    pub diagnostics: Vec<Diagnostic>,
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The message for a person, with ANSI colours if asked for; ends without a line break.
    ///
    /// ```
    /// let source = nnc::Source::from_text("a.nn", "net a {\n    input x: f32[2]\n    output y = x -> rellu\n}\n")?;
    /// let error = source.network(&nnc::Options::new()).unwrap_err();
    /// assert!(error.render(false).contains("output y = x -> rellu"), "the message shows the line");
    /// # Ok::<(), nnc::Error>(())
    /// ```
    pub fn render(&self, color: bool) -> String {
        match self {
            Error::Source(e) => render_diagnostics(&e.sources, &e.diagnostics, color),
            _ if color => format!("\x1b[1;91merror\x1b[0m\x1b[1m: {self}\x1b[0m"),
            _ => format!("error: {self}"),
        }
    }

    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, error: std::io::Error) -> Error {
        Error::Io { action, path: path.as_ref().to_path_buf(), error }
    }

    pub(crate) fn format(path: impl AsRef<Path>, message: impl fmt::Display) -> Error {
        Error::Format { path: path.as_ref().to_path_buf(), message: message.to_string() }
    }
}

/// Diagnostics (errors or warnings) as text with excerpts of the sources.
pub fn render_diagnostics(sources: &SourceMap, diagnostics: &[Diagnostic], color: bool) -> String {
    nnc_dsl::render(sources, diagnostics, color).trim_end().to_string()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Source(e) => {
                let titles: Vec<String> = e
                    .diagnostics
                    .iter()
                    .map(|d| match d.primary.first() {
                        Some(l) => format!("{}: {}", e.sources.location(l.span), d.title),
                        None => d.title.clone(),
                    })
                    .collect();
                f.write_str(&titles.join("\n"))
            }
            Error::Io { action, path, error } => write!(f, "cannot {action} `{}`: {error}", path.display()),
            Error::Format { path, message } => write!(f, "`{}`: {message}", path.display()),
            Error::Weights(m)
            | Error::Input(m)
            | Error::Program(m)
            | Error::Training(m)
            | Error::Options(m) => f.write_str(m),
            Error::Internal(m) => write!(f, "internal error, please report it: {m}"),
        }
    }
}

/// As many complaints about weights are shown; a file of another network has hundreds.
const SHOWN_COMPLAINTS: usize = 8;

impl From<LoadError> for Error {
    fn from(e: LoadError) -> Error {
        match e {
            LoadError::Parameters(lines) => {
                let mut text = format!(
                    "the weights do not fit the network:\n  {}",
                    lines.iter().take(SHOWN_COMPLAINTS).cloned().collect::<Vec<_>>().join("\n  ")
                );
                if lines.len() > SHOWN_COMPLAINTS {
                    text.push_str(&format!("\n  and {} more", lines.len() - SHOWN_COMPLAINTS));
                }
                Error::Weights(text)
            }
            e @ LoadError::Unreadable { .. } => Error::Weights(e.to_string()),
            e => Error::Program(e.to_string()),
        }
    }
}

impl From<CudaError> for Error {
    fn from(e: CudaError) -> Error {
        Error::Program(e.to_string())
    }
}

impl From<RunError> for Error {
    fn from(e: RunError) -> Error {
        match e {
            RunError::Memory(e) => Error::Program(e.to_string()),
            RunError::Cuda(e) => Error::Program(e.to_string()),
            e => Error::Input(e.to_string()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
