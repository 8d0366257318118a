//! A confusion matrix: which class was taken for which.

use std::fmt;

/// Counts of examples by their class (row) and the class that was predicted (column).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    names: Vec<String>,
    counts: Vec<u64>,
}

impl Confusion {
    /// For so many classes; names that are missing are numbers.
    pub fn new(classes: usize, names: &[String]) -> Confusion {
        let name = |i: usize| names.get(i).cloned().unwrap_or_else(|| i.to_string());
        Confusion { names: (0..classes).map(name).collect(), counts: vec![0; classes * classes] }
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.names.len()
    }

    /// Counts an example; classes that there are not are left out.
    pub fn add(&mut self, label: usize, predicted: usize) {
        let n = self.classes();
        if label < n && predicted < n {
            self.counts[label * n + predicted] += 1;
        }
    }

    /// So many examples of class `label` were taken for class `predicted`.
    pub fn count(&self, label: usize, predicted: usize) -> u64 {
        self.counts[label * self.classes() + predicted]
    }

    /// How many examples were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many were right.
    pub fn right(&self) -> u64 {
        (0..self.classes()).map(|i| self.count(i, i)).sum()
    }

    /// The share of examples that were right, 0 without any.
    pub fn accuracy(&self) -> f64 {
        self.right() as f64 / self.total().max(1) as f64
    }
}

impl fmt::Display for Confusion {
    /// A table with the share of each class that was found; 0 is a dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.classes();
        let longest = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(1);
        let digits = self.counts.iter().max().map_or(1, |c| c.to_string().len());
        let width = longest.min(8).max(digits);
        let short = |i: usize| self.names[i].chars().take(width).collect::<String>();
        write!(f, "{:longest$} ", "")?;
        for i in 0..n {
            write!(f, " {:>width$}", short(i))?;
        }
        writeln!(f, "   found")?;
        for label in 0..n {
            write!(f, "{:<longest$} ", self.names[label])?;
            for predicted in 0..n {
                match self.count(label, predicted) {
                    0 => write!(f, " {:>width$}", ".")?,
                    c => write!(f, " {c:>width$}")?,
                }
            }
            let row: u64 = (0..n).map(|p| self.count(label, p)).sum();
            match row {
                0 => writeln!(f, "       -")?,
                _ => writeln!(f, "  {:>5.1} %", 100.0 * self.count(label, label) as f64 / row as f64)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_table() {
        let mut c = Confusion::new(3, &["cat".into(), "dog".into()]);
        for (label, predicted, times) in [(0, 0, 12), (0, 1, 3), (1, 1, 7), (1, 5, 1)] {
            (0..times).for_each(|_| c.add(label, predicted));
        }
        assert_eq!((c.total(), c.right()), (22, 19));
        assert_eq!(
            c.to_string(),
            "     cat dog   2   found\n\
             cat   12   3   .   80.0 %\n\
             dog    .   7   .  100.0 %\n\
             2      .   .   .       -\n"
        );
    }
}
