//! What a run writes down as it goes: a JSON line a step, and TensorBoard's event files.
//!
//! ```text
//! DIR/log.jsonl                {"step":1,"epoch":0,"learning_rate":0.01,"loss":2.31,"top1":0.09}
//!                              {"step":937,"epoch":0,"evaluation":{"loss":0.21,"accuracy":0.94}}
//! DIR/events.out.tfevents.…    the same numbers as scalars (see events.rs)
//! ```
//! Steps count from 1: a line of step n says what was measured in the n-th step. A run that is
//! resumed drops the lines of steps that its checkpoint does not know, then goes on.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Error;
use crate::error::Result;
use crate::train::events::EventFile;

/// The name of the file of JSON lines.
pub const FILE: &str = "log.jsonl";

/// Names and values, in order.
pub type Scalars<'a> = [(&'a str, f64)];

/// The log of a run.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    lines: BufWriter<File>,
    events: EventFile,
}

impl Log {
    /// Opens the log in a folder; of one that is there, the lines of steps up to `step` are kept.
    pub fn open(folder: &Path, step: u64) -> Result<Log> {
        let path = folder.join(FILE);
        let fail = |e| Error::io("write", &path, e);
        let kept = match std::fs::read_to_string(&path) {
            Ok(text) => kept_lines(&text, step),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        crate::data::file::write(&path, kept.as_bytes())?;
        let lines = BufWriter::new(OpenOptions::new().append(true).open(&path).map_err(fail)?);
        let events = EventFile::create(folder)?;
        Ok(Log { path, lines, events })
    }

    /// Writes down a step (counted from 1).
    pub fn step(&mut self, step: u64, epoch: u64, values: &Scalars<'_>) -> Result<()> {
        let comma = if values.is_empty() { "" } else { "," };
        self.line(&format!("{{{}{comma}{}}}", head(step, epoch), members(values)))?;
        self.events.scalars(step, "train", values)
    }

    /// Writes down an evaluation on held-out data after a step.
    pub fn evaluation(&mut self, step: u64, epoch: u64, values: &Scalars<'_>) -> Result<()> {
        self.line(&format!("{{{},\"evaluation\":{{{}}}}}", head(step, epoch), members(values)))?;
        self.events.scalars(step, "test", values)
    }

    /// Makes sure that everything is in the files.
    pub fn flush(&mut self) -> Result<()> {
        self.lines.flush().map_err(|e| Error::io("write", &self.path, e))?;
        self.events.flush()
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.lines, "{line}").map_err(|e| Error::io("write", &self.path, e))
    }
}

fn head(step: u64, epoch: u64) -> String {
    format!("\"step\":{step},\"epoch\":{epoch}")
}

/// The members of a JSON object, in their order. JSON has no NaN and no infinity: those are text.
fn members(values: &Scalars<'_>) -> String {
    let number =
        |v: f64| serde_json::Number::from_f64(v).map_or_else(|| Value::String(v.to_string()), Value::Number);
    let member = |&(name, v): &(&str, f64)| format!("{}:{}", Value::String(name.into()), number(v));
    values.iter().map(member).collect::<Vec<_>>().join(",")
}

/// The whole lines of steps up to `step`.
fn kept_lines(text: &str, step: u64) -> String {
    let of = |line: &str| serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64();
    let whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
    whole.filter(|l| of(l).is_some_and(|s| s <= step)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        log.step(1, 0, &[("learning_rate", 0.1), ("loss", 2.5), ("top1", f64::NAN)]).unwrap();
        log.evaluation(1, 0, &[("accuracy", 0.5)]).unwrap();
        log.flush().unwrap();
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(
            text,
            "{\"step\":1,\"epoch\":0,\"learning_rate\":0.1,\"loss\":2.5,\"top1\":\"NaN\"}\n\
             {\"step\":1,\"epoch\":0,\"evaluation\":{\"accuracy\":0.5}}\n"
        );
    }

    #[test]
    fn resuming_drops_what_the_checkpoint_does_not_know() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":").unwrap();
        let mut log = Log::open(folder.path(), 2).unwrap();
        log.step(3, 1, &[]).unwrap();
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"step\":1}\n{\"step\":2}\n{\"step\":3,\"epoch\":1}\n");
    }
}
