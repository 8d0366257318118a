//! Every wrong program of `tests/wrong/syntax_*.nn` with its rendered diagnostics.
//!
//! `INSTA_UPDATE=always cargo test -p nnc-dsl` blesses the snapshots.

use std::path::Path;

use nnc_dsl::{Severity, SourceMap, parse, render};

#[test]
fn wrong_programs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/wrong");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("syntax_") && name.ends_with(".nn"))
        .collect();
    names.sort();
    assert!(names.len() >= 35, "{names:?}");
    let mut silent = Vec::new();
    for name in &names {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let mut map = SourceMap::new();
        let file = map.add(name.as_str(), text);
        let (_, diagnostics) = parse(&map, file);
        if !diagnostics.iter().any(|d| d.severity == Severity::Error) {
            silent.push(name);
        }
        let rendered = render(&map, &diagnostics, false);
        insta::with_settings!({ snapshot_path => "snapshots/wrong", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name.trim_end_matches(".nn"), rendered);
        });
    }
    assert!(silent.is_empty(), "no error: {silent:?}");
}
