//! [`ByteSize`]: an amount of memory, as people write it.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. Written with a unit, decimal (`512MB`) or binary (`1.5 GiB`).
///
/// ```
/// use nnc::ByteSize;
/// assert_eq!("512MB".parse(), Ok(ByteSize(512_000_000)));
/// assert_eq!("1.5 GiB".parse::<ByteSize>()?.to_string(), "1.5 GiB");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Units and their bytes. Letters may be of either case.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl ByteSize {
    /// The same or more, in whole MB (below 10 MB in whole kB, if it is not whole MB), as it is written for a limit:
    /// `187MB`.
    pub fn rounded_up(self) -> String {
        match self.0.div_ceil(1000) {
            kb if kb < 10_000 && !kb.is_multiple_of(1000) => format!("{kb}kB"),
            kb => format!("{}MB", kb.div_ceil(1000)),
        }
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        let wrong = |what: String| format!("{what}: expected a size such as `512MB` or `1.5GiB`");
        let trimmed = text.trim();
        let at = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..at], trimmed[at..].trim_start());
        let number: f64 = match number.parse() {
            Ok(n) if !number.starts_with('.') && !number.ends_with('.') => n,
            _ => return Err(wrong(format!("`{text}` does not begin with a number"))),
        };
        let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|&(_, n)| n);
        let Some(factor) = factor else {
            let what = match unit {
                "" => format!("`{text}` has no unit"),
                _ => {
                    let known: Vec<&str> = UNITS.iter().map(|&(name, _)| name).collect();
                    format!("`{unit}` is no unit of memory ({})", known.join(", "))
                }
            };
            return Err(wrong(what));
        };
        let bytes = number * factor as f64;
        if bytes >= u64::MAX as f64 {
            return Err(wrong(format!("`{text}` is too large")));
        }
        Ok(ByteSize(bytes as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&crate::report::table::bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_units() {
        for (text, bytes) in [
            ("0B", 0),
            ("7 B", 7),
            ("512MB", 512_000_000),
            ("512mb", 512_000_000),
            ("1KB", 1000),
            ("1kB", 1000),
            ("1.5KiB", 1536),
            (" 2 GiB ", 2 << 30),
            ("0.25GB", 250_000_000),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_told() {
        let said = |text: &str| text.parse::<ByteSize>().unwrap_err();
        let end = ": expected a size such as `512MB` or `1.5GiB`";
        let units = "(B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)";
        for (text, what) in [
            ("12 bananas", format!("`bananas` is no unit of memory {units}")),
            ("512", "`512` has no unit".into()),
            ("", "`` does not begin with a number".into()),
            ("MB", "`MB` does not begin with a number".into()),
            ("-5MB", "`-5MB` does not begin with a number".into()),
            ("1.2.3MB", "`1.2.3MB` does not begin with a number".into()),
            ("5.MB", "`5.MB` does not begin with a number".into()),
            ("1e3MB", format!("`e3MB` is no unit of memory {units}")),
            ("99999999999999TB", "`99999999999999TB` is too large".into()),
        ] {
            assert_eq!(said(text), format!("{what}{end}"));
        }
    }

    #[test]
    fn what_is_rounded_up_suffices() {
        for n in [0, 1, 999, 123_456, 9_999_999, 10_000_000, 187_000_001] {
            let again: ByteSize = ByteSize(n).rounded_up().parse().unwrap();
            assert!(again.0 >= n && again.0 - n < 1_000_000, "{n}");
        }
        let text = |n| ByteSize(n).rounded_up();
        assert_eq!([187_000_001, 1_000_000, 999_001].map(text), ["188MB", "1MB", "1MB"]);
    }
}
