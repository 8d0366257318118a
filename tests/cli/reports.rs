//! `summary`, `graph`, `explain`, `bench`: what they print.

use crate::programs::TINY;
use crate::support::{nnc, nnc_in, nnc_with_stdin, scratch};

/// For a named CPU, since its vectors decide how weights are packed.
#[cfg(target_arch = "x86_64")]
#[test]
fn summary_of_lenet() {
    insta::assert_snapshot!(nnc("summary examples/lenet.nn --target-cpu avx2 --threads 2").ok());
}

/// Parameters as torchvision counts them.
#[test]
fn summaries_count_parameters_and_macs() {
    for (line, parameters, macs) in [
        ("examples/lenet.nn", "61,706", "416,520"),
        ("examples/vgg.nn --set depth=16", "138,357,544", "15,470,264,320"),
        ("examples/resnet.nn --set depth=18", "11,689,512", "1,814,073,344"),
        ("examples/mobilenet_v2.nn", "3,504,872", "300,774,272"),
    ] {
        let text = nnc(&format!("summary {line}")).ok();
        assert!(text.contains(&format!("parameters  {parameters} (")), "{line}: {text}");
        assert!(text.contains(&format!("MACs        {macs}\n")), "{line}: {text}");
    }
}

#[test]
fn the_training_variant_has_auxiliary_heads() {
    let count = |flag: &str| {
        let text = nnc(&format!("summary examples/googlenet.nn {flag}")).ok();
        let line = text.lines().find(|l| l.starts_with("parameters")).expect("a total").to_string();
        line.split_whitespace().nth(1).expect("a number").replace(',', "").parse::<u64>().expect("a number")
    };
    assert_eq!(count(""), 6_624_904);
    assert_eq!(count("--train"), 13_004_888);
}

#[test]
fn graph_of_a_tiny_net() {
    insta::assert_snapshot!("graph_dot", nnc_with_stdin("graph -", TINY.as_bytes()).ok());
    insta::assert_snapshot!("graph_fused_dot", nnc_with_stdin("graph - --fused", TINY.as_bytes()).ok());
}

#[test]
fn graphs_are_drawn_as_svg() {
    let folder = scratch(&[]);
    nnc_in(folder.path(), "graph examples/lenet.nn -o {}/lenet.svg").ok();
    let by_name = std::fs::read_to_string(folder.path().join("lenet.svg")).unwrap();
    assert!(by_name.starts_with("<svg ") && by_name.trim_end().ends_with("</svg>"), "{by_name}");
    assert!(by_name.contains("conv2d conv1"), "{by_name}");
    assert_eq!(nnc("graph examples/lenet.nn --format svg").ok(), by_name);
    nnc("graph examples/googlenet.nn --fused --format svg").ok();
}

#[test]
fn explain_lenet() {
    insta::assert_snapshot!(nnc("explain examples/lenet.nn --target-cpu fma").ok());
}

/// Says the algorithms that the kernels have, of weights as they are and of those that a normalisation is folded into.
#[test]
fn explain_knows_the_algorithms() {
    for net in ["vgg.nn", "resnet.nn"] {
        let explained = nnc(&format!("explain examples/{net} --set N=1 --target-cpu fma")).ok();
        let kernels = nnc(&format!("compile examples/{net} --set N=1 --target-cpu fma --emit kernels")).ok();
        let counts = [2, 4].map(|m| {
            let said = explained.matches(&format!("by Winograd F({m}x{m}, 3x3)")).count();
            let name = format!("conv2d_winograd{m}_");
            let made =
                kernels.lines().filter(|l| l.trim_start().starts_with("run") && l.contains(&name)).count();
            assert_eq!(said, made, "{net}: F({m}x{m}, 3x3)");
            said
        });
        assert!(counts.iter().sum::<usize>() > 0, "{net}");
    }
}

/// Kernels of several convolutions, of two and of three.
#[test]
fn explain_says_what_tasks_make_for_themselves() {
    let explained = nnc("explain examples/mobilenet_v2.nn --set N=1 --target-cpu fma").ok();
    for made in
        ["conv2d `features.1.conv.0.0`", "conv2d `features.2.conv.0.0` and conv2d `features.2.conv.1.0`"]
    {
        let line = format!("\n  by rows: a task makes those of {made} that it reads\n");
        assert!(explained.contains(&line), "{explained}");
    }
    let kernels = nnc("compile examples/mobilenet_v2.nn --set N=1 --target-cpu fma --emit kernels").ok();
    let runs = kernels.lines().filter(|l| l.trim_start().starts_with("run"));
    let several = runs.filter(|l| l.matches("conv2d").count() > 1).count();
    assert_eq!(explained.matches("\n  by rows: ").count(), several);
}

#[test]
fn bench_prints_a_line_of_json() {
    let text = nnc("bench examples/lenet.nn --set N=2 --threads 1 --runs 3 --json").ok();
    let line: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&line["batch"], &line["threads"], &line["runs"]), (&2.into(), &1.into(), &3.into()));
    assert!(line["model"].is_string());
    let (min, median) = (line["ms_min"].as_f64().unwrap(), line["ms_median"].as_f64().unwrap());
    assert!(0.0 < min && min <= median, "{line}");
}

#[test]
fn bench_times_training_steps() {
    let text = nnc("bench examples/lenet.nn --train --set N=2 --threads 1 --runs 3 --json").ok();
    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&line["model"], &line["batch"], &line["runs"]), (&"lenet".into(), &2.into(), &3.into()));
    let text = nnc("bench examples/lenet.nn --train --set N=2 --threads 1 --runs 3").ok();
    assert!(
        text.starts_with("lenet, batch 2, 1 thread: median ")
            && text.contains(" of 3 training steps\nplanned memory "),
        "{text}"
    );
    let profile = nnc("bench examples/lenet.nn --train --set N=2 --threads 1 --runs 3 --profile").ok();
    assert!(profile.contains("conv1"), "{profile}");
    let none = nnc("bench examples/pooling.nn --train --set H=4 --set W=4 --set C=1").failed();
    assert!(none.contains("the net has no `train` section"), "{none}");
}

#[test]
fn bench_profiles_kernels() {
    let text = nnc("bench examples/lenet.nn --set N=1 --threads 1 --runs 3 --profile").ok();
    let header = text.lines().next().unwrap_or_default();
    let columns: Vec<&str> = header.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
    let known = ["ms", "%", "GFLOP/s", "% peak", "GB/s", "% memory", "kernel", "layers", "line"];
    assert_eq!(columns, known, "{text}");
    assert!(text.contains("\n% peak: of ") && text.contains("\n% memory: of "), "{text}");
    assert!(text.contains("lenet.nn:"), "the source line is named: {text}");
    assert!(text.contains("medians of 3 runs"), "{text}");
}
