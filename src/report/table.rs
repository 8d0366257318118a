//! Tables in plain text, and numbers as people read them.

use std::fmt;

/// On which side a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells under a header. `Display` draws it, columns as wide as their widest cell.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&str, Align)]) -> Table {
        Table {
            header: columns.iter().map(|&(name, align)| (name.to_string(), align)).collect(),
            rows: vec![],
        }
    }

    /// Adds a row: a cell a column.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.header.len(), "a cell a column");
        self.rows.push(cells);
    }

    fn widths(&self) -> Vec<usize> {
        let width = |i: usize, name: &str| {
            let cells = self.rows.iter().map(|r| r[i].chars().count());
            cells.max().unwrap_or(0).max(name.chars().count())
        };
        self.header.iter().enumerate().map(|(i, (name, _))| width(i, name)).collect()
    }

    fn line(&self, cells: impl Iterator<Item = String>, widths: &[usize]) -> String {
        let cells = cells.zip(widths).zip(&self.header).map(|((cell, &width), (_, align))| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let total = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        writeln!(f, "{}", self.line(self.header.iter().map(|(name, _)| name.clone()), &widths))?;
        writeln!(f, "{}", "─".repeat(total))?;
        for row in &self.rows {
            writeln!(f, "{}", self.line(row.iter().cloned(), &widths))?;
        }
        writeln!(f, "{}", "─".repeat(total))
    }
}

/// `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// `512 B`, `1.5 KiB`, `527.8 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 138_357_544].map(thousands), ["0", "999", "1,000", "138,357,544"]);
    }

    #[test]
    fn bytes_take_the_unit_that_fits() {
        assert_eq!([0, 1023, 1536, 553_430_176].map(bytes), ["0 B", "1023 B", "1.5 KiB", "527.8 MiB"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut t = Table::new(&[("layer", Align::Left), ("n", Align::Right)]);
        t.row(vec!["a".into(), "12345".into()]);
        t.row(vec!["longer".into(), "1".into()]);
        assert_eq!(
            t.to_string(),
            "layer       n\n─────────────\na       12345\nlonger      1\n─────────────\n"
        );
    }
}
