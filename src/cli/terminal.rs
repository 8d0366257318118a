//! What goes to the terminal: results to standard output, everything else to standard error.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;

use nnc::Error;

use super::Outcome;

/// Whether messages are coloured: on a terminal, unless `NO_COLOR` is set (no-color.org).
pub fn color() -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    std::io::stderr().is_terminal() && !forbidden && !dumb
}

/// Writes to standard output. A reader that has gone away (`| head`) ends the program quietly.
pub fn print(text: &str) -> Outcome {
    print_with(|out| out.write_all(text.as_bytes()))
}

/// As [`print`], for what is written piece by piece.
pub fn print_with(content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Outcome {
    let mut out = std::io::stdout().lock();
    match content(&mut out).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Error::Io { action: "write", path: "standard output".into(), error }.into()),
    }
}

/// Writes a line to standard error, whatever happens there.
pub fn error_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Tells something on standard error that is no failure.
pub fn note(text: &str) {
    if color() {
        error_line(&format!("\x1b[1;92mnote\x1b[0m: {text}"));
    } else {
        error_line(&format!("note: {text}"));
    }
}

/// Warns on standard error.
pub fn warn(text: &str) {
    if color() {
        error_line(&format!("\x1b[1;93mwarning\x1b[0m: {text}"));
    } else {
        error_line(&format!("warning: {text}"));
    }
}

/// Writes a text to a file (whole or not at all), or to standard output for `-` or no file.
pub fn write_or_print(path: Option<&Path>, text: &str) -> Outcome {
    match path {
        Some(path) if path != Path::new("-") => Ok(nnc::data::file::write(path, text.as_bytes())?),
        _ => print(text),
    }
}

/// `1.5 MiB`.
pub fn bytes(n: u64) -> String {
    nnc::report::table::bytes(n)
}
