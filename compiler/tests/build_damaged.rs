//! Damaged programs: whatever words are swapped, dropped or repeated in the examples, building them
//! ends with a graph or with diagnostics, never with a panic.

use std::path::Path;

use nnc_compiler::build::{BuildOptions, NoFiles, build};
use nnc_dsl::SourceMap;

/// Damaged variants of each example.
const VARIANTS: usize = 60;

/// Marsaglia's xorshift: the same damage every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Pieces of a text: words, and everything between them.
fn pieces(text: &str) -> Vec<&str> {
    let mut out = vec![];
    let mut start = 0;
    let mut word = None;
    for (i, c) in text.char_indices() {
        let now = c.is_alphanumeric() || c == '_';
        if word.is_some_and(|w: bool| w != now) || (!now && i > start) {
            out.push(&text[start..i]);
            start = i;
        }
        word = Some(now);
    }
    out.push(&text[start..]);
    out
}

#[test]
fn damaged_examples_are_refused_or_built() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let strange =
        ["0", "-1", "9223372036854775807", "3x0", "0.5", "\"same\"", "none", "N", "[]", "relu", "->", "as"];
    for entry in std::fs::read_dir(dir).expect("the examples are there") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|e| e != "nn") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        for _ in 0..VARIANTS {
            let mut words = pieces(&text);
            for _ in 0..=random.below(2) {
                let (i, j) = (random.below(words.len()), random.below(words.len()));
                match random.below(4) {
                    0 => words.swap(i, j),
                    1 => drop(words.remove(i)),
                    2 => words[i] = words[j],
                    _ => words[i] = strange[random.below(strange.len())],
                }
            }
            let mut map = SourceMap::new();
            let root = map.add("damaged.nn", words.concat());
            if let Err(diagnostics) = build(&mut map, root, &NoFiles, &BuildOptions::default()) {
                assert!(!diagnostics.is_empty(), "refused without a word: {}", words.concat());
                nnc_dsl::render(&map, &diagnostics, false);
            }
        }
    }
}
