//! Wrong programs and what is said of them: `tests/wrong/semantic_*.nn`, each with the rendered
//! diagnostics as a snapshot; `warning_*.nn` are accepted with warnings. Lines `// set: name=value` at the top stand for `--set name=value`.

use std::path::{Path, PathBuf};

use nnc_compiler::build::{BuildOptions, NoFiles, build};
use nnc_dsl::SourceMap;

fn programs() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/wrong");
    let mut out: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the wrong programs are there")
        .map(|e| e.expect("readable").path())
        .filter(|p| {
            let name = p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            (name.starts_with("semantic_") || name.starts_with("warning_")) && name.ends_with(".nn")
        })
        .collect();
    out.sort();
    out
}

#[test]
fn wrong_programs_are_explained() {
    let programs = programs();
    assert!(programs.len() >= 60, "only {} programs", programs.len());
    insta::with_settings!({
        snapshot_path => "../../tests/wrong/snapshots",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        for path in programs {
            let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).expect("readable");
            let mut options = BuildOptions::default();
            for set in text.lines().filter_map(|l| l.strip_prefix("// set: ")) {
                let (key, value) = set.split_once('=').expect("name=value");
                options.sets.insert(key.to_string(), value.to_string());
            }
            let mut map = SourceMap::new();
            let root = map.add(format!("{name}.nn"), text);
            let diagnostics = match build(&mut map, root, &NoFiles, &options) {
                Err(diagnostics) => diagnostics,
                Ok(built) if name.starts_with("warning_") => built.warnings,
                Ok(built) => panic!("{name} is accepted, with the warnings {:#?}", built.warnings),
            };
            insta::assert_snapshot!(name, nnc_dsl::render(&map, &diagnostics, false));
        }
    });
}
