//! The canonical layout: samples, comments, line breaks; and that formatting keeps the tree and settles at once.

use nnc_dsl::{SourceMap, dump, format, parse, render};
use proptest::prelude::*;

#[path = "common/generate.rs"]
mod generate;
#[path = "common/samples.rs"]
mod samples;

fn formatted(text: &str) -> String {
    let mut map = SourceMap::new();
    let file = map.add("a.nn", text);
    format(&map, file).unwrap_or_else(|d| panic!("{}\n{text}", render(&map, &d, false)))
}

/// The tree without places.
fn tree(text: &str) -> String {
    let mut map = SourceMap::new();
    let file = map.add("a.nn", text);
    let module = parse(&map, file).0;
    let lines = dump(&map, &module);
    lines.lines().map(|l| l.rsplit_once("  ").unwrap().0.to_owned() + "\n").collect()
}

fn comments(text: &str) -> Vec<String> {
    let mut all: Vec<String> = text
        .lines()
        .filter_map(|l| l.split_once("//"))
        .flat_map(|(_, c)| c.split("//").map(|c| c.trim().to_owned()).collect::<Vec<_>>())
        .collect();
    all.sort();
    all
}

#[track_caller]
fn check(text: &str) -> String {
    let once = formatted(text);
    assert_eq!(tree(&once), tree(text), "the tree has changed:\n{text}\n---\n{once}");
    assert_eq!(comments(&once), comments(text), "comments were lost:\n{text}\n---\n{once}");
    assert_eq!(formatted(&once), once, "not settled, from:\n{text}");
    assert!(once.lines().all(|l| l == l.trim_end()), "blanks at line ends:\n{once}");
    once
}

#[test]
fn samples() {
    for (name, text) in samples::SAMPLES {
        insta::assert_snapshot!(*name, check(text));
    }
}

#[test]
fn library_and_examples() {
    let crate_folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["std", "../examples"] {
        for entry in std::fs::read_dir(crate_folder.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "nn") {
                check(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
}

#[test]
fn canonical_text_stays() {
    for text in CANONICAL {
        assert_eq!(&check(text), text);
    }
}

const CANONICAL: &[&str] = &[
    "",
    "// only a comment\n",
    "use std.vision\nuse \"blocks.nn\"\n\nuse std.core\n",
    "block b(x) { x -> relu }\n",
    "net a {\n    input x: f32[N, 3]  // picture\n    output y = x\n}\n",
    "block b(x) {\n    // first\n    let y = x\n\n    // second\n    y\n    // last\n}\n",
    "block b(x) {\n    let y = x\n        -> f(1) -> g\n        -> h\n    y\n}\n",
    "block b(x) {\n    concat(\n        x -> f,\n        x -> g,  // the second\n        // none\n    )\n}\n",
    "block b(x) {\n    const w = [\n        [1, 0, 1],\n        [0, 1, 0],\n    ]\n    w\n}\n",
    "block b(x) {\n    const w = [\n        1, 0, 1,\n        0, 1, 0,\n    ]\n    w\n}\n",
    "block b(x) {\n    let y = if x.a == 1 { x }\n            else { x -> f }\n    y\n}\n",
    "block b(x) {\n    if x.a == 1 {\n        x\n    } else if x.a == 2 {\n        f(x)\n    } else {\n        x -> f\n    }\n}\n",
    "block b(x) {\n    x -> f(1)       // one\n        -> long(2)  // two\n}\n",
    "block b(x) {\n    let y = x;  // ends here\n    -y -> f\n}\n",
    "block b(x) as c { x -> f as layer{i}.0.{i + 1} -> (g) }\n",
];

#[test]
fn layout() {
    let text = "block   b( x ,y=3 )as c{let a,b=x;;x=-a  *  b^2 // sum
x . y [ : , 1 : 2 ] ->f (
) ->   g( 1,k=2 , )
repeat 3{x=x->f}
for i in 0 .. 3 {x=x->f; x = x -> g}



require x.rank==4 and not x.wide,\"a rather long message about the rank of the tensor, which must be {4} here\"
state s:f32[]=zeros; param t : f32 [ N,3 ]
let z = x -> conv(64, 3, pad = 1) -> batchnorm -> relu -> conv(64, 3, pad = 1) -> batchnorm -> relu -> maxpool(2)
const w = [100000, 200000, 300000, 400000, 500000, 600000, 700000, 800000, 900000, 1000000, 1100000, 1200000]
let long_call = function_of_many(first_argument = 10000000, second_argument = 2000000, third_argument = 30000000)
()->f
}";
    let text = text.replace("()->f", "(x)->f");
    insta::assert_snapshot!(check(&text));
}

#[test]
fn comments_everywhere() {
    for comment in [" // c\n", "\n// c\n", "\n\n\n// c\n\n\n// d\n\n"] {
        for (_, sample) in samples::SAMPLES {
            let sample: String =
                sample.lines().map(|l| l.split("//").next().unwrap().to_owned() + "\n").collect();
            for (at, c) in sample.char_indices().filter(|(_, c)| " (),{}[\n".contains(*c)) {
                let (before, after) = sample.split_at(at + c.len_utf8());
                let text = format!("{before}{comment}{after}");
                let mut map = SourceMap::new();
                let file = map.add("a.nn", text.as_str());
                if parse(&map, file).1.is_empty() && !text.contains("\"{") {
                    check(&text);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_programs(text in generate::program()) {
        check(&text);
    }
}
