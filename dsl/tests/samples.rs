//! The programs of `docs/language.md` (section by section) parse without a word.

use nnc_dsl::{SourceMap, parse};

fn clean(text: &str) {
    let mut map = SourceMap::new();
    let file = map.add("sample.nn", text);
    let (_, diagnostics) = parse(&map, file);
    assert!(diagnostics.is_empty(), "{diagnostics:#?}\n{text}");
}

#[test]
fn programs() {
    for (_, text) in SAMPLES {
        clean(text);
    }
}

#[path = "common/samples.rs"]
mod samples;
use samples::SAMPLES;
