//! Whatever the text, parser, renderer and formatter end without a panic.

use nnc_dsl::{SourceMap, dump, format, parse, render};
use proptest::prelude::*;

#[path = "common/samples.rs"]
mod samples;

fn survive(text: &str) {
    let mut map = SourceMap::new();
    let file = map.add("a.nn", text);
    let (module, diagnostics) = parse(&map, file);
    dump(&map, &module);
    render(&map, &diagnostics, false);
    if let Ok(once) = format(&map, file) {
        let again = map.add("b.nn", once.as_str());
        assert_eq!(format(&map, again).expect("formatted text parses"), once, "not settled, from:\n{text}");
    }
}

/// A sample with some of its characters replaced, removed or doubled.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0usize..12, "[-(){}\\[\\],;:.=>\"\n x3é/<]{0,3}");
    (0..samples::SAMPLES.len(), prop::collection::vec(edit, 1..6)).prop_map(|(sample, edits)| {
        let mut text: Vec<char> = samples::SAMPLES[sample].1.chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        survive(&text);
    }

    #[test]
    fn mutated_samples(text in mutated()) {
        survive(&text);
    }

    #[test]
    fn tokens_in_any_order(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "net", "block", "a", "b(x)", "{", "}", "(", ")", "[", "]", "\n", "->", "=", "let", "if", "else", "repeat",
                "3", "3x3", "0..4", "in", "not", "as", "a.{i}", "\"s{x}\"", "// c\n", ",", ";", ":", ".", "-", "^", "for",
                "input", "f32[N]", "param", "require", "train", "use", "const", "\n\n", "block b(x) {",
            ]),
            0..60,
        )
    ) {
        survive(&words.join(" "));
        survive(&format!("block b(x) {{ {} }}", words.join(" ")));
    }
}
