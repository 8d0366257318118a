//! Names of classes, one a line, and the likeliest classes of a result.

use std::cmp::Ordering;
use std::path::Path;

use crate::Error;
use crate::error::Result;

/// Reads a file of labels: line n (from 0) names class n. WordNet ids at the start of a line
/// (`n07920052 espresso`) are left out.
pub fn read(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    Ok(text.lines().map(|line| without_wordnet_id(line.trim()).to_string()).collect())
}

fn without_wordnet_id(line: &str) -> &str {
    match line.split_once(' ') {
        Some((id, rest))
            if id.len() == 9 && id.starts_with('n') && id[1..].bytes().all(|b| b.is_ascii_digit()) =>
        {
            rest.trim_start()
        }
        _ => line,
    }
}

/// The `count` largest values with their indices, largest first; equal ones by index; NaN last.
pub fn top(values: impl IntoIterator<Item = f32>, count: usize) -> Vec<(usize, f32)> {
    let mut ranked: Vec<(usize, f32)> = values.into_iter().enumerate().collect();
    ranked.sort_by(|a, b| match (a.1.is_nan(), b.1.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => b.1.total_cmp(&a.1),
    });
    ranked.truncate(count);
    ranked
}

/// Probabilities from logits: `exp(x - max) / sum`, in f64.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f64> = logits.iter().map(|&x| f64::from(x - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|e| (e / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wordnet_ids_are_left_out() {
        assert_eq!(without_wordnet_id("n01440764 tench, Tinca tinca"), "tench, Tinca tinca");
        assert_eq!(without_wordnet_id("new york"), "new york");
        assert_eq!(without_wordnet_id("n0144076x tench"), "n0144076x tench");
    }

    #[test]
    fn the_largest_come_first() {
        assert_eq!(top([0.1, 0.7, 0.7, -1.0], 3), [(1, 0.7), (2, 0.7), (0, 0.1)]);
        assert_eq!(top([f32::NAN, -5.0], 1), [(1, -5.0)]);
    }

    #[test]
    fn softmax_stands_large_logits() {
        assert_eq!(softmax(&[1e4, -1e4]), [1.0, 0.0]);
        assert_eq!(softmax(&[2.0, 2.0]), [0.5, 0.5]);
    }
}
