//! Numbers for symbols, and counts of work.

use super::{node, source};
use crate::graph::verify::verify;
use crate::graph::{Bindings, Graph};

fn bindings(pairs: &[(&str, usize)]) -> Bindings {
    pairs.iter().map(|&(s, n)| (s.to_string(), n)).collect()
}

fn example() -> Graph {
    let mut g = Graph::new("g");
    let x = source(&mut g, "input", "x", "f32[N, 3, H, W]");
    let w = source(&mut g, "parameter", "w", "f32[8, 3, 3, 3]");
    let x = node(&mut g, "conv2d stride=2x2", &[x, w]);
    let x = node(&mut g, "slice axis=2, start=0, end=floor((H - 1)/2)", &[x]);
    let x = node(&mut g, "reshape shape=[N, floor((H - 1)/2)*floor((W - 1)/2)*8]", &[x]);
    let one = node(&mut g, "reduce_sum axes=[1], keep", &[x]);
    node(&mut g, "broadcast shape=[N, T]", &[one]);
    g
}

#[test]
fn symbols_of_types_and_attributes() {
    assert_eq!(example().symbols(), ["H", "N", "T", "W"]);
}

#[test]
fn specialises_everywhere() {
    let g = example();
    let all = g.specialise(&bindings(&[("N", 2), ("H", 7), ("W", 9), ("T", 4)])).unwrap();
    assert_eq!(all.symbols(), [""; 0]);
    verify(&all).unwrap();
    let types: Vec<String> = all.ids().map(|id| all.node(id).ty.to_string()).collect();
    assert_eq!(types[2..], ["f32[2, 8, 3, 4]", "f32[2, 8, 3, 4]", "f32[2, 96]", "f32[2, 1]", "f32[2, 4]"]);
    let some = g.specialise(&bindings(&[("H", 7), ("unused", 1)])).unwrap();
    assert_eq!(some.symbols(), ["N", "T", "W"]);
    verify(&some).unwrap();
}

#[test]
fn sizes_that_do_not_fit() {
    let e = example().specialise(&bindings(&[("H", 2)])).unwrap_err();
    assert_eq!(
        e.to_string(),
        "conv2d: the window is larger than the padded input: it covers 3 rows, `x` has 2 with padding"
    );
    let e = example().specialise(&bindings(&[("N", 0)])).unwrap_err();
    assert_eq!(e.to_string(), "input `x`: dimension 0 must be at least 1, it would be 0 in f32[0, 3, H, W]");
    let e = example().specialise(&bindings(&[("N", usize::MAX), ("H", 7)])).unwrap_err();
    assert!(e.to_string().contains("is too large"), "{e}");
}

#[test]
fn multiply_accumulates() {
    let mut g = Graph::new("g");
    let x = source(&mut g, "input", "x", "f32[2, 4, 8, 8]");
    let w = source(&mut g, "parameter", "w", "f32[6, 2, 3, 3]");
    let conv = node(&mut g, "conv2d groups=2, padding=1x1", &[x, w]);
    let up = source(&mut g, "parameter", "up", "f32[4, 3, 2, 2]");
    let transposed = node(&mut g, "conv_transpose2d stride=2x2", &[x, up]);
    let flat = node(&mut g, "reshape shape=[2, 256]", &[x]);
    let fc = source(&mut g, "parameter", "fc", "f32[10, 256]");
    let linear = node(&mut g, "linear", &[flat, fc]);
    let product = node(&mut g, "matmul", &[x, x]);
    assert_eq!(g.macs(conv), Some(2 * 6 * 64 * 2 * 9));
    assert_eq!(g.macs(transposed), Some(2 * 4 * 64 * 3 * 4));
    assert_eq!(g.macs(linear), Some(2 * 10 * 256));
    assert_eq!(g.macs(product), Some(2 * 4 * 8 * 8 * 8));
    assert_eq!(g.macs(flat), Some(0));
    assert_eq!(example().macs(example().ids().nth(2).unwrap()), None);
}
